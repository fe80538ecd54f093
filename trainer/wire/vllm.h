/* The dialect vllm: what its two files share. vllm.c asks, vllm_info.c finds out what a server is. */
#ifndef LB_WIRE_VLLM_H
#define LB_WIRE_VLLM_H

#include "trainer/wire/dialect.h"

#define LB_VLLM_MOST_TOP_K 20 /* what --max-logprobs is when nobody says it */

/* What a server answers: serves of its info. */
enum {
    LB_VLLM_SERVES_SCORES = 1, /* /v1/completions with prompt_logprobs */
    LB_VLLM_SERVES_STATES = 2, /* /pooling of each token */
    LB_VLLM_SERVES_GATHER = 4  /* /inference/v1/generate with prompt_logprob_token_ids */
};

/* As the dialect's functions (dialect.h). */
LB_NODISCARD enum lb_status lb_vllm_info(const struct lb_contact *contact, const char *model,
                                         struct lb_buf *text, struct lb_teacher_info *out,
                                         struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_vllm_info_read(const void *text, size_t len, const char *what,
                                              struct lb_teacher_info *out, struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_vllm_tokenize(const struct lb_contact *contact,
                                             const struct lb_teacher_info *info, const char *text,
                                             struct lb_ids *out, struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_vllm_same(const struct lb_teacher_info *known, const void *text, size_t len,
                                         const char *where, char out_id[LB_MAX_MODEL_ID],
                                         struct lb_detail *detail);

/* The log-probabilities of the fixed question's own tokens, of the answer about it. */
struct lb_vllm_scores;
LB_NODISCARD enum lb_status lb_vllm_probe_scores(const struct lb_vllm_scores *scores, const int32_t *ids,
                                                 struct lb_told_probe *out, struct lb_detail *detail);

#endif
