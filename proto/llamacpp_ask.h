/* What llama.cpp's server is asked, and its answers. It tells what follows a text only, nothing of positions
 * within: each position of a sequence is a text of its own, and one request holds all of them. They are
 * computed one after the other in one slot, whose cache then has all of a text but its last token: each costs
 * one token, though not as cheaply as many at once. Pure: any thread.
 */
#ifndef LB_PROTO_LLAMACPP_ASK_H
#define LB_PROTO_LLAMACPP_ASK_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"

#include <stdint.h>

#define LB_LLAMACPP_PATH "/completion"

/* Prefixes of a sequence: those that end with its tokens first .. n - 1. */
struct lb_llamacpp_texts {
    const int32_t *ids; /* [n] */
    int64_t first, n;
};

/* Appends the question about the prefixes of several sequences: k of the likeliest behind each. written: a
 * token that is text by itself, which the server is made to write behind each: it tells nothing where that is
 * a part of a character. Errors are the buffer's. */
void lb_llamacpp_ask(struct lb_buf *out, const struct lb_llamacpp_texts *texts, size_t n_texts, int64_t k,
                     int32_t written);

/* What is told of one sequence: row r is about what follows its token first + r. */
struct lb_llamacpp_told {
    int64_t rows;    /* n - first */
    int32_t *ids;    /* [rows, k] the likeliest first */
    float *logprobs; /* [rows, k] of the whole vocabulary, at temperature 1; at least LB_LLAMACPP_LEAST */
};
#define LB_LLAMACPP_LEAST (-9999.0f)

/* Reads the answer: out [n_texts], in the arena. LB_E_FORMAT: no JSON, no such answer, one to other texts, or
 * a list that is in no falling order. */
LB_NODISCARD enum lb_status lb_llamacpp_read(const void *body, size_t len,
                                             const struct lb_llamacpp_texts *texts, size_t n_texts, int64_t k,
                                             struct lb_arena *arena, struct lb_llamacpp_told *out,
                                             struct lb_detail *detail);

#endif
