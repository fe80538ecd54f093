#include "common/text/tokenizer.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/formats/gguf.h"
#include "common/text/gguf_vocab.h"
#include "common/text/internal.h"

#include <stdio.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)256 << 20)
#define MAX_CONFIG_BYTES ((size_t)64 << 20)
#define MAX_DEPTH 32

/* The first of names that is in the vocabulary, -1 when none is. */
static int32_t first_known(const struct lb_tokenizer *tokenizer, const char *const *names, size_t n) {
    int32_t id = -1;
    for (size_t i = 0; i < n && id < 0; i++) {
        id = lb_vocab_find(&tokenizer->vocab, names[i], strlen(names[i]), LB_ENTRY_ADDED);
    }
    return id;
}

static void guess_ends(struct lb_tokenizer *to) {
    to->unk = to->sep = to->cls = to->pad = to->mask = -1;
    static const char *const eos[] = {"<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"};
    static const char *const bos[] = {"<bos>", "<s>", "<|begin_of_text|>", "<|startoftext|>"};
    to->eos = first_known(to, eos, sizeof eos / sizeof eos[0]);
    to->bos = first_known(to, bos, sizeof bos / sizeof bos[0]);
}

static void hash_ids(const struct lb_ids *ids, struct lb_sha256 *hash) {
    lb_sha256_u64(hash, ids->len);
    for (size_t i = 0; i < ids->len; i++) {
        lb_sha256_u32(hash, (uint32_t)ids->data[i]);
    }
}

/* SHA-256 over all that decides ids, as it was understood, not as it was written: the vocabulary by ids,
 * normalizer, pre-tokenizer, the model's merges and options, added tokens, what is put around. Numbers as 32
 * or 64 bits little-endian. */
static enum lb_status take_fingerprint(struct lb_tokenizer *to) {
    struct lb_sha256 *hash = lb_sha256_create();
    if (!hash) {
        return LB_E_NOMEM;
    }
    uint8_t digest[LB_SHA256_BYTES];
    for (int32_t id = 0; id < to->vocab.size; id++) {
        const struct lb_entry *entry = &to->vocab.entry[id];
        if (entry->flags) {
            lb_sha256_u32(hash, (uint32_t)id);
            lb_sha256_u32(hash, entry->flags & LB_ENTRY_MODEL);
            lb_sha256_u32(hash, entry->len);
            lb_sha256_update(hash, to->vocab.pool + entry->text, entry->len);
        }
    }
    lb_normalizer_hash(&to->normalizer, hash);
    lb_pretokenizer_hash(to->pretokenizer, hash);
    lb_sha256_update(hash, to->kind->type, strlen(to->kind->type) + 1);
    enum lb_status status = to->kind->hash(to->model, hash);
    lb_added_hash(&to->raw, hash);
    lb_added_hash(&to->normalized, hash);
    hash_ids(&to->before, hash);
    hash_ids(&to->after, hash);
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, to->fingerprint);
    return status;
}

enum lb_status lb_tokenizer_parse(const void *json, size_t len, const char *what, struct lb_tokenizer **out,
                                  struct lb_detail *detail) {
    json_t *root = NULL;
    struct lb_tokenizer *to = lb_calloc(1, sizeof *to);
    enum lb_status status = to ? lb_json_parse_loose(json, len, MAX_DEPTH, what, &root, detail) : LB_E_NOMEM;
    if (status == LB_OK) {
        status = lb_tokenizer_read(to, root, what, detail);
    }
    if (status == LB_OK) {
        guess_ends(to);
        status = take_fingerprint(to);
    }
    if (status == LB_OK) {
        to->source = lb_malloc_array(len + 1, 1);
        status = to->source ? LB_OK : LB_E_NOMEM;
    }
    json_decref(root);
    if (status != LB_OK) {
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

/* add_bos_token and add_eos_token, where the post-processor puts nothing there. The fingerprint is that of
 * tokenizer.json, which servers tell of theirs. */
static enum lb_status add_ends(struct lb_tokenizer *to, const json_t *config) {
    enum lb_status status = LB_OK;
    if (to->before.len == 0 && to->bos >= 0 && json_is_true(json_object_get(config, "add_bos_token"))) {
        status = lb_ids_push(&to->before, to->bos);
        to->own_ends = true;
    }
    if (status == LB_OK && to->after.len == 0 && to->eos >= 0 &&
        json_is_true(json_object_get(config, "add_eos_token"))) {
        status = lb_ids_push(&to->after, to->eos);
        to->own_ends = true;
    }
    return status;
}

/* A key like "pad_token", of which nothing here depends: what is not in the vocabulary is not taken. */
static void other_token(const struct lb_tokenizer *tokenizer, const json_t *config, const char *key,
                        int32_t *id) {
    const json_t *value = json_object_get(config, key);
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    int32_t found = text ? lb_tokenizer_id(tokenizer, text) : -1;
    *id = found >= 0 ? found : *id;
}

/* The text of the default one of a list of named templates, or the only one. */
static const char *template_text(const json_t *value) {
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && !strcmp(name, "default")) {
            return json_string_value(json_object_get(item, "template"));
        }
    }
    return json_string_value(value);
}

/* text NULL: there is none. what: the file that it stands in, key its place there ("": it is all of it). */
static enum lb_status keep_template(struct lb_tokenizer *to, const char *text, const char *what,
                                    const char *key, struct lb_detail *detail) {
    size_t size = strlen(what) + strlen(key) + 3;
    char *copy = text ? lb_strdup(text) : NULL, *from = text ? lb_malloc_array(size, 1) : NULL;
    if (from) {
        snprintf(from, size, "%s%s%s", what, *key ? ": " : "", key);
    }
    if (text && (!copy || !from)) {
        lb_free(copy);
        lb_free(from);
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for the chat template", what);
    }
    lb_free(to->chat_template);
    lb_free(to->chat_template_from);
    to->chat_template = copy;
    to->chat_template_from = from;
    return LB_OK;
}

/* chat_template.jinja beside a tokenizer.json stands above the template in tokenizer_config.json. */
static enum lb_status read_template(struct lb_tokenizer *to, const char *dir, struct lb_detail *detail) {
    char *path = lb_path_join(dir, "chat_template.jinja");
    struct lb_buf text;
    lb_buf_init(&text, MAX_CONFIG_BYTES);
    enum lb_status status = path ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    if (status == LB_OK && lb_file_exists(path)) {
        status = lb_file_read(path, &text, detail);
        if (status == LB_OK && (lb_utf8_check(text.data ? text.data : "", text.len) < text.len ||
                                (text.len && memchr(text.data, 0, text.len)))) {
            status = lb_fail(detail, LB_E_FORMAT, "%s: not UTF-8 text", path);
        }
        if (status == LB_OK && lb_buf_append(&text, "", 1) == LB_OK) {
            status = keep_template(to, text.data, path, "", detail);
        }
    }
    lb_buf_finish(&text);
    lb_free(path);
    return status;
}

/* What a tokenizer_config.json says; what names it in errors. */
static enum lb_status follow(struct lb_tokenizer *to, const json_t *config, const char *what,
                             struct lb_detail *detail) {
    enum lb_status status = config_token(to, config, "eos_token", what, &to->eos, detail);
    status = status != LB_OK ? status : config_token(to, config, "bos_token", what, &to->bos, detail);
    if (status == LB_OK && add_ends(to, config) != LB_OK) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory", what);
    }
    other_token(to, config, "unk_token", &to->unk);
    other_token(to, config, "sep_token", &to->sep);
    other_token(to, config, "cls_token", &to->cls);
    other_token(to, config, "pad_token", &to->pad);
    other_token(to, config, "mask_token", &to->mask);
    const char *text = template_text(json_object_get(config, "chat_template"));
    return status == LB_OK ? keep_template(to, text, what, "chat_template", detail) : status;
}

enum lb_status lb_tokenizer_configure(struct lb_tokenizer *tokenizer, const void *json, size_t len,
                                      const char *what, struct lb_detail *detail) {
    json_t *config = NULL;
    enum lb_status status = lb_json_parse_loose(json, len, MAX_DEPTH, what, &config, detail);
    status = status == LB_OK ? follow(tokenizer, config, what, detail) : status;
    json_decref(config);
    return status;
}

/* tokenizer_config.json beside a tokenizer.json says which tokens begin and end a text. */
static enum lb_status read_config(struct lb_tokenizer *to, const char *dir, struct lb_detail *detail) {
    char *path = lb_path_join(dir, "tokenizer_config.json");
    json_t *config = NULL;
    enum lb_status status = path ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    if (status == LB_OK && lb_file_exists(path)) {
        status = lb_json_file(path, MAX_CONFIG_BYTES, &config, detail);
        status = status == LB_OK ? follow(to, config, path, detail) : status;
    }
    json_decref(config);
    lb_free(path);
    return status == LB_OK ? read_template(to, dir, detail) : status;
}

/* ---- GGUF ---- */

/* The special tokens that the file's keys name: those that its vocabulary's conversion does not ask for, and
 * all of them beside a whole tokenizer.json. */
static void take_named(struct lb_tokenizer *to, const struct lb_gguf *file) {
    const struct {
        const char *key;
        int32_t *id;
    } named[] = {{LB_TOKENIZER_KEY "bos_token_id", &to->bos},
                 {LB_TOKENIZER_KEY "eos_token_id", &to->eos},
                 {LB_TOKENIZER_KEY "unknown_token_id", &to->unk},
                 {LB_TOKENIZER_KEY "seperator_token_id", &to->sep}, /* so spelled there */
                 {LB_TOKENIZER_KEY "cls_token_id", &to->cls},
                 {LB_TOKENIZER_KEY "padding_token_id", &to->pad},
                 {LB_TOKENIZER_KEY "mask_token_id", &to->mask}};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        double id = -1;
        if (lb_gguf_number(file, named[i].key, &id) && id >= 0 && id < to->vocab.size &&
            lb_vocab_text(&to->vocab, (int32_t)id)) {
            *named[i].id = (int32_t)id;
        }
    }
}

enum lb_status lb_tokenizer_from_gguf(const struct lb_gguf *file, const char *what, struct lb_tokenizer **out,
                                      struct lb_detail *detail) {
    static const char chat_template[] = "tokenizer.chat_template";
    const char *whole = lb_gguf_string(file, "tokenizer.huggingface.json");
    struct lb_gguf_ids ids = {-1, -1, -1, -1, -1};
    struct lb_tokenizer *to = NULL;
    struct lb_buf json;
    lb_buf_init(&json, MAX_FILE_BYTES);
    enum lb_status status = whole ? lb_buf_append_str(&json, whole) : LB_OK;
    if (!whole) {
        status = lb_gguf_vocab_json(file, what, &json, &ids, detail);
    }
    status = status == LB_OK ? lb_tokenizer_parse(json.data, json.len, what, &to, detail) : status;
    if (status == LB_OK) {
        to->bos = ids.bos >= 0 ? ids.bos : to->bos;
        to->eos = ids.eos >= 0 ? ids.eos : to->eos;
        to->unk = ids.unk;
        to->sep = ids.sep;
        to->cls = ids.cls;
        take_named(to, file);
        status = keep_template(to, lb_gguf_string(file, chat_template), what, chat_template, detail);
    }
    lb_buf_finish(&json);
    if (status != LB_OK) {
        lb_tokenizer_destroy(to);
        return lb_fail(detail, status, "%s: out of memory for the vocabulary", what);
    }
    *out = to;
    return LB_OK;
}

static bool is_gguf(const char *path) {
    char magic[4] = "";
    FILE *file = fopen(path, "rb");
    bool is = file && fread(magic, 1, sizeof magic, file) == sizeof magic && !memcmp(magic, "GGUF", 4);
    if (file) {
        fclose(file);
    }
    return is;
}

static enum lb_status open_gguf(const char *path, struct lb_tokenizer **out, struct lb_detail *detail) {
    struct lb_gguf *file = NULL;
    enum lb_status status = lb_gguf_open_keys(path, &file, detail);
    status = status == LB_OK ? lb_tokenizer_from_gguf(file, path, out, detail) : status;
    lb_gguf_destroy(file);
    return status;
}

/* ---- paths ---- */

/* The tokenizer.json at name, and what lies beside it in dir. */
static enum lb_status open_json(const char *name, const char *dir, struct lb_tokenizer **out,
                                struct lb_detail *detail) {
    struct lb_buf file;
    struct lb_tokenizer *to = NULL;
    lb_buf_init(&file, MAX_FILE_BYTES);
    enum lb_status status = lb_file_read(name, &file, detail);
    status = status != LB_OK ? status
                             : lb_tokenizer_parse(file.data ? file.data : "", file.len, name, &to, detail);
    status = status != LB_OK ? status : read_config(to, dir, detail);
    status = status != LB_OK ? status : lb_beside_read(dir, to->beside, detail);
    lb_buf_finish(&file);
    if (status != LB_OK) {
        lb_tokenizer_destroy(to);
        return status;
    }
    *out = to;
    return LB_OK;
}

enum lb_status lb_tokenizer_open(const char *path, struct lb_tokenizer **out, struct lb_detail *detail) {
    bool is_dir = lb_is_dir(path), gguf = !is_dir && is_gguf(path);
    const char *slash = strrchr(path, '/');
    char *dir = lb_strdup(is_dir ? path : slash ? path : ".");
    if (dir && !is_dir && slash) {
        dir[slash == path ? 1 : slash - path] = '\0';
    }
    char *name = !dir ? NULL : is_dir || gguf ? lb_path_join(dir, "tokenizer.json") : lb_strdup(path);
    enum lb_status status = name ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    if (status == LB_OK) {
        status =
            gguf && !lb_file_exists(name) ? open_gguf(path, out, detail) : open_json(name, dir, out, detail);
    }
    lb_free(name);
    lb_free(dir);
    return status;
}
