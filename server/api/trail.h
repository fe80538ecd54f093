/* What is left of a request for those who look afterwards: its ids, and its line in the log. */
#ifndef LB_API_TRAIL_H
#define LB_API_TRAIL_H

#include "server/api/visit.h"

/* Whether an id of a client's may stand in the log and in answers: 1 to LB_MAX_ID visible ASCII characters
 * without quotes and backslashes. */
bool lb_request_id_is_good(const char *id);

#define LB_TRACE_ID 33 /* 32 hex digits and the NUL */
#define LB_SPAN_ID 17

/* Reads a traceparent header (W3C Trace Context, section 3.2): false, and nothing written, when it is none.
 */
bool lb_traceparent_parse(const char *header, char trace_id[LB_TRACE_ID], char parent_id[LB_SPAN_ID]);

/* In begin: X-Request-Id when it is good, else a random one; the trace that the request is part of. */
void lb_trail_begin(struct lb_exchange *exchange);
/* At the end: one line, event request; of health checks and metrics only with --verbose. model: "": none. */
void lb_trail_log(const struct lb_exchange *exchange, const char *model, const char *endpoint, bool complete,
                  uint64_t now);

#endif
