/* Mean square error between sentence embeddings (Reimers and Gurevych 2020, "Making monolingual sentence
 * embeddings multilingual"): L = |a - b|^2 / d per sequence, d the teacher's width; dL/da = 2 (a - b) / d.
 * The mean is over sequences, whatever their lengths. */
#include "trainer/loss/loss.h"

const struct lb_loss lb_loss_embedding_mse = {
    .name = "embedding_mse", .on = LB_ON_SENTENCE, .parameters = "", .state = lb_states_mse};
