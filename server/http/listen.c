#include "server/http/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024

/* A socket file that nobody answers on is left over from a process that died. */
static enum lb_status clear_stale(const struct sockaddr_un *address, struct lb_detail *detail) {
    struct stat st;
    if (lstat(address->sun_path, &st) != 0) {
        return LB_OK;
    }
    if (!S_ISSOCK(st.st_mode)) {
        return lb_fail(detail, LB_E_ARG, "--listen unix:%s: exists and is no socket; choose another path",
                       address->sun_path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return lb_fail_errno(detail, LB_E_IO, errno, "--listen unix:%s: socket", address->sun_path);
    }
    int error = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ? 0 : errno;
    close(fd);
    if (error == 0) {
        return lb_fail(detail, LB_E_BUSY, "--listen unix:%s: another process listens there",
                       address->sun_path);
    }
    if (error != ECONNREFUSED && error != ENOENT) {
        return lb_fail_errno(detail, LB_E_BUSY, error, "--listen unix:%s: a socket that may be in use",
                             address->sun_path);
    }
    unlink(address->sun_path);
    return LB_OK;
}

static enum lb_status unix_address(const char *path, struct sockaddr_un *out, struct lb_detail *detail) {
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) == 0 || strlen(path) >= sizeof out->sun_path) {
        return lb_fail(detail, LB_E_ARG, "--listen unix:%s: the path must have 1 to %zu bytes", path,
                       sizeof out->sun_path - 1);
    }
    memcpy(out->sun_path, path, strlen(path) + 1);
    return LB_OK;
}

static enum lb_status listen_unix(const char *path, struct lb_listener *out, struct lb_detail *detail) {
    struct sockaddr_un address;
    enum lb_status status = unix_address(path, &address, detail);
    if (status == LB_OK) {
        status = clear_stale(&address, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, BACKLOG) != 0) {
        status = lb_fail_errno(detail, LB_E_IO, errno, "--listen unix:%s", path);
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    out->fd = fd;
    out->port = 0;
    out->loopback = true;
    snprintf(out->address, sizeof out->address, "unix:%s", path);
    return LB_OK;
}

/* Splits "host:port" or "[host]:port" at the last colon. */
static enum lb_status split(const char *where, char *host, size_t host_size, const char **port,
                            struct lb_detail *detail) {
    const char *colon = strrchr(where, ':');
    const char *start = where;
    size_t len = colon ? (size_t)(colon - where) : 0;
    if (len >= 2 && where[0] == '[' && where[len - 1] == ']') {
        start++;
        len -= 2;
    } else if (colon && memchr(where, ':', len)) {
        colon = NULL; /* an IPv6 address without brackets */
    }
    if (!colon || len == 0 || len >= host_size || colon[1] == '\0' ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
        return lb_fail(detail, LB_E_ARG, "--listen %s: expected ADDR:PORT, [IPV6]:PORT or unix:PATH", where);
    }
    if (strlen(colon + 1) > 5 || strtol(colon + 1, NULL, 10) > 65535) {
        return lb_fail(detail, LB_E_ARG, "--listen %s: a port is at most 65535", where);
    }
    memcpy(host, start, len);
    host[len] = '\0';
    *port = colon + 1;
    return LB_OK;
}

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    }
    const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    return address->sa_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(in6) || (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127));
}

static void describe(int fd, struct lb_listener *out) {
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    char host[64] = "?", port[8] = "0";
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&bound;
    out->fd = fd;
    if (getsockname(fd, (struct sockaddr *)&bound, &size) != 0) {
        return;
    }
    if (bound.ss_family == AF_UNIX) {
        out->loopback = true;
        bool file = un->sun_path[0] != '\0'; /* else a name of the kernel's */
        snprintf(out->address, sizeof out->address, "unix:%s%.*s", file ? "" : "@",
                 (int)(sizeof un->sun_path - !file), un->sun_path + !file);
        return;
    }
    getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    out->loopback = is_loopback((struct sockaddr *)&bound);
    out->port = (int)strtol(port, NULL, 10);
    snprintf(out->address, sizeof out->address, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* ---- handed over ---- */

#define FIRST_INHERITED 3

static bool listens(int fd) {
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound, size_of_type = sizeof(int), size_of_listens = sizeof(int);
    int type = 0, listening = 0;
    return getsockname(fd, (struct sockaddr *)&bound, &size) == 0 &&
           (bound.ss_family == AF_INET || bound.ss_family == AF_INET6 || bound.ss_family == AF_UNIX) &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size_of_type) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size_of_listens) == 0 && listening;
}

enum lb_status lb_listen_inherit(bool *out_there, struct lb_listener *out, struct lb_detail *detail) {
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    long n = pid && count && strtol(pid, NULL, 10) == getpid() ? strtol(count, NULL, 10) : 0;
    if (n > 1) {
        return lb_fail(detail, LB_E_ARG,
                       "LISTEN_FDS: %ld sockets were handed over, and limbeckd takes one; leave one "
                       "ListenStream= in its socket unit",
                       n);
    }
    if (n == 1 && !listens(FIRST_INHERITED)) {
        return lb_fail(
            detail, LB_E_ARG,
            "LISTEN_FDS: what was handed over is no listening stream socket; the socket unit wants "
            "ListenStream= and Accept=no");
    }
    *out_there = n == 1;
    if (n == 1) {
        int flags = fcntl(FIRST_INHERITED, F_GETFL);
        fcntl(FIRST_INHERITED, F_SETFL, flags | O_NONBLOCK);
        fcntl(FIRST_INHERITED, F_SETFD, FD_CLOEXEC);
        memset(out, 0, sizeof *out);
        out->inherited = true;
        describe(FIRST_INHERITED, out);
    }
    return LB_OK;
}

/* ---- by address ---- */

/* The addresses that ADDR:PORT means; freed with freeaddrinfo. */
static enum lb_status resolve(const char *where, struct addrinfo **out, struct lb_detail *detail) {
    char host[128];
    const char *port = NULL;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    enum lb_status status = split(where, host, sizeof host, &port, detail);
    if (status != LB_OK) {
        return status;
    }
    int r = getaddrinfo(host, port, &hints, out);
    return r == 0 ? LB_OK : lb_fail(detail, LB_E_ARG, "--listen %s: %s", where, gai_strerror(r));
}

enum lb_status lb_listen_check(const char *where, bool *out_loopback, struct lb_detail *detail) {
    struct sockaddr_un address;
    struct addrinfo *list = NULL;
    bool loopback = true;
    enum lb_status status = strncmp(where, "unix:", 5) == 0 ? unix_address(where + 5, &address, detail)
                                                            : resolve(where, &list, detail);
    if (status != LB_OK) {
        return status;
    }
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        loopback = loopback && is_loopback(a->ai_addr);
    }
    if (list) {
        freeaddrinfo(list);
    }
    *out_loopback = loopback;
    return LB_OK;
}

enum lb_status lb_listen(const char *where, struct lb_listener *out, struct lb_detail *detail) {
    struct addrinfo *list = NULL;
    memset(out, 0, sizeof *out);
    out->fd = -1;
    if (strncmp(where, "unix:", 5) == 0) {
        return listen_unix(where + 5, out, detail);
    }
    enum lb_status status = resolve(where, &list, detail);
    if (status != LB_OK) {
        return status;
    }
    int error = EADDRNOTAVAIL, on = 1;
    for (struct addrinfo *a = list; a && out->fd < 0; a = a->ai_next) {
        int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
            bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
            describe(fd, out);
            break;
        }
        error = errno;
        if (fd >= 0) {
            close(fd);
        }
    }
    freeaddrinfo(list);
    return out->fd >= 0 ? LB_OK : lb_fail_errno(detail, LB_E_IO, error, "--listen %s", where);
}

void lb_listener_close(struct lb_listener *listener) {
    if (!listener) {
        return;
    }
    if (listener->fd >= 0) {
        close(listener->fd);
        listener->fd = -1;
    }
    if (strncmp(listener->address, "unix:", 5) == 0 && !listener->inherited) {
        unlink(listener->address + 5);
        listener->address[0] = '\0';
    }
}
