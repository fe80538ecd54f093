#include "common/model/generate.h"

#include "common/base/mem.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"

#include <string.h>

#define GENERATE_BYTES ((size_t)8 << 30)

/* What sampling needs of one row of logits. */
struct sampler {
    const struct lb_generate_args *args;
    struct lb_rng rng;
    int64_t v;
    int32_t *ids;  /* [V] sorted by logit */
    float *values; /* [V] */
    int32_t next;
};

/* Draws from softmax(z / temperature) over the top_k ids, cut to the smallest set that holds top_p of their
 * mass (Holtzman et al. 2020). */
static int32_t draw(struct sampler *s, const float *z) {
    const struct lb_generate_args *a = s->args;
    if (a->temperature <= 0) {
        return (int32_t)lb_argmax(z, s->v);
    }
    int64_t k = a->top_k > 0 && a->top_k < s->v ? a->top_k : s->v;
    lb_topk(z, s->v, k, s->ids, s->values);
    double lse = lb_logsumexp(s->values, k, a->temperature);
    lb_softmax(s->values, k, a->temperature, lse, s->values);
    double mass = 0;
    int64_t n = 0;
    while (n < k && (n == 0 || mass < a->top_p)) {
        mass += s->values[n++];
    }
    double u = lb_rng_double(&s->rng) * mass;
    for (int64_t i = 0; i < n; i++) {
        u -= s->values[i];
        if (u < 0) {
            return s->ids[i];
        }
    }
    return s->ids[n - 1];
}

static enum lb_status last_row(void *context, int64_t row, int64_t n, float *z) {
    (void)row;
    struct sampler *s = context;
    s->next = draw(s, z + (n - 1) * s->v);
    return LB_OK;
}

/* Runs n ids through the model after what kv holds; s->next is the id drawn after the last. */
static enum lb_status step(const struct lb_model *model, struct lb_tape *tape, struct lb_kv *kv,
                           const int32_t *ids, int64_t n, struct sampler *s) {
    int32_t offsets[2] = {0, (int32_t)n}, first = (int32_t)(n - 1);
    struct lb_input in = {.ragged = {1, offsets}, .ids = ids};
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, kv);
    return lb_head_run(tape, h, lb_model_head(model), lb_model_head_bias(model), &first, last_row, s);
}

enum lb_status lb_generate(const struct lb_model *model, const int32_t *prompt, int64_t n,
                           const struct lb_generate_args *args, lb_generate_fn fn, void *context,
                           struct lb_detail *detail) {
    const struct lb_config *c = lb_model_config(model);
    if (lb_model_check_tap(model, LB_TAP_ATTENTION, 0, NULL) != LB_OK) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "a classifier generates no text");
    }
    for (int64_t i = 0; i < n; i++) {
        if (prompt[i] < 0 || prompt[i] >= c->vocab_size) {
            return lb_fail(detail, LB_E_ARG, "prompt id %d at %lld is outside the vocabulary of %lld",
                           prompt[i], (long long)i, (long long)c->vocab_size);
        }
    }
    int64_t limit = c->max_position_embeddings;
    if (n < 1 || n >= limit) {
        return lb_fail(detail, LB_E_ARG, "the prompt has %lld tokens; this model takes 1 to %lld",
                       (long long)n, (long long)limit - 1);
    }
    int64_t total = n + args->max_new_tokens < limit ? n + args->max_new_tokens : limit;
    struct lb_kv kv = {0};
    struct lb_tape *tape = lb_tape_create(GENERATE_BYTES);
    struct sampler s = {.args = args, .v = c->vocab_size};
    lb_rng_seed(&s.rng, args->seed, 0);
    s.ids = lb_malloc_array((size_t)s.v, sizeof *s.ids);
    s.values = lb_malloc_array((size_t)s.v, sizeof *s.values);
    enum lb_status status = tape != NULL && s.ids != NULL && s.values != NULL ? LB_OK : LB_E_NOMEM;
    status = status == LB_OK ? lb_kv_init(&kv, model, total) : status;
    if (status == LB_OK && total > n) {
        status = step(model, tape, &kv, prompt, n, &s);
    }
    for (int64_t at = n; status == LB_OK && at < total && s.next != args->eos; at++) {
        int32_t id = s.next;
        status = fn(context, id);
        if (status == LB_OK && at + 1 < total) {
            status = step(model, tape, &kv, &id, 1, &s);
        }
    }
    if (status == LB_E_NOMEM) {
        (void)lb_fail(detail, status, "no memory to generate %lld tokens", (long long)total);
    }
    lb_kv_finish(&kv);
    lb_tape_destroy(tape);
    lb_free(s.ids);
    lb_free(s.values);
    return status;
}
