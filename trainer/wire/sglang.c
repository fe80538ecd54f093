/* The dialect sglang: servers that speak SGLang's, for all that a stock SGLang gives, /generate alone.
 *
 * Lists (top-k of any length, the tokens' own log-probabilities), several texts a request, each from the
 * first position on that counts. Ids chosen for each position where the server takes them
 * (token_ids_logprob_positions: miles' builds, and limbeckd), alone or beside a list.
 *
 * Their entry i is about token i, our row t about token t + 1: row t is their entry t + 1, and so that the
 * last row has one as well each text is asked with one more token, its last one again, which no row before it
 * sees. A temperature is never applied to a prompt's log-probabilities: lists are at 1.
 *
 * Such a server has no fingerprint and no digests. Every question carries the fixed question (stated.h) as
 * its last text, so that each answer shows by which model it was made.
 */
#include "proto/sglang_ask.h"
#include "proto/vllm_ask.h"
#include "trainer/wire/dialect.h"
#include "trainer/wire/listed.h"
#include "trainer/wire/said.h"
#include "trainer/wire/v1_models.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define PROTOCOL "sglang"
#define PATH "/generate"
#define MOST_TEXTS 64 /* of a request */
/* Bytes of JSON for one of the likeliest in base64 or as a triple with a text; for a triple; for what is
 * always there. */
#define LISTED_BYTES 64
#define TRIPLE_BYTES 48
#define TEXT_BYTES 2048

/* What a server answers: serves of its info. */
enum { SERVES_LISTS = 1, SERVES_CHOSEN = 2, SERVES_MANY = 4 /* models: one must be named */ };

static enum lb_status path(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                           enum lb_path which, char **out, struct lb_detail *detail) {
    (void)spec;
    return lb_v1_path(info, which, PATH, "SGLang serves no output heads",
                      "SGLang serves no tokenizer.json; name the model's folder or file with tokenizer", out,
                      detail);
}

static int64_t most(const struct lb_teacher_info *info, const struct lb_ask_spec *spec) {
    (void)info;
    (void)spec;
    return MOST_TEXTS;
}

static int64_t chosen_of(const struct lb_ask_spec *spec) {
    return lb_spec_uses(spec, LB_USES_SCORE_IDS) ? spec->n_scored : 0;
}

static uint64_t answer_bytes(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t rows,
                             int64_t n) {
    uint64_t positions = (uint64_t)(chosen_of(spec) > 0 ? n : rows) + 1;
    return TEXT_BYTES + positions * ((uint64_t)lb_listed_k(info, spec) * LISTED_BYTES +
                                     (uint64_t)(chosen_of(spec) + 1) * TRIPLE_BYTES);
}

/* ---- the question ---- */

/* n samples' texts and the fixed question, in scratch. */
static enum lb_status question_of(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                  const struct lb_sample *const *samples, int64_t n, struct lb_arena *scratch,
                                  struct lb_sglang_question *out, struct lb_detail *detail) {
    int64_t width = chosen_of(spec);
    size_t fixed = (size_t)(LB_PROBE_POSITIONS * width);
    struct lb_sglang_text *texts = lb_arena_zarray(scratch, (size_t)n + 1, sizeof *texts);
    int32_t *none = lb_arena_array(scratch, fixed + 1, sizeof *none);
    if (!texts || !none) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request of %lld sequences", (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        const struct lb_sample *sample = samples[i];
        const struct lb_extra *extra = sample->extra;
        int32_t *ids = lb_arena_array(scratch, (size_t)sample->n + 1, sizeof *ids);
        bool scores = extra && strcmp(extra->name, LB_IN_SCORE_IDS) == 0 && extra->width == width;
        if (!ids) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for a request of %lld sequences", (long long)n);
        }
        if (sample->features || (width > 0 ? !scores : extra != NULL)) {
            return lb_fail(detail, LB_E_UNSUPPORTED,
                           "model %s: this question is none that SGLang's dialect has", info->model);
        }
        memcpy(ids, sample->ids, (size_t)sample->n * sizeof *ids);
        ids[sample->n] = ids[sample->n - 1];
        texts[i] = (struct lb_sglang_text){ids, sample->n + 1, sample->first, scores ? extra->values : NULL};
    }
    for (size_t i = 0; i < fixed; i++) {
        none[i] = -1;
    }
    texts[n] = (struct lb_sglang_text){info->probe_ids, info->n_probe_ids, 0, none};
    *out = (struct lb_sglang_question){.model = info->serves & SERVES_MANY ? info->model_id : NULL,
                                       .texts = texts,
                                       .n_texts = (size_t)n + 1,
                                       .k = lb_listed_k(info, spec),
                                       .n_chosen = width};
    return LB_OK;
}

static enum lb_status build(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *const *samples, int64_t n, uint64_t timeout_us,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail) {
    struct lb_sglang_question question;
    (void)timeout_us;
    lb_asked_begin(out, samples, n);
    enum lb_status status = question_of(info, spec, samples, n, scratch, &question, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_sglang_ask(&out->body, &question);
    return lb_asked_end(out, detail);
}

/* ---- the answer ---- */

/* The log-probabilities of the fixed question's own tokens. */
static void probe_of(const struct lb_sglang_told *told, struct lb_told_probe *out) {
    out->n = (int)told->rows;
    memcpy(out->at, told->own, (size_t)told->rows * sizeof *out->at);
}

/* Row t of what is told, with the token that follows where it is not among the likeliest. */
static enum lb_status put_row(struct lb_listed *listed, const struct lb_sglang_told *told, int64_t t,
                              int32_t own, int32_t *ids, float *logprobs, struct lb_detail *detail) {
    int64_t k = listed->k, m = k;
    bool there = false;
    memcpy(ids, told->ids + t * k, (size_t)k * sizeof *ids);
    memcpy(logprobs, told->logprobs + t * k, (size_t)k * sizeof *logprobs);
    for (int64_t i = 0; i < k; i++) {
        there = there || ids[i] == own;
    }
    if (!there) {
        ids[m] = own;
        logprobs[m++] = told->own[t];
    }
    return lb_listed_put(listed, t, ids, logprobs, m, own, detail);
}

static enum lb_status split_one(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                const struct lb_sglang_text *text, struct lb_sglang_told *told,
                                struct lb_arena *scratch, struct lb_arena *arena, struct lb_answer *out,
                                struct lb_detail *detail) {
    struct lb_listed listed;
    enum lb_status status = lb_listed_begin(info, spec, told->rows, scratch, &listed, detail);
    if (status != LB_OK) {
        return status;
    }
    int64_t width = chosen_of(spec);
    int32_t *ids = lb_arena_array(scratch, (size_t)listed.k + 1, sizeof *ids);
    float *logprobs = lb_arena_array(scratch, (size_t)listed.k + 1, sizeof *logprobs);
    if (!ids || !logprobs) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer");
    }
    for (int64_t i = 0; i < told->rows * width; i++) {
        bool none = text->chosen[text->first * width + i] < 0;
        told->chosen[i] = none ? 0 : told->chosen[i]; /* as limbeckd answers to no id */
    }
    listed.first = text->first;
    listed.scored = width > 0 ? told->chosen : NULL;
    for (int64_t t = 0; status == LB_OK && t < told->rows; t++) {
        status = put_row(&listed, told, t, text->ids[text->first + t + 1], ids, logprobs, detail);
    }
    return status != LB_OK ? status : lb_listed_answer(&listed, arena, out, detail);
}

static enum lb_status split(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_asked *asked, const struct lb_sample *const *samples,
                            const struct lb_ask_reply *reply, struct lb_arena *scratch,
                            struct lb_arena *const *arenas, struct lb_answer *answers, bool *out_other,
                            struct lb_detail *detail) {
    struct lb_sglang_question question;
    struct lb_told_probe now;
    struct lb_sglang_told *told = lb_arena_zarray(scratch, (size_t)asked->n + 1, sizeof *told);
    if (!told) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer");
    }
    enum lb_status status = question_of(info, spec, samples, asked->n, scratch, &question, detail);
    if (status == LB_OK) {
        status = lb_sglang_read(reply->body, reply->len, &question, scratch, told, detail);
        status = status == LB_E_UNSUPPORTED ? LB_E_FORMAT : status;
    }
    if (status != LB_OK) {
        return status;
    }
    probe_of(&told[asked->n], &now);
    status = lb_stated_check(info, LB_PROBE_LOGPROBS, &now, detail);
    if (out_other) {
        *out_other = status == LB_E_MISMATCH;
    }
    for (int64_t i = 0; status == LB_OK && i < asked->n; i++) {
        status = split_one(info, spec, &question.texts[i], &told[i], scratch, arenas[i], &answers[i], detail);
    }
    return status;
}

/* ---- what a server is ---- */

/* A server while it is asked. */
struct asking {
    const struct lb_contact *contact;
    char where[400], version[128];
    struct lb_v1_model card;
    struct lb_stated stated;
    struct lb_arena arena;
};

/* The fixed question; chosen: with its own tokens as ids chosen for each position. *served: an answer came.
 */
static enum lb_status ask_fixed(struct asking *a, bool chosen, struct lb_sglang_told *out, bool *served,
                                struct lb_detail *why, struct lb_detail *detail) {
    const struct lb_sglang_text text = {a->stated.ids, a->stated.n_ids, 0, a->stated.ids + 1};
    const struct lb_sglang_question question = {.model = a->card.n_models > 1 ? a->card.id : NULL,
                                                .texts = &text,
                                                .n_texts = 1,
                                                .k = chosen ? 0 : 1,
                                                .n_chosen = chosen};
    struct lb_buf body;
    struct lb_call call;
    struct lb_detail said = {0};
    lb_buf_init(&body, 1 << 16);
    lb_sglang_ask(&body, &question);
    if (lb_buf_status(&body) != LB_OK) {
        lb_buf_finish(&body);
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a question to %s", a->where);
    }
    enum lb_status status = lb_contact_call(a->contact, &call, PATH, body.data, LB_SAID_BYTES, &said);
    bool answered = call.status == LB_OK && call.code >= 400 && call.code < 500 && call.code != 401 &&
                    call.code != 403 && call.code != 429;
    *served = status == LB_OK;
    if (*served) {
        status = lb_sglang_read(call.answer.data ? call.answer.data : "", call.answer.len, &question,
                                &a->arena, out, &said);
    }
    if ((!*served && answered) || status == LB_E_UNSUPPORTED) {
        *served = false;
        *why = said;
        status = LB_OK;
    } else if (status != LB_OK) {
        lb_fail(detail, status, "%s", said.text);
        lb_said_by(a->contact, detail);
    }
    lb_call_finish(&call);
    lb_buf_finish(&body);
    return status;
}

static enum lb_status ask_answers(struct asking *a, struct lb_detail *detail) {
    struct lb_sglang_told told;
    struct lb_detail why = {0};
    struct lb_told_probe by_choice;
    bool served = false;
    enum lb_status status = ask_fixed(a, false, &told, &served, &why, detail);
    if (status == LB_OK && !served) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s scores no texts (POST " PATH "): %s", a->where,
                       why.text);
    }
    if (status != LB_OK) {
        return status;
    }
    probe_of(&told, &a->stated.probe[LB_PROBE_LOGPROBS]);
    snprintf(a->version, sizeof a->version, "%s", told.version);
    a->stated.serves = SERVES_LISTS | (a->card.n_models > 1 ? SERVES_MANY : 0u);
    status = ask_fixed(a, true, &told, &served, &why, detail);
    if (status == LB_OK && served) {
        by_choice.n = (int)told.rows;
        memcpy(by_choice.at, told.chosen, (size_t)told.rows * sizeof *by_choice.at);
        bool same = lb_probe_distance(&by_choice, &a->stated.probe[LB_PROBE_LOGPROBS]) <= LB_PROBE_SLACK;
        a->stated.serves |= same ? SERVES_CHOSEN : 0u;
    }
    return status;
}

static enum lb_status read_info(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                                struct lb_detail *detail) {
    struct lb_teacher_info info;
    enum lb_status status = lb_stated_read(text, len, PROTOCOL, what, &info, detail);
    if (status != LB_OK) {
        return status;
    }
    info.knows_start = true;
    lb_listed_give(&info);
    if (info.serves & SERVES_CHOSEN) {
        info.given[info.n_given++] = (struct lb_given){.kind = LB_OUT_AT_LOGPROBS};
    }
    *out = info;
    return LB_OK;
}

/* Two tokens less than a text may have: one more is asked with each, and one is generated. */
static int64_t usable(int64_t max_length) {
    return max_length > 3 ? max_length - 2 : max_length;
}

static enum lb_status info(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                           struct lb_teacher_info *out, struct lb_detail *detail) {
    struct asking a = {.contact = contact};
    struct lb_buf body;
    size_t before = text->len;
    lb_contact_where(contact, a.where, sizeof a.where);
    enum lb_status status = lb_v1_model_ask(contact, model, &a.card, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_buf_init(&body, 4096);
    lb_arena_init(&a.arena, LB_SAID_BYTES);
    a.stated = (struct lb_stated){.protocol = PROTOCOL,
                                  .model = a.card.name,
                                  .model_id = a.card.id,
                                  .version = a.version,
                                  .max_length = usable(a.card.max_length)};
    lb_vllm_ask_tokens(&body, a.card.id, LB_PROBE_TEXT, true);
    status = lb_said_ids(contact, &body, a.stated.max_length, &a.stated, detail);
    status = status != LB_OK ? status : ask_answers(&a, detail);
    status = status != LB_OK ? status : lb_stated_write(&a.stated, text, detail);
    status =
        status != LB_OK ? status : read_info(text->data + before, text->len - before, a.where, out, detail);
    lb_arena_finish(&a.arena);
    lb_buf_finish(&body);
    return status;
}

static enum lb_status same(const struct lb_teacher_info *known, const void *text, size_t len,
                           const char *where, char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail) {
    struct lb_v1_model card = {.max_length = 0};
    enum lb_status status = lb_v1_model_again(known, text, len, where, &card, out_id, detail);
    bool same = usable(card.max_length) == known->max_length;
    return status != LB_OK || same ? status : lb_v1_model_other(known, where, detail);
}

extern const struct lb_dialect lb_dialect_sglang;
const struct lb_dialect lb_dialect_sglang = {.name = PROTOCOL,
                                             .mark = "/get_model_info",
                                             .models = lb_v1_models,
                                             .info = info,
                                             .info_read = read_info,
                                             .same = same,
                                             .path = path,
                                             .gives = lb_info_gives,
                                             .most = most,
                                             .answer_bytes = answer_bytes,
                                             .build = build,
                                             .split = split};
