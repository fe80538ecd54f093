/* Labels of texts, for classifiers: numbers of classes, or names that become numbers once somebody has said
 * which class is called so. */
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <string.h>

#define MAX_NAMES_BYTES ((size_t)64 << 20) /* of one thread's share of a block of lines */

void lb_row_labels_init(struct lb_row_labels *labels) {
    *labels = (struct lb_row_labels){0};
    lb_buf_init(&labels->names, MAX_NAMES_BYTES);
}

void lb_row_labels_clear(struct lb_row_labels *labels) {
    labels->of.len = 0;
    lb_buf_reset(&labels->names);
}

void lb_row_labels_finish(struct lb_row_labels *labels) {
    lb_free(labels->of.data);
    lb_buf_finish(&labels->names);
}

/* A class from 0 on; null, a missing member and -1 are none; a name stands as the complement of its place. */
enum lb_status lb_row_labels_add(struct lb_row_labels *labels, const json_t *row, const char *key,
                                 int64_t num_labels, struct lb_detail *detail) {
    const json_t *label = json_object_get(row, key);
    enum lb_status status = LB_OK;
    if (json_is_string(label) && json_string_length(label) == strlen(json_string_value(label))) {
        if (labels->names.len > INT32_MAX - 2) {
            return lb_fail(detail, LB_E_LIMIT, "the line: %s: too many names", key);
        }
        status = lb_ids_push(&labels->of, LB_LABEL_NONE - 1 - (int32_t)labels->names.len);
        lb_buf_append(&labels->names, json_string_value(label), json_string_length(label) + 1);
        status = status == LB_OK ? lb_buf_status(&labels->names) : status;
    } else if (label == NULL || json_is_null(label) ||
               (json_is_integer(label) && json_integer_value(label) == LB_LABEL_NONE)) {
        status = lb_ids_push(&labels->of, LB_LABEL_NONE);
    } else if (!json_is_integer(label)) {
        return lb_fail(detail, LB_E_FORMAT, "the line: %s is neither a class's number nor its name", key);
    } else if (json_integer_value(label) < 0 || json_integer_value(label) >= num_labels) {
        return lb_fail(detail, LB_E_MISMATCH, "the line: %s is %lld, the model has num_labels %lld", key,
                       (long long)json_integer_value(label), (long long)num_labels);
    } else {
        status = lb_ids_push(&labels->of, (int32_t)json_integer_value(label));
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for the labels");
}

/* The number of a name among the data's, a new one if need be; -1: out of memory. */
static int32_t number_of(struct lb_dataset *data, const char *name) {
    for (int64_t i = 0; i < data->n_label_names; i++) {
        if (strcmp(data->label_names[i], name) == 0) {
            return (int32_t)i;
        }
    }
    char **names = lb_realloc_array(data->label_names, (size_t)data->n_label_names + 1, sizeof *names);
    if (names == NULL) {
        return -1;
    }
    data->label_names = names;
    names[data->n_label_names] = lb_strdup(name);
    return names[data->n_label_names] != NULL ? (int32_t)data->n_label_names++ : -1;
}

enum lb_status lb_dataset_take_labels(struct lb_dataset *data, const struct lb_row_labels *from,
                                      struct lb_ids *out, struct lb_detail *detail) {
    for (size_t i = 0; i < from->of.len; i++) {
        int32_t label = from->of.data[i];
        bool named = label < LB_LABEL_NONE;
        if (label != LB_LABEL_NONE && data->any_label && named != (data->n_label_names > 0)) {
            return lb_fail(detail, LB_E_FORMAT, "labels are numbers in some lines and names in others");
        }
        data->any_label = data->any_label || label != LB_LABEL_NONE;
        label = named ? number_of(data, from->names.data + (LB_LABEL_NONE - 1 - label)) : label;
        if (named && label >= data->num_labels) {
            return lb_fail(detail, LB_E_MISMATCH,
                           "\"%.60s\" is one name of a label more than the model's num_labels %lld",
                           data->label_names[label], (long long)data->num_labels);
        }
        if ((named && label < 0) || lb_ids_push(out, label) != LB_OK) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for the labels");
        }
    }
    return LB_OK;
}

enum lb_status lb_dataset_name_labels(struct lb_dataset *data, const struct lb_labels *labels,
                                      const char *name, struct lb_detail *detail) {
    int64_t n = data->n_label_names;
    int32_t *class = lb_malloc_array((size_t)n + 1, sizeof *class);
    enum lb_status status =
        class != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for the labels");
    for (int64_t i = 0; status == LB_OK && i < n; i++) {
        class[i] = (int32_t)lb_labels_find(labels, data->label_names[i]);
        if (class[i] < 0) {
            status = lb_fail(
                detail, LB_E_MISMATCH,
                "%s: the label \"%.60s\" is the name of no class; the model's are called \"%.60s\"%s", name,
                data->label_names[i], labels->names[0], labels->n > 1 ? " and so on (id2label)" : "");
        }
    }
    if (status == LB_OK && n > 0) {
        lb_dataset_forget_names(data);
        data->class_of_name = class;
        class = NULL;
    }
    lb_free(class);
    return status;
}

void lb_dataset_forget_names(struct lb_dataset *data) {
    for (int64_t i = 0; i < data->n_label_names; i++) {
        lb_free(data->label_names[i]);
    }
    lb_free(data->label_names);
    data->label_names = NULL;
    data->n_label_names = 0;
}

int64_t lb_dataset_unlabelled(const struct lb_dataset *data) {
    return data->unlabelled;
}
