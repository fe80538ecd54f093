/* vLLM's dialect, which holds OpenAI's completions: questions read, answers written. No HTTP, no tokenizer:
 * whoever answers says how an id is written.
 *
 * Their entry i is about token i, the first is null; row t of our outputs is the distribution of token t + 1,
 * so entry i comes from row i - 1. A key that changes numbers and isn't understood is refused by its name;
 * all others are ignored. See PROTOCOL.md section 12.
 */
#ifndef LB_PROTO_VLLM_H
#define LB_PROTO_VLLM_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/status.h"
#include "proto/datatype.h"
#include "proto/limits.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LB_VLLM_NO_LOGPROBS (-2)
#define LB_VLLM_ALL_LOGPROBS (-1)
#define LB_VLLM_MAX_LOGPROBS 1024 /* of logprobs, whose entries are named by texts */
/* How vLLM says how many log-probabilities it lists at most, where more are asked for. */
#define LB_VLLM_ALLOWED "max allowed: "
#define LB_VLLM_MAX_STOPS 16
#define LB_VLLM_MAX_STOP_IDS 4096
/* What a log-probability of minus infinity is written as. */
#define LB_VLLM_LEAST_LOGPROB (-9999.0f)

/* ---- questions ---- */

/* What vLLM calls sampling parameters. */
struct lb_vllm_sampling {
    int64_t max_tokens;      /* 16 when not given */
    int64_t logprobs;        /* of what is generated, and with echo of the prompt; or LB_VLLM_NO_LOGPROBS */
    int64_t prompt_logprobs; /* K, or LB_VLLM_ALL_LOGPROBS, LB_VLLM_NO_LOGPROBS */
    double temperature;      /* 0: greedy; 1 when not given */
    bool plain;              /* it is of what is drawn only: log-probabilities are those at 1 */
    double top_p;            /* 1: all */
    int64_t top_k;           /* 0: all */
    bool has_seed;
    uint64_t seed;
    bool skip_special, ignore_eos, include_stop;
    const char **stops; /* [n_stops] each with a byte at least */
    size_t n_stops;
    const int32_t *stop_ids; /* [n_stop_ids] */
    size_t n_stop_ids;
};

/* One of both. */
struct lb_vllm_prompt {
    const char *text;   /* UTF-8, not empty; NULL: ids */
    const int32_t *ids; /* [n] each 0 or more; NULL: text */
    int64_t n;
};

struct lb_vllm_prompts {
    const char *key; /* under which they stand in the request */
    size_t n;        /* 1 or more */
    struct lb_vllm_prompt *all;
};

struct lb_vllm_completion {
    const char *model;      /* NULL: none is named */
    const char *request_id; /* NULL: none */
    struct lb_vllm_prompts prompts;
    struct lb_vllm_sampling sampling;
    bool echo, add_special, return_token_ids, tokens_as_ids;
    int64_t priority;
    bool stream;            /* told while it is written */
    bool usage, each_usage; /* then: a last event with usage; one in each */
};

/* The body of POST /v1/completions. All that out points to is in the arena. LB_E_FORMAT, LB_E_ARG: what is
 * wrong, beginning with "request: " and the key's name; LB_E_LIMIT: too large. */
LB_NODISCARD enum lb_status lb_vllm_completion_decode(const void *body, size_t len, struct lb_arena *arena,
                                                      struct lb_vllm_completion *out,
                                                      struct lb_detail *detail);

/* The body of POST /inference/v1/generate: one sequence of ids. */
struct lb_vllm_generate {
    const char *model, *request_id; /* NULL: none */
    struct lb_vllm_prompts prompts; /* one */
    struct lb_vllm_sampling sampling;
    int64_t priority;
    /* Log-probabilities of chosen ids: those of row i are about token start + i + 1. */
    int64_t start, n_rows, k; /* k 0: none are asked for */
    const int32_t *gather;    /* [n_rows, k], -1: none */
};

/* Errors as above. */
LB_NODISCARD enum lb_status lb_vllm_generate_decode(const void *body, size_t len, struct lb_arena *arena,
                                                    struct lb_vllm_generate *out, struct lb_detail *detail);

enum lb_vllm_format {
    LB_VLLM_FLOAT,     /* lists of numbers */
    LB_VLLM_BASE64,    /* of the numbers' bytes */
    LB_VLLM_BYTES,     /* the bytes themselves, and what they are in the header "metadata" */
    LB_VLLM_BYTES_ONLY /* without that header */
};

/* The bodies of POST /v1/embeddings and of POST /pooling. */
struct lb_vllm_pooling {
    const char *model, *request_id; /* NULL: none */
    struct lb_vllm_prompts prompts;
    bool add_special;
    enum lb_vllm_format format;
    enum lb_datatype dtype; /* FP32, FP16, BF16: of the bytes */
    int64_t dimensions;     /* that the embeddings must have; 0: any */
};

/* tokens: /pooling, the final state of each token, as it is; else one vector for each text, where bytes are
 * not possible. Errors as above. */
LB_NODISCARD enum lb_status lb_vllm_pooling_decode(const void *body, size_t len, bool tokens,
                                                   struct lb_arena *arena, struct lb_vllm_pooling *out,
                                                   struct lb_detail *detail);

/* ---- answers ---- */

/* Where an answer goes. The first failure is kept, and nothing is written behind it. */
struct lb_vllm_writer {
    struct lb_buf *buf;
    /* Appends the text of one id; NULL: there is no tokenizer, texts are "token_id:N" and null. */
    enum lb_status (*text)(void *context, int32_t id, struct lb_buf *out);
    void *context;
    const atomic_bool *gone; /* the reader has left: LB_E_CANCELLED; NULL: none says so */
    enum lb_status status;
    struct lb_detail *detail;
};

/* What is known of the rows of one sequence: row t is about what follows token t. */
struct lb_vllm_rows {
    int64_t k;                 /* of the k largest, in their order */
    const int32_t *top_ids;    /* [rows, k] */
    const float *top_logprobs; /* [rows, k] */
    const float *actual;       /* [rows] log-probability of the next token; NULL: not known */
    const int32_t *ranks;      /* [rows] how many other ids are at least as likely; NULL: not known */
};

struct lb_vllm_choice {
    int64_t index;
    const int32_t *ids; /* [n] the prompt */
    int64_t n;
    struct lb_vllm_rows prompt; /* row t: of token t + 1, n - 1 of them */
    int64_t n_generated;
    const int32_t *generated; /* [n_generated] */
    const float *generated_logprobs;
    struct lb_vllm_rows next; /* row i: what generated[i] was chosen from */
    const char *text;         /* as the answer has it; UTF-8 [text_len], which NUL may be in */
    size_t text_len;
    bool later, goes_on;   /* a part of what is told while it is written: not the first; not the last */
    bool stopped;          /* at an end or a stop */
    const char *stop_text; /* which stop; NULL */
    int32_t stop_id;       /* which of the stop_ids; -1 */
};

struct lb_vllm_usage {
    int64_t prompt_tokens, completion_tokens;
};

/* Asked between what is written, and at the end: keeps what became of the buffer, and LB_E_CANCELLED where
 * the reader has left. True: nothing more need be written. */
bool lb_vllm_failed(struct lb_vllm_writer *writer);
/* {"id":...,"choices":[ ; choices come next, each by lb_vllm_put_choice, then the end. */
void lb_vllm_put_completion(struct lb_vllm_writer *writer, const char *id, int64_t created, const char *model,
                            const char *fingerprint);
void lb_vllm_put_choice(struct lb_vllm_writer *writer, const struct lb_vllm_completion *request,
                        const struct lb_vllm_choice *choice);
void lb_vllm_put_end(struct lb_vllm_writer *writer, const struct lb_vllm_usage *usage);

/* Who answers, as each event of a stream says it. */
struct lb_vllm_from {
    const char *id, *model, *fingerprint;
    int64_t created;
};
/* One event of a stream: what is new of one choice. text_offset: characters of all that was listed of it, 0
 * at first. usage may be NULL. */
void lb_vllm_put_event(struct lb_vllm_writer *writer, const struct lb_vllm_from *from,
                       const struct lb_vllm_completion *request, const struct lb_vllm_choice *choice,
                       size_t *text_offset, const struct lb_vllm_usage *usage);
/* One of no choice. */
void lb_vllm_put_event_usage(struct lb_vllm_writer *writer, const struct lb_vllm_from *from,
                             const struct lb_vllm_usage *usage);
/* The last event. */
void lb_vllm_put_done(struct lb_vllm_writer *writer);

/* [null,{"ID":{"logprob":...,"rank":...,"decoded_token":...},...},...]: the k largest in their order, then
 * the token itself when it is not among them. k: how many of the rows' are wanted. */
void lb_vllm_put_prompt_logprobs(struct lb_vllm_writer *writer, const struct lb_vllm_choice *choice,
                                 int64_t k);
/* The whole answer to /inference/v1/generate. gathered [n_rows, k]: log-probabilities of the request's ids,
 * of which those for -1 are not read. */
void lb_vllm_put_generate(struct lb_vllm_writer *writer, const char *id, int64_t created, const char *model,
                          const struct lb_vllm_generate *request, const struct lb_vllm_choice *choice,
                          const float *gathered);
/* Entry index of the answer to embeddings, or to /pooling: rows [n_rows, width] of the datatype that was
 * asked for (FP32 for LB_VLLM_FLOAT); a list of rows where rows are tokens. LB_E_UNSUPPORTED: a number that
 * JSON can't say. */
void lb_vllm_put_vectors(struct lb_vllm_writer *writer, const struct lb_vllm_pooling *request, bool tokens,
                         int64_t index, const void *rows, int64_t n_rows, int64_t width);
/* Where n tensors [rows[i], width] lie in the bytes: what the header "metadata" holds. */
void lb_vllm_put_metadata(struct lb_vllm_writer *writer, const struct lb_vllm_pooling *request,
                          const int64_t *rows, size_t n, int64_t width);
/* A JSON string of UTF-8. */
void lb_vllm_put_text(struct lb_vllm_writer *writer, const char *text, size_t len);
/* A log-probability; LB_E_INTERNAL where it is NaN. The former writes its text [LB_NUMBER_TEXT] to out, and
 * returns its length: 0 for NaN. */
size_t lb_vllm_logprob_text(struct lb_vllm_writer *writer, float logprob, char *out);
void lb_vllm_put_logprob(struct lb_vllm_writer *writer, float logprob);
/* The text of an id as a JSON string; null without a tokenizer. */
void lb_vllm_put_id_text(struct lb_vllm_writer *writer, int32_t id);

/* The name of the request's key that an error's text begins with, copied into out; false when it names none.
 */
bool lb_vllm_error_key(const char *text, char out[LB_MAX_NAME]);

#endif
