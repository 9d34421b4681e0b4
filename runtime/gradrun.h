/* gradrun.h: the C API, whole. A neural-network training runtime: tensors, gradients, layers, optimizers, hooks.
 *
 * Two ways in. A host that wants Lua scripts opens a runtime (gr_open, last section). A host that wants
 * only the arithmetic opens a context (gr_ctx_new) and never touches Lua.
 *
 * Ownership, five sentences without exception. Parameters are borrowed. What comes back through an
 * out-parameter is yours (+1). Functions ending in _peek return something borrowed. gr_retain and
 * gr_release are the only transfers, and NULL is fine. A context and all its objects belong to one thread
 * at a time; different contexts may run in different threads.
 *
 * Errors. Every fallible function returns gr_status; the text waits in the context (gr_errmsg) until the
 * next gr_clear_error. A failed call leaves its out-parameters untouched and nothing half done. The
 * library never prints, exits, installs signal handlers or longjmps across these functions.
 *
 * Counting. Dimensions and offsets count from 0 here (from 1 in scripts). The *contents* of index tensors
 * and class targets count from gr_config.index_base, which is 1 unless the host says otherwise.
 */
#ifndef GRADRUN_H
#define GRADRUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GR_API __attribute__((visibility("default")))
#define GR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define GR_API
#define GR_PRINTF(fmt, args)
#endif

#define GR_VERSION "0.1.0"
#define GR_VERSION_NUMBER 100 /* major * 10000 + minor * 100 + patch */
#define GR_MAX_RANK 8

typedef enum gr_status {
    GR_OK = 0,
    GR_ERR_ARG,         /* an argument's value or kind */
    GR_ERR_SHAPE,       /* shapes that do not fit */
    GR_ERR_DTYPE,       /* element types that do not fit */
    GR_ERR_INDEX,       /* a position outside a tensor, a class outside its range */
    GR_ERR_STATE,       /* the object cannot do that now: freed graph, closed tensor, overwritten input */
    GR_ERR_NONFINITE,   /* NaN or infinity where it was asked to be refused */
    GR_ERR_MEMORY,      /* the allocator said no, or a limit was met */
    GR_ERR_IO,          /* a file could not be read or written */
    GR_ERR_FORMAT,      /* a file's content is not what its format demands */
    GR_ERR_INTERRUPT,   /* gr_interrupt was called */
    GR_ERR_SCRIPT       /* a script, or a hook written by the host, failed */
} gr_status;

typedef enum gr_dtype { GR_F32, GR_F64, GR_I64, GR_U8, GR_DTYPES } gr_dtype;

typedef struct gr_ctx gr_ctx;       /* allocator, ledger, errors, random state, threads */
typedef struct gr_tensor gr_tensor; /* a strided view of a storage; may require a gradient */
typedef struct gr_layer gr_layer;   /* parameters and how they are composed */
typedef struct gr_optim gr_optim;   /* parameter groups and their state */
typedef struct gr_hook gr_hook;     /* one registration: the handle that removes it */
typedef struct gr_dict gr_dict;     /* named tensors in order, and texts: a state dict, a file's content */
typedef struct gr_op gr_op;         /* an operation's descriptor; constant, shared by all contexts */
typedef struct gr_layer_kind gr_layer_kind;
typedef struct gr_optim_kind gr_optim_kind;
typedef struct gr_clip_kind gr_clip_kind;

GR_API const char *gr_version(void);
GR_API int gr_version_number(void);
GR_API const char *gr_blas_version(void); /* of BLIS, which multiplies the large matrices */
GR_API const char *gr_status_str(gr_status s);
GR_API const char *gr_dtype_name(gr_dtype t); /* "f32", "f64", "i64", "u8" */
GR_API size_t gr_dtype_size(gr_dtype t);      /* bytes per element */

/* ---- context ------------------------------------------------------------------------------------------ */

/* As Lua's allocator: nsize 0 frees; ptr NULL allocates; otherwise resizes; NULL on failure. */
typedef void *(*gr_alloc_fn)(void *ud, void *ptr, size_t osize, size_t nsize);

typedef struct gr_config {
    size_t size;            /* sizeof(gr_config), set by gr_config_init: fields may be appended */
    gr_alloc_fn alloc;      /* NULL: the C library's */
    void *alloc_ud;
    size_t soft_bytes;      /* floor of the soft limit that drives collection; 0: 64 MiB */
    size_t hard_bytes;      /* live native bytes are refused above this; 0: no limit */
    int threads;            /* 0: GRADRUN_THREADS, or as many as the process may use, at most 16 */
    uint64_t seed;
    int index_base;         /* what index tensors count from: 0 or 1 */
    const char *isa;        /* "generic", "avx2", "avx512"; NULL: GRADRUN_ISA, or the best there is */
} gr_config;

typedef struct gr_memory {
    size_t live;            /* bytes in use by tensors, nodes and objects */
    size_t peak;            /* the most that ever was */
    size_t cached;          /* bytes kept by the pool for the next step, not counted in live */
    size_t soft, hard;      /* limits in force; hard 0: none */
    uint64_t system_calls;  /* calls of the system allocator so far: constant over warm steps */
    int64_t tensors, storages, nodes, layers, optims, hooks, dicts; /* live objects */
} gr_memory;

GR_API void gr_config_init(gr_config *cfg);
/* Opens a context. Fails with GR_ERR_MEMORY, or GR_ERR_ARG for an unknown isa; *out is then NULL. */
GR_API gr_status gr_ctx_new(const gr_config *cfg, gr_ctx **out);
/* Closes the context. All its objects must have been released: what is still alive (a host's mistake) is
 * counted in the return value, and the context then stays open. Gradients with a history are dropped first. */
GR_API int64_t gr_ctx_free(gr_ctx *ctx);
/* The text of the first failure since the last gr_clear_error; "" if there was none. Borrowed. */
GR_API const char *gr_errmsg(const gr_ctx *ctx);
GR_API gr_status gr_errcode(const gr_ctx *ctx);
GR_API void gr_clear_error(gr_ctx *ctx);
/* Records a failure, for callbacks that return a status; the first one stays. Returns code. */
GR_API gr_status gr_fail(gr_ctx *ctx, gr_status code, const char *fmt, ...) GR_PRINTF(3, 4);
/* Puts "text: " in front of the recorded message: how op names and layer paths get there. Returns the code. */
GR_API gr_status gr_fail_within(gr_ctx *ctx, const char *fmt, ...) GR_PRINTF(2, 3);

GR_API void gr_memory_get(const gr_ctx *ctx, gr_memory *out);
/* Lowers the hard limit. Fails with GR_ERR_ARG if it is 0 or above the limit in force. */
GR_API gr_status gr_memory_limit(gr_ctx *ctx, size_t hard_bytes);
GR_API void gr_memory_trim(gr_ctx *ctx); /* gives the pool's cached bytes back to the system */
/* What an owner of garbage-collected handles should do before the next allocation (design 6). */
typedef enum gr_pressure { GR_PRESSURE_NONE, GR_PRESSURE_MINOR, GR_PRESSURE_FULL, GR_PRESSURE_HARD } gr_pressure;
GR_API gr_pressure gr_memory_pressure(const gr_ctx *ctx);
GR_API void gr_memory_collected(gr_ctx *ctx, bool full); /* tells the ledger a collection was done */

GR_API int gr_threads(const gr_ctx *ctx);
GR_API gr_status gr_set_threads(gr_ctx *ctx, int n); /* 1..64; results do not depend on it */
GR_API const char *gr_isa(const gr_ctx *ctx);
GR_API void gr_seed(gr_ctx *ctx, uint64_t seed);
/* The generator's whole state: a seed and how many draws were made from it. */
GR_API void gr_random_get(const gr_ctx *ctx, uint64_t *seed, uint64_t *counter);
GR_API void gr_random_set(gr_ctx *ctx, uint64_t seed, uint64_t counter);
/* Reserves the next draw: the seed and counter that the ops which draw (uniform, normal, dropout, …) take as
 * attributes, so that running one again gives the same numbers. */
GR_API void gr_random_next(gr_ctx *ctx, int64_t *seed, int64_t *counter);
/* Stops the work under way at the next op, or inside a long one, with GR_ERR_INTERRUPT. Async-signal-safe
 * and callable from any thread; stays set until gr_clear_interrupt. */
GR_API void gr_interrupt(gr_ctx *ctx);
GR_API void gr_clear_interrupt(gr_ctx *ctx);
GR_API bool gr_interrupted(const gr_ctx *ctx);
/* The training step under way, counted from 1: one more than the optimizer steps done. Hooks see it. */
GR_API int64_t gr_step(const gr_ctx *ctx);
GR_API void gr_set_step(gr_ctx *ctx, int64_t step);
/* The floating dtype of new parameters: GR_F32 unless told otherwise. Returns what was in force. */
GR_API gr_dtype gr_set_default_dtype(gr_ctx *ctx, gr_dtype t);
GR_API gr_dtype gr_default_dtype(const gr_ctx *ctx);
/* Recording of operations for backward. Returns what was in force. */
GR_API bool gr_set_grad_enabled(gr_ctx *ctx, bool on);
GR_API bool gr_grad_enabled(const gr_ctx *ctx);

/* Any object of this library: tensor, layer, optim, hook, dict. */
GR_API void *gr_retain(void *object);
GR_API void gr_release(void *object);
GR_API gr_ctx *gr_ctx_peek(const void *object);

/* ---- tensors ------------------------------------------------------------------------------------------ */

/* A new contiguous tensor, zeroed. Fails with GR_ERR_SHAPE (negative or overflowing dims), GR_ERR_MEMORY. */
GR_API gr_status gr_tensor_new(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, gr_tensor **out);
/* As gr_tensor_new, the bytes undefined. */
GR_API gr_status gr_tensor_empty(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, gr_tensor **out);
/* A rank-0 tensor of one value. */
GR_API gr_status gr_tensor_scalar(gr_ctx *ctx, gr_dtype t, double value, gr_tensor **out);
/* Lends a host's buffer as a tensor without a copy. strides (in elements, >= 0) may be NULL: row-major.
 * data must be aligned to the element and stay valid until release(ud, data) is called, once, when the
 * last tensor that sees the buffer is gone; release may be NULL. On failure release is not called. */
GR_API gr_status gr_tensor_borrow(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, const int64_t *strides,
                                  void *data, void (*release)(void *ud, void *data), void *ud, gr_tensor **out);
GR_API gr_dtype gr_tensor_dtype(const gr_tensor *t);
GR_API int gr_tensor_rank(const gr_tensor *t);
GR_API const int64_t *gr_tensor_dims_peek(const gr_tensor *t);    /* rank values */
GR_API const int64_t *gr_tensor_strides_peek(const gr_tensor *t); /* rank values, in elements */
GR_API int64_t gr_tensor_numel(const gr_tensor *t);
GR_API bool gr_tensor_contiguous(const gr_tensor *t);
/* The address of element (0,...,0): valid while the tensor lives. Writing through it is an in-place edit:
 * call gr_tensor_touch so that a backward that needs the old values refuses instead of lying. */
GR_API void *gr_tensor_data_peek(const gr_tensor *t);
GR_API void gr_tensor_touch(gr_tensor *t);
GR_API uint64_t gr_tensor_version(const gr_tensor *t);
/* The only element of a one-element tensor, as a double. */
GR_API gr_status gr_tensor_item(const gr_tensor *t, double *out);
/* One element by its coordinates (rank values, from 0). */
GR_API gr_status gr_tensor_get(const gr_tensor *t, const int64_t *at, double *out);
GR_API gr_status gr_tensor_set(gr_tensor *t, const int64_t *at, double value);
/* Copies src into dst, broadcasting and converting; an in-place edit of dst. */
GR_API gr_status gr_tensor_copy(gr_tensor *dst, const gr_tensor *src);
GR_API gr_status gr_tensor_fill(gr_tensor *dst, double value);

/* ---- gradients ---------------------------------------------------------------------------------------- */

GR_API bool gr_tensor_requires_grad(const gr_tensor *t);
/* Makes a floating leaf require a gradient, or not; then what it had is dropped, but its name and hooks stay. */
GR_API gr_status gr_tensor_set_requires_grad(gr_tensor *t, bool on);
GR_API bool gr_tensor_is_leaf(const gr_tensor *t);
/* The accumulated gradient of a leaf (or of a tensor that retains it); NULL if there is none. Borrowed. */
GR_API gr_tensor *gr_tensor_grad_peek(const gr_tensor *t);
GR_API gr_status gr_tensor_set_grad(gr_tensor *t, gr_tensor *grad); /* NULL drops it */
GR_API gr_status gr_tensor_retain_grad(gr_tensor *t);
/* The same data without its history. */
GR_API gr_status gr_tensor_detach(const gr_tensor *t, gr_tensor **out);
/* What error messages and hooks call this tensor: "net.1.weight". Copied. */
GR_API gr_status gr_tensor_set_name(gr_tensor *t, const char *name);
GR_API const char *gr_tensor_name_peek(const gr_tensor *t); /* NULL if it has none */

typedef struct gr_backward_options {
    gr_tensor *seed;      /* gradient of the root; NULL: 1, and the root must have one element */
    bool retain_graph;    /* keep what backward needs, to run it again */
    bool create_graph;    /* record the gradient's own computation (implies retain_graph). What gr_backward then
                             leaves as a leaf's gradient holds what was computed from the leaf, and so the leaf,
                             until it is dropped (gr_tensor_set_grad) or the context closes; gr_grad leaves nothing */
    bool allow_unused;    /* gr_grad: NULL for an input the outputs do not depend on, instead of an error */
} gr_backward_options;

/* Adds d root / d leaf to the gradient of every leaf root depends on. opt may be NULL. On failure no
 * gradient of a leaf is half written: leaves keep what they had before. */
GR_API gr_status gr_backward(gr_tensor *root, const gr_backward_options *opt);
/* out[i] = sum over outputs of d outputs / d inputs[i], leaving every .grad alone. seeds may be NULL, or
 * hold NULLs (ones). out[i] may be NULL only with allow_unused. */
GR_API gr_status gr_grad(int n_outputs, gr_tensor *const *outputs, gr_tensor *const *seeds, int n_inputs,
                         gr_tensor *const *inputs, const gr_backward_options *opt, gr_tensor **out);
/* Checks every result, forward and backward, and fails naming the first op that made a NaN or infinity
 * out of finite inputs. Slow; returns what was in force. */
GR_API bool gr_set_anomaly(gr_ctx *ctx, bool on);

/* ---- descriptors: what exists, as data ------------------------------------------------------------------ */

typedef struct gr_dims { int32_t n; int64_t v[GR_MAX_RANK]; } gr_dims;

#define GR_POS_NONE INT64_MIN
typedef enum gr_attr_kind {
    GR_ATTR_REAL,   /* double */
    GR_ATTR_INT,    /* int64_t */
    GR_ATTR_BOOL,   /* bool */
    GR_ATTR_DIM,    /* int64_t: a dimension; negative counts from the end; scripts count from 1 */
    GR_ATTR_POS,    /* int64_t: a position along a dimension; scripts count from 1; GR_POS_NONE: none was given */
    GR_ATTR_DIMS,   /* gr_dims: a set of dimensions; n = -1 when none was given */
    GR_ATTR_SHAPE,  /* gr_dims: sizes */
    GR_ATTR_PAIR,   /* int64_t[2]: one number stands for both */
    GR_ATTR_DTYPE,  /* int64_t: a gr_dtype; -1, where that is the default: the op decides */
    GR_ATTR_WORD    /* int64_t: position of a word among `words` */
} gr_attr_kind;

typedef struct gr_attr {
    const char *name;
    gr_attr_kind kind;
    uint16_t offset;        /* in the attribute struct */
    bool required;
    double value;           /* default; of every element for pairs */
    double min, max;        /* allowed range, inclusive; both 0: any */
    const char *words;      /* GR_ATTR_WORD: "none mean sum" */
} gr_attr;

/* One line of proof about an op; the specs run every case in every way design 8 names. */
typedef struct gr_case {
    const char *in;         /* shapes, one group per input: "3,4 4"; "()" a scalar, "-" an absent input. Not floating:
                               "u8:3" (0 or 1), "i64(1..5):3" with the range values are drawn from, i64 without one
                               if they are given */
    const char *attrs;      /* trailing options as a script gives them: "dim=2, keepdim=true"; may be NULL */
    double lo, hi;          /* inputs are drawn from [lo, hi]; both 0: [-1, 1] */
    const char *give, *want;/* hand values as Lua table constructors, one per input/output: "{1,2}, 3" */
    double tol;             /* relative tolerance of hand values in f32; 0: 1e-6 */
    double kink;            /* with has_kink: inputs stay 0.05 away from this value */
    bool has_kink, no_grad; /* no_grad: not differentiable, or not compared with finite differences */
} gr_case;

typedef struct gr_info {    /* common head of every descriptor */
    const char *name;
    const char *doc;        /* one line, then details; script terms */
    const char *inputs;     /* ops: "x weight bias?": '?' optional, '*' any number; "x dim: index": scripts
                               give the attribute dim between the tensors */
    const gr_attr *attrs;   /* ended by a NULL name; NULL: none */
    uint16_t attr_size;     /* of the attribute struct */
    bool hidden;            /* helper of a backward rule: not offered to scripts as a method */
    const char *over_all;   /* ops along a required dim: the op that scripts call who give none; NULL: an error */
    const gr_case *cases;   /* ended by a NULL in; NULL: none */
} gr_info;

GR_API int gr_op_count(void);
GR_API const gr_op *gr_op_at(int i);
GR_API const gr_op *gr_op_find(const char *name); /* NULL if there is none */
GR_API const gr_info *gr_op_info(const gr_op *op);
GR_API int gr_op_outputs(const gr_op *op);
GR_API bool gr_op_differentiable(const gr_op *op);
GR_API bool gr_op_elementwise(const gr_op *op); /* the result has the inputs' shape, broadcast */
GR_API bool gr_op_in_place(const gr_op *op); /* the result may be stored in the first input; so may elementwise ones */
/* Fills an attribute struct with the schema's defaults. */
GR_API void gr_attrs_default(const gr_info *info, void *attrs);

/* Runs an op: out[0..gr_op_outputs) are new tensors, recorded for backward where an input requires it.
 * Optional inputs may be NULL; that n_in and the others are as the op's inputs say is the caller's part. attrs NULL:
 * defaults. */
GR_API gr_status gr_apply(gr_ctx *ctx, const gr_op *op, int n_in, gr_tensor *const *in, const void *attrs,
                          gr_tensor **out);
/* The same into an existing tensor (an in-place edit of dst, which may be an input); not differentiable:
 * refused when dst requires a gradient and recording is on. One-output ops only. */
GR_API gr_status gr_apply_into(gr_ctx *ctx, const gr_op *op, int n_in, gr_tensor *const *in, const void *attrs,
                               gr_tensor *dst);

/* ---- ops written by the host ---------------------------------------------------------------------------- */

/* backward: from dy[n_out] (NULL: no gradient reached that output) makes dx[n_in], +1 each or NULL for none. */
typedef gr_status (*gr_backward_fn)(void *ud, gr_ctx *ctx, int n_out, gr_tensor *const *dy, int n_in, gr_tensor **dx);
/* Gives outputs made by the host, without history, a node with that rule. The outputs come back as new
 * tensors in out[]. drop(ud) is called once when the node dies (also when this fails). */
GR_API gr_status gr_record(gr_ctx *ctx, const char *name, int n_in, gr_tensor *const *in, int n_out,
                           gr_tensor *const *values, gr_backward_fn backward, void (*drop)(void *ud), void *ud,
                           gr_tensor **out);

/* ---- hooks ---------------------------------------------------------------------------------------------- */

typedef enum gr_hook_kind {
    GR_HOOK_GRAD,            /* tensor: its gradient is complete; may be replaced */
    GR_HOOK_POST_ACCUMULATE, /* leaf: .grad has just been added to */
    GR_HOOK_FORWARD_PRE,     /* layer: before forward; inputs may be replaced */
    GR_HOOK_FORWARD,         /* layer: after forward; the output may be replaced */
    GR_HOOK_BACKWARD_PRE,    /* layer: gradient of the output is complete; may be replaced */
    GR_HOOK_BACKWARD,        /* layer: gradients of the inputs are complete; may be replaced */
    GR_HOOK_STEP_PRE,        /* optimizer: before step */
    GR_HOOK_STEP,            /* optimizer: after step */
    GR_HOOK_KINDS
} gr_hook_kind;

typedef struct gr_event {
    gr_hook_kind kind;
    gr_ctx *ctx;
    gr_hook *hook;          /* this registration: may be removed while it runs */
    int64_t step;
    const char *name;       /* tensor name or layer path; "" if it has none */
    gr_tensor *param;       /* tensor hooks: whose gradient it is, without history; else NULL */
    gr_layer *layer;
    gr_optim *optim;
    int n_in, n_out;
    gr_tensor **in;         /* forward: inputs (NULL: absent); backward: their gradients (NULL: none) */
    gr_tensor **out;        /* forward: outputs; gradient hooks and backward: their gradients (NULL: none) */
    gr_tensor *replace;     /* set to a new reference to replace out[0] (GRAD, FORWARD, BACKWARD_PRE) or
                               in[0] (FORWARD_PRE, BACKWARD) */
} gr_event;

typedef gr_status (*gr_hook_fn)(void *ud, gr_event *e);

/* Registers fn on a tensor, layer, optim, or (owner = the gr_ctx) on all of a kind. name may be NULL; the
 * same name on the same owner and kind replaces. drop(ud) is called once, when the registration ends: by
 * gr_hook_remove, by replacement, with its owner, or when this function fails. out may be NULL. */
GR_API gr_status gr_hook_add(gr_ctx *ctx, void *owner, gr_hook_kind kind, const char *name, gr_hook_fn fn,
                             void (*drop)(void *ud), void *ud, gr_hook **out);
GR_API void gr_hook_remove(gr_hook *h); /* idempotent; also from inside the hook; the handle stays yours */
GR_API bool gr_hook_active(const gr_hook *h);

/* ---- layers --------------------------------------------------------------------------------------------- */

GR_API int gr_layer_kind_count(void);
GR_API const gr_layer_kind *gr_layer_kind_at(int i);
GR_API const gr_layer_kind *gr_layer_kind_find(const char *name);
GR_API const gr_info *gr_layer_kind_info(const gr_layer_kind *k);
/* Whose attrs and attr_size the constructor's arguments are: the kind's own, or those of the op it applies. */
GR_API const gr_info *gr_layer_kind_schema(const gr_layer_kind *k);
/* What a call takes besides tensors in order: the names of the inputs, and options. NULL: nothing. */
GR_API const gr_info *gr_layer_kind_call(const gr_layer_kind *k);
GR_API bool gr_layer_kind_container(const gr_layer_kind *k); /* its constructor takes layers */

/* Makes a layer from its kind's attribute struct. */
GR_API gr_status gr_layer_new(gr_ctx *ctx, const gr_layer_kind *kind, const void *attrs, gr_layer **out);
#define GR_LAYER_TENSORS 8 /* at most so many go into a layer, and come out */
/* A layer whose forward the host computes: from in[n_in] (NULL: absent) one or more of out[0..n_out), +1 each, in
 * order; the others stay NULL. drop is called once when the layer dies, or when this fails. */
typedef gr_status (*gr_forward_fn)(void *ud, gr_layer *self, int n_in, gr_tensor *const *in, int n_out,
                                   gr_tensor **out);
GR_API gr_status gr_layer_custom(gr_ctx *ctx, const char *name, gr_forward_fn forward, void (*drop)(void *ud),
                                 void *ud, gr_layer **out);
GR_API gr_status gr_layer_add_child(gr_layer *l, const char *name, gr_layer *child); /* refuses cycles */
GR_API gr_status gr_layer_add_param(gr_layer *l, const char *name, gr_tensor *param);
GR_API gr_status gr_layer_add_buffer(gr_layer *l, const char *name, gr_tensor *buffer);
/* out[0..n_out): the layer's outputs, NULL beyond those it has; what it has beyond n_out is dropped. Inputs that
 * may be absent may be NULL. */
GR_API gr_status gr_layer_forward(gr_layer *l, int n_in, gr_tensor *const *in, int n_out, gr_tensor **out);
/* The same with options: the struct that gr_layer_kind_call describes; NULL: defaults. */
GR_API gr_status gr_layer_forward_with(gr_layer *l, int n_in, gr_tensor *const *in, const void *options, int n_out,
                                       gr_tensor **out);
GR_API gr_status gr_layer_train(gr_layer *l, bool on); /* this layer and all below */
GR_API bool gr_layer_training(const gr_layer *l);
GR_API const char *gr_layer_type_peek(const gr_layer *l);  /* "Linear" */
GR_API const char *gr_layer_path_peek(const gr_layer *l);  /* "net.2.fc1"; "" at the root */
GR_API const gr_layer_kind *gr_layer_kind_peek(const gr_layer *l); /* NULL: made by gr_layer_custom */
/* The attribute struct, as gr_layer_kind_schema says, to read or change (a dropout rate); NULL if none. */
GR_API void *gr_layer_attrs_peek(gr_layer *l);
/* "784→256, no bias": what tells this layer from its neighbours. Returns the length needed, as snprintf. */
GR_API int gr_layer_describe(const gr_layer *l, char *buf, size_t size);
GR_API int gr_layer_children(const gr_layer *l);
GR_API gr_layer *gr_layer_child_peek(const gr_layer *l, int i, const char **name);
GR_API int gr_layer_params(const gr_layer *l);             /* its own, not its children's */
GR_API gr_tensor *gr_layer_param_peek(const gr_layer *l, int i, const char **name);
GR_API int gr_layer_buffers(const gr_layer *l);
GR_API gr_tensor *gr_layer_buffer_peek(const gr_layer *l, int i, const char **name);

/* ---- optimizers and clips --------------------------------------------------------------------------------- */

GR_API int gr_optim_kind_count(void);
GR_API const gr_optim_kind *gr_optim_kind_at(int i);
GR_API const gr_optim_kind *gr_optim_kind_find(const char *name);
GR_API const gr_info *gr_optim_kind_info(const gr_optim_kind *k); /* attrs: the hyper-parameters */

GR_API gr_status gr_optim_new(gr_ctx *ctx, const gr_optim_kind *kind, gr_optim **out);
/* Adds a group of leaves with its hyper-parameters; a parameter may be in one group only. */
GR_API gr_status gr_optim_add_group(gr_optim *o, int n, gr_tensor *const *params, const void *attrs);
GR_API int gr_optim_groups(const gr_optim *o);
/* The group's hyper-parameters, to read or change: a struct as the kind's schema says. Borrowed. */
GR_API void *gr_optim_attrs_peek(gr_optim *o, int group);
GR_API int gr_optim_params(const gr_optim *o, int group);
GR_API gr_tensor *gr_optim_param_peek(const gr_optim *o, int group, int i);
/* One update of every parameter that has a gradient. Checks everything first: on failure nothing moved. */
GR_API gr_status gr_optim_step(gr_optim *o);
GR_API gr_status gr_optim_zero_grad(gr_optim *o); /* drops the gradients */
/* State tensors of a parameter (momentum, second moments), by position; NULL before the first step. */
GR_API gr_tensor *gr_optim_state_peek(const gr_optim *o, gr_tensor *param, int i, const char **name);
GR_API int64_t gr_optim_steps(const gr_optim *o);

GR_API int gr_clip_kind_count(void);
GR_API const gr_clip_kind *gr_clip_kind_at(int i);
GR_API const gr_clip_kind *gr_clip_kind_find(const char *name);
GR_API const gr_info *gr_clip_kind_info(const gr_clip_kind *k);
typedef struct gr_clip_report {
    double norm;            /* before; p-norm over all gradients, each tensor counted once */
    double norm_after;
    int clipped;            /* tensors that were changed */
    int tensors;            /* gradients seen */
} gr_clip_report;
/* Transforms the gradients of params in place (leaves without a gradient are passed over). Non-finite
 * gradients: GR_ERR_NONFINITE naming the tensors, nothing changed; or, with error_if_nonfinite = false (the
 * default of `measure`), nothing changed and NaN or infinity reported as the norm. report may be NULL. */
GR_API gr_status gr_clip(gr_ctx *ctx, const gr_clip_kind *kind, int n, gr_tensor *const *params, const void *attrs,
                         gr_clip_report *report);

/* ---- state dicts ------------------------------------------------------------------------------------------ */

/* An empty one. */
GR_API gr_status gr_dict_new(gr_ctx *ctx, gr_dict **out);
/* The tensor called name (copied; not NULL): added behind the others, or in the place of the one called so; NULL
 * removes that. Nothing is copied of the tensor itself. */
GR_API gr_status gr_dict_set(gr_dict *d, const char *name, gr_tensor *t);
GR_API int gr_dict_count(const gr_dict *d);
GR_API gr_tensor *gr_dict_at_peek(const gr_dict *d, int i, const char **name); /* name may be NULL */
GR_API gr_tensor *gr_dict_find_peek(const gr_dict *d, const char *name);       /* NULL if there is none */
/* The same for texts, which go with the tensors into a file and come back. Copied; valid until they are set again. */
GR_API gr_status gr_dict_set_text(gr_dict *d, const char *key, const char *text);
GR_API int gr_dict_texts(const gr_dict *d);
GR_API const char *gr_dict_text_peek(const gr_dict *d, int i, const char **key);
GR_API const char *gr_dict_find_text_peek(const gr_dict *d, const char *key);

/* What a layer is made of: its parameters and buffers and those of the layers below, each once, in the order they
 * were added, by their path from here ("2.fc.weight"). The tensors have no history and share the layer's memory. */
GR_API gr_status gr_layer_state(const gr_layer *l, gr_dict **out);
/* All that an optimizer's next step depends on besides parameters and gradients. Parameters and groups count from 1,
 * parameters over all groups: "steps", "updates" (one for each parameter), "groups.1.lr" and so on (f64), and state
 * tensors as "state.3.exp_avg", which share the optimizer's memory. */
GR_API gr_status gr_optim_state(const gr_optim *o, gr_dict **out);

typedef enum gr_match {
    GR_MATCH_LOADED,
    GR_MATCH_MISSING,       /* the object has it, the dict does not */
    GR_MATCH_UNEXPECTED,    /* the dict has it, the object does not */
    GR_MATCH_MISMATCHED,    /* shapes differ, or dtypes that are not both floating */
    GR_MATCHES
} gr_match;

typedef struct gr_state_part {
    void *object;           /* a gr_layer or gr_optim */
    const gr_dict *state;   /* as gr_layer_state and gr_optim_state have it */
    const char *name;       /* what messages call the object; NULL: its type */
    bool partial;           /* layers: load what fits and leave the rest as it is, instead of failing */
    /* Told of every name, before anything is loaded; what it returns may stop that. found: the dict's tensor; here:
     * the object's; either may be NULL. May be NULL. */
    gr_status (*report)(void *ud, gr_match what, const char *name, const gr_tensor *found, const gr_tensor *here);
    void *ud;
} gr_state_part;

/* Loads states into objects, all or nothing: on failure no value of any of them has changed. Copies into the tensors
 * that are there, as in-place edits; between floating dtypes values are converted. A tensor under several names
 * (tied weights) is wanted under one of them. GR_ERR_ARG lists what is missing, unexpected and mismatched. */
GR_API gr_status gr_state_load(gr_ctx *ctx, int n, const gr_state_part *parts);
/* The same, but nothing is loaded: would it succeed? */
GR_API gr_status gr_state_check(gr_ctx *ctx, int n, const gr_state_part *parts);

/* ---- files ------------------------------------------------------------------------------------------------ */

/* Reads an IDX file, gzipped or not, into a new tensor: u8 stays u8; other element types become i64, f32 or
 * f64. GR_ERR_IO if it cannot be read, GR_ERR_FORMAT (path, what was found, what was expected) otherwise. */
GR_API gr_status gr_idx_read(gr_ctx *ctx, const char *path, gr_tensor **out);
/* Reads numbers separated by commas, semicolons or blanks, in double quotes or bare, gzipped or not, as a matrix of
 * the default dtype (f64 keeps whole numbers beyond 2^24). A first line of names is passed over; an empty field is
 * an error. */
GR_API gr_status gr_csv_read(gr_ctx *ctx, const char *path, gr_tensor **out);
/* Writes rows [n] or [n,m] as lines of numbers with commas between, each short and reading back the same. As all
 * writers, it leaves an earlier file as it was until the new one is whole: see gr_safetensors_write. */
GR_API gr_status gr_csv_write(const gr_tensor *t, const char *path);
/* Reads NumPy's npy, gzipped or not, and npz: floats of 8 bytes become f64, other floats f32; bool and unsigned bytes
 * u8, other whole numbers i64. GR_ERR_FORMAT names path, member and what was found. */
GR_API gr_status gr_npy_read(gr_ctx *ctx, const char *path, gr_tensor **out);
GR_API gr_status gr_npz_read(gr_ctx *ctx, const char *path, gr_dict **out);
/* Writes them, row-major, unpacked. */
GR_API gr_status gr_npy_write(const gr_tensor *t, const char *path);
GR_API gr_status gr_npz_write(const gr_dict *d, const char *path);
/* Reads a safetensors file: its tensors, in the header's order, and its metadata as texts. F64, F32, I64, U8 and BOOL
 * (as u8) as they are; F16 and BF16 become f32; I8, I16, U16, I32 and U32 become i64. Everything the file says is
 * checked first: GR_ERR_FORMAT names path, tensor and numbers. */
GR_API gr_status gr_safetensors_read(gr_ctx *ctx, const char *path, gr_dict **out);
/* Writes one: strided tensors row-major. The bytes go to PATH.saving, are synced and then renamed, so that an earlier
 * file stays as it was until the new one is whole, whatever happens; if this fails nothing is left behind. Names and
 * texts must be UTF-8 (GR_ERR_ARG). GR_ERR_IO names path and reason. */
GR_API gr_status gr_safetensors_write(const gr_dict *d, const char *path);

/* ---- Lua runtimes -----------------------------------------------------------------------------------------
 * Scripts in a host program: a Lua state with gradrun in it, and the context its tensors live in.
 *
 * Like a context, a runtime belongs to one thread at a time, and several may run in parallel. Scripts run
 * protected: an error comes back as a status, its text with a traceback waits in gr_runtime_errmsg, and the
 * runtime is usable after any of them. The library itself never prints, exits, installs signal handlers or
 * calls setlocale; a script may, through io and os. */

struct lua_State;
typedef struct gr_runtime gr_runtime;

typedef struct gr_runtime_config {
    size_t size;            /* sizeof(gr_runtime_config), set by gr_runtime_config_init: fields may be appended */
    gr_alloc_fn alloc;      /* for tensors, and for Lua in gr_open; NULL: the C library's */
    void *alloc_ud;
    size_t lua_bytes;       /* gr_open: Lua's own heap is refused more than this; 0: no limit */
    size_t native_bytes;    /* the same for tensors and graphs */
    int threads;            /* these three as in gr_config */
    uint64_t seed;
    const char *isa;
    bool watch;             /* gr_runtime_interrupt stops plain Lua from other threads too; see there */
    void (*write)(void *ud, const char *text, size_t size); /* gr_open: what print prints; NULL: to C's stdout */
    void (*error)(void *ud, const char *text); /* every failure, as it happens; also what has no call to fail:
                                                  errors in finalizers, and in gr_open warn; may be NULL */
    void *ud;               /* of write and error, which must not use the runtime */
} gr_runtime_config;

GR_API void gr_runtime_config_init(gr_runtime_config *cfg);
/* Opens a runtime with a Lua state of its own, Lua's libraries in it, collecting generationally. cfg may be NULL.
 * Fails with GR_ERR_MEMORY, or GR_ERR_ARG for an unknown isa; *out is then NULL. */
GR_API gr_status gr_open(const gr_runtime_config *cfg, gr_runtime **out);
/* Opens a runtime in the host's Lua state, which keeps its mode of collection, its print and its limits
 * (GR_ERR_ARG if cfg has write or lua_bytes) and must outlive the runtime. coroutine.resume, wrap and close are
 * replaced by twins that note which coroutine runs. Where gradrun was opened before, by require or by an earlier
 * gr_attach, that context is kept as it is. */
GR_API gr_status gr_attach(struct lua_State *L, const gr_runtime_config *cfg, gr_runtime **out);
/* Closes the runtime; returns how many native objects were found alive: 0, or a mistake. After gr_open these
 * are the host's own references: the scripts are gone, but the runtime stays for another gr_close once they are
 * released. After gr_attach they may also be in variables of L, and die with it. -1, and nothing done, from
 * inside a script. */
GR_API int64_t gr_close(gr_runtime *rt);

GR_API gr_ctx *gr_runtime_ctx_peek(const gr_runtime *rt);
GR_API struct lua_State *gr_runtime_lua_peek(const gr_runtime *rt);
/* What went wrong in the last call on this runtime, with the script's traceback; "" if it succeeded. */
GR_API const char *gr_runtime_errmsg(const gr_runtime *rt);

/* Run a script (text, not bytecode). GR_ERR_IO: the file cannot be read. GR_ERR_SCRIPT: it does not compile, or
 * raised an error. GR_ERR_MEMORY, GR_ERR_INTERRUPT. name is what error messages call the buffer. */
GR_API gr_status gr_run_file(gr_runtime *rt, const char *path);
GR_API gr_status gr_run_buffer(gr_runtime *rt, const char *name, const char *text, size_t size);

typedef enum gr_value_kind {
    GR_VALUE_NIL, GR_VALUE_BOOL, GR_VALUE_INTEGER, GR_VALUE_NUMBER, GR_VALUE_STRING, GR_VALUE_TENSOR
} gr_value_kind;

typedef struct gr_value {   /* what crosses between a host and its scripts */
    gr_value_kind kind;
    bool boolean;
    int64_t integer;
    double number;          /* in results also of GR_VALUE_INTEGER */
    const char *string;     /* in results ends with a 0 that is not counted */
    size_t size;
    gr_tensor *tensor;
} gr_value;

GR_API gr_value gr_value_bool(bool b);
GR_API gr_value gr_value_integer(int64_t i);
GR_API gr_value gr_value_number(double x);
GR_API gr_value gr_value_string(const char *s);
GR_API gr_value gr_value_tensor(gr_tensor *t);

/* Calls a function by its name from the globals down: "predict", "model.predict". Missing results are nil,
 * further ones are dropped. Tensors in results are yours (+1); strings are valid until the next call on this
 * runtime. GR_ERR_ARG: there is no such function, an argument is no value, or a result is not one (a table, say):
 * results are then untouched. */
GR_API gr_status gr_call(gr_runtime *rt, const char *name, int n_args, const gr_value *args, int n_results,
                         gr_value *results);
/* The same for variables: "x", "options.rate". The tables on the way must exist. */
GR_API gr_status gr_set_global(gr_runtime *rt, const char *name, const gr_value *value);
GR_API gr_status gr_get_global(gr_runtime *rt, const char *name, gr_value *out);

/* Stops the script under way, or the next one, with GR_ERR_INTERRUPT; pcall cannot catch it. Async-signal-safe
 * and callable from any thread. Native work stops at once. Plain Lua stops when this is called from the thread that
 * runs it (a signal handler), or with config.watch: a hook that looks at the flag every 10,000 instructions, with
 * which plain Lua takes twice its time. */
GR_API void gr_runtime_interrupt(gr_runtime *rt);

#ifdef __cplusplus
}
#endif
#endif
