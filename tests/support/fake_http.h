/* The servers' side of HTTP on plain sockets, as much as fakes inside a test's process need.
 */
#ifndef LB_TESTS_FAKE_HTTP_H
#define LB_TESTS_FAKE_HTTP_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stdint.h>

/* One request as it came in. */
struct fake_request {
    char method[8], path[400];
    bool authorized, no_cache;
    int64_t json_len;
    struct lb_buf body;
};

/* Listens on the loopback; *port 0: any, and which it is then. -1 when it can't be had. */
int fake_http_listen(int *port);
/* Reads one request into in, whose body is initialised; token "": none is needed. False when the peer is
 * gone. */
bool fake_http_read(int fd, const char *token, struct fake_request *in);
/* Until the peer closes. */
void fake_http_wait(int fd);
/* False when the peer is gone. headers: whole lines, or "". */
bool fake_http_send(int fd, const void *bytes, size_t len);
bool fake_http_answer(int fd, int code, const char *headers, const char *body);
/* A body of which only the first send_len bytes are sent. */
bool fake_http_bytes(int fd, const char *headers, const struct lb_buf *body, size_t send_len);

#endif
