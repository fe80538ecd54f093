/* The operations of models, each with its gradient beside it in its own file.
 *
 * Shapes: N rows (all sequences), C width, H query heads, G key/value heads, D head width. FP32 activations;
 * weights as stored (dequantised by panels). Rows are computed independently of their place in the batch, bit
 * for bit. Every op accepts NULL inputs and returns NULL then (see tape.h). Gradients accumulate.
 */
#ifndef LB_NN_OPS_H
#define LB_NN_OPS_H

#include "common/nn/tape.h"

#define LB_MAX_HEAD_DIM 256 /* D of attention: its blocks stand on the stack */

/* embedding.c   out[i,:] = table[ids[i],:]                ids [n] within the table (checked by the caller);
 * out [n, C] */
struct lb_value *lb_embedding(struct lb_tape *tape, const struct lb_weight *table, const int32_t *ids,
                              int64_t n);

/* linear.c      out = x W^T + b                           x [N, C], W [O, C], b [O] or NULL; out [N, O] */
struct lb_value *lb_linear(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                           const struct lb_weight *bias);

/* linear.c      out[i] = x W[i]^T + b[i], i < n, in one go; where one fails all are NULL, and false is
 * returned */
bool lb_linears(struct lb_tape *tape, struct lb_value *x, int n, const struct lb_weight *const w[],
                const struct lb_weight *const bias[], struct lb_value *out[]);

/* norm.c        out = x * rsqrt(mean(x^2) + eps) * w      per row; w [C]. All norms: where w is narrower than
 *               the rows, C / (columns of w) parts of each row by themselves, all with the same w. */
struct lb_value *lb_rmsnorm(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w, float eps);
/* norm.c        the same with 1 + w */
struct lb_value *lb_rmsnorm_one(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                                float eps);
/* norm.c        out = (x - mean) * rsqrt(var + eps) * w + b */
struct lb_value *lb_layernorm(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                              const struct lb_weight *bias, float eps);

enum lb_pool_kind {
    LB_POOL_NONE, /* there is nothing to pool */
    LB_POOL_MEAN, /* over the rows of a sequence */
    LB_POOL_FIRST /* its first row (CLS) */
};
/* pool.c        out[s,:] = mean of x's rows of sequence s, or its first row; normalize: then divided by its
 * length max(|out|, 1e-12). out [sequences of the tape's ragged, C] */
struct lb_value *lb_pool(struct lb_tape *tape, struct lb_value *x, enum lb_pool_kind kind, bool normalize);

/* rows.c        out[i,:] = x[rows[i],:]                   rows [n] within x's, in tape memory; out [n, C] */
struct lb_value *lb_rows(struct lb_tape *tape, struct lb_value *x, const int32_t *rows, int64_t n);

/* columns.c     out = x[:, g * (C / groups) + first + j], j < width, for each group g;  out [N, groups *
 * width] */
struct lb_value *lb_columns(struct lb_tape *tape, struct lb_value *x, int64_t groups, int64_t first,
                            int64_t width);

/* Angles of a batch's rows: made once, used by all layers. */
struct lb_rope_args {
    const int32_t *positions; /* [n] */
    int64_t n;                /* N */
    int64_t dims;             /* R, even: so many of each head's D are turned, the first ones */
    const double *frequency;  /* [sets, R / 2] radians a position; read while the table is made */
    const int32_t *set;       /* [n] whose frequencies a row takes; NULL: all the first set's */
    float factor;             /* of cosines and sines, usually 1 */
};
struct lb_rope_table;
/* In tape memory, so to be made before the mark of a block; NULL: see lb_tape_status. */
const struct lb_rope_table *lb_rope_table(struct lb_tape *tape, const struct lb_rope_args *args);
/* frequency[j] = theta^(-2j/R), j < R/2: what Su et al. 2021 take. */
void lb_rope_frequencies(double theta, int64_t dims, double *out);
/* rope.c        Rotates the halves of each head (NEOX order, as Hugging Face stores llama): for j < R/2,
 *               (a, b) = (x[j], x[j + R/2]) -> factor (a cos - b sin, b cos + a sin), angle = position *
 * frequency[j]. In place: returns x. heads * D = x->cols. */
struct lb_value *lb_rope(struct lb_tape *tape, struct lb_value *x, int heads,
                         const struct lb_rope_table *table);

/* Keys and values of earlier positions, one layer; and which of their rows are a sequence's. Keys lie by
 * blocks of positions, [G * D, LB_KV_BLOCK] each, so that those of a new row's neighbours are one vector. */
#define LB_KV_BLOCK 16
struct lb_kv_layer {
    float *k; /* [rows of all sequences / LB_KV_BLOCK, G * D, LB_KV_BLOCK] */
    float *v; /* [rows of all sequences, G * D] */
};
struct lb_kv_place {
    int64_t begin;            /* first row in every layer, where a block begins */
    int64_t length, capacity; /* rows held, and that there is room for: of whole blocks */
};
struct lb_attention_args {
    int heads;      /* H */
    int kv_heads;   /* G, divides H */
    int head_dim;   /* D */
    float scale;    /* of the scores, usually 1/sqrt(D) */
    float softcap;  /* scores become softcap tanh(score / softcap) (Gemma 2); 0: as they are */
    int window;     /* a row sees itself and window - 1 rows before it; 0: all */
    bool both_ways; /* of encoders: a row sees all rows of its sequence (no window, no kv); else those up to
                       itself */
    /* Generation (plain mode): the k and v of each sequence are appended behind what its place holds of kv,
     * where there is room for them, and its rows attend to all. The places' lengths stay: they are of all
     * layers. */
    struct lb_kv_layer *kv;
    const struct lb_kv_place *kv_places; /* [sequences of the batch] */
    bool want_probs;                     /* also return the probabilities */
    float dropout; /* in training: of the probabilities, before they weigh v; those that are returned have
                      none */
};
/* attention.c   Causal (or both_ways) grouped-query attention over the ragged batch; q [N, H*D], k and v [N,
 * G*D], out [N, H*D]. Online softmax over key blocks: no [T, T] memory, saved for backward: log-sum-exp [N,
 * H]. probs (want_probs): rows sum over sequences of H * T_s * T_s, one column: for each sequence [H, T, T]
 * (zero where a row does not see); its gradient, where a loss writes one, flows back into q and k. */
struct lb_value *lb_attention(struct lb_tape *tape, struct lb_value *q, struct lb_value *k,
                              struct lb_value *v, const struct lb_attention_args *args,
                              struct lb_value **out_probs);

/* activation.c  out = silu(gate) * up,  silu(x) = x / (1 + exp(-x)) */
struct lb_value *lb_swiglu(struct lb_tape *tape, struct lb_value *gate, struct lb_value *up);
/* activation.c  out = gelu(gate) * up, the tanh form */
struct lb_value *lb_geglu(struct lb_tape *tape, struct lb_value *gate, struct lb_value *up);
/* activation.c  gelu: tanh form (gelu_new, gelu_pytorch_tanh) or exact by erf */
struct lb_value *lb_gelu(struct lb_tape *tape, struct lb_value *x, bool tanh_form);
struct lb_value *lb_relu(struct lb_tape *tape, struct lb_value *x);
struct lb_value *lb_tanh(struct lb_tape *tape, struct lb_value *x);

struct lb_experts_args {
    const struct lb_weight *gate, *up, *down; /* arrays of E: [F, C], [F, C], [C, F] */
    int64_t asked;                            /* K of E */
    bool normalise;                           /* a row's K weights sum to one */
};
/* experts.c     p = softmax(logits); the K largest of a row's p, of equal ones the first, are the weights of
 * as many experts, each divided by their sum where normalise is set: out = sum_e weight_e
 *               down_e(swiglu(gate_e(x), up_e(x))), in the order of e. x [N, C], logits [N, E]; out [N, C].
 * An expert multiplies the rows that ask it, each sequence's by themselves. */
struct lb_value *lb_experts(struct lb_tape *tape, struct lb_value *x, struct lb_value *logits,
                            const struct lb_experts_args *args);

/* elementwise.c out = a + b; plain mode: in place, returns a */
struct lb_value *lb_add(struct lb_tape *tape, struct lb_value *a, struct lb_value *b);
/* elementwise.c out = factor x; plain mode: in place, returns x */
struct lb_value *lb_scale(struct lb_tape *tape, struct lb_value *x, float factor);
/* elementwise.c training: each element is 0 with probability p, else x / (1 - p); plain mode: returns x */
struct lb_value *lb_dropout(struct lb_tape *tape, struct lb_value *x, float p);

#endif
