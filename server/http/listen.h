/* Listening sockets: "ADDR:PORT" (numeric IPv4, [IPv6] or a host name) or "unix:PATH". */
#ifndef LB_HTTP_LISTEN_H
#define LB_HTTP_LISTEN_H

#include "common/base/status.h"

#include <stdbool.h>

struct lb_listener {
    int fd;            /* -1: none */
    char address[160]; /* what to connect to: "127.0.0.1:8500", "[::1]:8500", "unix:/run/limbeck.sock" */
    int port;          /* the port that was picked; 0 for a UNIX socket */
    bool loopback;     /* only reachable from this machine */
    bool inherited;    /* not ours to remove */
};

/* Binds and listens. A UNIX socket left by a dead process is replaced, one that answers is LB_E_BUSY. */
LB_NODISCARD enum lb_status lb_listen(const char *where, struct lb_listener *out, struct lb_detail *detail);
/* The socket that systemd hands over (LISTEN_PID and LISTEN_FDS, sd_listen_fds(3)); *out_there false when
 * there is none. LB_E_ARG for several, and for what is no listening stream socket. To be called once. */
LB_NODISCARD enum lb_status lb_listen_inherit(bool *out_there, struct lb_listener *out,
                                              struct lb_detail *detail);
/* Whether the text says where to listen, and whether only this machine reaches it, without doing so:
 * LB_E_ARG. */
LB_NODISCARD enum lb_status lb_listen_check(const char *where, bool *out_loopback, struct lb_detail *detail);
/* Removes a UNIX socket's file and closes fd unless somebody took it over (fd -1). Accepts NULL. */
void lb_listener_close(struct lb_listener *listener);

#endif
