#include "server/http/budget.h"

#include "common/base/mem.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#define BUCKETS 256
/* The part kept for small requests, and how much of the whole a small request holds at most. */
#define KEPT 8
#define SMALL 256

struct lb_client {
    struct lb_budget *budget;
    struct lb_client *next; /* of its bucket */
    unsigned references;
    unsigned connections;
    size_t used, small_used;
    char name[];
};

struct lb_budget {
    pthread_mutex_t lock; /* guards all below, and all clients */
    size_t max, used, small_used;
    unsigned n_holding; /* clients that hold something large */
    struct lb_client *buckets[BUCKETS];
};

struct lb_budget *lb_budget_create(size_t max_bytes) {
    struct lb_budget *b = lb_calloc(1, sizeof *b);
    if (b) {
        b->max = max_bytes;
        pthread_mutex_init(&b->lock, NULL);
    }
    return b;
}

void lb_budget_destroy(struct lb_budget *b) {
    if (b) {
        for (int i = 0; i < BUCKETS; i++) {
            while (b->buckets[i]) {
                struct lb_client *client = b->buckets[i];
                b->buckets[i] = client->next;
                lb_free(client);
            }
        }
        pthread_mutex_destroy(&b->lock);
        lb_free(b);
    }
}

void lb_budget_resize(struct lb_budget *b, size_t max_bytes) {
    pthread_mutex_lock(&b->lock);
    b->max = max_bytes;
    pthread_mutex_unlock(&b->lock);
}

size_t lb_budget_used(struct lb_budget *b) {
    pthread_mutex_lock(&b->lock);
    size_t used = b->used + b->small_used;
    pthread_mutex_unlock(&b->lock);
    return used;
}

size_t lb_budget_largest(struct lb_budget *b) {
    pthread_mutex_lock(&b->lock);
    size_t largest = (b->max - b->max / KEPT) / 2;
    pthread_mutex_unlock(&b->lock);
    return largest;
}

/* ---- clients ---- */

static unsigned bucket_of(const char *name) {
    uint32_t h = 2166136261u;
    for (; *name; name++) {
        h = (h ^ (uint8_t)*name) * 16777619u;
    }
    return h % BUCKETS;
}

struct lb_client *lb_client_get(struct lb_budget *b, const char *name) {
    size_t len = strlen(name);
    pthread_mutex_lock(&b->lock);
    struct lb_client **bucket = &b->buckets[bucket_of(name)], *client = *bucket;
    while (client && strcmp(client->name, name) != 0) {
        client = client->next;
    }
    if (!client && (client = lb_calloc(1, sizeof *client + len + 1)) != NULL) {
        client->budget = b;
        memcpy(client->name, name, len + 1);
        client->next = *bucket;
        *bucket = client;
    }
    if (client) {
        client->references++;
    }
    pthread_mutex_unlock(&b->lock);
    return client;
}

struct lb_client *lb_client_retain(struct lb_client *client) {
    pthread_mutex_lock(&client->budget->lock);
    client->references++;
    pthread_mutex_unlock(&client->budget->lock);
    return client;
}

static void release_locked(struct lb_client *client) {
    if (--client->references == 0) {
        struct lb_client **at = &client->budget->buckets[bucket_of(client->name)];
        while (*at != client) {
            at = &(*at)->next;
        }
        *at = client->next;
        lb_free(client);
    }
}

void lb_client_release(struct lb_client *client) {
    if (client) {
        pthread_mutex_t *lock = &client->budget->lock;
        pthread_mutex_lock(lock);
        release_locked(client);
        pthread_mutex_unlock(lock);
    }
}

bool lb_client_connect(struct lb_client *client, unsigned max) {
    pthread_mutex_lock(&client->budget->lock);
    bool fits = client->connections < max;
    client->connections += fits;
    pthread_mutex_unlock(&client->budget->lock);
    return fits;
}

void lb_client_disconnect(struct lb_client *client) {
    pthread_mutex_lock(&client->budget->lock);
    client->connections--;
    pthread_mutex_unlock(&client->budget->lock);
}

/* ---- holdings, under the lock ---- */

static void add_large(struct lb_client *client, size_t bytes) {
    client->budget->n_holding += client->used == 0 && bytes > 0;
    client->used += bytes;
    client->budget->used += bytes;
}

static void drop_large(struct lb_client *client, size_t bytes) {
    client->budget->n_holding -= client->used > 0 && client->used == bytes;
    client->used -= bytes;
    client->budget->used -= bytes;
}

static void add(struct lb_client *client, size_t bytes, bool small) {
    if (small) {
        client->small_used += bytes;
        client->budget->small_used += bytes;
    } else {
        add_large(client, bytes);
    }
}

static void drop(struct lb_client *client, size_t bytes, bool small) {
    if (small) {
        client->small_used -= bytes;
        client->budget->small_used -= bytes;
    } else {
        drop_large(client, bytes);
    }
}

/* Whether the whole of a request may stand among the large ones. */
static bool fits_large(const struct lb_client *client, size_t bytes) {
    const struct lb_budget *b = client->budget;
    size_t room = b->max - b->max / KEPT;
    size_t share = room / ((size_t)b->n_holding + (client->used == 0) + 1);
    return bytes <= room && b->used <= room - bytes && bytes <= share && client->used <= share - bytes;
}

static bool fits_small(const struct lb_client *client, size_t bytes) {
    const struct lb_budget *b = client->budget;
    size_t room = b->max / KEPT;
    return b->small_used + bytes <= room && client->small_used + bytes <= room / 2;
}

bool lb_hold(struct lb_holding *h, size_t bytes) {
    struct lb_budget *b = h->client->budget;
    if (bytes > SIZE_MAX / 2 - h->bytes) {
        return false;
    }
    pthread_mutex_lock(&b->lock);
    /* It stands as a whole among the large or the small ones: as if it were let in anew. */
    size_t whole = h->bytes + bytes;
    drop(h->client, h->bytes, h->small);
    bool large = fits_large(h->client, whole);
    bool fits = large || (whole <= b->max / SMALL && fits_small(h->client, whole));
    h->small = fits ? !large : h->small;
    h->bytes = fits ? whole : h->bytes;
    add(h->client, h->bytes, h->small);
    pthread_mutex_unlock(&b->lock);
    return fits;
}

void lb_unhold(struct lb_holding *h, size_t bytes) {
    struct lb_budget *b = h->client->budget;
    pthread_mutex_lock(&b->lock);
    drop(h->client, bytes, h->small);
    h->bytes -= bytes;
    pthread_mutex_unlock(&b->lock);
}

void lb_hold_as(struct lb_holding *h, struct lb_client *client) {
    pthread_mutex_t *lock = &client->budget->lock;
    pthread_mutex_lock(lock);
    drop(h->client, h->bytes, h->small);
    add(client, h->bytes, h->small);
    release_locked(h->client);
    h->client = client;
    pthread_mutex_unlock(lock);
}

void lb_holding_finish(struct lb_holding *h) {
    if (h->client) {
        pthread_mutex_t *lock = &h->client->budget->lock;
        pthread_mutex_lock(lock);
        drop(h->client, h->bytes, h->small);
        release_locked(h->client);
        pthread_mutex_unlock(lock);
        *h = (struct lb_holding){0};
    }
}
