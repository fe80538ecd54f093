/* Requests of an asker: which items go together, and to which replica. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/parts.h"
#include "trainer/wire/url.h"

#include <stdio.h>
#include <string.h>

#define LEAST_TOKENS 1024 /* of a request, when there are slots for more but smaller ones */
#define PROBE_TIMEOUT_NS (10 * LB_SECOND_NS)
#define FIRST_TOLD_NS LB_SECOND_NS

/* ---- grouping ---- */

/* How many items from the front make one request: what asks for the same; all slots get their share, within
 * the maxima.
 */
static int64_t group_size(const struct asked_teacher *teacher) {
    unsigned slots = lb_pool_free_slots(&teacher->pool);
    int64_t budget = teacher->queued_tokens / (slots ? slots : 1);
    budget = budget < LEAST_TOKENS ? LEAST_TOKENS : budget;
    budget = budget > teacher->most_tokens ? teacher->most_tokens : budget;
    int64_t n = 0, longest = 0, rows = 0;
    uint64_t bytes = 0;
    const struct item *first = teacher->queue;
    int64_t most = lb_dialect_most(teacher->is.dialect, &teacher->is.info, &first->spec);
    for (const struct item *item = first; item && n < most; item = item->next_in_queue) {
        if (!lb_spec_same(&item->spec, &first->spec) ||
            !lb_extra_alike(item->sample.extra, first->sample.extra)) {
            break;
        }
        if (n > 0 && (first->alone || item->alone)) {
            break;
        }
        longest = item->sample.n > longest ? item->sample.n : longest;
        rows = item->sample.n - item->sample.first > rows ? item->sample.n - item->sample.first : rows;
        bytes = lb_dialect_answer_bytes(teacher->is.dialect, &teacher->is.info, &first->spec, rows, longest) *
                (uint64_t)(n + 1);
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
    lb_free(request->path);
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

static enum lb_status make_request(struct lb_asker *asker, unsigned k, int replica, const char *path,
                                   int64_t n, struct request **out, struct lb_detail *detail) {
    const struct asked_teacher *teacher = &asker->teachers[k];
    struct request *request = lb_calloc(1, sizeof *request);
    if (!request) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request to teacher %s", teacher->is.name);
    }
    lb_call_init(&request->call, teacher->is.urls[replica], path, teacher->is.token);
    request->call.done = on_done;
    request->call.user = request;
    request->call.timeout_ns = asker->options.timeout_ns;
    snprintf(request->id, sizeof request->id, "%016llx-%llu", (unsigned long long)asker->options.seed,
             (unsigned long long)asker->n_requests++);
    request->number = asker->n_requests;
    request->call.id = request->id;
    request->asker = asker;
    request->teacher = k;
    request->replica = replica;
    request->n = n;
    request->items = lb_calloc(n ? (size_t)n : 1, sizeof *request->items);
    request->samples = lb_calloc(n ? (size_t)n : 1, sizeof *request->samples);
    if (!request->items || !request->samples) {
        free_request(request);
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request to teacher %s", teacher->is.name);
    }
    *out = request;
    return LB_OK;
}

/* One about the queue's next question, to a path of the dialect's. */
static enum lb_status make_next(struct lb_asker *asker, unsigned k, int replica, enum lb_path which,
                                int64_t n, struct request **out, struct lb_detail *detail) {
    const struct asked_teacher *teacher = &asker->teachers[k];
    char *path = NULL;
    enum lb_status status =
        teacher->is.dialect->path(&teacher->is.info, &teacher->queue->spec, which, &path, detail);
    status = status == LB_OK ? make_request(asker, k, replica, path, n, out, detail) : status;
    if (status != LB_OK) {
        lb_free(path);
        return status;
    }
    (*out)->path = path;
    return LB_OK;
}

static enum lb_status send_group(struct lb_asker *asker, unsigned k, int replica, int64_t n,
                                 struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[k];
    struct request *request = NULL;
    enum lb_status status = make_next(asker, k, replica, LB_PATH_ASK, n, &request, detail);
    if (status != LB_OK) {
        return status;
    }
    for (int64_t i = 0; i < n; i++) {
        struct item *item = lb_item_unqueue(teacher);
        request->items[i] = item;
        request->samples[i] = &item->sample;
        request->call.fresh = request->call.fresh || item->bad > 0;
    }
    struct lb_arena scratch;
    lb_arena_init(&scratch, LB_MAX_BODY_BYTES);
    memcpy(teacher->is.info.model_id, teacher->ids[replica], sizeof teacher->ids[replica]);
    status = teacher->is.dialect->build(&teacher->is.info, &request->items[0]->spec, request->samples, n,
                                        asker->options.timeout_ns / 1000, &scratch, &request->asked, detail);
    lb_arena_finish(&scratch);
    if (status != LB_OK) {
        free_request(request);
        return status;
    }
    request->call.body = request->asked.body.data;
    request->call.body_bytes = request->asked.body.len;
    request->call.json_bytes = request->asked.json_bytes;
    uint64_t most = LB_MAX_JSON_BYTES +
                    (uint64_t)n * lb_dialect_answer_bytes(teacher->is.dialect, &teacher->is.info,
                                                          &request->items[0]->spec, request->asked.rows,
                                                          request->asked.longest);
    request->call.max_bytes = most < LB_MAX_RESPONSE_BYTES ? most : LB_MAX_RESPONSE_BYTES;
    pthread_mutex_lock(&asker->lock);
    asker->stats.requests++;
    asker->stats.bytes_sent += request->asked.body.len;
    pthread_mutex_unlock(&asker->lock);
    lb_pool_sent(&teacher->pool, replica);
    link_request(asker, request);
    lb_client_start(asker->options.http, &request->call);
    return LB_OK;
}

static enum lb_status send_probe(struct lb_asker *asker, unsigned k, int replica, struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[k];
    struct request *request = NULL;
    enum lb_status status = make_request(asker, k, replica, teacher->info_path, 0, &request, detail);
    if (status != LB_OK) {
        return status;
    }
    request->probe = true;
    request->call.max_bytes = LB_MAX_INFO_BYTES;
    if (request->call.timeout_ns > PROBE_TIMEOUT_NS) {
        request->call.timeout_ns = PROBE_TIMEOUT_NS;
    }
    lb_pool_probing(&teacher->pool, replica);
    link_request(asker, request);
    lb_client_start(asker->options.http, &request->call);
    return LB_OK;
}

/* Whether the next question names a map that the replica was not sent yet. */
static bool lacks_map(const struct asked_teacher *teacher, int replica) {
    return teacher->queue->spec.vocab_map[0] != '\0' && teacher->map_number[replica] == 0;
}

static enum lb_status send_map(struct lb_asker *asker, unsigned k, int replica, struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[k];
    const struct lb_vocab_map *map = teacher->is.map;
    struct request *request = NULL;
    enum lb_status status = make_next(asker, k, replica, LB_PATH_VOCAB_MAP, 0, &request, detail);
    if (status != LB_OK) {
        return status;
    }
    request->brings_map = true;
    request->call.body = map->kept;
    request->call.body_bytes = (size_t)map->n * sizeof *map->kept;
    request->call.put = true;
    request->call.max_bytes = LB_MAX_INFO_BYTES;
    pthread_mutex_lock(&asker->lock);
    asker->stats.bytes_sent += request->call.body_bytes;
    pthread_mutex_unlock(&asker->lock);
    teacher->map_coming |= UINT64_C(1) << replica;
    lb_pool_sent(&teacher->pool, replica);
    link_request(asker, request);
    lb_client_start(asker->options.http, &request->call);
    return LB_OK;
}

void lb_requests_land(struct lb_asker *asker, struct request *request) {
    unlink_request(asker, request);
    if (request->probe) {
        lb_landing_probe(asker, request);
    } else if (request->brings_map) {
        lb_landing_map(asker, request);
    } else {
        lb_landing_answer(asker, request);
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

/* Whether a lost teacher may still come back: give_up_after has not passed, or what was tried before it had
 * passed is under way. Replicas that are tried in turn, and hang, don't prolong it for ever. Where the run
 * goes on without it, it is tried later too, so that it can join in again; but what failed is not waited for
 * once more (that stands in front of the queue). */
static bool may_come_back(const struct lb_asker *asker, const struct asked_teacher *teacher, uint64_t now) {
    uint64_t patience = teacher->pool.lost_ns + asker->options.give_up_ns;
    bool failed = teacher->queue && teacher->queue->avoid >= 0;
    bool waits = now < patience + asker->options.timeout_ns ||
                 (asker->options.on_lost == LB_LOST_RENORMALISE && !failed);
    return now < patience || (waits && lb_pool_trying(&teacher->pool));
}

/* Whether every teacher has been lost for longer than one may be: nothing would be left to learn from. */
static bool none_left(const struct lb_asker *asker, uint64_t now) {
    for (unsigned k = 0; k < asker->n_teachers; k++) {
        const struct asked_teacher *teacher = &asker->teachers[k];
        if (!teacher->pool.lost_ns || may_come_back(asker, teacher, now)) {
            return false;
        }
    }
    return true;
}

/* A local: teacher whose files were gone when the run began: it was begun with what the cache remembers, and
 * there is no address at which it could come back. */
static bool is_gone(const struct lb_asker *asker, const struct asked_teacher *teacher) {
    return !teacher->is.local && lb_url_scheme(teacher->is.urls[0], NULL) == LB_SCHEME_LOCAL &&
           asker->options.on_lost != LB_LOST_RENORMALISE;
}

/* Applies the recipe's on_lost_teacher. Returns when something is to be said or done next. */
static uint64_t mind_lost(struct lb_asker *asker, struct asked_teacher *teacher, uint64_t now) {
    struct lb_detail detail = {0};
    uint64_t lost = teacher->pool.lost_ns, patience = lost + asker->options.give_up_ns;
    if (teacher->is.local && lb_local_check(teacher->is.local, &detail)) {
        lb_asker_fail(asker, LB_E_UNAVAILABLE, &detail);
        return UINT64_MAX;
    }
    if (is_gone(asker, teacher)) {
        size_t scheme;
        lb_url_scheme(teacher->is.urls[0], &scheme);
        lb_fail(
            &detail, LB_E_UNAVAILABLE,
            "teacher %s: there is no model at %s any more, and the cache lacks an answer of it: put it back, "
            "then go on with --resume",
            teacher->is.name, teacher->is.urls[0] + scheme);
        lb_asker_fail(asker, LB_E_UNAVAILABLE, &detail);
        return UINT64_MAX;
    }
    uint64_t tell = teacher->told_ns ? teacher->told_ns + LB_TOLD_EVERY_NS : lost + FIRST_TOLD_NS;
    if (now >= tell) {
        tell_lost(asker, teacher, now);
        tell = now + LB_TOLD_EVERY_NS;
    }
    if (asker->options.on_lost == LB_LOST_WAIT || asker->options.give_up_ns == 0) {
        return tell;
    }
    if (may_come_back(asker, teacher, now)) {
        uint64_t next = now < patience ? patience : patience + asker->options.timeout_ns;
        return now < next && next < tell ? next : tell;
    }
    if (asker->options.on_lost == LB_LOST_STOP) {
        enum lb_status status = teacher->last_error.code ? teacher->last_error.code : LB_E_UNAVAILABLE;
        lb_fail(&detail, status,
                "teacher %s has not answered for %.0f s (on_lost_teacher: stop, give_up_after): %s",
                teacher->is.name, (double)(now - lost) / (double)LB_SECOND_NS, teacher->last_error.text);
        lb_asker_fail(asker, status, &detail);
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
        lb_item_settle(asker, lb_item_unqueue(teacher), true);
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
            enum lb_status status = send_probe(asker, k, due, &detail);
            if (status != LB_OK) {
                lb_asker_fail(asker, status, &detail);
                break;
            }
        }
        uint64_t probe = lb_pool_next_ns(&teacher->pool);
        next = probe < next ? probe : next;
    }
    for (int64_t passed = 0; teacher->queue;) {
        bool mapped = teacher->queue->spec.vocab_map[0] != '\0';
        int replica = lb_pool_pick(&teacher->pool, teacher->queue->avoid,
                                   teacher->queue->refused | (mapped ? teacher->map_coming : 0));
        if (replica < 0 && teacher->queue->refused && passed++ < LB_MAX_SEQUENCES) {
            lb_item_queue(asker, lb_item_unqueue(teacher),
                          false); /* others need not wait for the same replica */
            continue;
        }
        if (replica < 0) {
            break;
        }
        enum lb_status status = lacks_map(teacher, replica)
                                    ? send_map(asker, k, replica, &detail)
                                    : send_group(asker, k, replica, group_size(teacher), &detail);
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
