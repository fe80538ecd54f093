/* The fingerprint of a model: SHA-256 over what decides its answers, as it was understood, not as it was
 * written. Weights as stored, the values of its config that are not what a missing key means, and its
 * tokenizer. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/memo.h"
#include "common/base/sha256.h"
#include "common/formats/gguf.h"
#include "common/model/family.h"
#include "common/text/tokenizer.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENIZER_BYTES ((size_t)256 << 20)
#define MAX_FILES 1024
/* Hashing less takes no longer than looking up what was kept of it. */
#define WORTH_KEEPING ((size_t)32 << 20)

/* ---- what is in it ---- */

static void hash_text(struct lb_sha256 *hash, const char *text) {
    lb_sha256_update(hash, text, strlen(text) + 1);
}

static void hash_weights(const struct lb_model *model, struct lb_sha256 *hash) {
    for (size_t i = 0; i < model->n_weights; i++) {
        const struct lb_weight *w = &model->weights[i];
        size_t bytes = 0;
        (void)lb_dtype_bytes(w->dtype, w->cols, &bytes);
        hash_text(hash, w->name);
        lb_sha256_u32(hash, (uint32_t)w->dtype);
        lb_sha256_u64(hash, (uint64_t)w->rows);
        lb_sha256_u64(hash, (uint64_t)w->cols);
        if (w->interleaved == 0) {
            lb_sha256_update(hash, w->data, (size_t)w->rows * bytes);
        }
        for (int64_t r = 0; w->interleaved > 0 && r < w->rows; r++) {
            lb_sha256_update(hash, lb_weight_row(w, r, bytes), bytes);
        }
    }
}

static void hash_sentence(const struct lb_sentence *sentence, struct lb_sha256 *hash) {
    if (sentence->kind != LB_POOL_NONE) {
        hash_text(hash, "sentence");
        lb_sha256_u32(hash, (uint32_t)sentence->kind);
        lb_sha256_u32(hash, sentence->normalize);
    }
}

/* One that this build cannot read still decides what ids mean: its bytes, then. */
static enum lb_status hash_tokenizer_file(const char *folder, struct lb_sha256 *hash) {
    char *path = lb_path_join(folder, "tokenizer.json");
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_buf bytes;
    enum lb_status status = path != NULL ? LB_OK : LB_E_NOMEM;
    lb_buf_init(&bytes, MAX_TOKENIZER_BYTES);
    if (status == LB_OK && lb_file_exists(path)) {
        status = lb_tokenizer_open(folder, &tokenizer, NULL);
        if (status == LB_OK) {
            hash_text(hash, "tokenizer");
            hash_text(hash, lb_tokenizer_fingerprint(tokenizer));
            lb_sha256_u32(hash, (uint32_t)lb_tokenizer_bos(tokenizer));
            lb_sha256_u32(hash, (uint32_t)lb_tokenizer_eos(tokenizer));
        } else if (status != LB_E_NOMEM && (status = lb_file_read(path, &bytes, NULL)) == LB_OK) {
            hash_text(hash, "tokenizer.json");
            lb_sha256_update(hash, bytes.data, bytes.len);
        }
    }
    lb_tokenizer_destroy(tokenizer);
    lb_buf_finish(&bytes);
    lb_free(path);
    return status;
}

static void hash_gguf_array(const struct lb_gguf *file, const char *key, struct lb_sha256 *hash) {
    int64_t n = lb_gguf_array_count(file, key);
    lb_sha256_u64(hash, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) {
        const char *text = lb_gguf_array_string(file, key, i);
        double number = 0;
        if (text != NULL) {
            hash_text(hash, text);
        } else if (lb_gguf_array_number(file, key, i, &number)) {
            lb_sha256_update(hash, &number, sizeof number);
        } else {
            lb_sha256_u32(hash, UINT32_MAX); /* a text that is no UTF-8: its place counts */
        }
    }
}

/* The vocabulary that the file carries: every key of tokenizer.*. */
static void hash_gguf_vocabulary(const struct lb_gguf *file, struct lb_sha256 *hash) {
    const char *key;
    enum lb_gguf_type type, element;
    for (size_t i = 0; (key = lb_gguf_key(file, i, &type, &element)) != NULL; i++) {
        double number = 0;
        const char *text;
        if (strncmp(key, "tokenizer.", strlen("tokenizer.")) != 0) {
            continue;
        }
        hash_text(hash, key);
        if (lb_gguf_array_count(file, key) >= 0) {
            hash_gguf_array(file, key, hash);
        } else if ((text = lb_gguf_string(file, key)) != NULL) {
            hash_text(hash, text);
        } else if (lb_gguf_number(file, key, &number)) {
            lb_sha256_update(hash, &number, sizeof number);
        }
    }
}

/* ---- what was kept of it ---- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names the weights, configs and tokenizer files of a folder, in the order of their names. */
static bool name_folder(const char *path, struct lb_sha256 *hash) {
    char *names[MAX_FILES];
    size_t n = 0;
    DIR *dir = opendir(path);
    bool named = dir != NULL;
    for (const struct dirent *entry; named && (entry = readdir(dir)) != NULL;) {
        if (lb_ends_with(entry->d_name, ".safetensors") || lb_ends_with(entry->d_name, ".json")) {
            names[n] = n < MAX_FILES - 1 ? lb_strdup(entry->d_name) : NULL;
            named = names[n] != NULL;
            n += named;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 0; i < n; i++) {
        char *file = lb_path_join(path, names[i]);
        hash_text(hash, names[i]);
        named = named && file != NULL && lb_memo_file(hash, file);
        lb_free(file);
        lb_free(names[i]);
    }
    return named && n > 0;
}

/* Names all files that the fingerprint is taken over; false when it is not to be kept. */
static bool name_files(const struct lb_model *model, const char *path, bool folder, char key[LB_SHA256_HEX]) {
    const char *part;
    struct lb_sha256 *hash = lb_model_bytes(model) >= WORTH_KEEPING ? lb_sha256_create() : NULL;
    bool named = hash != NULL;
    uint8_t digest[LB_SHA256_BYTES];
    if (named) {
        hash_text(hash, "limbeck fingerprint 2 of " LB_VERSION);
        hash_sentence(&model->sentence, hash);
    }
    for (int i = 0; named && !folder && (part = lb_gguf_path(model->gguf, i)) != NULL; i++) {
        named = lb_memo_file(hash, part);
    }
    named = named && (!folder || name_folder(path, hash));
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, key);
    return named;
}

enum lb_status lb_model_take_fingerprint(struct lb_model *model, const char *path, bool folder,
                                         struct lb_detail *detail) {
    char key[LB_SHA256_HEX];
    bool kept = name_files(model, path, folder, key);
    if (kept && lb_memo_get("fingerprint", key, model->fingerprint, sizeof model->fingerprint) &&
        lb_begins_hex(model->fingerprint, LB_SHA256_HEX - 1)) {
        return LB_OK;
    }
    struct lb_sha256 *hash = lb_sha256_create();
    enum lb_status status = hash != NULL ? LB_OK : LB_E_NOMEM;
    uint8_t digest[LB_SHA256_BYTES];
    hash_text(hash, "limbeck model 2");
    lb_config_hash(&model->family->form, &model->config, hash);
    hash_sentence(&model->sentence, hash);
    if (lb_model_labels(model) != NULL) {
        lb_labels_hash(lb_model_labels(model), hash);
    }
    hash_weights(model, hash);
    if (status == LB_OK && folder) {
        status = hash_tokenizer_file(path, hash);
    } else if (status == LB_OK) {
        hash_gguf_vocabulary(model->gguf, hash);
    }
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, model->fingerprint);
    if (status == LB_OK && kept) {
        lb_memo_put("fingerprint", key, model->fingerprint);
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "%s: cannot compute the fingerprint", path);
}
