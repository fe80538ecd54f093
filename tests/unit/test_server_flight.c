/* Equal sequences are computed once: whoever comes second has the bits of one who asks alone, whatever he
 * asks, and whatever becomes of the first. The test plays the worker. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/nn/gemm.h"
#include "common/nn/tape.h"
#include "server/engine/engine.h"
#include "server/engine/forward.h"
#include "server/engine/known.h"
#include "tests/support/slices.h"
#include "tests/support/tiny_hosted.h"
#include "tests/unit/server_question.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define V 97
#define T 20
#define ALL_BITS UINT64_MAX
#define ROOM ((size_t)8 << 20)
#define TAPE_BYTES ((size_t)1 << 30)

static char folder[] = "/tmp/limbeck-flight-XXXXXX";
static struct lb_hosted *llama, *large, *bert, *classes, *mlp;
static struct lb_engine *plain, *engine; /* one that knows nothing, and one to admit jobs with */
static int32_t texts[8][T];              /* unlike ones */

struct service {
    struct lb_known *known;
    struct lb_batcher *batcher;
    struct lb_tape *tape;
    struct lb_arena scratch;
    uint64_t runs;
    struct lb_forward_counts all; /* of all batches since begin */
    int batches;
};

static struct service begin(int64_t batch_tokens, size_t known_bytes) {
    struct service s = {.known = lb_known_create(known_bytes, ALL_BITS), .tape = lb_tape_create(TAPE_BYTES)};
    s.batcher = lb_batcher_create(&(struct lb_batcher_args){
        .max_batch_tokens = batch_tokens, .max_queue_tokens = 1 << 20, .known = s.known});
    lb_arena_init(&s.scratch, TAPE_BYTES);
    assert_true(s.known && s.batcher && s.tape);
    return s;
}

static void end(struct service *s) {
    lb_batcher_close(s->batcher);
    lb_batcher_destroy(s->batcher);
    lb_known_destroy(s->known);
    lb_tape_destroy(s->tape);
    lb_arena_finish(&s->scratch);
}

/* One batch. */
static enum lb_status turn(struct service *s) {
    static struct lb_batch batch;
    struct lb_forward_counts counts;
    assert_int_equal(lb_batcher_next(s->batcher, &batch), LB_OK);
    enum lb_status status = lb_forward_run(&batch, s->tape, &s->scratch, s->known, ++s->runs, &counts);
    s->all.computed_seqs += counts.computed_seqs;
    s->all.computed_tokens += counts.computed_tokens;
    s->all.joined_tokens += counts.joined_tokens;
    s->all.known_tokens += counts.known_tokens;
    s->batches++;
    lb_batcher_finish(s->batcher, &batch, status, NULL, 1);
    return status;
}

static void serve(struct service *s) {
    while (lb_batcher_state(s->batcher).jobs > 0) {
        assert_int_equal(turn(s), LB_OK);
    }
}

static atomic_int n_done;

static void count_done(struct lb_job *job) {
    (void)job;
    atomic_fetch_add(&n_done, 1);
}

/* Some texts, and what is asked of them. */
struct asked {
    const char *outputs[6];
    double temperature;
    int64_t samples, start;
    bool scored;
};

static const struct asked unlike[] = {
    {{"logits.topk_ids", "logits.topk_values", "logsumexp"}, 1, 0, 0, false},
    {{"logsumexp", "logprobs.actual"}, 2.5, 0, 0, false},
    {{"logits.at_ids", "logprobs.at_ids"}, 1, 0, 0, true},
    {{"samples.ids", "samples.counts", "samples.weights"}, 1, 9, 0, false},
    {{"logits"}, 1, 0, 3, false},
    {{"hidden_states.final"}, 1, 0, 0, false},
    {{"ranks.actual", "logprobs.next"}, 1, 0, 0, false},
    {{"logprobs.rest", "logprobs.topk_values"}, 0.5, 0, 7, false},
    {{"hidden_states.1", "logsumexp"}, 1, 0, 0, false},
    {{"queries.0", "values.1", "hidden_states.0"}, 1, 0, 5, false}};
#define N_UNLIKE ((int)(sizeof unlike / sizeof *unlike))

static struct lb_job *ask_for(struct lb_hosted *hosted, const int *which, int n, const struct asked *asked,
                              const void *client) {
    int32_t ids[8 * T], scores[8 * T * 3], starts[8];
    struct lb_question ask = lb_question_new();
    for (int i = 0; i < n; i++) {
        memcpy(ids + i * T, texts[which[i]], sizeof texts[0]);
        starts[i] = (int32_t)asked->start;
    }
    for (int i = 0; i < n * T * 3; i++) {
        scores[i] = i % 7 == 0 ? -1 : (i * 5) % V;
    }
    lb_question_input(&ask, "input_ids", LB_DT_INT32, n, T, ids);
    if (asked->start > 0) {
        lb_question_input(&ask, "start", LB_DT_INT32, n, 0, starts);
    }
    if (asked->scored) {
        lb_question_input(&ask, "score_ids", LB_DT_INT32, n, T, scores);
        struct lb_wire_tensor *t = &ask.inputs[ask.request.n_inputs - 1];
        t->n_dims = 3;
        t->dim[2] = 3;
        t->bytes *= 3;
    }
    for (int i = 0; i < 6 && asked->outputs[i]; i++) {
        lb_question_output(&ask, asked->outputs[i], LB_DT_NONE);
    }
    ask.request.temperature = asked->temperature;
    ask.request.sample_count = asked->samples;
    struct lb_job *job = lb_question_plan(hosted, &ask);
    assert_int_equal(lb_engine_admit(engine, job, NULL), LB_OK);
    job->client = client;
    job->done = count_done;
    return job;
}

/* The job's answer is that of one that was asked alone, of an engine that knows nothing. */
static void check_alone(struct lb_job *job, const int *which, int n, const struct asked *asked) {
    assert_int_equal(job->status, LB_OK);
    struct lb_job *alone = ask_for(job->model, which, n, asked, NULL);
    assert_int_equal(lb_run_whole(plain, alone, NULL), LB_OK);
    for (size_t i = 0; i < alone->n_outputs; i++) {
        assert_int_equal(job->outputs[i].bytes, alone->outputs[i].bytes);
        assert_memory_equal(job->outputs[i].data, alone->outputs[i].data, alone->outputs[i].bytes);
    }
    lb_job_destroy(alone);
    lb_job_destroy(job);
}

static void submit(struct service *s, struct lb_job *job) {
    assert_int_equal(lb_batcher_submit(s->batcher, job, NULL), LB_OK);
}

static const int some[] = {0, 1, 2}, more[] = {2, 3, 0, 4};

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
    lb_question_limits.stream_bytes = 0;
    assert_int_equal(s.all.computed_seqs, 6);
    assert_memory_equal(jobs[0]->states, jobs[1]->states, jobs[0]->state_bytes);
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_equal(logprobs[0], logprobs[1], sizeof logprobs[0]);
    assert_memory_equal(lifts[0], lifts[1], sizeof lifts[0]);
    lb_job_destroy(jobs[0]);
    lb_job_destroy(jobs[1]);
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
    struct lb_config config;
    lb_gemm_setup(0, argv);
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    llama = lb_tiny_hosted(folder, "llama", &config);
    config.vocab_size = 70000;
    large = lb_tiny_hosted(folder, "large", &config);
    lb_tiny_bert(&config);
    bert = lb_tiny_hosted(folder, "bert", &config);
    config.num_labels = 40;
    classes = lb_tiny_hosted(folder, "classes", &config);
    lb_tiny_mlp(&config);
    mlp = lb_tiny_hosted(folder, "mlp", &config);
    plain = lb_engine_create(NULL, NULL, NULL, TAPE_BYTES);
    if (lb_engine_self_test(plain, llama, NULL) != LB_OK) {
        return 1;
    }
    struct lb_known *known = lb_known_create(0, ALL_BITS);
    engine = lb_engine_create(NULL, NULL, known, TAPE_BYTES);
    for (int i = 0; i < 8 * T; i++) {
        texts[i / T][i % T] = (i * 31 + i * i * 7 + i / T) % V;
    }
    const struct CMUnitTest tests[] = {

        cmocka_unit_test(test_unlike_questions),
        cmocka_unit_test(test_asked_lately),
        cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_same_questions),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_encoder),
        cmocka_unit_test(test_classifiers),
        cmocka_unit_test(test_drawn_and_streamed),
        cmocka_unit_test(test_the_first_is_lost),
        cmocka_unit_test(test_short_of_memory),
        cmocka_unit_test(test_inner_states_take_room),
        cmocka_unit_test(test_costs)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_engine_destroy(engine);
    lb_engine_destroy(plain);
    lb_known_destroy(known);
    lb_hosted_release(llama);
    lb_hosted_release(large);
    lb_hosted_release(bert);
    lb_hosted_release(classes);
    lb_hosted_release(mlp);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
