/* Byte-pair encoding (Sennrich et al. 2016): over byte letters where the pre-tokenizer writes them (Radford
 * et al. 2019; Llama 3, Qwen, SmolLM), else over characters (SentencePiece's models as Hugging Face writes
 * them: Llama 2, Mistral, Gemma), with bytes as <0x41> for what the vocabulary lacks.
 */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/byte_level.h"
#include "common/text/kind.h"
#include "common/text/merges.h"

#include <stdio.h>
#include <string.h>

#define MAX_AFFIX 64
#define SIGN "\xe2\x96\x81" /* U+2581, which SentencePiece writes for a space */

struct bpe {
    const struct lb_vocab *vocab;
    struct lb_merges merges;
    bool bytes;   /* pieces are bytes, each of which has a letter */
    bool letters; /* pieces are bytes, and their letters are the characters */
    bool fuse_unk, ignore_merges;
    int32_t byte_id[256];   /* bytes: the entry of a byte's letter; -1: nothing (it is left out, as tokenizers
                               does) */
    bool byte_unknown[256]; /* byte_id is the unknown token's */
    int32_t unknown;        /* -1: none */
    int32_t ascii[128];     /* characters: their entries, -1: none */
    int32_t fallback[256];  /* the entry of <0xHH>, -1: none, or no byte_fallback */
    bool affixes;
    char prefix[MAX_AFFIX + 1], suffix[MAX_AFFIX + 1]; /* of characters that are not first, and of the last */
    size_t prefix_len, suffix_len;
    int32_t gap;     /* the entry of U+2581, before which text may be cut; -1: it may not */
    bool joins[256]; /* last bytes of what merges with a token that begins with U+2581: there it may not */
};

/* ---- reading ---- */

static enum lb_status read_affix(const json_t *object, const char *key, const char *what, char *to,
                                 size_t *len, struct lb_detail *detail) {
    const char *affix = NULL;
    enum lb_status status = lb_json_str(object, key, false, what, &affix, detail);
    if (status == LB_OK && affix) {
        *len = strlen(affix);
        if (*len > MAX_AFFIX) {
            return lb_fail(detail, LB_E_LIMIT, "%s: model.%s has %zu bytes, %d at most are accepted", what,
                           key, *len, MAX_AFFIX);
        }
        memcpy(to, affix, *len + 1);
    }
    return status;
}

static enum lb_status read_options(const json_t *object, const char *what, struct bpe *bpe,
                                   struct lb_detail *detail) {
    double dropout = 0;
    enum lb_status status = lb_json_number(object, "dropout", false, 0, 1, what, &dropout, detail);
    if (status == LB_OK && dropout > 0) {
        status = lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s: model.dropout is %g: ids would be random; set it to null", what, dropout);
    }
    status = status != LB_OK ? status : lb_json_bool(object, "fuse_unk", false, what, &bpe->fuse_unk, detail);
    status = status != LB_OK
                 ? status
                 : lb_json_bool(object, "ignore_merges", false, what, &bpe->ignore_merges, detail);
    status = status != LB_OK ? status
                             : read_affix(object, "continuing_subword_prefix", what, bpe->prefix,
                                          &bpe->prefix_len, detail);
    status = status != LB_OK
                 ? status
                 : read_affix(object, "end_of_word_suffix", what, bpe->suffix, &bpe->suffix_len, detail);
    bpe->affixes = bpe->prefix_len + bpe->suffix_len > 0;
    return status;
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

/* Entries of characters and of <0xHH>, for models that are not over bytes. */
static enum lb_status find_characters(const json_t *object, const char *what, struct bpe *bpe,
                                      struct lb_detail *detail) {
    const char *unknown = NULL;
    bool fallback = false;
    enum lb_status status = lb_json_str(object, "unk_token", false, what, &unknown, detail);
    status = status != LB_OK ? status : lb_json_bool(object, "byte_fallback", false, what, &fallback, detail);
    if (status != LB_OK) {
        return status;
    }
    bpe->unknown = unknown ? lb_vocab_find(bpe->vocab, unknown, strlen(unknown), LB_ENTRY_MODEL) : -1;
    if (unknown && bpe->unknown < 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model.vocab lacks model.unk_token \"%.40s\"", what, unknown);
    }
    for (int c = 0; c < 128; c++) {
        char letter = (char)c;
        bpe->ascii[c] = lb_vocab_find(bpe->vocab, &letter, 1, LB_ENTRY_MODEL);
    }
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        int n = snprintf(name, sizeof name, "<0x%02X>", byte);
        bpe->fallback[byte] = fallback ? lb_vocab_find(bpe->vocab, name, (size_t)n, LB_ENTRY_MODEL) : -1;
    }
    return LB_OK;
}

bool lb_bpe_merge_sides(const json_t *merge, const char **a, size_t *a_len, const char **b, size_t *b_len) {
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

static bool begins(const char *text, size_t len) {
    return len >= sizeof SIGN - 1 && !memcmp(text, SIGN, sizeof SIGN - 1);
}

static enum lb_status read_merge(const json_t *merge, size_t number, const char *what, struct bpe *bpe,
                                 char *joined, struct lb_detail *detail) {
    const char *a, *b;
    size_t a_len, b_len;
    if (!lb_bpe_merge_sides(merge, &a, &a_len, &b, &b_len)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model.merges[%zu] must be \"a b\" or [\"a\", \"b\"]", what,
                       number);
    }
    int32_t left = lb_vocab_find(bpe->vocab, a, a_len, LB_ENTRY_MODEL);
    int32_t right = lb_vocab_find(bpe->vocab, b, b_len, LB_ENTRY_MODEL);
    int32_t id = -1;
    if (left >= 0 && right >= 0 && b_len >= bpe->prefix_len) {
        memcpy(joined, a, a_len);
        memcpy(joined + a_len, b + bpe->prefix_len, b_len - bpe->prefix_len);
        id = lb_vocab_find(bpe->vocab, joined, a_len + b_len - bpe->prefix_len, LB_ENTRY_MODEL);
    }
    if (id < 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model.merges[%zu]: \"%.40s\" is not in model.vocab", what,
                       number,
                       left < 0    ? a
                       : right < 0 ? b
                                   : "what it makes");
    }
    if (begins(b, b_len) && a_len > 0) {
        bpe->joins[(uint8_t)a[a_len - 1]] = true;
    }
    lb_merges_put(&bpe->merges, left, right, id);
    return LB_OK;
}

static enum lb_status read_merges(const json_t *object, const char *what, struct bpe *bpe,
                                  struct lb_detail *detail) {
    const json_t *merges = json_object_get(object, "merges");
    if (!json_is_array(merges)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model.merges must be a list", what);
    }
    size_t n = json_array_size(merges);
    char *joined = lb_malloc_array(2 * (size_t)bpe->vocab->longest + 1, 1);
    enum lb_status status = joined ? lb_merges_init(&bpe->merges, n) : LB_E_NOMEM;
    bpe->gap = bpe->affixes ? -1 : lb_vocab_find(bpe->vocab, SIGN, sizeof SIGN - 1, LB_ENTRY_MODEL);
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        const json_t *merge = json_array_get(merges, i);
        if (json_is_string(merge) && !strncmp(json_string_value(merge), "#version", 8)) {
            continue; /* the first line of a merges.txt */
        }
        status = read_merge(merge, i, what, bpe, joined, detail);
    }
    lb_free(joined);
    return status != LB_OK ? lb_fail(detail, status, "%s: out of memory for %zu merges", what, n) : LB_OK;
}

/* Merges in their order, and what becomes of bytes without a letter. */
static enum lb_status bpe_hash(const void *model, struct lb_sha256 *hash) {
    const struct bpe *bpe = model;
    enum lb_status status = lb_merges_hash(&bpe->merges, hash);
    for (int b = 0; b < 256; b++) {
        lb_sha256_u32(hash, (uint32_t)(bpe->bytes ? bpe->byte_id[b] : bpe->fallback[b]));
        lb_sha256_u32(hash, bpe->byte_unknown[b]);
    }
    lb_sha256_u32(hash, bpe->fuse_unk);
    lb_sha256_u32(hash, bpe->ignore_merges);
    if (!bpe->bytes) {
        lb_sha256_u32(hash, (uint32_t)bpe->unknown);
    }
    if (bpe->affixes) {
        lb_sha256_update(hash, bpe->prefix, bpe->prefix_len + 1);
        lb_sha256_update(hash, bpe->suffix, bpe->suffix_len + 1);
    }
    return status;
}

static void bpe_destroy(void *model) {
    struct bpe *bpe = model;
    if (bpe) {
        lb_merges_finish(&bpe->merges);
        lb_free(bpe);
    }
}

static enum lb_status bpe_parse(const json_t *object, bool bytes, const char *what, struct lb_vocab *vocab,
                                void **out, struct lb_detail *detail) {
    struct bpe *bpe = lb_calloc(1, sizeof *bpe);
    if (!bpe) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for the model", what);
    }
    bpe->vocab = vocab;
    enum lb_status status = read_options(object, what, bpe, detail);
    bpe->bytes = bytes && !bpe->affixes; /* with affixes, letters are characters like others */
    bpe->letters = bytes && bpe->affixes;
    status = status != LB_OK ? status : lb_vocab_read(vocab, json_object_get(object, "vocab"), what, detail);
    if (status == LB_OK) {
        status =
            bpe->bytes ? find_bytes(object, what, bpe, detail) : find_characters(object, what, bpe, detail);
    }
    status = status != LB_OK ? status : read_merges(object, what, bpe, detail);
    if (status != LB_OK) {
        bpe_destroy(bpe);
        return status;
    }
    *out = bpe;
    return LB_OK;
}

/* ---- encoding ---- */

/* The whole piece as one token, -1 when the vocabulary has no such token. */
static int32_t whole_piece(const struct bpe *bpe, const char *piece, size_t n, char *letters) {
    if (n > bpe->vocab->longest) {
        return -1;
    }
    if (bpe->bytes) {
        n = lb_bytes_to_letters(piece, n, letters);
        piece = letters;
    }
    return lb_vocab_find(bpe->vocab, piece, n, LB_ENTRY_MODEL);
}

static size_t put_bytes(const struct bpe *bpe, const char *piece, size_t n, int32_t *id) {
    bool unknown = false;
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)piece[i];
        int32_t entry = bpe->byte_id[byte];
        if (entry >= 0 && !(bpe->fuse_unk && unknown && bpe->byte_unknown[byte])) {
            id[m++] = entry;
        }
        unknown = bpe->byte_unknown[byte];
    }
    return m;
}

/* The entry of the character piece[start, end) with the affixes of its place. */
static int32_t find_character(const struct bpe *bpe, const char *piece, size_t start, size_t end, size_t n) {
    if (!bpe->affixes) {
        return end - start == 1 ? bpe->ascii[(uint8_t)piece[start]]
                                : lb_vocab_find(bpe->vocab, piece + start, end - start, LB_ENTRY_MODEL);
    }
    char text[2 * MAX_AFFIX + 4];
    size_t len = 0;
    if (start > 0) {
        memcpy(text, bpe->prefix, bpe->prefix_len);
        len = bpe->prefix_len;
    }
    memcpy(text + len, piece + start, end - start);
    len += end - start;
    if (end == n) {
        memcpy(text + len, bpe->suffix, bpe->suffix_len);
        len += bpe->suffix_len;
    }
    return lb_vocab_find(bpe->vocab, text, len, LB_ENTRY_MODEL);
}

/* True when every byte of a character has an entry. */
static bool falls_back(const struct bpe *bpe, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (bpe->fallback[(uint8_t)bytes[i]] < 0) {
            return false;
        }
    }
    return true;
}

/* An unknown character waits until the next known one: fuse_unk may make it longer. What falls back to bytes
 * passes it, as in tokenizers. */
static size_t put_characters(const struct bpe *bpe, const char *piece, size_t n, int32_t *id) {
    size_t m = 0, pos = 0;
    bool waits = false;
    while (pos < n) {
        size_t start = pos, at = pos;
        pos += (uint8_t)piece[pos] < 0x80 ? 1 : (lb_utf8_next(piece, &at), at - start);
        int32_t entry = find_character(bpe, piece, start, pos, n);
        if (entry >= 0) {
            if (waits) {
                id[m++] = bpe->unknown;
                waits = false;
            }
            id[m++] = entry;
        } else if (falls_back(bpe, piece + start, pos - start)) {
            for (size_t i = start; i < pos; i++) {
                id[m++] = bpe->fallback[(uint8_t)piece[i]];
            }
        } else if (bpe->unknown >= 0) {
            if (waits && !bpe->fuse_unk) {
                id[m++] = bpe->unknown;
            }
            waits = true;
        }
    }
    if (waits) {
        id[m++] = bpe->unknown;
    }
    return m;
}

/* Whether no merge reaches from the symbol left, whatever it has grown to, to U+2581 on its right. */
static bool is_gap(const struct bpe *bpe, int32_t left) {
    const struct lb_entry *entry = &bpe->vocab->entry[left];
    return entry->len > 0 && !bpe->joins[(uint8_t)bpe->vocab->pool[entry->text + entry->len - 1]];
}

/* Merges symbols, word by word where no merge reaches from one to the next. */
static size_t merge_parts(const struct bpe *bpe, struct lb_symbols *s, size_t n, int32_t *out) {
    int32_t *first = s->id;
    size_t start = 0, written = 0;
    while (start < n) {
        size_t end = bpe->gap >= 0 ? start + 1 : n;
        while (end < n && (first[end] != bpe->gap || !is_gap(bpe, first[end - 1]))) {
            end++;
        }
        s->id = first + start;
        size_t left = lb_merges_run(&bpe->merges, s, end - start);
        memcpy(out + written, s->id, left * sizeof *out);
        written += left;
        start = end;
    }
    return written;
}

static enum lb_status bpe_encode(const void *model, const char *piece, size_t n,
                                 struct lb_text_scratch *scratch, struct lb_ids *out) {
    const struct bpe *bpe = model;
    size_t most = bpe->letters ? 2 * n : n;
    enum lb_status status = lb_ids_reserve(out, most);
    if (status == LB_OK && scratch->bytes < most * (LB_MERGE_BYTES + 2)) {
        void *data = lb_malloc_array(most, LB_MERGE_BYTES + 2);
        if (data) {
            lb_free(scratch->data);
            scratch->data = data;
            scratch->bytes = most * (LB_MERGE_BYTES + 2);
        }
        status = data ? LB_OK : LB_E_NOMEM;
    }
    if (status != LB_OK) {
        return status;
    }
    struct lb_symbols s = {.heap_n = 0};
    lb_symbols_lay(&s, scratch->data, most);
    char *letters = (char *)scratch->data + most * LB_MERGE_BYTES;
    if (bpe->letters) {
        n = lb_bytes_to_letters(piece, n, letters);
        piece = letters;
    }
    int32_t whole = bpe->ignore_merges ? whole_piece(bpe, piece, n, letters) : -1;
    if (whole >= 0) {
        out->data[out->len++] = whole;
        return LB_OK;
    }
    size_t m = bpe->bytes ? put_bytes(bpe, piece, n, s.id) : put_characters(bpe, piece, n, s.id);
    out->len += merge_parts(bpe, &s, m, out->data + out->len);
    return LB_OK;
}

const struct lb_text_model_kind lb_bpe_kind = {
    .type = "BPE", .parse = bpe_parse, .encode = bpe_encode, .hash = bpe_hash, .destroy = bpe_destroy};
