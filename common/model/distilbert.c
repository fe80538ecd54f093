/* DistilBERT (Sanh et al. 2019): BERT without segments, in names of its own. */
#include "common/model/classifier.h"
#include "common/model/encoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    LB_KEYS_OF_CLASS,
    LB_KEY_OF_LABELS(0),
    {"vocab_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(vocab_size), 1, INT32_MAX},
    {"dim", LB_KEY_INT, LB_KEY_NEEDED, FIELD(hidden_size), 1, LB_ENCODER_MAX_WIDTH},
    {"hidden_dim", LB_KEY_INT, LB_KEY_NEEDED, FIELD(intermediate_size), 1, LB_ENCODER_MAX_FEED_FORWARD},
    {"n_layers", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_hidden_layers), 1, LB_MAX_LAYERS},
    {"n_heads", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_attention_heads), 1, LB_ENCODER_MAX_HEADS},
    {"max_position_embeddings", LB_KEY_INT, 0, FIELD(max_position_embeddings), 1, LB_ENCODER_MAX_WIDTH},
    {"activation", LB_KEY_ONLY_TEXT, LB_KEY_WRITTEN, .only = "gelu"},
    {"sinusoidal_pos_embds", LB_KEY_ANY}, /* what they began as; they are stored */
    {"tie_weights_", LB_KEY_ANY},
    {"tie_word_embeddings", LB_KEY_ANY}, /* of a head that is not read */
    LB_KEYS_OF_TOKENS,
    {"attention_dropout", LB_KEY_REAL, 0, FIELD(attention_dropout), 0, 0.99},
    {"dropout", LB_KEY_REAL, 0, FIELD(residual_dropout), 0, 0.99},
    {"qa_dropout", LB_KEY_ANY},
    {"seq_classif_dropout", LB_KEY_ANY},
    {NULL},
};

#define LAYER(name) ("distilbert.transformer.layer.%d." name)

static const struct lb_encoder_traits traits = {
    .keeps_attended = true,
    .names = {[LB_ENCODER_WORDS] = "distilbert.embeddings.word_embeddings",
              [LB_ENCODER_POSITIONS] = "distilbert.embeddings.position_embeddings",
              [LB_ENCODER_NORM] = "distilbert.embeddings.LayerNorm",
              [LB_ENCODER_Q] = LAYER("attention.q_lin"),
              [LB_ENCODER_K] = LAYER("attention.k_lin"),
              [LB_ENCODER_V] = LAYER("attention.v_lin"),
              [LB_ENCODER_O] = LAYER("attention.out_lin"),
              [LB_ENCODER_ATTN_NORM] = LAYER("sa_layer_norm"),
              [LB_ENCODER_UP] = LAYER("ffn.lin1"),
              [LB_ENCODER_DOWN] = LAYER("ffn.lin2"),
              [LB_ENCODER_MLP_NORM] = LAYER("output_layer_norm")}};

static const struct lb_classifier_traits classifier = {
    .dense = "pre_classifier", .activation = lb_relu, .out = "classifier", .out_bias = true};

static const char *const unread[] = {"vocab_transform.", "vocab_layer_norm.", "vocab_projector.", NULL};

const struct lb_family lb_family_distilbert = {
    .form = {.model_type = "distilbert",
             .class_name = "DistilBertModel",
             .sequence_class = "DistilBertForSequenceClassification",
             .missing = {.norm_eps = 1e-12,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 512,
                         .bos_token_id = -1,
                         .eos_token_id = -1,
                         .pad_token_id = 0},
             .keys = {keys},
             LB_ENCODER_FORM},
    .encoder = &traits,
    .classifier = &classifier,
    .unread = unread,
    LB_ENCODER_IN("distilbert."),
};
