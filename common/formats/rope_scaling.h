/* What a config says about rotary positions, as numbers: Su et al. 2021 (RoPE), Chen et al. 2023 (linear),
 * Peng et al. 2023 (YaRN, and dynamic NTK of which it tells), Ding et al. 2024 (LongRoPE), Llama 3.1; the
 * formulas are those of transformers. */
#ifndef LB_FORMATS_ROPE_SCALING_H
#define LB_FORMATS_ROPE_SCALING_H

#include "common/formats/config.h"

/* How many of a head's D are turned. */
int64_t lb_rope_dims(const struct lb_config *config);
/* Radians a position, [lb_rope_dims / 2], for a sequence of that length. */
void lb_rope_scaled(const struct lb_config *config, int64_t length, double *out);
/* Whether the frequencies depend on a sequence's length; then they are one and the same up to rope.original.
 */
bool lb_rope_by_length(const struct lb_config *config);
/* What cosines and sines are multiplied with. */
double lb_rope_attention_factor(const struct lb_config *config);

#endif
