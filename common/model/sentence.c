/* Sentence encoders as folders of sentence-transformers: modules.json lists the steps from text to vector,
 * each with a folder of its own settings. */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/family.h"

#include <stdio.h>
#include <string.h>

#define MAX_BYTES ((size_t)1 << 20)

/* The last word of a class's name: newer versions have moved the classes. */
static const char *last_word(const char *type) {
    const char *dot = strrchr(type, '.');
    return dot != NULL ? dot + 1 : type;
}

/* A folder in the folder, nothing else. */
static bool is_plain(const char *path) {
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return path[0] != '\0' && path[0] != '.' && strspn(path, good) == strlen(path);
}

/* pooling_mode_X: true, of which one is; or pooling_mode: "X". */
static enum lb_status read_modes(const json_t *config, const char *what, enum lb_pool_kind *out,
                                 struct lb_detail *detail) {
    static const char begin[] = "pooling_mode_";
    json_t *object = (json_t *)(uintptr_t)config; /* jansson's iterators take no const */
    const char *mode = NULL;
    enum lb_status status = lb_json_str(config, "pooling_mode", false, what, &mode, detail);
    for (void *at = json_object_iter(object); at != NULL && status == LB_OK;
         at = json_object_iter_next(object, at)) {
        const char *key = json_object_iter_key(at);
        bool chosen = strncmp(key, begin, sizeof begin - 1) == 0 && json_is_true(json_object_iter_value(at));
        if (chosen && mode != NULL) {
            status = lb_fail(detail, LB_E_UNSUPPORTED,
                             "%s: more than one pooling (%.40s, %.40s) is not supported", what, mode, key);
        }
        mode = chosen ? key + sizeof begin - 1 : mode;
    }
    if (status != LB_OK) {
        return status;
    }
    if (mode != NULL && (strcmp(mode, "mean") == 0 || strcmp(mode, "mean_tokens") == 0)) {
        *out = LB_POOL_MEAN;
    } else if (mode != NULL && (strcmp(mode, "cls") == 0 || strcmp(mode, "cls_token") == 0)) {
        *out = LB_POOL_FIRST;
    } else {
        status = lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s: pooling %.40s is not supported, only mean_tokens and cls_token", what,
                         mode != NULL ? mode : "none");
    }
    return status;
}

static enum lb_status read_pooling(const char *dir, const char *module, enum lb_pool_kind *out,
                                   struct lb_detail *detail) {
    char *folder = lb_path_join(dir, module),
         *path = folder != NULL ? lb_path_join(folder, "config.json") : NULL;
    json_t *config = NULL;
    enum lb_status status = path != NULL ? lb_json_file(path, MAX_BYTES, &config, detail)
                                         : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    status = status == LB_OK ? read_modes(config, path, out, detail) : status;
    json_decref(config);
    lb_free(folder);
    lb_free(path);
    return status;
}

static enum lb_status read_module(const char *dir, const char *what, const json_t *module, size_t i,
                                  struct lb_sentence *out, struct lb_detail *detail) {
    const char *type = NULL, *path = "";
    enum lb_status status = lb_json_str(module, "type", true, what, &type, detail);
    status = status == LB_OK ? lb_json_str(module, "path", false, what, &path, detail) : status;
    if (status != LB_OK) {
        return status;
    }
    const char *word = last_word(type);
    if (i == 0 && strcmp(word, "Transformer") == 0 && path[0] == '\0') {
        return LB_OK;
    }
    if (out->kind == LB_POOL_NONE && strcmp(word, "Pooling") == 0 && is_plain(path)) {
        return read_pooling(dir, path, &out->kind, detail);
    }
    if (out->kind != LB_POOL_NONE && strcmp(word, "Normalize") == 0) {
        out->normalize = true;
        return LB_OK;
    }
    return lb_fail(
        detail, LB_E_UNSUPPORTED,
        "%s: module %zu (%.80s in \"%.40s\") is not supported there; it may be Transformer, Pooling, "
        "Normalize",
        what, i, type, path);
}

enum lb_status lb_sentence_read(const char *dir, struct lb_sentence *out, struct lb_detail *detail) {
    char *path = lb_path_join(dir, "modules.json");
    json_t *modules = NULL;
    struct lb_sentence found = {LB_POOL_NONE, false};
    enum lb_status status = path != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    if (status == LB_OK && lb_file_exists(path)) {
        status = lb_json_file(path, MAX_BYTES, &modules, detail);
        if (status == LB_OK && !json_is_array(modules)) {
            status = lb_fail(detail, LB_E_FORMAT, "%s: must be a list of modules", path);
        }
    }
    for (size_t i = 0; status == LB_OK && i < json_array_size(modules); i++) {
        status = read_module(dir, path, json_array_get(modules, i), i, &found, detail);
    }
    json_decref(modules);
    lb_free(path);
    if (status == LB_OK) {
        *out = found;
    }
    return status;
}

/* ---- GGUF ---- */

#define NORMALIZE "limbeck.sentence.normalize"
enum pooling_type { POOLING_NONE, POOLING_MEAN, POOLING_CLS };

static void pooling_key(const char *architecture, char out[96]) {
    snprintf(out, 96, "%.60s.pooling_type", architecture);
}

enum lb_status lb_sentence_read_gguf(const struct lb_gguf *file, const char *architecture, const char *what,
                                     struct lb_sentence *out, struct lb_notes *notes,
                                     struct lb_detail *detail) {
    char key[96];
    double type = POOLING_NONE, normalize = 1;
    pooling_key(architecture, key);
    (void)lb_gguf_number(file, key, &type);
    if (type != POOLING_NONE && type != POOLING_MEAN && type != POOLING_CLS) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: key %s is %g; only %d (none), %d (mean) and %d (CLS) are supported", what, key,
                       type, POOLING_NONE, POOLING_MEAN, POOLING_CLS);
    }
    bool said = lb_gguf_number(file, NORMALIZE, &normalize);
    out->kind = type == POOLING_MEAN ? LB_POOL_MEAN : type == POOLING_CLS ? LB_POOL_FIRST : LB_POOL_NONE;
    out->normalize = out->kind != LB_POOL_NONE && normalize != 0;
    if (out->normalize && !said) {
        lb_note(notes,
                "%s: whether sentence_embedding is divided by its length is not said; it is, as llama.cpp's "
                "server does",
                what);
    }
    return LB_OK;
}

void lb_sentence_put_gguf(const struct lb_sentence *sentence, const char *architecture,
                          struct lb_gguf_out *out) {
    char key[96];
    pooling_key(architecture, key);
    lb_gguf_put_u32(out, key,
                    sentence->kind == LB_POOL_MEAN    ? POOLING_MEAN
                    : sentence->kind == LB_POOL_FIRST ? POOLING_CLS
                                                      : POOLING_NONE);
    lb_gguf_put_bool(out, NORMALIZE, sentence->normalize);
}

/* ---- writing ---- */

static enum lb_status put(const char *dir, const char *name, json_t *value, struct lb_detail *detail) {
    struct lb_buf buf;
    lb_buf_init(&buf, MAX_BYTES);
    char *path = lb_path_join(dir, name);
    enum lb_status status =
        value != NULL && path != NULL ? lb_json_dump(value, JSON_INDENT(2), &buf) : LB_E_NOMEM;
    status = status == LB_OK ? lb_file_replace(path, buf.data, buf.len, detail) : status;
    json_decref(value);
    lb_free(path);
    lb_buf_finish(&buf);
    return status == LB_E_NOMEM ? lb_fail(detail, status, "%s: out of memory", dir) : status;
}

static json_t *module_json(int i, const char *path, const char *type) {
    char name[16], whole[64];
    snprintf(name, sizeof name, "%d", i);
    snprintf(whole, sizeof whole, "sentence_transformers.models.%s", type);
    return json_pack("{s:i, s:s, s:s, s:s}", "idx", i, "name", name, "path", path, "type", whole);
}

enum lb_status lb_sentence_write(const struct lb_sentence *sentence, int64_t width, int64_t max_length,
                                 const char *dir, struct lb_detail *detail) {
    static const char pooling[] = "1_Pooling", normalize[] = "2_Normalize";
    char *folder = lb_path_join(dir, pooling), *last = lb_path_join(dir, normalize);
    bool mean = sentence->kind == LB_POOL_MEAN;
    json_t *modules =
        json_pack("[o, o]", module_json(0, "", "Transformer"), module_json(1, pooling, "Pooling"));
    bool made = folder != NULL && last != NULL && modules != NULL;
    if (made && sentence->normalize) {
        made = json_array_append_new(modules, module_json(2, normalize, "Normalize")) == 0;
    }
    enum lb_status status =
        made ? lb_mkdirs(folder, detail) : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    if (status == LB_OK && sentence->normalize) {
        status = lb_mkdirs(last, detail); /* empty: it is looked for */
    }
    if (status == LB_OK) {
        status = put(dir, "modules.json", json_incref(modules), detail);
    }
    if (status == LB_OK) {
        status =
            put(dir, "sentence_bert_config.json",
                json_pack("{s:I, s:b}", "max_seq_length", (json_int_t)max_length, "do_lower_case", false),
                detail);
    }
    if (status == LB_OK) {
        status = put(folder, "config.json",
                     json_pack("{s:I, s:b, s:b, s:b, s:b}", "word_embedding_dimension", (json_int_t)width,
                               "pooling_mode_cls_token", !mean, "pooling_mode_mean_tokens", mean,
                               "pooling_mode_max_tokens", false, "pooling_mode_mean_sqrt_len_tokens", false),
                     detail);
    }
    json_decref(modules);
    lb_free(folder);
    lb_free(last);
    return status;
}
