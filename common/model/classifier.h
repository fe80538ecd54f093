/* Classifiers of texts: a head over what a forward makes of a sequence, as transformers'
 * ...ForSequenceClassification have it. Families say how theirs is called. Private to common/model.
 */
#ifndef LB_MODEL_CLASSIFIER_H
#define LB_MODEL_CLASSIFIER_H

#include "common/model/family.h"
#include "common/nn/ops.h"

/* logits = out(activation(dense(row))), of the sequence's first row, or of its last. */
struct lb_classifier_traits {
    const char *dense; /* name without ".weight", with a bias; NULL: none, nor an activation */
    struct lb_value *(*activation)(struct lb_tape *tape, struct lb_value *x);
    const char *out;
    bool out_bias;
    bool last; /* the row of the last token that is not pad_token_id */
};
/* transformers' GenericForSequenceClassification: of decoders. */
extern const struct lb_classifier_traits lb_decoder_classifier;

/* All do nothing for configs without such a head. */
void lb_classifier_declare(const struct lb_config *config, struct lb_spec_list *list);
/* Finds its weights; *head and *bias become the names of what multiplies last. */
void lb_classifier_bind(struct lb_model *model, const char **head, const char **bias);
/* Of states [N, C] of a batch's positions what the head multiplies [sequences, C]; from here on the tape's
 * rows are these. NULL: see lb_tape_status. */
struct lb_value *lb_classifier_forward(const struct lb_model *model, struct lb_tape *tape,
                                       const struct lb_input *in, struct lb_value *states);

#endif
