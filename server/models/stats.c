#include "server/models/stats.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void lb_stats_init(struct lb_stats *stats) {
    memset(stats, 0, sizeof *stats);
    pthread_mutex_init(&stats->lock, NULL);
}

void lb_stats_finish(struct lb_stats *stats) {
    lb_free(stats->batches);
    pthread_mutex_destroy(&stats->lock);
}

static void add(struct lb_duration_stat *stat, uint64_t ns) {
    stat->count++;
    stat->ns += ns;
}

/* Those of this size, made when new; NULL when there is no room for another. */
static struct lb_batch_stat *of_size(struct lb_stats *stats, int64_t size) {
    size_t at = 0;
    while (at < stats->n_batches && stats->batches[at].size < size) {
        at++;
    }
    if (at < stats->n_batches && stats->batches[at].size == size) {
        return &stats->batches[at];
    }
    struct lb_batch_stat *grown = stats->n_batches < LB_STATS_SIZES
                                      ? lb_realloc_array(stats->batches, stats->n_batches + 1, sizeof *grown)
                                      : NULL;
    if (!grown) {
        return NULL;
    }
    stats->batches = grown;
    memmove(grown + at + 1, grown + at, (stats->n_batches - at) * sizeof *grown);
    stats->n_batches++;
    grown[at] = (struct lb_batch_stat){.size = size};
    return &grown[at];
}

void lb_stats_batch(struct lb_stats *stats, int64_t n_seqs, uint64_t ns) {
    pthread_mutex_lock(&stats->lock);
    struct lb_batch_stat *batch = of_size(stats, n_seqs);
    stats->execution_count++;
    if (batch) {
        add(&batch->compute, ns);
    }
    pthread_mutex_unlock(&stats->lock);
}

void lb_stats_cache(struct lb_stats *stats, int64_t hits, uint64_t hit_ns, int64_t misses, uint64_t miss_ns) {
    pthread_mutex_lock(&stats->lock);
    stats->hit.count += (uint64_t)hits;
    stats->hit.ns += hit_ns;
    stats->miss.count += (uint64_t)misses;
    stats->miss.ns += miss_ns;
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

/* What is not timed apart: clients ask that it be counted as often as the computing. */
static json_t *untimed(struct lb_duration_stat compute) {
    return duration((struct lb_duration_stat){.count = compute.count});
}

/* Under the lock. */
static json_t *batches_json(const struct lb_stats *stats) {
    json_t *list = json_array();
    for (size_t i = 0; i < stats->n_batches; i++) {
        const struct lb_batch_stat *batch = &stats->batches[i];
        json_array_append_new(list,
                              json_pack("{s:I,s:o,s:o,s:o}", "batch_size", (json_int_t)batch->size,
                                        "compute_input", untimed(batch->compute), "compute_infer",
                                        duration(batch->compute), "compute_output", untimed(batch->compute)));
    }
    return list;
}

json_t *lb_stats_json(struct lb_stats *stats, const char *name, uint64_t opening, const char *fingerprint) {
    pthread_mutex_lock(&stats->lock);
    struct lb_stats now = *stats;
    json_t *batches = batches_json(stats);
    pthread_mutex_unlock(&stats->lock);
    json_t *durations =
        json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "success", duration(now.success), "fail",
                  duration(now.fail), "queue", duration(now.queue), "compute_input", untimed(now.compute),
                  "compute_infer", duration(now.compute), "compute_output", untimed(now.compute), "cache_hit",
                  duration(now.hit), "cache_miss", duration(now.miss));
    char version[24];
    snprintf(version, sizeof version, "%" PRIu64, opening);
    return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:o,s:o}", "name", name, "version", version, "fingerprint",
                     fingerprint, "last_inference", (json_int_t)now.last_inference_ms, "inference_count",
                     (json_int_t)now.inference_count, "execution_count", (json_int_t)now.execution_count,
                     "inference_stats", durations, "batch_stats", batches);
}
