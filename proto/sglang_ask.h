/* SGLang's dialect from the other side: questions that are written, answers that are read. What an answer
 * says is held against the question: counts, places, ids. Pure: any thread.
 *
 * With logprob_start_len their entry i is about token logprob_start_len + i, and the first is null: of a text
 * of n tokens n - 1 rows can be asked for, row t about what follows token t.
 */
#ifndef LB_PROTO_SGLANG_ASK_H
#define LB_PROTO_SGLANG_ASK_H

#include "proto/sglang.h"

/* One text, of whose rows first .. n - 2 are asked for. */
struct lb_sglang_text {
    const int32_t *ids;    /* [n] */
    int64_t n, first;      /* 0 <= first < n */
    const int32_t *chosen; /* [n - 1, n_chosen] -1: none; read where the question is about chosen ids */
};

/* What is asked of each row: k of the likeliest (0: the log-probabilities of the texts' own tokens alone),
 * and those of n_chosen chosen ids (0: none). */
struct lb_sglang_question {
    const char *model; /* NULL: not named, as SGLang has but one */
    const struct lb_sglang_text *texts;
    size_t n_texts;
    int64_t k, n_chosen;
};

/* Appends the question. Errors are the buffer's. */
void lb_sglang_ask(struct lb_buf *out, const struct lb_sglang_question *question);

/* What is told of one text. */
struct lb_sglang_told {
    int64_t rows;        /* n - 1 - first */
    int32_t *ids;        /* [rows, k] in the answer's order */
    float *logprobs;     /* [rows, k] */
    float *own;          /* [rows] of the token that follows */
    float *chosen;       /* [rows, n_chosen]; of -1: minus infinity */
    const char *version; /* of the weights; "": not told */
};

/* Reads the answer: out [n_texts], in the arena. What SGLang writes as null, minus infinity, is
 * LB_VLLM_LEAST_LOGPROB. LB_E_FORMAT: no JSON, no such answer, or one to other texts; LB_E_UNSUPPORTED: the
 * server knows nothing of ids chosen for each row. */
LB_NODISCARD enum lb_status lb_sglang_read(const void *body, size_t len,
                                           const struct lb_sglang_question *question, struct lb_arena *arena,
                                           struct lb_sglang_told *out, struct lb_detail *detail);

#endif
