/* Sequential: y = the children, one after the other. A whole stack of layers is one call from a script. Of a child
 * with several outputs the first goes on. */
#include "layer.h"

static gr_status Sequential_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    gr_tensor *y = gr_retain(in[0]), *next;
    (void)n_in;
    for (int i = 0; i < l->n_children; i++) {
        gr_status s = gr_layer_forward(l->children[i].layer, 1, &y, 1, &next);
        gr_release(y);
        GR_TRY(s);
        y = next;
    }
    *out = y;
    return GR_OK;
}

GR_LAYER(Sequential) = {
    .info = {.name = "Sequential", .doc = "Layers applied one after the other: nn.Sequential(a, b, ...).\n"
                    "Of a layer with several results, as LSTM, the first goes on."},
    .forward = Sequential_forward,
    .container = true,
};
