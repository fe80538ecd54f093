/* The classes of a classifier of texts: what transformers' id2label, label2id and problem_type say.
 *
 * Owned by whoever made them; lb_labels_finish frees. No locks: constant once made. */
#ifndef LB_FORMATS_LABELS_H
#define LB_FORMATS_LABELS_H

#include "common/base/json.h"
#include "common/base/sha256.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_MAX_LABELS 65536

/* How logits become answers. */
enum lb_problem {
    LB_PROBLEM_NONE,   /* not said */
    LB_PROBLEM_SINGLE, /* "single_label_classification": one class holds, softmax */
    LB_PROBLEM_MULTI,  /* "multi_label_classification": each by itself, sigmoid */
    LB_PROBLEM_REGRESSION
};

struct lb_labels {
    int64_t n;
    char **names; /* [n]; LABEL_0, LABEL_1, ... where nobody has named them */
    enum lb_problem problem;
};

/* Of a config.json object with n classes; what names it in errors. LB_E_FORMAT, LB_E_UNSUPPORTED. */
LB_NODISCARD enum lb_status lb_labels_read(const json_t *config, int64_t n, const char *what,
                                           struct lb_labels *out, struct lb_detail *detail);
/* LABEL_0 ... LABEL_(n-1), of which one holds. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_labels_init(struct lb_labels *out, int64_t n);
LB_NODISCARD enum lb_status lb_labels_copy(const struct lb_labels *from, struct lb_labels *out);
/* Calls class i so. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_labels_name(struct lb_labels *labels, int64_t i, const char *name);
/* Accepts zeroed ones. */
void lb_labels_finish(struct lb_labels *labels);

/* Whether nobody has named them. */
bool lb_labels_plain(const struct lb_labels *labels);
/* Whether both name their classes, and not alike: *out_class is the first that differs (b's number may). */
bool lb_labels_differ(const struct lb_labels *a, const struct lb_labels *b, int64_t *out_class);
/* What transformers takes them for: where nobody has said it, one number for a regression, several for
 * classes of which one holds. Never LB_PROBLEM_NONE. */
enum lb_problem lb_labels_problem(const struct lb_labels *labels);
/* The class of that name; -1: none. */
int64_t lb_labels_find(const struct lb_labels *labels, const char *name);
/* transformers' word; NULL for LB_PROBLEM_NONE. */
const char *lb_problem_name(enum lb_problem problem);

/* Sets id2label, label2id and problem_type of the object. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_labels_put(const struct lb_labels *labels, json_t *object);
/* Adds what was said about them to hash. */
void lb_labels_hash(const struct lb_labels *labels, struct lb_sha256 *hash);

#endif
