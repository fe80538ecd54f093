#include "common/text/place.h"

#include <string.h>

/* After a piece that tokens write otherwise: how far they are looked for, and how many bytes must agree. */
#define MOST_TOKENS 16
#define MOST_BYTES 128
#define AGREE 8

struct placing {
    const struct lb_tokenizer *tokenizer;
    const int32_t *ids;
    size_t n, len;
    const char *text;
};

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static const char *bytes_of(const struct placing *p, size_t i, size_t *n) {
    *n = 0;
    const char *bytes = lb_tokenizer_bytes(p->tokenizer, p->ids[i], n);
    return bytes != NULL ? bytes : "";
}

static bool stands(const struct placing *p, size_t at, const char *bytes, size_t n) {
    return p->len - at >= n && memcmp(p->text + at, bytes, n) == 0;
}

/* The end of token i where the one before it ends at `at`; LB_NO_PLACE: it does not say what stands there. */
static size_t follow(const struct placing *p, size_t i, size_t at) {
    size_t n;
    const char *bytes = bytes_of(p, i, &n);
    for (size_t skip = 0;; skip++) {
        if (stands(p, at + skip, bytes, n)) {
            return at + skip + n;
        }
        if (n > 0 && bytes[0] == ' ' && stands(p, at + skip, bytes + 1, n - 1)) {
            return at + skip + n - 1;
        }
        if (at + skip == p->len || !is_space(p->text[at + skip])) {
            return LB_NO_PLACE;
        }
    }
}

/* Whether the tokens from i on say what stands at `at`: some bytes of it, or all that is left. */
static bool agree(const struct placing *p, size_t i, size_t at, bool without_space) {
    size_t from = at;
    for (; i < p->n && at - from < AGREE; i++) {
        size_t n;
        const char *bytes = bytes_of(p, i, &n);
        size_t drop = without_space && n > 0 && bytes[0] == ' ';
        if (!stands(p, at, bytes + drop, n - drop)) {
            return false;
        }
        at += n - drop;
        without_space = false;
    }
    return at - from >= AGREE || (i == p->n && at == p->len);
}

/* The first token behind i that agrees with the text again, and where; false: none near. */
static bool find_again(const struct placing *p, size_t i, size_t at, size_t *out_token, size_t *out_at) {
    for (size_t j = i + 1; j <= p->n && j <= i + MOST_TOKENS; j++) {
        for (size_t to = at; to <= p->len && to <= at + MOST_BYTES; to++) {
            if (agree(p, j, to, false) || agree(p, j, to, true)) {
                *out_token = j;
                *out_at = to;
                return true;
            }
        }
    }
    return false;
}

void lb_tokens_place(const struct lb_tokenizer *tokenizer, const int32_t *ids, size_t n, const char *text,
                     size_t len, struct lb_placed *out) {
    const struct placing p = {tokenizer, ids, n, len, text};
    size_t at = 0;
    for (size_t i = 0; i < n;) {
        size_t end = follow(&p, i, at), again = n;
        if (end != LB_NO_PLACE) {
            out[i++] = (struct lb_placed){end, true};
            at = end;
            continue;
        }
        bool found = find_again(&p, i, at, &again, &at); /* else nothing that is left has a place */
        for (; i < again; i++) {
            out[i] = (struct lb_placed){found && i + 1 == again ? at : LB_NO_PLACE, false};
        }
    }
}

/* The tokens from *i on up to the first that ends at or behind `end`, *i moved behind it; *same: whether all
 * of them write the text. Returns where it ends. */
static size_t reach(const struct lb_placed *placed, size_t n, size_t *i, size_t end, bool *same) {
    size_t at = LB_NO_PLACE;
    while (*i < n && (at == LB_NO_PLACE || at < end)) {
        *same = *same && placed[*i].same;
        at = placed[(*i)++].end;
    }
    return at;
}

size_t lb_tokens_meet(const struct lb_placed *a, size_t n_a, const struct lb_placed *b, size_t n_b,
                      struct lb_meeting *out) {
    size_t n = 0, i = 0, j = 0, begin = 0;
    while (i < n_a && j < n_b) {
        size_t first_a = i, first_b = j;
        bool same = true;
        /* A token without bytes (a space that the text has not) goes with what follows it. */
        size_t end_a = reach(a, n_a, &i, begin + 1, &same), end_b = reach(b, n_b, &j, begin + 1, &same);
        while (end_a != end_b && end_a != LB_NO_PLACE && end_b != LB_NO_PLACE) {
            if (end_a < end_b) {
                end_a = reach(a, n_a, &i, end_b, &same);
            } else {
                end_b = reach(b, n_b, &j, end_a, &same);
            }
        }
        if (end_a != end_b || end_a == LB_NO_PLACE || end_a <= begin) {
            break; /* one of them ends before the other */
        }
        if (same) {
            out[n++] = (struct lb_meeting){first_a, i - first_a, first_b, j - first_b, end_a};
        }
        begin = end_a;
    }
    return n;
}
