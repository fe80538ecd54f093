#include "trainer/learn/muon.h"

#include "common/nn/gemm.h"

#include <math.h>
#include <string.h>

#define TIMES 5
#define LEAST_NORM 1e-7

bool lb_muon_takes(const struct lb_weight *w) {
    static const char *const others[] = {"embed", "wte", "wpe", "lm_head", "classifier", "score", "cls."};
    bool takes = w->n_dims == 2;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        takes = takes && strstr(w->name, others[i]) == NULL;
    }
    return takes;
}

int64_t lb_muon_floats(int64_t rows, int64_t cols) {
    int64_t r = rows < cols ? rows : cols;
    return 2 * rows * cols + 2 * r * r;
}

/* Where element i of [rows, cols] stands in the matrix whose rows are the shorter side. */
static int64_t place(int64_t i, int64_t rows, int64_t cols) {
    return rows > cols ? i % cols * rows + i / cols : i;
}

/* x [n] of the momentum and the gradient, which becomes 0; divided by its norm. */
static void direction(const struct lb_update_part *part, int64_t rows, int64_t cols,
                      const struct lb_update_now *now, float *x) {
    float *g = part->grad, *m = part->state[0];
    const float scale = (float)now->grad_scale, mix = (float)(1.0 - now->momentum),
                momentum = (float)now->momentum;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < part->n; i++) {
        float grad = g[i] * scale;
        m[i] += mix * (grad - m[i]);
        x[place(i, rows, cols)] = now->nesterov ? grad + momentum * (m[i] - grad) : m[i];
        g[i] = 0.0f;
    }
    double squares = 0;
    for (int64_t i = 0; i < part->n; i++) {
        squares += (double)x[i] * (double)x[i];
    }
    const float by = (float)(1.0 / fmax(sqrt(squares), LEAST_NORM));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < part->n; i++) {
        x[i] *= by;
    }
}

/* x [r, c] becomes more orthogonal; the result is x or y, as the number of times is even or odd. */
static float *orthogonalise(int64_t r, int64_t c, float *x, float *y, float *a, float *b) {
    static const float by[] = {3.4445f, -4.7750f, 2.0315f};
    for (int i = 0; i < TIMES; i++) {
        lb_gemm_nt(r, r, c, x, c, x, c, 0, a, r, NULL);
        lb_gemm_nn(r, r, r, a, r, a, r, 0, b, r);
#pragma omp parallel for schedule(static)
        for (int64_t j = 0; j < r * r; j++) {
            b[j] = by[1] * a[j] + by[2] * b[j];
        }
#pragma omp parallel for schedule(static)
        for (int64_t j = 0; j < r * c; j++) {
            y[j] = by[0] * x[j];
        }
        lb_gemm_nn(r, c, r, b, r, x, c, 1, y, c);
        float *next = y;
        y = x;
        x = next;
    }
    return x;
}

void lb_muon_step(const struct lb_update_part *part, int64_t rows, int64_t cols,
                  const struct lb_update_now *now, float *workspace) {
    int64_t r = rows < cols ? rows : cols, c = rows < cols ? cols : rows;
    float *x = workspace, *y = x + r * c, *a = y + r * c, *p = part->value;
    direction(part, rows, cols, now, x);
    x = orthogonalise(r, c, x, y, a, a + r * r);
    const float rate = (float)(now->lr * 0.2 * sqrt((double)c)),
                decay = part->decays ? (float)(1.0 - now->lr * now->weight_decay) : 1.0f;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < part->n; i++) {
        p[i] = p[i] * decay - rate * x[place(i, rows, cols)];
    }
}
