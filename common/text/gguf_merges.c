/* Merges of a vocabulary that has scores instead, as SentencePiece's has. Each pair of tokens that joins to a
 * token is a merge; they come in the order in which SentencePiece prefers what they make, and for the same
 * result the one with the longer left side first, as transformers has it (generate_merges).
 */
#include "common/base/mem.h"
#include "common/text/gguf_vocab.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* SentencePiece's pieces have 16 characters unless somebody asks for more. */
#define MAX_PIECE_BYTES 512

struct merge {
    float rank; /* of what it makes; the highest is first */
    int32_t result, left, right;
    uint16_t left_chars, right_chars;
};

struct merges {
    struct merge *merge;
    size_t n, cap;
};

static int compare(const void *a, const void *b) {
    const struct merge *x = a, *y = b;
    if (x->rank != y->rank) {
        return x->rank < y->rank ? 1 : -1;
    }
    if (x->left_chars != y->left_chars) {
        return x->left_chars < y->left_chars ? 1 : -1;
    }
    if (x->right_chars != y->right_chars) {
        return x->right_chars < y->right_chars ? 1 : -1;
    }
    return (x->result > y->result) - (x->result < y->result);
}

static bool can_merge(const struct lb_gguf_vocab *v, int32_t id) {
    return id >= 0 && v->text[id] && !strchr(v->text[id], ' ') &&
           (v->type[id] == LB_TOKEN_NORMAL || v->type[id] == LB_TOKEN_USER);
}

/* Whether scores only repeat the order of ids; what users defined has no score of its own then. */
static bool in_order(const struct lb_gguf_vocab *v) {
    float last = FLT_MAX;
    for (int32_t i = 0; i < v->n && v->score; i++) {
        if (v->text[i] && v->type[i] == LB_TOKEN_NORMAL) {
            if (v->score[i] >= last) {
                return false;
            }
            last = v->score[i];
        }
    }
    return true;
}

static enum lb_status add(struct merges *list, const struct merge *merge) {
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 4096;
        struct merge *bigger = lb_realloc_array(list->merge, cap, sizeof *bigger);
        if (!bigger) {
            return LB_E_NOMEM;
        }
        list->merge = bigger;
        list->cap = cap;
    }
    list->merge[list->n++] = *merge;
    return LB_OK;
}

static bool begins_char(char byte) {
    return ((uint8_t)byte & 0xc0) != 0x80;
}

/* All ways to make token id. */
static enum lb_status add_merges_to(const struct lb_gguf_vocab *v, int32_t id, float rank,
                                    struct merges *list) {
    const char *text = v->text[id];
    size_t len = strlen(text);
    uint16_t chars = 0, before = 1;
    for (size_t i = 0; i < len; i++) {
        chars += begins_char(text[i]);
    }
    enum lb_status status = LB_OK;
    for (size_t cut = 1; cut < len && status == LB_OK; cut++) {
        if (begins_char(text[cut])) {
            int32_t left = lb_vocab_find(&v->by_text, text, cut, LB_ENTRY_MODEL);
            int32_t right =
                can_merge(v, left) ? lb_vocab_find(&v->by_text, text + cut, len - cut, LB_ENTRY_MODEL) : -1;
            if (can_merge(v, right)) {
                status =
                    add(list, &(struct merge){rank, id, left, right, before, (uint16_t)(chars - before)});
            }
            before++;
        }
    }
    return status;
}

enum lb_status lb_gguf_put_merges(struct lb_gguf_vocab *v) {
    struct merges list = {0};
    bool ordered = in_order(v);
    enum lb_status status = LB_OK;
    for (int32_t id = 0; id < v->n && status == LB_OK; id++) {
        if (!can_merge(v, id)) {
            continue;
        }
        if (strlen(v->text[id]) > MAX_PIECE_BYTES) {
            status = lb_fail(v->detail, LB_E_LIMIT,
                             "%s: token %d has %zu bytes (%d are the most a piece may have)", v->what, id,
                             strlen(v->text[id]), MAX_PIECE_BYTES);
            break;
        }
        float first = v->type[id] == LB_TOKEN_USER ? FLT_MAX : 0; /* users' own before all others */
        status = add_merges_to(v, id, ordered ? -(float)id : first > 0 ? first : v->score[id], &list);
    }
    if (list.n) {
        qsort(list.merge, list.n, sizeof *list.merge, compare);
    }
    lb_buf_append_str(v->out, "\"merges\":[");
    for (size_t i = 0; i < list.n && status == LB_OK; i++) {
        char joined[2 * MAX_PIECE_BYTES + 2];
        snprintf(joined, sizeof joined, "%s %s", v->text[list.merge[i].left], v->text[list.merge[i].right]);
        lb_buf_append(v->out, ",", i > 0);
        lb_gguf_put_text(v->out, joined);
    }
    lb_buf_append_str(v->out, "]");
    lb_free(list.merge);
    return status != LB_OK ? lb_fail(v->detail, status, "%s: out of memory for the merges", v->what) : LB_OK;
}
