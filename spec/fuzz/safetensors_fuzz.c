/* Fuzzer of gr_safetensors_read: see fuzz.h. */
#include "fuzz.h"

/* Looks at all that was read, and hands on the first tensor. */
static gr_status read_first(gr_ctx *ctx, const char *path, gr_tensor **out) {
    gr_dict *d = NULL;
    const char *name;
    volatile uint8_t sum = 0;
    gr_status s = gr_safetensors_read(ctx, path, &d);
    FUZZ_CHECK((s == GR_OK) == (d != NULL));
    if (s != GR_OK) return s;
    for (int i = 0; i < gr_dict_count(d); i++) {
        gr_tensor *t = gr_dict_at_peek(d, i, &name);
        const uint8_t *p = gr_tensor_data_peek(t);
        size_t n = (size_t)gr_tensor_numel(t) * gr_dtype_size(gr_tensor_dtype(t));
        FUZZ_CHECK(gr_dict_find_peek(d, name) == t);
        for (size_t k = 0; k < n; k++) sum += p[k];
    }
    for (int i = 0; i < gr_dict_texts(d); i++) {
        const char *text = gr_dict_text_peek(d, i, &name);
        FUZZ_CHECK(gr_dict_find_text_peek(d, name) == text && strlen(text) < FUZZ_MAX);
    }
    *out = gr_retain(gr_dict_at_peek(d, 0, NULL));
    gr_release(d);
    return *out ? GR_OK : gr_tensor_scalar(ctx, GR_U8, 0, out);
}

int main(int argc, char **argv) {
    return fuzz_main(argc, argv, "spec/fuzz/corpus/safetensors/*", "0123456789{}[]\":,-.eFIUB\\", read_first);
}
