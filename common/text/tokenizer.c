#include "common/text/tokenizer.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/text/internal.h"
#include "common/text/utf8.h"

#include <string.h>

#define MAX_FILE_BYTES ((size_t)256 << 20)
#define MAX_CONFIG_BYTES ((size_t)64 << 20)
#define MAX_DEPTH 32

enum lb_status lb_ids_reserve(struct lb_ids *ids, size_t n) {
    size_t need;
    if (!lb_add_size(ids->len, n, &need)) {
        return LB_E_LIMIT;
    }
    if (need > ids->cap) {
        size_t cap = ids->cap < SIZE_MAX / 4 ? ids->cap + ids->cap / 2 : need;
        cap = cap < need ? need : cap;
        cap = cap < 16 ? 16 : cap;
        int32_t *data = lb_realloc_array(ids->data, cap, sizeof(*data));
        if (!data) {
            return LB_E_NOMEM;
        }
        ids->data = data;
        ids->cap = cap;
    }
    return LB_OK;
}

/* ---- opening ---- */

/* The first of names that is in the vocabulary, -1 when none is. */
static int32_t first_known(const struct lb_tokenizer *tokenizer, const char *const *names, size_t n) {
    int32_t id = -1;
    for (size_t i = 0; i < n && id < 0; ++i) {
        id = lb_vocab_find(&tokenizer->vocab, names[i], strlen(names[i]), LB_ENTRY_ADDED);
    }
    return id;
}

static void guess_ends(struct lb_tokenizer *to) {
    static const char *const eos[] = {"<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"};
    static const char *const bos[] = {"<bos>", "<s>", "<|begin_of_text|>", "<|startoftext|>"};
    to->eos = first_known(to, eos, sizeof(eos) / sizeof(eos[0]));
    to->bos = first_known(to, bos, sizeof(bos) / sizeof(bos[0]));
}

/* SHA-256 over (id, length, written form) in order of ids, numbers as 32 bits little-endian. */
static enum lb_status take_fingerprint(struct lb_tokenizer *to) {
    struct lb_sha256 *hash = lb_sha256_create();
    if (!hash) {
        return LB_E_NOMEM;
    }
    uint8_t digest[LB_SHA256_BYTES];
    for (int32_t id = 0; id < to->vocab.size; ++id) {
        const struct lb_entry *entry = &to->vocab.entry[id];
        if (entry->flags) {
            lb_sha256_u32(hash, (uint32_t)id);
            lb_sha256_u32(hash, entry->len);
            lb_sha256_update(hash, to->vocab.pool + entry->text, entry->len);
        }
    }
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof(digest), to->fingerprint);
    return LB_OK;
}

enum lb_status lb_tokenizer_parse(const void *json, size_t len, const char *what, struct lb_tokenizer **out,
                                  struct lb_detail *detail) {
    json_t *root = NULL;
    struct lb_tokenizer *to = lb_calloc(1, sizeof(*to));
    enum lb_status status = to ? lb_json_parse(json, len, MAX_DEPTH, what, &root, detail) : LB_E_NOMEM;
    if (!status) {
        status = lb_tokenizer_read(to, root, what, detail);
    }
    if (!status) {
        guess_ends(to);
        status = take_fingerprint(to);
    }
    if (!status) {
        to->source = lb_malloc_array(len + 1, 1);
        status = to->source ? LB_OK : LB_E_NOMEM;
    }
    json_decref(root);
    if (status) {
        lb_tokenizer_destroy(to);
        return lb_fail(detail, status, "%s: out of memory for the tokenizer", what);
    }
    memcpy(to->source, json, len);
    to->source[len] = '\0';
    to->source_len = len;
    *out = to;
    return LB_OK;
}

/* A key like "eos_token": a string, or an object whose "content" is one. null and absence leave *id as it is.
 */
static enum lb_status config_token(const struct lb_tokenizer *tokenizer, const json_t *config,
                                   const char *key, const char *path, int32_t *id, struct lb_detail *detail) {
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value)) {
        value = json_object_get(value, "content");
    }
    if (!value || json_is_null(value)) {
        return LB_OK;
    }
    const char *text = json_string_value(value);
    int32_t found = text ? lb_tokenizer_id(tokenizer, text) : -1;
    if (found < 0) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s: %s \"%.60s\" is not in the vocabulary of the tokenizer.json beside it", path, key,
                       text ? text : "");
    }
    *id = found;
    return LB_OK;
}

/* tokenizer_config.json beside a tokenizer.json says which tokens begin and end a text. */
static enum lb_status read_config(struct lb_tokenizer *to, const char *dir, struct lb_detail *detail) {
    char *path = lb_path_join(dir, "tokenizer_config.json");
    json_t *config = NULL;
    enum lb_status status = path ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    if (!status && lb_file_exists(path)) {
        status = lb_json_file(path, MAX_CONFIG_BYTES, &config, detail);
        status = status ? status : config_token(to, config, "eos_token", path, &to->eos, detail);
        status = status ? status : config_token(to, config, "bos_token", path, &to->bos, detail);
    }
    json_decref(config);
    lb_free(path);
    return status;
}

enum lb_status lb_tokenizer_open(const char *path, struct lb_tokenizer **out, struct lb_detail *detail) {
    struct lb_buf file;
    struct lb_tokenizer *to = NULL;
    bool is_dir = lb_is_dir(path);
    const char *slash = strrchr(path, '/');
    char *name = is_dir ? lb_path_join(path, "tokenizer.json") : lb_strdup(path);
    char *dir = lb_strdup(is_dir ? path : slash ? path : ".");
    lb_buf_init(&file, MAX_FILE_BYTES);
    enum lb_status status = name && dir ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    if (!status && !is_dir && slash) {
        dir[slash == path ? 1 : slash - path] = '\0';
    }
    status = status ? status : lb_file_read(name, &file, detail);
    status = status ? status : lb_tokenizer_parse(file.data ? file.data : "", file.len, name, &to, detail);
    status = status ? status : read_config(to, dir, detail);
    lb_buf_finish(&file);
    lb_free(name);
    lb_free(dir);
    if (status) {
        lb_tokenizer_destroy(to);
        return status;
    }
    *out = to;
    return LB_OK;
}

void lb_tokenizer_destroy(struct lb_tokenizer *tokenizer) {
    if (tokenizer) {
        if (tokenizer->kind) {
            tokenizer->kind->destroy(tokenizer->model);
        }
        lb_pretokenizer_destroy(tokenizer->pretokenizer);
        lb_added_finish(&tokenizer->raw);
        lb_added_finish(&tokenizer->normalized);
        lb_free(tokenizer->before.data);
        lb_free(tokenizer->after.data);
        lb_vocab_finish(&tokenizer->vocab);
        lb_free(tokenizer->source);
        lb_free(tokenizer);
    }
}

/* ---- encoding ---- */

/* One call of encode: what it reads, what it writes, its memory. */
struct encoder {
    const struct lb_tokenizer *tokenizer;
    struct lb_ids *out;
    struct lb_normalized normalized;
    struct lb_pieces pieces;
    struct lb_text_scratch scratch;
    struct lb_detail *detail;
};

static enum lb_status append_ids(struct encoder *e, const int32_t *ids, size_t n) {
    enum lb_status status = lb_ids_reserve(e->out, n);
    if (!status && n) {
        memcpy(e->out->data + e->out->len, ids, n * sizeof(*ids));
        e->out->len += n;
    }
    return status;
}

/* Text without added tokens, normalized: pieces, then ids. */
static enum lb_status encode_plain(struct encoder *e, const char *text, size_t len) {
    if (!len) {
        return LB_OK;
    }
    const struct lb_tokenizer *tokenizer = e->tokenizer;
    enum lb_status status = lb_pretokenize(tokenizer->pretokenizer, text, len, &e->pieces, e->detail);
    for (size_t i = 0; i < e->pieces.n && !status; ++i) {
        const struct lb_span *span = &e->pieces.span[i];
        status = tokenizer->kind->encode(tokenizer->model, e->pieces.text + span->start, span->len,
                                         &e->scratch, e->out);
    }
    return status;
}

/* Cuts text at the tokens of set; what lies between goes to between. */
static enum lb_status
encode_around(struct encoder *e, const struct lb_added_set *set, const char *text, size_t len,
              enum lb_status (*between)(struct encoder *e, const char *text, size_t len)) {
    struct lb_added_match match;
    size_t cursor = 0, done = 0;
    enum lb_status status = LB_OK;
    while (!status && lb_added_next(set, text, len, &cursor, done, &match)) {
        if (done < match.start) {
            status = between(e, text + done, match.start - done);
        }
        if (!status) {
            status = append_ids(e, &match.id, 1);
        }
        done = match.end;
    }
    return status || done >= len ? status : between(e, text + done, len - done);
}

static enum lb_status encode_raw(struct encoder *e, const char *text, size_t len) {
    enum lb_status status = lb_normalize(&e->tokenizer->normalizer, text, len, &e->normalized, e->detail);
    if (status) {
        return status;
    }
    return encode_around(e, &e->tokenizer->normalized, e->normalized.text, e->normalized.len, encode_plain);
}

enum lb_status lb_tokenizer_encode(const struct lb_tokenizer *tokenizer, const char *text, size_t len,
                                   bool add_special, struct lb_ids *out, struct lb_detail *detail) {
    size_t good = lb_utf8_check(text, len);
    if (good < len) {
        return lb_fail(detail, LB_E_FORMAT, "the text is not UTF-8 at byte %zu (0x%02x)", good,
                       (unsigned)(uint8_t)text[good]);
    }
    struct encoder e = {.tokenizer = tokenizer, .out = out, .detail = detail};
    size_t before = out->len;
    enum lb_status status = LB_OK;
    if (add_special) {
        status = append_ids(&e, tokenizer->before.data, tokenizer->before.len);
    }
    if (!status) {
        status = encode_around(&e, &tokenizer->raw, text, len, encode_raw);
    }
    if (!status && add_special) {
        status = append_ids(&e, tokenizer->after.data, tokenizer->after.len);
    }
    lb_normalized_finish(&e.normalized);
    lb_pieces_finish(&e.pieces);
    lb_free(e.scratch.data);
    if (status) {
        out->len = before;
        return lb_fail(detail, status, "out of memory while encoding %zu bytes of text", len);
    }
    return LB_OK;
}

/* ---- decoding and questions ---- */

enum lb_status lb_tokenizer_decode(const struct lb_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                   bool skip_special, struct lb_buf *out, struct lb_detail *detail) {
    const struct lb_vocab *vocab = &tokenizer->vocab;
    for (size_t i = 0; i < n; ++i) {
        if (!lb_vocab_text(vocab, ids[i])) {
            return lb_fail(detail, LB_E_ARG, "ids[%zu] is %d: not in this vocabulary of %d", i, ids[i],
                           vocab->size);
        }
    }
    struct lb_buf bytes;
    lb_buf_init(&bytes, SIZE_MAX / 2);
    for (size_t i = 0; i < n; ++i) {
        const struct lb_entry *entry = &vocab->entry[ids[i]];
        if (!skip_special || !(entry->flags & LB_ENTRY_SPECIAL)) {
            lb_buf_append(&bytes, vocab->pool + entry->bytes, entry->n_bytes);
        }
    }
    enum lb_status status = lb_buf_status(&bytes);
    if (!status && bytes.len) {
        lb_utf8_append_lossy(out, bytes.data, bytes.len);
        status = lb_buf_status(out);
    }
    lb_buf_finish(&bytes);
    return status ? lb_fail(detail, status, "the text of %zu tokens does not fit", n) : LB_OK;
}

int32_t lb_tokenizer_vocab_size(const struct lb_tokenizer *tokenizer) {
    return tokenizer->vocab.size;
}

const char *lb_tokenizer_token(const struct lb_tokenizer *tokenizer, int32_t id) {
    return lb_vocab_text(&tokenizer->vocab, id);
}

const char *lb_tokenizer_bytes(const struct lb_tokenizer *tokenizer, int32_t id, size_t *out_len) {
    if (!lb_vocab_text(&tokenizer->vocab, id)) {
        return NULL;
    }
    *out_len = tokenizer->vocab.entry[id].n_bytes;
    return tokenizer->vocab.pool + tokenizer->vocab.entry[id].bytes;
}

bool lb_tokenizer_is_special(const struct lb_tokenizer *tokenizer, int32_t id) {
    return lb_vocab_text(&tokenizer->vocab, id) && (tokenizer->vocab.entry[id].flags & LB_ENTRY_SPECIAL);
}

int32_t lb_tokenizer_id(const struct lb_tokenizer *tokenizer, const char *token) {
    return lb_vocab_find(&tokenizer->vocab, token, strlen(token), LB_ENTRY_MODEL | LB_ENTRY_ADDED);
}

int32_t lb_tokenizer_eos(const struct lb_tokenizer *tokenizer) {
    return tokenizer->eos;
}

int32_t lb_tokenizer_bos(const struct lb_tokenizer *tokenizer) {
    return tokenizer->bos;
}

const char *lb_tokenizer_fingerprint(const struct lb_tokenizer *tokenizer) {
    return tokenizer->fingerprint;
}

const char *lb_tokenizer_source(const struct lb_tokenizer *tokenizer, size_t *out_len) {
    *out_len = tokenizer->source_len;
    return tokenizer->source;
}
