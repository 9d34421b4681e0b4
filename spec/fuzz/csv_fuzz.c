/* Fuzzer of gr_csv_read: see fuzz.h. */
#include "fuzz.h"

int main(int argc, char **argv) {
    return fuzz_main(argc, argv, "spec/fuzz/corpus/csv/*", "0123456789.,;-+eE \t\r\nnaifx\"", gr_csv_read);
}
