/* Questions to teachers and their answers: right, complete, in order, asked once, from the cache, offline.
 * Peers that misbehave are in tests/fault/test_fault_peer.c, lost ones in test_fault_lost.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "tests/support/asking.h"
#include "trainer/teachers/questions.h"
#include "trainer/wire/metadata.h"

#include <stdio.h>
#include <string.h>

#define N 12

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

/* Takes question number and checks all its answers against the fakes' fingerprints. */
static void take_and_check(struct lb_teachers *teachers, int64_t number, const struct lb_sample *samples,
                           int64_t n, const char *const *fingerprints) {
    const struct lb_answer *const *answers = NULL;
    struct lb_detail detail = {0};
    unsigned k_all = lb_teachers_count(teachers);
    must(lb_teachers_take(teachers, number, &answers, &detail), &detail);
    for (int64_t i = 0; i < n; i++) {
        for (unsigned k = 0; k < k_all; k++) {
            assert_true(asking_is_right(answers[i * k_all + k], &samples[i], fingerprints[k]));
        }
    }
}

static void test_two_teachers_in_order(void **state) {
    (void)state;
    static const char *const fingerprints[] = {fake_fingerprint, fake_other_fingerprint};
    struct fake_teacher *a = fake_start(&(struct fake_options){0});
    struct fake_teacher *b = fake_start(&(struct fake_options){.fingerprint = fake_other_fingerprint});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    struct lb_sample *samples[4];
    asking_setup(&asking);
    asking_add(&asking, fake_url(a));
    asking_add(&asking, fake_url(b));
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    assert_string_equal(lb_teachers_info(teachers, 0)->fingerprint, fake_fingerprint);
    assert_string_equal(lb_teachers_info(teachers, 1)->fingerprint, fake_other_fingerprint);
    assert_int_equal(lb_teachers_info(teachers, 0)->n_layers, 3);
    assert_int_equal(lb_teachers_info(teachers, 0)->vocab_size, 50);

    fake_fault(a, FAKE_SLOW, 2); /* the answers of one come late */
    for (int q = 0; q < 4; q++) {
        samples[q] = asking_samples(N, (uint64_t)q, false);
        must(lb_teachers_submit(teachers, q, samples[q], N, NULL, &detail), &detail);
    }
    for (int q = 0; q < 4; q++) {
        take_and_check(teachers, q, samples[q], N, fingerprints);
        lb_teachers_release(teachers, q);
    }
    struct lb_teachers_stats stats;
    lb_teachers_stats(teachers, &stats);
    assert_int_equal(stats.questions, 4 * N * 2);
    assert_int_equal(stats.failures, 0);
    assert_int_equal(stats.requests, fake_requests(a) + fake_requests(b));
    assert_true(stats.wait_seconds > 0.2);
    uint64_t tokens = 0;
    for (int q = 0; q < 4; q++) {
        for (int i = 0; i < N; i++) {
            tokens += 2 * (uint64_t)samples[q][i].n;
        }
        asking_free_samples(samples[q], N);
    }
    assert_int_equal(stats.tokens_answered, tokens);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(a);
    fake_stop(b);
}

/* The same sequence in three questions and twice in one of them: asked once. */
static void test_single_flight(void **state) {
    (void)state;
    static const char *const fingerprints[] = {fake_fingerprint};
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    struct lb_sample *samples = asking_samples(N, 1, false);
    struct lb_sample doubled[2 * N];
    memcpy(doubled, samples, N * sizeof *samples);
    memcpy(doubled + N, samples, N * sizeof *samples);
    fake_fault(fake, FAKE_SLOW, 1); /* so that the questions meet in flight */
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
    must(lb_teachers_submit(teachers, 1, doubled, 2 * N, NULL, &detail), &detail);
    must(lb_teachers_submit(teachers, 2, samples, N, NULL, &detail), &detail);
    take_and_check(teachers, 0, samples, N, fingerprints);
    lb_teachers_release(teachers, 0);
    take_and_check(teachers, 1, doubled, 2 * N, fingerprints);
    take_and_check(teachers, 2, samples, N, fingerprints);
    assert_int_equal(fake_sequences(fake), N);
    lb_teachers_close(teachers);
    asking_free_samples(samples, N);
    asking_teardown(&asking);
    fake_stop(fake);
}

/* One question at a time, each in the moment in which the thread behind goes to sleep: no wake-up is lost. */
static void test_many_small_questions(void **state) {
    (void)state;
    static const char *const fingerprints[] = {fake_fingerprint};
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    for (int q = 0; q < 500; q++) {
        struct lb_sample *samples = asking_samples(2, (uint64_t)q, false);
        must(lb_teachers_submit(teachers, q, samples, 2, NULL, &detail), &detail);
        uint64_t began = lb_now_ns();
        take_and_check(teachers, q, samples, 2, fingerprints);
        assert_true(lb_now_ns() - began <
                    8 * LB_SECOND_NS); /* by itself the thread looks after ten seconds */
        lb_teachers_release(teachers, q);
        asking_free_samples(samples, 2);
    }
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(fake);
}

static void test_wanted_and_wrong_use(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    asking_add(&asking, fake_url(fake));
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    struct lb_sample *samples = asking_samples(2, 1, false);
    const bool wanted[] = {true, false, false, true}, none[] = {false, false, false, false};
    must(lb_teachers_submit(teachers, 0, samples, 2, wanted, &detail), &detail);
    must(lb_teachers_submit(teachers, 1, samples, 2, none, &detail), &detail);
    assert_int_equal(lb_teachers_submit(teachers, 3, samples, 2, NULL, &detail), LB_E_ARG); /* 2 is missing */
    assert_int_equal(lb_teachers_take(teachers, 7, &answers, NULL), LB_E_ARG);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    assert_true(asking_is_right(answers[0], &samples[0], fake_fingerprint));
    assert_null(answers[1]);
    assert_null(answers[2]);
    assert_true(asking_is_right(answers[3], &samples[1], fake_fingerprint));
    must(lb_teachers_take(teachers, 1, &answers, &detail), &detail);
    assert_null(answers[0]);
    lb_teachers_release(teachers, 0);
    assert_int_equal(lb_teachers_take(teachers, 0, &answers, NULL), LB_E_ARG);

    /* An id that the teacher does not know is an error that says so. */
    struct lb_detail told = {0};
    int32_t ids[] = {1, 50, 2};
    struct lb_sample strange = {.ids = ids, .n = 2};
    must(lb_teachers_submit(teachers, 2, &strange, 1, NULL, &detail), &told);
    assert_int_equal(lb_teachers_take(teachers, 2, &answers, &told), LB_E_ARG);
    assert_non_null(strstr(told.text, "token id 50"));
    lb_teachers_close(teachers);
    asking_free_samples(samples, 2);
    asking_teardown(&asking);
    fake_stop(fake);
}

/* A second run over the same questions makes no request, also when the teacher is gone; its answers are the
 * same bytes. */
static void test_cache_and_offline(void **state) {
    (void)state;
    static const char *const fingerprints[] = {fake_fingerprint};
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_detail detail = {0};
    struct lb_teachers_stats stats;
    const struct lb_teacher_head *head = NULL;
    struct lb_sample *samples = asking_samples(N, 5, false);
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    asking_use_cache(&asking);
    asking.recipe.on_lost_teacher = LB_LOST_STOP;
    asking.recipe.teacher_timeout = 2;
    asking.recipe.give_up_after = 2;
    for (int run = 0; run < 3; run++) {
        struct lb_teachers *teachers = NULL;
        if (run == 2) {
            fake_stop(fake);
        }
        must(asking_open(&asking, NULL, &teachers, &detail), &detail);
        must(lb_teachers_head(teachers, 0, &head, &detail), &detail);
        assert_int_equal(head->vocab_size, 50);
        assert_int_equal(head->hidden_size, 6);
        assert_null(head->bias);
        assert_true(head->weight[17] == 17.0f / 16);
        assert_true(head->shape.scale == 0.5f && head->shape.softcap == 30);
        must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
        take_and_check(teachers, 0, samples, N, fingerprints);
        lb_teachers_stats(teachers, &stats);
        assert_int_equal(stats.cache_hits, run ? N : 0);
        assert_true(run ? stats.requests == 0 : stats.requests > 0);
        if (run == 2) { /* what the cache lacks is lost with the teacher */
            struct lb_sample *others = asking_samples(1, 77, false);
            const struct lb_answer *const *answers;
            struct lb_detail told = {0};
            must(lb_teachers_submit(teachers, 1, others, 1, NULL, &detail), &detail);
            assert_int_not_equal(lb_teachers_take(teachers, 1, &answers, &told), LB_OK);
            assert_non_null(strstr(told.text, "teacher t0"));
            asking_free_samples(others, 1);
        } else {
            assert_int_equal(fake_heads(fake), 1);
            assert_int_equal(fake_sequences(fake), N);
        }
        lb_teachers_close(teachers);
    }
    asking_free_samples(samples, N);
    asking_teardown(&asking);
}

/* Opens t0 at these addresses, asks N questions about it and returns how many were answered by the cache; -1,
 * with the message, when it is refused. */
static int ask_as(const struct asking *kept, const char *url, const char *replica, bool allowed,
                  struct lb_detail *detail) {
    static const char *const fingerprints[] = {fake_fingerprint};
    struct asking asking = {.recipe = kept->recipe};
    struct lb_teachers *teachers = NULL;
    struct lb_teachers_stats stats;
    *detail = (struct lb_detail){0};
    asking.recipe.teachers = asking.teachers;
    asking.recipe.allow_other_kernels = allowed;
    asking_add(&asking, url);
    if (replica) {
        asking_add_replica(&asking, replica);
    }
    if (asking_open(&asking, NULL, &teachers, detail) != LB_OK) {
        return -1;
    }
    struct lb_sample *samples = asking_samples(N, 5, false);
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, detail), detail);
    take_and_check(teachers, 0, samples, N, fingerprints);
    lb_teachers_stats(teachers, &stats);
    lb_teachers_close(teachers);
    asking_free_samples(samples, N);
    return (int)stats.cache_hits;
}

/* Who answers is the fingerprint and what computes: replicas and the cache go by both. */
static void test_identity(void **state) {
    (void)state;
    static const char a_bits[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const char b_bits[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    struct fake_teacher *a = fake_start(&(struct fake_options){.compute = a_bits}),
                        *b = fake_start(&(struct fake_options){.compute = b_bits}),
                        *none = fake_start(&(struct fake_options){0}),
                        *loose = fake_start(&(struct fake_options){.batch_dependent = true});
    struct asking asking;
    struct lb_detail detail;
    asking_setup(&asking);
    asking_use_cache(&asking);
    assert_int_equal(ask_as(&asking, fake_url(a), fake_url(b), false, &detail), -1);
    assert_int_equal(detail.code, LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, fake_url(a)));
    assert_non_null(strstr(detail.text, fake_url(b)));
    assert_non_null(strstr(detail.text, "(fake?s 1)")); /* words that break no line and no JSON */
    assert_non_null(strstr(detail.text, "allow_other_kernels"));
    assert_int_equal(ask_as(&asking, fake_url(a), fake_url(none), false, &detail), -1);
    assert_int_equal(ask_as(&asking, fake_url(loose), NULL, false, &detail), -1);
    assert_int_equal(detail.code, LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "batch_invariant"));

    assert_int_equal(ask_as(&asking, fake_url(a), NULL, false, &detail), 0);
    assert_int_equal(ask_as(&asking, fake_url(a), NULL, false, &detail), N);
    assert_int_equal(ask_as(&asking, fake_url(b), NULL, false, &detail), 0);
    assert_int_equal(ask_as(&asking, fake_url(a), fake_url(b), true, &detail), 0); /* by fingerprint alone */
    assert_int_equal(ask_as(&asking, fake_url(b), fake_url(a), true, &detail), N);
    assert_int_equal(ask_as(&asking, fake_url(loose), NULL, true, &detail), N);
    assert_int_equal(ask_as(&asking, fake_url(none), NULL, false, &detail),
                     N); /* as before there was compute */
    fake_stop(a);
    fake_stop(b);
    fake_stop(none);
    fake_stop(loose);
    asking_teardown(&asking);
}

static void test_replicas_share(void **state) {
    (void)state;
    static const char *const fingerprints[] = {fake_fingerprint};
    struct fake_teacher *fakes[3];
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    for (int r = 0; r < 3; r++) {
        fakes[r] = fake_start(&(struct fake_options){0});
        if (r == 0) {
            asking_add(&asking, fake_url(fakes[r]));
        } else {
            asking_add_replica(&asking, fake_url(fakes[r]));
        }
    }
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    struct lb_sample *samples[6];
    for (int q = 0; q < 6; q++) {
        samples[q] = asking_samples(300, (uint64_t)q + 9, false);
        must(lb_teachers_submit(teachers, q, samples[q], 300, NULL, &detail), &detail);
    }
    for (int q = 0; q < 6; q++) {
        take_and_check(teachers, q, samples[q], 300, fingerprints);
        lb_teachers_release(teachers, q);
        asking_free_samples(samples[q], 300);
    }
    for (int r = 0; r < 3; r++) {
        assert_true(fake_sequences(fakes[r]) > 0);
    }
    lb_teachers_close(teachers);
    for (int r = 0; r < 3; r++) {
        fake_stop(fakes[r]);
    }
    asking_teardown(&asking);
}

static void test_features(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){.classifier = true, .vocab_size = 10});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    const struct lb_ask_spec spec = {
        .n_outputs = 1, .outputs = {{LB_OUT_LOGITS, 0, LB_DT_FP32}}, .top_k = 64, .temperature = 4};
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    must(lb_teachers_open_recipe(&asking.recipe, NULL, &teachers, &detail), &detail);
    must(lb_teachers_set_spec(teachers, 0, &spec, &detail), &detail);
    struct lb_sample *samples = asking_samples(5, 3, true);
    must(lb_teachers_submit(teachers, 0, samples, 5, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    for (int i = 0; i < 5; i++) {
        const struct lb_wire_tensor *logits = &answers[i]->tensors[0];
        assert_int_equal(logits->n_dims, 2);
        assert_int_equal(logits->dim[0], 1);
        assert_int_equal(logits->dim[1], 10);
        float want = fake_value(fake_fingerprint, "logits", (const int32_t *)samples[i].features, 3, 7);
        assert_memory_equal((const float *)logits->data + 7, &want, sizeof want);
    }
    lb_teachers_close(teachers);
    asking_free_samples(samples, 5);
    asking_teardown(&asking);
    fake_stop(fake);
}

/* Attentions are [H, T, T] per sequence: cut out of what was padded. */
static void test_attentions(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    const struct lb_ask_spec spec = {
        .n_outputs = 1, .outputs = {{LB_OUT_ATTENTION, 2, LB_DT_FP32}}, .top_k = 64, .temperature = 1};
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    must(lb_teachers_open_recipe(&asking.recipe, NULL, &teachers, &detail), &detail);
    must(lb_teachers_set_spec(teachers, 0, &spec, &detail), &detail);
    struct lb_sample *samples = asking_samples(N, 3, false);
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    for (int i = 0; i < N; i++) {
        const struct lb_wire_tensor *a = &answers[i]->tensors[0];
        int64_t n = samples[i].n;
        assert_int_equal(a->n_dims, 3);
        assert_int_equal(a->dim[0], 2);
        assert_int_equal(a->dim[1], n);
        assert_int_equal(a->dim[2], n);
        for (int64_t h = 0; h < 2; h++) {
            for (int64_t t = 0; t < n; t++) {
                for (int64_t u = 0; u < n; u++) {
                    float want = fake_value(fake_fingerprint, "attentions.2", samples[i].ids, t, u);
                    assert_true(((const float *)a->data)[(h * n + t) * n + u] == want);
                }
            }
        }
    }
    lb_teachers_close(teachers);
    asking_free_samples(samples, N);
    asking_teardown(&asking);
    fake_stop(fake);
}

/* Questions about the same samples that ask for different things, together in the queue: each gets its own
 * answer, and each is kept by itself. */
static void test_own_spec_and_extra(void **state) {
    (void)state;
    const struct lb_ask_spec own = {
        .n_outputs = 2,
        .outputs = {{LB_OUT_LOGITS, 0, LB_DT_FP32}, {LB_OUT_TOPK_IDS, 0, LB_DT_INT32}},
        .top_k = 3,
        .temperature = 1};
    const struct lb_ask_spec none = {.n_outputs = 1, .outputs = {{LB_OUT_HIDDEN, 9, LB_DT_FP32}}};
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_detail detail = {0};
    struct lb_sample *samples = asking_samples(N, 5, false),
                     *others[] = {asking_samples(N, 6, false), asking_samples(N, 7, false)};
    struct lb_sample scored[N];
    struct lb_extra extra[N];
    int32_t values[N][2 * 12];
    for (int i = 0; i < N; i++) {
        for (int64_t t = 0; t < samples[i].n; t++) {
            values[i][2 * t] = samples[i].ids[t];
            values[i][2 * t + 1] = samples[i].ids[t] + 1;
        }
        extra[i] = (struct lb_extra){"score_ids", values[i], 2};
        scored[i] = samples[i];
        scored[i].extra = &extra[i];
    }
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    asking_use_cache(&asking);
    for (int run = 0; run < 2; run++) {
        struct lb_teachers *teachers = NULL;
        struct lb_teachers_stats stats;
        const struct lb_answer *const *answers = NULL;
        must(asking_open(&asking, NULL, &teachers, &detail), &detail);
        fake_fault(fake, FAKE_SLOW, 2); /* two requests keep the address busy while the rest queues up */
        must(lb_teachers_submit(teachers, 0, others[0], N, NULL, &detail), &detail);
        must(lb_teachers_submit(teachers, 1, others[1], N, NULL, &detail), &detail);
        must(lb_teachers_submit_as(teachers, 2, samples, N, NULL, &own, &detail), &detail);
        must(lb_teachers_submit(teachers, 3, samples, N, NULL, &detail), &detail);
        must(lb_teachers_submit(teachers, 4, scored, N, NULL, &detail), &detail);
        struct lb_detail told = {0};
        assert_int_equal(lb_teachers_submit_as(teachers, 5, samples, N, NULL, &none, &told), LB_E_ARG);
        assert_non_null(strstr(told.text, "teacher t0 does not give hidden_states.9"));
        for (int q = 0; q < 5; q++) {
            const struct lb_sample *about = q < 2 ? others[q] : samples;
            must(lb_teachers_take(teachers, q, &answers, &detail), &detail);
            for (int i = 0; i < N; i++) {
                assert_true(asking_is_right_for(answers[i], &about[i], fake_fingerprint,
                                                q == 2 ? &own : &asking_spec));
            }
            lb_teachers_release(teachers, q);
        }
        lb_teachers_stats(teachers, &stats);
        assert_int_equal(stats.cache_hits, run ? 5 * N : 0);
        assert_int_equal(fake_sequences(fake), 5 * N);
        assert_int_equal(fake_scored(fake), N);
        lb_teachers_close(teachers);
    }
    asking_free_samples(samples, N);
    asking_free_samples(others[0], N);
    asking_free_samples(others[1], N);
    asking_teardown(&asking);
    fake_stop(fake);
}

/* Recipes name dialects as the dialects name themselves. */
static void test_dialects(void **state) {
    (void)state;
#define NAMED(kind, word) assert_string_equal(lb_dialect_get(LB_PROTOCOL_##kind)->name, #word);
    LB_DIALECTS(NAMED)
}

/* A teacher that lacks what is needed is refused before anything is asked. */
static void test_what_is_not_given(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0}, told = {0};
    struct lb_ask_spec spec = {.n_outputs = 1, .outputs = {{LB_OUT_ATTENTION, 3, LB_DT_FP32}}};
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    must(lb_teachers_open_recipe(&asking.recipe, NULL, &teachers, &detail), &detail);
    assert_int_equal(lb_teachers_set_spec(teachers, 0, &spec, &told), LB_E_ARG);
    assert_non_null(strstr(told.text, "teacher t0 does not give attentions.3"));
    assert_non_null(strstr(told.text, "it gives logits, logits.topk_ids, "));
    assert_non_null(strstr(
        told.text, "hidden_states.0 to 3, queries.0 to 2, keys.0 to 2, values.0 to 2, attentions.0 to 2"));
    spec.outputs[0].layer = 2;
    must(lb_teachers_set_spec(teachers, 0, &spec, &detail), &detail);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(fake);
}

static void test_what_is_asked(void **state) {
    (void)state;
    const struct lb_teacher_info info = {
        .vocab_size = 50, .hidden_size = 6, .n_layers = 3, .n_heads = 2, .max_length = 8};
    struct lb_ask_spec final = {
        .n_outputs = 1, .outputs = {{LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP16}}, .top_k = 7, .temperature = 3};
    struct lb_ask_spec normal;
    int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    struct lb_sample sample = {.ids = ids, .n = 8};
    struct lb_detail detail = {0};

    /* What no output depends on is not part of the question. */
    lb_ask_normalise(&final, &normal);
    assert_int_equal(normal.top_k, LB_DEFAULT_TOP_K);
    assert_true(normal.temperature == 1);
    lb_ask_normalise(&asking_spec, &normal);
    assert_int_equal(normal.top_k, 4);
    assert_true(normal.temperature == 2);

    must(lb_ask_check(&info, &sample, "t", &detail), &detail);
    sample.n = 9;
    assert_int_equal(lb_ask_check(&info, &sample, "t", NULL), LB_E_LIMIT);
    sample.n = 8;
    sample.features = (const float *)ids;
    assert_int_equal(lb_ask_check(&info, &sample, "t", NULL), LB_E_ARG);
    /* Without a list, the number of layers tells what there is. */
    final.outputs[0].kind = LB_OUT_HIDDEN;
    final.outputs[0].layer = 3;
    must(lb_info_gives(&info, &final, "t", &detail), &detail);
    final.outputs[0].layer = 4;
    assert_int_equal(lb_info_gives(&info, &final, "t", NULL), LB_E_ARG);
    final.outputs[0].kind = LB_OUT_ATTENTION;
    final.outputs[0].layer = 2;
    must(lb_info_gives(&info, &final, "t", &detail), &detail);
    final.outputs[0].layer = 3;
    assert_int_equal(lb_info_gives(&info, &final, "t", NULL), LB_E_ARG);
    assert_int_equal(lb_ask_answer_bytes(&info, &asking_spec, 5, 5), 5 * (6 * 2 + 4 * 4 + 4 * 2 + 4));
}

/* A daemon of another number of the wire is refused in words; one that says nothing is of the first. */
static void test_another_wire(void **state) {
    (void)state;
    static const char format[] =
        "{\"name\": \"m\", \"parameters\": {\"fingerprint\": \"%s\", \"vocab_size\": 5%s}, "
        "\"outputs\": [{\"name\": \"logits\", \"datatype\": \"FP32\", \"shape\": [-1, -1, 5]}]}";
    char text[600];
    struct lb_teacher_info info;
    struct lb_detail detail = {0};
    int len = snprintf(text, sizeof text, format, fake_fingerprint, "");
    assert_int_equal(lb_info_parse(text, (size_t)len, "here", &info, &detail), LB_OK);
    len = snprintf(text, sizeof text, format, fake_fingerprint, ", \"wire\": 1");
    assert_int_equal(lb_info_parse(text, (size_t)len, "here", &info, &detail), LB_OK);
    len = snprintf(text, sizeof text, format, fake_fingerprint, ", \"wire\": 2");
    assert_int_equal(lb_info_parse(text, (size_t)len, "here", &info, &detail), LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "number 2 of the wire"));
}

/* Metadata end with their digest: any other byte in them, and they are not taken. */
static void test_metadata_have_a_digest(void **state) {
    (void)state;
    struct lb_buf text;
    struct lb_teacher_info info;
    struct lb_detail detail = {0};
    lb_buf_init(&text, 4096);
    lb_buf_printf(&text,
                  "{\"name\": \"m\", \"parameters\": {\"fingerprint\": \"%s\", \"vocab_size\": 5}, "
                  "\"outputs\": []",
                  fake_fingerprint);
    must(lb_answer_digest_put(&text, 0, "", &detail), &detail);
    must(lb_info_read(text.data, text.len, "here", &info, &detail), &detail);
    assert_int_equal(info.vocab_size, 5);
    for (size_t i = 0; i < text.len; i++) {
        text.data[i] ^= 1;
        assert_int_not_equal(lb_info_read(text.data, text.len, "here", &info, NULL), LB_OK);
        text.data[i] ^= 1;
    }
    *strchr(text.data, '5') = '6';
    assert_int_equal(lb_info_read(text.data, text.len, "here", &info, &detail), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "here: its metadata: "));
    assert_non_null(strstr(detail.text, "digest"));
    lb_buf_finish(&text);
}

/* A student with a part of a teacher's vocabulary asks in the teacher's ids, and in no other's. */
static void test_through_a_map(void **state) {
    (void)state;
    int32_t kept[3] = {2, 5, 7}, ids[4] = {2, 0, 1, 0}, *whole = NULL;
    static const int32_t want[4] = {7, 2, 5, 2};
    const struct lb_vocab_map map = {.kept = kept, .n = 3};
    struct lb_sample sample = {.ids = ids, .n = 4, .tag = -1}, out = {0};
    must(lb_sample_through(&map, "t", &sample, &out, &whole, NULL), NULL);
    assert_true(out.ids == whole && out.n == 4 && memcmp(whole, want, sizeof want) == 0);
    lb_free(whole);
    must(lb_sample_through(NULL, "t", &sample, &out, &whole, NULL), NULL);
    assert_true(out.ids == ids && whole == NULL);
    for (int32_t wrong = -1; wrong <= 3; wrong += 4) {
        ids[3] = wrong;
        assert_int_equal(lb_sample_through(&map, "t", &sample, &out, &whole, NULL), LB_E_ARG);
        assert_null(whole);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_wire),
        cmocka_unit_test(test_through_a_map),
        cmocka_unit_test(test_metadata_have_a_digest),
        cmocka_unit_test(test_two_teachers_in_order),
        cmocka_unit_test(test_single_flight),
        cmocka_unit_test(test_many_small_questions),
        cmocka_unit_test(test_wanted_and_wrong_use),
        cmocka_unit_test(test_cache_and_offline),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_replicas_share),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_attentions),
        cmocka_unit_test(test_own_spec_and_extra),
        cmocka_unit_test(test_dialects),
        cmocka_unit_test(test_what_is_not_given),
        cmocka_unit_test(test_what_is_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
