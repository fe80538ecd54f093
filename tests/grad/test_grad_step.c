/* A whole training step against finite differences: decoder (of sentences: encoder), fused head, every loss
 * and every mixture of the tables, two teachers, projections, attention.
 *
 * For each tensor of the student the step's gradient g is compared with the change of the loss along g: (L(w
 * + e g/|g|) - L(w - e g/|g|)) / 2e must be |g|, with its sign. Losses are computed in float, so e is chosen
 * large and two step sizes are combined (Richardson) to keep the curvature out.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "tests/support/whole_step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 3
#define VOCAB 37
#define WHOLE 53 /* of a teacher whose vocabulary the student has a part of */
#define TEACHER_WIDTH 20
#define TEACHER_HEADS 3
#define MAX_T 16
#define TOLERANCE 2e-3

static struct lb_rng rng;

/* Ids 0, 1, 2 of three stay, so far as VOCAB goes; when set, it is the first teacher's. */
static int32_t kept[VOCAB];
static const struct lb_vocab_map part = {.kept = kept, .n = VOCAB};
static const struct lb_vocab_map *trimmed;
static int64_t listed = 8; /* of a teacher's ids */
static bool classes;       /* student and teachers classify texts, of which each has one label */

struct world {
    struct lb_recipe recipe;
    struct lb_recipe_teacher teachers[2];
    struct lb_model *student;
    struct lb_plan plan;
    struct lb_teacher_info info[2];
    struct lb_teacher_head head[2];
    struct lb_sample samples[SAMPLES];
    struct lb_reading readings[SAMPLES][2];
    struct lb_chunk chunks[SAMPLES][MAX_T];
    struct lb_answer answers[SAMPLES * 2];
    const struct lb_answer *pointers[SAMPLES * 2];
    struct lb_step *step;
    int64_t rows;
};

static float *normals(int64_t n, double scale) {
    float *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)(scale * lb_rng_normal(&rng));
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
            ids[i * k + j] = (int32_t)((i + (5 + teacher) * j) % (trimmed && teacher == 0 ? WHOLE : VOCAB));
        }
        rest[i] = (float)log(0.3 / 1.3); /* some mass for the others */
    }
    add(a, "logits.topk_ids", t, k, 0, (float *)ids)->datatype = LB_DT_INT32;
    add(a, "logits.topk_values", t, k, 0, values);
    add(a, "logprobs.rest", t, 0, 0, rest);
}

/* The second teacher reads other tokens: of the row's all but the last few, by twos and ones, as one and two.
 */
static void make_readings(struct world *w, int s) {
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

static void make_answers(struct world *w) {
    static const int64_t lengths[SAMPLES] = {1, 9, MAX_T};
    for (int s = 0; s < SAMPLES; s++) {
        int64_t t = lengths[s], rows = classes ? 1 : t;
        int32_t *ids = malloc((size_t)(t + 1) * sizeof *ids);
        assert_non_null(ids);
        for (int64_t i = 0; i <= t; i++) {
            ids[i] = (int32_t)lb_rng_below(&rng, VOCAB);
        }
        w->samples[s] = (struct lb_sample){.ids = ids, .n = t, .tag = -1, .label = 11 * s + 3};
        make_readings(w, s);
        w->rows += t;
        for (int k = 0; k < 2; k++) {
            struct lb_answer *a = &w->answers[s * 2 + k];
            add(a, "hidden_states.final", rows, TEACHER_WIDTH, 0, normals(rows * TEACHER_WIDTH, 1));
            add(a, "hidden_states.1", t, TEACHER_WIDTH, 0, normals(t * TEACHER_WIDTH, 1));
            add(a, "sentence_embedding", TEACHER_WIDTH, 0, 0, normals(TEACHER_WIDTH, 1));
            add(a, "attentions.0", TEACHER_HEADS, t, t, attention(TEACHER_HEADS, t));
            float *actual = normals(t, 0.5);
            for (int64_t i = 0; i < t; i++) {
                actual[i] = -1.0f - (float)fabs(actual[i]);
            }
            add(a, "logprobs.actual", t, 0, 0, actual);
            top_k(a, rows, w->recipe.loss_top_k, k);
            if (trimmed) {
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

static void make_student(struct world *w, bool tied, bool encoder) {
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
        c.num_labels = classes ? VOCAB : 0;
    }
    if (lb_model_create(&c, 5, &w->student, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
}

static unsigned add_loss(struct world *w, const struct lb_loss *loss, double weight, double temperature) {
    unsigned l = (unsigned)w->plan.n_losses++;
    w->plan.losses[l].loss = loss;
    snprintf(w->plan.losses[l].name, sizeof w->plan.losses[l].name, "%s", loss->name);
    w->plan.losses[l].args = (struct lb_loss_args){
        .weight = weight, .temperature = temperature, .normalize = true, .bce_temp = 10};
    w->plan.on_label |= w->plan.losses[l].loss->on == LB_ON_LABEL;
    w->plan.on_target |= w->plan.losses[l].loss->on == LB_ON_TARGET;
    w->plan.on_chunk |= w->plan.losses[l].loss->on == LB_ON_CHUNK;
    return l;
}

static void add_pair(struct world *w, unsigned loss, unsigned teacher, int student_layer,
                     enum lb_output_kind kind, int layer) {
    struct lb_pair *p = &w->plan.pairs[w->plan.n_pairs];
    bool attention_loss = kind == LB_OUT_ATTENTION;
    *p = (struct lb_pair){
        .loss = loss, .teacher = teacher, .kind = kind, .layer = layer, .final = student_layer < 0};
    p->tap = (struct lb_tap){attention_loss ? LB_TAP_ATTENTION : LB_TAP_HIDDEN, student_layer, NULL};
    p->once = w->plan.losses[loss].once = classes && p->final;
    p->student_width = attention_loss ? 4 : 16;
    p->teacher_width = attention_loss ? TEACHER_HEADS : TEACHER_WIDTH;
    if (!attention_loss) {
        snprintf(p->projection, sizeof p->projection, "projection.%zu.weight", w->plan.n_pairs);
        assert_int_equal(lb_model_extend(w->student, p->projection, TEACHER_WIDTH, 16, 9, NULL), LB_OK);
    }
    w->plan.n_pairs++;
}

/* A loss of the table with what it needs: activations of both teachers at the final state or at layer 1, or
 * attention. */
static void add_from_table(struct world *w, const struct lb_loss *loss, enum lb_target_lane lane) {
    static const double weight[] = {[LB_ON_LABEL] = 0.4,    [LB_ON_TARGET] = 0.7, [LB_ON_HIDDEN] = 0.6,
                                    [LB_ON_ATTENTION] = 30, [LB_ON_SENTENCE] = 1, [LB_ON_CHUNK] = 8};
    double temperature = loss->on == LB_ON_TARGET && lane != LB_LANE_TOPK ? 1.5 : 1;
    unsigned l = add_loss(w, loss, weight[loss->on], temperature);
    for (unsigned k = 0; k < 2 && loss->on == LB_ON_HIDDEN; k++) {
        add_pair(w, l, k, l % 2 == 0 ? -1 : 1, l % 2 == 0 ? LB_OUT_HIDDEN_FINAL : LB_OUT_HIDDEN,
                 l % 2 == 0 ? 0 : 1);
    }
    for (unsigned k = 0; k < 2 && loss->on == LB_ON_SENTENCE; k++) {
        add_pair(w, l, k, -1, LB_OUT_SENTENCE, 0);
    }
    for (unsigned k = 0; k < 2 && loss->on == LB_ON_ATTENTION; k++) {
        add_pair(w, l, k, 0, LB_OUT_ATTENTION, 0);
    }
}

static bool serves(enum lb_target_lane lane, const struct lb_loss *loss) {
    unsigned kind = lane == LB_LANE_TOPK ? LB_TARGET_TRUNCATED : LB_TARGET_DENSE;
    return loss->on != LB_ON_TARGET || (loss->kinds & kind) != 0;
}

/* only NULL: every loss of the table that the lane serves and a decoder's student can learn from. */
static struct world *make_world(const struct lb_mixture *mixture, enum lb_target_lane lane, bool tied,
                                const struct lb_loss *only) {
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->recipe = (struct lb_recipe){.teachers = w->teachers,
                                   .teachers_count = 2,
                                   .mixture = mixture->name,
                                   .targets = lane,
                                   .loss_top_k = listed,
                                   .loss_add_tail = true,
                                   .per_device_train_batch_size = SAMPLES,
                                   .gradient_accumulation_steps = 1,
                                   .temperature = 1};
    make_student(w, tied, classes || (only != NULL && only->on == LB_ON_SENTENCE));
    w->plan.recipe = &w->recipe;
    w->plan.mixture = mixture;
    w->plan.n_teachers = 2;
    static char name[] = "t";
    for (int k = 0; k < 2; k++) {
        w->teachers[k] = (struct lb_recipe_teacher){.name = name, .weight = 1 + k};
        w->info[k] = (struct lb_teacher_info){
            .vocab_size = VOCAB, .hidden_size = TEACHER_WIDTH, .n_layers = 2, .n_heads = TEACHER_HEADS};
        w->head[k] = (struct lb_teacher_head){normals(VOCAB * TEACHER_WIDTH, 0.5), NULL, VOCAB, TEACHER_WIDTH,
                                              LB_HEAD_PLAIN};
        w->info[k].num_labels = w->info[k].n_ids = classes ? VOCAB : 0;
        w->plan.info[k] = &w->info[k];
        if (trimmed && k == 0) {
            w->info[k].vocab_size = WHOLE;
            w->plan.map[k] = trimmed;
        }
        w->plan.head[k] = &w->head[k];
    }
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        if (only != NULL ? lb_loss_at(i) == only
                         : serves(lane, lb_loss_at(i)) && lb_loss_at(i)->on != LB_ON_SENTENCE &&
                               !(classes && lb_loss_at(i)->on == LB_ON_CHUNK)) {
            add_from_table(w, lb_loss_at(i), lane);
        }
    }
    make_answers(w);
    w->step = lb_step_create(&w->plan, w->student, (size_t)1 << 28);
    assert_non_null(w->step);
    return w;
}

static double run(struct world *w) {
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    size_t n;
    float *grads = lb_model_grads(w->student, &n);
    memset(grads, 0, n * sizeof *grads);
    lb_rng_seed(&rng, 2, 2);
    if (lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &rng, &result, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return result.loss;
}

static double along(struct world *w, const struct lb_weight *weight, const float *keep,
                    const double *direction, double e) {
    int64_t n = weight->rows * weight->cols;
    for (int64_t i = 0; i < n; i++) {
        weight->value[i] = (float)(keep[i] + e * direction[i]);
    }
    double up = run(w);
    for (int64_t i = 0; i < n; i++) {
        weight->value[i] = (float)(keep[i] - e * direction[i]);
    }
    double down = run(w);
    memcpy(weight->value, keep, (size_t)n * sizeof *keep);
    return (up - down) / (2 * e);
}

static void free_world(struct world *w) {
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

/* Frees the world. whole: its losses reach every tensor. */
static void check_world(const char *name, struct world *w, bool whole) {
    size_t n;
    const struct lb_weight *weights = lb_model_weights(w->student, &n);
    double worst = 0;
    size_t reached = 0, n_grads;
    (void)run(w);
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
        assert_true(norm > 0 || !whole);
        reached += norm > 0 ? 1 : 0;
        for (int64_t j = 0; j < size; j++) {
            direction[j] = norm > 0 ? g[j] / norm : 0;
        }
        double wide = along(w, &weights[i], keep, direction, 4e-3),
               narrow = along(w, &weights[i], keep, direction, 2e-3);
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
    free_world(w);
}

static void check(const char *name, const struct lb_mixture *mixture, enum lb_target_lane lane, bool tied,
                  const struct lb_loss *only) {
    char label[96];
    snprintf(label, sizeof label, "%s, %s%s", name, lane == LB_LANE_TOPK ? "top-k" : "final states",
             tied ? ", tied" : "");
    check_world(label, make_world(mixture, lane, tied, only), only == NULL); /* one alone need not */
}

static const enum lb_target_lane lanes[] = {LB_LANE_FINAL, LB_LANE_TOPK};

static void each_loss(void **state) {
    (void)state;
    const struct lb_mixture *mean = lb_mixture_find("mean_probs");
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        bool served = false;
        for (int l = 0; l < (loss->on == LB_ON_TARGET ? 2 : 1); l++) {
            if (serves(lanes[l], loss)) {
                check(loss->name, mean, lanes[l], true, loss);
                served = true;
            }
        }
        assert_true(served);
    }
}

static void each_mixture(void **state) {
    (void)state;
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *mixture = lb_mixture_at(i);
        check(mixture->name, mixture, LB_LANE_FINAL, i % 2 == 0, NULL);
        if (mixture->combine != LB_COMBINE_LOGITS) {
            check(mixture->name, mixture, LB_LANE_TOPK, i % 2 != 0, NULL);
        }
    }
}

/* One loss from each teacher: what they weigh among themselves does not matter, and the one that reads other
 * tokens is asked for nothing but its labels. */
static struct world *make_apart(const char *mixture, enum lb_target_lane lane) {
    struct world *w = make_world(lb_mixture_find(mixture), lane, true, lb_loss_find("kl"));
    add_from_table(w, lb_loss_find("alm"), lane);
    w->plan.sets[1] = 1;
    w->plan.sets[2] = 2;
    w->plan.n_sets = 2;
    w->plan.losses[0].set = 1;
    w->plan.losses[1].set = 2;
    w->plan.unlike[1] = w->plan.apart[1] = true;
    w->plan.head[1] = NULL;
    for (int s = 0; s < SAMPLES; s++) {
        struct lb_answer *a = &w->answers[s * 2 + 1];
        for (size_t i = 0; i < a->n_tensors; i++) {
            a->what[i].kind = a->what[i].kind == LB_OUT_ACTUAL ? LB_OUT_ACTUAL : LB_OUT_SENTENCE;
        }
    }
    return w;
}

/* What the second teacher's chunks come to, by the formula. */
static double alm_of(struct world *w) {
    const struct lb_head *head = lb_model_head(w->student);
    const struct lb_value *states;
    double sum = 0;
    int64_t row = 0;
    assert_int_equal(lb_step_forward(w->step, w->samples, SAMPLES, &rng, &states, NULL), LB_OK);
    for (int s = 0; s < SAMPLES; row += w->samples[s].n, s++) {
        const struct lb_wire_tensor *its = lb_answer_find(&w->answers[s * 2 + 1], LB_OUT_ACTUAL, 0);
        for (int64_t c = 0; s > 0 && c < w->readings[s][1].n_chunks; c++) {
            const struct lb_chunk *chunk = &w->chunks[s][c];
            double own = 0, teacher = 0;
            for (int32_t t = chunk->at; t < chunk->at + chunk->n; t++) {
                float z[VOCAB];
                lb_head_logits(states->data + (row + t) * 16, 1, 16, head->weight->value, NULL, VOCAB,
                               LB_HEAD_PLAIN, z);
                own += z[w->samples[s].ids[t + 1]] - lb_logsumexp(z, VOCAB, 1);
            }
            for (int32_t t = chunk->its_at; t < chunk->its_at + chunk->its_n; t++) {
                teacher += (double)((const float *)its->data)[t];
            }
            double p = exp(teacher / 10 - 1e-6), q = exp(own / 10 - 1e-6);
            sum -= (p * log(q) + (1 - p) * log(1 - q)) / (double)w->rows;
        }
    }
    return sum;
}

static void teachers_apart(void **state) {
    (void)state;
    for (int l = 0; l < 2; l++) {
        double loss[3];
        for (int i = 0; i < 3; i++) {
            static const char *const names[] = {"mean_probs", "mean_losses", "ca_mkd"};
            lb_rng_seed(&rng, 9, 0);
            struct world *w = make_apart(names[i], lanes[l]);
            struct lb_step_result result = {0};
            loss[i] = run(w);
            assert_int_equal(
                lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &rng, &result, NULL),
                LB_OK);
            /* Of 26 rows the second answered 25, and 19 are in chunks. */
            assert_true(fabs(result.weight[0] - 1) < 1e-9 && fabs(result.weight[1] - 25 / 26.0) < 1e-9);
            assert_true(result.term[0] > 0 && fabs(result.term[1] - alm_of(w)) < 1e-6 * result.term[1]);
            assert_true(fabs(result.in_chunks[1] * 26 - 19) < 1e-9 && result.chunked[0] == 0);
            free_world(w);
        }
        assert_true(loss[0] == loss[1] && loss[0] == loss[2]);
        check_world(l == 0 ? "kl, and alm of another teacher" : "the same, top-k",
                    make_apart("ca_mkd", lanes[l]), false);
    }
}

/* Of classifiers: all losses at once under each mixture, and the labels' alone. */
static void each_of_classes(void **state) {
    (void)state;
    classes = true;
    check("classes: cross_entropy", lb_mixture_find("mean_probs"), LB_LANE_FINAL, false,
          lb_loss_find("cross_entropy"));
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *mixture = lb_mixture_at(i);
        char name[64];
        snprintf(name, sizeof name, "classes: %s", mixture->name);
        check(name, mixture, LB_LANE_FINAL, false, NULL);
        if (mixture->combine != LB_COMBINE_LOGITS) {
            check(name, mixture, LB_LANE_TOPK, false, NULL);
        }
    }
    classes = false;
}

/* Losses alike that learn from different teachers each have their own target. */
static void each_its_teacher(void **state) {
    (void)state;
    for (int l = 0; l < 2; l++) {
        double alone[2];
        struct lb_step_result result;
        struct world *w = make_world(lb_mixture_find("mean_probs"), lanes[l], true, lb_loss_find("kl"));
        for (unsigned k = 0; k < 2; k++) {
            w->plan.sets[1] = 1u << k;
            w->plan.n_sets = 1;
            w->plan.losses[0].set = 1;
            alone[k] = run(w);
        }
        add_from_table(w, lb_loss_find("kl"), lanes[l]);
        w->plan.sets[1] = 1;
        w->plan.sets[2] = 2;
        w->plan.n_sets = 2;
        w->plan.losses[1].set = 2;
        result = (struct lb_step_result){0};
        assert_int_equal(
            lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &rng, &result, NULL), LB_OK);
        for (int k = 0; k < 2; k++) {
            assert_true(fabs(result.term[k] * w->plan.losses[k].args.weight - alone[k]) < 1e-9 * alone[k]);
        }
        assert_true(fabs(alone[0] - alone[1]) > 1e-3);
        free_world(w);
    }
}

/* Where a teacher that reads other tokens is weighed by cross entropy, it is that of its chunks for each
 * token of the student's. */
static void chunks_weighed(void **state) {
    (void)state;
    struct world *w = make_world(lb_mixture_find("ca_mkd"), LB_LANE_FINAL, true, lb_loss_find("alm"));
    struct lb_step_result result = {0};
    double want = 0;
    w->plan.unlike[1] = true;
    for (int s = 1; s < SAMPLES; s++) {
        double ce[2] = {0}, n[2] = {0};
        const float *own = (const float *)lb_answer_find(w->pointers[s * 2], LB_OUT_ACTUAL, 0)->data,
                    *its = (const float *)lb_answer_find(w->pointers[s * 2 + 1], LB_OUT_ACTUAL, 0)->data;
        for (int64_t t = 0; t + 1 < w->samples[s].n; t++, n[0]++) {
            ce[0] -= (double)own[t];
        }
        for (int64_t c = 0; c < w->readings[s][1].n_chunks; c++) {
            const struct lb_chunk *chunk = &w->chunks[s][c];
            for (int32_t t = chunk->its_at; t < chunk->its_at + chunk->its_n; t++) {
                ce[1] -= (double)its[t];
            }
            n[1] += chunk->n;
        }
        /* The softmax of one teacher's is the other's weight, times 1 and 2 of the recipe. */
        double e0 = exp(ce[0] / n[0]), e1 = exp(ce[1] / n[1]);
        want += 2 * e0 / (2 * e0 + e1) * (double)w->samples[s].n / (double)w->rows;
    }
    assert_int_equal(lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &rng, &result, NULL),
                     LB_OK);
    assert_true(fabs(result.weight[1] - want) < 1e-6);
    free_world(w);
}

/* KL's gradient is linear in what the teachers say, so that a mixture of their kept parts, with its mass,
 * pulls at the student just as all of them do, each with its own. */
static void trimmed_masses(void) {
    static const char *const names[2] = {"mean_probs", "mean_losses"};
    float *grads[2];
    size_t n = 0;
    double norm = 0, apart = 0;
    for (int i = 0; i < 2; i++) {
        lb_rng_seed(&rng, 9, 0);
        struct world *w = make_world(lb_mixture_find(names[i]), LB_LANE_FINAL, true, lb_loss_find("kl"));
        (void)run(w);
        const float *own = lb_model_grads(w->student, &n);
        grads[i] = malloc(n * sizeof *grads[i]);
        assert_non_null(grads[i]);
        memcpy(grads[i], own, n * sizeof *own);
        free_world(w);
    }
    for (size_t i = 0; i < n; i++) {
        norm += (double)grads[0][i] * grads[0][i];
        apart += ((double)grads[0][i] - grads[1][i]) * ((double)grads[0][i] - grads[1][i]);
    }
    printf("trimmed, a mixture and each by itself: gradients off by %.1e of their norm\n",
           sqrt(apart / norm));
    assert_true(norm > 0 && sqrt(apart / norm) < 1e-5);
    free(grads[0]);
    free(grads[1]);
}

/* The loss of three, with more mass on other tokens each time: twice as much halves what the first teacher's
 * part comes to, and all leaves none of it. */
static void left_out_mass(void) {
    static const float more[3] = {6, 6.6931472f, 90}; /* log 2 more; all */
    struct world *w = make_world(lb_mixture_find("mean_losses"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    double loss[3];
    for (int i = 0; i < 3; i++) {
        for (int s = 0; s < SAMPLES; s++) {
            float *lse = (float *)(uintptr_t)lb_answer_find(w->pointers[2 * s], LB_OUT_LOGSUMEXP, 0)->data;
            for (int64_t t = 0; t < w->samples[s].n; t++) {
                lse[t] += more[i] - (i > 0 ? more[i - 1] : 0);
            }
        }
        loss[i] = run(w);
    }
    double once = loss[0] - loss[2], half = loss[1] - loss[2];
    assert_true(once > 1e-4 && fabs(once - 2 * half) < 1e-3 * once);
    free_world(w);
}

/* One of two teachers has more tokens than the student. */
static void trimmed_vocabulary(void **state) {
    (void)state;
    for (int32_t i = 0; i < VOCAB; i++) {
        kept[i] = i + i / 3;
    }
    trimmed = &part;
    struct world *w = make_world(lb_mixture_find("mean_losses"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    struct lb_step_result result = {0};
    assert_int_equal(lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &rng, &result, NULL),
                     LB_OK);
    assert_true(fabs(result.cut[0] - 1) < 1e-9 && result.cut[1] == 0 && result.left_out[1] == 0);
    assert_true(result.left_out[0] > 0.05 && result.left_out[0] < 0.95);
    free_world(w);
    trimmed_masses();
    left_out_mass();
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *mixture = lb_mixture_at(i);
        check("trimmed", mixture, LB_LANE_FINAL, i % 2 == 0, lb_loss_find("kl"));
        if (mixture->combine != LB_COMBINE_LOGITS) {
            check("trimmed", mixture, LB_LANE_TOPK, i % 2 != 0, lb_loss_find("kl"));
        }
    }

    /* All that the student has is listed: what is not listed is none of it. */
    listed = WHOLE - 1;
    w = make_world(lb_mixture_find("mean_losses"), LB_LANE_TOPK, true, lb_loss_find("kl"));
    for (int s = 0; s < SAMPLES; s++) {
        int32_t *ids = (int32_t *)(uintptr_t)lb_answer_find(w->pointers[s * 2], LB_OUT_TOPK_IDS, 0)->data;
        float *values = (float *)(uintptr_t)lb_answer_find(w->pointers[s * 2], LB_OUT_TOPK_VALUES, 0)->data;
        for (int64_t i = 0; i < w->samples[s].n * listed; i++) {
            ids[i] = (int32_t)(i % listed);
            values[i] = 0;
        }
        w->pointers[s * 2 + 1] = NULL;
    }
    result = (struct lb_step_result){0};
    assert_int_equal(lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &rng, &result, NULL),
                     LB_OK);
    assert_true(fabs(result.left_out[0] - (1 - (double)VOCAB / (double)listed / 1.3)) < 1e-6);
    free_world(w);
    listed = 8;
    trimmed = NULL;
}

/* Weights of each token: a teacher counts by the label's probability under it. */
static void by_label(const struct lb_weighing *in, double *w) {
    for (unsigned k = 0; k < in->n; k++) {
        w[k] *= exp(-in->cross_entropy[k]);
    }
}

static void weights_of_tokens(void **state) {
    (void)state;
    static const struct lb_mixture tokens = {.name = "tokens",
                                             .needs = LB_NEEDS_CROSS_ENTROPY,
                                             .per_token = true,
                                             .combine = LB_COMBINE_PROBS,
                                             .weigh = by_label};
    struct lb_mixture losses = tokens, sequences = tokens;
    losses.combine = LB_COMBINE_LOSSES;
    sequences.per_token = false;
    check("weights of tokens", &tokens, LB_LANE_FINAL, true, NULL);
    check("weights of tokens", &tokens, LB_LANE_TOPK, true, NULL);
    check("weights of tokens, losses", &losses, LB_LANE_FINAL, true, NULL);
    struct world *a = make_world(&tokens, LB_LANE_FINAL, true, NULL);
    double of_tokens = run(a);
    a->plan.mixture = &sequences;
    assert_true(fabs(of_tokens - run(a)) > 1e-4);
    free_world(a);
}

/* Between its halves a step lets its states be read, and comes to the same bits. */
static void two_halves(void **state) {
    (void)state;
    struct world *w = make_world(lb_mixture_find("ca_mkd"), LB_LANE_FINAL, true, NULL);
    struct lb_step_result whole = {0}, halves = {0};
    struct lb_detail detail = {0};
    const struct lb_value *states;
    const struct lb_weight *head = lb_model_head(w->student)->weight;
    float z[VOCAB];
    size_t n;
    float *grads = lb_model_grads(w->student, &n), *keep = malloc(n * sizeof *keep);
    assert_non_null(keep);
    memset(grads, 0, n * sizeof *grads);
    lb_rng_seed(&rng, 2, 2);
    assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &whole, &detail), LB_E_ARG);
    assert_int_equal(lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &rng, &whole, &detail),
                     LB_OK);
    memcpy(keep, grads, n * sizeof *keep);
    memset(grads, 0, n * sizeof *grads);
    lb_rng_seed(&rng, 2, 2);
    assert_int_equal(lb_step_forward(w->step, w->samples, SAMPLES, &rng, &states, &detail), LB_OK);
    assert_int_equal(states->rows, w->rows);
    assert_int_equal(states->cols, head->cols);
    lb_head_logits(states->data + (w->rows - 1) * states->cols, 1, states->cols, head->value, NULL, VOCAB,
                   LB_HEAD_PLAIN, z);
    for (int j = 0; j < VOCAB; j++) {
        double sum = 0;
        for (int64_t c = 0; c < head->cols; c++) {
            sum += (double)head->value[j * head->cols + c] * states->data[(w->rows - 1) * states->cols + c];
        }
        assert_true(fabs(z[j] - sum) < 1e-5);
    }
    assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &halves, &detail), LB_OK);
    assert_memory_equal(keep, grads, n * sizeof *keep);
    assert_memory_equal(&whole, &halves, sizeof whole);
    assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &halves, &detail),
                     LB_E_ARG); /* once */
    free(keep);
    free_world(w);
}

static void refused(struct world *w, const char *first, const char *second) {
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    lb_rng_seed(&rng, 2, 2);
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &rng, &result, &detail), LB_E_ARG);
    if (strstr(detail.text, first) == NULL || strstr(detail.text, second) == NULL) {
        fail_msg("%s", detail.text);
    }
    assert_true(result.loss == 0); /* nothing of it is counted */
}

/* A loss that is no number says whose numbers are none, and what helps. */
static void not_finite(void **state) {
    (void)state;
    static char names[2][4] = {"ann", "ben"};
    const struct lb_mixture *mean = lb_mixture_find("mean_probs");
    for (int who = 0; who < 3; who++) {
        struct world *w = make_world(mean, LB_LANE_FINAL, false, lb_loss_find(who < 2 ? "kl" : "hs_mse"));
        size_t n;
        w->teachers[0].name = names[0];
        w->teachers[1].name = names[1];
        if (who == 0) {
            const struct lb_weight *embedding = lb_model_weights(w->student, &n);
            embedding->value[w->samples[1].ids[0] * embedding->cols] = NAN;
            refused(w, "kl is not finite at position",
                    "the student's logits are NaN or infinite there; lower");
        } else if (who == 1) {
            w->head[1].weight[3] = INFINITY;
            refused(w, "kl is not finite at position",
                    "the logits of teacher ben are NaN or infinite there; set fp16");
        } else {
            float *states = (float *)(uintptr_t)lb_answer_find(w->pointers[3], LB_OUT_HIDDEN_FINAL, 0)->data;
            states[5] = INFINITY;
            refused(w, "hs_mse is not finite against hidden_states.final of teacher ben", "layer_mapping");
        }
        free_world(w);
    }
}

/* The same samples as one batch, and one by one as micro-batches of one step; gradients into grads. */
static struct lb_step_result in_parts(struct world *w, bool whole, float *grads) {
    struct lb_step_result result = {0};
    struct lb_step_totals totals = {.square = {0}};
    struct lb_detail detail = {0};
    size_t n;
    float *own = lb_model_grads(w->student, &n);
    memset(own, 0, n * sizeof *own);
    enum lb_status status = LB_OK;
    for (int i = 0; i < (whole ? 1 : SAMPLES) && status == LB_OK; i++) {
        lb_rng_seed(&rng, 2, 2);
        status = lb_step_forward(w->step, w->samples + i, whole ? SAMPLES : 1, &rng, NULL, &detail);
        for (int j = 0; j < SAMPLES && i == 0 && !whole && status == LB_OK; j++) {
            status = lb_step_count(w->step, w->samples + j, 1, w->pointers + 2 * j, &totals, &detail);
        }
        status = status == LB_OK ? lb_step_losses(w->step, w->pointers + 2 * i, w->rows,
                                                  whole ? NULL : &totals, &result, &detail)
                                 : status;
    }
    if (status != LB_OK) {
        fail_msg("%s", detail.text);
    }
    memcpy(grads, own, n * sizeof *own);
    return result;
}

/* A step is the same, to rounding, however it is cut into micro-batches: each loss of the table, all
 * together. */
static void micro_batches(void **state) {
    (void)state;
    for (size_t l = 0; l == 0 || lb_loss_at(l - 1) != NULL; l++) { /* the last: all */
        const struct lb_loss *only = lb_loss_at(l);
        for (int lane = 0; lane < 2; lane++) {
            if (only != NULL && !serves(lanes[lane], only)) {
                continue;
            }
            const char *mixture = only == NULL && lane == 0 ? "ca_mkd" : "mean_probs";
            struct world *w = make_world(lb_mixture_find(mixture), lanes[lane], true, only);
            size_t n;
            (void)lb_model_grads(w->student, &n);
            float *one = malloc(n * sizeof *one), *cut = malloc(n * sizeof *cut);
            assert_true(one != NULL && cut != NULL);
            struct lb_step_result a = in_parts(w, true, one), b = in_parts(w, false, cut);
            double norm = 0, apart = 0;
            for (size_t i = 0; i < n; i++) {
                norm += (double)one[i] * one[i];
                apart += ((double)one[i] - cut[i]) * ((double)one[i] - cut[i]);
            }
            printf("%-14s %-12s loss off by %.1e, gradient by %.1e of its norm\n",
                   only != NULL ? only->name : "all", lane == 0 ? "final states" : "top-k",
                   fabs(a.loss - b.loss), sqrt(apart / norm));
            assert_true(norm > 0 && sqrt(apart / norm) < 1e-5);
            assert_true(fabs(a.loss - b.loss) < 1e-6 * fabs(a.loss));
            for (size_t i = 0; i < w->plan.n_losses; i++) {
                assert_true(fabs(a.term[i] - b.term[i]) < 1e-6 * fabs(a.term[i]));
            }
            free(one);
            free(cut);
            free_world(w);
        }
    }
}

int main(void) {
    lb_rng_seed(&rng, 1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_loss),          cmocka_unit_test(each_mixture),
        cmocka_unit_test(each_of_classes),    cmocka_unit_test(weights_of_tokens),
        cmocka_unit_test(trimmed_vocabulary), cmocka_unit_test(two_halves),
        cmocka_unit_test(micro_batches),      cmocka_unit_test(teachers_apart),
        cmocka_unit_test(each_its_teacher),   cmocka_unit_test(chunks_weighed),
        cmocka_unit_test(not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
