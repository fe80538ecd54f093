/* A model's output head as safetensors bytes: with it and hidden_states.final a client has the exact logits
 * at C/V of the bytes. */
#ifndef LB_API_ARTIFACTS_H
#define LB_API_ARTIFACTS_H

#include "common/base/buf.h"
#include "common/base/status.h"
#include "server/models/repository.h"

/* Tensors lm_head.weight [V, C] (F16 when stored as F16, else F32) and, when there is one, lm_head.bias [V]
 * F32; metadata: fingerprint, model. Made once per model and kept; *out lives as long as the model.
 * Thread-safe: others wait while it is made. */
LB_NODISCARD enum lb_status lb_artifact_head_bytes(struct lb_hosted *hosted, const struct lb_buf **out,
                                                   struct lb_detail *detail);

#endif
