#include "common/nn/gemm.h"

#include "common/base/cgroup.h"
#include "common/nn/cpu.h"
#include "common/nn/dots.h"

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
/* Most floats of a panel that is widened: 16 MiB. */
#define WIDE_FLOATS ((int64_t)4 << 20)
/* Rows of a weight that are widened for dot products together, and how many of those a thread takes at a
 * time; up to so many weights are not worth waking threads for. */
#define STRIP_ROWS 4
#define STRIPS 8
#define STRIPS_ALONE 32768
/* Products that may wait do so until they have so many tiles a thread: enough to keep all busy to the end. */
#define WAITING_TILES 4

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* OpenBLAS must not start threads of its own: a product's bits would depend on how many there are. */
static void blas_single_threaded(void) {
    int threads = omp_get_max_threads();
    openblas_set_num_threads(1);
    omp_set_num_threads(threads); /* the OpenMP build of OpenBLAS lowers it for the whole thread */
}

/* ---- set-up -----------------------------------------------------------------------------------------------
 */

static bool is_one_of(const char *core, const char *const *cores, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(core, cores[i]) == 0) {
            return true;
        }
    }
    return false;
}

const char *lb_gemm_better_core(const char *core, enum lb_cpu_class cpu) {
    static const char *const avx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids"}, *const avx2[] = {
                                                                                          "Haswell", "Zen",
                                                                                          "Excavator"};
    bool has_avx512 = is_one_of(core, avx512, sizeof avx512 / sizeof avx512[0]);
    bool has_avx2 = has_avx512 || is_one_of(core, avx2, sizeof avx2 / sizeof avx2[0]);
    if (cpu == LB_CPU_AVX512) {
        return has_avx512 ? NULL : "SkylakeX";
    }
    return cpu == LB_CPU_AVX2 && !has_avx2 ? "Haswell" : NULL;
}

static bool setenv_if_absent(const char *name, const char *value) {
    return getenv(name) == NULL && setenv(name, value, 1) == 0;
}

void lb_gemm_setup(int threads, char **argv) {
    bool again = false;
    const char *core = lb_gemm_better_core(openblas_get_corename(), lb_cpu_class());
    if (core != NULL) {
        again |= setenv_if_absent("OPENBLAS_CORETYPE", core);
    }
    /* Libraries read these once, when they are loaded: so the program starts again with them set. Threads
     * that wait spin only briefly, since teachers and trainers often share one machine. */
    if (getenv("OMP_WAIT_POLICY") == NULL) {
        again |= setenv_if_absent("GOMP_SPINCOUNT", "20000");
    }
    if (threads <= 0 && getenv("OMP_NUM_THREADS") == NULL) {
        /* OpenMP itself looks at the affinity mask only. */
        struct lb_cpus cpus = lb_cpus("", lb_affinity());
        threads = cpus.usable < cpus.affinity ? cpus.usable : 0;
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

/* The tile as dot products. */
static void dots(const struct lb_gemm_product *p, const float *x, int64_t rows, const float *w, int64_t cols,
                 float *y) {
    lb_dots(&(struct lb_dots){x, w, y, p->ldx, p->ldw, p->ldy, p->k, p->beta}, rows, cols);
}

/* Whether a tile of so many rows is done in dot products; short_rows: they are of several sequences of few
 * rows each. */
static bool is_dots(const struct lb_gemm_product *p, int64_t rows, bool short_rows) {
    return (short_rows || rows <= DOT_ROWS) && !p->trans_x && p->trans_w;
}

/* Rows row .. row + rows - 1, columns col .. col + cols - 1 of the result. */
static void tile(const struct lb_gemm_product *p, int64_t row, int64_t rows, int64_t col, int64_t cols,
                 bool short_rows) {
    const float *x = p->trans_x ? p->x + row : p->x + row * p->ldx;
    const float *w = p->trans_w ? p->w + col * p->ldw : p->w + col;
    float *y = p->y + row * p->ldy + col;
    for (int64_t i = 0; p->bias != NULL && i < rows; i++) {
        memcpy(y + i * p->ldy, p->bias + col, (size_t)cols * sizeof *y);
    }
    if (is_dots(p, rows, short_rows)) {
        dots(p, x, rows, w, cols, y);
        return;
    }
    cblas_sgemm(CblasRowMajor, p->trans_x ? CblasTrans : CblasNoTrans, p->trans_w ? CblasTrans : CblasNoTrans,
                (blasint)rows, (blasint)cols, (blasint)p->k, 1.0f, x, (blasint)p->ldx, w, (blasint)p->ldw,
                p->beta, y, (blasint)p->ldy);
}

/* Sequences g .. end - 1 are multiplied as one: several where each is so short that it is done in dot
 * products, whose bits do not depend on who else is there; else one. */
static int64_t group_end(const struct lb_ragged *ragged, int64_t g, bool *out_short) {
    const int32_t *at = ragged->offsets;
    int64_t end = g;
    while (end < ragged->n_seqs && at[end + 1] - at[end] <= DOT_ROWS && at[end + 1] - at[g] <= PANEL_ROWS) {
        end++;
    }
    *out_short = end > g;
    return end > g ? end : g + 1;
}

/* A thread's way through all tiles: it takes the next that nobody has. */
struct walk {
    atomic_long *next;
    long here, mine;
};

/* Those of a product, each with what is added to it by the products that follow. */
static void walk_product(struct walk *walk, const struct lb_gemm_product *p) {
    const struct lb_ragged *ragged = p->ragged;
    int64_t n_groups = ragged != NULL ? ragged->n_seqs : 1;
    for (int64_t g = 0, next_g; g < n_groups; g = next_g) {
        bool short_rows = false;
        next_g = ragged != NULL ? group_end(ragged, g, &short_rows) : 1;
        int64_t begin = ragged != NULL ? ragged->offsets[g] : 0;
        int64_t end = ragged != NULL ? ragged->offsets[next_g] : p->m;
        for (int64_t row = begin; row < end; row += PANEL_ROWS) {
            int64_t rows = end - row < PANEL_ROWS ? end - row : PANEL_ROWS;
            for (int64_t col = 0; col < p->n; col += p->tile_cols) {
                if (walk->here++ != walk->mine) {
                    continue;
                }
                int64_t cols = p->n - col < p->tile_cols ? p->n - col : p->tile_cols;
                for (const struct lb_gemm_product *term = p; term != NULL; term = term->then) {
                    tile(term, row, rows, col, cols, short_rows);
                }
                walk->mine = atomic_fetch_add(walk->next, 1);
            }
        }
    }
}

/* n products that nobody precedes, n > 0, in one parallel region. */
static void run(const struct lb_gemm_product *const *products, int n) {
    (void)pthread_once(&once, blas_single_threaded);
    /* A tile of dot products is not worth waking threads for. All others run in a parallel region even when
     * there is but one: outside of one, OpenBLAS would take threads of its own. */
    bool alone = true;
    for (int i = 0; i < n; i++) {
        const struct lb_gemm_product *p = products[i];
        alone = alone && p->then == NULL && (p->ragged == NULL || p->ragged->n_seqs == 1) &&
                p->n <= p->tile_cols && is_dots(p, p->m, false);
    }
    atomic_long next = 0;
#pragma omp parallel if (!alone)
    {
        struct walk walk = {&next, 0, atomic_fetch_add(&next, 1)};
        for (int i = 0; i < n; i++) {
            walk_product(&walk, products[i]);
        }
    }
}

/* Multiply-adds of a tile with all that is added to it. */
static int64_t tile_work(const struct lb_gemm_product *p) {
    int64_t k = p->k;
    for (const struct lb_gemm_product *term = p->then; term != NULL; term = term->then) {
        k += term->k;
    }
    return (p->m < PANEL_ROWS ? p->m : PANEL_ROWS) * p->tile_cols * k;
}

static int64_t tiles_of(const struct lb_gemm_product *p) {
    return (p->m + PANEL_ROWS - 1) / PANEL_ROWS * ((p->n + p->tile_cols - 1) / p->tile_cols);
}

void lb_gemm_add(struct lb_gemm_list *list, const struct lb_gemm_product *product) {
    assert(product->ragged == NULL || product->ragged->offsets[product->ragged->n_seqs] == product->m);
    if (list->n == LB_GEMM_LIST) {
        lb_gemm_run(list, true);
    }
    if (product->m == 0 || product->n == 0) {
        return;
    }
    struct lb_gemm_product *p = &list->products[list->n];
    *p = *product;
    p->tile_cols = p->tile_cols > 0 ? p->tile_cols : tile_cols(p->n);
    p->then = NULL;
    p->follows = false;
    for (int i = list->n - 1; i >= 0 && !p->follows; i--) {
        struct lb_gemm_product *before = &list->products[i];
        if (before->y == p->y) {
            assert(before->m == p->m && before->n == p->n && before->tile_cols == p->tile_cols &&
                   before->waits == p->waits);
            p->follows = true;
            before->then = p;
        }
    }
    list->n++;
}

/* Large tiles first, so that small ones fill what is left at the end. */
static void put_by_work(const struct lb_gemm_product **order, int n, const struct lb_gemm_product *p) {
    int at = n;
    for (; at > 0 && tile_work(order[at - 1]) < tile_work(p); at--) {
        order[at] = order[at - 1];
    }
    order[at] = p;
}

void lb_gemm_run(struct lb_gemm_list *list, bool all) {
    const struct lb_gemm_product *order[LB_GEMM_LIST];
    struct lb_gemm_product kept[LB_GEMM_LIST];
    int64_t waiting = 0, enough = (int64_t)WAITING_TILES * omp_get_max_threads();
    int n = 0, n_kept = 0;
    for (int i = 0; i < list->n; i++) {
        const struct lb_gemm_product *p = &list->products[i];
        waiting += p->waits && !p->follows ? tiles_of(p) : 0;
    }
    all = all || waiting >= enough;
    for (int i = 0; i < list->n; i++) {
        const struct lb_gemm_product *p = &list->products[i];
        if (!all && p->waits) {
            kept[n_kept++] = *p;
        } else if (!p->follows) {
            put_by_work(order, n++, p);
        }
    }
    if (n > 0) {
        run(order, n);
    }
    list->n = 0;
    for (int i = 0; i < n_kept; i++) {
        lb_gemm_add(list, &kept[i]);
    }
}

/* A plain product, at once. */
static void run_one(const struct lb_gemm_product *product) {
    struct lb_gemm_product p = *product;
    assert(p.ragged == NULL || p.ragged->offsets[p.ragged->n_seqs] == p.m);
    p.tile_cols = p.tile_cols > 0 ? p.tile_cols : tile_cols(p.n);
    if (p.m > 0 && p.n > 0) {
        const struct lb_gemm_product *only = &p;
        run(&only, 1);
    }
}

void lb_gemm_nt(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy, const struct lb_ragged *ragged) {
    run_one(
        &(struct lb_gemm_product){m, n, k, x, ldx, w, ldw, y, ldy, beta, .trans_w = true, .ragged = ragged});
}

void lb_gemm_nn(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy) {
    run_one(&(struct lb_gemm_product){m, n, k, x, ldx, w, ldw, y, ldy, beta});
}

void lb_gemm_tn(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy) {
    run_one(&(struct lb_gemm_product){m, n, k, x, ldx, w, ldw, y, ldy, beta, .trans_x = true});
}

/* ---- stored weights ---------------------------------------------------------------------------------------
 */

static void widen_row(const struct lb_weight *w, int64_t r, float *out) {
    size_t row_bytes = 0;
    (void)lb_dtype_bytes(w->dtype, w->cols, &row_bytes); /* checked when the model was opened */
    lb_dequantize(w->dtype, lb_weight_row(w, r, row_bytes), out, w->cols);
}

void lb_gemm_widen(const struct lb_weight *w, int64_t first, int64_t n, float *out) {
#pragma omp parallel for schedule(static) if (n * w->cols > 65536)
    for (int64_t r = 0; r < n; r++) {
        widen_row(w, first + r, out + r * w->cols);
    }
}

/* Rows of w that are widened at a time: whole tiles. */
static int64_t wide_rows(const struct lb_weight *w) {
    int64_t step = lb_gemm_panel_step(w), rows = WIDE_FLOATS / w->cols / step * step;
    rows = rows > step ? rows : step;
    return w->dtype == LB_F32 || rows > w->rows ? w->rows : rows;
}

int64_t lb_gemm_panel_step(const struct lb_weight *w) {
    return tile_cols(w->rows);
}

int64_t lb_gemm_panel_floats(const struct lb_weight *w, int64_t n) {
    return w->dtype == LB_F32 ? 0 : n * w->cols;
}

struct lb_gemm_panel lb_gemm_panel(const struct lb_weight *w, int64_t first, int64_t n, int64_t longest,
                                   float *workspace) {
    assert(first % lb_gemm_panel_step(w) == 0 && first + n <= w->rows);
    bool strips = w->dtype != LB_F32 && longest <= DOT_ROWS;
    struct lb_gemm_panel panel = {w, first, n, strips, workspace, workspace};
    if (w->dtype == LB_F32) {
        panel.data = (const float *)w->data + first * w->cols;
    } else if (!strips) {
        lb_gemm_widen(w, first, n, workspace);
    }
    return panel;
}

/* Asks for the next strip's rows, of those before end: they come while this one is multiplied with. */
static void fetch_rows(const struct lb_weight *w, int64_t first, int64_t end) {
    size_t row_bytes = 0;
    (void)lb_dtype_bytes(w->dtype, w->cols, &row_bytes);
    for (int64_t r = first; r < end && r < first + STRIP_ROWS; r++) {
        const char *row = lb_weight_row(w, r, row_bytes);
        for (size_t i = 0; i < row_bytes; i += 64) {
            __builtin_prefetch(row + i);
        }
    }
}

/* Columns first .. first + n - 1 of the product, their rows of the panel widened into rows. */
static void strip(const struct lb_gemm_product *p, const struct lb_gemm_panel *panel, int64_t first,
                  int64_t n, float *rows) {
    for (int64_t r = 0; r < n; r++) {
        widen_row(panel->w, panel->first + first + r, rows + r * p->k);
    }
    fetch_rows(panel->w, panel->first + first + n, panel->first + panel->n);
    for (int64_t row = 0; row < p->m; row += PANEL_ROWS) {
        dots(p, p->x + row * p->ldx, p->m - row < PANEL_ROWS ? p->m - row : PANEL_ROWS, rows, n,
             p->y + row * p->ldy + first);
    }
}

/* As many as there are strips for; one where the product is soon done. */
static int strip_threads(const struct lb_gemm_product *p) {
    int64_t most = p->n * p->k <= STRIPS_ALONE ? 1 : p->n / STRIP_ROWS;
    int threads = omp_get_max_threads();
    threads = threads > most ? (int)most : threads;
    return threads > 1 ? threads : 1;
}

/* A panel that is not widened, in dot products: a thread multiplies with the few rows that it has just
 * widened while its nearest cache holds them. The same bits: an element's sum does not depend on the tile it
 * stands in. */
static void by_strips(const struct lb_gemm_product *p, const struct lb_gemm_panel *panel) {
#pragma omp parallel for schedule(dynamic, STRIPS) num_threads(strip_threads(p))
    for (int64_t first = 0; first < p->n; first += STRIP_ROWS) {
        int64_t n = p->n - first < STRIP_ROWS ? p->n - first : STRIP_ROWS;
        strip(p, panel, first, n, panel->workspace + omp_get_thread_num() * STRIP_ROWS * p->k);
    }
}

void lb_gemm_by_panel(const float *x, int64_t m, const struct lb_gemm_panel *panel, float beta, float *y,
                      int64_t ldy, const struct lb_ragged *ragged) {
    int64_t c = panel->w->cols;
    const struct lb_gemm_product p = {m,
                                      panel->n,
                                      c,
                                      x,
                                      c,
                                      panel->data,
                                      c,
                                      y,
                                      ldy,
                                      beta,
                                      .trans_w = true,
                                      .tile_cols = lb_gemm_panel_step(panel->w),
                                      .ragged = ragged};
    if (panel->strips) {
        by_strips(&p, panel);
    } else {
        run_one(&p);
    }
}

void lb_gemm_by_panel_back(const float *dy, int64_t ldy, int64_t m, const struct lb_gemm_panel *panel,
                           float beta, float *dx) {
    int64_t c = panel->w->cols;
    assert(!panel->strips);
    lb_gemm_nn(m, c, panel->n, dy, ldy, panel->data, c, beta, dx, c);
}

int64_t lb_gemm_weight_floats(const struct lb_weight *w) {
    return lb_gemm_panel_floats(w, wide_rows(w));
}

void lb_gemm_weight(const float *x, int64_t m, const struct lb_weight *w, float beta, float *y,
                    const struct lb_ragged *ragged, float *workspace) {
    int64_t step = wide_rows(w), longest = ragged != NULL ? 0 : m;
    for (int64_t s = 0; ragged != NULL && s < ragged->n_seqs; s++) {
        int64_t rows = ragged->offsets[s + 1] - ragged->offsets[s];
        longest = rows > longest ? rows : longest;
    }
    for (int64_t first = 0; first < w->rows; first += step) {
        int64_t n = w->rows - first < step ? w->rows - first : step;
        struct lb_gemm_panel panel = lb_gemm_panel(w, first, n, longest, workspace);
        lb_gemm_by_panel(x, m, &panel, beta, y + first, w->rows, ragged);
    }
}

void lb_gemm_weight_back(const float *dy, int64_t m, const struct lb_weight *w, float beta, float *dx,
                         float *workspace) {
    int64_t step = wide_rows(w);
    for (int64_t first = 0; first < w->rows; first += step) {
        int64_t n = w->rows - first < step ? w->rows - first : step;
        struct lb_gemm_panel panel = lb_gemm_panel(w, first, n, INT64_MAX, workspace);
        lb_gemm_by_panel_back(dy + first, w->rows, m, &panel, first == 0 ? beta : 1, dx);
    }
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
