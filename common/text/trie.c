#include "common/text/trie.h"

#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MAX_NODES (UINT32_MAX / 4)

/* A token on its way into the trie. */
struct word {
    const char *text;
    uint32_t len;
    int32_t id;
};

static int by_bytes(const void *a, const void *b) {
    const struct word *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

void lb_trie_finish(struct lb_trie *trie) {
    if (trie) {
        lb_free(trie->node);
        memset(trie, 0, sizeof *trie);
    }
}

/* Sorted words; returns how many nodes they need beside the root. */
static size_t count_nodes(const struct word *word, size_t n) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        size_t shared = 0;
        while (i > 0 && shared < word[i].len && shared < word[i - 1].len &&
               word[i].text[shared] == word[i - 1].text[shared]) {
            shared++;
        }
        total += word[i].len - shared;
    }
    return total;
}

/* Lays the nodes level by level, each a range of the words that share its bytes; range[2 i] and range[2 i +
 * 1] are those of node i. */
static void lay_nodes(struct lb_trie *trie, const struct word *word, size_t n, uint32_t *range) {
    size_t made = 1, depth = 0, level_end = 1;
    range[0] = 0;
    range[1] = (uint32_t)n;
    trie->node[0] = (struct lb_trie_node){.id = -1};
    for (size_t at = 0; at < made; at++) {
        if (at == level_end) {
            depth++;
            level_end = made;
        }
        struct lb_trie_node *node = &trie->node[at];
        uint32_t i = range[2 * at], end = range[2 * at + 1];
        if (i < end && word[i].len == depth) { /* sorted: the one that ends here stands first */
            node->id = word[i++].id;
        }
        node->child = (uint32_t)made;
        while (i < end) {
            uint8_t byte = (uint8_t)word[i].text[depth];
            uint32_t start = i;
            while (i < end && (uint8_t)word[i].text[depth] == byte) {
                i++;
            }
            range[2 * made] = start;
            range[2 * made + 1] = i;
            trie->node[made++] = (struct lb_trie_node){.id = -1, .byte = byte};
            node->n++;
        }
    }
    trie->n = made;
    for (uint32_t i = 0; i < trie->node[0].n; i++) {
        trie->first[trie->node[trie->node[0].child + i].byte] = trie->node[0].child + i;
    }
}

enum lb_status lb_trie_init(struct lb_trie *trie, const struct lb_vocab *vocab) {
    size_t n = 0;
    memset(trie, 0, sizeof *trie);
    struct word *word = lb_malloc_array((size_t)vocab->size + 1, sizeof *word);
    if (!word) {
        return LB_E_NOMEM;
    }
    for (int32_t id = 0; id < vocab->size; id++) {
        const struct lb_entry *entry = &vocab->entry[id];
        if ((entry->flags & LB_ENTRY_MODEL) && entry->len > 0) {
            word[n++] = (struct word){vocab->pool + entry->text, entry->len, id};
        }
    }
    if (n > 0) {
        qsort(word, n, sizeof *word, by_bytes);
    }
    size_t nodes = count_nodes(word, n) + 1;
    enum lb_status status = nodes < MAX_NODES ? LB_OK : LB_E_LIMIT;
    uint32_t *range = status == LB_OK ? lb_malloc_array(2 * nodes, sizeof *range) : NULL;
    trie->node = range ? lb_malloc_array(nodes, sizeof *trie->node) : NULL;
    if (trie->node) {
        lay_nodes(trie, word, n, range);
    } else {
        status = status == LB_OK ? LB_E_NOMEM : status;
    }
    lb_free(range);
    lb_free(word);
    return status;
}
