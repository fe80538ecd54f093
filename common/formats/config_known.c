/* Keys that no family uses: harmless ones, those that must be neutral, and how unknown ones are judged. */
#include "common/formats/config_keys.h"

#include <string.h>

#define ANY(name)                                                                                            \
    { name, LB_KEY_ANY }

/* config.json: what transformers writes into all of them, and what some families' files have beside it. */
static const struct lb_config_key known[] = {
    /* where it comes from and how transformers runs it */
    ANY("_name_or_path"),
    ANY("name_or_path"),
    ANY("_commit_hash"),
    ANY("transformers_version"),
    ANY("architectures"),
    ANY("auto_map"),
    ANY("use_cache"),
    ANY("torchscript"),
    ANY("use_bfloat16"),
    ANY("tf_legacy_loss"),
    ANY("return_dict"),
    ANY("output_attentions"),
    ANY("output_hidden_states"),
    ANY("chunk_size_feed_forward"),
    ANY("pretraining_tp"),
    ANY("base_model_tp_plan"),
    ANY("base_model_pp_plan"),
    ANY("attn_implementation"),
    ANY("_attn_implementation"),
    ANY("_attn_implementation_internal"),
    ANY("_attn_implementation_autoset"),
    ANY("_flash_attn_2_enabled"),
    ANY("use_flash_attn"),
    ANY("use_flash_attention"),
    ANY("is_decoder"),
    ANY("is_llama_config"),
    ANY("finetuning_task"),
    ANY("task_specific_params"),
    ANY("problem_type"),
    ANY("id2label"),
    ANY("label2id"),
    ANY("tokenizer_class"),
    ANY("prefix"),
    /* training only */
    ANY("initializer_factor"),
    ANY("attention_dropout"),
    ANY("hidden_dropout"),
    ANY("attention_probs_dropout_prob"),
    ANY("hidden_dropout_prob"),
    ANY("resid_pdrop"),
    ANY("embd_pdrop"),
    ANY("attn_pdrop"),
    ANY("classifier_dropout"),
    ANY("output_router_logits"),
    ANY("router_aux_loss_coef"),
    /* the tokenizer's, and how text is written: files beside this one say it */
    ANY("unk_token_id"),
    ANY("sep_token_id"),
    ANY("mask_token_id"),
    ANY("decoder_start_token_id"),
    ANY("forced_bos_token_id"),
    ANY("forced_eos_token_id"),
    ANY("max_length"),
    ANY("min_length"),
    ANY("do_sample"),
    ANY("early_stopping"),
    ANY("num_beams"),
    ANY("num_beam_groups"),
    ANY("diversity_penalty"),
    ANY("temperature"),
    ANY("top_k"),
    ANY("top_p"),
    ANY("typical_p"),
    ANY("repetition_penalty"),
    ANY("length_penalty"),
    ANY("no_repeat_ngram_size"),
    ANY("encoder_no_repeat_ngram_size"),
    ANY("bad_words_ids"),
    ANY("num_return_sequences"),
    ANY("output_scores"),
    ANY("return_dict_in_generate"),
    ANY("remove_invalid_values"),
    ANY("exponential_decay_length_penalty"),
    ANY("suppress_tokens"),
    ANY("begin_suppress_tokens"),
    /* refused unless neutral */
    {"quantization_config", LB_KEY_PACKED},
    {"compression_config", LB_KEY_PACKED},
    {"is_encoder_decoder", LB_KEY_ONLY_NUMBER},
    {"add_cross_attention", LB_KEY_ONLY_NUMBER},
    {"tie_encoder_decoder", LB_KEY_ONLY_NUMBER},
    {"num_experts", LB_KEY_ONLY_NUMBER},
    {"num_local_experts", LB_KEY_ONLY_NUMBER},
    {"n_routed_experts", LB_KEY_ONLY_NUMBER},
    {"rope_interleaved", LB_KEY_ONLY_NUMBER},
    {"use_mrope", LB_KEY_ONLY_NUMBER},
    {"is_causal", LB_KEY_ONLY_NUMBER, .min = 1, .max = 1}, /* false: rows see what comes behind them */
    {"partial_rotary_factor", LB_KEY_ONLY_NUMBER, .min = 1, .max = 1},
    {NULL},
};

/* GGUF: a name that ends on a dot stands for all that begin with it. */
static const struct lb_config_key known_gguf[] = {
    {"general.type", LB_KEY_ONLY_TEXT, .only = "model"},
    ANY("general."),
    ANY("split."),
    ANY("tokenizer."), /* common/text reads it */
    ANY("quantize."),
    ANY("limbeck."), /* who wrote it */
    ANY(".tensor_data_layout"),
    ANY(".pooling_type"),
    ANY(".attention.layer_norm_epsilon"), /* of another norm */
    ANY(".rope.scaling.original_context_length"),
    ANY(".rope.scaling.finetuned"),
    {".attention.causal", LB_KEY_ONLY_NUMBER, .min = 1, .max = 1},
    {".rope.scale_linear", LB_KEY_ONLY_NUMBER, .min = 0, .max = 1},
    {".rope.scaling.type", LB_KEY_ONLY_TEXT, .only = "none"},
    {".rope.scaling.factor", LB_KEY_ONLY_NUMBER, .min = 0, .max = 1},
    {".rope.scaling.attn_factor", LB_KEY_ONLY_NUMBER, .min = 1, .max = 1},
    {".expert_count", LB_KEY_ONLY_NUMBER},
    {".expert_used_count", LB_KEY_ONLY_NUMBER},
    {".expert_shared_count", LB_KEY_ONLY_NUMBER},
    {".expert_group_count", LB_KEY_ONLY_NUMBER, .min = 0, .max = 1},
    {".expert_gating_func", LB_KEY_ONLY_NUMBER, .min = 0, .max = 1}, /* none, which is softmax; softmax */
    {".use_parallel_residual", LB_KEY_ONLY_NUMBER},
    {NULL},
};

const struct lb_config_key *lb_config_known(const char *name) {
    for (const struct lb_config_key *key = known; key->name != NULL; key++) {
        if (strcmp(key->name, name) == 0) {
            return key;
        }
    }
    return NULL;
}

const struct lb_config_key *lb_config_known_gguf(const char *name) {
    for (const struct lb_config_key *key = known_gguf; key->name != NULL; key++) {
        size_t len = strlen(key->name);
        if (key->name[len - 1] == '.' ? strncmp(key->name, name, len) == 0 : strcmp(key->name, name) == 0) {
            return key;
        }
    }
    return NULL;
}

bool lb_config_speaks_of_numbers(const char *name) {
    static const char *const words[] = {"rope", "rotary", "attention", "attn", "scal",       "multiplier",
                                        "norm", "cap",    "window",    "bias", "activation", "act_fn"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strstr(name, words[i]) != NULL) {
            return true;
        }
    }
    return false;
}
