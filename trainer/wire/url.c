#include "trainer/wire/url.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *text;
    enum lb_scheme scheme;
} schemes[] = {{"http://", LB_SCHEME_HTTP},
               {"https://", LB_SCHEME_HTTPS},
               {"unix:", LB_SCHEME_UNIX},
               {"local:", LB_SCHEME_LOCAL}};

enum lb_scheme lb_url_scheme(const char *text, size_t *out_len) {
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t n = strlen(schemes[i].text);
        if (strncasecmp(text, schemes[i].text, n) == 0) {
            if (out_len) {
                *out_len = n;
            }
            return schemes[i].scheme;
        }
    }
    if (out_len) {
        *out_len = 0;
    }
    return LB_SCHEME_NONE;
}

/* The port behind a host: digits, 1 to 65535. */
static bool is_port(const char *text, size_t len) {
    long port = len > 0 && len <= 5 && strspn(text, "0123456789") >= len ? strtol(text, NULL, 10) : 0;
    return port > 0 && port <= 65535;
}

/* What is wrong with HOST[:PORT][/PATH]; NULL: nothing. */
static const char *wrong_host(const char *text) {
    size_t len = strcspn(text, "/"), host;
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p <= ' ' || *p == 127) {
            return "it holds a space or a control character; take it away, or write it as %20";
        }
    }
    if (text[strcspn(text, "?#")] != '\0') {
        return "an address ends before ? and #";
    }
    if (text[0] == '[') { /* IPv6 */
        const char *end = memchr(text, ']', len);
        if (!end) {
            return "its [ is not closed";
        }
        host = (size_t)(end + 1 - text);
        if (host < len && text[host] != ':') {
            return "behind ] comes :PORT";
        }
    } else {
        host = strcspn(text, ":/");
    }
    if (host == 0) {
        return "it names no host";
    }
    return host < len && !is_port(text + host + 1, len - host - 1) ? "its port is no number from 1 to 65535"
                                                                   : NULL;
}

enum lb_status lb_url_check(const char *url, bool local_too, struct lb_detail *detail) {
    size_t len;
    enum lb_scheme scheme = lb_url_scheme(url, &len);
    const char *wrong = NULL;
    if (scheme == LB_SCHEME_NONE || (scheme == LB_SCHEME_LOCAL && !local_too)) {
        return lb_fail(detail, LB_E_ARG, "\"%s\" is no URL; write http://HOST:PORT, https://HOST:PORT%s", url,
                       local_too ? ", unix:PATH or local:PATH" : " or unix:PATH");
    }
    if (scheme == LB_SCHEME_HTTP || scheme == LB_SCHEME_HTTPS) {
        wrong = wrong_host(url + len);
    } else if (url[len] == '\0') {
        wrong = "it names no path";
    }
    return wrong ? lb_fail(detail, LB_E_ARG, "\"%s\" is no URL: %s", url, wrong) : LB_OK;
}
