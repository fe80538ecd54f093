/* The dialect openai: servers of OpenAI's kind that take prompts of ids and echo them with log-probabilities
 * (/v1/completions with echo and logprobs; several texts a request).
 *
 * A stock answer names tokens by their texts, which several tokens share: then each text's own tokens are
 * learnt from (alm), and lists are not. Where the server names ids (return_tokens_as_token_ids: vLLM,
 * limbeckd), lists are. Log-probabilities are taken to be at temperature 1, at which they are asked.
 *
 * llama-cpp-python's server is none of these: it takes texts only, has no entry for the first token behind
 * BOS, and of models without BOS its entries are about the token before.
 *
 * Such a server has no fingerprint: the fixed question (stated.h) travels with every request as its last
 * text.
 */
#include "proto/openai_ask.h"

#include "trainer/wire/dialect.h"
#include "trainer/wire/listed.h"
#include "trainer/wire/stated.h"
#include "trainer/wire/v1_models.h"
#include "trainer/wire/vllm.h"

#define PATH "/v1/completions"
#define MOST_PROMPTS 64
#define MOST_TOP_K 5 /* what OpenAI's own servers list */
/* Bytes of JSON for one id with its log-probability, and for what else is told of a token. */
#define ENTRY_BYTES 48
#define TOKEN_BYTES 160
#define CHOICE_BYTES 1024
#define MAX_ANSWER ((size_t)16 << 20)

enum { SERVES_OWN = 1, SERVES_LISTS = 2 };

/* ---- who it is ---- */

static enum lb_status info_read(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                                struct lb_detail *detail) {
    struct lb_teacher_info info;
    enum lb_status status = lb_stated_read(text, len, "openai", what, &info, detail);
    if (status != LB_OK) {
        return status;
    }
    info.most_top_k = MOST_TOP_K;
    if (info.serves & SERVES_LISTS) {
        lb_listed_give(&info);
    } else {
        info.given[info.n_given++] = (struct lb_given){.kind = LB_OUT_ACTUAL};
        info.given[info.n_given++] = (struct lb_given){.kind = LB_OUT_NEXT};
    }
    *out = info;
    return LB_OK;
}

/* Asks the fixed question. */
static enum lb_status ask_scores(const struct lb_contact *contact, struct lb_stated *stated,
                                 struct lb_detail *detail) {
    struct lb_vllm_prompt prompt = {.ids = stated->ids, .n = stated->n_ids};
    const struct lb_vllm_prompts prompts = {.key = "prompt", .n = 1, .all = &prompt};
    struct lb_vllm_scores scores;
    struct lb_arena arena;
    struct lb_buf body;
    struct lb_call call;
    bool named = false;
    lb_buf_init(&body, 1 << 16);
    lb_openai_ask_scores(&body, stated->model_id, &prompts, 0);
    if (lb_buf_status(&body) != LB_OK) {
        lb_buf_finish(&body);
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a question");
    }
    lb_arena_init(&arena, MAX_ANSWER);
    enum lb_status status = lb_contact_call(contact, &call, PATH, body.data, MAX_ANSWER, detail);
    if (status == LB_OK) {
        status = lb_openai_scores_read(call.answer.data ? call.answer.data : "", call.answer.len, &prompts,
                                       false, &arena, &scores, &named, detail);
        if (status != LB_OK) {
            char where[400];
            lb_contact_where(contact, where, sizeof where);
            lb_detail_prefix(detail, "%s", where);
        }
    } else if (status == LB_E_ARG || call.code == 422) {
        lb_detail_prefix(detail, "prompts of ids with echo and logprobs are needed");
    }
    if (status == LB_OK) {
        scores.n--; /* nothing is told of the last place */
        status = lb_vllm_probe_scores(&scores, stated->ids, &stated->probe[LB_PROBE_LOGPROBS], detail);
        stated->serves = SERVES_OWN | (named ? SERVES_LISTS : 0);
    }
    lb_call_finish(&call);
    lb_buf_finish(&body);
    lb_arena_finish(&arena);
    return status;
}

static enum lb_status info(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                           struct lb_teacher_info *out, struct lb_detail *detail) {
    struct lb_stated stated = {.protocol = "openai", .version = ""};
    struct lb_v1_model card;
    char where[400];
    size_t before = text->len;
    lb_contact_where(contact, where, sizeof where);
    lb_stated_plain_ids(&stated);
    enum lb_status status = lb_v1_model_ask(contact, model, &card, detail);
    if (status == LB_OK) {
        stated.model = card.name;
        stated.model_id = card.id;
        stated.max_length = card.max_length > 1 ? card.max_length - 1 : 0; /* one token is generated */
        if (stated.max_length > 1 && stated.n_ids > stated.max_length) {
            stated.n_ids = (int)stated.max_length;
        }
        status = ask_scores(contact, &stated, detail);
    }
    status = status != LB_OK ? status : lb_stated_write(&stated, text, detail);
    return status != LB_OK ? status : info_read(text->data + before, text->len - before, where, out, detail);
}

static enum lb_status same(const struct lb_teacher_info *known, const void *text, size_t len,
                           const char *where, char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail) {
    struct lb_v1_model card = {.max_length = 0};
    enum lb_status status = lb_v1_model_again(known, text, len, where, &card, out_id, detail);
    bool same = (card.max_length > 1 ? card.max_length - 1 : 0) == known->max_length;
    return status != LB_OK || same ? status : lb_v1_model_other(known, where, detail);
}

/* ---- questions ---- */

#define SERVES_NO "servers of protocol: openai serve no "
#define NAME_FILE "; name the model's folder or file with the teacher's "

static enum lb_status path(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                           enum lb_path which, char **out, struct lb_detail *detail) {
    (void)spec;
    return lb_v1_path(info, which, PATH, SERVES_NO "output heads" NAME_FILE "head",
                      SERVES_NO "tokenizer.json" NAME_FILE "tokenizer", out, detail);
}

static int64_t most(const struct lb_teacher_info *info, const struct lb_ask_spec *spec) {
    (void)info;
    (void)spec;
    return MOST_PROMPTS;
}

static uint64_t answer_bytes(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t rows,
                             int64_t n) {
    (void)rows; /* all come */
    return CHOICE_BYTES +
           (uint64_t)(n + 1) * ((uint64_t)(lb_listed_k(info, spec) + 1) * ENTRY_BYTES + TOKEN_BYTES);
}

/* The texts as they are asked, the fixed question last. */
static enum lb_status prompts_of(const struct lb_teacher_info *info, const struct lb_sample *const *samples,
                                 int64_t n, struct lb_arena *scratch, struct lb_vllm_prompts *out,
                                 struct lb_detail *detail) {
    struct lb_vllm_prompts prompts = {.key = "prompt", .n = (size_t)n + 1};
    prompts.all = lb_arena_zarray(scratch, prompts.n, sizeof *prompts.all);
    if (!prompts.all) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request of %lld sequences", (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        prompts.all[i] = (struct lb_vllm_prompt){.ids = samples[i]->ids, .n = samples[i]->n};
    }
    prompts.all[n] = (struct lb_vllm_prompt){.ids = info->probe_ids, .n = info->n_probe_ids};
    *out = prompts;
    return LB_OK;
}

static enum lb_status build(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *const *samples, int64_t n, uint64_t timeout_us,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail) {
    struct lb_vllm_prompts prompts;
    (void)timeout_us;
    lb_asked_begin(out, samples, n);
    for (int64_t i = 0; i < n; i++) {
        if (samples[i]->features || samples[i]->extra) {
            return lb_fail(detail, LB_E_UNSUPPORTED,
                           "model %s: this question is none that OpenAI's completions have", info->model);
        }
    }
    enum lb_status status = prompts_of(info, samples, n, scratch, &prompts, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_openai_ask_scores(&out->body, info->model_id, &prompts, lb_listed_k(info, spec));
    return lb_asked_end(out, detail);
}

/* ---- answers ---- */

static enum lb_status split_one(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                const struct lb_sample *sample, const struct lb_vllm_scores *scores,
                                struct lb_arena *scratch, struct lb_arena *arena, struct lb_answer *out,
                                struct lb_detail *detail) {
    struct lb_listed listed;
    enum lb_status status = lb_listed_begin(info, spec, sample->n, scratch, &listed, detail);
    for (int64_t t = 0; status == LB_OK && t < sample->n; t++) {
        const struct lb_vllm_place *place = &scores->places[t];
        int32_t own = t + 1 < sample->n ? sample->ids[t + 1] : -1; /* in the last: what was generated */
        status = lb_listed_put(&listed, t, place->ids, place->logprobs, place->n, own, detail);
    }
    return status != LB_OK ? status : lb_listed_answer(&listed, arena, out, detail);
}

static enum lb_status split(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_asked *asked, const struct lb_sample *const *samples,
                            const struct lb_ask_reply *reply, struct lb_arena *scratch,
                            struct lb_arena *const *arenas, struct lb_answer *answers, bool *out_other,
                            struct lb_detail *detail) {
    struct lb_vllm_prompts prompts;
    struct lb_told_probe told = {.n = 0};
    struct lb_vllm_scores *scores = lb_arena_zarray(scratch, (size_t)asked->n + 1, sizeof *scores);
    enum lb_status status = scores ? prompts_of(info, samples, asked->n, scratch, &prompts, detail)
                                   : lb_fail(detail, LB_E_NOMEM, "out of memory for an answer");
    bool lists = lb_listed_k(info, spec) > 0, other = false;
    if (status == LB_OK) {
        status =
            lb_openai_scores_read(reply->body, reply->len, &prompts, lists, scratch, scores, NULL, detail);
    }
    if (status == LB_OK) {
        struct lb_vllm_scores fixed = scores[asked->n];
        fixed.n--; /* what is generated there is its own affair */
        status = lb_vllm_probe_scores(&fixed, info->probe_ids, &told, detail);
    }
    if (status == LB_OK) {
        status = lb_stated_check(info, LB_PROBE_LOGPROBS, &told, detail);
        other = status == LB_E_MISMATCH;
    }
    for (int64_t i = 0; status == LB_OK && i < asked->n; i++) {
        status = split_one(info, spec, samples[i], &scores[i], scratch, arenas[i], &answers[i], detail);
    }
    if (out_other) {
        *out_other = other;
    }
    return status;
}

extern const struct lb_dialect lb_dialect_openai;
const struct lb_dialect lb_dialect_openai = {.name = "openai",
                                             .mark = LB_V1_MODELS,
                                             .models = lb_v1_models,
                                             .info = info,
                                             .info_read = info_read,
                                             .same = same,
                                             .tokenize = lb_vllm_tokenize,
                                             .path = path,
                                             .gives = lb_info_gives,
                                             .most = most,
                                             .answer_bytes = answer_bytes,
                                             .build = build,
                                             .split = split};
