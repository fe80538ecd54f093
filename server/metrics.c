#include "server/metrics.h"

#include "common/base/mem.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MAX_SERIES 4096
#define MAX_BUCKETS 16

static const double second_buckets[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                        0.5,   1,      2.5,   5,    10,    30,   60};
static const double token_buckets[] = {1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536};
static const double sequence_buckets[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

static const struct family {
    const char *name, *help;
    const char *labels[LB_METRIC_MAX_LABELS];
    const double *buckets; /* NULL: a counter */
    int n_buckets;
} families[LB_METRICS] = {
    [LB_METRIC_REQUESTS] =
        {"limbeckd_requests_total", "Requests answered.", {"model", "endpoint", "code"}, NULL, 0},
    [LB_METRIC_DURATION] = {"limbeckd_request_duration_seconds",
                            "From the request's first byte to its answer's last.",
                            {"model", "endpoint"},
                            second_buckets,
                            sizeof second_buckets / sizeof *second_buckets},
    [LB_METRIC_REQUEST_BYTES] =
        {"limbeckd_request_bytes_total", "Bytes of request bodies as received.", {"endpoint"}, NULL, 0},
    [LB_METRIC_RESPONSE_BYTES] = {"limbeckd_response_bytes_total",
                                  "Bytes of answers' bodies as sent, by content encoding.",
                                  {"encoding"},
                                  NULL,
                                  0},
    [LB_METRIC_TOKENS] = {"limbeckd_tokens_total", "Tokens that went through the model.", {"model"}, NULL, 0},
    [LB_METRIC_ASKED_TOKENS] = {"limbeckd_asked_tokens_total",
                                "Tokens of the sequences that were answered: of those below, and those that "
                                "went through the model.",
                                {"model"},
                                NULL,
                                0},
    [LB_METRIC_JOINED_TOKENS] =
        {"limbeckd_joined_tokens_total",
         "Tokens of sequences that shared the way through the model with an equal one of another request.",
         {"model"},
         NULL,
         0},
    [LB_METRIC_KNOWN_TOKENS] = {"limbeckd_known_tokens_total",
                                "Tokens of sequences whose states were kept from earlier requests.",
                                {"model"},
                                NULL,
                                0},
    [LB_METRIC_KNOWN_DROPPED] = {"limbeckd_known_sequences_dropped_total",
                                 "Sequences whose states were dropped to make room for others.",
                                 {"model"},
                                 NULL,
                                 0},
    [LB_METRIC_SEQUENCES] =
        {"limbeckd_sequences_total", "Sequences that went through the model.", {"model"}, NULL, 0},
    [LB_METRIC_BATCH_TOKENS] = {"limbeckd_batch_tokens",
                                "Tokens per batch.",
                                {"model"},
                                token_buckets,
                                sizeof token_buckets / sizeof *token_buckets},
    [LB_METRIC_BATCH_SEQS] = {"limbeckd_batch_sequences",
                              "Sequences per batch.",
                              {"model"},
                              sequence_buckets,
                              sizeof sequence_buckets / sizeof *sequence_buckets},
    [LB_METRIC_BATCH_SECONDS] = {"limbeckd_batch_duration_seconds",
                                 "Time to compute one batch; its sum is the time spent computing.",
                                 {"model"},
                                 second_buckets,
                                 sizeof second_buckets / sizeof *second_buckets},
    [LB_METRIC_WRITING] =
        {"limbeckd_writing_seconds_total", "Time spent computing texts token by token.", {"model"}, NULL, 0},
    [LB_METRIC_QUEUE_WAIT] = {"limbeckd_queue_wait_seconds",
                              "From entering the queue to the first batch.",
                              {"model"},
                              second_buckets,
                              sizeof second_buckets / sizeof *second_buckets},
    [LB_METRIC_EXPIRED] = {"limbeckd_deadline_expired_total",
                           "Requests whose deadline passed before their answer.",
                           {"model"},
                           NULL,
                           0},
};

/* Made once and never freed before the end; its numbers are added to without a lock. */
struct series {
    char *labels; /* `model="m",endpoint="infer"` */
    _Atomic double sum;
    atomic_ullong count, buckets[MAX_BUCKETS]; /* not cumulative until written */
    _Atomic(struct series *) next;
};

struct lb_metrics {
    _Atomic(struct series *) series[LB_METRICS]; /* oldest first */
    pthread_mutex_t lock;                        /* for making one */
    size_t total;
    atomic_size_t dropped;
};

struct lb_metrics *lb_metrics_create(void) {
    struct lb_metrics *metrics = lb_calloc(1, sizeof *metrics);
    if (metrics) {
        pthread_mutex_init(&metrics->lock, NULL);
    }
    return metrics;
}

void lb_metrics_destroy(struct lb_metrics *metrics) {
    if (!metrics) {
        return;
    }
    for (int f = 0; f < LB_METRICS; f++) {
        for (struct series *s = atomic_load(&metrics->series[f]), *next; s; s = next) {
            next = atomic_load(&s->next);
            lb_free(s->labels);
            lb_free(s);
        }
    }
    pthread_mutex_destroy(&metrics->lock);
    lb_free(metrics);
}

/* A label's value with the three escapes of the format. */
static void put_value(struct lb_buf *buf, const char *value) {
    for (; *value; value++) {
        if (*value == '\n') {
            lb_buf_append(buf, "\\n", 2);
            continue;
        }
        if (*value == '"' || *value == '\\') {
            lb_buf_append(buf, "\\", 1);
        }
        lb_buf_append(buf, value, 1);
    }
}

static void put_labels(struct lb_buf *buf, const struct family *family, const char *const *values) {
    for (int i = 0; i < LB_METRIC_MAX_LABELS && family->labels[i]; i++) {
        lb_buf_printf(buf, "%s%s=\"", i ? "," : "", family->labels[i]);
        put_value(buf, values[i] ? values[i] : "");
        lb_buf_append(buf, "\"", 1);
    }
}

/* The series of these labels among those from *at on, NULL when it isn't there; *at is then where a new one
 * goes. */
static struct series *look(_Atomic(struct series *) **at, const char *labels) {
    struct series *s;
    while ((s = atomic_load(*at)) != NULL) {
        if (strcmp(s->labels, labels) == 0) {
            return s;
        }
        *at = &s->next;
    }
    return NULL;
}

/* Made when new; NULL when there is no room for another. */
static struct series *find(struct lb_metrics *metrics, enum lb_metric metric, const char *labels) {
    _Atomic(struct series *) *at = &metrics->series[metric];
    struct series *s = look(&at, labels);
    if (s) {
        return s;
    }
    pthread_mutex_lock(&metrics->lock);
    s = look(&at, labels); /* somebody may have been faster */
    if (!s && metrics->total < MAX_SERIES) {
        s = lb_calloc(1, sizeof *s);
        char *copy = s ? lb_strdup(labels) : NULL;
        if (copy) {
            s->labels = copy;
            metrics->total++;
            atomic_store(at, s);
        } else {
            lb_free(s);
            s = NULL;
        }
    }
    pthread_mutex_unlock(&metrics->lock);
    return s;
}

void lb_metrics_add(struct lb_metrics *metrics, enum lb_metric metric, const char *const *labels,
                    double amount) {
    if (!metrics) {
        return;
    }
    const struct family *family = &families[metric];
    assert(family->n_buckets <= MAX_BUCKETS);
    struct lb_buf text;
    lb_buf_init(&text, 4096);
    put_labels(&text, family, labels);
    struct series *s = lb_buf_status(&text) == LB_OK ? find(metrics, metric, text.data) : NULL;
    lb_buf_finish(&text);
    if (!s) {
        atomic_fetch_add(&metrics->dropped, 1);
        return;
    }
    double sum = atomic_load(&s->sum);
    while (!atomic_compare_exchange_weak(&s->sum, &sum, sum + amount)) {
    }
    /* Counted before its bucket, and read behind the buckets: the whole is never less than its parts. */
    atomic_fetch_add(&s->count, 1);
    for (int b = 0; b < family->n_buckets; b++) {
        if (amount <= family->buckets[b]) {
            atomic_fetch_add(&s->buckets[b], 1);
            break;
        }
    }
}

static void put_histogram(struct lb_buf *out, const struct family *family, struct series *s) {
    uint64_t below = 0;
    for (int b = 0; b < family->n_buckets; b++) {
        below += atomic_load(&s->buckets[b]);
        lb_buf_printf(out, "%s_bucket{%s,le=\"%g\"} %llu\n", family->name, s->labels, family->buckets[b],
                      (unsigned long long)below);
    }
    unsigned long long count = atomic_load(&s->count);
    lb_buf_printf(out, "%s_bucket{%s,le=\"+Inf\"} %llu\n", family->name, s->labels, count);
    lb_buf_printf(out, "%s_sum{%s} %.9g\n%s_count{%s} %llu\n", family->name, s->labels, atomic_load(&s->sum),
                  family->name, s->labels, count);
}

static void put_gauge(struct lb_buf *out, const struct lb_gauge *gauge, bool first) {
    if (first) {
        lb_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", gauge->name, gauge->help, gauge->name,
                      gauge->counter ? "counter" : "gauge");
    }
    lb_buf_append_str(out, gauge->name);
    int n = 0;
    for (; n < LB_GAUGE_MAX_LABELS && gauge->labels[n].name; n++) {
        lb_buf_printf(out, "%c%s=\"", n > 0 ? ',' : '{', gauge->labels[n].name);
        put_value(out, gauge->labels[n].value);
        lb_buf_append_str(out, "\"");
    }
    lb_buf_printf(out, "%s %.17g\n", n > 0 ? "}" : "", gauge->value);
}

enum lb_status lb_metrics_write(struct lb_metrics *metrics, const struct lb_gauge *gauges, size_t n_gauges,
                                struct lb_buf *out) {
    for (int f = 0; f < LB_METRICS; f++) {
        const struct family *family = &families[f];
        lb_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name,
                      family->buckets ? "histogram" : "counter");
        for (struct series *s = atomic_load(&metrics->series[f]); s; s = atomic_load(&s->next)) {
            if (family->buckets) {
                put_histogram(out, family, s);
            } else {
                lb_buf_printf(out, "%s{%s} %.17g\n", family->name, s->labels, atomic_load(&s->sum));
            }
        }
    }
    size_t dropped = atomic_load(&metrics->dropped);
    lb_buf_printf(
        out,
        "# HELP limbeckd_metrics_dropped_total Observations dropped because there were too many series.\n"
        "# TYPE limbeckd_metrics_dropped_total counter\nlimbeckd_metrics_dropped_total %zu\n",
        dropped);
    for (size_t i = 0; i < n_gauges; i++) {
        put_gauge(out, &gauges[i], i == 0 || strcmp(gauges[i].name, gauges[i - 1].name) != 0);
    }
    return lb_buf_status(out);
}
