#include "trainer/learn/lora.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/gemm.h"
#include "common/nn/tape.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES 256
#define ROWS_LOOKED_AT 64 /* of each W, when a run is gone on with */

struct adapted {
    const struct lb_weight *w; /* of the student: W */
    float *base;               /* W0 */
    float *scaled;             /* [out, r] (alpha / r) B */
    char module[NAME_BYTES], a[NAME_BYTES], b[NAME_BYTES];
};

struct lb_lora {
    int64_t r;
    float scale;
    size_t n, n_weights;
    struct adapted *adapted;        /* [n] */
    struct lb_lora_module *modules; /* [n] */
    struct lb_weight *adapters;     /* [2 n] A and B of each */
    struct lb_weight *weights;      /* [n_weights] the student's as the optimizer is to see them */
    float *numbers;                 /* of all of the above */
};

/* "model.layers.0.self_attn.q_proj" of its weight; false: another name. */
static bool module_of(const char *name, char out[NAME_BYTES]) {
    size_t n = strlen(name), end = strlen(".weight");
    if (n <= end || n - end >= NAME_BYTES / 2 || strcmp(name + n - end, ".weight") != 0) {
        return false;
    }
    snprintf(out, NAME_BYTES, "%.*s", (int)(n - end), name);
    return true;
}

/* Whether the module is called so, or ends in it, as PEFT finds them. */
static bool is_called(const char *module, const char *target) {
    size_t n = strlen(module), m = strlen(target);
    return n >= m && strcmp(module + n - m, target) == 0 && (n == m || module[n - m - 1] == '.');
}

/* Linear, and neither the head nor a table of embeddings. */
static bool is_linear(const struct lb_model *student, const struct lb_weight *w) {
    return w->n_dims == 2 && w != lb_model_head(student)->weight && strstr(w->name, "embed") == NULL &&
           strstr(w->name, ".wte.") == NULL && strstr(w->name, ".wpe.") == NULL;
}

static bool is_target(const struct lb_recipe *r, const struct lb_model *student, const struct lb_weight *w,
                      bool *found) {
    char module[NAME_BYTES];
    bool is = r->lora_target_modules_count == 0, linear = is_linear(student, w);
    if (!linear || !module_of(w->name, module)) {
        return false;
    }
    for (unsigned i = 0; i < r->lora_target_modules_count; i++) {
        bool called = is_called(module, r->lora_target_modules[i]) ||
                      strcmp(r->lora_target_modules[i], "all-linear") == 0;
        found[i] = found[i] || called;
        is = is || called;
    }
    return is;
}

/* Which of the student's weights are adapted. */
static enum lb_status choose(const struct lb_recipe *r, const struct lb_model *student, bool *chosen,
                             size_t *out_n, struct lb_detail *detail) {
    size_t n;
    const struct lb_weight *w = lb_model_weights(student, &n);
    bool *found = lb_calloc((size_t)r->lora_target_modules_count + 1, sizeof *found);
    enum lb_status status =
        found != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for the adapters");
    *out_n = 0;
    for (size_t i = 0; status == LB_OK && i < lb_model_own_weights(student); i++) {
        chosen[i] = is_target(r, student, &w[i], found);
        *out_n += chosen[i];
    }
    for (unsigned i = 0; status == LB_OK && i < r->lora_target_modules_count; i++) {
        if (!found[i]) {
            status = lb_fail(
                detail, LB_E_ARG,
                "lora_target_modules.%u: the student has no linear module \"%.100s\" but its head; one is "
                "called %s",
                i, r->lora_target_modules[i], w[lb_model_own_weights(student) / 2].name);
        }
    }
    lb_free(found);
    return status;
}

const char *lb_lora_path(const struct lb_model *student, const char *module) {
    const char *type = lb_model_config(student)->model_type;
    size_t n = strlen(type);
    bool within = !lb_model_is_causal(student) && strncmp(module, type, n) == 0 && module[n] == '.';
    return within ? module + n + 1 : module;
}

static void name_them(struct adapted *a, const struct lb_model *student, const char *weight) {
    (void)module_of(weight, a->module);
    const char *path = lb_lora_path(student, a->module);
    snprintf(a->a, sizeof a->a, "base_model.model.%.200s.lora_A.weight", path);
    snprintf(a->b, sizeof a->b, "base_model.model.%.200s.lora_B.weight", path);
}

/* The matrices of one module, laid out from *at on: A, B, their gradients, W0, scaled B. */
static void lay_out(struct lb_lora *l, size_t i, const struct lb_model *student, const struct lb_weight *w,
                    uint64_t seed, float **at) {
    struct adapted *a = &l->adapted[i];
    int64_t na = l->r * w->cols, nb = w->rows * l->r;
    struct lb_weight *pair = &l->adapters[2 * i];
    name_them(a, student, w->name);
    a->w = w;
    pair[0] = (struct lb_weight){.name = a->a, .rows = l->r, .cols = w->cols, .n_dims = 2, .dtype = LB_F32};
    pair[1] = (struct lb_weight){.name = a->b, .rows = w->rows, .cols = l->r, .n_dims = 2, .dtype = LB_F32};
    pair[0].value = *at;
    pair[0].grad = *at + na;
    pair[1].value = *at + 2 * na;
    pair[1].grad = *at + 2 * na + nb;
    a->scaled = *at + 2 * na + 2 * nb;
    a->base = a->scaled + nb;
    *at = a->base + w->rows * w->cols;
    for (int k = 0; k < 2; k++) {
        pair[k].data = pair[k].value;
    }
    memcpy(a->base, w->value, (size_t)(w->rows * w->cols) * sizeof(float));
    struct lb_rng rng;
    lb_rng_seed(&rng, seed,
                (uint64_t)i + ((uint64_t)0x6c6f7261 << 20)); /* "lora": apart from other streams */
    for (int64_t j = 0; j < na; j++) {
        pair[0].value[j] = (2 * lb_rng_float(&rng) - 1) / sqrtf((float)w->cols);
    }
    l->modules[i] = (struct lb_lora_module){a->module, pair[0], pair[1]};
}

static enum lb_status fill(struct lb_lora *l, const struct lb_recipe *r, struct lb_model *student,
                           const bool *chosen, struct lb_detail *detail) {
    const struct lb_weight *w = lb_model_weights(student, &l->n_weights);
    size_t floats = 0, own = lb_model_own_weights(student);
    for (size_t i = 0; i < own; i++) {
        floats +=
            chosen[i] ? (size_t)(2 * l->r * w[i].cols + 3 * l->r * w[i].rows + w[i].rows * w[i].cols) : 0;
    }
    l->adapted = lb_calloc(l->n, sizeof *l->adapted);
    l->modules = lb_calloc(l->n, sizeof *l->modules);
    l->adapters = lb_calloc(2 * l->n, sizeof *l->adapters);
    l->weights = lb_calloc(l->n_weights, sizeof *l->weights);
    l->numbers = lb_calloc(floats, sizeof *l->numbers);
    if (l->adapted == NULL || l->modules == NULL || l->adapters == NULL || l->weights == NULL ||
        l->numbers == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the adapters");
    }
    float *at = l->numbers;
    for (size_t i = 0, k = 0; i < own; i++) {
        if (chosen[i]) {
            lay_out(l, k++, student, &w[i], (uint64_t)r->seed, &at);
        } else {
            (void)lb_model_freeze(student, w[i].name);
        }
    }
    memcpy(l->weights, w, l->n_weights * sizeof *w);
    for (size_t i = 0; i < own; i++) {
        l->weights[i].grad = NULL;
    }
    return LB_OK;
}

enum lb_status lb_lora_create(const struct lb_recipe *recipe, struct lb_model *student, struct lb_lora **out,
                              struct lb_detail *detail) {
    const struct lb_config *c = lb_model_config(student);
    size_t n = 0;
    (void)lb_model_weights(student, &n);
    if (c->input_size > 0 || lb_model_labels(student) != NULL || c->num_experts > 0) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "use_peft: adapters are for students that read text, without %s",
                       c->num_experts > 0 ? "experts" : "classes");
    }
    struct lb_lora *l = lb_calloc(1, sizeof *l);
    bool *chosen = lb_calloc(n, sizeof *chosen);
    enum lb_status status =
        l != NULL && chosen != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for the adapters");
    if (status == LB_OK) {
        l->r = recipe->lora_r;
        l->scale = (float)(recipe->lora_alpha / (double)recipe->lora_r);
        status = choose(recipe, student, chosen, &l->n, detail);
    }
    status = status == LB_OK ? fill(l, recipe, student, chosen, detail) : status;
    lb_free(chosen);
    if (status != LB_OK) {
        lb_lora_destroy(l);
        return status;
    }
    int64_t learn = 0;
    for (size_t i = 0; i < 2 * l->n; i++) {
        learn += l->adapters[i].rows * l->adapters[i].cols;
    }
    lb_log(LB_LOG_INFO, "adapters", "modules=%zu parameters=%lld of=%lld", l->n, (long long)learn,
           (long long)lb_model_parameters(student));
    *out = l;
    return LB_OK;
}

void lb_lora_destroy(struct lb_lora *lora) {
    if (lora != NULL) {
        lb_free(lora->adapted);
        lb_free(lora->modules);
        lb_free(lora->adapters);
        lb_free(lora->weights);
        lb_free(lora->numbers);
        lb_free(lora);
    }
}

void lb_lora_groups(const struct lb_lora *lora, struct lb_weight_group out[2]) {
    out[0] = (struct lb_weight_group){lora->weights, lora->n_weights};
    out[1] = (struct lb_weight_group){lora->adapters, 2 * lora->n};
}

const struct lb_lora_module *lb_lora_modules(const struct lb_lora *lora, size_t *out_n) {
    *out_n = lora->n;
    return lora->modules;
}

void lb_lora_gradients(struct lb_lora *lora) {
    struct lb_gemm_list list; /* large: only its n is set */
    list.n = 0;
    for (size_t i = 0; i < lora->n; i++) {
        const struct lb_weight *w = lora->adapted[i].w, *a = &lora->adapters[2 * i], *b = a + 1;
        lb_gemm_add(&list, &(struct lb_gemm_product){b->rows, b->cols, w->cols, w->grad, w->cols, a->value,
                                                     a->cols, b->grad, b->cols, 0, .trans_w = true});
        lb_gemm_add(&list, &(struct lb_gemm_product){a->rows, a->cols, w->rows, b->value, b->cols, w->grad,
                                                     w->cols, a->grad, a->cols, 0, .trans_x = true});
    }
    lb_gemm_run(&list, true);
    for (size_t i = 0; i < 2 * lora->n; i++) {
        for (int64_t j = 0; j < lora->adapters[i].rows * lora->adapters[i].cols; j++) {
            lora->adapters[i].grad[j] *= lora->scale;
        }
    }
    for (size_t i = 0; i < lora->n; i++) {
        const struct lb_weight *w = lora->adapted[i].w;
        lb_copy_floats(w->grad, NULL, w->rows * w->cols);
    }
}

void lb_lora_merge(struct lb_lora *lora) {
    struct lb_gemm_list list;
    list.n = 0;
    for (size_t i = 0; i < lora->n; i++) {
        const struct adapted *to = &lora->adapted[i];
        const struct lb_weight *w = to->w, *a = &lora->adapters[2 * i], *b = a + 1;
        lb_copy_floats(w->value, to->base, w->rows * w->cols);
        for (int64_t j = 0; j < b->rows * b->cols; j++) {
            to->scaled[j] = lora->scale * b->value[j];
        }
        lb_gemm_add(&list, &(struct lb_gemm_product){w->rows, w->cols, a->rows, to->scaled, b->cols, a->value,
                                                     a->cols, w->value, w->cols, 1});
    }
    lb_gemm_run(&list, true);
}

/* Row i of W is that of W0 and the adapters, but for rounding. */
static bool row_fits(const struct lb_lora *lora, size_t k, int64_t i) {
    const struct adapted *to = &lora->adapted[k];
    const struct lb_weight *w = to->w, *a = &lora->adapters[2 * k], *b = a + 1;
    for (int64_t j = 0; j < w->cols; j++) {
        double sum = to->base[i * w->cols + j], size = fabs(sum);
        for (int64_t r = 0; r < a->rows; r++) {
            double term = (double)lora->scale * b->value[i * b->cols + r] * a->value[r * a->cols + j];
            sum += term;
            size += fabs(term);
        }
        if (!(fabs(sum - (double)w->value[i * w->cols + j]) <= 1e-5 * size + 1e-9)) {
            return false;
        }
    }
    return true;
}

bool lb_lora_fits(const struct lb_lora *lora) {
    for (size_t k = 0; k < lora->n; k++) {
        int64_t rows = lora->adapted[k].w->rows, step = rows / ROWS_LOOKED_AT + 1;
        for (int64_t i = 0; i < rows; i += step) {
            if (!row_fits(lora, k, i)) {
                return false;
            }
        }
    }
    return true;
}
