/* Copies between strided tensors against element-by-element ones: dtypes, permutations, gaps, broadcasting, regions,
 * set and add, sizes around tiles and pieces; the same bits on any number of threads; nothing beside is touched. */
#include "check.h"

#include "copy.h"

static uint64_t random_state = 5;
static int64_t between(int64_t lo, int64_t hi) {
    return lo + (int64_t)(check_random(&random_state) * (double)(hi - lo + 1));
}

/* ---- a tensor with holes: permuted, sliced, in a buffer whose other elements must stay as they are ---------- */

typedef struct holed {
    gr_tensor *whole, *view;
} holed;

/* A view of the given dims whose memory order is a random permutation, with random gaps. */
static holed holed_new(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, bool gaps) {
    int order[GR_MAX_RANK];
    int64_t strides[GR_MAX_RANK], size = 1;
    holed h;
    for (int d = 0; d < rank; d++) order[d] = d;
    for (int d = rank - 1; d > 0; d--) {
        int k = (int)between(0, d), was = order[d];
        order[d] = order[k];
        order[k] = was;
    }
    for (int d = rank - 1; d >= 0; d--) {
        int64_t gap = gaps && between(0, 3) == 0 ? between(1, 3) : 1;
        strides[order[d]] = size * gap;
        size *= gap * dims[order[d]];
    }
    check_ok(ctx, gr_tensor_new(ctx, t, 1, (int64_t[]){size + 2}, &h.whole));
    for (int64_t i = 0; i < h.whole->numel; i++) check_put(h.whole, i, (double)between(0, 100));
    check_ok(ctx, gri_tensor_view(h.whole, rank, dims, strides, 1, &h.view));
    return h;
}

static void holed_free(holed h) {
    gr_release(h.view);
    gr_release(h.whole);
}

/* dst = or += src, broadcast, element by element: values are small whole numbers, exact in every dtype but for u8,
 * which wraps around. */
static void plain_copy(gr_tensor *dst, const gr_tensor *src, gri_mode mode) {
    for (int64_t i = 0; i < dst->numel; i++) {
        int64_t rest = i, from = 0, step = 1, at[GR_MAX_RANK];
        for (int d = dst->rank - 1; d >= 0; d--) {
            at[d] = rest % dst->dims[d];
            rest /= dst->dims[d];
        }
        for (int d = src->rank - 1; d >= 0; d--) {
            from += step * (src->dims[d] == 1 ? 0 : at[d + dst->rank - src->rank]);
            step *= src->dims[d];
        }
        double v = check_get(src, from) + (mode == GRI_ADD ? check_get(dst, i) : 0);
        check_put(dst, i, dst->dtype == GR_U8 ? fmod(v, 256) : v);
    }
}

static void same_bytes(const gr_tensor *a, const gr_tensor *b) {
    assert_memory_equal(a->storage->data, b->storage->data, a->storage->size);
}

/* The same view of a copy of its buffer. */
static holed holed_copy(gr_ctx *ctx, holed h) {
    holed c;
    check_ok(ctx, gr_tensor_new(ctx, (gr_dtype)h.whole->dtype, 1, h.whole->dims, &c.whole));
    memcpy(c.whole->data, h.whole->data, h.whole->storage->size);
    check_ok(ctx, gri_tensor_view(c.whole, h.view->rank, h.view->dims, h.view->strides, 1, &c.view));
    return c;
}

/* ---- tests -------------------------------------------------------------------------------------------------- */

static void one_copy(gr_ctx *ctx, int rank, const int64_t *dims, bool gaps) {
    gr_dtype from = (gr_dtype)between(0, 3), to = between(0, 2) ? from : (gr_dtype)between(0, 3);
    gri_mode mode = between(0, 1) ? GRI_ADD : GRI_SET;
    int64_t small[GR_MAX_RANK];
    int lost = between(0, 3) ? 0 : (int)between(0, rank);
    for (int d = lost; d < rank; d++) small[d - lost] = between(0, 5) ? dims[d] : 1;
    holed src = holed_new(ctx, from, rank - lost, small, gaps), dst = holed_new(ctx, to, rank, dims, gaps);
    holed want = holed_copy(ctx, dst);
    plain_copy(want.view, src.view, mode);
    check_ok(ctx, gri_copy(ctx, dst.view, src.view, mode));
    same_bytes(dst.whole, want.whole);
    holed_free(src);
    holed_free(dst);
    holed_free(want);
}

static void any_strides(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    for (int i = 0; i < 3000; i++) {
        int64_t dims[GR_MAX_RANK];
        int rank = (int)between(0, i % 10 ? 4 : GR_MAX_RANK);
        for (int d = 0; d < rank; d++) dims[d] = between(i % 7 ? 1 : 0, rank > 4 ? 2 : 6);
        one_copy(ctx, rank, dims, i % 2);
    }
    check_ctx_free(ctx);
}

/* Sizes around the edge of tiles (16), of pieces in a tile (64, 1024), and small ones beside them. */
static void tiles_and_their_edges(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65};
    gr_ctx *ctx = check_ctx(1, NULL);
    for (int i = 0; i < 400; i++) {
        int64_t dims[3];
        for (int d = 0; d < 3; d++) dims[d] = sizes[between(0, 12)];
        dims[between(0, 2)] = between(1, 3);
        one_copy(ctx, 3, dims, i % 2);
    }
    for (int i = 0; i < 8; i++) one_copy(ctx, 2, CHECK_DIMS(20 + i, 1017 + i), false);
    for (int i = 0; i < 8; i++) one_copy(ctx, 2, CHECK_DIMS(1020 + i, 60 + i), true);
    check_ctx_free(ctx);
}

/* Large enough to be cut into pieces. */
static void threads_do_not_show(void **state) {
    (void)state;
    static const gr_dtype dtypes[] = {GR_F32, GR_F64, GR_I64, GR_U8};
    gr_ctx *ctx = check_ctx(3, NULL);
    for (int k = 0; k < 4; k++)
        for (int mode = 0; mode < 2; mode++) {
            gr_tensor *x, *turned, *way[2], *y;
            uint64_t seed = 9;
            x = check_tensor(ctx, dtypes[k], CHECK_DIMS(3, 700, 331), 0, 0, &seed);
            int64_t most = dtypes[k] <= GR_F64 ? 63 : 255; /* no NaN and no infinity */
            for (size_t b = 0; b < x->storage->size; b++) x->data[b] = (char)between(0, most);
            const int64_t dims[] = {331, 3, 700}, strides[] = {1, 331 * 700, 331};
            check_ok(ctx, gri_tensor_view(x, 3, dims, strides, 0, &turned));
            for (int threads = 0; threads < 2; threads++) {
                check_ok(ctx, gr_set_threads(ctx, threads ? 3 : 1));
                check_ok(ctx, gr_tensor_new(ctx, dtypes[k], 3, turned->dims, &y));
                check_ok(ctx, gri_copy(ctx, y, turned, GRI_SET));
                check_ok(ctx, gri_copy(ctx, y, turned, (gri_mode)mode));
                way[threads] = y;
            }
            check_same_bits(way[0], way[1]);
            for (int64_t i = 0; i < y->numel && mode == GRI_SET; i += 977)
                assert_true(check_get(y, i) == check_get(turned, i));
            gr_release(way[0]);
            gr_release(way[1]);
            gr_release(turned);
            gr_release(x);
        }
    check_ctx_free(ctx);
}

static void into_a_region(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    for (int i = 0; i < 1500; i++) {
        int64_t dims[4], part[4], strides[4];
        int rank = (int)between(1, 4), dim = (int)between(0, rank - 1), out = rank;
        for (int d = 0; d < rank; d++) part[d] = dims[d] = between(1, 7);
        int64_t start = between(0, dims[dim] - 1), step = between(1, 3);
        int64_t most = (dims[dim] - 1 - start) / step + 1;
        bool one = between(0, 2) == 0;
        part[dim] = one ? 1 : between(0, most);
        gri_mode mode = between(0, 1) ? GRI_ADD : GRI_SET;
        gr_dtype t = (gr_dtype)between(0, 3);
        holed dst = holed_new(ctx, t, rank, dims, true), want = holed_copy(ctx, dst), src;
        memcpy(strides, want.view->strides, sizeof strides);
        strides[dim] *= step;
        if (one) {
            for (int d = dim; d < rank - 1; d++) part[d] = part[d + 1], strides[d] = strides[d + 1];
            out--;
        }
        gr_tensor *region;
        check_ok(ctx, gri_tensor_view(want.view, out, part, strides, start * want.view->strides[dim], &region));
        src = holed_new(ctx, i % 3 ? t : GR_F32, out, part, true);
        plain_copy(region, src.view, mode);
        check_ok(ctx, gri_copy_into(ctx, dst.view, dim, start, step, src.view, mode));
        same_bytes(dst.whole, want.whole);
        gr_release(region);
        holed_free(src);
        holed_free(dst);
        holed_free(want);
    }
    check_ctx_free(ctx);
}

static void zeros(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    for (int i = 0; i < 200; i++) {
        int64_t dims[3] = {between(1, 5), between(1, 5), between(1, 5)};
        holed h = holed_new(ctx, (gr_dtype)(i % 4), 3, dims, i % 2), want = holed_copy(ctx, h);
        for (int64_t e = 0; e < want.view->numel; e++) check_put(want.view, e, 0);
        check_ok(ctx, gri_zero(ctx, h.view));
        same_bytes(h.whole, want.whole);
        holed_free(h);
        holed_free(want);
    }
    check_ctx_free(ctx);
}

/* NaN payloads, denormals and -0 pass through a copy bit by bit. */
static void bits_are_kept(void **state) {
    (void)state;
    static const uint32_t odd[] = {0x7fc12345, 0xff812345, 1, 0x80000000, 0x7f800000, 0x807fffff, 0, 0x3f800000};
    gr_ctx *ctx = check_ctx(1, NULL);
    gr_tensor *x, *turned, *y;
    check_ok(ctx, gr_tensor_new(ctx, GR_F32, 2, (int64_t[]){40, 24}, &x));
    for (int i = 0; i < 40 * 24; i++) ((uint32_t *)(void *)x->data)[i] = odd[i % 7];
    check_ok(ctx, gri_tensor_view(x, 2, (int64_t[]){24, 40}, (int64_t[]){1, 24}, 0, &turned));
    check_ok(ctx, gr_tensor_new(ctx, GR_F32, 2, turned->dims, &y));
    check_ok(ctx, gri_copy(ctx, y, turned, GRI_SET));
    for (int i = 0; i < 24; i++)
        for (int j = 0; j < 40; j++)
            assert_int_equal(((uint32_t *)(void *)y->data)[i * 40 + j], ((uint32_t *)(void *)x->data)[j * 24 + i]);
    gr_release(x);
    gr_release(turned);
    gr_release(y);
    check_ctx_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_strides),
        cmocka_unit_test(tiles_and_their_edges),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(into_a_region),
        cmocka_unit_test(zeros),
        cmocka_unit_test(bits_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
