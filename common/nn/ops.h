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

/* norm.c        out = x * rsqrt(mean(x^2) + eps) * w      per row; w [C] */
struct lb_value *lb_rmsnorm(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w, float eps);
/* norm.c        out = (x - mean) * rsqrt(var + eps) * w + b */
struct lb_value *lb_layernorm(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                              const struct lb_weight *bias, float eps);

/* rope.c        Rotates the halves of each head (NEOX order, as Hugging Face stores llama): for j < D/2,
 *               (a, b) = (x[j], x[j + D/2]) -> (a cos - b sin, b cos + a sin), angle = position *
 * theta^(-2j/D). In place: returns x. positions [N]; heads * D = x->cols. */
struct lb_value *lb_rope(struct lb_tape *tape, struct lb_value *x, int heads, const int32_t *positions,
                         float theta);

/* Keys and values of earlier positions, one layer; and which of their rows are a sequence's. */
struct lb_kv_layer {
    float *k, *v; /* [rows of all sequences, G * D] */
};
struct lb_kv_place {
    int64_t begin;            /* first row in every layer */
    int64_t length, capacity; /* rows held, and that there is room for */
};
struct lb_attention_args {
    int heads;    /* H */
    int kv_heads; /* G, divides H */
    int head_dim; /* D */
    float scale;  /* of the scores, usually 1/sqrt(D) */
    int window;   /* a row sees itself and window - 1 rows before it; 0: all */
    /* Generation (plain mode): the k and v of each sequence are appended behind what its place holds of kv,
     * where there is room for them, and its rows attend to all. The places' lengths stay: they are of all
     * layers. */
    struct lb_kv_layer *kv;
    const struct lb_kv_place *kv_places; /* [sequences of the batch] */
    bool want_probs;                     /* also return the probabilities */
};
/* attention.c   Causal grouped-query attention over the ragged batch; q [N, H*D], k and v [N, G*D], out [N,
 * H*D]. Online softmax over key blocks: no [T, T] memory, saved for backward: log-sum-exp [N, H]. probs
 * (want_probs): rows sum over sequences of H * T_s * T_s, one column: for each sequence [H, T, T] (zero above
 * the diagonal); its gradient, where a loss writes one, flows back into q and k. */
struct lb_value *lb_attention(struct lb_tape *tape, struct lb_value *q, struct lb_value *k,
                              struct lb_value *v, const struct lb_attention_args *args,
                              struct lb_value **out_probs);

/* activation.c  out = silu(gate) * up,  silu(x) = x / (1 + exp(-x)) */
struct lb_value *lb_swiglu(struct lb_tape *tape, struct lb_value *gate, struct lb_value *up);
/* activation.c  gelu: tanh form (gelu_new, gelu_pytorch_tanh) or exact by erf */
struct lb_value *lb_gelu(struct lb_tape *tape, struct lb_value *x, bool tanh_form);
struct lb_value *lb_relu(struct lb_tape *tape, struct lb_value *x);

/* elementwise.c out = a + b; plain mode: in place, returns a */
struct lb_value *lb_add(struct lb_tape *tape, struct lb_value *a, struct lb_value *b);
/* elementwise.c training: each element is 0 with probability p, else x / (1 - p); plain mode: returns x */
struct lb_value *lb_dropout(struct lb_tape *tape, struct lb_value *x, float p);

#endif
