/* The config-driven decoder, as the families that are variants of it use it: a row names its keys and what
 * missing ones mean, LB_DECODER gives the rest. Private to common/model. */
#ifndef LB_MODEL_DECODER_H
#define LB_MODEL_DECODER_H

#include "common/model/family.h"

/* The keys that all of them have; a family's own come in a second table. */
extern const struct lb_config_key lb_decoder_keys[], lb_decoder_gguf_keys[];

/* Heads of keys and values and the width of a head where they are not given; the window. */
void lb_decoder_settle(struct lb_config *config);
enum lb_status lb_decoder_check(const struct lb_config *config, const char *what, struct lb_detail *detail);

void lb_decoder_declare(const struct lb_config *config, struct lb_spec_list *list);
void *lb_decoder_bind(const struct lb_model *model);
struct lb_value *lb_decoder_forward(const struct lb_model *model, struct lb_tape *tape,
                                    const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                    struct lb_kv *kv);
const char *lb_decoder_head(const struct lb_config *config);

/* What all rows share, of the form and of the row itself. */
#define LB_DECODER_FORM .settle = lb_decoder_settle, .check = lb_decoder_check
#define LB_DECODER                                                                                           \
    .declare = lb_decoder_declare, .bind = lb_decoder_bind, .forward = lb_decoder_forward,                   \
    .head = lb_decoder_head, .has_attention = true
/* Values of missing keys that most families share. */
#define LB_DECODER_MISSING                                                                                   \
    .norm_eps = 1e-6, .rope_theta = 10000, .initializer_range = 0.02, .pad_token_id = -1

#endif
