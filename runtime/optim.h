/* Optimizers: one fused update over (parameter, gradient, state). */
#ifndef GRI_OPTIM_H
#define GRI_OPTIM_H

#include "hook.h"
#include "op.h"
#include "state.h"

#define GRI_OPTIM_STATES 3  /* most state tensors a parameter may have */
#define GRI_OPTIM_COEFFS 12

/* One run of n contiguous elements of one parameter. All of the parameter's dtype; state[i] in order of
 * state_names, NULL where it is not in use; c: the step's coefficients. Runs are any length; elements are
 * independent. */
typedef void (*gri_optim_kernel)(int64_t n, void *param, const void *grad, void *const *state, const double *c);

/* optims/NAME.c: header comment (the update as formulas, paper, defaults); NAME_attrs; NAME_prepare;
 * NAME_forward (the kernel); GR_OPTIM_KERNEL(NAME); GR_OPTIM(NAME) = {…}. */
struct gr_optim_kind {
    gr_info info;                   /* attrs: the hyper-parameters, GR_ATTR_REAL or GR_ATTR_BOOL */
    const char *const *state_names; /* ended by NULL */
    /* Which of them these hyper-parameters use, as bits: the first if any; the rest is never allocated. NULL: all. */
    uint32_t (*states)(const void *attrs);
    /* Checks what a range in the schema cannot say, and computes the coefficients the kernel wants for a
     * parameter's update number t, from 1 where its state is new. Double arithmetic, once per group. */
    gr_status (*prepare)(gr_ctx *ctx, const void *attrs, int64_t t, double *c);
    const gri_optim_kernel *const *forward; /* from GR_OPTIM_KERNEL */
};
#ifdef GRI_NO_DESCRIPTOR
#define GR_OPTIM(name) static const gr_optim_kind __attribute__((unused)) gri_optim_unused_##name
#else
#define GR_OPTIM(name) const gr_optim_kind gri_optim_##name
#endif
#define GR_OPTIM_KERNEL(name) GRI_EXPORT(gri_optim_kernel, name) extern const gr_optim_kind gri_optim_##name

/* For prepare: fails unless both are below 1, which a range in the schema cannot say. */
gr_status gri_optim_want_betas(gr_ctx *ctx, double beta1, double beta2);

void gri_optim_free(gr_optim *o);
gri_hooks **gri_optim_hooks(gr_optim *o);
const gr_optim_kind *gri_optim_kind(const gr_optim *o);

/* Loading a state dict: the plan checks and allocates everything, the commit cannot fail. *out is NULL, or must be
 * dropped, also when the plan fails. */
typedef struct gri_optim_load gri_optim_load;
gr_status gri_optim_load_plan(gr_optim *o, gri_match *m, gri_optim_load **out);
void gri_optim_load_commit(gri_optim_load *load);
void gri_optim_load_drop(gri_optim_load *load);

#endif
