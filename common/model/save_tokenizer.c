/* What lies beside the weights in a Hugging Face folder and says how texts are made: files that the tokenizer
 * was given with are carried along byte for byte, but for what has to be what training used. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/save.h"
#include "common/text/beside.h"

#include <string.h>

#define MAX_BYTES ((size_t)1 << 30)

enum lb_status lb_save_file(const char *dir, const char *name, const void *bytes, size_t len,
                            struct lb_detail *detail) {
    char *path = lb_path_join(dir, name);
    enum lb_status status = path != NULL ? lb_file_replace(path, bytes, len, detail)
                                         : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    lb_free(path);
    return status;
}

/* Where it goes, and what it has to say. */
struct saving {
    const struct lb_model *model;
    const struct lb_tokenizer *tokenizer;
    const char *dir;
    struct lb_detail *detail;
};

static enum lb_status no_memory(const struct saving *s) {
    return lb_fail(s->detail, LB_E_NOMEM, "%s: out of memory", s->dir);
}

static enum lb_status put_json(const struct saving *s, const char *name, const json_t *object) {
    struct lb_buf buf;
    lb_buf_init(&buf, MAX_BYTES);
    enum lb_status status = lb_json_dump(object, JSON_INDENT(2), &buf);
    status = status == LB_OK ? lb_save_file(s->dir, name, buf.data, buf.len, s->detail) : no_memory(s);
    lb_buf_finish(&buf);
    return status;
}

/* Sets key to the token's text unless it is that already, as text or as an object. */
static bool set_token(const struct saving *s, json_t *object, const char *key, int32_t id, bool *changed) {
    const char *text = id >= 0 ? lb_tokenizer_token(s->tokenizer, id) : NULL,
               *is = lb_beside_token(object, key);
    if (text == NULL || (is != NULL && strcmp(is, text) == 0)) {
        return true;
    }
    *changed = true;
    return json_object_set_new(object, key, json_string(text)) == 0;
}

/* What a tokenizer_config.json must say: transformers' class, unless it names one, the tokens that training
 * used, and no longer texts than the model reads. */
static bool settle_config(const struct saving *s, json_t *object, bool *changed) {
    const json_t *length = json_object_get(object, "model_max_length");
    if (json_object_del(object, "processor_class") == 0) {
        *changed = true; /* of a model that also sees or hears, which is not what is saved */
    }
    int64_t most = lb_model_config(s->model)->max_position_embeddings;
    bool made = true;
    if (!json_is_string(json_object_get(object, "tokenizer_class"))) {
        *changed = true;
        made = json_object_set_new(object, "tokenizer_class", json_string("PreTrainedTokenizerFast")) == 0;
    }
    if (made && most > 0 && !(json_is_number(length) && json_number_value(length) <= (double)most)) {
        *changed = true;
        made = json_object_set_new(object, "model_max_length", json_integer(most)) == 0;
    }
    const struct lb_ids *before = lb_tokenizer_before(s->tokenizer);
    const json_t *adds = json_object_get(object, "add_bos_token");
    int32_t bos = lb_tokenizer_bos(s->tokenizer);
    bool begins = before->len > 0 && before->data[0] == bos;
    if (made && json_is_boolean(adds) && json_is_true(adds) != begins &&
        lb_tokenizer_own_ends(s->tokenizer)) {
        *changed = true;
        made = json_object_set_new(object, "add_bos_token", json_boolean(begins)) == 0;
    }
    made = made && set_token(s, object, "eos_token", lb_tokenizer_eos(s->tokenizer), changed);
    return made && (!begins || set_token(s, object, "bos_token", bos, changed));
}

static bool settle_tokens(const struct saving *s, json_t *object, bool *changed) {
    return json_object_get(object, "eos_token") == NULL ||
           set_token(s, object, "eos_token", lb_tokenizer_eos(s->tokenizer), changed);
}

/* generation_config.json stops at what training put behind texts, and at nothing that the model lacks. */
static bool settle_generation(const struct saving *s, json_t *object, bool *changed) {
    const struct lb_config *config = lb_model_config(s->model);
    const json_t *given = json_object_get(object, "eos_token_id"), *item;
    size_t n = json_is_array(given) ? json_array_size(given) : given != NULL && !json_is_null(given);
    bool has = config->eos_token_id < 0, fits = true;
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < n; i++) {
        item = json_is_array(given) ? json_array_get(given, i) : given;
        bool known = json_is_integer(item) && json_integer_value(item) < config->vocab_size;
        has = has || (known && json_integer_value(item) == config->eos_token_id);
        fits = fits && known;
        if (known && json_array_append(list, (json_t *)(uintptr_t)item) != 0) {
            json_decref(list);
            return false;
        }
    }
    if (list == NULL || n == 0 || (has && fits)) {
        json_decref(list);
        return list != NULL;
    }
    *changed = true;
    bool listed = has || json_array_insert_new(list, 0, json_integer(config->eos_token_id)) == 0;
    return json_object_set_new(object, "eos_token_id", list) == 0 && listed;
}

/* One file that the tokenizer was given with: as it is where settle changes nothing. */
static enum lb_status carry(const struct saving *s, enum lb_beside which,
                            bool (*settle)(const struct saving *s, json_t *object, bool *changed)) {
    size_t len = 0;
    const char *bytes = lb_tokenizer_beside(s->tokenizer, which, &len), *name = lb_beside_name(which);
    json_t *object = NULL;
    bool changed = false;
    if (bytes == NULL) {
        return LB_OK;
    }
    enum lb_status status = LB_OK;
    if (settle != NULL) {
        status = lb_json_parse_loose(bytes, len, 0, name, &object, s->detail);
        status = status == LB_OK && !settle(s, object, &changed) ? no_memory(s) : status;
    }
    if (status == LB_OK) {
        status = changed ? put_json(s, name, object) : lb_save_file(s->dir, name, bytes, len, s->detail);
    }
    json_decref(object);
    return status;
}

/* A tokenizer_config.json where none was given. */
static enum lb_status make_config(const struct saving *s) {
    json_t *object = json_object();
    bool unused = false;
    enum lb_status status =
        object != NULL && settle_config(s, object, &unused) && lb_beside_put_own(s->tokenizer, object)
            ? put_json(s, lb_beside_name(LB_BESIDE_CONFIG), object)
            : no_memory(s);
    json_decref(object);
    return status;
}

/* ---- tokenizer.json ---- */

/* Appends ids to a template's pieces, and what they are to its table. */
static bool put_pieces(const struct saving *s, const struct lb_ids *ids, json_t *pieces, json_t *table) {
    bool made = true;
    for (size_t i = 0; made && i < ids->len; i++) {
        const char *token = lb_tokenizer_token(s->tokenizer, ids->data[i]);
        made = json_array_append_new(
                   pieces, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", token, "type_id", 0)) == 0 &&
               json_object_set_new(
                   table, token,
                   json_pack("{s:s, s:[i], s:[s]}", "id", token, "ids", ids->data[i], "tokens", token)) == 0;
    }
    return made;
}

/* A TemplateProcessing that puts around a text what training did. */
static json_t *make_template(const struct saving *s) {
    json_t *pieces = json_array(), *table = json_object();
    bool made =
        pieces != NULL && table != NULL && put_pieces(s, lb_tokenizer_before(s->tokenizer), pieces, table) &&
        json_array_append_new(pieces, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0)) ==
            0 &&
        put_pieces(s, lb_tokenizer_after(s->tokenizer), pieces, table);
    json_t *out = made ? json_pack("{s:s, s:O, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:O}", "type",
                                   "TemplateProcessing", "single", pieces, "pair", "Sequence", "id", "A",
                                   "type_id", 0, "Sequence", "id", "B", "type_id", 1, "special_tokens", table)
                       : NULL;
    json_decref(pieces);
    json_decref(table);
    return out;
}

/* tokenizer.json as it is, unless texts were begun or ended otherwise than it says. */
static enum lb_status put_tokenizer(const struct saving *s) {
    size_t len = 0;
    const char *json = lb_tokenizer_source(s->tokenizer, &len);
    if (!lb_tokenizer_own_ends(s->tokenizer)) {
        return lb_save_file(s->dir, "tokenizer.json", json, len, s->detail);
    }
    json_t *root = NULL;
    enum lb_status status = lb_json_parse_loose(json, len, 0, "tokenizer.json", &root, s->detail);
    if (status == LB_OK && json_object_set_new(root, "post_processor", make_template(s)) != 0) {
        status = no_memory(s);
    }
    status = status == LB_OK ? put_json(s, "tokenizer.json", root) : status;
    json_decref(root);
    return status;
}

/* What a trimmed one was made of, for whoever trains the student further; it is of the tokenizer.json beside
 * it, whatever that says is put around a text. */
static enum lb_status put_map(const struct saving *s) {
    size_t len = 0;
    const char *bytes = lb_tokenizer_beside(s->tokenizer, LB_BESIDE_MAP, &len),
               *name = lb_beside_name(LB_BESIDE_MAP);
    struct lb_tokenizer *saved = NULL;
    json_t *object = NULL;
    if (bytes == NULL || !lb_tokenizer_own_ends(s->tokenizer)) {
        return carry(s, LB_BESIDE_MAP, NULL);
    }
    enum lb_status status = lb_tokenizer_open(s->dir, &saved, s->detail);
    status = status == LB_OK ? lb_json_parse_loose(bytes, len, 0, name, &object, s->detail) : status;
    if (status == LB_OK && json_object_set_new(object, "trimmed_fingerprint",
                                               json_string(lb_tokenizer_fingerprint(saved))) != 0) {
        status = no_memory(s);
    }
    status = status == LB_OK ? put_json(s, name, object) : status;
    json_decref(object);
    lb_tokenizer_destroy(saved);
    return status;
}

enum lb_status lb_save_tokenizer(const struct lb_model *model, const struct lb_tokenizer *tokenizer,
                                 const char *dir, struct lb_detail *detail) {
    const struct saving s = {model, tokenizer, dir, detail};
    enum lb_status status = put_tokenizer(&s);
    if (status == LB_OK) {
        size_t given = 0;
        status = lb_tokenizer_beside(tokenizer, LB_BESIDE_CONFIG, &given) != NULL
                     ? carry(&s, LB_BESIDE_CONFIG, settle_config)
                     : make_config(&s);
    }
    status = status == LB_OK ? carry(&s, LB_BESIDE_TOKENS, settle_tokens) : status;
    status = status == LB_OK ? carry(&s, LB_BESIDE_TEMPLATE, NULL) : status;
    status = status == LB_OK ? carry(&s, LB_BESIDE_GENERATION, settle_generation) : status;
    return status == LB_OK ? put_map(&s) : status;
}
