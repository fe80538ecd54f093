/* Prometheus metrics, text format 0.0.4. Thread-safe; adding takes no lock once a series is there. */
#ifndef LB_SERVER_METRICS_H
#define LB_SERVER_METRICS_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stddef.h>

/* Labels, in the order in which values are given, stand behind each. */
enum lb_metric {
    LB_METRIC_REQUESTS,       /* limbeckd_requests_total                  model, endpoint, code */
    LB_METRIC_DURATION,       /* limbeckd_request_duration_seconds        model, endpoint */
    LB_METRIC_REQUEST_BYTES,  /* limbeckd_request_bytes_total             endpoint */
    LB_METRIC_RESPONSE_BYTES, /* limbeckd_response_bytes_total            encoding */
    LB_METRIC_TOKENS,         /* limbeckd_tokens_total                    model */
    LB_METRIC_ASKED_TOKENS,   /* limbeckd_asked_tokens_total              model */
    LB_METRIC_JOINED_TOKENS,  /* limbeckd_joined_tokens_total             model */
    LB_METRIC_KNOWN_TOKENS,   /* limbeckd_known_tokens_total              model */
    LB_METRIC_KNOWN_DROPPED,  /* limbeckd_known_sequences_dropped_total   model */
    LB_METRIC_SEQUENCES,      /* limbeckd_sequences_total                 model */
    LB_METRIC_BATCH_TOKENS,   /* limbeckd_batch_tokens                    model */
    LB_METRIC_BATCH_SEQS,     /* limbeckd_batch_sequences                 model */
    LB_METRIC_BATCH_SECONDS,  /* limbeckd_batch_duration_seconds          model */
    LB_METRIC_WRITING,        /* limbeckd_writing_seconds_total           model */
    LB_METRIC_QUEUE_WAIT,     /* limbeckd_queue_wait_seconds              model */
    LB_METRIC_EXPIRED,        /* limbeckd_deadline_expired_total          model */
    LB_METRICS
};

#define LB_METRIC_MAX_LABELS 3

struct lb_metrics;

/* NULL when out of memory. */
struct lb_metrics *lb_metrics_create(void);
void lb_metrics_destroy(struct lb_metrics *metrics);

/* Adds amount to a counter, or observes it in a histogram. labels: as many values as the metric has (any
 * text; quoted when written). Values must come from a bounded set: after 4,096 series further ones are
 * dropped, which is counted. NULL metrics: nothing. */
void lb_metrics_add(struct lb_metrics *metrics, enum lb_metric metric, const char *const *labels,
                    double amount);

#define LB_GAUGE_MAX_LABELS 5

/* A value that is read at the moment of writing. */
struct lb_gauge {
    const char *name, *help;
    double value;
    bool counter; /* it only grows */
    struct {
        const char *name, *value; /* the first without a name ends them */
    } labels[LB_GAUGE_MAX_LABELS];
};
/* Appends everything: families in the order of the enum, then the gauges (equal names must stand together).
 */
enum lb_status lb_metrics_write(struct lb_metrics *metrics, const struct lb_gauge *gauges, size_t n_gauges,
                                struct lb_buf *out);

#endif
