#include "server/models/repository.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/text/beside.h"

#include <stdio.h>
#include <string.h>

#define MAX_TOKENIZER_BYTES ((size_t)256 << 20)

/* A folder's tokenizer.json; LB_OK with nothing set when there is none. */
static enum lb_status read_folder_tokenizer(struct lb_hosted *hosted, const char *path,
                                            struct lb_detail *detail) {
    char *file = lb_path_join(path, "tokenizer.json");
    if (!file) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    }
    enum lb_status status = LB_OK;
    if (lb_file_exists(file)) {
        struct lb_buf buf;
        lb_buf_init(&buf, MAX_TOKENIZER_BYTES);
        status = lb_file_read(file, &buf, detail);
        if (status == LB_OK) {
            hosted->tokenizer_json = lb_buf_take(&buf, &hosted->tokenizer_bytes);
        }
        lb_buf_finish(&buf);
    }
    lb_free(file);
    return status;
}

/* Scoring works on ids, so a tokenizer that this build can't run is told, not fatal. */
static enum lb_status tell_unusable(const struct lb_hosted *hosted, enum lb_status status,
                                    const struct lb_detail *why, struct lb_detail *detail) {
    if (status == LB_E_NOMEM) {
        return lb_fail(detail, status, "%s", why->text);
    }
    if (status != LB_OK) {
        lb_log(LB_LOG_WARN, "tokenizer_unusable", "model=%s reason=\"%s\"", hosted->name, why->text);
    }
    return LB_OK;
}

/* A file's tokenizer: what lies beside it, else its own vocabulary, as the tokenizer.json that says the same.
 */
static enum lb_status open_gguf_tokenizer(struct lb_hosted *hosted, const char *path,
                                          struct lb_detail *detail) {
    struct lb_detail why = {0};
    enum lb_status status = lb_tokenizer_open(path, &hosted->tokenizer, &why);
    if (status == LB_E_NOTFOUND) {
        return LB_OK; /* it has none */
    }
    if (status != LB_OK) {
        return tell_unusable(hosted, status, &why, detail);
    }
    const char *json = lb_tokenizer_source(hosted->tokenizer, &hosted->tokenizer_bytes);
    hosted->tokenizer_json = lb_malloc_array(hosted->tokenizer_bytes, 1);
    if (!hosted->tokenizer_json) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    }
    memcpy(hosted->tokenizer_json, json, hosted->tokenizer_bytes);
    return LB_OK;
}

static enum lb_status open_tokenizer(struct lb_hosted *hosted, const char *path, struct lb_detail *detail) {
    if (!lb_is_dir(path)) {
        return hosted->decoder ? open_gguf_tokenizer(hosted, path, detail) : LB_OK;
    }
    enum lb_status status = read_folder_tokenizer(hosted, path, detail);
    if (status != LB_OK || !hosted->tokenizer_json) {
        return status;
    }
    struct lb_detail why = {0};
    status = lb_tokenizer_open(path, &hosted->tokenizer, &why); /* with what lies beside it */
    return tell_unusable(hosted, status, &why, detail);
}

/* What goes with the tokenizer.json: of a folder the file beside it, of a GGUF file what its keys say. */
static enum lb_status read_tokenizer_config(struct lb_hosted *hosted, const char *path,
                                            struct lb_detail *detail) {
    struct lb_buf text;
    size_t len = 0;
    if (!hosted->tokenizer) {
        return LB_OK; /* one that can't be used: told already */
    }
    lb_buf_init(&text, MAX_TOKENIZER_BYTES);
    enum lb_status status = LB_OK;
    if (!lb_is_dir(path) || lb_tokenizer_beside(hosted->tokenizer, LB_BESIDE_CONFIG, &len)) {
        status = lb_tokenizer_config(hosted->tokenizer, &text, detail);
    }
    if (status == LB_OK && text.len > 0) {
        hosted->tokenizer_config = lb_buf_take(&text, &hosted->tokenizer_config_bytes);
    }
    lb_buf_finish(&text);
    return status;
}

static enum lb_status hash_template(struct lb_hosted *hosted, struct lb_detail *detail) {
    const char *text = hosted->tokenizer ? lb_tokenizer_chat_template(hosted->tokenizer) : NULL;
    uint8_t digest[LB_SHA256_BYTES];
    struct lb_sha256 *hash = text ? lb_sha256_create() : NULL;
    if (!text) {
        return LB_OK;
    }
    if (!hash) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for the chat template", hosted->name);
    }
    lb_sha256_update(hash, text, strlen(text));
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, hosted->chat_template_hash);
    return LB_OK;
}

static void hosted_destroy(struct lb_hosted *hosted) {
    if (hosted->gone) {
        hosted->gone(hosted->gone_context, hosted);
    }
    if (atomic_load(&hosted->published)) {
        lb_log(LB_LOG_INFO, "model_closed", "model=%s fingerprint=%s", hosted->name, hosted->version);
    }
    lb_stats_finish(&hosted->stats);
    lb_vocab_maps_finish(&hosted->maps);
    lb_tokenizer_destroy(hosted->tokenizer);
    lb_free(hosted->tokenizer_json);
    lb_free(hosted->tokenizer_config);
    lb_model_destroy(hosted->model);
    lb_free(hosted);
}

enum lb_status lb_hosted_open(const char *name, const char *path, struct lb_hosted **out,
                              struct lb_detail *detail) {
    static atomic_uint_fast64_t n_opened;
    struct lb_hosted *hosted = lb_calloc(1, sizeof *hosted);
    if (!hosted) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    }
    atomic_init(&hosted->references, 1);
    hosted->instance = atomic_fetch_add(&n_opened, 1) + 1;
    atomic_init(&hosted->head_digest_state, 0);
    atomic_init(&hosted->published, false);
    snprintf(hosted->name, sizeof hosted->name, "%s", name);
    lb_stats_init(&hosted->stats);
    lb_vocab_maps_init(&hosted->maps);
    enum lb_status status = lb_model_open(path, false, &hosted->model, detail);
    if (status == LB_OK) {
        hosted->version = lb_model_fingerprint(hosted->model);
        hosted->decoder = lb_model_config(hosted->model)->input_size == 0;
        lb_log_notes("model_note", hosted->name, lb_model_notes(hosted->model));
        status = open_tokenizer(hosted, path, detail);
        if (status == LB_OK && hosted->tokenizer_json) {
            status = read_tokenizer_config(hosted, path, detail);
        }
        status = status == LB_OK ? hash_template(hosted, detail) : status;
    }
    if (status != LB_OK) {
        lb_hosted_release(hosted);
        return status;
    }
    *out = hosted;
    return LB_OK;
}

struct lb_hosted *lb_hosted_retain(struct lb_hosted *hosted) {
    atomic_fetch_add(&hosted->references, 1);
    return hosted;
}

void lb_hosted_release(struct lb_hosted *hosted) {
    if (hosted && atomic_fetch_sub(&hosted->references, 1) == 1) {
        hosted_destroy(hosted);
    }
}

int64_t lb_hosted_vocab(const struct lb_hosted *hosted) {
    const struct lb_weight *head = lb_model_head(hosted->model)->weight;
    return head ? head->rows : lb_model_config(hosted->model)->vocab_size;
}

bool lb_hosted_tap(enum lb_output_source source, enum lb_tap_kind *out) {
    switch (source) {
    case LB_FROM_LOGITS:
    case LB_FROM_FINAL:
    case LB_FROM_SENTENCE:
        return false;
    case LB_FROM_HIDDEN:
        *out = LB_TAP_HIDDEN;
        return true;
    case LB_FROM_RESIDUAL:
        *out = LB_TAP_STREAM;
        return true;
    case LB_FROM_QUERIES:
        *out = LB_TAP_QUERIES;
        return true;
    case LB_FROM_KEYS:
        *out = LB_TAP_KEYS;
        return true;
    case LB_FROM_VALUES:
        *out = LB_TAP_VALUES;
        return true;
    case LB_FROM_ATTENTION:
        *out = LB_TAP_ATTENTION;
        return true;
    }
    return false;
}

/* Of a classifier of texts, what its head makes and reads is one row a text; so is all of one of features. */
static bool has_rows(const struct lb_hosted *hosted, enum lb_output_source source) {
    bool of_head = source == LB_FROM_LOGITS || source == LB_FROM_FINAL;
    return hosted->decoder && !(of_head && lb_model_is_classifier(hosted->model));
}

struct lb_output_sizes lb_hosted_sizes(const struct lb_hosted *hosted, struct lb_output_name what) {
    enum lb_output_source source = lb_output_get(what.kind)->source;
    enum lb_tap_kind tap;
    bool tapped = lb_hosted_tap(source, &tap);
    return (struct lb_output_sizes){.sequences = -1,
                                    .rows = -1,
                                    .positions = -1,
                                    .vocab = lb_hosted_vocab(hosted),
                                    .top_k = -1,
                                    .scored = -1,
                                    .samples = -1,
                                    .heads = lb_model_config(hosted->model)->num_attention_heads,
                                    .state = tapped ? lb_model_tap_width(hosted->model, tap, what.layer)
                                                    : lb_model_width(hosted->model),
                                    .classifier = !has_rows(hosted, source)};
}

bool lb_hosted_scores(const struct lb_hosted *hosted) {
    return lb_model_head(hosted->model)->weight && !lb_model_is_classifier(hosted->model);
}

enum lb_status lb_hosted_gives(const struct lb_hosted *hosted, struct lb_output_name what, const char *name,
                               struct lb_detail *detail) {
    const struct lb_output *is = lb_output_get(what.kind);
    const struct lb_model *model = hosted->model;
    enum lb_tap_kind tap;
    if (lb_hosted_tap(is->source, &tap)) {
        return lb_model_check_tap(model, tap, what.layer, detail);
    }
    if (is->uses & LB_USES_NEXT_TOKEN && lb_model_is_classifier(model)) {
        return lb_fail(detail, LB_E_ARG, "output %s: a classifier has no next token", name);
    }
    if (is->uses & LB_USES_SCORE_IDS && lb_model_is_classifier(model)) {
        return lb_fail(detail, LB_E_ARG, "output %s: a classifier has no positions; ask for logits", name);
    }
    if (is->uses & LB_USES_OUTSIDE && lb_model_is_classifier(model)) {
        return lb_fail(detail, LB_E_ARG, "output %s: a classifier has no vocabulary to keep a part of", name);
    }
    if (is->source == LB_FROM_LOGITS && !lb_model_head(model)->weight) {
        return lb_fail(detail, LB_E_ARG, "output %s: this model has no head that makes logits", name);
    }
    if (is->source == LB_FROM_SENTENCE && lb_model_sentence(model)->kind == LB_POOL_NONE) {
        return lb_fail(
            detail, LB_E_ARG,
            "output %s: no modules.json beside this model's weights says how a sentence becomes one vector",
            name);
    }
    return LB_OK;
}
