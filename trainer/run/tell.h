/* What a run tells in its log of data and teachers that are not quite what one may think they are. */
#ifndef LB_RUN_TELL_H
#define LB_RUN_TELL_H

#include "trainer/data/dataset.h"
#include "trainer/learn/plan.h"
#include "trainer/teachers/teachers.h"

/* Records that were cut to max_length or left out. data may be NULL; name: "datasets". */
void lb_tell_records(const struct lb_dataset *data, const char *name, int64_t max_length);
/* Teachers with another chat template than the one that wrote the data: they read conversations written
 * otherwise than they were trained on, and say less than they know. unlike [teachers]: those that read them
 * by their own. recipe: theirs, for their names. */
void lb_tell_templates(const struct lb_recipe *recipe, const struct lb_dataset *data, const bool *unlike,
                       const struct lb_teachers *teachers);
/* Which layers a rule of layer_mapping has come to, a line for each loss and teacher. */
void lb_tell_layers(const struct lb_plan *plan);

#endif
