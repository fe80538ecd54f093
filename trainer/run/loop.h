/* A training run from recipe to exported student.
 *
 * The run folder (recipe's output_dir) holds: recipe.yaml (resolved), metrics.jsonl, checkpoint-STEP/, and at
 * the end student/, a Hugging Face folder. One process owns it at a time. A run that was stopped or killed
 * goes on with resume to the same bits.
 */
#ifndef LB_RUN_LOOP_H
#define LB_RUN_LOOP_H

#include "common/base/status.h"
#include "trainer/recipe/recipe.h"

#include <signal.h>
#include <stdbool.h>

struct lb_train_options {
    bool resume; /* from the last checkpoint of the run in the folder, or its start when it made none yet */
    int threads; /* given on the command line, instead of the recipe's; 0: not given */
    volatile sig_atomic_t *stop;     /* set by a signal: finish the step, save, return LB_E_CANCELLED */
    volatile sig_atomic_t *save_now; /* set by a signal: save and go on; may be NULL */
    bool *resumable; /* becomes whether the folder holds a run that resume goes on with; may be NULL */
};

/* LB_E_CANCELLED: stopped, everything that was done is saved. Whatever else ends a run, the steps that were
 * made are saved before it returns. */
LB_NODISCARD enum lb_status lb_train(const struct lb_recipe *recipe, const struct lb_train_options *options,
                                     struct lb_detail *detail);

#endif
