/* Whether what is said of texts that are written during the run makes sense: of lmbda, of where prompts are,
 * of whose texts losses are on. */
#include "trainer/loss/loss.h"
#include "trainer/recipe/fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct check {
    const struct lb_recipe *recipe;
    struct lb_mistakes *mistakes;
};

#define complain(c, path, ...) lb_mistakes_add((c)->mistakes, LB_E_ARG, path, __VA_ARGS__)

/* The text that a loss is on must be one that there is. */
static enum lb_status check_text(const struct check *c, unsigned i) {
    const struct lb_recipe *r = c->recipe;
    char path[64];
    snprintf(path, sizeof path, "loss_functions.%u.on", i);
    if (r->loss_functions[i].on == LB_TEXT_STUDENT && !(r->lmbda > 0)) {
        return complain(c, path, "the student writes nothing: lmbda is 0");
    }
    if (r->loss_functions[i].on == LB_TEXT_TEACHER && !r->seq_kd) {
        return complain(c, path, "no teacher writes anything: seq_kd is false");
    }
    return LB_OK;
}

/* Keys of texts that are written, where none are: the first are of those that the student writes. */
static enum lb_status check_unwritten(const struct check *c) {
    static const char *const keys[] = {"off_policy_steps", "lmbda_ramp_steps",       "log_completions",
                                       "max_new_tokens",   "generation_temperature", "top_p"};
    const struct lb_recipe *r = c->recipe;
    enum { OWN = 3, ALL = sizeof keys / sizeof *keys };
    for (const struct lb_field *f = lb_recipe_fields; f->key != NULL; f++) {
        for (size_t i = 0; i < (r->seq_kd ? OWN : ALL) && !(r->lmbda > 0); i++) {
            if (strcmp(f->key, keys[i]) == 0 && !lb_field_at_default(f, (const char *)r)) {
                return complain(
                    c, f->key,
                    "is of texts that the student writes%s, and lmbda is 0; set that too, or drop it",
                    i < OWN ? "" : ", or with seq_kd a teacher");
            }
        }
    }
    for (unsigned i = 0; i < r->datasets_count && !lb_recipe_writes(r); i++) {
        if (r->datasets[i].prompt_length > 0) {
            char path[64];
            snprintf(path, sizeof path, "datasets.%u.prompt_length", i);
            return complain(
                c, path, "is where texts are written from, and lmbda is 0; set that, or seq_kd, or drop it");
        }
    }
    return r->seq_kd || isnan(r->seq_kd_ratio)
               ? LB_OK
               : complain(c, "seq_kd_ratio",
                          "is of what teachers write, and seq_kd is false; set that too, or drop it");
}

/* Texts that are written during the run. */
static enum lb_status check_written(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    const char *key = r->lmbda > 0 ? "lmbda" : "seq_kd";
    enum lb_status status = check_unwritten(c);
    if (status != LB_OK || !lb_recipe_writes(r)) {
        return status;
    }
    bool images = lb_data_features(r->datasets[0].type);
    if (images || r->whole_texts) {
        return complain(c, key, "%s: nobody writes a text there; leave it out",
                        images ? "the data are images" : "whole_texts is for encoders and classifiers");
    }
    if (r->teachers_count == 0) {
        return complain(c, key, "%s, and the recipe lists none",
                        r->lmbda > 0 ? "the student's own text is marked by teachers"
                                     : "a teacher is to write texts");
    }
    if (r->seq_kd && r->lmbda >= 1 && r->off_policy_steps == 0 && r->lmbda_ramp_steps == 0) {
        return complain(c, "seq_kd", "lmbda is 1: the student writes all texts; lower it, or drop seq_kd");
    }
    bool marked = !(r->lmbda > 0);
    for (unsigned i = 0; i < r->loss_functions_count && r->lmbda > 0; i++) {
        const struct lb_loss *loss = lb_loss_find(r->loss_functions[i].function);
        enum lb_loss_text on = r->loss_functions[i].on;
        bool own = on == LB_TEXT_ALL || on == LB_TEXT_STUDENT;
        marked = marked || own;
        if (loss->on == LB_ON_LABEL && own) {
            char path[64];
            snprintf(path, sizeof path, "loss_functions.%u", i);
            return complain(c, path,
                            "%s takes a text for right, and with lmbda that is also what the student wrote "
                            "itself; set on: given",
                            loss->name);
        }
    }
    if (!marked) {
        return complain(c, "lmbda",
                        "no loss function is on what the student writes; set it to 0, or on: student");
    }
    for (unsigned i = 0; i < r->datasets_count; i++) {
        if (r->datasets[i].prompt_length >= r->max_length) {
            char path[64];
            snprintf(path, sizeof path, "datasets.%u.prompt_length", i);
            return complain(c, path, "%lld leaves no room to write in within max_length %lld",
                            (long long)r->datasets[i].prompt_length, (long long)r->max_length);
        }
    }
    return LB_OK;
}

/* Prompts that teachers read in place of the student's. */
static enum lb_status check_prompts(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    const char *member = lb_recipe_teacher_prompt(r);
    for (unsigned k = 0; k < r->teachers_count && member != NULL; k++) {
        const char *its = r->teachers[k].teacher_prompt;
        char path[64];
        snprintf(path, sizeof path, "teachers.%u.teacher_prompt", k);
        if (its != NULL && strcmp(its, member) != 0) {
            return complain(c, path,
                            "%s, where another teacher reads %s; one member is read by all, or by some", its,
                            member);
        }
        if (its != NULL && (lb_data_features(r->datasets[0].type) || r->whole_texts)) {
            return complain(c, path, "the data have no prompts");
        }
    }
    return LB_OK;
}

enum lb_status lb_recipe_check_written(const struct lb_recipe *recipe, struct lb_mistakes *mistakes) {
    const struct check c = {recipe, mistakes};
    enum lb_status status = LB_OK;
    for (unsigned i = 0; i < recipe->eval_datasets_count; i++) {
        if (recipe->eval_datasets[i].prompt_length > 0) {
            char path[64];
            snprintf(path, sizeof path, "eval_datasets.%u.prompt_length", i);
            return complain(&c, path, "is of data that is trained on; nobody writes here");
        }
    }
    for (unsigned i = 0; i < recipe->loss_functions_count; i++) {
        status = lb_read_both(status, check_text(&c, i));
    }
    status = lb_read_both(status, check_prompts(&c));
    return status == LB_OK ? check_written(&c) : status;
}
