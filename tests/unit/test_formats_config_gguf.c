/* Configs read from the keys of GGUF files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/model/families.h"

#include <string.h>

/* The keys of a small llama, without those that a test puts itself. */
static struct lb_gguf_out *llama_keys(const char *arch) {
    struct lb_gguf_out *out = lb_gguf_out_create();
    lb_gguf_put_string(out, "general.architecture", arch);
    lb_gguf_put_u32(out, "llama.context_length", 512);
    lb_gguf_put_u32(out, "llama.embedding_length", 64);
    lb_gguf_put_u32(out, "llama.block_count", 2);
    lb_gguf_put_u32(out, "llama.feed_forward_length", 96);
    lb_gguf_put_f32(out, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    return out;
}

static struct lb_notes gguf_notes; /* of the last read_back */

/* Destroys out. */
static enum lb_status read_back(struct lb_gguf_out *out, struct lb_config *c, struct lb_detail *detail) {
    struct lb_gguf *file = NULL;
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    gguf_notes.n = 0;
    assert_int_equal(lb_gguf_encode(out, &buf, detail), LB_OK);
    assert_int_equal(lb_gguf_parse(buf.data, buf.len, "m.gguf", &file, detail), LB_OK);
    enum lb_status status = lb_config_from_gguf(file, "m.gguf", c, &gguf_notes, detail);
    lb_gguf_destroy(file);
    lb_buf_finish(&buf);
    lb_gguf_out_destroy(out);
    return status;
}

static const float zeros[640];
static const struct lb_tensor embedding = {
    .name = "token_embd.weight", .dtype = LB_F32, .n_dims = 2, .dim = {10, 64}, .data = zeros, .bytes = 2560};

static struct lb_tensor vector(const char *name) {
    return (struct lb_tensor){
        .name = name, .dtype = LB_F32, .n_dims = 1, .dim = {8}, .data = zeros, .bytes = 32};
}

static void refuse_gguf(struct lb_gguf_out *out, enum lb_status status, const char *says) {
    struct lb_config c;
    struct lb_detail detail = {0};
    enum lb_status got = read_back(out, &c, &detail);
    if (got != status || strstr(detail.text, says) == NULL || strncmp(detail.text, "m.gguf: ", 8) != 0) {
        fail_msg("status %d, text \"%s\"; expected %d and \"%s\"", (int)got, detail.text, (int)status, says);
    }
}

/* A llama that would be fine, with one more key. */
static struct lb_gguf_out *fine(void) {
    struct lb_gguf_out *out = llama_keys("llama");
    lb_gguf_put_u32(out, "llama.attention.head_count", 4);
    lb_gguf_put_tensor(out, &embedding);
    return out;
}

/* What llama.cpp calls bert, with 3 kinds of segments; causal: as decoders are, or nothing said with -1. */
static struct lb_gguf_out *bert_keys(int causal) {
    struct lb_gguf_out *out = lb_gguf_out_create();
    struct lb_tensor types = embedding;
    types.name = "token_types.weight";
    types.dim[0] = 3;
    types.bytes = 3 * 64 * sizeof(float);
    lb_gguf_put_string(out, "general.architecture", "bert");
    lb_gguf_put_u32(out, "bert.context_length", 32);
    lb_gguf_put_u32(out, "bert.embedding_length", 64);
    lb_gguf_put_u32(out, "bert.block_count", 2);
    lb_gguf_put_u32(out, "bert.feed_forward_length", 96);
    lb_gguf_put_u32(out, "bert.attention.head_count", 4);
    lb_gguf_put_f32(out, "bert.attention.layer_norm_epsilon", 1e-12f);
    lb_gguf_put_u32(out, "bert.pooling_type", 1);
    if (causal >= 0) {
        lb_gguf_put_bool(out, "bert.attention.causal", causal > 0);
    }
    lb_gguf_put_tensor(out, &embedding);
    lb_gguf_put_tensor(out, &types);
    return out;
}

static void encoder_from_gguf(void **state) {
    (void)state;
    struct lb_config c;
    for (int causal = -1; causal < 1; causal++) {
        assert_int_equal(read_back(bert_keys(causal), &c, NULL), LB_OK);
        assert_string_equal(c.model_type, "bert");
        assert_int_equal(c.type_vocab_size, 3);
        assert_int_equal(c.vocab_size, 10);
        assert_int_equal(c.max_position_embeddings, 32);
        assert_int_equal(c.head_dim, 16);
        assert_true(c.norm_eps == 1e-12);
        assert_int_equal(gguf_notes.n, 0);
    }
    refuse_gguf(bert_keys(1), LB_E_UNSUPPORTED, "bert.attention.causal is 1; only 0 is supported");
    struct lb_gguf_out *out = bert_keys(0);
    lb_gguf_put_f32(out, "bert.attention.max_alibi_bias", 8);
    refuse_gguf(out, LB_E_UNSUPPORTED, "max_alibi_bias");
}

static void config_from_gguf(void **state) {
    (void)state;
    struct lb_config c;
    struct lb_gguf_out *out = llama_keys("llama");
    static const char *const tokens[] = {"a", "b", "c"};
    lb_gguf_put_u32(out, "llama.attention.head_count", 4);
    lb_gguf_put_tensor(out, &embedding);
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_string_equal(c.model_type, "llama");
    assert_int_equal(c.vocab_size, 10); /* the embedding's rows */
    assert_int_equal(c.hidden_size, 64);
    assert_int_equal(c.intermediate_size, 96);
    assert_int_equal(c.num_hidden_layers, 2);
    assert_int_equal(c.num_attention_heads, 4);
    assert_int_equal(c.num_key_value_heads, 4);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.max_position_embeddings, 512);
    assert_true(c.norm_eps == 1e-5); /* not 9.99999974737875e-06 */
    assert_true(c.rope_theta == 10000 && c.initializer_range == 0.02);
    assert_true(c.tie_word_embeddings && !c.attention_bias && !c.mlp_bias);
    assert_int_equal(c.bos_token_id, -1);

    out = llama_keys("llama");
    lb_gguf_put_u32(out, "llama.attention.head_count", 4);
    lb_gguf_put_u32(out, "llama.attention.head_count_kv", 2);
    lb_gguf_put_u32(out, "llama.attention.key_length", 32);
    lb_gguf_put_u32(out, "llama.attention.value_length", 32);
    lb_gguf_put_u32(out, "llama.rope.dimension_count", 32);
    lb_gguf_put_f32(out, "llama.rope.freq_base", 1234567.9f); /* a float of more than six digits */
    lb_gguf_put_u32(out, "llama.attention.sliding_window", 100);
    lb_gguf_put_strings(out, "tokenizer.ggml.tokens", tokens, 3);
    lb_gguf_put_u32(out, "tokenizer.ggml.bos_token_id", 1);
    lb_gguf_put_u32(out, "tokenizer.ggml.eos_token_id", 2);
    lb_gguf_put_u32(out, "tokenizer.ggml.padding_token_id", 0);
    struct lb_tensor head = embedding, q_bias = vector("blk.0.attn_q.bias"),
                     down_bias = vector("blk.0.ffn_down.bias");
    head.name = "output.weight";
    lb_gguf_put_tensor(out, &head);
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_int_equal(c.num_key_value_heads, 2);
    assert_int_equal(c.head_dim, 32);
    assert_true(c.rope_theta == 1234567.9);
    assert_int_equal(c.vocab_size, 3);
    assert_string_equal(c.model_type, "mistral"); /* the family of that architecture that has windows */
    assert_int_equal(c.max_position_embeddings, 512);
    assert_int_equal(c.sliding_window, 100);
    assert_int_equal(c.bos_token_id, 1);
    assert_int_equal(c.eos_token_id, 2);
    assert_int_equal(c.pad_token_id, 0);
    assert_false(c.tie_word_embeddings);
    out = fine();
    lb_gguf_put_tensor(out, &q_bias);
    lb_gguf_put_tensor(out, &down_bias);
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_true(c.attention_bias && c.mlp_bias);
}

/* Scaled rotary positions as llama.cpp has them. */
static void rope_from_gguf(void **state) {
    (void)state;
    struct lb_config c;
    struct lb_gguf_out *out = fine();
    lb_gguf_put_f32(out, "llama.rope.scaling.factor", 4); /* linear where no type is given */
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_true(c.rope.type == LB_ROPE_LINEAR && c.rope.factor == 4);
    out = fine();
    lb_gguf_put_f32(out, "llama.rope.scale_linear", 2);
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_true(c.rope.type == LB_ROPE_LINEAR && c.rope.factor == 2);
    out = fine();
    lb_gguf_put_string(out, "llama.rope.scaling.type", "yarn");
    lb_gguf_put_f32(out, "llama.rope.scaling.factor", 4);
    lb_gguf_put_u32(out, "llama.rope.scaling.original_context_length", 128);
    lb_gguf_put_bool(out, "llama.rope.scaling.finetuned", true);
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_true(c.rope.type == LB_ROPE_YARN && c.rope.factor == 4 && c.rope.original == 128);
    static const float factors[8] = {1, 1, 1, 2, 3, 4, 8, 8};
    struct lb_tensor freqs = {
        .name = "rope_freqs.weight", .dtype = LB_F32, .n_dims = 1, .dim = {8}, .data = factors, .bytes = 32};
    out = fine();
    lb_gguf_put_tensor(out, &freqs);
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_true(c.rope.type == LB_ROPE_LONGROPE && c.rope.n_factors == 8 && c.rope.attention_factor == 1);
    assert_true(c.rope.long_factor[4] == 3 && c.rope.short_factor[7] == 8);
    freqs.dim[0] = 7, freqs.bytes = 28;
    out = fine();
    lb_gguf_put_tensor(out, &freqs);
    refuse_gguf(out, LB_E_ARG, "7 factors; 8 pairs");
    freqs.dim[0] = 8, freqs.bytes = 32;
    struct lb_tensor late = freqs;
    freqs.name = "rope_factors_short.weight", late.name = "rope_factors_long.weight";
    out = fine();
    lb_gguf_put_tensor(out, &freqs), lb_gguf_put_tensor(out, &late);
    lb_gguf_put_u32(out, "llama.rope.scaling.original_context_length", 0);
    refuse_gguf(out, LB_E_FORMAT, "llama.rope.scaling.original_context_length is 0");
}

static void unfit_ggufs_are_refused_by_key(void **state) {
    (void)state;
    struct lb_gguf_out *out = lb_gguf_out_create();
    refuse_gguf(out, LB_E_FORMAT, "general.architecture is missing");
    refuse_gguf(llama_keys("qwen2moe"), LB_E_UNSUPPORTED, "general.architecture \"qwen2moe\"");
    refuse_gguf(llama_keys("llama"), LB_E_FORMAT, "llama.attention.head_count is missing");
    refuse_gguf(llama_keys("qwen2"), LB_E_FORMAT, "qwen2.context_length is missing");
    out = llama_keys("llama"), lb_gguf_put_string(out, "llama.attention.head_count", "four");
    refuse_gguf(out, LB_E_FORMAT, "llama.attention.head_count is no number");
    out = llama_keys("llama"), lb_gguf_put_f32(out, "llama.attention.head_count", 4.5f);
    refuse_gguf(out, LB_E_FORMAT, "4.5, not a whole number");
    out = llama_keys("llama"), lb_gguf_put_u32(out, "llama.attention.head_count", UINT32_MAX);
    refuse_gguf(out, LB_E_FORMAT, "not a whole number from 0");
    out = llama_keys("llama"), lb_gguf_put_u32(out, "llama.attention.head_count", 0);
    lb_gguf_put_tensor(out, &embedding);
    refuse_gguf(out, LB_E_ARG, "num_attention_heads is 0");
    out = llama_keys("llama"),
    lb_gguf_put_i32s(out, "llama.attention.head_count", (const int32_t[]){4, 4}, 2);
    refuse_gguf(out, LB_E_UNSUPPORTED, "differ by layer");
    out = llama_keys("llama"), lb_gguf_put_u32(out, "llama.attention.head_count", 4);
    refuse_gguf(out, LB_E_ARG, "vocab_size is 0");
    out = fine(), lb_gguf_put_u32(out, "tokenizer.ggml.eos_token_id", 10);
    refuse_gguf(out, LB_E_ARG, "eos_token_id is 10");
    out = fine(), lb_gguf_put_u32(out, "llama.expert_count", 8);
    refuse_gguf(out, LB_E_FORMAT, "llama.expert_used_count is missing"); /* a mixtral */
    out = fine(), lb_gguf_put_u32(out, "llama.expert_count", 8);
    lb_gguf_put_u32(out, "llama.expert_used_count", 2);
    refuse_gguf(out, LB_E_FORMAT, "llama.rope.freq_base is missing");
    out = fine(), lb_gguf_put_u32(out, "llama.expert_count", 8);
    lb_gguf_put_u32(out, "llama.expert_used_count", 2);
    lb_gguf_put_f32(out, "llama.rope.freq_base", 1e6f);
    lb_gguf_put_u32(out, "llama.expert_gating_func", 2);
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.expert_gating_func is 2");
    out = fine(), lb_gguf_put_u32(out, "llama.attention.value_length", 8);
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.attention.value_length");
    out = fine(), lb_gguf_put_u32(out, "llama.rope.dimension_count", 8);
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.rope.dimension_count");
    out = fine(), lb_gguf_put_string(out, "llama.rope.scaling.type", "yarn");
    refuse_gguf(out, LB_E_FORMAT, "llama.rope.scaling.type is yarn, but there is no factor");
    out = fine(), lb_gguf_put_string(out, "llama.rope.scaling.type", "ntk");
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.rope.scaling.type is \"ntk\"");
    out = fine(), lb_gguf_put_f32(out, "llama.rope.scaling.factor", -2);
    refuse_gguf(out, LB_E_UNSUPPORTED, "rope.scaling.factor is -2");
    out = fine(), lb_gguf_put_f32(out, "llama.rope.scaling.alpha", 4);
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.rope.scaling.alpha is not known");
    out = fine(), lb_gguf_put_bool(out, "llama.attention.causal", false);
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.attention.causal is 0; only 1");
    out = fine(), lb_gguf_put_f32(out, "llama.rope.scaling.attn_factor", 0.5f);
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.rope.scaling.attn_factor 0.5");
    out = fine(), lb_gguf_put_f32(out, "llama.attn_logit_softcapping", 50);
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.attn_logit_softcapping is not known to architecture llama");
    out = fine(), lb_gguf_put_f32(out, "llama.attention.scale", 0.5f);
    refuse_gguf(out, LB_E_UNSUPPORTED, "llama.attention.scale");
    out = fine(), lb_gguf_put_string(out, "general.type", "adapter");
    refuse_gguf(out, LB_E_UNSUPPORTED, "general.type is \"adapter\"");
    out = fine(), lb_gguf_put_f32(out, "llama.rope.freq_base", __builtin_nanf(""));
    refuse_gguf(out, LB_E_FORMAT, "llama.rope.freq_base is no number");
    struct lb_config c;
    out = fine(), lb_gguf_put_string(out, "llama.rope.scaling.type", "none");
    lb_gguf_put_bool(out, "llama.attention.causal", true);
    lb_gguf_put_f32(out, "llama.rope.scaling.attn_factor", 1);
    lb_gguf_put_f32(out, "llama.attn_logit_softcapping", 0); /* off */
    lb_gguf_put_string(out, "general.name", "of no consequence");
    lb_gguf_put_string(out, "llama.tensor_data_layout", "Meta AI original pth");
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_int_equal(read_back(fine(), &c, NULL), LB_OK);
}

static void unknown_gguf_keys(void **state) {
    (void)state;
    struct lb_config c;
    struct lb_gguf_out *out = fine();
    lb_gguf_put_string(out, "llama.favourite_colour", "copper");
    assert_int_equal(read_back(out, &c, NULL), LB_OK);
    assert_non_null(strstr(lb_note_get(&gguf_notes, 0), "key llama.favourite_colour is not known"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoder_from_gguf), cmocka_unit_test(config_from_gguf),
        cmocka_unit_test(rope_from_gguf),    cmocka_unit_test(unfit_ggufs_are_refused_by_key),
        cmocka_unit_test(unknown_gguf_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
