/* The merges of byte-pair encoding and what they do to a row of symbols (Sennrich et al. 2016).
 *
 * Again and again the neighbours with the lowest rank in the list of merges, the leftmost of them, become one
 * symbol, until no two neighbours are in the list. Short rows are searched from end to end each time; long
 * ones keep a heap of candidates, so that n symbols cost n log n. Constant once filled.
 */
#ifndef LB_TEXT_MERGES_H
#define LB_TEXT_MERGES_H

#include "common/base/sha256.h"
#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Two neighbours, the place of their merge in the list, and what they become. */
struct lb_pair {
    int32_t left, right; /* left -1: a free slot */
    uint32_t rank;
    int32_t id;
};

struct lb_merges {
    struct lb_pair *pair; /* open addressing */
    uint32_t mask;
    uint32_t n; /* ranks given so far */
};

/* Room for n merges. */
LB_NODISCARD enum lb_status lb_merges_init(struct lb_merges *merges, size_t n);
/* Accepts NULL and a zeroed object. */
void lb_merges_finish(struct lb_merges *merges);
/* The next in the list; a repeated pair counts where it stands last. */
void lb_merges_put(struct lb_merges *merges, int32_t left, int32_t right, int32_t id);
/* Adds the pairs in their order. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_merges_hash(const struct lb_merges *merges, struct lb_sha256 *hash);

/* Bytes of memory that n symbols need, the symbols included. */
#define LB_MERGE_BYTES ((size_t)44)

/* The symbols of a row, as arrays in memory of the caller. */
struct lb_symbols {
    int32_t *id; /* [n] */
    uint32_t
        *rank; /* [n] of the pair that a symbol makes with its right neighbour; NO_RANK: not in the list */
    int32_t *merged;       /* [n] what that pair becomes */
    uint32_t *prev, *next; /* [n] long rows: the list of symbols still there */
    uint64_t *heap;        /* [3 n] long rows: rank << 32 | position */
    size_t heap_n;
};

/* Lays the arrays for n symbols into memory of n * LB_MERGE_BYTES, aligned for uint64_t. */
void lb_symbols_lay(struct lb_symbols *symbols, void *memory, size_t n);
/* Merges the n symbols at id, n < 2^31; returns how many are left, at the front of id. */
size_t lb_merges_run(const struct lb_merges *merges, struct lb_symbols *symbols, size_t n);

#endif
