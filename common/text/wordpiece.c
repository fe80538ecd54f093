/* WordPiece (Schuster and Nakajima 2012, as BERT has it): of each word the longest token that it begins with,
 * then the longest of the rest with the prefix of what continues a word. A word that cannot be written so, or
 * is too long, is one unknown token.
 */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/kind.h"
#include "common/text/trie.h"

#include <string.h>

#define MAX_PREFIX 64

struct word_piece {
    struct lb_trie trie;
    uint32_t inner; /* the node of the prefix; 0 with goes_on false: no token has it */
    bool goes_on;
    int32_t unknown;
    int64_t max_chars;
    char prefix[MAX_PREFIX + 1];
};

static void word_piece_destroy(void *model) {
    struct word_piece *wp = model;
    if (wp) {
        lb_trie_finish(&wp->trie);
        lb_free(wp);
    }
}

static enum lb_status read_options(const json_t *object, const char *what, const struct lb_vocab *vocab,
                                   struct word_piece *wp, struct lb_detail *detail) {
    const char *unknown = "[UNK]", *prefix = "##";
    wp->max_chars = 100;
    enum lb_status status = lb_json_str(object, "unk_token", false, what, &unknown, detail);
    status = status != LB_OK ? status
                             : lb_json_str(object, "continuing_subword_prefix", false, what, &prefix, detail);
    status = status != LB_OK ? status
                             : lb_json_int(object, "max_input_chars_per_word", false, 0, INT32_MAX, what,
                                           &wp->max_chars, detail);
    if (status != LB_OK) {
        return status;
    }
    if (strlen(prefix) > MAX_PREFIX) {
        return lb_fail(detail, LB_E_LIMIT,
                       "%s: model.continuing_subword_prefix has %zu bytes, %d are accepted", what,
                       strlen(prefix), MAX_PREFIX);
    }
    memcpy(wp->prefix, prefix, strlen(prefix) + 1);
    wp->unknown = lb_vocab_find(vocab, unknown, strlen(unknown), LB_ENTRY_MODEL);
    return wp->unknown >= 0 ? LB_OK
                            : lb_fail(detail, LB_E_FORMAT, "%s: model.vocab lacks model.unk_token \"%.40s\"",
                                      what, unknown);
}

static enum lb_status word_piece_parse(const json_t *object, bool bytes, const char *what,
                                       struct lb_vocab *vocab, void **out, struct lb_detail *detail) {
    if (bytes) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: model WordPiece behind a ByteLevel pre_tokenizer",
                       what);
    }
    struct word_piece *wp = lb_calloc(1, sizeof *wp);
    if (!wp) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for the model", what);
    }
    enum lb_status status = lb_vocab_read(vocab, json_object_get(object, "vocab"), what, detail);
    status = status != LB_OK ? status : read_options(object, what, vocab, wp, detail);
    status = status != LB_OK ? status : lb_trie_init(&wp->trie, vocab);
    if (status != LB_OK) {
        word_piece_destroy(wp);
        return lb_fail(detail, status, "%s: out of memory for the vocabulary", what);
    }
    wp->goes_on = true;
    for (const char *p = wp->prefix; *p && wp->goes_on; p++) {
        wp->inner = lb_trie_step(&wp->trie, wp->inner, (uint8_t)*p);
        wp->goes_on = wp->inner != 0;
    }
    *out = wp;
    return LB_OK;
}

static enum lb_status word_piece_hash(const void *model, struct lb_sha256 *hash) {
    const struct word_piece *wp = model;
    lb_sha256_u32(hash, (uint32_t)wp->unknown);
    lb_sha256_u64(hash, (uint64_t)wp->max_chars);
    lb_sha256_update(hash, wp->prefix, strlen(wp->prefix) + 1);
    return LB_OK;
}

static bool too_long(const struct word_piece *wp, const char *piece, size_t n) {
    int64_t chars = 0;
    for (size_t i = 0; i < n && chars <= wp->max_chars; i++) {
        chars += ((uint8_t)piece[i] & 0xc0) != 0x80;
    }
    return chars > wp->max_chars;
}

static enum lb_status word_piece_encode(const void *model, const char *piece, size_t n,
                                        struct lb_text_scratch *scratch, struct lb_ids *out) {
    const struct word_piece *wp = model;
    size_t before = out->len, start = 0;
    bool good = !too_long(wp, piece, n);
    (void)scratch;
    enum lb_status status = lb_ids_reserve(out, good ? n : 1);
    while (status == LB_OK && good && start < n) {
        uint32_t node = start > 0 ? wp->inner : 0;
        int32_t longest = -1;
        size_t end = start, at = start;
        good = start == 0 || wp->goes_on;
        while (good && at < n && (node = lb_trie_step(&wp->trie, node, (uint8_t)piece[at])) != 0) {
            at++;
            if (wp->trie.node[node].id >= 0) {
                longest = wp->trie.node[node].id;
                end = at;
            }
        }
        good = good && longest >= 0;
        if (good) {
            out->data[out->len++] = longest;
        }
        start = end;
    }
    if (status == LB_OK && !good) {
        out->data[before] = wp->unknown;
        out->len = before + 1;
    }
    return status;
}

const struct lb_text_model_kind lb_wordpiece_kind = {.type = "WordPiece",
                                                     .parse = word_piece_parse,
                                                     .encode = word_piece_encode,
                                                     .hash = word_piece_hash,
                                                     .destroy = word_piece_destroy};
