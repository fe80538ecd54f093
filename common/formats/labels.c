#include "common/formats/labels.h"

#include "common/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const problems[] = {[LB_PROBLEM_NONE] = NULL,
                                       [LB_PROBLEM_SINGLE] = "single_label_classification",
                                       [LB_PROBLEM_MULTI] = "multi_label_classification",
                                       [LB_PROBLEM_REGRESSION] = "regression"};

const char *lb_problem_name(enum lb_problem problem) {
    return problems[problem];
}

void lb_labels_finish(struct lb_labels *labels) {
    for (int64_t i = 0; labels->names != NULL && i < labels->n; i++) {
        lb_free(labels->names[i]);
    }
    lb_free(labels->names);
    *labels = (struct lb_labels){0};
}

/* "LABEL_7", as transformers calls a class without a name. */
static const char *plain_name(int64_t i, char out[32]) {
    snprintf(out, 32, "LABEL_%" PRId64, i);
    return out;
}

enum lb_status lb_labels_name(struct lb_labels *labels, int64_t i, const char *name) {
    char *copy = lb_strdup(name);
    if (copy == NULL) {
        return LB_E_NOMEM;
    }
    lb_free(labels->names[i]);
    labels->names[i] = copy;
    return LB_OK;
}

enum lb_status lb_labels_init(struct lb_labels *out, int64_t n) {
    struct lb_labels labels = {.n = n, .problem = LB_PROBLEM_SINGLE};
    char name[32];
    labels.names = lb_calloc((size_t)n, sizeof *labels.names);
    enum lb_status status = labels.names != NULL ? LB_OK : LB_E_NOMEM;
    for (int64_t i = 0; status == LB_OK && i < n; i++) {
        status = lb_labels_name(&labels, i, plain_name(i, name));
    }
    if (status != LB_OK) {
        lb_labels_finish(&labels);
        return status;
    }
    *out = labels;
    return LB_OK;
}

enum lb_status lb_labels_copy(const struct lb_labels *from, struct lb_labels *out) {
    struct lb_labels labels = {0};
    enum lb_status status = lb_labels_init(&labels, from->n);
    labels.problem = from->problem;
    for (int64_t i = 0; status == LB_OK && i < from->n; i++) {
        status = lb_labels_name(&labels, i, from->names[i]);
    }
    if (status != LB_OK) {
        lb_labels_finish(&labels);
        return status;
    }
    *out = labels;
    return LB_OK;
}

/* id2label: "0" to "n-1", each once, as keys of an object. */
static enum lb_status read_names(const json_t *names, const char *what, struct lb_labels *labels,
                                 struct lb_detail *detail) {
    for (int64_t i = 0; i < labels->n; i++) {
        char key[32];
        snprintf(key, sizeof key, "%" PRId64, i);
        const json_t *name = json_object_get(names, key);
        if (!json_is_string(name) && !json_is_integer(name)) {
            return lb_fail(detail, LB_E_FORMAT,
                           "%s: id2label does not name class %" PRId64 "; it names %zu, which are counted "
                           "from 0 on",
                           what, i, json_object_size(names));
        }
        if (json_is_integer(name)) {
            snprintf(key, sizeof key, "%" PRId64, (int64_t)json_integer_value(name));
        }
        enum lb_status status =
            lb_labels_name(labels, i, json_is_string(name) ? json_string_value(name) : key);
        if (status != LB_OK) {
            return lb_fail(detail, status, "%s: out of memory", what);
        }
    }
    return LB_OK;
}

static enum lb_status read_problem(const json_t *config, const char *what, struct lb_labels *labels,
                                   struct lb_detail *detail) {
    const char *name = NULL;
    enum lb_status status = lb_json_str(config, "problem_type", false, what, &name, detail);
    labels->problem = LB_PROBLEM_NONE;
    if (status != LB_OK || name == NULL) {
        return status;
    }
    for (size_t p = LB_PROBLEM_SINGLE; p < sizeof problems / sizeof *problems; p++) {
        if (strcmp(name, problems[p]) == 0) {
            labels->problem = (enum lb_problem)p;
            return LB_OK;
        }
    }
    return lb_fail(detail, LB_E_UNSUPPORTED,
                   "%s: problem_type \"%.64s\" is not supported, only %s, %s and %s", what, name,
                   problems[LB_PROBLEM_SINGLE], problems[LB_PROBLEM_MULTI], problems[LB_PROBLEM_REGRESSION]);
}

enum lb_status lb_labels_read(const json_t *config, int64_t n, const char *what, struct lb_labels *out,
                              struct lb_detail *detail) {
    struct lb_labels labels = {0};
    const json_t *names = json_object_get(config, "id2label");
    enum lb_status status = lb_labels_init(&labels, n);
    if (status != LB_OK) {
        return lb_fail(detail, status, "%s: out of memory", what);
    }
    status = json_is_object(names) ? read_names(names, what, &labels, detail) : LB_OK;
    status = status == LB_OK ? read_problem(config, what, &labels, detail) : status;
    if (status != LB_OK) {
        lb_labels_finish(&labels);
        return status;
    }
    *out = labels;
    return LB_OK;
}

bool lb_labels_plain(const struct lb_labels *labels) {
    char name[32];
    for (int64_t i = 0; i < labels->n; i++) {
        if (strcmp(labels->names[i], plain_name(i, name)) != 0) {
            return false;
        }
    }
    return true;
}

bool lb_labels_differ(const struct lb_labels *a, const struct lb_labels *b, int64_t *out_class) {
    if (lb_labels_plain(a) || lb_labels_plain(b)) {
        return false;
    }
    for (int64_t i = 0; i < a->n || i < b->n; i++) {
        if (i >= a->n || i >= b->n || strcmp(a->names[i], b->names[i]) != 0) {
            *out_class = i;
            return true;
        }
    }
    return false;
}

enum lb_problem lb_labels_problem(const struct lb_labels *labels) {
    bool said = labels->problem != LB_PROBLEM_NONE;
    return said ? labels->problem : labels->n == 1 ? LB_PROBLEM_REGRESSION : LB_PROBLEM_SINGLE;
}

int64_t lb_labels_find(const struct lb_labels *labels, const char *name) {
    for (int64_t i = 0; i < labels->n; i++) {
        if (strcmp(labels->names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

enum lb_status lb_labels_put(const struct lb_labels *labels, json_t *object) {
    json_t *names = json_object(), *ids = json_object();
    bool ok = names != NULL && ids != NULL;
    for (int64_t i = 0; ok && i < labels->n; i++) {
        char key[32];
        snprintf(key, sizeof key, "%" PRId64, i);
        ok = json_object_set_new(names, key, json_string(labels->names[i])) == 0 &&
             json_object_set_new(ids, labels->names[i], json_integer(i)) == 0;
    }
    ok = ok && json_object_set(object, "id2label", names) == 0 &&
         json_object_set(object, "label2id", ids) == 0;
    if (ok && labels->problem != LB_PROBLEM_NONE) {
        ok = json_object_set_new(object, "problem_type", json_string(problems[labels->problem])) == 0;
    }
    json_decref(names);
    json_decref(ids);
    return ok ? LB_OK : LB_E_NOMEM;
}

void lb_labels_hash(const struct lb_labels *labels, struct lb_sha256 *hash) {
    bool plain = lb_labels_plain(labels);
    for (int64_t i = 0; !plain && i < labels->n; i++) {
        lb_sha256_update(hash, labels->names[i], strlen(labels->names[i]) + 1);
    }
    if (labels->problem > LB_PROBLEM_SINGLE) { /* what is not said is taken for a single one */
        const char *name = problems[labels->problem];
        lb_sha256_update(hash, name, strlen(name) + 1);
    }
}
