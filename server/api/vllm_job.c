/* Jobs of the dialect vllm, and what is read of them. */
#include "server/api/vllm.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "proto/oip.h"
#include "proto/outputs.h"
#include "server/api/reply.h"
#include "server/api/submit.h"

#include <sys/random.h>

/* Bytes of an answer for one id with its log-probability in vLLM's form, about. */
#define ENTRY_BYTES 96

bool lb_vllm_check(struct lb_exchange *x, const struct lb_vllm_sampling *sampling, const char *key,
                   int64_t most) {
    const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    int64_t v = lb_hosted_vocab(hosted);
    if (!lb_model_is_causal(hosted->model) || lb_model_is_classifier(hosted->model)) {
        lb_reply_error(x, 400, "model %s does not write text", hosted->name);
    } else if (sampling->max_tokens > most) {
        lb_reply_error(x, 400,
                       "request: %s is %lld (given, or as it is by default); at most %lld is possible here",
                       key, (long long)sampling->max_tokens, (long long)most);
    } else if (sampling->prompt_logprobs == LB_VLLM_ALL_LOGPROBS && v > LB_MAX_TOP_K) {
        lb_reply_error(x, 400,
                       "request: prompt_logprobs is -1, which is all %lld ids of this model; at most %d are "
                       "possible, or the output logits of /v2",
                       (long long)v, LB_MAX_TOP_K);
    } else {
        return true;
    }
    return false;
}

uint64_t lb_vllm_seed(const struct lb_exchange *x, const struct lb_vllm_sampling *sampling) {
    uint64_t seed;
    if (sampling->has_seed) {
        return sampling->seed;
    }
    return getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed ? seed : x->started_ns;
}

/* Lower goes first there, and 0 is the default; here 1 is the highest, and the default 8. */
static int64_t priority_of(int64_t theirs) {
    return theirs == 0 ? 0 : theirs < -7 ? 1 : 8 + theirs;
}

/* How many ids' log-probabilities are listed at each of the prompt's positions; less than 0: none are. */
static int64_t listed(const struct lb_exchange *x, const struct lb_vllm_sampling *sampling) {
    int64_t v = lb_hosted_vocab(((struct lb_visit *)x->user)->hosted), k = sampling->prompt_logprobs;
    return k == LB_VLLM_ALL_LOGPROBS || k > v ? v : k;
}

/* What is certainly too much text is told before it is computed; false after an error. */
static bool check_text(struct lb_exchange *x, int64_t k, int64_t n_tokens, int64_t n_seqs) {
    static const char least[] = "\"0\":{\"logprob\":0,\"rank\":1,\"decoded_token\":\"\"},";
    int64_t bytes = (n_tokens - n_seqs) * k * (int64_t)(sizeof least - 1);
    if (bytes > (int64_t)LB_MAX_RESPONSE_BYTES) {
        lb_reply_error(
            x, 413,
            "request: prompt_logprobs of %lld ids for each of %lld tokens take %lld MiB as text and "
            "more; an answer has at most %u: ask for fewer, or for the outputs of /v2",
            (long long)k, (long long)n_tokens, (long long)(bytes >> 20), LB_MAX_RESPONSE_BYTES >> 20);
        return false;
    }
    return true;
}

int32_t *lb_vllm_scores(struct lb_server *server, struct lb_exchange *x, const char *key, int64_t k,
                        struct lb_vllm_matrix *matrix) {
    int64_t n_seqs = matrix->inputs[0].dim[0];
    size_t n = (size_t)(n_seqs * matrix->longest * k);
    if (n * sizeof(int32_t) > LB_MAX_BODY_BYTES) {
        lb_reply_error(x, 413,
                       "request: %s has %lld ids in a row, and there are %lld tokens; send fewer at once",
                       key, (long long)k, (long long)(n_seqs * matrix->longest));
        return NULL;
    }
    if (!lb_submit_hold(server, x, 2 * n * sizeof(int32_t))) { /* the job has a copy */
        return NULL;
    }
    matrix->scores = lb_malloc_array(n, sizeof *matrix->scores);
    if (!matrix->scores) {
        lb_reply_error(x, 503, "out of memory; try again");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        matrix->scores[i] = -1;
    }
    matrix->inputs[matrix->n_inputs++] = (struct lb_wire_tensor){.name = LB_IN_SCORE_IDS,
                                                                 .datatype = LB_DT_INT32,
                                                                 .n_dims = 3,
                                                                 .dim = {n_seqs, matrix->longest, k},
                                                                 .data = matrix->scores,
                                                                 .bytes = n * sizeof *matrix->scores,
                                                                 .binary = true};
    return matrix->scores;
}

bool lb_vllm_plan(struct lb_server *server, struct lb_exchange *x, const struct lb_vllm_sampling *sampling,
                  int64_t priority, struct lb_vllm_matrix *matrix, bool scored) {
    int64_t k = listed(x, sampling);
    if (!check_text(x, k, matrix->tokens, matrix->inputs[0].dim[0])) {
        return false;
    }
    k = k > sampling->logprobs ? k : sampling->logprobs;
    struct lb_wire_output outputs[5] = {{.name = "logits.topk_ids", .binary = true},
                                        {.name = "logprobs.topk_values", .binary = true}};
    size_t n = 2;
    if (scored) {
        outputs[n++] = (struct lb_wire_output){.name = "logprobs.actual", .binary = true};
    }
    if (sampling->prompt_logprobs != LB_VLLM_NO_LOGPROBS) {
        outputs[n++] = (struct lb_wire_output){.name = "ranks.actual", .binary = true};
    }
    if (matrix->n_inputs > 3) {
        outputs[n++] = (struct lb_wire_output){.name = "logprobs.at_ids", .binary = true};
    }
    const struct lb_infer_request infer = {
        .top_k = k > 1 ? k : 1,
        .temperature = sampling->temperature > 0 && !sampling->plain ? sampling->temperature : 1,
        .priority = priority_of(priority),
        .n_inputs = matrix->n_inputs,
        .inputs = matrix->inputs,
        .n_outputs = n,
        .outputs = outputs};
    const struct lb_job_draw draw = {.temperature = sampling->temperature,
                                     .top_k = sampling->top_k,
                                     .top_p = sampling->top_p,
                                     .seed = lb_vllm_seed(x, sampling)};
    bool drawn = sampling->temperature > 0 && sampling->max_tokens == 1;
    return lb_submit_plan(server, x, &infer, drawn ? &draw : NULL);
}

size_t lb_vllm_answer_bytes(struct lb_exchange *x, const struct lb_vllm_sampling *sampling,
                            int64_t n_tokens) {
    int64_t k = listed(x, sampling), entries = k < 0 ? 0 : n_tokens * (k + 1);
    x->heavy |= entries > LB_LIGHT_NUMBERS;
    return (size_t)entries * ENTRY_BYTES;
}

const void *lb_vllm_output(const struct lb_job *job, enum lb_output_kind kind, int64_t at) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        if (job->outputs[i].what.kind == kind) {
            return (const char *)job->outputs[i].data + at * (int64_t)sizeof(float);
        }
    }
    return NULL;
}

struct lb_vllm_rows lb_vllm_rows_of(const struct lb_job *job, int64_t b, int64_t t) {
    int64_t row = b * job->rows + t - job->start[b];
    return (struct lb_vllm_rows){.k = job->top_k,
                                 .top_ids = lb_vllm_output(job, LB_OUT_TOPK_IDS, row * job->top_k),
                                 .top_logprobs = lb_vllm_output(job, LB_OUT_TOPK_LOGPROBS, row * job->top_k),
                                 .actual = lb_vllm_output(job, LB_OUT_ACTUAL, row),
                                 .ranks = lb_vllm_output(job, LB_OUT_RANK, row)};
}

void lb_vllm_choose(const struct lb_job *job, const struct lb_vllm_sampling *sampling, int64_t b,
                    struct lb_vllm_choice *choice) {
    choice->n_generated = 1;
    choice->generated = job->draw ? &job->draw->ids[b] : choice->next.top_ids;
    choice->generated_logprobs = job->draw ? &job->draw->logprobs[b] : choice->next.top_logprobs;
    int32_t id = choice->generated[0];
    choice->stopped = !sampling->ignore_eos && lb_ends_has(lb_model_ends(job->model->model), id);
    for (size_t i = 0; i < sampling->n_stop_ids && !choice->stopped; i++) {
        if (sampling->stop_ids[i] == id) {
            choice->stopped = true;
            choice->stop_id = id;
        }
    }
}

void lb_vllm_put_generated(const struct lb_tokenizer *tokenizer, const struct lb_vllm_sampling *sampling,
                           int32_t id, struct lb_buf *text) {
    size_t len = 0;
    const char *bytes = lb_tokenizer_bytes(tokenizer, id, &len);
    if (bytes && !(sampling->skip_special && lb_tokenizer_is_special(tokenizer, id))) {
        lb_utf8_append_lossy(text, bytes, len);
    }
}
