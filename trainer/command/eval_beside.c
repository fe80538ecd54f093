#include "trainer/command/eval_beside.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const lb_beside_targets[] = {"final_hidden", "logits", "topk", NULL};

enum lb_target_lane lb_beside_lane(int place) {
    static const enum lb_target_lane lanes[] = {LB_LANE_FINAL, LB_LANE_LOGITS, LB_LANE_TOPK};
    return lanes[place];
}

static enum lb_status check_tokenizers(const struct lb_beside_options *options, struct lb_teachers *teachers,
                                       const struct lb_opened *opened, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    const char *own = opened->tokenizer != NULL ? lb_tokenizer_fingerprint(opened->tokenizer) : "";
    for (unsigned k = 0; status == LB_OK && k < options->n; k++) {
        const char *its = lb_teachers_info(teachers, k)->tokenizer_fingerprint;
        if (*own != '\0' && *its != '\0' && strcmp(own, its) != 0) {
            status = lb_fail(detail, LB_E_MISMATCH,
                             "%s has another tokenizer (%.12s) than the model (%.12s): their tokens cannot "
                             "be compared",
                             options->teachers[k].name, its, own);
        }
        status =
            status == LB_OK ? lb_teachers_check_tokenizer(teachers, k, opened->tokenizer, detail) : status;
    }
    return status;
}

enum lb_status lb_eval_beside(const struct lb_beside_options *options, const struct lb_opened *opened,
                              const struct lb_dataset *data, int64_t max_length, volatile sig_atomic_t *stop,
                              struct lb_beside *out, struct lb_detail *detail) {
    struct lb_recipe_loss loss = {.function = "kl", .args = {.weight = 1}};
    struct lb_recipe_teacher asked[LB_MAX_TEACHERS];
    bool features = lb_dataset_features(data) > 0;
    struct lb_recipe frame = {.directory = ".",
                              .teachers = asked,
                              .teachers_count = options->n,
                              .loss_functions = &loss,
                              .loss_functions_count = 1,
                              .mixture = "mean_probs",
                              .targets = options->targets_given ? options->targets
                                         : features             ? LB_LANE_LOGITS
                                                                : LB_LANE_FINAL,
                              .loss_top_k = options->top_k,
                              .loss_add_tail = true,
                              .temperature = 1,
                              .max_length = max_length,
                              .on_lost_teacher = LB_LOST_STOP,
                              .allow_other_kernels = true, /* no replicas, no cache */
                              .teacher_timeout = 60,
                              .give_up_after = 60};
    for (unsigned k = 0; k < options->n; k++) {
        asked[k] = options->teachers[k];
        asked[k].protocol = options->protocol;
        asked[k].token_file = (char *)options->token_file;
        asked[k].weight = 1;
    }
    struct lb_teachers *teachers = NULL;
    struct lb_plan plan = {0};
    struct lb_agree agree;
    struct lb_beside *beside = lb_calloc(1, sizeof *beside);
    const char *own = opened->tokenizer != NULL ? lb_tokenizer_fingerprint(opened->tokenizer) : "";
    enum lb_status status =
        beside != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for the teachers' agreement");
    status = status == LB_OK ? lb_teachers_open_recipe(&frame, stop, &teachers, detail) : status;
    status = status == LB_OK ? check_tokenizers(options, teachers, opened, detail) : status;
    status =
        status == LB_OK ? lb_plan_make(&frame, opened->model, own, NULL, teachers, &plan, detail) : status;
    if (status == LB_OK) {
        lb_agree_plan(&plan, opened->model, teachers, &agree);
        status = lb_agree(&agree, opened->model, teachers, data, stop, beside->agreement, detail);
    }
    if (status == LB_OK) {
        memcpy(beside->kl, agree.kl, sizeof beside->kl);
        *out = *beside;
    }
    lb_teachers_close(teachers);
    lb_plan_finish(&plan);
    lb_free(beside);
    return status;
}

static void print_part(const char *teacher, const char *part, const struct lb_agreed *of, bool kl) {
    char nats[32] = "-";
    if (of->n > 0 && kl) {
        snprintf(nats, sizeof nats, "%.4f", of->nats / (double)of->n);
    }
    if (of->n > 0) {
        printf("%-24s %-24s %10lld %12.2f %12s\n", teacher, part, (long long)of->n,
               100 * (double)of->same / (double)of->n, nats);
    }
}

void lb_beside_print(const struct lb_beside_options *options, const struct lb_beside *beside,
                     const struct lb_dataset *data) {
    int parts = lb_dataset_tags(data);
    printf("%-24s %-24s %10s %12s %12s\n", "beside teacher", "part", "compared", "agreement %", "kl");
    for (unsigned k = 0; k < options->n; k++) {
        const struct lb_agreement *a = &beside->agreement[k];
        for (int t = 0; t < parts && parts > 1; t++) {
            print_part(options->teachers[k].name, lb_dataset_tag(data, t), &a->part[t], beside->kl[k]);
        }
        print_part(options->teachers[k].name, "all", &a->all, beside->kl[k]);
    }
}

static json_t *part_json(const struct lb_agreed *of, bool kl) {
    json_t *object = json_pack("{s:I}", "compared", (json_int_t)of->n);
    json_object_set_new(object, "agreement", json_real((double)of->same / (double)of->n)); /* NaN: no key */
    json_object_set_new(object, "kl", json_real(kl ? of->nats / (double)of->n : NAN));
    return object;
}

json_t *lb_beside_json(const struct lb_beside_options *options, const struct lb_beside *beside,
                       const struct lb_dataset *data) {
    json_t *list = json_array();
    for (unsigned k = 0; k < options->n; k++) {
        const struct lb_agreement *a = &beside->agreement[k];
        json_t *parts = json_object();
        for (int t = 0; t < lb_dataset_tags(data); t++) {
            json_object_set_new(parts, lb_dataset_tag(data, t), part_json(&a->part[t], beside->kl[k]));
        }
        json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "name", options->teachers[k].name, "all",
                                              part_json(&a->all, beside->kl[k]), "parts", parts));
    }
    return list;
}
