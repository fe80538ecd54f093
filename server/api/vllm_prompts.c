/* Texts and ids of a question as sequences of a job. */
#include "server/api/vllm.h"

#include "common/base/mem.h"
#include "proto/outputs.h"
#include "server/api/reply.h"
#include "server/api/submit.h"

#include <string.h>

static enum lb_status encode(const struct lb_hosted *hosted, const char *key, size_t i, bool add_special,
                             struct lb_arena *arena, struct lb_vllm_prompt *prompt,
                             struct lb_detail *detail) {
    struct lb_ids ids = {0};
    enum lb_status status =
        lb_tokenizer_encode(hosted->tokenizer, prompt->text, strlen(prompt->text), add_special, &ids, detail);
    int32_t *copy = status == LB_OK ? lb_arena_array(arena, ids.len, sizeof *copy) : NULL;
    if (status == LB_OK && ids.len == 0) {
        status = lb_fail(detail, LB_E_ARG, "request: %s %zu has no tokens", key, i);
    } else if (status == LB_OK && !copy) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for this request; try again");
    } else if (status == LB_OK) {
        memcpy(copy, ids.data, ids.len * sizeof *copy);
        prompt->ids = copy;
        prompt->n = (int64_t)ids.len;
    }
    lb_free(ids.data);
    return status;
}

bool lb_vllm_encode(struct lb_exchange *x, struct lb_vllm_prompts *prompts, bool add_special) {
    const struct lb_visit *visit = x->user;
    const struct lb_hosted *hosted = visit->hosted;
    struct lb_detail detail = {0};
    size_t bytes = 0;
    for (size_t i = 0; i < prompts->n; i++) {
        bytes += prompts->all[i].text ? strlen(prompts->all[i].text) : 0;
    }
    if (!lb_submit_hold(visit->server, x, bytes * LB_VLLM_WORK_BYTES)) {
        return false;
    }
    for (size_t i = 0; i < prompts->n; i++) {
        struct lb_vllm_prompt *prompt = &prompts->all[i];
        if (prompt->ids || !prompt->text) {
            continue;
        }
        if (!lb_vllm_need_tokenizer(x)) {
            return false;
        }
        enum lb_status status = encode(hosted, prompts->key, i, add_special, &x->arena, prompt, &detail);
        if (status != LB_OK) {
            lb_reply_fail(x, status, &detail);
            return false;
        }
    }
    return true;
}

static struct lb_wire_tensor input(const char *name, int64_t rows, int64_t cols, const int32_t *data) {
    struct lb_wire_tensor t = {.name = name,
                               .datatype = LB_DT_INT32,
                               .n_dims = cols > 0 ? 2 : 1,
                               .dim = {rows, cols},
                               .data = data,
                               .binary = true};
    t.bytes = (size_t)(rows * (cols > 0 ? cols : 1)) * sizeof *data;
    return t;
}

/* Ids that the model has; false after an error, which has the key's name that the client knows. */
static bool check_ids(struct lb_exchange *x, const struct lb_vllm_prompts *prompts) {
    int64_t v = lb_model_config(((struct lb_visit *)x->user)->hosted->model)->vocab_size;
    for (size_t i = 0; i < prompts->n; i++) {
        const struct lb_vllm_prompt *prompt = &prompts->all[i];
        for (int64_t t = 0; t < prompt->n; t++) {
            if (prompt->ids[t] >= v) {
                lb_reply_error(x, 400, "request: %s %zu: token %lld is %d: outside the vocabulary, 0..%lld",
                               prompts->key, i, (long long)t, prompt->ids[t], (long long)v - 1);
                return false;
            }
        }
    }
    return true;
}

bool lb_vllm_matrix(struct lb_exchange *x, const struct lb_vllm_prompts *prompts, bool last_only,
                    struct lb_vllm_matrix *out) {
    int64_t n = (int64_t)prompts->n, longest = 0;
    for (int64_t i = 0; i < n; i++) {
        longest = prompts->all[i].n > longest ? prompts->all[i].n : longest;
    }
    if (longest > LB_MAX_REQUEST_TOKENS ||
        (size_t)((longest + 2) * n) * sizeof(int32_t) > LB_MAX_BODY_BYTES) {
        lb_reply_error(x, 413, "request: %s has %lld entries of up to %lld tokens; send fewer at once",
                       prompts->key, (long long)n, (long long)longest);
        return false;
    }
    const struct lb_visit *visit = x->user;
    if (!check_ids(x, prompts) ||
        !lb_submit_hold(visit->server, x, (size_t)((longest + 2) * n) * sizeof(int32_t))) {
        return false;
    }
    int32_t *ids = lb_calloc((size_t)((longest + 2) * n), sizeof *ids);
    if (!ids) {
        lb_reply_error(x, 503, "out of memory; try again");
        return false;
    }
    int32_t *lengths = ids + longest * n, *starts = lengths + n;
    *out = (struct lb_vllm_matrix){.ids = ids, .longest = longest, .starts = starts, .n_inputs = 3};
    for (int64_t i = 0; i < n; i++) {
        const struct lb_vllm_prompt *prompt = &prompts->all[i];
        memcpy(ids + i * longest, prompt->ids, (size_t)prompt->n * sizeof *ids);
        lengths[i] = (int32_t)prompt->n;
        starts[i] = last_only ? (int32_t)prompt->n - 1 : 0;
        out->tokens += prompt->n;
    }
    out->inputs[0] = input(LB_IN_IDS, n, longest, ids);
    out->inputs[1] = input(LB_IN_LENGTHS, n, 0, lengths);
    out->inputs[2] = input(LB_IN_START, n, 0, starts);
    return true;
}

void lb_vllm_matrix_finish(struct lb_vllm_matrix *matrix) {
    lb_free(matrix->ids);
    lb_free(matrix->scores);
}
