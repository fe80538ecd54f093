#include "server/models/stats.h"

#include "common/base/clock.h"

#include <string.h>

void lb_stats_init(struct lb_stats *stats) {
    memset(stats, 0, sizeof *stats);
    pthread_mutex_init(&stats->lock, NULL);
}

void lb_stats_finish(struct lb_stats *stats) {
    pthread_mutex_destroy(&stats->lock);
}

static void add(struct lb_duration_stat *stat, uint64_t ns) {
    stat->count++;
    stat->ns += ns;
}

void lb_stats_batch(struct lb_stats *stats, int64_t n_seqs, uint64_t ns) {
    int size = 0;
    while (size + 1 < LB_STATS_SIZES && n_seqs >> (size + 1) > 0) {
        size++;
    }
    pthread_mutex_lock(&stats->lock);
    stats->execution_count++;
    add(&stats->batches[size], ns);
    pthread_mutex_unlock(&stats->lock);
}

void lb_stats_request(struct lb_stats *stats, int ok, int64_t n_seqs, uint64_t total_ns, uint64_t queue_ns,
                      uint64_t compute_ns) {
    pthread_mutex_lock(&stats->lock);
    add(ok ? &stats->success : &stats->fail, total_ns);
    if (ok) {
        add(&stats->queue, queue_ns);
        add(&stats->compute, compute_ns);
        stats->inference_count += (uint64_t)n_seqs;
        stats->last_inference_ms = (uint64_t)(lb_unix_seconds() * 1000);
    }
    pthread_mutex_unlock(&stats->lock);
}

static json_t *duration(struct lb_duration_stat stat) {
    return json_pack("{s:I,s:I}", "count", (json_int_t)stat.count, "ns", (json_int_t)stat.ns);
}

json_t *lb_stats_json(struct lb_stats *stats, const char *name, const char *version) {
    const struct lb_duration_stat none = {0};
    pthread_mutex_lock(&stats->lock);
    struct lb_stats now = *stats;
    pthread_mutex_unlock(&stats->lock);
    json_t *batches = json_array();
    for (int i = 0; i < LB_STATS_SIZES; i++) {
        if (now.batches[i].count > 0) {
            json_array_append_new(batches,
                                  json_pack("{s:i,s:o,s:o,s:o}", "batch_size", 1 << i, "compute_input",
                                            duration(none), "compute_infer", duration(now.batches[i]),
                                            "compute_output", duration(none)));
        }
    }
    json_t *durations = json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "success", duration(now.success),
                                  "fail", duration(now.fail), "queue", duration(now.queue), "compute_input",
                                  duration(none), "compute_infer", duration(now.compute), "compute_output",
                                  duration(none), "cache_hit", duration(none), "cache_miss", duration(none));
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:o,s:o}", "name", name, "version", version, "last_inference",
                     (json_int_t)now.last_inference_ms, "inference_count", (json_int_t)now.inference_count,
                     "execution_count", (json_int_t)now.execution_count, "inference_stats", durations,
                     "batch_stats", batches);
}
