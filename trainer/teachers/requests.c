/* Requests of an asker: which items go together, to which replica, and what becomes of them. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/parts.h"
#include "trainer/wire/metadata.h"

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

void lb_flights_queue(struct lb_asker *asker, struct item *item, bool first) {
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

/* How many items from the front make one request: all slots get their share, within the maxima. */
static int64_t group_size(const struct asked_teacher *teacher) {
    unsigned slots = lb_pool_free_slots(&teacher->pool);
    int64_t budget = teacher->queued_tokens / (slots ? slots : 1);
    budget = budget < LEAST_TOKENS ? LEAST_TOKENS : budget;
    budget = budget > teacher->most_tokens ? teacher->most_tokens : budget;
    int64_t n = 0, longest = 0;
    uint64_t bytes = 0;
    for (const struct item *item = teacher->queue; item && n < LB_MAX_SEQUENCES; item = item->next_in_queue) {
        longest = item->sample.n > longest ? item->sample.n : longest;
        bytes = lb_ask_answer_bytes(&teacher->is.info, &teacher->spec, longest) * (uint64_t)(n + 1);
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
    struct flight *flight = call->user;
    struct lb_asker *asker = flight->asker;
    pthread_mutex_lock(&asker->lock);
    flight->next_done = asker->done;
    asker->done = flight;
    asker->called = true;
    pthread_cond_signal(&asker->work);
    pthread_mutex_unlock(&asker->lock);
}

static void free_flight(struct flight *flight) {
    lb_call_finish(&flight->call);
    lb_asked_finish(&flight->asked);
    lb_free(flight->items);
    lb_free(flight->samples);
    lb_free(flight);
}

static void link_flight(struct lb_asker *asker, struct flight *flight) {
    flight->next = asker->flights;
    if (flight->next) {
        flight->next->previous = flight;
    }
    asker->flights = flight;
}

static void unlink_flight(struct lb_asker *asker, struct flight *flight) {
    if (flight->previous) {
        flight->previous->next = flight->next;
    } else {
        asker->flights = flight->next;
    }
    if (flight->next) {
        flight->next->previous = flight->previous;
    }
}

static struct flight *make_flight(struct lb_asker *asker, unsigned k, int replica, const char *path,
                                  int64_t n) {
    struct flight *flight = lb_calloc(1, sizeof *flight);
    if (!flight) {
        return NULL;
    }
    const struct asked_teacher *teacher = &asker->teachers[k];
    lb_call_init(&flight->call, teacher->is.urls[replica], path, teacher->is.token);
    flight->call.done = on_done;
    flight->call.user = flight;
    flight->call.timeout_ns = asker->options.timeout_ns;
    snprintf(flight->id, sizeof flight->id, "%016llx-%llu", (unsigned long long)asker->options.seed,
             (unsigned long long)asker->n_flights++);
    flight->call.id = flight->id;
    flight->asker = asker;
    flight->teacher = k;
    flight->replica = replica;
    flight->n = n;
    flight->items = lb_calloc(n ? (size_t)n : 1, sizeof *flight->items);
    flight->samples = lb_calloc(n ? (size_t)n : 1, sizeof *flight->samples);
    if (!flight->items || !flight->samples) {
        free_flight(flight);
        return NULL;
    }
    return flight;
}

static enum lb_status send_group(struct lb_asker *asker, unsigned k, int replica, int64_t n,
                                 struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[k];
    struct flight *flight = make_flight(asker, k, replica, teacher->infer_path, n);
    if (!flight) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request to teacher %s", teacher->is.name);
    }
    for (int64_t i = 0; i < n; i++) {
        struct item *item = unqueue(teacher);
        flight->items[i] = item;
        flight->samples[i] = &item->sample;
        flight->call.fresh = flight->call.fresh || item->bad > 0;
    }
    struct lb_arena scratch;
    lb_arena_init(&scratch, LB_MAX_BODY_BYTES);
    enum lb_status status = lb_ask_build(&teacher->is.info, &teacher->spec, flight->samples, n,
                                         asker->options.timeout_ns / 1000, &scratch, &flight->asked, detail);
    lb_arena_finish(&scratch);
    if (status) {
        free_flight(flight);
        return status;
    }
    flight->call.body = flight->asked.body.data;
    flight->call.body_bytes = flight->asked.body.len;
    flight->call.json_bytes = (int64_t)flight->asked.json_bytes;
    pthread_mutex_lock(&asker->lock);
    asker->stats.requests++;
    asker->stats.bytes_sent += flight->asked.body.len;
    pthread_mutex_unlock(&asker->lock);
    lb_pool_sent(&teacher->pool, replica);
    link_flight(asker, flight);
    lb_client_start(asker->options.http, &flight->call);
    return LB_OK;
}

static void send_probe(struct lb_asker *asker, unsigned k, int replica) {
    struct asked_teacher *teacher = &asker->teachers[k];
    struct flight *flight = make_flight(asker, k, replica, teacher->info_path, 0);
    if (!flight) {
        return; /* it stays due */
    }
    flight->probe = true;
    flight->call.max_bytes = MAX_INFO_BYTES;
    if (flight->call.timeout_ns > PROBE_TIMEOUT_NS) {
        flight->call.timeout_ns = PROBE_TIMEOUT_NS;
    }
    lb_pool_probing(&teacher->pool, replica);
    link_flight(asker, flight);
    lb_client_start(asker->options.http, &flight->call);
}

/* ---- landing ---- */

static void count(struct lb_asker *asker, const struct flight *flight, bool good) {
    uint64_t tokens = 0;
    for (int64_t i = 0; i < flight->n; i++) {
        tokens += (uint64_t)flight->samples[i]->n;
    }
    pthread_mutex_lock(&asker->lock);
    asker->stats.bytes_received += flight->call.answer.len;
    if (good) {
        asker->stats.tokens_answered += tokens;
    } else {
        asker->stats.failures++;
    }
    pthread_mutex_unlock(&asker->lock);
}

static void store(struct lb_asker *asker, const struct flight *flight) {
    size_t n = (size_t)flight->n;
    if (!asker->options.cache) {
        return;
    }
    struct lb_detail detail = {0};
    uint8_t(*keys)[LB_SHA256_BYTES] = lb_malloc_array(n, sizeof *keys);
    const struct lb_answer **answers = lb_malloc_array(n, sizeof *answers);
    enum lb_status status = LB_E_NOMEM;
    if (keys && answers) {
        for (size_t i = 0; i < n; i++) {
            memcpy(keys[i], flight->items[i]->key, LB_SHA256_BYTES);
            answers[i] = &flight->items[i]->answer;
        }
        status =
            lb_cache_put(asker->options.cache, (const uint8_t(*)[LB_SHA256_BYTES])keys, answers, n, &detail);
    }
    if (status && !asker->cache_complained) { /* a full disk costs speed, not the run */
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
static void ask_again(struct lb_asker *asker, struct flight *flight, bool bad, bool counts) {
    for (int64_t i = flight->n - 1; i >= 0; i--) {
        flight->items[i]->avoid = flight->replica;
        flight->items[i]->bad += bad;
        lb_flights_queue(asker, flight->items[i], true);
    }
    if (counts) {
        pthread_mutex_lock(&asker->lock);
        asker->stats.retries++;
        pthread_mutex_unlock(&asker->lock);
    }
}

/* Unpacks a 200. LB_OK when all items have their answers. */
static enum lb_status unpack(struct lb_asker *asker, struct flight *flight, bool *other,
                             struct lb_detail *detail) {
    const struct asked_teacher *teacher = &asker->teachers[flight->teacher];
    size_t n = (size_t)flight->n;
    struct lb_answer *answers = lb_calloc(n, sizeof *answers);
    struct lb_arena **arenas = lb_calloc(n, sizeof *arenas);
    struct lb_arena scratch;
    const struct lb_ask_reply reply = {.body = flight->call.answer.data ? flight->call.answer.data : "",
                                       .len = flight->call.answer.len,
                                       .json_bytes = flight->call.answer_json_bytes,
                                       .digest = flight->call.digest};
    lb_arena_init(&scratch, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = LB_E_NOMEM;
    if (!answers || !arenas) {
        lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of teacher %s", teacher->is.name);
    } else {
        for (size_t i = 0; i < n; i++) {
            arenas[i] = &flight->items[i]->arena;
        }
        status = lb_ask_split(&teacher->is.info, &teacher->spec, &flight->asked, flight->samples, &reply,
                              &scratch, arenas, answers, other, detail);
    }
    for (size_t i = 0; i < n && !status; i++) {
        flight->items[i]->answer = answers[i];
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
static bool is_fatal(const struct flight *flight, enum lb_status status) {
    int code = flight->call.status ? 0 : flight->call.code;
    if (code == 404) { /* the version is gone: a probe will tell what is there instead */
        return false;
    }
    return status == LB_E_NOMEM || code == 501 || (code >= 300 && code < 500 && !is_later(code));
}

/* Whether the teacher answered, but wrongly: not to be borne forever. */
static bool is_bad(const struct flight *flight) {
    if (flight->call.status) {
        return flight->call.status == LB_E_LIMIT || flight->call.status == LB_E_FORMAT;
    }
    return !is_later(flight->call.code);
}

static void land_probe(struct lb_asker *asker, struct flight *flight) {
    struct asked_teacher *teacher = &asker->teachers[flight->teacher];
    char where[400];
    struct lb_detail detail = {0};
    struct lb_teacher_info info;
    snprintf(where, sizeof where, "teacher %s at %s", teacher->is.name, flight->call.base);
    enum lb_status status = lb_call_check(&flight->call, where, &detail);
    if (!status) {
        status = lb_info_parse(flight->call.answer.data ? flight->call.answer.data : "",
                               flight->call.answer.len, where, &info, &detail);
    }
    if (!status && strcmp(info.fingerprint, teacher->is.info.fingerprint)) {
        lb_fail(&detail, LB_E_MISMATCH,
                "%s serves another model now: fingerprint %s, this run began with %s; serve the same model "
                "again, or "
                "start a new run",
                where, info.fingerprint, teacher->is.info.fingerprint);
        lb_asker_fail(asker, LB_E_MISMATCH, &detail);
        return;
    }
    lb_pool_probed(&teacher->pool, flight->replica, !status, lb_now_ns(), flight->call.retry_after_ns);
    if (status) {
        teacher->last_error = detail;
        if (is_fatal(flight, status)) {
            lb_asker_fail(asker, status, &detail);
        }
    }
}

/* What to do about an answer that is none. */
static void land_failed(struct lb_asker *asker, struct flight *flight, enum lb_status status, bool other,
                        struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[flight->teacher];
    count(asker, flight, false);
    teacher->last_error = *detail;
    if (!flight->call.status && flight->call.code == 413 && flight->n > 1) { /* smaller ones, then */
        lb_pool_answered(&teacher->pool, flight->replica);
        teacher->most_tokens = flight->asked.n * flight->asked.longest / 2;
        ask_again(asker, flight, false, true);
        return;
    }
    if (other || is_fatal(flight, status)) {
        lb_pool_dropped(&teacher->pool, flight->replica);
        lb_asker_fail(asker, status, detail);
        return;
    }
    bool bad = is_bad(flight);
    if (bad && flight->items[0]->bad + 1 >= MAX_BAD_ANSWERS) {
        lb_detail_prefix(detail, "wrong answers %u times in a row, the last", MAX_BAD_ANSWERS);
        lb_pool_dropped(&teacher->pool, flight->replica);
        lb_asker_fail(asker, status, detail);
        return;
    }
    lb_pool_failed(&teacher->pool, flight->replica, lb_now_ns(), flight->call.retry_after_ns);
    ask_again(asker, flight, bad, true);
}

static void land_infer(struct lb_asker *asker, struct flight *flight) {
    struct asked_teacher *teacher = &asker->teachers[flight->teacher];
    bool other = false;
    char where[400];
    struct lb_detail detail = {0};
    snprintf(where, sizeof where, "teacher %s at %s", teacher->is.name, flight->call.base);
    enum lb_status status = lb_call_check(&flight->call, where, &detail);
    if (status == LB_E_CANCELLED) {
        lb_pool_dropped(&teacher->pool, flight->replica);
        ask_again(asker, flight, false, false);
        return;
    }
    if (!status) {
        status = unpack(asker, flight, &other, &detail);
        if (status) {
            lb_detail_prefix(&detail, "%s", where);
        }
    }
    if (status) {
        land_failed(asker, flight, status, other, &detail);
        return;
    }
    lb_pool_answered(&teacher->pool, flight->replica);
    be_back(teacher);
    count(asker, flight, true);
    for (int64_t i = 0; i < flight->n; i++) {
        lb_item_settle(asker, flight->items[i], false);
    }
    store(asker,
          flight); /* after the training loop has been served; items live until this thread frees them */
}

void lb_flights_land(struct lb_asker *asker, struct flight *flight) {
    unlink_flight(asker, flight);
    if (flight->probe) {
        land_probe(asker, flight);
    } else {
        land_infer(asker, flight);
    }
    free_flight(flight);
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
        if (status) {
            lb_asker_fail(asker, status, &detail);
            break;
        }
    }
    return next;
}

uint64_t lb_flights_dispatch(struct lb_asker *asker) {
    uint64_t now = lb_now_ns(), next = now + 10 * LB_SECOND_NS;
    for (unsigned k = 0; k < asker->n_teachers; k++) {
        uint64_t then = dispatch_teacher(asker, k, now);
        next = then < next ? then : next;
    }
    return next;
}

void lb_flights_finish(struct lb_asker *asker) {
    for (struct flight *flight = asker->flights; flight; flight = flight->next) {
        lb_client_cancel(asker->options.http, &flight->call);
    }
    pthread_mutex_lock(&asker->lock);
    while (asker->flights) {
        struct flight *done = asker->done;
        asker->done = NULL;
        while (done) {
            struct flight *next = done->next_done;
            unlink_flight(asker, done);
            free_flight(done);
            done = next;
        }
        if (asker->flights) {
            pthread_cond_wait(&asker->work, &asker->lock);
        }
    }
    pthread_mutex_unlock(&asker->lock);
}
