/* The identity of servers that have no fingerprint: what they say of themselves, and their answers to a fixed
 * question, as one JSON text that a cache can keep. For dialects. Pure: any thread.
 */
#ifndef LB_WIRE_STATED_H
#define LB_WIRE_STATED_H

#include "common/base/json.h"
#include "trainer/wire/answer.h"

/* The text of the fixed question, where the server makes ids of texts: some of what follows is likely, some
 * is not. */
#define LB_PROBE_TEXT                                                                                        \
    "The cat sat on the mat. In 1905 the patent clerk wrote four papers: one, two, three, four, five, six"

struct lb_stated {
    const char *protocol, *model, *version; /* version "": not told */
    const char *model_id;                   /* by which it is asked; NULL: model. No part of the identity */
    const char *chat_template;              /* NULL: none, or not told */
    int64_t max_length;                     /* positions of one sample; 0: not told */
    int64_t hidden_size, vocab_size;        /* 0: not told */
    const char *system;                     /* what it says of how it computes; NULL: not told */
    int64_t most_top_k;                     /* of one place; 0: not told. No part of the identity */
    unsigned serves;                        /* bits of the dialect's own */
    json_t *tensors;                        /* what it has under which names (named.h); NULL: not told */
    int n_ids;                              /* of the fixed question */
    int32_t ids[LB_PROBE_POSITIONS];
    struct lb_told_probe probe[LB_N_PROBES]; /* n 0: not answered */
};

/* The ids of a question where the server makes none: printable characters or special tokens of any
 * vocabulary. */
void lb_stated_plain_ids(struct lb_stated *stated);
/* Appends the text that lb_stated_read takes. LB_E_NOMEM, LB_E_LIMIT. */
LB_NODISCARD enum lb_status lb_stated_write(const struct lb_stated *stated, struct lb_buf *out,
                                            struct lb_detail *detail);
/* Reads it into what a dialect's info_read gives, but for `given`: fingerprint and stated are made of it.
 * LB_E_FORMAT: it is none, or another dialect's. */
LB_NODISCARD enum lb_status lb_stated_read(const void *text, size_t len, const char *protocol,
                                           const char *what, struct lb_teacher_info *out,
                                           struct lb_detail *detail);

/* LB_E_MISMATCH: the server answers otherwise to the fixed question than it did. */
LB_NODISCARD enum lb_status lb_stated_check(const struct lb_teacher_info *info, enum lb_probe which,
                                            const struct lb_told_probe *now, struct lb_detail *detail);
/* Whether both say the same of themselves, and answer as near as one model does; how they compute is apart.
 */
bool lb_stated_alike(const struct lb_teacher_info *a, const struct lb_teacher_info *b);

/* Of a server that is alike: text, what it says now, becomes what it said then but for what is no part of the
 * identity and may have changed: by which name it is asked, and how much it lists. LB_E_NOMEM, LB_E_FORMAT.
 */
LB_NODISCARD enum lb_status lb_stated_renew(const void *then, size_t len, struct lb_buf *text,
                                            struct lb_detail *detail);

/* What a server says of how it computes (vLLM's system_fingerprint) as kernels and compute of an info; text
 * "": nothing is told. */
void lb_stated_system(const char *text, char kernels[LB_KERNELS_TEXT], char compute[LB_SHA256_HEX]);
/* States of n positions as the numbers of a probe: each position's along one fixed direction. rows [n,
 * width], of the datatype. */
void lb_stated_states(const void *rows, enum lb_datatype datatype, int64_t n, int64_t width,
                      struct lb_told_probe *out);

#endif
