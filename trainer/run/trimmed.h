/* What a trimmed vocabulary costs: how often its ids are not those that the teacher itself would write, and
 * how much harder the teacher finds the text then. */
#ifndef LB_RUN_TRIMMED_H
#define LB_RUN_TRIMMED_H

#include "trainer/data/dataset.h"
#include "trainer/learn/plan.h"

/* One line in the log for each teacher that is asked through the map: the share of positions of the first
 * rows whose ids are others than the teacher's own, by how much the rows are longer, and, unless it is away
 * and not cached, its bits per byte on some of them both ways. Where something of it cannot be
 * had, the run goes on without. */
void lb_trimmed_report(const struct lb_plan *plan, struct lb_teachers *teachers,
                       const struct lb_dataset *data);

#endif
