/* One question about several sequences as an infer request, and its answer taken apart again.
 *
 * Sequences of unlike lengths are right-padded and travel with their lengths; all tensors are binary. Nothing
 * in an answer is trusted: the digest of what was evaluated, the fingerprint, names, datatypes and shapes
 * must be what was asked for, so that an answer meant for somebody else (a shared HTTP cache in between, a
 * server that was exchanged) is never learnt from. No I/O and no state: any thread.
 */
#ifndef LB_WIRE_OIP_H
#define LB_WIRE_OIP_H

#include "trainer/wire/answer.h"

/* Most positions (after padding) and most answer bytes that one request should ask for. */
#define LB_ASK_TOKENS 8192
#define LB_ASK_ANSWER_BYTES (96u << 20)

/* A question ready to be sent. */
struct lb_asked {
    struct lb_buf body;
    size_t json_bytes;
    char digest[LB_SHA256_HEX];
    int64_t n, longest; /* sequences, and positions of the longest */
};

/* Builds the request about n samples (pointers) into out (initialised here; lb_asked_finish). scratch is used
 * on the way. */
LB_NODISCARD enum lb_status lb_ask_build(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                         const struct lb_sample *const *samples, int64_t n,
                                         uint64_t timeout_us, struct lb_arena *scratch, struct lb_asked *out,
                                         struct lb_detail *detail);
void lb_asked_finish(struct lb_asked *asked);

/* What came back. */
struct lb_ask_reply {
    const void *body;
    size_t len;
    int64_t json_bytes; /* -1: no header */
    const char *digest; /* "" when the header is absent */
};

/* Checks the reply against what was asked and copies each sequence's part: the data of answers[i] is
 * allocated in arenas[i]. LB_E_MISMATCH with both fingerprints when another model answered; LB_E_FORMAT and
 * LB_E_MISMATCH otherwise name what does not fit. *out_other (may be NULL) is set when the fingerprint
 * differs: no retry helps then. */
LB_NODISCARD enum lb_status lb_ask_split(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                         const struct lb_asked *asked, const struct lb_sample *const *samples,
                                         const struct lb_ask_reply *reply, struct lb_arena *scratch,
                                         struct lb_arena *const *arenas, struct lb_answer *answers,
                                         bool *out_other, struct lb_detail *detail);

#endif
