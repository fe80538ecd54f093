/* What a server of vLLM's dialect is: what it says of itself, and what it answers to a fixed question at each
 * of its endpoints, of which one server has some. */
#include "common/base/mem.h"
#include "proto/vllm_ask.h"
#include "trainer/wire/listed.h"
#include "trainer/wire/said.h"
#include "trainer/wire/v1_models.h"
#include "trainer/wire/vllm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MORE_THAN_ANY 1000000000 /* ids of a place */

/* A server while it is asked. */
struct asking {
    const struct lb_contact *contact;
    char where[400], version[64];
    struct lb_v1_model card;
    struct lb_stated stated;
    json_t *config; /* of its tokenizer; NULL: not told */
    struct lb_arena arena;
    struct lb_detail why; /* why the last endpoint gives nothing */
};

/* ---- what it says ---- */

static enum lb_status ask_card(struct asking *a, const char *wanted, struct lb_detail *detail) {
    enum lb_status status = lb_v1_model_ask(a->contact, wanted, &a->card, detail);
    if (status == LB_OK) {
        a->stated.max_length = a->card.max_length;
    }
    return status;
}

/* What is told by who wants to: the version, the chat template. */
static enum lb_status ask_words(struct asking *a, struct lb_detail *detail) {
    json_t *version = NULL;
    enum lb_status status = lb_said_json(a->contact, "/version", NULL, &version, detail);
    const char *text = json_string_value(json_object_get(version, "version"));
    snprintf(a->version, sizeof a->version, "%s", text ? text : "");
    json_decref(version);
    if (status == LB_OK) {
        status = lb_said_json(a->contact, "/tokenizer_info", NULL, &a->config, detail);
    }
    a->stated.chat_template = json_string_value(json_object_get(a->config, "chat_template"));
    return status;
}

enum lb_status lb_vllm_tokenize(const struct lb_contact *contact, const struct lb_teacher_info *info,
                                const char *text, struct lb_ids *out, struct lb_detail *detail) {
    struct lb_buf body;
    bool served = false;
    lb_buf_init(&body, 1 << 16);
    lb_vllm_ask_tokens(&body, info->model_id, text, false);
    enum lb_status status = lb_said_tokens(contact, &body, out, &served, detail);
    if (status == LB_OK && !served) {
        char where[400];
        lb_contact_where(contact, where, sizeof where);
        status = lb_fail(detail, LB_E_UNSUPPORTED, "%s has no POST /tokenize", where);
    }
    lb_buf_finish(&body);
    return status;
}

/* The fixed question's ids, by the server's own tokenizer where it runs one. */
static enum lb_status ask_ids(struct asking *a, struct lb_detail *detail) {
    int64_t most = a->stated.max_length > 0 ? a->stated.max_length - 2 : LB_PROBE_POSITIONS;
    struct lb_buf body;
    lb_buf_init(&body, 1 << 16);
    lb_vllm_ask_tokens(&body, a->card.id, LB_PROBE_TEXT, true);
    enum lb_status status = most < 2 ? LB_OK : lb_said_ids(a->contact, &body, most, &a->stated, detail);
    if (status == LB_OK && a->stated.n_ids < 2) {
        status = lb_fail(detail, LB_E_UNSUPPORTED, "%s reads %lld tokens, which is no text", a->where,
                         (long long)a->stated.max_length);
    }
    lb_buf_finish(&body);
    return status;
}

/* ---- what it answers ---- */

enum lb_status lb_vllm_probe_scores(const struct lb_vllm_scores *scores, const int32_t *ids,
                                    struct lb_told_probe *out, struct lb_detail *detail) {
    struct lb_told_probe told = {.n = (int)scores->n};
    for (int t = 0; t < told.n; t++) {
        const struct lb_vllm_place *place = &scores->places[t];
        int64_t at = 0;
        while (at < place->n && place->ids[at] != ids[t + 1]) {
            at++;
        }
        if (at == place->n || !isfinite(place->logprobs[at])) {
            return lb_fail(
                detail, LB_E_FORMAT,
                "the answer tells nothing of token %d of the fixed question, id %ld; are its entries "
                "about other positions?",
                t + 1, (long)ids[t + 1]);
        }
        told.at[t] = place->logprobs[at];
    }
    *out = told;
    return LB_OK;
}

static enum lb_status ask_scores(struct asking *a, const struct lb_vllm_prompts *prompts,
                                 struct lb_detail *detail) {
    struct lb_buf body;
    struct lb_call call;
    struct lb_vllm_scores scores;
    bool served = false;
    lb_buf_init(&body, 1 << 16);
    lb_vllm_ask_scores(&body, a->card.id, prompts, 0);
    enum lb_status status =
        lb_said_call(a->contact, "/v1/completions", &body, &call, &served, &a->why, detail);
    if (status == LB_OK && served) {
        status = lb_vllm_scores_read(call.answer.data ? call.answer.data : "", call.answer.len, prompts,
                                     &a->arena, &scores, &a->stated.system, detail);
        status = status != LB_OK ? status
                                 : lb_vllm_probe_scores(&scores, a->stated.ids,
                                                        &a->stated.probe[LB_PROBE_LOGPROBS], detail);
        a->stated.serves |= LB_VLLM_SERVES_SCORES;
    }
    lb_call_finish(&call);
    lb_buf_finish(&body);
    return status;
}

static enum lb_status ask_states(struct asking *a, const struct lb_vllm_prompts *prompts,
                                 struct lb_detail *detail) {
    struct lb_buf body;
    struct lb_call call;
    const void *rows = NULL;
    bool served = false;
    lb_buf_init(&body, 1 << 16);
    lb_vllm_ask_states(&body, a->card.id, prompts, LB_DT_FP32);
    enum lb_status status = lb_said_call(a->contact, "/pooling", &body, &call, &served, &a->why, detail);
    if (status == LB_OK && served) {
        status = lb_vllm_states_read(call.answer.data, call.answer.len, call.metadata, prompts, LB_DT_FP32, 0,
                                     &rows, &a->stated.hidden_size, detail);
    }
    if (status == LB_OK && served) {
        lb_stated_states(rows, LB_DT_FP32, prompts->all[0].n, a->stated.hidden_size,
                         &a->stated.probe[LB_PROBE_STATES]);
        a->stated.serves |= LB_VLLM_SERVES_STATES;
    }
    lb_call_finish(&call);
    lb_buf_finish(&body);
    return status;
}

/* How many ids it lists at most, which is told to who asks for more. */
static enum lb_status ask_most(struct asking *a, const struct lb_vllm_prompts *prompts,
                               struct lb_detail *detail) {
    struct lb_buf body;
    struct lb_call call;
    bool served = false;
    if (!(a->stated.serves & LB_VLLM_SERVES_SCORES)) {
        return LB_OK;
    }
    lb_buf_init(&body, 1 << 16);
    lb_vllm_ask_scores(&body, a->card.id, prompts, MORE_THAN_ANY);
    enum lb_status status =
        lb_said_call(a->contact, "/v1/completions", &body, &call, &served, &a->why, detail);
    if (status == LB_OK && !served && call.answer.data) {
        a->stated.most_top_k = lb_vllm_most_read(call.answer.data, call.answer.len);
    }
    lb_call_finish(&call);
    lb_buf_finish(&body);
    return status;
}

/* Chosen ids, where both ways to the tokens' own log-probabilities agree. */
static enum lb_status ask_gather(struct asking *a, const struct lb_vllm_prompts *prompts,
                                 struct lb_detail *detail) {
    struct lb_buf body;
    struct lb_call call;
    struct lb_told_probe told = {.n = a->stated.n_ids - 1};
    struct lb_detail why = {0};
    bool served = false;
    if (!(a->stated.serves & LB_VLLM_SERVES_SCORES)) {
        return LB_OK;
    }
    lb_buf_init(&body, 1 << 16);
    lb_vllm_ask_gather(&body, a->card.id, &prompts->all[0], a->stated.ids + 1, 1);
    enum lb_status status =
        lb_said_call(a->contact, "/inference/v1/generate", &body, &call, &served, &a->why, &why);
    if (status == LB_E_DENIED) { /* vLLM's 403 where it runs without --enable-scale-out: the token was good */
        status = LB_OK;
    } else if (status != LB_OK) {
        lb_fail(detail, status, "%s", why.text);
    }
    why = (struct lb_detail){0};
    if (status == LB_OK && served &&
        lb_vllm_gather_read(call.answer.data ? call.answer.data : "", call.answer.len, told.n, 1, told.at,
                            &why) == LB_OK &&
        lb_probe_distance(&told, &a->stated.probe[LB_PROBE_LOGPROBS]) <= LB_PROBE_SLACK) {
        a->stated.serves |= LB_VLLM_SERVES_GATHER;
    }
    lb_call_finish(&call);
    lb_buf_finish(&body);
    return status;
}

static enum lb_status ask_answers(struct asking *a, struct lb_detail *detail) {
    struct lb_vllm_prompt prompt = {.ids = a->stated.ids, .n = a->stated.n_ids};
    const struct lb_vllm_prompts prompts = {.key = "prompt", .n = 1, .all = &prompt};
    enum lb_status status = ask_scores(a, &prompts, detail);
    status = status != LB_OK ? status : ask_most(a, &prompts, detail);
    status = status != LB_OK ? status : ask_states(a, &prompts, detail);
    status = status != LB_OK ? status : ask_gather(a, &prompts, detail);
    if (status == LB_OK && a->stated.serves == 0) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s scores no prompts (/v1/completions with prompt_logprobs) and gives no states "
                       "(/pooling): %s",
                       a->where, a->why.text);
    }
    if (status == LB_OK && a->stated.max_length > 2 && (a->stated.serves & LB_VLLM_SERVES_SCORES)) {
        a->stated.max_length -= 2; /* one more token is asked with each text, and one is generated */
    }
    return status;
}

/* ---- together ---- */

enum lb_status lb_vllm_info(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                            struct lb_teacher_info *out, struct lb_detail *detail) {
    struct asking a = {.contact = contact};
    size_t before = text->len;
    a.stated = (struct lb_stated){
        .protocol = "vllm", .model = a.card.name, .model_id = a.card.id, .version = a.version};
    lb_contact_where(contact, a.where, sizeof a.where);
    lb_arena_init(&a.arena, LB_SAID_BYTES);
    enum lb_status status = ask_card(&a, model, detail);
    status = status != LB_OK ? status : ask_words(&a, detail);
    status = status != LB_OK ? status : ask_ids(&a, detail);
    if (status == LB_OK && (status = ask_answers(&a, detail)) != LB_OK) {
        lb_said_by(contact, detail);
    }
    status = status != LB_OK ? status : lb_stated_write(&a.stated, text, detail);
    status = status != LB_OK
                 ? status
                 : lb_vllm_info_read(text->data + before, text->len - before, a.where, out, detail);
    lb_arena_finish(&a.arena);
    json_decref(a.config);
    return status;
}

enum lb_status lb_vllm_info_read(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                                 struct lb_detail *detail) {
    struct lb_teacher_info info;
    enum lb_status status = lb_stated_read(text, len, "vllm", what, &info, detail);
    if (status != LB_OK) {
        return status;
    }
    if (info.serves & LB_VLLM_SERVES_SCORES) {
        info.most_top_k = info.tells_most ? info.most_top_k : LB_VLLM_MOST_TOP_K;
        lb_listed_give(&info);
    }
    if (info.serves & LB_VLLM_SERVES_GATHER) {
        info.given[info.n_given++] = (struct lb_given){.kind = LB_OUT_AT_LOGPROBS};
    }
    if (info.serves & LB_VLLM_SERVES_STATES) {
        info.given[info.n_given++] =
            (struct lb_given){.kind = LB_OUT_HIDDEN_FINAL,
                              .width = (int32_t)(info.hidden_size < INT32_MAX ? info.hidden_size : 0)};
    }
    *out = info;
    return LB_OK;
}

enum lb_status lb_vllm_same(const struct lb_teacher_info *known, const void *text, size_t len,
                            const char *where, char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail) {
    struct lb_v1_model card = {.max_length = 0};
    enum lb_status status = lb_v1_model_again(known, text, len, where, &card, out_id, detail);
    int64_t taken = card.max_length > 2 && (known->serves & LB_VLLM_SERVES_SCORES) ? 2 : 0;
    bool same = card.max_length - taken == known->max_length;
    return status != LB_OK || same ? status : lb_v1_model_other(known, where, detail);
}
