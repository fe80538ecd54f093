/* Whole steps of teachers that are unlike: each loss its own, other tokens read, other vocabularies. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "tests/grad/step_world.h"
#include "tests/support/whole_step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ids 0, 1, 2 of three stay, so far as VOCAB goes. */
static int32_t kept[VOCAB];
static const struct lb_vocab_map part = {.kept = kept, .n = VOCAB};

/* One loss from each teacher: what they weigh among themselves does not matter, and the one that reads other
 * tokens is asked for nothing but its labels. */
static struct lb_world *make_apart(const char *mixture, enum lb_target_lane lane) {
    struct lb_world *w = lb_world_create(lb_mixture_find(mixture), lane, true, lb_loss_find("kl"));
    lb_world_add(w, lb_loss_find("alm"), lane);
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
static double alm_of(struct lb_world *w) {
    const struct lb_head *head = lb_model_head(w->student);
    const struct lb_value *states;
    double sum = 0;
    int64_t row = 0;
    assert_int_equal(lb_step_forward(w->step, w->samples, SAMPLES, &lb_worlds.rng, &states, NULL), LB_OK);
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
            lb_rng_seed(&lb_worlds.rng, 9, 0);
            struct lb_world *w = make_apart(names[i], lb_world_lanes[l]);
            struct lb_step_result result = {0};
            loss[i] = lb_world_run(w);
            assert_int_equal(lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng,
                                           &result, NULL),
                             LB_OK);
            /* Of 26 rows the second answered 25, and 19 are in chunks. */
            assert_true(fabs(result.weight[0] - 1) < 1e-9 && fabs(result.weight[1] - 25 / 26.0) < 1e-9);
            assert_true(result.term[0] > 0 && fabs(result.term[1] - alm_of(w)) < 1e-6 * result.term[1]);
            assert_true(fabs(result.in_chunks[1] * 26 - 19) < 1e-9 && result.chunked[0] == 0);
            lb_world_destroy(w);
        }
        assert_true(loss[0] == loss[1] && loss[0] == loss[2]);
        lb_world_check(l == 0 ? "kl, and alm of another teacher" : "the same, top-k",
                       make_apart("ca_mkd", lb_world_lanes[l]), false);
    }
}

/* Losses alike that learn from different teachers each have their own target. */
static void each_its_teacher(void **state) {
    (void)state;
    for (int l = 0; l < 2; l++) {
        double alone[2];
        struct lb_step_result result;
        struct lb_world *w =
            lb_world_create(lb_mixture_find("mean_probs"), lb_world_lanes[l], true, lb_loss_find("kl"));
        for (unsigned k = 0; k < 2; k++) {
            w->plan.sets[1] = 1u << k;
            w->plan.n_sets = 1;
            w->plan.losses[0].set = 1;
            alone[k] = lb_world_run(w);
        }
        lb_world_add(w, lb_loss_find("kl"), lb_world_lanes[l]);
        w->plan.sets[1] = 1;
        w->plan.sets[2] = 2;
        w->plan.n_sets = 2;
        w->plan.losses[1].set = 2;
        result = (struct lb_step_result){0};
        assert_int_equal(
            lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, NULL),
            LB_OK);
        for (int k = 0; k < 2; k++) {
            assert_true(fabs(result.term[k] * w->plan.losses[k].args.weight - alone[k]) < 1e-9 * alone[k]);
        }
        assert_true(fabs(alone[0] - alone[1]) > 1e-3);
        lb_world_destroy(w);
    }
}

/* Where a teacher that reads other tokens is weighed by cross entropy, it is that of its chunks for each
 * token of the student's. */
static void chunks_weighed(void **state) {
    (void)state;
    struct lb_world *w = lb_world_create(lb_mixture_find("ca_mkd"), LB_LANE_FINAL, true, lb_loss_find("alm"));
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
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, NULL),
        LB_OK);
    assert_true(fabs(result.weight[1] - want) < 1e-6);
    lb_world_destroy(w);
}

/* KL's gradient is linear in what the teachers say, so that a mixture of their kept parts, with its mass,
 * pulls at the student just as all of them do, each with its own. */
static void trimmed_masses(void) {
    double apart = lb_world_means_apart("kl", LB_LANE_FINAL, 9);
    printf("trimmed, a mixture and each by itself: gradients off by %.1e of their norm\n", apart);
    assert_true(apart < 1e-5);
}

/* The loss of three, with more mass on other tokens each time: twice as much halves what the first teacher's
 * part comes to, and all leaves none of it. */
static void left_out_mass(void) {
    static const float more[3] = {6, 6.6931472f, 90}; /* log 2 more; all */
    struct lb_world *w =
        lb_world_create(lb_mixture_find("mean_losses"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    double loss[3];
    for (int i = 0; i < 3; i++) {
        for (int s = 0; s < SAMPLES; s++) {
            float *lse = (float *)(uintptr_t)lb_answer_find(w->pointers[2 * s], LB_OUT_LOGSUMEXP, 0)->data;
            for (int64_t t = 0; t < w->samples[s].n; t++) {
                lse[t] += more[i] - (i > 0 ? more[i - 1] : 0);
            }
        }
        loss[i] = lb_world_run(w);
    }
    double once = loss[0] - loss[2], half = loss[1] - loss[2];
    assert_true(once > 1e-4 && fabs(once - 2 * half) < 1e-3 * once);
    lb_world_destroy(w);
}

/* One of two teachers has more tokens than the student. */
static void trimmed_vocabulary(void **state) {
    (void)state;
    for (int32_t i = 0; i < VOCAB; i++) {
        kept[i] = i + i / 3;
    }
    lb_worlds.trimmed = &part;
    struct lb_world *w =
        lb_world_create(lb_mixture_find("mean_losses"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    struct lb_step_result result = {0};
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, NULL),
        LB_OK);
    assert_true(fabs(result.cut[0] - 1) < 1e-9 && result.cut[1] == 0 && result.left_out[1] == 0);
    assert_true(result.left_out[0] > 0.05 && result.left_out[0] < 0.95);
    lb_world_destroy(w);
    trimmed_masses();
    left_out_mass();
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *mixture = lb_mixture_at(i);
        lb_world_check_new("trimmed", mixture, LB_LANE_FINAL, i % 2 == 0, lb_loss_find("kl"));
        if (mixture->combine != LB_COMBINE_LOGITS) {
            lb_world_check_new("trimmed", mixture, LB_LANE_TOPK, i % 2 != 0, lb_loss_find("kl"));
        }
    }

    /* All that the student has is listed: what is not listed is none of it. */
    lb_worlds.listed = WHOLE - 1;
    w = lb_world_create(lb_mixture_find("mean_losses"), LB_LANE_TOPK, true, lb_loss_find("kl"));
    for (int s = 0; s < SAMPLES; s++) {
        int32_t *ids = (int32_t *)(uintptr_t)lb_answer_find(w->pointers[s * 2], LB_OUT_TOPK_IDS, 0)->data;
        float *values = (float *)(uintptr_t)lb_answer_find(w->pointers[s * 2], LB_OUT_TOPK_VALUES, 0)->data;
        for (int64_t i = 0; i < w->samples[s].n * lb_worlds.listed; i++) {
            ids[i] = (int32_t)(i % lb_worlds.listed);
            values[i] = 0;
        }
        w->pointers[s * 2 + 1] = NULL;
    }
    result = (struct lb_step_result){0};
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, NULL),
        LB_OK);
    assert_true(fabs(result.left_out[0] - (1 - (double)VOCAB / (double)lb_worlds.listed / 1.3)) < 1e-6);
    lb_world_destroy(w);
    lb_worlds.listed = 8;
    lb_worlds.trimmed = NULL;
}

/* Puts a tensor of FP32 in place of the one that the answer has of that name, or behind all. */
static void put(struct lb_answer *a, const char *name, enum lb_datatype datatype, int64_t t, int64_t k,
                void *data) {
    size_t i = 0;
    assert_non_null(data);
    while (i < a->n_tensors && strcmp(a->tensors[i].name, name) != 0) {
        i++;
    }
    if (i < a->n_tensors) {
        free((void *)(uintptr_t)a->tensors[i].data);
    }
    a->n_tensors = i < a->n_tensors ? a->n_tensors : i + 1;
    assert_int_equal(lb_output_parse(name, &a->what[i], NULL), LB_OK);
    a->tensors[i] = (struct lb_wire_tensor){.name = name,
                                            .datatype = datatype,
                                            .n_dims = k > 0 ? 2 : 1,
                                            .dim = {t, k},
                                            .data = data,
                                            .bytes = (size_t)(t * (k > 0 ? k : 1)) * 4};
}

#define LISTED 8
#define REST 0.2 /* of each row, not listed */

/* The first teacher's lists of a sample: of the student's ids, and what lies outside is told; or of its own,
 * one of which the student lacks and has just that. */
static void put_lists(struct lb_answer *a, int64_t t, bool by_map) {
    int64_t k = by_map ? LISTED : LISTED + 1;
    int32_t *ids = malloc((size_t)(t * k) * sizeof *ids);
    float *values = malloc((size_t)(t * k) * sizeof *values), *rest = malloc((size_t)t * sizeof *rest),
          *outside = malloc((size_t)t * sizeof *outside);
    assert_true(ids && values && rest && outside);
    for (int64_t i = 0; i < t; i++) {
        double sum = 0, lacking = 0.1 + 0.2 * (double)(i % 3);
        for (int64_t j = 0; j < LISTED; j++) {
            int32_t id = (int32_t)((i + 5 * j) % VOCAB);
            ids[i * k + j] = by_map ? id : kept[id];
            values[i * k + j] = (float)(i * j % 7) / 3;
            sum += exp((double)values[i * k + j]);
        }
        if (!by_map) {
            ids[i * k + LISTED] = 3;
            values[i * k + LISTED] = (float)log(sum * lacking / (1 - REST - lacking));
        }
        rest[i] = (float)log(REST);
        outside[i] = (float)log(lacking);
    }
    put(a, "logits.topk_ids", LB_DT_INT32, t, k, ids);
    put(a, "logits.topk_values", LB_DT_FP32, t, k, values);
    put(a, "logprobs.rest", LB_DT_FP32, t, 0, rest);
    put(a, "logprobs.outside", LB_DT_FP32, t, 0, outside);
}

/* A teacher that was sent the map teaches what one does whose lists are cut here. */
static void lists_by_map(void **state) {
    (void)state;
    struct lb_step_result result[2] = {{0}};
    float *grads[2];
    size_t n = 0;
    for (int32_t i = 0; i < VOCAB; i++) {
        kept[i] = i + i / 3;
    }
    lb_worlds.trimmed = &part;
    lb_worlds.listed = LISTED + 1;
    for (int by_map = 0; by_map < 2; by_map++) {
        lb_rng_seed(&lb_worlds.rng, 9, 0); /* the same texts */
        struct lb_world *w =
            lb_world_create(lb_mixture_find("mean_losses"), LB_LANE_TOPK, true, lb_loss_find("kl"));
        w->plan.kept[0] = by_map;
        w->recipe.loss_top_k = by_map ? LISTED : LISTED + 1;
        w->plan.losses[0].args.temperature = 1;
        for (int s = 0; s < SAMPLES; s++) {
            put_lists(&w->answers[s * 2], w->samples[s].n, by_map);
            w->pointers[s * 2 + 1] = NULL;
        }
        assert_int_equal(lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng,
                                       &result[by_map], NULL),
                         LB_OK);
        grads[by_map] = lb_world_gradients(w, &n);
        lb_world_destroy(w);
    }
    printf("by a map: loss %.9g and %.9g\n", result[0].loss, result[1].loss);
    assert_true(result[0].loss > 0 && fabs(result[1].loss - result[0].loss) < 1e-6 * result[0].loss);
    assert_true(result[0].left_out[0] > 0.1 && fabs(result[1].left_out[0] - result[0].left_out[0]) < 1e-6);
    assert_true(lb_world_apart(grads[0], grads[1], n) < 1e-5);
    free(grads[0]), free(grads[1]);
    lb_worlds.listed = 8;
    lb_worlds.trimmed = NULL;
}

/* ---- weights by what the lane tells ----------------------------------------------------------------------
 */

/* Other lanes of the same distributions: whole logits, and lists of the k likeliest with the rest's mass. */
static void tell_by(struct lb_world *w, enum lb_target_lane lane, int64_t k) {
    w->recipe.targets = lane;
    w->recipe.loss_top_k = k;
    for (int i = 0; i < SAMPLES * 2; i++) {
        const struct lb_wire_tensor *states = lb_answer_find(&w->answers[i], LB_OUT_HIDDEN_FINAL, 0);
        int64_t t = states->dim[0];
        float *z = malloc((size_t)(t * VOCAB) * sizeof *z),
              *values = malloc((size_t)(t * k) * sizeof *values), *rest = malloc((size_t)t * sizeof *rest);
        int32_t *ids = malloc((size_t)(t * k) * sizeof *ids);
        assert_true(z && values && rest && ids);
        lb_head_logits((const float *)states->data, t, TEACHER_WIDTH, w->head[i % 2].weight, NULL, VOCAB,
                       LB_HEAD_PLAIN, z);
        for (int64_t r = 0; r < t; r++) {
            bool taken[VOCAB] = {false};
            double lse = lb_logsumexp(z + r * VOCAB, VOCAB, 1), mass = 0;
            for (int64_t j = 0; j < k; j++) {
                int32_t best = -1;
                for (int32_t v = 0; v < VOCAB; v++) {
                    best = !taken[v] && (best < 0 || z[r * VOCAB + v] > z[r * VOCAB + best]) ? v : best;
                }
                taken[best] = true;
                ids[r * k + j] = best;
                values[r * k + j] = z[r * VOCAB + best];
            }
            for (int v = 0; v < VOCAB; v++) {
                mass += taken[v] ? 0 : exp((double)z[r * VOCAB + v] - lse);
            }
            rest[r] = (float)log(mass);
        }
        put(&w->answers[i], "logits.topk_ids", LB_DT_INT32, t, k, ids);
        put(&w->answers[i], "logits.topk_values", LB_DT_FP32, t, k, values);
        put(&w->answers[i], "logprobs.rest", LB_DT_FP32, t, 0, rest);
        if (lane == LB_LANE_LOGITS) {
            put(&w->answers[i], "logits", LB_DT_FP32, t, VOCAB, z);
        } else {
            free(z);
        }
    }
}

static double weight_by(const char *mixture, enum lb_mixture_by by, enum lb_target_lane lane, int64_t k) {
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    lb_rng_seed(&lb_worlds.rng, 9, 0); /* the same texts */
    struct lb_world *w = lb_world_create(lb_mixture_find(mixture), LB_LANE_FINAL, true, lb_loss_find("kl"));
    w->recipe.mixture_by = by;
    w->plan.losses[0].args.temperature = lane == LB_LANE_FINAL ? 1.5 : 1; /* weights are at 1 */
    if (lane != LB_LANE_FINAL) {
        lb_step_destroy(w->step);
        tell_by(w, lane, k);
        w->step = lb_step_create(&w->plan, w->student, (size_t)1 << 28);
        assert_non_null(w->step);
    }
    if (lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, &detail) !=
        LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_true(fabs(result.weight[0] + result.weight[1] - 1) < 1e-9);
    lb_world_destroy(w);
    return result.weight[1];
}

/* Weights by entropy or the largest probability are the same by each lane that tells the whole distribution,
 * and near by lists, whose largest probability is exact. */
static void weights_by_lane(void **state) {
    (void)state;
    static const struct {
        const char *mixture;
        enum lb_mixture_by by;
    } cases[] = {{"entropy", LB_BY_DEFAULT},
                 {"dynamic", LB_BY_ENTROPY},
                 {"dynamic", LB_BY_MAX_PROB},
                 {"select", LB_BY_ENTROPY},
                 {"select", LB_BY_MAX_PROB}};
    for (int per = LB_PER_SEQUENCE; per <= LB_PER_TOKEN; per++) {
        lb_worlds.per = (enum lb_mixture_per)per;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            double want = weight_by(cases[i].mixture, cases[i].by, LB_LANE_FINAL, 0), off[3];
            off[0] = fabs(weight_by(cases[i].mixture, cases[i].by, LB_LANE_LOGITS, 8) - want);
            off[1] = fabs(weight_by(cases[i].mixture, cases[i].by, LB_LANE_TOPK, VOCAB - 1) - want);
            off[2] = fabs(weight_by(cases[i].mixture, cases[i].by, LB_LANE_TOPK, 8) - want);
            printf("%s by %d per %d: weight %.6f, logits off by %.1e, lists of all but one %.1e, of 8 %.1e\n",
                   cases[i].mixture, (int)cases[i].by, per, want, off[0], off[1], off[2]);
            assert_true(want > 0.01 && want < 0.99 && off[0] < 1e-6 && off[1] < 1e-6);
            assert_true(off[2] < (cases[i].by == LB_BY_MAX_PROB ? 1e-6 : 0.05));
        }
    }
    lb_worlds.per = LB_PER_DEFAULT;
}

/* What the second teacher's lists say where chunks begin, by the loss itself, which is held against its
 * formula elsewhere. */
static double lists_of(struct lb_world *w) {
    const struct lb_head *head = lb_model_head(w->student);
    const struct lb_value *states;
    double sum = 0;
    int64_t row = 0, k = w->recipe.loss_top_k;
    assert_int_equal(lb_step_forward(w->step, w->samples, SAMPLES, &lb_worlds.rng, &states, NULL), LB_OK);
    for (int s = 0; s < SAMPLES; row += w->samples[s].n, s++) {
        const struct lb_answer *a = &w->answers[s * 2 + 1];
        for (int64_t c = 0; s > 0 && c < w->readings[s][1].n_chunks; c++) {
            const struct lb_chunk *chunk = &w->chunks[s][c];
            const int32_t *ids = lb_answer_find(a, LB_OUT_TOPK_IDS, 0)->data;
            const float *values = lb_answer_find(a, LB_OUT_TOPK_VALUES, 0)->data;
            const float *rest = lb_answer_find(a, LB_OUT_REST, 0)->data;
            float memory[4 * (VOCAB + 16)], z[VOCAB], p[VOCAB], top[VOCAB], dz[VOCAB] = {0};
            int32_t own_ids[VOCAB], top_ids[VOCAB];
            double tail = exp((double)rest[chunk->its_at]), all = 0;
            for (int64_t i = 0; i < k; i++) {
                own_ids[i] = w->plan.common[1].own_of[ids[chunk->its_at * k + i]];
                all += exp((double)values[chunk->its_at * k + i]);
            }
            for (int64_t i = 0; i < k; i++) {
                p[i] = (float)(exp((double)values[chunk->its_at * k + i]) / all * (1 - tail));
            }
            const struct lb_target t = {.kind = LB_TARGET_TRUNCATED,
                                        .temperature = 1,
                                        .k = k,
                                        .own_ids = own_ids,
                                        .common = w->plan.common[1].has,
                                        .p_at = p,
                                        .tail = tail};
            struct lb_row one;
            lb_head_logits(states->data + (row + chunk->at) * 16, 1, 16, head->weight->value, NULL, VOCAB,
                           LB_HEAD_PLAIN, z);
            lb_row_init(&one, VOCAB, 2, memory);
            lb_row_begin(&one, z, -1);
            one.top_ids = top_ids;
            one.top = top;
            sum += lb_loss_row(w->plan.losses[0].loss, &one, &t, &w->plan.losses[0].args, 1, dz);
        }
    }
    return sum / (double)w->rows;
}

/* Lists of a teacher of other tokens count where chunks begin, and nowhere else. */
static void aligned_lists(void **state) {
    (void)state;
    static const char *const names[] = {"uld", "uld_hybrid"};
    for (int i = 0; i < 2; i++) {
        struct lb_step_result result = {0};
        struct lb_world *w =
            lb_world_create(lb_mixture_find("mean_losses"), LB_LANE_FINAL, true, lb_loss_find(names[i]));
        double want = lists_of(w);
        assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &result, NULL), LB_OK);
        printf("%s: %.6f, by hand %.6f\n", names[i], result.term[0], want);
        assert_true(want > 0 && fabs(result.term[0] - want) < 1e-6 * want);
        lb_world_destroy(w);
    }
}

int main(void) {
    lb_rng_seed(&lb_worlds.rng, 1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trimmed_vocabulary), cmocka_unit_test(lists_by_map),
        cmocka_unit_test(teachers_apart),     cmocka_unit_test(each_its_teacher),
        cmocka_unit_test(chunks_weighed),     cmocka_unit_test(weights_by_lane),
        cmocka_unit_test(aligned_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
