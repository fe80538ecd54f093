/* README.md of a student: what it is, whom it learnt from and how, how well it does, how it is loaded. As the
 * Hugging Face Hub shows it: Markdown behind a head of YAML. Says nothing of places or times: the same run
 * writes the same.
 */
#ifndef LB_RUN_CARD_H
#define LB_RUN_CARD_H

#include "common/base/buf.h"
#include "common/model/model.h"
#include "trainer/recipe/recipe.h"
#include "trainer/teachers/teachers.h"

struct lb_card {
    const char *name; /* a path: its last part is the heading */
    const struct lb_model *model;
    /* of a run; recipe NULL: it was made elsewhere */
    const struct lb_recipe *recipe;
    const struct lb_teachers *teachers; /* NULL: none */
    const char *run_dir;                /* holds metrics.jsonl */
    int64_t steps, tokens;
};

LB_NODISCARD enum lb_status lb_card_write(const struct lb_card *card, struct lb_buf *out,
                                          struct lb_detail *detail);
/* The card that lies in a folder and was written by Limbeck; nothing is appended where there is none. */
LB_NODISCARD enum lb_status lb_card_again(const char *path, struct lb_buf *out, struct lb_detail *detail);

#endif
