/* Texts that a teacher writes: asked for at once, with the recipe's patience, and kept in the cache. */
#ifndef LB_TEACHERS_WRITTEN_H
#define LB_TEACHERS_WRITTEN_H

#include "trainer/teachers/teachers.h"
#include "trainer/wire/texts.h"

/* Most texts of one call, which a server writes together. */
#define LB_TEXTS_AT_ONCE 16

/* Whether the teacher's server tells ids of what it writes, and which model wrote it: limbeckd does. */
bool lb_teachers_writes(const struct lb_teachers *teachers, unsigned k);
/* Teacher k goes on with n prompts of its own ids; out [n], their ids in arena. What a text becomes depends
 * on prompt and args alone, so that the cache, which is looked into first, has the same. LB_E_CANCELLED:
 * stopped. */
LB_NODISCARD enum lb_status lb_teachers_write(struct lb_teachers *teachers, unsigned k,
                                              const struct lb_text_args *args,
                                              const struct lb_text_prompt *prompts, int64_t n,
                                              struct lb_arena *arena, struct lb_text *out,
                                              struct lb_detail *detail);

#endif
