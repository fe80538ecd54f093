/* What is asked of a teacher, what it says of itself, and its answers: one of several sequences, as tensors.
 * No I/O: any thread. */
#ifndef LB_WIRE_ANSWER_H
#define LB_WIRE_ANSWER_H

#include "common/base/status.h"
#include "common/formats/labels.h"
#include "common/nn/head.h"
#include "proto/outputs.h"
#include "proto/oip.h"
#include "trainer/wire/naming.h"
#include "trainer/wire/sample.h"

#define LB_MAX_ASKED 48 /* outputs of one teacher: all layers of a student, and their attention */

/* What is asked of one teacher for every sequence. */
struct lb_ask_spec {
    size_t n_outputs;
    struct {
        enum lb_output_kind kind;
        int layer;
        enum lb_datatype datatype;
    } outputs[LB_MAX_ASKED];
    int64_t top_k;
    double temperature; /* of logsumexp and logprobs.* */
    int64_t n_scored;   /* ids of each position, which samples bring as their further input score_ids */
    int64_t sample_count;
    uint64_t seed;
    double sample_temperature; /* of the draws; 0: the same as temperature */
    /* The vocabulary map that distributions are over, which the server was sent or is to be, and its ids; "":
     * all of the vocabulary. */
    char vocab_map[LB_SHA256_HEX];
    int64_t n_kept;
};

/* Most outputs that a teacher may list. */
#define LB_MAX_GIVEN 1024
#define LB_MAX_MODEL_ID 1024 /* bytes, with a NUL: of a path that a server has for a name */

struct lb_teacher_info;

#define LB_KERNELS_TEXT 128
#define LB_LABELS_TEXT 8192

/* What a server without a fingerprint answered to the question that is asked of all such: a number for each
 * of its positions. Servers round otherwise at another time, so answers are the same when these are near. */
#define LB_PROBE_POSITIONS 32
enum lb_probe { LB_PROBE_LOGPROBS, LB_PROBE_STATES, LB_N_PROBES };
struct lb_told_probe {
    int n; /* 0: not answered */
    float at[LB_PROBE_POSITIONS];
};
/* The mean distance of two answers; INFINITY where they have unlike numbers of positions or one is NaN. */
double lb_probe_distance(const struct lb_told_probe *a, const struct lb_told_probe *b);
/* What it may be at most for the same model: nats, or for states a share of their size. */
#define LB_PROBE_SLACK 0.05
bool lb_probe_same(const struct lb_teacher_info *info, enum lb_probe which, const struct lb_told_probe *now);

/* What a teacher says of itself (GET /v2/models/M). */
struct lb_teacher_info {
    char fingerprint[LB_SHA256_HEX];
    char tokenizer_fingerprint[LB_SHA256_HEX]; /* "" when it has none */
    char chat_template_hash[LB_SHA256_HEX];    /* "": it has no chat template, or does not tell */
    char compute[LB_SHA256_HEX];               /* which bits its machine computes; "": not told */
    char kernels[LB_KERNELS_TEXT];             /* what explains that, for people; "": not told */
    bool batch_dependent;                      /* it says that its answers depend on what else it computes */
    bool knows_start;                          /* it can be asked about a sequence's later positions alone */
    bool any_compute; /* not told but decided here: answers of other bits are as good (allow_other_kernels) */
    char model[LB_MAX_NAME];
    char model_id[LB_MAX_MODEL_ID]; /* by which a server without a fingerprint must be asked for it */
    /* vocab_size: columns of its logits; num_labels: the same of classifiers, 0 of others (and of those of
     * features that do not tell); n_ids: ids that a classifier of texts reads */
    int64_t vocab_size, hidden_size, n_layers, n_heads, max_length, input_size, num_labels, n_ids;
    enum lb_problem problem;     /* of classifiers of texts */
    char labels[LB_LABELS_TEXT]; /* what they call their classes, each ended by a NUL; "": plain names */
    int64_t parameters, bytes;   /* 0: not told */
    int64_t max_vocab_maps;      /* vocabulary maps that it keeps; 0: requests may not name one */
    int64_t most_top_k;          /* most ids of a row that it lists; 0: any number */
    bool tells_most;             /* it said so itself; else it is what such servers do by default */
    bool plain_only;             /* its distributions are at temperature 1, whatever is asked */
    /* Of servers without a fingerprint (stated.h), which have one made of these: */
    char stated[LB_SHA256_HEX]; /* of what it says of itself alone; "": it has a fingerprint */
    unsigned serves;            /* bits of its dialect's own */
    int n_probe_ids;
    int32_t probe_ids[LB_PROBE_POSITIONS];
    struct lb_told_probe probe[LB_N_PROBES];
    struct lb_named named; /* tensors that a recipe named */
    size_t n_given;        /* 0: it does not list what it gives */
    struct lb_given {
        uint16_t kind, layer; /* lb_output_kind */
        int32_t width;        /* the last dimension; 0: the request decides it */
    } given[LB_MAX_GIVEN];
};

/* One teacher's answer about one sequence of n positions, from the position first on. Tensors lack the batch
 * dimension: [n - first, ...]. */
struct lb_answer {
    int64_t first;
    size_t n_tensors;
    struct lb_output_name what[LB_MAX_ASKED];    /* the tensors' names, parsed */
    struct lb_wire_tensor tensors[LB_MAX_ASKED]; /* in the order of the spec */
};

/* A teacher's output head, downloaded once: FP32. */
struct lb_teacher_head {
    float *weight; /* [V, C] */
    float *bias;   /* [V] or NULL */
    int64_t vocab_size, hidden_size;
    struct lb_head_shape shape;
};
void lb_teacher_head_finish(struct lb_teacher_head *head);

/* What computed an answer, as one text: "FINGERPRINT:COMPUTE", or the fingerprint alone where compute is not
 * told or any will do. Answers of one identity have the same bits. */
#define LB_IDENTITY_TEXT (2 * LB_SHA256_HEX)
void lb_info_identity(const struct lb_teacher_info *info, char out[LB_IDENTITY_TEXT]);

/* Whether two samples' further inputs (NULL: none) can travel in one request. */
bool lb_extra_alike(const struct lb_extra *a, const struct lb_extra *b);
/* Whether two specs ask for the same. */
bool lb_spec_same(const struct lb_ask_spec *a, const struct lb_ask_spec *b);
/* The datatype of output j: its own where the spec says none. */
enum lb_datatype lb_spec_datatype(const struct lb_ask_spec *spec, size_t j);
/* Whether any output depends on top_k, or on whatever else of LB_USES_... */
bool lb_spec_uses(const struct lb_ask_spec *spec, unsigned uses);

/* Classes of the distributions that spec asks for: ids of its map, or all. */
int64_t lb_spec_vocab(const struct lb_ask_spec *spec, const struct lb_teacher_info *info);

/* The entry of given of this kind and layer; NULL where it is not listed. */
const struct lb_given *lb_info_given(const struct lb_teacher_info *info, enum lb_output_kind kind, int layer);
/* Ids below it are tokens that the teacher reads. */
int64_t lb_info_ids(const struct lb_teacher_info *info);
/* Whether the output is one row a sequence, with no dimension for positions. */
bool lb_info_once(const struct lb_teacher_info *info, enum lb_output_kind kind);
/* What a classifier of texts calls its classes; the caller finishes them. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_info_labels(const struct lb_teacher_info *info, struct lb_labels *out);
/* Columns of the state (hidden_states.N, hidden_states.final) of this kind and layer; 0 when the teacher does
 * not tell. */
int64_t lb_info_state_width(const struct lb_teacher_info *info, enum lb_output_kind kind, int layer);
/* The ladder of what a server can give: each rung says more of the teacher than those before it. */
#define LB_RUNGS(X)                                                                                          \
    X(NONE, "nothing")                                                                                       \
    X(OWN, "own token")                                                                                      \
    X(TOP_20, "top-20")                                                                                      \
    X(TOP_K, "top-k")                                                                                        \
    X(CHOSEN, "chosen ids")                                                                                  \
    X(LOGITS, "full logits")                                                                                 \
    X(FINAL, "final state")                                                                                  \
    X(INNER, "inner layers")
#define LB_RUNG_KIND(kind, name) LB_RUNG_##kind,
enum lb_rung { LB_RUNGS(LB_RUNG_KIND) LB_N_RUNGS };
#undef LB_RUNG_KIND
const char *lb_rung_name(enum lb_rung rung);
/* "own token -> top-20 -> ...": all of them. */
const char *lb_rungs_text(void);
/* The rung that an output of this kind stands on. */
enum lb_rung lb_output_rung(enum lb_output_kind kind);
/* The rungs that the teacher gives, as bits 1 << rung. */
unsigned lb_info_rungs(const struct lb_teacher_info *info);

/* Whether the teacher gives all that spec asks for, in sizes that it tells; LB_E_ARG names what is missing,
 * what there is and where both stand on the ladder. name: the teacher's. */
LB_NODISCARD enum lb_status lb_info_gives(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                          const char *name, struct lb_detail *detail);
/* The shape of output j of an answer about `rows` positions of a sequence of n (1 for images). A dimension
 * that the teacher does not tell is 0. Returns the number of dimensions. */
int lb_answer_shape(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, size_t j,
                    int64_t rows, int64_t n, int64_t dim[LB_MAX_WIRE_DIMS]);
/* Settings that no asked output depends on, set to their defaults: questions that mean the same are then the
 * same bytes, for every cache on the way. */
void lb_ask_normalise(const struct lb_ask_spec *spec, struct lb_ask_spec *out);
/* LB_E_LIMIT or LB_E_ARG when the teacher cannot answer about this sample at all. */
LB_NODISCARD enum lb_status lb_ask_check(const struct lb_teacher_info *info, const struct lb_sample *sample,
                                         const char *teacher, struct lb_detail *detail);
/* Bytes of the answer about `rows` positions of a sequence of n. */
uint64_t lb_ask_answer_bytes(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t rows,
                             int64_t n);

/* The tensor of this kind and layer (0 where the kind has none), or NULL. */
const struct lb_wire_tensor *lb_answer_find(const struct lb_answer *answer, enum lb_output_kind kind,
                                            int layer);
/* The row that holds position t, which is not before answer->first. */
static inline int64_t lb_answer_row(const struct lb_answer *answer, int64_t t) {
    return t - answer->first;
}
/* Parses the names of the answer's tensors into what. LB_E_NOTFOUND when one is no output's. */
LB_NODISCARD enum lb_status lb_answer_name(struct lb_answer *answer);
/* n numbers from element first on, of any datatype that outputs of floats come in, as floats. */
void lb_wire_floats(const struct lb_wire_tensor *tensor, int64_t first, int64_t n, float *out);
/* Their sum, added one by one. */
double lb_wire_sum(const struct lb_wire_tensor *tensor, int64_t first, int64_t n);
int32_t lb_answer_id(const struct lb_wire_tensor *tensor, int64_t i);

/* Checks an answer about a sequence of n positions, from answer->first on, against what was asked, once,
 * before anybody reads from it: outputs and their order, datatypes, shapes, ids. LB_E_FORMAT or
 * LB_E_MISMATCH. */
LB_NODISCARD enum lb_status lb_answer_check(const struct lb_answer *answer, const struct lb_ask_spec *spec,
                                            const struct lb_teacher_info *info, int64_t n,
                                            struct lb_detail *detail);

#endif
