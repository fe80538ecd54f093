/* The dialect llamacpp: llama.cpp's own server, which tells nothing of positions within a text. Each position
 * that counts is asked as a text of its own, all of a sequence in one request (proto/llamacpp_ask.h): the
 * server evaluates each token by itself, which costs two to three times what reading the text at once does
 * where it has few threads, and more where it has many or a GPU.
 *
 * Lists of the likeliest are all that it gives, of any length, at temperature 1; not the texts' own tokens
 * where those are not listed. A head and states it does not serve.
 *
 * Such a server has no fingerprint. Every question carries the fixed question (stated.h) as its last text:
 * the likeliest behind it show by which model an answer was made.
 */
#include "proto/llamacpp_ask.h"
#include "trainer/wire/dialect.h"
#include "trainer/wire/listed.h"
#include "trainer/wire/said.h"
#include "trainer/wire/v1_models.h"

#include <string.h>

#define PROTOCOL "llamacpp"
#define PROBE_K 8
/* Bytes of JSON for one of the likeliest with its text and that one's bytes; for what is always there. */
#define LISTED_BYTES 160
#define ROW_BYTES 512

static enum lb_status path(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                           enum lb_path which, char **out, struct lb_detail *detail) {
    (void)spec;
    return lb_v1_path(
        info, which, LB_LLAMACPP_PATH, "llama.cpp's server serves no output heads",
        "llama.cpp's server serves no tokenizer.json; name the model's .gguf file with tokenizer", out,
        detail);
}

static int64_t most(const struct lb_teacher_info *info, const struct lb_ask_spec *spec) {
    (void)info;
    (void)spec;
    return 1;
}

/* How many of the likeliest are asked for: as many as the fixed question needs at least. */
static int64_t asked_k(const struct lb_teacher_info *info, const struct lb_ask_spec *spec) {
    int64_t k = lb_listed_k(info, spec);
    return k > PROBE_K ? k : PROBE_K;
}

static uint64_t answer_bytes(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t rows,
                             int64_t n) {
    (void)n;
    return (uint64_t)(rows + 1) * (ROW_BYTES + (uint64_t)asked_k(info, spec) * LISTED_BYTES);
}

/* ---- the question ---- */

/* The sample's text and the fixed question. */
static void texts_of(const struct lb_teacher_info *info, const struct lb_sample *sample,
                     struct lb_llamacpp_texts out[2]) {
    out[0] = (struct lb_llamacpp_texts){sample->ids, sample->first, sample->n};
    out[1] = (struct lb_llamacpp_texts){info->probe_ids, info->n_probe_ids - 1, info->n_probe_ids};
}

static enum lb_status build(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *const *samples, int64_t n, uint64_t timeout_us,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail) {
    struct lb_llamacpp_texts texts[2];
    (void)timeout_us;
    (void)scratch;
    lb_asked_begin(out, samples, n);
    if (n != 1 || samples[0]->features || samples[0]->extra) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "model %s: this question is none that llama.cpp's server answers", info->model);
    }
    texts_of(info, samples[0], texts);
    lb_llamacpp_ask(&out->body, texts, 2, asked_k(info, spec), info->probe_ids[info->n_probe_ids - 1]);
    return lb_asked_end(out, detail);
}

/* ---- the answer ---- */

/* The likeliest behind the fixed question, of which k are told. */
static void probe_of(const struct lb_llamacpp_told *told, struct lb_told_probe *out) {
    out->n = PROBE_K;
    memcpy(out->at, told->logprobs, PROBE_K * sizeof *out->at);
}

static enum lb_status split(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_asked *asked, const struct lb_sample *const *samples,
                            const struct lb_ask_reply *reply, struct lb_arena *scratch,
                            struct lb_arena *const *arenas, struct lb_answer *answers, bool *out_other,
                            struct lb_detail *detail) {
    struct lb_llamacpp_texts texts[2];
    struct lb_llamacpp_told told[2];
    struct lb_told_probe now;
    struct lb_listed listed;
    int64_t k = asked_k(info, spec);
    (void)asked;
    texts_of(info, samples[0], texts);
    enum lb_status status = lb_llamacpp_read(reply->body, reply->len, texts, 2, k, scratch, told, detail);
    if (status != LB_OK) {
        return status;
    }
    probe_of(&told[1], &now);
    status = lb_stated_check(info, LB_PROBE_LOGPROBS, &now, detail);
    if (out_other) {
        *out_other = status == LB_E_MISMATCH;
    }
    status = status != LB_OK ? status : lb_listed_begin(info, spec, told[0].rows, scratch, &listed, detail);
    if (status == LB_OK) {
        listed.first = samples[0]->first;
    }
    for (int64_t t = 0; status == LB_OK && t < told[0].rows; t++) {
        status =
            lb_listed_put(&listed, t, told[0].ids + t * k, told[0].logprobs + t * k, listed.k, -1, detail);
    }
    return status != LB_OK ? status : lb_listed_answer(&listed, arenas[0], &answers[0], detail);
}

/* ---- what a server is ---- */

static enum lb_status read_info(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                                struct lb_detail *detail) {
    static const enum lb_output_kind kinds[] = {LB_OUT_TOPK_IDS, LB_OUT_TOPK_VALUES, LB_OUT_TOPK_LOGPROBS,
                                                LB_OUT_REST};
    struct lb_teacher_info info;
    enum lb_status status = lb_stated_read(text, len, PROTOCOL, what, &info, detail);
    if (status != LB_OK) {
        return status;
    }
    if (info.n_probe_ids < 1) {
        return lb_fail(detail, LB_E_FORMAT, "%s: ids has none", what);
    }
    info.knows_start = true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        info.given[info.n_given++] = (struct lb_given){.kind = (uint16_t)kinds[i]};
    }
    *out = info;
    return LB_OK;
}

static enum lb_status ask_fixed(const struct lb_contact *contact, struct lb_stated *stated,
                                struct lb_detail *detail) {
    const struct lb_llamacpp_texts text = {stated->ids, stated->n_ids - 1, stated->n_ids};
    struct lb_llamacpp_told told;
    struct lb_arena arena;
    struct lb_buf body;
    struct lb_call call;
    lb_buf_init(&body, 1 << 16);
    lb_llamacpp_ask(&body, &text, 1, PROBE_K, stated->ids[stated->n_ids - 1]);
    if (lb_buf_status(&body) != LB_OK) {
        lb_buf_finish(&body);
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for a question", contact->name);
    }
    lb_arena_init(&arena, LB_SAID_BYTES);
    enum lb_status status =
        lb_contact_call(contact, &call, LB_LLAMACPP_PATH, body.data, LB_SAID_BYTES, detail);
    if (status == LB_OK) {
        status = lb_llamacpp_read(call.answer.data ? call.answer.data : "", call.answer.len, &text, 1,
                                  PROBE_K, &arena, &told, detail);
    }
    if (status == LB_OK) {
        probe_of(&told, &stated->probe[LB_PROBE_LOGPROBS]);
    } else {
        lb_said_by(contact, detail);
    }
    lb_call_finish(&call);
    lb_arena_finish(&arena);
    lb_buf_finish(&body);
    return status;
}

/* Its build, and its chat template, where it tells them. */
static enum lb_status ask_words(const struct lb_contact *contact, struct lb_stated *stated, json_t **props,
                                struct lb_detail *detail) {
    enum lb_status status = lb_said_json(contact, "/props", NULL, props, detail);
    const char *build = json_string_value(json_object_get(*props, "build_info"));
    stated->version = build ? build : "";
    stated->chat_template = json_string_value(json_object_get(*props, "chat_template"));
    return status;
}

static enum lb_status info(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                           struct lb_teacher_info *out, struct lb_detail *detail) {
    char where[400];
    struct lb_v1_model card;
    json_t *props = NULL;
    size_t before = text->len;
    lb_contact_where(contact, where, sizeof where);
    enum lb_status status = lb_v1_model_ask(contact, model, &card, detail);
    if (status != LB_OK) {
        return status;
    }
    if (card.vocab_size < PROBE_K || card.max_length < 2) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s does not tell its vocabulary and context (n_vocab, n_ctx); is it llama.cpp's "
                       "server? llama-cpp-python's is another protocol",
                       where);
    }
    struct lb_stated stated = {.protocol = PROTOCOL,
                               .model = card.name,
                               .version = "",
                               .max_length = card.max_length - 1, /* a token is written behind each text */
                               .vocab_size = card.vocab_size,
                               .serves = 1};
    struct lb_buf body;
    lb_buf_init(&body, 4096);
    lb_buf_append_str(&body, "{\"content\":\"" LB_PROBE_TEXT "\",\"add_special\":true}");
    status = ask_words(contact, &stated, &props, detail);
    status = status != LB_OK ? status : lb_said_ids(contact, &body, stated.max_length, &stated, detail);
    status = status != LB_OK ? status : ask_fixed(contact, &stated, detail);
    status = status != LB_OK ? status : lb_stated_write(&stated, text, detail);
    status =
        status != LB_OK ? status : read_info(text->data + before, text->len - before, where, out, detail);
    json_decref(props);
    lb_buf_finish(&body);
    return status;
}

static enum lb_status same(const struct lb_teacher_info *known, const void *text, size_t len,
                           const char *where, char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail) {
    struct lb_v1_model card = {.max_length = 0};
    enum lb_status status = lb_v1_model_again(known, text, len, where, &card, out_id, detail);
    bool same = card.max_length - 1 == known->max_length && card.vocab_size == known->vocab_size;
    return status != LB_OK || same ? status : lb_v1_model_other(known, where, detail);
}

extern const struct lb_dialect lb_dialect_llamacpp;
const struct lb_dialect lb_dialect_llamacpp = {.name = PROTOCOL,
                                               .mark = "/props",
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
