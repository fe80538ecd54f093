/* Byte-pair encoding over byte letters (Sennrich et al. 2016; bytes after Radford et al. 2019).
 *
 * A piece starts as one symbol for each byte. Again and again the neighbours with the lowest rank in the list
 * of merges, the leftmost of them, become one symbol, until no two neighbours are in the list. Short pieces
 * are searched from end to end each time; long ones keep a heap of candidates, so that n bytes cost n log n.
 */
#include "common/base/mem.h"
#include "common/text/byte_level.h"
#include "common/text/kind.h"

#include <stdlib.h>
#include <string.h>

#define NO_RANK UINT32_MAX
#define SHORT_PIECE 24

/* Two neighbours, the place of their merge in the list, and what they become. */
struct pair {
    int32_t left, right; /* left -1: a free slot */
    uint32_t rank;
    int32_t id;
};

struct bpe {
    const struct lb_vocab *vocab;
    struct pair *pair; /* open addressing */
    uint32_t mask;
    int32_t byte_id[256];   /* the entry of a byte's letter; -1: nothing (the byte is left out, as tokenizers
                               does) */
    bool byte_unknown[256]; /* byte_id is the unknown token's */
    bool fuse_unk, ignore_merges;
};

static uint32_t hash_pair(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 32);
}

static const struct pair *find_pair(const struct bpe *bpe, int32_t left, int32_t right) {
    uint32_t i = hash_pair(left, right) & bpe->mask;
    while (bpe->pair[i].left >= 0) {
        if (bpe->pair[i].left == left && bpe->pair[i].right == right) {
            return &bpe->pair[i];
        }
        i = (i + 1) & bpe->mask;
    }
    return NULL;
}

/* ---- reading ---- */

/* The keys that would change ids in ways that byte-level tokenizers do not use. */
static enum lb_status check_options(const json_t *object, const char *what, struct lb_detail *detail) {
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    double dropout = 0;
    enum lb_status status = lb_json_number(object, "dropout", false, 0, 1, what, &dropout, detail);
    if (status == LB_OK && dropout > 0) {
        status = lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s: model.dropout is %g: ids would be random; set it to null", what, dropout);
    }
    for (size_t i = 0; i < sizeof affixes / sizeof affixes[0] && status == LB_OK; i++) {
        const char *affix = NULL;
        status = lb_json_str(object, affixes[i], false, what, &affix, detail);
        if (status == LB_OK && affix && affix[0]) {
            status =
                lb_fail(detail, LB_E_UNSUPPORTED, "%s: model.%s \"%.40s\" is not supported in byte-level BPE",
                        what, affixes[i], affix);
        }
    }
    return status;
}

static enum lb_status read_vocab(const json_t *object, const char *what, struct lb_vocab *vocab,
                                 struct lb_detail *detail) {
    json_t *entries = json_object_get(object, "vocab");
    if (!json_is_object(entries)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model.vocab must be an object of tokens and ids", what);
    }
    const char *text;
    json_t *id;
    json_object_foreach(entries, text, id) {
        if (!json_is_integer(id)) {
            return lb_fail(detail, LB_E_FORMAT, "%s: model.vocab: the id of \"%.80s\" must be a whole number",
                           what, text);
        }
        enum lb_status status =
            lb_vocab_put(vocab, text, strlen(text), json_integer_value(id), LB_ENTRY_MODEL, what, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    return LB_OK;
}

/* What each token stands for: its letters' bytes, or itself when it is not made of letters (as tokenizers'
 * decoder has it). */
static enum lb_status decode_vocab(struct lb_vocab *vocab, const char *what, struct lb_detail *detail) {
    char *bytes = lb_malloc_array(vocab->longest + (size_t)1, 1);
    enum lb_status status = bytes ? LB_OK : LB_E_NOMEM;
    for (int32_t id = 0; id < vocab->size && status == LB_OK; id++) {
        const char *text = lb_vocab_text(vocab, id);
        size_t n = vocab->entry[id].len;
        if (!text) {
            continue;
        }
        if (!lb_letters_to_bytes(text, n, bytes, &n)) {
            memcpy(bytes, text, n);
        }
        status = lb_vocab_stands_for(vocab, id, bytes, n);
    }
    lb_free(bytes);
    return status != LB_OK ? lb_fail(detail, status, "%s: out of memory for the vocabulary", what) : LB_OK;
}

static enum lb_status find_bytes(const json_t *object, const char *what, struct bpe *bpe,
                                 struct lb_detail *detail) {
    const char *unknown = NULL;
    bool fallback = false;
    enum lb_status status = lb_json_str(object, "unk_token", false, what, &unknown, detail);
    if (status == LB_OK) {
        status = lb_json_bool(object, "byte_fallback", false, what, &fallback, detail);
    }
    int32_t unknown_id = unknown ? lb_vocab_find(bpe->vocab, unknown, strlen(unknown), LB_ENTRY_MODEL) : -1;
    for (int byte = 0; byte < 256 && status == LB_OK; byte++) {
        char raw = (char)byte, letter[2];
        size_t n = lb_bytes_to_letters(&raw, 1, letter);
        int32_t id = lb_vocab_find(bpe->vocab, letter, n, LB_ENTRY_MODEL);
        bpe->byte_id[byte] = id >= 0 ? id : unknown_id;
        bpe->byte_unknown[byte] = id < 0 && unknown_id >= 0;
        if (id < 0 && fallback) {
            status = lb_fail(detail, LB_E_UNSUPPORTED,
                             "%s: model.byte_fallback with a vocabulary that lacks byte 0x%02x", what, byte);
        } else if (id < 0 && unknown && unknown_id < 0) {
            status = lb_fail(detail, LB_E_FORMAT,
                             "%s: model.vocab lacks byte 0x%02x and model.unk_token \"%.40s\"", what, byte,
                             unknown);
        }
    }
    return status;
}

/* One merge as ["a", "b"] or "a b". */
static bool merge_sides(const json_t *merge, const char **a, size_t *a_len, const char **b, size_t *b_len) {
    if (json_is_array(merge)) {
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        *a = json_string_value(left);
        *b = json_string_value(right);
        *a_len = json_string_length(left);
        *b_len = json_string_length(right);
        return *a && *b && json_array_size(merge) == 2;
    }
    const char *text = json_string_value(merge);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' ')) {
        return false;
    }
    *a = text;
    *a_len = (size_t)(space - text);
    *b = space + 1;
    *b_len = strlen(space + 1);
    return true;
}

static enum lb_status read_merges(const json_t *object, const char *what, struct bpe *bpe,
                                  struct lb_detail *detail) {
    const json_t *merges = json_object_get(object, "merges");
    if (!json_is_array(merges)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model.merges must be a list", what);
    }
    size_t n = json_array_size(merges);
    uint32_t slots = 16;
    while (slots < 2 * n && slots < (UINT32_C(1) << 31)) {
        slots *= 2;
    }
    bpe->pair = n < slots ? lb_malloc_array(slots, sizeof *bpe->pair) : NULL;
    char *joined = lb_malloc_array(2 * (size_t)bpe->vocab->longest + 1, 1);
    enum lb_status status = bpe->pair && joined ? LB_OK : LB_E_NOMEM;
    bpe->mask = slots - 1;
    for (uint32_t i = 0; i < slots && status == LB_OK; i++) {
        bpe->pair[i].left = -1;
    }
    uint32_t rank = 0;
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        const json_t *merge = json_array_get(merges, i);
        const char *a, *b;
        size_t a_len, b_len;
        if (json_is_string(merge) && !strncmp(json_string_value(merge), "#version", 8)) {
            continue; /* the first line of a merges.txt */
        }
        if (!merge_sides(merge, &a, &a_len, &b, &b_len)) {
            status = lb_fail(detail, LB_E_FORMAT, "%s: model.merges[%zu] must be \"a b\" or [\"a\", \"b\"]",
                             what, i);
            break;
        }
        int32_t left = lb_vocab_find(bpe->vocab, a, a_len, LB_ENTRY_MODEL);
        int32_t right = lb_vocab_find(bpe->vocab, b, b_len, LB_ENTRY_MODEL);
        int32_t id = -1;
        if (left >= 0 && right >= 0) {
            memcpy(joined, a, a_len);
            memcpy(joined + a_len, b, b_len);
            id = lb_vocab_find(bpe->vocab, joined, a_len + b_len, LB_ENTRY_MODEL);
        }
        if (id < 0) {
            status = lb_fail(detail, LB_E_FORMAT, "%s: model.merges[%zu]: \"%.40s\" is not in model.vocab",
                             what, i,
                             left < 0    ? a
                             : right < 0 ? b
                                         : "what it makes");
            break;
        }
        uint32_t at = hash_pair(left, right) & bpe->mask;
        while (bpe->pair[at].left >= 0 && (bpe->pair[at].left != left || bpe->pair[at].right != right)) {
            at = (at + 1) & bpe->mask;
        }
        bpe->pair[at] =
            (struct pair){left, right, rank++, id}; /* a repeated pair counts where it stands last */
    }
    lb_free(joined);
    return status != LB_OK ? lb_fail(detail, status, "%s: out of memory for %zu merges", what, n) : LB_OK;
}

static int by_rank(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Merges in their order, and what becomes of bytes without a letter. */
static enum lb_status bpe_hash(const void *model, struct lb_sha256 *hash) {
    const struct bpe *bpe = model;
    size_t n = 0;
    struct pair *sorted = lb_malloc_array((size_t)bpe->mask + 1, sizeof *sorted);
    if (!sorted) {
        return LB_E_NOMEM;
    }
    for (uint32_t i = 0; i <= bpe->mask; i++) {
        if (bpe->pair[i].left >= 0) {
            sorted[n++] = bpe->pair[i];
        }
    }
    qsort(sorted, n, sizeof *sorted, by_rank);
    lb_sha256_u64(hash, n);
    for (size_t i = 0; i < n; i++) {
        lb_sha256_u32(hash, (uint32_t)sorted[i].left);
        lb_sha256_u32(hash, (uint32_t)sorted[i].right);
    }
    lb_free(sorted);
    for (int b = 0; b < 256; b++) {
        lb_sha256_u32(hash, (uint32_t)bpe->byte_id[b]);
        lb_sha256_u32(hash, bpe->byte_unknown[b]);
    }
    lb_sha256_u32(hash, bpe->fuse_unk);
    lb_sha256_u32(hash, bpe->ignore_merges);
    return LB_OK;
}

static void bpe_destroy(void *model) {
    struct bpe *bpe = model;
    if (bpe) {
        lb_free(bpe->pair);
        lb_free(bpe);
    }
}

static enum lb_status bpe_parse(const json_t *object, bool bytes, const char *what, struct lb_vocab *vocab,
                                void **out, struct lb_detail *detail) {
    if (!bytes) {
        return lb_fail(
            detail, LB_E_UNSUPPORTED,
            "%s: model BPE without a ByteLevel pre_tokenizer (SentencePiece-style BPE) is not supported",
            what);
    }
    struct bpe *bpe = lb_calloc(1, sizeof *bpe);
    if (!bpe) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for the model", what);
    }
    bpe->vocab = vocab;
    enum lb_status status = check_options(object, what, detail);
    status = status != LB_OK ? status : lb_json_bool(object, "fuse_unk", false, what, &bpe->fuse_unk, detail);
    status = status != LB_OK
                 ? status
                 : lb_json_bool(object, "ignore_merges", false, what, &bpe->ignore_merges, detail);
    status = status != LB_OK ? status : read_vocab(object, what, vocab, detail);
    status = status != LB_OK ? status : decode_vocab(vocab, what, detail);
    status = status != LB_OK ? status : find_bytes(object, what, bpe, detail);
    status = status != LB_OK ? status : read_merges(object, what, bpe, detail);
    if (status != LB_OK) {
        bpe_destroy(bpe);
        return status;
    }
    *out = bpe;
    return LB_OK;
}

/* ---- encoding ---- */

/* The symbols of a piece, as arrays in the scratch memory. */
struct symbols {
    int32_t *id; /* [n] */
    uint32_t
        *rank; /* [n] of the pair that a symbol makes with its right neighbour; NO_RANK: not in the list */
    int32_t *merged;       /* [n] what that pair becomes */
    uint32_t *prev, *next; /* [n] long pieces: the list of symbols still there */
    uint64_t *heap;        /* [3 n] long pieces: rank << 32 | position */
    size_t heap_n;
};

static void rank_pair(const struct bpe *bpe, struct symbols *s, size_t at, int32_t right) {
    const struct pair *pair = find_pair(bpe, s->id[at], right);
    s->rank[at] = pair ? pair->rank : NO_RANK;
    s->merged[at] = pair ? pair->id : -1;
}

/* Merges by looking through all pairs each time; returns the number of symbols left, at the front of id. */
static size_t merge_short(const struct bpe *bpe, struct symbols *s, size_t n) {
    for (size_t i = 0; i + 1 < n; i++) {
        rank_pair(bpe, s, i, s->id[i + 1]);
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
            rank_pair(bpe, s, best - 1, s->id[best]);
        }
        if (best + 1 < n) {
            rank_pair(bpe, s, best, s->id[best + 1]);
        }
    }
    return n;
}

static void heap_push(struct symbols *s, uint64_t key) {
    size_t i = s->heap_n++;
    while (i > 0 && s->heap[(i - 1) / 2] > key) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = key;
}

static uint64_t heap_pop(struct symbols *s) {
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

static void rank_and_push(const struct bpe *bpe, struct symbols *s, uint32_t at, uint32_t right) {
    rank_pair(bpe, s, at, s->id[right]);
    if (s->rank[at] != NO_RANK) {
        heap_push(s, (uint64_t)s->rank[at] << 32 | at);
    }
}

/* The same with a heap of candidates over a linked list. An entry counts if the pair at its place still has
 * its rank; a symbol that was swallowed has NO_RANK. */
static size_t merge_long(const struct bpe *bpe, struct symbols *s, uint32_t n) {
    s->heap_n = 0;
    for (uint32_t i = 0; i < n; i++) {
        s->prev[i] = i - 1; /* of the first: never read */
        s->next[i] = i + 1; /* n: none */
    }
    s->rank[n - 1] = NO_RANK;
    for (uint32_t i = 0; i + 1 < n; i++) {
        rank_and_push(bpe, s, i, i + 1);
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
            rank_and_push(bpe, s, at, s->next[at]);
        } else {
            s->rank[at] = NO_RANK;
        }
        if (at > 0) {
            rank_and_push(bpe, s, s->prev[at], at);
        }
    }
    size_t left = 0;
    for (uint32_t i = 0; i < n; i = s->next[i]) {
        s->id[left++] = s->id[i];
    }
    return left;
}

static enum lb_status reserve(struct lb_text_scratch *scratch, size_t bytes) {
    if (scratch->bytes < bytes) {
        void *data = lb_malloc_array(bytes, 1);
        if (!data) {
            return LB_E_NOMEM;
        }
        lb_free(scratch->data);
        scratch->data = data;
        scratch->bytes = bytes;
    }
    return LB_OK;
}

/* The whole piece as one token, -1 when the vocabulary has no such token. */
static enum lb_status whole_piece(const struct bpe *bpe, const char *piece, size_t n,
                                  struct lb_text_scratch *scratch, int32_t *out) {
    *out = -1;
    if (n > bpe->vocab->longest) {
        return LB_OK;
    }
    enum lb_status status = reserve(scratch, 2 * n);
    if (status == LB_OK) {
        size_t len = lb_bytes_to_letters(piece, n, scratch->data);
        *out = lb_vocab_find(bpe->vocab, scratch->data, len, LB_ENTRY_MODEL);
    }
    return status;
}

static enum lb_status bpe_encode(const void *model, const char *piece, size_t n,
                                 struct lb_text_scratch *scratch, struct lb_ids *out) {
    const struct bpe *bpe = model;
    enum lb_status status = lb_ids_reserve(out, n);
    if (status == LB_OK && bpe->ignore_merges) {
        int32_t whole;
        status = whole_piece(bpe, piece, n, scratch, &whole);
        if (status == LB_OK && whole >= 0) {
            out->data[out->len++] = whole;
            return LB_OK;
        }
    }
    if (status == LB_OK) { /* 3 heap entries of 8 bytes, 5 words of 4; n < 2^31 */
        status = reserve(scratch, n * 44);
    }
    if (status != LB_OK) {
        return status;
    }
    struct symbols s = {.heap = scratch->data};
    s.id = (int32_t *)(s.heap + 3 * n);
    s.merged = s.id + n;
    s.rank = (uint32_t *)(s.merged + n);
    s.prev = s.rank + n;
    s.next = s.prev + n;
    size_t m = 0;
    bool unknown = false;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)piece[i];
        int32_t id = bpe->byte_id[byte];
        if (id >= 0 && !(bpe->fuse_unk && unknown && bpe->byte_unknown[byte])) {
            s.id[m++] = id;
        }
        unknown = bpe->byte_unknown[byte];
    }
    m = m > SHORT_PIECE ? merge_long(bpe, &s, (uint32_t)m) : merge_short(bpe, &s, m);
    memcpy(out->data + out->len, s.id, m * sizeof *s.id);
    out->len += m;
    return LB_OK;
}

const struct lb_text_model_kind lb_bpe_kind = {.type = "BPE",
                                               .decoder = "ByteLevel",
                                               .parse = bpe_parse,
                                               .encode = bpe_encode,
                                               .hash = bpe_hash,
                                               .destroy = bpe_destroy};
