/* One batch: a forward of the sequences of which nothing is known, each once, and the outputs of all, of
 * which those whose states are known (known.h) cost the head only. Bits are those of each sequence alone. The
 * worker's. */
#ifndef LB_ENGINE_FORWARD_H
#define LB_ENGINE_FORWARD_H

#include "common/base/arena.h"
#include "common/nn/tape.h"
#include "server/engine/batcher.h"
#include "server/engine/known.h"

/* How the sequences of a batch came to their states. */
struct lb_forward_counts {
    int64_t computed_seqs, computed_tokens; /* went through the model */
    int64_t joined_tokens;                  /* of sequences equal to one that another job brought meanwhile */
    int64_t known_tokens;                   /* of those that were there before */
    int64_t copied_seqs;                    /* whose outputs are those of an equal question of the batch */
    size_t dropped;                         /* sequences of which the states went, to make room */
    /* Of sequences that may be kept: their states were there; were not, and then kept where there was room.
     * The time of looking, and of keeping. */
    int64_t found_seqs, missed_seqs;
    uint64_t found_ns, missed_ns;
};

/* Fills the outputs of the batch's jobs. scratch is reset; known may be NULL; number tells this run from all
 * others of the same known. LB_E_NOMEM, or what the model's ops failed with; what was computed until then is
 * kept. */
LB_NODISCARD enum lb_status lb_forward_run(const struct lb_batch *batch, struct lb_tape *tape,
                                           struct lb_arena *scratch, struct lb_known *known, uint64_t number,
                                           struct lb_forward_counts *out);

#endif
