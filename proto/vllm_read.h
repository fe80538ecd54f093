/* What the questions of vLLM's dialect, and of those that ask alike, are read with. For proto/vllm*.c and
 * proto/sglang*.c only. */
#ifndef LB_PROTO_VLLM_READ_H
#define LB_PROTO_VLLM_READ_H

#include "proto/vllm.h"

#define LB_VLLM_WHAT "request"

/* A key that changes what is computed or drawn, and the number that says nothing. Beside it null, false and
 * what is empty say nothing either. */
struct lb_vllm_refused {
    const char *key;
    double neutral; /* NAN: none */
};
/* LB_E_ARG, with its name, for the first of the keys that says something. */
LB_NODISCARD enum lb_status lb_vllm_refuse(const json_t *object, const struct lb_vllm_refused *keys, size_t n,
                                           struct lb_detail *detail);

/* The body as an object, the caller's. */
LB_NODISCARD enum lb_status lb_vllm_parse(const void *body, size_t len, json_t **out,
                                          struct lb_detail *detail);
/* A string or NULL, in the arena. */
LB_NODISCARD enum lb_status lb_vllm_read_string(const json_t *root, const char *key, struct lb_arena *arena,
                                                const char **out, struct lb_detail *detail);
/* The same of request_id, of at most LB_MAX_ID bytes. */
LB_NODISCARD enum lb_status lb_vllm_read_id(const json_t *root, struct lb_arena *arena, const char **out,
                                            struct lb_detail *detail);
/* A list of ids, each 0 or more, in the arena. name: how errors call it. */
LB_NODISCARD enum lb_status lb_vllm_read_ids(const json_t *list, const char *name, struct lb_arena *arena,
                                             const int32_t **out, int64_t *out_n, struct lb_detail *detail);
/* What stands under the key, which lives as long as out. */
LB_NODISCARD enum lb_status lb_vllm_read_prompts(const json_t *root, const char *key, struct lb_arena *arena,
                                                 struct lb_vllm_prompts *out, struct lb_detail *detail);
/* How tokens are drawn and where a text ends: temperature, top_p, top_k, the seed under that name,
 * skip_special_tokens, ignore_eos and stops. What object doesn't say stays as it is. */
LB_NODISCARD enum lb_status lb_vllm_read_draw(const json_t *object, const char *seed, struct lb_arena *arena,
                                              struct lb_vllm_sampling *out, struct lb_detail *detail);
/* Sampling parameters. Some clients put them, or some of them, into an object of their own, sampling_params:
 * what stands at both places must be the same. gathers: prompt_logprob_start and prompt_logprob_token_ids are
 * not refused. */
LB_NODISCARD enum lb_status lb_vllm_read_sampling(const json_t *root, bool gathers, struct lb_arena *arena,
                                                  struct lb_vllm_sampling *out, struct lb_detail *detail);

#endif
