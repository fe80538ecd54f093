/* What a model is, apart from its weights, read and written by tables of keys: Hugging Face's config.json,
 * and the same as GGUF keys. Which keys there are and what a missing one means is a family's matter: it gives
 * a struct lb_config_form (common/model has them; common/model/families.h finds the right one).
 *
 * A key is known and used (the form's tables), known and harmless (config_known.c, the one list), known and
 * unsupported (refused unless it has its neutral value), or unknown: then a note names it, or, where its name
 * speaks of what would change the numbers (rope, attention, scale, norm, cap, window, bias, activation), it
 * is refused. */
#ifndef LB_FORMATS_CONFIG_H
#define LB_FORMATS_CONFIG_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/notes.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/formats/gguf.h"
#include "common/formats/labels.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_MLP_MAX_HIDDEN 8
#define LB_MAX_ENDS 32

/* Tokens that end a text, the first of them what training puts behind one. */
struct lb_ends {
    int64_t n, ids[LB_MAX_ENDS];
};
#define LB_MAX_LAYERS 4096
#define LB_MAX_EXPERTS 4096
#define LB_MAX_ROPE_FACTORS 128 /* half of the widest head */

/* How rotary positions are stretched beyond the length that a model was first trained on. */
enum lb_rope_type {
    LB_ROPE_DEFAULT,
    LB_ROPE_LINEAR,
    LB_ROPE_DYNAMIC, /* max_position_embeddings is factor times original then: see config_rope.c */
    LB_ROPE_YARN,
    LB_ROPE_LONGROPE,
    LB_ROPE_LLAMA3
};
struct lb_rope_scaling {
    int64_t type;                                        /* enum lb_rope_type */
    int64_t original;                                    /* original_max_position_embeddings */
    double factor;                                       /* 0: max_position_embeddings / original */
    double attention_factor;                             /* 0: what the type's formula gives */
    double low_freq_factor, high_freq_factor;            /* llama3 */
    double beta_fast, beta_slow, mscale, mscale_all_dim; /* yarn; 0: not given */
    int64_t untruncated;                                 /* yarn: 1 where truncate is false */
    int64_t n_factors;                                   /* longrope: of each frequency's wavelength */
    double short_factor[LB_MAX_ROPE_FACTORS], long_factor[LB_MAX_ROPE_FACTORS];
};

/* One bit a layer. */
struct lb_layer_set {
    uint8_t bits[LB_MAX_LAYERS / 8];
};
static inline bool lb_layer_has(const struct lb_layer_set *set, int64_t layer) {
    return (set->bits[layer / 8] >> (layer % 8) & 1) != 0;
}
static inline void lb_layer_put(struct lb_layer_set *set, int64_t layer) {
    set->bits[layer / 8] |= (uint8_t)(1u << (layer % 8));
}

/* Zero means "not given" where zero makes no sense. */
struct lb_config {
    char model_type[32]; /* "llama", "limbeck_mlp", ... : names the family */
    /* decoders */
    int64_t vocab_size, hidden_size, intermediate_size, num_hidden_layers;
    int64_t num_attention_heads, num_key_value_heads, head_dim, max_position_embeddings;
    bool head_dim_rounded; /* it was not given, and hidden_size is no multiple of num_attention_heads */
    double norm_eps, rope_theta;
    bool tie_word_embeddings;
    bool attention_bias;                              /* of q, k, v and o */
    bool qkv_bias;                                    /* of q, k and v, none of o */
    bool mlp_bias;                                    /* of gate, up and down */
    int64_t bos_token_id, eos_token_id, pad_token_id; /* -1: none */
    int64_t n_more_eos, more_eos[LB_MAX_ENDS - 1];    /* where eos_token_id is a list: behind the first */
    double initializer_range;                         /* 0.02 */
    struct lb_rope_scaling rope;
    double rope_local_theta;      /* base of layers with a window, which are never scaled; 0: as the others */
    double partial_rotary_factor; /* of head_dim; 0: 1 */
    int64_t rotary_dims;          /* the same as a number of head_dim's; once a config is read */
    struct lb_layer_set no_rope;  /* layers without rotary positions */
    /* Layers of the set see that many positions; once a config is read the window is 0 (and
     * use_sliding_window false) where no layer has one or none could leave it. */
    int64_t sliding_window;
    bool use_sliding_window;
    struct lb_layer_set sliding;
    double attention_multiplier;                      /* of scores; 0: 1 / sqrt(query_pre_attn_scalar) */
    int64_t query_pre_attn_scalar;                    /* 0: head_dim */
    double attention_softcap;                         /* of scores; 0: none */
    double embedding_multiplier, residual_multiplier; /* 0: 1 */
    double logit_scale; /* logits are divided by it (transformers' logits_scaling, llama.cpp's logit_scale);
                           0: 1 */
    double
        logit_softcap; /* then become softcap tanh(logit / softcap) (final_logit_softcapping); 0: they stay */
    bool use_parallel_residual; /* attention and feed-forward read the same stream */
    /* mixtures of experts: in each layer, of which a row asks so many; 0: there are none */
    int64_t num_experts, num_experts_per_tok;
    int64_t moe_intermediate_size; /* of an expert; 0: intermediate_size */
    bool norm_topk_prob;           /* the weights of those that are asked sum to one */
    /* encoders: kinds of segments of which an embedding is added, 0: none; rows of learned positions where
     * the first ones stand for no position (max_position_embeddings is how many do) */
    int64_t type_vocab_size, position_rows;
    /* While a config is read: how layers without a list of types come to have one. */
    int64_t n_layer_types, n_rope_layers; /* how long the lists are; 0: there is none */
    int64_t max_window_layers;            /* layers from this on have the window; */
    int64_t window_pattern, rope_pattern; /* > 0: every n-th is without window; without rotary positions */
    /* classifiers: how many classes there are; 0: there is no such head. Of texts (a class of transformers'
     * ...ForSequenceClassification), or, where there is an input_size, of features: input_size ->
     * hidden_sizes... -> num_labels */
    int64_t num_labels;
    int64_t input_size;
    int64_t n_hidden;
    int64_t hidden_sizes[LB_MLP_MAX_HIDDEN];
    double input_dropout, hidden_dropout;
    /* of transformers, in training only: of attention's probabilities, of what blocks add to the stream, of
     * the embeddings; 0: none */
    double attention_dropout, residual_dropout, embedding_dropout;
};

enum lb_key_kind {
    /* Fields of struct lb_config. null and a missing key mean the form's own value. */
    LB_KEY_INT,    /* int64_t in [min, max] */
    LB_KEY_REAL,   /* double in [min, max] */
    LB_KEY_BOOL,   /* bool */
    LB_KEY_TOKEN,  /* int64_t: an id of the vocabulary, a list (of bos and pad the first counts), null or -1
                      for none */
    LB_KEY_LABELS, /* int64_t: num_labels, of files whose architectures name the form's sequence_class */
    LB_KEY_WIDTHS, /* hidden_sizes, n_hidden */
    /* What a value may be without changing the numbers; missing is neutral too. */
    LB_KEY_ONLY_TEXT,   /* only */
    LB_KEY_ONLY_NUMBER, /* min or max, also as false and true */
    LB_KEY_ANY,         /* anything: harmless */
    /* config.json's own */
    LB_KEY_MODEL_TYPE,
    LB_KEY_CLASS, /* "architectures" */
    LB_KEY_DTYPE, /* a text; how weights are stored is seen by the files */
    LB_KEY_ROPE, /* an object of rope_type, its parameters, and rope_theta, the field; GGUF: .rope.scaling. */
    LB_KEY_LAYER_TYPES, /* full_attention, or sliding_attention where there is a window */
    LB_KEY_ROPE_LAYERS, /* 1, or 0 for a layer without rotary positions */
    LB_KEY_PACKED,      /* quantization_config: null */
    LB_KEY_EMPTY,       /* null or [] */
    /* GGUF's own */
    LB_KEY_SAME, /* must be what the int64_t field is */
    LB_KEY_HAS,  /* bool field: whether there is a tensor of that name */
    LB_KEY_LACKS,
    LB_KEY_ROWS /* int64_t: of the tensor of that name; 0: there is none */
};
enum {
    LB_KEY_NEEDED = 1,
    LB_KEY_NULL_IS_0 =
        2, /* LB_KEY_INT and REAL: null is 0 ("none", "as many as ..."), and 0 is written as null */
    LB_KEY_WRITTEN = 4,   /* other kinds than fields: written too (of LB_KEY_ANY: only, as JSON) */
    LB_KEY_FILE_ONLY = 8, /* a field that only files give: no key for a new model, not written to GGUF */
    LB_KEY_PASSING = 16   /* a field that settles others: neither written nor hashed */
};

struct lb_config_key {
    const char *name; /* GGUF: ".block_count" stands for "<architecture>.block_count" */
    enum lb_key_kind kind;
    unsigned flags;
    size_t field; /* offsetof in struct lb_config */
    double min, max;
    const char *only;
};

/* The rows that tables of config.json begin with, and those about tokens. */
#define LB_KEYS_OF_CLASS                                                                                     \
    {"model_type", LB_KEY_MODEL_TYPE}, {"architectures", LB_KEY_CLASS},                                      \
        {"dtype", LB_KEY_DTYPE}, /* transformers 5, and 4: */                                                \
    {                                                                                                        \
        "torch_dtype", LB_KEY_DTYPE                                                                          \
    }
/* flags: LB_KEY_FILE_ONLY where a new model has no such head. */
#define LB_KEY_OF_LABELS(flags)                                                                              \
    { "num_labels", LB_KEY_LABELS, (flags), offsetof(struct lb_config, num_labels), 0, LB_MAX_LABELS }
#define LB_KEYS_OF_TOKENS                                                                                    \
    {"bos_token_id", LB_KEY_TOKEN, 0, offsetof(struct lb_config, bos_token_id)},                             \
        {"eos_token_id", LB_KEY_TOKEN, 0, offsetof(struct lb_config, eos_token_id)},                         \
        {"pad_token_id", LB_KEY_TOKEN, 0, offsetof(struct lb_config, pad_token_id)}, {                       \
        "initializer_range", LB_KEY_REAL, 0, offsetof(struct lb_config, initializer_range), 0, 1             \
    }

/* The rows that tables of GGUF's keys begin with. */
#define LB_GGUF_KEYS_OF_SIZES                                                                                \
    {".context_length", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, max_position_embeddings)},     \
        {".embedding_length", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, hidden_size)},           \
        {".block_count", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, num_hidden_layers)},          \
        {".feed_forward_length", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, intermediate_size)},  \
        {".vocab_size", LB_KEY_INT, 0, offsetof(struct lb_config, vocab_size)}, {                            \
        ".attention.head_count", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, num_attention_heads)  \
    }

/* What the configs of one family look like. Tables of keys end with a NULL name and are read in their order;
 * a name hides the same name in later ones. vocab_size stands before tokens, layers and windows before layer
 * types. */
struct lb_config_form {
    const char *model_type;
    const char *class_name;     /* transformers' class */
    const char *sequence_class; /* the same with a head that classifies texts; NULL: there is none */
    struct lb_config missing;   /* what missing keys of config.json mean */
    const struct lb_config_key *keys[3];
    const char *gguf; /* general.architecture; NULL: the family has none */
    const struct lb_config_key *gguf_keys[3];
    /* May be NULL: fills what GGUF files leave to llama.cpp to know; called before settle. */
    void (*settle_gguf)(struct lb_config *config);
    /* Fills what follows from other fields; called before check. */
    void (*settle)(struct lb_config *config);
    /* Whether the fields, each within its key's range, fit each other. */
    enum lb_status (*check)(const struct lb_config *config, const char *what, struct lb_detail *detail);
};

/* Reads and checks a config.json object of the form's model_type. Missing keys mean what they mean to
 * transformers' class; what would change the numbers and is not computed is LB_E_UNSUPPORTED. what names the
 * file in errors and notes. */
LB_NODISCARD enum lb_status lb_config_read(const struct lb_config_form *form, const json_t *object,
                                           const char *what, struct lb_config *out, struct lb_notes *notes,
                                           struct lb_detail *detail);
/* The i-th key of the form alone. LB_E_NOTFOUND: there is no i-th key. */
LB_NODISCARD enum lb_status lb_config_read_key(const struct lb_config_form *form, const json_t *object,
                                               const char *what, size_t i, struct lb_detail *detail);
/* The same from the keys of a GGUF of the form's architecture. */
LB_NODISCARD enum lb_status lb_config_read_gguf(const struct lb_config_form *form, const struct lb_gguf *file,
                                                const char *what, struct lb_config *out,
                                                struct lb_notes *notes, struct lb_detail *detail);
/* One id, a list of them, or null or NULL for none: each once, each within the vocabulary; -1 is how some
 * write null. what and key name the place in errors. */
LB_NODISCARD enum lb_status lb_config_read_ends(const json_t *value, int64_t vocab_size, const char *what,
                                                const char *key, struct lb_ends *out,
                                                struct lb_detail *detail);
/* eos_token_id of a config, as the list that it may be. */
struct lb_ends lb_config_ends(const struct lb_config *config);
void lb_config_set_ends(struct lb_config *config, const struct lb_ends *ends);
bool lb_ends_has(const struct lb_ends *ends, int64_t id);
/* Checks ranges, and that the numbers fit each other. */
LB_NODISCARD enum lb_status lb_config_check_form(const struct lb_config_form *form,
                                                 const struct lb_config *config, const char *what,
                                                 struct lb_detail *detail);
/* The config.json that transformers reads, as text; labels: of a classifier of texts, else NULL; dtype_name:
 * "float32", "float16", "bfloat16". The config is checked first. */
LB_NODISCARD enum lb_status lb_config_write_form(const struct lb_config_form *form,
                                                 const struct lb_config *config,
                                                 const struct lb_labels *labels, const char *dtype_name,
                                                 struct lb_buf *buf);
/* The form's keys of its architecture; errors are reported when out is written. */
void lb_config_put_gguf(const struct lb_config_form *form, const struct lb_config *config,
                        struct lb_gguf_out *out);
/* Adds what decides a model's numbers to hash: the family, and the fields that are not what a missing key
 * means (so a key that comes later changes no hash). */
void lb_config_hash(const struct lb_config_form *form, const struct lb_config *config,
                    struct lb_sha256 *hash);
/* Whether the form has that key, and reads, writes and hashes its field; NULL: no. */
const struct lb_config_key *lb_config_find_key(const struct lb_config_form *form, const char *name);
/* The i-th key whose value is a new model's to choose; NULL after the last. */
const char *lb_config_own_key(const struct lb_config_form *form, size_t i);

#endif
