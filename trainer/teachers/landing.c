/* What becomes of a request that ended: answers, refusals, wrong answers, time-outs, and what they say of a
 * replica. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/parts.h"
#include "trainer/wire/possible.h"

#include <stdio.h>
#include <string.h>

static void count(struct lb_asker *asker, const struct request *request, bool good) {
    uint64_t tokens = 0;
    for (int64_t i = 0; i < request->n; i++) {
        tokens += (uint64_t)request->samples[i]->n;
    }
    pthread_mutex_lock(&asker->lock);
    asker->stats.bytes_received += request->call.answer.len;
    if (good) {
        asker->stats.tokens_answered += tokens;
    } else {
        asker->stats.failures++;
    }
    pthread_mutex_unlock(&asker->lock);
}

static void store(struct lb_asker *asker, const struct request *request) {
    size_t n = (size_t)request->n;
    if (!asker->options.cache) {
        return;
    }
    struct lb_detail detail = {0};
    uint8_t(*keys)[LB_SHA256_BYTES] = lb_malloc_array(n, sizeof *keys);
    const struct lb_answer **answers = lb_malloc_array(n, sizeof *answers);
    enum lb_status status = LB_E_NOMEM;
    if (keys && answers) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++) {
            if (request->items[i]->sample.source != LB_SOURCE_STUDENT) {
                memcpy(keys[kept], request->items[i]->key, LB_SHA256_BYTES);
                answers[kept++] = &request->items[i]->answer;
            }
        }
        status = kept == 0 ? LB_OK
                           : lb_cache_put(asker->options.cache, (const uint8_t(*)[LB_SHA256_BYTES])keys,
                                          answers, kept, &detail);
    }
    if (status != LB_OK && !asker->cache_complained) { /* a full disk costs speed, not the run */
        asker->cache_complained = true;
        lb_log(LB_LOG_WARN, "cache_not_written", "error=\"%s\"",
               detail.code ? detail.text : lb_status_name(status));
    }
    lb_free(keys);
    lb_free(answers);
}

static void be_back(struct asked_teacher *teacher) {
    if (teacher->told_ns) {
        lb_log(LB_LOG_INFO, "teacher_back", "teacher=%s", teacher->is.name);
        teacher->told_ns = 0;
    }
}

/* Items go back to the front of the queue in their old order. */
static void ask_again(struct lb_asker *asker, struct request *request, bool bad, bool counts) {
    for (int64_t i = request->n - 1; i >= 0; i--) {
        request->items[i]->avoid = request->replica;
        request->items[i]->bad += bad;
        lb_item_queue(asker, request->items[i], true);
    }
    if (counts) {
        pthread_mutex_lock(&asker->lock);
        asker->stats.retries++;
        pthread_mutex_unlock(&asker->lock);
    }
}

/* Unpacks a 200. LB_OK when all items have their answers. */
static enum lb_status unpack(struct lb_asker *asker, struct request *request, bool *other,
                             struct lb_detail *detail) {
    const struct asked_teacher *teacher = &asker->teachers[request->teacher];
    const struct lb_ask_spec *spec = &request->items[0]->spec; /* that of all */
    size_t n = (size_t)request->n;
    struct lb_answer *answers = lb_calloc(n, sizeof *answers);
    struct lb_arena **arenas = lb_calloc(n, sizeof *arenas);
    struct lb_arena_mark *marks = lb_calloc(n, sizeof *marks);
    struct lb_arena scratch;
    const struct lb_ask_reply reply = {.body = request->call.answer.data ? request->call.answer.data : "",
                                       .len = request->call.answer.len,
                                       .json_bytes = request->call.answer_json_bytes,
                                       .digest = request->call.digest,
                                       .metadata = request->call.metadata};
    lb_arena_init(&scratch, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = LB_E_NOMEM;
    if (!answers || !arenas || !marks) {
        lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of teacher %s", teacher->is.name);
    } else {
        for (size_t i = 0; i < n; i++) {
            arenas[i] = &request->items[i]->arena;
            marks[i] = lb_arena_mark(arenas[i]);
        }
        status = teacher->is.dialect->split(&teacher->is.info, spec, &request->asked, request->samples,
                                            &reply, &scratch, arenas, answers, other, detail);
    }
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        status = lb_answer_possible(&answers[i], spec->temperature, teacher->is.name, detail);
    }
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        request->items[i]->answer = answers[i];
    }
    for (size_t i = 0; status != LB_OK && arenas && marks && i < n && arenas[i]; i++) {
        lb_arena_release(arenas[i], marks[i]); /* or bad answers would pile up until a good one comes */
    }
    lb_arena_finish(&scratch);
    lb_free(answers);
    lb_free(arenas);
    lb_free(marks);
    return status;
}

/* Codes by which a server says: later. */
static bool is_later(int code) {
    return code == 408 || code == 429 || code == 502 || code == 503 || code == 504;
}

/* A code by which a server says that it will not do this, now or later. */
static bool is_refusal(int code) {
    return code == 501 || (code >= 300 && code < 500 && code != 404 && !is_later(code));
}

/* A refusal that is about the request, not about the address or the right to ask. */
static bool is_about_request(int code) {
    return code == 400 || code == 413 || code == 414 || code == 422;
}

/* Whether the teacher answered, but wrongly: not to be borne forever, whatever on_lost_teacher says. */
static bool is_bad(const struct request *request) {
    if (request->call.status) {
        return request->call.status == LB_E_LIMIT || request->call.status == LB_E_FORMAT;
    }
    return !is_later(request->call.code);
}

static uint64_t all_of(const struct asked_teacher *teacher) {
    return teacher->pool.n == 64 ? UINT64_MAX : (UINT64_C(1) << teacher->pool.n) - 1;
}

/* One of several replicas gave no good answer and rests: it is named, the others go on. */
static void tell_aside(struct asked_teacher *teacher, int replica, const struct lb_detail *why) {
    uint64_t now = lb_now_ns(), *told = &teacher->aside_told_ns[replica];
    if (teacher->pool.n > 1 && (*told == 0 || now - *told > LB_TOLD_EVERY_NS)) {
        uint64_t until = teacher->pool.replicas[replica].retry_ns;
        *told = now;
        lb_log(LB_LOG_WARN, "replica_aside", "teacher=%s url=\"%s\" again_in_s=%.1f error=\"%s\"",
               teacher->is.name, teacher->is.urls[replica],
               until > now ? (double)(until - now) / (double)LB_SECOND_NS : 0.0, why->text);
    }
}

/* This replica is of no use as it is; when that is so of all, nothing is left to wait for. One answer may be
 * an accident, so it takes two of them with no good answer to a question in between. */
static void mark_wrong(struct lb_asker *asker, struct asked_teacher *teacher, int replica,
                       enum lb_status status, const struct lb_detail *detail) {
    uint64_t bit = UINT64_C(1) << replica;
    teacher->wrong |= teacher->doubted & bit;
    teacher->doubted |= bit;
    if (teacher->wrong == all_of(teacher)) {
        lb_asker_fail(asker, status, detail);
    }
}

void lb_landing_probe(struct lb_asker *asker, struct request *request) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    char where[400];
    struct lb_detail detail = {0};
    snprintf(where, sizeof where, "teacher %s at %s", teacher->is.name, request->call.base);
    enum lb_status status = lb_call_check(&request->call, where, &detail);
    if (status == LB_OK) {
        status = teacher->is.dialect->same(
            &teacher->is.info, request->call.answer.data ? request->call.answer.data : "",
            request->call.answer.len, where, teacher->ids[request->replica], &detail);
    }
    lb_pool_probed(&teacher->pool, request->replica, status == LB_OK, lb_now_ns(),
                   request->call.retry_after_ns);
    if (status == LB_OK) { /* whether its answers are good too is another matter */
        teacher->wrong &= ~(UINT64_C(1) << request->replica);
        return;
    }
    if (status == LB_E_NOMEM) { /* ours: it would be so again */
        lb_asker_fail(asker, status, &detail);
        return;
    }
    teacher->last_error = detail;
    tell_aside(teacher, request->replica, &detail);
    if (status == LB_E_MISMATCH || (request->call.status == LB_OK && is_refusal(request->call.code))) {
        mark_wrong(asker, teacher, request->replica, status, &detail);
    }
}

/* A replica was sent its map, or does not take it. */
void lb_landing_map(struct lb_asker *asker, struct request *request) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    char where[400];
    struct lb_detail detail = {0};
    snprintf(where, sizeof where, "teacher %s at %s", teacher->is.name, request->call.base);
    enum lb_status status = lb_call_check(&request->call, where, &detail);
    int code = request->call.status == LB_OK ? request->call.code : 0;
    teacher->map_coming &= ~(UINT64_C(1) << request->replica);
    if (status == LB_OK || status == LB_E_CANCELLED) { /* only an answer to a question makes it healthy */
        teacher->map_number[request->replica] = status == LB_OK ? request->number : 0;
        lb_pool_dropped(&teacher->pool, request->replica);
        return;
    }
    lb_detail_prefix(&detail, "its vocabulary map");
    if (status == LB_E_NOMEM) { /* ours */
        lb_pool_dropped(&teacher->pool, request->replica);
        lb_asker_fail(asker, status, &detail);
        return;
    }
    teacher->last_error = detail;
    lb_pool_failed(&teacher->pool, request->replica, lb_now_ns(), request->call.retry_after_ns);
    tell_aside(teacher, request->replica, &detail);
    if (code != 0 && (is_refusal(code) || code == 404)) {
        mark_wrong(asker, teacher, request->replica, status, &detail);
    }
}

/* A question through a map that the replica says it has not: it was started anew, or others' maps took the
 * room. It is sent again with the next question. False where it was lost once more with no good answer in
 * between: then this is a refusal like others. */
static bool map_is_gone(struct lb_asker *asker, struct request *request) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    uint64_t bit = UINT64_C(1) << request->replica, *number = &teacher->map_number[request->replica];
    bool again = false;
    if (request->call.status != LB_OK || request->call.code != 409 ||
        request->items[0]->spec.vocab_map[0] == '\0') {
        return false;
    }
    if (*number != 0 && request->number > *number) { /* it was asked after it had been sent the map */
        again = (teacher->map_lost & bit) != 0;
        *number = 0;
        teacher->map_lost |= bit;
        lb_log(LB_LOG_INFO, "vocab_map_lost", "teacher=%s url=\"%s\" then=\"sent again\"", teacher->is.name,
               teacher->is.urls[request->replica]);
    }
    if (!again) {
        lb_pool_dropped(&teacher->pool, request->replica);
        ask_again(asker, request, false, true);
    }
    return !again;
}

/* A request was refused. Each of its sequences is asked again, alone, so that one bad one is found and one
 * accident passes; refused by every replica then, it ends the run. */
static void land_refused(struct lb_asker *asker, struct request *request, enum lb_status status,
                         const struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    int code = request->call.code;
    bool about_request = is_about_request(code);
    if (about_request) {
        lb_pool_answered(&teacher->pool, request->replica);
    } else {
        lb_pool_failed(&teacher->pool, request->replica, lb_now_ns(), request->call.retry_after_ns);
        tell_aside(teacher, request->replica, detail);
    }
    if (code == 413 && request->n > 1) { /* smaller ones, then */
        teacher->limit_tokens = teacher->most_tokens = request->asked.n * request->asked.longest / 2;
    } else if (request->n > 1 || !request->items[0]->alone) {
        for (int64_t i = 0; i < request->n; i++) {
            request->items[i]->alone = true;
        }
    } else {
        request->items[0]->refused |= UINT64_C(1) << request->replica;
        if (request->items[0]->refused == all_of(teacher)) {
            lb_asker_fail(asker, status, detail);
            return;
        }
    }
    ask_again(asker, request, false, true);
}

/* Requests that take too long get smaller, down to one sequence, and grow again when answers come in time. */
static void shrink(const struct lb_asker *asker, struct request *request, struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    if (request->n > 1) {
        int64_t half = request->asked.n * request->asked.longest / 2;
        teacher->most_tokens = half < teacher->most_tokens ? half : teacher->most_tokens;
        return;
    }
    char text[sizeof detail->text];
    snprintf(text, sizeof text, "%s", detail->text);
    snprintf(detail->text, sizeof detail->text,
             "%.300s; one sequence takes longer than teacher_timeout (%.0f s): raise it, or lower max_length",
             text, (double)asker->options.timeout_ns / (double)LB_SECOND_NS);
}

static void grow(struct asked_teacher *teacher) {
    teacher->most_tokens += teacher->most_tokens / 8 + 1;
    teacher->most_tokens =
        teacher->most_tokens < teacher->limit_tokens ? teacher->most_tokens : teacher->limit_tokens;
}

/* Whether one of the sequences has got nothing but wrong answers for too long; says so in detail. */
static bool is_too_bad(const struct lb_asker *asker, struct request *request, struct lb_detail *detail) {
    uint64_t now = lb_now_ns(), give_up = asker->options.give_up_ns;
    for (int64_t i = 0; i < request->n; i++) {
        struct item *item = request->items[i];
        item->bad_since_ns = item->bad_since_ns != 0 ? item->bad_since_ns : now;
        if (give_up != 0 && now - item->bad_since_ns >= give_up) {
            lb_detail_prefix(detail, "no good answer for %.0f s (give_up_after), the last of %u wrong ones",
                             (double)(now - item->bad_since_ns) / (double)LB_SECOND_NS, item->bad + 1);
            return true;
        }
    }
    return false;
}

/* What to do about an answer that is none. */
static void land_failed(struct lb_asker *asker, struct request *request, enum lb_status status, bool other,
                        struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    count(asker, request, false);
    if (status == LB_E_TIMEOUT) {
        shrink(asker, request, detail);
    }
    teacher->last_error = *detail;
    if (status == LB_E_NOMEM) { /* ours */
        lb_pool_dropped(&teacher->pool, request->replica);
        lb_asker_fail(asker, status, detail);
        return;
    }
    if (request->call.status == LB_OK && is_refusal(request->call.code)) {
        land_refused(asker, request, status, detail);
        return;
    }
    bool bad = is_bad(request);
    lb_pool_failed(&teacher->pool, request->replica, lb_now_ns(), request->call.retry_after_ns);
    tell_aside(teacher, request->replica, detail);
    if (other && request->call.fresh) { /* not from a cache that kept it from before */
        mark_wrong(asker, teacher, request->replica, status, detail);
    }
    if (bad && is_too_bad(asker, request, detail)) {
        lb_asker_fail(asker, status, detail);
    }
    ask_again(asker, request, bad, true);
}

void lb_landing_answer(struct lb_asker *asker, struct request *request) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    bool other = false;
    char where[400];
    struct lb_detail detail = {0};
    snprintf(where, sizeof where, "teacher %s at %s", teacher->is.name, request->call.base);
    enum lb_status status = lb_call_check(&request->call, where, &detail);
    if (status == LB_E_CANCELLED) {
        lb_pool_dropped(&teacher->pool, request->replica);
        ask_again(asker, request, false, false);
        return;
    }
    if (status == LB_OK) {
        status = unpack(asker, request, &other, &detail);
        if (status != LB_OK) {
            lb_detail_prefix(&detail, "%s", where);
        }
    }
    if (status != LB_OK && map_is_gone(asker, request)) {
        return;
    }
    if (status != LB_OK) {
        land_failed(asker, request, status, other, &detail);
        return;
    }
    lb_pool_answered(&teacher->pool, request->replica);
    teacher->wrong &= ~(UINT64_C(1) << request->replica);
    teacher->doubted &= ~(UINT64_C(1) << request->replica);
    teacher->map_lost &= ~(UINT64_C(1) << request->replica);
    grow(teacher);
    be_back(teacher);
    count(asker, request, true);
    for (int64_t i = 0; i < request->n; i++) {
        lb_item_settle(asker, request->items[i], false);
    }
    /* After the training loop has been served; items live until this thread frees them. */
    store(asker, request);
}
