#include "common/nn/ops.h"

#include <assert.h>
#include <string.h>

#define PARALLEL_FROM 16384 /* elements */

/* Columns first .. first + width - 1 of each of the groups that a row is made of. */
struct columns {
    int64_t groups, period, first, width;
};

/* out [n, groups * width] from x [n, groups * period], or back: x += out. */
static void copy_columns(const struct columns *c, float *x, float *out, int64_t n, bool back) {
#pragma omp parallel for schedule(static) if (n * c->groups * c->width > PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        for (int64_t g = 0; g < c->groups; g++) {
            float *wide = x + (i * c->groups + g) * c->period + c->first;
            float *narrow = out + (i * c->groups + g) * c->width;
            if (!back) {
                memcpy(narrow, wide, (size_t)c->width * sizeof *narrow);
                continue;
            }
#pragma omp simd
            for (int64_t j = 0; j < c->width; j++) {
                wide[j] += narrow[j];
            }
        }
    }
}

static void columns_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_value *x = node->in[0];
    if (lb_grad_fresh(tape, x)) { /* the other columns are others' */
        lb_copy_floats(x->grad, NULL, x->rows * x->cols);
    }
    if (x->grad != NULL) {
        copy_columns(node->extra, x->grad, node->out->grad, x->rows, true);
    }
}

struct lb_value *lb_columns(struct lb_tape *tape, struct lb_value *x, int64_t groups, int64_t first,
                            int64_t width) {
    if (x == NULL) {
        return NULL;
    }
    assert(groups > 0 && x->cols % groups == 0 && first >= 0 && first + width <= x->cols / groups);
    struct lb_value *out = lb_tape_value(tape, x->rows, groups * width);
    struct columns *c = lb_tape_bytes(tape, sizeof *c);
    if (out == NULL || c == NULL) {
        return NULL;
    }
    *c = (struct columns){groups, x->cols / groups, first, width};
    copy_columns(c, x->data, out->data, x->rows, false);
    struct lb_node *node = lb_tape_push(tape, columns_backward, out);
    if (node != NULL) {
        node->in[0] = x;
        node->extra = c;
    }
    return lb_tape_status(tape) == LB_OK ? out : NULL;
}
