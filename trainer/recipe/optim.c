/* Keys of the optimisation that hold more than one value: optim_args, lr_scheduler_kwargs;
 * and those about evaluations that are compared. */
#include "trainer/recipe/fields.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define ARG_BYTES 64

static bool is_one_of(const char *text, const char *const *words) {
    while (*words != NULL && strcmp(text, *words) != 0) {
        words++;
    }
    return *words != NULL;
}

static enum lb_status wrong_arg(const struct lb_recipe *r, const char *why, struct lb_mistakes *mistakes) {
    return lb_mistakes_add(mistakes, LB_E_ARG, "optim_args",
                           "\"%s\" %s; it is like momentum=0.9,nesterov=true", r->optim_args, why);
}

/* One "name=value", without spaces. */
static enum lb_status take_arg(struct lb_recipe *r, char *arg, struct lb_mistakes *mistakes) {
    static const char *const yes[] = {"true", "1", "yes", NULL}, *const no[] = {"false", "0", "no", NULL};
    char *value = strchr(arg, '=');
    if (value == NULL) {
        return wrong_arg(r, "has a part without =", mistakes);
    }
    *value++ = '\0';
    if (strcmp(arg, "momentum") == 0) {
        double number;
        if (!lb_read_number(value, &number) || !(number >= 0 && number < 1)) {
            return wrong_arg(r, "has a momentum that is not from 0 to below 1", mistakes);
        }
        r->momentum = number;
        return LB_OK;
    }
    if (strcmp(arg, "nesterov") == 0) {
        for (char *c = value; *c != '\0'; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        r->nesterov = is_one_of(value, yes);
        return r->nesterov || is_one_of(value, no)
                   ? LB_OK
                   : wrong_arg(r, "has a nesterov that is neither true nor false", mistakes);
    }
    return wrong_arg(r, "holds another name than momentum and nesterov", mistakes);
}

static enum lb_status take_args(struct lb_recipe *r, struct lb_mistakes *mistakes) {
    char arg[ARG_BYTES];
    enum lb_status status = LB_OK;
    if (r->optim == LB_OPTIM_MUON) { /* what torch.optim.Muon begins with */
        r->momentum = 0.95;
        r->nesterov = true;
    }
    if (r->optim_args == NULL) {
        return LB_OK;
    }
    if (r->optim != LB_OPTIM_SGD && r->optim != LB_OPTIM_MUON) {
        return lb_mistakes_add(
            mistakes, LB_E_ARG, "optim_args",
            "is read for optim: sgd and muon; drop it, or set adam_beta1, adam_beta2, adam_epsilon");
    }
    for (const char *at = r->optim_args; *at != '\0'; at += *at == ',') {
        size_t n = 0;
        for (; *at != '\0' && *at != ','; at++) {
            if (!isspace((unsigned char)*at) && n < sizeof arg) {
                arg[n++] = *at;
            }
        }
        enum lb_status one;
        if (n < sizeof arg) {
            arg[n] = '\0';
            one = take_arg(r, arg, mistakes);
        } else {
            one = wrong_arg(r, "has a part that is too long", mistakes);
        }
        status = lb_read_both(status, one);
    }
    return status != LB_OK || !r->nesterov || r->momentum > 0
               ? status
               : wrong_arg(r, "has nesterov without a momentum", mistakes);
}

/* ---- lr_scheduler_kwargs ---- */

#define COUNT_MAX 1e15

static enum lb_status wrong_kwarg(const struct lb_recipe_pair *pair, const char *what,
                                  struct lb_mistakes *mistakes) {
    char path[128];
    snprintf(path, sizeof path, "lr_scheduler_kwargs.%.80s", pair->key);
    return lb_mistakes_add(mistakes, LB_E_ARG, path, "\"%.80s\" is not %s", pair->value, what);
}

static enum lb_status take_number(const struct lb_recipe_pair *pair, double low, double high, double *out,
                                  struct lb_mistakes *mistakes) {
    char what[80];
    double number;
    if (!lb_read_number(pair->value, &number) || !(number >= low && number <= high)) {
        snprintf(what, sizeof what, "a number from %g to %g", low, high);
        return wrong_kwarg(pair, what, mistakes);
    }
    *out = number;
    return LB_OK;
}

static enum lb_status take_steps(const struct lb_recipe_pair *pair, int64_t *out,
                                 struct lb_mistakes *mistakes) {
    double number = 0;
    enum lb_status status = take_number(pair, 1, COUNT_MAX, &number, mistakes);
    if (status == LB_OK && number != floor(number)) {
        return wrong_kwarg(pair, "a whole number", mistakes);
    }
    *out = status == LB_OK ? (int64_t)number : *out;
    return status;
}

static enum lb_status take_ramp(const struct lb_recipe_pair *pair, enum lb_ramp *out,
                                struct lb_mistakes *mistakes) {
    static const char *const names[] = {"linear", "cosine", "1-sqrt"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(pair->value, names[i]) == 0) {
            *out = (enum lb_ramp)(LB_RAMP_LINEAR + i);
            return LB_OK;
        }
    }
    return wrong_kwarg(pair, "one of linear, cosine, 1-sqrt", mistakes);
}

/* What each lr_scheduler_type takes, as the arguments of transformers' get_*_schedule are called. */
static const struct {
    enum lb_schedule type;
    const char *name;
} known_kwargs[] = {
    {LB_SCHEDULE_COSINE, "num_cycles"},         {LB_SCHEDULE_COSINE_WITH_MIN_LR, "num_cycles"},
    {LB_SCHEDULE_COSINE_WITH_MIN_LR, "min_lr"}, {LB_SCHEDULE_COSINE_WITH_MIN_LR, "min_lr_rate"},
    {LB_SCHEDULE_WSD, "num_decay_steps"},       {LB_SCHEDULE_WSD, "num_stable_steps"},
    {LB_SCHEDULE_WSD, "warmup_type"},           {LB_SCHEDULE_WSD, "decay_type"},
    {LB_SCHEDULE_WSD, "min_lr_ratio"},          {LB_SCHEDULE_WSD, "num_cycles"},
};

/* LB_E_ARG unless the recipe's type takes such a name. */
static enum lb_status check_name(const struct lb_recipe *r, const char *key, struct lb_mistakes *mistakes) {
    char path[128], list[256] = "";
    size_t n = 0;
    for (size_t i = 0; i < sizeof known_kwargs / sizeof known_kwargs[0]; i++) {
        if (known_kwargs[i].type != r->lr_scheduler_type) {
            continue;
        }
        if (strcmp(known_kwargs[i].name, key) == 0) {
            return LB_OK;
        }
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n > 0 ? ", " : "", known_kwargs[i].name);
    }
    snprintf(path, sizeof path, "lr_scheduler_kwargs.%.80s", key);
    return lb_mistakes_add(mistakes, LB_E_ARG, path, "is not read by this lr_scheduler_type; %s%s",
                           n > 0 ? "it takes " : "it takes none, drop it", list);
}

static enum lb_status take_kwarg(struct lb_recipe *r, const struct lb_recipe_pair *pair,
                                 struct lb_mistakes *mistakes) {
    struct lb_schedule_args *s = &r->schedule;
    enum lb_status status = check_name(r, pair->key, mistakes);
    if (status != LB_OK) {
        return status;
    }
    if (strcmp(pair->key, "min_lr") == 0) {
        status = take_number(pair, 0, r->learning_rate, &s->min_lr_rate, mistakes);
        s->min_lr_rate = r->learning_rate > 0 ? s->min_lr_rate / r->learning_rate : 0;
        return status;
    }
    if (strncmp(pair->key, "min_lr_", 7) == 0) { /* rate or ratio */
        return take_number(pair, 0, 1, &s->min_lr_rate, mistakes);
    }
    if (strcmp(pair->key, "num_cycles") == 0) {
        return take_number(pair, 1e-3, 1e3, &s->num_cycles, mistakes);
    }
    if (strcmp(pair->key, "num_decay_steps") == 0) {
        return take_steps(pair, &s->num_decay_steps, mistakes);
    }
    if (strcmp(pair->key, "num_stable_steps") == 0) {
        return take_steps(pair, &s->num_stable_steps, mistakes);
    }
    return take_ramp(pair, strcmp(pair->key, "warmup_type") == 0 ? &s->warmup_type : &s->decay_type,
                     mistakes);
}

static bool has_kwarg(const struct lb_recipe *r, const char *key) {
    for (unsigned i = 0; i < r->lr_scheduler_kwargs_count; i++) {
        if (strcmp(r->lr_scheduler_kwargs[i].key, key) == 0) {
            return true;
        }
    }
    return false;
}

static enum lb_status complain(const struct lb_recipe *r, const char *text, struct lb_mistakes *mistakes) {
    const char *key = r->lr_scheduler_kwargs_count > 0 ? "lr_scheduler_kwargs" : "lr_scheduler_type";
    return lb_mistakes_add(mistakes, LB_E_ARG, key, "%s", text);
}

/* The least rate comes from one place, and what a type cannot do without is there. */
static enum lb_status check_schedule(struct lb_recipe *r, struct lb_mistakes *mistakes) {
    const bool least = has_kwarg(r, "min_lr") || has_kwarg(r, "min_lr_rate") || has_kwarg(r, "min_lr_ratio");
    const bool with_least = r->lr_scheduler_type == LB_SCHEDULE_COSINE_WITH_MIN_LR;
    const bool stable = r->lr_scheduler_type == LB_SCHEDULE_WSD;
    if ((has_kwarg(r, "min_lr") && has_kwarg(r, "min_lr_rate")) || (least && r->min_lr_ratio > 0)) {
        return complain(r, "the least rate is said twice; keep one of min_lr, min_lr_rate and min_lr_ratio",
                        mistakes);
    }
    if (with_least && !least && !(r->min_lr_ratio > 0)) {
        return complain(
            r, "cosine_with_min_lr needs lr_scheduler_kwargs: {min_lr: RATE} or {min_lr_rate: SHARE}",
            mistakes);
    }
    if (stable && r->schedule.num_decay_steps == 0) {
        return complain(r, "warmup_stable_decay needs lr_scheduler_kwargs: {num_decay_steps: N}", mistakes);
    }
    if (stable && r->max_steps > 0 && r->schedule.num_decay_steps > r->max_steps) {
        return complain(r, "num_decay_steps are more than max_steps", mistakes);
    }
    if ((with_least || stable) && !least) {
        r->schedule.min_lr_rate = r->min_lr_ratio;
    }
    return LB_OK;
}

/* ---- evaluations that are compared ---- */

static enum lb_status check_average(const struct lb_recipe *r, struct lb_mistakes *mistakes) {
    return r->ema_decay > 0 || r->ema_for == LB_EMA_FOR_ALL
               ? LB_OK
               : lb_mistakes_add(mistakes, LB_E_ARG, "ema_for",
                                 "there is no average; set ema_decay, or drop it");
}

/* Adapters: what they are of, and their defaults, which are TRL's. */
static enum lb_status check_adapters(struct lb_recipe *r, struct lb_mistakes *mistakes) {
    const bool given = r->lora_r > 0 || r->lora_alpha > 0 || r->lora_target_modules_count > 0;
    if (!r->use_peft) {
        return given ? lb_mistakes_add(mistakes, LB_E_ARG,
                                       r->lora_r > 0       ? "lora_r"
                                       : r->lora_alpha > 0 ? "lora_alpha"
                                                           : "lora_target_modules",
                                       "there are no adapters; set use_peft: true, or drop it")
                     : LB_OK;
    }
    if (r->student.model == NULL) {
        return lb_mistakes_add(mistakes, LB_E_ARG, "use_peft", "is of a student that exists (student.model)");
    }
    if (r->frozen_parameters_count > 0) {
        return lb_mistakes_add(mistakes, LB_E_ARG, "frozen_parameters",
                               "with use_peft all but the adapters is frozen; drop it");
    }
    r->lora_r = r->lora_r > 0 ? r->lora_r : 16;
    r->lora_alpha = r->lora_alpha > 0 ? r->lora_alpha : 32;
    if (r->lora_target_modules_count == 1 && strcmp(r->lora_target_modules[0], "all-linear") == 0) {
        r->lora_target_modules_count = 0; /* they are without the key */
    }
    return LB_OK;
}

static enum lb_status check_best(const struct lb_recipe *r, struct lb_mistakes *mistakes) {
    const bool stops = r->early_stopping_patience > 0,
               greater = r->metric_for_best_model == LB_METRIC_ACCURACY;
    const char *key = stops ? "early_stopping_patience" : "load_best_model_at_end";
    if (!stops && !r->load_best_model_at_end) {
        const char *idle = r->metric_for_best_model != LB_METRIC_BY_DEFAULT ? "metric_for_best_model"
                           : r->greater_is_better != LB_NOT_SAID            ? "greater_is_better"
                           : r->early_stopping_threshold > 0                ? "early_stopping_threshold"
                                                                            : NULL;
        return idle == NULL ? LB_OK
                            : lb_mistakes_add(mistakes, LB_E_ARG, idle,
                                              "nothing is compared; set load_best_model_at_end or "
                                              "early_stopping_patience");
    }
    if (r->eval_datasets_count == 0 || r->eval_steps == 0) {
        return lb_mistakes_add(mistakes, LB_E_ARG, key,
                               "needs eval_datasets and eval_steps: what is compared, and when");
    }
    if (!stops && r->early_stopping_threshold > 0) {
        return lb_mistakes_add(mistakes, LB_E_ARG, "early_stopping_threshold",
                               "goes with early_stopping_patience");
    }
    if (r->greater_is_better == (greater ? LB_NO : LB_YES)) {
        return lb_mistakes_add(mistakes, LB_E_ARG, "greater_is_better",
                               "of metric_for_best_model, %s is the better; drop the key",
                               greater ? "more" : "less");
    }
    if (r->metric_for_best_model == LB_METRIC_BITS_PER_BYTE && lb_data_features(r->datasets[0].type)) {
        return lb_mistakes_add(mistakes, LB_E_ARG, "metric_for_best_model", "images have no bytes of text");
    }
    return LB_OK;
}

static enum lb_status take_kwargs(struct lb_recipe *r, struct lb_mistakes *mistakes) {
    enum lb_status status = LB_OK;
    for (unsigned i = 0; i < r->lr_scheduler_kwargs_count; i++) {
        status = lb_read_both(status, take_kwarg(r, &r->lr_scheduler_kwargs[i], mistakes));
    }
    return status == LB_OK ? check_schedule(r, mistakes) : status;
}

enum lb_status lb_recipe_optim(struct lb_recipe *recipe, struct lb_mistakes *mistakes) {
    enum lb_status status = LB_OK;
    if (lb_mistakes_sound(mistakes, "optim optim_args")) {
        status = lb_read_both(status, take_args(recipe, mistakes));
    }
    if (lb_mistakes_sound(mistakes,
                          "lr_scheduler_type lr_scheduler_kwargs learning_rate min_lr_ratio max_steps")) {
        status = lb_read_both(status, take_kwargs(recipe, mistakes));
    }
    if (lb_mistakes_sound(mistakes, "ema_decay ema_for")) {
        status = lb_read_both(status, check_average(recipe, mistakes));
    }
    if (lb_mistakes_sound(mistakes,
                          "use_peft lora_r lora_alpha lora_target_modules frozen_parameters student")) {
        status = lb_read_both(status, check_adapters(recipe, mistakes));
    }
    if (lb_mistakes_sound(mistakes, "early_stopping_patience early_stopping_threshold load_best_model_at_end "
                                    "metric_for_best_model greater_is_better eval_datasets eval_steps "
                                    "datasets.0")) {
        status = lb_read_both(status, check_best(recipe, mistakes));
    }
    return status;
}
