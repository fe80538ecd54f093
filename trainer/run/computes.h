/* Which machines' bits are in a run: its own and its teachers'. They go with its checkpoints, so that a
 * resume under other kernels doesn't change the student without a word. One thread. */
#ifndef LB_RUN_COMPUTES_H
#define LB_RUN_COMPUTES_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "trainer/loss/mixture.h"
#include "trainer/recipe/recipe.h"
#include "trainer/wire/answer.h"

struct lb_teachers;

struct lb_computes {
    unsigned n; /* 0: not known */
    struct lb_compute {
        char digest[LB_SHA256_HEX]; /* "": not told */
        char kernels[LB_KERNELS_TEXT];
    } by[1 + LB_MAX_TEACHERS]; /* the trainer itself, then the teachers in the recipe's order */
};

/* What computes now; teachers NULL: there are none. */
LB_NODISCARD enum lb_status lb_computes_find(const struct lb_teachers *teachers, struct lb_computes *out,
                                             struct lb_detail *detail);
/* Appends the JSON list that read takes. */
void lb_computes_write(const struct lb_computes *computes, struct lb_buf *out);
/* The member "computes" of object; n is 0 when it isn't there. LB_E_FORMAT. */
LB_NODISCARD enum lb_status lb_computes_read(const json_t *object, const char *what, struct lb_computes *out,
                                             struct lb_detail *detail);
/* Whether other bits are computed now than then; text says where, by the teachers' names: "teacher math:
 * 0123... (KERNELS), then 4567... (KERNELS)". */
bool lb_computes_differ(const struct lb_computes *then, const struct lb_computes *now,
                        const struct lb_recipe_teacher *teachers, char *text, size_t size);

#endif
