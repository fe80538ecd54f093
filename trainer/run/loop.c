#include "trainer/run/loop.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/model/readme.h"
#include "trainer/learn/optimizer.h"
#include "trainer/learn/prefetch.h"
#include "trainer/learn/schedule.h"
#include "trainer/learn/step.h"
#include "trainer/run/ask_bos.h"
#include "trainer/run/card.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/evaluate.h"
#include "trainer/run/export.h"
#include "trainer/run/journal.h"
#include "trainer/run/progress.h"
#include "trainer/run/student.h"
#include "trainer/run/trimmed.h"
#include "trainer/run/tell.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Activations of one micro-batch. */
#define STEP_BYTES ((size_t)16 << 30)
#define CARD_BYTES ((size_t)1 << 20)
#define MAX_METRICS (16 + LB_MAX_LOSSES + 2 * LB_MAX_TEACHERS + LB_EVAL_MAX_PARTS)

struct run {
    const struct lb_recipe *recipe;
    const struct lb_train_options *options;
    char *dir; /* the run folder */
    int lock;
    struct lb_tokenizer *tokenizer;
    struct lb_vocab_map *map; /* of a trimmed tokenizer; NULL: it is none */
    struct lb_model *student;
    struct lb_dataset *data, *eval_data;
    struct lb_teachers *teachers;
    struct lb_plan *plan;
    struct lb_optimizer *optimizer;
    struct lb_step *step;
    struct lb_prefetch *prefetch;
    struct lb_journal *journal;
    struct lb_progress *progress;
    int64_t total;           /* steps of the run */
    struct lb_checkpoint at; /* where it is */
    /* since the last logging step */
    struct lb_step_result sums;
    int64_t steps_summed, tokens_summed;
    uint64_t since_ns;
    double wait_before;
    double grad_norm;
    bool resumable; /* the folder holds this run by now */
};

/* ---- beginning --------------------------------------------------------------------------------------------
 */

static enum lb_status take_folder(struct run *run, struct lb_detail *detail) {
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
static enum lb_status write_recipe(const struct run *run, struct lb_detail *detail) {
    char *path = lb_path_join(run->dir, "recipe.yaml"), *text = NULL;
    size_t len;
    enum lb_status status = path != NULL ? lb_recipe_dump(run->recipe, &text, &len, detail)
                                         : lb_fail(detail, LB_E_NOMEM, "out of memory");
    status = status == LB_OK ? lb_file_replace(path, text, len, detail) : status;
    lb_free(path);
    lb_free(text);
    return status;
}

static enum lb_status open_inputs(struct run *run, struct lb_detail *detail) {
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
    status = status == LB_OK ? lb_dataset_open(r, r->datasets, r->datasets_count, false, run->tokenizer,
                                               run->options->stop, &run->data, detail)
                             : status;
    if (status == LB_OK && r->eval_datasets_count > 0) {
        status = lb_dataset_open(r, r->eval_datasets, r->eval_datasets_count, true, run->tokenizer,
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
    status = status == LB_OK ? lb_dataset_fits(run->data, c, "datasets", detail) : status;
    return status == LB_OK && run->eval_data != NULL
               ? lb_dataset_fits(run->eval_data, c, "eval_datasets", detail)
               : status;
}

/* One hash over the teachers' fingerprints, in order: a resumed run must meet the same ones. */
static enum lb_status teachers_fingerprint(const struct run *run, char out[LB_SHA256_HEX],
                                           struct lb_detail *detail) {
    struct lb_sha256 *hash = lb_sha256_create();
    if (hash == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    for (unsigned k = 0; k < lb_teachers_count(run->teachers); k++) {
        lb_sha256_update(hash, lb_teachers_info(run->teachers, k)->fingerprint, LB_SHA256_HEX - 1);
    }
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, out);
    return LB_OK;
}

static enum lb_status open_teachers(struct run *run, struct lb_detail *detail) {
    const char *tokenizer = run->tokenizer != NULL ? lb_tokenizer_fingerprint(run->tokenizer) : "";
    enum lb_status status = LB_OK;
    if (run->recipe->teachers_count > 0) {
        status = lb_teachers_open_recipe(run->recipe, run->options->stop, &run->teachers, detail);
    }
    if (status == LB_OK) {
        status = lb_student_pad(run->recipe, run->tokenizer, run->teachers, &run->student, detail);
    }
    run->plan = lb_calloc(1, sizeof *run->plan);
    if (status == LB_OK && run->plan == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    status = status == LB_OK ? lb_plan_make(run->recipe, run->student, tokenizer, run->map, run->teachers,
                                            run->plan, detail)
                             : status;
    if (status == LB_OK && run->teachers != NULL) {
        lb_tell_templates(run->recipe, run->data, run->teachers);
        status = teachers_fingerprint(run, run->at.teachers, detail);
    }
    status = status == LB_OK ? lb_computes_find(run->teachers, &run->at.computes, detail) : status;
    return status;
}

/* What is summed up for the next line of metrics goes with the checkpoint, so that a resumed run reports the
 * same. */
static void keep_sums(struct run *run) {
    _Static_assert(sizeof run->sums <= sizeof run->at.sums, "a checkpoint takes all sums");
    memcpy(run->at.sums, &run->sums, sizeof run->sums);
    run->at.n_sums = sizeof run->sums / sizeof(double);
    run->at.steps_summed = run->steps_summed;
    run->at.tokens_summed = run->tokens_summed;
}

static void recall_sums(struct run *run) {
    if (run->at.n_sums == sizeof run->sums / sizeof(double)) {
        memcpy(&run->sums, run->at.sums, sizeof run->sums);
        run->steps_summed = run->at.steps_summed;
        run->tokens_summed = run->at.tokens_summed;
    }
}

/* Names the key that differs from the recipe in the run folder, which is that of the checkpoints. */
static void tell_difference(const struct run *run, struct lb_detail *detail) {
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
static enum lb_status check_computes(struct run *run, const struct lb_computes *now, const char *path,
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

static enum lb_status resume(struct run *run, struct lb_detail *detail) {
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

static enum lb_status begin(struct run *run, struct lb_detail *detail) {
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
        struct lb_weight_group group;
        group.weights = lb_model_weights(run->student, &group.n);
        status = lb_optimizer_create(r, &group, 1, &run->optimizer, detail);
    }
    status = status == LB_OK && run->options->resume ? resume(run, detail) : status;
    if (status == LB_OK && run->at.step == 0) {
        lb_ask_bos(r, run->teachers, run->tokenizer, run->data);
        lb_trimmed_report(run->plan, run->teachers, run->data);
    }
    status = status == LB_OK ? write_recipe(run, detail) : status;
    run->resumable = run->resumable || status == LB_OK;
    status = status == LB_OK
                 ? lb_journal_open(run->dir, run->at.step > 0 ? run->at.step : -1, &run->journal, detail)
                 : status;
    status = status == LB_OK
                 ? lb_prefetch_create(run->plan, run->data, run->teachers, run->at.micro_batch,
                                      run->total * r->gradient_accumulation_steps, &run->prefetch, detail)
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

/* ---- one step ---------------------------------------------------------------------------------------------
 */

/* What all answers of the step make of the losses' denominators. */
static enum lb_status gather(struct run *run, struct lb_step_totals *totals, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    memset(totals, 0, sizeof *totals);
    for (int64_t i = 0; i < run->recipe->gradient_accumulation_steps && status == LB_OK; i++) {
        const struct lb_sample *samples;
        const struct lb_answer *const *answers;
        status = lb_prefetch_ahead(run->prefetch, i, &samples, &answers, detail);
        status = status == LB_OK ? lb_step_count(run->step, samples, run->recipe->per_device_train_batch_size,
                                                 answers, totals, detail)
                                 : status;
    }
    return status;
}

/* A step that fails halfway leaves the run where it was before. */
static enum lb_status one_step(struct run *run, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    struct lb_step_result before = run->sums;
    struct lb_step_totals totals;
    bool needs_totals = lb_step_needs_totals(run->plan);
    int64_t rows = 0, first = run->at.micro_batch;
    enum lb_status status =
        lb_prefetch_positions(run->prefetch, r->gradient_accumulation_steps, &rows, detail);
    for (int64_t i = 0; status == LB_OK && i < r->gradient_accumulation_steps; i++) {
        const struct lb_sample *samples;
        const struct lb_answer *const *answers;
        struct lb_rng rng;
        status = lb_prefetch_next(run->prefetch, &samples, detail);
        /* Dropout depends on the micro-batch's number alone, so resuming needs no state of it. */
        lb_rng_seed(&rng, (uint64_t)r->seed, (uint64_t)(first + i + 1));
        status = status == LB_OK
                     ? lb_step_forward(run->step, samples, r->per_device_train_batch_size, &rng, NULL, detail)
                     : status;
        /* The student has read while its teachers may still be answering. */
        status = status == LB_OK && i == 0 && needs_totals ? gather(run, &totals, detail) : status;
        status = status == LB_OK ? lb_prefetch_answers(run->prefetch, &answers, detail) : status;
        if (status == LB_OK) {
            status =
                lb_step_losses(run->step, answers, rows, needs_totals ? &totals : NULL, &run->sums, detail);
            if (status == LB_E_ARG) { /* as the optimizer's errors do */
                lb_detail_prefix(detail, "step %lld", (long long)run->at.step + 1);
            }
        }
    }
    double lr = lb_learning_rate(r, run->total, run->at.step);
    status = status == LB_OK ? lb_optimizer_step(run->optimizer, lr, 1.0, &run->grad_norm, detail) : status;
    if (status != LB_OK) {
        run->sums = before;
        return status;
    }
    run->at.micro_batch = first + r->gradient_accumulation_steps;
    run->at.step++;
    run->at.tokens += rows;
    run->tokens_summed += rows;
    run->steps_summed++;
    return LB_OK;
}

static void metric(struct lb_metric *list, size_t *n, const char *group, const char *name, double value) {
    if (*n < MAX_METRICS) {
        list[(*n)++] = (struct lb_metric){group, name, value};
    }
}

static double epoch_of(const struct run *run) {
    return (double)(run->at.micro_batch * run->recipe->per_device_train_batch_size) /
           (double)lb_dataset_count(run->data);
}

static struct lb_teachers_stats stats_of(const struct run *run) {
    struct lb_teachers_stats stats = {0};
    if (run->teachers != NULL) {
        lb_teachers_stats(run->teachers, &stats);
    }
    return stats;
}

static enum lb_status report(struct run *run, struct lb_detail *detail) {
    struct lb_metric m[MAX_METRICS];
    size_t n = 0;
    struct lb_teachers_stats stats = stats_of(run);
    double steps = (double)run->steps_summed, seconds = (double)(lb_now_ns() - run->since_ns) / 1e9;
    metric(m, &n, NULL, "loss", run->sums.loss / steps);
    for (size_t l = 0; l < run->plan->n_losses; l++) {
        metric(m, &n, "loss", run->plan->losses[l].name, run->sums.term[l] / steps);
    }
    metric(m, &n, NULL, "learning_rate", lb_learning_rate(run->recipe, run->total, run->at.step - 1));
    metric(m, &n, NULL, "grad_norm", run->grad_norm);
    metric(m, &n, NULL, "tokens", (double)run->at.tokens);
    metric(m, &n, NULL, "tokens_per_second", (double)run->tokens_summed / seconds);
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        metric(m, &n, "weight", run->recipe->teachers[k].name, run->sums.weight[k] / steps);
    }
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        if (run->sums.cut[k] > 0) {
            metric(m, &n, "tail_mass", run->recipe->teachers[k].name,
                   run->sums.left_out[k] / run->sums.cut[k]);
        }
    }
    if (run->teachers != NULL) {
        metric(m, &n, NULL, "teacher_wait_seconds", stats.wait_seconds - run->wait_before);
        metric(m, &n, NULL, "cache_hit_ratio",
               stats.questions > 0 ? (double)stats.cache_hits / (double)stats.questions : 0);
        metric(m, &n, NULL, "teacher_requests", (double)stats.requests);
        metric(m, &n, NULL, "teacher_bytes", (double)(stats.bytes_sent + stats.bytes_received));
    }
    enum lb_status status = lb_journal_write(run->journal, run->at.step, epoch_of(run), m, n, detail);
    memset(&run->sums, 0, sizeof run->sums);
    run->steps_summed = run->tokens_summed = 0;
    run->since_ns = lb_now_ns();
    run->wait_before = stats.wait_seconds;
    return status;
}

static void show(struct run *run, double loss, bool line) {
    struct lb_teachers_stats stats = stats_of(run);
    struct lb_progress_numbers now = {.step = run->at.step,
                                      .loss = loss,
                                      .tokens = run->at.tokens,
                                      .images = lb_dataset_features(run->data) > 0,
                                      .wait_seconds = stats.wait_seconds,
                                      .questions = (int64_t)stats.questions,
                                      .cache_hits = (int64_t)stats.cache_hits,
                                      .cached = stats.cached};
    lb_progress_update(run->progress, &now, line);
}

static enum lb_status evaluate(struct run *run, struct lb_detail *detail) {
    struct lb_evaluation e;
    const struct lb_evaluate_options options = {.stop = run->options->stop};
    enum lb_status status = lb_evaluate(run->student, run->eval_data, &options, &e, detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_metric m[MAX_METRICS];
    size_t n = 0;
    char text[512];
    metric(m, &n, NULL, "eval_loss", e.all.loss);
    if (e.text) {
        metric(m, &n, NULL, "eval_perplexity", exp(e.all.loss));
        for (int t = 0; t < e.n_parts; t++) {
            metric(m, &n, "eval_perplexity", e.part[t].name, exp(e.part[t].loss));
        }
        metric(m, &n, NULL, "eval_perplexity_balanced", e.balanced_perplexity);
        snprintf(text, sizeof text, "step %lld: held-out perplexity %.2f, balanced %.2f",
                 (long long)run->at.step, exp(e.all.loss), e.balanced_perplexity);
    } else {
        metric(m, &n, NULL, "eval_error", e.all.error_percent);
        snprintf(text, sizeof text, "step %lld: held-out loss %.4f, error %.2f %%", (long long)run->at.step,
                 e.all.loss, e.all.error_percent);
    }
    lb_progress_note(run->progress, text);
    return lb_journal_write(run->journal, run->at.step, epoch_of(run), m, n, detail);
}

static enum lb_status save(struct run *run, struct lb_detail *detail) {
    keep_sums(run);
    return lb_checkpoint_save(run->dir, &run->at, run->optimizer, run->recipe->save_total_limit, detail);
}

/* Whether this step is one of every n, or the last; 0: the last only. */
static bool due(const struct run *run, int64_t every) {
    return run->at.step == run->total || (every > 0 && run->at.step % every == 0);
}

/* Something ended the run: what was learnt since the last checkpoint is kept, besides all that were there
 * (numbers that went bad are not worth a good one's place). What it was stays the error. */
static enum lb_status keep_whole_steps(struct run *run, int64_t saved, enum lb_status status,
                                       struct lb_detail *detail) {
    if (saved == run->at.step) {
        return status;
    }
    struct lb_detail why = {0};
    keep_sums(run);
    enum lb_status kept = lb_checkpoint_save(
        run->dir, &run->at, run->optimizer, run->recipe->save_total_limit + (status != LB_E_CANCELLED), &why);
    if (kept != LB_OK && status == LB_E_CANCELLED) {
        return lb_fail(detail, kept, "%s", why.text);
    }
    if (kept != LB_OK) {
        lb_log(LB_LOG_ERROR, "not_saved", "step=%lld error=\"%s\"", (long long)run->at.step, why.text);
    } else if (status != LB_E_CANCELLED) {
        lb_log(LB_LOG_INFO, "saved", "step=%lld then=\"go on with --resume\"", (long long)run->at.step);
    }
    return status;
}

static bool is_set(const volatile sig_atomic_t *flag) {
    return flag != NULL && *flag;
}

/* What follows a step: reports, evaluation, checkpoint; *saved: the step of the last checkpoint. */
static enum lb_status after_step(struct run *run, int64_t *saved, struct lb_detail *detail) {
    bool log = due(run, run->recipe->logging_steps), asked = is_set(run->options->save_now);
    show(run, run->sums.loss / (double)run->steps_summed, log);
    enum lb_status status = log ? report(run, detail) : LB_OK;
    if (status == LB_OK && run->eval_data != NULL && due(run, run->recipe->eval_steps)) {
        status = evaluate(run, detail);
    }
    if (status == LB_OK && (asked || due(run, run->recipe->save_steps))) {
        status = save(run, detail);
        *saved = run->at.step; /* one that failed is not tried again on the way out */
        if (asked) {
            *run->options->save_now = 0;
            lb_log(LB_LOG_INFO, "saved", "step=%lld by=SIGUSR1", (long long)run->at.step);
        }
    }
    return status;
}

static enum lb_status steps(struct run *run, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    int64_t saved = run->at.step;
    /* An evaluation that was broken off is made up for: its step was saved before it. */
    if (run->at.step > 0 && run->eval_data != NULL && due(run, run->recipe->eval_steps) &&
        !lb_journal_evaluated(run->journal)) {
        status = evaluate(run, detail);
    }
    run->since_ns = lb_now_ns();
    while (status == LB_OK && run->at.step < run->total) {
        status = is_set(run->options->stop) ? LB_E_CANCELLED : one_step(run, detail);
        status = status == LB_OK ? after_step(run, &saved, detail) : status;
    }
    return status == LB_OK ? status : keep_whole_steps(run, saved, status, detail);
}

/* ---- the whole --------------------------------------------------------------------------------------------
 */

/* The student, reopened as a served model would be, gives the same logits bit for bit before the run counts
 * as done. */
static enum lb_status finish(const struct run *run, struct lb_detail *detail) {
    char *student = lb_path_join(run->dir, "student");
    const struct lb_card card = {.name = run->dir,
                                 .model = run->student,
                                 .recipe = run->recipe,
                                 .teachers = run->teachers,
                                 .run_dir = run->dir,
                                 .steps = run->at.step,
                                 .tokens = run->at.tokens};
    struct lb_buf readme;
    double difference = 0;
    lb_buf_init(&readme, CARD_BYTES);
    enum lb_status status = student != NULL ? lb_card_write(&card, &readme, detail)
                                            : lb_fail(detail, LB_E_NOMEM, "out of memory");
    status = status == LB_OK ? lb_export(run->student, run->tokenizer, LB_EXPORT_HF, LB_F32, student,
                                         readme.data, run->options->stop, &difference, NULL, detail)
                             : status;
    if (status == LB_OK && difference != 0) {
        status = lb_fail(detail, LB_E_INTERNAL, "%s: reopened, its logits differ by %g of the largest",
                         student, difference);
    }
    lb_buf_finish(&readme);
    lb_free(student);
    return status;
}

static void end(struct run *run) {
    lb_progress_destroy(run->progress);
    lb_journal_close(run->journal);
    lb_prefetch_destroy(run->prefetch);
    lb_step_destroy(run->step);
    lb_optimizer_destroy(run->optimizer);
    lb_teachers_close(run->teachers);
    lb_free(run->plan);
    lb_dataset_destroy(run->data);
    lb_dataset_destroy(run->eval_data);
    lb_model_destroy(run->student);
    lb_tokenizer_destroy(run->tokenizer);
    lb_vocab_map_destroy(run->map);
    if (run->lock >= 0) {
        lb_unlock_file(run->lock);
    }
    lb_free(run->dir);
}

enum lb_status lb_train(const struct lb_recipe *recipe, const struct lb_train_options *options,
                        struct lb_detail *detail) {
    struct run run = {.recipe = recipe, .options = options, .lock = -1};
    uint64_t start = lb_now_ns();
    int threads = options->threads > 0 ? options->threads : (int)recipe->threads;
    if (threads > 0) { /* else as many as cores, or as OMP_NUM_THREADS says */
        omp_set_num_threads(threads);
    }
    enum lb_status status = begin(&run, detail);
    status = status == LB_OK ? steps(&run, detail) : status;
    if (status == LB_OK) {
        status = finish(&run, detail);
    }
    if (status == LB_OK) {
        struct lb_teachers_stats stats = stats_of(&run);
        lb_log(LB_LOG_INFO, "done",
               "steps=%lld seconds=%.1f teacher_requests=%llu teacher_bytes=%llu tokens_answered=%llu "
               "cache_hits=%llu "
               "wait_seconds=%.1f student=\"%s/student\"",
               (long long)run.at.step, (double)(lb_now_ns() - start) / 1e9,
               (unsigned long long)stats.requests,
               (unsigned long long)(stats.bytes_sent + stats.bytes_received),
               (unsigned long long)stats.tokens_answered, (unsigned long long)stats.cache_hits,
               stats.wait_seconds, run.dir);
    }
    if (options->resumable != NULL) {
        *options->resumable = run.resumable;
    }
    end(&run);
    return status;
}
