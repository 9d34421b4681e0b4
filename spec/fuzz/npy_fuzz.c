/* Fuzzer of gr_npy_read: see fuzz.h. */
#include "fuzz.h"

int main(int argc, char **argv) {
    return fuzz_main(argc, argv, "spec/fuzz/corpus/npy/*", "0123456789(),'<>|fiub:{}TFL \x01\x02\x93", gr_npy_read);
}
