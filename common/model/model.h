/* Models: opened from files or made new, run forward over ops, saved.
 *
 * A model opened for serving maps its file and keeps the weights as stored. A trainable one holds FP32
 * masters and gradients, one block each. Forward never changes a model; one forward at a time per tape.
 */
#ifndef LB_MODEL_MODEL_H
#define LB_MODEL_MODEL_H

#include "common/base/status.h"
#include "common/formats/config.h"
#include "common/nn/head.h"
#include "common/nn/ops.h"

struct lb_model;
struct lb_tokenizer;

/* path: a Hugging Face folder (config.json, model.safetensors or its index) or a .gguf file. trainable: copy
 * the weights into FP32 masters. Errors name file, tensor, and both shapes. Every tensor is a weight of the
 * config's family, harmless, or refused by name; see also lb_model_notes. */
LB_NODISCARD enum lb_status lb_model_open(const char *path, bool trainable, struct lb_model **out,
                                          struct lb_detail *detail);
/* A new trainable model: matrices N(0, initializer_range), projections back into the residual stream divided
 * by sqrt(2 L), norms 1, biases 0. The same seed gives the same bits. */
LB_NODISCARD enum lb_status lb_model_create(const struct lb_config *config, uint64_t seed,
                                            struct lb_model **out, struct lb_detail *detail);
/* What of each block stays, NULL: all of it. Each block's places ascend. */
struct lb_narrowing {
    int64_t intermediate_size;
    const int64_t *neurons; /* [layers, intermediate_size] of the feed-forward */
    int64_t num_key_value_heads;
    const int64_t *heads; /* [layers, num_key_value_heads] heads of keys and values, each with its queries' */
};
/* Whether that can be done to the model, whichever places they are; errors as below. */
LB_NODISCARD enum lb_status lb_model_narrows(const struct lb_model *from, const struct lb_narrowing *how,
                                             struct lb_detail *detail);
/* A trainable model of these neurons and heads of another decoder: what is left out adds nothing to the
 * residual stream any more, all else is the same. LB_E_UNSUPPORTED: encoders, classifiers, experts, families
 * whose matrices are joined. */
LB_NODISCARD enum lb_status lb_model_narrow(const struct lb_model *from, const struct lb_narrowing *how,
                                            struct lb_model **out, struct lb_detail *detail);
/* A trainable model of n layers of the one that path names, in that order (counted from 0, each at most
 * once), and all that is not of a layer. LB_E_ARG: no such layer, or a model without layers. */
LB_NODISCARD enum lb_status lb_model_from_layers(const char *path, const int64_t *layers, size_t n,
                                                 struct lb_model **out, struct lb_detail *detail);
/* The same with a new head that tells num_labels classes of texts apart (its weights as lb_model_create makes
 * them), in place of the head that there may be; layers NULL: all. LB_E_ARG: a model that classifies already,
 * or no such head goes on it. */
LB_NODISCARD enum lb_status lb_model_with_classes(const char *path, const int64_t *layers, size_t n,
                                                  int64_t num_labels, uint64_t seed, struct lb_model **out,
                                                  struct lb_detail *detail);
void lb_model_destroy(struct lb_model *model);

const struct lb_config *lb_model_config(const struct lb_model *model);
/* Tokens at which generation stops: what generation_config.json beside the weights names, else config.json,
 * as with transformers. */
const struct lb_ends *lb_model_ends(const struct lb_model *model);
/* Training puts token id behind each text: from now on it is one of those that end one, here and in what is
 * saved. LB_E_LIMIT: there are too many. */
LB_NODISCARD enum lb_status lb_model_train_end(struct lb_model *model, int64_t id, struct lb_detail *detail);
/* What a person should know about the files that were opened, though nothing failed: keys that are not known,
 * which of two contradicting things was taken (lb_log_notes tells them). */
const struct lb_notes *lb_model_notes(const struct lb_model *model);
/* 64 hex digits of SHA-256 over weights, config and tokenizer as they were understood; "" for a model not
 * opened from files. */
const char *lb_model_fingerprint(const struct lb_model *model);
/* Of a model that maps its files: the first that was written to since it was opened, so that the fingerprint
 * may be another model's; NULL. */
const char *lb_model_written(const struct lb_model *model);
int64_t lb_model_parameters(const struct lb_model *model);
/* Bytes of the weights as stored. */
size_t lb_model_bytes(const struct lb_model *model);

/* All parameters in a fixed order; *out_n of them. */
const struct lb_weight *lb_model_weights(const struct lb_model *model, size_t *out_n);
/* What final hidden states are multiplied with to give logits; its weight is the embedding when tied, and
 * NULL for a model without logits. */
const struct lb_head *lb_model_head(const struct lb_model *model);
/* Whether there is one row of logits for each sequence: of classifiers. */
bool lb_model_is_classifier(const struct lb_model *model);
/* Of classifiers of texts what their classes are called; NULL: of others. */
const struct lb_labels *lb_model_labels(const struct lb_model *model);
/* From now on a classifier's classes are called so, as many as it has. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_model_set_labels(struct lb_model *model, const struct lb_labels *labels);
/* Columns of the final hidden states. */
int64_t lb_model_width(const struct lb_model *model);
/* Whether a position sees those up to it only, so that its logits are about the next token. */
bool lb_model_is_causal(const struct lb_model *model);

/* How an encoder makes one vector of a text: its rows pooled. What sentence-transformers' modules.json beside
 * the weights says; of a new encoder the mean, normalised. */
struct lb_sentence {
    enum lb_pool_kind kind; /* LB_POOL_NONE: it does not */
    bool normalize;
};
const struct lb_sentence *lb_model_sentence(const struct lb_model *model);
/* sentence_embedding [sequences, width] of final states, as lb_model_sentence says; NULL: see
 * lb_tape_status. */
struct lb_value *lb_model_pool(const struct lb_model *model, struct lb_tape *tape, struct lb_value *states);

/* Trainable: the blocks of *out_n floats that hold all masters and all gradients, in the order of
 * lb_model_weights. */
float *lb_model_values(struct lb_model *model, size_t *out_n);
float *lb_model_grads(struct lb_model *model, size_t *out_n);

/* Adds a trainable matrix [rows, cols] that is no part of the architecture (a loss's projection): it is in
 * lb_model_weights and the blocks, so that optimisers and checkpoints carry it, but not in saved models and
 * not counted. N(0, 1/sqrt(cols)) from the seed. Pointers from earlier calls of lb_model_weights, values,
 * grads, head are not. */
LB_NODISCARD enum lb_status lb_model_extend(struct lb_model *model, const char *name, int64_t rows,
                                            int64_t cols, uint64_t seed, struct lb_detail *detail);
/* How many of lb_model_weights, the first ones, are the architecture's own. */
size_t lb_model_own_weights(const struct lb_model *model);
/* Trains it without the dropout that its config has, of whatever family; what is saved has none. Whether
 * there was any. */
bool lb_model_disable_dropout(struct lb_model *model);
/* Trains no weight whose name the shell pattern matches (fnmatch: * and ? and [...]); returns how many there
 * are. What lb_model_extend added is not among them; it is to come first, since it makes all trainable again.
 */
size_t lb_model_freeze(struct lb_model *model, const char *pattern);
/* NULL when there is no weight of that name. */
const struct lb_weight *lb_model_find(const struct lb_model *model, const char *name);

/* One batch. Decoders read ids (each within the vocabulary, checked by the caller); classifiers read
 * features. */
struct lb_input {
    struct lb_ragged ragged;
    const int32_t *ids;    /* [N] */
    const float *features; /* [N, input_size]; each sequence is one row */
};

enum lb_tap_kind {
    LB_TAP_HIDDEN,    /* hidden_states.N: 0 the embeddings, N after block N; the last one after the final norm
                         (HF's convention) */
    LB_TAP_ATTENTION, /* attentions.N, N from 0: probabilities, per sequence [H, T, T] */
    LB_TAP_QUERIES,   /* queries.N, N from 0: block N's input times the weights of queries, and their bias,
                         before */
    LB_TAP_KEYS,      /* norms and rotary positions [N, H D], of keys.N and values.N [N, H_kv D] */
    LB_TAP_VALUES,
    LB_TAP_STREAM, /* residuals.N, N from 0: what block N leaves, of the last one too before the final norm */
    /* Of decoders, by block from 0: what the last products of attention [N, H D] and of the feed-forward
     * [N, F] read. */
    LB_TAP_HEADS,
    LB_TAP_NEURONS
};
struct lb_tap {
    enum lb_tap_kind kind;
    int layer;
    struct lb_value *value; /* filled by forward; lives as long as the tape's batch */
};

/* Keys and values of a batch's sequences, for generation: each has a past of its own. */
struct lb_kv {
    struct lb_kv_layer *layers;
    struct lb_kv_place *places; /* [n_seqs] in the order of the batch's sequences */
    int64_t n_seqs;
};
/* Empty, with room for capacity[s] positions of each of n_seqs sequences. LB_E_NOMEM, LB_E_LIMIT. */
LB_NODISCARD enum lb_status lb_kv_init(struct lb_kv *kv, const struct lb_model *model, int64_t n_seqs,
                                       const int64_t *capacity);
/* Whether the keys of a sequence that has grown to that length are no more those that were held before it (as
 * LongRoPE, which has other positions beyond the length that a model was first trained on): its whole then
 * goes through forward again, with a place of length 0. */
bool lb_model_turns_anew(const struct lb_model *model, int64_t length);
/* Sequence s leaves, those behind it move up; its memory stays until finish. */
void lb_kv_drop(struct lb_kv *kv, int64_t s);
void lb_kv_finish(struct lb_kv *kv);

/* The tape has begun with in->ragged. Returns the final hidden states [N, C] (after the final norm: what the
 * head multiplies); of a classifier of texts what its head multiplies, [sequences, C], and the tape's rows
 * are then these; NULL: see lb_tape_status. taps are checked by lb_model_check_tap first. kv (may be NULL;
 * plain mode; for decoders): as many sequences as the batch, whose rows go on where its places end, which
 * grow; they have room for that. */
struct lb_value *lb_model_forward(const struct lb_model *model, struct lb_tape *tape,
                                  const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                  struct lb_kv *kv);
/* Whether the model has this tap; LB_E_ARG names the range. */
enum lb_status lb_model_check_tap(const struct lb_model *model, enum lb_tap_kind kind, int layer,
                                  struct lb_detail *detail);

/* Columns of a tap that the model has; 0 for attention, whose shape is the batch's. */
int64_t lb_model_tap_width(const struct lb_model *model, enum lb_tap_kind kind, int layer);

/* Writes a Hugging Face folder: config.json, model.safetensors (F32, F16 or BF16), where there is a tokenizer
 * (may be NULL) tokenizer.json and the files that it was given with (common/text/beside.h), which are changed
 * only where training did other than they say, and readme (may be NULL) as README.md. The folder appears
 * complete or not at all. One that this program wrote before is replaced; anything else that stands there, or
 * a README.md that was changed since, is LB_E_ARG. */
LB_NODISCARD enum lb_status lb_model_save_hf(const struct lb_model *model, const char *dir,
                                             enum lb_dtype dtype, const struct lb_tokenizer *tokenizer,
                                             const char *readme, struct lb_detail *detail);
/* Writes a GGUF file (matrices of a type that lb_dtype_narrows; vectors F32), with the vocabulary of
 * tokenizer unless it is NULL. Matrices whose rows are no whole blocks become Q5_0 instead of Q4_K and Q8_0
 * instead of Q6_K where that fits, else F16, which is noted (notes may be NULL). */
LB_NODISCARD enum lb_status lb_model_save_gguf(const struct lb_model *model, const char *path,
                                               enum lb_dtype dtype, const struct lb_tokenizer *tokenizer,
                                               struct lb_notes *notes, struct lb_detail *detail);

#endif
