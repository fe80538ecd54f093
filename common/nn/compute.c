#include "common/nn/compute.h"

#include "common/base/mem.h"
#include "common/base/memo.h"
#include "common/base/rng.h"
#include "common/nn/cpu.h"
#include "common/nn/gemm.h"
#include "common/nn/reduce.h"

#include <string.h>
#include <unistd.h>

/* Longer than a panel of rows and than OpenBLAS's blocks of the inner dimension, and no multiples of
 * registers. */
#define M 147
#define N 331
#define K 777

static void compute(const float *a, const float *b, float *y, struct lb_sha256 *hash) {
    float q[N];
    lb_gemm_nt(M, N, K, a, K, b, K, 0, y, N, NULL);
    lb_sha256_update(hash, y, (size_t)(M * N) * sizeof *y);
    for (int i = 0; i < M; i++) {
        double lse = lb_logsumexp(y + (size_t)i * N, N, 1.5);
        lb_softmax(y + (size_t)i * N, N, 1.5, lse, q);
        lb_sha256_update(hash, &lse, sizeof lse);
        lb_sha256_update(hash, q, sizeof q);
    }
    lb_gemm_nn(M, N, K, a, K, b, N, 0, y, N);
    lb_sha256_update(hash, y, (size_t)(M * N) * sizeof *y);
    lb_gemm_tn(M, N, K, a, M, b, N, 0, y, N);
    lb_sha256_update(hash, y, (size_t)(M * N) * sizeof *y);
    lb_gemm_nt(3, N, K, a, K, b, K, 0, y, N, NULL); /* few rows go another way */
    lb_sha256_update(hash, y, (size_t)(3 * N) * sizeof *y);
}

enum lb_status lb_compute_digest(char out[LB_SHA256_HEX], struct lb_detail *detail) {
    float *a = lb_malloc_array((size_t)M * K, sizeof *a), *b = lb_malloc_array((size_t)N * K, sizeof *b);
    float *y = lb_malloc_array((size_t)M * N, sizeof *y);
    struct lb_sha256 *hash = lb_sha256_create();
    uint8_t digest[LB_SHA256_BYTES];
    bool made = a && b && y && hash;
    if (made) {
        struct lb_rng rng;
        lb_rng_seed(&rng, 20240608, 0);
        for (size_t i = 0; i < (size_t)M * K; i++) {
            a[i] = lb_rng_float(&rng) - 0.5f;
        }
        for (size_t i = 0; i < (size_t)N * K; i++) {
            b[i] = lb_rng_float(&rng) - 0.5f;
        }
        compute(a, b, y, hash);
    }
    lb_sha256_final(hash, digest);
    lb_free(a);
    lb_free(b);
    lb_free(y);
    if (!made) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the test of this machine's kernels");
    }
    lb_hex(digest, sizeof digest, out);
    return LB_OK;
}

static void add_text(void *hash, const char *text) {
    lb_sha256_update(hash, text, strlen(text) + 1);
}

bool lb_compute_named(struct lb_sha256 *hash) {
    static const char *const decides[] = {"OPENBLAS_", "GLIBC_TUNABLES="};
    add_text(hash, lb_gemm_description());
    lb_cpu_each(add_text, hash);
    for (size_t i = 0; i < sizeof decides / sizeof decides[0]; i++) {
        for (char **at = environ; *at != NULL; at++) {
            if (strncmp(*at, decides[i], strlen(decides[i])) == 0) {
                add_text(hash, *at);
            }
        }
    }
    return lb_memo_program(hash);
}
