/* Requests of an asker: which items go together, to which replica, and what becomes of them. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/parts.h"
#include "trainer/wire/possible.h"

#include <stdio.h>
#include <string.h>

#define LEAST_TOKENS 1024 /* of a request, when there are slots for more but smaller ones */
#define MAX_BAD_ANSWERS                                                                                      \
    6 /* wrong answers about one sequence: then the teacher is at fault, not the weather */
#define PROBE_TIMEOUT_NS (10 * LB_SECOND_NS)
#define FIRST_TOLD_NS LB_SECOND_NS
#define TOLD_EVERY_NS (10 * LB_SECOND_NS)
#define MAX_INFO_BYTES (4u << 20)

/* ---- the queue ---- */

void lb_requests_queue(struct lb_asker *asker, struct item *item, bool first) {
    struct asked_teacher *teacher = &asker->teachers[item->teacher];
    struct item **at = &teacher->queue;
    while (!first && *at) {
        at = &(*at)->next_in_queue;
    }
    item->next_in_queue = *at;
    *at = item;
    teacher->queued_tokens += item->sample.n;
}

static struct item *unqueue(struct asked_teacher *teacher) {
    struct item *item = teacher->queue;
    teacher->queue = item->next_in_queue;
    teacher->queued_tokens -= item->sample.n;
    return item;
}

/* How many items from the front make one request: what asks for the same; all slots get their share, within
 * the maxima.
 */
static int64_t group_size(const struct asked_teacher *teacher) {
    unsigned slots = lb_pool_free_slots(&teacher->pool);
    int64_t budget = teacher->queued_tokens / (slots ? slots : 1);
    budget = budget < LEAST_TOKENS ? LEAST_TOKENS : budget;
    budget = budget > teacher->most_tokens ? teacher->most_tokens : budget;
    int64_t n = 0, longest = 0;
    uint64_t bytes = 0;
    const struct item *first = teacher->queue;
    for (const struct item *item = first; item && n < LB_MAX_SEQUENCES; item = item->next_in_queue) {
        if (!lb_spec_same(&item->spec, &first->spec) ||
            !lb_extra_alike(item->sample.extra, first->sample.extra)) {
            break;
        }
        longest = item->sample.n > longest ? item->sample.n : longest;
        bytes = lb_ask_answer_bytes(&teacher->is.info, &first->spec, longest) * (uint64_t)(n + 1);
        if (n > 0 && (longest * (n + 1) > budget || bytes > LB_ASK_ANSWER_BYTES)) {
            break;
        }
        n++;
    }
    return n;
}

/* ---- starting ---- */

/* On the HTTP client's thread. */
static void on_done(struct lb_call *call) {
    struct request *request = call->user;
    struct lb_asker *asker = request->asker;
    pthread_mutex_lock(&asker->lock);
    request->next_done = asker->done;
    asker->done = request;
    asker->called = true;
    pthread_cond_signal(&asker->work);
    pthread_mutex_unlock(&asker->lock);
}

static void free_request(struct request *request) {
    lb_call_finish(&request->call);
    lb_asked_finish(&request->asked);
    lb_free(request->items);
    lb_free(request->samples);
    lb_free(request);
}

static void link_request(struct lb_asker *asker, struct request *request) {
    request->next = asker->requests;
    if (request->next) {
        request->next->previous = request;
    }
    asker->requests = request;
}

static void unlink_request(struct lb_asker *asker, struct request *request) {
    if (request->previous) {
        request->previous->next = request->next;
    } else {
        asker->requests = request->next;
    }
    if (request->next) {
        request->next->previous = request->previous;
    }
}

static struct request *make_request(struct lb_asker *asker, unsigned k, int replica, const char *path,
                                    int64_t n) {
    struct request *request = lb_calloc(1, sizeof *request);
    if (!request) {
        return NULL;
    }
    const struct asked_teacher *teacher = &asker->teachers[k];
    lb_call_init(&request->call, teacher->is.urls[replica], path, teacher->is.token);
    request->call.done = on_done;
    request->call.user = request;
    request->call.timeout_ns = asker->options.timeout_ns;
    snprintf(request->id, sizeof request->id, "%016llx-%llu", (unsigned long long)asker->options.seed,
             (unsigned long long)asker->n_requests++);
    request->call.id = request->id;
    request->asker = asker;
    request->teacher = k;
    request->replica = replica;
    request->n = n;
    request->items = lb_calloc(n ? (size_t)n : 1, sizeof *request->items);
    request->samples = lb_calloc(n ? (size_t)n : 1, sizeof *request->samples);
    if (!request->items || !request->samples) {
        free_request(request);
        return NULL;
    }
    return request;
}

static enum lb_status send_group(struct lb_asker *asker, unsigned k, int replica, int64_t n,
                                 struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[k];
    struct request *request = make_request(asker, k, replica, teacher->ask_path, n);
    if (!request) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request to teacher %s", teacher->is.name);
    }
    for (int64_t i = 0; i < n; i++) {
        struct item *item = unqueue(teacher);
        request->items[i] = item;
        request->samples[i] = &item->sample;
        request->call.fresh = request->call.fresh || item->bad > 0;
    }
    struct lb_arena scratch;
    lb_arena_init(&scratch, LB_MAX_BODY_BYTES);
    enum lb_status status =
        teacher->is.dialect->build(&teacher->is.info, &request->items[0]->spec, request->samples, n,
                                   asker->options.timeout_ns / 1000, &scratch, &request->asked, detail);
    lb_arena_finish(&scratch);
    if (status != LB_OK) {
        free_request(request);
        return status;
    }
    request->call.body = request->asked.body.data;
    request->call.body_bytes = request->asked.body.len;
    request->call.json_bytes = request->asked.json_bytes;
    pthread_mutex_lock(&asker->lock);
    asker->stats.requests++;
    asker->stats.bytes_sent += request->asked.body.len;
    pthread_mutex_unlock(&asker->lock);
    lb_pool_sent(&teacher->pool, replica);
    link_request(asker, request);
    lb_client_start(asker->options.http, &request->call);
    return LB_OK;
}

static void send_probe(struct lb_asker *asker, unsigned k, int replica) {
    struct asked_teacher *teacher = &asker->teachers[k];
    struct request *request = make_request(asker, k, replica, teacher->info_path, 0);
    if (!request) {
        return; /* it stays due */
    }
    request->probe = true;
    request->call.max_bytes = MAX_INFO_BYTES;
    if (request->call.timeout_ns > PROBE_TIMEOUT_NS) {
        request->call.timeout_ns = PROBE_TIMEOUT_NS;
    }
    lb_pool_probing(&teacher->pool, replica);
    link_request(asker, request);
    lb_client_start(asker->options.http, &request->call);
}

/* ---- landing ---- */

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
        for (size_t i = 0; i < n; i++) {
            memcpy(keys[i], request->items[i]->key, LB_SHA256_BYTES);
            answers[i] = &request->items[i]->answer;
        }
        status =
            lb_cache_put(asker->options.cache, (const uint8_t(*)[LB_SHA256_BYTES])keys, answers, n, &detail);
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
        lb_requests_queue(asker, request->items[i], true);
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
    struct lb_arena scratch;
    const struct lb_ask_reply reply = {.body = request->call.answer.data ? request->call.answer.data : "",
                                       .len = request->call.answer.len,
                                       .json_bytes = request->call.answer_json_bytes,
                                       .digest = request->call.digest};
    lb_arena_init(&scratch, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = LB_E_NOMEM;
    if (!answers || !arenas) {
        lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of teacher %s", teacher->is.name);
    } else {
        for (size_t i = 0; i < n; i++) {
            arenas[i] = &request->items[i]->arena;
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
    lb_arena_finish(&scratch);
    lb_free(answers);
    lb_free(arenas);
    return status;
}

/* Codes by which a server says: later. */
static bool is_later(int code) {
    return code == 408 || code == 429 || code == 502 || code == 503 || code == 504;
}

/* Whether no retry can help: the request, the address or the right to ask is at fault. */
static bool is_fatal(const struct request *request, enum lb_status status) {
    int code = request->call.status ? 0 : request->call.code;
    if (code == 404) { /* the version is gone: a probe will tell what is there instead */
        return false;
    }
    return status == LB_E_NOMEM || code == 501 || (code >= 300 && code < 500 && !is_later(code));
}

/* Whether the teacher answered, but wrongly: not to be borne forever. */
static bool is_bad(const struct request *request) {
    if (request->call.status) {
        return request->call.status == LB_E_LIMIT || request->call.status == LB_E_FORMAT;
    }
    return !is_later(request->call.code);
}

static void land_probe(struct lb_asker *asker, struct request *request) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    char where[400];
    struct lb_detail detail = {0};
    struct lb_teacher_info info;
    snprintf(where, sizeof where, "teacher %s at %s", teacher->is.name, request->call.base);
    enum lb_status status = lb_call_check(&request->call, where, &detail);
    if (status == LB_OK) {
        status = teacher->is.dialect->info_read(request->call.answer.data ? request->call.answer.data : "",
                                                request->call.answer.len, where, &info, &detail);
    }
    if (status == LB_OK && strcmp(info.fingerprint, teacher->is.info.fingerprint)) {
        lb_fail(&detail, LB_E_MISMATCH,
                "%s serves another model now: fingerprint %s, this run began with %s; serve the same model "
                "again, or "
                "start a new run",
                where, info.fingerprint, teacher->is.info.fingerprint);
        lb_asker_fail(asker, LB_E_MISMATCH, &detail);
        return;
    }
    lb_pool_probed(&teacher->pool, request->replica, status == LB_OK, lb_now_ns(),
                   request->call.retry_after_ns);
    if (status != LB_OK) {
        teacher->last_error = detail;
        if (is_fatal(request, status)) {
            lb_asker_fail(asker, status, &detail);
        }
    }
}

/* What to do about an answer that is none. */
static void land_failed(struct lb_asker *asker, struct request *request, enum lb_status status, bool other,
                        struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[request->teacher];
    count(asker, request, false);
    teacher->last_error = *detail;
    if (!request->call.status && request->call.code == 413 && request->n > 1) { /* smaller ones, then */
        lb_pool_answered(&teacher->pool, request->replica);
        teacher->most_tokens = request->asked.n * request->asked.longest / 2;
        ask_again(asker, request, false, true);
        return;
    }
    if (other || is_fatal(request, status)) {
        lb_pool_dropped(&teacher->pool, request->replica);
        lb_asker_fail(asker, status, detail);
        return;
    }
    bool bad = is_bad(request);
    if (bad && request->items[0]->bad + 1 >= MAX_BAD_ANSWERS) {
        lb_detail_prefix(detail, "wrong answers %u times in a row, the last", MAX_BAD_ANSWERS);
        lb_pool_dropped(&teacher->pool, request->replica);
        lb_asker_fail(asker, status, detail);
        return;
    }
    lb_pool_failed(&teacher->pool, request->replica, lb_now_ns(), request->call.retry_after_ns);
    ask_again(asker, request, bad, true);
}

static void land_infer(struct lb_asker *asker, struct request *request) {
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
    if (status != LB_OK) {
        land_failed(asker, request, status, other, &detail);
        return;
    }
    lb_pool_answered(&teacher->pool, request->replica);
    be_back(teacher);
    count(asker, request, true);
    for (int64_t i = 0; i < request->n; i++) {
        lb_item_settle(asker, request->items[i], false);
    }
    store(asker,
          request); /* after the training loop has been served; items live until this thread frees them */
}

void lb_requests_land(struct lb_asker *asker, struct request *request) {
    unlink_request(asker, request);
    if (request->probe) {
        land_probe(asker, request);
    } else {
        land_infer(asker, request);
    }
    free_request(request);
}

/* ---- dispatch ---- */

static void tell_lost(const struct lb_asker *asker, struct asked_teacher *teacher, uint64_t now) {
    static const char *const next[] = {"waiting", "going on without it", "stopping soon"};
    teacher->told_ns = now;
    lb_log(LB_LOG_WARN, "teacher_lost", "teacher=%s for_s=%.0f then=\"%s\" error=\"%s\"", teacher->is.name,
           (double)(now - teacher->pool.lost_ns) / (double)LB_SECOND_NS, next[asker->options.on_lost],
           teacher->last_error.text);
}

/* Whether every teacher has been lost for longer than an answer may take: nothing would be left to learn
 * from. */
static bool none_left(const struct lb_asker *asker, uint64_t now) {
    for (unsigned k = 0; k < asker->n_teachers; k++) {
        const struct lb_pool *pool = &asker->teachers[k].pool;
        if (!pool->lost_ns || now < pool->lost_ns + asker->options.timeout_ns || lb_pool_trying(pool)) {
            return false;
        }
    }
    return true;
}

/* Applies the recipe's on_lost_teacher. Returns when something is to be said or done next. */
static uint64_t mind_lost(struct lb_asker *asker, struct asked_teacher *teacher, uint64_t now) {
    struct lb_detail detail = {0};
    uint64_t lost = teacher->pool.lost_ns, patience = lost + asker->options.timeout_ns;
    if (teacher->is.local && lb_local_check(teacher->is.local, &detail)) {
        lb_asker_fail(asker, LB_E_UNAVAILABLE, &detail);
        return UINT64_MAX;
    }
    uint64_t tell = teacher->told_ns ? teacher->told_ns + TOLD_EVERY_NS : lost + FIRST_TOLD_NS;
    if (now >= tell) {
        tell_lost(asker, teacher, now);
        tell = now + TOLD_EVERY_NS;
    }
    if (asker->options.on_lost == LB_LOST_WAIT) {
        return tell;
    }
    if (now < patience || lb_pool_trying(&teacher->pool)) {
        return now < patience && patience < tell ? patience : tell;
    }
    if (asker->options.on_lost == LB_LOST_STOP) {
        lb_fail(&detail, LB_E_UNAVAILABLE,
                "teacher %s has not answered for %.0f s, giving up (on_lost_teacher: stop): %s",
                teacher->is.name, (double)(now - lost) / (double)LB_SECOND_NS, teacher->last_error.text);
        lb_asker_fail(asker, LB_E_UNAVAILABLE, &detail);
        return UINT64_MAX;
    }
    if (none_left(asker, now)) {
        lb_fail(&detail, LB_E_UNAVAILABLE,
                "all teachers are lost, none is left to learn from; the last error: %s",
                teacher->last_error.text);
        lb_asker_fail(asker, LB_E_UNAVAILABLE, &detail);
        return UINT64_MAX;
    }
    while (teacher->queue) {
        lb_item_settle(asker, unqueue(teacher), true);
    }
    return tell;
}

static uint64_t dispatch_teacher(struct lb_asker *asker, unsigned k, uint64_t now) {
    struct asked_teacher *teacher = &asker->teachers[k];
    struct lb_detail detail = {0};
    uint64_t next = UINT64_MAX;
    bool lost = teacher->pool.lost_ns != 0;
    if (lost && (teacher->queue || asker->options.on_lost == LB_LOST_RENORMALISE)) {
        next = mind_lost(asker, teacher, now);
    }
    if (teacher->queue || (lost && asker->options.on_lost == LB_LOST_RENORMALISE)) {
        for (int due; (due = lb_pool_probe_due(&teacher->pool, now)) >= 0 &&
                      teacher->pool.replicas[due].state == LB_REPLICA_DOWN;) {
            send_probe(asker, k, due);
            if (teacher->pool.replicas[due].state == LB_REPLICA_DOWN) {
                break; /* no memory for it now */
            }
        }
        uint64_t probe = lb_pool_next_ns(&teacher->pool);
        next = probe < next ? probe : next;
    }
    while (teacher->queue) {
        int replica = lb_pool_pick(&teacher->pool, teacher->queue->avoid);
        if (replica < 0) {
            break;
        }
        enum lb_status status = send_group(asker, k, replica, group_size(teacher), &detail);
        if (status != LB_OK) {
            lb_asker_fail(asker, status, &detail);
            break;
        }
    }
    return next;
}

uint64_t lb_requests_dispatch(struct lb_asker *asker) {
    uint64_t now = lb_now_ns(), next = now + 10 * LB_SECOND_NS;
    for (unsigned k = 0; k < asker->n_teachers; k++) {
        uint64_t then = dispatch_teacher(asker, k, now);
        next = then < next ? then : next;
    }
    return next;
}

void lb_requests_finish(struct lb_asker *asker) {
    for (struct request *request = asker->requests; request; request = request->next) {
        lb_client_cancel(asker->options.http, &request->call);
    }
    pthread_mutex_lock(&asker->lock);
    while (asker->requests) {
        struct request *done = asker->done;
        asker->done = NULL;
        while (done) {
            struct request *next = done->next_done;
            unlink_request(asker, done);
            free_request(done);
            done = next;
        }
        if (asker->requests) {
            pthread_cond_wait(&asker->work, &asker->lock);
        }
    }
    pthread_mutex_unlock(&asker->lock);
}
