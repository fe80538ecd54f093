/* Answers of servers that list the likeliest ids of each position with their log-probabilities, as the
 * tensors that the trainer reads. For dialects. No I/O: any thread.
 *
 * The log-probabilities are at temperature 1, and of the whole vocabulary: what is not listed has what they
 * leave of 1. They stand for logits (logits.topk_values), from which they differ by a number for each row
 * that no loss sees: beside them the log-sum-exp is 0.
 */
#ifndef LB_WIRE_LISTED_H
#define LB_WIRE_LISTED_H

#include "trainer/wire/answer.h"

/* Rows of one sequence, one for each position that is asked about: row t is about what follows its token
 * first + t. */
struct lb_listed {
    const struct lb_teacher_info *info;
    const struct lb_ask_spec *spec;
    int64_t first;   /* the first position; the caller's to set, else 0 */
    int64_t n, k;    /* rows, ids of each; k 0: none are listed, only each token's own is known */
    int32_t *ids;    /* [n, k] in falling order, ties by lower id */
    float *logprobs; /* [n, k] */
    float *own;      /* [n] of the token that follows; answers have 0 in the last row, as limbeckd's */
    /* [n, n_scored] of the ids that the spec chose, 0 for none; the caller's to set, NULL: none are told. */
    const float *scored;
};

/* What a list can answer with; info_read puts them into given. */
void lb_listed_give(struct lb_teacher_info *info);
/* How many ids of a row the spec asks for: 0, or the smaller of top_k and the vocabulary. */
int64_t lb_listed_k(const struct lb_teacher_info *info, const struct lb_ask_spec *spec);

/* Room for n rows in the arena. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_listed_begin(const struct lb_teacher_info *info,
                                            const struct lb_ask_spec *spec, int64_t n, struct lb_arena *arena,
                                            struct lb_listed *out, struct lb_detail *detail);
/* Row t: m ids in any order, each once, with their log-probabilities: the k likeliest, and maybe the token
 * own that follows, which is beyond them (m is k, or k + 1). own -1: nobody knows what follows; in the
 * last row it may be a token that was asked with the sequence so that there is such a row. Ids and
 * log-probabilities may be rearranged. LB_E_FORMAT: too few or too many, an id beyond the vocabulary or
 * twice, a number that is no log-probability, a sum above 1, own not among them. */
LB_NODISCARD enum lb_status lb_listed_put(struct lb_listed *listed, int64_t t, int32_t *ids, float *logprobs,
                                          int64_t m, int32_t own, struct lb_detail *detail);
/* The answer that was asked for, when all rows are there; its data lies in arena. LB_E_FORMAT: scored has a
 * number that is no log-probability. */
LB_NODISCARD enum lb_status lb_listed_answer(const struct lb_listed *listed, struct lb_arena *arena,
                                             struct lb_answer *out, struct lb_detail *detail);

#endif
