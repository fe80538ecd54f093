#include "server/engine/known.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "server/models/repository.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#define FEWEST_BUCKETS 1024
/* Inner states that were asked of a model not longer ago are kept of all that it computes: who asks them of
 * one text does so of the next, and comes when others have had it computed. */
#define RECENT_NS (60 * LB_SECOND_NS)
#define MOST_RECENT 8
/* What a heap takes beside a piece of memory, about. */
#define HEAP_BYTES 16

struct recent {
    uint64_t instance; /* 0: none */
    struct lb_part what;
    uint64_t asked_ns;
};

struct lb_known {
    size_t max_bytes;
    uint64_t seed, hash_mask;
    pthread_mutex_t lock; /* guards all below */
    struct lb_seen **buckets;
    size_t n_buckets, n_seen, n_kept, n_waited, bytes;
    struct lb_seen *oldest, *newest; /* of those that nobody waits for */
    struct recent recent[MOST_RECENT];
};

struct lb_known *lb_known_create(size_t max_bytes, uint64_t hash_mask) {
    struct lb_known *k = lb_calloc(1, sizeof *k);
    if (!k) {
        return NULL;
    }
    k->n_buckets = FEWEST_BUCKETS;
    k->buckets = lb_calloc(k->n_buckets, sizeof(struct lb_seen *));
    if (!k->buckets) {
        lb_free(k);
        return NULL;
    }
    k->max_bytes = max_bytes;
    k->hash_mask = hash_mask;
    /* Nobody shall know which sequences fall together. */
    if (getrandom(&k->seed, sizeof k->seed, 0) != (ssize_t)sizeof k->seed) {
        k->seed = lb_now_ns();
    }
    pthread_mutex_init(&k->lock, NULL);
    return k;
}

static void free_all(struct lb_seen *list) {
    while (list) {
        struct lb_seen *s = list;
        list = s->next;
        for (size_t i = 0; i < s->n_inner; i++) {
            lb_free(s->inner[i].data);
        }
        lb_free(s->inner);
        lb_free(s->final.data);
        lb_free(s);
    }
}

void lb_known_destroy(struct lb_known *k) {
    if (k) {
        for (size_t b = 0; b < k->n_buckets; b++) {
            free_all(k->buckets[b]);
        }
        lb_free(k->buckets);
        pthread_mutex_destroy(&k->lock);
        lb_free(k);
    }
}

/* ---- sequences, under the lock ---- */

static struct lb_seen **bucket(struct lb_known *k, uint64_t hash) {
    return &k->buckets[hash % k->n_buckets];
}

/* More buckets than sequences, as long as there is memory for them. */
static void grow(struct lb_known *k) {
    size_t n = k->n_buckets * 2;
    struct lb_seen **grown = k->n_seen >= k->n_buckets ? lb_calloc(n, sizeof(struct lb_seen *)) : NULL;
    if (!grown) {
        return;
    }
    for (size_t b = 0; b < k->n_buckets; b++) {
        for (struct lb_seen *s = k->buckets[b], *next; s; s = next) {
            next = s->next;
            s->next = grown[s->hash % n];
            grown[s->hash % n] = s;
        }
    }
    lb_free(k->buckets);
    k->buckets = grown;
    k->n_buckets = n;
}

static void leave_order(struct lb_known *k, struct lb_seen *s) {
    *(s->older ? &s->older->newer : &k->oldest) = s->newer;
    *(s->newer ? &s->newer->older : &k->newest) = s->older;
    s->older = s->newer = NULL;
}

static void enter_order(struct lb_known *k, struct lb_seen *s) {
    s->older = k->newest;
    *(k->newest ? &k->newest->newer : &k->oldest) = s;
    k->newest = s;
}

/* Takes a sequence that nobody waits for out of the table, to a list of what is freed without the lock. */
static void drop(struct lb_known *k, struct lb_seen *s, struct lb_seen **dropped) {
    struct lb_seen **at = bucket(k, s->hash);
    while (*at != s) {
        at = &(*at)->next;
    }
    *at = s->next;
    k->n_seen--;
    k->n_kept -= s->bytes > 0;
    k->bytes -= s->bytes;
    s->next = *dropped;
    *dropped = s;
}

static void drop_oldest(struct lb_known *k, struct lb_seen **dropped) {
    struct lb_seen *s = k->oldest;
    leave_order(k, s);
    drop(k, s, dropped);
}

static struct lb_seen *find_seen(struct lb_known *k, uint64_t hash, uint64_t instance, const int32_t *ids,
                                 int64_t n) {
    struct lb_seen *s = *bucket(k, hash);
    while (s && !(s->hash == hash && s->instance == instance && s->n == n &&
                  memcmp(s->ids, ids, (size_t)n * sizeof *ids) == 0)) {
        s = s->next;
    }
    return s;
}

static struct lb_seen *make_seen(struct lb_known *k, uint64_t hash, uint64_t instance, const int32_t *ids,
                                 int64_t n) {
    struct lb_seen *s = lb_calloc(1, sizeof *s + (size_t)n * sizeof *ids);
    if (s) {
        s->hash = hash;
        s->instance = instance;
        s->final.what.source = LB_FROM_FINAL;
        s->n = n;
        memcpy(s->ids, ids, (size_t)n * sizeof *ids);
        grow(k);
        s->next = *bucket(k, hash);
        *bucket(k, hash) = s;
        k->n_seen++;
    }
    return s;
}

static struct lb_piece *find_piece(struct lb_seen *s, enum lb_output_source source, int layer) {
    if (source == LB_FROM_FINAL) {
        return &s->final;
    }
    for (size_t i = 0; i < s->n_inner; i++) {
        if (s->inner[i].what.source == source && s->inner[i].what.layer == layer) {
            return &s->inner[i];
        }
    }
    return NULL;
}

/* The piece, made when new; NULL when out of memory: it is not kept then. */
static struct lb_piece *get_piece(struct lb_seen *s, const struct lb_part *what) {
    struct lb_piece *piece = find_piece(s, what->source, what->layer);
    if (!piece) {
        struct lb_piece *grown = lb_realloc_array(s->inner, s->n_inner + 1, sizeof *grown);
        if (!grown) {
            return NULL;
        }
        s->inner = grown;
        piece = &grown[s->n_inner++];
        *piece = (struct lb_piece){.what = *what};
    }
    return piece;
}

static void leave_piece(struct lb_seen *s, const struct lb_part *what) {
    struct lb_piece *piece = find_piece(s, what->source, what->layer);
    if (!piece) {
        return;
    }
    piece->waiting -= piece->waiting > 0;
    if (piece->waiting == 0 && !piece->data) {
        *piece = s->inner[--s->n_inner];
    }
}

static void refer(struct lb_known *k, struct lb_seen *s, const struct lb_job *job) {
    if (s->references++ == 0) {
        k->n_waited++;
        if (s->bytes > 0) {
            leave_order(k, s);
        }
    }
    for (size_t i = 0; i < job->n_parts; i++) {
        struct lb_piece *piece = get_piece(s, &job->parts[i]);
        if (piece) {
            piece->waiting++;
        }
    }
}

static void unrefer(struct lb_known *k, struct lb_seen *s, const struct lb_job *job,
                    struct lb_seen **dropped) {
    for (size_t i = 0; i < job->n_parts; i++) {
        leave_piece(s, &job->parts[i]);
    }
    if (--s->references > 0) {
        return;
    }
    k->n_waited--;
    if (s->bytes > 0) {
        enter_order(k, s);
    } else {
        drop(k, s, dropped);
    }
}

/* ---- what was asked lately, under the lock ---- */

static bool same_part(const struct lb_part *a, const struct lb_part *b) {
    return a->source == b->source && a->layer == b->layer;
}

static void note_asked(struct lb_known *k, uint64_t instance, const struct lb_part *what) {
    struct recent *oldest = k->recent;
    for (size_t i = 0; i < MOST_RECENT; i++) {
        struct recent *r = &k->recent[i];
        if (r->instance == instance && same_part(&r->what, what)) {
            oldest = r;
            break;
        }
        oldest = r->asked_ns < oldest->asked_ns ? r : oldest;
    }
    *oldest = (struct recent){instance, *what, lb_now_ns()};
}

static bool is_recent(const struct recent *r, uint64_t instance, uint64_t now) {
    return r->instance == instance && now < r->asked_ns + RECENT_NS;
}

/* What is to be kept of the sequence: final states, what somebody waits for, what was asked lately. */
static struct lb_piece *wanted_piece(const struct lb_known *k, struct lb_seen *s,
                                     const struct lb_part *what) {
    if (what->source == LB_FROM_FINAL || k->max_bytes == 0) {
        return k->max_bytes == 0 || s->final.data ? NULL : &s->final;
    }
    struct lb_piece *piece = find_piece(s, what->source, what->layer);
    bool wanted = piece && piece->waiting > 0;
    uint64_t now = lb_now_ns();
    for (size_t i = 0; i < MOST_RECENT && !wanted; i++) {
        wanted = is_recent(&k->recent[i], s->instance, now) && same_part(&k->recent[i].what, what);
    }
    piece = wanted ? get_piece(s, what) : NULL;
    return piece && !piece->data ? piece : NULL;
}

/* ---- jobs ---- */

bool lb_known_parts(struct lb_job *job) {
    if (job->parts || !job->ids) {
        return job->parts != NULL;
    }
    job->parts = lb_arena_array(&job->arena, job->n_outputs, sizeof *job->parts);
    job->n_parts = 0;
    job->apart = false;
    for (size_t i = 0; job->parts && i < job->n_outputs; i++) {
        const struct lb_output_name *what = &job->outputs[i].what;
        enum lb_output_source source = lb_output_get(what->kind)->source;
        enum lb_tap_kind tap;
        if (source == LB_FROM_ATTENTION) {
            job->apart = true;
        } else if (lb_hosted_tap(source, &tap)) {
            job->parts[job->n_parts++] = (struct lb_part){source, what->layer, job->outputs[i].width};
        }
    }
    return job->parts != NULL;
}

static uint64_t hash_of(const struct lb_known *k, uint64_t instance, const int32_t *ids, int64_t n) {
    static const uint64_t step = 0x9e3779b97f4a7c15u;
    uint64_t hash = lb_mix64(k->seed ^ instance);
    for (int64_t i = 0; i < n; i++) {
        hash = lb_mix64(hash + step * (1 + (uint64_t)ids[i]));
    }
    return hash & k->hash_mask;
}

void lb_known_join(struct lb_known *k, struct lb_job *job) {
    if (!k || !job->ids || job->seen) {
        return;
    }
    struct lb_seen **seen = lb_arena_zarray(&job->arena, (size_t)job->n_seqs, sizeof(struct lb_seen *));
    if (!seen || !lb_known_parts(job)) {
        return;
    }
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < job->n_parts; i++) {
        note_asked(k, job->model->instance, &job->parts[i]);
    }
    pthread_mutex_unlock(&k->lock);
    for (int64_t b = 0; b < job->n_seqs; b++) {
        const int32_t *ids = job->ids + job->offsets[b];
        int64_t n = lb_job_length(job, b);
        uint64_t instance = job->model->instance, hash = hash_of(k, instance, ids, n);
        pthread_mutex_lock(&k->lock);
        struct lb_seen *s = find_seen(k, hash, instance, ids, n);
        s = s ? s : make_seen(k, hash, instance, ids, n);
        if (s) {
            refer(k, s, job);
            seen[b] = s;
        }
        pthread_mutex_unlock(&k->lock);
    }
    job->seen = seen;
}

void lb_known_leave(struct lb_known *k, struct lb_job *job, int64_t first, int64_t n) {
    struct lb_seen *dropped = NULL;
    if (!k || !job->seen || n <= 0) {
        return;
    }
    pthread_mutex_lock(&k->lock);
    for (int64_t b = first; b < first + n; b++) {
        if (job->seen[b]) {
            unrefer(k, job->seen[b], job, &dropped);
            job->seen[b] = NULL;
        }
    }
    pthread_mutex_unlock(&k->lock);
    free_all(dropped);
}

size_t lb_known_job_bytes(const struct lb_job *job) {
    size_t one = sizeof(struct lb_seen) + sizeof(struct lb_seen *) * 3 + HEAP_BYTES +
                 job->n_outputs * sizeof(struct lb_piece);
    return job->ids ? (size_t)job->n_seqs * one + (size_t)job->n_tokens * sizeof *job->ids : 0;
}

/* ---- dropping ---- */

void lb_known_forget(struct lb_known *k, uint64_t instance) {
    struct lb_seen *dropped = NULL;
    pthread_mutex_lock(&k->lock);
    for (struct lb_seen *s = k->oldest, *next; s; s = next) {
        next = s->newer;
        if (s->instance == instance) {
            leave_order(k, s);
            drop(k, s, &dropped);
        }
    }
    pthread_mutex_unlock(&k->lock);
    free_all(dropped);
}

void lb_known_empty(struct lb_known *k) {
    struct lb_seen *dropped = NULL;
    if (!k) {
        return;
    }
    pthread_mutex_lock(&k->lock);
    while (k->oldest) {
        drop_oldest(k, &dropped);
    }
    pthread_mutex_unlock(&k->lock);
    free_all(dropped);
}

/* ---- the worker ---- */

bool lb_known_has(struct lb_known *k, const struct lb_job *job, int64_t seq, bool *out_before) {
    if (!k || job->apart || !job->seen || !job->seen[seq]) {
        return false;
    }
    struct lb_seen *s = job->seen[seq];
    pthread_mutex_lock(&k->lock);
    bool has = s->final.data != NULL;
    for (size_t i = 0; has && i < job->n_parts; i++) {
        const struct lb_piece *piece = find_piece(s, job->parts[i].source, job->parts[i].layer);
        has = piece && piece->data;
    }
    if (out_before) {
        *out_before = s->made_ns < job->queued_ns;
    }
    pthread_mutex_unlock(&k->lock);
    return has;
}

/* Adds a part that neither the job nor the list has yet. */
static void add_part(const struct lb_job *job, const struct lb_part *what, struct lb_part *out, size_t *n) {
    for (size_t i = 0; i < job->n_parts + *n; i++) {
        if (same_part(i < job->n_parts ? &job->parts[i] : &out[i - job->n_parts], what)) {
            return;
        }
    }
    out[(*n)++] = *what;
}

size_t lb_known_wanted(struct lb_known *k, const struct lb_job *job, int64_t seq, struct lb_part *out,
                       size_t most) {
    size_t n = 0;
    if (!k || !job->seen || !job->seen[seq] || k->max_bytes == 0) {
        return 0;
    }
    const struct lb_seen *s = job->seen[seq];
    uint64_t now = lb_now_ns();
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < s->n_inner && n < most; i++) {
        if (s->inner[i].waiting > 0) {
            add_part(job, &s->inner[i].what, out, &n);
        }
    }
    for (size_t i = 0; i < MOST_RECENT && n < most; i++) {
        if (is_recent(&k->recent[i], s->instance, now)) {
            add_part(job, &k->recent[i].what, out, &n);
        }
    }
    pthread_mutex_unlock(&k->lock);
    return n;
}

const float *lb_known_find(struct lb_known *k, struct lb_seen *s, enum lb_output_source source, int layer,
                           int64_t *out_rows, int64_t *out_cols) {
    pthread_mutex_lock(&k->lock);
    const struct lb_piece *piece = find_piece(s, source, layer);
    const float *data = piece ? piece->data : NULL;
    if (data) {
        *out_rows = piece->rows;
        *out_cols = piece->what.width;
    }
    pthread_mutex_unlock(&k->lock);
    return data;
}

/* Counts bytes more for the sequence, dropping others for it; false when they can't be had. */
static bool reserve(struct lb_known *k, struct lb_seen *s, size_t bytes, size_t *out_n,
                    struct lb_seen **dropped) {
    size_t more = bytes + (s->bytes > 0 ? 0 : sizeof *s + (size_t)s->n * sizeof *s->ids) + HEAP_BYTES;
    if (more > k->max_bytes) {
        return false;
    }
    while (k->bytes > k->max_bytes - more) {
        if (!k->oldest) {
            return false;
        }
        drop_oldest(k, dropped);
        ++*out_n;
    }
    k->n_kept += s->bytes == 0;
    k->bytes += more;
    s->bytes += more;
    return true;
}

size_t lb_known_keep(struct lb_known *k, struct lb_seen *s, const struct lb_part *what, int64_t rows,
                     const float *data) {
    size_t bytes = (size_t)(rows * what->width) * sizeof *data, n_dropped = 0;
    pthread_mutex_lock(&k->lock);
    bool wanted = wanted_piece(k, s, what) != NULL;
    pthread_mutex_unlock(&k->lock);
    float *copy = wanted ? lb_malloc_array(bytes, 1) : NULL;
    if (!copy) {
        return 0;
    }
    memcpy(copy, data, bytes);
    struct lb_seen *dropped = NULL;
    pthread_mutex_lock(&k->lock);
    struct lb_piece *piece = wanted_piece(k, s, what); /* jobs may have come and gone meanwhile */
    if (piece && reserve(k, s, bytes, &n_dropped, &dropped)) {
        piece->data = copy;
        piece->rows = rows;
        piece->what.width = what->width;
        s->made_ns = lb_now_ns();
        copy = NULL;
    }
    pthread_mutex_unlock(&k->lock);
    lb_free(copy);
    free_all(dropped);
    return n_dropped;
}

struct lb_known_state lb_known_state(struct lb_known *k) {
    pthread_mutex_lock(&k->lock);
    struct lb_known_state state = {k->bytes, k->max_bytes, k->n_kept, k->n_waited};
    pthread_mutex_unlock(&k->lock);
    return state;
}
