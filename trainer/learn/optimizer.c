#include "trainer/learn/optimizer.h"

#include "common/base/mem.h"

#include <math.h>
#include <string.h>

#define CHUNK 16384 /* floats that one thread handles at once; part of what the bits depend on */

/* A stretch of one weight. */
struct chunk {
    size_t weight;
    int64_t start, len;
};

struct lb_optimizer {
    double weight_decay, beta1, beta2, epsilon, max_norm;
    int64_t steps;
    struct lb_optimized *weights;
    size_t n_weights;
    struct chunk *chunks;
    size_t n_chunks;
    double *sums;   /* [n_chunks] of squares */
    float *moments; /* all m, then all v */
};

static int64_t numel(const struct lb_optimized *w) {
    return w->rows * w->cols;
}

static enum lb_status take_weights(struct lb_optimizer *o, const struct lb_weight_group *groups,
                                   size_t n_groups, size_t *out_total, struct lb_detail *detail) {
    size_t total = 0, at = 0;
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t i = 0; i < groups[g].n; i++) {
            const struct lb_weight *w = &groups[g].weights[i];
            if (w->value == NULL || w->grad == NULL) {
                return lb_fail(detail, LB_E_ARG, "%s: not trainable; open the model for training", w->name);
            }
            o->weights[at++] =
                (struct lb_optimized){w->name, w->rows, w->cols, w->n_dims, w->value, w->grad, NULL, NULL};
            total += (size_t)(w->rows * w->cols);
            o->n_chunks += (size_t)((w->rows * w->cols + CHUNK - 1) / CHUNK);
        }
    }
    *out_total = total;
    return LB_OK;
}

static void lay_out(struct lb_optimizer *o, size_t total) {
    float *m = o->moments, *v = o->moments + total;
    size_t at = 0;
    for (size_t i = 0; i < o->n_weights; i++) {
        int64_t n = numel(&o->weights[i]);
        o->weights[i].m = m;
        o->weights[i].v = v;
        m += n;
        v += n;
        for (int64_t start = 0; start < n; start += CHUNK) {
            o->chunks[at++] = (struct chunk){i, start, n - start < CHUNK ? n - start : CHUNK};
        }
    }
}

enum lb_status lb_optimizer_create(const struct lb_recipe *recipe, const struct lb_weight_group *groups,
                                   size_t n_groups, struct lb_optimizer **out, struct lb_detail *detail) {
    struct lb_optimizer *o = lb_calloc(1, sizeof *o);
    enum lb_status status = LB_E_NOMEM;
    if (o == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the optimizer");
    }
    o->weight_decay = recipe->weight_decay;
    o->beta1 = recipe->adam_beta1;
    o->beta2 = recipe->adam_beta2;
    o->epsilon = recipe->adam_epsilon;
    o->max_norm = recipe->max_grad_norm;
    for (size_t g = 0; g < n_groups; g++) {
        o->n_weights += groups[g].n;
    }
    o->weights = lb_calloc(o->n_weights, sizeof *o->weights);
    if (o->weights == NULL) {
        goto out;
    }
    size_t total = 0;
    status = take_weights(o, groups, n_groups, &total, detail);
    if (status != LB_OK) {
        goto out;
    }
    o->chunks = lb_calloc(o->n_chunks, sizeof *o->chunks);
    o->sums = lb_calloc(o->n_chunks, sizeof *o->sums);
    o->moments = total <= SIZE_MAX / 16 ? lb_malloc_aligned(2 * total * sizeof(float)) : NULL;
    if (o->chunks == NULL || o->sums == NULL || o->moments == NULL) {
        status = LB_E_NOMEM;
        goto out;
    }
    memset(o->moments, 0, 2 * total * sizeof(float));
    lay_out(o, total);
    *out = o;
    o = NULL;
out:
    if (status == LB_E_NOMEM) {
        lb_fail(detail, LB_E_NOMEM, "out of memory for the optimizer's moments");
    }
    lb_optimizer_destroy(o);
    return status;
}

void lb_optimizer_destroy(struct lb_optimizer *optimizer) {
    if (optimizer != NULL) {
        lb_free(optimizer->weights);
        lb_free(optimizer->chunks);
        lb_free(optimizer->sums);
        lb_free(optimizer->moments);
        lb_free(optimizer);
    }
}

/* Eight running sums that a compiler may keep in a vector: the order of additions is fixed by this text. */
static double sum_of_squares(const float *g, int64_t n) {
    double acc[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++) {
            acc[j] += (double)g[i + j] * (double)g[i + j];
        }
    }
    double sum = ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
    for (; i < n; i++) {
        sum += (double)g[i] * (double)g[i];
    }
    return sum;
}

static double gradient_norm(struct lb_optimizer *o) {
    int64_t n = (int64_t)o->n_chunks;
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < n; c++) {
        const struct chunk *chunk = &o->chunks[c];
        o->sums[c] = sum_of_squares(o->weights[chunk->weight].grad + chunk->start, chunk->len);
    }
    double sum = 0;
    for (int64_t c = 0; c < n; c++) {
        sum += o->sums[c];
    }
    return sqrt(sum);
}

/* What one step multiplies with, as floats. */
struct factors {
    float grad, mix1, beta2, mix2, decay, rate, root, epsilon; /* mix: 1 - beta, rounded once */
};

/* p, g, m, v [n]; root is 1 / sqrt(1 - b2^t), rate is lr / (1 - b1^t), decay is 1 - lr wd. */
static void update(float *restrict p, float *restrict g, float *restrict m, float *restrict v, int64_t n,
                   struct factors f, float decay) {
    for (int64_t i = 0; i < n; i++) {
        float grad = g[i] * f.grad;
        float mi = m[i] + f.mix1 * (grad - m[i]);
        float vi = f.beta2 * v[i] + f.mix2 * grad * grad;
        p[i] = p[i] * decay - f.rate * (mi / (sqrtf(vi) * f.root + f.epsilon));
        m[i] = mi;
        v[i] = vi;
        g[i] = 0.0f;
    }
}

static enum lb_status name_the_bad(const struct lb_optimizer *o, struct lb_detail *detail) {
    for (size_t i = 0; i < o->n_weights; i++) {
        const struct lb_optimized *w = &o->weights[i];
        for (int64_t j = 0; j < numel(w); j++) {
            if (!isfinite(w->grad[j])) {
                return lb_fail(detail, LB_E_ARG,
                               "step %lld: the gradient of %s is not a finite number at element %lld; lower "
                               "learning_rate, "
                               "warm up longer, or look at the data of this step",
                               (long long)o->steps + 1, w->name, (long long)j);
            }
        }
    }
    return lb_fail(detail, LB_E_ARG,
                   "step %lld: the norm of the gradient is not a finite number; lower learning_rate",
                   (long long)o->steps + 1);
}

enum lb_status lb_optimizer_step(struct lb_optimizer *optimizer, double lr, double grad_scale,
                                 double *out_norm, struct lb_detail *detail) {
    struct lb_optimizer *o = optimizer;
    double norm = gradient_norm(o) * fabs(grad_scale);
    if (!isfinite(norm)) {
        return name_the_bad(o, detail);
    }
    double clip = o->max_norm > 0 && norm > o->max_norm ? o->max_norm / norm : 1.0;
    double t = (double)++o->steps;
    const struct factors f = {.grad = (float)(grad_scale * clip),
                              .mix1 = (float)(1.0 - o->beta1),
                              .beta2 = (float)o->beta2,
                              .mix2 = (float)(1.0 - o->beta2),
                              .decay = (float)(1.0 - lr * o->weight_decay),
                              .rate = (float)(lr / (1.0 - pow(o->beta1, t))),
                              .root = (float)(1.0 / sqrt(1.0 - pow(o->beta2, t))),
                              .epsilon = (float)o->epsilon};
    int64_t n = (int64_t)o->n_chunks;
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < n; c++) {
        const struct chunk *chunk = &o->chunks[c];
        const struct lb_optimized *w = &o->weights[chunk->weight];
        update(w->value + chunk->start, w->grad + chunk->start, w->m + chunk->start, w->v + chunk->start,
               chunk->len, f, w->n_dims >= 2 ? f.decay : 1.0f);
    }
    *out_norm = norm;
    return LB_OK;
}

void lb_optimizer_zero(struct lb_optimizer *optimizer) {
    for (size_t i = 0; i < optimizer->n_weights; i++) {
        memset(optimizer->weights[i].grad, 0, (size_t)numel(&optimizer->weights[i]) * sizeof(float));
    }
}

const struct lb_optimized *lb_optimizer_weights(const struct lb_optimizer *optimizer, size_t *out_n) {
    *out_n = optimizer->n_weights;
    return optimizer->weights;
}

int64_t lb_optimizer_steps(const struct lb_optimizer *optimizer) {
    return optimizer->steps;
}

void lb_optimizer_set_steps(struct lb_optimizer *optimizer, int64_t steps) {
    optimizer->steps = steps;
}
