/* BERT (Devlin et al. 2019) and what has its shape: MiniLM (Wang et al. 2020), sentence encoders. */
#include "common/model/classifier.h"
#include "common/model/encoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

const struct lb_config_key lb_bert_keys[] = {
    LB_KEYS_OF_CLASS,
    LB_KEY_OF_LABELS(0),
    {"vocab_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(vocab_size), 1, INT32_MAX},
    {"hidden_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(hidden_size), 1, LB_ENCODER_MAX_WIDTH},
    {"intermediate_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(intermediate_size), 1,
     LB_ENCODER_MAX_FEED_FORWARD},
    {"num_hidden_layers", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_hidden_layers), 1, LB_MAX_LAYERS},
    {"num_attention_heads", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_attention_heads), 1, LB_ENCODER_MAX_HEADS},
    {"max_position_embeddings", LB_KEY_INT, 0, FIELD(max_position_embeddings), 1, LB_ENCODER_MAX_WIDTH},
    {"type_vocab_size", LB_KEY_INT, 0, FIELD(type_vocab_size), 1, LB_ENCODER_MAX_WIDTH},
    {"layer_norm_eps", LB_KEY_REAL, 0, FIELD(norm_eps), 0, 1},
    {"hidden_act", LB_KEY_ONLY_TEXT, LB_KEY_WRITTEN, .only = "gelu"},
    {"position_embedding_type", LB_KEY_ONLY_TEXT, 0, .only = "absolute"},
    {"is_decoder", LB_KEY_ONLY_NUMBER},
    {"gradient_checkpointing", LB_KEY_ANY},
    {"tie_word_embeddings", LB_KEY_ANY}, /* of a head that is not read */
    LB_KEYS_OF_TOKENS,
    {"attention_probs_dropout_prob", LB_KEY_REAL, 0, FIELD(attention_dropout), 0, 0.99},
    {"hidden_dropout_prob", LB_KEY_REAL, 0, FIELD(residual_dropout), 0, 0.99},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    LB_GGUF_KEYS_OF_SIZES,
    {".attention.layer_norm_epsilon", LB_KEY_REAL, LB_KEY_NEEDED, FIELD(norm_eps)},
    {".attention.causal", LB_KEY_ONLY_NUMBER, LB_KEY_WRITTEN},
    {"token_types.weight", LB_KEY_ROWS, 0, FIELD(type_vocab_size)},
    {"tokenizer.ggml.padding_token_id", LB_KEY_TOKEN, 0, FIELD(pad_token_id)},
    {NULL},
};

/* llama.cpp's. */
static const char *const gguf_names[LB_N_ENCODER_ROLES] = {
    [LB_ENCODER_WORDS] = "token_embd",
    [LB_ENCODER_POSITIONS] = "position_embd",
    [LB_ENCODER_TYPES] = "token_types",
    [LB_ENCODER_NORM] = "token_embd_norm",
    [LB_ENCODER_Q] = "blk.%d.attn_q",
    [LB_ENCODER_K] = "blk.%d.attn_k",
    [LB_ENCODER_V] = "blk.%d.attn_v",
    [LB_ENCODER_O] = "blk.%d.attn_output",
    [LB_ENCODER_ATTN_NORM] = "blk.%d.attn_output_norm",
    [LB_ENCODER_UP] = "blk.%d.ffn_up",
    [LB_ENCODER_DOWN] = "blk.%d.ffn_down",
    [LB_ENCODER_MLP_NORM] = "blk.%d.layer_output_norm",
};

static const struct lb_encoder_traits traits = {.names = LB_BERT_NAMES("bert."), .gguf = gguf_names};

static const struct lb_classifier_traits classifier = {
    .dense = "bert.pooler.dense", .activation = lb_tanh, .out = "classifier", .out_bias = true};

static const char *const unread[] = {"cls.", "pooler.", "bert.pooler.", NULL};

const struct lb_family lb_family_bert = {
    .form = {.model_type = "bert",
             .class_name = "BertModel",
             .sequence_class = "BertForSequenceClassification",
             .missing = {.norm_eps = 1e-12,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 512,
                         .type_vocab_size = 2,
                         .bos_token_id = -1,
                         .eos_token_id = -1,
                         .pad_token_id = 0},
             .keys = {lb_bert_keys},
             .gguf = "bert",
             .gguf_keys = {gguf_keys},
             LB_ENCODER_FORM},
    .encoder = &traits,
    .classifier = &classifier,
    .unread = unread,
    LB_ENCODER_IN("bert."),
};
