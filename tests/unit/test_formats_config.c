/* Model configs: config.json in the spellings that exist, GGUF keys, and the config.json that is written. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/model/families.h"
#include "tests/support/parameters.h"

#include <stdio.h>
#include <string.h>

/* SmolLM2-135M as transformers 4 wrote it. */
static const char smollm2[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, "
    "\"bos_token_id\": 0,"
    " \"eos_token_id\": [2, 0], \"hidden_act\": \"silu\", \"hidden_size\": 576, \"initializer_range\": "
    "0.041666666666666664,"
    " \"intermediate_size\": 1536, \"is_llama_config\": true, \"max_position_embeddings\": 8192, "
    "\"mlp_bias\": false,"
    " \"model_type\": \"llama\", \"num_attention_heads\": 9, \"num_hidden_layers\": 30, "
    "\"num_key_value_heads\": 3,"
    " \"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05, \"rope_interleaved\": false, \"rope_scaling\": null,"
    " \"rope_theta\": 100000, \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\","
    " \"transformers_version\": \"4.40.1\", \"use_cache\": true, \"vocab_size\": 49152}";

/* The keys that every decoder needs, open at the end. */
#define LEAST(type)                                                                                          \
    "{\"model_type\": \"" type "\", \"vocab_size\": 100, \"hidden_size\": 64, \"intermediate_size\": 96,"    \
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 4"

static enum lb_status parse(const char *text, struct lb_config *out, struct lb_detail *detail) {
    json_t *object = NULL;
    assert_int_equal(lb_json_parse(text, strlen(text), 0, "config.json", &object, NULL), LB_OK);
    enum lb_status status = lb_config_parse(object, "config.json", out, NULL, detail);
    json_decref(object);
    return status;
}

static struct lb_config accept(const char *text) {
    struct lb_config c;
    struct lb_detail detail = {0};
    if (parse(text, &c, &detail) != LB_OK) {
        fail_msg("%s: %s", text, detail.text);
    }
    return c;
}

static void assert_same(const struct lb_config *a, const struct lb_config *b) {
    assert_string_equal(a->model_type, b->model_type);
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_int_equal(a->hidden_size, b->hidden_size);
    assert_int_equal(a->intermediate_size, b->intermediate_size);
    assert_int_equal(a->num_hidden_layers, b->num_hidden_layers);
    assert_int_equal(a->num_attention_heads, b->num_attention_heads);
    assert_int_equal(a->num_key_value_heads, b->num_key_value_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->max_position_embeddings, b->max_position_embeddings);
    assert_true(a->norm_eps == b->norm_eps && a->rope_theta == b->rope_theta);
    assert_int_equal(a->tie_word_embeddings, b->tie_word_embeddings);
    assert_int_equal(a->attention_bias, b->attention_bias);
    assert_int_equal(a->qkv_bias, b->qkv_bias);
    assert_memory_equal(&a->rope, &b->rope, sizeof a->rope);
    assert_memory_equal(&a->no_rope, &b->no_rope, sizeof a->no_rope);
    assert_memory_equal(&a->sliding, &b->sliding, sizeof a->sliding);
    assert_int_equal(a->sliding_window, b->sliding_window);
    assert_true(a->rope_local_theta == b->rope_local_theta && a->rotary_dims == b->rotary_dims);
    assert_true(a->partial_rotary_factor == b->partial_rotary_factor);
    assert_true(a->attention_multiplier == b->attention_multiplier);
    assert_int_equal(a->query_pre_attn_scalar, b->query_pre_attn_scalar);
    assert_true(a->attention_softcap == b->attention_softcap && a->logit_softcap == b->logit_softcap);
    assert_true(a->embedding_multiplier == b->embedding_multiplier && a->logit_scale == b->logit_scale);
    assert_true(a->residual_multiplier == b->residual_multiplier);
    assert_int_equal(a->use_parallel_residual, b->use_parallel_residual);
    assert_int_equal(a->mlp_bias, b->mlp_bias);
    assert_int_equal(a->bos_token_id, b->bos_token_id);
    assert_int_equal(a->eos_token_id, b->eos_token_id);
    assert_int_equal(a->pad_token_id, b->pad_token_id);
    assert_int_equal(a->n_more_eos, b->n_more_eos);
    assert_memory_equal(a->more_eos, b->more_eos, sizeof a->more_eos);
    assert_true(a->initializer_range == b->initializer_range);
    assert_int_equal(a->input_size, b->input_size);
    assert_int_equal(a->n_hidden, b->n_hidden);
    assert_memory_equal(a->hidden_sizes, b->hidden_sizes, sizeof a->hidden_sizes);
    assert_true(a->input_dropout == b->input_dropout && a->hidden_dropout == b->hidden_dropout);
}

static void a_real_config(void **state) {
    (void)state;
    struct lb_config c = accept(smollm2);
    assert_string_equal(c.model_type, "llama");
    assert_int_equal(c.vocab_size, 49152);
    assert_int_equal(c.hidden_size, 576);
    assert_int_equal(c.intermediate_size, 1536);
    assert_int_equal(c.num_hidden_layers, 30);
    assert_int_equal(c.num_attention_heads, 9);
    assert_int_equal(c.num_key_value_heads, 3);
    assert_int_equal(c.head_dim, 64);
    assert_int_equal(c.max_position_embeddings, 8192);
    assert_true(c.norm_eps == 1e-5 && c.rope_theta == 100000);
    assert_true(c.tie_word_embeddings && !c.attention_bias && !c.mlp_bias);
    assert_int_equal(c.bos_token_id, 0);
    assert_int_equal(c.eos_token_id, 2);
    assert_int_equal(c.n_more_eos, 1);
    assert_int_equal(c.more_eos[0], 0);
    assert_int_equal(c.pad_token_id, -1);
    assert_true(c.initializer_range == 0.041666666666666664);
    assert_int_equal(config_parameters(&c), 134515008); /* what transformers counts */
}

static void what_missing_keys_mean(void **state) {
    (void)state;
    struct lb_config c = accept(LEAST("llama") "}");
    assert_int_equal(c.num_key_value_heads, 4);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.max_position_embeddings, 2048);
    assert_true(c.norm_eps == 1e-6 && c.rope_theta == 10000 && c.initializer_range == 0.02);
    assert_false(c.tie_word_embeddings);
    assert_int_equal(c.bos_token_id, 1);
    assert_int_equal(c.eos_token_id, 2);
    assert_int_equal(c.pad_token_id, -1);
    c = accept(LEAST("qwen2") ", \"num_key_value_heads\": 2}");
    assert_true(c.qkv_bias && !c.attention_bias && !c.mlp_bias);
    assert_int_equal(c.max_position_embeddings, 32768); /* the window of 4096 is not in use */
    assert_int_equal(c.bos_token_id, -1);
    c = accept(
        LEAST("mistral") ", \"num_key_value_heads\": null, \"head_dim\": null, \"sliding_window\": null}");
    assert_string_equal(c.model_type, "mistral");
    assert_int_equal(c.num_key_value_heads, 4);
    assert_int_equal(c.max_position_embeddings, 131072);
}

static void spellings_of_rope(void **state) {
    (void)state;
    assert_true(accept(LEAST("llama") ", \"rope_theta\": 5e5}").rope_theta == 5e5);
    assert_true(
        accept(LEAST("llama") ", \"rope_parameters\": {\"rope_theta\": 7e5, \"rope_type\": \"default\"}}")
            .rope_theta == 7e5);
    assert_true(accept(LEAST("llama") ", \"rope_theta\": 5e5, \"rope_parameters\": {\"rope_theta\": 7e5}}")
                    .rope_theta == 7e5);
    assert_true(
        accept(LEAST("llama") ", \"rope_theta\": 5e5, \"rope_parameters\": {\"rope_type\": \"default\"}}")
            .rope_theta == 5e5);
    assert_true(accept(LEAST("llama") ", \"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"default\"}}")
                    .rope_theta == 5e5);
}

static void yarn_without_truncate(void **state) {
    (void)state;
    static const char *const says[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++) {
        char text[400];
        snprintf(text, sizeof text,
                 LEAST("llama") ", \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 2, "
                                "\"truncate\": %s}}",
                 says[i]);
        assert_int_equal(accept(text).rope.untruncated, i > 0);
    }
}

/* Of two layers; set: bit l for layer l. */
static bool has_windows(const struct lb_config *c, int64_t window, unsigned set) {
    return c->sliding_window == window && lb_layer_has(&c->sliding, 0) == (set & 1) &&
           lb_layer_has(&c->sliding, 1) == (set >> 1 & 1);
}

static void tokens_windows_and_types(void **state) {
    (void)state;
    struct lb_config c = accept(LEAST("llama") ", \"eos_token_id\": [], \"bos_token_id\": null, "
                                               "\"pad_token_id\": -1, \"dtype\": \"float16\"}");
    assert_int_equal(c.eos_token_id, -1);
    assert_int_equal(c.bos_token_id, -1);
    assert_int_equal(c.pad_token_id, -1);
    c = accept(LEAST("mistral") ", \"num_key_value_heads\": 2, \"max_position_embeddings\": 32768, "
                                "\"sliding_window\": 1000}");
    assert_true(c.max_position_embeddings == 32768 && has_windows(&c, 1000, 3));
    c = accept(LEAST("mistral") ", \"num_key_value_heads\": 2, \"max_position_embeddings\": 32768}");
    assert_true(has_windows(&c, 4096, 3));
    /* one that no position leaves is none */
    c = accept(LEAST("mistral") ", \"num_key_value_heads\": 2, \"max_position_embeddings\": 4096}");
    assert_true(c.max_position_embeddings == 4096 && has_windows(&c, 0, 0));
    c = accept(
        LEAST("qwen2") ", \"num_key_value_heads\": 2, \"use_sliding_window\": true, \"sliding_window\": "
                       "512, \"max_window_layers\": 1}");
    assert_true(c.max_position_embeddings == 32768 && has_windows(&c, 512, 2));
    c = accept(LEAST(
        "qwen2") ", \"num_key_value_heads\": 2, \"use_sliding_window\": true, \"sliding_window\": 512}");
    assert_true(has_windows(&c, 0, 0)); /* from layer 28 on */
    c = accept(LEAST(
        "qwen2") ", \"num_key_value_heads\": 2, \"use_sliding_window\": false, \"sliding_window\": 512}");
    assert_true(c.max_position_embeddings == 32768 && has_windows(&c, 0, 0));
    c = accept(LEAST("gemma3_text") ", \"sliding_window_pattern\": 2, \"sliding_window\": 99}");
    assert_true(has_windows(&c, 99, 1) && c.rope_local_theta == 10000 && c.rope_theta == 1e6);
    /* transformers takes a mistral with types for a ministral */
    c = accept(LEAST("mistral") ", \"num_key_value_heads\": 2, \"layer_types\": [\"full_attention\", "
                                "\"sliding_attention\"]}");
    assert_true(has_windows(&c, 4096, 2) && strcmp(c.model_type, "ministral") == 0);
    c = accept(LEAST("llama") ", \"attention_bias\": true, \"mlp_bias\": true}");
    assert_true(c.attention_bias && c.mlp_bias);
    /* a vocabulary so small that the families' usual ids are outside */
    c = accept("{\"model_type\": \"llama\", \"vocab_size\": 2, \"hidden_size\": 4, \"intermediate_size\": 4,"
               " \"num_hidden_layers\": 1, \"num_attention_heads\": 1}");
    assert_int_equal(c.bos_token_id, 1);
    assert_int_equal(c.eos_token_id, -1);
}

static void classifiers(void **state) {
    (void)state;
    struct lb_config c =
        accept("{\"model_type\": \"limbeck_mlp\", \"architectures\": [\"LimbeckMLPForClassification\"],"
               " \"input_size\": 784, \"hidden_sizes\": [1200, 800], \"num_labels\": 10,"
               " \"input_dropout\": 0.2, \"hidden_dropout\": 0.5}");
    assert_string_equal(c.model_type, "limbeck_mlp");
    assert_int_equal(c.input_size, 784);
    assert_int_equal(c.n_hidden, 2);
    assert_int_equal(c.hidden_sizes[0], 1200);
    assert_int_equal(c.hidden_sizes[1], 800);
    assert_int_equal(c.num_labels, 10);
    assert_true(c.input_dropout == 0.2 && c.hidden_dropout == 0.5);
    assert_int_equal(config_parameters(&c), 785 * 1200 + 1201 * 800 + 801 * 10);
    c = accept(
        "{\"model_type\": \"limbeck_mlp\", \"input_size\": 3, \"hidden_sizes\": [], \"num_labels\": 2}");
    assert_int_equal(config_parameters(&c), 8);
}

static const struct {
    const char *text;
    enum lb_status status;
    const char *says;
} refused[] = {
    {"[]", LB_E_FORMAT, "JSON object"},
    {"{}", LB_E_FORMAT, "model_type"},
    {"{\"model_type\": 7}", LB_E_FORMAT, "model_type"},
    {"{\"model_type\": \"deepseek_v3\"}", LB_E_UNSUPPORTED, "model_type \"deepseek_v3\" is not one of llama"},
    {"{\"model_type\": \"llama\"}", LB_E_FORMAT, "vocab_size"},
    {LEAST("llama") ", \"vocab_size_\": 0, \"head_dim\": 0}", LB_E_FORMAT, "head_dim"},
    {LEAST("llama") ", \"num_key_value_heads\": 3}", LB_E_ARG,
     "num_attention_heads 4 is no multiple of num_key_value_heads 3"},
    {LEAST("llama") ", \"num_key_value_heads\": \"4\"}", LB_E_FORMAT, "num_key_value_heads"},
    {LEAST("llama") ", \"head_dim\": 15}", LB_E_ARG, "head_dim 15 is odd"},
    {LEAST("llama") ", \"head_dim\": 258}", LB_E_FORMAT, "256"}, /* wider than attention's blocks */
    {LEAST("llama") ", \"max_position_embeddings\": 1e3}", LB_E_FORMAT, "max_position_embeddings"},
    {LEAST("llama") ", \"rms_norm_eps\": -1}", LB_E_FORMAT, "rms_norm_eps"},
    {LEAST("llama") ", \"rope_theta\": 0}", LB_E_FORMAT, "rope_theta"},
    {LEAST("llama") ", \"rope_theta\": {\"full_attention\": 1}}", LB_E_FORMAT, "rope_theta"},
    {LEAST("llama") ", \"hidden_act\": \"gelu\"}", LB_E_UNSUPPORTED, "hidden_act \"gelu\""},
    {LEAST("llama") ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}}", LB_E_FORMAT,
     "low_freq_factor"},
    {LEAST("llama") ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
                    "\"high_freq_factor\": 4}}",
     LB_E_ARG, "high_freq_factor 4 must be above"},
    {LEAST("llama") ", \"rope_scaling\": {\"type\": \"linear\"}}", LB_E_FORMAT, "factor"},
    {LEAST("llama") ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}}", LB_E_FORMAT, "factor"},
    {LEAST("llama") ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"beta_fast\": 3}}",
     LB_E_UNSUPPORTED, "beta_fast 3"},
    {LEAST("llama") ", \"rope_scaling\": {\"type\": \"mrope\"}}", LB_E_UNSUPPORTED, "rope_type \"mrope\""},
    {LEAST("llama") ", \"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 2]}}", LB_E_FORMAT,
     "long_factor"},
    {LEAST("llama") ", \"rope_scaling\": {\"type\": \"su\", \"short_factor\": [1, 2], \"long_factor\": [1, "
                    "2]}}",
     LB_E_ARG, "2 factors; 8 pairs"},
    {LEAST("llama") ", \"rope_scaling\": {\"type\": \"su\", \"short_factor\": [1, 2], \"long_factor\": [1]}}",
     LB_E_ARG, "differ in length"},
    {LEAST("gemma3_text") ", \"rope_parameters\": {\"rope_type\": \"default\"}}", LB_E_UNSUPPORTED,
     "full_attention and sliding_attention"},
    {LEAST("gemma3_text") ", \"rope_parameters\": {\"sliding_attention\": {\"rope_type\": \"yarn\"}}}",
     LB_E_UNSUPPORTED, "sliding_attention.rope_type \"yarn\""},
    {LEAST("gemma3_text") ", \"use_bidirectional_attention\": true}", LB_E_UNSUPPORTED,
     "use_bidirectional_attention"},
    {LEAST("gemma3_text") ", \"hidden_activation\": \"silu\"}", LB_E_UNSUPPORTED,
     "hidden_activation \"silu\""},
    {LEAST("smollm3") ", \"no_rope_layers\": [1]}", LB_E_ARG, "no_rope_layers has 1 entries"},
    {LEAST("smollm3") ", \"no_rope_layers\": [1, 2]}", LB_E_FORMAT, "no_rope_layers[1]"},
    {LEAST("phi3") ", \"partial_rotary_factor\": 0.1}", LB_E_ARG, "1 of head_dim 16"},
    {LEAST("llama") ", \"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1}}}", LB_E_UNSUPPORTED,
     "differ by layer"},
    {LEAST("llama") ", \"rope_parameters\": [1]}", LB_E_FORMAT, "rope_parameters"},
    {LEAST("llama") ", \"partial_rotary_factor\": 0.5}", LB_E_UNSUPPORTED, "partial_rotary_factor 0.5"},
    {LEAST("llama") ", \"quantization_config\": {\"quant_method\": \"gptq\"}}", LB_E_UNSUPPORTED,
     "quantization_config (gptq)"},
    {LEAST("llama") ", \"quantization_config\": {\"quant_method\": \"fp8\"}}", LB_E_UNSUPPORTED,
     "quantization_config (fp8) is not supported; get the model in F32, F16 or BF16, or widen it with "},
    {LEAST("llama") ", \"tie_word_embeddings\": 1}", LB_E_FORMAT, "tie_word_embeddings"},
    {LEAST("llama") ", \"dtype\": 16}", LB_E_FORMAT, "dtype"},
    {LEAST("llama") ", \"eos_token_id\": 100}", LB_E_ARG,
     "eos_token_id is 100, which is no id of a vocabulary of 100"},
    {LEAST("llama") ", \"eos_token_id\": [1, 100]}", LB_E_ARG,
     "eos_token_id is 100, which is no id of a vocabulary of 100"},
    {LEAST("llama") ", \"eos_token_id\": [1, \"2\"]}", LB_E_FORMAT, "eos_token_id must be a token id"},
    {LEAST("llama") ", \"bos_token_id\": -2}", LB_E_ARG, "bos_token_id"},
    {LEAST("llama") ", \"pad_token_id\": \"<pad>\"}", LB_E_FORMAT, "pad_token_id"},
    {LEAST("llama") ", \"initializer_range\": 2}", LB_E_FORMAT, "initializer_range"},
    {LEAST("mistral") ", \"sliding_window\": -1}", LB_E_FORMAT, "sliding_window"},
    {LEAST("gemma2") ", \"sliding_window\": 0}", LB_E_FORMAT, "sliding_window is 0"},
    {LEAST("llama") ", \"is_causal\": false}", LB_E_UNSUPPORTED, "is_causal"},
    {LEAST("gpt_neox") ", \"head_dim\": 8}", LB_E_UNSUPPORTED, "head_dim 8 is not hidden_size 64"},
    {"{\"model_type\": \"llama\", \"vocab_size\": 9, \"hidden_size\": 65, \"intermediate_size\": 9, "
     "\"num_hidden_layers\": 1,"
     " \"num_attention_heads\": 4}",
     LB_E_ARG, "hidden_size 65 is no multiple of num_attention_heads 4"},
    {"{\"model_type\": \"limbeck_mlp\", \"hidden_sizes\": [], \"num_labels\": 2}", LB_E_FORMAT, "input_size"},
    {"{\"model_type\": \"limbeck_mlp\", \"input_size\": 1, \"num_labels\": 2}", LB_E_FORMAT, "hidden_sizes"},
    {"{\"model_type\": \"limbeck_mlp\", \"input_size\": 1, \"num_labels\": 2, \"hidden_sizes\": "
     "[1,2,3,4,5,6,7,8,9]}",
     LB_E_FORMAT, "at most 8"},
    {"{\"model_type\": \"limbeck_mlp\", \"input_size\": 1, \"num_labels\": 2, \"hidden_sizes\": [3, 0]}",
     LB_E_ARG, "a hidden size is 0"},
    {"{\"model_type\": \"limbeck_mlp\", \"input_size\": 1, \"num_labels\": 2, \"hidden_sizes\": [3, 1.5]}",
     LB_E_FORMAT, "hidden_sizes[1]"},
    {"{\"model_type\": \"limbeck_mlp\", \"input_size\": 1, \"num_labels\": 2, \"hidden_sizes\": [], "
     "\"hidden_dropout\": 1}",
     LB_E_FORMAT, "hidden_dropout"},
    {"{\"model_type\": \"limbeck_mlp\", \"input_size\": 1, \"num_labels\": 2, \"hidden_sizes\": [], "
     "\"hidden_act\": \"tanh\"}",
     LB_E_UNSUPPORTED, "tanh"},
    {LEAST("granite") ", \"architectures\": [\"GraniteForSequenceClassification\"]}", LB_E_UNSUPPORTED,
     "architectures \"GraniteForSequenceClassification\" is not supported, only GraniteForCausalLM"},
    {LEAST("llama") ", \"architectures\": [\"MistralForSequenceClassification\"]}", LB_E_UNSUPPORTED,
     "only LlamaForCausalLM and LlamaForSequenceClassification"},
    {LEAST("llama") ", \"architectures\": [\"LlamaForSequenceClassification\"], \"num_labels\": 0}",
     LB_E_FORMAT, "num_labels"},
    {LEAST("llama") ", \"architectures\": [\"LlamaForSequenceClassification\"], \"id2label\": {}}",
     LB_E_FORMAT, "id2label must name each class"},
    {LEAST("llama") ", \"architectures\": [\"LlamaForSequenceClassification\"], \"id2label\": [\"a\"]}",
     LB_E_FORMAT, "id2label must name each class"},
};

static void classes_are_counted(void **state) {
    (void)state;
#define CLASSIFIER LEAST("llama") ", \"architectures\": [\"LlamaForSequenceClassification\"]"
    assert_int_equal(
        accept(LEAST("llama") ", \"id2label\": {\"0\": \"a\"}, \"architectures\": [\"LlamaForCausalLM\"]}")
            .num_labels,
        0); /* of no head that there is */
    assert_int_equal(accept(LEAST("olmoe") ", \"id2label\": {\"0\": \"a\"}, \"num_labels\": 1}").num_labels,
                     0);
    assert_int_equal(lb_labels_problem(&(struct lb_labels){.n = 1}), LB_PROBLEM_REGRESSION);
    assert_int_equal(lb_labels_problem(&(struct lb_labels){.n = 2}), LB_PROBLEM_SINGLE);
    assert_int_equal(lb_labels_problem(&(struct lb_labels){.n = 1, .problem = LB_PROBLEM_SINGLE}),
                     LB_PROBLEM_SINGLE);
    assert_int_equal(accept(CLASSIFIER "}").num_labels, 2);
    assert_int_equal(accept(CLASSIFIER ", \"num_labels\": 7}").num_labels, 7);
    assert_int_equal(
        accept(CLASSIFIER ", \"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}}").num_labels, 3);
}

static void what_cannot_be_run_is_refused_by_key(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct lb_config c = {.vocab_size = 77}, before = c;
        struct lb_detail detail = {0};
        enum lb_status status = parse(refused[i].text, &c, &detail);
        if (status != refused[i].status || strstr(detail.text, refused[i].says) == NULL ||
            strncmp(detail.text, "config.json: ", 13) != 0) {
            fail_msg("%s: status %d, text \"%s\"; expected %d and \"%s\"", refused[i].text, (int)status,
                     detail.text, (int)refused[i].status, refused[i].says);
        }
        assert_same(&c, &before); /* out-parameters are written on success only */
    }
}

static void check_bounds_what_is_filled_by_hand(void **state) {
    (void)state;
    struct lb_config good = accept(smollm2), c = good;
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_OK);
    c.hidden_size = 0;
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_E_ARG);
    c = good, c.num_attention_heads = 0;
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_E_ARG);
    c = good, c.vocab_size = 1ll << 40;
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_E_ARG);
    c = good, c.norm_eps = __builtin_nan("");
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_E_ARG);
    c = good, snprintf(c.model_type, sizeof c.model_type, "lama");
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_E_UNSUPPORTED);
    /* the largest that passes does not overflow */
    c = good;
    c.vocab_size = INT32_MAX;
    c.hidden_size = 1 << 20;
    c.intermediate_size = 1 << 22;
    c.num_hidden_layers = c.num_attention_heads = c.num_key_value_heads = 4096;
    c.head_dim = 256;
    c.attention_bias = c.mlp_bias = true;
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_OK);
    assert_true(config_parameters(&c) > 1ll << 56);
}

static void written_configs_read_back(void **state) {
    (void)state;
    static const char *const texts[] = {
        smollm2,
        LEAST("llama") ", \"eos_token_id\": null, \"bos_token_id\": null, \"attention_bias\": true, "
                       "\"rope_theta\": 12345.678,"
                       " \"rms_norm_eps\": 0.1}",
        LEAST("qwen2") ", \"num_key_value_heads\": 2}",
        LEAST("mistral") ", \"num_key_value_heads\": 2}",
        LEAST("qwen2") ", \"num_key_value_heads\": 2, \"use_sliding_window\": true, \"sliding_window\": 9, "
                       "\"layer_types\": [\"sliding_attention\", \"full_attention\"]}",
        LEAST("llama") ", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 3}}",
        LEAST("llama") ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 3, \"truncate\": false, "
                       "\"original_max_position_embeddings\": 77, \"mscale\": 0.5, \"mscale_all_dim\": 0.7}}",
        LEAST(
            "llama") ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,"
                     " \"high_freq_factor\": 4}, \"original_max_position_embeddings\": 99}",
        LEAST("phi3") ", \"rope_scaling\": {\"type\": \"su\", \"short_factor\": [1, 1.5], \"long_factor\": "
                      "[2, 3]}, \"partial_rotary_factor\": 0.25, \"original_max_position_embeddings\": 50}",
        LEAST("phi3") ", \"original_max_position_embeddings\": 50}",
        LEAST("gemma3_text") ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 8}, "
                             "\"rope_local_base_freq\": 77, \"final_logit_softcapping\": null}",
        LEAST("gemma2") ", \"final_logit_softcapping\": null, \"attn_logit_softcapping\": null}",
        LEAST("smollm3") ", \"no_rope_layers\": [0, 1]}",
        LEAST("granite") ", \"residual_multiplier\": 0.25, \"logits_scaling\": 8}",
        LEAST("gpt_neox") ", \"rotary_pct\": 0.5, \"rotary_emb_base\": 77, \"use_parallel_residual\": false}",
        "{\"model_type\": \"gpt2\", \"vocab_size\": 9, \"n_embd\": 6, \"n_head\": 2, \"n_layer\": 1, "
        "\"n_inner\": null}",
        "{\"model_type\": \"limbeck_mlp\", \"input_size\": 784, \"hidden_sizes\": [1200, 800], "
        "\"num_labels\": 10, \"hidden_dropout\": 0.1}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct lb_config c = accept(texts[i]);
        struct lb_buf buf;
        lb_buf_init(&buf, 1 << 16);
        assert_int_equal(lb_config_write(&c, NULL, "float32", &buf), LB_OK);
        struct lb_config again = accept(buf.data);
        assert_same(&again, &c);
        lb_buf_finish(&buf);

        /* each allocation in turn fails: an error, nothing else */
        enum lb_status status = LB_E_NOMEM;
        for (long n = 1; status == LB_E_NOMEM && n < 1000; n++) {
            lb_buf_init(&buf, 1 << 16);
            lb_mem_fail_from(n);
            status = lb_config_write(&c, NULL, "float32", &buf);
            lb_mem_fail_from(0);
            lb_buf_finish(&buf);
        }
        assert_int_equal(status, LB_OK);
    }
    struct lb_config c = accept(smollm2);
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 16);
    assert_int_equal(lb_config_write(&c, NULL, "int8", &buf), LB_E_ARG);
    c.head_dim = 3;
    assert_int_equal(lb_config_write(&c, NULL, "float32", &buf), LB_E_ARG);
    assert_int_equal(buf.len, 0);
    lb_buf_finish(&buf);
}

/* Keys beside the family's: harmless ones say nothing, unknown ones get a note, unless their name speaks of
 * what changes the numbers. */
static void unknown_keys(void **state) {
    (void)state;
    static const struct {
        const char *more, *refused, *note;
    } cases[] = {
        {", \"use_cache\": false, \"id2label\": {\"0\": \"a\"}, \"attention_dropout\": 0.3", NULL, NULL},
        {", \"favourite_colour\": \"copper\"", NULL,
         "config.json: key favourite_colour is not known and is ignored"},
        {", \"attn_logit_softcapping\": 50.0", "key attn_logit_softcapping is not known to model_type llama",
         NULL},
        {", \"attn_logit_softcapping\": null, \"use_qk_norm\": false", NULL, NULL},
        {", \"use_qk_norm\": true", "use_qk_norm", NULL},
        {", \"embedding_multiplier\": 12", "embedding_multiplier", NULL},
        {", \"sliding_window\": 16", "sliding_window", NULL},
        {", \"rope_interleaved\": true", "rope_interleaved true is not supported", NULL},
        {", \"is_encoder_decoder\": true", "is_encoder_decoder", NULL},
        {", \"rope_parameters\": {\"rope_type\": \"default\", \"factor\": 4}", "factor 4", NULL},
        {", \"rope_parameters\": {\"rope_type\": \"default\", \"factor\": 1.0}", NULL, NULL},
        {", \"activation_function\": \"relu\"", "activation_function", NULL},
        {", \"mlp_act_fn\": \"relu\"", "mlp_act_fn", NULL},
        {", \"rotary_dim\": 8", "rotary_dim", NULL},
        {", \"rope_fraction\": 0.5", "rope_fraction", NULL},
        {", \"attention_sinks\": 4", "attention_sinks", NULL},
        {", \"attn_temperature\": 0.1", "attn_temperature", NULL},
        {", \"logit_scale\": 0.1", "logit_scale", NULL},
        {", \"final_softcap\": 30", "final_softcap", NULL},
        {", \"local_window\": 16", "local_window", NULL},
        {", \"lm_head_bias\": true", "lm_head_bias", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        struct lb_config c;
        struct lb_detail detail = {0};
        struct lb_notes notes = {0};
        json_t *object = NULL;
        int len = snprintf(text, sizeof text, "%s%s}", LEAST("llama"), cases[i].more);
        assert_int_equal(lb_json_parse(text, (size_t)len, 0, "config.json", &object, NULL), LB_OK);
        enum lb_status status = lb_config_parse(object, "config.json", &c, &notes, &detail);
        json_decref(object);
        assert_int_equal(status, cases[i].refused != NULL ? LB_E_UNSUPPORTED : LB_OK);
        if (cases[i].refused != NULL && strstr(detail.text, cases[i].refused) == NULL) {
            fail_msg("%s: \"%s\"", cases[i].more, detail.text);
        }
        if (cases[i].refused == NULL && cases[i].note == NULL) {
            assert_null(lb_note_get(&notes, 0));
        } else if (cases[i].note != NULL) {
            assert_string_equal(lb_note_get(&notes, 0), cases[i].note);
            assert_null(lb_note_get(&notes, 1));
        }
    }
    struct lb_config c;
    /* what a family has no key for is not a config's to choose */
    c = accept(LEAST("qwen2") ", \"num_key_value_heads\": 2}");
    c.qkv_bias = false;
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_E_ARG);
    c = accept(LEAST("mistral") ", \"num_key_value_heads\": 2}");
    c.attention_bias = true;
    assert_int_equal(lb_config_check(&c, "hand", NULL), LB_E_ARG);
}

static void layer_types(void **state) {
    (void)state;
    static const char sliding[] =
        LEAST("qwen2") ", \"num_key_value_heads\": 2, \"use_sliding_window\": true, "
                       "\"sliding_window\": 64, \"layer_types\": "
                       "[\"full_attention\", \"sliding_attention\"]}";
    struct lb_detail detail = {0};
    struct lb_config c = accept(sliding);
    assert_true(has_windows(&c, 64, 2));
    c = accept(
        LEAST("qwen2") ", \"num_key_value_heads\": 2, \"use_sliding_window\": true, \"sliding_window\": 64, "
                       "\"layer_types\": [\"full_attention\", \"full_attention\"]}");
    assert_true(has_windows(&c, 0, 0));
    assert_int_equal(parse(LEAST("qwen2") ", \"num_key_value_heads\": 2, \"layer_types\": "
                                          "[\"full_attention\"]}",
                           &c, NULL),
                     LB_E_ARG); /* of two layers */
    assert_int_equal(parse(LEAST("qwen2") ", \"num_key_value_heads\": 2, \"layer_types\": "
                                          "[\"linear_attention\", \"full_attention\"]}",
                           &c, &detail),
                     LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "layer_types[0] \"linear_attention\""));
    assert_int_equal(parse(LEAST("qwen2") ", \"num_key_value_heads\": 2, \"sliding_window\": null, "
                                          "\"layer_types\": [\"sliding_attention\", "
                                          "\"sliding_attention\"]}",
                           &c, NULL),
                     LB_E_ARG);
}

static void notes_are_bounded(void **state) {
    (void)state;
    struct lb_notes notes = {0};
    for (int i = 0; i < LB_MAX_NOTES; i++) {
        lb_note(&notes, "note %d", i);
    }
    assert_string_equal(lb_note_get(&notes, LB_MAX_NOTES - 1), "note 15");
    lb_note(&notes, "one");
    lb_note(&notes, "two");
    assert_string_equal(lb_note_get(&notes, LB_MAX_NOTES - 1), "and 3 more of this kind");
    assert_null(lb_note_get(&notes, LB_MAX_NOTES));
    lb_note(NULL, "nobody reads this");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_real_config),
        cmocka_unit_test(what_missing_keys_mean),
        cmocka_unit_test(spellings_of_rope),
        cmocka_unit_test(yarn_without_truncate),
        cmocka_unit_test(tokens_windows_and_types),
        cmocka_unit_test(classifiers),
        cmocka_unit_test(classes_are_counted),
        cmocka_unit_test(what_cannot_be_run_is_refused_by_key),
        cmocka_unit_test(check_bounds_what_is_filled_by_hand),
        cmocka_unit_test(written_configs_read_back),
        cmocka_unit_test(unknown_keys),
        cmocka_unit_test(layer_types),
        cmocka_unit_test(notes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
