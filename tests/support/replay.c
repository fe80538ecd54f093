#include "tests/support/replay.h"

#include "common/base/base64.h"
#include "common/base/buf.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_REQUEST (1u << 20)

struct replay {
    const json_t *exchanges;
    int listener;
    pthread_t thread;
    char url[64], unknown[400];
};

static bool send_all(int fd, const void *bytes, size_t len) {
    const char *p = bytes;
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* One request: its first line and its body. False when it ends before. */
static bool receive(int fd, struct lb_buf *all, const char **body) {
    char part[4096];
    size_t head = 0, length = 0;
    for (;;) {
        const char *end = all->len > 0 && head == 0 ? strstr(all->data, "\r\n\r\n") : NULL;
        if (end) {
            head = (size_t)(end - all->data) + 4;
            for (const char *line = all->data; line < end; line = strstr(line, "\r\n") + 2) {
                length =
                    strncasecmp(line, "content-length:", 15) == 0 ? strtoull(line + 15, NULL, 10) : length;
            }
        }
        if (head > 0 && all->len >= head + length) {
            *body = all->data + head;
            return true;
        }
        ssize_t n = recv(fd, part, sizeof part, 0);
        if (n <= 0 || lb_buf_append(all, part, (size_t)n) != LB_OK) {
            return false;
        }
    }
}

static const json_t *find(const struct replay *replay, const char *method, const char *path,
                          const char *body) {
    for (size_t i = 0; i < json_array_size(replay->exchanges); i++) {
        const json_t *one = json_array_get(replay->exchanges, i);
        if (strcmp(json_string_value(json_object_get(one, "method")), method) == 0 &&
            strcmp(json_string_value(json_object_get(one, "path")), path) == 0 &&
            strcmp(json_string_value(json_object_get(one, "request")), body) == 0) {
            return one;
        }
    }
    return NULL;
}

static void answer(int fd, const json_t *said) {
    const char *metadata = json_string_value(json_object_get(said, "metadata"));
    const char *body = json_string_value(json_object_get(said, metadata ? "base64" : "body"));
    int code = said ? (int)json_integer_value(json_object_get(said, "status")) : 500;
    char head[8192];
    unsigned char *bytes = NULL;
    size_t len = body ? strlen(body) : 0;
    if (metadata && (!(bytes = lb_malloc_array(len + 4, 1)) || !lb_base64_bytes(body, len, bytes, &len))) {
        abort();
    }
    snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nConnection: close\r\n%s%s%sContent-Length: %zu\r\n\r\n",
             code, metadata ? "metadata: " : "", metadata ? metadata : "", metadata ? "\r\n" : "", len);
    if (send_all(fd, head, strlen(head))) {
        (void)send_all(fd, bytes ? (const char *)bytes : body ? body : "", len);
    }
    lb_free(bytes);
}

static void *serve(void *context) {
    struct replay *replay = context;
    for (;;) {
        int fd = accept(replay->listener, NULL, NULL);
        char method[8], path[400];
        const char *body = NULL;
        struct lb_buf all;
        if (fd < 0) {
            return NULL;
        }
        lb_buf_init(&all, MAX_REQUEST);
        if (receive(fd, &all, &body) && sscanf(all.data, "%7s %399s", method, path) == 2) {
            const json_t *said = find(replay, method, path, body);
            if (!said) {
                snprintf(replay->unknown, sizeof replay->unknown, "%s %.100s %.200s", method, path, body);
            }
            answer(fd, said);
        }
        lb_buf_finish(&all);
        close(fd);
    }
}

struct replay *replay_start(const json_t *exchanges) {
    struct replay *replay = lb_calloc(1, sizeof *replay);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (!replay || (replay->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 ||
        bind(replay->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(replay->listener, 64) != 0 ||
        getsockname(replay->listener, (struct sockaddr *)&address, &size) != 0) {
        abort();
    }
    replay->exchanges = exchanges;
    snprintf(replay->url, sizeof replay->url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    if (pthread_create(&replay->thread, NULL, serve, replay) != 0) {
        abort();
    }
    return replay;
}

const char *replay_url(const struct replay *replay) {
    return replay->url;
}

const char *replay_unknown(const struct replay *replay) {
    return replay->unknown;
}

void replay_stop(struct replay *replay) {
    if (replay) {
        shutdown(replay->listener, SHUT_RDWR);
        pthread_join(replay->thread, NULL);
        close(replay->listener);
        lb_free(replay);
    }
}
