#include "tests/support/fake_http.h"

#include "proto/oip.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

int fake_http_listen(int *port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        close(fd);
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

bool fake_http_read(int fd, const char *token, struct fake_request *in) {
    char head[16384];
    size_t len = 0;
    char *end = NULL;
    while (!end) {
        ssize_t n = len < sizeof head - 1 ? recv(fd, head + len, 1, 0) : 0;
        if (n <= 0) {
            return false;
        }
        len += (size_t)n;
        head[len] = 0;
        end = len >= 4 && !memcmp(head + len - 4, "\r\n\r\n", 4) ? head + len : NULL;
    }
    in->json_len = -1;
    in->no_cache = false;
    in->authorized = !*token;
    size_t body_len = 0;
    if (sscanf(head, "%7s %399s", in->method, in->path) != 2) {
        return false;
    }
    for (char *line = strstr(head, "\r\n") + 2; *line && *line != '\r'; line = strstr(line, "\r\n") + 2) {
        if (!strncasecmp(line, "Content-Length:", 15)) {
            body_len = (size_t)strtoull(line + 15, NULL, 10);
        } else if (!strncasecmp(line, LB_HEADER_JSON_LENGTH ":", sizeof LB_HEADER_JSON_LENGTH)) {
            in->json_len = strtoll(line + sizeof LB_HEADER_JSON_LENGTH, NULL, 10);
        } else if (!strncasecmp(line, "Cache-Control: no-cache", 23)) {
            in->no_cache = true;
        } else if (*token && !strncasecmp(line, "Authorization: Bearer ", 22)) {
            size_t n = strlen(token);
            in->authorized = !strncmp(line + 22, token, n) && line[22 + n] == '\r';
        } else if (!strncasecmp(line, "Expect:", 7)) {
            fprintf(stderr, "fake server: the client waits for 100 Continue\n");
            abort();
        }
    }
    lb_buf_reset(&in->body);
    char *to = body_len ? lb_buf_extend(&in->body, body_len) : NULL;
    for (size_t got = 0; got < body_len;) {
        ssize_t n = recv(fd, to + got, body_len - got, 0);
        if (n <= 0) {
            return false;
        }
        got += (size_t)n;
    }
    return true;
}

bool fake_http_send(int fd, const void *bytes, size_t len) {
    const char *p = bytes;
    while (len) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        p += n;
        len -= (size_t)n;
    }
    return true;
}

bool fake_http_answer(int fd, int code, const char *headers, const char *body) {
    char text[8192];
    snprintf(text, sizeof text, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n%s", code, headers,
             strlen(body), body);
    return fake_http_send(fd, text, strlen(text));
}

bool fake_http_bytes(int fd, const char *headers, const struct lb_buf *body, size_t send_len) {
    char text[1024];
    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\n%sContent-Length: %zu\r\n\r\n", headers, body->len);
    return fake_http_send(fd, text, strlen(text)) && fake_http_send(fd, body->data, send_len);
}

void fake_http_wait(int fd) {
    char byte;
    while (recv(fd, &byte, 1, 0) > 0) {
    }
}
