#include "trainer/wire/listed.h"

#include "common/base/mem.h"
#include "common/nn/dtype.h"
#include "common/nn/reduce.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What rounding of the listed numbers may do to their sum: servers compute them in BF16. */
#define SUM_SLACK 2e-2
/* The same to a log-probability near 0. */
#define TOP_SLACK 2e-3f

static const enum lb_output_kind kinds[] = {LB_OUT_TOPK_IDS, LB_OUT_TOPK_VALUES, LB_OUT_TOPK_LOGPROBS,
                                            LB_OUT_REST,     LB_OUT_ACTUAL,      LB_OUT_NEXT};

void lb_listed_give(struct lb_teacher_info *info) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && info->n_given < LB_MAX_GIVEN; i++) {
        info->given[info->n_given++] = (struct lb_given){.kind = (uint16_t)kinds[i]};
    }
}

int64_t lb_listed_k(const struct lb_teacher_info *info, const struct lb_ask_spec *spec) {
    int64_t v = info->vocab_size;
    return !lb_spec_uses(spec, LB_USES_TOP_K) ? 0 : v > 0 && v < spec->top_k ? v : spec->top_k;
}

enum lb_status lb_listed_begin(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t n,
                               struct lb_arena *arena, struct lb_listed *out, struct lb_detail *detail) {
    struct lb_listed listed = {.info = info, .spec = spec, .n = n, .k = lb_listed_k(info, spec)};
    size_t count;
    if (!lb_mul_size((size_t)n, (size_t)listed.k, &count)) {
        return lb_fail(detail, LB_E_LIMIT, "a list of %lld ids at each of %lld positions",
                       (long long)listed.k, (long long)n);
    }
    listed.ids = lb_arena_zarray(arena, count ? count : 1, sizeof *listed.ids);
    listed.logprobs = lb_arena_zarray(arena, count ? count : 1, sizeof *listed.logprobs);
    listed.own = lb_arena_zarray(arena, (size_t)n, sizeof *listed.own);
    if (!listed.ids || !listed.logprobs || !listed.own) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of %lld positions", (long long)n);
    }
    *out = listed;
    return LB_OK;
}

/* ---- one row ---- */

static int by_id(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Whether an id is listed twice; the row's place among the tensors is free for a sorted copy. */
static int32_t twice(const int32_t *ids, int64_t k, int32_t *sorted) {
    for (int64_t i = 0; i < k; i++) {
        sorted[i] = ids[i];
    }
    qsort(sorted, (size_t)k, sizeof *sorted, by_id);
    for (int64_t i = 1; i < k; i++) {
        if (sorted[i] == sorted[i - 1]) {
            return sorted[i];
        }
    }
    return -1;
}

static enum lb_status check_entries(const struct lb_listed *listed, int64_t t, const int32_t *ids,
                                    const float *logprobs, int64_t m, struct lb_detail *detail) {
    int64_t v = listed->info->vocab_size;
    for (int64_t i = 0; i < m; i++) {
        if (ids[i] < 0 || (v > 0 && ids[i] >= v)) {
            return lb_fail(
                detail, LB_E_FORMAT,
                "what follows position %lld: id %ld, the vocabulary ends at %lld; where the model has more "
                "rows than its tokenizer has tokens, name its folder by the teacher's head",
                (long long)t, (long)ids[i], (long long)v - 1);
        }
        if (!isfinite(logprobs[i]) || logprobs[i] > TOP_SLACK) {
            return lb_fail(detail, LB_E_FORMAT,
                           "what follows position %lld: %g is no log-probability of id %ld (does the server "
                           "give logits? vLLM: --logprobs-mode raw_logprobs)",
                           (long long)t, (double)logprobs[i], (long)ids[i]);
        }
    }
    return LB_OK;
}

static enum lb_status check_sum(int64_t t, const float *logprobs, int64_t k, struct lb_detail *detail) {
    double sum = 0;
    for (int64_t i = 0; i < k; i++) {
        sum += exp((double)logprobs[i]);
    }
    return sum <= 1 + SUM_SLACK
               ? LB_OK
               : lb_fail(detail, LB_E_FORMAT,
                         "what follows position %lld: its probabilities sum up to %g (does the server give "
                         "logits? vLLM: --logprobs-mode raw_logprobs)",
                         (long long)t, sum);
}

/* Where the own token stands; -1: nowhere. */
static int64_t place_of(int32_t own, const int32_t *ids, int64_t m) {
    for (int64_t i = 0; i < m; i++) {
        if (ids[i] == own) {
            return i;
        }
    }
    return -1;
}

enum lb_status lb_listed_put(struct lb_listed *listed, int64_t t, int32_t *ids, float *logprobs, int64_t m,
                             int32_t own, struct lb_detail *detail) {
    int64_t k = listed->k, at = own < 0 ? -1 : place_of(own, ids, m);
    if (m < k || m > k + 1) {
        return lb_fail(detail, LB_E_FORMAT, "what follows position %lld: %lld ids are listed, asked was %lld",
                       (long long)t, (long long)m, (long long)k);
    }
    if (own >= 0 && at < 0) {
        return lb_fail(detail, LB_E_FORMAT,
                       "what follows position %lld: id %ld, which does, is not among those listed; are the "
                       "entries about other positions?",
                       (long long)t, (long)own);
    }
    enum lb_status status = check_entries(listed, t, ids, logprobs, m, detail);
    if (status != LB_OK) {
        return status;
    }
    listed->own[t] = own < 0 ? 0 : logprobs[at];
    if (m == k + 1 && own >= 0) { /* beyond the others, among which it may have an equal */
        ids[at] = ids[k];
        logprobs[at] = logprobs[k];
    }
    float beyond = listed->own[t];
    lb_sort_down(ids, logprobs, m == k + 1 && own < 0 ? m : k);
    int32_t *row = listed->ids + t * k;
    int32_t again = twice(ids, k, row);
    if (again >= 0) {
        return lb_fail(detail, LB_E_FORMAT, "what follows position %lld: id %ld is listed twice",
                       (long long)t, (long)again);
    }
    if (m == k + 1 && own >= 0 && k > 0 && beyond > logprobs[k - 1]) {
        return lb_fail(detail, LB_E_FORMAT,
                       "what follows position %lld: id %ld is likelier than one of the %lld likeliest",
                       (long long)t, (long)own, (long long)k);
    }
    for (int64_t i = 0; i < k; i++) {
        row[i] = ids[i];
        listed->logprobs[t * k + i] = logprobs[i];
    }
    return check_sum(t, logprobs, k, detail);
}

/* ---- the answer ---- */

/* The numbers of chosen ids, which no list holds. */
static enum lb_status check_scored(const struct lb_listed *listed, struct lb_detail *detail) {
    int64_t width = listed->spec->n_scored;
    for (int64_t i = 0; listed->scored && i < listed->n * width; i++) {
        if (!isfinite(listed->scored[i]) || listed->scored[i] > TOP_SLACK) {
            return lb_fail(detail, LB_E_FORMAT,
                           "what follows position %lld: %g is no log-probability of a chosen id",
                           (long long)(i / width), (double)listed->scored[i]);
        }
    }
    return LB_OK;
}

/* The log-probability of all that row t does not list. The listed ones are rounded, so that what they leave
 * of 1 says nothing when it is small: no id of the rest is likelier than the last one listed. */
static float rest_of(const struct lb_listed *listed, int64_t t) {
    const float *row = listed->logprobs + t * listed->k;
    double rest = 1, others = (double)(listed->info->vocab_size - listed->k);
    for (int64_t i = 0; i < listed->k; i++) {
        rest -= exp((double)row[i]);
    }
    double most = others * exp((double)row[listed->k - 1]);
    rest = rest < most ? rest : most;
    rest = rest > LB_LEAST_REST ? rest : LB_LEAST_REST;
    return fminf((float)log(rest), -1e-7f);
}

static float number(const struct lb_listed *listed, enum lb_output_kind kind, int64_t t, int64_t i) {
    switch (kind) {
    case LB_OUT_REST:
        return rest_of(listed, t);
    case LB_OUT_ACTUAL:
    case LB_OUT_NEXT:
        return t + 1 < listed->n ? fminf(listed->own[t], 0) : 0;
    case LB_OUT_AT_LOGPROBS:
        return fminf(listed->scored[t * listed->spec->n_scored + i], 0);
    default:
        return fminf(listed->logprobs[t * listed->k + i], 0);
    }
}

/* ids as INT32 or UINT16, numbers as floats of any width. */
static bool store(const struct lb_listed *listed, enum lb_output_kind kind, int64_t t, int64_t i,
                  enum lb_datatype datatype, void *data, int64_t at) {
    if (kind == LB_OUT_TOPK_IDS) {
        int32_t id = listed->ids[t * listed->k + i];
        if (datatype == LB_DT_UINT16) {
            ((uint16_t *)data)[at] = (uint16_t)id;
            return id <= UINT16_MAX;
        }
        ((int32_t *)data)[at] = id;
        return datatype == LB_DT_INT32;
    }
    float x = number(listed, kind, t, i);
    switch (datatype) {
    case LB_DT_FP32:
        ((float *)data)[at] = x;
        return true;
    case LB_DT_FP16:
        ((uint16_t *)data)[at] = lb_f32_to_f16(x);
        return true;
    case LB_DT_BF16:
        ((uint16_t *)data)[at] = lb_f32_to_bf16(x);
        return true;
    default:
        return false;
    }
}

static bool is_listed(const struct lb_listed *listed, enum lb_output_kind kind, int64_t columns) {
    if (kind == LB_OUT_AT_LOGPROBS) {
        return listed->scored && columns == listed->spec->n_scored;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i] == kind) {
            return kind == LB_OUT_REST || kind == LB_OUT_ACTUAL || kind == LB_OUT_NEXT ||
                   columns == listed->k;
        }
    }
    return false;
}

enum lb_status lb_listed_answer(const struct lb_listed *listed, struct lb_arena *arena, struct lb_answer *out,
                                struct lb_detail *detail) {
    struct lb_answer answer = {.first = listed->first, .n_tensors = listed->spec->n_outputs};
    int64_t all = listed->first + listed->n;
    enum lb_status status = check_scored(listed, detail);
    if (status != LB_OK) {
        return status;
    }
    for (size_t j = 0; j < answer.n_tensors; j++) {
        enum lb_output_kind kind = listed->spec->outputs[j].kind;
        char name[LB_MAX_NAME];
        struct lb_wire_tensor part = {.datatype = lb_spec_datatype(listed->spec, j), .binary = true};
        lb_output_format(kind, listed->spec->outputs[j].layer, name);
        part.n_dims = lb_answer_shape(listed->info, listed->spec, j, listed->n, all, part.dim);
        part.bytes = (size_t)lb_wire_elements(&part) * lb_datatype_bytes(part.datatype);
        void *data = lb_arena_alloc(arena, part.bytes ? part.bytes : 1);
        part.name = lb_arena_strdup(arena, name);
        part.data = data;
        if (!data || !part.name) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer's %s", name);
        }
        int64_t columns = part.n_dims > 1 ? part.dim[1] : 1;
        bool fits = is_listed(listed, kind, columns);
        for (int64_t at = 0; fits && at < listed->n * columns; at++) {
            fits = store(listed, kind, at / columns, at % columns, part.datatype, data, at);
        }
        if (!fits) {
            return lb_fail(detail, LB_E_INTERNAL, "%s as %s cannot be made of a list", name,
                           lb_datatype_name(part.datatype));
        }
        answer.tensors[j] = part;
        answer.what[j] = (struct lb_output_name){kind, listed->spec->outputs[j].layer};
    }
    status = lb_answer_check(&answer, listed->spec, listed->info, all, detail);
    if (status == LB_OK) {
        *out = answer;
    }
    return status;
}
