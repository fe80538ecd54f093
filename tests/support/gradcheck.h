/* Checks an op's gradients against central differences of an independent forward in double.
 *
 * The loss is sum_i coefficient[i] out[i]. The op ran in float on a tape; the reference, written for the
 * test, computes the same outputs in double, where a small step costs no digits. So tolerances can be near
 * float's own precision.
 */
#ifndef LB_TESTS_GRADCHECK_H
#define LB_TESTS_GRADCHECK_H

#include "common/nn/tape.h"

/* out from the inputs in[0..n_in-1]; context is the test's. */
typedef void (*gradcheck_forward)(const void *context, double *const *in, double *out);

struct gradcheck_input {
    const char *name;
    const float *value; /* [n] where the op ran */
    const float *grad;  /* [n] what the op says dL/d(value) is */
    int64_t n;
};

/* The largest relative error over some elements of each input (all, when they are few) and over some random
 * directions through all elements, so that each element matters. An element's error is relative to the larger
 * of its own derivative and the root mean square of the gradient. Prints one line. */
double gradcheck(const char *op, gradcheck_forward forward, const void *context,
                 const struct gradcheck_input *in, int n_in, const double *coefficient, int64_t n_out);

/* A value of the tape, uniform in [-scale, scale). */
struct lb_value *random_value(struct lb_tape *tape, struct lb_rng *rng, int64_t rows, int64_t cols,
                              float scale);
/* A trainable weight on the heap, uniform in [center - 0.5, center + 0.5), gradient zero; release with
 * free_weight. */
struct lb_weight random_weight(struct lb_rng *rng, int64_t rows, int64_t cols, float center);
void free_weight(struct lb_weight *weight);
/* Writes random dL/d(v) into v->grad, overwriting, and adds them to coefficient[0 .. rows * cols - 1]. */
void random_gradient(struct lb_tape *tape, struct lb_rng *rng, struct lb_value *v, double *coefficient);

#endif
