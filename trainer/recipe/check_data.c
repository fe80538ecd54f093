/* Whether what is said of the data makes sense together. */
#include "trainer/recipe/fields.h"

#include <math.h>
#include <stdio.h>

struct check {
    const struct lb_recipe *recipe;
    struct lb_mistakes *mistakes;
};

#define complain(c, path, ...) lb_mistakes_add((c)->mistakes, LB_E_ARG, path, __VA_ARGS__)

static bool is_classifier(const struct lb_recipe *r) {
    return lb_data_features(r->datasets[0].type);
}

static bool sound_entry(const struct check *c, const char *list, unsigned i) {
    char path[64];
    snprintf(path, sizeof path, "%s.%u", list, i);
    return !lb_mistakes_touch(c->mistakes, path);
}

static enum lb_status check_dataset(const struct check *c, const struct lb_recipe_dataset *d,
                                    const char *list, unsigned i) {
    char path[64];
    snprintf(path, sizeof path, "%s.%u", list, i);
    bool idx = d->type == LB_DATA_IDX, features = lb_data_features(d->type);
    if (features != is_classifier(c->recipe)) {
        return complain(c, path, "text and type: %s data do not mix in one recipe",
                        d->type == LB_DATA_CSV ? "csv" : "idx");
    }
    if (idx && d->labels == NULL) {
        return complain(c, path, "type: idx needs labels: the file of the images' labels");
    }
    if (features && d->max_tokens != 0) {
        return complain(c, path, "max_tokens is for text; %s have max_samples", idx ? "images" : "tables");
    }
    if (d->type == LB_DATA_CSV && d->labels != NULL) {
        return complain(c, path, "labels is for type: idx; a table's are a column: label_field");
    }
    if (!features &&
        (d->labels != NULL || d->skip_samples != 0 || d->max_samples != 0 || d->exclude_labels_count != 0)) {
        return complain(
            c, path,
            "labels, skip_samples, max_samples and exclude_labels are for type: idx, all but labels for csv "
            "too; text has max_tokens");
    }
    if (d->type == LB_DATA_TOKENS && c->recipe->whole_texts) {
        return complain(c, path, "type: tokens is a stream; whole_texts needs texts");
    }
    if (d->type != LB_DATA_JSONL && d->field != NULL) {
        return complain(c, path, "field is for type: jsonl");
    }
    if (d->type != LB_DATA_JSONL && d->type != LB_DATA_CSV && d->label_field != NULL) {
        return complain(c, path, "label_field is for type: jsonl and csv");
    }
    if (d->type != LB_DATA_JSONL && d->type != LB_DATA_CSV && d->weight_field != NULL) {
        return complain(c, path, "weight_field is for type: jsonl and csv");
    }
    return LB_OK;
}

/* Each dataset has a weight, or none has. */
static enum lb_status check_weights(const struct check *c) {
    const struct lb_recipe *r = c->recipe;
    char path[64];
    bool any = false;
    for (unsigned i = 0; i < r->datasets_count; i++) {
        any = any || !isnan(r->datasets[i].weight);
    }
    if (any && r->datasets_count > LB_MAX_WEIGHTED_SETS) {
        return complain(c, "datasets", "%u sets with weights; at most %d", r->datasets_count,
                        LB_MAX_WEIGHTED_SETS);
    }
    for (unsigned i = 0; any && i < r->datasets_count; i++) {
        snprintf(path, sizeof path, "datasets.%u", i);
        if (isnan(r->datasets[i].weight)) {
            return complain(c, path, "has no weight, and others have; give each one");
        }
    }
    for (unsigned i = 0; i < r->eval_datasets_count; i++) {
        snprintf(path, sizeof path, "eval_datasets.%u.weight", i);
        if (!isnan(r->eval_datasets[i].weight)) {
            return complain(c, path, "all of it is evaluated once; drop it");
        }
    }
    return LB_OK;
}

enum lb_status lb_recipe_check_data(const struct lb_recipe *r, struct lb_mistakes *mistakes) {
    const struct check here = {r, mistakes}, *c = &here;
    enum lb_status status = LB_OK;
    for (unsigned i = 0; lb_mistakes_sound(c->mistakes, "datasets.0") && i < r->datasets_count; i++) {
        if (sound_entry(c, "datasets", i)) {
            status = lb_read_both(status, check_dataset(c, &r->datasets[i], "datasets", i));
        }
    }
    for (unsigned i = 0; lb_mistakes_sound(c->mistakes, "datasets.0") && i < r->eval_datasets_count; i++) {
        if (sound_entry(c, "eval_datasets", i)) {
            status = lb_read_both(status, check_dataset(c, &r->eval_datasets[i], "eval_datasets", i));
        }
    }
    status = lb_mistakes_sound(c->mistakes, "datasets eval_datasets") ? lb_read_both(status, check_weights(c))
                                                                      : status;
    if (lb_mistakes_sound(c->mistakes, "datasets.0 student tokenizer") && !is_classifier(r) &&
        r->tokenizer == NULL) {
        status = lb_read_both(
            status,
            complain(c, "tokenizer", "is missing; text needs a tokenizer.json (or a folder that holds one)"));
    }
    if (lb_mistakes_sound(c->mistakes, "eval_steps eval_datasets") && r->eval_steps > 0 &&
        r->eval_datasets_count == 0) {
        status = lb_read_both(
            status, complain(c, "eval_steps",
                             "there are no eval_datasets to evaluate on; add some or drop eval_steps"));
    }
    if (lb_mistakes_sound(c->mistakes, "eval_agreement eval_datasets teachers.0") && r->eval_agreement &&
        (r->eval_datasets_count == 0 || r->teachers_count == 0)) {
        status =
            lb_read_both(status, complain(c, "eval_agreement",
                                          "compares teachers and student on eval_datasets; there are no %s",
                                          r->teachers_count == 0 ? "teachers" : "eval_datasets"));
    }
    return status;
}
