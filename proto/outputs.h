/* Outputs of the wire: one row of one table says all that is to be known about each. Digest, admission,
 * extraction, metadata, the trainer's questions and its reader go by it; nobody else switches over kinds.
 * Names of inputs stand here too. Pure: any thread.
 */
#ifndef LB_PROTO_OUTPUTS_H
#define LB_PROTO_OUTPUTS_H

#include "common/base/status.h"
#include "proto/oip.h"

/* clang-format off */
/* kind (LB_OUT_...), name (N: a layer's number), datatype without dtype, the others that dtype may ask for (LB_TYPES_...),
 * what a row is made of (LB_FROM_...), numbers per row (LB_WIDE_...), what they are (LB_ARE_...), what else decides
 * them (LB_USES_...), and the function of server/engine that fills a row (lb_extract_...). */
#define LB_OUTPUTS(X) \
    X(LOGITS,         "logits",               FP32,  FLOATS, LOGITS,    VOCAB,    NUMBERS,  LB_USES_KEPT | LB_IN_PIECES,                                                      vocab) \
    X(TOPK_IDS,       "logits.topk_ids",      INT32, IDS,    LOGITS,    TOP_K,    IDS,      LB_USES_TOP_K | LB_USES_KEPT | LB_IN_PIECES,                                      topk_ids) \
    X(TOPK_VALUES,    "logits.topk_values",   FP32,  FLOATS, LOGITS,    TOP_K,    FALLING,  LB_USES_TOP_K | LB_USES_KEPT | LB_IN_PIECES,                                      topk_values) \
    X(LOGSUMEXP,      "logsumexp",            FP32,  FLOATS, LOGITS,    ONE,      NUMBERS,  LB_USES_TEMPERATURE | LB_IN_PIECES,                                               logsumexp) \
    X(ACTUAL,         "logprobs.actual",      FP32,  LOGS,   LOGITS,    ONE,      LOGPROBS, LB_USES_TEMPERATURE | LB_USES_NEXT_TOKEN | LB_IN_PIECES,                          actual) \
    X(NEXT,           "logprobs.next",        FP32,  LOGS,   LOGITS,    ONE,      LOGPROBS, LB_USES_PLAIN_SUM | LB_USES_NEXT_TOKEN | LB_IN_PIECES,                            next) \
    X(REST,           "logprobs.rest",        FP32,  FLOATS, LOGITS,    ONE,      LOGPROBS, LB_USES_TOP_K | LB_USES_TEMPERATURE | LB_USES_REST | LB_USES_KEPT | LB_IN_PIECES, rest) \
    X(OUTSIDE,        "logprobs.outside",     FP32,  FLOATS, LOGITS,    ONE,      LOGPROBS, LB_USES_TEMPERATURE | LB_USES_KEPT | LB_USES_OUTSIDE | LB_IN_PIECES,              outside) \
    X(TOPK_LOGPROBS,  "logprobs.topk_values", FP32,  LOGS,   LOGITS,    TOP_K,    LOGPROBS, LB_USES_TOP_K | LB_USES_TEMPERATURE | LB_USES_KEPT | LB_IN_PIECES,                topk_logprobs) \
    X(RANK,           "ranks.actual",         INT32, IDS,    LOGITS,    ONE,      IDS,      LB_USES_NEXT_TOKEN,                                                               rank) \
    X(AT_IDS,         "logits.at_ids",        FP32,  FLOATS, LOGITS,    SCORED,   NUMBERS,  LB_USES_SCORE_IDS | LB_USES_KEPT | LB_IN_PIECES,                                  at_ids) \
    X(AT_LOGPROBS,    "logprobs.at_ids",      FP32,  LOGS,   LOGITS,    SCORED,   LOGPROBS, LB_USES_SCORE_IDS | LB_USES_TEMPERATURE | LB_USES_KEPT | LB_IN_PIECES,            at_logprobs) \
    X(SAMPLE_IDS,     "samples.ids",          INT32, IDS,    LOGITS,    SAMPLES,  DRAWN,    LB_USES_SAMPLES | LB_USES_TEMPERATURE | LB_IN_PIECES,                             sample_ids) \
    X(SAMPLE_COUNTS,  "samples.counts",       INT32, IDS,    LOGITS,    SAMPLES,  COUNTS,   LB_USES_SAMPLES | LB_USES_TEMPERATURE | LB_IN_PIECES,                             sample_counts) \
    X(SAMPLE_WEIGHTS, "samples.weights",      FP32,  FLOATS, LOGITS,    SAMPLES,  NUMBERS,  LB_USES_SAMPLES | LB_USES_TEMPERATURE | LB_IN_PIECES,                             sample_weights) \
    X(HIDDEN_FINAL,   "hidden_states.final",  FP32,  FLOATS, FINAL,     STATE,    NUMBERS,  0,                                                                                row) \
    X(HIDDEN,         "hidden_states.N",      FP32,  FLOATS, HIDDEN,    STATE,    NUMBERS,  0,                                                                                row) \
    X(QUERIES,        "queries.N",            FP32,  FLOATS, QUERIES,   STATE,    NUMBERS,  0,                                                                                row) \
    X(KEYS,           "keys.N",               FP32,  FLOATS, KEYS,      STATE,    NUMBERS,  0,                                                                                row) \
    X(VALUES,         "values.N",             FP32,  FLOATS, VALUES,    STATE,    NUMBERS,  0,                                                                                row) \
    X(ATTENTION,      "attentions.N",         FP32,  FLOATS, ATTENTION, KEYS,     SHARES,   0,                                                                                keys) \
    X(SENTENCE,       "sentence_embedding",   FP32,  FLOATS, SENTENCE,  SENTENCE, NUMBERS,  0,                                                                                row) \
    X(RESIDUAL,       "residuals.N",          FP32,  FLOATS, RESIDUAL,  STATE,    NUMBERS,  0,                                                                                row)
/* clang-format on */

#define LB_OUTPUT_KIND(kind, ...) LB_OUT_##kind,
#define LB_OUTPUT_ONE(...) +1
enum lb_output_kind { LB_OUTPUTS(LB_OUTPUT_KIND) };
enum { LB_N_OUTPUTS = 0 LB_OUTPUTS(LB_OUTPUT_ONE) };
#undef LB_OUTPUT_KIND
#undef LB_OUTPUT_ONE

/* Datatypes that an output may be asked for in place of its own. */
enum lb_output_types {
    LB_TYPES_NONE,
    LB_TYPES_FLOATS, /* FP32, FP16, BF16 */
    LB_TYPES_LOGS,   /* those, and UINT8: codes of log-probabilities (proto/logprob8.h) */
    LB_TYPES_IDS     /* INT32, UINT16 */
};

enum lb_output_source {
    LB_FROM_LOGITS,
    LB_FROM_FINAL,   /* what the output head multiplies */
    LB_FROM_HIDDEN,  /* what leaves block N; 0: what enters the first */
    LB_FROM_QUERIES, /* what block N, from 0, makes of its input by the weights and biases of queries, before
                      */
    LB_FROM_KEYS, /* norms and rotary positions: a head's columns behind the other's; of keys and values as */
    LB_FROM_VALUES,    /* many heads as the model has. Not of classifiers */
    LB_FROM_ATTENTION, /* probabilities of block N, from 0; not of classifiers */
    LB_FROM_SENTENCE,  /* one row for a sequence: final states pooled; of encoders that say how */
    LB_FROM_RESIDUAL   /* what leaves block N, from 0, before a norm behind all blocks */
};

enum lb_output_width {
    LB_WIDE_ONE,     /* one number: [B, R] */
    LB_WIDE_VOCAB,   /* [B, R, V] */
    LB_WIDE_TOP_K,   /* [B, R, K] */
    LB_WIDE_SCORED,  /* one for each id that the request names: [B, R, K'] */
    LB_WIDE_SAMPLES, /* one for each draw that may be a class of its own: [B, R, S] */
    LB_WIDE_STATE,   /* the columns of what it is made of: [B, R, C] */
    LB_WIDE_KEYS,    /* one for each head and position: [B, H, R, T] */
    LB_WIDE_SENTENCE /* a state's columns, once a sequence: [B, C] */
};

enum lb_output_numbers {
    LB_ARE_NUMBERS,  /* finite, nothing more */
    LB_ARE_IDS,      /* of the vocabulary, each once in a row */
    LB_ARE_DRAWN,    /* ids of the vocabulary, rising, and zeros behind them */
    LB_ARE_COUNTS,   /* from 1 on, zeros behind them, and the same sum in every row */
    LB_ARE_FALLING,  /* each at most the one before it in the row */
    LB_ARE_LOGPROBS, /* at most 0 */
    LB_ARE_SHARES    /* rows of probabilities: 0 to 1, their sum 1 */
};

enum {
    LB_USES_TOP_K = 1,
    LB_USES_TEMPERATURE = 2,
    LB_USES_NEXT_TOKEN = 4, /* none in a sequence's last row, which is 0; classifiers have no such output */
    LB_USES_PLAIN_SUM = 16, /* the log-sum-exp at temperature 1, whatever the request's is */
    LB_USES_REST = 32,      /* what all but the top k have of probability */
    LB_USES_SCORE_IDS = 64, /* the input of that name */
    LB_USES_SAMPLES = 128,  /* sample_count, seed, sample_temperature */
    LB_USES_KEPT = 256,     /* its ids, or what they are counted over, are those of the request's vocab_map */
    LB_USES_OUTSIDE = 512,  /* what the others have of probability: only with a vocab_map */
    LB_IN_PIECES = 8 /* made of top-k, log-sum-exp, the next token's logit, or the logits as they are: no
                        function needs a whole row of logits, and large heads are multiplied by panels */
};
/* An output that can't be asked for without more: score_ids, sample_count or a vocab_map. */
#define LB_USES_MORE (LB_USES_SCORE_IDS | LB_USES_SAMPLES | LB_USES_OUTSIDE)

struct lb_output {
    const char *name; /* one that ends in ".N" has layers */
    enum lb_datatype own;
    enum lb_output_types others;
    enum lb_output_source source;
    enum lb_output_width width;
    enum lb_output_numbers numbers;
    unsigned uses;
};

struct lb_output_name {
    enum lb_output_kind kind;
    int layer; /* 0 where the kind has none */
};

const struct lb_output *lb_output_get(enum lb_output_kind kind);
/* Whether a layer's number belongs to the name. */
bool lb_output_layered(enum lb_output_kind kind);
/* Whether the output comes in this datatype. */
bool lb_output_comes_as(enum lb_output_kind kind, enum lb_datatype datatype);
/* "FP32, FP16, BF16": all that it comes in, its own first. */
#define LB_OUTPUT_TYPES_TEXT 64
const char *lb_output_types(enum lb_output_kind kind, char out[LB_OUTPUT_TYPES_TEXT]);
/* "logits, logits.topk_ids, ..., attentions.N": all of them, for people. */
const char *lb_output_names(void);

/* LB_E_NOTFOUND with the list of names when the output does not exist. */
enum lb_status lb_output_parse(const char *name, struct lb_output_name *out, struct lb_detail *detail);
/* Writes the name; layer is used where the kind has one. */
void lb_output_format(enum lb_output_kind kind, int layer, char out[LB_MAX_NAME]);

/* What decides an output's shape. A size may be -1, not known yet: then the dimension is. */
struct lb_output_sizes {
    int64_t sequences; /* B */
    int64_t rows;      /* R: returned rows of a sequence */
    int64_t positions; /* T: keys of attention */
    int64_t vocab, top_k, heads;
    int64_t scored, samples; /* K', S */
    int64_t state;           /* columns of the state that it is made of */
    bool classifier;         /* no dimension for rows */
};
/* Returns the number of dimensions. */
int lb_output_shape(enum lb_output_kind kind, const struct lb_output_sizes *sizes,
                    int64_t dim[LB_MAX_WIRE_DIMS]);

#define LB_IN_IDS "input_ids"   /* INT32|INT64 [B,T] */
#define LB_IN_LENGTHS "lengths" /* INT32 [B], right padding; outputs of padded rows are zero */
#define LB_IN_START "start" /* INT32 [B], first row to return; outputs start there, padded to the longest */
#define LB_IN_SCORE_IDS                                                                                      \
    "score_ids"                   /* INT32 [B,T,K'], ids that the client chose for each position, -1: none */
#define LB_IN_FEATURES "features" /* FP32 [B,C] */

#endif
