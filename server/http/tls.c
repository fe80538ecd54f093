#include "server/http/tls.h"

#include "common/base/mem.h"
#include "common/base/sha256.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <stdbool.h>
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
    bool asks; /* clients for a certificate */
    int64_t expires;
};

struct lb_tls_session {
    gnutls_session_t session;
    struct lb_tls *tls; /* a reference */
    int handshaken;
};

static gnutls_datum_t datum(const char *text) {
    return (gnutls_datum_t){(unsigned char *)(uintptr_t)text, (unsigned)strlen(text)};
}

/* In the handshake: no certificate is good enough here, a bad one isn't. */
static int check_client(gnutls_session_t session) {
    char purpose[] = GNUTLS_KP_TLS_WWW_CLIENT;
    gnutls_typed_vdata_st of_clients = {.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)purpose};
    unsigned n = 0, faults = 0;
    if (!gnutls_certificate_get_peers(session, &n) || n == 0) {
        return 0;
    }
    int r = gnutls_certificate_verify_peers(session, &of_clients, 1, &faults);
    return r == 0 && faults == 0 ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

/* Of the certificate that comes first in the chain. */
static int64_t expiry(gnutls_certificate_credentials_t credentials) {
    gnutls_x509_crt_t *chain = NULL;
    unsigned n = 0;
    int64_t expires = INT64_MAX;
    if (gnutls_certificate_get_x509_crt(credentials, 0, &chain, &n) != 0) {
        return expires;
    }
    for (unsigned i = 0; i < n; i++) {
        expires = i == 0 ? (int64_t)gnutls_x509_crt_get_expiration_time(chain[i]) : expires;
        gnutls_x509_crt_deinit(chain[i]);
    }
    gnutls_free(chain);
    return expires;
}

static enum lb_status fill(struct lb_tls *tls, const char *certificate, const char *key,
                           const char *client_ca, struct lb_detail *detail) {
    gnutls_datum_t certificate_pem = datum(certificate), key_pem = datum(key);
    int r = gnutls_certificate_set_x509_key_mem(tls->credentials, &certificate_pem, &key_pem,
                                                GNUTLS_X509_FMT_PEM);
    if (r < 0) {
        return lb_fail(detail, LB_E_ARG,
                       "--tls-certificate and --tls-key: %s; they must be PEM and belong together",
                       gnutls_strerror(r));
    }
    tls->expires = expiry(tls->credentials);
    if (client_ca) {
        gnutls_datum_t pem = datum(client_ca);
        r = gnutls_certificate_set_x509_trust_mem(tls->credentials, &pem, GNUTLS_X509_FMT_PEM);
        if (r <= 0) {
            return lb_fail(detail, LB_E_ARG, "--tls-client-ca: %s; it must hold certificates as PEM",
                           r < 0 ? gnutls_strerror(r) : "there is no certificate in it");
        }
        tls->asks = true;
        gnutls_certificate_set_verify_function(tls->credentials, check_client);
    }
    return LB_OK;
}

enum lb_status lb_tls_create(const char *certificate, const char *key, const char *client_ca,
                             struct lb_tls **out, struct lb_detail *detail) {
    struct lb_tls *tls = lb_calloc(1, sizeof *tls);
    if (tls) {
        atomic_init(&tls->references, 1);
    }
    if (!tls || gnutls_certificate_allocate_credentials(&tls->credentials) != 0 ||
        gnutls_priority_init(&tls->priorities, PRIORITIES, NULL) != 0) {
        lb_tls_release(tls);
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting TLS");
    }
    enum lb_status status = fill(tls, certificate, key, client_ca, detail);
    if (status != LB_OK) {
        lb_tls_release(tls);
        return status;
    }
    *out = tls;
    return LB_OK;
}

int64_t lb_tls_expires(const struct lb_tls *tls) {
    return tls->expires;
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
    if (tls->asks) {
        gnutls_certificate_server_set_request(s->session, GNUTLS_CERT_REQUEST);
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

/* The first name of a certificate: the common one, else another one, else of its digest; false: none can be
 * had. */
static bool first_name(gnutls_x509_crt_t certificate, char out[LB_TLS_NAME]) {
    unsigned char digest[LB_SHA256_BYTES];
    size_t size = LB_TLS_NAME, n = sizeof digest;
    if (gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, out, &size) >= 0 &&
        out[0]) {
        return true;
    }
    size = LB_TLS_NAME - 1;
    if (gnutls_x509_crt_get_subject_alt_name(certificate, 0, out, &size, NULL) >= 0) {
        out[size] = '\0';
        return out[0] != '\0';
    }
    if (gnutls_x509_crt_get_fingerprint(certificate, GNUTLS_DIG_SHA256, digest, &n) != 0) {
        return false;
    }
    lb_hex(digest, 8, out);
    return true;
}

void lb_tls_client_name(struct lb_tls_session *s, char out[LB_TLS_NAME]) {
    unsigned n = 0;
    gnutls_x509_crt_t certificate = NULL;
    const gnutls_datum_t *shown = s->tls->asks ? gnutls_certificate_get_peers(s->session, &n) : NULL;
    char name[LB_TLS_NAME] = "";
    out[0] = '\0';
    if (!shown || n == 0 || gnutls_x509_crt_init(&certificate) != 0) {
        return;
    }
    if (gnutls_x509_crt_import(certificate, &shown[0], GNUTLS_X509_FMT_DER) == 0 &&
        first_name(certificate, name)) {
        for (char *p = name; *p; p++) {
            *p = *p <= ' ' || *p > '~' || *p == '"' || *p == '\\' ? '?' : *p;
        }
        memcpy(out, name, sizeof name);
    }
    gnutls_x509_crt_deinit(certificate);
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
