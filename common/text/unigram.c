/* The unigram model (Kudo 2018; T5, XLM-R, ALBERT): of all ways to cut a piece into tokens the one with the
 * highest sum of scores, by Viterbi over the characters. A character that no token is written as is unknown,
 * with ten less than the lowest score; unknown neighbours become one. Sums are double, from left to right,
 * and of equal ones the first found counts: the cuts are those of tokenizers.
 */
#include "common/base/mem.h"
#include "common/text/kind.h"
#include "common/text/trie.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define UNKNOWN_PENALTY 10.0

struct unigram {
    const struct lb_vocab *vocab;
    struct lb_trie trie;
    double *score; /* [n] */
    size_t n;
    double unknown_score;
    int32_t unknown; /* -1: none */
    bool byte_fallback;
    int32_t fallback[256]; /* the entry of <0xHH>, -1: none */
};

/* The best way to a place in the piece. */
struct node {
    double score;
    uint32_t start; /* where its last token begins */
    int32_t id;     /* of that token; -1: nothing ends here */
};

static void unigram_destroy(void *model) {
    struct unigram *u = model;
    if (u) {
        lb_trie_finish(&u->trie);
        lb_free(u->score);
        lb_free(u);
    }
}

/* "vocab": [["<unk>", 0.0], ...], ids by their place. */
static enum lb_status read_vocab(const json_t *object, const char *what, struct lb_vocab *vocab,
                                 struct unigram *u, struct lb_detail *detail) {
    const json_t *list = json_object_get(object, "vocab");
    if (!json_is_array(list)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model.vocab must be a list of tokens and scores", what);
    }
    u->n = json_array_size(list);
    u->score = lb_calloc(u->n + 1, sizeof *u->score);
    if (!u->score) {
        return LB_E_NOMEM;
    }
    double lowest = INFINITY;
    for (size_t i = 0; i < u->n; i++) {
        const json_t *pair = json_array_get(list, i);
        const json_t *token = json_array_get(pair, 0), *score = json_array_get(pair, 1);
        if (!json_is_string(token) || !json_is_number(score) || json_array_size(pair) != 2 ||
            strlen(json_string_value(token)) != json_string_length(token)) {
            return lb_fail(detail, LB_E_FORMAT, "%s: model.vocab[%zu] must be [\"token\", score]", what, i);
        }
        u->score[i] = json_number_value(score);
        lowest = u->score[i] < lowest ? u->score[i] : lowest;
        enum lb_status status = lb_vocab_put(vocab, json_string_value(token), json_string_length(token),
                                             (int64_t)i, LB_ENTRY_MODEL, what, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    u->unknown_score = lowest - UNKNOWN_PENALTY;
    return LB_OK;
}

static enum lb_status read_options(const json_t *object, const char *what, const struct lb_vocab *vocab,
                                   struct unigram *u, struct lb_detail *detail) {
    int64_t unknown = -1;
    enum lb_status status = lb_json_int(object, "unk_id", false, 0, INT32_MAX, what, &unknown, detail);
    status = status != LB_OK ? status
                             : lb_json_bool(object, "byte_fallback", false, what, &u->byte_fallback, detail);
    if (status == LB_OK && unknown >= (int64_t)u->n) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: model.unk_id %lld is not in model.vocab", what,
                         (long long)unknown);
    }
    u->unknown = (int32_t)unknown;
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        int n = snprintf(name, sizeof name, "<0x%02X>", byte);
        u->fallback[byte] = lb_vocab_find(vocab, name, (size_t)n, LB_ENTRY_MODEL);
    }
    return status;
}

static enum lb_status unigram_parse(const json_t *object, bool bytes, const char *what,
                                    struct lb_vocab *vocab, void **out, struct lb_detail *detail) {
    if (bytes) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: model Unigram behind a ByteLevel pre_tokenizer", what);
    }
    struct unigram *u = lb_calloc(1, sizeof *u);
    if (!u) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for the model", what);
    }
    u->vocab = vocab;
    enum lb_status status = read_vocab(object, what, vocab, u, detail);
    status = status != LB_OK ? status : read_options(object, what, vocab, u, detail);
    status = status != LB_OK ? status : lb_trie_init(&u->trie, vocab);
    if (status != LB_OK) {
        unigram_destroy(u);
        return lb_fail(detail, status, "%s: out of memory for the vocabulary", what);
    }
    *out = u;
    return LB_OK;
}

static enum lb_status unigram_hash(const void *model, struct lb_sha256 *hash) {
    const struct unigram *u = model;
    lb_sha256_u64(hash, u->n);
    for (size_t i = 0; i < u->n; i++) {
        uint64_t bits;
        memcpy(&bits, &u->score[i], sizeof bits);
        lb_sha256_u64(hash, bits);
    }
    lb_sha256_u32(hash, (uint32_t)u->unknown);
    lb_sha256_u32(hash, u->byte_fallback);
    return LB_OK;
}

static size_t char_bytes(char lead) {
    uint8_t c = (uint8_t)lead;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* A way to at is taken when it is the first or better. */
static void offer(struct node *at, double score, size_t start, int32_t id) {
    if (at->id < 0 || score > at->score) {
        *at = (struct node){score, (uint32_t)start, id};
    }
}

/* Finds the best way to each place; false when it needs an unknown token and there is none. */
static bool find_ways(const struct unigram *u, const char *piece, size_t n, struct node *node) {
    for (size_t i = 0; i <= n; i++) {
        node[i] = (struct node){.id = -1};
    }
    for (size_t start = 0; start < n;) {
        size_t next = start + char_bytes(piece[start]);
        double till = node[start].score;
        bool single = false;
        uint32_t place = 0;
        for (size_t at = start; at < n; at++) {
            place = lb_trie_step(&u->trie, place, (uint8_t)piece[at]);
            if (place == 0) {
                break;
            }
            int32_t id = u->trie.node[place].id;
            if (id >= 0) {
                offer(&node[at + 1], u->score[id] + till, start, id);
                single = single || at + 1 == next;
            }
        }
        if (!single) {
            if (u->unknown < 0) {
                return false;
            }
            offer(&node[next], u->unknown_score + till, start, u->unknown);
        }
        start = next;
    }
    return true;
}

/* The ids of piece[start, end), unknown characters side by side: a token that happens to be written so, else
 * bytes where all have one, else the unknown token. Written backwards, as the way is. */
static size_t put_unknown(const struct unigram *u, const char *piece, size_t start, size_t end,
                          int32_t *out) {
    size_t n = 0;
    int32_t id = lb_vocab_find(u->vocab, piece + start, end - start, LB_ENTRY_MODEL);
    for (size_t i = end; id < 0 && u->byte_fallback && i > start; i--) {
        int32_t byte = u->fallback[(uint8_t)piece[i - 1]];
        if (byte < 0) {
            n = 0;
            break;
        }
        out[n++] = byte;
    }
    if (n == 0) {
        out[n++] = id >= 0 ? id : u->unknown;
    }
    return n;
}

static enum lb_status unigram_encode(const void *model, const char *piece, size_t n,
                                     struct lb_text_scratch *scratch, struct lb_ids *out) {
    const struct unigram *u = model;
    enum lb_status status = lb_ids_reserve(out, n);
    if (status == LB_OK && scratch->bytes < (n + 1) * sizeof(struct node)) {
        void *data = lb_malloc_array(n + 1, sizeof(struct node));
        if (data) {
            lb_free(scratch->data);
            scratch->data = data;
            scratch->bytes = (n + 1) * sizeof(struct node);
        }
        status = data ? LB_OK : LB_E_NOMEM;
    }
    if (status != LB_OK) {
        return status;
    }
    struct node *node = scratch->data;
    if (!find_ways(u, piece, n, node)) {
        return LB_E_UNSUPPORTED;
    }
    int32_t *id = out->data + out->len;
    size_t written = 0, end = n;
    while (end > 0) {
        size_t start = node[end].start;
        if (node[end].id != u->unknown) {
            id[written++] = node[end].id;
        } else {
            while (start > 0 && node[start].id == u->unknown) {
                start = node[start].start;
            }
            written += put_unknown(u, piece, start, end, id + written);
        }
        end = start;
    }
    for (size_t i = 0; i < written / 2; i++) {
        int32_t swapped = id[i];
        id[i] = id[written - 1 - i];
        id[written - 1 - i] = swapped;
    }
    out->len += written;
    return LB_OK;
}

const struct lb_text_model_kind lb_unigram_kind = {.type = "Unigram",
                                                   .parse = unigram_parse,
                                                   .encode = unigram_encode,
                                                   .hash = unigram_hash,
                                                   .destroy = unigram_destroy};
