#include "common/nn/gemm.h"

#include <assert.h>
#include <cblas.h>
#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Rows of one tile. Long enough to amortise the packing of the other operand, short enough that a batch of a
 * few hundred rows gives every core work. */
#define PANEL_ROWS 128
/* Most columns of one tile. */
#define PANEL_COLS 512
/* Up to so many rows dot products beat packing. */
#define DOT_ROWS 2

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* OpenBLAS must not start threads of its own: a product's bits would depend on how many there are. */
static void blas_single_threaded(void) {
    int threads = omp_get_max_threads();
    openblas_set_num_threads(1);
    omp_set_num_threads(threads); /* the OpenMP build of OpenBLAS lowers it for the whole thread */
}

/* ---- set-up -----------------------------------------------------------------------------------------------
 */

static bool core_uses_avx512(const char *core) {
    return strcmp(core, "SkylakeX") == 0 || strcmp(core, "Cooperlake") == 0 ||
           strcmp(core, "SapphireRapids") == 0;
}

static bool setenv_if_absent(const char *name, const char *value) {
    return getenv(name) == NULL && setenv(name, value, 1) == 0;
}

void lb_gemm_setup(int threads, char **argv) {
    bool again = false;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        !core_uses_avx512(openblas_get_corename())) {
        again |= setenv_if_absent("OPENBLAS_CORETYPE", "SkylakeX");
    }
#endif
    /* Libraries read these once, when they are loaded: so the program starts again with them set. Threads
     * that wait spin only briefly, since teachers and trainers often share one machine. */
    if (getenv("OMP_WAIT_POLICY") == NULL) {
        again |= setenv_if_absent("GOMP_SPINCOUNT", "20000");
    }
    if (threads > 0) {
        char text[16];
        snprintf(text, sizeof text, "%d", threads);
        const char *now = getenv("OMP_NUM_THREADS");
        again |= (now == NULL || strcmp(now, text) != 0) && setenv("OMP_NUM_THREADS", text, 1) == 0;
    }
    if (again && argv != NULL && getenv("LIMBECK_STARTED") == NULL &&
        setenv("LIMBECK_STARTED", "1", 1) == 0) {
        execv("/proc/self/exe", argv); /* returns only where it is impossible: then go on as we are */
    }
    unsetenv("LIMBECK_STARTED"); /* children decide for themselves */
    (void)pthread_once(&once, blas_single_threaded);
}

const char *lb_gemm_description(void) {
    static char text[160];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (text[0] == 0) {
        char version[64] = "OpenBLAS";
        (void)sscanf(openblas_get_config(), "%63[^ ] %*s", version);
        const char *number = strchr(openblas_get_config(), ' ');
        int n = number != NULL ? (int)strcspn(number + 1, " ") : 0;
        snprintf(text, sizeof text, "%s %.*s %s, %d threads", version, n, number != NULL ? number + 1 : "",
                 openblas_get_corename(), omp_get_max_threads());
    }
    pthread_mutex_unlock(&lock);
    return text;
}

/* ---- tiles ------------------------------------------------------------------------------------------------
 */

/* Columns of a tile of an n-column result: at least two tiles where that is worth it, so that one panel of
 * rows keeps two cores busy. A function of n alone. */
static int64_t tile_cols(int64_t n) {
    if (n >= 2 * PANEL_COLS) {
        return PANEL_COLS;
    }
    return n >= 128 ? ((n + 1) / 2 + 15) / 16 * 16 : n;
}

struct product {
    CBLAS_TRANSPOSE trans_x, trans_w;
    int64_t m, n, k;
    const float *x, *w;
    int64_t ldx, ldw, ldy;
    float beta;
    float *y;
};

static float dot(const float *a, const float *b, int64_t k) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < k; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* Rows row .. row + rows - 1, columns col .. col + cols - 1 of the result. */
static void tile(const struct product *p, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    const float *x = p->trans_x == CblasNoTrans ? p->x + row * p->ldx : p->x + row;
    const float *w = p->trans_w == CblasNoTrans ? p->w + col : p->w + col * p->ldw;
    float *y = p->y + row * p->ldy + col;
    if (rows <= DOT_ROWS && p->trans_x == CblasNoTrans && p->trans_w == CblasTrans) {
        for (int64_t j = 0; j < cols; j++) {
            for (int64_t i = 0; i < rows; i++) {
                float *out = &y[i * p->ldy + j];
                float v = dot(x + i * p->ldx, w + j * p->ldw, p->k);
                *out = p->beta == 0 ? v : v + p->beta * *out;
            }
        }
        return;
    }
    cblas_sgemm(CblasRowMajor, p->trans_x, p->trans_w, (blasint)rows, (blasint)cols, (blasint)p->k, 1.0f, x,
                (blasint)p->ldx, w, (blasint)p->ldw, p->beta, y, (blasint)p->ldy);
}

/* Threads walk the same list of tiles and take the next one that nobody has. */
static void run(const struct product *p, int64_t panel_rows, int64_t panel_cols,
                const struct lb_ragged *ragged) {
    assert(ragged == NULL || ragged->offsets[ragged->n_seqs] == p->m);
    if (p->m == 0 || p->n == 0) {
        return;
    }
    (void)pthread_once(&once, blas_single_threaded);
    int64_t n_groups = ragged != NULL ? ragged->n_seqs : 1;
    atomic_long next = 0;
#pragma omp parallel
    {
        long here = 0, mine = atomic_fetch_add(&next, 1);
        for (int64_t g = 0; g < n_groups; g++) {
            int64_t begin = ragged != NULL ? ragged->offsets[g] : 0;
            int64_t end = ragged != NULL ? ragged->offsets[g + 1] : p->m;
            for (int64_t row = begin; row < end; row += panel_rows) {
                int64_t rows = end - row < panel_rows ? end - row : panel_rows;
                for (int64_t col = 0; col < p->n; col += panel_cols) {
                    if (here++ == mine) {
                        tile(p, row, rows, col, p->n - col < panel_cols ? p->n - col : panel_cols);
                        mine = atomic_fetch_add(&next, 1);
                    }
                }
            }
        }
    }
}

void lb_gemm_nt(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy, const struct lb_ragged *ragged) {
    struct product p = {CblasNoTrans, CblasTrans, m, n, k, x, w, ldx, ldw, ldy, beta, y};
    run(&p, PANEL_ROWS, tile_cols(n), ragged);
}

void lb_gemm_nn(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy) {
    struct product p = {CblasNoTrans, CblasNoTrans, m, n, k, x, w, ldx, ldw, ldy, beta, y};
    run(&p, PANEL_ROWS, tile_cols(n), NULL);
}

void lb_gemm_tn(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy) {
    struct product p = {CblasTrans, CblasNoTrans, m, n, k, x, w, ldx, ldw, ldy, beta, y};
    run(&p, PANEL_ROWS, tile_cols(n), NULL);
}

void lb_gemm_nt_reference(int64_t m, int64_t n, int64_t k, const float *x, const float *w, float *y) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++) {
                sum += (double)x[i * k + l] * w[j * k + l];
            }
            y[i * n + j] = (float)sum;
        }
    }
}
