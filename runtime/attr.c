#include "attr.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const gr_attr *gri_attr_find(const gr_info *info, const char *name, gr_attr_kind kind) {
    for (const gr_attr *a = info->attrs; a && a->name; a++)
        if (a->kind == kind && strcmp(a->name, name) == 0) return a;
    return NULL;
}

static gr_status attr_refuse(gr_ctx *ctx, const gr_attr *a, double v) {
    char range[64];
    if (a->min == 0 && a->max == 0) snprintf(range, sizeof range, "a number");
    else if (a->max >= DBL_MAX) snprintf(range, sizeof range, "%.17g or more", a->min);
    else snprintf(range, sizeof range, "%.17g to %.17g", a->min, a->max);
    return gr_fail(ctx, GR_ERR_ARG, "%s = %.17g: expected %s%s", a->name, v, range,
                   isinf(v) && a->max == DBL_MAX ? ", finite" : "");
}

gr_status gri_attrs_check(gr_ctx *ctx, const gr_info *info, const void *attrs) {
    for (const gr_attr *a = info->attrs; a && a->name; a++) {
        if (a->kind != GR_ATTR_REAL) continue;
        double v = *(const double *)(const void *)((const char *)attrs + a->offset);
        bool any = a->min == 0 && a->max == 0;
        if (any ? !isnan(v) : v >= a->min && v <= a->max) continue;
        return attr_refuse(ctx, a, v);
    }
    return GR_OK;
}
