/* Parameters whose order or values in files are not those of the forward: rows of heads as llama.cpp has
 * them, matrices that Hugging Face's files hold transposed, norms with one added. Private to common/model. */
#ifndef LB_MODEL_LAYOUT_H
#define LB_MODEL_LAYOUT_H

#include "common/model/family.h"

/* Whether the file's tensor has the two dimensions of weight i the other way round. */
bool lb_layout_is_turned(const struct lb_model *model, size_t i, bool gguf);
/* Weight i points to a file's data: as the forward wants it, in memory of the model's own where that differs.
 * LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_layout_take(struct lb_model *model, size_t i, bool gguf,
                                           struct lb_detail *detail);
/* The other way: t, which holds weight i, as a file has it. *out_bytes: new memory that t points into then,
 * the caller's; NULL where t stays. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_layout_give(const struct lb_model *model, size_t i, bool gguf,
                                           struct lb_tensor *t, void **out_bytes, struct lb_detail *detail);

#endif
