/* Layers without parameters that are one op each, whose attributes are the constructor's arguments; and Identity. */
#include "layer.h"

GR_LAYER(Tanh) = {.info = {.name = "Tanh", .doc = "tanh(x)"}, .op = &gri_op_tanh};
GR_LAYER(LogSigmoid) = {.info = {.name = "LogSigmoid", .doc = "log(1 / (1 + exp(-x)))"}, .op = &gri_op_logsigmoid};
GR_LAYER(Sigmoid) = {.info = {.name = "Sigmoid", .doc = "1 / (1 + exp(-x))"}, .op = &gri_op_sigmoid};
GR_LAYER(ReLU) = {.info = {.name = "ReLU", .doc = "max(x, 0)"}, .op = &gri_op_relu};
GR_LAYER(LeakyReLU) = {.info = {.name = "LeakyReLU", .doc = "x where x > 0, else negative_slope * x"},
                       .op = &gri_op_leaky_relu};
GR_LAYER(ELU) = {.info = {.name = "ELU", .doc = "x where x > 0, else alpha * (exp(x) - 1)"}, .op = &gri_op_elu};
GR_LAYER(SELU) = {.info = {.name = "SELU", .doc = "1.0507 * x where x > 0, else 1.7581 * (exp(x) - 1)"},
                  .op = &gri_op_selu};
GR_LAYER(GELU) = {.info = {.name = "GELU", .doc = "x times the share of the normal distribution below x"},
                  .op = &gri_op_gelu};
GR_LAYER(SiLU) = {.info = {.name = "SiLU", .doc = "x * sigmoid(x)"}, .op = &gri_op_silu};
GR_LAYER(Softplus) = {.info = {.name = "Softplus", .doc = "log(1 + exp(beta * x)) / beta"}, .op = &gri_op_softplus};
GR_LAYER(Softmax) = {.info = {.name = "Softmax", .doc = "exp(x) / sum of exp(x) along dim, else the last"},
                     .op = &gri_op_softmax};
GR_LAYER(LogSoftmax) = {.info = {.name = "LogSoftmax", .doc = "log(softmax(x)) along dim, else the last"},
                        .op = &gri_op_log_softmax};

/* ---- Identity: y = x ---- */

static gr_status Identity_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)l, (void)n_in;
    *out = gr_retain(in[0]);
    return GR_OK;
}

GR_LAYER(Identity) = {.info = {.name = "Identity", .doc = "x itself: a place to put something else later"},
                      .forward = Identity_forward};
