/* Full logits that are made while the client reads them, from the final states that the engine left with the
 * job: C numbers a token are kept in place of V, and the memory that an answer takes depends on the model,
 * not on what was asked.
 *
 * Chunks of rows are those of the engine's own head, so that every logit has the same bits; one is made at a
 * time, by one thread, outside the engine's turn. One user at a time.
 */
#ifndef LB_ENGINE_STREAM_H
#define LB_ENGINE_STREAM_H

#include "server/engine/job.h"

struct lb_logits_stream;

/* What a stream of the job takes of memory: one chunk's, whatever is asked. */
size_t lb_logits_stream_bytes(const struct lb_job *job);
/* The tensor of an output with `streamed` of a job that is computed; both are borrowed. NULL: out of memory.
 */
struct lb_logits_stream *lb_logits_stream_create(const struct lb_job *job,
                                                 const struct lb_job_output *output);
/* Accepts NULL. */
void lb_logits_stream_destroy(struct lb_logits_stream *stream);
/* The tensor's next bytes, which live until the next call; *out_len 0 at its end. NULL: out of memory. */
const void *lb_logits_stream_next(struct lb_logits_stream *stream, size_t *out_len);

#endif
