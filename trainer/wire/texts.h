/* Texts that a limbeckd writes behind prompts of ids: POST /v1/completions with return_token_ids.
 * No I/O: any thread. */
#ifndef LB_WIRE_TEXTS_H
#define LB_WIRE_TEXTS_H

#include "common/base/arena.h"
#include "trainer/wire/answer.h"

#define LB_PATH_TEXTS "/v1/completions"

/* What is gone on with, and how far. */
struct lb_text_prompt {
    const int32_t *ids; /* [n] */
    int64_t n;
};

/* How texts are drawn; with the prompt, all that decides one. */
struct lb_text_args {
    int64_t max_tokens;
    double temperature, top_p;
    uint64_t seed; /* below 2^63, a whole number of JSON */
};

/* What was written, with the token that ended it. */
struct lb_text {
    const int32_t *ids; /* [n] */
    int64_t n;          /* > 0 */
};

/* Appends the request about n prompts. What fails, body says. */
void lb_texts_ask(const struct lb_teacher_info *info, const struct lb_text_args *args,
                  const struct lb_text_prompt *prompts, int64_t n, struct lb_buf *body);
/* Reads the answer to it into out [n], their ids in arena. LB_E_MISMATCH: another model's; LB_E_FORMAT: not n
 * texts of 1 to max_tokens ids of the vocabulary. */
LB_NODISCARD enum lb_status lb_texts_read(const void *body, size_t len, const struct lb_teacher_info *info,
                                          const struct lb_text_args *args, int64_t n, struct lb_arena *arena,
                                          struct lb_text *out, struct lb_detail *detail);

#endif
