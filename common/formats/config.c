#include "common/formats/config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Maxima that keep every product of two or three sizes, times the layers, within 63 bits. */
#define MAX_VOCAB INT32_MAX
#define MAX_WIDTH (1 << 20)
#define MAX_FEED_FORWARD (1 << 22)
#define MAX_LAYERS 4096
#define MAX_HEADS 4096
#define MAX_HEAD_DIM 4096

/* The families that are read. Where a key is missing, transformers' class takes its own default, so these are
 * per family. */
static const struct family {
    const char *model_type;
    int64_t max_position_embeddings, num_key_value_heads; /* 0: as many as attention heads */
    int64_t bos_token_id, eos_token_id;
    int64_t sliding_window; /* 0: none */
    bool qkv_bias;          /* always */
} families[] = {
    {.model_type = "llama", .max_position_embeddings = 2048, .bos_token_id = 1, .eos_token_id = 2},
    {.model_type = "mistral",
     .max_position_embeddings = 131072,
     .num_key_value_heads = 8,
     .bos_token_id = 1,
     .eos_token_id = 2,
     .sliding_window = 4096},
    {.model_type = "qwen2",
     .max_position_embeddings = 32768,
     .num_key_value_heads = 32,
     .bos_token_id = -1,
     .eos_token_id = -1,
     .sliding_window = 4096,
     .qkv_bias = true},
};
#define N_FAMILIES (sizeof families / sizeof *families)
#define MLP_TYPE "limbeck_mlp"

static const struct family *find_family(const char *model_type) {
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (strcmp(families[i].model_type, model_type) == 0) {
            return &families[i];
        }
    }
    return NULL;
}

/* ---- checking ---- */

static enum lb_status check_size(const char *what, const char *key, int64_t value, int64_t max,
                                 struct lb_detail *detail) {
    if (value < 1 || value > max) {
        return lb_fail(detail, LB_E_ARG, "%s: %s is %" PRId64 "; it must be from 1 to %" PRId64, what, key,
                       value, max);
    }
    return LB_OK;
}

static enum lb_status check_token(const char *what, const char *key, int64_t id, int64_t vocab_size,
                                  struct lb_detail *detail) {
    if (id < -1 || id >= vocab_size) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: %s is %" PRId64 ", which is no id of a vocabulary of %" PRId64
                       "; use null for none",
                       what, key, id, vocab_size);
    }
    return LB_OK;
}

/* Also false for NaN. */
static enum lb_status check_real(const char *what, const char *key, double value, double min, double max,
                                 struct lb_detail *detail) {
    if (!(value >= min && value <= max)) {
        return lb_fail(detail, LB_E_ARG, "%s: %s is %g; it must be from %g to %g", what, key, value, min,
                       max);
    }
    return LB_OK;
}

static enum lb_status check_heads(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    if (c->hidden_size % c->num_attention_heads != 0) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: hidden_size %" PRId64 " is no multiple of num_attention_heads %" PRId64, what,
                       c->hidden_size, c->num_attention_heads);
    }
    if (c->num_attention_heads % c->num_key_value_heads != 0) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: num_attention_heads %" PRId64 " is no multiple of num_key_value_heads %" PRId64,
                       what, c->num_attention_heads, c->num_key_value_heads);
    }
    if (c->head_dim % 2 != 0) {
        return lb_fail(detail, LB_E_ARG, "%s: head_dim %" PRId64 " is odd; rotary embeddings turn pairs",
                       what, c->head_dim);
    }
    return LB_OK;
}

static enum lb_status check_decoder(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    const struct {
        const char *key;
        int64_t value, max;
    } sizes[] = {
        {"vocab_size", c->vocab_size, MAX_VOCAB},
        {"hidden_size", c->hidden_size, MAX_WIDTH},
        {"intermediate_size", c->intermediate_size, MAX_FEED_FORWARD},
        {"num_hidden_layers", c->num_hidden_layers, MAX_LAYERS},
        {"num_attention_heads", c->num_attention_heads, MAX_HEADS},
        {"num_key_value_heads", c->num_key_value_heads, MAX_HEADS},
        {"head_dim", c->head_dim, MAX_HEAD_DIM},
        {"max_position_embeddings", c->max_position_embeddings, INT32_MAX},
    };
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == LB_OK; i++) {
        status = check_size(what, sizes[i].key, sizes[i].value, sizes[i].max, detail);
    }
    if (status != LB_OK || (status = check_heads(c, what, detail)) != LB_OK ||
        (status = check_token(what, "bos_token_id", c->bos_token_id, c->vocab_size, detail)) != LB_OK ||
        (status = check_token(what, "eos_token_id", c->eos_token_id, c->vocab_size, detail)) != LB_OK ||
        (status = check_token(what, "pad_token_id", c->pad_token_id, c->vocab_size, detail)) != LB_OK ||
        (status = check_real(what, "rms_norm_eps", c->norm_eps, 0, 1, detail)) != LB_OK) {
        return status;
    }
    return check_real(what, "rope_theta", c->rope_theta, 1, 1e15, detail);
}

static enum lb_status check_mlp(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    enum lb_status status = check_size(what, "input_size", c->input_size, MAX_FEED_FORWARD, detail);
    if (status != LB_OK ||
        (status = check_size(what, "num_labels", c->vocab_size, MAX_FEED_FORWARD, detail)) != LB_OK) {
        return status;
    }
    if (c->n_hidden < 0 || c->n_hidden > LB_MLP_MAX_HIDDEN) {
        return lb_fail(detail, LB_E_ARG, "%s: %" PRId64 " hidden_sizes; at most %d are supported", what,
                       c->n_hidden, LB_MLP_MAX_HIDDEN);
    }
    for (int64_t i = 0; i < c->n_hidden && status == LB_OK; i++) {
        status = check_size(what, "a hidden size", c->hidden_sizes[i], MAX_FEED_FORWARD, detail);
    }
    if (status != LB_OK ||
        (status = check_real(what, "input_dropout", c->input_dropout, 0, 0.99, detail)) != LB_OK) {
        return status;
    }
    return check_real(what, "hidden_dropout", c->hidden_dropout, 0, 0.99, detail);
}

enum lb_status lb_config_check(const struct lb_config *config, const char *what, struct lb_detail *detail) {
    bool is_mlp = strcmp(config->model_type, MLP_TYPE) == 0;
    if (!is_mlp && find_family(config->model_type) == NULL) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: model_type \"%s\" is not one of llama, mistral, qwen2, " MLP_TYPE, what,
                       config->model_type);
    }
    enum lb_status status = is_mlp ? check_mlp(config, what, detail) : check_decoder(config, what, detail);
    return status == LB_OK ? check_real(what, "initializer_range", config->initializer_range, 0, 1, detail)
                           : status;
}

int64_t lb_config_parameters(const struct lb_config *c) {
    if (strcmp(c->model_type, MLP_TYPE) == 0) {
        int64_t total = 0, in = c->input_size;
        for (int64_t i = 0; i < c->n_hidden; i++) {
            total += (in + 1) * c->hidden_sizes[i];
            in = c->hidden_sizes[i];
        }
        return total + (in + 1) * c->vocab_size;
    }
    const struct family *family = find_family(c->model_type);
    int64_t width = c->hidden_size, q = c->num_attention_heads * c->head_dim,
            kv = c->num_key_value_heads * c->head_dim;
    int64_t attention = width * (q + 2 * kv) + q * width;
    if (c->attention_bias) {
        attention +=
            q + 2 * kv +
            (family != NULL && family->qkv_bias ? 0 : width); /* qwen2 has no bias behind the heads */
    }
    int64_t mlp = 3 * width * c->intermediate_size + (c->mlp_bias ? 2 * c->intermediate_size + width : 0);
    int64_t embedding = c->vocab_size * width;
    return embedding * (c->tie_word_embeddings ? 1 : 2) +
           c->num_hidden_layers * (attention + mlp + 2 * width) + width;
}

/* ---- parsing ---- */

/* Present and not null. */
static bool given(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return value != NULL && !json_is_null(value);
}

/* A key whose only supported value is wanted, which is also what a missing key means. */
static enum lb_status want_text(const json_t *object, const char *key, const char *wanted, const char *what,
                                struct lb_detail *detail) {
    const char *text = wanted;
    enum lb_status status = lb_json_str(object, key, false, what, &text, detail);
    if (status == LB_OK && strcmp(text, wanted) != 0) {
        status = lb_fail(detail, LB_E_UNSUPPORTED, "%s: %s \"%.64s\" is not supported, only \"%s\"", what,
                         key, text, wanted);
    }
    return status;
}

static enum lb_status want_one(const json_t *object, const char *key, const char *what,
                               struct lb_detail *detail) {
    double value = 1;
    enum lb_status status = lb_json_number(object, key, false, -INFINITY, INFINITY, what, &value, detail);
    if (status == LB_OK && value != 1) {
        status = lb_fail(detail, LB_E_UNSUPPORTED, "%s: %s %g is not supported, only 1", what, key, value);
    }
    return status;
}

/* rope_theta beside the other keys (transformers 4), or in rope_parameters (5), or in rope_scaling, which
 * transformers lets win where it isn't empty. Scaled rotary embeddings give other numbers, so they are
 * refused. */
static enum lb_status parse_rope(const json_t *object, const char *what, double *theta,
                                 struct lb_detail *detail) {
    enum lb_status status = lb_json_number(object, "rope_theta", false, 1, 1e15, what, theta, detail);
    if (status == LB_OK) {
        status = want_one(object, "partial_rotary_factor", what, detail);
    }
    static const char *const keys[] = {"rope_parameters", "rope_scaling"};
    for (size_t i = 0; i < 2 && status == LB_OK; i++) {
        const json_t *rope = json_object_get(object, keys[i]);
        if (!given(object, keys[i])) {
            continue;
        }
        if (!json_is_object(rope)) {
            return lb_fail(detail, LB_E_FORMAT, "%s: %s must be an object or null", what, keys[i]);
        }
        if (given(rope, "full_attention") || given(rope, "sliding_attention")) {
            return lb_fail(detail, LB_E_UNSUPPORTED, "%s: %s that differ by layer are not supported", what,
                           keys[i]);
        }
        if ((status = want_text(rope, "rope_type", "default", what, detail)) == LB_OK &&
            (status = want_text(rope, "type", "default", what, detail)) == LB_OK &&
            (status = want_one(rope, "partial_rotary_factor", what, detail)) == LB_OK) {
            status = lb_json_number(rope, "rope_theta", false, 1, 1e15, what, theta, detail);
        }
    }
    return status;
}

/* An id, null, or a list of which the first one is taken; -1 is how some write null. */
static enum lb_status parse_token(const json_t *object, const char *key, int64_t fallback, int64_t vocab_size,
                                  const char *what, int64_t *out, struct lb_detail *detail) {
    const json_t *value = json_object_get(object, key);
    if (value == NULL) {
        *out = fallback < vocab_size ? fallback : -1;
        return LB_OK;
    }
    if (json_is_array(value)) {
        value = json_array_get(value, 0);
    }
    if (value == NULL || json_is_null(value)) {
        *out = -1;
        return LB_OK;
    }
    if (!json_is_integer(value)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s must be a token id, a list of them or null", what, key);
    }
    *out = json_integer_value(value);
    return LB_OK;
}

/* Within the window a sliding window changes nothing: the model is used up to that length only. */
static enum lb_status parse_window(const json_t *object, const struct family *family, const char *what,
                                   struct lb_config *c, struct lb_detail *detail) {
    bool used = family->sliding_window > 0 && strcmp(family->model_type, "qwen2") != 0;
    int64_t window = json_object_get(object, "sliding_window") == NULL ? family->sliding_window : 0;
    enum lb_status status = lb_json_bool(object, "use_sliding_window", false, what, &used, detail);
    if (status == LB_OK) {
        status = lb_json_int(object, "sliding_window", false, 0, INT32_MAX, what, &window, detail);
    }
    if (status == LB_OK && used && window > 0 && window < c->max_position_embeddings) {
        c->max_position_embeddings = window;
    }
    return status;
}

static enum lb_status parse_sizes(const json_t *object, const struct family *family, const char *what,
                                  struct lb_config *c, struct lb_detail *detail) {
    const struct {
        const char *key;
        bool required;
        int64_t max;
        int64_t *out;
    } sizes[] = {
        {"vocab_size", true, MAX_VOCAB, &c->vocab_size},
        {"hidden_size", true, MAX_WIDTH, &c->hidden_size},
        {"intermediate_size", true, MAX_FEED_FORWARD, &c->intermediate_size},
        {"num_hidden_layers", true, MAX_LAYERS, &c->num_hidden_layers},
        {"num_attention_heads", true, MAX_HEADS, &c->num_attention_heads},
        {"num_key_value_heads", false, MAX_HEADS, &c->num_key_value_heads},
        {"head_dim", false, MAX_HEAD_DIM, &c->head_dim},
        {"max_position_embeddings", false, INT32_MAX, &c->max_position_embeddings},
    };
    bool kv_null = json_is_null(json_object_get(object, "num_key_value_heads"));
    c->num_key_value_heads = kv_null ? 0 : family->num_key_value_heads;
    c->max_position_embeddings = family->max_position_embeddings;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        enum lb_status status =
            lb_json_int(object, sizes[i].key, sizes[i].required, 1, sizes[i].max, what, sizes[i].out, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    if (c->num_key_value_heads == 0) {
        c->num_key_value_heads = c->num_attention_heads;
    }
    if (c->head_dim == 0) {
        c->head_dim = c->hidden_size / c->num_attention_heads;
    }
    return LB_OK;
}

static enum lb_status parse_decoder(const json_t *object, const struct family *family, const char *what,
                                    struct lb_config *c, struct lb_detail *detail) {
    c->norm_eps = 1e-6;
    c->rope_theta = 10000;
    c->attention_bias = family->qkv_bias;
    enum lb_status status = parse_sizes(object, family, what, c, detail);
    if (status != LB_OK || (status = parse_window(object, family, what, c, detail)) != LB_OK ||
        (status = lb_json_number(object, "rms_norm_eps", false, 0, 1, what, &c->norm_eps, detail)) != LB_OK ||
        (status = parse_rope(object, what, &c->rope_theta, detail)) != LB_OK ||
        (status = want_text(object, "hidden_act", "silu", what, detail)) != LB_OK ||
        (status = lb_json_bool(object, "tie_word_embeddings", false, what, &c->tie_word_embeddings,
                               detail)) != LB_OK ||
        (status = parse_token(object, "bos_token_id", family->bos_token_id, c->vocab_size, what,
                              &c->bos_token_id, detail)) != LB_OK ||
        (status = parse_token(object, "eos_token_id", family->eos_token_id, c->vocab_size, what,
                              &c->eos_token_id, detail)) != LB_OK ||
        (status = parse_token(object, "pad_token_id", -1, c->vocab_size, what, &c->pad_token_id, detail)) !=
            LB_OK) {
        return status;
    }
    /* transformers knows these two for llama only; there they are keys, elsewhere fixed. */
    if (strcmp(family->model_type, "llama") == 0 &&
        ((status = lb_json_bool(object, "attention_bias", false, what, &c->attention_bias, detail)) !=
             LB_OK ||
         (status = lb_json_bool(object, "mlp_bias", false, what, &c->mlp_bias, detail)) != LB_OK)) {
        return status;
    }
    return LB_OK;
}

static enum lb_status parse_mlp(const json_t *object, const char *what, struct lb_config *c,
                                struct lb_detail *detail) {
    enum lb_status status;
    c->bos_token_id = c->eos_token_id = c->pad_token_id = -1;
    if ((status = lb_json_int(object, "input_size", true, 1, MAX_FEED_FORWARD, what, &c->input_size,
                              detail)) != LB_OK ||
        (status = lb_json_int(object, "num_labels", true, 1, MAX_FEED_FORWARD, what, &c->vocab_size,
                              detail)) != LB_OK ||
        (status = lb_json_number(object, "input_dropout", false, 0, 0.99, what, &c->input_dropout, detail)) !=
            LB_OK ||
        (status = lb_json_number(object, "hidden_dropout", false, 0, 0.99, what, &c->hidden_dropout,
                                 detail)) != LB_OK ||
        (status = want_text(object, "hidden_act", "relu", what, detail)) != LB_OK) {
        return status;
    }
    const json_t *sizes = json_object_get(object, "hidden_sizes");
    if (!json_is_array(sizes) || json_array_size(sizes) > LB_MLP_MAX_HIDDEN) {
        return lb_fail(detail, LB_E_FORMAT, "%s: hidden_sizes must be an array of at most %d widths", what,
                       LB_MLP_MAX_HIDDEN);
    }
    c->n_hidden = (int64_t)json_array_size(sizes);
    for (int64_t i = 0; i < c->n_hidden; i++) {
        const json_t *size = json_array_get(sizes, (size_t)i);
        if (!json_is_integer(size)) {
            return lb_fail(detail, LB_E_FORMAT, "%s: hidden_sizes[%" PRId64 "] is no whole number", what, i);
        }
        c->hidden_sizes[i] = json_integer_value(size);
    }
    return LB_OK;
}

/* Weights that are packed in ways of their own cannot be read as tensors. */
static enum lb_status refuse_quantized(const json_t *object, const char *what, struct lb_detail *detail) {
    if (!given(object, "quantization_config")) {
        return LB_OK;
    }
    const char *method =
        json_string_value(json_object_get(json_object_get(object, "quantization_config"), "quant_method"));
    return lb_fail(detail, LB_E_UNSUPPORTED,
                   "%s: quantization_config (%.32s) is not supported; get the model in F32, F16 or BF16",
                   what, method != NULL ? method : "unnamed");
}

enum lb_status lb_config_parse(const json_t *object, const char *what, struct lb_config *out,
                               struct lb_detail *detail) {
    struct lb_config c = {.initializer_range = 0.02};
    const char *model_type = NULL, *dtype = NULL;
    if (!json_is_object(object)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: a model's config must be a JSON object", what);
    }
    enum lb_status status = lb_json_str(object, "model_type", true, what, &model_type, detail);
    if (status != LB_OK) {
        return status;
    }
    const struct family *family = find_family(model_type);
    bool is_mlp = strcmp(model_type, MLP_TYPE) == 0;
    if (family == NULL && !is_mlp) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: model_type \"%.64s\" is not one of llama, mistral, qwen2, " MLP_TYPE, what,
                       model_type);
    }
    snprintf(c.model_type, sizeof c.model_type, "%s", model_type);
    if ((status = refuse_quantized(object, what, detail)) != LB_OK ||
        (status = lb_json_number(object, "initializer_range", false, 0, 1, what, &c.initializer_range,
                                 detail)) != LB_OK ||
        /* the files say how weights are stored; here only the type is checked */
        (status = lb_json_str(object, "dtype", false, what, &dtype, detail)) != LB_OK ||
        (status = lb_json_str(object, "torch_dtype", false, what, &dtype, detail)) != LB_OK ||
        (status = is_mlp ? parse_mlp(object, what, &c, detail)
                         : parse_decoder(object, family, what, &c, detail)) != LB_OK ||
        (status = lb_config_check(&c, what, detail)) != LB_OK) {
        return status;
    }
    *out = c;
    return LB_OK;
}
