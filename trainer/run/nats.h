/* How likely a teacher finds texts, asked before a run. */
#ifndef LB_RUN_NATS_H
#define LB_RUN_NATS_H

#include "trainer/teachers/teachers.h"

#define LB_NATS_TEXTS 4 /* that a teacher is asked about */

/* A text, and what of its labels is added up: those of its_at .. its_at + its_n - 1. */
struct lb_nats_text {
    struct lb_sample sample;
    const struct lb_chunk *chunks; /* [n_chunks] */
    int64_t n_chunks;
};

/* Nats of all that under teacher k, from the cache where it holds them; NAN: the teacher does not say, is
 * away and not in the cache, or n is 0. n at most LB_NATS_TEXTS. its_ids: the texts have its own ids,
 * whatever map it has. */
double lb_nats_ask(struct lb_teachers *teachers, unsigned k, const struct lb_nats_text *texts, int64_t n,
                   bool its_ids);

#endif
