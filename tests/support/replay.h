/* A server that says again what another one said, of a recording: an HTTP server on plain sockets, inside the
 * test's process. One thread; one exchange a connection.
 */
#ifndef LB_TESTS_REPLAY_H
#define LB_TESTS_REPLAY_H

#include "common/base/json.h"

struct replay;
/* exchanges: a list of {"method", "path", "request", "status"} and "body", or "metadata" (a header) and
 * "base64"; borrowed. A request is answered by the exchange that has its very bytes, any other by 500. Ends
 * the program when it can't start. */
struct replay *replay_start(const json_t *exchanges);
/* "http://127.0.0.1:PORT" */
const char *replay_url(const struct replay *replay);
/* Of the last request that was not recorded; "" when there was none. */
const char *replay_unknown(const struct replay *replay);
/* Accepts NULL. */
void replay_stop(struct replay *replay);

#endif
