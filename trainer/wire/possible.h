/* Whether an answer can be true at all, whoever gave it: what a broken server, a broken line or a liar sends
 * is found before it is kept or learnt from. What cannot be found this way is listed in PROTOCOL.md. Any
 * thread. */
#ifndef LB_WIRE_POSSIBLE_H
#define LB_WIRE_POSSIBLE_H

#include "trainer/wire/answer.h"

/* Looks at every number: of a datatype that the output comes in; finite; ids not negative and different
 * within a row; top-k values in falling order; log-probabilities not above 0, that of the rest below 0; the
 * log-sum-exp (at temperature; 0: not known) not below the largest logit; rows of attention between 0 and 1
 * with sum 1. LB_E_FORMAT names the tensor, the row and the number. name: the teacher's. */
LB_NODISCARD enum lb_status lb_answer_possible(const struct lb_answer *answer, double temperature,
                                               const char *name, struct lb_detail *detail);
/* The same for a head, downloaded from where: finite. */
LB_NODISCARD enum lb_status lb_head_possible(const struct lb_teacher_head *head, const char *where,
                                             struct lb_detail *detail);

#endif
