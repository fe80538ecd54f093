/* An answer some of whose tensors are made while the client reads: full logits. */
#ifndef LB_API_STREAMED_H
#define LB_API_STREAMED_H

#include "server/api/visit.h"

/* Logits of more bytes than this are not made by the engine and held, but streamed. */
#define LB_STREAM_BYTES ((size_t)8 << 20)

/* Sends head [len], which lives until the exchange ends, the binary tensors of visit->job behind it and,
 * where response->digest_of is set, the digest of all that. False: out of memory, and nothing is set. */
bool lb_reply_streamed(struct lb_exchange *exchange, const struct lb_infer_response *response,
                       const char *head, size_t len);

#endif
