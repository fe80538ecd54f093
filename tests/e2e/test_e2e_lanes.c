/* The lanes agree: the same recipe by whole logits, by final states and by top-k with K = V, from real
 * daemons, gives the same mixture weights, losses and gradients at every temperature, for texts and
 * classifiers; with FP16 within what its rounding can do (PROTOCOL.md, section 5); with K < V the loss never
 * exceeds the full one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "tests/e2e/hosts.h"
#include "tests/support/asking.h"
#include "tests/support/tiny_model.h"
#include "tests/support/whole_step.h"
#include "trainer/teachers/opened.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 6
#define TEACHERS 2
#define MAX_T 24
#define MAX_V 1500

static char folder[] = "/tmp/limbeck-lanes-XXXXXX";
static const enum lb_target_lane lanes[] = {LB_LANE_LOGITS, LB_LANE_FINAL, LB_LANE_TOPK};
static const char *const lane_names[] = {"logits", "final_hidden", "topk"};

/* A student and two hosted teachers. */
struct scene {
    const char *name;
    struct lb_config config;
    struct lb_vocab_map *map; /* NULL: the student has all of the teachers' vocabulary */
    struct host *hosts[TEACHERS];
    struct lb_model *student;
    int32_t ids[SAMPLES][MAX_T + 1];
    float features[SAMPLES][12];
    struct lb_sample samples[SAMPLES];
    int64_t rows;               /* that count */
    const struct lb_loss *loss; /* on distributions; NULL: kl */
    int64_t seed;               /* of draws */
    double drawn_at;            /* their temperature; 0: the recipe's */
    bool internals;             /* losses on hidden states and attention too */
    bool all_asked;             /* teachers are asked about positions that don't count, too */
    bool whole; /* teachers are asked for all of their vocabulary, as where no maps are kept */
    uint8_t counts[SAMPLES][MAX_T + 1];
};

/* What a step comes to. */
struct outcome {
    struct lb_step_result result;
    size_t n;
    float *grads;
    double head_norms; /* sum over rows of |h| */
    double delta;      /* most that FP16 moves a teacher's logit, by any lane */
    double by_hand;    /* logits: the loss of mean_losses */
};

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

/* The student has a fifth of the teachers' vocabulary. */
static void trim(struct scene *s, const char *teacher) {
    struct lb_detail detail = {0};
    struct lb_tokenizer *tokenizer = NULL;
    s->map = calloc(1, sizeof *s->map);
    assert_non_null(s->map);
    must(lb_tokenizer_open(teacher, &tokenizer, &detail), &detail);
    snprintf(s->map->full, sizeof s->map->full, "%s", lb_tokenizer_fingerprint(tokenizer));
    memset(s->map->trimmed, 'a', sizeof s->map->trimmed - 1);
    s->map->n = (int32_t)s->config.vocab_size / 5;
    s->map->kept = malloc((size_t)s->map->n * sizeof *s->map->kept);
    assert_non_null(s->map->kept);
    for (int32_t i = 0; i < s->map->n; i++) {
        s->map->kept[i] = 5 * i + i % 3;
    }
    s->config.vocab_size = s->map->n;
    lb_tokenizer_destroy(tokenizer);
}

static void begin(struct scene *s, const char *name, bool text, double range, bool trimmed) {
    struct lb_detail detail = {0};
    struct lb_rng rng;
    memset(s, 0, sizeof *s);
    s->name = name;
    lb_rng_seed(&rng, 21, 0);
    (text ? lb_tiny_llama : lb_tiny_mlp)(&s->config);
    s->config.tie_word_embeddings = false;
    s->config.vocab_size = text ? MAX_V : 40; /* columns of logits, in what follows */
    s->config.num_labels = text ? 0 : 40;
    s->config.initializer_range = range;
    for (int k = 0; k < TEACHERS; k++) {
        char path[80], label[24];
        snprintf(label, sizeof label, "%s%d", name, k);
        snprintf(path, sizeof path, "%s/%s", folder, label);
        lb_tiny_save(&s->config, 11 + (uint64_t)k, path, LB_F32, trimmed);
        s->hosts[k] = host_start(folder, label, path, NULL);
        if (trimmed && k == TEACHERS - 1) {
            trim(s, path);
        }
    }
    must(lb_model_create(&s->config, 3, &s->student, &detail), &detail);
    for (int i = 0; i < SAMPLES; i++) {
        int64_t n = text ? 4 * i + 1 : 1;
        for (int64_t t = 0; t <= n; t++) {
            s->ids[i][t] = (int32_t)lb_rng_below(&rng, (uint64_t)s->config.vocab_size);
        }
        for (int c = 0; c < 12; c++) {
            s->features[i][c] = 4 * lb_rng_float(&rng);
        }
        s->samples[i] = (struct lb_sample){.ids = text ? s->ids[i] : NULL,
                                           .n = n,
                                           .features = text ? NULL : s->features[i],
                                           .label = s->ids[i][0],
                                           .tag = -1};
        s->rows += n;
    }
}

static void end(struct scene *s) {
    for (int k = 0; k < TEACHERS; k++) {
        host_kill(s->hosts[k]);
    }
    lb_model_destroy(s->student);
    if (s->map != NULL) {
        free(s->map->kept);
        free(s->map);
    }
}

/* Most that rounding to FP16 moves a logit of these answers, 2^-11 of each number that it rounds. */
static double fp16_delta(const struct lb_plan *plan, const struct lb_answer *const *answers) {
    double most = 0;
    for (int i = 0; i < SAMPLES * TEACHERS; i++) {
        const struct lb_teacher_head *head = plan->head[i % TEACHERS];
        const struct lb_wire_tensor *z = lb_answer_find(answers[i], LB_OUT_LOGITS, 0);
        const struct lb_wire_tensor *h = lb_answer_find(answers[i], LB_OUT_HIDDEN_FINAL, 0);
        for (int64_t j = 0; z != NULL && j < lb_wire_elements(z); j++) {
            float v;
            lb_wire_floats(z, j, 1, &v);
            most = fmax(most, fabs((double)v));
        }
        for (int64_t row = 0; head != NULL && h != NULL && row < lb_wire_elements(h) / head->hidden_size;
             row++) {
            for (int64_t j = 0; j < head->vocab_size; j++) {
                double sum = 0;
                for (int64_t c = 0; c < head->hidden_size; c++) {
                    float v;
                    lb_wire_floats(h, row * head->hidden_size + c, 1, &v);
                    sum += fabs((double)v * (double)head->weight[j * head->hidden_size + c]);
                }
                most = fmax(most, sum);
            }
        }
    }
    return most / 2048;
}

/* The mean over positions and weighted teachers of sum_S p (log p - log q) - m log m, m = sum_S p, times T^2:
 * what the teachers say of the tokens S that the student has. From whole logits. */
static double by_hand(const struct scene *s, const struct lb_value *states,
                      const struct lb_answer *const *answers, double temperature) {
    const struct lb_weight *head = lb_model_head(s->student)->weight;
    static double q[MAX_V], p[MAX_V];
    double sum = 0;
    int64_t v = head->rows, row = 0, whole = lb_answer_find(answers[0], LB_OUT_LOGITS, 0)->dim[1];
    for (int i = 0; i < SAMPLES; i++) {
        for (int64_t t = 0; t < s->samples[i].n; t++, row++) {
            double q_norm = 0;
            for (int64_t j = 0; j < v; j++) {
                double z = 0;
                for (int64_t c = 0; c < head->cols; c++) {
                    z += (double)head->value[j * head->cols + c] *
                         (double)states->data[row * states->cols + c];
                }
                q[j] = z / temperature;
                q_norm += exp(q[j]);
            }
            for (int k = 0; k < TEACHERS; k++) {
                const struct lb_wire_tensor *logits =
                    lb_answer_find(answers[i * TEACHERS + k], LB_OUT_LOGITS, 0);
                double p_norm = 0, mass = 0, loss = 0;
                for (int64_t j = 0; j < whole; j++) {
                    float z;
                    lb_wire_floats(logits, t * whole + j, 1, &z);
                    p[j] = exp((double)z / temperature);
                    p_norm += p[j];
                }
                for (int64_t j = 0; j < v; j++) {
                    double mine = p[s->map != NULL ? s->map->kept[j] : j] / p_norm;
                    mass += mine;
                    loss += mine * (log(mine) - q[j] + log(q_norm));
                }
                sum += (1.0 + k) / 3 * (loss - mass * log(mass));
            }
        }
    }
    return temperature * temperature * sum / (double)s->rows;
}

/* One step of the recipe by a lane: real daemons, the real question, the real step. */
static struct outcome run(struct scene *s, const char *mixture, enum lb_target_lane lane, bool fp16,
                          double temperature, int64_t top_k) {
    struct outcome out = {.n = 0};
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    struct lb_plan *plan = calloc(1, sizeof *plan);
    struct lb_layer_pair layers = {1, 1};
    struct lb_recipe_loss losses[] = {
        {.function = "kl"},
        {.function = "hs_mse", .args = {.weight = 1, .normalize = true}},
        {.function = "hs_mse", .args = {.weight = 1}, .layer_mapping = &layers, .layer_mapping_count = 1},
        {.function = "attention_mse",
         .args = {.weight = 1},
         .layer_mapping = &layers,
         .layer_mapping_count = 1}};
    const struct lb_loss *loss = s->loss != NULL ? s->loss : lb_loss_find("kl");
    losses[0].function = loss->name;
    losses[0].args = loss->defaults;
    losses[0].args.weight = 1;
    struct lb_sample asked[SAMPLES];
    const struct lb_answer *const *answers = NULL;
    const struct lb_value *states = NULL;
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 1);
    asking_setup(&asking);
    for (int k = 0; k < TEACHERS; k++) {
        asking_add(&asking, host_url(s->hosts[k]));
        asking.teachers[k].weight = 1 + k;
    }
    asking.recipe.loss_functions = losses;
    asking.recipe.loss_functions_count = s->internals ? 4 : 1;
    asking.recipe.mixture = mixture;
    asking.recipe.targets = lane;
    asking.recipe.loss_top_k = top_k;
    asking.recipe.sample_count = lane == LB_LANE_SAMPLES ? top_k : 0;
    asking.recipe.sample_temperature = s->drawn_at;
    asking.recipe.seed = s->seed;
    asking.recipe.loss_add_tail = true;
    asking.recipe.temperature = temperature;
    asking.recipe.fp16_targets = fp16;
    asking.recipe.max_length = MAX_T;
    must(lb_teachers_open_recipe(&asking.recipe, NULL, &teachers, &detail), &detail);
    for (unsigned k = 0; k < TEACHERS; k++) {
        struct lb_teacher_info *info = &teachers->teachers[k].info;
        assert_true((info->max_vocab_maps > 0) == (info->num_labels == 0));
        info->max_vocab_maps = s->whole ? 0 : info->max_vocab_maps;
    }
    must(lb_plan_make(&asking.recipe, s->student, s->map ? s->map->trimmed : "", s->map, teachers, plan,
                      &detail),
         &detail);
    assert_true(plan->kept[0] ==
                (s->map != NULL && !s->whole && (lane == LB_LANE_LOGITS || lane == LB_LANE_TOPK)));
    for (int i = 0; i < SAMPLES; i++) {
        asked[i] = s->samples[i];
        asked[i].counts = s->all_asked ? NULL : asked[i].counts;
    }
    must(lb_teachers_submit(teachers, 0, asked, SAMPLES, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    for (int i = 0; i < SAMPLES * TEACHERS; i++) {
        assert_int_equal(answers[i]->first, lb_sample_first(&asked[i / TEACHERS]));
    }
    struct lb_step *step = lb_step_create(plan, s->student, (size_t)1 << 28);
    assert_non_null(step);
    float *grads = lb_model_grads(s->student, &out.n);
    memset(grads, 0, out.n * sizeof *grads);
    must(lb_step_forward(step, s->samples, SAMPLES, &rng, &states, &detail), &detail);
    for (int64_t r = 0; r < states->rows; r++) {
        double square = 0;
        for (int64_t c = 0; c < states->cols; c++) {
            square += (double)states->data[r * states->cols + c] * states->data[r * states->cols + c];
        }
        out.head_norms += sqrt(square);
    }
    bool is_by_hand = s->samples[0].counts == NULL && s->loss == NULL && lane == LB_LANE_LOGITS && !fp16 &&
                      strcmp(mixture, "mean_losses") == 0 && !plan->kept[0];
    out.by_hand = is_by_hand ? by_hand(s, states, answers, temperature) : 0;
    must(lb_step_losses(step, answers, s->rows, NULL, &out.result, &detail), &detail);
    out.delta = fp16 ? fp16_delta(plan, answers) : 0;
    out.grads = malloc(out.n * sizeof *out.grads);
    assert_non_null(out.grads);
    memcpy(out.grads, grads, out.n * sizeof *grads);
    lb_step_destroy(step);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    free(plan);
    return out;
}

/* |a - b| / |a| over the n gradients from begin on. */
static double apart(const struct outcome *a, const struct outcome *b, size_t begin, size_t n,
                    double *out_norm) {
    double norm = 0, sum = 0;
    for (size_t i = begin; i < begin + n; i++) {
        norm += (double)a->grads[i] * a->grads[i];
        sum += ((double)a->grads[i] - b->grads[i]) * ((double)a->grads[i] - b->grads[i]);
    }
    *out_norm = sqrt(norm);
    return sqrt(sum / norm);
}

static bool same_bits(const struct outcome *a, const struct outcome *b) {
    return a->result.loss == b->result.loss && memcmp(&a->result, &b->result, sizeof a->result) == 0 &&
           memcmp(a->grads, b->grads, a->n * sizeof *a->grads) == 0;
}

/* Where teachers keep the map, all of it is the same as where they don't: whole logits to the last bit, lists
 * of all that the student has to what floats round, and FP16, which moves a log-probability by eta at most.
 */
static void compare_maps(struct scene *s, const char *mixture, bool fp16, double temperature,
                         struct outcome *logits, const struct outcome *lists, double eta) {
    double norm;
    s->whole = true;
    struct outcome whole = run(s, mixture, LB_LANE_LOGITS, fp16, temperature, MAX_V);
    struct outcome whole_lists = run(s, mixture, LB_LANE_TOPK, fp16, temperature, MAX_V);
    s->whole = false;
    assert_true(same_bits(&whole, logits));
    double loss = fabs(whole_lists.result.loss - lists->result.loss) / fmax(1, whole_lists.result.loss);
    double gradient = apart(&whole_lists, lists, 0, lists->n, &norm);
    printf("%-10s %-11s %s T %-3g through maps, lists: loss %.1e, gradient %.1e of its norm\n", s->name,
           mixture, fp16 ? "FP16" : "FP32", temperature, loss, gradient);
    assert_true(loss <= 1e-6 + exp(eta) - 1 && gradient <= 1e-5 + exp(eta) - 1);
    logits->by_hand = whole.by_hand;
    free(whole.grads);
    free(whole_lists.grads);
}

static void compare(struct scene *s, const char *mixture, bool fp16, double temperature) {
    struct outcome of[3];
    double delta = 0;
    int n_lanes = s->loss != NULL && (s->loss->kinds & LB_TARGET_TRUNCATED) == 0 ? 2 : 3;
    for (int l = 0; l < n_lanes; l++) {
        of[l] = run(s, mixture, lanes[l], fp16, temperature, MAX_V);
        delta = fmax(delta, of[l].delta);
    }
    if (s->map != NULL && n_lanes == 3) {
        compare_maps(s, mixture, fp16, temperature, &of[0], &of[2], 2 * delta / temperature);
    }
    if (of[0].by_hand > 0) {
        printf("%-10s T %-3g by hand %.7f, logits %.7f\n", s->name, temperature, of[0].by_hand,
               of[0].result.loss);
        assert_true(fabs(of[0].by_hand - of[0].result.loss) <= 1e-5 * fmax(1, of[0].by_hand));
    }
    const struct lb_weight *head = lb_model_head(s->student)->weight;
    size_t n, begin = (size_t)(head->grad - lb_model_grads(s->student, &n));
    /* Each of two lanes moves each log-probability by eta at most, and the weights' own move comes on top
     * where they are made of rounded logits. */
    double weights = fp16 && s->config.input_size > 0 && strcmp(mixture, "ca_mkd") == 0 ? 4 * delta : 0;
    double eta = 2 * delta / temperature + 2 * weights;
    double loss_bound =
        fp16 ? 2 * (exp(eta) - 1) * (of[0].result.loss + temperature * temperature * (2 / exp(1) + eta))
             : 1e-5 * fmax(1, of[0].result.loss);
    double head_bound = 2 * temperature * (exp(eta) - 1) * of[0].head_norms / (double)s->rows;
    for (int a = 0; a < n_lanes; a++) {
        int b = (a + 1) % n_lanes;
        double weight = 0, norm, head_norm, loss = fabs(of[a].result.loss - of[b].result.loss);
        for (int k = 0; k < TEACHERS; k++) {
            weight = fmax(weight, fabs(of[a].result.weight[k] - of[b].result.weight[k]));
        }
        double gradient = apart(&of[a], &of[b], 0, of[a].n, &norm);
        double of_head =
            apart(&of[a], &of[b], begin, (size_t)(head->rows * head->cols), &head_norm) * head_norm;
        printf("%-10s %-11s %s T %-3g %-12s %-12s weights %.1e, loss %.1e of %.4f (bound %.1e), gradient "
               "%.1e of its "
               "norm\n",
               s->name, mixture, fp16 ? "FP16" : "FP32", temperature, lane_names[a], lane_names[b], weight,
               loss, of[a].result.loss, loss_bound, gradient);
        assert_true(weight <= (fp16 ? exp(2 * weights) - 1 : 1e-5) + 1e-12);
        assert_true(loss <= loss_bound);
        assert_true(fp16 ? of_head <= head_bound : gradient <= 1e-4);
    }
    for (int l = 0; l < n_lanes; l++) {
        free(of[l].grads);
    }
}

/* Lists of each teacher's own: the loss of each is that of a coarser distribution. */
static void truncated(struct scene *s, double temperature) {
    struct outcome full = run(s, "mean_losses", LB_LANE_LOGITS, false, temperature, 1);
    double before = 0;
    printf("%-10s T %-3g full %.6f, K of %lld:", s->name, temperature, full.result.loss,
           (long long)s->config.vocab_size);
    for (int64_t k = 1; k <= s->config.vocab_size; k *= 3) {
        struct outcome cut = run(s, "mean_losses", LB_LANE_TOPK, false, temperature, k);
        printf(" %lld: %.6f", (long long)k, cut.result.loss);
        assert_true(cut.result.loss <= full.result.loss * (1 + 1e-6));
        assert_true(cut.result.loss >= before * (1 - 1e-6)); /* and it grows with what is told */
        before = cut.result.loss;
        free(cut.grads);
    }
    printf("\n");
    free(full.grads);
}

/* Of texts that begin with what does not count, conversations say, teachers are asked about the rest; the
 * step is the same to the last bit as when they are asked about all. */
static void later(struct scene *s) {
    s->internals = s->map == NULL;
    s->rows = 0;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t n = s->samples[i].n;
        for (int64_t t = 0; t <= n; t++) {
            s->counts[i][t] = i == 1 ? 0 : i == 2 || (t > n / 3 + 1 && t % 5 != 0);
        }
        s->samples[i].counts = s->counts[i];
        s->rows += lb_sample_counted(&s->samples[i]);
    }
    for (int l = 0; l < 3; l++) {
        static const char *const mixtures[] = {"ca_mkd", "mean_probs", "mean_losses"};
        s->all_asked = true;
        struct outcome all = run(s, mixtures[l], lanes[l], l % 2 != 0, 2, 16);
        s->all_asked = false;
        struct outcome some = run(s, mixtures[l], lanes[l], l % 2 != 0, 2, 16);
        printf("%-10s %-12s loss %.6f\n", s->name, lane_names[l], some.result.loss);
        assert_true(some.result.loss > 0 && some.result.loss == all.result.loss);
        assert_memory_equal(some.grads, all.grads, all.n * sizeof *all.grads);
        free(all.grads);
        free(some.grads);
    }
}

/* All lanes tell the same of what lies outside; lists too short to hold all do, where they are of what is
 * kept. */
static void same_left_out(struct scene *s) {
    double left[4];
    for (int l = 0; l < 4; l++) {
        struct outcome of = run(s, "mean_probs", lanes[l < 3 ? l : 2], false, 1, l < 3 ? MAX_V : 5);
        left[l] = of.result.left_out[0];
        assert_true(fabs(of.result.cut[0] - 1) < 1e-9 && fabs(of.result.cut[1] - 1) < 1e-9);
        free(of.grads);
    }
    printf("%-10s outside of the student's vocabulary: %.4f\n", s->name, left[0]);
    assert_true(left[0] > 0.5 && left[0] < 0.95);
    for (int l = 1; l < 4; l++) {
        assert_true(fabs(left[l] - left[0]) < 1e-5);
    }
}

static void all(struct scene *s) {
    static const double temperatures[] = {0.5, 1, 4};
    static const char *const mixtures[] = {"ca_mkd", "mean_probs", "mean_losses"};
    for (int t = 0; t < 3; t++) {
        for (int m = 0; m < 3; m++) {
            compare(s, mixtures[m], false, temperatures[t]);
            compare(s, mixtures[m], true, temperatures[t]);
        }
        truncated(s, temperatures[t]);
    }
}

/* What else learns from distributions learns the same by all lanes that serve it. */
static void each_loss(struct scene *s) {
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        s->loss = lb_loss_at(i);
        if ((s->loss->kinds & LB_TARGET_DENSE) != 0) {
            printf("%s\n", s->loss->name);
            compare(s, s->loss->on_logits ? "mean_logits" : "mean_probs", false, 1);
            compare(s, "mean_losses", false, 2);
        }
    }
    s->loss = NULL;
}

/* The gradient of n draws a position on the mean over seeds, beside the whole distributions' one: how far it
 * is off. */
static double drawn_off(struct scene *s, const char *mixture, double temperature, int64_t n, int seeds) {
    struct outcome full = run(s, mixture, LB_LANE_LOGITS, false, temperature, 1);
    double *mean = calloc(full.n, sizeof *mean), norm = 0, off = 0;
    assert_non_null(mean);
    for (s->seed = 0; s->seed < 2 * seeds; s->seed += 2) { /* each teacher has a seed of its own */
        struct outcome of = run(s, mixture, LB_LANE_SAMPLES, false, temperature, n);
        assert_true(of.result.loss > 0 && of.n == full.n);
        for (size_t i = 0; i < full.n; i++) {
            mean[i] += (double)of.grads[i] / seeds;
        }
        free(of.grads);
    }
    for (size_t i = 0; i < full.n; i++) {
        norm += (double)full.grads[i] * full.grads[i];
        off += pow(mean[i] - (double)full.grads[i], 2);
    }
    free(mean);
    free(full.grads);
    s->seed = 0;
    return sqrt(off / norm);
}

/* Draws have the gradient of the whole distribution on average: more of them, and more seeds, come as near to
 * it as their number says, whatever temperature they are drawn at. */
static void drawn(struct scene *s) {
    static const double at[] = {0, 2};
    for (int i = 0; i < 4; i++) {
        const char *mixture = i % 2 == 0 ? "mean_probs" : "mean_losses";
        double temperature = i < 2 ? 1 : 1.5;
        s->drawn_at = at[i / 2];
        double few = drawn_off(s, mixture, temperature, 16, 1),
               many = drawn_off(s, mixture, temperature, 1600, 1),
               mean = drawn_off(s, mixture, temperature, 16, 16);
        printf(
            "%-10s %-11s T %-3g drawn at %-3g 16 draws off by %.3f, 1600 by %.3f, 16 of 16 seeds by %.3f\n",
            s->name, mixture, temperature, s->drawn_at > 0 ? s->drawn_at : temperature, few, many, mean);
        assert_true(many < few / 7);
        assert_true(mean < few / 2.8);
    }
    s->drawn_at = 0;
}

static void texts(void **state) {
    (void)state;
    struct scene s;
    begin(&s, "text", true, 0.3, false);
    all(&s);
    each_loss(&s);
    drawn(&s);
    later(&s);
    end(&s);
}

static void classifiers(void **state) {
    (void)state;
    struct scene s;
    begin(&s, "classifier", false, 0.5, false);
    all(&s);
    drawn(&s);
    end(&s);
}

static void trimmed(void **state) {
    (void)state;
    struct scene s;
    begin(&s, "trimmed", true, 0.3, true);
    all(&s);
    same_left_out(&s);
    each_loss(&s);
    drawn(&s);
    later(&s);
    end(&s);
}

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts), cmocka_unit_test(classifiers),
                                       cmocka_unit_test(trimmed)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
