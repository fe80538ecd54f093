/* Equal sequences are computed once: whoever comes second has the bits of one who asks alone, whatever he
 * asks, and whatever becomes of the first. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/server_service.h"

/* Ten ask at once ten unlike things of the same texts: each goes through the model once, whatever it is that
 * is asked first and how small batches are; and with room for states also inner ones. */
static void check_unlike(struct lb_hosted *hosted, int64_t batch_tokens) {
    for (int first = 0; first < N_UNLIKE; first++) {
        struct service s = begin(batch_tokens, ROOM);
        struct lb_job *jobs[N_UNLIKE];
        for (int i = 0; i < N_UNLIKE; i++) {
            int k = (first + i) % N_UNLIKE;
            jobs[k] = ask_for(hosted, some, 3, &unlike[k], &unlike[k]);
            submit(&s, jobs[k]);
        }
        serve(&s);
        assert_int_equal(s.all.computed_seqs, 3);
        assert_int_equal(s.all.computed_tokens, 3 * T);
        assert_true(batch_tokens == T || s.batches == 1); /* whatever they ask */
        assert_int_equal(s.all.joined_tokens, (N_UNLIKE - 1) * 3 * T);
        assert_int_equal(s.all.known_tokens, 0);
        assert_int_equal(lb_known_state(s.known).waited, 0);
        for (int k = 0; k < N_UNLIKE; k++) {
            check_alone(jobs[k], some, 3, &unlike[k]);
        }
        /* And once more, when all is known; with texts that are not. */
        for (int k = 0; k < N_UNLIKE; k++) {
            jobs[k] = ask_for(hosted, more, 4, &unlike[k], &unlike[k]);
            submit(&s, jobs[k]);
        }
        serve(&s);
        assert_int_equal(s.all.computed_seqs, 5);
        assert_int_equal(s.all.known_tokens, N_UNLIKE * 2 * T);
        for (int k = 0; k < N_UNLIKE; k++) {
            check_alone(jobs[k], more, 4, &unlike[k]);
        }
        end(&s);
    }
}

static void test_unlike_questions(void **state) {
    (void)state;
    check_unlike(llama, 4096);
    check_unlike(llama, T);
}

/* Inner states that one trainer asks, always a little later than the others, are kept of what these ask; not
 * of another model's texts, nor more than eight kinds. */
static void test_asked_lately(void **state) {
    (void)state;
    const struct asked inner = {{"hidden_states.1"}, 1, 0, 0, false},
                       other = {{"queries.0", "queries.1", "keys.0", "keys.1", "values.0", "values.1"},
                                1,
                                0,
                                0,
                                false},
                       rest = {{"hidden_states.0", "hidden_states.2"}, 1, 0, 0, false};
    const struct asked *const ask[] = {&inner, &unlike[0], &inner, &other, &rest, &unlike[0], &inner};
    const int text[] = {0, 1, 1, 2, 2, 3, 3}, computed[] = {1, 2, 2, 3, 4, 5, 6};
    struct service s = begin(4096, ROOM);
    for (int i = 0; i < 7; i++) {
        struct lb_job *job = ask_for(llama, &text[i], 1, ask[i], &s);
        submit(&s, job);
        serve(&s);
        assert_int_equal(s.all.computed_seqs, computed[i]);
        check_alone(job, &text[i], 1, ask[i]);
    }
    for (int i = 0; i < 2; i++) {
        struct lb_job *job = ask_for(large, &text[i], 1, &unlike[0], &s);
        submit(&s, job);
        serve(&s);
        struct lb_known_state before = lb_known_state(s.known);
        check_alone(job, &text[i], 1, &unlike[0]);
        assert_true(before.bytes > 0);
    }
    end(&s);
}

/* A head that is read by panels. */
static void test_large_vocabulary(void **state) {
    (void)state;
    struct service s = begin(2 * T, ROOM);
    struct lb_job *jobs[3];
    for (int i = 0; i < 3; i++) {
        jobs[i] = ask_for(large, i == 1 ? more : some, i == 1 ? 4 : 3, &unlike[i == 2 ? 3 : 0], &jobs[i]);
        submit(&s, jobs[i]);
    }
    serve(&s);
    assert_int_equal(s.all.computed_seqs, 5);
    for (int i = 0; i < 3; i++) {
        check_alone(jobs[i], i == 1 ? more : some, i == 1 ? 4 : 3, &unlike[i == 2 ? 3 : 0]);
    }
    end(&s);
}

/* Attention is never kept: who asks it has the sequence computed, and shares it in his batch. */
static void test_attention(void **state) {
    (void)state;
    const struct asked asked = {{"attentions.1", "logsumexp"}, 1, 0, 2, false};
    struct service s = begin(4096, ROOM);
    struct lb_job *first = ask_for(llama, some, 3, &unlike[0], &first);
    submit(&s, first);
    serve(&s);
    struct lb_job *pair[2];
    for (int i = 0; i < 2; i++) {
        pair[i] = ask_for(llama, some, 3, &asked, &pair[i]);
        submit(&s, pair[i]);
    }
    serve(&s);
    assert_int_equal(s.all.computed_seqs, 6);
    check_alone(first, some, 3, &unlike[0]);
    check_alone(pair[0], some, 3, &asked);
    check_alone(pair[1], some, 3, &asked);
    end(&s);
}

static void test_encoder(void **state) {
    (void)state;
    const struct asked asked[] = {{{"sentence_embedding"}, 1, 0, 0, false},
                                  {{"sentence_embedding", "hidden_states.final"}, 1, 0, 0, false},
                                  {{"hidden_states.2", "keys.1"}, 1, 0, 4, false}};
    struct service s = begin(3 * T, ROOM);
    struct lb_job *jobs[6];
    for (int i = 0; i < 6; i++) {
        jobs[i] = ask_for(bert, i < 3 ? some : more, i < 3 ? 3 : 4, &asked[i % 3], &jobs[i]);
        submit(&s, jobs[i]);
    }
    serve(&s);
    assert_int_equal(s.all.computed_seqs, 5);
    for (int i = 0; i < 6; i++) {
        check_alone(jobs[i], i < 3 ? some : more, i < 3 ? 3 : 4, &asked[i % 3]);
    }
    end(&s);
}

/* A text that is classified has one row for the head, and many of inner states. Rows of features are nobody
 * else's. */
static void test_classifiers(void **state) {
    (void)state;
    const struct asked asked[] = {{{"logits", "samples.ids"}, 1, 5, 0, false},
                                  {{"hidden_states.final", "logsumexp"}, 2, 0, 0, false},
                                  {{"hidden_states.1", "logits.topk_ids"}, 1, 0, 0, false}};
    struct service s = begin(2 * T, ROOM);
    struct lb_job *jobs[6];
    for (int i = 0; i < 6; i++) {
        jobs[i] = ask_for(classes, i < 3 ? some : more, i < 3 ? 3 : 4, &asked[i % 3], &jobs[i]);
        submit(&s, jobs[i]);
    }
    serve(&s);
    assert_int_equal(s.all.computed_seqs, 5);
    for (int i = 0; i < 6; i++) {
        check_alone(jobs[i], i < 3 ? some : more, i < 3 ? 3 : 4, &asked[i % 3]);
    }
    float features[2 * 12] = {0.5F, -1, 2};
    struct lb_job *rows[2];
    for (int i = 0; i < 2; i++) {
        struct lb_question ask = lb_question_new();
        lb_question_input(&ask, "features", LB_DT_FP32, 2, 12, features);
        lb_question_output(&ask, "logits", LB_DT_NONE);
        rows[i] = lb_question_plan(mlp, &ask);
        rows[i]->done = count_done;
        submit(&s, rows[i]);
    }
    serve(&s);
    assert_int_equal(s.all.computed_seqs, 9);
    assert_memory_equal(rows[0]->outputs[0].data, rows[1]->outputs[0].data, rows[0]->outputs[0].bytes);
    lb_job_destroy(rows[0]);
    lb_job_destroy(rows[1]);
    end(&s);
}

/* Who waits for what another brings is served when that one leaves, is late, or fails. */
static void test_the_first_is_lost(void **state) {
    (void)state;
    for (int how = 0; how < 4; how++) {
        struct service s = begin(T, ROOM);
        struct lb_job *first = ask_for(llama, some, 3, &unlike[0], &first),
                      *second = ask_for(llama, some, 3, &unlike[1], &second);
        first->deadline_ns = how == 1 ? 1 : 0; /* long ago */
        n_done = 0;
        submit(&s, first);
        if (how == 2) { /* one of its sequences is there already, the next is being computed */
            assert_int_equal(turn(&s), LB_OK);
        }
        submit(&s, second);
        if (how == 0 || how == 2) {
            lb_batcher_cancel(s.batcher, first);
            assert_int_equal(first->status, LB_E_CANCELLED);
        } else if (how == 3) { /* its batch fails for want of memory */
            struct lb_batch batch;
            struct lb_forward_counts counts;
            lb_tape_limit(s.tape, 1024);
            assert_int_equal(lb_batcher_next(s.batcher, &batch), LB_OK);
            enum lb_status status = lb_forward_run(&batch, s.tape, &s.scratch, s.known, ++s.runs, &counts);
            assert_int_equal(status, LB_E_NOMEM);
            assert_int_equal(counts.computed_tokens, 0);
            lb_batcher_finish(s.batcher, &batch, status, NULL, 1);
            lb_tape_limit(s.tape, TAPE_BYTES);
            assert_int_equal(first->status, LB_E_NOMEM);
        }
        serve(&s);
        assert_int_equal(n_done, 2);
        assert_int_equal(first->status, how == 0 || how == 2 ? LB_E_CANCELLED
                                        : how == 1           ? LB_E_TIMEOUT
                                                             : LB_E_NOMEM);
        assert_int_equal(s.all.computed_seqs, 3);
        assert_int_equal(lb_known_state(s.known).waited, 0);
        check_alone(second, some, 3, &unlike[1]);
        lb_job_destroy(first);
        end(&s);
    }
}

/* Whichever allocation fails, alone or with all that follow: a batch is answered rightly or fails, and
 * whoever asks next is served. */
static void test_short_of_memory(void **state) {
    (void)state;
    for (int all = 0; all < 2; all++) {
        long n = 0, allocations = 1;
        for (; n < allocations; n++) {
            struct service s = begin(4096, ROOM);
            struct lb_job *first = ask_for(llama, some, 3, &unlike[0], &first),
                          *second = ask_for(llama, more, 4, &unlike[8], &second);
            submit(&s, first);
            serve(&s);
            lb_tape_shrink(s.tape);
            (all ? lb_mem_fail_from : lb_mem_fail_only)(n + 1);
            enum lb_status status = lb_batcher_submit(s.batcher, second, NULL);
            bool taken = status == LB_OK;
            status = taken ? turn(&s) : status;
            allocations = lb_mem_count();
            lb_mem_fail_from(0);
            assert_true(status == LB_OK || status == LB_E_NOMEM);
            if (taken && status == LB_OK) {
                check_alone(second, more, 4, &unlike[8]);
            } else {
                lb_job_destroy(second);
            }
            assert_int_equal(lb_known_state(s.known).waited, 0);
            struct lb_job *third = ask_for(llama, more, 4, &unlike[9], &third);
            submit(&s, third);
            serve(&s);
            check_alone(first, some, 3, &unlike[0]);
            check_alone(third, more, 4, &unlike[9]);
            end(&s);
        }
        assert_true(n > 5);
    }
}

/* Inner states that one job asks are made of all rows of its batch, and counted so. */
static void test_inner_states_take_room(void **state) {
    (void)state;
    const int text[] = {3};
    for (int all = 0; all < 2; all++) {
        struct service s = begin(4096, ROOM);
        struct lb_batch batch;
        struct lb_job *first = ask_for(llama, some, 3, &unlike[0], NULL),
                      *second = ask_for(llama, text, 1, &unlike[8], NULL);
        assert_int_equal(second->taps, 0);
        assert_int_equal(second->parts_row_bytes, 32 * sizeof(float));
        size_t need = first->base_bytes + 3 * T * first->row_bytes + T * second->row_bytes +
                      4 * T * second->parts_row_bytes;
        lb_batcher_limit(s.batcher, all ? need : need - 1);
        submit(&s, first);
        submit(&s, second);
        assert_int_equal(lb_batcher_next(s.batcher, &batch), LB_OK);
        /* Though it is not in the batch, its states are known to be wanted: where there is room they are
         * kept. */
        assert_int_equal(batch.n_seqs, all ? 4 : 3);
        assert_true(batch.tape_bytes <= need);
        assert_int_equal(batch.n_parts, 1);
        struct lb_forward_counts counts;
        assert_int_equal(lb_forward_run(&batch, s.tape, &s.scratch, s.known, ++s.runs, &counts), LB_OK);
        lb_batcher_finish(s.batcher, &batch, LB_OK, NULL, 1);
        serve(&s);
        check_alone(first, some, 3, &unlike[0]);
        check_alone(second, text, 1, &unlike[8]);
        end(&s);
    }
}

/* What is known costs a client its part of the head, and takes so much of a batch. */
static void test_costs(void **state) {
    (void)state;
    struct service s = begin(2 * T, ROOM);
    struct lb_batch batch;
    struct lb_job *first = ask_for(llama, some, 3, &unlike[0], &first);
    assert_true(first->known_cost > 1.0 / 64 && first->known_cost < 0.5);
    submit(&s, first);
    serve(&s);
    assert_int_equal(s.batches, 2);
    struct lb_job *again = ask_for(llama, some, 3, &unlike[1], &again);
    submit(&s, again);
    assert_int_equal(lb_batcher_next(s.batcher, &batch), LB_OK);
    assert_int_equal(batch.n_seqs, 3); /* more than 2 T tokens, and no more than 2 T of cost */
    assert_int_equal(batch.computed_tokens, 0);
    assert_true(batch.cost < 2 * T && batch.cost >= 3 + (int64_t)(3 * T * again->known_cost) - 3);
    assert_true(batch.tape_bytes < again->base_bytes + 3 * T * again->row_bytes);
    struct lb_forward_counts counts;
    enum lb_status status = lb_forward_run(&batch, s.tape, &s.scratch, s.known, ++s.runs, &counts);
    assert_int_equal(counts.known_tokens, 3 * T);
    lb_batcher_finish(s.batcher, &batch, status, NULL, 1);
    check_alone(first, some, 3, &unlike[0]);
    check_alone(again, some, 3, &unlike[1]);
    end(&s);
}

int main(int argc, char **argv) {
    (void)argc;
    lb_gemm_setup(0, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_unlike_questions),
                                       cmocka_unit_test(test_asked_lately),
                                       cmocka_unit_test(test_large_vocabulary),
                                       cmocka_unit_test(test_attention),
                                       cmocka_unit_test(test_encoder),
                                       cmocka_unit_test(test_classifiers),
                                       cmocka_unit_test(test_the_first_is_lost),
                                       cmocka_unit_test(test_short_of_memory),
                                       cmocka_unit_test(test_inner_states_take_room),
                                       cmocka_unit_test(test_costs)};
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
