/* Fuzzer of gr_safetensors_read: see fuzz.h. */
#include "fuzz.h"

static gr_status read_first(gr_ctx *ctx, const char *path, gr_tensor **out) {
    return fuzz_dict(ctx, path, gr_safetensors_read, out);
}

int main(int argc, char **argv) {
    return fuzz_main(argc, argv, "spec/fuzz/corpus/safetensors/*", "0123456789{}[]\":,-.eFIUB\\", read_first);
}
