#include "common/base/mem.h"
#include "common/base/rng.h"
#include "trainer/data/parts.h"

#include <math.h>
#include <string.h>

/* Apart from the streams of weights and dropout. */
#define STREAM_ORDER ((uint64_t)0x6f72646572 << 20) /* "order" */
#define STREAM_MIX ((uint64_t)0x6d6978 << 36)       /* "mix" */
#define BLOCK 4096                                  /* samples within which weighted parts have their share */
#define ROUNDS 6

/* Where samples come from, in turns of an epoch each: a shuffle that is listed, or one that is computed. */
struct source {
    int64_t first, count;
    uint64_t seed;
    /* Two epochs: with questions asked ahead, batches before and after a turn are wanted in alternation. */
    int64_t epoch[2];  /* which one is there; -1: none */
    uint32_t *perm[2]; /* NULL: not listed */
    uint64_t keys[2][ROUNDS];
};

/* Whose turn it is within a block. */
struct block {
    int64_t number;   /* -1: none */
    uint32_t *whose;  /* [block_size] */
    uint32_t *before; /* [block_size] how many of the same are before it in the block */
};

struct lb_order {
    uint64_t seed;
    struct source *sources; /* [n] */
    unsigned n;
    double *share;      /* [n] that sum to 1; NULL: there is one source */
    unsigned largest;   /* whose share takes what rounding leaves */
    int64_t block_size; /* BLOCK, or more where there are many sources */
    struct block block[2];
    uint32_t *seen; /* [n] scratch */
};

static bool source_init(struct source *s, const struct lb_order_part *part, uint64_t seed, bool listed) {
    *s = (struct source){.first = part->first, .count = part->count, .seed = seed, .epoch = {-1, -1}};
    for (int i = 0; listed && i < 2; i++) {
        s->perm[i] = lb_malloc_array((size_t)part->count, sizeof(uint32_t));
        if (s->perm[i] == NULL) {
            return false;
        }
    }
    return true;
}

/* Weights as shares; the largest part takes what rounding leaves. */
static bool shares_init(struct lb_order *order, const struct lb_order_part *parts) {
    double sum = 0;
    order->share = lb_malloc_array(order->n, sizeof *order->share);
    order->seen = lb_malloc_array(order->n, sizeof *order->seen);
    /* Rounding gives each of the others up to one sample more in a block, which the largest must have. */
    order->block_size = BLOCK;
    while (order->block_size < (int64_t)order->n * order->n) {
        order->block_size *= 4;
    }
    for (int i = 0; i < 2; i++) {
        struct block *block = &order->block[i];
        block->number = -1;
        block->whose = lb_malloc_array((size_t)order->block_size, sizeof *block->whose);
        block->before = lb_malloc_array((size_t)order->block_size, sizeof *block->before);
        if (block->whose == NULL || block->before == NULL || order->seen == NULL) {
            return false;
        }
    }
    for (unsigned k = 0; k < order->n; k++) {
        sum += parts[k].weight;
    }
    for (unsigned k = 0; order->share != NULL && k < order->n; k++) {
        order->share[k] = parts[k].weight / sum;
        order->largest = order->share[k] > order->share[order->largest] ? k : order->largest;
    }
    return order->share != NULL;
}

struct lb_order *lb_order_create_parts(const struct lb_order_part *parts, unsigned n, bool listed,
                                       uint64_t seed) {
    struct lb_order *order = lb_calloc(1, sizeof *order);
    bool ok = order != NULL && n > 0 && n <= LB_MAX_WEIGHTED_SETS;
    if (ok) {
        order->seed = seed;
        order->sources = lb_calloc(n, sizeof *order->sources);
        ok = order->sources != NULL;
    }
    for (unsigned k = 0; ok && k < n; k++) {
        order->n = k + 1;
        ok = parts[k].count > 0 && (!listed || parts[k].count < UINT32_MAX) &&
             source_init(&order->sources[k], &parts[k], n > 1 ? lb_mix64(seed + k + 1) : seed, listed);
    }
    ok = ok && (n == 1 || shares_init(order, parts));
    if (!ok) {
        lb_order_destroy(order);
        return NULL;
    }
    return order;
}

struct lb_order *lb_order_create(int64_t count, uint64_t seed) {
    const struct lb_order_part all = {0, count, 1};
    return lb_order_create_parts(&all, 1, true, seed);
}

struct lb_order *lb_dataset_order(const struct lb_dataset *data, uint64_t seed) {
    const struct lb_order_part all = {0, lb_dataset_count(data), 1};
    bool listed = data->n_shards == 0;
    return data->weighted ? lb_order_create_parts(data->parts, data->n_parts, listed, seed)
                          : lb_order_create_parts(&all, 1, listed, seed);
}

void lb_order_destroy(struct lb_order *order) {
    if (order == NULL) {
        return;
    }
    for (unsigned k = 0; order->sources != NULL && k < order->n; k++) {
        lb_free(order->sources[k].perm[0]);
        lb_free(order->sources[k].perm[1]);
    }
    lb_free(order->sources);
    lb_free(order->share);
    for (int i = 0; i < 2; i++) {
        lb_free(order->block[i].whose);
        lb_free(order->block[i].before);
    }
    lb_free(order->seen);
    lb_free(order);
}

/* The epoch's shuffle, or what it is computed from, into its place. */
static void turn_to(struct source *s, int64_t epoch) {
    struct lb_rng rng;
    int at = (int)(epoch & 1);
    if (s->epoch[at] == epoch) {
        return;
    }
    lb_rng_seed(&rng, s->seed, STREAM_ORDER + (uint64_t)epoch);
    uint32_t *perm = s->perm[at];
    for (int64_t i = 0; perm != NULL && i < s->count; i++) {
        perm[i] = (uint32_t)i;
    }
    if (perm != NULL) {
        lb_rng_shuffle(&rng, perm, (uint64_t)s->count);
    }
    for (int r = 0; perm == NULL && r < ROUNDS; r++) {
        s->keys[at][r] = lb_rng_u64(&rng);
    }
    s->epoch[at] = epoch;
}

/* A Feistel network is a permutation of 2^(2 half) numbers, whatever its rounds compute; numbers that are
 * none of the samples are passed on until one is (Black, Rogaway 2002: cycle walking). */
static int64_t computed(const struct source *s, const uint64_t keys[ROUNDS], int64_t i) {
    int half = 1;
    while (half < 31 && (int64_t)1 << (2 * half) < s->count) {
        half++;
    }
    uint64_t mask = ((uint64_t)1 << half) - 1, x = (uint64_t)i;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (int r = 0; r < ROUNDS; r++) {
            uint64_t next = left ^ (lb_mix64(keys[r] ^ right) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= (uint64_t)s->count);
    return (int64_t)x;
}

/* The source's sample number j, counted over all its epochs. */
static int64_t sample_of(struct source *s, int64_t j) {
    int64_t epoch = j / s->count, i = j % s->count;
    turn_to(s, epoch);
    const uint32_t *perm = s->perm[epoch & 1];
    return s->first + (perm != NULL ? perm[i] : computed(s, s->keys[epoch & 1], i));
}

/* How many samples of source k there are before block b. */
static int64_t before_block(const struct lb_order *order, unsigned k, int64_t b) {
    double all = (double)b * (double)order->block_size;
    int64_t others = 0;
    if (k != order->largest) {
        return (int64_t)floor(all * order->share[k]);
    }
    for (unsigned i = 0; i < order->n; i++) {
        others += i != order->largest ? (int64_t)floor(all * order->share[i]) : 0;
    }
    return b * order->block_size - others;
}

static const struct block *block_of(struct lb_order *order, int64_t b) {
    struct block *block = &order->block[b & 1];
    struct lb_rng rng;
    if (block->number == b) {
        return block;
    }
    int64_t at = 0, size = order->block_size;
    for (unsigned k = 0; k < order->n; k++) {
        int64_t n = before_block(order, k, b + 1) - before_block(order, k, b);
        for (; n > 0 && at < size; n--) {
            block->whose[at++] = k;
        }
    }
    lb_rng_seed(&rng, order->seed, STREAM_MIX + (uint64_t)b);
    lb_rng_shuffle(&rng, block->whose, (uint64_t)size);
    memset(order->seen, 0, order->n * sizeof *order->seen);
    for (int64_t i = 0; i < size; i++) {
        block->before[i] = order->seen[block->whose[i]]++;
    }
    block->number = b;
    return block;
}

static int64_t sample_at(struct lb_order *order, int64_t position) {
    if (order->n == 1) {
        return sample_of(&order->sources[0], position);
    }
    int64_t b = position / order->block_size, i = position % order->block_size;
    const struct block *block = block_of(order, b);
    unsigned k = block->whose[i];
    return sample_of(&order->sources[k], before_block(order, k, b) + block->before[i]);
}

enum lb_status lb_order_batch(struct lb_order *order, int64_t m, int64_t size, int64_t *out) {
    int64_t start;
    if (m < 0 || size < 1 || __builtin_mul_overflow(m, size, &start) || start > INT64_MAX - size) {
        return LB_E_ARG;
    }
    for (int64_t i = 0; i < size; i++) {
        out[i] = sample_at(order, start + i);
    }
    return LB_OK;
}
