/* One exchange with one teacher, by itself: no retries, not counted. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/opened.h"
#include "trainer/wire/possible.h"

#include <stdio.h>
#include <string.h>

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

/* Sends what was built and takes the answers apart. */
static enum lb_status exchange(const struct lb_teachers *teachers, const struct teacher *teacher, int replica,
                               const struct once *once, const struct lb_sample *const *samples,
                               const struct lb_asked *asked, struct lb_arena *scratch, struct lb_arena *arena,
                               struct lb_answer *answers, struct lb_detail *detail) {
    struct lb_contact contact = lb_teacher_contact(teachers, teacher, replica);
    struct lb_arena *arenas[MOST];
    struct lb_call call;
    char *path = NULL, where[400];
    enum lb_status status = teacher->dialect->path(&teacher->info, &once->spec, LB_PATH_ASK, &path, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_contact_where(&contact, where, sizeof where);
    lb_call_init(&call, contact.base, path, contact.token);
    call.body = asked->body.data;
    call.body_bytes = asked->body.len;
    call.json_bytes = asked->json_bytes;
    call.timeout_ns = contact.timeout_ns;
    call.max_bytes = LB_MAX_RESPONSE_BYTES;
    lb_client_perform(contact.http, &call, contact.stop);
    status = lb_call_check(&call, where, detail);
    for (int64_t i = 0; i < once->n; i++) {
        arenas[i] = arena;
    }
    if (status == LB_OK) {
        const struct lb_ask_reply reply = {.body = call.answer.data ? call.answer.data : "",
                                           .len = call.answer.len,
                                           .json_bytes = call.answer_json_bytes,
                                           .digest = call.digest,
                                           .metadata = call.metadata};
        status = teacher->dialect->split(&teacher->info, &once->spec, asked, samples, &reply, scratch, arenas,
                                         answers, NULL, detail);
    }
    for (int64_t i = 0; status == LB_OK && i < once->n; i++) {
        status = lb_answer_possible(&answers[i], once->spec.temperature, teacher->is->name, detail);
    }
    lb_call_finish(&call);
    lb_free(path);
    return status;
}

static enum lb_status ask(const struct lb_teachers *teachers, const struct teacher *teacher,
                          const struct once *once, struct lb_arena *arena, struct lb_answer *answers,
                          struct lb_detail *detail) {
    const struct lb_sample *samples[MOST];
    struct lb_asked asked = {0};
    struct lb_arena scratch;
    int replica = reached(teacher);
    if (replica < 0) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "%s: it is away", teacher->label);
    }
    for (int64_t i = 0; i < once->n; i++) {
        samples[i] = &once->samples[i];
    }
    lb_arena_init(&scratch, LB_MAX_RESPONSE_BYTES);
    enum lb_status status =
        teacher->dialect->build(&teacher->info, &once->spec, samples, once->n,
                                lb_teachers_timeout_ns(teachers) / 1000, &scratch, &asked, detail);
    if (status == LB_OK) {
        status =
            exchange(teachers, teacher, replica, once, samples, &asked, &scratch, arena, answers, detail);
        lb_asked_finish(&asked);
    }
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

enum lb_status lb_teachers_ask_once(struct lb_teachers *teachers, unsigned k, const struct lb_sample *samples,
                                    int64_t n, bool its_ids, struct lb_arena *arena,
                                    struct lb_answer *answers, struct lb_detail *detail) {
    const struct lb_ask_spec spec = {
        .n_outputs = 1, .outputs[0] = {.kind = LB_OUT_ACTUAL, .datatype = LB_DT_FP32}, .temperature = 1};
    const struct teacher *teacher = &teachers->teachers[k];
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
