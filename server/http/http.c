#include "server/http/http.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "server/http/loop.h"

#include <string.h>
#include <unistd.h>

static enum lb_status start(struct lb_http *http, struct lb_detail *detail) {
    enum lb_status status = lb_codec_start(http->args.codec_threads, &http->codec, detail);
    http->loops = status == LB_OK ? lb_calloc((size_t)http->args.threads, sizeof *http->loops) : NULL;
    if (status == LB_OK && !http->loops) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory while starting HTTP");
    }
    for (int i = 0; i < http->args.threads && status == LB_OK; i++) {
        status = lb_loop_start(&http->loops[i], http, detail);
    }
    return status;
}

enum lb_status lb_http_start(const struct lb_http_args *args, struct lb_http **out,
                             struct lb_detail *detail) {
    struct lb_http *http = lb_calloc(1, sizeof *http);
    if (!http) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting HTTP");
    }
    http->args = *args;
    http->secure = args->tls != NULL;
    atomic_init(&http->draining, false);
    atomic_init(&http->stopping, false);
    atomic_init(&http->connections, 0);
    atomic_init(&http->exchanges, 0);
    pthread_mutex_init(&http->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&http->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    enum lb_status status = start(http, detail);
    if (status != LB_OK) {
        http->args.listen_fd = -1; /* these stay the caller's */
        http->args.tls = NULL;
        lb_http_stop(http);
        return status;
    }
    *out = http;
    return LB_OK;
}

void lb_http_change_tls(struct lb_http *http, struct lb_tls *tls) {
    pthread_mutex_lock(&http->lock);
    struct lb_tls *before = http->args.tls;
    http->args.tls = tls;
    pthread_mutex_unlock(&http->lock);
    lb_tls_release(before);
}

void lb_http_drain(struct lb_http *http) {
    atomic_store(&http->draining, true);
}

bool lb_http_wait_idle(struct lb_http *http, uint64_t deadline_ns) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / LB_SECOND_NS),
                             .tv_nsec = (long)(deadline_ns % LB_SECOND_NS)};
    pthread_mutex_lock(&http->lock);
    int r = 0;
    while (atomic_load(&http->exchanges) > 0 && r == 0) {
        r = pthread_cond_timedwait(&http->idle, &http->lock, &until);
    }
    bool idle = atomic_load(&http->exchanges) == 0;
    pthread_mutex_unlock(&http->lock);
    return idle;
}

unsigned lb_http_exchanges(struct lb_http *http) {
    return atomic_load(&http->exchanges);
}

unsigned lb_http_connections(struct lb_http *http) {
    return atomic_load(&http->connections);
}

void lb_http_stop(struct lb_http *http) {
    if (!http) {
        return;
    }
    /* Nobody gives the codec work any more; then it ends what it has; then nothing is away. */
    atomic_store(&http->stopping, true);
    for (int i = 0; http->loops && i < http->args.threads; i++) {
        lb_loop_join(&http->loops[i]);
    }
    lb_codec_stop(http->codec);
    for (int i = 0; http->loops && i < http->args.threads; i++) {
        lb_loop_finish(&http->loops[i]);
    }
    lb_free(http->loops);
    lb_tls_release(http->args.tls);
    if (http->args.listen_fd >= 0) {
        close(http->args.listen_fd);
    }
    pthread_cond_destroy(&http->idle);
    pthread_mutex_destroy(&http->lock);
    lb_free(http);
}
