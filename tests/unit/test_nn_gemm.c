/* Products and the head: right, and the same bits whatever the threads and the company. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "common/nn/compute.h"
#include "common/nn/gemm.h"
#include "common/nn/head.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Sums of K products of numbers near 1, in float. */
#define TOLERANCE(k) (3e-7 * sqrt(k) * 4)

static struct lb_rng rng;

static float *normals(int64_t n) {
    float *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)lb_rng_normal(&rng);
    }
    return out;
}

static void transpose(const float *a, int64_t rows, int64_t cols, float *out) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            out[j * rows + i] = a[i * cols + j];
        }
    }
}

static void check_close(const float *have, const float *want, int64_t n, double tolerance) {
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs((double)have[i] - want[i]) <= tolerance * (1 + fabs(want[i])))) {
            fail_msg("element %lld: %.8g instead of %.8g", (long long)i, have[i], want[i]);
        }
    }
}

/* All three products at shapes around the tiles' edges, with and without accumulating. */
static void all_products(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1},     {2, 130, 7},    {3, 5, 64},
                                        {128, 64, 33}, {129, 257, 40}, {300, 1030, 17}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        float *x = normals(m * k), *w = normals(n * k), *start = normals(m * n);
        float *xt = malloc((size_t)(m * k) * 4), *wt = malloc((size_t)(n * k) * 4);
        float *want = malloc((size_t)(m * n) * 4), *y = malloc((size_t)(m * n) * 4);
        transpose(x, m, k, xt);
        transpose(w, n, k, wt);
        for (int beta = 0; beta < 2; beta++) {
            lb_gemm_nt_reference(m, n, k, x, w, want);
            for (int64_t i = 0; beta && i < m * n; i++) {
                want[i] += start[i];
            }
            memcpy(y, start, (size_t)(m * n) * 4);
            lb_gemm_nt(m, n, k, x, k, w, k, (float)beta, y, n, NULL);
            check_close(y, want, m * n, TOLERANCE((double)k));
            memcpy(y, start, (size_t)(m * n) * 4);
            lb_gemm_nn(m, n, k, x, k, wt, n, (float)beta, y, n);
            check_close(y, want, m * n, TOLERANCE((double)k));
            memcpy(y, start, (size_t)(m * n) * 4);
            lb_gemm_tn(m, n, k, xt, m, wt, n, (float)beta, y, n);
            check_close(y, want, m * n, TOLERANCE((double)k));
        }
        free(x), free(w), free(start), free(xt), free(wt), free(want), free(y);
    }
}

static void threads_change_no_bit(void **state) {
    (void)state;
    int64_t m = 333, n = 700, k = 96;
    float *x = normals(m * k), *w = normals(n * k), *one = malloc((size_t)(m * n) * 4),
          *many = malloc((size_t)(m * n) * 4);
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    lb_gemm_nt(m, n, k, x, k, w, k, 0, one, n, NULL);
    for (int threads = 2; threads <= 5; threads++) {
        omp_set_num_threads(threads);
        lb_gemm_nt(m, n, k, x, k, w, k, 0, many, n, NULL);
        assert_memory_equal(one, many, (size_t)(m * n) * 4);
    }
    omp_set_num_threads(before);
    free(x), free(w), free(one), free(many);
}

/* A product of each kind, twice into the same y, and one that may wait. */
static void fill_list(struct lb_gemm_list *list, const float *x, const float *w, const float *bias,
                      float *y[4], const struct lb_ragged *ragged) {
    enum { M = 200, N = 300, K = 70 };
    const struct lb_gemm_product products[] = {
        {M, N, K, x, K, w, K, y[0], N, 1, .trans_w = true, .bias = bias, .ragged = ragged},
        {N, K, M, x, N, w, K, y[1], K, 0, .trans_x = true, .waits = true},
        {M, K, N, x, N, w, K, y[2], K, 0},
        {N, K, M, w, N, x, K, y[1], K, 1, .trans_x = true, .waits = true},
        {M, K, 90, w, 90, x, K, y[2], K, 1},
        {2, 5, K, x, K, w, K, y[3], 5, 0, .trans_w = true},
    };
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++) {
        lb_gemm_add(list, &products[i]);
    }
}

/* Together they have the bits that they have one after the other; who may wait does so until there are
 * enough. */
static void products_together(void **state) {
    (void)state;
    enum { M = 200, N = 300, K = 70, ALL = M * N + N * K + M * K + 10 };
    int32_t offsets[] = {0, 1, 130, 131, 133, M};
    struct lb_ragged ragged = {5, offsets};
    struct lb_gemm_list list = {.n = 0};
    float *x = normals(M * N), *w = normals(M * N), *bias = normals(N), *want = normals(ALL),
          *have = normals(ALL);
    float *at = want, *to = have;
    float *in[4] = {at, at + M * N, at + M * N + N * K, at + M * N + N * K + M * K};
    float *out[4] = {to, to + M * N, to + M * N + N * K, to + M * N + N * K + M * K};
    int before = omp_get_max_threads();
    for (int64_t i = 0; i < M; i++) {
        memcpy(in[0] + i * N, bias, N * sizeof *bias);
    }
    lb_gemm_nt(M, N, K, x, K, w, K, 1, in[0], N, &ragged);
    lb_gemm_tn(N, K, M, x, N, w, K, 0, in[1], K);
    lb_gemm_tn(N, K, M, w, N, x, K, 1, in[1], K);
    lb_gemm_nn(M, K, N, x, N, w, K, 0, in[2], K);
    lb_gemm_nn(M, K, 90, w, 90, x, K, 1, in[2], K);
    lb_gemm_nt(2, 5, K, x, K, w, K, 0, in[3], 5, NULL);
    for (int threads = 1; threads <= 16; threads += 5) {
        omp_set_num_threads(threads);
        memset(have, 0, ALL * sizeof *have);
        fill_list(&list, x, w, bias, out, &ragged);
        lb_gemm_run(&list, true);
        assert_int_equal(list.n, 0);
        assert_memory_equal(have, want, ALL * sizeof *have);
    }
    memset(have, 0, ALL * sizeof *have);
    fill_list(&list, x, w, bias, out, &ragged);
    lb_gemm_run(&list, false); /* three tiles that wait are few for 16 threads */
    assert_int_equal(list.n, 2);
    assert_true(out[1][0] == 0 && memcmp(out[2], in[2], M * K * sizeof *have) == 0);
    omp_set_num_threads(1);
    lb_gemm_run(&list, false);
    assert_int_equal(list.n, 2);
    lb_gemm_run(&list, true);
    assert_memory_equal(have, want, ALL * sizeof *have);
    for (int i = 0; i <= LB_GEMM_LIST; i++) { /* a full one is made, in order */
        lb_gemm_add(&list, &(struct lb_gemm_product){N, K, M, x, N, w, K, out[1], K, i > 0 ? 1 : 0,
                                                     .trans_x = true, .waits = true});
        lb_gemm_tn(N, K, M, x, N, w, K, i > 0 ? 1 : 0, in[1], K);
    }
    assert_int_equal(list.n, 1);
    lb_gemm_run(&list, true);
    assert_memory_equal(out[1], in[1], N * K * sizeof *have);
    omp_set_num_threads(before);
    free(x), free(w), free(bias), free(want), free(have);
}

/* Each sequence alone, and among others at another place; short ones are multiplied together. */
static void company(int64_t n, int64_t k) {
    static const int32_t lengths[] = {1, 5, 130, 2, 64, 1, 1, 2, 1, 12, 257, 3, 1};
    enum { SEQS = sizeof lengths / sizeof lengths[0] };
    int32_t offsets[SEQS + 1] = {0};
    for (int s = 0; s < SEQS; s++) {
        offsets[s + 1] = offsets[s] + lengths[s];
    }
    struct lb_ragged all = {SEQS, offsets};
    int64_t m = offsets[SEQS];
    float *x = normals(m * k), *w = normals(n * k), *start = normals(m * n);
    float *want = malloc((size_t)(m * n) * 4), *together = malloc((size_t)(m * n) * 4),
          *alone = malloc((size_t)(m * n) * 4);
    lb_gemm_nt_reference(m, n, k, x, w, want);
    for (int beta = 0; beta < 2; beta++) {
        for (int64_t i = 0; beta && i < m * n; i++) {
            want[i] += start[i];
        }
        memcpy(together, start, (size_t)(m * n) * 4);
        lb_gemm_nt(m, n, k, x, k, w, k, (float)beta, together, n, &all);
        check_close(together, want, m * n, 2 * TOLERANCE((double)k));
        for (int s = 0; s < SEQS; s++) {
            int32_t own[2] = {0, lengths[s]};
            struct lb_ragged single = {1, own};
            memcpy(alone, start + offsets[s] * n, (size_t)(lengths[s] * n) * 4);
            lb_gemm_nt(lengths[s], n, k, x + offsets[s] * k, k, w, k, (float)beta, alone, n, &single);
            assert_memory_equal(alone, together + offsets[s] * n, (size_t)(lengths[s] * n) * 4);
        }
    }
    free(x), free(w), free(start), free(want), free(together), free(alone);
}

static void company_changes_no_bit(void **state) {
    (void)state;
    company(260, 80);
    company(10, 784);
    company(37, 13); /* rows that begin at any address, and a rest */
}

/* Up to 19 sequences of a row each, every block of rows and what is left beside it, have each the bits that
 * it has alone; columns at an end of the product those that they have within it. */
static void single_rows(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{4, 16}, {7, 33}, {130, 200}, {2, 5}};
    enum { M = 19 };
    int32_t offsets[M + 1];
    for (int i = 0; i <= M; i++) {
        offsets[i] = i;
    }
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t n = shapes[s][0], k = shapes[s][1];
        float *x = normals(M * k), *w = normals(n * k), *start = normals(M * n), *want = normals(M * n),
              *y = normals(M * n);
        for (int beta = 0; beta < 2; beta++) {
            memcpy(want, start, (size_t)(M * n) * 4);
            for (int64_t i = 0; i < M; i++) {
                for (int64_t j = 0; j < n; j++) {
                    lb_gemm_nt(1, 1, k, x + i * k, k, w + j * k, k, (float)beta, want + i * n + j, n, NULL);
                }
            }
            for (int m = 1; m <= M; m++) {
                memcpy(y, start, (size_t)(M * n) * 4);
                lb_gemm_nt(m, n, k, x, k, w, k, (float)beta, y, n, &(struct lb_ragged){m, offsets});
                assert_memory_equal(y, want, (size_t)(m * n) * 4);
                assert_memory_equal(y + m * n, start + m * n, (size_t)((M - m) * n) * 4);
            }
        }
        free(x), free(w), free(start), free(want), free(y);
    }
}

/* A stored weight multiplies as the same weight in FP32 does, both ways, also where it is widened in several
 * panels; in FP32 it is the plain product. */
static void stored_weights(void **state) {
    (void)state;
    static const enum lb_dtype formats[] = {LB_F32, LB_F16, LB_BF16, LB_Q8_0};
    static const int64_t shapes[][2] = {{37, 32}, {700, 96}, {1300, 4096}}; /* the last: three panels */
    int32_t offsets[] = {0, 5, 6, 40};
    int32_t each[40 + 1];
    for (int i = 0; i <= 40; i++) {
        each[i] = i;
    }
    struct lb_ragged ragged = {3, offsets}, one_by_one = {40, each};
    int64_t m = 40;
    for (size_t t = 0; t < sizeof shapes / sizeof shapes[0]; t++) {
        int64_t o = shapes[t][0], c = shapes[t][1];
        float *x = normals(m * c), *dy = normals(m * o), *w = normals(o * c), *start = normals(m * c);
        float *wide = malloc((size_t)(o * c) * 4), *space = malloc((size_t)(o * c) * 4);
        float *y = malloc((size_t)(m * o) * 4), *want = malloc((size_t)(m * o) * 4);
        float *dx = malloc((size_t)(m * c) * 4), *want_dx = malloc((size_t)(m * c) * 4);
        void *stored = malloc((size_t)(o * c) * 4);
        for (size_t f = 0; f < 4; f++) {
            lb_quantize(formats[f], w, stored, o * c);
            lb_dequantize(formats[f], stored, wide, o * c);
            struct lb_weight weight = {.rows = o, .cols = c, .dtype = formats[f], .data = stored};
            assert_true(lb_gemm_weight_floats(&weight) <= o * c);
            assert_int_equal(lb_gemm_weight_floats(&weight) == 0, formats[f] == LB_F32);
            lb_gemm_nt(m, o, c, x, c, wide, c, 0, want, o, &ragged);
            lb_gemm_weight(x, m, &weight, 0, y, &ragged, space);
            assert_memory_equal(y, want, (size_t)(m * o) * 4);
            lb_gemm_nt(m, o, c, x, c, wide, c, 1, want, o, &one_by_one); /* on what the last product left */
            lb_gemm_weight(x, m, &weight, 1, y, &one_by_one, space);
            assert_memory_equal(y, want, (size_t)(m * o) * 4);
            memcpy(dx, start, (size_t)(m * c) * 4);
            memcpy(want_dx, start, (size_t)(m * c) * 4);
            lb_gemm_nn(m, c, o, dy, o, wide, c, 1, want_dx, c);
            lb_gemm_weight_back(dy, m, &weight, 1, dx, space);
            check_close(dx, want_dx, m * c, 4 * TOLERANCE((double)o));
            assert_true(formats[f] != LB_F32 || memcmp(dx, want_dx, (size_t)(m * c) * 4) == 0);
            lb_gemm_nn(m, c, o, dy, o, wide, c, 0, want_dx, c);
            lb_gemm_weight_back(dy, m, &weight, 0, dx, space); /* whatever dx held */
            check_close(dx, want_dx, m * c, 4 * TOLERANCE((double)o));
        }
        free(x), free(dy), free(w), free(start), free(wide), free(space), free(y), free(want), free(dx);
        free(want_dx), free(stored);
    }
}

/* Every block format, rows as they are and as llama.cpp interleaves them: products, some rows, the embedding
 * are those of the widened weight. */
static void blocks_and_interleaved_rows(void **state) {
    (void)state;
    enum { O = 300, C = 512, HEAD = 6, M = 9 };
    float *x = normals(M * C), *wide = malloc(O * C * 4), *order = malloc(O * C * 4),
          *space = malloc(O * C * 4);
    float y[M * O], want[M * O], rows[2 * C];
    unsigned char *stored = malloc(O * C * 4);
    for (int d = LB_Q8_0; d < LB_DTYPES; d++) {
        size_t bytes = 0, row = 0;
        enum lb_dtype dtype = (enum lb_dtype)d;
        assert_true(lb_dtype_bytes(dtype, O * C, &bytes) && lb_dtype_bytes(dtype, C, &row));
        for (size_t i = 0; i < bytes; i++) {
            stored[i] = (uint8_t)lb_rng_below(&rng, 96); /* no infinity in any scale */
        }
        lb_dequantize(dtype, stored, wide, O * C);
        struct lb_weight w = {.rows = O, .cols = C, .dtype = dtype, .data = stored, .n_dims = 2};
        lb_gemm_nt(M, O, C, x, C, wide, C, 0, want, O, NULL);
        lb_gemm_weight(x, M, &w, 0, y, NULL, space);
        assert_memory_equal(y, want, sizeof y);
        for (int64_t r = 0; r < O; r++) { /* stored row 2 j + half of a head is row half * HEAD / 2 + j */
            int64_t in = r % HEAD, from = r - in + 2 * (in % (HEAD / 2)) + in / (HEAD / 2);
            memcpy(order + r * C, wide + from * C, C * 4);
        }
        w.interleaved = HEAD;
        lb_gemm_nt(M, O, C, x, C, order, C, 0, want, O, NULL);
        lb_gemm_weight(x, M, &w, 0, y, NULL, space);
        assert_memory_equal(y, want, sizeof y);
        lb_gemm_nt(1, O, C, x, C, order, C, 0, want, O, NULL);
        lb_gemm_weight(x, 1, &w, 0, y, NULL, space);
        assert_memory_equal(y, want, O * sizeof *y);
        lb_gemm_widen(&w, 7, 2, rows);
        assert_memory_equal(rows, order + 7 * C, sizeof rows);
    }
    free(x), free(wide), free(order), free(space), free(stored);
}

struct kept {
    float *z;
    int64_t v, rows;
};

static enum lb_status keep(void *context, int64_t row, int64_t n, float *z) {
    struct kept *k = context;
    memcpy(k->z + row * k->v, z, (size_t)(n * k->v) * sizeof *z);
    k->rows += n;
    return LB_OK;
}

/* Stored formats give what their dequantised weights give, and `first` skips rows without changing a bit of
 * the rest. */
static void head_formats_and_first(void **state) {
    (void)state;
    static const enum lb_dtype formats[] = {LB_F32, LB_F16, LB_BF16, LB_Q8_0};
    int32_t offsets[] = {0, 3, 3 + 600}, first[] = {1, 530};
    struct lb_ragged ragged = {2, offsets};
    int64_t rows = 603, c = 64, v = 2100;
    float *h = normals(rows * c), *w = normals(v * c), *wide = malloc((size_t)(v * c) * 4),
          *want = malloc((size_t)(rows * v) * 4);
    struct kept all = {malloc((size_t)(rows * v) * 4), v, 0}, some = {malloc((size_t)(rows * v) * 4), v, 0};
    void *stored = malloc((size_t)(v * c) * 4);
    struct lb_tape *tape = lb_tape_create((size_t)1 << 30);
    for (size_t f = 0; f < 4; f++) {
        lb_quantize(formats[f], w, stored, v * c);
        lb_dequantize(formats[f], stored, wide, v * c);
        struct lb_weight weight = {
            .name = "head", .rows = v, .cols = c, .dtype = formats[f], .data = stored, .n_dims = 2};
        struct lb_head head = {&weight, NULL, LB_HEAD_PLAIN};
        lb_tape_begin(tape, LB_TAPE_PLAIN, &ragged, NULL);
        struct lb_value *x = lb_tape_value(tape, rows, c);
        memcpy(x->data, h, (size_t)(rows * c) * 4);
        all.rows = some.rows = 0;
        assert_int_equal(lb_head_run(tape, x, &head, NULL, keep, &all), LB_OK);
        assert_int_equal(lb_head_run(tape, x, &head, first, keep, &some), LB_OK);
        assert_int_equal(all.rows, rows);
        assert_int_equal(some.rows, 2 + 70);
        lb_gemm_nt_reference(rows, v, c, h, wide, want);
        check_close(all.z, want, rows * v, TOLERANCE((double)c));
        assert_memory_equal(all.z + v, some.z + v, (size_t)(2 * v) * 4);
        assert_memory_equal(all.z + (3 + 530) * v, some.z + (3 + 530) * v, (size_t)(70 * v) * 4);
    }
    lb_tape_destroy(tape);
    free(h), free(w), free(wide), free(want), free(all.z), free(some.z), free(stored);
}

/* Which bits this machine computes is no matter of threads. */
static void compute_is_the_machines(void **state) {
    (void)state;
    char first[LB_SHA256_HEX], again[LB_SHA256_HEX];
    int threads = omp_get_max_threads();
    assert_int_equal(lb_compute_digest(first, NULL), LB_OK);
    omp_set_num_threads(threads > 1 ? 1 : 2);
    assert_int_equal(lb_compute_digest(again, NULL), LB_OK);
    omp_set_num_threads(threads);
    assert_string_equal(first, again);
    assert_int_equal(strlen(first), LB_SHA256_HEX - 1);
}

int main(void) {
    lb_rng_seed(&rng, 4, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_products),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(products_together),
        cmocka_unit_test(company_changes_no_bit),
        cmocka_unit_test(stored_weights),
        cmocka_unit_test(blocks_and_interleaved_rows),
        cmocka_unit_test(head_formats_and_first),
        cmocka_unit_test(compute_is_the_machines),
        cmocka_unit_test(single_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
