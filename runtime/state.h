/* State dicts into objects: an object asks for what it wants by name; what fits is handed over, what does not is
 * noted, and in the end said in one message. */
#ifndef GRI_STATE_H
#define GRI_STATE_H

#include "dict.h"

#define GRI_MATCH_TEXT 480 /* bytes of a list in the message */

typedef struct gri_match {
    gr_ctx *ctx;
    const gr_state_part *part;
    bool *used;                      /* one for each of the dict's tensors */
    int count[GR_MATCHES];
    char list[GR_MATCHES][GRI_MATCH_TEXT];
    bool from_zero;                  /* something unexpected counts from 0, as PyTorch does */
} gri_match;

/* *out: the dict's tensor called name, borrowed, if it has the shape and a dtype that converts to it without leaving
 * floating (or the same one); else NULL. here: what it is for, for the report; may be NULL. A tensor that is not
 * required may be missing. */
gr_status gri_match_take(gri_match *m, const char *name, const gri_spec *spec, const gr_tensor *here, bool required,
                         gr_tensor **out);
/* Notes what nobody asked for. Fails, unless the part is partial, if anything was noted but what is loaded. */
gr_status gri_match_end(gri_match *m);

#endif
