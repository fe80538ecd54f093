/* Counts of one model for the statistics extension of the protocol (GET .../stats). Thread-safe: one lock
 * each. */
#ifndef LB_MODELS_STATS_H
#define LB_MODELS_STATS_H

#include "common/base/json.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct lb_duration_stat {
    uint64_t count, ns;
};

/* Batches of one size, in sequences. */
struct lb_batch_stat {
    int64_t size;
    struct lb_duration_stat compute;
};

#define LB_STATS_SIZES 4096 /* most of them; batches of further sizes are in execution_count only */

struct lb_stats {
    pthread_mutex_t lock; /* guards all below */
    uint64_t inference_count, execution_count, last_inference_ms;
    struct lb_duration_stat success, fail, queue, compute, hit, miss;
    struct lb_batch_stat *batches; /* n_batches of them, by size */
    size_t n_batches;
};

void lb_stats_init(struct lb_stats *stats);
void lb_stats_finish(struct lb_stats *stats);

/* One batch was computed. */
void lb_stats_batch(struct lb_stats *stats, int64_t n_seqs, uint64_t ns);
/* Sequences of a batch whose states were there, and who had to be computed; the time of looking, and of
 * keeping.
 */
void lb_stats_cache(struct lb_stats *stats, int64_t hits, uint64_t hit_ns, int64_t misses, uint64_t miss_ns);
/* One request was answered (or failed): its sequences, whole time, time in the queue, time of its batches. */
void lb_stats_request(struct lb_stats *stats, int ok, int64_t n_seqs, uint64_t total_ns, uint64_t queue_ns,
                      uint64_t compute_ns);
/* One element of "model_stats" (PROTOCOL.md 13.3), version being the number of the opening that is counted;
 * NULL when out of memory. */
json_t *lb_stats_json(struct lb_stats *stats, const char *name, uint64_t opening, const char *fingerprint);

#endif
