#include "tests/grad/state_formulas.h"

#include <math.h>

double lb_formula_mse(const double *a, const struct lb_states *s, bool normalize) {
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        double row = 0;
        for (int j = 0; j < s->width; j++) {
            double d = a[i * s->width + j] - s->b[i * s->width + j];
            row += d * d;
        }
        sum += s->row_weight[i] * row / (double)s->width;
    }
    return normalize ? sum * s->inverse_square : sum;
}

double lb_formula_cosine(const double *a, const struct lb_states *s, bool normalize) {
    (void)normalize;
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        double aa = 0, bb = 0, ab = 0;
        for (int j = 0; j < s->width; j++) {
            double x = a[i * s->width + j], y = s->b[i * s->width + j];
            aa += x * x;
            bb += y * y;
            ab += x * y;
        }
        sum += s->row_weight[i] * (1 - ab / sqrt(aa * bb));
    }
    return sum;
}

/* The mean over heads and causal entries, of an encoder over all, times T, each row by its weight. */
double lb_formula_attention_mse(const double *a, const struct lb_states *s, bool normalize) {
    (void)normalize;
    double sum = 0, t = (double)s->width;
    for (int i = 0; i < s->n; i++) {
        for (int j = 0; j < s->width; j++) {
            double d = a[i * s->width + j] - s->b[i * s->width + j];
            sum += s->row_weight[i] * d * d;
        }
    }
    return sum * t / ((double)s->heads * t * (s->both_ways ? t : (t + 1) / 2));
}

/* The squared distance of rows of length 1. */
double lb_formula_pkd(const double *a, const struct lb_states *s, bool normalize) {
    (void)normalize;
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        double aa = 0, bb = 0;
        for (int j = 0; j < s->width; j++) {
            aa += a[i * s->width + j] * a[i * s->width + j];
            bb += (double)s->b[i * s->width + j] * (double)s->b[i * s->width + j];
        }
        for (int j = 0; j < s->width; j++) {
            double d = a[i * s->width + j] / sqrt(aa) - s->b[i * s->width + j] / sqrt(bb);
            sum += s->row_weight[i] * d * d;
        }
    }
    return sum;
}

static void widen(const struct lb_states *s, double *b) {
    for (int i = 0; i < s->n * s->b_width; i++) {
        b[i] = s->b[i];
    }
}

/* Row i of the Gram matrix of x's rows first .. end - 1 that are there, divided by its length. */
static void gram_row(const double *x, int64_t width, const struct lb_states *s, int first, int end, int i,
                     double *out) {
    double square = 0;
    for (int j = first; j < end; j++) {
        double dot = 0;
        for (int c = 0; c < width; c++) {
            dot += x[i * width + c] * x[j * width + c];
        }
        out[j - first] = s->row_weight[j] > 0 ? dot : 0;
        square += out[j - first] * out[j - first];
    }
    for (int j = 0; j < end - first; j++) {
        out[j] /= sqrt(square);
    }
}

double lb_formula_similarity(const double *a, const struct lb_states *s, bool normalize) {
    (void)normalize;
    double sum = 0, b[LB_FORMULA_NUMBERS], own[LB_FORMULA_ROWS], its[LB_FORMULA_ROWS];
    widen(s, b);
    for (int g = 0; g < s->n_groups; g++) {
        int first = s->groups[g], end = s->groups[g + 1], m = 0;
        for (int i = first; i < end; i++) {
            m += s->row_weight[i] > 0 ? 1 : 0;
        }
        for (int i = first; i < end; i++) {
            gram_row(a, s->width, s, first, end, i, own);
            gram_row(b, s->b_width, s, first, end, i, its);
            for (int j = 0; j < end - first; j++) {
                sum += s->row_weight[i] * (own[j] - its[j]) * (own[j] - its[j]) / m;
            }
        }
    }
    return sum;
}

/* The mean squares of the rows of a group, as one vector of length 1. */
static void energies(const double *x, int64_t width, const struct lb_states *s, int first, int end,
                     double *out) {
    double square = 0;
    for (int i = first; i < end; i++) {
        out[i - first] = 0;
        for (int c = 0; c < width; c++) {
            double at = s->row_weight[i] > 0 ? x[i * width + c] : 0;
            out[i - first] += at * at / (double)width;
        }
        square += out[i - first] * out[i - first];
    }
    for (int i = 0; i < end - first; i++) {
        out[i] /= sqrt(square);
    }
}

double lb_formula_transfer(const double *a, const struct lb_states *s, bool normalize) {
    (void)normalize;
    double sum = 0, b[LB_FORMULA_NUMBERS], own[LB_FORMULA_ROWS], its[LB_FORMULA_ROWS];
    widen(s, b);
    for (int g = 0; g < s->n_groups; g++) {
        int first = s->groups[g], end = s->groups[g + 1];
        energies(a, s->width, s, first, end, own);
        energies(b, s->b_width, s, first, end, its);
        for (int i = first; i < end; i++) {
            double d = own[i - first] - its[i - first];
            sum += s->row_weight[i] * d * d;
        }
    }
    return sum;
}

/* The mean over heads of KL(teacher's, student's) of each row, the teacher's made to sum to 1. */
double lb_formula_attention_kl(const double *a, const struct lb_states *s, bool normalize) {
    (void)normalize;
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        double all = 0;
        for (int j = 0; j < s->width; j++) {
            all += (double)s->b[i * s->width + j];
        }
        for (int j = 0; j < s->width; j++) {
            double p = (double)s->b[i * s->width + j] / all;
            sum += p > 0 ? s->row_weight[i] * p * log(p / a[i * s->width + j]) / (double)s->heads : 0;
        }
    }
    return sum;
}

/* Row i of a group's relations of one head: softmax over what is there, and seen, of x_h x_h^T / sqrt(d). */
static void relation_row(const double *x, int64_t width, int head, const struct lb_states *s, int first,
                         int end, int i, double *out) {
    int64_t d = width / LB_FORMULA_RELATION_HEADS;
    double sum = 0;
    for (int j = first; j < end; j++) {
        double dot = 0;
        for (int64_t c = head * d; c < (head + 1) * d; c++) {
            dot += x[i * width + c] * x[j * width + c];
        }
        bool seen = s->row_weight[j] > 0 && (s->both_ways || j <= i);
        out[j - first] = seen ? exp(dot / sqrt((double)d)) : 0;
        sum += out[j - first];
    }
    for (int j = 0; j < end - first; j++) {
        out[j] /= sum;
    }
}

double lb_formula_relation(const double *a, const struct lb_states *s, bool normalize) {
    (void)normalize;
    double sum = 0, b[LB_FORMULA_NUMBERS], own[LB_FORMULA_ROWS], its[LB_FORMULA_ROWS];
    widen(s, b);
    for (int g = 0; g < s->n_groups; g++) {
        int first = s->groups[g], end = s->groups[g + 1];
        for (int n = LB_FORMULA_RELATION_HEADS * first; n < LB_FORMULA_RELATION_HEADS * end; n++) {
            int head = n % LB_FORMULA_RELATION_HEADS, i = n / LB_FORMULA_RELATION_HEADS;
            relation_row(a, s->width, head, s, first, end, i, own);
            relation_row(b, s->b_width, head, s, first, end, i, its);
            for (int j = 0; j < end - first && s->row_weight[i] > 0; j++) {
                double kl = its[j] > 0 ? its[j] * log(its[j] / own[j]) : 0;
                sum += s->row_weight[i] * kl / LB_FORMULA_RELATION_HEADS;
            }
        }
    }
    return sum;
}

static double cosine_of(const double *x, const double *y, int64_t n) {
    double xx = 0, yy = 0, xy = 0;
    for (int64_t i = 0; i < n; i++) {
        xx += x[i] * x[i];
        yy += y[i] * y[i];
        xy += x[i] * y[i];
    }
    return xy / sqrt(xx * yy);
}

/* -log of the share that a row's own partner has among those of its group. */
double lb_formula_contrast(const double *a, const struct lb_states *s, bool normalize) {
    (void)normalize;
    double total = 0, b[LB_FORMULA_NUMBERS];
    widen(s, b);
    for (int g = 0; g < s->n_groups; g++) {
        for (int i = s->groups[g]; i < s->groups[g + 1]; i++) {
            double sum = 0, own = 0;
            for (int j = s->groups[g]; j < s->groups[g + 1]; j++) {
                double at = cosine_of(a + i * s->width, b + j * s->width, s->width);
                sum += s->row_weight[j] > 0 ? exp(at / LB_FORMULA_CONTRAST_TEMP) : 0;
                own = j == i ? at / LB_FORMULA_CONTRAST_TEMP : own;
            }
            total += s->row_weight[i] * (log(sum) - own);
        }
    }
    return total;
}
