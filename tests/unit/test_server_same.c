/* Equal questions about equal sequences are answered once; those that differ in one thing are not equal. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/server_service.h"

/* Ten ask the same, at once or one after the other, of one text twice as well; with no room for states all
 * that come in one batch still share. */
static void test_same_questions(void **state) {
    (void)state;
    const int twice[] = {5, 1, 5};
    for (int room = 0; room < 2; room++) {
        struct service s = begin(8 * T, room ? ROOM : 0);
        struct lb_job *jobs[10];
        for (int i = 0; i < 10; i++) {
            jobs[i] = ask_for(llama, twice, 3, &unlike[0], &jobs[i]);
            submit(&s, jobs[i]);
        }
        serve(&s);
        assert_int_equal(s.batches, 1);
        assert_int_equal(s.all.computed_tokens, 2 * T);
        assert_int_equal(s.all.joined_tokens, 28 * T);
        assert_int_equal(s.all.copied_seqs, 28); /* nor is the head */
        for (int i = 0; i < 10; i++) {
            check_alone(jobs[i], twice, 3, &unlike[0]);
        }
        struct lb_job *late = ask_for(llama, twice, 3, &unlike[1], &late);
        submit(&s, late);
        serve(&s);
        assert_int_equal(s.all.computed_tokens, (room ? 2 : 4) * T);
        check_alone(late, twice, 3, &unlike[1]);
        end(&s);
    }
}

/* Questions that differ in one thing are not one; those that differ in nothing but their padding are. */
static void test_nearly_same_questions(void **state) {
    (void)state;
    enum { N = 11 };
    struct asked asked[N];
    for (int i = 0; i < N; i++) {
        asked[i] = (struct asked){.outputs = {"samples.weights", "logits.topk_values", "hidden_states.1"},
                                  .temperature = i == 2 ? 2 : 1,
                                  .samples = i == 3 ? 6 : 5,
                                  .seed = i == 4,
                                  .start = i == 5 ? 3 : 0,
                                  .top_k = i == 6 ? 6 : 0,
                                  .half = i == 7,
                                  .padded = i == 1};
    }
    asked[8].outputs[2] = "hidden_states.2";
    asked[9].outputs[1] = "logprobs.topk_values";
    asked[10].outputs[2] = NULL;
    struct service s = begin(4096, ROOM);
    struct lb_job *jobs[N];
    for (int i = 0; i < N; i++) {
        jobs[i] = ask_for(llama, some, 3, &asked[i], &jobs[i]);
        submit(&s, jobs[i]);
    }
    serve(&s);
    assert_int_equal(s.batches, 1);
    assert_int_equal(s.all.copied_seqs, 3);
    for (int i = 0; i < N; i++) {
        check_alone(jobs[i], some, 3, &asked[i]);
    }
    end(&s);
}

/* Nor under unlike maps, though the final states are one for all. */
static void test_under_maps(void **state) {
    (void)state;
    enum { N = 5 };
    const int32_t kept[] = {3, 5, 60, 90};
    char names[2][LB_SHA256_HEX];
    for (int i = 0; i < 2; i++) {
        uint8_t hash[LB_SHA256_BYTES];
        lb_sha256(kept + i, 3 * sizeof *kept, hash);
        lb_hex(hash, sizeof hash, names[i]);
        assert_int_equal(lb_vocab_maps_put(&llama->maps, names[i], kept + i, 3 * sizeof *kept, V, NULL),
                         LB_OK);
    }
    struct asked asked[N];
    struct service s = begin(4096, ROOM);
    struct lb_job *jobs[N];
    for (int i = 0; i < N; i++) {
        const char *const name[N] = {NULL, names[0], names[1], names[0], names[1]};
        asked[i] = (struct asked){.outputs = {"logits.topk_ids", "logprobs.topk_values", "logprobs.rest"},
                                  .temperature = 1,
                                  .top_k = i == 4 ? 2 : 3,
                                  .vocab_map = name[i]};
        jobs[i] = ask_for(llama, some, 3, &asked[i], &jobs[i]);
        submit(&s, jobs[i]);
    }
    serve(&s);
    assert_int_equal(s.batches, 1);
    assert_int_equal(s.all.computed_seqs, 3);
    assert_int_equal(s.all.copied_seqs, 3); /* of the fourth */
    for (int i = 0; i < N; i++) {
        check_alone(jobs[i], some, 3, &asked[i]);
    }
    end(&s);
}

/* Nor are those that differ in the ids that they chose, or what they draw. */
static void test_chosen_and_drawn(void **state) {
    (void)state;
    const struct asked chosen = {{"logits.at_ids"}, 1, 0, 0, .scored = true};
    struct service s = begin(4096, ROOM);
    struct lb_job *jobs[4];
    int32_t ids[2][3] = {{-1, -1, -1}, {-1, -1, -1}};
    float logprobs[3];
    double lifts[3];
    struct lb_job_draw draws[2];
    for (int i = 0; i < 4; i++) {
        jobs[i] = ask_for(llama, some, 3, i < 2 ? &chosen : &unlike[0], &jobs[i]);
        if (i >= 2) {
            draws[i - 2] = (struct lb_job_draw){.temperature = 1,
                                                .top_p = 1,
                                                .seed = 9,
                                                .ids = ids[i - 2],
                                                .logprobs = logprobs,
                                                .lifts = lifts};
            jobs[i]->draw = &draws[i - 2];
        }
    }
    jobs[1]->scored[2] = (jobs[0]->scored[2] + 1) % V; /* the first row's second */
    for (int i = 0; i < 4; i++) {
        submit(&s, jobs[i]);
    }
    serve(&s);
    const float *one = jobs[0]->outputs[0].data, *other = jobs[1]->outputs[0].data;
    assert_true(one[1] != other[1] && one[2] == other[2]);
    assert_true(ids[0][2] >= 0 && memcmp(ids[0], ids[1], sizeof ids[0]) == 0);
    for (int i = 0; i < 4; i++) {
        lb_job_destroy(jobs[i]);
    }
    end(&s);
}

/* Of known texts: what is drawn behind them, and the states of logits that are streamed. */
static void test_drawn_and_streamed(void **state) {
    (void)state;
    const struct asked logits = {{"logits"}, 1, 0, 2, false};
    struct service s = begin(4096, ROOM);
    int32_t ids[2][3];
    float logprobs[2][3];
    double lifts[2][3];
    struct lb_job *jobs[2];
    lb_question_limits.stream_bytes = 1;
    for (int i = 0; i < 2; i++) {
        struct lb_job_draw draw = {.temperature = 1.5,
                                   .top_p = 0.9,
                                   .seed = 4,
                                   .ids = ids[i],
                                   .logprobs = logprobs[i],
                                   .lifts = lifts[i]};
        jobs[i] = ask_for(large, some, 3, &logits, &s);
        assert_true(jobs[i]->outputs[0].streamed && jobs[i]->state_bytes > 0);
        struct lb_job *drawn = ask_for(large, some, 3, &unlike[1], &s);
        drawn->draw = &draw;
        assert_int_equal(lb_engine_admit(engine, drawn, NULL), LB_OK);
        submit(&s, i == 0 ? jobs[i] : drawn); /* each is the first once */
        serve(&s);
        submit(&s, i == 0 ? drawn : jobs[i]);
        serve(&s);
        check_alone(drawn, some, 3, &unlike[1]);
        lb_known_empty(s.known);
    }
    struct lb_job *pair[2]; /* in one batch */
    for (int i = 0; i < 2; i++) {
        pair[i] = ask_for(large, some, 3, &logits, &s);
        submit(&s, pair[i]);
    }
    serve(&s);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(jobs[0]->states, pair[i]->states, jobs[0]->state_bytes);
        lb_job_destroy(pair[i]);
    }
    lb_question_limits.stream_bytes = 0;
    assert_int_equal(s.all.computed_seqs, 9);
    assert_int_equal(s.all.copied_seqs, 0);
    assert_memory_equal(jobs[0]->states, jobs[1]->states, jobs[0]->state_bytes);
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_equal(logprobs[0], logprobs[1], sizeof logprobs[0]);
    assert_memory_equal(lifts[0], lifts[1], sizeof lifts[0]);
    lb_job_destroy(jobs[0]);
    lb_job_destroy(jobs[1]);
    end(&s);
}

int main(int argc, char **argv) {
    (void)argc;
    lb_gemm_setup(0, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_questions), cmocka_unit_test(test_nearly_same_questions),
        cmocka_unit_test(test_under_maps), cmocka_unit_test(test_chosen_and_drawn),
        cmocka_unit_test(test_drawn_and_streamed)};
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
