/* What the losses of a step come to. Losses on activations are known where the teacher's answer is the
 * student's own activation plus a constant; those on labels and distributions are made again in double. The
 * gradients of a step are held against finite differences in tests/grad; another label, another row's target,
 * a weight or a denominator that both lack is seen here only. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/model/model.h"
#include "common/nn/head.h"
#include "tests/support/tiny_model.h"
#include "tests/support/whole_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 3
#define TEACHERS 2
#define LAYER 1
#define MAX_T 11
#define MAX_V 97
#define TOP_K 4

static const int64_t lengths[SAMPLES] = {1, 6, MAX_T};
/* Both teachers answer about all samples but the second, which only the first answers. */
static const double mixture[SAMPLES][TEACHERS] = {{0.25, 0.75}, {1, 0}, {0.25, 0.75}};
static const double apart[TEACHERS] = {0.5, 0.125};

struct scene {
    struct lb_config config;
    struct lb_model *student;
    struct lb_tape *tape; /* owns the student's own activations */
    struct lb_value *hidden, *attention;
    struct lb_recipe recipe;
    struct lb_recipe_teacher teachers[TEACHERS];
    struct lb_teacher_info info[TEACHERS];
    struct lb_plan plan;
    int32_t ids[SAMPLES][MAX_T + 1], all_ids[SAMPLES * MAX_T], offsets[SAMPLES + 1];
    struct lb_sample samples[SAMPLES];
    struct lb_answer answers[SAMPLES][TEACHERS];
    const struct lb_answer *pointers[SAMPLES * TEACHERS];
    int64_t rows;
};

/* The student's hidden state after layer LAYER and attention of layer 0. */
static void run_student(struct scene *s) {
    struct lb_detail detail = {0};
    lb_tiny_llama(&s->config);
    if (lb_model_create(&s->config, 3, &s->student, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    for (int i = 0; i < SAMPLES; i++) {
        for (int64_t t = 0; t <= lengths[i]; t++) {
            s->ids[i][t] = (int32_t)((7 * t + 13 * i + 5) % s->config.vocab_size);
        }
        memcpy(s->all_ids + s->rows, s->ids[i], (size_t)lengths[i] * sizeof(int32_t));
        s->samples[i] = (struct lb_sample){.ids = s->ids[i], .n = lengths[i], .tag = -1};
        s->rows += lengths[i];
        s->offsets[i + 1] = (int32_t)s->rows;
    }
    struct lb_input in = {.ragged = {SAMPLES, s->offsets}, .ids = s->all_ids};
    struct lb_tap taps[2] = {{LB_TAP_HIDDEN, LAYER, NULL}, {LB_TAP_ATTENTION, 0, NULL}};
    s->tape = lb_tape_create((size_t)1 << 26);
    assert_non_null(s->tape);
    lb_tape_begin(s->tape, LB_TAPE_TRAIN, &in.ragged, NULL);
    assert_non_null(lb_model_forward(s->student, s->tape, &in, taps, 2, NULL));
    s->hidden = taps[0].value;
    s->attention = taps[1].value;
}

static void add_tensor(struct lb_answer *answer, const char *name, int n_dims, int64_t d0, int64_t d1,
                       int64_t d2, float *data) {
    assert_int_equal(lb_output_parse(name, &answer->what[answer->n_tensors], NULL), LB_OK);
    answer->tensors[answer->n_tensors++] =
        (struct lb_wire_tensor){.name = name,
                                .datatype = LB_DT_FP32,
                                .n_dims = n_dims,
                                .dim = {d0, d1, d2},
                                .data = data,
                                .bytes = (size_t)(d0 * d1 * (n_dims == 3 ? d2 : 1)) * sizeof(float)};
}

/* Attention of `heads` heads whose entries (or whose means over heads, where the numbers differ) are off the
 * student's by `off`. own [student_heads, T, T] */
static float *attention_near(const float *own, int64_t student_heads, int64_t heads, int64_t t, double off) {
    float *out = malloc((size_t)(heads * t * t) * sizeof *out);
    assert_non_null(out);
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < t * t; i++) {
            double mean = 0;
            for (int64_t g = 0; g < student_heads; g++) {
                mean += own[g * t * t + i] / (double)student_heads;
            }
            double value = heads == student_heads ? own[h * t * t + i] : mean;
            out[h * t * t + i] = (float)(i % t <= i / t ? value + off : 0);
        }
    }
    return out;
}

static void answer_all(struct scene *s, int64_t teacher_heads) {
    int64_t width = s->config.hidden_size, heads = s->config.num_attention_heads, at = 0;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t t = lengths[i];
        for (int k = 0; k < TEACHERS; k++) {
            float *states = malloc((size_t)(t * width) * sizeof *states);
            assert_non_null(states);
            for (int64_t j = 0; j < t * width; j++) {
                states[j] = (float)(s->hidden->data[s->offsets[i] * width + j] + apart[k]);
            }
            add_tensor(&s->answers[i][k], "hidden_states.1", 2, t, width, 1, states);
            add_tensor(&s->answers[i][k], "attentions.0", 3, teacher_heads, t, t,
                       attention_near(s->attention->data + at, heads, teacher_heads, t, apart[k]));
            s->pointers[i * TEACHERS + k] = mixture[i][k] > 0 ? &s->answers[i][k] : NULL;
        }
        at += heads * t * t;
    }
}

static void plan_pairs(struct scene *s, int64_t teacher_heads) {
    static char name[] = "t";
    s->recipe = (struct lb_recipe){.teachers = s->teachers,
                                   .teachers_count = TEACHERS,
                                   .mixture = "mean_probs",
                                   .targets = LB_LANE_FINAL,
                                   .loss_top_k = 4,
                                   .temperature = 1};
    s->plan.recipe = &s->recipe;
    s->plan.mixture = lb_mixture_find("mean_probs");
    s->plan.n_teachers = TEACHERS;
    s->plan.n_losses = 2;
    s->plan.losses[0].loss = lb_loss_find("hs_mse");
    s->plan.losses[1].loss = lb_loss_find("attention_mse");
    for (unsigned l = 0; l < 2; l++) {
        assert_non_null(s->plan.losses[l].loss);
        s->plan.losses[l].args = (struct lb_loss_args){.weight = 1, .temperature = 1};
    }
    for (unsigned k = 0; k < TEACHERS; k++) {
        s->teachers[k] = (struct lb_recipe_teacher){.name = name, .weight = k == 0 ? 1 : 3};
        s->info[k] = (struct lb_teacher_info){.vocab_size = s->config.vocab_size,
                                              .hidden_size = s->config.hidden_size,
                                              .n_layers = s->config.num_hidden_layers,
                                              .n_heads = (int)teacher_heads};
        s->plan.info[k] = &s->info[k];
        s->plan.pairs[s->plan.n_pairs++] = (struct lb_pair){.loss = 0,
                                                            .teacher = k,
                                                            .tap = {LB_TAP_HIDDEN, LAYER, NULL},
                                                            .kind = LB_OUT_HIDDEN,
                                                            .layer = LAYER,
                                                            .student_width = s->config.hidden_size,
                                                            .teacher_width = s->config.hidden_size};
        s->plan.pairs[s->plan.n_pairs++] = (struct lb_pair){.loss = 1,
                                                            .teacher = k,
                                                            .tap = {LB_TAP_ATTENTION, 0, NULL},
                                                            .kind = LB_OUT_ATTENTION,
                                                            .layer = 0,
                                                            .student_width = s->config.num_attention_heads,
                                                            .teacher_width = teacher_heads};
    }
}

static struct scene *new_scene(void) {
    struct scene *s = calloc(1, sizeof *s);
    assert_non_null(s);
    run_student(s);
    return s;
}

static void free_scene(struct scene *s) {
    for (int i = 0; i < SAMPLES * TEACHERS; i++) {
        struct lb_answer *answer = &s->answers[i / TEACHERS][i % TEACHERS];
        for (size_t j = 0; j < answer->n_tensors; j++) {
            free((void *)(uintptr_t)answer->tensors[j].data);
        }
    }
    lb_tape_destroy(s->tape);
    lb_model_destroy(s->student);
    free(s);
}

static void expect_term(const struct scene *s, const struct lb_step_result *result, int l, const char *how,
                        double expected) {
    if (!(fabs(result->term[l] - expected) < 1e-5 * fmax(1, fabs(expected)))) {
        fail_msg("%s, %s: %.7f instead of %.7f", s->plan.losses[l].loss->name, how, result->term[l],
                 expected);
    }
}

/* Positions that count and those that do not, taken in turn with one denominator, make the whole: a position
 * that does not count adds nothing to any term, weight or gradient. */
static void expect_halves(struct scene *s, struct lb_step *step, const struct lb_step_result *whole) {
    static uint8_t counts[SAMPLES][MAX_T + 1];
    struct lb_step_result halves = {0}, before = {0};
    struct lb_rng rng;
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < SAMPLES; i++) {
            for (int64_t t = 0; t <= MAX_T; t++) {
                counts[i][t] = (uint8_t)((i + t) % 3 == 0) != half;
            }
            s->samples[i].counts = counts[i];
        }
        lb_rng_seed(&rng, 1, 1);
        assert_int_equal(lb_whole_step(step, s->samples, SAMPLES, s->pointers, s->rows, &rng, &halves, NULL),
                         LB_OK);
        for (size_t l = 0; l < s->plan.n_losses; l++) { /* each half has something to say */
            assert_true(fabs(halves.term[l] - before.term[l]) > 1e-9);
        }
        before = halves;
    }
    for (size_t l = 0; l < s->plan.n_losses; l++) {
        assert_true(fabs(halves.term[l] - whole->term[l]) < 1e-6 * fmax(1, fabs(whole->term[l])));
    }
    assert_true(fabs(halves.loss - whole->loss) < 1e-6 * fmax(1, fabs(whole->loss)));
    for (int k = 0; k < TEACHERS; k++) {
        assert_true(fabs(halves.weight[k] - whole->weight[k]) < 1e-9);
    }
}

static void check(int64_t teacher_heads) {
    struct scene *s = new_scene();
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 1);
    answer_all(s, teacher_heads);
    plan_pairs(s, teacher_heads);
    struct lb_step *step = lb_step_create(&s->plan, s->student, (size_t)1 << 26);
    assert_non_null(step);
    if (lb_whole_step(step, s->samples, SAMPLES, s->pointers, s->rows, &rng, &result, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    /* Each entry is off by the teacher's constant: its square is every row's mean, whatever widths, heads and
     * lengths. Rows count by the mixture's weight of their sample's teacher. */
    double expected = 0, weight[TEACHERS] = {0};
    for (int i = 0; i < SAMPLES; i++) {
        for (int k = 0; k < TEACHERS; k++) {
            weight[k] += mixture[i][k] * (double)lengths[i] / (double)s->rows;
            expected += mixture[i][k] * apart[k] * apart[k] * (double)lengths[i] / (double)s->rows;
        }
    }
    for (int l = 0; l < 2; l++) {
        expect_term(s, &result, l, teacher_heads == 4 ? "equal heads" : "other heads", expected);
    }
    assert_true(fabs(result.weight[0] - weight[0]) < 1e-9 && fabs(result.weight[1] - weight[1]) < 1e-9);
    expect_halves(s, step, &result);
    lb_step_destroy(step);
    free_scene(s);
}

static void test_equal_heads(void **state) {
    (void)state;
    check(4);
}

static void test_other_heads(void **state) {
    (void)state;
    check(3);
}

/* Weights of each token, by the label's probability under the teacher; the last label it has not seen. */
static void by_label(const struct lb_weighing *in, double *w) {
    for (unsigned k = 0; k < in->n; k++) {
        w[k] *= exp(-in->cross_entropy[k]);
    }
}

static void test_weights_of_tokens(void **state) {
    (void)state;
    static const struct lb_mixture tokens = {.name = "tokens",
                                             .needs = LB_NEEDS_CROSS_ENTROPY,
                                             .per = LB_PER(LB_PER_TOKEN),
                                             .combine = LB_COMBINE_PROBS,
                                             .weigh = by_label};
    struct scene *s = new_scene();
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    struct lb_rng rng;
    double hidden = 0, attention = 0, of_first = 0;
    lb_rng_seed(&rng, 1, 1);
    answer_all(s, 4);
    plan_pairs(s, 4);
    s->plan.mixture = &tokens;
    s->recipe.mixture_per = LB_PER_TOKEN;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t n = lengths[i];
        float *actual[TEACHERS];
        for (int k = 0; k < TEACHERS; k++) {
            actual[k] = malloc((size_t)n * sizeof *actual[k]);
            assert_non_null(actual[k]);
            for (int64_t t = 0; t < n; t++) {
                actual[k][t] = -0.25f * (float)((3 * t + 5 * k + i) % 7);
            }
            add_tensor(&s->answers[i][k], "logprobs.actual", 1, n, 1, 1, actual[k]);
        }
        for (int64_t t = 0; t < n; t++) {
            double w[TEACHERS], sum = 0;
            for (int k = 0; k < TEACHERS; k++) {
                w[k] = mixture[i][k] > 0 ? s->teachers[k].weight * exp(t + 1 < n ? actual[k][t] : 0) : 0;
                sum += w[k];
            }
            of_first += w[0] / sum / (double)s->rows;
            for (int k = 0; k < TEACHERS; k++) { /* row t of attention has t + 1 of n (n + 1) / 2 entries */
                double square = w[k] / sum * apart[k] * apart[k] / (double)s->rows;
                hidden += square;
                attention += square * (double)(t + 1) * 2 / (double)(n + 1);
            }
        }
    }
    struct lb_step *step = lb_step_create(&s->plan, s->student, (size_t)1 << 26);
    assert_non_null(step);
    if (lb_whole_step(step, s->samples, SAMPLES, s->pointers, s->rows, &rng, &result, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    expect_term(s, &result, 0, "weights of tokens", hidden);
    expect_term(s, &result, 1, "weights of tokens", attention);
    assert_true(fabs(result.weight[0] - of_first) < 1e-6 &&
                fabs(result.weight[0] + result.weight[1] - 1) < 1e-6);
    lb_step_destroy(step);
    free_scene(s);
}

/* A second teacher that knows no label of odd positions. */
static void at_even(const struct lb_weighing *in, double *w) {
    w[1] = in->cross_entropy[1] > 1 ? 0 : w[1];
}

/* The denominator of normalized losses: squares of rows that count, of teachers that count there. */
static void test_totals(void **state) {
    (void)state;
    static const struct lb_mixture even = {.name = "even",
                                           .needs = LB_NEEDS_CROSS_ENTROPY,
                                           .per = LB_PER(LB_PER_TOKEN),
                                           .combine = LB_COMBINE_PROBS,
                                           .weigh = at_even};
    static uint8_t counts[SAMPLES][MAX_T + 1];
    struct scene *s = new_scene();
    struct lb_step_totals totals = {.square = {0}};
    double square[TEACHERS] = {0}, numbers[TEACHERS] = {0};
    int64_t width = s->config.hidden_size;
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 1);
    answer_all(s, 4);
    plan_pairs(s, 4);
    s->plan.mixture = &even;
    s->recipe.mixture_per = LB_PER_TOKEN;
    s->plan.losses[0].args.normalize = true;
    for (int i = 0; i < SAMPLES * TEACHERS; i++) {
        int64_t n = lengths[i / TEACHERS];
        struct lb_answer *answer = &s->answers[i / TEACHERS][i % TEACHERS];
        float *actual = malloc((size_t)n * sizeof *actual);
        assert_non_null(actual);
        for (int64_t t = 0; t < n; t++) {
            bool seen = i % TEACHERS == 0 || t % 2 == 0 || t + 1 == n, counted = (i / TEACHERS + t) % 3 != 0;
            const float *row = (const float *)answer->tensors[0].data + t * width;
            actual[t] = seen ? -0.5f : -2;
            counts[i / TEACHERS][t + 1] = counted;
            for (int64_t j = 0; s->pointers[i] != NULL && counted && seen && j < width; j++) {
                square[i % TEACHERS] += (double)row[j] * row[j];
                numbers[i % TEACHERS]++;
            }
        }
        add_tensor(answer, "logprobs.actual", 1, n, 1, 1, actual);
        s->samples[i / TEACHERS].counts = counts[i / TEACHERS];
    }
    struct lb_step *step = lb_step_create(&s->plan, s->student, (size_t)1 << 26);
    assert_non_null(step);
    assert_int_equal(lb_step_forward(step, s->samples, SAMPLES, &rng, NULL, NULL), LB_OK);
    assert_int_equal(lb_step_count(step, s->samples, SAMPLES, s->pointers, &totals, NULL), LB_OK);
    for (int k = 0; k < TEACHERS; k++) { /* pairs of attention, between them, have none */
        assert_true(totals.numbers[2 * k] == numbers[k] && totals.numbers[2 * k + 1] == 0);
        assert_true(fabs(totals.square[2 * k] - square[k]) < 1e-9 * square[k]);
    }
    lb_step_destroy(step);
    free_scene(s);
}

/* log softmax(z / temperature) of n */
static void log_softmax(const float *z, int64_t n, double temperature, double *out) {
    double sum = 0;
    for (int64_t j = 0; j < n; j++) {
        sum += exp(z[j] / temperature);
    }
    for (int64_t j = 0; j < n; j++) {
        out[j] = z[j] / temperature - log(sum);
    }
}

/* The student's logits of a row of its states. */
static void student_logits(const struct lb_model *student, const struct lb_value *states, int64_t row,
                           float *z) {
    const struct lb_head *head = lb_model_head(student);
    lb_head_logits(states->data + row * states->cols, 1, states->cols, head->weight->value,
                   head->bias != NULL ? head->bias->value : NULL, head->weight->rows, head->shape, z);
}

/* Cross entropy of the labels: of a text the next token or, by a classifier, its class; of an image its
 * class. rows: of the student's logits. */
static void check_labels(struct lb_model *student, const struct lb_sample *samples, int64_t rows) {
    const struct lb_recipe recipe = {
        .loss_top_k = 1, .per_device_train_batch_size = SAMPLES, .gradient_accumulation_steps = 1};
    bool of_samples = lb_model_is_classifier(student);
    int64_t positions = 0;
    struct lb_plan plan = {
        .recipe = &recipe, .mixture = lb_mixture_find("mean_probs"), .n_losses = 1, .on_label = true};
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    struct lb_rng rng;
    const struct lb_value *states;
    double expected = 0;
    int64_t row = 0, v = lb_model_head(student)->weight->rows;
    plan.losses[0].loss = lb_loss_find("cross_entropy");
    plan.losses[0].args = (struct lb_loss_args){.weight = 1, .temperature = 1};
    lb_rng_seed(&rng, 1, 1);
    struct lb_step *step = lb_step_create(&plan, student, (size_t)1 << 26);
    assert_non_null(step);
    assert_int_equal(lb_step_forward(step, samples, SAMPLES, &rng, &states, &detail), LB_OK);
    for (int i = 0; i < SAMPLES; i++) {
        positions += samples[i].n;
        for (int64_t t = 0; t < (of_samples ? 1 : samples[i].n); t++) {
            float z[MAX_V];
            double log_q[MAX_V];
            student_logits(student, states, row++, z);
            log_softmax(z, v, 1, log_q);
            expected -= log_q[of_samples ? samples[i].label : samples[i].ids[t + 1]] / (double)rows;
        }
    }
    assert_int_equal(lb_step_losses(step, NULL, positions, NULL, &result, &detail), LB_OK);
    assert_true(row == rows && fabs(result.loss - expected) < 1e-5);
    lb_step_destroy(step);
}

static void test_labels(void **state) {
    (void)state;
    struct scene *s = new_scene();
    check_labels(s->student, s->samples, s->rows);
    free_scene(s);
    struct lb_config config;
    struct lb_model *student = NULL;
    float features[SAMPLES][12];
    struct lb_sample samples[SAMPLES];
    lb_tiny_mlp(&config);
    config.initializer_range = 1;
    assert_int_equal(lb_model_create(&config, 3, &student, NULL), LB_OK);
    for (int i = 0; i < SAMPLES; i++) {
        for (int j = 0; j < 12; j++) {
            features[i][j] = (float)((5 * i + 3 * j) % 11) / 11;
        }
        samples[i] = (struct lb_sample){.n = 1, .features = features[i], .label = (3 * i + 1) % 5, .tag = -1};
    }
    check_labels(student, samples, SAMPLES);
    lb_model_destroy(student);
    lb_tiny_bert(&config);
    config.num_labels = 5;
    assert_int_equal(lb_model_create(&config, 3, &student, NULL), LB_OK);
    s = new_scene();
    for (int i = 0; i < SAMPLES; i++) {
        s->samples[i].label = (3 * i + 1) % 5;
    }
    check_labels(student, s->samples, SAMPLES);
    lb_model_destroy(student);
    free_scene(s);
}

/* Logits of each teacher, and the largest of them by themselves. */
static void answer_logits(struct scene *s) {
    int64_t v = s->config.vocab_size;
    for (int i = 0; i < SAMPLES * TEACHERS; i++) {
        struct lb_answer *answer = &s->answers[i / TEACHERS][i % TEACHERS];
        int64_t n = lengths[i / TEACHERS];
        float *z = malloc((size_t)(n * v) * sizeof *z),
              *values = malloc((size_t)(n * TOP_K) * sizeof *values),
              *rest = malloc((size_t)n * sizeof *rest);
        int32_t *ids = malloc((size_t)(n * TOP_K) * sizeof *ids);
        assert_true(z != NULL && values != NULL && rest != NULL && ids != NULL);
        for (int64_t t = 0; t < n; t++) {
            float *row = z + t * v;
            double log_p[MAX_V], others = 0;
            bool taken[MAX_V] = {false};
            for (int64_t j = 0; j < v; j++) {
                row[j] = (float)(3 * sin((double)(j * (i + 2) + 17 * t + i)));
            }
            log_softmax(row, v, 1, log_p);
            for (int m = 0; m < TOP_K; m++) {
                int32_t best = -1;
                for (int32_t j = 0; j < v; j++) {
                    best = !taken[j] && (best < 0 || row[j] > row[best]) ? j : best;
                }
                taken[best] = true;
                ids[t * TOP_K + m] = best;
                values[t * TOP_K + m] = row[best];
            }
            for (int64_t j = 0; j < v; j++) {
                others += taken[j] ? 0 : exp(log_p[j]);
            }
            rest[t] = (float)log(others);
        }
        add_tensor(answer, "logits", 2, n, v, 1, z);
        add_tensor(answer, "logits.topk_ids", 2, n, TOP_K, 1, (float *)(void *)ids);
        answer->tensors[1].datatype = LB_DT_INT32;
        add_tensor(answer, "logits.topk_values", 2, n, TOP_K, 1, values);
        add_tensor(answer, "logprobs.rest", 1, n, 1, 1, rest);
        s->pointers[i] = mixture[i / TEACHERS][i % TEACHERS] > 0 ? answer : NULL;
    }
}

/* KL(p || q) times the temperature's square, p of n classes. */
static double kl(const double *p, const double *log_q, int64_t n, double temperature) {
    double sum = 0;
    for (int64_t j = 0; j < n; j++) {
        sum += p[j] > 0 ? p[j] * (log(p[j]) - log_q[j]) : 0;
    }
    return temperature * temperature * sum;
}

/* The KL at position t of sample i from whole logits. */
static double dense_kl(const struct scene *s, int i, int64_t t, const float *student, double temperature) {
    int64_t v = s->config.vocab_size;
    double p[MAX_V] = {0}, log_q[MAX_V], each = 0;
    float mean[MAX_V] = {0};
    log_softmax(student, v, temperature, log_q);
    for (int k = 0; k < TEACHERS; k++) {
        const float *z = (const float *)s->answers[i][k].tensors[0].data + t * v;
        double log_p[MAX_V], own[MAX_V];
        log_softmax(z, v, temperature, log_p);
        for (int64_t j = 0; j < v; j++) {
            own[j] = exp(log_p[j]);
            p[j] += mixture[i][k] * own[j];
            mean[j] += (float)mixture[i][k] * z[j];
        }
        each += mixture[i][k] * kl(own, log_q, v, temperature);
    }
    if (s->plan.mixture->combine == LB_COMBINE_LOGITS) {
        log_softmax(mean, v, temperature, p);
        for (int64_t j = 0; j < v; j++) {
            p[j] = exp(p[j]);
        }
    }
    return s->plan.mixture->combine == LB_COMBINE_LOSSES ? each : kl(p, log_q, v, temperature);
}

/* The KL of teachers' lists with one tail: who is in no list has class v, the tail. */
static double listed_kl(const struct scene *s, int i, int64_t t, const float *student, const double *weight) {
    int64_t v = s->config.vocab_size;
    double p[MAX_V + 1] = {0}, log_q[MAX_V + 1], q_tail = 0;
    bool listed[MAX_V] = {false};
    log_softmax(student, v, 1, log_q);
    for (int k = 0; k < TEACHERS; k++) {
        const struct lb_answer *a = &s->answers[i][k];
        const int32_t *ids = (const int32_t *)a->tensors[1].data + t * TOP_K;
        const float *values = (const float *)a->tensors[2].data + t * TOP_K;
        double own[MAX_V], sum = 0, tail = exp((double)((const float *)a->tensors[3].data)[t]);
        for (int m = 0; m < TOP_K; m++) {
            listed[ids[m]] |= weight[k] > 0;
            sum += exp(values[m]);
        }
        for (int64_t j = 0; j < v; j++) {
            own[j] = tail / (double)(v - TOP_K);
        }
        for (int m = 0; m < TOP_K; m++) {
            own[ids[m]] = (1 - tail) * exp(values[m]) / sum;
        }
        for (int64_t j = 0; weight[k] > 0 && j < v; j++) {
            p[j] += weight[k] * own[j];
        }
    }
    for (int64_t j = 0; j < v; j++) {
        if (!listed[j]) {
            p[v] += p[j];
            q_tail += exp(log_q[j]);
            p[j] = 0;
        }
    }
    log_q[v] = log(q_tail);
    return kl(p, log_q, v + 1, 1);
}

static double expected_kl(const struct scene *s, int i, int64_t t, const float *student, double temperature) {
    if (s->recipe.targets != LB_LANE_TOPK) {
        return dense_kl(s, i, t, student, temperature);
    }
    if (s->plan.mixture->combine != LB_COMBINE_LOSSES) {
        return listed_kl(s, i, t, student, mixture[i]);
    }
    double sum = 0;
    for (int k = 0; k < TEACHERS; k++) {
        const double only[TEACHERS] = {k == 0, k == 1};
        sum += mixture[i][k] > 0 ? mixture[i][k] * listed_kl(s, i, t, student, only) : 0;
    }
    return sum;
}

/* Two losses on distributions, at two temperatures where the lane allows it. */
static void check_targets(const char *mix, enum lb_target_lane lane) {
    struct scene *s = new_scene();
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    struct lb_rng rng;
    const struct lb_value *states;
    double expected[2] = {0}, temperature[2] = {1, lane == LB_LANE_TOPK ? 1 : 2};
    int64_t row = 0;
    lb_rng_seed(&rng, 1, 1);
    plan_pairs(s, 4);
    s->plan.n_pairs = 0;
    answer_logits(s);
    s->recipe.targets = lane;
    s->recipe.loss_top_k = TOP_K;
    s->recipe.loss_add_tail = true;
    s->plan.mixture = lb_mixture_find(mix);
    s->plan.on_target = true;
    for (int l = 0; l < 2; l++) {
        s->plan.losses[l].loss = lb_loss_find("kl");
        s->plan.losses[l].args = (struct lb_loss_args){.weight = 1, .temperature = temperature[l]};
    }
    struct lb_step *step = lb_step_create(&s->plan, s->student, (size_t)1 << 26);
    assert_non_null(step);
    assert_int_equal(lb_step_forward(step, s->samples, SAMPLES, &rng, &states, &detail), LB_OK);
    for (int i = 0; i < SAMPLES; i++) {
        for (int64_t t = 0; t < lengths[i]; t++) {
            float z[MAX_V];
            student_logits(s->student, states, row++, z);
            for (int l = 0; l < 2; l++) {
                expected[l] += expected_kl(s, i, t, z, temperature[l]) / (double)s->rows;
            }
        }
    }
    assert_int_equal(lb_step_losses(step, s->pointers, s->rows, NULL, &result, &detail), LB_OK);
    expect_term(s, &result, 0, mix, expected[0]);
    expect_term(s, &result, 1, mix, expected[1]);
    expect_halves(s, step, &result);
    lb_step_destroy(step);
    free_scene(s);
}

static void test_targets(void **state) {
    (void)state;
    check_targets("mean_probs", LB_LANE_LOGITS);
    check_targets("mean_logits", LB_LANE_LOGITS);
    check_targets("mean_losses", LB_LANE_LOGITS);
    check_targets("mean_probs", LB_LANE_TOPK);
    check_targets("mean_losses", LB_LANE_TOPK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_heads),
        cmocka_unit_test(test_other_heads),
        cmocka_unit_test(test_weights_of_tokens),
        cmocka_unit_test(test_totals),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
