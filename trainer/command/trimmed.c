#include "trainer/command/trimmed.h"

#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/text/beside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIND "tokenizer"
#define MAX_BYTES ((size_t)256 << 20)
#define CONFIG "tokenizer_config.json"
#define TOKENS "special_tokens_map.json"
#define TEMPLATE "chat_template.jinja"

struct writing {
    const struct lb_tokenizer *full, *trimmed;
    const struct lb_vocab_map *map;
    const char *from, *to; /* folders; from NULL: there is none */
    struct lb_detail *detail;
};

enum lb_status lb_trimmed_check(const char *dir, struct lb_detail *detail) {
    return lb_folder_check(dir, KIND, detail);
}

static enum lb_status put(const struct writing *w, const char *name, const void *bytes, size_t len) {
    char *path = lb_path_join(w->to, name);
    enum lb_status status = path != NULL ? lb_file_replace(path, bytes, len, w->detail)
                                         : lb_fail(w->detail, LB_E_NOMEM, "%s: out of memory", w->to);
    lb_free(path);
    return status;
}

static enum lb_status put_json(const struct writing *w, const char *name, const json_t *value) {
    struct lb_buf text;
    lb_buf_init(&text, MAX_BYTES);
    enum lb_status status = lb_json_dump(value, JSON_INDENT(2), &text);
    status = status == LB_OK ? put(w, name, text.data, text.len)
                             : lb_fail(w->detail, status, "%s: out of memory", name);
    lb_buf_finish(&text);
    return status;
}

/* ---- what the model's folder says of its tokenizer ---- */

/* A token by its text, or by an object with its "content", that the trimmed vocabulary lacks. */
static bool is_gone(const struct writing *w, const json_t *token) {
    const char *text = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
    return text != NULL && lb_tokenizer_id(w->trimmed, text) < 0;
}

/* "added_tokens_decoder": {"ID": {...}}: ids are the trimmed ones. */
static void renumber(const struct writing *w, json_t *config) {
    json_t *old = json_object_get(config, "added_tokens_decoder"), *token, *fresh;
    const char *key;
    if (!json_is_object(old)) {
        return;
    }
    fresh = json_object();
    json_object_foreach(old, key, token) {
        char *end = NULL, text[16];
        long long id = strtoll(key, &end, 10);
        int32_t now = *end == '\0' && id >= 0 && id < INT32_MAX ? lb_vocab_map_find(w->map, (int32_t)id) : -1;
        if (now >= 0) {
            snprintf(text, sizeof text, "%d", now);
            json_object_set(fresh, text, token);
        }
    }
    json_object_set_new(config, "added_tokens_decoder", fresh);
}

/* Takes out of lists and objects of tokens those that are gone: transformers would add them again. */
static void take_out(const struct writing *w, json_t *config) {
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens",
                                        "model_specific_special_tokens"};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
        json_t *list = json_object_get(config, lists[k]), *token;
        const char *key;
        void *next;
        for (size_t i = json_array_size(list); i-- > 0;) {
            if (is_gone(w, json_array_get(list, i))) {
                json_array_remove(list, i);
            }
        }
        json_object_foreach_safe(list, next, key, token) {
            if (is_gone(w, token)) {
                json_object_del(list, key);
            }
        }
    }
}

/* Copies a file of JSON that speaks of tokens. */
static enum lb_status carry_json(const struct writing *w, const char *name, bool *there) {
    char *path = w->from != NULL ? lb_path_join(w->from, name) : NULL;
    json_t *config = NULL;
    enum lb_status status = LB_OK;
    *there = path != NULL && lb_file_exists(path);
    if (*there) {
        status = lb_json_file(path, MAX_BYTES, &config, w->detail);
        if (status == LB_OK) {
            renumber(w, config);
            take_out(w, config);
            status = put_json(w, name, config);
        }
    }
    json_decref(config);
    lb_free(path);
    return status;
}

static enum lb_status carry_template(const struct writing *w) {
    char *path = w->from != NULL ? lb_path_join(w->from, TEMPLATE) : NULL;
    struct lb_buf text;
    enum lb_status status = LB_OK;
    lb_buf_init(&text, MAX_BYTES);
    if (path != NULL && lb_file_exists(path)) {
        status = lb_file_read(path, &text, w->detail);
        status = status == LB_OK ? put(w, TEMPLATE, text.data, text.len) : status;
    }
    lb_buf_finish(&text);
    lb_free(path);
    return status;
}

/* Where nothing lies beside the tokenizer, as with a GGUF file. */
static enum lb_status make_config(const struct writing *w) {
    json_t *config = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                               "clean_up_tokenization_spaces", 0);
    enum lb_status status = config != NULL && lb_beside_put_own(w->full, config)
                                ? put_json(w, CONFIG, config)
                                : lb_fail(w->detail, LB_E_NOMEM, "%s: out of memory", CONFIG);
    json_decref(config);
    return status;
}

/* ---- the folder ---- */

static enum lb_status put_all(const struct writing *w) {
    size_t len = 0;
    const char *source = lb_tokenizer_source(w->trimmed, &len);
    struct lb_buf map;
    bool config = false, ignored;
    lb_buf_init(&map, MAX_BYTES);
    enum lb_status status = put(w, "tokenizer.json", source, len);
    status = status == LB_OK ? lb_vocab_map_write(w->map, &map, w->detail) : status;
    status = status == LB_OK ? put(w, LB_VOCAB_MAP_FILE, map.data, map.len) : status;
    status = status == LB_OK ? carry_json(w, CONFIG, &config) : status;
    status = status == LB_OK && !config ? make_config(w) : status;
    status = status == LB_OK ? carry_json(w, TOKENS, &ignored) : status;
    status = status == LB_OK ? carry_template(w) : status;
    lb_buf_finish(&map);
    return status == LB_OK ? lb_folder_mark(w->to, KIND, w->detail) : status;
}

/* The folder that holds a MODEL argument's tokenizer.json; NULL: there is none. On the heap. */
static char *folder_of(const char *argument) {
    static const char *const within[] = {"tokenizer.json", "student/tokenizer.json"};
    for (size_t i = 0; lb_is_dir(argument) && i < 2; i++) {
        char *path = lb_path_join(argument, within[i]);
        if (path != NULL && lb_file_exists(path)) {
            *strrchr(path, '/') = '\0';
            return path;
        }
        lb_free(path);
    }
    const char *slash = strrchr(argument, '/');
    char *dir = lb_is_dir(argument) ? NULL : lb_strdup(slash != NULL ? argument : ".");
    if (dir != NULL && slash != NULL) {
        dir[slash == argument ? 1 : slash - argument] = '\0';
    }
    char *json = dir != NULL ? lb_path_join(dir, "tokenizer.json") : NULL;
    if (json == NULL || !lb_file_exists(json)) { /* a .gguf file with its own vocabulary */
        lb_free(dir);
        dir = NULL;
    }
    lb_free(json);
    return dir;
}

enum lb_status lb_trimmed_write(const char *argument, const struct lb_tokenizer *full,
                                const struct lb_tokenizer *trimmed, const struct lb_vocab_map *map,
                                const char *dir, struct lb_detail *detail) {
    struct writing w = {.full = full, .trimmed = trimmed, .map = map, .to = dir, .detail = detail};
    char *from = folder_of(argument);
    w.from = from;
    enum lb_status status = lb_mkdirs(dir, detail);
    status = status == LB_OK ? put_all(&w) : status;
    lb_free(from);
    return status;
}
