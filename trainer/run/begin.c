/* How a run begins: its folder, what its recipe names, the checkpoint that it goes on from. */
#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/model/readme.h"
#include "trainer/learn/schedule.h"
#include "trainer/run/adapter.h"
#include "trainer/run/ask_bos.h"
#include "trainer/run/run.h"
#include "trainer/run/student.h"
#include "trainer/run/tell.h"
#include "trainer/run/trimmed.h"
#include "trainer/run/unlike.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

/* Activations of one micro-batch. */
#define STEP_BYTES ((size_t)16 << 30)

static enum lb_status take_folder(struct lb_run *run, struct lb_detail *detail) {
    run->dir = lb_recipe_resolve(run->recipe, run->recipe->output_dir);
    const char *dir = run->dir;
    enum lb_status status = dir != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
    if (status == LB_OK && run->options->resume && !lb_is_dir(dir)) {
        status = lb_fail(detail, LB_E_NOTFOUND,
                         "%s: there is no such folder, so no run to go on with; start without --resume", dir);
    }
    status = status == LB_OK ? lb_mkdirs(dir, detail) : status;
    if (status != LB_OK) {
        return status;
    }
    char *lock = lb_path_join(dir, "lock"), *metrics = lb_path_join(dir, LB_JOURNAL_FILE),
         *student = lb_path_join(dir, "student"), *recipe = lb_path_join(dir, "recipe.yaml");
    if (lock == NULL || metrics == NULL || student == NULL || recipe == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory");
        goto out;
    }
    status = lb_lock_file(lock, &run->lock, detail);
    if (status == LB_E_BUSY) {
        lb_detail_prefix(detail, "%s: another trainer runs in this folder", dir);
    }
    if (status == LB_OK && !run->options->resume && lb_file_exists(metrics)) {
        status =
            lb_fail(detail, LB_E_ARG,
                    "%s already holds a run: continue it with --resume, or give another --output-dir", dir);
    }
    if (status == LB_OK && run->options->resume && !lb_file_exists(recipe)) {
        status = lb_fail(detail, LB_E_NOTFOUND,
                         "%s holds no run to go on with (no recipe.yaml); start without --resume", dir);
    }
    /* Before any work: what stands where results will be written is the user's unless we wrote it. */
    status = status == LB_OK ? lb_folder_check(student, "model", detail) : status;
    status = status == LB_OK ? lb_readme_check(student, detail) : status;
    status = status == LB_OK && run->recipe->use_peft ? lb_adapter_check(dir, detail) : status;
    status = status == LB_OK ? lb_checkpoint_check_folder(dir, run->options->resume, detail) : status;
    status = status == LB_OK ? lb_folder_sweep(dir, detail) : status;
out:
    lb_free(lock);
    lb_free(metrics);
    lb_free(student);
    lb_free(recipe);
    return status;
}

/* The resolved recipe, once it is sure that the run goes on by it. */
static enum lb_status write_recipe(const struct lb_run *run, struct lb_detail *detail) {
    char *path = lb_path_join(run->dir, "recipe.yaml"), *text = NULL;
    size_t len;
    enum lb_status status = path != NULL ? lb_recipe_dump(run->recipe, &text, &len, detail)
                                         : lb_fail(detail, LB_E_NOMEM, "out of memory");
    status = status == LB_OK ? lb_file_replace(path, text, len, detail) : status;
    lb_free(path);
    lb_free(text);
    return status;
}

static enum lb_status open_inputs(struct lb_run *run, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    enum lb_status status = LB_OK;
    if (r->tokenizer != NULL) {
        char *path = lb_recipe_resolve(r, r->tokenizer);
        status = path != NULL ? lb_tokenizer_open(path, &run->tokenizer, detail)
                              : lb_fail(detail, LB_E_NOMEM, "out of memory");
        status = status == LB_OK ? lb_vocab_map_open(path, run->tokenizer, &run->map, detail) : status;
        lb_free(path);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "tokenizer");
        }
    }
    if (status == LB_OK && run->tokenizer != NULL && r->add_bos_token != LB_BOS_AS_TOKENIZER) {
        status = lb_tokenizer_add_bos(run->tokenizer, r->add_bos_token == LB_BOS_YES, detail);
    }
    status = status == LB_OK ? lb_student_open(r, run->tokenizer, &run->student, detail) : status;
    status = status == LB_OK ? lb_student_reads(r, run->student, detail) : status;
    bool labelled = status == LB_OK && lb_model_labels(run->student) != NULL;
    int64_t classes = labelled ? lb_model_labels(run->student)->n : 0;
    status = status == LB_OK ? lb_dataset_open(r, r->datasets, r->datasets_count, false, run->tokenizer,
                                               classes, run->options->stop, &run->data, detail)
                             : status;
    if (status == LB_OK && r->eval_datasets_count > 0) {
        status = lb_dataset_open(r, r->eval_datasets, r->eval_datasets_count, true, run->tokenizer, classes,
                                 run->options->stop, &run->eval_data, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    lb_tell_records(run->data, "datasets", r->max_length);
    lb_tell_records(run->eval_data, "eval_datasets", r->max_length);
    const struct lb_config *c = lb_model_config(run->student);
    if (c->input_size == 0 && r->max_length > c->max_position_embeddings) {
        status = lb_fail(detail, LB_E_ARG,
                         "max_length: %lld, the student reads at most %lld (max_position_embeddings)",
                         (long long)r->max_length, (long long)c->max_position_embeddings);
    }
    if (status == LB_OK && lb_dataset_weightless(run->data)) {
        status = lb_fail(detail, LB_E_ARG,
                         "datasets: each of their %lld rows has weight 0, so nothing would be learnt; is it "
                         "the right weight_field?",
                         (long long)lb_dataset_count(run->data));
    }
    status = status == LB_OK ? lb_dataset_fits(run->data, c, "datasets", detail) : status;
    if (status == LB_OK && run->eval_data != NULL) {
        status = lb_dataset_fits(run->eval_data, c, "eval_datasets", detail);
        status = status == LB_OK ? lb_dataset_same_columns(run->data, run->eval_data, "eval_datasets", detail)
                                 : status;
    }
    return status;
}

/* One hash over the teachers' fingerprints, in order: a resumed run must meet the same ones. What texts begin
 * and end with for one that is unlike is not in its own. */
static enum lb_status teachers_fingerprint(const struct lb_run *run, char out[LB_SHA256_HEX],
                                           struct lb_detail *detail) {
    struct lb_sha256 *hash = lb_sha256_create();
    if (hash == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    for (unsigned k = 0; k < lb_teachers_count(run->teachers); k++) {
        lb_sha256_update(hash, lb_teachers_info(run->teachers, k)->fingerprint, LB_SHA256_HEX - 1);
        if (run->plan->reader[k] != NULL) {
            lb_reader_hash(run->plan->reader[k], hash);
        }
    }
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, out);
    return LB_OK;
}

/* What the student calls its classes, the labels of its data are called, too. */
static enum lb_status name_labels(struct lb_run *run, struct lb_detail *detail) {
    const struct lb_labels *labels = lb_model_labels(run->student);
    if (labels == NULL) {
        return LB_OK;
    }
    enum lb_status status = lb_dataset_name_labels(run->data, labels, "datasets", detail);
    return status == LB_OK && run->eval_data != NULL
               ? lb_dataset_name_labels(run->eval_data, labels, "eval_datasets", detail)
               : status;
}

/* Losses that read labels, and evaluations, need one of each text. */
static enum lb_status check_labels(const struct lb_run *run, struct lb_detail *detail) {
    int64_t without = run->eval_data != NULL ? lb_dataset_unlabelled(run->eval_data) : 0;
    if (without > 0) {
        return lb_fail(detail, LB_E_ARG, "eval_datasets: %lld of %lld texts have no label to compare with",
                       (long long)without, (long long)lb_dataset_count(run->eval_data));
    }
    without = lb_dataset_unlabelled(run->data);
    bool weighs = (lb_plan_needs(run->plan) & LB_NEEDS_CROSS_ENTROPY) != 0;
    if (without == 0 || (!run->plan->on_label && !weighs)) {
        return LB_OK;
    }
    return lb_fail(detail, LB_E_ARG,
                   "datasets: %lld of %lld texts have no label, which %s learns from; label them, or learn "
                   "from teachers only",
                   (long long)without, (long long)lb_dataset_count(run->data),
                   weighs ? run->plan->mixture->name : "cross_entropy");
}

static enum lb_status open_teachers(struct lb_run *run, struct lb_detail *detail) {
    const char *tokenizer = run->tokenizer != NULL ? lb_tokenizer_fingerprint(run->tokenizer) : "";
    enum lb_status status = LB_OK;
    if (run->recipe->teachers_count > 0) {
        status = lb_teachers_open_recipe(run->recipe, run->options->stop, &run->teachers, detail);
    }
    if (status == LB_OK) {
        status = lb_student_pad(run->recipe, run->tokenizer, run->teachers, &run->student, detail);
    }
    if (status == LB_OK) {
        status = lb_student_name_labels(run->recipe, run->teachers, run->student, detail);
    }
    run->plan = lb_calloc(1, sizeof *run->plan);
    if (status == LB_OK && run->plan == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    status = status == LB_OK ? lb_plan_make(run->recipe, run->student, tokenizer, run->map, run->teachers,
                                            run->plan, detail)
                             : status;
    for (unsigned k = 0; run->teachers != NULL && k < lb_teachers_count(run->teachers) && status == LB_OK;
         k++) {
        const struct lb_tokenizer *read = run->map != NULL ? NULL : run->tokenizer;
        status = lb_teachers_check_tokenizer(run->teachers, k, read, detail);
    }
    status = status == LB_OK ? lb_plan_readers(run->plan, run->tokenizer, run->data, run->teachers, detail)
                             : status;
    if (status == LB_OK && run->recipe->eval_agreement) {
        lb_agree_plan(run->plan, run->student, run->teachers, &run->agree);
    }
    status = status == LB_OK ? name_labels(run, detail) : status;
    status = status == LB_OK ? check_labels(run, detail) : status;
    status = status == LB_OK ? lb_run_open_scribe(run, detail) : status;
    if (status == LB_OK && run->teachers != NULL) {
        lb_tell_templates(run->recipe, run->data, run->plan->unlike, run->teachers);
        lb_tell_layers(run->plan);
        status = teachers_fingerprint(run, run->at.teachers, detail);
    }
    status = status == LB_OK ? lb_computes_find(run->teachers, &run->at.computes, detail) : status;
    return status;
}

static void recall_sums(struct lb_run *run) {
    if (run->at.n_sums == sizeof run->sums / sizeof(double)) {
        memcpy(&run->sums, run->at.sums, sizeof run->sums);
        run->steps_summed = run->at.steps_summed;
        run->tokens_summed = run->at.tokens_summed;
    }
}

/* Names the key that differs from the recipe in the run folder, which is that of the checkpoints. */
static void tell_difference(const struct lb_run *run, struct lb_detail *detail) {
    char *path = lb_path_join(run->dir, "recipe.yaml"), text[256];
    struct lb_recipe *there = NULL;
    if (detail != NULL && path != NULL && lb_recipe_load(path, NULL, 0, &there, NULL) == LB_OK &&
        lb_recipe_difference(there, run->recipe, text, sizeof text)) {
        lb_detail_prefix(detail, "another recipe than this run began with (%s)", text);
    }
    lb_recipe_destroy(there);
    lb_free(path);
}

/* Other kernels than the run began with change its student's bits: not without the recipe's word. */
static enum lb_status check_computes(struct lb_run *run, const struct lb_computes *now, const char *path,
                                     struct lb_detail *detail) {
    char text[400];
    bool differ = lb_computes_differ(&run->at.computes, now, run->recipe->teachers, text, sizeof text);
    run->at.computes = *now;
    if (!differ) {
        return LB_OK;
    }
    if (!run->recipe->allow_other_kernels) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s: other kernels compute other bits now (%s); go on where the run began, or set "
                       "allow_other_kernels: true",
                       path, text);
    }
    lb_log(LB_LOG_WARN, "other_kernels", "checkpoint=\"%s\" differ=\"%s\"", path, text);
    return LB_OK;
}

static enum lb_status resume(struct lb_run *run, struct lb_detail *detail) {
    char *path = NULL;
    struct lb_computes now = {0};
    enum lb_status status = lb_checkpoint_latest(run->dir, &path, detail);
    if (status == LB_E_NOTFOUND) {
        if (detail != NULL) {
            memset(detail, 0, sizeof *detail); /* nothing was saved yet: begin at the beginning */
        }
        return LB_OK;
    }
    if (status == LB_OK) {
        struct lb_checkpoint expected = run->at;
        now = run->at.computes;
        status = lb_checkpoint_load(path, &expected, run->optimizer, &run->at, detail);
        if (status == LB_OK) {
            recall_sums(run);
            status =
                run->lora == NULL || lb_lora_fits(run->lora)
                    ? lb_run_recall_best(run, detail)
                    : lb_recipe_fail(run->recipe, detail, LB_E_MISMATCH, "student",
                                     "is another model than the one whose adapters %s has; give that one, or "
                                     "begin anew",
                                     path);
        } else if (status == LB_E_MISMATCH) {
            tell_difference(run, detail);
        }
    }
    if (status == LB_OK) {
        status = check_computes(run, &now, path, detail);
    }
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "resumed", "checkpoint=\"%s\" step=%lld", path, (long long)run->at.step);
    }
    lb_free(path);
    return status;
}

enum lb_status lb_run_begin(struct lb_run *run, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    enum lb_status status = take_folder(run, detail);
    if (status != LB_OK) {
        return status;
    }
    run->resumable = run->options->resume;
    status = open_inputs(run, detail);
    if (status != LB_OK) {
        lb_recipe_locate(r, detail);
        return status;
    }
    run->total = lb_total_steps(r, lb_dataset_count(run->data));
    snprintf(run->at.data, sizeof run->at.data, "%s", lb_dataset_fingerprint(run->data));
    status = lb_recipe_fingerprint(r, run->at.recipe) == LB_OK ? open_teachers(run, detail)
                                                               : lb_fail(detail, LB_E_NOMEM, "out of memory");
    if (status != LB_OK) {
        lb_recipe_locate(r, detail);
    }
    if (status == LB_OK) {
        run->plan->total_steps = run->total;
        status = r->use_peft ? lb_lora_create(r, run->student, &run->lora, detail)
                             : lb_student_freeze(r, run->student, detail);
        lb_recipe_locate(r, status == LB_OK ? NULL : detail);
    }
    if (status == LB_OK) {
        struct lb_weight_group groups[2];
        groups[0].weights = lb_model_weights(run->student, &groups[0].n);
        if (run->lora != NULL) {
            lb_lora_groups(run->lora, groups);
        }
        status = lb_optimizer_create(r, groups, run->lora != NULL ? 2 : 1, &run->optimizer, detail);
    }
    status = status == LB_OK && run->options->resume ? resume(run, detail) : status;
    if (status == LB_OK && run->at.step == 0) {
        lb_ask_bos(r, run->teachers, run->plan->unlike, run->tokenizer, run->data);
        lb_trimmed_report(run->plan, run->teachers, run->data);
        status = lb_unlike_report(run->plan, run->teachers, run->tokenizer, run->data, detail);
    }
    status = status == LB_OK ? write_recipe(run, detail) : status;
    run->resumable = run->resumable || status == LB_OK;
    status = status == LB_OK
                 ? lb_journal_open(run->dir, run->at.step > 0 ? run->at.step : -1, &run->journal, detail)
                 : status;
    status = status == LB_OK ? lb_run_have_written(run, detail) : status;
    if (status == LB_OK && r->log_completions) {
        status = lb_journal_open_as(run->dir, LB_COMPLETIONS_FILE, run->at.step > 0 ? run->at.step : -1,
                                    &run->completions, detail);
    }
    status = status == LB_OK
                 ? lb_prefetch_create(run->plan, run->data, run->teachers, run->scribe, run->texts,
                                      run->at.micro_batch, run->total * r->gradient_accumulation_steps,
                                      &run->prefetch, detail)
                 : status;
    if (status != LB_OK) {
        return status;
    }
    run->step = lb_step_create(run->plan, run->student, STEP_BYTES);
    run->progress = lb_progress_create(stderr, run->total, run->at.step);
    lb_optimizer_zero(run->optimizer);
    lb_log(LB_LOG_INFO, "training",
           "student_parameters=%lld samples=%lld steps=%lld teachers=%u threads=%d output_dir=\"%s\"",
           (long long)lb_model_parameters(run->student), (long long)lb_dataset_count(run->data),
           (long long)run->total, run->plan->n_teachers, omp_get_max_threads(), run->dir);
    return run->step != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
}
