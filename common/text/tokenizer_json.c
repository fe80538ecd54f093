/* tokenizer.json, as Hugging Face's tokenizers writes it: everything in it is either followed or refused by
 * name. */
#include "common/text/internal.h"

#include "common/base/mem.h"

#include <string.h>

/* A new kind of model is a file and a line. */
static const struct lb_text_model_kind *const kinds[] = {&lb_bpe_kind, &lb_wordpiece_kind, &lb_unigram_kind};

struct reader {
    struct lb_tokenizer *to;
    const json_t *root;
    const char *what;
    struct lb_detail *detail;
};

static bool is_type(const json_t *object, const char *type) {
    const json_t *value = json_object_get(object, "type");
    return json_is_string(value) && !strcmp(json_string_value(value), type);
}

static enum lb_status no_memory(const struct reader *r) {
    return lb_fail(r->detail, LB_E_NOMEM, "%s: out of memory", r->what);
}

/* Keys of the root that nobody here knows may change ids. truncation and padding are about batches; how long
 * a text may be is the caller's business, as it is with transformers. */
static enum lb_status check_keys(const struct reader *r) {
    static const char *const known[] = {"version",        "truncation", "padding",
                                        "added_tokens",   "normalizer", "pre_tokenizer",
                                        "post_processor", "decoder",    "model"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)r->root, key, value) {
        size_t i = 0;
        while (i < sizeof known / sizeof known[0] && strcmp(key, known[i]) != 0) {
            i++;
        }
        if (i == sizeof known / sizeof known[0]) {
            return lb_fail(r->detail, LB_E_UNSUPPORTED, "%s: key \"%.60s\" is not known; it may change ids",
                           r->what, key);
        }
    }
    const char *version = NULL;
    enum lb_status status = lb_json_str(r->root, "version", false, r->what, &version, r->detail);
    if (status == LB_OK && version && strcmp(version, "1.0") != 0) {
        status = lb_fail(r->detail, LB_E_UNSUPPORTED, "%s: version \"%.20s\" is not supported (1.0 is)",
                         r->what, version);
    }
    return status;
}

static enum lb_status read_model(const struct reader *r) {
    const json_t *model = json_object_get(r->root, "model");
    if (!json_is_object(model)) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: no object \"model\"; is this a tokenizer.json?", r->what);
    }
    const char *type = json_object_get(model, "merges") ? "BPE" : NULL; /* files of old name no type */
    enum lb_status status = lb_json_str(model, "type", false, r->what, &type, r->detail);
    if (status != LB_OK) {
        return status;
    }
    for (size_t i = 0; type && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!strcmp(type, kinds[i]->type)) {
            r->to->kind = kinds[i];
        }
    }
    if (!r->to->kind) {
        return lb_fail(r->detail, LB_E_UNSUPPORTED,
                       "%s: model type \"%.40s\" is not supported (BPE, WordPiece and Unigram are)", r->what,
                       type ? type : "");
    }
    const json_t *vocab = json_object_get(model, "vocab");
    size_t n = json_object_size(vocab) + json_array_size(vocab) +
               json_array_size(json_object_get(r->root, "added_tokens"));
    status = lb_vocab_init(&r->to->vocab, n);
    if (status != LB_OK) {
        return lb_fail(r->detail, status, "%s: a vocabulary of %zu tokens", r->what, n);
    }
    return r->to->kind->parse(model, lb_pretokenizer_bytes(r->to->pretokenizer), r->what, &r->to->vocab,
                              &r->to->model, r->detail);
}

/* One of added_tokens: into the vocabulary, and into the set that text is searched for. */
static enum lb_status read_added(const struct reader *r, const json_t *item, struct lb_normalized *scratch) {
    struct lb_tokenizer *to = r->to;
    struct lb_added_token token = {.id = 0};
    const char *content = NULL;
    int64_t id = 0;
    bool normalized = true, special = false;
    enum lb_status status = lb_json_str(item, "content", true, r->what, &content, r->detail);
    status =
        status != LB_OK ? status : lb_json_int(item, "id", true, 0, INT32_MAX - 1, r->what, &id, r->detail);
    status = status != LB_OK ? status : lb_json_bool(item, "special", false, r->what, &special, r->detail);
    normalized = !special;
    status =
        status != LB_OK ? status : lb_json_bool(item, "normalized", false, r->what, &normalized, r->detail);
    status = status != LB_OK
                 ? status
                 : lb_json_bool(item, "single_word", false, r->what, &token.single_word, r->detail);
    status =
        status != LB_OK ? status : lb_json_bool(item, "lstrip", false, r->what, &token.lstrip, r->detail);
    status =
        status != LB_OK ? status : lb_json_bool(item, "rstrip", false, r->what, &token.rstrip, r->detail);
    if (status != LB_OK) {
        return status;
    }
    size_t len = strlen(content);
    if (!len) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: added_tokens: the token with id %lld is empty", r->what,
                       (long long)id);
    }
    status = lb_vocab_put(&to->vocab, content, len, id, LB_ENTRY_ADDED | (special ? LB_ENTRY_SPECIAL : 0),
                          r->what, r->detail);
    if (status != LB_OK) {
        return status;
    }
    token.id = (int32_t)id;
    token.special = special;
    const char *pattern = content;
    if (normalized) {
        status = lb_normalize(&to->normalizer, content, len, scratch, r->detail);
        pattern = scratch->text;
        len = scratch->len;
    }
    if (status == LB_OK && lb_pretokenizer_bytes(to->pretokenizer)) {
        /* Text is text: an added token stands for what was found, whatever letters it is made of. */
        status = lb_vocab_stands_for(&to->vocab, token.id, pattern, len);
    }
    if (status == LB_OK && len) {
        status = lb_added_put(normalized ? &to->normalized : &to->raw, pattern, len, &token);
    }
    return status != LB_OK ? lb_fail(r->detail, status, "%s: out of memory for added_tokens", r->what)
                           : LB_OK;
}

static enum lb_status read_all_added(const struct reader *r) {
    const json_t *list = json_object_get(r->root, "added_tokens");
    if (list && !json_is_null(list) && !json_is_array(list)) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: added_tokens must be a list", r->what);
    }
    struct lb_normalized scratch = {.text = NULL};
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < json_array_size(list) && status == LB_OK; i++) {
        status = read_added(r, json_array_get(list, i), &scratch);
    }
    lb_normalized_finish(&scratch);
    lb_added_sort(&r->to->raw);
    lb_added_sort(&r->to->normalized);
    return status;
}

/* ---- post-processors ---- */

static enum lb_status put_id(const struct reader *r, struct lb_ids *ids, int64_t id) {
    if (id < 0 || id >= r->to->vocab.size || !r->to->vocab.entry[id].flags) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: post_processor: id %lld is not in the vocabulary",
                       r->what, (long long)id);
    }
    return lb_ids_push(ids, (int32_t)id) == LB_OK ? LB_OK : no_memory(r);
}

/* The ids of a template's special token, looked up in the processor's own table. */
static enum lb_status put_special(const struct reader *r, const json_t *processor, const char *name,
                                  struct lb_ids *ids) {
    const json_t *list =
        json_object_get(json_object_get(json_object_get(processor, "special_tokens"), name), "ids");
    if (!json_array_size(list)) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: post_processor: special_tokens has no ids for \"%.60s\"",
                       r->what, name);
    }
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < json_array_size(list) && status == LB_OK; i++) {
        const json_t *id = json_array_get(list, i);
        status = put_id(r, ids, json_is_integer(id) ? json_integer_value(id) : -1);
    }
    return status;
}

/* TemplateProcessing, "single": [{"SpecialToken": {"id": "<bos>"}}, {"Sequence": {"id": "A"}}, ...]. */
static enum lb_status read_template(const struct reader *r, const json_t *processor, struct lb_ids *before,
                                    struct lb_ids *after) {
    const json_t *single = json_object_get(processor, "single");
    bool seen = false;
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < json_array_size(single) && status == LB_OK; i++) {
        const json_t *item = json_array_get(single, i);
        const char *special = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        const char *sequence = json_string_value(json_object_get(json_object_get(item, "Sequence"), "id"));
        if (special) {
            status = put_special(r, processor, special, seen ? after : before);
        } else if (sequence && !strcmp(sequence, "A") && !seen) {
            seen = true;
        } else {
            status = lb_fail(r->detail, LB_E_UNSUPPORTED,
                             "%s: post_processor: TemplateProcessing.single[%zu] is neither a SpecialToken "
                             "nor the only Sequence A",
                             r->what, i);
        }
    }
    if (status == LB_OK && !seen) {
        status = lb_fail(r->detail, LB_E_FORMAT,
                         "%s: post_processor: TemplateProcessing.single has no Sequence A", r->what);
    }
    return status;
}

/* BertProcessing and RobertaProcessing: "cls": ["<s>", 0] before, "sep": ["</s>", 2] behind. */
static enum lb_status read_cls_sep(const struct reader *r, const json_t *processor, struct lb_ids *before,
                                   struct lb_ids *after) {
    const json_t *cls = json_array_get(json_object_get(processor, "cls"), 1);
    const json_t *sep = json_array_get(json_object_get(processor, "sep"), 1);
    enum lb_status status = put_id(r, before, json_is_integer(cls) ? json_integer_value(cls) : -1);
    return status != LB_OK ? status : put_id(r, after, json_is_integer(sep) ? json_integer_value(sep) : -1);
}

/* ByteLevel's only moves offsets, which are not kept here. */
static enum lb_status read_nothing(const struct reader *r, const json_t *processor, struct lb_ids *before,
                                   struct lb_ids *after) {
    (void)r;
    (void)processor;
    (void)before;
    (void)after;
    return LB_OK;
}

static const struct {
    const char *type;
    enum lb_status (*read)(const struct reader *r, const json_t *processor, struct lb_ids *before,
                           struct lb_ids *after);
} processors[] = {{"ByteLevel", read_nothing},
                  {"TemplateProcessing", read_template},
                  {"RobertaProcessing", read_cls_sep},
                  {"BertProcessing", read_cls_sep}};

/* In a Sequence, the later ones go around what the earlier ones made. */
static enum lb_status read_processor(const struct reader *r, const json_t *processor) {
    const char *type = NULL;
    enum lb_status status = lb_json_str(processor, "type", true, r->what, &type, r->detail);
    if (status != LB_OK) {
        return status;
    }
    size_t i = 0;
    while (i < sizeof processors / sizeof processors[0] && strcmp(type, processors[i].type) != 0) {
        i++;
    }
    if (i == sizeof processors / sizeof processors[0]) {
        return lb_fail(r->detail, LB_E_UNSUPPORTED,
                       "%s: post_processor type \"%.40s\" is not supported (ByteLevel, TemplateProcessing, "
                       "RobertaProcessing, "
                       "BertProcessing and a Sequence of them are)",
                       r->what, type);
    }
    struct lb_ids before = {.data = NULL};
    struct lb_ids *inner = &r->to->before;
    status = processors[i].read(r, processor, &before, &r->to->after);
    if (status == LB_OK && before.len > 0 && lb_ids_append(&before, inner->data, inner->len) != LB_OK) {
        status = no_memory(r);
    }
    if (status == LB_OK && before.len > 0) {
        struct lb_ids old = *inner;
        *inner = before;
        before = old;
    }
    lb_free(before.data);
    return status;
}

static enum lb_status read_post_processor(const struct reader *r) {
    const json_t *processor = json_object_get(r->root, "post_processor");
    if (!processor || json_is_null(processor)) {
        return LB_OK;
    }
    if (!is_type(processor, "Sequence")) {
        return read_processor(r, processor);
    }
    const json_t *list = json_object_get(processor, "processors");
    if (!json_is_array(list)) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: post_processor: Sequence without a list \"processors\"",
                       r->what);
    }
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < json_array_size(list) && status == LB_OK; i++) {
        status = read_processor(r, json_array_get(list, i));
    }
    return status;
}

enum lb_status lb_tokenizer_read(struct lb_tokenizer *to, const json_t *root, const char *what,
                                 struct lb_detail *detail) {
    struct reader r = {.to = to, .root = root, .what = what, .detail = detail};
    if (!json_is_object(root)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: not a JSON object; is this a tokenizer.json?", what);
    }
    enum lb_status status = check_keys(&r);
    status = status != LB_OK
                 ? status
                 : lb_normalizer_parse(json_object_get(root, "normalizer"), what, &to->normalizer, detail);
    status = status != LB_OK ? status
                             : lb_pretokenizer_create(json_object_get(root, "pre_tokenizer"), what,
                                                      &to->pretokenizer, detail);
    status = status != LB_OK ? status : read_model(&r);
    status = status != LB_OK
                 ? status
                 : lb_decoder_create(json_object_get(root, "decoder"),
                                     lb_pretokenizer_bytes(to->pretokenizer), what, &to->decoder, detail);
    status = status != LB_OK ? status : read_all_added(&r);
    status = status != LB_OK ? status : lb_decoder_fill(to->decoder, &to->vocab, what, detail);
    status = status != LB_OK ? status : read_post_processor(&r);
    return status;
}
