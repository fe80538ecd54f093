/* Whose turn it is: the queues of jobs that wait, one for each client and each kind of batch. The batcher's,
 * under its lock. */
#ifndef LB_ENGINE_TURNS_H
#define LB_ENGINE_TURNS_H

#include "server/engine/heap.h"

/* Who has jobs waiting. */
struct lb_party {
    const void *client;
    int64_t served; /* tokens, since somebody waits */
    int64_t waiting_tokens;
    int n_queues;
    struct lb_share *shares;
    struct lb_party *next;
};

/* What of it asks one model: a client's models take turns as clients do, so that a busy one leaves room. */
struct lb_share {
    const struct lb_hosted *model;
    int64_t served;
    int n_queues;
    struct lb_share *next;
};

/* Jobs that can share a batch. */
struct lb_line {
    struct lb_hosted *model;
    uint64_t taps;
    int64_t waiting_tokens;
    int n_queues;
    struct lb_line *next;
};

/* The jobs of one party in one line, those that have sequences to compute. */
struct lb_queue {
    struct lb_party *party;
    struct lb_share *share;
    struct lb_line *line;
    struct lb_heap jobs;
    struct lb_queue *next;
};

struct lb_turns {
    struct lb_party *parties;
    struct lb_line *lines;
    struct lb_queue *queues; /* oldest first */
    int64_t waiting_tokens;  /* of all of them */
};

/* How much may wait. */
struct lb_room {
    int64_t max_tokens;
    size_t max_jobs; /* 0: any number */
};
/* Whether there is room for the job, of those n_jobs that there are: each of n clients that wait may have one
 * part in n of it, so that one who asks for all leaves room for who comes next. The first job of a client is
 * taken as long as no more than twice the tokens wait, so that it needn't fit into its part; when there are
 * no others any job is. LB_E_UNAVAILABLE. */
enum lb_status lb_turns_room(const struct lb_turns *turns, const struct lb_job *job, size_t n_jobs,
                             const struct lb_room *room, struct lb_detail *detail);
/* That many tokens more wait in the queue (below 0: fewer). */
void lb_turns_wait(struct lb_turns *turns, struct lb_queue *queue, int64_t tokens);

/* The queue that the job belongs to, made when new, with room for it; NULL when out of memory. */
struct lb_queue *lb_turns_queue(struct lb_turns *turns, const struct lb_job *job);
/* Takes the job out of its queue, if it is in one; a queue that is empty then goes. */
void lb_turns_leave(struct lb_turns *turns, struct lb_job *job);
/* The line of such jobs, NULL when none wait. */
const struct lb_line *lb_turns_line(const struct lb_turns *turns, const struct lb_hosted *model,
                                    uint64_t taps);
/* That many tokens of the queue are served. */
void lb_turns_serve(struct lb_queue *queue, int64_t tokens);
/* The queue whose turn it is: of the party that was served least, the one whose first job comes first, of the
 * model that was served least where ranks are equal; line NULL: of all lines. NULL when nothing waits. */
struct lb_queue *lb_turns_first(const struct lb_turns *turns, const struct lb_line *line);

#endif
