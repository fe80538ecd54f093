/* Texts that the student writes while it is trained: which micro-batches, what seed, what text. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/model/generate.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_tokenizer.h"
#include "trainer/learn/scribe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct lb_recipe recipe = {.seed = 7,
                                  .lmbda = 0.4,
                                  .off_policy_steps = 10,
                                  .lmbda_ramp_steps = 3,
                                  .gradient_accumulation_steps = 5,
                                  .max_length = 30,
                                  .max_new_tokens = 20,
                                  .generation_temperature = NAN,
                                  .top_p = NAN};

static void test_sources(void **state) {
    (void)state;
    static const double ramp[] = {0, 0.1, 0.2, 0.3, 0.4, 0.4};
    int early = 0, late = 0, agree = 0;
    struct lb_recipe other = recipe;
    other.seed = 8;
    for (int64_t step = 9; step < 15; step++) {
        assert_float_equal(lb_scribe_lmbda(&recipe, step), ramp[step - 9], 1e-15);
    }
    for (int64_t m = 0; m < 10050; m++) {
        enum lb_source source = lb_scribe_source(&recipe, m);
        assert_int_equal(source, lb_scribe_source(&recipe, m));
        early += m < 50 && source == LB_SOURCE_STUDENT;
        late += m >= 50 && source == LB_SOURCE_STUDENT;
        agree += m >= 50 && source == lb_scribe_source(&other, m);
    }
    assert_int_equal(early, 0);
    assert_in_range(late, 3850, 4150);  /* 10,000 times 0.4, and three deviations */
    assert_in_range(agree, 5050, 5350); /* of two seeds: 0.52 */
    recipe.lmbda = 1;
    for (int64_t m = 65; m < 1000; m++) {
        assert_int_equal(lb_scribe_source(&recipe, m), LB_SOURCE_STUDENT);
    }
    /* What it leaves, a teacher takes a part of; who writes otherwise does not change. */
    other = recipe;
    other.lmbda = recipe.lmbda = 0.4;
    other.seq_kd = true;
    other.seq_kd_ratio = 0.25;
    int teacher = 0;
    for (int64_t m = 50; m < 10050; m++) {
        enum lb_source with = lb_scribe_source(&other, m), without = lb_scribe_source(&recipe, m);
        assert_true((with == LB_SOURCE_STUDENT) == (without == LB_SOURCE_STUDENT));
        teacher += with == LB_SOURCE_TEACHER;
    }
    assert_in_range(teacher, 1390, 1610); /* 0.15 */
    other.seq_kd_ratio = NAN;
    for (int64_t m = 0; m < 50; m++) {
        assert_int_equal(lb_scribe_source(&other, m), LB_SOURCE_TEACHER);
    }
}

static void test_seeds(void **state) {
    (void)state;
    for (int64_t i = 0; i < 500; i++) {
        assert_true(lb_scribe_seed(&recipe, i) < UINT64_C(1) << 53);
        for (int64_t j = 0; j < i; j++) {
            assert_true(lb_scribe_seed(&recipe, i) != lb_scribe_seed(&recipe, j));
        }
    }
}

struct text {
    int32_t ids[64];
    int64_t n;
};

static enum lb_status take(void *context, int32_t id) {
    struct text *text = context;
    text->ids[text->n++] = id;
    return LB_OK;
}

/* A micro-batch of prompts of unlike lengths: each text is its own, with the token that ends it, cut where
 * rows end. */
static void test_texts(void **state) {
    (void)state;
    enum { B = 6 };
    struct lb_config config;
    struct lb_model *model = NULL;
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_buf json;
    lb_buf_init(&json, 1 << 16);
    tiny_tokenizer_adding(&json, NULL, 0, TINY_GPT2, "", TINY_BOS);
    assert_int_equal(lb_tokenizer_parse(json.data, json.len, "tiny", &tokenizer, NULL), LB_OK);
    lb_tiny_llama(&config);
    struct lb_ends ends = {.n = 8, .ids = {3, 9, 11, 17, 20, 25, 30, 31}};
    lb_config_set_ends(&config, &ends);
    assert_int_equal(lb_model_create(&config, 5, &model, NULL), LB_OK);
    int32_t ids[64];
    for (int t = 0; t < 64; t++) {
        ids[t] = (int32_t)((7 * t + 1) % config.vocab_size);
    }
    static const int64_t prompts[B] = {1, 4, 12, 25, 29, 3};
    struct lb_sample samples[B];
    struct lb_scribe *scribe = NULL;
    struct lb_arena arena;
    struct lb_detail detail = {0};
    lb_arena_init(&arena, 1 << 24);
    assert_int_equal(lb_scribe_create(&recipe, model, tokenizer, NULL, &scribe, NULL), LB_OK);
    double tokens = 0, clipped = 0;
    int ended = 0;
    for (int64_t first = 0; first < 10 * B; first += B) {
        for (int i = 0; i < B; i++) {
            samples[i] =
                (struct lb_sample){.ids = ids + i, .n = 30, .prompt = prompts[i], .tag = i, .label = -1};
        }
        assert_int_equal(lb_scribe_write(scribe, first, samples, B, &arena, &detail), LB_OK);
        for (int i = 0; i < B; i++) {
            const struct lb_sample *s = &samples[i];
            struct text text = {.n = 0};
            int64_t room = 31 - prompts[i];
            const struct lb_generate_args args = {.max_new_tokens = room < 20 ? room : 20,
                                                  .temperature = 1,
                                                  .top_p = 1,
                                                  .seed = lb_scribe_seed(&recipe, first + i),
                                                  .ends = &ends,
                                                  .n_ids = lb_tokenizer_vocab_size(tokenizer)};
            assert_int_equal(lb_generate(model, ids + i, prompts[i], &args, take, &text, NULL), LB_OK);
            bool end = lb_ends_has(&ends, s->ids[s->n]);
            assert_int_equal(s->n + 1, prompts[i] + text.n + end);
            assert_memory_equal(s->ids, ids + i, (size_t)prompts[i] * sizeof *ids);
            assert_memory_equal(s->ids + prompts[i], text.ids, (size_t)text.n * sizeof *ids);
            assert_int_equal(end, text.n < args.max_new_tokens);
            assert_int_equal(lb_sample_first(s), prompts[i] - 1);
            assert_int_equal(lb_sample_counted(s), text.n + end);
            assert_int_equal(s->source, LB_SOURCE_STUDENT);
            assert_int_equal(s->tag, i);
            tokens += (double)(text.n + end);
            clipped += !end;
            ended += end;
        }
    }
    struct lb_scribed now = lb_scribe_take(scribe);
    assert_true(ended > 5 && clipped > 5);
    assert_float_equal(now.texts, 10 * B, 0);
    assert_float_equal(now.tokens, tokens, 0);
    assert_float_equal(now.clipped, clipped, 0);
    assert_float_equal(lb_scribe_take(scribe).texts, 0, 0);
    samples[0] = (struct lb_sample){.ids = ids, .n = 30};
    assert_int_equal(lb_scribe_write(scribe, 0, samples, 1, &arena, &detail), LB_E_ARG);
    samples[0].prompt = 30;
    assert_int_equal(lb_scribe_write(scribe, 0, samples, 1, &arena, &detail), LB_E_ARG);
    lb_scribe_destroy(scribe);
    /* One token again and again: all runs of four but the first. */
    recipe.generation_temperature = 0;
    assert_int_equal(lb_scribe_create(&recipe, model, tokenizer, NULL, &scribe, NULL), LB_OK);
    samples[0] = (struct lb_sample){.ids = ids, .n = 30, .prompt = 2};
    assert_int_equal(lb_scribe_write(scribe, 0, samples, 1, &arena, &detail), LB_OK);
    int64_t n = samples[0].n + 1 - 2, again = 0;
    const int32_t *at = samples[0].ids + 2;
    for (int64_t i = 1; i + 4 <= n; i++) {
        bool before = false;
        for (int64_t j = 0; j < i; j++) {
            before |= memcmp(at + i, at + j, 4 * sizeof *at) == 0;
        }
        again += before;
    }
    assert_float_equal(lb_scribe_take(scribe).repeated, n > 4 ? (double)again / (double)(n - 3) : 0, 1e-12);
    recipe.generation_temperature = NAN;
    lb_scribe_destroy(scribe);
    lb_arena_finish(&arena);
    lb_model_destroy(model);
    lb_tokenizer_destroy(tokenizer);
    lb_buf_finish(&json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
