/* The tape: ops compute at once; in training they also record how to go back.
 *
 * One forward per architecture: the same calls train (LB_TAPE_TRAIN), evaluate or serve (LB_TAPE_PLAIN).
 * Values live in the tape's memory until the next lb_tape_begin. In plain mode a block of a model may be
 * bracketed by lb_tape_mark and lb_tape_release, so that memory is one block's, not the whole model's; in
 * training both do nothing. Errors are sticky: when memory runs out an op returns NULL, ops accept NULL
 * values and return NULL, and lb_tape_status tells. One tape, one thread; ops use OpenMP inside.
 *
 * Writing an op: compute out; if lb_tape_records(tape), lb_tape_push a node with what backward needs. In
 * backward (of a node with a trained weight or an input that depends on one), node->out->grad is set; for
 * each input ask lb_grad_fresh: true means overwrite, false means accumulate.
 */
#ifndef LB_NN_TAPE_H
#define LB_NN_TAPE_H

#include "common/base/arena.h"
#include "common/base/rng.h"
#include "common/base/status.h"
#include "common/nn/tensor.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lb_tape_mode {
    LB_TAPE_PLAIN, /* no gradients; lb_add works in place */
    LB_TAPE_TRAIN  /* records; dropout is active */
};

struct lb_tape;
struct lb_gemm_list;

struct lb_node {
    void (*backward)(struct lb_tape *tape, struct lb_node *node);
    struct lb_value *in[4];
    struct lb_value *out;
    const struct lb_weight *weight[2];
    const void *extra; /* op's own saved arguments, in tape memory */
    float *saved;      /* op's own saved numbers, in tape memory */
    struct lb_node *previous;
};

/* max_bytes bounds all memory of one step. NULL when out of memory. */
struct lb_tape *lb_tape_create(size_t max_bytes);
void lb_tape_destroy(struct lb_tape *tape);

/* Drops all values and starts anew. ragged (borrowed until the next begin) describes the rows of the batch;
 * rng (may be NULL in plain mode) feeds dropout. */
void lb_tape_begin(struct lb_tape *tape, enum lb_tape_mode mode, const struct lb_ragged *ragged,
                   struct lb_rng *rng);
enum lb_status lb_tape_status(const struct lb_tape *tape);
bool lb_tape_records(const struct lb_tape *tape);
/* From here on values have the rows of another ragged, which lives as long as the tape's values: one row for
 * each sequence, say. Ops that were recorded keep what they need of the old one. */
void lb_tape_rows(struct lb_tape *tape, const struct lb_ragged *ragged);
const struct lb_ragged *lb_tape_ragged(const struct lb_tape *tape);
struct lb_rng *lb_tape_rng(struct lb_tape *tape);
/* Most bytes ever in use. */
size_t lb_tape_high(const struct lb_tape *tape);
/* When *stop becomes other than 0, all that asks for memory fails, and the status is LB_E_CANCELLED: work
 * ends within an op, its values are worth nothing. NULL: never. */
void lb_tape_stop_on(struct lb_tape *tape, const volatile sig_atomic_t *stop);
/* Whether that has happened. */
bool lb_tape_stopped(struct lb_tape *tape);
/* Between two batches: another maximum. */
void lb_tape_limit(struct lb_tape *tape, size_t max_bytes);
/* Between two batches: gives all memory back; what lb_tape_high told begins anew. */
void lb_tape_shrink(struct lb_tape *tape);

/* A value with uninitialised data [rows, cols]; NULL (and sticky) when memory runs out. */
struct lb_value *lb_tape_value(struct lb_tape *tape, int64_t rows, int64_t cols);
/* A value in the memory that mark and release leave alone, holding a copy of v: for taps. In training: v
 * itself. */
struct lb_value *lb_tape_keep(struct lb_tape *tape, struct lb_value *v);
/* bytes of tape memory (aligned to 64, not zeroed), with the life of a value; NULL and sticky when it runs
 * out. */
void *lb_tape_bytes(struct lb_tape *tape, size_t bytes);
/* to[i] = from[i], or zero where from is NULL: n floats, by all threads where that is worth it. */
void lb_copy_floats(float *to, const float *from, int64_t n);
/* A node at the end of the tape, zeroed; NULL in plain mode or when memory runs out. */
struct lb_node *lb_tape_push(struct lb_tape *tape, void (*backward)(struct lb_tape *, struct lb_node *),
                             struct lb_value *out);
/* Makes v->grad exist. True: nothing was written yet, overwrite; false: accumulate. On true the caller must
 * write it all. When memory runs out: false with v->grad NULL - check v->grad. */
bool lb_grad_fresh(struct lb_tape *tape, struct lb_value *v);

/* Whether no trained weight is behind v, as far as it is recorded: then its gradient is of no use. */
bool lb_tape_is_constant(struct lb_tape *tape, const struct lb_value *v);

/* On the way back: products that nobody has made yet, gradients of weights above all, which may wait until
 * there are enough of them. lb_tape_backward makes what is left. Who reads a weight's gradient before that,
 * or adds to it otherwise than by a product, runs them first. */
struct lb_gemm_list *lb_tape_products(struct lb_tape *tape);

struct lb_arena_mark lb_tape_mark(struct lb_tape *tape);
void lb_tape_release(struct lb_tape *tape, struct lb_arena_mark mark);

/* Runs the nodes backwards. Values that got no gradient are skipped, and those behind which no weight is
 * trained. The caller (a loss) has written the gradients of the values it read. Weight gradients accumulate
 * (+=) into weight->grad. */
enum lb_status lb_tape_backward(struct lb_tape *tape);

#endif
