#include "server/api/trail.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/sha256.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define PATH_BYTES 512 /* of the log's; longer ones are cut */

/* ---- ids ---- */

static bool is_visible(char c) {
    return c > ' ' && c < 0x7f && c != '"' && c != '\\';
}

bool lb_request_id_is_good(const char *id) {
    size_t n = 0;
    while (is_visible(id[n])) {
        n++;
    }
    return n > 0 && n <= LB_MAX_ID && id[n] == '\0';
}

/* n lower-case hex digits, not all of them 0 where zero says so. */
static bool is_hex(const char *text, size_t n, bool may_be_zero) {
    return lb_begins_hex(text, n) && (may_be_zero || strspn(text, "0") < n);
}

bool lb_traceparent_parse(const char *header, char trace_id[LB_TRACE_ID], char parent_id[LB_SPAN_ID]) {
    const size_t trace = 3, parent = 36, flags = 53, end = 55; /* version-trace-parent-flags */
    if (strlen(header) < end || header[trace - 1] != '-' || header[parent - 1] != '-' ||
        header[flags - 1] != '-') {
        return false;
    }
    if (!is_hex(header, 2, true) || strncmp(header, "ff", 2) == 0 || !is_hex(header + trace, 32, false) ||
        !is_hex(header + parent, 16, false) || !is_hex(header + flags, 2, true)) {
        return false;
    }
    /* Later versions may say more, behind another dash. */
    if (header[end] != '\0' && (strncmp(header, "00", 2) == 0 || header[end] != '-')) {
        return false;
    }
    memcpy(trace_id, header + trace, LB_TRACE_ID - 1);
    memcpy(parent_id, header + parent, LB_SPAN_ID - 1);
    trace_id[LB_TRACE_ID - 1] = parent_id[LB_SPAN_ID - 1] = '\0';
    return true;
}

static const char *make_id(struct lb_exchange *x) {
    uint8_t random[16] = {0};
    char hex[2 * sizeof random + 1];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        memcpy(random, &x->started_ns, sizeof x->started_ns);
    }
    lb_hex(random, sizeof random, hex);
    return lb_arena_strdup(&x->arena, hex);
}

void lb_trail_begin(struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    const char *id = lb_exchange_header(x, "X-Request-Id"), *parent = lb_exchange_header(x, "traceparent");
    char trace_id[LB_TRACE_ID], parent_id[LB_SPAN_ID];
    visit->request_id = id && lb_request_id_is_good(id) ? lb_arena_strdup(&x->arena, id) : make_id(x);
    if (parent && lb_traceparent_parse(parent, trace_id, parent_id)) {
        visit->trace = lb_arena_printf(&x->arena, " trace_id=\"%s\" parent_id=\"%s\"", trace_id, parent_id);
    }
}

/* ---- the log ---- */

/* What is not visible and quotes become %XX: no path ends its quotes, nor the line. A % in it is of an escape
 * that was not decoded (server/http/head.h), and stays. */
static void escape_path(const char *path, char out[PATH_BYTES]) {
    size_t n = 0;
    for (; *path && n + 4 < PATH_BYTES; path++) {
        if (is_visible(*path)) {
            out[n++] = *path;
        } else {
            n += (size_t)snprintf(out + n, PATH_BYTES - n, "%%%02X", (unsigned char)*path);
        }
    }
    out[n] = '\0';
}

static double ms(uint64_t from_ns, uint64_t to_ns) {
    return to_ns > from_ns ? (double)(to_ns - from_ns) / LB_MS_NS : 0;
}

/* Of a request that was queued; batches: of one that only a job was. */
static void put_work(const struct lb_visit *visit, char *out, size_t size) {
    struct lb_visit_work work = lb_visit_work(visit);
    bool written = visit->writing && visit->writing->submitted_ns;
    char batches[24] = "";
    if (work.queued_ns == 0) {
        return;
    }
    if (!written) {
        snprintf(batches, sizeof batches, " batches=%d", work.n_batches);
    }
    snprintf(out, size, " sequences=%lld tokens=%lld%s queue_ms=%.3f compute_ms=%.3f", (long long)work.n_seqs,
             (long long)work.tokens, batches, (double)work.waited_ns / LB_MS_NS,
             (double)work.compute_ns / LB_MS_NS);
}

void lb_trail_log(const struct lb_exchange *x, const char *model, const char *endpoint, bool complete,
                  uint64_t now) {
    const struct lb_visit *visit = x->user;
    bool quiet =
        visit && visit->match.route &&
        (visit->match.route->access == LB_ACCESS_OPEN || visit->match.route->access == LB_ACCESS_METRICS);
    char path[PATH_BYTES], numbers[192] = "", broken[32] = "";
    escape_path(x->path, path);
    if (visit) {
        put_work(visit, numbers, sizeof numbers);
    }
    if (visit && visit->stream_error) {
        snprintf(broken, sizeof broken, " stream_error=%d", visit->stream_error);
    }
    lb_log(quiet ? LB_LOG_DEBUG : LB_LOG_INFO, "request",
           "peer=%s client=\"%s\" method=%.32s path=\"%s\" endpoint=%s model=\"%s\" status=%d in_bytes=%zu "
           "out_bytes=%zu total_ms=%.3f%s request_id=\"%s\"%s%s%s",
           x->peer[0] ? x->peer : "local", visit && visit->bearer ? visit->bearer : "", x->method, path,
           endpoint, model, x->reply.status, x->received_bytes, x->sent_bytes, ms(x->started_ns, now),
           numbers, visit && visit->request_id ? visit->request_id : "",
           visit && visit->trace ? visit->trace : "", complete ? "" : " lost=true", broken);
}
