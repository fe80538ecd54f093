/* A model's output head as a safetensors file, made while it is sent: with it and hidden_states.final a
 * client has the exact logits at C/V of the bytes. */
#ifndef LB_API_ARTIFACTS_H
#define LB_API_ARTIFACTS_H

#include "common/base/arena.h"
#include "common/base/status.h"
#include "server/http/compress.h"
#include "server/models/repository.h"

/* Tensors lm_head.weight [V, C] (F16 when stored as F16, else F32) and, when there is one, lm_head.bias [V]
 * F32; metadata: fingerprint, model. */
struct lb_artifact_head {
    const struct lb_weight *weight;
    struct lb_span header, bias; /* bias: len 0 when there is none */
    float *piece;                /* NULL: the weight is sent as it is stored */
    int64_t done;                /* numbers of the weight */
    size_t total_bytes;          /* of the file */
};

/* Memory comes from the arena; the model must outlive out. */
LB_NODISCARD enum lb_status lb_artifact_head_begin(const struct lb_hosted *hosted, struct lb_arena *arena,
                                                   struct lb_artifact_head *out, struct lb_detail *detail);
/* The next bytes of the file, as 1 to 3 parts that live until the next call; to be called until total_bytes
 * were given. */
size_t lb_artifact_head_next(struct lb_artifact_head *head, struct lb_span parts[3]);

#endif
