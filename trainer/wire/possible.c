#include "trainer/wire/possible.h"

#include "common/base/mem.h"
#include "common/nn/reduce.h"

#include <math.h>
#include <stdlib.h>

/* What rounding to FP16 and sums in another order may do to a number that is compared. */
#define SLACK 2e-3
#define CHUNK 256
#define LOG_MOST_IDS 16.7 /* log of more ids than any vocabulary has */

static int64_t rows_of(const struct lb_wire_tensor *t) {
    int64_t columns = t->n_dims > 1 ? t->dim[t->n_dims - 1] : 1;
    return columns > 0 ? lb_wire_elements(t) / columns : 0;
}

static int64_t columns_of(const struct lb_wire_tensor *t) {
    return t->n_dims > 1 ? t->dim[t->n_dims - 1] : 1;
}

static enum lb_status refuse(struct lb_detail *detail, const char *name, const struct lb_wire_tensor *t,
                             int64_t row, const char *what, double number) {
    return lb_fail(detail, LB_E_FORMAT, "teacher %s: %s of its answer cannot be: row %lld %s (%g)", name,
                   t->name, (long long)row, what, number);
}

static bool is_float(const struct lb_wire_tensor *t) {
    return t->datatype != LB_DT_INT32 && t->datatype != LB_DT_UINT16;
}

/* What rounding may do to numbers of this datatype: BF16 has 3 bits less than FP16. */
static double slack_of(const struct lb_wire_tensor *t) {
    return t->datatype == LB_DT_BF16 ? 8 * SLACK : SLACK;
}

/* Every number finite and at most `most`. */
static enum lb_status check_floats(const struct lb_wire_tensor *t, double most, const char *name,
                                   struct lb_detail *detail) {
    int64_t n = lb_wire_elements(t), columns = columns_of(t);
    float v[CHUNK];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t m = n - at < CHUNK ? n - at : CHUNK;
        lb_wire_floats(t, at, m, v);
        int64_t bad = lb_first_nonfinite(v, m);
        if (bad >= 0) {
            return refuse(detail, name, t, (at + bad) / columns,
                          t->datatype == LB_DT_FP16
                              ? "has a number that is not finite; FP16 ends at 65504, set fp16_targets: false"
                              : "has a number that is not finite",
                          (double)v[bad]);
        }
        for (int64_t i = 0; i < m; i++) {
            if (v[i] > most) {
                return refuse(detail, name, t, (at + i) / columns, "has a log-probability above 0",
                              (double)v[i]);
            }
        }
    }
    return LB_OK;
}

static int by_number(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static enum lb_status check_ids(const struct lb_wire_tensor *t, const char *name, struct lb_detail *detail) {
    int64_t k = columns_of(t), rows = rows_of(t);
    int32_t *ids = lb_malloc_array((size_t)(k > 0 ? k : 1), sizeof *ids);
    enum lb_status status = ids != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for an answer");
    for (int64_t r = 0; r < rows && status == LB_OK; r++) {
        for (int64_t i = 0; i < k; i++) {
            ids[i] = lb_answer_id(t, r * k + i);
        }
        qsort(ids, (size_t)k, sizeof *ids, by_number);
        if (ids[0] < 0) {
            status = refuse(detail, name, t, r, "has a negative id", ids[0]);
        }
        for (int64_t i = 1; i < k && status == LB_OK; i++) {
            if (ids[i] == ids[i - 1]) {
                status = refuse(detail, name, t, r, "names an id twice", ids[i]);
            }
        }
    }
    lb_free(ids);
    return status;
}

/* Ids rise, with zeros behind them. */
static enum lb_status check_drawn(const struct lb_wire_tensor *t, const char *name,
                                  struct lb_detail *detail) {
    int64_t s = columns_of(t), rows = rows_of(t);
    for (int64_t r = 0; r < rows; r++) {
        bool ended = false;
        for (int64_t i = 1; i < s; i++) {
            int32_t id = lb_answer_id(t, r * s + i);
            ended = ended || id == 0;
            if (ended ? id != 0 : id <= lb_answer_id(t, r * s + i - 1)) {
                return refuse(detail, name, t, r, "has drawn ids that do not rise", id);
            }
        }
    }
    return LB_OK;
}

/* Each row was drawn from as often as the others. */
static enum lb_status check_counts(const struct lb_wire_tensor *t, const char *name,
                                   struct lb_detail *detail) {
    int64_t s = columns_of(t), rows = rows_of(t), draws = 0;
    for (int64_t r = 0; r < rows; r++) {
        int64_t sum = 0, before = 1;
        for (int64_t i = 0; i < s; i++) {
            int64_t count = lb_answer_id(t, r * s + i);
            if (count < 0 || (count > 0 && before == 0)) {
                return refuse(detail, name, t, r, "has counts that cannot be", (double)count);
            }
            sum += count;
            before = count;
        }
        draws = r == 0 ? sum : draws;
        if (sum < 1 || sum != draws) {
            return refuse(detail, name, t, r, "was drawn from more or less often than others", (double)sum);
        }
    }
    return LB_OK;
}

/* Top-k values fall. */
static enum lb_status check_order(const struct lb_wire_tensor *t, const char *name,
                                  struct lb_detail *detail) {
    int64_t k = columns_of(t), rows = rows_of(t);
    for (int64_t r = 0; r < rows; r++) {
        float before = HUGE_VALF;
        for (int64_t i = 0; i < k; i++) {
            float v;
            lb_wire_floats(t, r * k + i, 1, &v);
            if (v > before) {
                return refuse(detail, name, t, r, "is not in falling order", (double)v);
            }
            before = v;
        }
    }
    return LB_OK;
}

/* lse(z / T) is at least max(z) / T, and at least the sum over what is known. */
static enum lb_status check_sum(const struct lb_wire_tensor *lse, const struct lb_wire_tensor *z,
                                double temperature, const char *name, struct lb_detail *detail) {
    int64_t k = columns_of(z), rows = rows_of(z);
    double slack = fmax(slack_of(lse), slack_of(z));
    for (int64_t r = 0; r < rows && r < lb_wire_elements(lse); r++) {
        float sum, v;
        double mass = 0;
        lb_wire_floats(lse, r, 1, &sum);
        for (int64_t i = 0; i < k; i++) {
            lb_wire_floats(z, r * k + i, 1, &v);
            mass += exp(v / temperature - sum);
        }
        if (!(mass <= 1 + slack * (1 + fabs((double)sum)))) {
            return refuse(detail, name, lse, r, "is less than its logits sum up to", (double)sum);
        }
    }
    return LB_OK;
}

/* Where all ids but those listed have all of the probability, none is left for those that are likelier. */
static enum lb_status check_rest(const struct lb_wire_tensor *rest, const char *name,
                                 struct lb_detail *detail) {
    for (int64_t r = 0; r < lb_wire_elements(rest); r++) {
        float v;
        lb_wire_floats(rest, r, 1, &v);
        if (!(v < 0)) {
            return refuse(detail, name, rest, r, "leaves no probability for the ids listed", (double)v);
        }
    }
    return LB_OK;
}

/* The rest is of what lies within a map: both together leave something for the ids listed. */
static enum lb_status check_parts(const struct lb_wire_tensor *rest, const struct lb_wire_tensor *outside,
                                  const char *name, struct lb_detail *detail) {
    double slack = fmax(slack_of(rest), slack_of(outside)) / 100;
    for (int64_t r = 0; r < lb_wire_elements(rest) && r < lb_wire_elements(outside); r++) {
        float inner, outer;
        lb_wire_floats(rest, r, 1, &inner);
        lb_wire_floats(outside, r, 1, &outer);
        if (exp((double)inner) > -expm1((double)outer) * (1 + slack) + 1e-9) {
            return refuse(detail, name, outside, r, "leaves less probability than the rest has",
                          (double)outer);
        }
    }
    return LB_OK;
}

/* No id of the rest is likelier than the last one listed. */
static enum lb_status check_rest_of(const struct lb_wire_tensor *rest, const struct lb_wire_tensor *z,
                                    double temperature, const char *name, struct lb_detail *detail) {
    int64_t k = columns_of(z), rows = rows_of(z);
    for (int64_t r = 0; r < rows && r < lb_wire_elements(rest); r++) {
        float log_rest, first, v;
        double listed = 1; /* beside the first one's probability, which is the first term */
        lb_wire_floats(rest, r, 1, &log_rest);
        lb_wire_floats(z, r * k, 1, &first);
        v = first;
        for (int64_t i = 1; i < k; i++) {
            lb_wire_floats(z, r * k + i, 1, &v);
            listed += exp((v - first) / temperature);
        }
        double odds = log_rest - log(-expm1(log_rest)),
               most = LOG_MOST_IDS + (v - first) / temperature - log(listed);
        double slack = fmax(slack_of(rest), slack_of(z)) * (1 + fabs((double)first)) / temperature;
        if (log_rest > LB_LOG_LEAST_REST + SLACK && odds > most + slack) {
            return refuse(detail, name, rest, r, "is likelier than ids below the last one listed can be",
                          (double)log_rest);
        }
    }
    return LB_OK;
}

/* Rows of probabilities. */
static enum lb_status check_shares(const struct lb_wire_tensor *t, const char *name,
                                   struct lb_detail *detail) {
    int64_t columns = columns_of(t), rows = rows_of(t);
    float v[CHUNK];
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t at = 0; at < columns; at += CHUNK) {
            int64_t m = columns - at < CHUNK ? columns - at : CHUNK;
            lb_wire_floats(t, r * columns + at, m, v);
            for (int64_t i = 0; i < m; i++) {
                if (!(v[i] >= 0 && v[i] <= 1 + SLACK)) {
                    return refuse(detail, name, t, r, "has a number that is no probability", (double)v[i]);
                }
                sum += v[i];
            }
        }
        if (fabs(sum - 1) > 0.01) {
            return refuse(detail, name, t, r, "has probabilities that do not sum to 1", sum);
        }
    }
    return LB_OK;
}

static enum lb_status check_tensor(const struct lb_wire_tensor *t, enum lb_output_kind kind, const char *name,
                                   struct lb_detail *detail) {
    enum lb_output_numbers numbers = lb_output_get(kind)->numbers;
    enum lb_status status = LB_OK;
    if (!lb_output_comes_as(kind, t->datatype)) { /* its numbers would be read beyond their end */
        return lb_fail(detail, LB_E_FORMAT, "teacher %s: %s of its answer cannot be: it does not come as %s",
                       name, t->name, lb_datatype_name(t->datatype));
    }
    if (is_float(t)) {
        status = check_floats(t, numbers == LB_ARE_LOGPROBS ? SLACK : HUGE_VAL, name, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    switch (numbers) {
    case LB_ARE_NUMBERS:
    case LB_ARE_LOGPROBS:
        break;
    case LB_ARE_IDS:
        return check_ids(t, name, detail);
    case LB_ARE_DRAWN:
        return check_drawn(t, name, detail);
    case LB_ARE_COUNTS:
        return check_counts(t, name, detail);
    case LB_ARE_FALLING:
        return check_order(t, name, detail);
    case LB_ARE_SHARES:
        return check_shares(t, name, detail);
    }
    return LB_OK;
}

enum lb_status lb_answer_possible(const struct lb_answer *answer, double temperature, const char *name,
                                  struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < answer->n_tensors && status == LB_OK; i++) {
        status = check_tensor(&answer->tensors[i], answer->what[i].kind, name, detail);
    }
    const struct lb_wire_tensor *rest = lb_answer_find(answer, LB_OUT_REST, 0);
    status = status == LB_OK && rest != NULL ? check_rest(rest, name, detail) : status;
    const struct lb_wire_tensor *outside = lb_answer_find(answer, LB_OUT_OUTSIDE, 0);
    if (status == LB_OK && rest != NULL && outside != NULL) {
        status = check_parts(rest, outside, name, detail);
    }
    const struct lb_wire_tensor *top = lb_answer_find(answer, LB_OUT_TOPK_VALUES, 0);
    if (status == LB_OK && rest != NULL && top != NULL && temperature > 0) {
        status = check_rest_of(rest, top, temperature, name, detail);
    }
    const struct lb_wire_tensor *lse = lb_answer_find(answer, LB_OUT_LOGSUMEXP, 0);
    const struct lb_wire_tensor *z = lb_answer_find(answer, LB_OUT_LOGITS, 0);
    z = z != NULL ? z : lb_answer_find(answer, LB_OUT_TOPK_VALUES, 0);
    if (status == LB_OK && lse != NULL && z != NULL && temperature > 0) {
        status = check_sum(lse, z, temperature, name, detail);
    }
    return status;
}

enum lb_status lb_head_possible(const struct lb_teacher_head *head, const char *where,
                                struct lb_detail *detail) {
    int64_t at = lb_first_nonfinite(head->weight, head->vocab_size * head->hidden_size);
    if (at >= 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: its head has a number that is not finite at row %lld", where,
                       (long long)(at / head->hidden_size));
    }
    at = head->bias != NULL ? lb_first_nonfinite(head->bias, head->vocab_size) : -1;
    if (at >= 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: its head has a bias that is not finite at row %lld", where,
                       (long long)at);
    }
    return LB_OK;
}
