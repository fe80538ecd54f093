/* What a model is, apart from its weights: Hugging Face's config.json, and the same from GGUF keys. */
#ifndef LB_FORMATS_CONFIG_H
#define LB_FORMATS_CONFIG_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/status.h"
#include "common/formats/gguf.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_MLP_MAX_HIDDEN 8

/* Zero means "not given" where zero makes no sense. */
struct lb_config {
    char model_type[32]; /* "llama", "limbeck_mlp", ... : the key into the architecture table */
    /* decoders */
    int64_t vocab_size, hidden_size, intermediate_size, num_hidden_layers;
    int64_t num_attention_heads, num_key_value_heads, head_dim, max_position_embeddings;
    double norm_eps, rope_theta;
    bool tie_word_embeddings, attention_bias, mlp_bias;
    int64_t bos_token_id, eos_token_id, pad_token_id; /* -1: none */
    double initializer_range;                         /* 0.02 */
    /* classifiers ("limbeck_mlp"): input_size -> hidden_sizes... -> vocab_size classes ("num_labels") */
    int64_t input_size;
    int64_t n_hidden;
    int64_t hidden_sizes[LB_MLP_MAX_HIDDEN];
    double input_dropout, hidden_dropout;
};

/* Parses and checks a config.json object of type llama, mistral, qwen2 or limbeck_mlp. Both spellings of rope
 * (rope_theta; rope_parameters) and of dtype are accepted, of several eos_token_id the first is taken, and
 * missing keys mean what they mean to transformers' class. What would change the numbers and is not computed
 * here (scaled rotary embeddings, other activations, packed weights) is LB_E_UNSUPPORTED. A sliding window
 * caps max_position_embeddings: within it, it changes nothing. what names the file. */
LB_NODISCARD enum lb_status lb_config_parse(const json_t *object, const char *what, struct lb_config *out,
                                            struct lb_detail *detail);
/* The same from a GGUF of general.architecture llama or qwen2: biases and an untied head are seen by their
 * tensors. */
LB_NODISCARD enum lb_status lb_config_from_gguf(const struct lb_gguf *file, const char *what,
                                                struct lb_config *out, struct lb_detail *detail);
/* Checks that the numbers fit each other (heads divide width, sizes in range); called by both parsers and by
 * whoever fills a config by hand. */
LB_NODISCARD enum lb_status lb_config_check(const struct lb_config *config, const char *what,
                                            struct lb_detail *detail);
/* The config.json that transformers reads, as text; dtype_name: "float32", "float16", "bfloat16". */
LB_NODISCARD enum lb_status lb_config_write(const struct lb_config *config, const char *dtype_name,
                                            struct lb_buf *buf);
/* Number of parameters that the shapes give (tied ones once). */
int64_t lb_config_parameters(const struct lb_config *config);

#endif
