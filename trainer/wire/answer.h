/* What is asked of a teacher, what it says of itself, and its answers: one of several sequences, as tensors.
 * No I/O: any thread. */
#ifndef LB_WIRE_ANSWER_H
#define LB_WIRE_ANSWER_H

#include "common/base/status.h"
#include "proto/names.h"
#include "proto/oip.h"
#include "trainer/wire/sample.h"

#define LB_MAX_ASKED 16

/* What is asked of one teacher for every sequence. */
struct lb_ask_spec {
    size_t n_outputs;
    struct {
        enum lb_output_kind kind;
        int layer;
        enum lb_datatype datatype;
    } outputs[LB_MAX_ASKED];
    int64_t top_k;
    double temperature; /* of logsumexp and logprobs.actual */
};

/* What a teacher says of itself (GET /v2/models/M). */
struct lb_teacher_info {
    char fingerprint[LB_SHA256_HEX];
    char tokenizer_fingerprint[LB_SHA256_HEX]; /* "" when it has none */
    char model[LB_MAX_NAME];
    int64_t vocab_size, hidden_size, n_layers, n_heads, max_length, input_size;
    int64_t parameters, bytes; /* 0: not told */
};

/* One teacher's answer about one sequence of n positions. Tensors lack the batch dimension: [n, ...]. */
struct lb_answer {
    size_t n_tensors;
    struct lb_wire_tensor tensors[LB_MAX_ASKED]; /* in the order of the spec */
};

/* A teacher's output head, downloaded once: FP32. */
struct lb_teacher_head {
    float *weight; /* [V, C] */
    float *bias;   /* [V] or NULL */
    int64_t vocab_size, hidden_size;
};
/* The tensor of this kind and layer, or NULL. */
const struct lb_wire_tensor *lb_answer_find(const struct lb_answer *answer, enum lb_output_kind kind,
                                            int layer);
/* n numbers from element first on, FP16 or FP32, as floats. */
void lb_wire_floats(const struct lb_wire_tensor *tensor, int64_t first, int64_t n, float *out);
int32_t lb_answer_id(const struct lb_wire_tensor *tensor, int64_t i);

/* Checks an answer against what will be read from it: datatypes and shapes for sample's n positions. name:
 * the teacher's. */
LB_NODISCARD enum lb_status lb_answer_check(const struct lb_answer *answer, const struct lb_ask_spec *spec,
                                            const struct lb_teacher_info *info, int64_t n, const char *name,
                                            struct lb_detail *detail);

#endif
