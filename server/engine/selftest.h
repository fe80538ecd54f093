/* The start-up self-test of the promise that caches and replicas rely on: a sequence's answer has the same
 * bits whatever it is batched with. */
#ifndef LB_ENGINE_SELFTEST_H
#define LB_ENGINE_SELFTEST_H

#include "common/base/status.h"
#include "common/model/model.h"
#include "common/nn/tape.h"

#include <stdbool.h>

/* Runs sequences of several lengths, made of seeded random ids (or features), one by one and all together, in
 * two orders; *out_invariant: final hidden states and logits agree bit for bit. The caller owns the tape and
 * is its thread. */
LB_NODISCARD enum lb_status lb_self_test(const struct lb_model *model, bool decoder, struct lb_tape *tape,
                                         bool *out_invariant, struct lb_detail *detail);

#endif
