#include "common/text/merges.h"

#include "common/base/mem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NO_RANK UINT32_MAX
#define SHORT_ROW 24

static uint32_t hash_pair(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 32);
}

static const struct lb_pair *find_pair(const struct lb_merges *merges, int32_t left, int32_t right) {
    uint32_t i = hash_pair(left, right) & merges->mask;
    while (merges->pair[i].left >= 0) {
        if (merges->pair[i].left == left && merges->pair[i].right == right) {
            return &merges->pair[i];
        }
        i = (i + 1) & merges->mask;
    }
    return NULL;
}

enum lb_status lb_merges_init(struct lb_merges *merges, size_t n) {
    uint32_t slots = 16;
    while (slots < 2 * n && slots < (UINT32_C(1) << 31)) {
        slots *= 2;
    }
    merges->pair = n < slots ? lb_malloc_array(slots, sizeof *merges->pair) : NULL;
    if (!merges->pair) {
        return LB_E_NOMEM;
    }
    merges->mask = slots - 1;
    merges->n = 0;
    for (uint32_t i = 0; i < slots; i++) {
        merges->pair[i].left = -1;
    }
    return LB_OK;
}

void lb_merges_finish(struct lb_merges *merges) {
    if (merges) {
        lb_free(merges->pair);
        memset(merges, 0, sizeof *merges);
    }
}

void lb_merges_put(struct lb_merges *merges, int32_t left, int32_t right, int32_t id) {
    uint32_t at = hash_pair(left, right) & merges->mask;
    while (merges->pair[at].left >= 0 && (merges->pair[at].left != left || merges->pair[at].right != right)) {
        at = (at + 1) & merges->mask;
    }
    merges->pair[at] = (struct lb_pair){left, right, merges->n++, id};
}

static int by_rank(const void *a, const void *b) {
    const struct lb_pair *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

enum lb_status lb_merges_hash(const struct lb_merges *merges, struct lb_sha256 *hash) {
    size_t n = 0;
    struct lb_pair *sorted = lb_malloc_array((size_t)merges->mask + 1, sizeof *sorted);
    if (!sorted) {
        return LB_E_NOMEM;
    }
    for (uint32_t i = 0; i <= merges->mask; i++) {
        if (merges->pair[i].left >= 0) {
            sorted[n++] = merges->pair[i];
        }
    }
    qsort(sorted, n, sizeof *sorted, by_rank);
    lb_sha256_u64(hash, n);
    for (size_t i = 0; i < n; i++) {
        lb_sha256_u32(hash, (uint32_t)sorted[i].left);
        lb_sha256_u32(hash, (uint32_t)sorted[i].right);
    }
    lb_free(sorted);
    return LB_OK;
}

void lb_symbols_lay(struct lb_symbols *s, void *memory, size_t n) {
    s->heap = memory;
    s->id = (int32_t *)(s->heap + 3 * n);
    s->merged = s->id + n;
    s->rank = (uint32_t *)(s->merged + n);
    s->prev = s->rank + n;
    s->next = s->prev + n;
}

static void rank_pair(const struct lb_merges *merges, struct lb_symbols *s, size_t at, int32_t right) {
    const struct lb_pair *pair = find_pair(merges, s->id[at], right);
    s->rank[at] = pair ? pair->rank : NO_RANK;
    s->merged[at] = pair ? pair->id : -1;
}

/* Merges by looking through all pairs each time; returns the number of symbols left, at the front of id. */
static size_t merge_short(const struct lb_merges *merges, struct lb_symbols *s, size_t n) {
    for (size_t i = 0; i + 1 < n; i++) {
        rank_pair(merges, s, i, s->id[i + 1]);
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (s->rank[i] < s->rank[best]) {
                best = i;
            }
        }
        if (s->rank[best] == NO_RANK) {
            break;
        }
        s->id[best] = s->merged[best];
        size_t tail = n - best - 2;
        memmove(s->id + best + 1, s->id + best + 2, tail * sizeof *s->id);
        memmove(s->rank + best + 1, s->rank + best + 2, tail * sizeof *s->rank);
        memmove(s->merged + best + 1, s->merged + best + 2, tail * sizeof *s->merged);
        n--;
        if (best > 0) {
            rank_pair(merges, s, best - 1, s->id[best]);
        }
        if (best + 1 < n) {
            rank_pair(merges, s, best, s->id[best + 1]);
        }
    }
    return n;
}

static void heap_push(struct lb_symbols *s, uint64_t key) {
    size_t i = s->heap_n++;
    while (i > 0 && s->heap[(i - 1) / 2] > key) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = key;
}

static uint64_t heap_pop(struct lb_symbols *s) {
    uint64_t top = s->heap[0], last = s->heap[--s->heap_n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->heap_n) {
            break;
        }
        child += child + 1 < s->heap_n && s->heap[child + 1] < s->heap[child];
        if (s->heap[child] >= last) {
            break;
        }
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

static void rank_and_push(const struct lb_merges *merges, struct lb_symbols *s, uint32_t at, uint32_t right) {
    rank_pair(merges, s, at, s->id[right]);
    if (s->rank[at] != NO_RANK) {
        heap_push(s, (uint64_t)s->rank[at] << 32 | at);
    }
}

/* The same with a heap of candidates over a linked list. An entry counts if the pair at its place still has
 * its rank; a symbol that was swallowed has NO_RANK. */
static size_t merge_long(const struct lb_merges *merges, struct lb_symbols *s, uint32_t n) {
    s->heap_n = 0;
    for (uint32_t i = 0; i < n; i++) {
        s->prev[i] = i - 1; /* of the first: never read */
        s->next[i] = i + 1; /* n: none */
    }
    s->rank[n - 1] = NO_RANK;
    for (uint32_t i = 0; i + 1 < n; i++) {
        rank_and_push(merges, s, i, i + 1);
    }
    while (s->heap_n) {
        uint64_t key = heap_pop(s);
        uint32_t at = (uint32_t)key;
        if (s->rank[at] != key >> 32) {
            continue;
        }
        uint32_t gone = s->next[at];
        s->id[at] = s->merged[at];
        s->rank[gone] = NO_RANK;
        s->next[at] = s->next[gone];
        if (s->next[at] < n) {
            s->prev[s->next[at]] = at;
            rank_and_push(merges, s, at, s->next[at]);
        } else {
            s->rank[at] = NO_RANK;
        }
        if (at > 0) {
            rank_and_push(merges, s, s->prev[at], at);
        }
    }
    size_t left = 0;
    for (uint32_t i = 0; i < n; i = s->next[i]) {
        s->id[left++] = s->id[i];
    }
    return left;
}

size_t lb_merges_run(const struct lb_merges *merges, struct lb_symbols *symbols, size_t n) {
    if (n < 2) {
        return n;
    }
    return n > SHORT_ROW ? merge_long(merges, symbols, (uint32_t)n) : merge_short(merges, symbols, n);
}
