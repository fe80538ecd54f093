/* What a run tells: metrics.jsonl, the terminal, how well it does on held-out data. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/learn/schedule.h"
#include "trainer/run/run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of each teacher: 10 of a step, or two of each part of the held-out data and of all. */
#define MAX_METRICS                                                                                          \
    (24 + LB_MAX_LOSSES + LB_EVAL_MAX_PARTS + LB_MAX_TEACHERS * (10 + 2 * (LB_EVAL_MAX_PARTS + 1)))
#define GROUPS_BYTES ((size_t)16 << 20)

static void metric(struct lb_metric *list, size_t *n, const char *group, const char *name, double value) {
    if (*n < MAX_METRICS) {
        list[(*n)++] = (struct lb_metric){group, name, value};
    }
}

static double epoch_of(const struct lb_run *run) {
    return (double)(run->at.micro_batch * run->recipe->per_device_train_batch_size) /
           (double)lb_dataset_count(run->data);
}

struct lb_teachers_stats lb_run_stats(const struct lb_run *run) {
    struct lb_teachers_stats stats = {0};
    if (run->teachers != NULL) {
        lb_teachers_stats(run->teachers, &stats);
    }
    return stats;
}

/* What the student wrote since the last line; TRL's names where it has them. */
static void written(const struct lb_run *run, double seconds, struct lb_metric *m, size_t *n) {
    const struct lb_scribed *w = &run->sums.written;
    if (run->scribe == NULL) {
        return;
    }
    double writing = lb_scribe_seconds(run->scribe) - run->writing_before;
    metric(m, n, NULL, "lmbda", lb_scribe_lmbda(run->recipe, run->at.step - 1));
    metric(m, n, NULL, "on_policy", run->tokens_summed > 0 ? w->tokens / (double)run->tokens_summed : 0);
    if (w->texts > 0) {
        metric(m, n, "completions", "mean_length", w->tokens / w->texts);
        metric(m, n, "completions", "clipped_ratio", w->clipped / w->texts);
        metric(m, n, "completions", "repetition", w->repeated / w->texts);
    }
    metric(m, n, NULL, "writing_seconds", writing);
    metric(m, n, NULL, "writing_share", writing / seconds);
}

/* Of the last step: what was watched in it. */
static void teachers_by_themselves(const struct lb_run *run, struct lb_metric *m, size_t *n) {
    const struct lb_step_result *s = &run->sums;
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        const char *name = run->recipe->teachers[k].name;
        if (s->watched[k] > 0) {
            metric(m, n, "teacher_loss", name, s->own_loss[k] / s->watched[k]);
        }
        if (s->labelled[k] > 0) {
            metric(m, n, "teacher_accuracy", name, s->right[k] / s->labelled[k]);
        }
        if (s->overlapped[k] > 0) {
            metric(m, n, "overlap_ratio", name, s->overlap[k] / s->overlapped[k]);
            metric(m, n, "student_mass", name, s->student_mass[k] / s->overlapped[k]);
            metric(m, n, "teacher_mass", name, s->teacher_mass[k] / s->overlapped[k]);
        }
        if (s->compared[k] > 0) {
            metric(m, n, "teacher_agreement", name, s->agreed[k] / s->compared[k]);
        }
    }
}

enum lb_status lb_run_report(struct lb_run *run, struct lb_detail *detail) {
    struct lb_metric m[MAX_METRICS];
    size_t n = 0;
    struct lb_teachers_stats stats = lb_run_stats(run);
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
    teachers_by_themselves(run, m, &n);
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        if (run->sums.cut[k] > 0) {
            metric(m, &n, "tail_mass", run->recipe->teachers[k].name,
                   run->sums.left_out[k] / run->sums.cut[k]);
        }
    }
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        if (run->sums.chunked[k] > 0 && run->sums.chunks[k] > 0) {
            metric(m, &n, "in_chunks", run->recipe->teachers[k].name,
                   run->sums.in_chunks[k] / run->sums.chunked[k]);
            metric(m, &n, "tokens_per_chunk", run->recipe->teachers[k].name,
                   run->sums.in_chunks[k] / run->sums.chunks[k]);
        }
    }
    if (run->teachers != NULL) {
        metric(m, &n, NULL, "teacher_wait_seconds", stats.wait_seconds - run->wait_before);
        metric(m, &n, NULL, "cache_hit_ratio",
               stats.questions > 0 ? (double)stats.cache_hits / (double)stats.questions : 0);
        metric(m, &n, NULL, "teacher_requests", (double)stats.requests);
        metric(m, &n, NULL, "teacher_bytes", (double)(stats.bytes_sent + stats.bytes_received));
    }
    written(run, seconds, m, &n);
    enum lb_status status = lb_journal_write(run->journal, run->at.step, epoch_of(run), m, n, detail);
    run->writing_before = run->scribe != NULL ? lb_scribe_seconds(run->scribe) : 0;
    memset(&run->sums, 0, sizeof run->sums);
    run->steps_summed = run->tokens_summed = 0;
    run->since_ns = lb_now_ns();
    run->wait_before = stats.wait_seconds;
    return status;
}

void lb_run_show(struct lb_run *run, double loss, bool line) {
    struct lb_teachers_stats stats = lb_run_stats(run);
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

void lb_run_swap_average(struct lb_run *run) {
    lb_optimizer_swap_average(run->optimizer);
    if (run->lora != NULL && run->recipe->ema_decay > 0) {
        lb_lora_merge(run->lora);
    }
}

/* What the weights that are evaluated come to; agreement [teachers] where teachers are asked. */
static enum lb_status evaluate(struct lb_run *run, struct lb_evaluation *e, struct lb_agreement *agreement,
                               struct lb_detail *detail) {
    const struct lb_evaluate_options options = {.stop = run->options->stop};
    bool average = run->recipe->ema_for != LB_EMA_FOR_STUDENT;
    if (average) {
        lb_run_swap_average(run);
    }
    enum lb_status status = lb_evaluate(run->student, run->eval_data, &options, e, detail);
    if (status == LB_OK && agreement != NULL) {
        double waited = lb_run_stats(run).wait_seconds;
        status = lb_agree(&run->agree, run->student, run->teachers, run->eval_data, run->options->stop,
                          agreement, detail);
        run->wait_before += lb_run_stats(run).wait_seconds - waited; /* it was not for a step */
    }
    if (average) {
        lb_run_swap_average(run);
    }
    return status;
}

/* key/NAME, or of some of the data key/NAME/TAG, whose group is made in arena. */
static void agreed(const struct lb_run *run, unsigned k, const char *tag, const struct lb_agreed *of,
                   struct lb_arena *arena, struct lb_metric *m, size_t *n) {
    const char *name = run->recipe->teachers[k].name;
    const double values[] = {(double)of->same, of->nats};
    const char *const keys[] = {"eval_agreement", "eval_kl"};
    for (int i = 0; i < (run->agree.kl[k] ? 2 : 1) && of->n > 0; i++) {
        const char *group = tag != NULL ? lb_arena_printf(arena, "%s/%s", keys[i], name) : keys[i];
        if (group != NULL) {
            metric(m, n, group, tag != NULL ? tag : name, values[i] / (double)of->n);
        }
    }
}

/* What the teachers have in common with the student, for metrics and terminal. */
static void teachers_agree(const struct lb_run *run, const struct lb_agreement *agreement,
                           struct lb_arena *arena, struct lb_metric *m, size_t *n) {
    int parts = lb_dataset_tags(run->eval_data);
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        if (agreement[k].unanswered > 0) { /* of less data it would be another number */
            lb_log(LB_LOG_WARN, "agreement_unanswered", "teacher=%s samples=%lld",
                   run->recipe->teachers[k].name, (long long)agreement[k].unanswered);
            continue;
        }
        agreed(run, k, NULL, &agreement[k].all, arena, m, n);
        for (int t = 0; t < parts; t++) {
            agreed(run, k, lb_dataset_tag(run->eval_data, t), &agreement[k].part[t], arena, m, n);
        }
        if (agreement[k].all.n > 0) {
            char text[256];
            snprintf(text, sizeof text, "step %lld: the likeliest is that of teacher %.100s in %.1f %%",
                     (long long)run->at.step, run->recipe->teachers[k].name,
                     100 * (double)agreement[k].all.same / (double)agreement[k].all.n);
            lb_progress_note(run->progress, text);
        }
    }
}

/* A line of metrics about an evaluation, and what the terminal says of it. */
static enum lb_status tell_evaluation(struct lb_run *run, const struct lb_evaluation *e,
                                      const struct lb_agreement *agreement, struct lb_detail *detail) {
    struct lb_arena arena; /* groups' names */
    struct lb_metric m[MAX_METRICS];
    size_t n = 0;
    char text[512];
    lb_arena_init(&arena, GROUPS_BYTES);
    metric(m, &n, NULL, "eval_loss", e->all.loss);
    if (e->text) {
        metric(m, &n, NULL, "eval_perplexity", exp(e->all.loss));
        for (int t = 0; t < e->n_parts; t++) {
            metric(m, &n, "eval_perplexity", e->part[t].name, exp(e->part[t].loss));
        }
        metric(m, &n, NULL, "eval_perplexity_balanced", e->balanced_perplexity);
        if (e->all.bytes > 0) {
            metric(m, &n, NULL, "eval_bits_per_byte", e->all.bits_per_byte);
        }
        snprintf(text, sizeof text, "step %lld: held-out perplexity %.2f, balanced %.2f",
                 (long long)run->at.step, exp(e->all.loss), e->balanced_perplexity);
    } else {
        metric(m, &n, NULL, "eval_error", e->all.error_percent);
        snprintf(text, sizeof text, "step %lld: held-out loss %.4f, error %.2f %%", (long long)run->at.step,
                 e->all.loss, e->all.error_percent);
    }
    metric(m, &n, NULL, "eval_accuracy", 1 - e->all.error_percent / 100);
    metric(m, &n, NULL, "eval_ece", e->ece);
    if (lb_run_compares(run) && run->at.best_step > 0) {
        metric(m, &n, NULL, "best_step", (double)run->at.best_step);
    }
    lb_progress_note(run->progress, text);
    if (agreement != NULL) {
        teachers_agree(run, agreement, &arena, m, &n);
    }
    enum lb_status status = lb_journal_write(run->journal, run->at.step, epoch_of(run), m, n, detail);
    lb_arena_finish(&arena);
    return status;
}

enum lb_status lb_run_evaluate(struct lb_run *run, struct lb_detail *detail) {
    struct lb_evaluation e;
    struct lb_agreement *agreement = NULL;
    if (run->recipe->eval_agreement) {
        agreement = lb_calloc(run->plan->n_teachers, sizeof *agreement);
        if (agreement == NULL) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory");
        }
    }
    enum lb_status status = evaluate(run, &e, agreement, detail);
    status = status == LB_OK ? lb_run_compare(run, &e, detail) : status;
    status = status == LB_OK ? tell_evaluation(run, &e, agreement, detail) : status;
    lb_free(agreement);
    return status;
}
