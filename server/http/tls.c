#include "server/http/tls.h"

#include "common/base/mem.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* GnuTLS's own choice of ciphers, without the versions before 1.2 (RFC 8996). */
#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
/* One record. */
#define RECORD ((size_t)16384)

struct lb_tls {
    atomic_uint references;
    gnutls_certificate_credentials_t credentials;
    gnutls_priority_t priorities;
};

struct lb_tls_session {
    gnutls_session_t session;
    struct lb_tls *tls; /* a reference */
    int handshaken;
};

enum lb_status lb_tls_create(const char *certificate, const char *key, struct lb_tls **out,
                             struct lb_detail *detail) {
    struct lb_tls *tls = lb_calloc(1, sizeof *tls);
    if (tls) {
        atomic_init(&tls->references, 1);
    }
    if (!tls || gnutls_certificate_allocate_credentials(&tls->credentials) != 0 ||
        gnutls_priority_init(&tls->priorities, PRIORITIES, NULL) != 0) {
        lb_tls_release(tls);
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting TLS");
    }
    gnutls_datum_t certificate_pem = {(unsigned char *)(uintptr_t)certificate, (unsigned)strlen(certificate)};
    gnutls_datum_t key_pem = {(unsigned char *)(uintptr_t)key, (unsigned)strlen(key)};
    int r = gnutls_certificate_set_x509_key_mem(tls->credentials, &certificate_pem, &key_pem,
                                                GNUTLS_X509_FMT_PEM);
    if (r < 0) {
        lb_tls_release(tls);
        return lb_fail(detail, LB_E_ARG,
                       "--tls-certificate and --tls-key: %s; they must be PEM and belong together",
                       gnutls_strerror(r));
    }
    *out = tls;
    return LB_OK;
}

void lb_tls_release(struct lb_tls *tls) {
    if (tls && atomic_fetch_sub(&tls->references, 1) == 1) {
        if (tls->priorities) {
            gnutls_priority_deinit(tls->priorities);
        }
        if (tls->credentials) {
            gnutls_certificate_free_credentials(tls->credentials);
        }
        lb_free(tls);
    }
}

struct lb_tls_session *lb_tls_session_create(struct lb_tls *tls, int fd) {
    struct lb_tls_session *s = lb_calloc(1, sizeof *s);
    if (!s || gnutls_init(&s->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) != 0) {
        lb_free(s);
        return NULL;
    }
    s->tls = tls;
    atomic_fetch_add(&tls->references, 1);
    if (gnutls_priority_set(s->session, tls->priorities) != 0 ||
        gnutls_credentials_set(s->session, GNUTLS_CRD_CERTIFICATE, tls->credentials) != 0) {
        lb_tls_session_destroy(s);
        return NULL;
    }
    gnutls_transport_set_int(s->session, fd);
    return s;
}

void lb_tls_session_destroy(struct lb_tls_session *s) {
    if (s) {
        if (s->handshaken) {
            (void)gnutls_bye(s->session, GNUTLS_SHUT_WR);
        }
        gnutls_deinit(s->session);
        lb_tls_release(s->tls);
        lb_free(s);
    }
}

int lb_tls_handshake(struct lb_tls_session *s, int *out_write) {
    int r;
    do {
        r = gnutls_handshake(s->session);
    } while (r == GNUTLS_E_INTERRUPTED || r == GNUTLS_E_WARNING_ALERT_RECEIVED);
    s->handshaken = r == GNUTLS_E_SUCCESS;
    *out_write = gnutls_record_get_direction(s->session);
    return r == GNUTLS_E_SUCCESS ? 1 : r == GNUTLS_E_AGAIN ? 0 : -1;
}

/* GnuTLS's codes as errno. */
static ssize_t result(ssize_t r) {
    if (r >= 0) {
        return r;
    }
    errno = r == GNUTLS_E_AGAIN ? EAGAIN : r == GNUTLS_E_INTERRUPTED ? EINTR : ECONNRESET;
    return -1;
}

ssize_t lb_tls_read(struct lb_tls_session *s, void *bytes, size_t len) {
    ssize_t r;
    do {
        r = gnutls_record_recv(s->session, bytes, len);
    } while (r == GNUTLS_E_INTERRUPTED || r == GNUTLS_E_WARNING_ALERT_RECEIVED);
    return result(r);
}

ssize_t lb_tls_write(struct lb_tls_session *s, const void *bytes, size_t len) {
    ssize_t r;
    do {
        r = gnutls_record_send(s->session, bytes, len < RECORD ? len : RECORD);
    } while (r == GNUTLS_E_INTERRUPTED);
    return result(r);
}
