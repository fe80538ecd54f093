/* SGLang's dialect: the question of POST /generate read, its answer written. No HTTP, no tokenizer.
 *
 * Their entry i is about token logprob_start_len + i of the prompt, and the first is null; row t of our
 * outputs is the distribution of token t + 1. The prompt's log-probabilities are those at temperature 1,
 * whatever is drawn. A key that changes numbers and isn't understood is refused by its name; all others are
 * ignored. See PROTOCOL.md section 14.
 */
#ifndef LB_PROTO_SGLANG_H
#define LB_PROTO_SGLANG_H

#include "proto/vllm.h"

/* logprob_start_len when only what is generated is listed. */
#define LB_SGLANG_NO_START (-1)

/* ---- questions ---- */

struct lb_sglang_ids {
    const int32_t *ids; /* [n] each 0 or more */
    int64_t n;
};

/* Which log-probabilities are asked for with one prompt. */
struct lb_sglang_scores {
    bool asked;
    int64_t start;            /* first token that is listed, or LB_SGLANG_NO_START */
    int64_t top_k;            /* 0: none */
    struct lb_sglang_ids ids; /* of every position; none: not asked for */
    const struct lb_sglang_ids
        *positions; /* [n_positions] of each token of the prompt; NULL: not asked for */
    int64_t n_positions;
};

struct lb_sglang_generate {
    const char *model; /* NULL: none is named */
    const char **rids; /* [prompts.n]; NULL: none */
    const char *rid;   /* in front of their numbers; NULL: none */
    bool batch;        /* a list was sent: a list is answered */
    struct lb_vllm_prompts prompts;
    struct lb_vllm_sampling sampling; /* max_tokens is their max_new_tokens, 128 when not given */
    struct lb_sglang_scores *scores;  /* [prompts.n] */
    bool texts;                       /* texts beside ids in lists of log-probabilities */
    bool flat, base64;                /* the prompt's likeliest as arrays, and those in base64 */
    bool return_prompt_ids;
    int64_t priority; /* higher goes first there */
    bool stream;      /* told while it is written: each event says all that there is so far */
};

/* The body of POST /generate. All that out points to is in the arena. LB_E_FORMAT, LB_E_ARG: what is wrong,
 * beginning with "request: " and the key's name; LB_E_LIMIT: too large. */
LB_NODISCARD enum lb_status lb_sglang_generate_decode(const void *body, size_t len, struct lb_arena *arena,
                                                      struct lb_sglang_generate *out,
                                                      struct lb_detail *detail);

/* ---- answers ---- */

/* What there is to say of one prompt. */
struct lb_sglang_answer {
    const char *id, *version; /* of the answer; of the weights */
    double seconds;           /* that it took */
    const int32_t *ids;       /* [n] the prompt */
    int64_t n;
    int64_t first;              /* first token that is listed; n: none is */
    struct lb_vllm_rows prompt; /* row 0: of token first + 1, n - 1 - first of them */
    const float *scores;        /* [rows, n_scores] of the ids that were asked for, in their order */
    int64_t n_scores;
    int64_t n_next;          /* tokens that follow the prompt: 1 is told where none is generated */
    const int32_t *next_ids; /* [n_next] */
    const float *next_logprobs;
    struct lb_vllm_rows next; /* row i: what next_ids[i] was chosen from */
    const float *next_scores; /* [n_next, n_scores] */
    int64_t n_generated;      /* n_next, or 0: they are told with their log-probabilities only */
    bool goes_on;             /* told while it is written: more comes */
    bool numbered;            /* an event about one of several prompts: which */
    int64_t index;
    bool stopped;     /* at the last of them, or at a stop */
    const char *stop; /* which; NULL: at that token */
    const char *text; /* UTF-8 [text_len] */
    size_t text_len;
};

/* One object of the answer, into a writer of vLLM's dialect; what stands around several is the caller's. A
 * log-probability of minus infinity is null. */
void lb_sglang_put_answer(struct lb_vllm_writer *writer, const struct lb_sglang_generate *request,
                          const struct lb_sglang_scores *scores, const struct lb_sglang_answer *answer);

#endif
