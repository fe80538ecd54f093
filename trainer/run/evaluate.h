/* How well a model predicts a data set: cross entropy of the labels, per part (tag) and together.
 *
 * One forward per batch without gradients; rows of logits are reduced in tiles. Sums are taken in the order
 * of the samples, so the bits do not depend on threads. One thread calls; OpenMP inside.
 */
#ifndef LB_RUN_EVALUATE_H
#define LB_RUN_EVALUATE_H

#include "common/model/model.h"
#include "trainer/data/dataset.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define LB_EVAL_MAX_PARTS 64
#define LB_EVAL_MAX_CLASSES 256
#define LB_EVAL_BINS 15

struct lb_eval_part {
    const char *name; /* the tag, owned by the data set; NULL: all, or a class */
    double nats;      /* sum of -log q(label) */
    int64_t tokens;   /* labels */
    int64_t bytes;    /* of text behind the labels; 0 for images */
    int64_t correct;  /* labels that had the largest logit; -1: not known */
    /* from the sums; NaN where there is nothing to divide by */
    double loss;          /* nats per label */
    double perplexity;    /* exp(loss) */
    double bits_per_byte; /* of text */
    double error_percent; /* labels that did not have the largest logit */
};

/* Labels whose likeliest class has so much probability: from i / LB_EVAL_BINS, not itself, to (i + 1) /
 * LB_EVAL_BINS.
 */
struct lb_eval_bin {
    int64_t n, correct;
    double confidence; /* sum of those probabilities */
};

struct lb_evaluation {
    bool text; /* rows of text, each token a label; else samples with a class */
    struct lb_eval_part all;
    int n_parts; /* the data set's tags */
    struct lb_eval_part part[LB_EVAL_MAX_PARTS];
    /* classifiers of at most LB_EVAL_MAX_CLASSES classes: each class by itself */
    int n_classes;
    struct lb_eval_part classes[LB_EVAL_MAX_CLASSES];
    /* Geometric mean of the parts' perplexities, each part counting the same whatever its size; without
     * parts, that of all. */
    double balanced_perplexity;
    struct lb_eval_bin
        bins[LB_EVAL_BINS]; /* of all; empty where the likeliest class's probability is not known */
    /* Expected calibration error, from 0 to 1: how far confidence and accuracy are apart in the bins,
     * weighted by what is in them (Guo et al., "On calibration of modern neural networks", ICML 2017,
     * equation 3). NaN: no bins. */
    double ece;
    double seconds;
};

/* All optional; NULL for all defaults. */
struct lb_evaluate_options {
    int64_t rows;                /* sequences or images per forward; 0: as many as make about 2,048 rows */
    volatile sig_atomic_t *stop; /* set by a signal: end with LB_E_CANCELLED */
    const float *bias;           /* classifiers: added to the logits of the first n_bias classes */
    int n_bias;
};

/* LB_E_UNSUPPORTED: labels (NULL: of no texts) are not of classes of which one holds; who has them. */
LB_NODISCARD enum lb_status lb_evaluate_classes(const struct lb_labels *labels, const char *who,
                                                struct lb_detail *detail);
/* Whether the model has all ids and labels of the data, and takes the longest row: *out_longest, at least 1.
 */
LB_NODISCARD enum lb_status lb_evaluate_rows(const struct lb_model *model, const struct lb_dataset *data,
                                             int64_t *out_longest, struct lb_detail *detail);
/* Errors: ids beyond the model's vocabulary, rows longer than it takes, features of another width, more than
 * LB_EVAL_MAX_PARTS tags, a bias for text or for classes that the model has not. */
LB_NODISCARD enum lb_status lb_evaluate(const struct lb_model *model, const struct lb_dataset *data,
                                        const struct lb_evaluate_options *options, struct lb_evaluation *out,
                                        struct lb_detail *detail);

/* Everything that follows from the sums (nats, tokens, correct) of all and of the parts; fills in names and
 * bytes. */
void lb_eval_finish(struct lb_evaluation *e, const struct lb_dataset *data);

#endif
