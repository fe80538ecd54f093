/* Texts that are written during the run, and prompts that teachers read: whether the data and the teachers
 * allow them. */
#include "trainer/run/run.h"

/* What the student is to write behind, and whether what it writes can be marked. */
static enum lb_status open_scribe(struct lb_run *run, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    int64_t all = lb_dataset_count(run->data), prompts = lb_dataset_prompts(run->data, r->max_length);
    if (!lb_recipe_writes(r)) {
        return LB_OK;
    }
    if (!lb_model_is_causal(run->student) || lb_model_is_classifier(run->student)) {
        return lb_fail(detail, LB_E_ARG, "lmbda: a %s does not write texts; set it to 0",
                       lb_model_config(run->student)->model_type);
    }
    if (prompts < all) {
        return lb_fail(
            detail, LB_E_ARG,
            "lmbda: %lld of %lld rows have no prompt shorter than max_length %lld to write behind: "
            "records have a prompt, or end with the assistant's answer; texts take prompt_length",
            (long long)(all - prompts), (long long)all, (long long)r->max_length);
    }
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        if (run->plan->unlike[k] && *lb_dataset_chat_hash(run->data) != '\0') {
            return lb_fail(
                detail, LB_E_UNSUPPORTED,
                "lmbda: the data are conversations, and teacher %s reads them by a tokenizer and a "
                "template of its own, which a text that the student goes on with is not written "
                "in; give it prompts and completions that are texts",
                r->teachers[k].name);
        }
    }
    return lb_scribe_create(r, run->student, run->tokenizer, run->options->stop, &run->scribe, detail);
}

/* Teachers must be able to read the longest sequence that a row can become. */
static enum lb_status check_lengths(const struct lb_run *run, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    int64_t longest = 0;
    for (int64_t i = 0; i < lb_dataset_count(run->data); i++) {
        struct lb_sample s;
        enum lb_status status = lb_dataset_get(run->data, i, &s, detail);
        if (status != LB_OK) {
            return status;
        }
        int64_t rest = run->scribe != NULL ? lb_scribe_room(r, s.prompt) - 1 : 0;
        rest = s.n - s.prompt > rest ? s.n - s.prompt : rest;
        longest = s.teacher_prompt_n + rest > longest ? s.teacher_prompt_n + rest : longest;
    }
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        const struct lb_teacher_info *info = run->plan->info[k];
        if (run->plan->prompted[k] && info->max_length > 0 && longest > info->max_length) {
            return lb_fail(detail, LB_E_LIMIT,
                           "teachers.%u.teacher_prompt: teacher %s reads at most %lld tokens, its prompt and "
                           "a completion "
                           "have up to %lld; shorten its prompts, or lower max_length",
                           k, r->teachers[k].name, (long long)info->max_length, (long long)longest);
        }
    }
    return LB_OK;
}

enum lb_status lb_run_open_scribe(struct lb_run *run, struct lb_detail *detail) {
    enum lb_status status = open_scribe(run, detail);
    return status == LB_OK && lb_recipe_teacher_prompt(run->recipe) != NULL ? check_lengths(run, detail)
                                                                            : status;
}
