/* Losses as layers: each is one op, whose options are the constructor's arguments. Called with x and the target, and
 * with weights where the op takes any. */
#include "layer.h"

GR_LAYER(MSELoss) = {.info = {.name = "MSELoss", .doc = "(x - y)², their mean, sum or all"},
                     .op = &gri_op_mse_loss, .inputs = 2};
GR_LAYER(L1Loss) = {.info = {.name = "L1Loss", .doc = "|x - y|, their mean, sum or all"},
                    .op = &gri_op_l1_loss, .inputs = 2};
GR_LAYER(HuberLoss) = {.info = {.name = "HuberLoss", .doc = "(x - y)² / 2, linear where |x - y| is above delta"},
                       .op = &gri_op_huber_loss, .inputs = 2};
GR_LAYER(SmoothL1Loss) = {.info = {.name = "SmoothL1Loss", .doc = "|x - y|, quadratic where it is below beta"},
                          .op = &gri_op_smooth_l1_loss, .inputs = 2};
GR_LAYER(BCEWithLogitsLoss) = {
    .info = {.name = "BCEWithLogitsLoss", .doc = "Loss of yes and no from logits: (x, target, weight?, pos_weight?)"},
    .op = &gri_op_bce_with_logits, .inputs = 4, .optional = 2};
GR_LAYER(CrossEntropyLoss) = {
    .info = {.name = "CrossEntropyLoss", .doc = "-log softmax(x) at the target class: (x, target, weight?)"},
    .op = &gri_op_cross_entropy, .inputs = 3, .optional = 1};
GR_LAYER(NLLLoss) = {
    .info = {.name = "NLLLoss", .doc = "-x at the target class, of log-probabilities: (x, target, weight?)"},
    .op = &gri_op_nll_loss, .inputs = 3, .optional = 1};
GR_LAYER(KLDivLoss) = {
    .info = {.name = "KLDivLoss", .doc = "target (log target - x), the divergence of log-probabilities x"},
    .op = &gri_op_kl_div, .inputs = 2};
