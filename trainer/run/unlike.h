/* What teachers that read other tokens than the student make of the data. */
#ifndef LB_RUN_UNLIKE_H
#define LB_RUN_UNLIKE_H

#include "trainer/data/dataset.h"
#include "trainer/learn/plan.h"

/* One line in the log for each teacher that is unlike: what of the first rows' positions lies in chunks that
 * both hold whole, how many tokens of either make one, and, unless it is away and not cached,
 * its bits per byte on some of them. LB_E_MISMATCH: there is no such chunk. */
LB_NODISCARD enum lb_status lb_unlike_report(const struct lb_plan *plan, struct lb_teachers *teachers,
                                             const struct lb_tokenizer *tokenizer,
                                             const struct lb_dataset *data, struct lb_detail *detail);

#endif
