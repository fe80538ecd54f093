#include "common/text/added.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/unicode.h"

#include <stdlib.h>
#include <string.h>

enum lb_status lb_added_put(struct lb_added_set *set, const char *pattern, size_t len,
                            const struct lb_added_token *flags) {
    if (set->n == set->cap) {
        size_t cap = set->cap ? set->cap * 2 : 16;
        struct lb_added_token *token = lb_realloc_array(set->token, cap, sizeof *token);
        if (!token) {
            return LB_E_NOMEM;
        }
        set->token = token;
        set->cap = cap;
    }
    char *copy = lb_malloc_array(len, 1);
    if (!copy) {
        return LB_E_NOMEM;
    }
    memcpy(copy, pattern, len);
    struct lb_added_token *token = &set->token[set->n++];
    *token = *flags;
    token->pattern = copy;
    token->len = len;
    set->first[(uint8_t)copy[0]] = true;
    return LB_OK;
}

/* By bytes, a prefix before what it begins; equal patterns keep the lower id first. */
static int compare(const void *left, const void *right) {
    const struct lb_added_token *a = left, *b = right;
    int order = memcmp(a->pattern, b->pattern, a->len < b->len ? a->len : b->len);
    if (order == 0 && a->len != b->len) {
        order = a->len < b->len ? -1 : 1;
    }
    return order ? order : (a->id > b->id) - (a->id < b->id);
}

void lb_added_sort(struct lb_added_set *set) {
    if (set->n) {
        qsort(set->token, set->n, sizeof *set->token, compare);
    }
}

void lb_added_hash(const struct lb_added_set *set, struct lb_sha256 *hash) {
    lb_sha256_u64(hash, set->n);
    for (size_t i = 0; i < set->n; i++) {
        const struct lb_added_token *t = &set->token[i];
        lb_sha256_u64(hash, t->len);
        lb_sha256_update(hash, t->pattern, t->len);
        lb_sha256_u32(hash, (uint32_t)t->id);
        lb_sha256_u32(hash, (uint32_t)t->single_word << 2 | (uint32_t)t->lstrip << 1 | (uint32_t)t->rstrip);
    }
}

void lb_added_finish(struct lb_added_set *set) {
    if (set) {
        for (size_t i = 0; i < set->n; i++) {
            lb_free(set->token[i].pattern);
        }
        lb_free(set->token);
        memset(set, 0, sizeof *set);
    }
}

/* First index in [low, high) whose byte at depth is at least byte (above it, with after). The range shares
 * its first depth bytes and patterns of exactly that length come first; a missing byte counts as -1. */
static size_t bound(const struct lb_added_set *set, size_t low, size_t high, size_t depth, int byte,
                    bool after) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct lb_added_token *token = &set->token[middle];
        int here = depth < token->len ? (uint8_t)token->pattern[depth] : -1;
        if (here < byte || (after && here == byte)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest pattern that text begins with, NULL when none does; plain as in lb_added_next. */
static const struct lb_added_token *longest_at(const struct lb_added_set *set, const char *text, size_t len,
                                               const uint8_t *plain) {
    bool any_plain = false;
    const struct lb_added_token *best = NULL;
    size_t low = 0, high = set->n;
    for (size_t depth = 0; depth < len; depth++) {
        int byte = (uint8_t)text[depth];
        low = bound(set, low, high, depth, byte, false);
        high = bound(set, low, high, depth, byte, true);
        if (low == high) {
            break;
        }
        any_plain = any_plain || (plain && plain[depth]);
        if (set->token[low].len == depth + 1 && !(any_plain && set->token[low].special)) {
            best = &set->token[low];
        }
    }
    return best;
}

static bool stands_alone(const char *text, size_t len, size_t start, size_t end) {
    size_t before = start, after = end;
    return (start == 0 || !lb_is_word(lb_utf8_previous(text, &before))) &&
           (end == len || !lb_is_word(lb_utf8_next(text, &after)));
}

bool lb_added_next(const struct lb_added_set *set, const char *text, size_t len, const uint8_t *plain,
                   size_t *cursor, size_t done, struct lb_added_match *out) {
    if (!set->n) {
        return false;
    }
    size_t at = *cursor;
    while (at < len) {
        const struct lb_added_token *token =
            set->first[(uint8_t)text[at]] ? longest_at(set, text + at, len - at, plain ? plain + at : NULL)
                                          : NULL;
        if (!token) {
            at++;
            continue;
        }
        size_t start = at, end = at + token->len;
        at = end;
        if (token->single_word && !stands_alone(text, len, start, end)) {
            continue;
        }
        while (token->lstrip && start > done) {
            size_t before = start;
            if (!lb_is_space(lb_utf8_previous(text, &before))) {
                break;
            }
            start = before;
        }
        while (token->rstrip && end < len) {
            size_t after = end;
            if (!lb_is_space(lb_utf8_next(text, &after))) {
                break;
            }
            end = after;
        }
        *cursor = at;
        *out = (struct lb_added_match){start, end, token->id};
        return true;
    }
    return false;
}
