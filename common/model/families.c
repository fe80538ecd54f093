#include "common/model/families.h"

#include <string.h>

static const char *const decoder_keys[] = {
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "rope_theta",
    "tie_word_embeddings",
    "max_position_embeddings",
    "attention_bias",
    "mlp_bias",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "initializer_range",
    NULL,
};
static const char *const mlp_keys[] = {
    "model_type",    "input_size",     "num_labels",        "hidden_sizes",
    "input_dropout", "hidden_dropout", "initializer_range", NULL,
};

const char *lb_family_key(const char *model_type, size_t i) {
    bool mlp = strcmp(model_type, "limbeck_mlp") == 0;
    const char *const *keys = mlp ? mlp_keys : decoder_keys;
    size_t n = (mlp ? sizeof mlp_keys : sizeof decoder_keys) / sizeof *keys;
    return i < n ? keys[i] : NULL;
}

static bool takes(const char *model_type, const char *key) {
    const char *name;
    for (size_t i = 0; (name = lb_family_key(model_type, i)) != NULL; i++) {
        if (strcmp(name, key) == 0) {
            return true;
        }
    }
    return false;
}

enum lb_status lb_config_parse_new(const json_t *object, const char *what, struct lb_config *out,
                                   struct lb_detail *detail) {
    struct lb_config config;
    enum lb_status status = lb_config_parse(object, what, &config, detail);
    if (status != LB_OK) {
        return status;
    }
    json_t *keys = (json_t *)(uintptr_t)object; /* jansson's iterators take no const */
    for (void *at = json_object_iter(keys); at != NULL; at = json_object_iter_next(keys, at)) {
        if (!takes(config.model_type, json_object_iter_key(at))) {
            return lb_fail(detail, LB_E_ARG, "%s: %.64s is no key of model_type %s", what,
                           json_object_iter_key(at), config.model_type);
        }
    }
    *out = config;
    return LB_OK;
}
