/* What limbeck probe asks: which kind of server it is, which models there are, what each says of itself, and
 * questions that are the same at every address. */
#include "trainer/command/probe.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "trainer/wire/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG_POSITIONS 128 /* of the question that measures speed */
#define TIMEOUT_NS (60 * LB_SECOND_NS)
#define MAX_MARK ((size_t)16 << 20)
#define ANY_VOCAB (1 << 24) /* no vocabulary has so many */
#define TOP_K 8

static struct lb_contact contact_of(const struct lb_probing *probing, const char *url) {
    return (struct lb_contact){.http = probing->http,
                               .name = "teacher",
                               .base = url,
                               .token = probing->token,
                               .naming = probing->naming,
                               .timeout_ns = TIMEOUT_NS,
                               .stop = probing->stop};
}

/* ---- which kind ---- */

static enum lb_status find_kind(const struct lb_probing *probing, const char *url,
                                const struct lb_dialect **out, struct lb_detail *detail) {
    struct lb_contact contact = contact_of(probing, url);
    char tried[200] = "";
    for (int p = 0; p < LB_N_PROTOCOLS; p++) {
        const struct lb_dialect *dialect = lb_dialect_get((enum lb_protocol)p);
        struct lb_call call;
        struct lb_detail why = {0};
        enum lb_status status = lb_contact_call(&contact, &call, dialect->mark, NULL, MAX_MARK, &why);
        bool answered = call.status == LB_OK;
        lb_call_finish(&call);
        if (status == LB_OK) {
            *out = dialect;
            return LB_OK;
        }
        if (!answered || status == LB_E_DENIED) { /* it would be the same at any path */
            return lb_fail(detail, status, "%s", why.text);
        }
        size_t at = strlen(tried);
        snprintf(tried + at, sizeof tried - at, "%s%s", at ? ", " : "", dialect->mark);
    }
    return lb_fail(detail, LB_E_UNSUPPORTED,
                   "%s is no server that limbeck can learn from: it answers none of GET %s; say which it is "
                   "with --protocol",
                   url, tried);
}

/* ---- which models ---- */

struct listing {
    const struct lb_probing *probing;
    const char *url;
    const struct lb_dialect *dialect;
    struct lb_found ***last;
    size_t n;
};

static void note_model(void *user, const char *name, const char *version, const char *state) {
    struct listing *listing = user;
    (void)version;
    if (listing->probing->model && strcmp(listing->probing->model, name)) {
        return;
    }
    struct lb_found *found = lb_calloc(1, sizeof *found);
    if (!found) {
        return;
    }
    found->url = listing->url;
    found->dialect = listing->dialect;
    snprintf(found->model, sizeof found->model, "%s", name);
    snprintf(found->state, sizeof found->state, "%s", state);
    lb_arena_init(&found->arena, 64u << 20);
    **listing->last = found;
    *listing->last = &found->next;
    listing->n++;
}

enum lb_status lb_probe_list(const struct lb_probing *probing, const char *url, struct lb_found ***last,
                             struct lb_detail *detail) {
    struct lb_contact contact = contact_of(probing, url);
    struct listing listing = {.probing = probing, .url = url, .dialect = probing->dialect, .last = last};
    enum lb_status status = lb_url_check(url, false, detail);
    if (status == LB_OK && !listing.dialect) {
        status = find_kind(probing, url, &listing.dialect, detail);
    }
    status = status != LB_OK ? status : listing.dialect->models(&contact, note_model, &listing, detail);
    if (status == LB_OK && listing.n == 0) {
        status = probing->model
                     ? lb_fail(detail, LB_E_NOTFOUND, "%s serves no model named %s", url, probing->model)
                     : lb_fail(detail, LB_E_NOTFOUND, "%s serves no model", url);
    }
    return status;
}

/* ---- questions ---- */

/* Question q of so many positions: the same for every address of a model. */
static bool make_sample(const struct lb_found *found, int q, int64_t positions, struct lb_arena *arena,
                        struct lb_sample *out) {
    const struct lb_teacher_info *info = &found->info;
    struct lb_rng rng;
    lb_rng_seed(&rng, 20, (uint64_t)q);
    *out = (struct lb_sample){.n = 1};
    if (info->input_size > 0) {
        float *features = lb_arena_array(arena, (size_t)info->input_size, sizeof *features);
        for (int64_t i = 0; features && i < info->input_size; i++) {
            features[i] = lb_rng_float(&rng);
        }
        out->features = features;
        return features != NULL;
    }
    out->n = info->max_length > 0 && info->max_length < positions ? info->max_length : positions;
    int32_t *ids = lb_arena_array(arena, (size_t)out->n, sizeof *ids);
    for (int64_t t = 0; ids && t < out->n; t++) {
        /* of a vocabulary that is not told, ids of its fixed question */
        ids[t] = found->tells_vocab ? (int32_t)lb_rng_below(&rng, (uint64_t)lb_info_ids(info))
                                    : info->probe_ids[lb_rng_below(&rng, (uint64_t)info->n_probe_ids)];
    }
    out->ids = ids;
    return ids != NULL;
}

/* What is asked: the first of these that the teacher gives. */
static const struct lb_ask_spec *spec_of(const struct lb_found *found, struct lb_detail *detail) {
    static const struct lb_ask_spec specs[] = {
        {.n_outputs = 2,
         .outputs = {{LB_OUT_LOGSUMEXP, 0, LB_DT_FP32}, {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32}},
         .top_k = TOP_K,
         .temperature = 1},
        {.n_outputs = 3,
         .outputs = {{LB_OUT_ACTUAL, 0, LB_DT_FP32},
                     {LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                     {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32}},
         .top_k = TOP_K,
         .temperature = 1},
        {.n_outputs = 3,
         .outputs = {{LB_OUT_ACTUAL, 0, LB_DT_FP32},
                     {LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                     {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32}},
         .top_k = 1,
         .temperature = 1},
        {.n_outputs = 2,
         .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_INT32}, {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32}},
         .top_k = TOP_K,
         .temperature = 1},
        {.n_outputs = 1, .outputs = {{LB_OUT_ACTUAL, 0, LB_DT_FP32}}, .top_k = TOP_K, .temperature = 1},
        {.n_outputs = 1, .outputs = {{LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP32}}, .top_k = TOP_K, .temperature = 1},
        {.n_outputs = 1, .outputs = {{LB_OUT_LOGITS, 0, LB_DT_FP32}}, .top_k = TOP_K, .temperature = 1}};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        if (found->dialect->gives(&found->info, &specs[i], found->model, NULL) == LB_OK) {
            return &specs[i];
        }
    }
    lb_fail(detail, LB_E_UNSUPPORTED, "teacher at %s: model %s gives nothing that can be asked", found->url,
            found->model);
    return NULL;
}

/* One request about n questions from `first` on; answers [n], *out_ns how long it took. */
static enum lb_status exchange(const struct lb_probing *probing, struct lb_found *found, int first, int64_t n,
                               int64_t positions, struct lb_answer *answers, uint64_t *out_ns,
                               struct lb_detail *detail) {
    struct lb_sample samples[LB_PROBE_BATCH];
    const struct lb_sample *pointers[LB_PROBE_BATCH];
    struct lb_contact contact = contact_of(probing, found->url);
    const struct lb_exchange exchange = {.contact = &contact,
                                         .dialect = found->dialect,
                                         .info = &found->info,
                                         .spec = spec_of(found, detail),
                                         .name = found->model,
                                         .timeout_us = TIMEOUT_NS / 1000,
                                         .fresh = true};
    if (!exchange.spec) {
        return LB_E_UNSUPPORTED;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!make_sample(found, first + (int)i, positions, &found->arena, &samples[i])) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for a question");
        }
        pointers[i] = &samples[i];
    }
    return lb_exchange(&exchange, pointers, n, &found->arena, &found->arena, answers, out_ns, detail);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* As many sequences as one request takes, long ones. */
static enum lb_status measure(const struct lb_probing *probing, struct lb_found *found,
                              struct lb_detail *detail) {
    struct lb_answer answers[LB_PROBE_BATCH];
    const struct lb_ask_spec *spec = spec_of(found, detail);
    struct lb_arena_mark mark = lb_arena_mark(&found->arena);
    uint64_t ns = 0;
    if (!spec) {
        return LB_E_UNSUPPORTED;
    }
    int64_t most = lb_dialect_most(found->dialect, &found->info, spec);
    int64_t n = most < LB_PROBE_BATCH ? most : LB_PROBE_BATCH, longest = found->info.max_length;
    /* Who doesn't tell how long a sequence may be is asked about one as long as those before. */
    int64_t positions = longest == 0 ? LB_PROBE_LENGTH : longest < LONG_POSITIONS ? longest : LONG_POSITIONS;
    enum lb_status status = exchange(probing, found, LB_PROBE_QUESTIONS, n, positions, answers, &ns, detail);
    if (status == LB_OK && ns > 0) {
        positions = found->info.input_size > 0 ? 1 : positions;
        found->tokens_per_second = (double)(n * positions) * 1e9 / (double)ns;
    }
    lb_arena_release(&found->arena, mark);
    return status;
}

enum lb_status lb_probe_ask(const struct lb_probing *probing, struct lb_found *found,
                            struct lb_detail *detail) {
    struct lb_contact contact = contact_of(probing, found->url);
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_INFO_BYTES);
    enum lb_status status = found->dialect->info(&contact, found->model, &text, &found->info, detail);
    lb_buf_finish(&text);
    found->served = status == LB_OK;
    found->tells_vocab = found->info.vocab_size > 0;
    if (status == LB_OK && !found->tells_vocab) {
        found->info.vocab_size = ANY_VOCAB;
    }
    for (int q = 0; q < LB_PROBE_QUESTIONS && status == LB_OK; q++) {
        uint64_t ns = 0;
        status =
            exchange(probing, found, q, 1, LB_PROBE_LENGTH, &found->answers[found->n_answers], &ns, detail);
        if (status == LB_OK) {
            found->latency_ms[found->n_answers++] = (double)ns / (double)LB_MS_NS;
        }
    }
    qsort(found->latency_ms, found->n_answers, sizeof *found->latency_ms, by_size);
    return status != LB_OK ? status : measure(probing, found, detail);
}

struct lb_found *lb_found_destroy(struct lb_found *found) {
    struct lb_found *next = found->next;
    lb_arena_finish(&found->arena);
    lb_free(found);
    return next;
}
