/* A service whose worker is the test: jobs about a few texts are queued, computed batch by batch, and held
 * against those of an engine that knows nothing. Included by test programs, behind cmocka.h. */
#ifndef LB_TESTS_UNIT_SERVER_SERVICE_H
#define LB_TESTS_UNIT_SERVER_SERVICE_H

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

static char folder[] = "/tmp/limbeck-service-XXXXXX";
static struct lb_hosted *llama, *large, *bert, *classes, *mlp;
static struct lb_engine *plain, *engine; /* one that knows nothing, and one to admit jobs with */
static struct lb_known *nothing;         /* of the second */
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

static inline struct service begin(int64_t batch_tokens, size_t known_bytes) {
    struct service s = {.known = lb_known_create(known_bytes, ALL_BITS), .tape = lb_tape_create(TAPE_BYTES)};
    s.batcher = lb_batcher_create(&(struct lb_batcher_args){
        .max_batch_tokens = batch_tokens, .max_queue_tokens = 1 << 20, .known = s.known});
    lb_arena_init(&s.scratch, TAPE_BYTES);
    assert_true(s.known && s.batcher && s.tape);
    return s;
}

static inline void end(struct service *s) {
    lb_batcher_close(s->batcher);
    lb_batcher_destroy(s->batcher);
    lb_known_destroy(s->known);
    lb_tape_destroy(s->tape);
    lb_arena_finish(&s->scratch);
}

/* One batch. */
static inline enum lb_status turn(struct service *s) {
    static struct lb_batch batch;
    struct lb_forward_counts counts;
    assert_int_equal(lb_batcher_next(s->batcher, &batch), LB_OK);
    enum lb_status status = lb_forward_run(&batch, s->tape, &s->scratch, s->known, ++s->runs, &counts);
    s->all.computed_seqs += counts.computed_seqs;
    s->all.computed_tokens += counts.computed_tokens;
    s->all.joined_tokens += counts.joined_tokens;
    s->all.known_tokens += counts.known_tokens;
    s->all.copied_seqs += counts.copied_seqs;
    s->batches++;
    lb_batcher_finish(s->batcher, &batch, status, NULL, 1);
    return status;
}

static inline void serve(struct service *s) {
    while (lb_batcher_state(s->batcher).jobs > 0) {
        assert_int_equal(turn(s), LB_OK);
    }
}

static atomic_int n_done;

static inline void count_done(struct lb_job *job) {
    (void)job;
    atomic_fetch_add(&n_done, 1);
}

/* Some texts, and what is asked of them. */
struct asked {
    const char *outputs[6];
    double temperature;
    int64_t samples, start;
    bool scored;
    int64_t seed, top_k;
    bool half, padded; /* FP16; some columns more than there are tokens */
    const char *vocab_map;
};
#define PADDING 7

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

static inline struct lb_job *ask_for(struct lb_hosted *hosted, const int *which, int n,
                                     const struct asked *asked, const void *client) {
    int32_t ids[8 * (T + PADDING)] = {0}, scores[8 * (T + PADDING) * 3], starts[8], lengths[8];
    int width = asked->padded ? T + PADDING : T;
    struct lb_question ask = lb_question_new();
    for (int i = 0; i < n; i++) {
        memcpy(ids + (ptrdiff_t)i * width, texts[which[i]], sizeof texts[0]);
        starts[i] = (int32_t)asked->start;
        lengths[i] = T;
    }
    for (int i = 0; i < n * width * 3; i++) {
        scores[i] = i % 7 == 0 ? -1 : (i * 5) % V;
    }
    lb_question_input(&ask, "input_ids", LB_DT_INT32, n, width, ids);
    if (asked->padded) {
        lb_question_input(&ask, "lengths", LB_DT_INT32, n, 0, lengths);
    }
    if (asked->start > 0) {
        lb_question_input(&ask, "start", LB_DT_INT32, n, 0, starts);
    }
    if (asked->scored) {
        lb_question_input(&ask, "score_ids", LB_DT_INT32, n, width, scores);
        struct lb_wire_tensor *t = &ask.inputs[ask.request.n_inputs - 1];
        t->n_dims = 3;
        t->dim[2] = 3;
        t->bytes *= 3;
    }
    for (int i = 0; i < 6 && asked->outputs[i]; i++) {
        lb_question_output(&ask, asked->outputs[i], asked->half ? LB_DT_FP16 : LB_DT_NONE);
    }
    ask.request.temperature = asked->temperature;
    ask.request.sample_count = asked->samples;
    ask.request.seed = (uint64_t)asked->seed;
    ask.request.vocab_map = asked->vocab_map;
    ask.request.top_k = asked->top_k > 0 ? asked->top_k : ask.request.top_k;
    struct lb_job *job = lb_question_plan(hosted, &ask);
    assert_int_equal(lb_engine_admit(engine, job, NULL), LB_OK);
    job->client = client;
    job->done = count_done;
    return job;
}

/* The job's answer is that of one that was asked alone, of an engine that knows nothing. */
static inline void check_alone(struct lb_job *job, const int *which, int n, const struct asked *asked) {
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

static inline void submit(struct service *s, struct lb_job *job) {
    assert_int_equal(lb_batcher_submit(s->batcher, job, NULL), LB_OK);
}

static const int some[] = {0, 1, 2}, more[] = {2, 3, 0, 4};

static inline int start_all(void **state) {
    (void)state;
    struct lb_config config;
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
    nothing = lb_known_create(0, ALL_BITS);
    engine = lb_engine_create(NULL, NULL, nothing, TAPE_BYTES);
    for (int i = 0; i < 8 * T; i++) {
        texts[i / T][i % T] = (i * 31 + i * i * 7 + i / T) % V;
    }
    return 0;
}

static inline int stop_all(void **state) {
    (void)state;
    lb_engine_destroy(engine);
    lb_engine_destroy(plain);
    lb_known_destroy(nothing);
    lb_hosted_release(llama);
    lb_hosted_release(large);
    lb_hosted_release(bert);
    lb_hosted_release(classes);
    lb_hosted_release(mlp);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

#endif
