#include "server/engine/turns.h"

#include "common/base/mem.h"

static struct lb_party *get_party(struct lb_turns *t, const void *client) {
    int64_t least = 0;
    for (struct lb_party *p = t->parties; p; p = p->next) {
        if (p->client == client) {
            return p;
        }
        least = p == t->parties || p->served < least ? p->served : least;
    }
    struct lb_party *p = lb_calloc(1, sizeof *p);
    if (p) {
        p->client = client;
        p->served = least; /* nobody saves up turns while away */
        p->next = t->parties;
        t->parties = p;
    }
    return p;
}

static struct lb_share *get_share(struct lb_party *party, const struct lb_hosted *model) {
    int64_t least = 0;
    for (struct lb_share *s = party->shares; s; s = s->next) {
        if (s->model == model) {
            return s;
        }
        least = s == party->shares || s->served < least ? s->served : least;
    }
    struct lb_share *s = lb_calloc(1, sizeof *s);
    if (s) {
        *s = (struct lb_share){model, least, 0, party->shares};
        party->shares = s;
    }
    return s;
}

static struct lb_line *get_line(struct lb_turns *t, const struct lb_job *job) {
    for (struct lb_line *l = t->lines; l; l = l->next) {
        if (l->model == job->model && l->taps == job->taps) {
            return l;
        }
    }
    struct lb_line *l = lb_calloc(1, sizeof *l);
    if (l) {
        l->model = job->model;
        l->taps = job->taps;
        l->next = t->lines;
        t->lines = l;
    }
    return l;
}

static void drop_share(struct lb_party *party, struct lb_share *share) {
    struct lb_share **at = &party->shares;
    while (share->n_queues == 0 && *at) {
        if (*at == share) {
            *at = share->next;
            lb_free(share);
            return;
        }
        at = &(*at)->next;
    }
}

static void drop_party(struct lb_turns *t, struct lb_party *party) {
    struct lb_party **at = &t->parties;
    while (party->n_queues == 0 && *at) {
        if (*at == party) {
            *at = party->next;
            lb_free(party);
            return;
        }
        at = &(*at)->next;
    }
}

static void drop_line(struct lb_turns *t, struct lb_line *line) {
    struct lb_line **at = &t->lines;
    while (line->n_queues == 0 && *at) {
        if (*at == line) {
            *at = line->next;
            lb_free(line);
            return;
        }
        at = &(*at)->next;
    }
}

struct lb_queue *lb_turns_queue(struct lb_turns *t, const struct lb_job *job) {
    struct lb_queue **at = &t->queues;
    for (; *at; at = &(*at)->next) {
        struct lb_queue *q = *at;
        if (q->party->client == job->client && q->line->model == job->model && q->line->taps == job->taps) {
            return lb_heap_reserve(&q->jobs) == LB_OK ? q : NULL;
        }
    }
    struct lb_party *party = get_party(t, job->client);
    struct lb_share *share = party ? get_share(party, job->model) : NULL;
    struct lb_line *line = get_line(t, job);
    struct lb_queue *q = share && line ? lb_calloc(1, sizeof *q) : NULL;
    if (q && lb_heap_reserve(&q->jobs) == LB_OK) {
        *q = (struct lb_queue){party, share, line, q->jobs, NULL};
        party->n_queues++;
        share->n_queues++;
        line->n_queues++;
        *at = q;
        return q;
    }
    lb_free(q);
    if (share) {
        drop_share(party, share);
    }
    if (party) {
        drop_party(t, party);
    }
    if (line) {
        drop_line(t, line);
    }
    return NULL;
}

void lb_turns_leave(struct lb_turns *t, struct lb_job *job) {
    struct lb_queue *q = job->queue, **at = &t->queues;
    if (!q) {
        return;
    }
    job->queue = NULL;
    lb_heap_remove(&q->jobs, job);
    if (q->jobs.n > 0) {
        return;
    }
    while (*at != q) {
        at = &(*at)->next;
    }
    *at = q->next;
    q->party->n_queues--;
    q->share->n_queues--;
    q->line->n_queues--;
    drop_share(q->party, q->share);
    drop_party(t, q->party);
    drop_line(t, q->line);
    lb_heap_finish(&q->jobs);
    lb_free(q);
}

/* Jobs of the party that are in its queues. */
static size_t count_jobs(const struct lb_turns *t, const struct lb_party *party) {
    size_t n = 0;
    for (const struct lb_queue *q = t->queues; q; q = q->next) {
        n += q->party == party ? q->jobs.n : 0;
    }
    return n;
}

enum lb_status lb_turns_room(const struct lb_turns *t, const struct lb_job *job, size_t n_jobs,
                             const struct lb_room *room, struct lb_detail *detail) {
    const struct lb_party *own = NULL;
    int64_t n_parties = 0, all = t->waiting_tokens + job->n_tokens;
    for (const struct lb_party *p = t->parties; p; p = p->next) {
        own = p->client == job->client ? p : own;
        n_parties++;
    }
    if (n_jobs == 0) {
        return LB_OK;
    }
    if (room->max_jobs > 0 && n_jobs >= room->max_jobs) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "the queue is full (%zu requests); try again later", n_jobs);
    }
    if (all > (own ? room->max_tokens : 2 * room->max_tokens)) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "the queue is full (%lld tokens waiting); try again later",
                       (long long)t->waiting_tokens);
    }
    if (own &&
        (own->waiting_tokens + job->n_tokens > room->max_tokens / n_parties ||
         (room->max_jobs > 0 && (int64_t)(count_jobs(t, own) + 1) * n_parties > (int64_t)room->max_jobs))) {
        return lb_fail(
            detail, LB_E_UNAVAILABLE,
            "this client's part of the queue is full (%lld tokens waiting, %lld clients share it); "
            "try again later",
            (long long)own->waiting_tokens, (long long)n_parties);
    }
    return LB_OK;
}

void lb_turns_wait(struct lb_turns *t, struct lb_queue *queue, int64_t tokens) {
    queue->party->waiting_tokens += tokens;
    queue->line->waiting_tokens += tokens;
    t->waiting_tokens += tokens;
}

static bool comes_before(const struct lb_queue *a, const struct lb_queue *b) {
    const struct lb_job *x = lb_heap_top(&a->jobs), *y = lb_heap_top(&b->jobs);
    if (a->party != b->party) {
        /* Ranks are a matter within one party. */
        return a->party->served != b->party->served ? a->party->served < b->party->served
                                                    : x->turn_ns < y->turn_ns;
    }
    if (x->rank != y->rank) {
        return x->rank < y->rank;
    }
    return a->share->served != b->share->served ? a->share->served < b->share->served
                                                : x->turn_ns < y->turn_ns;
}

void lb_turns_serve(struct lb_queue *queue, int64_t tokens) {
    queue->party->served += tokens;
    queue->share->served += tokens;
}

const struct lb_line *lb_turns_line(const struct lb_turns *t, const struct lb_hosted *model, uint64_t taps) {
    const struct lb_line *l = t->lines;
    while (l && !(l->model == model && l->taps == taps)) {
        l = l->next;
    }
    return l;
}

struct lb_queue *lb_turns_first(const struct lb_turns *t, const struct lb_line *line) {
    struct lb_queue *best = NULL;
    for (struct lb_queue *q = t->queues; q; q = q->next) {
        if (line && q->line != line) {
            continue;
        }
        if (!best || comes_before(q, best)) {
            best = q;
        }
    }
    return best;
}
