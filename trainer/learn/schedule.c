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
    return (int64_t)ceil(recipe->warmup_ratio * (double)total_steps);
}

double lb_learning_rate(const struct lb_recipe *recipe, int64_t total_steps, int64_t step) {
    int64_t warmup = lb_warmup_steps(recipe, total_steps);
    if (step < warmup) {
        return recipe->learning_rate * (double)(step + 1) / (double)warmup;
    }
    if (recipe->lr_scheduler_type == LB_SCHEDULE_CONSTANT) {
        return recipe->learning_rate;
    }
    double left = step >= total_steps ? 0.0 : (double)(total_steps - step) / (double)(total_steps - warmup);
    double shape =
        recipe->lr_scheduler_type == LB_SCHEDULE_COSINE ? 0.5 * (1.0 + cos(M_PI * (1.0 - left))) : left;
    return recipe->learning_rate * (recipe->min_lr_ratio + (1.0 - recipe->min_lr_ratio) * shape);
}

double lb_anneal_share(enum lb_anneal kind, int64_t steps, int64_t total_steps, int64_t step) {
    int64_t last = (steps > 0 ? steps : total_steps) - 1;
    if (kind == LB_ANNEAL_NONE || step <= 0) {
        return 0;
    }
    double share = step < last ? (double)step / (double)last : 1;
    return kind == LB_ANNEAL_COSINE ? 0.5 * (1.0 - cos(M_PI * share)) : share;
}
