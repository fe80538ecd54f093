/* Questions to the engine, whatever dialect they came in: the memory that is held for them, their jobs, and
 * what has become of those. Codec threads; the exchange's user is its visit. */
#ifndef LB_API_SUBMIT_H
#define LB_API_SUBMIT_H

#include "server/api/visit.h"

/* More numbers as JSON, or bytes to be digested, than these make an answer heavy. */
#define LB_LIGHT_NUMBERS 4096
#define LB_LIGHT_BYTES ((size_t)1 << 20)

/* True when the client has left; then it is answered. */
bool lb_submit_gone(struct lb_exchange *exchange);
/* Counts bytes before they are needed; false, and answered, when they can't be had. */
bool lb_submit_hold(struct lb_server *server, struct lb_exchange *exchange, size_t bytes);
/* What decoding a body takes: JSON up to json_len (-1: all of it), and tensors, of which the job has copies.
 */
size_t lb_submit_decoding_bytes(const char *body, size_t body_len, int64_t json_len);
/* Makes visit->job of the request about visit->hosted; false, and answered, when it can't be. draw: what is
 * drawn behind the sequences, but for the places it goes to; NULL: nothing. Where visit->streams is set,
 * large logits are left to lb_reply_streamed. */
bool lb_submit_plan(struct lb_server *server, struct lb_exchange *exchange,
                    const struct lb_infer_request *request, const struct lb_job_draw *draw);
/* Memory that visit->job holds from now on until its answer is out, but for what its outputs become as text.
 */
size_t lb_submit_job_bytes(const struct lb_job *job);
/* Queues visit->job. The exchange is not the caller's any more; finish answers it. */
void lb_submit(struct lb_server *server, struct lb_exchange *exchange,
               void (*finish)(struct lb_server *server, struct lb_exchange *exchange));
/* First in finish: counts what became of the job (where a text follows, the request counts with that). False,
 * and answered, when it failed. */
bool lb_submit_computed(struct lb_server *server, struct lb_exchange *exchange);

#endif
