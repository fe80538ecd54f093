#include "trainer/learn/optimizer.h"

#include "common/base/mem.h"
#include "common/nn/tape.h"
#include "trainer/learn/muon.h"
#include "trainer/learn/updates.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#define CHUNK 16384 /* floats that one thread handles at once; part of what the bits depend on */

/* A stretch of one weight. */
struct chunk {
    size_t weight;
    int64_t start, len;
};

struct lb_optimizer {
    const struct lb_update_rule *rule;
    struct lb_update_now settings; /* what of a step does not change */
    double max_norm;
    int64_t steps;
    unsigned n_states, average; /* average: which of them is the weights' average; n_states: none */
    double ema_decay;
    struct lb_optimized *weights;
    size_t n_weights;
    struct chunk *chunks;
    size_t n_chunks;
    double *sums;  /* [n_chunks] of squares */
    float *states; /* all of the first, then all of the second */
    float *muon;   /* workspace for the largest matrix that is moved as a whole; NULL: none is */
};

static int64_t numel(const struct lb_optimized *w) {
    return w->rows * w->cols;
}

/* The rule of Hugging Face's Trainer (get_decay_parameter_names): biases and norms do not decay, by what they
 * are called ("norm" as a word of its own, or the end of one). Vectors are such, whatever their name. */
static bool decays(const struct lb_weight *w) {
    static const char *const parts[] = {"bias", "layernorm", "rmsnorm"};
    char name[256];
    size_t n = 0;
    for (; w->name[n] != '\0' && n + 1 < sizeof name; n++) {
        name[n] = (char)tolower((unsigned char)w->name[n]);
    }
    name[n] = '\0';
    bool norm = w->n_dims < 2;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        norm = norm || strstr(name, parts[i]) != NULL;
    }
    for (const char *at = name; (at = strstr(at, "norm")) != NULL; at++) {
        bool begins = at == name || at[-1] == '.' || at[-1] == '_';
        norm = norm || (begins && (at[4] == '.' || at[4] == '\0'));
    }
    return !norm;
}

static enum lb_status take_weights(struct lb_optimizer *o, const struct lb_weight_group *groups,
                                   size_t n_groups, size_t *out_total, struct lb_detail *detail) {
    size_t total = 0, at = 0;
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t i = 0; i < groups[g].n; i++) {
            const struct lb_weight *w = &groups[g].weights[i];
            if (w->value == NULL) {
                return lb_fail(detail, LB_E_ARG, "%s: not trainable; open the model for training", w->name);
            }
            o->weights[at++] = (struct lb_optimized){.name = w->name,
                                                     .rows = w->rows,
                                                     .cols = w->cols,
                                                     .n_dims = w->n_dims,
                                                     .decays = decays(w),
                                                     .whole = o->rule->muon && lb_muon_takes(w),
                                                     .value = w->value,
                                                     .grad = w->grad};
            if (w->grad == NULL) { /* frozen */
                continue;
            }
            total += (size_t)(w->rows * w->cols);
            o->n_chunks += (size_t)((w->rows * w->cols + CHUNK - 1) / CHUNK);
        }
    }
    *out_total = total;
    return LB_OK;
}

static void lay_out(struct lb_optimizer *o, size_t total) {
    size_t at = 0, place = 0;
    for (size_t i = 0; i < o->n_weights; i++) {
        int64_t n = o->weights[i].grad != NULL ? numel(&o->weights[i]) : 0;
        for (unsigned s = 0; n > 0 && s < o->n_states; s++) {
            o->weights[i].state[s] = o->states + s * total + place;
        }
        place += (size_t)n;
        for (int64_t start = 0; start < n; start += CHUNK) {
            o->chunks[at++] = (struct chunk){i, start, n - start < CHUNK ? n - start : CHUNK};
        }
    }
}

static bool reserve_muon(struct lb_optimizer *o) {
    int64_t most = 0;
    for (size_t i = 0; i < o->n_weights; i++) {
        const struct lb_optimized *w = &o->weights[i];
        int64_t floats = w->whole && w->grad != NULL ? lb_muon_floats(w->rows, w->cols) : 0;
        most = floats > most ? floats : most;
    }
    o->muon = most > 0 ? lb_malloc_aligned((size_t)most * sizeof *o->muon) : NULL;
    return most == 0 || o->muon != NULL;
}

enum lb_status lb_optimizer_create(const struct lb_recipe *recipe, const struct lb_weight_group *groups,
                                   size_t n_groups, struct lb_optimizer **out, struct lb_detail *detail) {
    struct lb_optimizer *o = lb_calloc(1, sizeof *o);
    enum lb_status status = LB_E_NOMEM;
    if (o == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the optimizer");
    }
    o->rule = lb_update_rule(recipe);
    o->average = lb_update_states(o->rule, recipe);
    o->n_states = o->average + (recipe->ema_decay > 0);
    o->ema_decay = recipe->ema_decay;
    o->settings = (struct lb_update_now){.weight_decay = recipe->weight_decay,
                                         .beta1 = recipe->adam_beta1,
                                         .beta2 = recipe->adam_beta2,
                                         .epsilon = recipe->adam_epsilon,
                                         .momentum = recipe->momentum,
                                         .nesterov = recipe->nesterov};
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
    size_t bytes = total <= SIZE_MAX / 32 ? o->n_states * total * sizeof(float) : 0;
    o->states = total <= SIZE_MAX / 32 ? lb_malloc_aligned(bytes + sizeof(float)) : NULL;
    if (o->chunks == NULL || o->sums == NULL || o->states == NULL || !reserve_muon(o)) {
        status = LB_E_NOMEM;
        goto out;
    }
    memset(o->states, 0, bytes);
    lay_out(o, total);
    *out = o;
    o = NULL;
out:
    if (status == LB_E_NOMEM) {
        lb_fail(detail, LB_E_NOMEM, "out of memory for the optimizer's state");
    }
    lb_optimizer_destroy(o);
    return status;
}

void lb_optimizer_destroy(struct lb_optimizer *optimizer) {
    if (optimizer != NULL) {
        lb_free(optimizer->weights);
        lb_free(optimizer->chunks);
        lb_free(optimizer->sums);
        lb_free(optimizer->states);
        lb_free(optimizer->muon);
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

static enum lb_status name_the_bad(const struct lb_optimizer *o, struct lb_detail *detail) {
    for (size_t i = 0; i < o->n_weights; i++) {
        const struct lb_optimized *w = &o->weights[i];
        for (int64_t j = 0; w->grad != NULL && j < numel(w); j++) {
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

/* a = decay a + (1 - decay) w, in the form of PyTorch's lerp. */
static void follow(float *restrict a, const float *restrict w, int64_t n, double decay) {
    const float share = (float)(1.0 - decay);
    for (int64_t i = 0; i < n; i++) {
        a[i] = decay > 0 ? a[i] + share * (w[i] - a[i]) : w[i];
    }
}

/* n elements of a weight, from start on. */
static struct lb_update_part part_of(const struct lb_optimizer *o, const struct lb_optimized *w,
                                     int64_t start, int64_t n) {
    struct lb_update_part part = {
        .value = w->value + start, .grad = w->grad + start, .n = n, .decays = w->decays};
    for (unsigned s = 0; s < o->average; s++) {
        part.state[s] = w->state[s] + start;
    }
    return part;
}

static void move_wholes(struct lb_optimizer *o, const struct lb_update_now *now) {
    for (size_t i = 0; i < o->n_weights; i++) {
        const struct lb_optimized *w = &o->weights[i];
        if (w->whole && w->grad != NULL) {
            const struct lb_update_part part = part_of(o, w, 0, numel(w));
            lb_muon_step(&part, w->rows, w->cols, now, o->muon);
        }
    }
}

enum lb_status lb_optimizer_step(struct lb_optimizer *optimizer, double lr, double grad_scale,
                                 double *out_norm, struct lb_detail *detail) {
    struct lb_optimizer *o = optimizer;
    double norm = gradient_norm(o) * fabs(grad_scale);
    if (!isfinite(norm)) {
        return name_the_bad(o, detail);
    }
    double clip = o->max_norm > 0 && norm > o->max_norm ? o->max_norm / norm : 1.0;
    struct lb_update_now now = o->settings;
    now.lr = lr;
    now.grad_scale = grad_scale * clip;
    now.t = ++o->steps;
    int64_t n = (int64_t)o->n_chunks;
    move_wholes(o, &now);
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < n; c++) {
        const struct chunk *chunk = &o->chunks[c];
        const struct lb_optimized *w = &o->weights[chunk->weight];
        const struct lb_update_part part = part_of(o, w, chunk->start, chunk->len);
        if (!w->whole) {
            o->rule->step(&part, &now);
        }
        if (o->average < o->n_states) {
            follow(w->state[o->average] + chunk->start, part.value, chunk->len,
                   now.t == 1 ? 0 : o->ema_decay);
        }
    }
    *out_norm = norm;
    return LB_OK;
}

void lb_optimizer_zero(struct lb_optimizer *optimizer) {
    for (size_t i = 0; i < optimizer->n_weights; i++) {
        if (optimizer->weights[i].grad != NULL) {
            lb_copy_floats(optimizer->weights[i].grad, NULL, numel(&optimizer->weights[i]));
        }
    }
}

const struct lb_optimized *lb_optimizer_weights(const struct lb_optimizer *optimizer, size_t *out_n) {
    *out_n = optimizer->n_weights;
    return optimizer->weights;
}

unsigned lb_optimizer_states(const struct lb_optimizer *optimizer) {
    return optimizer->n_states;
}

const char *lb_optimizer_state_name(const struct lb_optimizer *optimizer, unsigned state) {
    return state < optimizer->average ? optimizer->rule->states[state] : "ema";
}

void lb_optimizer_swap_average(struct lb_optimizer *optimizer) {
    const struct lb_optimizer *o = optimizer;
    if (o->average == o->n_states || o->steps == 0) { /* before the first step there is none yet */
        return;
    }
    for (size_t i = 0; i < o->n_weights; i++) {
        float *w = o->weights[i].value, *a = o->weights[i].state[o->average];
        for (int64_t j = 0; a != NULL && j < numel(&o->weights[i]); j++) {
            float kept = w[j];
            w[j] = a[j];
            a[j] = kept;
        }
    }
}

int64_t lb_optimizer_steps(const struct lb_optimizer *optimizer) {
    return optimizer->steps;
}

void lb_optimizer_set_steps(struct lb_optimizer *optimizer, int64_t steps) {
    optimizer->steps = steps;
}
