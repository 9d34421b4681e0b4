/* Operations: the descriptor, the call, and what a backward rule may say. One op, one file in ops/. */
#ifndef GRI_OP_H
#define GRI_OP_H

#include "gather.h"
#include "tensor.h"

#define GRI_MAX_IN 8   /* ops with '*' inputs may have more: see gri_call.in */
#define GRI_MAX_OUT 8
#define GRI_ATTR_MAX 256 /* bytes of an attribute struct */

/* One running of an op. gr_apply fills everything but `spec`; the shape rule fills `spec`; the kernel
 * writes `out`. In a backward rule's call, outputs nobody needs are NULL. */
typedef struct gri_call {
    gr_ctx *ctx;
    const gr_op *op;
    const void *attrs; /* the op's attribute struct, never NULL if it has one */
    int n_in, n_out;
    gr_tensor *const *in; /* NULL where an optional input is absent */
    gr_tensor *out[GRI_MAX_OUT];
    gri_spec spec[GRI_MAX_OUT];
    gri_mode mode;
} gri_call;

typedef gr_status (*gri_kernel)(gri_call *c);

/* ---- backward rules ----
 * A rule says which ops, applied to which tensors, add up to the gradient of each input. The tape decides
 * how: straight into the gradient's own memory (set first, add after), or recorded through gr_apply.
 * Un-broadcasting and dtype are the tape's affair: a contribution may have the output's shape. */
typedef struct gri_grad {
    gr_ctx *ctx;
    const gr_op *op;
    const void *attrs;
    int n_in, n_out;
    gr_tensor **dy;   /* gradient of each output; NULL where none arrived */
    gr_tensor **in;   /* inputs as they were; NULL unless kept */
    gr_tensor **out;  /* outputs as they were; NULL unless kept */
    struct gri_node *node;
    struct gri_pass *pass;
} gri_grad;

bool gri_needs(const gri_grad *g, int input);
/* Shape of an input, kept or not: of one that gri_needs, or, with input_specs, of any. */
const gri_spec *gri_input_spec(const gri_grad *g, int input);
/* Input `input`'s gradient += op(in...). A no-op when nobody needs it. attrs NULL: defaults. */
gr_status gri_emit(gri_grad *g, int input, const gr_op *op, int n, gr_tensor *const *in, const void *attrs);
/* One op with several outputs: output k goes to input to[k] (-1: nowhere). */
gr_status gri_emit_many(gri_grad *g, const int *to, const gr_op *op, int n, gr_tensor *const *in, const void *attrs);
/* Input's gradient += t itself. */
gr_status gri_emit_same(gri_grad *g, int input, gr_tensor *t);
/* Values on the way to an emission; the tape owns them and lets go after the rule. The scalar has dy's dtype. */
gr_status gri_scalar(gri_grad *g, gr_tensor **out, double value);
gr_status gri_eval(gri_grad *g, gr_tensor **out, const gr_op *op, int n, gr_tensor *const *in, const void *attrs);

/* Without attributes, tensors listed: GRI_EMIT(g, 0, mul, dy, b). */
#define GRI_TENSORS(...) (gr_tensor *const[]){__VA_ARGS__}
#define GRI_COUNT(...) ((int)(sizeof(GRI_TENSORS(__VA_ARGS__)) / sizeof(gr_tensor *)))
#define GRI_EMIT(g, i, op, ...) gri_emit(g, i, &gri_op_##op, GRI_COUNT(__VA_ARGS__), GRI_TENSORS(__VA_ARGS__), NULL)
#define GRI_EVAL(g, out, op, ...)                                                                                    \
    gri_eval(g, out, &gri_op_##op, GRI_COUNT(__VA_ARGS__), GRI_TENSORS(__VA_ARGS__), NULL)

#define GRI_KEEP_IN(i) (1u << (i))
#define GRI_KEEP_OUT(i) (1u << (16 + (i)))
#define GRI_KEEP_ALL_IN 0xffffu

/* ---- descriptor ---- */
struct gr_op {
    gr_info info;
    int n_out;              /* 0 means 1 */
    uint32_t keeps;         /* what backward reads: GRI_KEEP_… */
    bool elementwise;       /* output shaped as the broadcast of the inputs: promotes dtypes, has NAME_ */
    bool in_place;          /* the output, shaped and typed as the first input, may be that input: has NAME_ */
    bool sets_only;         /* the kernel cannot add: the tape adds for it */
    bool input_specs;       /* backward reads the shapes also of inputs that want no gradient */
    gr_status (*shape)(gri_call *c);     /* checks inputs, fills spec; with `view`, may be NULL */
    gr_status (*view)(gri_call *c);      /* instead of a kernel: out[0] = a view of in[0] (+1, no history) */
    const gri_kernel *const *forward;    /* from GR_KERNEL: one per CPU variant and dtype */
    gr_status (*backward)(gri_grad *g);  /* NULL: not differentiable */
    /* The same function in simpler ops, run instead of `forward` where its own gradient is recorded: for
     * fused helpers whose derivative nobody should have to write. out[] as gr_apply's. */
    gr_status (*compose)(gri_call *c);
};

/* GR_OP(tanh) = {…}; defines the descriptor; GR_KERNEL(tanh); exports tanh_forward for its CPU variant and
 * dtype as tanh_kernels. Op files are compiled once per variant; the descriptor is made in one of them. */
#define GRI_PASTE3(a, b, c) a##b##_##c
#define GRI_PASTE(a, b, c) GRI_PASTE3(a, b, c)
#ifndef GRI_VARIANT /* outside ops/ */
#define GRI_VARIANT generic_f32
#endif
#define GRI_KERNEL_NAME(name, variant) GRI_PASTE(gri_kernel_, name, variant)
#if defined(GRI_NO_DESCRIPTOR)
#define GR_OP(name) static const gr_op __attribute__((unused)) gri_op_unused_##name
#define GRI_KERNEL_TABLE(type, name) static const type *const name##_kernels[6] __attribute__((unused));
#else
#define GR_OP(name) const gr_op gri_op_##name
#define GRI_KERNEL_TABLE(type, name)                                                                            \
    extern const type GRI_KERNEL_NAME(name, avx2_f32), GRI_KERNEL_NAME(name, avx512_f32),                       \
        GRI_KERNEL_NAME(name, generic_f64), GRI_KERNEL_NAME(name, avx2_f64), GRI_KERNEL_NAME(name, avx512_f64); \
    static const type *const name##_kernels[] = {                                                               \
        &GRI_KERNEL_NAME(name, generic_f32), &GRI_KERNEL_NAME(name, avx2_f32), &GRI_KERNEL_NAME(name, avx512_f32), \
        &GRI_KERNEL_NAME(name, generic_f64), &GRI_KERNEL_NAME(name, avx2_f64), &GRI_KERNEL_NAME(name, avx512_f64)};
#endif
#define GRI_EXPORT(type, name)                                   \
    extern const type GRI_KERNEL_NAME(name, GRI_VARIANT);        \
    const type GRI_KERNEL_NAME(name, GRI_VARIANT) = name##_forward; \
    GRI_KERNEL_TABLE(type, name)
#define GR_KERNEL(name) GRI_EXPORT(gri_kernel, name) extern const gr_op gri_op_##name
/* Position in such a table. */
static inline int gri_variant(const gr_ctx *ctx, gr_dtype t) { return (t == GR_F32 ? 0 : GRI_ISAS) + (int)ctx->isa; }

#define GR_ATTR_END {0}
/* Attribute structs that several files need. */
typedef struct gri_shape_attrs { gr_dims shape; } gri_shape_attrs;   /* sum_to, expand, reshape */
typedef struct gri_narrow_attrs { int64_t dim, start, length; } gri_narrow_attrs; /* narrow, cat */
typedef struct gri_select_attrs { int64_t dim, index; } gri_select_attrs;         /* select, stack */
typedef struct gri_reduce_attrs { gr_dims dim; bool keepdim; } gri_reduce_attrs; /* sum, mean, amax, argmax */
typedef struct gri_fill_attrs { gr_dims shape; int64_t dtype; double value; } gri_fill_attrs; /* fill */
typedef struct gri_range_attrs { double start, stop, step; int64_t dtype; } gri_range_attrs; /* arange, range */
typedef struct gri_dtype_attrs { int64_t dtype; } gri_dtype_attrs;   /* to */
typedef struct gri_dropout_attrs { double p; int64_t seed, counter; } gri_dropout_attrs; /* dropout, its layer */
typedef struct gri_batch_norm_attrs { bool training; double eps; } gri_batch_norm_attrs;  /* batch_norm, its layers */
typedef struct gri_recurrent_attrs {                                 /* rnn, lstm, gru, their layers */
    bool reverse;         /* from the last step to the first */
    int64_t nonlinearity; /* rnn: tanh or relu */
} gri_recurrent_attrs;
typedef struct gri_attention_attrs {                                 /* attention, MultiheadAttention */
    double dropout_p, scale; /* scale NaN: 1/√d */
    bool is_causal;
    int64_t seed, counter;
} gri_attention_attrs;
typedef struct gri_layer_norm_attrs { gr_dims normalized_shape; double eps; } gri_layer_norm_attrs; /* its layer */
typedef struct gri_group_norm_attrs { int64_t num_groups; double eps; } gri_group_norm_attrs;       /* its layer */
typedef struct gri_conv2d_attrs {                                    /* conv1d and conv2d, gradients, layers */
    int64_t stride[2], padding[2], dilation[2], groups;
    gr_dims shape; /* gradients: of what they are for */
} gri_conv2d_attrs;
typedef struct gri_conv_transpose2d_attrs {                          /* conv_transpose2d, ConvTranspose2d */
    gri_conv2d_attrs conv;
    int64_t output_padding[2];
} gri_conv_transpose2d_attrs;
typedef struct gri_pool_attrs {                                      /* poolings, their gradients and layers */
    int64_t kernel_size[2], stride[2], padding[2], dilation[2]; /* stride 0: kernel_size; dilation 0: 1 */
    bool ceil_mode, count_include_pad;
    int64_t output_size[2]; /* adaptive, if it is not 0: instead of all the others */
    gr_dims shape;          /* gradients: of the input */
} gri_pool_attrs;

/* Shape rules many ops share. */
gr_status gri_shape_same(gri_call *c);      /* out = in[0], which must be floating */
gr_status gri_shape_broadcast(gri_call *c); /* out = broadcast of all inputs, dtypes promoted */
gr_status gri_shape_broadcast_float(gri_call *c); /* the same; at least one input must be floating */
gr_status gri_shape_compare(gri_call *c);   /* the broadcast, u8 */
/* Fails unless in[i] is floating and of in[0]'s dtype. */
gr_status gri_want_float(gri_call *c, int i);

/* gr_apply with inputs listed, for layers and composed rules. */
#define GRI_APPLY(ctx, out, op, ...) \
    gr_apply(ctx, &gri_op_##op, GRI_COUNT(__VA_ARGS__), GRI_TENSORS(__VA_ARGS__), NULL, out)

/* Steps of a composition, ops of one output each: what they make is kept until gri_made_release. */
#define GRI_MADE 40
typedef struct gri_made {
    gr_ctx *ctx;
    int n;
    gr_tensor *all[GRI_MADE];
} gri_made;
gr_status gri_make(gri_made *m, gr_tensor **out, const gr_op *op, int n, gr_tensor *const *in, const void *attrs);
gr_status gri_make_scalar(gri_made *m, gr_tensor **out, gr_dtype t, double value);
/* Takes *t, if s says that it was made; returns s, or why there is no room. */
gr_status gri_made_keep(gri_made *m, gr_status s, gr_tensor **t);
void gri_made_release(gri_made *m);
#define GRI_MAKE(m, out, op, ...) \
    gri_make(m, out, &gri_op_##op, GRI_COUNT(__VA_ARGS__), GRI_TENSORS(__VA_ARGS__), NULL)

/* A call that is ready for the shape rule. defaults: room for the op's attributes, used when attrs is NULL. */
static inline void gri_call_set(gri_call *c, gr_ctx *ctx, const gr_op *op, int n_in, gr_tensor *const *in,
                                const void *attrs, uint64_t *defaults) {
    c->ctx = ctx;
    c->op = op;
    c->attrs = attrs;
    c->n_in = n_in;
    c->n_out = op->n_out ? op->n_out : 1;
    c->in = in;
    c->mode = GRI_SET;
    if (!attrs && op->info.attr_size) {
        gr_attrs_default(&op->info, defaults);
        c->attrs = defaults;
    }
    for (int i = 0; i < c->n_out; i++) c->out[i] = NULL;
}
/* Runs an op's kernel into given outputs (shape already checked by the caller through the shape rule). */
gr_status gri_run(gri_call *c);
/* Runs a kernel that wants row-major operands: inputs that are not are copied first, outputs afterwards. */
gr_status gri_dense(gri_call *c, gri_kernel kernel);
/* Shape rule with the op's name in front of its errors. */
gr_status gri_check(gri_call *c);

#include "oplist.h" /* generated: extern const gr_op gri_op_…; for every op there is */

#endif
