/* The learning rate of each step, as a pure function: resuming needs no state. */
#ifndef LB_LEARN_SCHEDULE_H
#define LB_LEARN_SCHEDULE_H

#include "trainer/recipe/recipe.h"

#include <stdint.h>

/* Optimiser steps of the run: max_steps, or num_train_epochs over `samples` samples, the last step filled up
 * from the next epoch. At least 1. */
int64_t lb_total_steps(const struct lb_recipe *recipe, int64_t samples);
/* warmup_steps, or else warmup_ratio of the total rounded up (as Hugging Face's Trainer). */
int64_t lb_warmup_steps(const struct lb_recipe *recipe, int64_t total_steps);
/* The rate of step number `step`, counting from 0, with the formulas of transformers' get_scheduler (its
 * optimization.py), from learning_rate at the end of the warm-up to the least at total_steps. The least is
 * min_lr_ratio's, or what lr_scheduler_kwargs say. One thing is otherwise unless warmup_from_zero: warm-up
 * rises as (step + 1) / warm-up, so that the first step learns already; there step / warm-up. */
double lb_learning_rate(const struct lb_recipe *recipe, int64_t total_steps, int64_t step);

/* How much of the way from start to end an annealing has gone at that step: from 0 at the first to 1 at the
 * last of its steps (0: all of the run), and after it; linear, or half a cosine. None: 0. */
double lb_anneal_share(enum lb_anneal kind, int64_t steps, int64_t total_steps, int64_t step);

#endif
