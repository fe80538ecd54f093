/* OpenAI's completions from the client's side: prompts of ids echoed with their log-probabilities. Pure: any
 * thread.
 *
 * Their entry i is about token i, the first is null; one token is generated, whose entry stands behind those
 * of the prompt and tells what was likely there. So of a prompt of n ids n entries are read, entry i into
 * place i - 1, which is the row that follows token i - 1.
 */
#ifndef LB_PROTO_OPENAI_ASK_H
#define LB_PROTO_OPENAI_ASK_H

#include "proto/vllm_ask.h"

/* Appends the question about prompts, all of ids: k of the likeliest at each place, 0: the tokens' own
 * log-probabilities alone. Errors are the buffer's. */
void lb_openai_ask_scores(struct lb_buf *out, const char *model, const struct lb_vllm_prompts *prompts,
                          int64_t k);
/* Reads the answer to it: out [prompts->n], each with as many places as the prompt has ids, in the arena.
 * lists: the k likeliest and the token itself, which the server must name by ids ("token_id:N"); else the
 * token's own log-probability alone, and of the last place nothing. *out_named (may be NULL): whether it
 * names ids. LB_E_FORMAT: no JSON, no such answer, or one to other prompts; LB_E_UNSUPPORTED: lists, and it
 * names texts. */
LB_NODISCARD enum lb_status lb_openai_scores_read(const void *body, size_t len,
                                                  const struct lb_vllm_prompts *prompts, bool lists,
                                                  struct lb_arena *arena, struct lb_vllm_scores *out,
                                                  bool *out_named, struct lb_detail *detail);

#endif
