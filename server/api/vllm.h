/* The dialect vllm: what its files share. Codec threads. */
#ifndef LB_API_VLLM_H
#define LB_API_VLLM_H

#include "proto/vllm.h"
#include "server/api/visit.h"

/* Most tokens behind each prompt that a request may ask for. */
#define LB_VLLM_MAX_TOKENS 65536

/* Memory for each byte of a text that becomes ids: its pieces and those; of ids that become text too. */
#define LB_VLLM_WORK_BYTES 16

/* Finds the model of that name, NULL: the only one that is ready; true, or false after an error. */
bool lb_vllm_find_model(struct lb_exchange *exchange, const char *name);
/* The visit's model has a tokenizer that this daemon can run; false after an error. */
bool lb_vllm_need_tokenizer(struct lb_exchange *exchange);
/* A writer's text function for a tokenizer, its context: ids without a token have no text. */
enum lb_status lb_vllm_id_text(void *tokenizer, int32_t id, struct lb_buf *out);

/* First: room of so many bytes, zeroed, for the visit's `asked`, and memory held for decoding the body. NULL
 * after an error. */
void *lb_vllm_begin(struct lb_server *server, struct lb_exchange *exchange, size_t bytes);
/* The question is the visit's job: its own bytes go, and memory is held for the job and for an answer of
 * about so many bytes. False after an error. */
bool lb_vllm_planned(struct lb_server *server, struct lb_exchange *exchange, size_t answer_bytes);
/* A writer of the answer into the exchange's body, with the tokenizer of the visit's job. Gives the answer's
 * name: prefix, then the request's own id, else a random one; NULL after an error. */
const char *lb_vllm_open_answer(struct lb_exchange *exchange, const char *prefix, const char *request_id,
                                struct lb_vllm_writer *out, struct lb_detail *detail);
/* Sends what was written, or what became of it. The job's outputs go. */
void lb_vllm_send(struct lb_server *server, struct lb_exchange *exchange, const struct lb_vllm_writer *writer,
                  size_t answer_bytes);

/* Gives each text its ids, in the exchange's arena, and holds memory for that; false after an error. */
bool lb_vllm_encode(struct lb_exchange *exchange, struct lb_vllm_prompts *prompts, bool add_special);

/* Prompts that have ids as inputs of a job. */
struct lb_vllm_matrix {
    int32_t *ids;
    int32_t *starts; /* of each sequence the first row that is asked for */
    int64_t longest;
    size_t n_inputs;
    struct lb_wire_tensor inputs[4]; /* input_ids, lengths, start; room for score_ids */
    int32_t *scores;                 /* [n, longest, K'] of lb_vllm_scores; NULL */
    int64_t tokens;                  /* of all together */
};
/* last_only: each sequence's last row is asked for, not all. Holds memory for it. False after an error; else
 * the caller finishes it. */
bool lb_vllm_matrix(struct lb_exchange *exchange, const struct lb_vllm_prompts *prompts, bool last_only,
                    struct lb_vllm_matrix *out);
void lb_vllm_matrix_finish(struct lb_vllm_matrix *matrix);

/* Adds the input score_ids of k ids a token, all -1 for the caller to fill, and holds memory for it. key: the
 * request's, for errors. NULL after an error. */
int32_t *lb_vllm_scores(struct lb_server *server, struct lb_exchange *exchange, const char *key, int64_t k,
                        struct lb_vllm_matrix *matrix);

/* Whether the visit's model and this daemon can do that at all; false after an error. key: how the request
 * calls max_tokens, of which most are possible. */
bool lb_vllm_check(struct lb_exchange *exchange, const struct lb_vllm_sampling *sampling, const char *key,
                   int64_t most);
/* The request's seed, or any. */
uint64_t lb_vllm_seed(const struct lb_exchange *exchange, const struct lb_vllm_sampling *sampling);
/* The visit's job: top k, with scored the next tokens' log-probabilities, and what sampling asks for. False
 * after an error. */
bool lb_vllm_plan(struct lb_server *server, struct lb_exchange *exchange,
                  const struct lb_vllm_sampling *sampling, int64_t priority, struct lb_vllm_matrix *matrix,
                  bool scored);
/* What prompt_logprobs of so many tokens take as text, about; marks the exchange as heavy where that is much.
 */
size_t lb_vllm_answer_bytes(struct lb_exchange *exchange, const struct lb_vllm_sampling *sampling,
                            int64_t n_tokens);
/* Number at of an output of 4-byte numbers; NULL where the job has no such output. */
const void *lb_vllm_output(const struct lb_job *job, enum lb_output_kind kind, int64_t at);
/* The rows of sequence b from row t on. */
struct lb_vllm_rows lb_vllm_rows_of(const struct lb_job *job, int64_t b, int64_t t);
/* What comes behind sequence b: which id, and whether the text ends there. */
void lb_vllm_choose(const struct lb_job *job, const struct lb_vllm_sampling *sampling, int64_t b,
                    struct lb_vllm_choice *choice);

/* Has the visit's job computed, then what the visit has to be written. rows: the job's are asked for; without
 * them a text is only written, since that reads the prompts itself. The exchange is not the caller's any
 * more; answer is called when all is there, and failures are answered here. */
void lb_vllm_start(struct lb_server *server, struct lb_exchange *exchange, bool rows,
                   void (*answer)(struct lb_server *server, struct lb_exchange *exchange));

/* ---- more than one token ---- */

/* The visit's writing, which goes on with the sequences of its job; k: of the likeliest that are listed with
 * each token. Holds memory for it. False after an error. */
bool lb_vllm_plan_writing(struct lb_server *server, struct lb_exchange *exchange,
                          const struct lb_vllm_sampling *sampling, const char *key, int64_t k);
/* The request counts with what became of its writing; once. */
void lb_vllm_count_written(const struct lb_visit *visit);
/* Answers with what went wrong with the visit's writing. */
void lb_vllm_reply_unwritten(struct lb_exchange *exchange);
/* What came behind sequence b: all of it, or but for its text tokens from .. n - 1, which are there (over:
 * and nothing more comes), while others may be written. */
void lb_vllm_take_written(const struct lb_writing *writing, int64_t b, struct lb_vllm_choice *choice);
void lb_vllm_take_part(const struct lb_writing *writing, int64_t b, int64_t from, int64_t n, bool over,
                       struct lb_vllm_choice *choice);

/* Appends the text of a token that was generated; none of a special one that is to be skipped. */
void lb_vllm_put_generated(const struct lb_tokenizer *tokenizer, const struct lb_vllm_sampling *sampling,
                           int32_t id, struct lb_buf *text);

void lb_handle_completions(struct lb_server *server, struct lb_exchange *exchange,
                           const struct lb_route_match *match);
void lb_handle_tokenize(struct lb_server *server, struct lb_exchange *exchange,
                        const struct lb_route_match *match);
void lb_handle_detokenize(struct lb_server *server, struct lb_exchange *exchange,
                          const struct lb_route_match *match);
void lb_handle_tokenizer_info(struct lb_server *server, struct lb_exchange *exchange,
                              const struct lb_route_match *match);
void lb_handle_generate(struct lb_server *server, struct lb_exchange *exchange,
                        const struct lb_route_match *match);
void lb_handle_embeddings(struct lb_server *server, struct lb_exchange *exchange,
                          const struct lb_route_match *match);
void lb_handle_pooling(struct lb_server *server, struct lb_exchange *exchange,
                       const struct lb_route_match *match);

#endif
