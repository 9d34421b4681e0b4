/* gr_retain and gr_release: one counter for every kind of object. */
#include "dict.h"
#include "hook.h"
#include "layer.h"
#include "optim.h"
#include "tape.h"

void *gr_retain(void *object) {
    if (object) ((gri_object *)object)->refs++;
    return object;
}

void gr_release(void *object) {
    gri_object *o = object;
    if (!o || --o->refs) return;
    switch ((gri_kind)o->kind) {
    case GRI_TENSOR: gri_tensor_free(object); break;
    case GRI_LAYER: gri_layer_free(object); break;
    case GRI_OPTIM: gri_optim_free(object); break;
    case GRI_HOOK: gri_hook_free(object); break;
    case GRI_DICT: gri_dict_free(object); break;
    default: break; /* nodes and storages are internal and have their own releases */
    }
}

gr_ctx *gr_ctx_peek(const void *object) { return object ? ((const gri_object *)object)->ctx : NULL; }
