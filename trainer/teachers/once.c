/* One exchange with one teacher, by itself: no cache, no retries, not counted. */
#include "common/base/mem.h"
#include "trainer/teachers/opened.h"

#include <stdio.h>
#include <string.h>

#define MOST 64          /* samples of one question */
#define NO_CONFIG "none" /* in the cache: it has no tokenizer_config.json */

/* A replica that answered when it was met; -1: none. */
static int reached(const struct teacher *teacher) {
    for (int r = 0; r < teacher->n_urls; r++) {
        if (teacher->reached[r]) {
            return r;
        }
    }
    return -1;
}

static enum lb_status exchange(const struct lb_teachers *teachers, const struct teacher *teacher, int replica,
                               const struct lb_ask_spec *spec, const struct lb_sample *const *samples,
                               const struct lb_asked *asked, struct lb_arena *scratch, struct lb_arena *arena,
                               struct lb_answer *answers, struct lb_detail *detail) {
    struct lb_contact contact = lb_teacher_contact(teachers, teacher, replica);
    struct lb_arena *arenas[MOST];
    struct lb_call call;
    char *path = NULL, where[400];
    enum lb_status status = teacher->dialect->path(&teacher->info, LB_PATH_ASK, &path, detail);
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
    for (int64_t i = 0; i < asked->n; i++) {
        arenas[i] = arena;
    }
    if (status == LB_OK) {
        const struct lb_ask_reply reply = {.body = call.answer.data ? call.answer.data : "",
                                           .len = call.answer.len,
                                           .json_bytes = call.answer_json_bytes,
                                           .digest = call.digest};
        status = teacher->dialect->split(&teacher->info, spec, asked, samples, &reply, scratch, arenas,
                                         answers, NULL, detail);
    }
    lb_call_finish(&call);
    lb_free(path);
    return status;
}

enum lb_status lb_teachers_ask_once(struct lb_teachers *teachers, unsigned k, const struct lb_ask_spec *spec,
                                    const struct lb_sample *samples, int64_t n, bool its_ids,
                                    struct lb_arena *arena, struct lb_answer *answers,
                                    struct lb_detail *detail) {
    const struct teacher *teacher = &teachers->teachers[k];
    const struct lb_sample *pointers[MOST];
    struct lb_sample own[MOST];
    int32_t *ids[MOST] = {NULL};
    int replica = reached(teacher);
    if (replica < 0 || n < 1 || n > MOST) {
        return lb_fail(detail, replica < 0 ? LB_E_UNAVAILABLE : LB_E_LIMIT, "%s: %s", teacher->label,
                       replica < 0 ? "it is away" : "too much for one question");
    }
    enum lb_status status = teacher->dialect->gives(&teacher->info, spec, teacher->is->name, detail);
    for (int64_t i = 0; status == LB_OK && i < n; i++) {
        pointers[i] = &own[i];
        status = lb_sample_through(its_ids ? NULL : teacher->map, teacher->is->name, &samples[i], &own[i],
                                   &ids[i], detail);
        status = status == LB_OK ? lb_ask_check(&teacher->info, &own[i], teacher->label, detail) : status;
    }
    struct lb_arena scratch;
    struct lb_asked asked = {0};
    lb_arena_init(&scratch, LB_MAX_RESPONSE_BYTES);
    if (status == LB_OK) {
        status = teacher->dialect->build(&teacher->info, spec, pointers, n,
                                         lb_teachers_timeout_ns(teachers) / 1000, &scratch, &asked, detail);
    }
    if (status == LB_OK) {
        status =
            exchange(teachers, teacher, replica, spec, pointers, &asked, &scratch, arena, answers, detail);
        lb_asked_finish(&asked);
    }
    lb_arena_finish(&scratch);
    for (int64_t i = 0; i < n; i++) {
        lb_free(ids[i]);
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
    enum lb_status status = teacher->dialect->path(&teacher->info, LB_PATH_TOKENIZER_CONFIG, &path, detail);
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

bool lb_teachers_cached(const struct lb_teachers *teachers) {
    struct lb_cache_stats stats = {0};
    return teachers->cache && lb_cache_stats(teachers->cache, &stats, NULL) == LB_OK && stats.entries > 0;
}
