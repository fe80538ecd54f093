/* Teachers that read texts in tokens of their own: their tokenizers, and samples as they read them. */
#include "common/base/mem.h"
#include "trainer/learn/parts.h"

#include <stdio.h>
#include <string.h>

/* Lets the reader read conversations too. */
static enum lb_status converse(struct lb_plan *plan, unsigned k, struct lb_detail *detail) {
    const char *template = plan->recipe->chat_template;
    char *path = template != NULL ? lb_recipe_resolve(plan->recipe, template) : NULL;
    enum lb_status status = template != NULL && path == NULL
                                ? lb_fail(detail, LB_E_NOMEM, "out of memory")
                                : lb_reader_converse(plan->reader[k], path, detail);
    if (status != LB_OK) {
        lb_detail_prefix(detail, "teacher %s", plan->recipe->teachers[k].name);
    }
    lb_free(path);
    return status;
}

enum lb_status lb_plan_readers(struct lb_plan *plan, const struct lb_tokenizer *tokenizer,
                               const struct lb_dataset *data, struct lb_teachers *teachers,
                               struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (unsigned k = 0; k < plan->n_teachers && status == LB_OK; k++) {
        if (!plan->unlike[k]) {
            continue;
        }
        char what[LB_MAX_NAME + 64];
        snprintf(what, sizeof what, "the tokenizer of teacher %.100s", plan->recipe->teachers[k].name);
        status = lb_teachers_open_tokenizer(teachers, k, what, &plan->tokenizer[k], detail);
        if (status == LB_OK) {
            status = lb_reader_create(tokenizer, plan->tokenizer[k], plan->info[k]->max_length,
                                      &plan->reader[k], detail);
        }
        if (status == LB_OK && plan->on_aligned) {
            status = lb_common_make(tokenizer, plan->tokenizer[k], plan->n_logits, &plan->common[k], detail);
        }
        status = status == LB_OK && *lb_dataset_chat_hash(data) != '\0' ? converse(plan, k, detail) : status;
    }
    return status;
}

void lb_plan_finish(struct lb_plan *plan) {
    for (unsigned k = 0; plan != NULL && k < plan->n_teachers; k++) {
        lb_reader_destroy(plan->reader[k]);
        lb_tokenizer_destroy(plan->tokenizer[k]);
        lb_common_finish(&plan->common[k]);
        plan->reader[k] = NULL;
        plan->tokenizer[k] = NULL;
    }
}

/* How teacher k reads the sample. */
static enum lb_status read_one(const struct lb_plan *plan, unsigned k, const struct lb_sample *sample,
                               struct lb_arena *arena, struct lb_reading *out, struct lb_detail *detail) {
    static const int32_t none;
    struct lb_detail why = {0};
    enum lb_status status = lb_reader_read(plan->reader[k], sample, arena, out, &why);
    if (status != LB_OK && status != LB_E_NOMEM && sample->record != NULL) {
        *out = (struct lb_reading){.ids = &none}; /* its template does not write this one */
        return LB_OK;
    }
    return status == LB_OK
               ? LB_OK
               : lb_fail(detail, status, "teacher %s: %s", plan->recipe->teachers[k].name, why.text);
}

/* The sample's completion behind the prompt that teacher k reads. Chunks are single tokens, as the sample
 * counts them: answers are told by its positions (lb_plan_align). */
static enum lb_status put_prompt(const struct lb_sample *sample, struct lb_arena *arena,
                                 struct lb_reading *out, struct lb_detail *detail) {
    int64_t own = sample->prompt, its = sample->teacher_prompt_n, rest = sample->n - own;
    int32_t *ids = lb_arena_array(arena, (size_t)(its + rest), sizeof *ids);
    struct lb_chunk *chunks = lb_arena_array(arena, (size_t)rest + 1, sizeof *chunks);
    if (ids == NULL || chunks == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a row as a teacher reads it");
    }
    memcpy(ids, sample->teacher_prompt, (size_t)its * sizeof *ids);
    memcpy(ids + its, sample->ids + own, (size_t)rest * sizeof *ids);
    *out = (struct lb_reading){.ids = ids, .n = its + rest, .chunks = chunks, .aligned = true};
    for (int64_t t = own - 1; t + 1 < sample->n; t++) {
        if (lb_sample_counts(sample, t)) {
            chunks[out->n_chunks++] = (struct lb_chunk){(int32_t)t, 1, (int32_t)t, 1};
        }
    }
    return LB_OK;
}

enum lb_status lb_plan_align(const struct lb_plan *plan, const struct lb_sample *samples, int64_t n,
                             const struct lb_answer *const **answers, struct lb_arena *arena,
                             struct lb_detail *detail) {
    bool any = false;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        any |= plan->prompted[k];
    }
    if (!any) {
        return LB_OK;
    }
    size_t all = (size_t)n * plan->n_teachers;
    const struct lb_answer **out = lb_arena_array(arena, all, sizeof *out);
    struct lb_answer *copies = lb_arena_array(arena, all, sizeof *copies);
    if (out == NULL || copies == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for answers about %lld samples", (long long)n);
    }
    for (size_t j = 0; j < all; j++) {
        const struct lb_sample *sample = &samples[j / plan->n_teachers];
        const struct lb_reading *its = lb_sample_reading(sample, (unsigned)(j % plan->n_teachers));
        out[j] = (*answers)[j];
        if (out[j] != NULL && its != NULL && its->aligned) {
            copies[j] = *out[j];
            copies[j].first -= its->n - sample->n;
            out[j] = &copies[j];
        }
    }
    *answers = out;
    return LB_OK;
}

enum lb_status lb_plan_read(const struct lb_plan *plan, struct lb_sample *sample, struct lb_arena *arena,
                            struct lb_detail *detail) {
    struct lb_reading *readings = NULL;
    enum lb_status status = LB_OK;
    for (unsigned k = 0; k < plan->n_teachers && status == LB_OK; k++) {
        if (plan->reader[k] == NULL && !plan->prompted[k]) {
            continue;
        }
        if (readings == NULL) {
            readings = lb_arena_zarray(arena, plan->n_teachers, sizeof *readings);
        }
        status = readings != NULL
                     ? plan->prompted[k] ? put_prompt(sample, arena, &readings[k], detail)
                                         : read_one(plan, k, sample, arena, &readings[k], detail)
                     : lb_fail(detail, LB_E_NOMEM, "out of memory for a row as a teacher reads it");
    }
    if (status == LB_OK) {
        sample->readings = readings;
    }
    return status;
}
