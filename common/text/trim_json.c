/* A tokenizer.json with fewer tokens: everything that is not about tokens stays as it is. */
#include "common/base/mem.h"
#include "common/text/trim.h"
#include "common/text/trim_parts.h"

#include <string.h>

#define MAX_FILE_BYTES ((size_t)256 << 20)

static void map_id(void *context, json_t *id) {
    const struct lb_trim *t = context;
    if (json_is_integer(id)) { /* all are known: the tokenizer was opened */
        json_integer_set(id, t->to[json_integer_value(id)]);
    }
}

/* {"token": id, ...} */
static json_t *bpe_vocab(struct lb_trim *t) {
    json_t *vocab = json_object();
    for (int32_t id = 0; id < t->full->vocab.size; id++) {
        if (t->kept[id] && (t->full->vocab.entry[id].flags & LB_ENTRY_MODEL)) {
            t->lost |=
                json_object_set_new(vocab, lb_vocab_text(&t->full->vocab, id), json_integer(t->to[id])) != 0;
        }
    }
    return vocab;
}

static bool side_kept(const struct lb_trim *t, const char *text, size_t len) {
    int32_t id = lb_vocab_find(&t->full->vocab, text, len, LB_ENTRY_MODEL);
    return id >= 0 && t->kept[id];
}

/* Those whose parts and result are kept. */
static json_t *kept_merges(struct lb_trim *t, char *joined) {
    json_t *list = json_array(), *merge;
    size_t i;
    json_array_foreach(json_object_get(t->model, "merges"), i, merge) {
        const char *a, *b;
        size_t a_len, b_len;
        if (lb_bpe_merge_sides(merge, &a, &a_len, &b, &b_len) && side_kept(t, a, a_len) &&
            side_kept(t, b, b_len)) {
            memcpy(joined, a, a_len);
            memcpy(joined + a_len, b, b_len);
            if (side_kept(t, joined, a_len + b_len)) {
                t->lost |= json_array_append(list, merge) != 0;
            }
        }
    }
    return list;
}

/* [["token", score], ...] */
static json_t *unigram_vocab(struct lb_trim *t) {
    json_t *list = json_array(), *pair;
    size_t i;
    json_array_foreach(json_object_get(t->model, "vocab"), i, pair) {
        if (t->kept[i]) {
            t->lost |= json_array_append(list, pair) != 0;
        }
    }
    return list;
}

/* Those of an added_tokens list that are kept, with their new ids. */
static json_t *added(struct lb_trim *t) {
    json_t *list = json_array(), *token;
    size_t i;
    json_array_foreach(json_object_get(t->root, "added_tokens"), i, token) {
        json_int_t id = json_integer_value(json_object_get(token, "id"));
        if (t->kept[id]) {
            t->lost |= json_object_set_new(token, "id", json_integer(t->to[id])) != 0;
            t->lost |= json_array_append(list, token) != 0;
        }
    }
    return list;
}

static enum lb_status change(struct lb_trim *t) {
    int32_t next = 0;
    char *joined = lb_malloc_array(2 * (size_t)t->full->vocab.longest + 1, 1);
    if (!joined) {
        return lb_fail(t->detail, LB_E_NOMEM, "out of memory");
    }
    for (int32_t id = 0; id < t->full->vocab.size; id++) {
        t->to[id] = t->kept[id] ? next++ : -1;
    }
    if (t->merges) {
        t->lost |= json_object_set_new(t->model, "vocab", bpe_vocab(t)) != 0;
        t->lost |= json_object_set_new(t->model, "merges", kept_merges(t, joined)) != 0;
    } else {
        t->lost |= json_object_set_new(t->model, "vocab", unigram_vocab(t)) != 0;
        map_id(t, json_object_get(t->model, "unk_id"));
    }
    t->lost |= json_object_set_new(t->root, "added_tokens", added(t)) != 0;
    lb_trim_each_id(json_object_get(t->root, "post_processor"), map_id, t);
    lb_free(joined);
    return t->lost ? lb_fail(t->detail, LB_E_NOMEM, "out of memory for the trimmed tokenizer") : LB_OK;
}

/* What of a model is not understood here. */
static enum lb_status begin(struct lb_trim *t) {
    const char *affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    t->model = json_object_get(t->root, "model");
    for (size_t i = 0; i < 2; i++) {
        if (json_string_length(json_object_get(t->model, affixes[i])) > 0) {
            return lb_fail(t->detail, LB_E_UNSUPPORTED, "a tokenizer with model.%s cannot be trimmed",
                           affixes[i]);
        }
    }
    if (t->full->kind == &lb_bpe_kind) {
        return lb_trim_read_merges(t);
    }
    return t->full->kind == &lb_unigram_kind
               ? LB_OK
               : lb_fail(t->detail, LB_E_UNSUPPORTED,
                         "a tokenizer of model type %s cannot be trimmed (BPE and Unigram can)",
                         t->full->kind->type);
}

/* The changed file, opened: a token must be what it was, under its new id. */
static enum lb_status reopen(const struct lb_trim *t, struct lb_tokenizer **out) {
    struct lb_buf json;
    struct lb_tokenizer *trimmed = NULL;
    lb_buf_init(&json, MAX_FILE_BYTES);
    enum lb_status status = lb_json_dump(t->root, JSON_INDENT(1), &json);
    status = status != LB_OK
                 ? lb_fail(t->detail, status, "out of memory for the trimmed tokenizer")
                 : lb_tokenizer_parse(json.data, json.len, "the trimmed tokenizer", &trimmed, t->detail);
    for (int32_t id = 0; status == LB_OK && id < t->full->vocab.size; id++) {
        const char *now = t->kept[id] ? lb_tokenizer_token(trimmed, t->to[id]) : NULL;
        if (t->kept[id] && (!now || strcmp(now, lb_vocab_text(&t->full->vocab, id)) != 0)) {
            status = lb_fail(t->detail, LB_E_UNSUPPORTED,
                             "the vocabulary cannot be renumbered: token %d (\"%.40s\") would not be %d", id,
                             lb_vocab_text(&t->full->vocab, id), t->to[id]);
        }
    }
    lb_buf_finish(&json);
    if (status != LB_OK) {
        lb_tokenizer_destroy(trimmed);
        return status;
    }
    trimmed->bos = t->full->bos >= 0 ? t->to[t->full->bos] : -1;
    trimmed->eos = t->full->eos >= 0 ? t->to[t->full->eos] : -1;
    *out = trimmed;
    return LB_OK;
}

static enum lb_status make_map(const struct lb_trim *t, const struct lb_tokenizer *trimmed,
                               struct lb_vocab_map **out) {
    struct lb_vocab_map *map = lb_calloc(1, sizeof *map);
    int32_t *kept = lb_malloc_array((size_t)t->n, sizeof *kept);
    if (!map || !kept) {
        lb_free(map);
        lb_free(kept);
        return lb_fail(t->detail, LB_E_NOMEM, "out of memory for the map of %d ids", t->n);
    }
    memcpy(map->full, t->full->fingerprint, sizeof map->full);
    memcpy(map->trimmed, trimmed->fingerprint, sizeof map->trimmed);
    map->kept = kept;
    for (int32_t id = 0; id < t->full->vocab.size; id++) {
        if (t->kept[id]) {
            kept[map->n++] = id;
        }
    }
    *out = map;
    return LB_OK;
}

enum lb_status lb_tokenizer_trim(const struct lb_tokenizer *full, const uint64_t *counts, int32_t size,
                                 struct lb_tokenizer **out, struct lb_vocab_map **out_map,
                                 struct lb_detail *detail) {
    struct lb_trim t = {.full = full, .most = size, .detail = detail};
    struct lb_tokenizer *trimmed = NULL;
    size_t n = (size_t)full->vocab.size;
    t.kept = lb_calloc(n + 1, sizeof *t.kept);
    t.to = lb_malloc_array(n + 1, sizeof *t.to);
    enum lb_status status = t.kept && t.to ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
    status = status == LB_OK
                 ? lb_json_parse_loose(full->source, full->source_len, 0, "tokenizer.json", &t.root, detail)
                 : status;
    status = status == LB_OK ? begin(&t) : status;
    status = status == LB_OK ? lb_trim_choose(&t, counts) : status;
    status = status == LB_OK ? change(&t) : status;
    status = status == LB_OK ? reopen(&t, &trimmed) : status;
    status = status == LB_OK ? make_map(&t, trimmed, out_map) : status;
    if (status == LB_OK) {
        *out = trimmed;
    } else {
        lb_tokenizer_destroy(trimmed);
    }
    json_decref(t.root);
    lb_free(t.merges);
    lb_free(t.kept);
    lb_free(t.to);
    return status;
}
