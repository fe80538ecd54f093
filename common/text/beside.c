#include "common/text/beside.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/text/internal.h"
#include "common/text/trim.h"

#include <string.h>

#define MAX_BYTES ((size_t)64 << 20)

static const char *const names[] = {
    [LB_BESIDE_CONFIG] = "tokenizer_config.json", [LB_BESIDE_TOKENS] = "special_tokens_map.json",
    [LB_BESIDE_TEMPLATE] = "chat_template.jinja", [LB_BESIDE_GENERATION] = "generation_config.json",
    [LB_BESIDE_MAP] = LB_VOCAB_MAP_FILE,
};
_Static_assert(sizeof names / sizeof *names == LB_BESIDE_COUNT, "each has a name");

const char *lb_beside_name(enum lb_beside which) {
    return names[which];
}

const char *lb_tokenizer_beside(const struct lb_tokenizer *tokenizer, enum lb_beside which, size_t *out_len) {
    *out_len = tokenizer->beside[which].len;
    return tokenizer->beside[which].bytes;
}

/* What is carried into a student's folder is looked at now: a run must not end on it. */
static enum lb_status check_object(const char *path, const struct lb_beside_file *file,
                                   struct lb_detail *detail) {
    json_t *object = NULL;
    enum lb_status status = lb_json_parse_loose(file->bytes, file->len, 0, path, &object, detail);
    if (status == LB_OK && !json_is_object(object)) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: must be an object", path);
    }
    json_decref(object);
    return status;
}

enum lb_status lb_beside_read(const char *dir, struct lb_beside_file files[LB_BESIDE_COUNT],
                              struct lb_detail *detail) {
    for (int i = 0; i < LB_BESIDE_COUNT; i++) {
        struct lb_buf buf;
        char *path = lb_path_join(dir, names[i]);
        enum lb_status status = path != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
        lb_buf_init(&buf, MAX_BYTES);
        if (status == LB_OK && lb_file_exists(path) && !lb_is_dir(path)) {
            status = lb_file_read(path, &buf, detail);
            files[i].bytes = status == LB_OK ? lb_buf_take(&buf, &files[i].len) : NULL;
            if (status == LB_OK && files[i].bytes == NULL) {
                status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
            }
            if (status == LB_OK && i != LB_BESIDE_TEMPLATE) {
                status = check_object(path, &files[i], detail);
            }
        }
        lb_buf_finish(&buf);
        lb_free(path);
        if (status != LB_OK) {
            return status;
        }
    }
    return LB_OK;
}

/* The file's own, with the text of a chat_template.jinja in its place. */
static enum lb_status given_config(const struct lb_tokenizer *tokenizer, const struct lb_beside_file *config,
                                   struct lb_buf *out, struct lb_detail *detail) {
    json_t *object = NULL;
    if (tokenizer->beside[LB_BESIDE_TEMPLATE].bytes == NULL) {
        return lb_buf_append(out, config->bytes, config->len);
    }
    enum lb_status status =
        lb_json_parse_loose(config->bytes, config->len, 0, names[LB_BESIDE_CONFIG], &object, detail);
    if (status == LB_OK &&
        json_object_set_new(object, "chat_template", json_string(tokenizer->chat_template)) != 0) {
        status = LB_E_NOMEM;
    }
    status = status == LB_OK ? lb_json_dump(object, JSON_INDENT(2), out) : status;
    json_decref(object);
    return status;
}

bool lb_beside_put_own(const struct lb_tokenizer *tokenizer, json_t *object) {
    const struct {
        const char *key;
        int32_t id;
    } tokens[] = {{"eos_token", tokenizer->eos},  {"bos_token", tokenizer->bos},
                  {"unk_token", tokenizer->unk},  {"sep_token", tokenizer->sep},
                  {"cls_token", tokenizer->cls},  {"pad_token", tokenizer->pad},
                  {"mask_token", tokenizer->mask}};
    bool made = true;
    for (size_t i = 0; made && i < sizeof tokens / sizeof *tokens; i++) {
        const char *text = tokens[i].id >= 0 ? lb_vocab_text(&tokenizer->vocab, tokens[i].id) : NULL;
        made = text == NULL || json_object_set_new(object, tokens[i].key, json_string(text)) == 0;
    }
    return made && (tokenizer->chat_template == NULL ||
                    json_object_set_new(object, "chat_template", json_string(tokenizer->chat_template)) == 0);
}

enum lb_status lb_tokenizer_config(const struct lb_tokenizer *tokenizer, struct lb_buf *out,
                                   struct lb_detail *detail) {
    const struct lb_beside_file *config = &tokenizer->beside[LB_BESIDE_CONFIG];
    enum lb_status status = LB_OK;
    if (config->bytes != NULL) {
        status = given_config(tokenizer, config, out, detail);
    } else {
        json_t *object = json_pack("{s:s}", "tokenizer_class", "PreTrainedTokenizerFast");
        status = object != NULL && lb_beside_put_own(tokenizer, object)
                     ? lb_json_dump(object, JSON_INDENT(2), out)
                     : LB_E_NOMEM;
        json_decref(object);
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "no memory for tokenizer_config.json");
}

void lb_beside_finish(struct lb_beside_file files[LB_BESIDE_COUNT]) {
    for (int i = 0; i < LB_BESIDE_COUNT; i++) {
        lb_free(files[i].bytes);
        files[i] = (struct lb_beside_file){0};
    }
}

const char *lb_beside_token(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}
