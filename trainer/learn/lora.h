/* Low-rank adapters: W = W0 + (alpha / r) B A, of which A [r, in] and B [out, r] learn (Hu et al., "LoRA",
 * arXiv 2106.09685).
 *
 * The student's own weights always hold W, so that everything that reads a model reads the merged one. The
 * gradients are those of W, taken on: dB = (alpha / r) dW A^T, dA = (alpha / r) B^T dW. A begins as PEFT's
 * does, uniform in
 * +-1 / sqrt(in), B as 0. Modules are called, and found, as PEFT has them. One thread calls; OpenMP inside.
 */
#ifndef LB_LEARN_LORA_H
#define LB_LEARN_LORA_H

#include "common/model/model.h"
#include "trainer/learn/optimizer.h"

struct lb_lora;

/* One module's matrices; names as in adapter_model.safetensors. */
struct lb_lora_module {
    const char *module; /* the weight's name without ".weight" */
    struct lb_weight a, b;
};

/* Adapters for the modules that lora_target_modules name (none: all linear ones but the head); everything
 * else of the student is frozen. After the losses have added what they bring along. LB_E_ARG,
 * LB_E_UNSUPPORTED name the key. */
LB_NODISCARD enum lb_status lb_lora_create(const struct lb_recipe *recipe, struct lb_model *student,
                                           struct lb_lora **out, struct lb_detail *detail);
void lb_lora_destroy(struct lb_lora *lora);
/* What learns and what stands in checkpoints: the student's weights, of which the adapted ones are as frozen,
 * and the adapters. out [2]. */
void lb_lora_groups(const struct lb_lora *lora, struct lb_weight_group out[2]);
/* A module's name as PEFT's base model has it: an encoder's without the family's ("bert.") before it, since
 * AutoModel makes what is within. Points into module. */
const char *lb_lora_path(const struct lb_model *student, const char *module);
const struct lb_lora_module *lb_lora_modules(const struct lb_lora *lora, size_t *out_n);
/* Before the optimizer's step: from the gradients of W, which become 0, to those of A and B. */
void lb_lora_gradients(struct lb_lora *lora);
/* Whether W, which a checkpoint brought with A and B, is that of the W0 that the student began with: false
 * where it began with another model. */
bool lb_lora_fits(const struct lb_lora *lora);
/* After A or B have changed: W anew. */
void lb_lora_merge(struct lb_lora *lora);

#endif
