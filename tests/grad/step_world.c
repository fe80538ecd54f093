#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/reduce.h"
#include "tests/grad/step_world.h"
#include "tests/support/proofs.h"
#include "tests/support/whole_step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 2e-3
#define ROUNDING 1e-12 /* a gradient of that norm is what some kernels make of 0 */

struct lb_worlds lb_worlds = {.listed = 8};
const enum lb_target_lane lb_world_lanes[2] = {LB_LANE_FINAL, LB_LANE_TOPK};

/* Weights that depend on the student are constants in a step's gradient: those of a world's first run are
 * kept for the others, call by call. */
static struct frozen {
    struct lb_mixture mixture;
    void (*weigh)(const struct lb_weighing *in, double *w);
    int n, at;
    double w[4 * SAMPLES * MAX_T][2];
} frozen;

static void weigh_frozen(const struct lb_weighing *in, double *w) {
    double *kept = frozen.w[frozen.at];
    if (frozen.at++ == frozen.n) {
        frozen.weigh(in, w);
        memcpy(kept, w, 2 * sizeof *w);
        frozen.n++;
    }
    memcpy(w, kept, 2 * sizeof *w);
}

static const struct lb_mixture *freeze(const struct lb_mixture *mixture) {
    if ((mixture->needs & LB_NEEDS_GRADIENTS) == 0 && !lb_worlds.by_head) {
        return mixture;
    }
    frozen = (struct frozen){.mixture = *mixture, .weigh = mixture->weigh};
    frozen.mixture.weigh = weigh_frozen;
    return &frozen.mixture;
}

static float *normals(int64_t n, double scale) {
    float *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)(scale * lb_rng_normal(&lb_worlds.rng));
    }
    return out;
}

static struct lb_wire_tensor *add(struct lb_answer *a, const char *name, int64_t d0, int64_t d1, int64_t d2,
                                  float *data) {
    struct lb_wire_tensor *t = &a->tensors[a->n_tensors];
    assert_int_equal(lb_output_parse(name, &a->what[a->n_tensors++], NULL), LB_OK);
    *t = (struct lb_wire_tensor){.name = name,
                                 .datatype = LB_DT_FP32,
                                 .n_dims = d2 > 0   ? 3
                                           : d1 > 0 ? 2
                                                    : 1,
                                 .dim = {d0, d1, d2},
                                 .data = data};
    t->bytes = (size_t)(d0 * (d1 > 0 ? d1 : 1) * (d2 > 0 ? d2 : 1)) * 4;
    return t;
}

/* Causal rows that sum to one. */
static float *attention(int64_t heads, int64_t t) {
    float *out = calloc((size_t)(heads * t * t), sizeof *out);
    assert_non_null(out);
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < t; i++) {
            for (int64_t j = 0; j <= i; j++) {
                out[(h * t + i) * t + j] = 1.0f / (float)(i + 1);
            }
        }
    }
    return out;
}

/* Teachers list other ids, some of them the same. */
static void top_k(struct lb_answer *a, int64_t t, int64_t k, int teacher) {
    int32_t *ids = malloc((size_t)(t * k) * sizeof *ids);
    float *values = normals(t * k, 1), *rest = malloc((size_t)t * sizeof *rest);
    assert_true(ids != NULL && rest != NULL);
    for (int64_t i = 0; i < t; i++) {
        for (int64_t j = 0; j < k; j++) {
            ids[i * k + j] =
                (int32_t)((i + (5 + teacher) * j) % (lb_worlds.trimmed && teacher == 0 ? WHOLE : VOCAB));
        }
        rest[i] = (float)log(0.3 / 1.3); /* some mass for the others */
    }
    add(a, "logits.topk_ids", t, k, 0, (float *)ids)->datatype = LB_DT_INT32;
    add(a, "logits.topk_values", t, k, 0, values);
    add(a, "logprobs.rest", t, 0, 0, rest);
}

/* The second teacher reads other tokens: of the row's all but the last few, by twos and ones, as one and two.
 */
static void make_readings(struct lb_world *w, int s) {
    static const int32_t ids[MAX_T] = {0};
    struct lb_sample *sample = &w->samples[s];
    int64_t n = 0, its = 0;
    for (int64_t at = 0; at + 3 < sample->n && its + 3 < sample->n; n++) {
        int32_t wide = 1 + (int32_t)(n % 2), its_n = 3 - wide;
        w->chunks[s][n] = (struct lb_chunk){(int32_t)at, wide, (int32_t)its, its_n};
        at += wide;
        its += its_n;
    }
    w->readings[s][1] = (struct lb_reading){ids, sample->n, w->chunks[s], n};
    sample->readings = w->readings[s];
}

static void make_answers(struct lb_world *w) {
    static const int64_t lengths[SAMPLES] = {1, 9, MAX_T};
    for (int s = 0; s < SAMPLES; s++) {
        int64_t t = lengths[s], rows = lb_worlds.classes ? 1 : t;
        int32_t *ids = malloc((size_t)(t + 1) * sizeof *ids);
        assert_non_null(ids);
        for (int64_t i = 0; i <= t; i++) {
            ids[i] = (int32_t)lb_rng_below(&lb_worlds.rng, VOCAB);
        }
        w->samples[s] = (struct lb_sample){.ids = ids, .n = t, .number = s, .tag = -1, .label = 11 * s + 3};
        make_readings(w, s);
        w->rows += t;
        for (int k = 0; k < 2; k++) {
            struct lb_answer *a = &w->answers[s * 2 + k];
            add(a, "hidden_states.final", rows, TEACHER_WIDTH, 0, normals(rows * TEACHER_WIDTH, 1));
            add(a, "hidden_states.1", t, TEACHER_WIDTH, 0, normals(t * TEACHER_WIDTH, 1));
            add(a, "sentence_embedding", TEACHER_WIDTH, 0, 0, normals(TEACHER_WIDTH, 1));
            add(a, "queries.0", t, RELATION_WIDTH, 0, normals(t * RELATION_WIDTH, 1));
            add(a, "keys.0", t, RELATION_WIDTH, 0, normals(t * RELATION_WIDTH, 1));
            add(a, "values.0", t, RELATION_WIDTH, 0, normals(t * RELATION_WIDTH, 1));
            add(a, "attentions.0", TEACHER_HEADS, t, t, attention(TEACHER_HEADS, t));
            float *actual = normals(t, 0.5);
            for (int64_t i = 0; i < t; i++) {
                actual[i] = -1.0f - (float)fabs(actual[i]);
            }
            add(a, "logprobs.actual", t, 0, 0, actual);
            top_k(a, rows, w->recipe.loss_top_k, k);
            if (lb_worlds.trimmed) {
                float *lse = normals(t, 0.5);
                for (int64_t i = 0; i < t; i++) {
                    lse[i] += 6; /* for some rows above all that is kept */
                }
                add(a, "logsumexp", t, 0, 0, lse);
            }
            w->pointers[s * 2 + k] = a;
        }
    }
    w->pointers[1] = NULL; /* the second teacher did not answer about the first sample */
}

static void make_student(struct lb_world *w, bool tied, bool encoder) {
    struct lb_config c = {.model_type = "llama",
                          .vocab_size = VOCAB,
                          .hidden_size = 16,
                          .intermediate_size = 24,
                          .num_hidden_layers = 2,
                          .num_attention_heads = 4,
                          .num_key_value_heads = 2,
                          .head_dim = 4,
                          .max_position_embeddings = 32,
                          .norm_eps = 1e-5,
                          .rope_theta = 100,
                          .tie_word_embeddings = tied,
                          .bos_token_id = -1,
                          .eos_token_id = 0,
                          .pad_token_id = -1,
                          .initializer_range = 0.3};
    struct lb_detail detail = {0};
    if (encoder) {
        snprintf(c.model_type, sizeof c.model_type, "bert");
        c.num_key_value_heads = c.num_attention_heads;
        c.type_vocab_size = 2;
        c.tie_word_embeddings = false;
        c.num_labels = lb_worlds.classes ? VOCAB : 0;
    }
    if (lb_model_create(&c, 5, &w->student, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
}

static unsigned add_loss(struct lb_world *w, const struct lb_loss *loss, double weight, double temperature) {
    unsigned l = (unsigned)w->plan.n_losses++;
    w->plan.losses[l].loss = loss;
    snprintf(w->plan.losses[l].name, sizeof w->plan.losses[l].name, "%s", loss->name);
    struct lb_loss_args *args = &w->plan.losses[l].args;
    *args = loss->defaults;
    args->weight = weight;
    args->temperature = temperature;
    args->normalize = true;
    args->bce_temp = 10;
    args->relation_heads = 2;
    w->plan.on_label |= w->plan.losses[l].loss->on == LB_ON_LABEL;
    w->plan.on_target |= w->plan.losses[l].loss->on == LB_ON_TARGET;
    w->plan.on_chunk |= w->plan.losses[l].loss->on == LB_ON_CHUNK;
    w->plan.on_aligned |= w->plan.losses[l].loss->on == LB_ON_ALIGNED;
    return l;
}

static enum lb_tap_kind tap_of(enum lb_output_kind kind) {
    return kind == LB_OUT_ATTENTION ? LB_TAP_ATTENTION
           : kind == LB_OUT_QUERIES ? LB_TAP_QUERIES
           : kind == LB_OUT_KEYS    ? LB_TAP_KEYS
           : kind == LB_OUT_VALUES  ? LB_TAP_VALUES
                                    : LB_TAP_HIDDEN;
}

static void add_pair(struct lb_world *w, unsigned loss, unsigned teacher, int student_layer,
                     enum lb_output_kind kind, int layer) {
    struct lb_pair *p = &w->plan.pairs[w->plan.n_pairs];
    bool attention_loss = lb_loss_by_block(w->plan.losses[loss].loss);
    *p = (struct lb_pair){.by_head = lb_worlds.by_head && kind == LB_OUT_HIDDEN_FINAL,
                          .loss = loss,
                          .teacher = teacher,
                          .kind = kind,
                          .layer = layer,
                          .final = student_layer < 0};
    p->tap = (struct lb_tap){tap_of(kind), student_layer, NULL};
    p->once = w->plan.losses[loss].once = lb_worlds.classes && p->final;
    p->student_width = kind == LB_OUT_ATTENTION ? 4 : 16;
    p->teacher_width = kind == LB_OUT_ATTENTION ? TEACHER_HEADS
                       : attention_loss         ? RELATION_WIDTH
                                                : TEACHER_WIDTH;
    if (!attention_loss && !w->plan.losses[loss].loss->any_width) {
        snprintf(p->projection, sizeof p->projection, "projection.%zu.weight", w->plan.n_pairs);
        assert_int_equal(lb_model_extend(w->student, p->projection, TEACHER_WIDTH, 16, 9, NULL), LB_OK);
    }
    w->plan.n_pairs++;
}

/* The second teacher reads other tokens, of which it has every other one in common with the student. */
static void make_unlike(struct lb_world *w, unsigned l) {
    static int32_t own_of[VOCAB];
    static uint8_t has[VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        own_of[i] = i % 2 == 0 ? VOCAB - 1 - i : -1;
        has[VOCAB - 1 - i] = i % 2 == 0;
    }
    w->plan.common[1] = (struct lb_common){VOCAB, VOCAB, own_of, has};
    w->plan.unlike[1] = w->plan.apart[1] = true;
    w->plan.sets[1] = 2;
    w->plan.n_sets = w->plan.losses[l].set = 1;
    w->plan.spec[1].top_k = w->recipe.loss_top_k;
}

/* A loss of the table with what it needs: activations of both teachers at the final state or at layer 1, or
 * attention. */
void lb_world_add(struct lb_world *w, const struct lb_loss *loss, enum lb_target_lane lane) {
    static const double weight[] = {
        [LB_ON_LABEL] = 0.4, [LB_ON_TARGET] = 0.7, [LB_ON_HIDDEN] = 0.6, [LB_ON_ATTENTION] = 1,
        [LB_ON_QUERIES] = 1, [LB_ON_KEYS] = 1,     [LB_ON_VALUES] = 1,   [LB_ON_SENTENCE] = 1,
        [LB_ON_CHUNK] = 8,   [LB_ON_ALIGNED] = 1};
    double temperature = loss->on == LB_ON_TARGET && lane != LB_LANE_TOPK ? 1.5 : 1;
    bool small = strcmp(loss->name, "attention_mse") == 0; /* squares of shares */
    unsigned l = add_loss(w, loss, small ? 30 : weight[loss->on], temperature);
    if (loss->on == LB_ON_ALIGNED) {
        make_unlike(w, l);
    }
    /* Behind the last norm all states are nearly of one size. */
    bool final = l % 2 == 0 && loss->among != LB_AMONG_POSITIONS;
    for (unsigned k = 0; k < 2 && loss->on == LB_ON_HIDDEN; k++) {
        add_pair(w, l, k, final ? -1 : 1, final ? LB_OUT_HIDDEN_FINAL : LB_OUT_HIDDEN, final ? 0 : 1);
    }
    for (unsigned k = 0; k < 2 && loss->on == LB_ON_SENTENCE; k++) {
        add_pair(w, l, k, -1, LB_OUT_SENTENCE, 0);
    }
    static const enum lb_output_kind by_block[] = {[LB_ON_ATTENTION] = LB_OUT_ATTENTION,
                                                   [LB_ON_QUERIES] = LB_OUT_QUERIES,
                                                   [LB_ON_KEYS] = LB_OUT_KEYS,
                                                   [LB_ON_VALUES] = LB_OUT_VALUES};
    for (unsigned k = 0; k < 2 && lb_loss_by_block(loss); k++) {
        add_pair(w, l, k, 0, by_block[loss->on], 0);
    }
}

bool lb_world_serves(enum lb_target_lane lane, const struct lb_loss *loss) {
    unsigned kind = lane == LB_LANE_TOPK ? LB_TARGET_TRUNCATED : LB_TARGET_DENSE;
    return loss->on != LB_ON_TARGET || (loss->kinds & kind) != 0;
}

const struct lb_mixture *lb_world_mean(const struct lb_loss *loss) {
    return lb_mixture_find(loss != NULL && loss->on_logits ? "mean_logits" : "mean_probs");
}

bool lb_world_smooth(const struct lb_loss *loss) {
    return strcmp(loss->name, "tvd") != 0 && strcmp(loss->name, "akl") != 0 && loss->on != LB_ON_ALIGNED;
}

/* only NULL: every loss of the table that the lane serves and a decoder's student can learn from. */
struct lb_world *lb_world_create(const struct lb_mixture *mixture, enum lb_target_lane lane, bool tied,
                                 const struct lb_loss *only) {
    struct lb_world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->recipe = (struct lb_recipe){.teachers = w->teachers,
                                   .teachers_count = 2,
                                   .mixture = mixture->name,
                                   .mixture_per = lb_worlds.per,
                                   .targets = lane,
                                   .loss_top_k = lb_worlds.listed,
                                   .loss_add_tail = true,
                                   .per_device_train_batch_size = SAMPLES,
                                   .gradient_accumulation_steps = 1,
                                   .temperature = 1};
    make_student(w, tied, lb_worlds.classes || (only != NULL && only->on == LB_ON_SENTENCE));
    w->plan.recipe = &w->recipe;
    w->plan.mixture = freeze(mixture);
    w->plan.n_teachers = 2;
    static char name[] = "t";
    for (int k = 0; k < 2; k++) {
        w->teachers[k] = (struct lb_recipe_teacher){.name = name, .weight = 1 + k};
        w->info[k] = (struct lb_teacher_info){
            .vocab_size = VOCAB, .hidden_size = TEACHER_WIDTH, .n_layers = 2, .n_heads = TEACHER_HEADS};
        w->head[k] = (struct lb_teacher_head){normals(VOCAB * TEACHER_WIDTH, 0.5), NULL, VOCAB, TEACHER_WIDTH,
                                              LB_HEAD_PLAIN};
        w->info[k].num_labels = w->info[k].n_ids = lb_worlds.classes ? VOCAB : 0;
        w->plan.info[k] = &w->info[k];
        if (lb_worlds.trimmed && k == 0) {
            w->info[k].vocab_size = WHOLE;
            w->plan.map[k] = lb_worlds.trimmed;
        }
        w->plan.head[k] = &w->head[k];
    }
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        bool with = lb_world_serves(lane, loss) &&
                    !(loss->on_logits && mixture->combine == LB_COMBINE_PROBS) && lb_world_smooth(loss) &&
                    loss->on != LB_ON_SENTENCE && !(lb_worlds.classes && loss->on == LB_ON_CHUNK) &&
                    w->plan.n_losses < LB_MAX_LOSSES;
        if (only != NULL ? loss == only : with) {
            lb_world_add(w, loss, lane);
        }
    }
    make_answers(w);
    w->step = lb_step_create(&w->plan, w->student, (size_t)1 << 28);
    assert_non_null(w->step);
    return w;
}

double lb_world_run(struct lb_world *w) {
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    size_t n;
    frozen.at = 0;
    float *grads = lb_model_grads(w->student, &n);
    memset(grads, 0, n * sizeof *grads);
    lb_rng_seed(&lb_worlds.rng, 2, 2);
    if (lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, &detail) !=
        LB_OK) {
        fail_msg("%s", detail.text);
    }
    return result.loss;
}

void lb_world_destroy(struct lb_world *w) {
    for (int s = 0; s < SAMPLES; s++) {
        free((void *)w->samples[s].ids);
        for (int k = 0; k < 2; k++) {
            for (size_t i = 0; i < w->answers[s * 2 + k].n_tensors; i++) {
                free((void *)w->answers[s * 2 + k].tensors[i].data);
            }
        }
    }
    for (int k = 0; k < 2; k++) {
        free(w->head[k].weight);
    }
    lb_step_destroy(w->step);
    lb_model_destroy(w->student);
    free(w);
}

static double along(struct lb_world *w, const struct lb_weight *weight, const float *keep,
                    const double *direction, double e) {
    int64_t n = weight->rows * weight->cols;
    for (int64_t i = 0; i < n; i++) {
        weight->value[i] = (float)(keep[i] + e * direction[i]);
    }
    double up = lb_world_run(w);
    for (int64_t i = 0; i < n; i++) {
        weight->value[i] = (float)(keep[i] - e * direction[i]);
    }
    double down = lb_world_run(w);
    memcpy(weight->value, keep, (size_t)n * sizeof *keep);
    return (up - down) / (2 * e);
}

double lb_world_check(const char *name, struct lb_world *w, bool whole) {
    size_t n;
    const struct lb_weight *weights = lb_model_weights(w->student, &n);
    double worst = 0;
    size_t reached = 0, n_grads;
    (void)lb_world_run(w);
    float *grads = lb_model_grads(w->student, &n_grads), *analytic = malloc(n_grads * sizeof *analytic);
    assert_non_null(analytic);
    memcpy(analytic, grads, n_grads * sizeof *analytic);
    for (size_t i = 0; i < n; i++) {
        int64_t size = weights[i].rows * weights[i].cols;
        if (strstr(weights[i].name, ".key.bias") != NULL) {
            continue; /* softmax does not see it: what stands there is rounding */
        }
        const float *g = analytic + (weights[i].grad - grads);
        float *keep = malloc((size_t)size * sizeof *keep);
        double *direction = malloc((size_t)size * sizeof *direction), norm = 0;
        assert_true(keep != NULL && direction != NULL);
        memcpy(keep, weights[i].value, (size_t)size * sizeof *keep);
        for (int64_t j = 0; j < size; j++) {
            norm += (double)g[j] * g[j];
        }
        norm = sqrt(norm);
        norm = norm > ROUNDING ? norm : 0;
        assert_true(norm > 0 || !whole);
        reached += norm > 0 ? 1 : 0;
        for (int64_t j = 0; j < size; j++) {
            direction[j] = norm > 0 ? g[j] / norm : 0;
        }
        double wide = along(w, &weights[i], keep, direction, 1.6e-2),
               narrow = along(w, &weights[i], keep, direction, 8e-3);
        double measured = (4 * narrow - wide) / 3,
               error = norm > 0 ? fabs(measured - norm) / norm : fabs(measured);
        worst = fmax(worst, error);
        if (error > TOLERANCE) {
            fail_msg("%s: %s: along its gradient the loss changes by %.6g, the gradient says %.6g", name,
                     weights[i].name, measured, norm);
        }
        free(keep);
        free(direction);
    }
    printf("%-44s %zu of %zu tensors, largest relative error %.2e\n", name, reached, n, worst);
    assert_true(reached > 0);
    free(analytic);
    lb_world_destroy(w);
    return worst;
}

void lb_world_check_new(const char *name, const struct lb_mixture *mixture, enum lb_target_lane lane,
                        bool tied, const struct lb_loss *only) {
    char label[96];
    snprintf(label, sizeof label, "%s, %s%s", name, lane == LB_LANE_TOPK ? "top-k" : "final states",
             tied ? ", tied" : "");
    /* One loss alone need not, nor teachers of which some may have no weight. */
    bool some =
        (mixture->needs & (LB_NEEDS_DRAW | LB_NEEDS_GRADIENTS)) != 0 || strcmp(mixture->name, "select") == 0;
    bool whole = only == NULL && !some;
    struct lb_world *w = lb_world_create(mixture, lane, tied, only);
    size_t n;
    (void)lb_model_weights(w->student, &n);
    double worst = lb_world_check(label, w, whole);
    lb_proof(only != NULL ? "loss" : "mixture", only != NULL ? only->name : mixture->name,
             lane == LB_LANE_TOPK ? "whole step of lists" : "whole step", "differences", worst, (int64_t)n);
}

float *lb_world_gradients(struct lb_world *w, size_t *n) {
    const float *own = lb_model_grads(w->student, n);
    float *out = malloc(*n * sizeof *out);
    assert_non_null(out);
    memcpy(out, own, *n * sizeof *out);
    return out;
}

double lb_world_apart(const float *a, const float *b, size_t n) {
    double norm = 0, apart = 0;
    for (size_t i = 0; i < n; i++) {
        norm += (double)a[i] * a[i];
        apart += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    }
    assert_true(norm > 0);
    return sqrt(apart / norm);
}

double lb_world_means_apart(const char *loss, enum lb_target_lane lane, uint64_t seed) {
    static const char *const names[2] = {"mean_probs", "mean_losses"};
    float *grads[2];
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        lb_rng_seed(&lb_worlds.rng, seed, 0);
        struct lb_world *w = lb_world_create(lb_mixture_find(names[i]), lane, true, lb_loss_find(loss));
        (void)lb_world_run(w);
        grads[i] = lb_world_gradients(w, &n);
        lb_world_destroy(w);
    }
    double apart = lb_world_apart(grads[0], grads[1], n);
    free(grads[0]), free(grads[1]);
    return apart;
}
