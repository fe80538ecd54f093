/* Everything that losses ask, in one forward, all the way: the trainer's question as bytes, read and planned
 * by the server, computed among other jobs, written as bytes (and as JSON), taken apart by the trainer. Each
 * number is held against full logits and states of the sequence alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/nn/gemm.h"
#include "server/engine/admit.h"
#include "server/engine/engine.h"
#include "tests/support/slices.h"
#include "tests/support/tiny_hosted.h"
#include "trainer/wire/dialect.h"
#include "trainer/wire/possible.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 3
#define T 40
#define V 1500
#define SCORED 32
#define TOP_K 64
#define DRAWS 50
#define TEMPERATURE 1.5
#define PROPOSAL 2.0
#define TAPE_BYTES ((size_t)1 << 28)

static char folder[] = "/tmp/limbeck-forward-XXXXXX";
static struct lb_hosted *hosted;
static struct lb_engine *engine;
static struct lb_detail detail;
static int64_t width;

/* The order of asked[] below. */
enum { TOP_IDS, TOP_VALUES, SUM, AT, AT_LOGS, AT_CODES, DRAWN, COUNTS, WEIGHTS, FINAL, HIDDEN, N_ASKED };
static const struct lb_ask_spec spec = {
    .n_outputs = N_ASKED,
    .outputs = {[TOP_IDS] = {LB_OUT_TOPK_IDS, 0, LB_DT_UINT16},
                [TOP_VALUES] = {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32},
                [SUM] = {LB_OUT_LOGSUMEXP, 0, LB_DT_FP32},
                [AT] = {LB_OUT_AT_IDS, 0, LB_DT_FP32},
                [AT_LOGS] = {LB_OUT_AT_LOGPROBS, 0, LB_DT_FP32},
                [AT_CODES] = {LB_OUT_TOPK_LOGPROBS, 0, LB_DT_UINT8},
                [DRAWN] = {LB_OUT_SAMPLE_IDS, 0, LB_DT_UINT16},
                [COUNTS] = {LB_OUT_SAMPLE_COUNTS, 0, LB_DT_UINT16},
                [WEIGHTS] = {LB_OUT_SAMPLE_WEIGHTS, 0, LB_DT_FP32},
                [FINAL] = {LB_OUT_HIDDEN_FINAL, 0, LB_DT_BF16},
                [HIDDEN] = {LB_OUT_HIDDEN, 1, LB_DT_FP32}},
    .top_k = TOP_K,
    .temperature = TEMPERATURE,
    .n_scored = SCORED,
    .sample_count = DRAWS,
    .seed = 12,
    .sample_temperature = PROPOSAL,
};

static void must(enum lb_status status) {
    if (status != LB_OK) {
        fail_msg("%s", detail.text);
    }
}

/* ---- samples ---- */

struct text {
    int32_t ids[T + 1], scores[T * SCORED];
    struct lb_extra extra;
    struct lb_sample sample;
};

/* The last text is the first one again, with other ids to score. */
static void make_texts(struct text *texts) {
    struct lb_rng rng;
    lb_rng_seed(&rng, 4, 0);
    for (int i = 0; i < N; i++) {
        struct text *t = &texts[i];
        int64_t n = i == N - 1 ? T : T - 7 * i;
        for (int j = 0; j <= T; j++) {
            t->ids[j] = i == N - 1 ? texts[0].ids[j] : (int32_t)lb_rng_below(&rng, V);
        }
        for (int j = 0; j < T * SCORED; j++) {
            t->scores[j] = j % 11 == 3 ? -1 : (int32_t)lb_rng_below(&rng, V);
        }
        t->extra = (struct lb_extra){LB_IN_SCORE_IDS, t->scores, SCORED};
        t->sample = (struct lb_sample){.ids = t->ids, .n = n, .tag = -1, .extra = &t->extra};
    }
}

static struct lb_teacher_info teacher(void) {
    const struct lb_config *config = lb_model_config(hosted->model);
    struct lb_teacher_info info = {.vocab_size = V,
                                   .hidden_size = config->hidden_size,
                                   .n_layers = config->num_hidden_layers,
                                   .n_heads = config->num_attention_heads,
                                   .max_length = config->max_position_embeddings};
    memcpy(info.fingerprint, hosted->version, sizeof info.fingerprint);
    strcpy(info.model, hosted->name);
    return info;
}

/* ---- asking ---- */

struct exchange {
    struct lb_arena arena; /* of both sides' scratch */
    struct lb_asked asked;
    struct lb_job *job;
    struct lb_buf body;
    size_t json_len;
    char digest[LB_SHA256_HEX];
};

/* The request that the bytes are, as the server reads them; start: some rows only. */
static void plan(struct exchange *x, const struct lb_asked *asked, const int32_t *start) {
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES};
    struct lb_infer_request request;
    must(lb_infer_request_decode(asked->body.data, asked->body.len, asked->json_bytes, &x->arena, &request,
                                 &detail));
    must(lb_request_digest(hosted->version, &request, x->digest));
    assert_string_equal(x->digest, asked->digest);
    struct lb_wire_tensor inputs[8];
    memcpy(inputs, request.inputs, request.n_inputs * sizeof *inputs);
    request.inputs = inputs;
    if (start) {
        inputs[request.n_inputs++] = (struct lb_wire_tensor){
            LB_IN_START, LB_DT_INT32, 1, {asked->n}, start, (size_t)asked->n * sizeof *start, true};
    }
    x->job = lb_job_create((size_t)64 << 20);
    assert_non_null(x->job);
    x->job->model = lb_hosted_retain(hosted);
    must(lb_plan(&request, &limits, x->job, &detail));
    must(lb_engine_admit(engine, x->job, &detail));
}

static void compute(const struct lb_slice *slices, size_t n) {
    must(lb_run_slices(engine, slices, n, &detail));
}

/* The job's answer; json: all of it as JSON. */
static void write_answer(struct exchange *x, bool json) {
    struct lb_wire_tensor tensors[N_ASKED];
    bool any_binary = false;
    for (size_t i = 0; i < x->job->n_outputs; i++) {
        const struct lb_job_output *o = &x->job->outputs[i];
        bool binary = !json || o->datatype == LB_DT_BF16;
        tensors[i] = (struct lb_wire_tensor){o->name, o->datatype, o->n_dims, {0}, o->data, o->bytes, binary};
        memcpy(tensors[i].dim, o->dim, sizeof o->dim);
        any_binary |= binary;
    }
    const struct lb_infer_response response = {.model_name = hosted->name,
                                               .model_version = hosted->version,
                                               .temperature = TEMPERATURE,
                                               .top_k = TOP_K,
                                               .digest_of = x->digest,
                                               .n_outputs = x->job->n_outputs,
                                               .outputs = tensors};
    uint8_t own[LB_SHA256_BYTES];
    lb_buf_init(&x->body, (size_t)64 << 20);
    must(lb_infer_response_head(&response, &x->body, &detail));
    x->json_len = x->body.len;
    must(lb_answer_digest(&response, x->body.data, x->body.len, own));
    for (size_t i = 0; i < x->job->n_outputs; i++) {
        if (tensors[i].binary) {
            lb_buf_append(&x->body, tensors[i].data, tensors[i].bytes);
        }
    }
    assert_true(any_binary);
    lb_buf_append(&x->body, own, sizeof own);
}

static void end(struct exchange *x) {
    lb_job_destroy(x->job);
    lb_asked_finish(&x->asked);
    lb_buf_finish(&x->body);
    lb_arena_finish(&x->arena);
}

/* Asks about all texts at once and takes the answer apart. */
static void ask(struct exchange *x, const struct lb_sample *const *samples, struct lb_arena *arenas,
                struct lb_answer *answers) {
    const struct lb_dialect *dialect = lb_dialect_get(LB_PROTOCOL_OIP);
    struct lb_teacher_info info = teacher();
    struct lb_arena *pointers[N];
    lb_arena_init(&x->arena, (size_t)64 << 20);
    must(dialect->build(&info, &spec, samples, N, 0, &x->arena, &x->asked, &detail));
    plan(x, &x->asked, NULL);
    /* In two batches, out of order, the first shared with another job. */
    struct exchange other = {0};
    static const int32_t start[N] = {20, 0, 25};
    lb_arena_init(&other.arena, (size_t)64 << 20);
    plan(&other, &x->asked, start);
    compute((const struct lb_slice[]){{other.job, 0, N}, {x->job, 2, 1}}, 2);
    compute((const struct lb_slice[]){{x->job, 0, 2}}, 1);
    /* Rows from start on are those of the whole. */
    for (int i = 0; i < N_ASKED; i++) {
        const struct lb_job_output *o = &x->job->outputs[i], *part = &other.job->outputs[i];
        size_t row = (size_t)o->width * lb_datatype_bytes(o->datatype);
        for (int64_t b = 0; b < N; b++) {
            assert_memory_equal((const char *)part->data + (size_t)(b * other.job->rows) * row,
                                (const char *)o->data + (size_t)(b * x->job->rows + start[b]) * row,
                                (size_t)(samples[b]->n - start[b]) * row);
        }
    }
    lb_job_destroy(other.job);
    lb_arena_finish(&other.arena);
    write_answer(x, false);
    const struct lb_ask_reply reply = {x->body.data, x->body.len, (int64_t)x->json_len, x->digest};
    for (int i = 0; i < N; i++) {
        lb_arena_init(&arenas[i], (size_t)16 << 20);
        pointers[i] = &arenas[i];
    }
    must(dialect->split(&info, &spec, &x->asked, samples, &reply, &x->arena, pointers, answers, NULL,
                        &detail));
    for (int i = 0; i < N; i++) {
        must(lb_answer_possible(&answers[i], TEMPERATURE, "tiny", &detail));
    }
}

/* ---- the reference ---- */

struct reference {
    float z[T * V], final[T * 64], hidden[T * 64];
};

static enum lb_status keep(void *context, int64_t row, int64_t n, float *z) {
    memcpy((float *)context + row * V, z, (size_t)(n * V) * sizeof *z);
    return LB_OK;
}

static struct reference *alone(const struct lb_sample *sample) {
    struct reference *r = calloc(1, sizeof *r);
    struct lb_tape *tape = lb_tape_create(TAPE_BYTES);
    int32_t offsets[2] = {0, (int32_t)sample->n};
    struct lb_input in = {{1, offsets}, sample->ids, NULL};
    struct lb_tap tap = {.kind = LB_TAP_HIDDEN, .layer = 1};
    assert_true(r && tape && width <= 64);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(hosted->model, tape, &in, &tap, 1, NULL);
    assert_non_null(h);
    memcpy(r->final, h->data, (size_t)(sample->n * width) * sizeof(float));
    memcpy(r->hidden, tap.value->data, (size_t)(sample->n * width) * sizeof(float));
    must(lb_head_run(tape, h, lb_model_head(hosted->model), NULL, keep, r->z));
    lb_tape_destroy(tape);
    return r;
}

static double log_sum(const float *z, double temperature) {
    double sum = 0;
    for (int j = 0; j < V; j++) {
        sum += exp((double)z[j] / temperature);
    }
    return log(sum);
}

static void near(double got, double want, double most, const char *what) {
    if (!(fabs(got - want) <= most)) {
        fail_msg("%s is %.9g, not %.9g", what, got, want);
    }
}

static double number(const struct lb_answer *answer, int output, int64_t i) {
    float x;
    lb_wire_floats(&answer->tensors[output], i, 1, &x);
    return (double)x;
}

static int32_t whole(const struct lb_answer *answer, int output, int64_t i) {
    return lb_answer_id(&answer->tensors[output], i);
}

static void check_top(const struct lb_answer *answer, const float *z, int64_t t, double lse) {
    bool taken[V] = {false};
    for (int64_t i = t * TOP_K; i < (t + 1) * TOP_K; i++) {
        int best = -1;
        for (int j = 0; j < V; j++) {
            best = !taken[j] && (best < 0 || z[j] > z[best]) ? j : best;
        }
        taken[best] = true;
        double logprob = (double)z[best] / TEMPERATURE - lse;
        assert_int_equal(whole(answer, TOP_IDS, i), best);
        near(number(answer, TOP_VALUES, i), (double)z[best], 0, "a top logit");
        near(number(answer, AT_CODES, i), logprob, 0.0222 * sqrt(-logprob) + 0.0002, "a code");
    }
}

/* The counts are of DRAWS draws, the weights what they say, and the shares of both temperatures apart. */
static double check_draws(const struct lb_answer *answer, const float *z, int64_t t, double lse) {
    double proposal = log_sum(z, PROPOSAL), sum = 0;
    int32_t n = 0, before = -1;
    for (int64_t i = t * DRAWS; i < (t + 1) * DRAWS; i++) {
        int32_t id = whole(answer, DRAWN, i), count = whole(answer, COUNTS, i);
        double weight = number(answer, WEIGHTS, i);
        n += count;
        if (count == 0) {
            assert_true(id == 0 && weight == 0);
            continue;
        }
        assert_true(id > before && id < V);
        before = id;
        double log_ratio = (double)z[id] / TEMPERATURE - lse - ((double)z[id] / PROPOSAL - proposal);
        near(weight, count / (double)DRAWS * exp(log_ratio), 1e-6, "a weight");
        sum += weight;
    }
    assert_int_equal(n, DRAWS);
    return sum;
}

static void check_text(const struct text *text, const struct lb_answer *answer, double *weights) {
    struct reference *r = alone(&text->sample);
    for (int64_t t = 0; t < text->sample.n; t++) {
        const float *z = r->z + t * V;
        double lse = log_sum(z, TEMPERATURE);
        near(number(answer, SUM, t), lse, 1e-5, "a log-sum-exp");
        check_top(answer, z, t, lse);
        for (int64_t i = t * SCORED; i < (t + 1) * SCORED; i++) {
            int32_t id = text->scores[i];
            near(number(answer, AT, i), id < 0 ? 0 : (double)z[id], 0, "a gathered logit");
            near(number(answer, AT_LOGS, i), id < 0 ? 0 : (double)z[id] / TEMPERATURE - lse, 1e-5,
                 "its log p");
        }
        *weights += check_draws(answer, z, t, lse);
        for (int64_t i = t * width; i < (t + 1) * width; i++) {
            near(number(answer, HIDDEN, i), (double)r->hidden[i], 0, "a state");
            near(number(answer, FINAL, i), (double)r->final[i], 0x1p-8 * fabs((double)r->final[i]),
                 "a final state");
        }
    }
    free(r);
}

static void one_forward_answers_all(void **state) {
    (void)state;
    static struct text texts[N];
    const struct lb_sample *samples[N];
    struct lb_answer answers[N] = {{0}};
    struct lb_arena arenas[N];
    struct exchange x = {0};
    make_texts(texts);
    for (int i = 0; i < N; i++) {
        samples[i] = &texts[i].sample;
    }
    ask(&x, samples, arenas, answers);
    double weights = 0, rows = 0;
    for (int i = 0; i < N; i++) {
        check_text(&texts[i], &answers[i], &weights);
        rows += (double)texts[i].sample.n;
    }
    near(weights / rows, 1, 0.05, "what a row's weights sum up to on average");
    /* The same text, computed in another batch: drawn alike, though it is asked for other ids. */
    static const int same[] = {TOP_IDS, TOP_VALUES, SUM, DRAWN, COUNTS, WEIGHTS, FINAL, HIDDEN};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        const struct lb_wire_tensor *a = &answers[0].tensors[same[i]], *b = &answers[N - 1].tensors[same[i]];
        assert_memory_equal(a->data, b->data, b->bytes);
    }
    /* As JSON: the same numbers, bit for bit. */
    struct lb_infer_response json;
    lb_buf_finish(&x.body);
    write_answer(&x, true);
    must(lb_infer_response_decode(x.body.data, x.body.len, (int64_t)x.json_len, &x.arena, &json, &detail));
    for (int i = 0; i < N_ASKED; i++) {
        assert_int_equal(json.outputs[i].binary, i == FINAL);
        assert_int_equal(json.outputs[i].bytes, x.job->outputs[i].bytes);
        assert_memory_equal(json.outputs[i].data, x.job->outputs[i].data, json.outputs[i].bytes);
    }
    for (int i = 0; i < N; i++) {
        lb_arena_finish(&arenas[i]);
    }
    end(&x);
}

/* A spec that asks for ids which the samples don't bring is found before anything is sent. */
static void ids_that_are_not_brought(void **state) {
    (void)state;
    static struct text texts[N];
    struct lb_teacher_info info = teacher();
    struct lb_arena arena;
    struct lb_asked asked;
    struct lb_detail why = {0};
    make_texts(texts);
    lb_arena_init(&arena, (size_t)16 << 20);
    const struct lb_sample *sample = &texts[0].sample;
    struct lb_ask_spec other = spec;
    other.n_scored--;
    const struct lb_dialect *dialect = lb_dialect_get(LB_PROTOCOL_OIP);
    assert_int_equal(dialect->build(&info, &other, &sample, 1, 0, &arena, &asked, &why), LB_E_INTERNAL);
    texts[0].sample.extra = NULL;
    assert_int_equal(dialect->build(&info, &spec, &sample, 1, 0, &arena, &asked, &why), LB_E_INTERNAL);
    assert_non_null(strstr(why.text, LB_IN_SCORE_IDS));
    lb_arena_finish(&arena);
}

int main(int argc, char **argv) {
    (void)argc;
    struct lb_config config;
    lb_gemm_setup(0, argv);
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    config.vocab_size = V;
    config.initializer_range = 0.3; /* so that some ids are far likelier than others */
    hosted = lb_tiny_hosted(folder, "tiny", &config);
    width = lb_model_width(hosted->model);
    engine = lb_engine_create(NULL, NULL, NULL, TAPE_BYTES);
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_forward_answers_all),
                                       cmocka_unit_test(ids_that_are_not_brought)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_engine_destroy(engine);
    lb_hosted_release(hosted);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
