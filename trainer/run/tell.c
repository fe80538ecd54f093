#include "trainer/run/tell.h"

#include "common/base/log.h"

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
