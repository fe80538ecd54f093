/* Inside of models: what a family gives, and the model that the families fill. Only common/model includes
 * this.
 *
 * Adding a family: one file with its struct lb_family, one line in families.c's table.
 */
#ifndef LB_MODEL_FAMILY_H
#define LB_MODEL_FAMILY_H

#include "common/model/model.h"

#define LB_WEIGHT_NAME 96

enum lb_init {
    LB_INIT_NORMAL,   /* N(0, initializer_range) */
    LB_INIT_RESIDUAL, /* the same divided by sqrt(2 L): writes into the residual stream */
    LB_INIT_FAN_IN,   /* N(0, sqrt(2 / cols)): before a ReLU (He et al. 2015) */
    LB_INIT_ONES,
    LB_INIT_ZEROS
};

/* One parameter that a family asks for. */
struct lb_weight_spec {
    char name[LB_WEIGHT_NAME]; /* Hugging Face's */
    char gguf[LB_WEIGHT_NAME]; /* GGUF's; "" when the family has none */
    int64_t rows, cols;        /* vectors: rows 1 */
    int n_dims;                /* 1 or 2 */
    enum lb_init init;
    int layer; /* -1: of no layer */
    /* How files differ (layout.h). rope_heads > 0: rows of so many heads that rotary positions turn;
     * qkv_heads > 0: rows of so many heads, each its q, k and v; transposed in Hugging Face's files;
     * less_one: GGUF files hold 1 + w. */
    int64_t rope_heads, qkv_heads;
    bool transposed, less_one;
    /* experts > 0: GGUF files hold so many of these stacked in one tensor, in the order in which they are
     * declared, one after the other; this is number expert. */
    int64_t experts, expert;
    bool exact; /* GGUF files hold it as F32 */
};

struct lb_spec_list {
    struct lb_weight_spec *items;
    size_t n, cap;
    enum lb_status status; /* sticky */
    int expert;            /* the second number of names */
};

/* Appends one; name and gguf are printf patterns that take the layer, and then list->expert. */
void lb_spec_add(struct lb_spec_list *list, const char *name, const char *gguf, int layer, int64_t rows,
                 int64_t cols, int n_dims, enum lb_init init);

/* A family: its configs, its weights, its forward. Those that are variants of one forward share its functions
 * (decoder.h). */
struct lb_decoder_traits;
struct lb_encoder_traits;
struct lb_classifier_traits;
struct lb_family {
    struct lb_config_form form;
    /* llama.cpp's converter interleaves the rotary halves of this family's q and k rows */
    bool gguf_permutes;
    /* Of variants of the decoder (decoder.h): NULL as llama's. */
    const struct lb_decoder_traits *traits;
    const struct lb_encoder_traits *encoder;       /* of encoders (encoder.h); NULL: no encoder */
    const struct lb_classifier_traits *classifier; /* of those that may classify texts (classifier.h) */
    const char *base; /* "model.": a prefix of names that some files lack; NULL: none */
    /* All parameters in the order that files and checkpoints have. */
    void (*declare)(const struct lb_config *config, struct lb_spec_list *list);
    /* Looks its weights up once (lb_model_weight) into memory of its own, freed with lb_free; NULL when out
     * of memory. */
    void *(*bind)(const struct lb_model *model);
    struct lb_value *(*forward)(const struct lb_model *model, struct lb_tape *tape, const struct lb_input *in,
                                struct lb_tap *taps, size_t n_taps, struct lb_kv *kv);
    const char *(*head)(const struct lb_config *config); /* name of the head's weight; NULL: there is none */
    /* Makes of a config, in place, the one that a GGUF gets; may be NULL: the same. */
    enum lb_status (*for_gguf)(struct lb_config *config, const char *what, struct lb_detail *detail);
    const char *head_bias; /* name, or NULL */
    /* What names of tensors begin with that files have for tasks of their own, and forward does not read; up
     * to a NULL. May be NULL. */
    const char *const *unread;
    bool has_attention;
};

/* NULL when there is none of that model_type. */
const struct lb_family *lb_family_find(const char *model_type);

struct lb_model {
    struct lb_config config;
    const struct lb_family *family;
    void *bound; /* the family's */
    struct lb_weight *weights;
    struct lb_weight_spec *specs; /* of the same order; weights' names point here */
    size_t n_weights;             /* all */
    size_t n_own;                 /* those of the family; what lb_model_extend added comes after */
    struct lb_head head;
    float *values, *grads; /* trainable: one block each */
    size_t n_values;
    /* serving: what the weights point into */
    struct lb_safetensors *safetensors;
    struct lb_gguf *gguf;
    void **owned; /* rows that had to be reordered */
    size_t n_owned;
    char fingerprint[65];
    struct lb_notes notes;                      /* of opening */
    struct lb_ends ends;                        /* generation stops there */
    struct lb_sentence sentence;                /* of encoders */
    struct lb_labels labels;                    /* of classifiers of texts */
    const struct lb_weight *dense, *dense_bias; /* classifier.c's; NULL: none */
};

/* sentence.c: what modules.json of a folder says; LB_POOL_NONE where there is none. LB_E_UNSUPPORTED names
 * what is not computed. */
LB_NODISCARD enum lb_status lb_sentence_read(const char *dir, struct lb_sentence *out,
                                             struct lb_detail *detail);
/* What a GGUF of that architecture says: its pooling_type, and our own key whether it is normalised, which
 * llama.cpp's files leave to who runs them: then it is, and a note says so. */
LB_NODISCARD enum lb_status lb_sentence_read_gguf(const struct lb_gguf *file, const char *architecture,
                                                  const char *what, struct lb_sentence *out,
                                                  struct lb_notes *notes, struct lb_detail *detail);
void lb_sentence_put_gguf(const struct lb_sentence *sentence, const char *architecture,
                          struct lb_gguf_out *out);
/* Writes the same for sentence-transformers, which reads max_length tokens then. */
LB_NODISCARD enum lb_status lb_sentence_write(const struct lb_sentence *sentence, int64_t width,
                                              int64_t max_length, const char *dir, struct lb_detail *detail);

/* fingerprint.c: fills model->fingerprint; path: the folder or file that it was opened from. Kept in the
 * user's cache folder for models that take long (memo.h). */
LB_NODISCARD enum lb_status lb_model_take_fingerprint(struct lb_model *model, const char *path, bool folder,
                                                      struct lb_detail *detail);
/* NULL when there is none of that name. */
const struct lb_weight *lb_model_weight(const struct lb_model *model, const char *name);
/* The tap of this kind and layer among taps gets v (kept across lb_tape_release). */
void lb_tap_offer(struct lb_tape *tape, struct lb_tap *taps, size_t n_taps, enum lb_tap_kind kind, int layer,
                  struct lb_value *v);
bool lb_tap_wanted(const struct lb_tap *taps, size_t n_taps, enum lb_tap_kind kind, int layer);

/* The steps of making a model. A model with all parameters declared, none of them pointing anywhere yet; what
 * names the config in errors. */
LB_NODISCARD enum lb_status lb_model_declare(const struct lb_config *config, const char *what,
                                             struct lb_model **out, struct lb_detail *detail);
/* One block of FP32 masters and one of gradients, each weight at a multiple of 16 floats; stored weights are
 * widened in. */
LB_NODISCARD enum lb_status lb_model_make_trainable(struct lb_model *model, struct lb_detail *detail);
/* Weight i's masters as a new model of that seed has them. */
void lb_model_initialise(struct lb_model *model, size_t i, uint64_t seed);
/* Finds the head and what forward needs, again after the weights moved. */
LB_NODISCARD enum lb_status lb_model_bind(struct lb_model *model, struct lb_detail *detail);

#endif
