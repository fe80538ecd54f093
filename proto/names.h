/* Names of inputs and outputs on the wire, parsed once. */
#ifndef LB_PROTO_NAMES_H
#define LB_PROTO_NAMES_H

#include "common/base/status.h"
#include "proto/oip.h"

enum lb_output_kind {
    LB_OUT_LOGITS,      /* "logits"                    FP32 [B,T,V], or [B,V] for classifiers */
    LB_OUT_TOPK_IDS,    /* "logits.topk_ids"           INT32|UINT16 [B,T,K] */
    LB_OUT_TOPK_VALUES, /* "logits.topk_values"        FP32|FP16 [B,T,K] raw logits */
    LB_OUT_LOGSUMEXP,   /* "logsumexp"                 FP32 [B,T] at the request's temperature */
    LB_OUT_ACTUAL, /* "logprobs.actual"           FP32 [B,T] log p(ids[t+1] | ids[..t]) at temperature; last
                      row 0 */
    LB_OUT_HIDDEN, /* "hidden_states.N"           FP32|FP16 [B,T,C] */
    LB_OUT_HIDDEN_FINAL, /* "hidden_states.final"       FP32|FP16 [B,T,C] */
    LB_OUT_ATTENTION     /* "attentions.N"              FP32|FP16 [B,H,T,T] */
};

struct lb_output_name {
    enum lb_output_kind kind;
    int layer; /* of hidden_states.N and attentions.N */
};

/* LB_E_NOTFOUND with the list of names when the output does not exist. */
enum lb_status lb_output_parse(const char *name, struct lb_output_name *out, struct lb_detail *detail);
/* Writes the name; layer is used where the kind has one. */
void lb_output_format(enum lb_output_kind kind, int layer, char out[LB_MAX_NAME]);

#define LB_IN_IDS "input_ids"   /* INT32|INT64 [B,T] */
#define LB_IN_LENGTHS "lengths" /* INT32 [B], right padding; outputs of padded rows are zero */
#define LB_IN_START "start" /* INT32 [B], first row to return; outputs start there, padded to the longest */
#define LB_IN_FEATURES "features" /* FP32 [B,C] */

#endif
