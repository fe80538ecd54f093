/* Attention transfer (Zagoruyko and Komodakis 2017, eq. 2, as the authors' code has it): at which positions
 * of a text states are large, whatever widths they have. With e_i = mean_c a_ic^2 of the rows of a text that
 * are there, u = e / |e| and v the same of the teacher's, L_i = (u_i - v_i)^2 per row; dL/du_i = 2 w_i (u_i -
 * v_i),   dL/de_i = (du_i - u_i (u . du)) / |e|,   dL/da_ic = 2 a_ic de_i / C. */
#include "trainer/loss/loss.h"

#include <math.h>

#define LEAST 1e-12 /* length of e, as torch's normalize */

static size_t transfer_work(const struct lb_states *s, const struct lb_loss_args *args) {
    (void)args;
    return 2 * (size_t)s->n * sizeof(double);
}

/* e of n rows of x [n, width]; 0 where none is there. Returns |e|. */
static double energies(const float *x, int64_t n, int64_t width, const double *weight, double *e) {
    double sum = 0;
#pragma omp parallel for schedule(static) if (n * width > 16384)
    for (int64_t i = 0; i < n; i++) {
        double square = 0;
        for (int64_t j = 0; j < width; j++) {
            square += (double)x[i * width + j] * (double)x[i * width + j];
        }
        e[i] = weight[i] > 0 ? square / (double)width : 0;
    }
    for (int64_t i = 0; i < n; i++) {
        sum += e[i] * e[i];
    }
    return fmax(sqrt(sum), LEAST);
}

static double attention_transfer(const struct lb_states *s, const struct lb_loss_args *args, double scale,
                                 float *da) {
    (void)args;
    double loss = 0;
    for (int64_t k = 0; k < s->n_groups; k++) {
        int64_t first = s->groups[k], n = s->groups[k + 1] - first, c = s->width;
        const double *weight = s->row_weight + first;
        double *own = s->work, *its = own + n, along = 0;
        double r = energies(s->a + first * c, n, c, weight, own);
        double q = energies(s->b + first * s->b_width, n, s->b_width, weight, its);
        for (int64_t i = 0; i < n; i++) {
            double u = own[i] / r, d = u - its[i] / q;
            loss += weight[i] * d * d;
            its[i] = 2 * scale * weight[i] * d;
            along += u * its[i];
        }
#pragma omp parallel for schedule(static) if (n * c > 16384)
        for (int64_t i = 0; i < n; i++) {
            double de = weight[i] > 0 ? (its[i] - own[i] / r * along) / r : 0;
            float factor = (float)(2 * de / (double)c);
            for (int64_t j = (first + i) * c; j < (first + i + 1) * c; j++) {
                da[j] += factor * s->a[j];
            }
        }
    }
    return loss;
}

const struct lb_loss lb_loss_attention_transfer = {.name = "attention_transfer",
                                                   .on = LB_ON_HIDDEN,
                                                   .parameters = "layer_mapping",
                                                   .any_width = true,
                                                   .among = LB_AMONG_POSITIONS,
                                                   .work = transfer_work,
                                                   .state = attention_transfer};
