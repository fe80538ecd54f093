/* Block formats against the gguf package (make_quant.py), bit for bit, and a file in two parts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/formats/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct lb_gguf *open_golden(const char *name) {
    char path[512];
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    const char *root = getenv("LB_SOURCE_ROOT");
    snprintf(path, sizeof path, "%s/tests/golden/quant/%s", root != NULL ? root : ".", name);
    if (lb_gguf_open(path, &file, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return file;
}

/* The tensor "NAME.END", or "NAME". */
static const struct lb_tensor *find(const struct lb_gguf *file, enum lb_dtype dtype, const char *end) {
    char name[64];
    snprintf(name, sizeof name, "%s%s", lb_dtype_name(dtype), end);
    return lb_gguf_find(file, name);
}

static void check_floats(const char *name, const float *have, const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        bool nan = isnan(have[i]) && isnan(want[i]); /* of infinity times zero: its bits are the hardware's */
        if (!nan && memcmp(&have[i], &want[i], sizeof *have) != 0) {
            fail_msg("%s[%lld] is %.9g, expected %.9g", name, (long long)i, (double)have[i], (double)want[i]);
        }
    }
}

static void every_format_widens_to_the_same_bits(void **state) {
    (void)state;
    struct lb_gguf *file = open_golden("blocks.gguf");
    int seen = 0;
    for (int d = 0; d < LB_DTYPES; d++) {
        enum lb_dtype dtype = (enum lb_dtype)d;
        if (lb_dtype_block(dtype) == 1) {
            continue;
        }
        const struct lb_tensor *stored = find(file, dtype, ""), *wide = find(file, dtype, ".wide");
        if (stored == NULL || wide == NULL) {
            fail_msg("make_quant.py knows no %s", lb_dtype_name(dtype));
            return;
        }
        assert_int_equal(stored->dtype, dtype);
        int64_t n = stored->dim[0] * stored->dim[1];
        float *x = calloc((size_t)n + 1, sizeof *x);
        unsigned char *shifted = calloc(stored->bytes + 1, 1);
        assert_true(x != NULL && shifted != NULL);
        x[n] = 77;
        memcpy(shifted + 1, stored->data, stored->bytes); /* rows of a file may begin anywhere */
        lb_dequantize(dtype, shifted + 1, x, n);
        check_floats(lb_dtype_name(dtype), x, wide->data, n);
        assert_true(x[n] == 77);
        free(shifted);
        free(x);
        seen++;
    }
    assert_int_equal(seen, 13);
    lb_gguf_destroy(file);
}

static void what_is_written_is_the_same_bytes(void **state) {
    (void)state;
    struct lb_gguf *file = open_golden("blocks.gguf");
    const struct lb_tensor *source = lb_gguf_find(file, "narrow.F32");
    assert_non_null(source);
    int seen = 0;
    for (int d = 0; d < LB_DTYPES; d++) {
        enum lb_dtype dtype = (enum lb_dtype)d;
        if (lb_dtype_block(dtype) != 32 || !lb_dtype_narrows(dtype)) {
            continue;
        }
        const struct lb_tensor *want = find(file, dtype, ".narrow");
        assert_non_null(want);
        unsigned char *have = calloc(want->bytes, 1);
        assert_non_null(have);
        lb_quantize(dtype, source->data, have, source->dim[0] * source->dim[1]);
        for (size_t i = 0; i < want->bytes; i++) {
            if (have[i] != ((const unsigned char *)want->data)[i]) {
                fail_msg("%s: byte %zu of block %zu differs", lb_dtype_name(dtype),
                         i % lb_dtype_block_bytes(dtype), i / lb_dtype_block_bytes(dtype));
            }
        }
        free(have);
        seen++;
    }
    assert_int_equal(seen, 5);
    lb_gguf_destroy(file);
}

static double squared_error(enum lb_dtype dtype, const void *blocks, const float *x, int64_t n) {
    float wide[2048];
    double sum = 0;
    assert_true(n <= 2048);
    lb_dequantize(dtype, blocks, wide, n);
    for (int64_t i = 0; i < n; i++) {
        sum += ((double)wide[i] - x[i]) * ((double)wide[i] - x[i]);
    }
    return sum;
}

/* Rows of several distributions: none is farther from its weights than ggml's blocks are, all together are
 * nearer; and what no block holds is no trap. */
static void large_blocks_are_nearer_than_ggmls(void **state) {
    (void)state;
    struct lb_gguf *file = open_golden("large.gguf");
    const struct lb_tensor *source = lb_gguf_find(file, "narrow.F32");
    static const enum lb_dtype dtypes[] = {LB_Q4_K, LB_Q6_K};
    for (size_t d = 0; d < 2; d++) {
        const struct lb_tensor *theirs = find(file, dtypes[d], ".ggml");
        int64_t cols = source->dim[1];
        size_t row_bytes = theirs->bytes / (size_t)theirs->dim[0];
        double all[2] = {0, 0};
        unsigned char *have = calloc(row_bytes, 1);
        assert_non_null(have);
        for (int64_t r = 0; r < source->dim[0]; r++) {
            const float *x = (const float *)source->data + r * cols;
            lb_quantize(dtypes[d], x, have, cols);
            double ours = squared_error(dtypes[d], have, x, cols);
            double other =
                squared_error(dtypes[d], (const char *)theirs->data + (size_t)r * row_bytes, x, cols);
            if (ours > other) {
                fail_msg("%s, row %lld: %g, ggml's %g", lb_dtype_name(dtypes[d]), (long long)r, ours, other);
            }
            all[0] += other > 0 ? ours / other : 1;
            all[1] += 1;
        }
        printf("%s: squared error %.3f of ggml's\n", lb_dtype_name(dtypes[d]), all[0] / all[1]);
        assert_true(all[0] < 0.99 * all[1]);
        float odd[256] = {NAN, INFINITY, -INFINITY, 1e38f, -1e-45f, 1e-40f};
        lb_quantize(dtypes[d], odd, have, 256);
        free(have);
    }
    lb_gguf_destroy(file);
}

static void a_pair_is_one_file(void **state) {
    (void)state;
    struct lb_gguf *file = open_golden("pair-00001-of-00002.gguf");
    assert_int_equal(lb_gguf_count(file), 3);
    const struct lb_tensor *last = lb_gguf_find(file, "c");
    assert_non_null(last);
    assert_true(last->dtype == LB_Q4_0 && last->dim[0] == 2 && last->dim[1] == 32);
    assert_non_null(lb_gguf_find(file, "a"));
    lb_gguf_destroy(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_widens_to_the_same_bits),
        cmocka_unit_test(what_is_written_is_the_same_bytes),
        cmocka_unit_test(large_blocks_are_nearer_than_ggmls),
        cmocka_unit_test(a_pair_is_one_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
