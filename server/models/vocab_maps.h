/* The vocabulary maps of one model: lists of some of its ids that clients send once and then name by their
 * digest, so that distributions come over these ids alone.
 *
 * There are at most LB_MAX_VOCAB_MAPS of LB_MAX_VOCAB_MAP_BYTES together; what was named longest ago goes.
 * Who has a map holds a reference, so that it stays whatever becomes of its place here. Any thread.
 */
#ifndef LB_MODELS_VOCAB_MAPS_H
#define LB_MODELS_VOCAB_MAPS_H

#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/nn/reduce.h"
#include "proto/limits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

/* One of them; its ids rise. */
struct lb_kept_ids {
    struct lb_kept kept;
    char digest[LB_SHA256_HEX];
    size_t bytes;
    uint64_t used; /* the store's: when it was last named */
    atomic_int references;
    int32_t ids[];
};
/* Gives a reference back. Accepts NULL. */
void lb_kept_ids_release(struct lb_kept_ids *ids);

struct lb_vocab_maps {
    pthread_mutex_t lock; /* guards all below */
    struct lb_kept_ids *maps[LB_MAX_VOCAB_MAPS];
    size_t n, bytes;
    uint64_t clock;
};

void lb_vocab_maps_init(struct lb_vocab_maps *maps);
void lb_vocab_maps_finish(struct lb_vocab_maps *maps);
/* Takes INT32 ids as they came, [len] bytes, each below v and above the one before it, under their digest (of
 * 64 hex digits). The one that is there already stays. LB_E_ARG says what is wrong; LB_E_LIMIT: too large;
 * LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_vocab_maps_put(struct lb_vocab_maps *maps, const char *digest,
                                              const void *bytes, size_t len, int64_t v,
                                              struct lb_detail *detail);
/* A reference to the map of that digest, which was named now; NULL when it is not there. */
struct lb_kept_ids *lb_vocab_maps_get(struct lb_vocab_maps *maps, const char *digest);
/* Bytes that they take together. */
size_t lb_vocab_maps_bytes(struct lb_vocab_maps *maps);

#endif
