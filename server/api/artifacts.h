/* A model's output head as a safetensors file, made while it is sent: with it and hidden_states.final a
 * client has the exact logits at C/V of the bytes. Its last tensor is the digest of all bytes before it. */
#ifndef LB_API_ARTIFACTS_H
#define LB_API_ARTIFACTS_H

#include "common/base/arena.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "server/http/compress.h"
#include "server/models/repository.h"

/* Tensors lm_head.weight [V, C] (F16 when stored as F16, else F32) and, when there is one, lm_head.bias [V]
 * F32; then digest U8 [32]; metadata: fingerprint, model. */
struct lb_artifact_head {
    struct lb_hosted *hosted;
    const struct lb_weight *weight;
    struct lb_sha256 *hash; /* of what was given; NULL: it is known already, from an earlier download */
    uint8_t digest[LB_SHA256_BYTES];
    struct lb_span header, bias; /* bias: len 0 when there is none */
    float *piece;                /* NULL: the weight is sent as it is stored */
    int64_t done;                /* numbers of the weight */
    size_t total_bytes;          /* of the file */
};

/* The digest is made by the first download that comes to its end, and is the model's from then on. Memory
 * comes from the arena; the model must outlive out, which lb_artifact_head_end ends at any time. */
LB_NODISCARD enum lb_status lb_artifact_head_begin(struct lb_hosted *hosted, struct lb_arena *arena,
                                                   struct lb_artifact_head *out, struct lb_detail *detail);
void lb_artifact_head_end(struct lb_artifact_head *head);
#define LB_ARTIFACT_PARTS 4
/* The next bytes of the file, as 1 to 4 parts that live until the next call; to be called until total_bytes
 * were given. */
size_t lb_artifact_head_next(struct lb_artifact_head *head, struct lb_span parts[LB_ARTIFACT_PARTS]);

#endif
