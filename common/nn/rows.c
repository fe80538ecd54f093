/* Some rows of a value, in any order. */
#include "common/nn/ops.h"

#include <string.h>

/* dx[rows[i],:] += dout[i,:]; rows that were not taken get nothing. */
static void rows_backward(struct lb_tape *tape, struct lb_node *node) {
    const int32_t *rows = node->extra;
    struct lb_value *x = node->in[0];
    int64_t c = x->cols;
    if (lb_grad_fresh(tape, x)) {
        lb_copy_floats(x->grad, NULL, x->rows * c);
    }
    for (int64_t i = 0; x->grad != NULL && i < node->out->rows; i++) {
        const float *from = node->out->grad + i * c;
        float *to = x->grad + rows[i] * c;
        for (int64_t j = 0; j < c; j++) {
            to[j] += from[j];
        }
    }
}

struct lb_value *lb_rows(struct lb_tape *tape, struct lb_value *x, const int32_t *rows, int64_t n) {
    struct lb_value *out = x != NULL ? lb_tape_value(tape, n, x->cols) : NULL;
    if (out == NULL) {
        return NULL;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(out->data + i * x->cols, x->data + rows[i] * x->cols, (size_t)x->cols * sizeof *out->data);
    }
    struct lb_node *node = lb_tape_push(tape, rows_backward, out);
    if (node != NULL) {
        node->in[0] = x;
        node->extra = rows;
    }
    return lb_tape_status(tape) == LB_OK ? out : NULL;
}
