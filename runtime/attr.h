/* Attributes against their schema: for optimizers and clips, whose values scripts may change at any time. */
#ifndef GRI_ATTR_H
#define GRI_ATTR_H

#include "ctx.h"

/* The schema's entry of that name and kind; NULL if there is none. */
const gr_attr *gri_attr_find(const gr_info *info, const char *name, gr_attr_kind kind);
/* Refuses (GR_ERR_ARG, naming attribute, value and range) a real value that is NaN or outside its range.
 * Infinity is a value like others: a range that ends at DBL_MAX shuts it out. */
gr_status gri_attrs_check(gr_ctx *ctx, const gr_info *info, const void *attrs);

#endif
