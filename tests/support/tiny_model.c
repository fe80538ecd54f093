#include "tests/support/tiny_model.h"

#include "common/base/buf.h"
#include "common/model/model.h"
#include "common/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lb_tiny_llama(struct lb_config *config) {
    *config = (struct lb_config){.model_type = "llama",
                                 .vocab_size = 97,
                                 .hidden_size = 32,
                                 .intermediate_size = 48,
                                 .num_hidden_layers = 2,
                                 .num_attention_heads = 4,
                                 .num_key_value_heads = 2,
                                 .head_dim = 8,
                                 .max_position_embeddings = 128,
                                 .norm_eps = 1e-5,
                                 .rope_theta = 10000,
                                 .tie_word_embeddings = true,
                                 .bos_token_id = 1,
                                 .eos_token_id = 0,
                                 .pad_token_id = -1,
                                 /* large, so that logits differ clearly */
                                 .initializer_range = 0.3};
}

void lb_tiny_bert(struct lb_config *config) {
    *config = (struct lb_config){.model_type = "bert",
                                 .vocab_size = 97,
                                 .hidden_size = 32,
                                 .intermediate_size = 48,
                                 .num_hidden_layers = 2,
                                 .num_attention_heads = 4,
                                 .num_key_value_heads = 4,
                                 .head_dim = 8,
                                 .max_position_embeddings = 64,
                                 .type_vocab_size = 2,
                                 .norm_eps = 1e-6,
                                 .initializer_range = 0.3,
                                 .bos_token_id = -1,
                                 .eos_token_id = -1,
                                 .pad_token_id = 0};
}

void lb_tiny_mlp(struct lb_config *config) {
    *config = (struct lb_config){.model_type = "limbeck_mlp",
                                 .num_labels = 5,
                                 .input_size = 12,
                                 .n_hidden = 2,
                                 .hidden_sizes = {16, 8},
                                 .bos_token_id = -1,
                                 .eos_token_id = -1,
                                 .pad_token_id = -1,
                                 .initializer_range = 0.02};
}

/* Byte-level BPE without merges: the first 94 ids are the visible ASCII characters, the rest are never met.
 */
static void write_tokenizer(int64_t v, struct lb_buf *out) {
    lb_buf_append_str(
        out,
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_"
        "regex\":true},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_"
        "offsets\":true,\"use_regex\":true},"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
        "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{");
    for (int64_t i = 0; i < v; i++) {
        char c = (char)('!' + i);
        if (i < 94) {
            lb_buf_printf(out, "%s\"%s%c\":%lld", i ? "," : "", c == '"' || c == '\\' ? "\\" : "", c,
                          (long long)i);
        } else {
            lb_buf_printf(out, ",\"<%lld>\":%lld", (long long)i, (long long)i);
        }
    }
    lb_buf_append_str(out, "},\"merges\":[]}}");
}

void lb_tiny_save(const struct lb_config *config, uint64_t seed, const char *dir, enum lb_dtype dtype,
                  bool tokenizer) {
    struct lb_detail detail = {0};
    struct lb_model *model = NULL;
    struct lb_buf json;
    lb_buf_init(&json, 1 << 20);
    struct lb_tokenizer *reads = NULL;
    enum lb_status status = lb_model_create(config, seed, &model, &detail);
    if (status == LB_OK && tokenizer) {
        write_tokenizer(config->vocab_size, &json);
        status = lb_tokenizer_parse(json.data, json.len, "tokenizer.json", &reads, &detail);
    }
    status = status == LB_OK ? lb_model_save_hf(model, dir, dtype, reads, NULL, &detail) : status;
    lb_tokenizer_destroy(reads);
    lb_model_destroy(model);
    lb_buf_finish(&json);
    if (status != LB_OK) {
        fprintf(stderr, "tiny model %s: %s\n", dir, detail.text);
        abort();
    }
}
