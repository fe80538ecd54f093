#include "tests/support/replay.h"
#include "tests/support/fake_http.h"

#include "common/base/base64.h"
#include "common/base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_REQUEST (1u << 20)

struct replay {
    const json_t *exchanges;
    int listener;
    pthread_t thread;
    char url[64], unknown[400];
};

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
    if (fake_http_send(fd, head, strlen(head))) {
        (void)fake_http_send(fd, bytes ? (const char *)bytes : body ? body : "", len);
    }
    lb_free(bytes);
}

static void *serve(void *context) {
    struct replay *replay = context;
    for (;;) {
        int fd = accept(replay->listener, NULL, NULL);
        struct fake_request in;
        if (fd < 0) {
            return NULL;
        }
        lb_buf_init(&in.body, MAX_REQUEST);
        if (fake_http_read(fd, "", &in)) {
            const char *body = in.body.len > 0 ? in.body.data : "";
            const json_t *said = find(replay, in.method, in.path, body);
            if (!said) {
                snprintf(replay->unknown, sizeof replay->unknown, "%s %.100s %.200s", in.method, in.path,
                         body);
            }
            answer(fd, said);
        }
        lb_buf_finish(&in.body);
        close(fd);
    }
}

struct replay *replay_start(const json_t *exchanges) {
    struct replay *replay = lb_calloc(1, sizeof *replay);
    int port = 0;
    if (!replay || (replay->listener = fake_http_listen(&port)) < 0) {
        abort();
    }
    replay->exchanges = exchanges;
    snprintf(replay->url, sizeof replay->url, "http://127.0.0.1:%d", port);
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
