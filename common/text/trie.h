/* A trie over the written forms of a vocabulary: all tokens that a text begins with, in one walk over its
 * bytes. Constant once made.
 */
#ifndef LB_TEXT_TRIE_H
#define LB_TEXT_TRIE_H

#include "common/base/status.h"
#include "common/text/vocab.h"

#include <stddef.h>
#include <stdint.h>

/* The children of a node stand one behind the other, in order of their bytes. */
struct lb_trie_node {
    uint32_t child; /* place of the first */
    int32_t id;     /* of the token that ends here, -1: none */
    uint16_t n;     /* children */
    uint8_t byte;   /* that leads here */
};

struct lb_trie {
    struct lb_trie_node *node; /* 0: the root */
    size_t n;
    uint32_t first[256]; /* the root's children by their bytes; 0: none */
};

/* All entries of vocab with LB_ENTRY_MODEL and at least one byte. LB_E_NOMEM, LB_E_LIMIT. */
LB_NODISCARD enum lb_status lb_trie_init(struct lb_trie *trie, const struct lb_vocab *vocab);
/* Accepts NULL and a zeroed trie. */
void lb_trie_finish(struct lb_trie *trie);

/* The child of node by byte, 0 when there is none. */
static inline uint32_t lb_trie_step(const struct lb_trie *trie, uint32_t node, uint8_t byte) {
    if (node == 0) {
        return trie->first[byte];
    }
    const struct lb_trie_node *child = trie->node + trie->node[node].child;
    uint32_t n = trie->node[node].n, low = 0;
    while (n - low > 8) {
        uint32_t middle = low + (n - low) / 2;
        if (child[middle].byte > byte) {
            n = middle;
        } else {
            low = middle;
        }
    }
    for (; low < n; low++) {
        if (child[low].byte == byte) {
            return trie->node[node].child + low;
        }
    }
    return 0;
}

#endif
