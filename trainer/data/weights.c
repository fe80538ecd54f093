/* How often rows count: a number that records bring, or a column of a table. */
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <math.h>
#include <string.h>

/* What a step sums must neither overflow nor vanish. */
#define LEAST 1e-9
#define MOST 1e9

enum lb_status lb_weight_check(double weight, struct lb_detail *detail) {
    return weight == 0 || (weight >= LEAST && weight <= MOST)
               ? LB_OK
               : lb_fail(detail, LB_E_FORMAT, "%g is no weight: it is 0, or from %g to %g", weight, LEAST,
                         MOST);
}

enum lb_status lb_row_weight(const json_t *row, const char *key, struct lb_buf *weights,
                             struct lb_detail *detail) {
    const json_t *member = json_object_get(row, key);
    if (!json_is_number(member)) {
        return lb_fail(detail, LB_E_FORMAT, "the line: %s is %s (weight_field)", key,
                       member == NULL ? "missing" : "no number");
    }
    double weight = json_number_value(member);
    enum lb_status status = lb_weight_check(weight, detail);
    if (status != LB_OK) {
        lb_detail_prefix(detail, "the line: %s", key);
        return status;
    }
    return lb_buf_append(weights, &weight, sizeof weight);
}

double lb_weight_at(const struct lb_buf *weights, size_t i) {
    double weight = 1;
    if (weights->len > i * sizeof weight) {
        memcpy(&weight, weights->data + i * sizeof weight, sizeof weight);
    }
    return weight;
}

enum lb_status lb_dataset_weigh(struct lb_dataset *data, int64_t row, double weight) {
    if (weight == 1 && data->n_weights == 0) {
        return LB_OK;
    }
    if (row >= data->weights_cap) {
        int64_t cap = row + row / 2 + 64;
        double *weights = lb_realloc_array(data->weights, (size_t)cap, sizeof *weights);
        if (weights == NULL) {
            return LB_E_NOMEM;
        }
        data->weights = weights;
        data->weights_cap = cap;
    }
    while (data->n_weights < row) {
        data->weights[data->n_weights++] = 1;
    }
    data->weights[data->n_weights++] = weight;
    return LB_OK;
}
