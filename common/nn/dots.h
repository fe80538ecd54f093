/* Few rows times the transpose of a matrix, as dot products. Internal to common/nn.
 *
 * An element's products are added up lane by lane over the depth, then the lanes by halves: its bits depend
 * neither on the rows and columns that are made beside it nor on its place among them. So rows of any number
 * of sequences may share one reading of the matrix.
 */
#ifndef LB_NN_DOTS_H
#define LB_NN_DOTS_H

#include <stdint.h>

/* y[m, n] = x[m, k] w[n, k]^T + beta y; ld: floats between rows. */
struct lb_dots {
    const float *x, *w;
    float *y;
    int64_t ldx, ldw, ldy, k;
    float beta;
};
void lb_dots(const struct lb_dots *dots, int64_t m, int64_t n);

#endif
