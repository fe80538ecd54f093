/* Whether teachers expect texts to begin with bos where a run's rows do not. */
#ifndef LB_RUN_ASK_BOS_H
#define LB_RUN_ASK_BOS_H

#include "common/text/tokenizer.h"
#include "trainer/data/dataset.h"
#include "trainer/teachers/teachers.h"

/* Asks each teacher that reads the rows' ids (unlike [teachers]: those that do not; NULL with teachers) about
 * a few rows of data as they are and with bos before each text, and logs a warning for one that predicts the
 * text far better so. Nothing where rows begin with it, the tokenizer (may be NULL, as may teachers) has no
 * bos, or teachers are away and not cached. Changes nothing else but what the cache holds. */
void lb_ask_bos(const struct lb_recipe *recipe, struct lb_teachers *teachers, const bool *unlike,
                const struct lb_tokenizer *tokenizer, const struct lb_dataset *data);

#endif
