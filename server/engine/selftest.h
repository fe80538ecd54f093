/* The start-up self-test of the promise that caches and replicas rely on: a sequence's answer has the same
 * bits whatever it is batched with. And what those bits are:
 * the questions depend on the model's configuration alone, so that two machines whose answers agree have
 * computed with the same bits (PROTOCOL.md "Identity"). What it finds is kept (common/base/memo.h). */
#ifndef LB_ENGINE_SELFTEST_H
#define LB_ENGINE_SELFTEST_H

#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/model/model.h"

#include <stdbool.h>
#include <stddef.h>

struct lb_self_test_result {
    bool invariant;               /* final hidden states and logits agree bit for bit */
    char compute[LB_SHA256_HEX];  /* what computes: digest of the precision and of the bits of all answers */
    bool kept;                    /* it was found at an earlier start */
    size_t base_bytes, row_bytes; /* tape of a forward with the head, about: of all, and of each row */
};

/* Runs call(argument) on the thread that owns the models' forwards, and waits; false when that has ended. */
typedef bool (*lb_on_worker_fn)(void *context, void (*call)(void *argument), void *argument);

/* Runs sequences of several lengths, made of seeded random ids (or features), one by one and all together, in
 * one order (small models: two), each run by one call of on_worker, so that others' work goes on in between.
 * LB_E_CANCELLED when the worker has left. A large model's result is kept in the user's cache folder, under
 * its fingerprint and all that decides which bits are computed here (lb_compute_named); it is not run again
 * where that is known.
 */
LB_NODISCARD enum lb_status lb_self_test(const struct lb_model *model, bool decoder,
                                         lb_on_worker_fn on_worker, void *context,
                                         struct lb_self_test_result *out, struct lb_detail *detail);

#endif
