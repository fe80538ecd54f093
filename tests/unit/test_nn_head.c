/* The head by rows and by panels: what is read of a row is right, and the same bits whatever the threads and
 * the company. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define C 32
#define BIG_V (LB_HEAD_WIDE_V + 4321) /* the last panel is narrower than others */
#define SMALL_V 2100
#define TOP 70
#define AT 5

static struct lb_rng rng;

static void fill_normals(float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)lb_rng_normal(&rng);
    }
}

#define DRAWS 20
static double draw_temperature = 1.5;

static struct lb_draw draw_of(void) {
    return (struct lb_draw){DRAWS, draw_temperature, 3, 4};
}

/* What a reading leaves of each row. */
struct rows {
    int64_t v, n;
    float *z;            /* [n, V]; NULL: logits are not taken */
    int32_t (*ids)[TOP]; /* [n] */
    float (*values)[TOP];
    float (*at)[AT];
    double *lse, *log_rest;
    struct lb_drawn (*drawn)[DRAWS]; /* zero behind the last one */
    double *draw_lse;
    int *times; /* each row was given so often */
    const int32_t *asked;
    int64_t k;
    double temperature;
};

static struct rows rows_of(int64_t v, int64_t n, const int32_t *asked) {
    struct rows r = {.v = v, .n = n, .asked = asked, .k = TOP, .temperature = 1.5};
    r.z = calloc((size_t)(n * v), sizeof *r.z);
    r.ids = calloc((size_t)n, sizeof *r.ids);
    r.values = calloc((size_t)n, sizeof *r.values);
    r.at = calloc((size_t)n, sizeof *r.at);
    r.lse = calloc((size_t)n, sizeof *r.lse);
    r.log_rest = calloc((size_t)n, sizeof *r.log_rest);
    r.drawn = calloc((size_t)n, sizeof *r.drawn);
    r.draw_lse = calloc((size_t)n, sizeof *r.draw_lse);
    r.times = calloc((size_t)n, sizeof *r.times);
    assert_true(r.drawn && r.draw_lse && r.z && r.ids && r.values && r.at && r.lse && r.log_rest && r.times);
    return r;
}

static void rows_free(struct rows *r) {
    free(r->drawn), free(r->draw_lse), free(r->z), free(r->ids), free(r->values), free(r->at), free(r->lse),
        free(r->log_rest), free(r->times);
}

static struct lb_head_want want(void *context, int64_t row) {
    (void)row;
    struct rows *r = context;
    return (struct lb_head_want){.k = r->k,
                                 .temperature = r->temperature,
                                 .rest = true,
                                 .at = r->asked,
                                 .n_at = AT,
                                 .draw = draw_of()};
}

static void take_row(void *context, int64_t row, const struct lb_head_row *left) {
    struct rows *r = context;
    memcpy(r->ids[row], left->ids, (size_t)r->k * sizeof(int32_t));
    memcpy(r->values[row], left->values, (size_t)r->k * sizeof(float));
    memcpy(r->at[row], left->at, sizeof r->at[row]);
    r->lse[row] = left->lse;
    r->log_rest[row] = left->log_rest;
    memset(r->drawn[row], 0, sizeof r->drawn[row]);
    memcpy(r->drawn[row], left->drawn, (size_t)left->n_drawn * sizeof *left->drawn);
    r->draw_lse[row] = left->draw_lse;
    r->times[row]++;
}

static void take_logits(void *context, int64_t row, int64_t n, int64_t id, int64_t n_ids, const float *z,
                        int64_t ldz) {
    struct rows *r = context;
    for (int64_t i = 0; i < n; i++) {
        memcpy(r->z + (row + i) * r->v + id, z + i * ldz, (size_t)n_ids * sizeof *z);
    }
}

static enum lb_status take_whole(void *context, int64_t row, int64_t n, float *z) {
    struct rows *r = context;
    memcpy(r->z + row * r->v, z, (size_t)(n * r->v) * sizeof *z);
    return LB_OK;
}

/* Sequences of a batch, the head and its bias. */
struct setting {
    struct lb_tape *tape;
    int32_t offsets[8];
    int64_t n_seqs;
    float *h, *stored;
    struct lb_weight w, bias;
    struct lb_head head;
};

static void begin(struct setting *s, int64_t v, enum lb_dtype dtype, const int32_t *lengths, int64_t n_seqs) {
    *s = (struct setting){.n_seqs = n_seqs, .tape = lb_tape_create((size_t)1 << 30)};
    for (int64_t i = 0; i < n_seqs; i++) {
        s->offsets[i + 1] = s->offsets[i] + lengths[i];
    }
    int64_t n = s->offsets[n_seqs];
    float *w = malloc((size_t)(v * C) * sizeof *w), *bias = malloc((size_t)v * sizeof *bias);
    s->h = malloc((size_t)(n * C) * sizeof *s->h);
    s->stored = malloc((size_t)(v * C) * sizeof *s->stored);
    assert_true(s->tape && w && bias && s->h && s->stored);
    fill_normals(s->h, n * C);
    fill_normals(w, v * C);
    fill_normals(bias, v);
    lb_quantize(dtype, w, s->stored, v * C);
    s->w = (struct lb_weight){.rows = v, .cols = C, .dtype = dtype, .data = s->stored, .n_dims = 2};
    s->bias = (struct lb_weight){.rows = 1, .cols = v, .dtype = LB_F32, .data = bias, .n_dims = 1};
    s->head = (struct lb_head){&s->w, &s->bias, LB_HEAD_PLAIN};
    free(w);
}

static void finish(struct setting *s) {
    lb_tape_destroy(s->tape);
    free(s->h), free(s->stored), free((void *)s->bias.data);
}

/* Sequences first .. first + n - 1 as a batch of their own. */
static struct lb_value *batch(struct setting *s, int64_t first, int64_t n, int32_t *offsets,
                              struct lb_ragged *ragged) {
    for (int64_t i = 0; i <= n; i++) {
        offsets[i] = s->offsets[first + i] - s->offsets[first];
    }
    *ragged = (struct lb_ragged){n, offsets};
    lb_tape_begin(s->tape, LB_TAPE_PLAIN, ragged, NULL);
    struct lb_value *x = lb_tape_value(s->tape, offsets[n], C);
    assert_non_null(x);
    memcpy(x->data, s->h + s->offsets[first] * C, (size_t)(offsets[n] * C) * sizeof(float));
    return x;
}

static void read_rows(struct setting *s, int64_t first, int64_t n, const int32_t *first_rows,
                      const float *add, struct rows *out) {
    int32_t offsets[8];
    struct lb_ragged ragged;
    const struct lb_head_reader reader = {out,  add,      add != NULL ? out->v : 0,
                                          want, take_row, out->z != NULL ? take_logits : NULL};
    struct lb_value *x = batch(s, first, n, offsets, &ragged);
    assert_int_equal(lb_head_read(s->tape, x, &s->head, first_rows, &reader), LB_OK);
}

static void same_row(const struct rows *a, int64_t i, const struct rows *b, int64_t j) {
    if (a->z != NULL) {
        assert_memory_equal(a->z + i * a->v, b->z + j * b->v, (size_t)a->v * sizeof(float));
    }
    assert_memory_equal(a->ids[i], b->ids[j], sizeof a->ids[i]);
    assert_memory_equal(a->values[i], b->values[j], sizeof a->values[i]);
    assert_memory_equal(a->at[i], b->at[j], sizeof a->at[i]);
    assert_memory_equal(&a->lse[i], &b->lse[j], sizeof a->lse[i]);
    assert_memory_equal(&a->log_rest[i], &b->log_rest[j], sizeof a->log_rest[i]);
    assert_memory_equal(a->drawn[i], b->drawn[j], sizeof a->drawn[i]);
    assert_memory_equal(&a->draw_lse[i], &b->draw_lse[j], sizeof a->draw_lse[i]);
}

static const int32_t lengths[] = {3, 140, 1, 1, 0, 2};
enum { SEQS = sizeof lengths / sizeof lengths[0], ROWS = 147 };

/* What is read against plain reductions of the logits, and those against the way of whole rows. */
static void right(struct setting *s, const struct rows *have) {
    struct rows whole = rows_of(have->v, ROWS, have->asked);
    int32_t offsets[8], ids[TOP];
    float values[TOP];
    struct lb_ragged ragged;
    struct lb_value *x = batch(s, 0, SEQS, offsets, &ragged);
    assert_int_equal(lb_head_run(s->tape, x, &s->head, NULL, take_whole, &whole), LB_OK);
    assert_memory_equal(whole.z, have->z, (size_t)(ROWS * have->v) * sizeof(float));
    for (int64_t i = 0; i < ROWS; i++) {
        const float *z = have->z + i * have->v;
        lb_topk(z, have->v, TOP, ids, values);
        assert_memory_equal(ids, have->ids[i], sizeof ids);
        assert_memory_equal(values, have->values[i], sizeof values);
        double lse = lb_logsumexp(z, have->v, have->temperature);
        double same = lb_head_logsumexp(z, have->v, have->temperature);
        assert_memory_equal(&same, &have->lse[i], sizeof same);
        assert_true(have->v > LB_HEAD_WIDE_V ? fabs(have->lse[i] - lse) < 1e-6 : have->lse[i] == lse);
        double rest = lb_head_log_rest(z, have->v, have->temperature, TOP, ids, values), others = 0;
        assert_memory_equal(&rest, &have->log_rest[i], sizeof rest);
        assert_memory_equal(ids, have->ids[i], sizeof ids);
        assert_memory_equal(values, have->values[i], sizeof values);
        for (int64_t j = 0; j < have->v; j++) { /* none is as large as the last of the largest by chance */
            others += z[j] < values[TOP - 1] ? exp(z[j] / have->temperature) : 0;
        }
        assert_true(fabs(rest - (log(others) - lse)) < 1e-6);
        for (int a = 0; a < AT; a++) {
            assert_true(have->at[i][a] == (have->asked[a] < 0 ? 0 : z[have->asked[a]]));
        }
        struct lb_drawn drawn[DRAWS] = {{0}};
        const struct lb_draw draw = draw_of();
        double draw_lse = 0;
        int64_t n_drawn = lb_head_draw(z, have->v, &draw, drawn, &draw_lse);
        memset(drawn + n_drawn, 0, (size_t)(DRAWS - n_drawn) * sizeof *drawn);
        assert_memory_equal(drawn, have->drawn[i], sizeof drawn);
        assert_memory_equal(&draw_lse, &have->draw_lse[i], sizeof draw_lse);
        assert_true(fabs(draw_lse - lb_logsumexp(z, have->v, draw_temperature)) < 1e-6);
        for (int64_t j = 0; j < n_drawn; j++) {
            assert_true(drawn[j].logit == z[drawn[j].id]);
        }
        assert_int_equal(have->times[i], 1);
    }
    rows_free(&whole);
}

static void one_head(int64_t v, enum lb_dtype dtype) {
    const int32_t asked[AT] = {0, (int32_t)v - 1, 2047, 2048, -1};
    struct setting s;
    draw_temperature = dtype == LB_F32 ? 1.5 : 0.8; /* that of the log-sum-exp, and another */
    begin(&s, v, dtype, lengths, SEQS);
    struct rows all = rows_of(v, ROWS, asked), other = rows_of(v, ROWS, asked);
    int threads = omp_get_max_threads();
    read_rows(&s, 0, SEQS, NULL, NULL, &all);
    right(&s, &all);
    for (int n = 1; n <= 13; n += 4) {
        omp_set_num_threads(n);
        read_rows(&s, 0, SEQS, NULL, NULL, &other);
        for (int64_t i = 0; i < ROWS; i++) {
            same_row(&all, i, &other, i);
        }
    }
    omp_set_num_threads(threads);
    for (int64_t first = 0; first < SEQS; first++) { /* alone, and with the next two */
        for (int64_t n = 1; n <= 3 && first + n <= SEQS; n += 2) {
            read_rows(&s, first, n, NULL, NULL, &other);
            for (int64_t i = s.offsets[first]; i < s.offsets[first + n]; i++) {
                same_row(&all, i, &other, i - s.offsets[first]);
            }
        }
    }
    rows_free(&all), rows_free(&other);
    finish(&s);
}

static void rows_first(void **state) {
    (void)state;
    one_head(SMALL_V, LB_F32);
    one_head(SMALL_V, LB_Q8_0);
}

static void by_panels(void **state) {
    (void)state;
    one_head(BIG_V, LB_F32);
    one_head(BIG_V, LB_F16);
    one_head(BIG_V, LB_Q8_0);
}

/* More rows than have logits at the same time. */
static void many_rows(void **state) {
    (void)state;
    static const int32_t asked[AT] = {0, 1, 4096, BIG_V - 1, 9}, long_ones[] = {900, 1, 600};
    struct setting s;
    begin(&s, BIG_V, LB_F16, long_ones, 3);
    struct rows all = rows_of(BIG_V, 1501, asked), alone = rows_of(BIG_V, 900, asked);
    free(all.z), free(alone.z);
    all.z = alone.z = NULL;
    read_rows(&s, 0, 3, NULL, NULL, &all);
    for (int64_t q = 0; q < 3; q++) {
        read_rows(&s, q, 1, NULL, NULL, &alone);
        for (int64_t i = s.offsets[q]; i < s.offsets[q + 1]; i++) {
            same_row(&all, i, &alone, i - s.offsets[q]);
            assert_int_equal(all.times[i], 1);
        }
    }
    rows_free(&all), rows_free(&alone);
    finish(&s);
}

/* Rows before `first` are skipped, others keep their bits; a sequence may be skipped altogether. */
static void from_first(void **state) {
    (void)state;
    static const int32_t first[] = {1, 136, INT32_MAX, 0, 0, 1}, asked[AT] = {0};
    static const int64_t v[] = {SMALL_V, BIG_V};
    for (int t = 0; t < 2; t++) {
        struct setting s;
        begin(&s, v[t], LB_F32, lengths, SEQS);
        struct rows all = rows_of(v[t], ROWS, asked), some = rows_of(v[t], ROWS, asked);
        read_rows(&s, 0, SEQS, NULL, NULL, &all);
        read_rows(&s, 0, SEQS, first, NULL, &some);
        int n = 0;
        for (int q = 0; q < SEQS; q++) {
            for (int64_t i = s.offsets[q]; i < s.offsets[q + 1]; i++) {
                bool wanted = i - s.offsets[q] >= first[q];
                assert_int_equal(some.times[i], wanted);
                if (wanted) {
                    same_row(&all, i, &some, i);
                    n++;
                }
            }
        }
        assert_int_equal(n, 2 + 4 + 0 + 1 + 0 + 1);
        rows_free(&all), rows_free(&some);
        finish(&s);
    }
}

/* What is added to logits counts in all that is read. */
static void added(void **state) {
    (void)state;
    static const int32_t asked[AT] = {0, 1, 2, 3, 2047};
    static const int64_t v[] = {SMALL_V, BIG_V};
    for (int t = 0; t < 2; t++) {
        struct setting s;
        begin(&s, v[t], LB_F32, lengths, 1);
        struct rows plain = rows_of(v[t], 3, asked), with = rows_of(v[t], 3, asked);
        float *add = malloc((size_t)v[t] * sizeof *add);
        fill_normals(add, v[t]);
        add[v[t] - 1] = 100;
        read_rows(&s, 0, 1, NULL, NULL, &plain);
        read_rows(&s, 0, 1, NULL, add, &with);
        for (int64_t i = 0; i < 3; i++) {
            for (int64_t j = 0; j < v[t]; j++) {
                assert_true(with.z[i * v[t] + j] == plain.z[i * v[t] + j] + add[j]);
            }
            assert_int_equal(with.ids[i][0], v[t] - 1);
            assert_true(fabs(with.lse[i] - lb_logsumexp(with.z + i * v[t], v[t], 1.5)) < 1e-6);
            assert_true(with.at[i][4] == with.z[i * v[t] + 2047]);
        }
        free(add);
        rows_free(&plain), rows_free(&with);
        finish(&s);
    }
}

/* A scale and a soft-cap are done to every product, by either way, before anything is read of it. */
static void shaped(void **state) {
    (void)state;
    static const int32_t asked[AT] = {1, 70, 0, 3, 9};
    static const int64_t v[] = {SMALL_V, BIG_V};
    static const struct lb_head_shape shapes[] = {{0.125f, 0}, {1, 5}, {0.5f, 3}};
    for (int t = 0; t < 6; t++) {
        struct setting s;
        begin(&s, v[t / 3], LB_F16, lengths, SEQS);
        struct rows plain = rows_of(v[t / 3], ROWS, asked), has = rows_of(v[t / 3], ROWS, asked);
        read_rows(&s, 0, SEQS, NULL, NULL, &plain);
        s.head.shape = shapes[t % 3];
        read_rows(&s, 0, SEQS, NULL, NULL, &has);
        for (int64_t i = 0; i < ROWS * has.v; i++) {
            double z = (double)plain.z[i] * (double)s.head.shape.scale, cap = (double)s.head.shape.softcap;
            z = cap > 0 ? cap * tanh(z / cap) : z;
            assert_true(fabs((double)has.z[i] - z) < 1e-5);
        }
        right(&s, &has);
        rows_free(&plain), rows_free(&has);
        finish(&s);
    }
}

/* What is read of a row of which some ids are kept. */
struct kept_rows {
    struct lb_head_want want;
    int32_t (*ids)[TOP];
    float (*values)[TOP];
    double (*logs)[3]; /* rest, outside, sum */
};

static struct lb_head_want want_kept(void *context, int64_t row) {
    (void)row;
    return ((struct kept_rows *)context)->want;
}

static void take_kept(void *context, int64_t row, const struct lb_head_row *left) {
    struct kept_rows *r = context;
    memcpy(r->ids[row], left->ids, (size_t)r->want.k * sizeof(int32_t));
    memcpy(r->values[row], left->values, (size_t)r->want.k * sizeof(float));
    r->logs[row][0] = left->log_rest;
    r->logs[row][1] = left->log_outside;
    r->logs[row][2] = left->lse;
}

static struct kept_rows read_kept(struct setting *s, struct lb_head_want kept, int64_t first, int64_t n) {
    struct kept_rows r = {.want = kept};
    int32_t offsets[8];
    struct lb_ragged ragged;
    r.ids = calloc(ROWS, sizeof *r.ids);
    r.values = calloc(ROWS, sizeof *r.values);
    r.logs = calloc(ROWS, sizeof *r.logs);
    assert_true(r.ids && r.values && r.logs);
    const struct lb_head_reader reader = {.context = &r, .want = want_kept, .row = take_kept};
    struct lb_value *x = batch(s, first, n, offsets, &ragged);
    assert_int_equal(lb_head_read(s->tape, x, &s->head, NULL, &reader), LB_OK);
    return r;
}

static void kept_free(struct kept_rows *r) {
    free(r->ids), free(r->values), free(r->logs);
}

/* Against the definitions, in double, of the picked logits; and the same bits from whole rows. */
static void right_kept(const struct kept_rows *r, const struct rows *all, int64_t row) {
    const float *z = all->z + row * all->v;
    const struct lb_kept *kept = &r->want.kept;
    double t = r->want.temperature, inside = 0, outside = 0, rest = 0, logs[2];
    float *picked = malloc((size_t)kept->n * sizeof *picked), values[TOP];
    int32_t ids[TOP];
    int64_t n, k = r->want.k;
    assert_non_null(picked);
    assert_int_equal(lb_kept_gather(kept, z, all->v, 0, picked, &n), 0);
    assert_int_equal(n, kept->n);
    lb_topk(picked, kept->n, k, ids, values);
    assert_memory_equal(ids, r->ids[row], (size_t)k * sizeof *ids);
    assert_memory_equal(values, r->values[row], (size_t)k * sizeof *values);
    for (int64_t j = 0, at = 0; j < all->v; j++) {
        bool is_kept = at < kept->n && kept->ids[at] == j;
        at += is_kept;
        *(is_kept ? &inside : &outside) += exp((z[j] - values[0]) / t);
        rest += is_kept && z[j] < values[k - 1] ? exp((z[j] - values[0]) / t) : 0;
    }
    double least = LB_LOG_LEAST_REST, whole = inside + outside;
    double want_rest = rest > 1e-12 * whole ? log(rest / whole) : least,
           want_outside = outside > 1e-12 * whole ? log(outside / whole) : least;
    assert_true(fabs(r->logs[row][0] - want_rest) < 2e-6 * (1 + fabs(want_rest)));
    assert_true(fabs(r->logs[row][1] - want_outside) < 2e-6 * (1 + fabs(want_outside)));
    assert_memory_equal(&all->lse[row], &r->logs[row][2], sizeof(double));
    lb_head_parts(z, all->v, &r->want, ids, values, &logs[0], &logs[1]);
    assert_memory_equal(ids, r->ids[row], (size_t)k * sizeof *ids);
    assert_memory_equal(logs, r->logs[row], sizeof logs);
    free(picked);
}

static void some_kept(int64_t v, int64_t n_kept, int64_t k) {
    static const int32_t asked[AT] = {0};
    struct setting s;
    int32_t *kept = malloc((size_t)n_kept * sizeof *kept);
    assert_non_null(kept);
    begin(&s, v, LB_F16, lengths, SEQS);
    struct rows all = rows_of(v, ROWS, asked);
    read_rows(&s, 0, SEQS, NULL, NULL, &all);
    for (int64_t i = 0; i < n_kept; i++) { /* the first and the last id too, and runs and gaps between */
        kept[i] = (int32_t)(n_kept == v || n_kept == 1 ? i : i * (v - 1) / (n_kept - 1));
    }
    const struct lb_head_want wanted = {
        .k = k, .temperature = all.temperature, .rest = true, .outside = true, .kept = {kept, n_kept}};
    struct kept_rows r = read_kept(&s, wanted, 0, SEQS), one = read_kept(&s, wanted, 1, 1);
    for (int64_t i = 0; i < ROWS; i++) {
        right_kept(&r, &all, i);
    }
    assert_memory_equal(r.logs + s.offsets[1], one.logs, (size_t)lengths[1] * sizeof *one.logs);
    kept_free(&r), kept_free(&one), rows_free(&all), free(kept);
    finish(&s);
}

/* Some ids of a row are kept: what is listed and left of them, and what all others have. */
static void kept_ids(void **state) {
    (void)state;
    some_kept(SMALL_V, 700, TOP);
    some_kept(SMALL_V, TOP, TOP); /* all that is kept is listed */
    some_kept(SMALL_V, SMALL_V, 3);
    some_kept(SMALL_V, 1, 1);
    some_kept(BIG_V, 5000, TOP); /* panels with few of them */
    some_kept(BIG_V, BIG_V - 1, 2);
    some_kept(BIG_V, 9, 4); /* panels without any */
}

/* A tape that is too small says so, by either way. */
static void no_memory(void **state) {
    (void)state;
    static const int32_t asked[AT] = {0};
    static const int64_t v[] = {SMALL_V, BIG_V};
    for (int t = 0; t < 2; t++) {
        struct setting s;
        int32_t offsets[8];
        struct lb_ragged ragged;
        begin(&s, v[t], LB_F32, lengths, SEQS);
        struct rows r = rows_of(v[t], ROWS, asked);
        const struct lb_head_reader reader = {.context = &r, .want = want, .row = take_row};
        lb_tape_destroy(s.tape);
        s.tape = lb_tape_create((size_t)300 << 10);
        struct lb_value *x = batch(&s, 0, SEQS, offsets, &ragged);
        assert_int_equal(lb_head_read(s.tape, x, &s.head, NULL, &reader), LB_E_NOMEM);
        assert_int_equal(lb_head_read(s.tape, NULL, &s.head, NULL, &reader), LB_E_NOMEM);
        rows_free(&r);
        finish(&s);
    }
}

/* dL/dz = z / 8 */
static enum lb_status eighth(void *context, int64_t row, int64_t n, float *z) {
    struct rows *most = context;
    (void)row;
    for (int64_t i = 0; i < n * most->v; i++) {
        z[i] /= 8;
    }
    most->k = n > most->k ? n : most->k;
    return LB_OK;
}

/* The way back, by one thread chunk by chunk, and by many several chunks at once: the same bits. */
static void training_at_any_threads(void **state) {
    (void)state;
    enum { V = 3001, N = 1100, N_OUT = N * C + V * C + V };
    int threads = omp_get_max_threads();
    int32_t one[] = {N}, offsets[8];
    struct lb_ragged ragged = {1, offsets};
    float *bits[2] = {malloc(N_OUT * sizeof(float)), malloc(N_OUT * sizeof(float))};
    int64_t most[2];
    for (int shaped_head = 0; shaped_head < 2; shaped_head++) {
        struct setting s;
        begin(&s, V, LB_F32, one, 1);
        s.head.shape = shaped_head ? (struct lb_head_shape){0.5f, 3} : LB_HEAD_PLAIN;
        memcpy(offsets, s.offsets, sizeof offsets);
        for (int t = 0; t < 2; t++) {
            struct rows r = {.v = V};
            omp_set_num_threads(t == 0 ? 1 : 16);
            lb_tape_begin(s.tape, LB_TAPE_TRAIN, &ragged, &rng);
            struct lb_value *h = lb_tape_value(s.tape, N, C);
            assert_non_null(h);
            memcpy(h->data, s.h, (size_t)N * C * sizeof(float));
            s.w.grad = calloc(V * C, sizeof(float));
            s.bias.grad = calloc(V, sizeof(float));
            assert_true(s.w.grad && s.bias.grad && bits[t]);
            assert_int_equal(lb_head_run(s.tape, h, &s.head, NULL, eighth, &r), LB_OK);
            memcpy(bits[t], h->grad, (size_t)N * C * sizeof(float));
            memcpy(bits[t] + N * C, s.w.grad, (size_t)V * C * sizeof(float));
            memcpy(bits[t] + (N + V) * C, s.bias.grad, V * sizeof(float));
            most[t] = r.k;
            free(s.w.grad), free(s.bias.grad);
        }
        assert_memory_equal(bits[0], bits[1], N_OUT * sizeof(float));
        assert_int_equal(most[0], lb_head_chunk(V));
        assert_int_equal(most[1], N);
        finish(&s);
    }
    omp_set_num_threads(threads);
    free(bits[0]), free(bits[1]);
}

static void forget_row(void *context, int64_t row, const struct lb_head_row *left) {
    (void)context, (void)row, (void)left;
}

/* What many threads take more of the tape is told before. */
static void memory_of_many_threads(void **state) {
    (void)state;
    enum { V = 3001 };
    const int32_t asked[AT] = {0};
    const struct lb_head_want most = {.k = TOP, .n_at = AT, .draw = draw_of()};
    int threads = omp_get_max_threads();
    int32_t one[] = {1100}, offsets[8];
    size_t high[2], of_all[2], of_row;
    for (int t = 0; t < 2; t++) {
        struct setting s;
        struct lb_ragged ragged;
        struct rows r = {.v = V, .k = TOP, .temperature = 1, .asked = asked};
        const struct lb_head_reader reader = {.context = &r, .want = want, .row = forget_row};
        begin(&s, V, LB_F32, one, 1);
        omp_set_num_threads(t == 0 ? 1 : 16);
        struct lb_value *x = batch(&s, 0, 1, offsets, &ragged);
        assert_int_equal(lb_head_read(s.tape, x, &s.head, NULL, &reader), LB_OK);
        high[t] = lb_tape_high(s.tape);
        lb_head_read_bytes(V, &most, &of_all[t], &of_row);
        finish(&s);
    }
    omp_set_num_threads(threads);
    assert_true(high[1] > high[0] && high[1] - high[0] <= of_all[1] - of_all[0]);
}

int main(void) {
    lb_rng_seed(&rng, 11, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_first),
        cmocka_unit_test(by_panels),
        cmocka_unit_test(shaped),
        cmocka_unit_test(kept_ids),
        cmocka_unit_test(many_rows),
        cmocka_unit_test(from_first),
        cmocka_unit_test(added),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(training_at_any_threads),
        cmocka_unit_test(memory_of_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
