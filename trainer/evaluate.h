/* How well a model predicts a data set: cross entropy of the labels, per part (tag) and together.
 *
 * One forward per batch without gradients; rows of logits are reduced in tiles. Sums are taken in the order
 * of the samples, so the bits do not depend on threads. One thread calls; OpenMP inside.
 */
#ifndef LB_TRAINER_EVALUATE_H
#define LB_TRAINER_EVALUATE_H

#include "common/model/model.h"
#include "common/nn/tape.h"
#include "trainer/dataset.h"

#include <signal.h>
#include <stdint.h>

#define LB_EVAL_MAX_PARTS 64
#define LB_EVAL_MAX_CLASSES 256

struct lb_eval_part {
    double nats;     /* sum of -log q(label) */
    int64_t tokens;  /* labels */
    int64_t bytes;   /* of text behind the labels; 0 for images */
    int64_t correct; /* labels that had the largest logit */
};

struct lb_evaluation {
    struct lb_eval_part all;
    int n_parts; /* the data set's tags */
    struct lb_eval_part parts[LB_EVAL_MAX_PARTS];
    /* images with at most LB_EVAL_MAX_CLASSES classes: each class by itself */
    int n_classes;
    struct lb_eval_part classes[LB_EVAL_MAX_CLASSES];
    double seconds;
};

/* rows: sequences (or images) per forward. The tape is begun anew for each batch. stop (may be NULL) ends
 * with LB_E_CANCELLED. Errors: ids beyond the model's vocabulary, rows longer than it takes, features of
 * another width, more than LB_EVAL_MAX_PARTS tags. */
LB_NODISCARD enum lb_status lb_evaluate(const struct lb_model *model, struct lb_tape *tape,
                                        const struct lb_dataset *data, int64_t rows,
                                        volatile sig_atomic_t *stop, struct lb_evaluation *out,
                                        struct lb_detail *detail);

/* exp(nats / tokens); NaN without tokens. */
double lb_perplexity(const struct lb_eval_part *part);
/* Bits per byte of text; NaN without bytes. */
double lb_bits_per_byte(const struct lb_eval_part *part);
/* Share of wrong labels in percent; NaN without labels. */
double lb_error_percent(const struct lb_eval_part *part);
/* Geometric mean of the parts' perplexities, each part counting the same whatever its size; of all when there
 * are no parts. */
double lb_balanced_perplexity(const struct lb_evaluation *evaluation);

#endif
