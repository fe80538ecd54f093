#include "server/http/secret.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *lb_credential_path(const char *name) {
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    return folder && *folder && !strchr(name, '/') ? lb_path_join(folder, name) : lb_strdup(name);
}

enum lb_status lb_secret_check(const char *what, const char *path, const struct stat *st, uid_t user,
                               struct lb_detail *detail) {
    unsigned mode = st->st_mode & 07777;
    if (!S_ISREG(st->st_mode)) {
        return lb_fail(detail, LB_E_ARG, "%s %s: not a regular file", what, path);
    }
    if (st->st_uid == user) {
        return mode & (S_IRWXG | S_IRWXO)
                   ? lb_fail(detail, LB_E_DENIED, "%s %s: mode %03o lets others in; run: chmod 600 %s", what,
                             path, mode, path)
                   : LB_OK;
    }
    if (st->st_uid != 0) {
        return lb_fail(detail, LB_E_DENIED,
                       "%s %s: it belongs to user %u, neither to this daemon's user (%u) nor to root; run: "
                       "chown %u %s",
                       what, path, (unsigned)st->st_uid, (unsigned)user, (unsigned)user, path);
    }
    if (mode & (S_IWGRP | S_IXGRP | S_IRWXO)) {
        return lb_fail(detail, LB_E_DENIED,
                       "%s %s: mode %03o of root's lets others in; run: chmod 640 %s, and give it a group of "
                       "this daemon's (in Kubernetes: defaultMode 0440 and fsGroup)",
                       what, path, mode, path);
    }
    return LB_OK;
}

static enum lb_status read_all(const char *what, const char *path, int fd, size_t size, struct lb_buf *out,
                               struct lb_detail *detail) {
    char *place = size <= out->max - out->len ? lb_buf_extend(out, size) : NULL;
    if (!place) {
        return size > out->max - out->len ? lb_fail(detail, LB_E_LIMIT, "%s %s: larger than %zu bytes", what,
                                                    path, out->max - out->len)
                                          : lb_fail(detail, LB_E_NOMEM, "%s %s: out of memory", what, path);
    }
    for (size_t at = 0; at < size;) {
        ssize_t n = read(fd, place + at, size - at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return lb_fail_errno(detail, LB_E_IO, n < 0 ? errno : EIO, "%s %s", what, path);
        }
        at += (size_t)n;
    }
    return LB_OK;
}

enum lb_status lb_secret_read(const char *what, const char *path, struct lb_buf *out,
                              struct lb_detail *detail) {
    struct stat st;
    /* What opens is what is checked; a pipe would hold us up. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        int error = errno;
        enum lb_status status = error == ENOENT ? LB_E_NOTFOUND : error == EACCES ? LB_E_DENIED : LB_E_IO;
        if (fd >= 0) {
            close(fd);
        }
        return lb_fail_errno(detail, status, error, "%s %s", what, path);
    }
    enum lb_status status = lb_secret_check(what, path, &st, geteuid(), detail);
    if (status == LB_OK) {
        status = read_all(what, path, fd, (size_t)st.st_size, out, detail);
    }
    close(fd);
    return status;
}

void lb_secret_finish(struct lb_buf *secret) {
    if (secret->data) {
        explicit_bzero(secret->data, secret->cap);
    }
    lb_buf_finish(secret);
}
