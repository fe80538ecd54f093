#include "trainer/run/tell.h"

#include "common/base/log.h"

#include <stdio.h>
#include <string.h>

void lb_tell_records(const struct lb_dataset *data, const char *name, int64_t max_length) {
    int64_t shortened = data != NULL ? lb_dataset_shortened(data) : 0,
            dropped = data != NULL ? lb_dataset_dropped(data) : 0;
    if (shortened > 0 || dropped > 0) {
        lb_log(LB_LOG_WARN, "records_too_long", "of=%s max_length=%lld shortened=%lld left_out=%lld", name,
               (long long)max_length, (long long)shortened, (long long)dropped);
    }
}

void lb_tell_templates(const struct lb_recipe *recipe, const struct lb_dataset *data, const bool *unlike,
                       const struct lb_teachers *teachers) {
    const char *ours = lb_dataset_chat_hash(data);
    for (unsigned k = 0; *ours != '\0' && k < lb_teachers_count(teachers); k++) {
        const struct lb_teacher_info *info = lb_teachers_info(teachers, k);
        if (!unlike[k] && info->chat_template_hash[0] != '\0' &&
            strcmp(info->chat_template_hash, ours) != 0) {
            lb_log(LB_LOG_WARN, "other_chat_template", "teacher=%s its_sha256=%.12s ours_sha256=%.12s",
                   recipe->teachers[k].name, info->chat_template_hash, ours);
        }
    }
}

void lb_tell_layers(const struct lb_plan *plan) {
    for (size_t i = 0; i < plan->n_pairs; i++) {
        const struct lb_pair *p = &plan->pairs[i];
        bool first = i == 0 || p[-1].loss != p->loss || p[-1].teacher != p->teacher;
        if (!first || plan->recipe->loss_functions[p->loss].layer_rule == LB_LAYERS_LISTED) {
            continue;
        }
        char pairs[LB_MAX_PAIRS * 16] = "";
        size_t n = 0;
        for (const struct lb_pair *q = p;
             q < plan->pairs + plan->n_pairs && q->loss == p->loss && q->teacher == p->teacher; q++) {
            n += (size_t)snprintf(pairs + n, sizeof pairs - n, "%s%d:%d", q > p ? "," : "", q->tap.layer,
                                  q->layer);
        }
        lb_log(LB_LOG_INFO, "layer_mapping", "loss=%s teacher=%s student:teacher=%s",
               plan->losses[p->loss].name, plan->recipe->teachers[p->teacher].name, pairs);
    }
}
