/* What the questions of vLLM's dialect are read with. For proto/vllm*.c only. */
#ifndef LB_PROTO_VLLM_READ_H
#define LB_PROTO_VLLM_READ_H

#include "proto/vllm.h"

#define LB_VLLM_WHAT "request"

/* The body as an object, the caller's. */
LB_NODISCARD enum lb_status lb_vllm_parse(const void *body, size_t len, json_t **out,
                                          struct lb_detail *detail);
/* A string or NULL, in the arena. */
LB_NODISCARD enum lb_status lb_vllm_read_string(const json_t *root, const char *key, struct lb_arena *arena,
                                                const char **out, struct lb_detail *detail);
/* The same of request_id, of at most LB_MAX_ID bytes. */
LB_NODISCARD enum lb_status lb_vllm_read_id(const json_t *root, struct lb_arena *arena, const char **out,
                                            struct lb_detail *detail);
/* What stands under the key, which lives as long as out. */
LB_NODISCARD enum lb_status lb_vllm_read_prompts(const json_t *root, const char *key, struct lb_arena *arena,
                                                 struct lb_vllm_prompts *out, struct lb_detail *detail);
/* Sampling parameters. Some clients put them, or some of them, into an object of their own, sampling_params:
 * what stands at both places must be the same. gathers: prompt_logprob_start and prompt_logprob_token_ids are
 * not refused. */
LB_NODISCARD enum lb_status lb_vllm_read_sampling(const json_t *root, bool gathers, struct lb_arena *arena,
                                                  struct lb_vllm_sampling *out, struct lb_detail *detail);

#endif
