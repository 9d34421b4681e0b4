/* Fuzzer of gr_idx_read: see fuzz.h. */
#include "fuzz.h"

int main(int argc, char **argv) {
    return fuzz_main(argc, argv, "spec/fuzz/corpus/idx/*", "\x01\x02\x08\x09\x0b\x0c\x0d\x0e\x10\xff", gr_idx_read);
}
