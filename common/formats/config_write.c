#include "common/formats/config.h"

#include <string.h>

#define ID(id) ((id) >= 0 ? json_integer(id) : json_null())

/* Adds key: value, both taken over; NULL values (out of memory) are an error. */
static int put(json_t *object, const char *key, json_t *value) {
    return json_object_set_new(object, key, value);
}

static int put_architecture(json_t *object, const char *name) {
    json_t *list = json_array();
    if (list == NULL || json_array_append_new(list, json_string(name)) != 0) {
        json_decref(list);
        return -1;
    }
    return put(object, "architectures", list);
}

/* The keys in the order of the alphabet, as transformers writes them; rope_theta and torch_dtype are there
 * for its version 4, rope_parameters and dtype for 5. */
static int fill_decoder(json_t *o, const struct lb_config *c, const char *dtype) {
    const bool mistral = strcmp(c->model_type, "mistral") == 0, qwen2 = strcmp(c->model_type, "qwen2") == 0;
    const bool llama = !mistral && !qwen2;
    int failed = put_architecture(o, mistral ? "MistralForCausalLM"
                                     : qwen2 ? "Qwen2ForCausalLM"
                                             : "LlamaForCausalLM");
    if (llama) {
        failed |= put(o, "attention_bias", json_boolean(c->attention_bias));
    }
    failed |= put(o, "attention_dropout", json_real(0.0));
    failed |= put(o, "bos_token_id", ID(c->bos_token_id));
    failed |= put(o, "dtype", json_string(dtype));
    failed |= put(o, "eos_token_id", ID(c->eos_token_id));
    failed |= put(o, "head_dim", json_integer(c->head_dim));
    failed |= put(o, "hidden_act", json_string("silu"));
    failed |= put(o, "hidden_size", json_integer(c->hidden_size));
    failed |= put(o, "initializer_range", json_real(c->initializer_range));
    failed |= put(o, "intermediate_size", json_integer(c->intermediate_size));
    failed |= put(o, "max_position_embeddings", json_integer(c->max_position_embeddings));
    if (llama) {
        failed |= put(o, "mlp_bias", json_boolean(c->mlp_bias));
    }
    failed |= put(o, "model_type", json_string(c->model_type));
    failed |= put(o, "num_attention_heads", json_integer(c->num_attention_heads));
    failed |= put(o, "num_hidden_layers", json_integer(c->num_hidden_layers));
    failed |= put(o, "num_key_value_heads", json_integer(c->num_key_value_heads));
    failed |= put(o, "pad_token_id", ID(c->pad_token_id));
    failed |= put(o, "rms_norm_eps", json_real(c->norm_eps));
    failed |= put(o, "rope_parameters",
                  json_pack("{s:f, s:s}", "rope_theta", c->rope_theta, "rope_type", "default"));
    failed |= put(o, "rope_theta", json_real(c->rope_theta));
    if (!llama) {
        failed |= put(o, "sliding_window", json_null()); /* a missing key would mean 4096 */
    }
    failed |= put(o, "tie_word_embeddings", json_boolean(c->tie_word_embeddings));
    failed |= put(o, "torch_dtype", json_string(dtype));
    failed |= put(o, "use_cache", json_true());
    failed |= put(o, "vocab_size", json_integer(c->vocab_size));
    return failed;
}

static int fill_mlp(json_t *o, const struct lb_config *c, const char *dtype) {
    json_t *sizes = json_array();
    int failed = put_architecture(o, "LimbeckMLPForClassification");
    for (int64_t i = 0; i < c->n_hidden; i++) {
        failed |= json_array_append_new(sizes, json_integer(c->hidden_sizes[i]));
    }
    failed |= put(o, "dtype", json_string(dtype));
    failed |= put(o, "hidden_act", json_string("relu"));
    failed |= put(o, "hidden_dropout", json_real(c->hidden_dropout));
    failed |= put(o, "hidden_sizes", sizes);
    failed |= put(o, "initializer_range", json_real(c->initializer_range));
    failed |= put(o, "input_dropout", json_real(c->input_dropout));
    failed |= put(o, "input_size", json_integer(c->input_size));
    failed |= put(o, "model_type", json_string(c->model_type));
    failed |= put(o, "num_labels", json_integer(c->vocab_size));
    failed |= put(o, "torch_dtype", json_string(dtype));
    return failed;
}

enum lb_status lb_config_write(const struct lb_config *config, const char *dtype_name, struct lb_buf *buf) {
    if (strcmp(dtype_name, "float32") != 0 && strcmp(dtype_name, "float16") != 0 &&
        strcmp(dtype_name, "bfloat16") != 0) {
        return LB_E_ARG;
    }
    enum lb_status status = lb_config_check(config, "config", NULL);
    if (status != LB_OK) {
        return status;
    }
    json_t *object = json_object();
    bool is_mlp = strcmp(config->model_type, "limbeck_mlp") == 0;
    if (object == NULL ||
        (is_mlp ? fill_mlp(object, config, dtype_name) : fill_decoder(object, config, dtype_name)) != 0) {
        status = LB_E_NOMEM;
    } else if ((status = lb_json_dump(object, JSON_INDENT(2), buf)) == LB_OK) {
        status = lb_buf_append_str(buf, "\n");
    }
    json_decref(object);
    return status;
}
