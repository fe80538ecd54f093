/* SGLang's dialect from the other side: questions that are written, answers that are read. What an answer
 * says is held against the question: counts, places, ids. Pure: any thread.
 *
 * Their entry i is about token i of the prompt, and the first is null: of a prompt of n tokens n - 1 rows are
 * read, entry i into row i - 1, which is about what follows token i - 1.
 */
#ifndef LB_PROTO_SGLANG_ASK_H
#define LB_PROTO_SGLANG_ASK_H

#include "proto/sglang.h"

/* Appends the question about prompts, all of ids: k of the likeliest at each place (0: the tokens' own
 * log-probabilities alone), and those of chosen[i] [the prompt's n - 1, n_chosen], row t about what follows
 * token t, -1: none (chosen NULL: not asked for). Errors are the buffer's. */
void lb_sglang_ask(struct lb_buf *out, const struct lb_vllm_prompts *prompts, int64_t k,
                   const int32_t *const *chosen, int64_t n_chosen);

/* What is told of one prompt of n tokens. */
struct lb_sglang_told {
    int64_t rows;        /* n - 1 */
    int32_t *ids;        /* [rows, k] in the answer's order */
    float *logprobs;     /* [rows, k] */
    float *own;          /* [rows] of the token that follows */
    float *chosen;       /* [rows, n_chosen]; of -1: minus infinity. NULL: not asked for */
    const char *version; /* of the weights; "": not told */
};

/* Reads the answer: out [prompts->n], in the arena. Arguments as of the question. What SGLang writes as null,
 * minus infinity, is LB_VLLM_LEAST_LOGPROB. LB_E_FORMAT: no JSON, no such answer, or one to other prompts;
 * LB_E_UNSUPPORTED: the server knows nothing of ids chosen for each place. */
LB_NODISCARD enum lb_status lb_sglang_read(const void *body, size_t len,
                                           const struct lb_vllm_prompts *prompts, int64_t k,
                                           const int32_t *const *chosen, int64_t n_chosen,
                                           struct lb_arena *arena, struct lb_sglang_told *out,
                                           struct lb_detail *detail);

#endif
