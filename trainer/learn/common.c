/* Which tokens two vocabularies have in common. */
#include "common/base/mem.h"
#include "trainer/learn/parts.h"

#include <stdlib.h>
#include <string.h>

/* Ids in the order of the bytes that they stand for. */
struct token {
    const char *bytes;
    size_t len;
    int32_t id;
};

static int by_bytes(const void *a, const void *b) {
    const struct token *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int order = memcmp(x->bytes, y->bytes, n);
    return order != 0         ? order
           : x->len != y->len ? (x->len < y->len ? -1 : 1)
                              : (x->id > y->id) - (x->id < y->id);
}

/* Sorted tokens of text; what they stand for stays the tokenizer's. NULL: out of memory. */
static struct token *sorted_tokens(const struct lb_tokenizer *tokenizer, int64_t *out_n) {
    int32_t v = lb_tokenizer_vocab_size(tokenizer);
    struct token *tokens = lb_malloc_array((size_t)v + 1, sizeof *tokens);
    int64_t n = 0;
    for (int32_t id = 0; tokens != NULL && id < v; id++) {
        struct token t = {.id = id};
        t.bytes = lb_tokenizer_is_special(tokenizer, id) ? NULL : lb_tokenizer_bytes(tokenizer, id, &t.len);
        if (t.bytes != NULL && t.len > 0) {
            tokens[n++] = t;
        }
    }
    if (tokens != NULL) {
        qsort(tokens, (size_t)n, sizeof *tokens, by_bytes);
        *out_n = n;
    }
    return tokens;
}

static bool same_bytes(const struct token *a, const struct token *b) {
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

static void pair_up(struct lb_common *common, int32_t own, int32_t its) {
    if (own >= 0 && own < common->n_own && its >= 0 && its < common->n && common->own_of[its] < 0 &&
        common->has[own] == 0) {
        common->own_of[its] = own;
        common->has[own] = 1;
    }
}

enum lb_status lb_common_make(const struct lb_tokenizer *own, const struct lb_tokenizer *its, int64_t n_own,
                              struct lb_common *out, struct lb_detail *detail) {
    int64_t n = 0, m = 0;
    struct token *a = sorted_tokens(own, &n), *b = sorted_tokens(its, &m);
    struct lb_common common = {.n = lb_tokenizer_vocab_size(its), .n_own = n_own};
    common.own_of = lb_malloc_array((size_t)common.n + 1, sizeof *common.own_of);
    common.has = lb_calloc((size_t)n_own + 1, sizeof *common.has);
    bool ok = a != NULL && b != NULL && common.own_of != NULL && common.has != NULL;
    for (int64_t i = 0; ok && i < common.n; i++) {
        common.own_of[i] = -1;
    }
    for (int64_t i = 0, j = 0; ok && i < n && j < m;) { /* of several with the same bytes the first of each */
        if (same_bytes(&a[i], &b[j])) {
            pair_up(&common, a[i].id, b[j].id);
            for (int64_t first = i; i < n && same_bytes(&a[first], &a[i]); i++) {
            }
            for (int64_t first = j; j < m && same_bytes(&b[first], &b[j]); j++) {
            }
        } else if (by_bytes(&a[i], &b[j]) < 0) {
            i++;
        } else {
            j++;
        }
    }
    if (ok) { /* what ends a text is the same whatever it is called */
        pair_up(&common, lb_tokenizer_eos(own), lb_tokenizer_eos(its));
        *out = common;
    } else {
        lb_common_finish(&common);
    }
    lb_free(a);
    lb_free(b);
    return ok ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for two vocabularies");
}

void lb_common_finish(struct lb_common *common) {
    lb_free(common->own_of);
    lb_free(common->has);
    *common = (struct lb_common){0};
}
