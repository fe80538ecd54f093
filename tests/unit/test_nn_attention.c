/* Attention: values against the reference in double, probabilities, windows, the KV cache; a row's bits
 * depend on its sequence only. */
#include "common/nn/ops.h"
#include "tests/support/gradcheck.h"
#include "tests/support/reference.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static const int32_t offsets[] = {0, 1, 3, 8, 25, 95, 225};
static const struct lb_ragged ragged = {6, offsets};
enum { N = 225 };

struct shape {
    int heads, kv_heads, dim, window;
};
static const struct shape shapes[] = {
    {2, 2, 8, 0},   {4, 2, 32, 0},  {8, 1, 64, 0}, {3, 1, 5, 0},    {1, 1, 256, 0},
    {6, 2, 12, 20}, {2, 2, 32, 64}, {2, 1, 8, 1},  {10, 2, 16, 40},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

struct run {
    struct lb_tape *tape;
    struct lb_rng rng;
    struct lb_value *q, *k, *v, *out, *probs;
    struct lb_attention_args args;
};

static void begin(struct run *run, const struct shape *shape, enum lb_tape_mode mode, float scale) {
    memset(run, 0, sizeof *run);
    lb_rng_seed(&run->rng, 5, (uint64_t)shape->dim);
    run->tape = lb_tape_create((size_t)256 << 20);
    assert_non_null(run->tape);
    lb_tape_begin(run->tape, mode, &ragged, &run->rng);
    run->q = random_value(run->tape, &run->rng, N, shape->heads * shape->dim, scale);
    run->k = random_value(run->tape, &run->rng, N, shape->kv_heads * shape->dim, scale);
    run->v = random_value(run->tape, &run->rng, N, shape->kv_heads * shape->dim, 1);
    run->args = (struct lb_attention_args){.heads = shape->heads,
                                           .kv_heads = shape->kv_heads,
                                           .head_dim = shape->dim,
                                           .window = shape->window,
                                           .scale = 1 / sqrtf((float)shape->dim)};
}

static void attend(struct run *run) {
    run->out = lb_attention(run->tape, run->q, run->k, run->v, &run->args, &run->probs);
    assert_non_null(run->out);
}

static double *widen(const struct lb_value *v) {
    double *d = malloc((size_t)(v->rows * v->cols) * sizeof *d);
    assert_non_null(d);
    for (int64_t i = 0; i < v->rows * v->cols; i++) {
        d[i] = (double)v->data[i];
    }
    return d;
}

static void test_values(void **state) {
    (void)state;
    for (int k = 0; k < SHAPES; k++) {
        for (int sharp = 0; sharp < 2; sharp++) { /* scores of a hundred: softmax nearly picks one */
            struct run run;
            begin(&run, &shapes[k], LB_TAPE_PLAIN, sharp ? 15 : 2);
            run.args.want_probs = true;
            attend(&run);
            double *q = widen(run.q), *key = widen(run.k), *v = widen(run.v), *out = widen(run.out),
                   *probs = widen(run.probs);
            struct reference_attention reference = {shapes[k].heads,
                                                    shapes[k].kv_heads,
                                                    shapes[k].dim,
                                                    shapes[k].window,
                                                    (double)run.args.scale,
                                                    0,
                                                    &ragged,
                                                    false};
            reference_attention(&reference, q, key, v, out, probs);
            double tolerance = sharp ? 1e-4 : 2e-6;
            for (int64_t i = 0; i < N * run.q->cols; i++) {
                assert_true(fabs((double)run.out->data[i] - out[i]) < tolerance);
            }
            for (int64_t i = 0; i < run.probs->rows; i++) {
                assert_true(fabs((double)run.probs->data[i] - probs[i]) < tolerance);
                assert_true(probs[i] > 0 || run.probs->data[i] == 0); /* exactly zero where not seen */
            }
            free(q);
            free(key);
            free(v);
            free(out);
            free(probs);
            lb_tape_destroy(run.tape);
        }
    }
}

/* Each sequence by itself, in training and in plain mode, has the bits that it has in the batch; so have its
 * gradients. */
static void test_alone(void **state) {
    (void)state;
    static double coefficient[N * 512];
    for (int k = 0; k < SHAPES; k++) {
        struct run all, one;
        begin(&all, &shapes[k], LB_TAPE_TRAIN, 2);
        attend(&all);
        random_gradient(all.tape, &all.rng, all.out, coefficient);
        assert_int_equal(lb_tape_backward(all.tape), LB_OK);
        for (int s = 0; s < 6; s++) {
            int64_t from = offsets[s], n = offsets[s + 1] - from, c = all.q->cols, kv_c = all.k->cols;
            const int32_t own_offsets[] = {0, (int32_t)n};
            const struct lb_ragged own = {1, own_offsets};
            begin(&one, &shapes[k], LB_TAPE_PLAIN, 2);
            for (int mode = 0; mode < 2; mode++) {
                lb_tape_begin(one.tape, mode == 0 ? LB_TAPE_PLAIN : LB_TAPE_TRAIN, &own, NULL);
                one.q = lb_tape_value(one.tape, n, c);
                one.k = lb_tape_value(one.tape, n, kv_c);
                one.v = lb_tape_value(one.tape, n, kv_c);
                memcpy(one.q->data, all.q->data + from * c, (size_t)(n * c) * sizeof(float));
                memcpy(one.k->data, all.k->data + from * kv_c, (size_t)(n * kv_c) * sizeof(float));
                memcpy(one.v->data, all.v->data + from * kv_c, (size_t)(n * kv_c) * sizeof(float));
                attend(&one);
                assert_memory_equal(one.out->data, all.out->data + from * c, (size_t)(n * c) * sizeof(float));
            }
            assert_true(lb_grad_fresh(one.tape, one.out));
            memcpy(one.out->grad, all.out->grad + from * c, (size_t)(n * c) * sizeof(float));
            assert_int_equal(lb_tape_backward(one.tape), LB_OK);
            assert_memory_equal(one.q->grad, all.q->grad + from * c, (size_t)(n * c) * sizeof(float));
            assert_memory_equal(one.k->grad, all.k->grad + from * kv_c, (size_t)(n * kv_c) * sizeof(float));
            assert_memory_equal(one.v->grad, all.v->grad + from * kv_c, (size_t)(n * kv_c) * sizeof(float));
            lb_tape_destroy(one.tape);
        }
        lb_tape_destroy(all.tape);
    }
}

static void test_threads(void **state) {
    (void)state;
    static float data[4][N * 512];
    static double coefficient[N * 512];
    int threads_before = omp_get_max_threads();
    for (int k = 0; k < SHAPES; k++) {
        for (int threads = 1; threads <= 3; threads++) {
            struct run run;
            omp_set_num_threads(threads);
            begin(&run, &shapes[k], LB_TAPE_TRAIN, 2);
            attend(&run);
            random_gradient(run.tape, &run.rng, run.out, coefficient);
            assert_int_equal(lb_tape_backward(run.tape), LB_OK);
            const float *results[] = {run.out->data, run.q->grad, run.k->grad, run.v->grad};
            for (int r = 0; r < 4; r++) {
                size_t bytes = (size_t)(N * (r < 2 ? run.q->cols : run.k->cols)) * sizeof(float);
                if (threads == 1) {
                    memcpy(data[r], results[r], bytes);
                }
                assert_memory_equal(data[r], results[r], bytes);
            }
            lb_tape_destroy(run.tape);
        }
    }
    omp_set_num_threads(threads_before);
}

/* Rows of a cache that so many positions take. */
static int64_t whole_blocks(int64_t n) {
    return (n + LB_KV_BLOCK - 1) / LB_KV_BLOCK * LB_KV_BLOCK;
}

/* The keys [n, c] as a cache holds them. */
static void check_keys(const float *held, const float *k, int64_t n, int64_t c) {
    for (int64_t i = 0; i < n * c; i++) {
        int64_t at = i / c, column = i % c, within = at % LB_KV_BLOCK;
        assert_true(held[(at - within) * c + column * LB_KV_BLOCK + within] == k[i]);
    }
}

/* The last sequence once more, in pieces through a cache, every other time with soft-caps: the bits of the
 * whole. */
static void test_cache(void **state) {
    (void)state;
    static const int32_t pieces[][4] = {{130, 0, 0, 0}, {1, 0, 0, 0}, {65, 64, 1, 0}, {7, 3, 0, 0}};
    for (int k = 0; k < 2 * SHAPES; k++) {
        struct run whole, step;
        begin(&whole, &shapes[k / 2], LB_TAPE_PLAIN, 2);
        whole.args.softcap = k % 2 == 0 ? 0 : 3;
        attend(&whole);
        begin(&step, &shapes[k / 2], LB_TAPE_PLAIN, 2);
        step.args.softcap = whole.args.softcap;
        int64_t c = whole.q->cols, kv_c = whole.k->cols, room = whole_blocks(130);
        struct lb_kv_layer kv = {malloc((size_t)(room * kv_c) * sizeof(float)),
                                 malloc((size_t)(room * kv_c) * sizeof(float))};
        assert_true(kv.k != NULL && kv.v != NULL);
        for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
            int64_t done = 0;
            for (int turn = 0; done < 130; turn++) {
                int64_t n = pieces[p][turn % 4] > 0 ? pieces[p][turn % 4] : 1, at = offsets[5] + done;
                n = n < 130 - done ? n : 130 - done;
                const int32_t own_offsets[] = {0, (int32_t)n};
                const struct lb_ragged own = {1, own_offsets};
                lb_tape_begin(step.tape, LB_TAPE_PLAIN, &own, NULL);
                step.q = lb_tape_value(step.tape, n, c);
                step.k = lb_tape_value(step.tape, n, kv_c);
                step.v = lb_tape_value(step.tape, n, kv_c);
                memcpy(step.q->data, whole.q->data + at * c, (size_t)(n * c) * sizeof(float));
                memcpy(step.k->data, whole.k->data + at * kv_c, (size_t)(n * kv_c) * sizeof(float));
                memcpy(step.v->data, whole.v->data + at * kv_c, (size_t)(n * kv_c) * sizeof(float));
                step.args.kv = &kv;
                const struct lb_kv_place place = {0, done, room};
                step.args.kv_places = &place;
                attend(&step);
                assert_memory_equal(step.out->data, whole.out->data + at * c,
                                    (size_t)(n * c) * sizeof(float));
                done += n;
            }
            check_keys(kv.k, whole.k->data + offsets[5] * kv_c, 130, kv_c);
            assert_memory_equal(kv.v, whole.v->data + offsets[5] * kv_c,
                                (size_t)(130 * kv_c) * sizeof(float));
        }
        free(kv.k);
        free(kv.v);
        lb_tape_destroy(whole.tape);
        lb_tape_destroy(step.tape);
    }
}

/* All sequences in one cache, each in pieces of its own sizes, so that their pasts are never alike; in the
 * cache they lie in another order than in the batch. The bits of the whole. */
static void test_cache_of_many(void **state) {
    (void)state;
    for (int k = 0; k < SHAPES; k++) {
        struct run whole, step;
        begin(&whole, &shapes[k], LB_TAPE_PLAIN, 2);
        attend(&whole);
        begin(&step, &shapes[k], LB_TAPE_PLAIN, 2);
        int64_t c = whole.q->cols, kv_c = whole.k->cols, n_seqs = ragged.n_seqs;
        int64_t room = 0;
        for (int64_t s = 0; s < n_seqs; s++) {
            room += whole_blocks(offsets[s + 1] - offsets[s]);
        }
        struct lb_kv_layer kv = {malloc((size_t)(room * kv_c) * sizeof(float)),
                                 malloc((size_t)(room * kv_c) * sizeof(float))};
        struct lb_kv_place *places = calloc((size_t)n_seqs, sizeof *places);
        int32_t *own_offsets = calloc((size_t)n_seqs + 1, sizeof *own_offsets);
        assert_true(kv.k != NULL && kv.v != NULL && places != NULL && own_offsets != NULL);
        for (int64_t s = 0; s < n_seqs; s++) {
            room -= whole_blocks(offsets[s + 1] - offsets[s]);
            places[s] = (struct lb_kv_place){room, 0, whole_blocks(offsets[s + 1] - offsets[s])};
        }
        for (int turn = 0, left = 1; left > 0; turn++) {
            left = 0;
            for (int64_t s = 0; s < n_seqs; s++) {
                int64_t most = offsets[s + 1] - offsets[s] - places[s].length,
                        n = (turn * 7 + s * 13) % 5 * 6;
                own_offsets[s + 1] = own_offsets[s] + (int32_t)(n < most ? n : most);
                left += (int)most;
            }
            const struct lb_ragged own = {n_seqs, own_offsets};
            int64_t n = own_offsets[n_seqs];
            lb_tape_begin(step.tape, LB_TAPE_PLAIN, &own, NULL);
            step.q = lb_tape_value(step.tape, n, c);
            step.k = lb_tape_value(step.tape, n, kv_c);
            step.v = lb_tape_value(step.tape, n, kv_c);
            for (int64_t s = 0; s < n_seqs; s++) {
                int64_t from = offsets[s] + places[s].length, to = own_offsets[s],
                        rows = own_offsets[s + 1] - to;
                memcpy(step.q->data + to * c, whole.q->data + from * c, (size_t)(rows * c) * sizeof(float));
                memcpy(step.k->data + to * kv_c, whole.k->data + from * kv_c,
                       (size_t)(rows * kv_c) * sizeof(float));
                memcpy(step.v->data + to * kv_c, whole.v->data + from * kv_c,
                       (size_t)(rows * kv_c) * sizeof(float));
            }
            step.args.kv = &kv;
            step.args.kv_places = places;
            attend(&step);
            for (int64_t s = 0; s < n_seqs; s++) {
                int64_t from = offsets[s] + places[s].length, to = own_offsets[s],
                        rows = own_offsets[s + 1] - to;
                assert_memory_equal(step.out->data + to * c, whole.out->data + from * c,
                                    (size_t)(rows * c) * sizeof(float));
                places[s].length += rows;
            }
        }
        free(kv.k);
        free(kv.v);
        free(places);
        free(own_offsets);
        lb_tape_destroy(whole.tape);
        lb_tape_destroy(step.tape);
    }
}

/* A window of one row sees itself: the value comes back, and queries get no gradient to speak of. */
static void test_window_of_one(void **state) {
    (void)state;
    static double coefficient[N * 16];
    struct run run;
    begin(&run, &(struct shape){2, 2, 8, 1}, LB_TAPE_TRAIN, 2);
    attend(&run);
    assert_memory_equal(run.out->data, run.v->data, N * 16 * sizeof(float));
    random_gradient(run.tape, &run.rng, run.out, coefficient);
    assert_int_equal(lb_tape_backward(run.tape), LB_OK);
    for (int i = 0; i < N * 16; i++) {
        assert_true(fabsf(run.q->grad[i]) < 1e-5f && fabsf(run.v->grad[i] - run.out->grad[i]) < 1e-5f);
    }
    lb_tape_destroy(run.tape);
}

static void test_empty(void **state) {
    (void)state;
    static const int32_t with_holes[] = {0, 0, 4, 4};
    static const struct lb_ragged holes = {3, with_holes};
    struct run run;
    begin(&run, &shapes[0], LB_TAPE_TRAIN, 1);
    lb_tape_begin(run.tape, LB_TAPE_TRAIN, &holes, &run.rng);
    run.q = random_value(run.tape, &run.rng, 4, 16, 1);
    run.args.want_probs = true;
    run.out = lb_attention(run.tape, run.q, run.q, run.q, &run.args, &run.probs);
    assert_non_null(run.out);
    assert_int_equal(run.probs->rows, 2 * 4 * 4);
    assert_null(lb_attention(run.tape, run.q, NULL, run.q, &run.args, &run.probs));
    lb_tape_destroy(run.tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_threads),       cmocka_unit_test(test_cache),
        cmocka_unit_test(test_cache_of_many), cmocka_unit_test(test_window_of_one),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
