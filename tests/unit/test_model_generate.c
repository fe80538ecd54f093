/* Text by several sequences at once, and the cache behind it: what each gives alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/model/generate.h"
#include "common/nn/reduce.h"
#include "tests/support/tiny_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct texts {
    int32_t ids[5][64];
    int n[5];
};

static enum lb_status take_of(void *context, int64_t i, int32_t id) {
    struct texts *t = context;
    t->ids[i][t->n[i]++] = id;
    return LB_OK;
}

static enum lb_status take(void *context, int32_t id) {
    return take_of(context, 0, id);
}

static enum lb_status refuse(void *context, int64_t i, int32_t id) {
    (void)context;
    (void)id;
    return i == 3 ? LB_E_CANCELLED : LB_OK;
}

/* Prompts of unlike lengths, each with its own limit, temperature and seed: together they give the ids that
 * each gives alone, whatever the order, and each ends for itself. */
static void generating_together(void **state) {
    (void)state;
    enum { B = 5 };
    static const int64_t lengths[B] = {1, 40, 5, 2, 17};
    int64_t limits[B] = {30, 3, 25, 0, 12};
    struct lb_config config;
    struct lb_model *model = NULL;
    lb_tiny_llama(&config);
    assert_int_equal(lb_model_create(&config, 5, &model, NULL), LB_OK);
    struct lb_generate_prompt prompts[B], turned[B];
    struct texts alone = {0}, together = {0}, reversed = {0};
    int32_t ids[B][64];
    struct lb_ends stop;
    for (int i = 0; i < B; i++) {
        for (int t = 0; t < lengths[i]; t++) {
            ids[i][t] = (int32_t)((5 * i + 11 * t + i * t) % config.vocab_size);
        }
        prompts[i] = (struct lb_generate_prompt){
            ids[i],
            lengths[i],
            {.max_new_tokens = limits[i], .temperature = i % 2 ? 0 : 1.3, .top_p = 0.95, .seed = 3}};
    }
    /* In the second pass one ends at an id that it is known to write; in the third two end at once. */
    for (int pass = 0; pass < 3; pass++) {
        memset(&alone, 0, sizeof alone);
        memset(&together, 0, sizeof together);
        memset(&reversed, 0, sizeof reversed);
        for (int i = 0; i < B; i++) {
            struct texts w = {0};
            assert_int_equal(
                lb_generate(model, prompts[i].ids, prompts[i].n, &prompts[i].args, take, &w, NULL), LB_OK);
            memcpy(alone.ids[i], w.ids[0], sizeof w.ids[0]);
            alone.n[i] = w.n[0];
            assert_true(pass > 0 && i == 2 ? alone.n[i] <= 9 : alone.n[i] == limits[i]);
            turned[B - 1 - i] = prompts[i];
        }
        assert_int_equal(lb_generate_batch(model, prompts, B, take_of, &together, NULL), LB_OK);
        assert_int_equal(lb_generate_batch(model, turned, B, take_of, &reversed, NULL), LB_OK);
        assert_memory_equal(&alone, &together, sizeof alone);
        for (int i = 0; i < B; i++) {
            assert_int_equal(reversed.n[B - 1 - i], alone.n[i]);
            assert_memory_equal(reversed.ids[B - 1 - i], alone.ids[i], sizeof alone.ids[i]);
        }
        if (pass == 0) {
            stop = (struct lb_ends){2, {-1, alone.ids[2][9]}};
            prompts[2].args.ends = &stop;
        } else {
            prompts[0].args.max_new_tokens = limits[0] = limits[1];
        }
    }
    struct lb_detail detail = {0};
    assert_int_equal(lb_generate_batch(model, prompts, 0, take_of, &together, &detail), LB_E_ARG);
    prompts[3].args.max_new_tokens = 4;
    assert_int_equal(lb_generate_batch(model, prompts, B, refuse, NULL, &detail), LB_E_CANCELLED);
    ids[4][2] = -1;
    detail = (struct lb_detail){0};
    assert_int_equal(lb_generate_batch(model, prompts, B, take_of, &together, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "prompt 4: id -1 at 2"));
    lb_model_destroy(model);
}

/* All classes allowed: drawn as where one more than needed is cut off, though nobody puts all in order. */
static void drawing_from_all(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_model *model = NULL;
    lb_tiny_llama(&config);
    config.vocab_size = 3000;
    assert_int_equal(lb_model_create(&config, 5, &model, NULL), LB_OK);
    int beyond = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        static const double top_p[] = {1, 0.5, 0.9};
        int32_t prompt[] = {5, 77};
        struct texts all = {0}, cut = {0};
        struct lb_generate_args args = {.max_new_tokens = 30,
                                        .temperature = seed % 2 ? 1 : 0.2, /* flat, and few that count */
                                        .top_p = top_p[seed % 3],
                                        .seed = seed};
        assert_int_equal(lb_generate(model, prompt, 2, &args, take, &all, NULL), LB_OK);
        args.top_k = config.vocab_size - 1; /* the one that is left out has nearly no mass */
        assert_int_equal(lb_generate(model, prompt, 2, &args, take, &cut, NULL), LB_OK);
        int same = 0;
        for (int i = 0; i < 30; i++) {
            same += all.ids[0][i] == cut.ids[0][i];
        }
        beyond += same < 30;
    }
    assert_true(beyond <=
                4); /* one in 3000 may fall on the other side of a border, and its text goes another way */
    lb_model_destroy(model);
}

/* The states behind the ids: sequences with pasts of their own, in a batch and each alone, bit for bit; one
 * leaves on the way. */
static void cache_of_many(void **state) {
    (void)state;
    enum { B = 3, TURNS = 4 };
    static const int32_t pieces[TURNS][B] = {{7, 1, 20}, {1, 1, 1}, {1, 3, 0}, {1, 0, 2}};
    static const int64_t capacity[B] = {10, 6, 23};
    struct lb_config config;
    struct lb_model *model = NULL;
    lb_tiny_llama(&config);
    assert_int_equal(lb_model_create(&config, 5, &model, NULL), LB_OK);
    struct lb_tape *tape = lb_tape_create((size_t)1 << 28);
    float *want[TURNS][B];
    int32_t ids[64];
    for (int i = 0; i < 64; i++) {
        ids[i] = (int32_t)((13 * i + 5) % config.vocab_size);
    }
    struct lb_kv kv;
    for (int s = 0; s < B; s++) {
        assert_int_equal(lb_kv_init(&kv, model, 1, &capacity[s]), LB_OK);
        for (int t = 0; t < TURNS; t++) {
            int32_t offsets[2] = {0, pieces[t][s]};
            struct lb_input in = {.ragged = {1, offsets}, .ids = ids + s + 4 * t};
            lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
            struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, &kv);
            size_t bytes = (size_t)(offsets[1] * h->cols) * sizeof(float);
            want[t][s] = malloc(bytes + 1);
            memcpy(want[t][s], h->data, bytes);
        }
        lb_kv_finish(&kv);
    }
    assert_int_equal(lb_kv_init(&kv, model, B, capacity), LB_OK);
    for (int t = 0; t < TURNS; t++) {
        int32_t offsets[B + 1] = {0}, all[64];
        int n = 0;
        for (int s = 0; s < B; s++) {
            if (s != 1 || t < 3) {
                memcpy(all + offsets[n], ids + s + 4 * t, (size_t)pieces[t][s] * sizeof *ids);
                offsets[n + 1] = offsets[n] + pieces[t][s];
                n++;
            }
        }
        struct lb_input in = {.ragged = {n, offsets}, .ids = all};
        lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
        struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, &kv);
        for (int s = 0, at = 0; s < B; s++) {
            if (s != 1 || t < 3) {
                assert_memory_equal(h->data + offsets[at] * h->cols, want[t][s],
                                    (size_t)(pieces[t][s] * h->cols) * sizeof(float));
                at++;
            }
            free(want[t][s]);
        }
        if (t == 2) {
            lb_kv_drop(&kv, 1);
        }
    }
    assert_int_equal(kv.places[1].length, 23);
    lb_kv_finish(&kv);
    const int64_t none[1] = {0};
    assert_int_equal(lb_kv_init(&kv, model, 1, none), LB_E_LIMIT);
    lb_tape_destroy(tape);
    lb_model_destroy(model);
}

/* As lb_generate_draw is told: the ids in order by lb_topk, cut, and one drawn. */
static int32_t plain_draw(const struct lb_generate_args *a, struct lb_rng *rng, const float *z, int64_t v) {
    int32_t *ids = malloc((size_t)v * sizeof *ids);
    float *values = malloc((size_t)v * sizeof *values);
    double lse = lb_logsumexp(z, v, a->temperature), u = lb_rng_double(rng), mass = 0;
    assert_true(ids != NULL && values != NULL);
    lb_topk(z, v, v, ids, values);
    lb_softmax(values, v, a->temperature, lse, values);
    int64_t n = 0, i = 0;
    while (n < v && (n == 0 || mass < a->top_p)) {
        mass += values[n++];
    }
    /* Nearly all of 1 is drawn from as if it were all: what is found among 256 or 2048 stays. */
    for (int64_t k = 256; k <= v && a->top_p >= 1; k *= 8) {
        double left = u;
        for (i = 0; i < k && i < n; i++) {
            left -= values[i];
            if (left < 0) {
                int32_t id = ids[i];
                free(ids);
                free(values);
                return id;
            }
        }
    }
    u *= mass;
    for (i = 0; i < n - 1; i++) {
        u -= values[i];
        if (u < 0) {
            break;
        }
    }
    int32_t id = ids[i];
    free(ids);
    free(values);
    return id;
}

/* Logits that fall and rise with their ids, of which the middle one is the largest or the least of all. */
static void drawing_from_hills(void **state) {
    (void)state;
    enum { V = 5000 };
    static float z[V], values[V];
    static int32_t ids[V];
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < V; i++) {
            z[i] = (float)((round % 2 == 0 ? 1e-4 : -1e-4) * abs(i - V / 2));
        }
        const struct lb_generate_args args = {.temperature = 1, .top_p = 1};
        struct lb_rng one, other;
        lb_rng_seed(&one, (uint64_t)round, 1);
        other = one;
        assert_int_equal(lb_generate_draw(&args, &one, z, V, ids, values), plain_draw(&args, &other, z, V));
    }
}

/* However flat the logits are, and how many are equal: what is drawn is what the order of all says. */
static void drawing(void **state) {
    (void)state;
    enum { V = 5000 };
    static float z[V], values[V];
    static int32_t ids[V];
    struct lb_rng rng, one, other;
    lb_rng_seed(&rng, 9, 0);
    int far = 0;
    for (int round = 0; round < 400; round++) {
        int64_t v = round % 7 == 6 ? 300 : round % 5 == 4 ? 2048 : V;
        double width = 0.2 * (round % 8);
        for (int64_t i = 0; i < v; i++) {
            z[i] = (float)(width * lb_rng_normal(&rng));
            z[i] = round % 3 == 2 ? floorf(4 * z[i]) / 4 : z[i]; /* many equal ones, of both zeros */
            z[i] = round % 11 == 10 && i % 3 == 0 ? -INFINITY : z[i];
        }
        const struct lb_generate_args args = {.temperature = round % 4 == 3 ? 1.7 : 1,
                                              .top_p = round % 9 == 8 ? 0.97 : 1};
        lb_rng_seed(&one, (uint64_t)round, 1);
        other = one;
        int32_t id = lb_generate_draw(&args, &one, z, v, ids, values);
        assert_int_equal(id, plain_draw(&args, &other, z, v));
        int rank = 0;
        for (int64_t i = 0; i < v; i++) {
            rank += z[i] > z[id];
        }
        far += rank > 2048;
    }
    assert_true(far > 20); /* beyond what is looked at first */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(drawing), cmocka_unit_test(drawing_from_hills),
                                       cmocka_unit_test(generating_together),
                                       cmocka_unit_test(drawing_from_all), cmocka_unit_test(cache_of_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
