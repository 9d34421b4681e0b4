#include "draw.h"

#include <string.h>

#include "iter.h"
#include "parallel.h"

#define DRAW_PIECE 256          /* groups: 16384 elements, 5-40 us */
#define DRAW_REGION (64 * 1024) /* groups between two looks at the interrupt flag: some ms */

gr_status gri_shape_draw(gri_call *c, bool floating) {
    const gri_draw_attrs *a = c->attrs;
    GR_TRY(gri_spec_given(c->ctx, &a->shape, a->dtype, &c->spec[0]));
    if (floating && a->dtype > GR_F64)
        return gr_fail(c->ctx, GR_ERR_DTYPE, "draws f32 or f64, not %s", gr_dtype_name((gr_dtype)a->dtype));
    return GR_OK;
}

typedef struct draw_job {
    gri_draw draw;
    const void *attrs;
    char *data;
    size_t size; /* of an element */
    int64_t numel, first;
} draw_job;

static void draw_piece(void *arg, int64_t piece) {
    const draw_job *j = arg;
    int64_t first = j->first + piece * DRAW_PIECE, whole = j->numel / GRI_GROUP - first;
    if (whole > DRAW_PIECE) whole = DRAW_PIECE;
    char *to = j->data + (size_t)first * GRI_GROUP * j->size;
    if (whole > 0) j->draw(to, first, whole, j->attrs);
    size_t rest = (size_t)(j->numel - (first + whole) * GRI_GROUP) * j->size;
    if (whole == DRAW_PIECE || rest == 0) return;
    _Alignas(64) char group[GRI_GROUP * sizeof(double)];
    j->draw(group, first + whole, 1, j->attrs);
    memcpy(to + (size_t)whole * GRI_GROUP * j->size, group, rest);
}

static gr_status draw_dense(gri_call *c, gri_draw draw, gr_tensor *t) {
    draw_job j = {draw, c->attrs, t->data, gr_dtype_size((gr_dtype)t->dtype), t->numel, 0};
    for (int64_t groups = (t->numel + GRI_GROUP - 1) / GRI_GROUP; j.first < groups; j.first += DRAW_REGION) {
        int64_t n = groups - j.first < DRAW_REGION ? groups - j.first : DRAW_REGION;
        gri_parallel(c->ctx, (n + DRAW_PIECE - 1) / DRAW_PIECE, draw_piece, &j);
        GR_TRY(gri_poll(c->ctx));
    }
    return GR_OK;
}

gr_status gri_draw_fill(gri_call *c, gri_draw draw) {
    gr_tensor *out = c->out[0], *t;
    if (out->contiguous) return draw_dense(c, draw, out);
    gri_spec spec = gri_spec_of(out);
    GR_TRY(gri_tensor_like_spec(c->ctx, &spec, &t));
    gr_status status = draw_dense(c, draw, t);
    if (status == GR_OK) status = gri_copy(c->ctx, out, t, GRI_SET);
    gr_release(t);
    return status;
}
