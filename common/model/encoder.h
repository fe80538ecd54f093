/* The encoder: blocks of attention that sees both ways and a feed-forward, each followed by a LayerNorm, as
 * in BERT. Families that are variants of it give their keys and their names. Private to common/model.
 */
#ifndef LB_MODEL_ENCODER_H
#define LB_MODEL_ENCODER_H

#include "common/model/family.h"

/* What an encoder's parameters are for; each but the embeddings has a bias. */
enum lb_encoder_role {
    LB_ENCODER_WORDS,
    LB_ENCODER_POSITIONS,
    LB_ENCODER_TYPES, /* of segments */
    LB_ENCODER_NORM,  /* of the sum of these */
    /* of a layer */
    LB_ENCODER_Q,
    LB_ENCODER_K,
    LB_ENCODER_V,
    LB_ENCODER_O,
    LB_ENCODER_ATTN_NORM,
    LB_ENCODER_UP,
    LB_ENCODER_DOWN,
    LB_ENCODER_MLP_NORM,
    LB_N_ENCODER_ROLES
};

struct lb_encoder_traits {
    /* Hugging Face's patterns, which take the layer, without ".weight" and ".bias" */
    const char *names[LB_N_ENCODER_ROLES];
    const char *const *gguf; /* the same of GGUF files; NULL: there are none */
    /* positions are counted from pad_token_id + 1 on, and pads are no positions (RoBERTa) */
    bool behind_pad;
    bool keeps_attended; /* no dropout between attention and the stream */
};

/* Maxima of sizes, as the decoder has them. */
#define LB_ENCODER_MAX_WIDTH (1 << 20)
#define LB_ENCODER_MAX_FEED_FORWARD (1 << 22)
#define LB_ENCODER_MAX_HEADS 4096

void lb_encoder_settle(struct lb_config *config);
enum lb_status lb_encoder_check(const struct lb_config *config, const char *what, struct lb_detail *detail);
void lb_encoder_declare(const struct lb_config *config, struct lb_spec_list *list);
void *lb_encoder_bind(const struct lb_model *model);
struct lb_value *lb_encoder_forward(const struct lb_model *model, struct lb_tape *tape,
                                    const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                    struct lb_kv *kv);
const char *lb_encoder_head(const struct lb_config *config);

/* What bert and roberta share: keys, and names behind "bert." or "roberta.". */
extern const struct lb_config_key lb_bert_keys[];
#define LB_BERT_NAMES(prefix)                                                                                \
    {                                                                                                        \
        [LB_ENCODER_WORDS] = (prefix "embeddings.word_embeddings"),                                          \
        [LB_ENCODER_POSITIONS] = (prefix "embeddings.position_embeddings"),                                  \
        [LB_ENCODER_TYPES] = (prefix "embeddings.token_type_embeddings"),                                    \
        [LB_ENCODER_NORM] = (prefix "embeddings.LayerNorm"),                                                 \
        [LB_ENCODER_Q] = (prefix "encoder.layer.%d.attention.self.query"),                                   \
        [LB_ENCODER_K] = (prefix "encoder.layer.%d.attention.self.key"),                                     \
        [LB_ENCODER_V] = (prefix "encoder.layer.%d.attention.self.value"),                                   \
        [LB_ENCODER_O] = (prefix "encoder.layer.%d.attention.output.dense"),                                 \
        [LB_ENCODER_ATTN_NORM] = (prefix "encoder.layer.%d.attention.output.LayerNorm"),                     \
        [LB_ENCODER_UP] = (prefix "encoder.layer.%d.intermediate.dense"),                                    \
        [LB_ENCODER_DOWN] = (prefix "encoder.layer.%d.output.dense"),                                        \
        [LB_ENCODER_MLP_NORM] = (prefix "encoder.layer.%d.output.LayerNorm"),                                \
    }

#define LB_ENCODER_FORM .settle = lb_encoder_settle, .check = lb_encoder_check
/* prefix: of the names, which files of the model without a task's head lack */
#define LB_ENCODER_IN(prefix)                                                                                \
    .base = (prefix), .declare = lb_encoder_declare, .bind = lb_encoder_bind, .forward = lb_encoder_forward, \
    .head = lb_encoder_head, .has_attention = true

#endif
