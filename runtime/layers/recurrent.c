/* RNN, LSTM, GRU: recurrent layers over whole sequences, with PyTorch's interface and parameter names; and their
 * cells, which take one step.
 *
 *     x[t,n,in] h0[layers,n,h]? (c0)? → y[t,n,h], h_n[layers,n,h] (, c_n)
 *
 * `layers` counts directions too, the forward one first: num_layers * 2 where bidirectional, and y is then [t,n,2h],
 * forward and backward side by side. x is [n,t,in] and y [n,t,h] with batch_first (states are not turned), [t,in] and
 * [t,h] without a batch. An absent state is zero. Each layer k and direction has weight_ih_lk [gates*h, in] and
 * weight_hh_lk [gates*h, h], and bias_ih_lk and bias_hh_lk [gates*h], with _reverse for the backward one, drawn from
 * U(-1/√h, 1/√h). Dropout acts between layers, in training.
 *
 * The products of the input with weight_ih are one product for all steps; the rest is one op for each layer and
 * direction (ops/rnn.c, lstm.c, gru.c). Both biases of RNN and LSTM are added first and come in with it; in GRU
 * bias_hh belongs to the recurrence.
 *
 * RNNCell, LSTMCell, GRUCell: x[n,in] h[n,h]? (c)? → h[n,h] (, c), or all of them without n: one step of the same. */
#include "layer.h"

#include <math.h>
#include <stdio.h>

#include "terms.h"

typedef struct recurrent_attrs {
    int64_t input_size, hidden_size, num_layers, nonlinearity;
    bool bias, batch_first, bidirectional;
    double dropout;
} recurrent_attrs;

typedef struct recurrent_form { /* what tells the three apart */
    const gr_op *op;
    int gates, states;
    bool apart; /* bias_hh goes into the recurrence */
} recurrent_form;

static const recurrent_form recurrent_rnn = {&gri_op_rnn, 1, 1, false};
static const recurrent_form recurrent_lstm = {&gri_op_lstm, 4, 2, false};
static const recurrent_form recurrent_gru = {&gri_op_gru, 3, 1, true};

static const char *const recurrent_states[] = {"h0", "c0"};

/* recurrent_init_rnn, … from recurrent_init with the form. */
#define RECURRENT_FUNCTIONS(stem, name)                                                                      \
    static gr_status stem##_init_##name(gr_layer *l) { return stem##_init(l, &recurrent_##name); }           \
    static gr_status stem##_forward_##name(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {   \
        (void)n_in;                                                                                          \
        return stem##_forward(l, &recurrent_##name, in, out);                                                \
    }

/* ---- parameters ------------------------------------------------------------------------------------------- */

static gr_status recurrent_param(gr_layer *l, const char *name, const char *suffix, int rank, int64_t rows,
                                 int64_t columns, double bound) {
    char full[64];
    gr_tensor *t;
    snprintf(full, sizeof full, "%s%s", name, suffix);
    GR_TRY(gri_layer_param(l, full, rank, (int64_t[]){rows, columns}, &t));
    return gri_uniform_(t, bound);
}

/* The four, or two, parameters of a direction of a layer, or of a cell. */
static gr_status recurrent_params(gr_layer *l, const recurrent_form *f, int64_t in, int64_t h, bool bias,
                                  const char *suffix) {
    double bound = 1 / sqrt((double)h);
    int64_t rows = f->gates * h;
    GR_TRY(recurrent_param(l, "weight_ih", suffix, 2, rows, in, bound));
    GR_TRY(recurrent_param(l, "weight_hh", suffix, 2, rows, h, bound));
    if (!bias) return GR_OK;
    GR_TRY(recurrent_param(l, "bias_ih", suffix, 1, rows, 0, bound));
    return recurrent_param(l, "bias_hh", suffix, 1, rows, 0, bound);
}

static gr_status recurrent_init(gr_layer *l, const recurrent_form *f) {
    const recurrent_attrs *a = l->attrs;
    char suffix[40];
    if (a->input_size < 1 || a->hidden_size < 1 || a->num_layers < 1)
        return gr_fail(l->head.ctx, GR_ERR_ARG,
                       "input_size = %lld, hidden_size = %lld, num_layers = %lld: expected at least 1 each",
                       (long long)a->input_size, (long long)a->hidden_size, (long long)a->num_layers);
    for (int64_t k = 0; k < a->num_layers; k++)
        for (int d = 0; d <= a->bidirectional; d++) {
            int64_t in = k == 0 ? a->input_size : a->hidden_size * (1 + a->bidirectional);
            snprintf(suffix, sizeof suffix, "_l%lld%s", (long long)k, d ? "_reverse" : "");
            GR_TRY(recurrent_params(l, f, in, a->hidden_size, a->bias, suffix));
        }
    return GR_OK;
}

/* ---- one direction of one layer --------------------------------------------------------------------------- */

/* made: y[steps,batch,h] and the last of each state [batch,h], +1 each. x is [steps,batch,in]; the parameters are the
 * index-th group of the layer's. */
static gr_status recurrent_direction(gr_layer *l, const recurrent_form *f, int64_t index, gri_recurrent_attrs a,
                                     bool bias, gr_tensor *x, gr_tensor *const *state, gr_tensor **made) {
    gri_terms v = {.ctx = l->head.ctx};
    const gri_member *p = l->params + index * (bias ? 4 : 2);
    gr_tensor *b_ih = bias ? p[2].tensor : NULL, *b_hh = bias ? p[3].tensor : NULL, *out[GRI_MAX_OUT], *results[3];
    gr_tensor *in[5];
    int n = 0;
    if (bias && !f->apart) b_ih = GRI_TERM(&v, add, b_ih, b_hh);
    in[n++] = GRI_TERM(&v, linear, x, p[0].tensor, b_ih);
    in[n++] = p[1].tensor;
    if (f->apart) in[n++] = b_hh;
    for (int s = 0; s < f->states; s++) in[n++] = state[s];
    gri_term_all(&v, f->op, n, in, &a, out);
    results[0] = out[0];
    for (int s = 0; s < f->states; s++) results[1 + s] = gri_term_at(&v, out[s], a.reverse ? 0 : -1);
    return gri_terms_close(&v, 1 + f->states, results, made);
}

/* ---- layers ----------------------------------------------------------------------------------------------- */

static gr_status recurrent_check_pair(gr_ctx *ctx, const recurrent_form *f, gr_tensor *const *in) {
    if (f->states < 2 || !in[1] == !in[2]) return GR_OK;
    return gr_fail(ctx, GR_ERR_ARG, "%s is given without %s", recurrent_states[!in[1]], recurrent_states[!in[2]]);
}

static gr_status recurrent_check(const gr_layer *l, const recurrent_form *f, gr_tensor *const *in) {
    const recurrent_attrs *a = l->attrs;
    const gr_tensor *x = in[0];
    gr_ctx *ctx = l->head.ctx;
    int64_t layers = a->num_layers * (1 + a->bidirectional);
    if (x->rank != 2 && x->rank != 3)
        return gr_fail(ctx, GR_ERR_SHAPE, "input is %s, expected [%s,%lld], or [steps,%lld] without a batch",
                       gri_tensor_text(x), a->batch_first ? "batch,steps" : "steps,batch", (long long)a->input_size,
                       (long long)a->input_size);
    if (x->dims[x->rank - 1] != a->input_size)
        return gr_fail(ctx, GR_ERR_SHAPE, "input has %lld features, expected %lld %s",
                       (long long)x->dims[x->rank - 1], (long long)a->input_size, gri_dims_text(x->rank, x->dims));
    bool batch = x->rank == 3, turned = batch && a->batch_first;
    if (x->dims[turned] < 1) return gr_fail(ctx, GR_ERR_SHAPE, "input is %s: it has no steps", gri_tensor_text(x));
    int64_t want[] = {layers, batch ? x->dims[!turned] : a->hidden_size, a->hidden_size};
    for (int s = 0; s < f->states; s++) {
        const gr_tensor *t = in[1 + s];
        if (t && !gri_same_dims(t->rank, t->dims, x->rank, want))
            return gr_fail(ctx, GR_ERR_SHAPE, "%s is %s, expected %s: layers times directions, %shidden",
                           recurrent_states[s], gri_tensor_text(t), gri_dims_text(x->rank, want),
                           batch ? "batch, " : "");
    }
    return recurrent_check_pair(ctx, f, in);
}

/* A layer's y from x, and the last states of its directions into last[state][index]. */
static gr_tensor *recurrent_layer(gri_terms *v, gr_layer *l, const recurrent_form *f, int64_t k, gr_tensor *x,
                                  gr_tensor *const *initial, gr_tensor **const *last) {
    const recurrent_attrs *a = l->attrs;
    gr_tensor *y[2], *state[2] = {NULL, NULL}, *made[3];
    for (int d = 0; d <= a->bidirectional; d++) {
        int64_t index = k * (1 + a->bidirectional) + d;
        gri_recurrent_attrs own = {.reverse = d, .nonlinearity = a->nonlinearity};
        for (int s = 0; s < f->states; s++)
            if (initial[s]) state[s] = gri_term_at(v, initial[s], index);
        if (v->status == GR_OK) v->status = recurrent_direction(l, f, index, own, a->bias, x, state, made);
        if (v->status != GR_OK) return NULL;
        y[d] = gri_term_own(v, made[0]);
        for (int s = 0; s < f->states; s++) last[s][index] = gri_term_own(v, made[1 + s]);
    }
    gr_tensor *whole = a->bidirectional ? gri_term_cat(v, 2, y, 2) : y[0];
    if (!l->training || a->dropout == 0 || k == a->num_layers - 1) return whole;
    gri_dropout_attrs drop = {.p = a->dropout};
    gr_random_next(l->head.ctx, &drop.seed, &drop.counter);
    return gri_term(v, &gri_op_dropout, 1, &whole, &drop);
}

/* x as [steps,batch,in], or y as the layer gives it: the second dim taken in or out, or the first two exchanged. */
static gr_tensor *recurrent_turn(gri_terms *v, gr_tensor *x, bool batch, bool batch_first, bool in) {
    const int64_t dims[] = {0, 1}, one = 1;
    if (batch) return batch_first ? gri_term(v, &gri_op_transpose, 1, &x, dims) : x;
    if (in) return gri_term(v, &gri_op_unsqueeze, 1, &x, &one);
    return gri_term(v, &gri_op_select, 1, &x, &(gri_select_attrs){.dim = 1, .index = 0});
}

static gr_status recurrent_forward(gr_layer *l, const recurrent_form *f, gr_tensor *const *in, gr_tensor **out) {
    const recurrent_attrs *a = l->attrs;
    GR_TRY(recurrent_check(l, f, in));
    gri_terms v = {.ctx = l->head.ctx};
    int64_t layers = a->num_layers * (1 + a->bidirectional);
    bool batch = in[0]->rank == 3;
    size_t room = (size_t)layers * 2 * sizeof *in;
    gr_tensor **last = gri_new(v.ctx, room), *initial[2] = {NULL, NULL}, *result[3];
    if (!last) return GR_ERR_MEMORY;
    gr_tensor **const lasts[] = {last, last + layers};
    gr_tensor *x = recurrent_turn(&v, in[0], batch, a->batch_first, true);
    for (int s = 0; s < f->states; s++)
        if (in[1 + s]) initial[s] = recurrent_turn(&v, in[1 + s], batch, false, true);
    for (int64_t k = 0; v.status == GR_OK && k < a->num_layers; k++)
        x = recurrent_layer(&v, l, f, k, x, initial, lasts);
    result[0] = recurrent_turn(&v, x, batch, a->batch_first, false);
    for (int s = 0; v.status == GR_OK && s < f->states; s++)
        result[1 + s] = recurrent_turn(&v, gri_term_stack(&v, (int)layers, lasts[s]), batch, false, false);
    gri_delete(v.ctx, last, room);
    return gri_terms_close(&v, 1 + f->states, result, out);
}

static int recurrent_describe(const gr_layer *l, char *buf, size_t size) {
    const recurrent_attrs *a = l->attrs;
    char layers[40] = "", dropout[40] = "";
    if (a->num_layers > 1) snprintf(layers, sizeof layers, ", %lld layers", (long long)a->num_layers);
    if (a->dropout > 0) snprintf(dropout, sizeof dropout, ", dropout %g", a->dropout);
    return snprintf(buf, size, "%lld→%lld%s%s%s%s%s%s", (long long)a->input_size, (long long)a->hidden_size, layers,
                    a->nonlinearity ? ", relu" : "", a->bidirectional ? ", bidirectional" : "", dropout,
                    a->batch_first ? ", batch first" : "", a->bias ? "" : ", no bias");
}

#define RECURRENT_SIZES                                                                                              \
    {"input_size", GR_ATTR_INT, offsetof(recurrent_attrs, input_size), .required = true, .min = 1, .max = 1 << 28},  \
    {"hidden_size", GR_ATTR_INT, offsetof(recurrent_attrs, hidden_size), .required = true, .min = 1,                 \
     .max = 1 << 28},                                                                                                \
    {"num_layers", GR_ATTR_INT, offsetof(recurrent_attrs, num_layers), .value = 1, .min = 1, .max = 1 << 16}
#define RECURRENT_OPTIONS                                                              \
    {"bias", GR_ATTR_BOOL, offsetof(recurrent_attrs, bias), .value = 1},               \
    {"batch_first", GR_ATTR_BOOL, offsetof(recurrent_attrs, batch_first), .value = 0}, \
    {"dropout", GR_ATTR_REAL, offsetof(recurrent_attrs, dropout), .min = 0, .max = 1}, \
    {"bidirectional", GR_ATTR_BOOL, offsetof(recurrent_attrs, bidirectional), .value = 0}, GR_ATTR_END

static const gr_attr recurrent_schema[] = {RECURRENT_SIZES, RECURRENT_OPTIONS};
static const gr_attr recurrent_rnn_schema[] = {
    RECURRENT_SIZES, {"nonlinearity", GR_ATTR_WORD, offsetof(recurrent_attrs, nonlinearity), .words = "tanh relu"},
    RECURRENT_OPTIONS};

RECURRENT_FUNCTIONS(recurrent, rnn)
RECURRENT_FUNCTIONS(recurrent, lstm)
RECURRENT_FUNCTIONS(recurrent, gru)

GR_LAYER(RNN) = {
    .info = {.name = "RNN", .attrs = recurrent_rnn_schema, .attr_size = sizeof(recurrent_attrs),
             .doc = "local y, h = rnn(x, h0): h[t] = tanh(weight_ih x[t] + bias_ih + weight_hh h[t-1] + bias_hh),\n"
                    "or relu, for x [steps,batch,input_size]. y holds h of the last layer at all steps, h the last\n"
                    "of all layers [num_layers * directions,batch,hidden_size]. h0 may be absent."},
    .init = recurrent_init_rnn,
    .forward = recurrent_forward_rnn,
    .describe = recurrent_describe,
    .inputs = 2, .optional = 1, .outputs = 2,
};
GR_LAYER(LSTM) = {
    .info = {.name = "LSTM", .attrs = recurrent_schema, .attr_size = sizeof(recurrent_attrs),
             .doc = "local y, h, c = lstm(x, h0, c0): long short-term memory, gates in the order i f g o, for x\n"
                    "[steps,batch,input_size]. y holds h of the last layer at all steps, h and c the last of all\n"
                    "layers [num_layers * directions,batch,hidden_size]. h0 and c0 may be absent."},
    .init = recurrent_init_lstm,
    .forward = recurrent_forward_lstm,
    .describe = recurrent_describe,
    .inputs = 3, .optional = 2, .outputs = 3,
};
GR_LAYER(GRU) = {
    .info = {.name = "GRU", .attrs = recurrent_schema, .attr_size = sizeof(recurrent_attrs),
             .doc = "local y, h = gru(x, h0): gated recurrent units, gates in the order r z n, for x\n"
                    "[steps,batch,input_size]. y holds h of the last layer at all steps, h the last of all\n"
                    "layers [num_layers * directions,batch,hidden_size]. h0 may be absent."},
    .init = recurrent_init_gru,
    .forward = recurrent_forward_gru,
    .describe = recurrent_describe,
    .inputs = 2, .optional = 1, .outputs = 2,
};

/* ---- cells ------------------------------------------------------------------------------------------------ */

typedef struct recurrent_cell_attrs {
    int64_t input_size, hidden_size, nonlinearity;
    bool bias;
} recurrent_cell_attrs;

static gr_status recurrent_cell_init(gr_layer *l, const recurrent_form *f) {
    const recurrent_cell_attrs *a = l->attrs;
    if (a->input_size < 1 || a->hidden_size < 1)
        return gr_fail(l->head.ctx, GR_ERR_ARG, "input_size = %lld, hidden_size = %lld: expected at least 1 each",
                       (long long)a->input_size, (long long)a->hidden_size);
    return recurrent_params(l, f, a->input_size, a->hidden_size, a->bias, "");
}

static gr_status recurrent_cell_check(const gr_layer *l, const recurrent_form *f, gr_tensor *const *in) {
    const recurrent_cell_attrs *a = l->attrs;
    const gr_tensor *x = in[0];
    gr_ctx *ctx = l->head.ctx;
    if (x->rank != 1 && x->rank != 2)
        return gr_fail(ctx, GR_ERR_SHAPE, "input is %s, expected [batch,%lld], or [%lld] without a batch",
                       gri_tensor_text(x), (long long)a->input_size, (long long)a->input_size);
    if (x->dims[x->rank - 1] != a->input_size)
        return gr_fail(ctx, GR_ERR_SHAPE, "input has %lld features, expected %lld %s",
                       (long long)x->dims[x->rank - 1], (long long)a->input_size, gri_dims_text(x->rank, x->dims));
    int64_t want[] = {x->rank == 2 ? x->dims[0] : a->hidden_size, a->hidden_size};
    for (int s = 0; s < f->states; s++)
        if (in[1 + s] && !gri_same_dims(in[1 + s]->rank, in[1 + s]->dims, x->rank, want))
            return gr_fail(ctx, GR_ERR_SHAPE, "%s is %s, expected %s", recurrent_states[s],
                           gri_tensor_text(in[1 + s]), gri_dims_text(x->rank, want));
    return recurrent_check_pair(ctx, f, in);
}

static gr_status recurrent_cell_forward(gr_layer *l, const recurrent_form *f, gr_tensor *const *in, gr_tensor **out) {
    const recurrent_cell_attrs *a = l->attrs;
    const gri_recurrent_attrs own = {.nonlinearity = a->nonlinearity};
    const int64_t front = 0;
    GR_TRY(recurrent_cell_check(l, f, in));
    gri_terms v = {.ctx = l->head.ctx};
    gr_tensor *t[3], *made[3], *result[2];
    bool batch = in[0]->rank == 2;
    for (int i = 0; i < 1 + f->states; i++) {
        t[i] = in[i];
        if (t[i] && !batch) t[i] = gri_term(&v, &gri_op_unsqueeze, 1, &t[i], &front);
    }
    t[0] = gri_term(&v, &gri_op_unsqueeze, 1, &t[0], &front); /* one step */
    if (v.status == GR_OK) v.status = recurrent_direction(l, f, 0, own, a->bias, t[0], t + 1, made);
    for (int i = 0; v.status == GR_OK && i < 1 + f->states; i++) t[i] = gri_term_own(&v, made[i]);
    for (int s = 0; s < f->states; s++) result[s] = batch ? t[1 + s] : gri_term_at(&v, t[1 + s], 0);
    return gri_terms_close(&v, f->states, result, out);
}

static int recurrent_cell_describe(const gr_layer *l, char *buf, size_t size) {
    const recurrent_cell_attrs *a = l->attrs;
    return snprintf(buf, size, "%lld→%lld%s%s", (long long)a->input_size, (long long)a->hidden_size,
                    a->nonlinearity ? ", relu" : "", a->bias ? "" : ", no bias");
}

#define RECURRENT_CELL_OPTIONS                                                                             \
    {"input_size", GR_ATTR_INT, offsetof(recurrent_cell_attrs, input_size), .required = true, .min = 1,    \
     .max = 1 << 28},                                                                                      \
    {"hidden_size", GR_ATTR_INT, offsetof(recurrent_cell_attrs, hidden_size), .required = true, .min = 1,  \
     .max = 1 << 28},                                                                                      \
    {"bias", GR_ATTR_BOOL, offsetof(recurrent_cell_attrs, bias), .value = 1}

static const gr_attr recurrent_cell_schema[] = {RECURRENT_CELL_OPTIONS, GR_ATTR_END};
static const gr_attr recurrent_rnn_cell_schema[] = {
    RECURRENT_CELL_OPTIONS,
    {"nonlinearity", GR_ATTR_WORD, offsetof(recurrent_cell_attrs, nonlinearity), .words = "tanh relu"},
    GR_ATTR_END};

RECURRENT_FUNCTIONS(recurrent_cell, rnn)
RECURRENT_FUNCTIONS(recurrent_cell, lstm)
RECURRENT_FUNCTIONS(recurrent_cell, gru)

GR_LAYER(RNNCell) = {
    .info = {.name = "RNNCell", .attrs = recurrent_rnn_cell_schema, .attr_size = sizeof(recurrent_cell_attrs),
             .doc = "One step of RNN: h = cell(x, h), for x [batch,input_size] and h [batch,hidden_size]."},
    .init = recurrent_cell_init_rnn,
    .forward = recurrent_cell_forward_rnn,
    .describe = recurrent_cell_describe,
    .inputs = 2, .optional = 1,
};
GR_LAYER(LSTMCell) = {
    .info = {.name = "LSTMCell", .attrs = recurrent_cell_schema, .attr_size = sizeof(recurrent_cell_attrs),
             .doc = "One step of LSTM: h, c = cell(x, h, c), for x [batch,input_size] and h, c [batch,hidden_size]."},
    .init = recurrent_cell_init_lstm,
    .forward = recurrent_cell_forward_lstm,
    .describe = recurrent_cell_describe,
    .inputs = 3, .optional = 2, .outputs = 2,
};
GR_LAYER(GRUCell) = {
    .info = {.name = "GRUCell", .attrs = recurrent_cell_schema, .attr_size = sizeof(recurrent_cell_attrs),
             .doc = "One step of GRU: h = cell(x, h), for x [batch,input_size] and h [batch,hidden_size]."},
    .init = recurrent_cell_init_gru,
    .forward = recurrent_cell_forward_gru,
    .describe = recurrent_cell_describe,
    .inputs = 2, .optional = 1,
};
