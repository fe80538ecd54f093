/* RoBERTa (Liu et al. 2019): BERT whose positions are counted from behind the pad token on. */
#include "common/model/classifier.h"
#include "common/model/encoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

/* In front of the shared ones, one of which it hides. */
static const struct lb_config_key keys[] = {
    {"max_position_embeddings", LB_KEY_INT, 0, FIELD(position_rows), 1, LB_ENCODER_MAX_WIDTH},
    {NULL},
};

static const struct lb_encoder_traits traits = {.names = LB_BERT_NAMES("roberta."), .behind_pad = true};

static const struct lb_classifier_traits classifier = {
    .dense = "classifier.dense", .activation = lb_tanh, .out = "classifier.out_proj", .out_bias = true};

static const char *const unread[] = {"lm_head.", "pooler.", "roberta.pooler.", NULL};

const struct lb_family lb_family_roberta = {
    .form = {.model_type = "roberta",
             .class_name = "RobertaModel",
             .sequence_class = "RobertaForSequenceClassification",
             .missing = {.norm_eps = 1e-12,
                         .initializer_range = 0.02,
                         .position_rows = 512,
                         .type_vocab_size = 2,
                         .bos_token_id = 0,
                         .eos_token_id = 2,
                         .pad_token_id = 1},
             .keys = {keys, lb_bert_keys},
             LB_ENCODER_FORM},
    .encoder = &traits,
    .classifier = &classifier,
    .unread = unread,
    LB_ENCODER_IN("roberta."),
};
