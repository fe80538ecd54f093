/* Texts that are told while they are written, as server-sent events.
 *
 * The writer's thread says how far each text is, and wakes the exchange; the codec's threads make events of
 * what is new, as fast as the client reads: what comes meanwhile is told together. A text is cut between
 * events where no character is, and no stop that may still come, so that all parts together are what is told
 * at once. */
#ifndef LB_API_VLLM_STREAM_H
#define LB_API_VLLM_STREAM_H

#include "server/api/vllm.h"

/* So much is made before it is sent, or one event: memory beside the answer's own. */
#define LB_EVENTS_BYTES ((size_t)64 << 10)
#define LB_EVENT_STREAM "text/event-stream; charset=utf-8"

/* What is new of one text. */
struct lb_vllm_piece {
    const char *name;    /* of the answer */
    int64_t index;       /* which text */
    bool later, goes_on; /* it is not the first of this text; not the last */
    int64_t from, n;     /* tokens from .. n - 1 are new */
    const char *text;    /* [len] what is new of it, UTF-8; all that there is where the teller wants that */
    size_t len;
};

/* How a dialect tells it; both on codec threads. */
struct lb_vllm_teller {
    const char *prefix, *request_id; /* as lb_vllm_open_answer has them */
    bool whole;                      /* the text of each piece is all that there is so far */
    /* Writes the event. */
    void (*put)(struct lb_exchange *exchange, struct lb_vllm_writer *writer,
                const struct lb_vllm_piece *piece);
    /* Writes what comes behind all texts but for the last event; NULL: nothing does. */
    void (*end)(struct lb_exchange *exchange, struct lb_vllm_writer *writer, const char *name);
};

/* Has the visit's writing, which is planned, told by teller, which must live as long as the exchange. False
 * after an error. */
bool lb_vllm_stream_plan(struct lb_exchange *exchange, const struct lb_vllm_teller *teller);
/* As the visit's finish, of a shared exchange whose writing is submitted: answers. */
void lb_vllm_stream_begin(struct lb_server *server, struct lb_exchange *exchange);

#endif
