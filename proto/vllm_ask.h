/* vLLM's dialect from the other side: questions that are written, answers that are read. What an answer says
 * is held against the question: counts, places, ids. Pure: any thread.
 *
 * Their entry i is about token i of the prompt, and the first is null: of a prompt of n tokens n - 1 are
 * read, entry i into place i - 1, which is the row that follows token i - 1.
 */
#ifndef LB_PROTO_VLLM_ASK_H
#define LB_PROTO_VLLM_ASK_H

#include "proto/vllm.h"

/* ---- /tokenize ---- */

/* Appends the question about the ids that the model's tokenizer makes of a text. Errors are the buffer's. */
void lb_vllm_ask_tokens(struct lb_buf *out, const char *model, const char *text, bool add_special);

/* ---- /v1/completions: what was likely at each place of the prompts ---- */

/* Appends the question about prompts, all of ids: k of the likeliest at each place (0: the tokens' own
 * log-probabilities alone). Errors are the buffer's. */
void lb_vllm_ask_scores(struct lb_buf *out, const char *model, const struct lb_vllm_prompts *prompts,
                        int64_t k);

/* What is told of one place: ids, each once, with their log-probabilities, in the answer's order. */
struct lb_vllm_place {
    int64_t n;
    int32_t *ids;
    float *logprobs;
};
struct lb_vllm_scores {
    int64_t n;                    /* the prompt's tokens without the first */
    struct lb_vllm_place *places; /* [n] */
};

/* Reads the answer: out [prompts->n], in the order of the prompts, in the arena. *out_system (may be NULL):
 * its system_fingerprint, in the arena; "" when it has none. LB_E_FORMAT: no JSON, no such answer, or one to
 * other prompts. */
LB_NODISCARD enum lb_status lb_vllm_scores_read(const void *body, size_t len,
                                                const struct lb_vllm_prompts *prompts, struct lb_arena *arena,
                                                struct lb_vllm_scores *out, const char **out_system,
                                                struct lb_detail *detail);

/* How many ids of a place are listed at most, by the refusal of more: 0 where it does not say. */
int64_t lb_vllm_most_read(const void *body, size_t len);

/* ---- /inference/v1/generate: log-probabilities of chosen ids ---- */

/* ids [n - 1, k] of one prompt of n ids: row i about what follows its token i; -1: none. */
void lb_vllm_ask_gather(struct lb_buf *out, const char *model, const struct lb_vllm_prompt *prompt,
                        const int32_t *ids, int64_t k);
/* Reads the answer into out [n_rows, k]; what stands for no id is minus infinity, if the server says so.
 * LB_E_FORMAT. */
LB_NODISCARD enum lb_status lb_vllm_gather_read(const void *body, size_t len, int64_t n_rows, int64_t k,
                                                float *out, struct lb_detail *detail);

/* ---- /pooling: final states ---- */

/* States as they are, FP32, FP16 or BF16. */
void lb_vllm_ask_states(struct lb_buf *out, const char *model, const struct lb_vllm_prompts *prompts,
                        enum lb_datatype datatype);
/* Where the states of each prompt lie in the answer's body, rows[i] [the prompt's n, *out_width]; metadata:
 * the header of that name, NULL when there is none. width: that they must have; 0: any. LB_E_FORMAT, and rows
 * are of no use then. */
LB_NODISCARD enum lb_status lb_vllm_states_read(const void *body, size_t len, const char *metadata,
                                                const struct lb_vllm_prompts *prompts,
                                                enum lb_datatype datatype, int64_t width, const void **rows,
                                                int64_t *out_width, struct lb_detail *detail);

#endif
