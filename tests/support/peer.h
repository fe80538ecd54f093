/* The other end of a connection, byte by byte: for tests of HTTP as it goes over the wire. What goes wrong
 * fails the test; include cmocka.h first. */
#ifndef LB_TESTS_SUPPORT_PEER_H
#define LB_TESTS_SUPPORT_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

static inline int lb_peer_dial(int port) {
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval patience = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (const struct sockaddr *)&in, sizeof in), 0);
    return fd;
}

static inline void lb_peer_say(int fd, const char *text) {
    size_t len = strlen(text), at = 0;
    while (at < len) {
        ssize_t n = send(fd, text + at, len - at, MSG_NOSIGNAL);
        assert_true(n > 0);
        at += (size_t)n;
    }
}

/* All that comes until the daemon closes; false when it doesn't within ten seconds. */
static inline bool lb_peer_hear(int fd, char *out, size_t size) {
    size_t len = 0;
    ssize_t n = 1;
    while (len + 1 < size && (n = recv(fd, out + len, size - len - 1, 0)) > 0) {
        len += (size_t)n;
    }
    out[len] = '\0';
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* As much as belongs to one small answer. */
static inline void lb_peer_hear_one(int fd, char *out, size_t size, const char *end) {
    size_t len = 0;
    while (len + 1 < size) {
        ssize_t n = recv(fd, out + len, size - len - 1, 0);
        assert_true(n > 0);
        len += (size_t)n;
        out[len] = '\0';
        if (strstr(out, end)) {
            return;
        }
    }
}

static inline int lb_peer_count(const char *text, const char *word) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, word)) != NULL; p++) {
        n++;
    }
    return n;
}

#endif
