#include "server/http/auth.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/sha256.h"
#include "proto/limits.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define MIN_TOKEN 8

struct lb_auth {
    uint8_t (*digests)[LB_SHA256_BYTES];
    size_t n;
};

static enum lb_status check_mode(const char *path, struct lb_detail *detail) {
    struct stat st;
    if (stat(path, &st) != 0) {
        return lb_fail_errno(detail, errno == ENOENT ? LB_E_NOTFOUND : LB_E_IO, errno, "token file %s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return lb_fail(detail, LB_E_ARG, "token file %s: not a regular file", path);
    }
    if (st.st_mode & (S_IRWXG | S_IRWXO)) {
        return lb_fail(detail, LB_E_DENIED, "token file %s: mode %03o lets others in; run: chmod 600 %s",
                       path, (unsigned)(st.st_mode & 0777), path);
    }
    return LB_OK;
}

/* One token, or a line to skip (*out_token false). */
static enum lb_status check_line(const char *path, int line, const char *text, size_t len, bool *out_token,
                                 struct lb_detail *detail) {
    *out_token = false;
    if (len == 0 || text[0] == '#') {
        return LB_OK;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return lb_fail(detail, LB_E_FORMAT,
                           "token file %s, line %d: byte %zu is no visible ASCII character", path, line,
                           i + 1);
        }
    }
    if (len < MIN_TOKEN) {
        return lb_fail(detail, LB_E_FORMAT, "token file %s, line %d: a token needs at least %d characters",
                       path, line, MIN_TOKEN);
    }
    *out_token = true;
    return LB_OK;
}

static enum lb_status parse(struct lb_auth *auth, const char *path, const char *text, size_t len,
                            struct lb_detail *detail) {
    int line = 1;
    for (size_t at = 0; at < len; line++) {
        const char *start = text + at, *end = memchr(start, '\n', len - at);
        size_t n = end ? (size_t)(end - start) : len - at;
        at += n + 1;
        while (n > 0 && (start[n - 1] == '\r' || start[n - 1] == ' ' || start[n - 1] == '\t')) {
            n--;
        }
        bool token = false;
        enum lb_status status = check_line(path, line, start, n, &token, detail);
        if (status != LB_OK) {
            return status;
        }
        if (token) {
            void *grown = lb_realloc_array(auth->digests, auth->n + 1, sizeof *auth->digests);
            if (!grown) {
                return lb_fail(detail, LB_E_NOMEM, "token file %s: out of memory", path);
            }
            auth->digests = grown;
            lb_sha256(start, n, auth->digests[auth->n++]);
        }
    }
    return auth->n > 0 ? LB_OK
                       : lb_fail(detail, LB_E_FORMAT,
                                 "token file %s: holds no token; put one on a line of its own", path);
}

enum lb_status lb_auth_open(const char *path, struct lb_auth **out, struct lb_detail *detail) {
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_TOKEN_FILE_BYTES);
    struct lb_auth *auth = lb_calloc(1, sizeof *auth);
    enum lb_status status =
        auth ? check_mode(path, detail) : lb_fail(detail, LB_E_NOMEM, "token file %s: out of memory", path);
    if (status == LB_OK) {
        status = lb_file_read(path, &text, detail);
    }
    if (status == LB_OK) {
        status = parse(auth, path, text.data ? text.data : "", text.len, detail);
    }
    if (text.data) {
        explicit_bzero(text.data, text.len);
    }
    lb_buf_finish(&text);
    if (status != LB_OK) {
        lb_auth_destroy(auth);
        return status;
    }
    *out = auth;
    return LB_OK;
}

void lb_auth_destroy(struct lb_auth *auth) {
    if (auth) {
        lb_free(auth->digests);
        lb_free(auth);
    }
}

int lb_auth_find(const struct lb_auth *auth, const char *authorization) {
    if (!auth || !authorization || strncasecmp(authorization, "Bearer ", 7) != 0) {
        return -1;
    }
    const char *token = authorization + 7;
    token += strspn(token, " ");
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256(token, strlen(token), digest);
    int found = -1;
    for (size_t i = 0; i < auth->n; i++) {
        volatile unsigned difference = 0; /* volatile: no shortcut out of the loop */
        for (size_t j = 0; j < LB_SHA256_BYTES; j++) {
            difference |= (unsigned)(digest[j] ^ auth->digests[i][j]);
        }
        found = difference == 0 ? (int)i : found;
    }
    return found;
}
