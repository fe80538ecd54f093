/* How near a student is to each of its teachers on held-out data: how often their likeliest tokens (of
 * classifiers, classes) are the same, and KL(teacher || student) at temperature 1.
 *
 * Teachers are asked as in training, by the recipe's targets: their answers come from the cache where it has
 * them, and a teacher that stays away means what on_lost_teacher says. Nothing reaches the student.
 */
#ifndef LB_RUN_AGREE_H
#define LB_RUN_AGREE_H

#include "trainer/learn/plan.h"
#include "trainer/run/evaluate.h"

/* What teachers are asked about held-out data, made once. */
struct lb_agree {
    const struct lb_plan *plan;
    bool asked[LB_MAX_TEACHERS]; /* others are left out */
    bool kl[LB_MAX_TEACHERS];    /* its distributions come too */
    struct lb_ask_spec spec[LB_MAX_TEACHERS];
};

/* One teacher on some of the data. */
struct lb_agreed {
    int64_t n,
        same;    /* positions (of classifiers, samples) that it answered; where the likeliest is the same */
    double nats; /* sum of KL(teacher || student) over these */
};

/* One teacher on all of the data. */
struct lb_agreement {
    struct lb_agreed all, part[LB_EVAL_MAX_PARTS]; /* by the data's tags */
    int64_t unanswered; /* samples that it was asked about and, lost, did not answer: the sums lack these */
};

/* Which teachers can be compared with the student, and by what: KL where losses on distributions learn from
 * one of the student's own vocabulary by targets other than samples, else the likeliest token alone. Those
 * that cannot are left out, which the log tells with the reason (agreement_left_out). */
void lb_agree_plan(const struct lb_plan *plan, const struct lb_model *student,
                   const struct lb_teachers *teachers, struct lb_agree *out);
/* out [teachers]. data are ones that lb_evaluate takes. LB_E_CANCELLED soon after *stop (may be NULL). */
LB_NODISCARD enum lb_status lb_agree(const struct lb_agree *agree, const struct lb_model *student,
                                     struct lb_teachers *teachers, const struct lb_dataset *data,
                                     volatile sig_atomic_t *stop, struct lb_agreement *out,
                                     struct lb_detail *detail);

#endif
