/* The config-driven decoder, as the families that are variants of it use it: a row names its keys and what
 * missing ones mean, its traits and its tensors' names, LB_DECODER gives the rest. Private to common/model.
 */
#ifndef LB_MODEL_DECODER_H
#define LB_MODEL_DECODER_H

#include "common/model/decoder_bind.h"
#include "common/model/decoder_keys.h"

struct lb_value *lb_decoder_forward(const struct lb_model *model, struct lb_tape *tape,
                                    const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                    struct lb_kv *kv);

/* What all rows share, of the form and of the row itself. */
#define LB_DECODER_FORM .settle = lb_decoder_settle, .check = lb_decoder_check
#define LB_DECODER LB_DECODER_IN("model.")
/* prefix: of the names of all but the head, which some files lack */
#define LB_DECODER_IN(prefix)                                                                                \
    .base = (prefix), .declare = lb_decoder_declare, .bind = lb_decoder_bind, .forward = lb_decoder_forward, \
    .head = lb_decoder_head, .for_gguf = lb_decoder_for_gguf, .has_attention = true
/* Values of missing keys that most families share. */
#define LB_DECODER_MISSING                                                                                   \
    .norm_eps = 1e-6, .rope_theta = 10000, .initializer_range = 0.02, .pad_token_id = -1

#endif
