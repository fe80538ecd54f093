#include "server/api/clients.h"

#include "common/base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct client {
    char name[LB_CLIENT_NAME];
    bool token;
    uint64_t requests, failed, tokens, in_bytes, out_bytes;
    double last_unix;
};

struct lb_clients {
    pthread_mutex_t lock;         /* guards all below */
    struct client of[LB_CLIENTS]; /* n of them, who asked last first */
    size_t n;
};

struct lb_clients *lb_clients_create(void) {
    struct lb_clients *c = lb_calloc(1, sizeof *c);
    if (c) {
        pthread_mutex_init(&c->lock, NULL);
    }
    return c;
}

void lb_clients_destroy(struct lb_clients *c) {
    if (c) {
        pthread_mutex_destroy(&c->lock);
        lb_free(c);
    }
}

/* Under the lock: the client's place, which is the last one when it is new. */
static size_t find(struct lb_clients *c, const char *name, bool token) {
    for (size_t i = 0; i < c->n; i++) {
        if (c->of[i].token == token && strcmp(c->of[i].name, name) == 0) {
            return i;
        }
    }
    size_t last = c->n < LB_CLIENTS ? c->n++ : LB_CLIENTS - 1;
    c->of[last] = (struct client){.token = token};
    snprintf(c->of[last].name, sizeof c->of[last].name, "%s", name);
    return last;
}

void lb_clients_add(struct lb_clients *c, const struct lb_client_request *request) {
    char name[LB_CLIENT_NAME];
    snprintf(name, sizeof name, "%s", request->name);
    pthread_mutex_lock(&c->lock);
    size_t i = find(c, name, request->token);
    struct client client = c->of[i];
    client.requests++;
    client.failed += request->failed;
    client.tokens += (uint64_t)request->tokens;
    client.in_bytes += request->in_bytes;
    client.out_bytes += request->out_bytes;
    client.last_unix = request->at_unix;
    memmove(c->of + 1, c->of, i * sizeof *c->of);
    c->of[0] = client;
    pthread_mutex_unlock(&c->lock);
}

json_t *lb_clients_json(struct lb_clients *c) {
    json_t *list = json_array();
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; list && i < c->n; i++) {
        const struct client *of = &c->of[i];
        json_t *item = json_pack("{s:s,s:b,s:I,s:I,s:I,s:I,s:I,s:f}", "name", of->name, "token", of->token,
                                 "requests", (json_int_t)of->requests, "failed", (json_int_t)of->failed,
                                 "tokens", (json_int_t)of->tokens, "in_bytes", (json_int_t)of->in_bytes,
                                 "out_bytes", (json_int_t)of->out_bytes, "last", of->last_unix);
        if (json_array_append_new(list, item) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return list;
}
