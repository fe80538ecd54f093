#include "trainer/run/loop.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/learn/schedule.h"
#include "trainer/run/adapter.h"
#include "trainer/run/card.h"
#include "trainer/run/export.h"
#include "trainer/run/run.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

#define CARD_BYTES ((size_t)1 << 20)

/* ---- one step ---------------------------------------------------------------------------------------------
 */

/* What all answers of the step make of the losses' denominators. */
static enum lb_status gather(struct lb_run *run, struct lb_step_totals *totals, struct lb_detail *detail) {
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

/* What the student wrote in this step. */
static void add_written(struct lb_run *run) {
    if (run->scribe != NULL) {
        struct lb_scribed now = lb_scribe_take(run->scribe), *sums = &run->sums.written;
        sums->texts += now.texts;
        sums->tokens += now.tokens;
        sums->clipped += now.clipped;
        sums->repeated += now.repeated;
    }
}

/* Whether step is one of every n, or the last; 0: the last only. */
static bool due(const struct lb_run *run, int64_t step, int64_t every) {
    return step == run->total || (every > 0 && step % every == 0);
}

/* A step that fails halfway leaves the run where it was before. */
static enum lb_status one_step(struct lb_run *run, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    struct lb_step_result before = run->sums;
    struct lb_step_totals totals;
    bool needs_totals = lb_step_needs_totals(run->plan);
    int64_t first = run->at.micro_batch;
    struct lb_prefetched all = {0};
    enum lb_status status = lb_prefetch_begin(run->prefetch, r->gradient_accumulation_steps, &all, detail);
    lb_step_set_weight(run->step, all.weight_positions, all.weight_samples);
    lb_step_set_now(run->step, run->at.step, run->total);
    lb_step_watch(run->step, due(run, run->at.step + 1, r->logging_steps));
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
            status = lb_step_losses(run->step, answers, all.positions, needs_totals ? &totals : NULL,
                                    &run->sums, detail);
            if (status == LB_E_ARG) { /* as the optimizer's errors do */
                lb_detail_prefix(detail, "step %lld", (long long)run->at.step + 1);
            }
        }
        status = status == LB_OK ? lb_run_keep_completions(run, first + i, samples, detail) : status;
    }
    add_written(run);
    double lr = lb_learning_rate(r, run->total, run->at.step);
    if (status == LB_OK && run->lora != NULL) {
        lb_lora_gradients(run->lora);
    }
    status = status == LB_OK ? lb_optimizer_step(run->optimizer, lr, 1.0, &run->grad_norm, detail) : status;
    if (status != LB_OK) {
        run->sums = before;
        return status;
    }
    if (run->lora != NULL) {
        lb_lora_merge(run->lora);
    }
    run->at.micro_batch = first + r->gradient_accumulation_steps;
    run->at.step++;
    run->at.tokens += all.positions;
    run->tokens_summed += all.positions;
    run->steps_summed++;
    return LB_OK;
}

/* What is summed up for the next line of metrics goes with the checkpoint, so that a resumed run reports the
 * same. */
static void keep_sums(struct lb_run *run) {
    _Static_assert(sizeof run->sums <= sizeof run->at.sums, "a checkpoint takes all sums");
    memcpy(run->at.sums, &run->sums, sizeof run->sums);
    run->at.n_sums = sizeof run->sums / sizeof(double);
    run->at.steps_summed = run->steps_summed;
    run->at.tokens_summed = run->tokens_summed;
}

static enum lb_status save(struct lb_run *run, struct lb_detail *detail) {
    keep_sums(run);
    return lb_checkpoint_save(run->dir, &run->at, run->optimizer, run->recipe->save_total_limit, detail);
}

/* Something ended the run: what was learnt since the last checkpoint is kept, besides all that were there
 * (numbers that went bad are not worth a good one's place). What it was stays the error. */
static enum lb_status keep_whole_steps(struct lb_run *run, int64_t saved, enum lb_status status,
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
static enum lb_status after_step(struct lb_run *run, int64_t *saved, struct lb_detail *detail) {
    bool log = due(run, run->at.step, run->recipe->logging_steps), asked = is_set(run->options->save_now);
    run->improved = false;
    lb_run_show(run, run->sums.loss / (double)run->steps_summed, log);
    enum lb_status status = log ? lb_run_report(run, detail) : LB_OK;
    if (status == LB_OK && run->eval_data != NULL && due(run, run->at.step, run->recipe->eval_steps)) {
        status = lb_run_evaluate(run, detail);
    }
    if (status == LB_OK && lb_run_stops_early(run) && !log) {
        status = lb_run_report(run, detail);
    }
    bool keep = run->improved && run->recipe->load_best_model_at_end;
    if (status == LB_OK &&
        (asked || keep || lb_run_stops_early(run) || due(run, run->at.step, run->recipe->save_steps))) {
        status = save(run, detail);
        *saved = run->at.step; /* one that failed is not tried again on the way out */
        if (asked) {
            *run->options->save_now = 0;
            lb_log(LB_LOG_INFO, "saved", "step=%lld by=SIGUSR1", (long long)run->at.step);
        }
    }
    return status;
}

static enum lb_status steps(struct lb_run *run, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    int64_t saved = run->at.step;
    /* An evaluation that was broken off is made up for: its step was saved before it. */
    if (run->at.step > 0 && run->eval_data != NULL && due(run, run->at.step, run->recipe->eval_steps) &&
        !lb_journal_evaluated(run->journal)) {
        status = lb_run_evaluate(run, detail);
        if (status == LB_OK && lb_run_compares(run)) { /* the step is not evaluated a second time */
            status = save(run, detail);
        }
    }
    run->since_ns = lb_now_ns();
    while (status == LB_OK && run->at.step < run->total && !lb_run_stops_early(run)) {
        status = is_set(run->options->stop) ? LB_E_CANCELLED : one_step(run, detail);
        status = status == LB_OK ? after_step(run, &saved, detail) : status;
    }
    return status == LB_OK ? status : keep_whole_steps(run, saved, status, detail);
}

/* ---- the whole --------------------------------------------------------------------------------------------
 */

/* The student, reopened as a served model would be, gives the same logits bit for bit before the run counts
 * as done. */
static enum lb_status finish(struct lb_run *run, struct lb_detail *detail) {
    struct lb_checkpoint exported;
    enum lb_status status = lb_run_take_best(run, &exported, detail);
    if (status != LB_OK) {
        return status;
    }
    if (run->recipe->ema_for != LB_EMA_FOR_EVALUATION) {
        lb_run_swap_average(run);
    }
    char *student = lb_path_join(run->dir, "student");
    const struct lb_card card = {.name = run->dir,
                                 .model = run->student,
                                 .recipe = run->recipe,
                                 .teachers = run->teachers,
                                 .run_dir = run->dir,
                                 .steps = exported.step,
                                 .tokens = exported.tokens};
    struct lb_buf readme;
    double difference = 0;
    lb_buf_init(&readme, CARD_BYTES);
    status = student != NULL ? lb_card_write(&card, &readme, detail)
                             : lb_fail(detail, LB_E_NOMEM, "out of memory");
    status = status == LB_OK ? lb_export(run->student, run->tokenizer, LB_EXPORT_HF, LB_F32, student,
                                         readme.data, run->options->stop, &difference, NULL, detail)
                             : status;
    if (status == LB_OK && difference != 0) {
        status = lb_fail(detail, LB_E_INTERNAL, "%s: reopened, its logits differ by %g of the largest",
                         student, difference);
    }
    if (status == LB_OK && run->lora != NULL) {
        status = lb_adapter_write(run->dir, run->lora, run->student, run->recipe, detail);
    }
    lb_buf_finish(&readme);
    lb_free(student);
    return status;
}

static void end(struct lb_run *run) {
    lb_progress_destroy(run->progress);
    lb_journal_close(run->journal);
    lb_journal_close(run->completions);
    lb_prefetch_destroy(run->prefetch);
    lb_scribe_destroy(run->scribe);
    lb_arena_finish(&run->written);
    lb_free(run->texts);
    lb_step_destroy(run->step);
    lb_optimizer_destroy(run->optimizer);
    lb_lora_destroy(run->lora);
    lb_teachers_close(run->teachers);
    lb_plan_finish(run->plan);
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
    struct lb_run run = {.recipe = recipe, .options = options, .lock = -1};
    uint64_t start = lb_now_ns();
    int threads = options->threads > 0 ? options->threads : (int)recipe->threads,
        before = omp_get_max_threads();
    if (threads > 0) { /* else as many as cores, or as OMP_NUM_THREADS says */
        omp_set_num_threads(threads);
    }
    enum lb_status status = lb_run_begin(&run, detail);
    status = status == LB_OK ? steps(&run, detail) : status;
    if (status == LB_OK) {
        status = finish(&run, detail);
    }
    if (status == LB_OK) {
        struct lb_teachers_stats stats = lb_run_stats(&run);
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
    omp_set_num_threads(before);
    return status;
}
