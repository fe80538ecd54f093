/* What questions.c (questions, the thread), requests.c (what is sent), landing.c (what comes back) and
 * items.c share: each calls those behind it only, and items.c none. Nobody else includes this. */
#ifndef LB_TEACHERS_PARTS_H
#define LB_TEACHERS_PARTS_H

#include "common/base/clock.h"
#include "trainer/teachers/pool.h"
#include "trainer/teachers/questions.h"
#include "trainer/wire/dialect.h"

#include <pthread.h>

#define LB_ITEM_BUCKETS 4096

struct question;

/* One sequence asked of one teacher. */
struct item {
    struct item *next_in_bucket, *next_in_queue;
    unsigned teacher;
    unsigned refs; /* slots of questions that point here */
    uint8_t key[LB_SHA256_BYTES];
    struct lb_ask_spec spec; /* normalised */
    struct lb_sample sample; /* what it points to is a copy, in arena */
    struct lb_arena arena;
    struct lb_answer answer;
    bool done, lost;           /* lost: done without an answer */
    int avoid;                 /* the replica that failed last, -1: none */
    unsigned bad;              /* wrong answers so far */
    uint64_t bad_since_ns;     /* the first of them; 0: none */
    bool alone;                /* to be asked by itself: a request that it was in was refused */
    uint64_t refused;          /* bits of replicas that refused it, asked alone */
    struct question **waiting; /* [n_waiting] one for each slot that waits */
    size_t n_waiting, cap_waiting;
};

struct question {
    struct question *next; /* newest last */
    int64_t number, n;
    unsigned n_teachers;
    struct lb_sample *samples; /* [n] */
    bool *wanted;              /* [n * teachers] */
    struct lb_ask_spec *specs; /* [teachers] normalised */
    struct item **slots;       /* [n * teachers] NULL: not wanted. The thread's. */
    size_t pending;            /* slots not answered yet. The thread's. */

    /* Under the lock. */
    const struct lb_answer **answers; /* [n * teachers] */
    bool admitted, admitting, done, released;
};

/* A request under way. */
struct request {
    struct lb_call call;
    struct request *previous, *next; /* of those under way */
    struct request *next_done;       /* under the lock */
    struct lb_asker *asker;
    unsigned teacher;
    int replica;
    bool probe;
    bool brings_map; /* PUT of the teacher's vocabulary map: no items, as a probe */
    uint64_t number; /* from 1, in the order in which they are made */
    char id[48];
    char *path; /* of a question, to be freed */
    struct lb_asked asked;
    struct item **items;              /* [n] */
    const struct lb_sample **samples; /* [n] */
    int64_t n;
};

/* A teacher, with what the thread knows about it. */
struct asked_teacher {
    struct lb_asker_teacher is;
    char identity[LB_IDENTITY_TEXT]; /* of is.info, in keys */
    char *info_path;
    char (*ids)[LB_MAX_MODEL_ID]; /* [n_urls] is.ids, then what replicas say when they are back */
    struct lb_pool pool;
    struct item *queue; /* to be asked, oldest first */
    int64_t queued_tokens;
    int64_t most_tokens;  /* of one request now; grows again up to limit_tokens */
    int64_t limit_tokens; /* more is refused as too large */
    uint64_t told_ns;     /* when its loss was last spoken of; 0: never since it was last there */
    uint64_t aside_told_ns[LB_POOL_MAX_REPLICAS]; /* when a replica that was set aside was last named */
    uint64_t doubted; /* bits of replicas that were found of no use once since their last good answer */
    uint64_t wrong; /* bits of replicas that serve another model, or let nobody in: no use to the run as they
                       are */
    /* Of replicas that are asked through a vocabulary map, which each must have been sent: the request that
     * brought it (0: it lacks the map); bits of those that are being sent it, and of those that have lost it
     * since their last good answer. */
    uint64_t map_number[LB_POOL_MAX_REPLICAS];
    uint64_t map_coming, map_lost;
    struct lb_detail last_error;
};

struct lb_asker {
    struct lb_asker_options options;
    unsigned n_teachers;
    struct asked_teacher *teachers;
    pthread_t thread;
    bool running;

    /* The thread's own. */
    struct item *buckets[LB_ITEM_BUCKETS];
    struct request *requests;
    bool cache_complained;
    uint64_t n_requests; /* ever */

    pthread_mutex_t lock;
    pthread_cond_t work; /* for the thread: something came in */
    pthread_cond_t news; /* for take: a question is done, or all is lost */
    struct question *questions;
    int64_t next_number; /* of submit; -1: none yet */
    struct request *done;
    bool closing;
    bool called; /* something came in since the thread last looked */
    enum lb_status failed;
    struct lb_detail failure;
    struct lb_teachers_stats stats;
};

/* items.c */
/* An item of that teacher and key that is not lost, or NULL. */
struct item *lb_item_find(struct lb_asker *asker, unsigned teacher, const uint8_t key[LB_SHA256_BYTES]);
/* A new one, in its bucket; NULL when out of memory. */
struct item *lb_item_make(struct lb_asker *asker, unsigned teacher, const struct lb_sample *sample,
                          const struct lb_ask_spec *spec, const uint8_t key[LB_SHA256_BYTES]);
void lb_item_free(struct lb_asker *asker, struct item *item);
/* Puts an item into its teacher's queue: at its end, or in front of all. */
void lb_item_queue(struct lb_asker *asker, struct item *item, bool first);
/* Takes out the first, which must be there. */
struct item *lb_item_unqueue(struct asked_teacher *teacher);
/* A slot of question waits for the item; false when out of memory. */
bool lb_item_wait(struct item *item, struct question *question);
/* Ends the run's asking: take returns this from now on. */
void lb_asker_fail(struct lb_asker *asker, enum lb_status status, const struct lb_detail *detail);
/* All slots of the question are answered: hands the answers over. */
void lb_question_complete(struct lb_asker *asker, struct question *question);
/* The item is answered (or lost): tells the questions that wait. */
void lb_item_settle(struct lb_asker *asker, struct item *item, bool lost);

/* requests.c: called by the thread */
/* Sends what can be sent, probes what is due, applies the policy for lost teachers. Returns when to be called
 * again at the latest. */
uint64_t lb_requests_dispatch(struct lb_asker *asker);
/* A request ended. */
void lb_requests_land(struct lb_asker *asker, struct request *request);
/* Calls off all that is under way and frees it. */
void lb_requests_finish(struct lb_asker *asker);

#define LB_TOLD_EVERY_NS (10 * LB_SECOND_NS) /* what goes on is spoken of again */

/* landing.c: called by lb_requests_land, which frees the request afterwards */
void lb_landing_probe(struct lb_asker *asker, struct request *request);
void lb_landing_map(struct lb_asker *asker, struct request *request);
void lb_landing_answer(struct lb_asker *asker, struct request *request);

#endif
