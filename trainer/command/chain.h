/* limbeck train A.yaml B.yaml ...: runs one after the other, where later ones read what earlier ones make. */
#ifndef LB_COMMAND_CHAIN_H
#define LB_COMMAND_CHAIN_H

#include "trainer/recipe/recipe.h"

#define LB_MAX_CHAIN 64

/* Whether all places that the recipes [n] name are there or in the run folder of an earlier one, and each has
 * a run folder of its own, where a run may begin (resume: or go on). LB_E_ARG names recipe, key and place. */
LB_NODISCARD enum lb_status lb_chain_check(struct lb_recipe *const *recipes, unsigned n, bool resume,
                                           struct lb_detail *detail);
/* What the recipe's run folder holds. */
enum lb_chain_state {
    LB_CHAIN_NEW,   /* no run */
    LB_CHAIN_BEGUN, /* one that resume goes on with, or refuses */
    LB_CHAIN_DONE   /* a run by a recipe that decides the same and names the same files, folders and teachers,
                     * none of them changed since it began, with its student. Anything else is for resume to
                     * judge */
};
enum lb_chain_state lb_chain_state(const struct lb_recipe *recipe);

#endif
