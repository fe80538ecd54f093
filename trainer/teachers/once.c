/* One exchange with one teacher, by itself: no retries, not counted. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "trainer/teachers/opened.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What rounding on the server's side may do to log-probabilities, on the mean, in nats; and to a length of 1.
 */
#define HEAD_SLACK 0.2
#define UNIT_SLACK 5e-3
#define MOST 16          /* samples of one question */
#define NO_CONFIG "none" /* in the cache: it has no tokenizer_config.json */

/* Samples as the teacher reads them. */
struct once {
    struct lb_ask_spec spec; /* normalised */
    int64_t n;
    struct lb_sample samples[MOST];
    int32_t *ids[MOST]; /* what they point to, where that was made */
    uint8_t keys[MOST][LB_SHA256_BYTES];
};

/* A replica that answered when it was met; -1: none. */
static int reached(const struct teacher *teacher) {
    for (int r = 0; r < teacher->n_urls; r++) {
        if (teacher->reached[r]) {
            return r;
        }
    }
    return -1;
}

static enum lb_status ask(const struct lb_teachers *teachers, const struct teacher *teacher,
                          const struct once *once, struct lb_arena *arena, struct lb_answer *answers,
                          struct lb_detail *detail) {
    const struct lb_sample *samples[MOST];
    struct lb_arena scratch;
    int replica = reached(teacher);
    if (replica < 0) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "%s: it is away", teacher->label);
    }
    for (int64_t i = 0; i < once->n; i++) {
        samples[i] = &once->samples[i];
    }
    struct lb_contact contact = lb_teacher_contact(teachers, teacher, replica);
    const struct lb_exchange exchange = {.contact = &contact,
                                         .dialect = teacher->dialect,
                                         .info = &teacher->info,
                                         .spec = &once->spec,
                                         .name = teacher->is->name,
                                         .timeout_us = lb_teachers_timeout_ns(teachers) / 1000};
    lb_arena_init(&scratch, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = lb_exchange(&exchange, samples, once->n, &scratch, arena, answers, NULL, detail);
    lb_arena_finish(&scratch);
    return status;
}

/* The samples in the teacher's ids, each with its key. */
static enum lb_status prepare(struct once *once, const struct teacher *teacher,
                              const struct lb_sample *samples, bool its_ids, struct lb_detail *detail) {
    char identity[LB_IDENTITY_TEXT];
    lb_info_identity(&teacher->info, identity);
    enum lb_status status = teacher->dialect->gives(&teacher->info, &once->spec, teacher->is->name, detail);
    for (int64_t i = 0; status == LB_OK && i < once->n; i++) {
        struct lb_sample *own = &once->samples[i];
        status = lb_sample_through(its_ids ? NULL : teacher->map, teacher->is->name, &samples[i], own,
                                   &once->ids[i], detail);
        status = status == LB_OK ? lb_ask_check(&teacher->info, own, teacher->label, detail) : status;
        if (status == LB_OK &&
            lb_cache_key(identity, own, teacher->info.input_size, &once->spec, once->keys[i]) != LB_OK) {
            status = lb_fail(detail, LB_E_NOMEM, "out of memory for a question to %s", teacher->label);
        }
    }
    return status;
}

/* Whether the cache has all of the answers; they are in answers then. */
static bool recall(struct lb_cache *cache, const struct teacher *teacher, const struct once *once,
                   struct lb_arena *arena, struct lb_answer *answers) {
    bool complained = false, all = true;
    for (int64_t i = 0; all && i < once->n; i++) {
        all = lb_answer_kept(cache, once->keys[i], &teacher->info, teacher->is->name, &once->spec,
                             &once->samples[i], arena, &complained, &answers[i]);
    }
    return all;
}

/* What cannot be kept is asked about again another time; the run's own answers tell of a cache that is full.
 */
static void keep(struct lb_cache *cache, const struct once *once, const struct lb_answer *answers) {
    const struct lb_answer *pointers[MOST];
    struct lb_detail why = {0};
    for (int64_t i = 0; i < once->n; i++) {
        pointers[i] = &answers[i];
    }
    if (cache && lb_cache_put(cache, once->keys, pointers, (size_t)once->n, &why) != LB_OK) {
        lb_log(LB_LOG_DEBUG, "cache_not_written", "error=\"%s\"", why.text);
    }
}

static enum lb_status ask_about(const struct lb_teachers *teachers, const struct teacher *teacher,
                                enum lb_output_kind kind, const struct lb_sample *samples, int64_t n,
                                bool its_ids, struct lb_arena *arena, struct lb_answer *answers,
                                struct lb_detail *detail) {
    const struct lb_ask_spec spec = {
        .n_outputs = 1, .outputs[0] = {.kind = kind, .datatype = LB_DT_FP32}, .temperature = 1};
    struct once once = {.n = n};
    if (n < 1 || n > MOST) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %lld samples are no single question", teacher->label,
                       (long long)n);
    }
    lb_ask_normalise(&spec, &once.spec);
    enum lb_status status = prepare(&once, teacher, samples, its_ids, detail);
    if (status == LB_OK && !recall(teachers->cache, teacher, &once, arena, answers)) {
        status = ask(teachers, teacher, &once, arena, answers, detail);
        if (status == LB_OK) {
            keep(teachers->cache, &once, answers);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        lb_free(once.ids[i]);
    }
    return status;
}

enum lb_status lb_teachers_ask_once(struct lb_teachers *teachers, unsigned k, const struct lb_sample *samples,
                                    int64_t n, bool its_ids, struct lb_arena *arena,
                                    struct lb_answer *answers, struct lb_detail *detail) {
    return ask_about(teachers, &teachers->teachers[k], LB_OUT_ACTUAL, samples, n, its_ids, arena, answers,
                     detail);
}

/* ---- a head that came otherwise ---- */

/* Log-probabilities of the fixed question's own tokens, by its states and the head. */
static enum lb_status by_head(const struct teacher *teacher, const struct lb_answer *answer, float *norm,
                              struct lb_told_probe *out, struct lb_detail *detail) {
    const struct lb_teacher_head *head = &teacher->from_file;
    const struct lb_teacher_info *info = &teacher->info;
    float *state = lb_malloc_array((size_t)head->hidden_size, sizeof *state),
          *z = lb_malloc_array((size_t)head->vocab_size, sizeof *z);
    enum lb_status status =
        state && z ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory for its head", teacher->label);
    struct lb_told_probe told = {.n = info->n_probe_ids - 1};
    double least = 1, most = 1;
    for (int t = 0; t < told.n && status == LB_OK; t++) {
        double square = 0;
        int32_t id = info->probe_ids[t + 1];
        if (id >= head->vocab_size) {
            status = lb_fail(detail, LB_E_MISMATCH, "%s: it reads id %d, its head has %lld rows",
                             teacher->label, id, (long long)head->vocab_size);
            break;
        }
        lb_wire_floats(&answer->tensors[0], t * head->hidden_size, head->hidden_size, state);
        for (int64_t c = 0; c < head->hidden_size; c++) {
            square += (double)state[c] * (double)state[c];
        }
        least = fmin(least, sqrt(square));
        most = fmax(most, sqrt(square));
        lb_head_logits(state, 1, head->hidden_size, head->weight, head->bias, head->vocab_size, head->shape,
                       z);
        told.at[t] = (float)((double)z[id] - lb_logsumexp(z, head->vocab_size, 1));
    }
    lb_free(state);
    lb_free(z);
    if (status == LB_OK) {
        *norm = least > 1 - UNIT_SLACK && most < 1 + UNIT_SLACK ? 1 : 0;
        *out = told;
    }
    return status;
}

/* The server's states and the recipe's head are held against what the server itself says of the same text. */
static enum lb_status hold_against(const struct teacher *teacher, const struct lb_answer *answer,
                                   struct lb_detail *detail) {
    const struct lb_told_probe *own = &teacher->info.probe[LB_PROBE_LOGPROBS];
    struct lb_told_probe told = {0};
    float unit = 0;
    enum lb_status status = by_head(teacher, answer, &unit, &told, detail);
    if (status != LB_OK) {
        return status;
    }
    if (unit > 0) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s: its states all have length 1: the server normalises them; start it so that it does "
            "not (vLLM: --pooler-config '{\"task\":\"token_embed\",\"use_activation\":false}')",
            teacher->label);
    }
    double sum = 0, distance = own->n > 0 ? lb_probe_distance(own, &told) : 0;
    for (int t = 0; t < told.n; t++) {
        sum -= (double)told.at[t];
    }
    double nats = sum / told.n, chance = log((double)teacher->from_file.vocab_size);
    if (!(distance <= HEAD_SLACK)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s: its states by the head %s make log-probabilities that are %.3g nats from those that "
            "it gives itself, on the mean: the head is another model's, or the states are not those "
            "behind the final norm",
            teacher->label, teacher->is->head, distance);
    }
    if (own->n == 0) { /* a server that only pools */
        lb_log(
            nats < chance ? LB_LOG_INFO : LB_LOG_WARN, "head_not_compared",
            "teacher=%s nats_per_token=%.3f by_chance=%.3f note=\"the server gives states only: whether the "
            "head is theirs is seen by how well they predict a plain text\"",
            teacher->is->name, nats, chance);
    }
    return LB_OK;
}

enum lb_status lb_teacher_check_head(const struct lb_teachers *teachers, const struct teacher *teacher,
                                     struct lb_detail *detail) {
    const struct lb_teacher_info *info = &teacher->info;
    const struct lb_sample sample = {.ids = info->probe_ids, .n = info->n_probe_ids, .label = -1, .tag = -1};
    struct lb_answer answer = {0};
    struct lb_arena arena;
    struct lb_detail why = {0};
    if (info->n_probe_ids < 2 || !lb_info_given(info, LB_OUT_HIDDEN_FINAL, 0)) {
        return LB_OK; /* what is asked next says that there are no states */
    }
    lb_arena_init(&arena, LB_MAX_RESPONSE_BYTES);
    enum lb_status status =
        ask_about(teachers, teacher, LB_OUT_HIDDEN_FINAL, &sample, 1, true, &arena, &answer, &why);
    if (status == LB_OK) {
        status = hold_against(teacher, &answer, detail);
    } else if (status == LB_E_UNAVAILABLE || status == LB_E_TIMEOUT) {
        lb_log(LB_LOG_WARN, "head_not_compared", "teacher=%s error=\"%s\"", teacher->is->name, why.text);
        status = LB_OK;
    } else {
        lb_fail(detail, status, "%s", why.text);
    }
    lb_arena_finish(&arena);
    return status;
}

/* What it said when it was last there. */
static enum lb_status recall_config(const struct lb_teachers *teachers, const struct teacher *teacher,
                                    const char *name, struct lb_buf *out, struct lb_detail *detail) {
    if (!teachers->cache || lb_cache_get_blob(teachers->cache, name, out, NULL) || out->len == 0) {
        lb_buf_reset(out);
        return lb_fail(detail, LB_E_UNAVAILABLE, "%s is away and its tokenizer_config is not in the cache",
                       teacher->label);
    }
    if (out->len == strlen(NO_CONFIG) && memcmp(out->data, NO_CONFIG, out->len) == 0) {
        lb_buf_reset(out);
    }
    return LB_OK;
}

enum lb_status lb_teachers_tokenizer_config(const struct lb_teachers *teachers, unsigned k,
                                            struct lb_buf *out, struct lb_detail *detail) {
    const struct teacher *teacher = &teachers->teachers[k];
    int replica = reached(teacher);
    char *path = NULL, name[LB_SHA256_HEX + 32];
    struct lb_detail why = {0};
    snprintf(name, sizeof name, "tokenizer_config:%s", teacher->info.fingerprint);
    if (replica < 0) {
        return recall_config(teachers, teacher, name, out, detail);
    }
    enum lb_status status =
        teacher->dialect->path(&teacher->info, NULL, LB_PATH_TOKENIZER_CONFIG, &path, detail);
    if (status == LB_OK) {
        struct lb_contact contact = lb_teacher_contact(teachers, teacher, replica);
        status = lb_contact_get(&contact, path, out, NULL, &why);
        status = status == LB_E_NOTFOUND ? LB_OK : status;
    }
    if (status == LB_OK) {
        lb_teachers_remember(teachers, name, out->len > 0 ? out->data : NO_CONFIG,
                             out->len > 0 ? out->len : strlen(NO_CONFIG));
    }
    lb_free(path);
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "%s", why.text);
}
