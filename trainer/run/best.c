/* Evaluations compared with each other: the best one's weights, and when to end. The rules are those of
 * transformers' Trainer (_determine_best_metric) and its EarlyStoppingCallback: any improvement makes a new
 * best, and patience begins anew with one of more than early_stopping_threshold. */
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/run/run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool lb_run_compares(const struct lb_run *run) {
    return run->recipe->load_best_model_at_end || run->recipe->early_stopping_patience > 0;
}

bool lb_run_stops_early(const struct lb_run *run) {
    int64_t patience = run->recipe->early_stopping_patience;
    return patience > 0 && run->at.waited >= patience;
}

static double value_of(enum lb_best_metric metric, const struct lb_evaluation *e) {
    switch (metric) {
    case LB_METRIC_PERPLEXITY:
        return e->all.perplexity;
    case LB_METRIC_BALANCED:
        return e->balanced_perplexity;
    case LB_METRIC_BITS_PER_BYTE:
        return e->all.bits_per_byte;
    case LB_METRIC_ACCURACY:
        return 1 - e->all.error_percent / 100;
    case LB_METRIC_ERROR:
        return e->all.error_percent;
    case LB_METRIC_ECE:
        return e->ece;
    case LB_METRIC_BY_DEFAULT:
    case LB_METRIC_LOSS:
        break;
    }
    return e->all.loss;
}

/* As metrics.jsonl has it. */
static const char *name_of(enum lb_best_metric metric) {
    switch (metric) {
    case LB_METRIC_PERPLEXITY:
        return "eval_perplexity";
    case LB_METRIC_BALANCED:
        return "eval_perplexity_balanced";
    case LB_METRIC_BITS_PER_BYTE:
        return "eval_bits_per_byte";
    case LB_METRIC_ACCURACY:
        return "eval_accuracy";
    case LB_METRIC_ERROR:
        return "eval_error";
    case LB_METRIC_ECE:
        return "eval_ece";
    case LB_METRIC_BY_DEFAULT:
    case LB_METRIC_LOSS:
        break;
    }
    return "eval_loss";
}

enum lb_status lb_run_compare(struct lb_run *run, const struct lb_evaluation *evaluation,
                              struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    struct lb_checkpoint *at = &run->at;
    double value = value_of(r->metric_for_best_model, evaluation);
    run->improved = false;
    if (!lb_run_compares(run) ||
        at->evaluated == at->step) { /* a step that was counted before it was saved */
        return LB_OK;
    }
    if (r->metric_for_best_model == LB_METRIC_BITS_PER_BYTE && evaluation->all.bytes == 0) {
        return lb_fail(
            detail, LB_E_ARG,
            "metric_for_best_model: these data have no bytes of text that bits_per_byte could be of");
    }
    double gain =
        r->metric_for_best_model == LB_METRIC_ACCURACY ? value - at->best_metric : at->best_metric - value;
    bool first = at->best_step == 0;
    run->improved = isfinite(value) && (first || gain > 0);
    at->waited = run->improved && (first || gain > r->early_stopping_threshold) ? 0 : at->waited + 1;
    at->evaluated = at->step;
    snprintf(at->best_of, sizeof at->best_of, "%s", name_of(r->metric_for_best_model));
    if (run->improved) {
        at->best_metric = value;
        at->best_step = at->step;
        at->kept_step = r->load_best_model_at_end ? at->step : 0;
    }
    if (lb_run_stops_early(run)) {
        lb_log(LB_LOG_INFO, "early_stopping", "step=%lld best_step=%lld best=%.6g evaluations_since=%lld",
               (long long)at->step, (long long)at->best_step, at->best_metric, (long long)at->waited);
    }
    return LB_OK;
}

enum lb_status lb_run_recall_best(struct lb_run *run, struct lb_detail *detail) {
    struct lb_checkpoint *at = &run->at;
    const char *name = name_of(run->recipe->metric_for_best_model);
    if (lb_run_compares(run) && at->best_of[0] != '\0' && strcmp(at->best_of, name) != 0) {
        return lb_recipe_fail(run->recipe, detail, LB_E_MISMATCH, "metric_for_best_model",
                              "this run's evaluations were compared by %s so far, which says nothing of %s; "
                              "set it to that, or begin anew",
                              at->best_of, name);
    }
    at->kept_step = run->recipe->load_best_model_at_end ? at->best_step : 0;
    if (at->kept_step == 0 || at->kept_step == at->step) {
        return LB_OK;
    }
    char *path = lb_checkpoint_path(run->dir, at->kept_step);
    enum lb_status status =
        path == NULL ? lb_fail(detail, LB_E_NOMEM, "out of memory")
        : lb_is_dir(path)
            ? LB_OK
            : lb_recipe_fail(run->recipe, detail, LB_E_NOTFOUND, "load_best_model_at_end",
                             "the best evaluation so far is that of step %lld, and %s is not there: "
                             "it is kept where the key is there from the beginning; drop the key, or "
                             "begin anew",
                             (long long)at->kept_step, path);
    lb_free(path);
    return status;
}

enum lb_status lb_run_take_best(struct lb_run *run, struct lb_checkpoint *out, struct lb_detail *detail) {
    const struct lb_checkpoint *at = &run->at;
    enum lb_status status = LB_OK;
    *out = *at;
    if (!run->recipe->load_best_model_at_end || at->best_step == 0) {
        return LB_OK;
    }
    if (at->best_step != at->step) {
        char *path = lb_checkpoint_path(run->dir, at->best_step);
        status = path != NULL ? lb_checkpoint_load(path, at, run->optimizer, out, detail)
                              : lb_fail(detail, LB_E_NOMEM, "out of memory");
        lb_free(path);
    }
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "best", "step=%lld metric=%.6g of=%lld", (long long)at->best_step,
               at->best_metric, (long long)at->step);
    }
    return status;
}
