#include "server/keys.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "server/http/secret.h"

#define DAY_SECONDS (24.0 * 60 * 60)
#define SOON_DAYS 14
#define MAX_PEM_BYTES ((size_t)1 << 20)

/* Nothing without a name. */
static enum lb_status read_pem(const char *option, const char *name, bool secret, struct lb_buf *out,
                               struct lb_detail *detail) {
    char *path = name ? lb_credential_path(name) : NULL;
    if (name && !path) {
        return lb_fail(detail, LB_E_NOMEM, "%s %s: out of memory", option, name);
    }
    enum lb_status status = LB_OK;
    if (path) {
        status = secret ? lb_secret_read(option, path, out, detail) : lb_file_read(path, out, detail);
    }
    if (path && status == LB_OK && out->len == 0) {
        status = lb_fail(detail, LB_E_FORMAT, "%s %s: the file is empty", option, path);
    }
    lb_free(path);
    return status;
}

static void warn_of_expiry(const struct lb_tls *tls) {
    double days = ((double)lb_tls_expires(tls) - lb_unix_seconds()) / DAY_SECONDS;
    if (days < 0) {
        lb_log(LB_LOG_WARN, "certificate_expired",
               "days_ago=%.1f hint=\"clients will refuse it; put another in its "
               "place and send SIGHUP\"",
               -days);
    } else if (days < SOON_DAYS) {
        lb_log(LB_LOG_WARN, "certificate_expires",
               "days=%.1f hint=\"put another in its place and send SIGHUP\"", days);
    }
}

enum lb_status lb_keys_open(const struct lb_options *options, struct lb_tls **out, struct lb_detail *detail) {
    struct lb_buf certificate, key, client_ca;
    struct lb_tls *tls = NULL;
    lb_buf_init(&certificate, MAX_PEM_BYTES);
    lb_buf_init(&key, MAX_PEM_BYTES);
    lb_buf_init(&client_ca, MAX_PEM_BYTES);
    enum lb_status status =
        read_pem("--tls-certificate", options->tls_certificate, false, &certificate, detail);
    if (status == LB_OK) {
        status = read_pem("--tls-key", options->tls_key, true, &key, detail);
    }
    if (status == LB_OK) {
        status = read_pem("--tls-client-ca", options->tls_client_ca, false, &client_ca, detail);
    }
    if (status == LB_OK && options->tls_certificate) {
        status = lb_tls_create(certificate.data, key.data, client_ca.data, &tls, detail);
    }
    if (status == LB_OK) {
        *out = tls;
    }
    if (status == LB_OK && tls) {
        warn_of_expiry(tls);
    }
    lb_secret_finish(&key);
    lb_buf_finish(&certificate);
    lb_buf_finish(&client_ca);
    return status;
}

enum lb_status lb_keys_guard(const struct lb_options *options, const char *address, bool loopback,
                             struct lb_detail *detail) {
    if (loopback || options->token_file || options->tls_client_ca || options->insecure) {
        return LB_OK;
    }
    return lb_fail(detail, LB_E_DENIED,
                   "--listen %s: anybody who reaches this address could ask; give --token-file (or "
                   "--tls-client-ca), or --insecure where that is meant",
                   address);
}
