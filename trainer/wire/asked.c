/* Questions ready to be sent: what dialects begin and end theirs with; and a single one, sent and answered.
 */
#include "common/base/mem.h"
#include "trainer/wire/dialect.h"
#include "trainer/wire/possible.h"

void lb_asked_begin(struct lb_asked *out, const struct lb_sample *const *samples, int64_t n) {
    *out = (struct lb_asked){.n = n, .json_bytes = -1};
    lb_buf_init(&out->body, LB_MAX_BODY_BYTES);
    for (int64_t i = 0; i < n; i++) {
        int64_t rows = samples[i]->n - samples[i]->first;
        out->longest = samples[i]->n > out->longest ? samples[i]->n : out->longest;
        out->rows = rows > out->rows ? rows : out->rows;
    }
}

enum lb_status lb_asked_end(struct lb_asked *asked, struct lb_detail *detail) {
    enum lb_status status = lb_buf_status(&asked->body);
    if (status != LB_OK) {
        lb_asked_finish(asked);
        return lb_fail(detail, status,
                       "a request of %lld sequences, the longest of %lld positions, is too large",
                       (long long)asked->n, (long long)asked->longest);
    }
    return LB_OK;
}

/* ---- a single one ---- */

enum lb_status lb_asked_post(const struct lb_contact *contact, const char *path, const struct lb_asked *asked,
                             bool fresh, struct lb_call *call, struct lb_detail *detail) {
    char where[400];
    lb_contact_where(contact, where, sizeof where);
    lb_call_init(call, contact->base, path, contact->token);
    call->body = asked->body.data;
    call->body_bytes = asked->body.len;
    call->json_bytes = asked->json_bytes;
    call->timeout_ns = contact->timeout_ns;
    call->fresh = fresh;
    lb_client_perform(contact->http, call, contact->stop);
    return lb_call_check(call, where, detail);
}

static enum lb_status take_apart(const struct lb_exchange *exchange, const struct lb_asked *asked,
                                 const struct lb_sample *const *samples, const struct lb_call *call,
                                 struct lb_arena *scratch, struct lb_arena *arena, struct lb_answer *answers,
                                 struct lb_detail *detail) {
    const struct lb_ask_reply reply = {.body = call->answer.data ? call->answer.data : "",
                                       .len = call->answer.len,
                                       .json_bytes = call->answer_json_bytes,
                                       .digest = call->digest,
                                       .metadata = call->metadata};
    struct lb_arena **arenas = lb_arena_array(scratch, (size_t)asked->n, sizeof *arenas);
    if (!arenas) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer");
    }
    for (int64_t i = 0; i < asked->n; i++) {
        arenas[i] = arena;
    }
    enum lb_status status = exchange->dialect->split(exchange->info, exchange->spec, asked, samples, &reply,
                                                     scratch, arenas, answers, NULL, detail);
    for (int64_t i = 0; status == LB_OK && i < asked->n; i++) {
        status = lb_answer_possible(&answers[i], exchange->spec->temperature, exchange->name, detail);
    }
    if (status != LB_OK) {
        char where[400];
        lb_contact_where(exchange->contact, where, sizeof where);
        lb_detail_prefix(detail, "%s", where);
    }
    return status;
}

enum lb_status lb_exchange(const struct lb_exchange *exchange, const struct lb_sample *const *samples,
                           int64_t n, struct lb_arena *scratch, struct lb_arena *arena,
                           struct lb_answer *answers, uint64_t *out_ns, struct lb_detail *detail) {
    struct lb_asked asked = {0};
    struct lb_call call = {0};
    char *path = NULL;
    enum lb_status status =
        exchange->dialect->path(exchange->info, exchange->spec, LB_PATH_ASK, &path, detail);
    if (status == LB_OK) {
        status = exchange->dialect->build(exchange->info, exchange->spec, samples, n, exchange->timeout_us,
                                          scratch, &asked, detail);
    }
    if (status != LB_OK) {
        lb_free(path);
        return status;
    }
    status = lb_asked_post(exchange->contact, path, &asked, exchange->fresh, &call, detail);
    lb_free(path);
    if (status == LB_OK && out_ns) {
        *out_ns = call.elapsed_ns;
    }
    if (status == LB_OK) {
        status = take_apart(exchange, &asked, samples, &call, scratch, arena, answers, detail);
    }
    lb_call_finish(&call);
    lb_asked_finish(&asked);
    return status;
}
