#include "trainer/learn/schedule.h"

#include <math.h>

int64_t lb_total_steps(const struct lb_recipe *recipe, int64_t samples) {
    if (recipe->max_steps > 0) {
        return recipe->max_steps;
    }
    double per_step =
        (double)recipe->per_device_train_batch_size * (double)recipe->gradient_accumulation_steps;
    double steps = ceil(recipe->num_train_epochs * (double)samples / per_step);
    return steps < 1.0 ? 1 : (int64_t)steps;
}

int64_t lb_warmup_steps(const struct lb_recipe *recipe, int64_t total_steps) {
    if (recipe->warmup_steps > 0) {
        return recipe->warmup_steps;
    }
    int64_t share = (int64_t)ceil(recipe->warmup_ratio * (double)total_steps),
            most = recipe->warmup_max_steps;
    return most > 0 && most < share ? most : share;
}

/* From 0 to 1 as progress does. */
static double rise(enum lb_ramp ramp, double progress) {
    return ramp == LB_RAMP_COSINE   ? 0.5 * (1.0 - cos(M_PI * progress))
           : ramp == LB_RAMP_1_SQRT ? 1.0 - sqrt(1.0 - progress)
                                    : progress;
}

/* From 1 to 0. */
static double fall(enum lb_ramp ramp, double progress, double turns) {
    return ramp == LB_RAMP_LINEAR   ? 1.0 - progress
           : ramp == LB_RAMP_1_SQRT ? 1.0 - sqrt(progress)
                                    : 0.5 * (1.0 + cos(M_PI * turns * progress));
}

/* How often the cosine goes half around: once, unless num_cycles is given. */
static double turns_of(const struct lb_recipe *recipe) {
    return recipe->schedule.num_cycles > 0 ? 2.0 * recipe->schedule.num_cycles : 1.0;
}

/* What learning_rate is multiplied with; warmed: the share of the warm-up that is done, 1 behind it. */
static double stable_decay(const struct lb_recipe *recipe, int64_t total_steps, int64_t step, double warmed) {
    const struct lb_schedule_args *s = &recipe->schedule;
    int64_t warmup = lb_warmup_steps(recipe, total_steps);
    int64_t stable =
        s->num_stable_steps > 0 ? s->num_stable_steps : total_steps - warmup - s->num_decay_steps;
    int64_t behind = step - warmup - stable; /* into the decay */
    double shape = 1.0;
    if (step < warmup) {
        shape = rise(s->warmup_type, warmed);
    } else if (behind >= s->num_decay_steps) {
        shape = 0.0;
    } else if (behind >= 0) {
        shape = fall(s->decay_type, (double)behind / (double)s->num_decay_steps, turns_of(recipe));
    }
    return fmax(0.0, shape * (1.0 - s->min_lr_rate) + s->min_lr_rate);
}

double lb_learning_rate(const struct lb_recipe *recipe, int64_t total_steps, int64_t step) {
    const enum lb_schedule type = recipe->lr_scheduler_type;
    int64_t warmup = lb_warmup_steps(recipe, total_steps), done = step + !recipe->warmup_from_zero;
    if (type == LB_SCHEDULE_WSD) {
        double warmed = warmup > 0 && step < warmup ? (double)done / (double)warmup : 1.0;
        return recipe->learning_rate * stable_decay(recipe, total_steps, step, warmed);
    }
    if (step < warmup) {
        return recipe->learning_rate * (double)done / (double)warmup;
    }
    if (type == LB_SCHEDULE_CONSTANT || type == LB_SCHEDULE_CONSTANT_WITH_WARMUP) {
        return recipe->learning_rate;
    }
    double left = step >= total_steps ? 0.0 : (double)(total_steps - step) / (double)(total_steps - warmup);
    double least = recipe->min_lr_ratio, shape = left;
    if (type != LB_SCHEDULE_LINEAR) {
        shape = fall(LB_RAMP_COSINE, 1.0 - left, turns_of(recipe));
    }
    if (type == LB_SCHEDULE_COSINE_WITH_MIN_LR) {
        least = recipe->schedule.min_lr_rate;
    }
    return recipe->learning_rate * (least + (1.0 - least) * shape);
}

double lb_anneal_share(enum lb_anneal kind, int64_t steps, int64_t total_steps, int64_t step) {
    int64_t last = (steps > 0 ? steps : total_steps) - 1;
    if (kind == LB_ANNEAL_NONE || step <= 0) {
        return 0;
    }
    double share = step < last ? (double)step / (double)last : 1;
    return kind == LB_ANNEAL_COSINE ? 0.5 * (1.0 - cos(M_PI * share)) : share;
}
