/* The dialect vllm: servers that speak vLLM's, for all that a stock vLLM gives.
 *
 * Lists (top-k, the tokens' own log-probabilities): /v1/completions with prompt_logprobs, several texts a
 * request. Chosen ids: /inference/v1/generate, one text a request. Final states, and with a head that the
 * recipe names exact distributions over the whole vocabulary: /pooling. A question is of one of these three.
 *
 * Their entry i is about token i, our row t about token t + 1: row t is their entry t + 1, and so that the
 * last row has one as well each text is asked with one more token, its last one again, which no row before it
 * sees. Temperatures are not theirs (they never apply one to a prompt's log-probabilities): lists are at 1.
 *
 * Such a server has no fingerprint and no digests. Every question of lists and states carries the fixed
 * question (stated.h) as its last text, so that each answer shows by which model it was made.
 */
#include "trainer/wire/vllm.h"

#include "proto/vllm_ask.h"
#include "trainer/wire/listed.h"
#include "trainer/wire/stated.h"
#include "trainer/wire/v1_models.h"

#include <string.h>

#define MOST_PROMPTS 64 /* of a request: well within the header metadata, and what servers take */
/* Bytes of JSON for one id with its log-probability, rank and text. */
#define ENTRY_BYTES 160
#define CHOICE_BYTES 1024

enum lane { LANE_LISTS, LANE_GATHER, LANE_STATES };

static enum lane lane_of(const struct lb_ask_spec *spec) {
    enum lb_output_kind kind = spec->outputs[0].kind;
    return kind == LB_OUT_HIDDEN_FINAL ? LANE_STATES : kind == LB_OUT_AT_LOGPROBS ? LANE_GATHER : LANE_LISTS;
}

static enum lb_status path(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                           enum lb_path which, char **out, struct lb_detail *detail) {
    static const char *const asked[] = {[LANE_LISTS] = "/v1/completions",
                                        [LANE_GATHER] = "/inference/v1/generate",
                                        [LANE_STATES] = "/pooling"};
    return lb_v1_path(info, which, which == LB_PATH_ASK ? asked[lane_of(spec)] : NULL,
                      "vLLM serves no output heads; name the model's folder or file with head",
                      "vLLM serves no tokenizer.json; name the model's folder or file with tokenizer", out,
                      detail);
}

static enum lb_status gives(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const char *name, struct lb_detail *detail) {
    for (size_t j = 1; j < spec->n_outputs; j++) {
        struct lb_ask_spec one = {.n_outputs = 1, .outputs[0] = spec->outputs[j]};
        if (lb_info_given(info, spec->outputs[j].kind, spec->outputs[j].layer) &&
            (lane_of(&one) != lane_of(spec) || lane_of(spec) != LANE_LISTS)) {
            char first[LB_MAX_NAME], other[LB_MAX_NAME];
            lb_output_format(spec->outputs[0].kind, spec->outputs[0].layer, first);
            lb_output_format(spec->outputs[j].kind, spec->outputs[j].layer, other);
            return lb_fail(
                detail, LB_E_ARG,
                "teacher %s: vLLM gives %s and %s by different endpoints, and this run needs both of "
                "each text; leave out the loss, mixture or setting that needs one of them",
                name, first, other);
        }
    }
    return lb_info_gives(info, spec, name, detail);
}

static int64_t most(const struct lb_teacher_info *info, const struct lb_ask_spec *spec) {
    (void)info;
    return lane_of(spec) == LANE_GATHER ? 1 : MOST_PROMPTS;
}

static uint64_t answer_bytes(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t rows,
                             int64_t n) {
    uint64_t positions = (uint64_t)n + 1; /* all of them come, whatever rows are wanted */
    switch (lane_of(spec)) {
    case LANE_LISTS:
        return CHOICE_BYTES + positions * (uint64_t)(lb_listed_k(info, spec) + 1) * ENTRY_BYTES;
    case LANE_GATHER:
        return CHOICE_BYTES + positions * (uint64_t)spec->n_scored * 8;
    default:
        return lb_ask_answer_bytes(info, spec, rows, n);
    }
}

/* ---- the question ---- */

/* The texts as they are asked, the fixed question last where the lane has room for it. */
static enum lb_status prompts_of(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                 const struct lb_sample *const *samples, int64_t n, struct lb_arena *scratch,
                                 struct lb_vllm_prompts *out, struct lb_detail *detail) {
    enum lane lane = lane_of(spec);
    bool more = lane != LANE_STATES;
    struct lb_vllm_prompts prompts = {.key = "prompt", .n = (size_t)n + (lane != LANE_GATHER)};
    struct lb_vllm_prompt *all = lb_arena_zarray(scratch, prompts.n, sizeof *all);
    bool enough = all != NULL;
    for (int64_t i = 0; enough && i < n; i++) {
        int64_t length = samples[i]->n;
        int32_t *ids = lb_arena_array(scratch, (size_t)length + 1, sizeof *ids);
        enough = ids != NULL;
        if (enough) {
            memcpy(ids, samples[i]->ids, (size_t)length * sizeof *ids);
            ids[length] = ids[length - 1];
            all[i] = (struct lb_vllm_prompt){.ids = ids, .n = length + more};
        }
    }
    if (!enough) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request of %lld sequences", (long long)n);
    }
    if (lane != LANE_GATHER) {
        all[n] = (struct lb_vllm_prompt){.ids = info->probe_ids, .n = info->n_probe_ids};
    }
    prompts.all = all;
    *out = prompts;
    return LB_OK;
}

static enum lb_status build(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *const *samples, int64_t n, uint64_t timeout_us,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail) {
    struct lb_vllm_prompts prompts;
    enum lane lane = lane_of(spec);
    (void)timeout_us;
    lb_asked_begin(out, samples, n);
    for (int64_t i = 0; i < n; i++) {
        const struct lb_extra *extra = samples[i]->extra;
        bool scores = extra && strcmp(extra->name, LB_IN_SCORE_IDS) == 0 && extra->width == spec->n_scored;
        if (samples[i]->features || (lane == LANE_GATHER ? !scores || n != 1 : extra != NULL)) {
            return lb_fail(detail, LB_E_UNSUPPORTED,
                           "model %s: this question is none that vLLM's dialect has", info->model);
        }
    }
    enum lb_status status = prompts_of(info, spec, samples, n, scratch, &prompts, detail);
    if (status != LB_OK) {
        return status;
    }
    if (lane == LANE_LISTS) {
        lb_vllm_ask_scores(&out->body, info->model_id, &prompts, lb_listed_k(info, spec));
    } else if (lane == LANE_STATES) {
        lb_vllm_ask_states(&out->body, info->model_id, &prompts, lb_spec_datatype(spec, 0));
    } else {
        lb_vllm_ask_gather(&out->body, info->model_id, &prompts.all[0], samples[0]->extra->values,
                           spec->n_scored);
    }
    return lb_asked_end(out, detail);
}

/* ---- the answer ---- */

/* What the run asked, and where its answers go. */
struct splitting {
    const struct lb_teacher_info *info;
    const struct lb_ask_spec *spec;
    const struct lb_sample *const *samples;
    int64_t n;
    const struct lb_vllm_prompts *prompts;
    const struct lb_ask_reply *reply;
    struct lb_arena *scratch, *const *arenas;
    struct lb_answer *answers;
    bool other; /* another model answered */
};

static enum lb_status split_one_list(const struct splitting *s, int64_t i,
                                     const struct lb_vllm_scores *scores, struct lb_detail *detail) {
    const struct lb_vllm_prompt *prompt = &s->prompts->all[i];
    struct lb_listed listed;
    enum lb_status status = lb_listed_begin(s->info, s->spec, s->samples[i]->n, s->scratch, &listed, detail);
    for (int64_t t = 0; status == LB_OK && t < listed.n; t++) {
        const struct lb_vllm_place *place = &scores->places[t];
        status = lb_listed_put(&listed, t, place->ids, place->logprobs, place->n, prompt->ids[t + 1], detail);
    }
    return status != LB_OK ? status : lb_listed_answer(&listed, s->arenas[i], &s->answers[i], detail);
}

/* vLLM names in each answer how it computes: another dtype, other kernels. */
static enum lb_status check_system(struct splitting *s, const char *system, struct lb_detail *detail) {
    char kernels[LB_KERNELS_TEXT], compute[LB_SHA256_HEX];
    lb_stated_system(system, kernels, compute);
    if (s->info->any_compute || strcmp(compute, s->info->compute) == 0) {
        return LB_OK;
    }
    s->other = true;
    return lb_fail(
        detail, LB_E_MISMATCH,
        "the server computes otherwise now: it calls itself %s, and %s when this run began; start it as "
        "then, or allow_other_kernels: true",
        *kernels ? kernels : "nothing", *s->info->kernels ? s->info->kernels : "nothing");
}

static enum lb_status split_lists(struct splitting *s, struct lb_detail *detail) {
    const char *system = "";
    struct lb_vllm_scores *scores = lb_arena_zarray(s->scratch, s->prompts->n, sizeof *scores);
    struct lb_told_probe told;
    if (!scores) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer");
    }
    enum lb_status status =
        lb_vllm_scores_read(s->reply->body, s->reply->len, s->prompts, s->scratch, scores, &system, detail);
    status =
        status != LB_OK ? status : lb_vllm_probe_scores(&scores[s->n], s->info->probe_ids, &told, detail);
    if (status == LB_OK) {
        status = lb_stated_check(s->info, LB_PROBE_LOGPROBS, &told, detail);
        s->other = status == LB_E_MISMATCH;
    }
    status = status != LB_OK ? status : check_system(s, system, detail);
    for (int64_t i = 0; status == LB_OK && i < s->n; i++) {
        status = split_one_list(s, i, &scores[i], detail);
    }
    return status;
}

/* Rows as they came, as the only output of answer i. */
static enum lb_status put_rows(const struct splitting *s, int64_t i, const void *rows,
                               struct lb_detail *detail) {
    struct lb_wire_tensor part = {.datatype = lb_spec_datatype(s->spec, 0), .binary = true};
    char name[LB_MAX_NAME];
    lb_output_format(s->spec->outputs[0].kind, s->spec->outputs[0].layer, name);
    part.n_dims = lb_answer_shape(s->info, s->spec, 0, s->samples[i]->n, s->samples[i]->n, part.dim);
    part.bytes = (size_t)lb_wire_elements(&part) * lb_datatype_bytes(part.datatype);
    void *data = lb_arena_alloc(s->arenas[i], part.bytes ? part.bytes : 1);
    part.name = lb_arena_strdup(s->arenas[i], name);
    part.data = data;
    if (!data || !part.name) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer's %s", name);
    }
    memcpy(data, rows, part.bytes);
    struct lb_answer answer = {
        .n_tensors = 1,
        .what[0] = {s->spec->outputs[0].kind, s->spec->outputs[0].layer},
        .tensors[0] = part,
    };
    enum lb_status status = lb_answer_check(&answer, s->spec, s->info, s->samples[i]->n, detail);
    if (status == LB_OK) {
        s->answers[i] = answer;
    }
    return status;
}

static enum lb_status split_states(struct splitting *s, struct lb_detail *detail) {
    const void **rows = lb_arena_zarray(s->scratch, s->prompts->n, sizeof *rows);
    enum lb_datatype datatype = lb_spec_datatype(s->spec, 0);
    struct lb_told_probe told;
    int64_t width = 0;
    if (!rows) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer");
    }
    enum lb_status status = lb_vllm_states_read(s->reply->body, s->reply->len, s->reply->metadata, s->prompts,
                                                datatype, s->info->hidden_size, rows, &width, detail);
    if (status == LB_OK) {
        lb_stated_states(rows[s->n], datatype, s->info->n_probe_ids, width, &told);
        status = lb_stated_check(s->info, LB_PROBE_STATES, &told, detail);
        s->other = status == LB_E_MISMATCH;
    }
    for (int64_t i = 0; status == LB_OK && i < s->n; i++) {
        status = put_rows(s, i, rows[i], detail);
    }
    return status;
}

static enum lb_status split_gather(const struct splitting *s, struct lb_detail *detail) {
    int64_t n = s->samples[0]->n, k = s->spec->n_scored;
    const int32_t *ids = s->samples[0]->extra->values;
    float *told = lb_arena_array(s->scratch, (size_t)(n * k), sizeof *told);
    if (!told) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer");
    }
    if (lb_spec_datatype(s->spec, 0) != LB_DT_FP32) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "chosen ids come as FP32");
    }
    enum lb_status status = lb_vllm_gather_read(s->reply->body, s->reply->len, n, k, told, detail);
    for (int64_t i = 0; status == LB_OK && i < n * k; i++) {
        told[i] = ids[i] < 0 ? 0 : told[i]; /* as limbeckd answers to no id */
    }
    return status != LB_OK ? status : put_rows(s, 0, told, detail);
}

static enum lb_status split(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_asked *asked, const struct lb_sample *const *samples,
                            const struct lb_ask_reply *reply, struct lb_arena *scratch,
                            struct lb_arena *const *arenas, struct lb_answer *answers, bool *out_other,
                            struct lb_detail *detail) {
    struct lb_vllm_prompts prompts;
    enum lb_status status = prompts_of(info, spec, samples, asked->n, scratch, &prompts, detail);
    struct splitting s = {info, spec, samples, asked->n, &prompts, reply, scratch, arenas, answers, false};
    if (status != LB_OK) {
        return status;
    }
    switch (lane_of(spec)) {
    case LANE_LISTS:
        status = split_lists(&s, detail);
        break;
    case LANE_STATES:
        status = split_states(&s, detail);
        break;
    case LANE_GATHER:
        status = split_gather(&s, detail);
        break;
    }
    if (out_other) {
        *out_other = s.other;
    }
    return status;
}

extern const struct lb_dialect lb_dialect_vllm;
const struct lb_dialect lb_dialect_vllm = {.name = "vllm",
                                           .mark = "/version",
                                           .models = lb_v1_models,
                                           .info = lb_vllm_info,
                                           .info_read = lb_vllm_info_read,
                                           .same = lb_vllm_same,
                                           .tokenize = lb_vllm_tokenize,
                                           .path = path,
                                           .gives = gives,
                                           .most = most,
                                           .answer_bytes = answer_bytes,
                                           .build = build,
                                           .split = split};
