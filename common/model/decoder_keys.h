/* The keys that the families of the decoder share, and how their values fit. Private to common/model. */
#ifndef LB_MODEL_DECODER_KEYS_H
#define LB_MODEL_DECODER_KEYS_H

#include "common/model/family.h"

/* The keys that all of them have; a family's own come in a second table, those that mean another thing there
 * in a first one. */
extern const struct lb_config_key lb_decoder_keys[], lb_decoder_gguf_keys[];

#define LB_MAX_FEED_FORWARD (1 << 22)
/* Keys of mixtures of experts beside how many there are, which files call so or so. */
#define LB_KEYS_OF_EXPERTS                                                                                   \
    {"num_experts_per_tok", LB_KEY_INT, 0, offsetof(struct lb_config, num_experts_per_tok), 1,               \
     LB_MAX_EXPERTS_ASKED},                                                                                  \
    {                                                                                                        \
        "router_jitter_noise", LB_KEY_ANY                                                                    \
    } /* training only */
#define LB_GGUF_KEYS_OF_EXPERTS                                                                              \
    {".expert_count", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, num_experts)}, {                 \
        ".expert_used_count", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, num_experts_per_tok)     \
    }
#define LB_MAX_EXPERTS_ASKED 256

/* Heads of keys and values and the width of a head where they are not given; the windows. */
void lb_decoder_settle(struct lb_config *config);
/* The part of it that is about rotary positions. */
void lb_decoder_settle_rotary(struct lb_config *config);
enum lb_status lb_decoder_check(const struct lb_config *config, const char *what, struct lb_detail *detail);
/* The config as a GGUF of the architecture says it to llama.cpp too, which may be that of a shorter model;
 * LB_E_UNSUPPORTED names what it has no word for. */
enum lb_status lb_decoder_for_gguf(struct lb_config *config, const char *what, struct lb_detail *detail);

#endif
