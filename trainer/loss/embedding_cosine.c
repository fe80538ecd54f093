/* Cosine between sentence embeddings: L = 1 - a.b / (|a| |b|) per sequence; dL/da = (cos a/|a| - b/|b|) /
 * |a|. The mean is over sequences, whatever their lengths. For embeddings of length 1 it is half their
 * squared distance. */
#include "trainer/loss/loss.h"

const struct lb_loss lb_loss_embedding_cosine = {
    .name = "embedding_cosine", .on = LB_ON_SENTENCE, .parameters = "", .state = lb_states_cosine};
