/* TLS 1.2 and 1.3 on accepted sockets: the only file that knows GnuTLS.
 *
 * Credentials are immutable and shared by threads, and live as long as a session of theirs; a session belongs
 * to one thread. Sockets are non-blocking.
 */
#ifndef LB_HTTP_TLS_H
#define LB_HTTP_TLS_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LB_TLS_NAME 128 /* bytes of a client's name, with the NUL */

struct lb_tls;
struct lb_tls_session;

/* certificate (a chain), key and client_ca (certificates; NULL: clients are not asked for theirs): PEM texts.
 * LB_E_ARG when they can't be read or don't belong together. */
LB_NODISCARD enum lb_status lb_tls_create(const char *certificate, const char *key, const char *client_ca,
                                          struct lb_tls **out, struct lb_detail *detail);
/* Until when the certificate holds, seconds since 1970. */
int64_t lb_tls_expires(const struct lb_tls *tls);
/* Gives up what create made; sessions go on. Accepts NULL. */
void lb_tls_release(struct lb_tls *tls);

/* NULL when out of memory. The socket stays the caller's. */
struct lb_tls_session *lb_tls_session_create(struct lb_tls *tls, int fd);
/* Says good-bye if that does not block, and frees. Accepts NULL. */
void lb_tls_session_destroy(struct lb_tls_session *session);
/* 1: done; 0: the socket must become readable (*out_write false) or writable first; -1: failed. */
int lb_tls_handshake(struct lb_tls_session *session, int *out_write);
/* After the handshake: what the client's certificate calls it, in visible ASCII without quotes: its common
 * name, else its first other name, else the beginning of its digest. "" when it showed none; one that
 * client_ca has not signed for clients fails the handshake. */
void lb_tls_client_name(struct lb_tls_session *session, char out[LB_TLS_NAME]);
/* As recv and send: -1 with errno EAGAIN when nothing can be done now; any other errno: broken. A send that
 * got EAGAIN is repeated with the same bytes. */
ssize_t lb_tls_read(struct lb_tls_session *session, void *bytes, size_t len);
ssize_t lb_tls_write(struct lb_tls_session *session, const void *bytes, size_t len);

#endif
