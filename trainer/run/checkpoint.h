/* Checkpoints: everything a run needs to go on with the same bits, in OUTPUT_DIR/checkpoint-STEP/.
 *
 * model.safetensors      the weights, by their names
 * optimizer.safetensors  the optimizer's states: "m.<name>", AdamW's "v.<name>"; averages, "ema.<name>"
 * state.json             step, place in the data, random states, fingerprints, SHA-256 of both files' tensors
 *
 * A folder is written under another name, synced and renamed, so that one called checkpoint-STEP is whole: a
 * kill at any moment leaves the last good one. The owner of the run folder calls, one thread.
 */
#ifndef LB_RUN_CHECKPOINT_H
#define LB_RUN_CHECKPOINT_H

#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "trainer/learn/optimizer.h"
#include "trainer/run/computes.h"

#include <stdint.h>

#define LB_CHECKPOINT_MAX_RNGS 8
#define LB_CHECKPOINT_MAX_SUMS 512

/* A run's state besides its weights and the optimizer's. */
struct lb_checkpoint {
    int64_t step;        /* optimiser steps done */
    int64_t micro_batch; /* the next one: its number over the whole run */
    int64_t tokens;      /* counted positions trained on so far */
    /* of the steps since the last line of metrics */
    int64_t steps_summed, tokens_summed;
    unsigned n_sums;
    double sums[LB_CHECKPOINT_MAX_SUMS];
    /* of evaluations that are compared: the last one's step, the best one's and its metric (step 0: none),
     * and how many have been no better since */
    int64_t evaluated, best_step, waited;
    double best_metric;
    char best_of[32];  /* the metric's name; empty: a checkpoint from before it was stored */
    int64_t kept_step; /* whose checkpoint is not removed; 0: none. Not stored */
    unsigned n_rngs;
    struct lb_rng rngs[LB_CHECKPOINT_MAX_RNGS];
    char recipe[LB_SHA256_HEX];   /* lb_recipe_fingerprint */
    char data[LB_SHA256_HEX];     /* lb_dataset_fingerprint */
    char teachers[LB_SHA256_HEX]; /* over the teachers' fingerprints; "" without teachers */
    struct lb_computes computes;  /* whose bits are in it; not compared here */
};

/* Saves and then removes the oldest beyond keep (>= 1) but for that of kept_step, and what killed runs left
 * half-written. */
LB_NODISCARD enum lb_status lb_checkpoint_save(const char *output_dir, const struct lb_checkpoint *state,
                                               const struct lb_optimizer *optimizer, int64_t keep,
                                               struct lb_detail *detail);
/* Before a run begins in the folder: LB_E_ARG when something called checkpoint-N in it is not one of ours,
 * or, for a new run (resume false), when there is any. */
LB_NODISCARD enum lb_status lb_checkpoint_check_folder(const char *output_dir, bool resume,
                                                       struct lb_detail *detail);
/* The path (heap, lb_free) of the checkpoint with the highest step; LB_E_NOTFOUND when the folder holds none.
 */
LB_NODISCARD enum lb_status lb_checkpoint_latest(const char *output_dir, char **out_path,
                                                 struct lb_detail *detail);
/* The path (heap, lb_free) of that step's checkpoint; NULL: out of memory. */
char *lb_checkpoint_path(const char *output_dir, int64_t step);
/* Reads into the optimiser's weights and states. expected gives the fingerprints that must agree ("" is not
 * compared); LB_E_MISMATCH tells which differs and what to do. Everything is checked, the checksum too,
 * before a weight changes. */
LB_NODISCARD enum lb_status lb_checkpoint_load(const char *path, const struct lb_checkpoint *expected,
                                               struct lb_optimizer *optimizer, struct lb_checkpoint *out,
                                               struct lb_detail *detail);

#endif
