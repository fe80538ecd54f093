/* limbeck eval --teacher: a model beside teachers that are hosted, on the data that it is measured with. */
#ifndef LB_COMMAND_EVAL_BESIDE_H
#define LB_COMMAND_EVAL_BESIDE_H

#include "trainer/command/commands.h"
#include "trainer/run/agree.h"

/* What the options say. */
struct lb_beside_options {
    struct lb_recipe_teacher teachers[LB_MAX_TEACHERS];
    unsigned n;
    enum lb_protocol protocol; /* of all of them */
    const char *token_file;    /* NULL: none */
    enum lb_target_lane targets;
    bool targets_given; /* else final_hidden, of features logits */
    int64_t top_k;
};

/* The names that targets has, in the order of enum lb_target_lane's values that lb_option_name gives. */
extern const char *const lb_beside_targets[];
/* The lane of the name at that place. */
enum lb_target_lane lb_beside_lane(int place);

struct lb_beside {
    bool kl[LB_MAX_TEACHERS];
    struct lb_agreement agreement[LB_MAX_TEACHERS];
};

/* Asks them about data, which the model reads in rows of at most max_length. LB_E_MISMATCH: a teacher of
 * other tokens or classes. */
LB_NODISCARD enum lb_status lb_eval_beside(const struct lb_beside_options *options,
                                           const struct lb_opened *opened, const struct lb_dataset *data,
                                           int64_t max_length, volatile sig_atomic_t *stop,
                                           struct lb_beside *out, struct lb_detail *detail);
/* A table of it; and the list that JSON has. */
void lb_beside_print(const struct lb_beside_options *options, const struct lb_beside *beside,
                     const struct lb_dataset *data);
json_t *lb_beside_json(const struct lb_beside_options *options, const struct lb_beside *beside,
                       const struct lb_dataset *data);

#endif
