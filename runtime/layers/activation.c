/* Layers that are one op each, whose attributes are the constructor's arguments. */
#include "layer.h"

GR_LAYER(Tanh) = {.info = {.name = "Tanh", .doc = "tanh(x)"}, .op = &gri_op_tanh};
GR_LAYER(Sigmoid) = {.info = {.name = "Sigmoid", .doc = "1 / (1 + exp(-x))"}, .op = &gri_op_sigmoid};
GR_LAYER(ReLU) = {.info = {.name = "ReLU", .doc = "max(x, 0)"}, .op = &gri_op_relu};
GR_LAYER(LeakyReLU) = {.info = {.name = "LeakyReLU", .doc = "x where x > 0, else negative_slope * x"},
                       .op = &gri_op_leaky_relu};
GR_LAYER(ELU) = {.info = {.name = "ELU", .doc = "x where x > 0, else alpha * (exp(x) - 1)"}, .op = &gri_op_elu};
