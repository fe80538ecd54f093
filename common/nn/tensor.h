/* Tensors as views: who points here does not own. Dimensions are row-major, slowest first (Hugging Face's
 * order). */
#ifndef LB_NN_TENSOR_H
#define LB_NN_TENSOR_H

#include "common/nn/dtype.h"

#define LB_MAX_DIMS 4

/* A named tensor of a file. */
struct lb_tensor {
    const char *name;
    enum lb_dtype dtype;
    int n_dims; /* 0..LB_MAX_DIMS; 0 is a scalar */
    int64_t dim[LB_MAX_DIMS];
    const void *data;
    size_t bytes;
};

/* A parameter of a model as ops see it: a matrix [rows, cols], or a vector with rows 1.
 * Serving: data is the mapped file, in the file's format. Training: data is FP32, writable through value, and
 * grad has the same shape. */
struct lb_weight {
    const char *name; /* Hugging Face's name */
    int64_t rows, cols;
    enum lb_dtype dtype;
    const void *data; /* [rows, cols] */
    float *value;     /* data when trainable, else NULL */
    float *grad;      /* [rows, cols], accumulated; NULL when not trainable, or frozen */
    int n_dims;       /* 1 for vectors, 2 for matrices: weight decay applies to matrices only */
    /* > 0: the rows of each so many (a head's) are stored as llama.cpp keeps those that rotary positions
     * turn, those of both halves in turn: see lb_weight_row */
    int64_t interleaved;
    void *packed; /* room for a form that the kernels behind gemm.h keep beside data; NULL: they read data */
};

/* Where row r is stored, in formats other than F32 (which are never interleaved); row_bytes: of one row. */
static inline const void *lb_weight_row(const struct lb_weight *w, int64_t r, size_t row_bytes) {
    int64_t half = w->interleaved / 2;
    if (half > 0) {
        int64_t in = r % (2 * half);
        r += 2 * (in % half) + in / half - in;
    }
    return (const char *)w->data + (size_t)r * row_bytes;
}

/* One matrix of activations on the tape: N rows of C floats, rows of all sequences one after the other. */
struct lb_value {
    float *data; /* [rows, cols] */
    float *grad; /* [rows, cols] dL/d(data); NULL until backward (or a loss) first writes it */
    int64_t rows, cols;
    /* An input, or made of such and of frozen weights alone: nobody asks for its gradient, and products need
     * not make it. In training told by lb_tape_is_constant. */
    bool constant;
    bool varies; /* some node made it of what is not constant */
};

/* A batch is the concatenation of its sequences' rows: sequence s owns rows offset[s] .. offset[s+1]-1. */
struct lb_ragged {
    int64_t n_seqs;
    const int32_t *offsets; /* [n_seqs + 1], offsets[0] = 0 */
};

#endif
