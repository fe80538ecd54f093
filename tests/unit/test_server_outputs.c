/* Each output of the table asked alone, of a decoder and of a classifier, against a plain computation: a row
 * of the table that says too little (no temperature, no top_k, another source or shape) is seen here, and so
 * is one that metadata or admission treat otherwise. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/model/model.h"
#include "common/nn/gemm.h"
#include "common/nn/half.h"
#include "common/nn/head.h"
#include "proto/logprob8.h"
#include "server/api/describe.h"
#include "server/engine/admit.h"
#include "server/engine/engine.h"
#include "server/engine/extract.h"
#include "server/models/repository.h"
#include "tests/support/slices.h"
#include "tests/support/tiny_hosted.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define B 2
#define T 9
#define TAPE_BYTES ((size_t)1 << 28)
#define LARGE_V (LB_HEAD_WIDE_V + 100)

static char folder[] = "/tmp/limbeck-outputs-XXXXXX";
static struct lb_hosted *llama, *large, *mlp, *bert; /* large: of a large vocabulary */
static struct lb_engine *engine;
static struct lb_detail detail;
#define SCORED 3 /* ids of each position */
static int32_t ids[B * T], scores[B * T * SCORED];
static const int32_t lengths[B] = {T, 6};
static float features[B * 12];

/* ---- asking ---- */

struct question {
    struct lb_hosted *hosted;
    enum lb_output_kind kind;
    int layer;
    double temperature;
    int64_t top_k;
    enum lb_datatype datatype; /* LB_DT_NONE: the output's own */
};

static struct lb_wire_tensor input(const char *name, enum lb_datatype datatype, int64_t cols,
                                   const void *data) {
    struct lb_wire_tensor t = {
        .name = name, .datatype = datatype, .n_dims = cols ? 2 : 1, .dim = {B, cols}, .data = data};
    t.bytes = (size_t)lb_wire_elements(&t) * lb_datatype_bytes(datatype);
    return t;
}

/* Few in a small vocabulary, and so many in a large one that some are the same. */
static struct lb_draw draws_of(const struct question *q) {
    int64_t n = q->hosted == large ? 2000 : q->hosted == mlp ? 6 : 150;
    return (struct lb_draw){.n = n, .temperature = q->temperature, .seed = 77};
}

/* Ids that a map keeps, in whatever vocabulary: its digest. */
static const int32_t kept[] = {0, 1, 5, 17, 18, 19, 40, 96};
#define KEPT (sizeof kept / sizeof *kept)

static const char *send_kept(struct lb_hosted *hosted) {
    static char digest[LB_SHA256_HEX];
    uint8_t hash[LB_SHA256_BYTES];
    lb_sha256(kept, sizeof kept, hash);
    lb_hex(hash, sizeof hash, digest);
    assert_int_equal(lb_vocab_maps_put(&hosted->maps, digest, kept, sizeof kept, 97, NULL), LB_OK);
    return digest;
}

/* The job about that output alone; NULL when it was refused. */
static struct lb_job *planned(const struct question *q) {
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES};
    char name[LB_MAX_NAME];
    lb_output_format(q->kind, q->layer, name);
    struct lb_wire_output output = {.name = name, .binary = true, .datatype = q->datatype};
    struct lb_wire_tensor inputs[3] = {input(LB_IN_IDS, LB_DT_INT32, T, ids),
                                       input(LB_IN_LENGTHS, LB_DT_INT32, 0, lengths)};
    bool scored = q->hosted->decoder && (lb_output_get(q->kind)->uses & LB_USES_SCORE_IDS) != 0;
    bool maps = (lb_output_get(q->kind)->uses & LB_USES_OUTSIDE) != 0;
    inputs[2] =
        (struct lb_wire_tensor){LB_IN_SCORE_IDS, LB_DT_INT32, 3, {B, T, SCORED}, scores, sizeof scores, true};
    if (!q->hosted->decoder) {
        inputs[0] = input(LB_IN_FEATURES, LB_DT_FP32, 12, features);
    }
    const struct lb_infer_request request = {.top_k = q->top_k,
                                             .temperature = q->temperature,
                                             .sample_count = draws_of(q).n,
                                             .seed = draws_of(q).seed,
                                             .vocab_map = maps ? send_kept(q->hosted) : NULL,
                                             .n_inputs = scored               ? 3
                                                         : q->hosted->decoder ? 2
                                                                              : 1,
                                             .n_outputs = 1,
                                             .inputs = inputs,
                                             .outputs = &output};
    struct lb_job *job = lb_job_create((size_t)16 << 20);
    assert_non_null(job);
    job->model = lb_hosted_retain(q->hosted);
    detail = (struct lb_detail){0};
    if (lb_plan(&request, &limits, job, &detail) != LB_OK) {
        lb_job_destroy(job);
        return NULL;
    }
    return job;
}

/* The same, computed. */
static struct lb_job *answer(const struct question *q) {
    struct lb_job *job = planned(q);
    if (job == NULL) {
        return NULL;
    }
    assert_int_equal(lb_run_whole(engine, job, &detail), LB_OK);
    return job;
}

static double number(const struct lb_job_output *o, int64_t i) {
    return o->datatype == LB_DT_INT32 ? ((const int32_t *)o->data)[i] : (double)((const float *)o->data)[i];
}

/* ---- the plain computation ---- */

/* What the output is made of, for one sequence alone: rows of width numbers; attention: [heads, n, n]. */
struct source {
    int64_t n, width;
    float *x; /* malloc */
};

static enum lb_status keep(void *context, int64_t row, int64_t n, float *z) {
    struct source *s = context;
    memcpy(s->x + row * s->width, z, (size_t)(n * s->width) * sizeof *z);
    return LB_OK;
}

static void compute(const struct question *q, int b, struct source *out) {
    const struct lb_model *model = q->hosted->model;
    enum lb_output_source from = lb_output_get(q->kind)->source;
    struct lb_tape *tape = lb_tape_create(TAPE_BYTES);
    int32_t n = q->hosted->decoder ? lengths[b] : 1, offsets[2] = {0, n};
    struct lb_input in = {{1, offsets}, ids + b * T, features + b * 12};
    struct lb_tap tap = {.layer = q->layer};
    bool taps = lb_hosted_tap(from, &tap.kind);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, &tap, taps, NULL);
    assert_non_null(h);
    out->n = n;
    if (from == LB_FROM_LOGITS) {
        out->width = lb_model_head(model)->weight->rows;
        out->x = malloc((size_t)(n * out->width) * sizeof(float));
        assert_non_null(out->x);
        assert_int_equal(lb_head_run(tape, h, lb_model_head(model), NULL, keep, out), LB_OK);
    } else {
        const struct lb_value *v = taps                       ? tap.value
                                   : from == LB_FROM_SENTENCE ? lb_model_pool(model, tape, h)
                                                              : h;
        n = from == LB_FROM_SENTENCE ? 1 : n;
        out->n = n;
        out->width = from == LB_FROM_ATTENTION ? n : v->cols;
        size_t numbers = from == LB_FROM_ATTENTION ? (size_t)(4 * n * n) : (size_t)(n * v->cols);
        out->x = malloc(numbers * sizeof(float));
        assert_non_null(out->x);
        memcpy(out->x, v->data, numbers * sizeof(float));
    }
    lb_tape_destroy(tape);
}

static double logsumexp(const float *z, int64_t v, double temperature) {
    double sum = 0;
    for (int64_t j = 0; j < v; j++) {
        sum += exp(z[j] / temperature);
    }
    return log(sum);
}

/* The id of the c-th largest logit, ties by lower id. */
static int64_t ranked(const float *z, int64_t v, int64_t c) {
    int64_t last = -1;
    for (int64_t rank = 0; rank <= c; rank++) {
        int64_t best = -1;
        for (int64_t j = 0; j < v; j++) {
            bool left = last < 0 || z[j] < z[last] || (z[j] == z[last] && j > last);
            best = left && (best < 0 || z[j] > z[best]) ? j : best;
        }
        last = best;
    }
    return last;
}

/* Number c of row t (of attention: of head h's row) of sequence b. */
typedef double (*expect_fn)(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                            int64_t c);

static double same(const struct question *q, const struct source *s, int b, int64_t h, int64_t t, int64_t c) {
    (void)q;
    (void)b;
    (void)h;
    return (double)s->x[t * s->width + c];
}

static double top_id(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                     int64_t c) {
    (void)q;
    (void)b;
    (void)h;
    return (double)ranked(s->x + t * s->width, s->width, c);
}

static double top_value(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                        int64_t c) {
    return (double)s->x[t * s->width + (int64_t)top_id(q, s, b, h, t, c)];
}

static double lse(const struct question *q, const struct source *s, int b, int64_t h, int64_t t, int64_t c) {
    (void)b;
    (void)h;
    (void)c;
    return logsumexp(s->x + t * s->width, s->width, q->temperature);
}

static double actual(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                     int64_t c) {
    if (t + 1 == s->n) {
        return 0;
    }
    return (double)s->x[t * s->width + ids[b * T + t + 1]] / q->temperature - lse(q, s, b, h, t, c);
}

static double next(const struct question *q, const struct source *s, int b, int64_t h, int64_t t, int64_t c) {
    const float *z = s->x + t * s->width;
    (void)q;
    (void)h;
    (void)c;
    return t + 1 == s->n ? 0 : (double)z[ids[b * T + t + 1]] - logsumexp(z, s->width, 1);
}

static double rest(const struct question *q, const struct source *s, int b, int64_t h, int64_t t, int64_t c) {
    const float *z = s->x + t * s->width;
    double least = top_value(q, s, b, h, t, q->top_k - 1), sum = 0; /* none is twice there */
    (void)c;
    for (int64_t j = 0; j < s->width; j++) {
        sum += (double)z[j] < least ? exp(z[j] / q->temperature) : 0;
    }
    return log(sum) - lse(q, s, b, h, t, 0);
}

static double outside(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                      int64_t c) {
    const float *z = s->x + t * s->width;
    double sum = 0;
    for (int64_t j = 0; j < s->width; j++) {
        sum += exp(z[j] / q->temperature);
    }
    for (size_t i = 0; i < KEPT; i++) {
        sum -= exp(z[kept[i]] / q->temperature);
    }
    return log(sum) - lse(q, s, b, h, t, c);
}

static double top_logprob(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                          int64_t c) {
    return top_value(q, s, b, h, t, c) / q->temperature - lse(q, s, b, h, t, c);
}

static double rank(const struct question *q, const struct source *s, int b, int64_t h, int64_t t, int64_t c) {
    const float *z = s->x + t * s->width;
    int n = 0;
    (void)q;
    (void)h;
    (void)c;
    for (int64_t j = 0; t + 1 < s->n && j < s->width; j++) {
        n += j != ids[b * T + t + 1] && z[j] >= z[ids[b * T + t + 1]];
    }
    return n;
}

static double at_id(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                    int64_t c) {
    int32_t id = scores[(b * T + t) * SCORED + c];
    (void)q;
    (void)h;
    return id < 0 ? 0 : (double)s->x[t * s->width + id];
}

static double at_logprob(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                         int64_t c) {
    bool none = scores[(b * T + t) * SCORED + c] < 0;
    return none ? 0 : at_id(q, s, b, h, t, c) / q->temperature - lse(q, s, b, h, t, c);
}

/* Draw c of the row in order of ids; the list of a row is made once. */
static const struct lb_drawn *drawn(const struct question *q, const struct source *s, int b, int64_t t,
                                    int64_t c) {
    static struct lb_drawn list[2000];
    static const float *of;
    static double temperature;
    static int sequence;
    static int64_t n;
    if (of != s->x + t * s->width || temperature != q->temperature || sequence != b) {
        struct lb_draw draw = draws_of(q);
        const uint64_t step = 0x9e3779b97f4a7c15u;
        draw.stream = 0x6c696d6265636b64u;
        for (int64_t i = 0; i < (q->hosted->decoder ? t + 1 : 12); i++) {
            uint32_t bits;
            memcpy(&bits, q->hosted->decoder ? (const void *)&ids[b * T + i] : &features[b * 12 + i], 4);
            draw.stream = lb_mix64(draw.stream + step * (1 + (uint64_t)bits));
        }
        double draw_lse;
        n = lb_head_draw(s->x + t * s->width, s->width, &draw, list, &draw_lse);
        of = s->x + t * s->width;
        temperature = q->temperature;
        sequence = b;
    }
    static const struct lb_drawn none;
    return c < n ? &list[c] : &none;
}

static double sample_id(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                        int64_t c) {
    (void)h;
    return drawn(q, s, b, t, c)->id;
}

static double sample_count(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                           int64_t c) {
    (void)h;
    return drawn(q, s, b, t, c)->count;
}

static double sample_weight(const struct question *q, const struct source *s, int b, int64_t h, int64_t t,
                            int64_t c) {
    return sample_count(q, s, b, h, t, c) / (double)draws_of(q).n;
}

static double keys(const struct question *q, const struct source *s, int b, int64_t h, int64_t t, int64_t c) {
    (void)q;
    (void)b;
    return c < s->n ? (double)s->x[(h * s->n + t) * s->n + c] : 0;
}

/* What the protocol says of each; an output that is not here is checked for all but its numbers. */
static const struct {
    enum lb_output_source source;
    enum lb_output_width width;
    expect_fn number;
} expected[LB_N_OUTPUTS] = {
    [LB_OUT_LOGITS] = {LB_FROM_LOGITS, LB_WIDE_VOCAB, same},
    [LB_OUT_TOPK_IDS] = {LB_FROM_LOGITS, LB_WIDE_TOP_K, top_id},
    [LB_OUT_TOPK_VALUES] = {LB_FROM_LOGITS, LB_WIDE_TOP_K, top_value},
    [LB_OUT_LOGSUMEXP] = {LB_FROM_LOGITS, LB_WIDE_ONE, lse},
    [LB_OUT_ACTUAL] = {LB_FROM_LOGITS, LB_WIDE_ONE, actual},
    [LB_OUT_NEXT] = {LB_FROM_LOGITS, LB_WIDE_ONE, next},
    [LB_OUT_REST] = {LB_FROM_LOGITS, LB_WIDE_ONE, rest},
    [LB_OUT_OUTSIDE] = {LB_FROM_LOGITS, LB_WIDE_ONE, outside},
    [LB_OUT_TOPK_LOGPROBS] = {LB_FROM_LOGITS, LB_WIDE_TOP_K, top_logprob},
    [LB_OUT_RANK] = {LB_FROM_LOGITS, LB_WIDE_ONE, rank},
    [LB_OUT_AT_IDS] = {LB_FROM_LOGITS, LB_WIDE_SCORED, at_id},
    [LB_OUT_AT_LOGPROBS] = {LB_FROM_LOGITS, LB_WIDE_SCORED, at_logprob},
    [LB_OUT_SAMPLE_IDS] = {LB_FROM_LOGITS, LB_WIDE_SAMPLES, sample_id},
    [LB_OUT_SAMPLE_COUNTS] = {LB_FROM_LOGITS, LB_WIDE_SAMPLES, sample_count},
    [LB_OUT_SAMPLE_WEIGHTS] = {LB_FROM_LOGITS, LB_WIDE_SAMPLES, sample_weight},
    [LB_OUT_HIDDEN_FINAL] = {LB_FROM_FINAL, LB_WIDE_STATE, same},
    [LB_OUT_HIDDEN] = {LB_FROM_HIDDEN, LB_WIDE_STATE, same},
    [LB_OUT_QUERIES] = {LB_FROM_QUERIES, LB_WIDE_STATE, same},
    [LB_OUT_KEYS] = {LB_FROM_KEYS, LB_WIDE_STATE, same},
    [LB_OUT_VALUES] = {LB_FROM_VALUES, LB_WIDE_STATE, same},
    [LB_OUT_ATTENTION] = {LB_FROM_ATTENTION, LB_WIDE_KEYS, keys},
    [LB_OUT_SENTENCE] = {LB_FROM_SENTENCE, LB_WIDE_SENTENCE, same},
    [LB_OUT_RESIDUAL] = {LB_FROM_RESIDUAL, LB_WIDE_STATE, same},
};

/* ---- the checks ---- */

/* Number i of an output, of any datatype, as the trainer reads it. */
static double read_number(const struct lb_job_output *o, int64_t i) {
    const uint16_t *halves = o->data;
    switch (o->datatype) {
    case LB_DT_FP16:
        return (double)lb_f16_to_f32(halves[i]);
    case LB_DT_BF16:
        return (double)lb_bf16_to_f32(halves[i]);
    case LB_DT_UINT16:
        return halves[i];
    case LB_DT_UINT8:
        return (double)lb_logprob8_to(((const uint8_t *)o->data)[i]);
    default:
        return number(o, i);
    }
}

/* In all datatypes that the table says, the numbers of its own within what the protocol states of rounding.
 */
static void check_datatypes(struct question q, const struct lb_job *plain) {
    const struct lb_job_output *own = &plain->outputs[0];
    int n_types = 0;
    for (int d = LB_DT_NONE + 1; d <= LB_DT_BYTES; d++) {
        q.datatype = (enum lb_datatype)d;
        if (!lb_output_comes_as(q.kind, q.datatype)) {
            continue;
        }
        struct lb_job *job = answer(&q);
        assert_non_null(job);
        const struct lb_job_output *o = &job->outputs[0];
        int64_t n = (int64_t)(own->bytes / lb_datatype_bytes(own->datatype));
        assert_int_equal(o->bytes, (size_t)n * lb_datatype_bytes(q.datatype));
        for (int64_t i = 0; i < n; i++) {
            double want = number(own, i), got = read_number(o, i), most = 0;
            most = d == LB_DT_FP16   ? 0x1p-11 * fabs(want) + 0x1p-25
                   : d == LB_DT_BF16 ? 0x1p-8 * fabs(want)
                                     : most;
            most = d == LB_DT_UINT8 ? 0.0222 * sqrt(-want) + 0.0002 : most;
            if (!(fabs(got - want) <= most)) {
                fail_msg("%s as %s: number %lld is %g, of %g", o->name, lb_datatype_name(q.datatype),
                         (long long)i, got, want);
            }
        }
        lb_job_destroy(job);
        n_types++;
    }
    assert_true(n_types >= (lb_output_get(q.kind)->others == LB_TYPES_NONE ? 1 : 2));
}

static void check_numbers(const struct question *q, const struct lb_job *job) {
    const struct lb_job_output *o = &job->outputs[0];
    int64_t heads = lb_output_get(q->kind)->width == LB_WIDE_KEYS ? 4 : 1;
    int64_t rows = lb_output_get(q->kind)->width == LB_WIDE_SENTENCE ? 1 : job->rows;
    for (int b = 0; b < B; b++) {
        struct source source = {0}, *s = &source;
        compute(q, b, s);
        for (int64_t i = 0; i < heads * rows * o->width; i++) {
            int64_t h = i / o->width / rows, t = i / o->width % rows, c = i % o->width;
            double want = t < s->n ? expected[q->kind].number(q, s, b, h, t, c) : 0;
            double got = number(o, b * heads * rows * o->width + i);
            if (!(fabs(got - want) <= 1e-5 * (1 + fabs(want)))) {
                fail_msg("%s at temperature %g: sequence %d row %lld number %lld is %g, not %g", o->name,
                         q->temperature, b, (long long)t, (long long)c, got, want);
            }
        }
        free(s->x);
    }
}

static bool same_answer(const struct lb_job *x, const struct lb_job *y) {
    const struct lb_job_output *a = &x->outputs[0], *b = &y->outputs[0];
    return a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

/* Rows behind the first of every sequence are not all zero. */
static bool says_something(const struct lb_job_output *o) {
    for (int64_t i = 0; i < (int64_t)(o->bytes / 4); i++) {
        if (number(o, i) != 0) {
            return true;
        }
    }
    return false;
}

/* The entry of this name among the metadata's outputs, or the further ones. */
static const json_t *listed(const json_t *metadata, bool further, const char *name) {
    const json_t *list = json_object_get(metadata, further ? "further_outputs" : "outputs");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0) {
            return entry;
        }
    }
    return NULL;
}

static void check_listed(const json_t *entry, const struct lb_job_output *o) {
    const json_t *shape = json_object_get(entry, "shape");
    assert_string_equal(json_string_value(json_object_get(entry, "datatype")), lb_datatype_name(o->datatype));
    assert_int_equal(json_array_size(shape), o->n_dims);
    for (int d = 0; d < o->n_dims; d++) {
        json_int_t told = json_integer_value(json_array_get(shape, (size_t)d));
        assert_true(told == -1 || told == o->dim[d]);
    }
}

/* One output of one model, asked alone in four ways. False when the model doesn't have it. */
static bool check_alone(struct question q, const json_t *metadata) {
    const struct lb_output *is = lb_output_get(q.kind);
    char name[LB_MAX_NAME];
    lb_output_format(q.kind, q.layer, name);
    q.temperature = 1;
    q.top_k = 3;
    struct lb_job *plain = answer(&q);
    const json_t *entry = listed(metadata, (is->uses & LB_USES_MORE) != 0, name);
    if ((plain != NULL) != (entry != NULL)) {
        fail_msg("%s: %s, but metadata %s it", name, plain ? "is answered" : detail.text,
                 entry ? "list" : "don't list");
    }
    if (plain == NULL) {
        return false;
    }
    struct question warm = q, wide = q;
    warm.temperature = 2.5;
    wide.top_k = 4;
    struct lb_job *warmer = answer(&warm), *wider = answer(&wide);
    assert_non_null(warmer);
    assert_non_null(wider);
    check_listed(entry, &plain->outputs[0]);
    assert_true(says_something(&plain->outputs[0]));
    if (same_answer(plain, warmer) != !(is->uses & LB_USES_TEMPERATURE)) {
        fail_msg("%s: the table is wrong about LB_USES_TEMPERATURE", name);
    }
    if (same_answer(plain, wider) != !(is->uses & LB_USES_TOP_K)) {
        fail_msg("%s: the table is wrong about LB_USES_TOP_K", name);
    }
    if (expected[q.kind].number) {
        assert_int_equal(is->source, expected[q.kind].source);
        assert_int_equal(is->width, expected[q.kind].width);
        check_numbers(&q, plain);
        check_numbers(&warm, warmer);
        check_numbers(&wide, wider);
    }
    if (q.hosted != large) { /* whose rows go the same way into outputs */
        check_datatypes(q, plain);
    }
    lb_job_destroy(plain);
    lb_job_destroy(warmer);
    lb_job_destroy(wider);
    return true;
}

static int check_model(struct lb_hosted *hosted) {
    json_t *metadata = lb_describe_model(hosted);
    int n = 0;
    assert_non_null(metadata);
    for (int k = 0; k < LB_N_OUTPUTS; k++) {
        struct question q = {.hosted = hosted, .kind = (enum lb_output_kind)k};
        for (q.layer = 0; check_alone(q, metadata); q.layer++) {
            n++;
            if (!lb_output_layered(q.kind)) {
                break;
            }
        }
    }
    assert_int_equal(json_array_size(json_object_get(metadata, "outputs")) +
                         json_array_size(json_object_get(metadata, "further_outputs")),
                     n);
    json_decref(metadata);
    return n;
}

static void test_decoder(void **state) {
    (void)state;
    assert_true(check_model(llama) >= 6 + 3 + 3 * 2 + 2);
}

/* Above a size of vocabularies, logits come in panels. */
static void test_large_vocabulary(void **state) {
    (void)state;
    assert_true(check_model(large) >= 6 + 3 + 3 * 2 + 2);
    struct question q = {
        .hosted = large, .kind = LB_OUT_TOPK_IDS, .temperature = 1, .top_k = 3, .datatype = LB_DT_UINT16};
    assert_null(answer(&q)); /* its ids don't fit */
    assert_non_null(strstr(detail.text, "ask for INT32"));
}

/* A function that reads whole rows of logits (one without LB_IN_PIECES) makes the batch's others be filled
 * from whole rows as well: with the same bits. */
static void test_whole_rows(void **state) {
    (void)state;
    struct lb_hosted *const hosted[] = {llama, large};
    for (int i = 0; i < 2 * LB_N_OUTPUTS; i++) {
        struct question q = {hosted[i % 2], (enum lb_output_kind)(i / 2), 0, 1.5, 3};
        if (lb_output_get(q.kind)->source != LB_FROM_LOGITS) {
            continue;
        }
        struct lb_job *job = answer(&q), *rows = planned(&q);
        const struct lb_model *model = q.hosted->model;
        struct lb_tape *tape = lb_tape_create(TAPE_BYTES);
        struct lb_place places[B] = {{rows, 0}, {rows, 1}};
        struct lb_extract extract;
        struct lb_arena arena;
        int32_t offsets[B + 1] = {0, lengths[0], lengths[0] + lengths[1]}, packed[B * T];
        memcpy(packed, ids, (size_t)lengths[0] * sizeof *ids);
        memcpy(packed + lengths[0], ids + T, (size_t)lengths[1] * sizeof *ids);
        struct lb_input in = {{B, offsets}, packed, NULL};
        lb_arena_init(&arena, 1 << 20);
        assert_int_equal(lb_job_allocate(rows), LB_OK);
        assert_int_equal(
            lb_extract_init(&extract, places, &in.ragged, lb_model_head(model)->weight->rows, &arena), LB_OK);
        lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
        struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
        assert_int_equal(lb_head_run(tape, h, lb_model_head(model), NULL, lb_extract_logits, &extract),
                         LB_OK);
        assert_true(same_answer(job, rows));
        lb_arena_finish(&arena);
        lb_tape_destroy(tape);
        lb_job_destroy(job);
        lb_job_destroy(rows);
    }
}

static void test_classifier(void **state) {
    (void)state;
    assert_true(check_model(mlp) >= 5 + 3);
    struct question q = {.hosted = mlp, .kind = LB_OUT_ACTUAL, .temperature = 1, .top_k = 3};
    assert_null(answer(&q));
    assert_non_null(strstr(detail.text, "a classifier has no next token"));
}

/* No logits, but sentences; asked for nothing, it gives those. */
static void test_encoder(void **state) {
    (void)state;
    assert_int_equal(check_model(bert), 1 + 3 + 4 * 2 + 2 + 1);
    struct question q = {.hosted = bert, .kind = LB_OUT_LOGITS, .temperature = 1, .top_k = 3};
    assert_null(answer(&q));
    assert_non_null(strstr(detail.text, "output logits: this model has no head"));
    q = (struct question){.hosted = llama, .kind = LB_OUT_SENTENCE, .temperature = 1, .top_k = 3};
    assert_null(answer(&q));
    assert_non_null(strstr(detail.text, "output sentence_embedding: no modules.json"));
    struct lb_wire_tensor in = input(LB_IN_IDS, LB_DT_INT32, T, ids);
    const struct lb_infer_request request = {.top_k = 3, .temperature = 1, .n_inputs = 1, .inputs = &in};
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES};
    struct lb_job *job = lb_job_create((size_t)16 << 20);
    job->model = lb_hosted_retain(bert);
    assert_int_equal(lb_plan(&request, &limits, job, &detail), LB_OK);
    assert_int_equal(job->n_outputs, 1);
    assert_string_equal(job->outputs[0].name, "sentence_embedding");
    lb_job_destroy(job);
}

/* Names and sources agree about layers, datatypes about what the numbers are. */
static void test_table(void **state) {
    (void)state;
    for (int k = 0; k < LB_N_OUTPUTS; k++) {
        const struct lb_output *is = lb_output_get((enum lb_output_kind)k);
        enum lb_tap_kind tap;
        bool tapped = lb_hosted_tap(is->source, &tap);
        assert_int_equal(lb_output_layered((enum lb_output_kind)k), tapped);
        assert_int_equal(is->own == LB_DT_INT32, is->numbers == LB_ARE_IDS || is->numbers == LB_ARE_DRAWN ||
                                                     is->numbers == LB_ARE_COUNTS);
        assert_int_equal((is->uses & LB_USES_SCORE_IDS) != 0, is->width == LB_WIDE_SCORED);
        assert_int_equal((is->uses & LB_USES_SAMPLES) != 0, is->width == LB_WIDE_SAMPLES);
        assert_true((is->uses & LB_USES_TOP_K) != 0 || is->width != LB_WIDE_TOP_K);
        assert_true(is->width != LB_WIDE_KEYS || is->source == LB_FROM_ATTENTION);
        assert_true(lb_output_comes_as((enum lb_output_kind)k, is->own));
        assert_false(lb_output_comes_as((enum lb_output_kind)k, LB_DT_NONE));
        assert_non_null(strstr(lb_output_names(), is->name));
    }
}

int main(int argc, char **argv) {
    (void)argc;
    struct lb_config config;
    lb_gemm_setup(0, argv);
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    llama = lb_tiny_hosted(folder, "llama", &config);
    config.vocab_size = LARGE_V;
    large = lb_tiny_hosted(folder, "large", &config);
    lb_tiny_mlp(&config);
    config.initializer_range = 0.3; /* so that answers differ */
    mlp = lb_tiny_hosted(folder, "mlp", &config);
    lb_tiny_bert(&config);
    bert = lb_tiny_hosted(folder, "bert", &config);
    engine = lb_engine_create(NULL, NULL, NULL, TAPE_BYTES);
    for (int i = 0; i < B * T; i++) {
        ids[i] = (i * 31 + i * i * 7) % 97;
    }
    for (int i = 0; i < B * T * SCORED; i++) {
        scores[i] = i % 5 == 4 ? -1 : (i * 17) % 97;
    }
    for (int i = 0; i < B * 12; i++) {
        features[i] = sinf((float)i);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_decoder),
        cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_whole_rows),
        cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_encoder),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_engine_destroy(engine);
    lb_hosted_release(llama);
    lb_hosted_release(large);
    lb_hosted_release(mlp);
    lb_hosted_release(bert);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
