/* Similarity-preserving distillation (Tung and Mori 2019) of sentence embeddings: similarity_preserving of
 * the sentences of a micro-batch, which are alike to each other as the teacher's are; L, its gradient and the
 * means as there. */
#include "trainer/loss/loss.h"

const struct lb_loss lb_loss_embedding_similarity = {.name = "embedding_similarity",
                                                     .on = LB_ON_SENTENCE,
                                                     .parameters = "",
                                                     .any_width = true,
                                                     .among = LB_AMONG_ROWS,
                                                     .work = lb_similarity_work,
                                                     .state = lb_states_similarity};
