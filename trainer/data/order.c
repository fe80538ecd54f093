#include "common/base/mem.h"
#include "common/base/rng.h"
#include "trainer/data/dataset.h"

#define STREAM_ORDER                                                                                         \
    ((uint64_t)0x6f72646572 << 20) /* "order": apart from the streams of weights and dropout */

/* Shuffles of two epochs: with questions asked ahead, batches before and after a turn are wanted in
 * alternation. */
struct lb_order {
    int64_t count;
    uint64_t seed;
    int64_t epoch[2]; /* which one perm[i] holds; -1: none */
    uint32_t *perm[2];
};

struct lb_order *lb_order_create(int64_t count, uint64_t seed) {
    struct lb_order *order = count > 0 && count < UINT32_MAX ? lb_calloc(1, sizeof *order) : NULL;
    if (order == NULL) {
        return NULL;
    }
    *order = (struct lb_order){.count = count, .seed = seed, .epoch = {-1, -1}};
    for (int i = 0; i < 2; i++) {
        order->perm[i] = lb_malloc_array((size_t)count, sizeof(uint32_t));
        if (order->perm[i] == NULL) {
            lb_order_destroy(order);
            return NULL;
        }
    }
    return order;
}

void lb_order_destroy(struct lb_order *order) {
    if (order != NULL) {
        lb_free(order->perm[0]);
        lb_free(order->perm[1]);
        lb_free(order);
    }
}

static const uint32_t *permutation(struct lb_order *order, int64_t epoch) {
    uint32_t *perm = order->perm[epoch & 1];
    if (order->epoch[epoch & 1] != epoch) {
        for (int64_t i = 0; i < order->count; i++) {
            perm[i] = (uint32_t)i;
        }
        struct lb_rng rng;
        lb_rng_seed(&rng, order->seed, STREAM_ORDER + (uint64_t)epoch);
        lb_rng_shuffle(&rng, perm, (uint64_t)order->count);
        order->epoch[epoch & 1] = epoch;
    }
    return perm;
}

enum lb_status lb_order_batch(struct lb_order *order, int64_t m, int64_t size, int64_t *out) {
    int64_t start;
    if (m < 0 || size < 1 || __builtin_mul_overflow(m, size, &start) || start > INT64_MAX - size) {
        return LB_E_ARG;
    }
    for (int64_t i = 0; i < size; i++) {
        int64_t epoch = (start + i) / order->count;
        out[i] = permutation(order, epoch)[(start + i) % order->count];
    }
    return LB_OK;
}
