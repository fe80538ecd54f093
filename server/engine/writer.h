/* Texts that are gone on with, token by token.
 *
 * A request is one lb_writing: the prompts it goes on with, and what becomes of them. A thread takes clients
 * in turn, and of each its requests, and has the engine's worker compute one token more of each text of one
 * of them between two batches: neither waits for the other for longer than that. Keys and values of what was
 * read are held as long as the request is being written. What a text becomes depends on its prompt and its
 * request only.
 */
#ifndef LB_ENGINE_WRITER_H
#define LB_ENGINE_WRITER_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/turns.h"
#include "common/model/generate.h"
#include "server/engine/engine.h"

#include <stdatomic.h>

/* What became of one prompt. */
struct lb_written {
    int64_t n;                 /* tokens */
    int32_t *ids;              /* [n] */
    float *logprobs;           /* [n] of the whole distribution, at the temperature (0: at 1) */
    int32_t *top_ids;          /* [n, k] the likeliest */
    float *top_logprobs;       /* [n, k] */
    const int32_t *chosen_ids; /* [n_chosen] (lb_writing_choose) */
    int64_t n_chosen;
    float *chosen;      /* [n, n_chosen] */
    bool stopped;       /* at an end or a stop, which is the last token */
    int32_t stop_id;    /* which of the stop_ids; -1 */
    const char *stop;   /* which of the stops; NULL */
    struct lb_buf text; /* the tokens' bytes, cut at the stop */
};

struct lb_writing {
    struct lb_hosted *model; /* borrowed */
    struct lb_arena arena;
    /* What is asked: set before it is submitted. */
    int64_t n;
    struct lb_generate_prompt *prompts; /* [n] */
    int64_t max_tokens, top_k;          /* of each; 0: none are listed */
    double temperature;
    const char *const *stops; /* [n_stops] in the tokens' text */
    size_t n_stops;
    const int32_t *stop_ids; /* [n_stop_ids] */
    size_t n_stop_ids;
    bool skip_special, include_stop;
    bool promised;           /* by lb_writer_promise */
    struct lb_turn turn;     /* with its client */
    int64_t batch_tokens;    /* prompts that are read at once have at most so many, or it is one */
    uint64_t deadline_ns;    /* 0: none */
    const atomic_bool *gone; /* the client has left */
    /* NULL, or: called from the writer's thread between steps, when texts have grown and go on. What they
     * hold may be read until it returns; ids and log-probabilities of what was written stay where they are.
     */
    void (*progress)(struct lb_writing *writing);
    /* What came of it, when done is called: once, from the writer's thread. */
    struct lb_written *texts; /* [n] */
    enum lb_status status;
    struct lb_detail detail;
    uint64_t submitted_ns, started_ns, compute_ns;
    void (*done)(struct lb_writing *writing);
    void *context;
    /* The writer's. */
    struct lb_generator *generator; /* of prompts first .. first + n_now - 1 */
    int64_t first, n_now;
};

/* With room for n prompts, each of up to max_tokens tokens with k of the likeliest; on the heap. NULL when
 * out of memory. */
struct lb_writing *lb_writing_create(int64_t n, int64_t max_tokens, int64_t k);
/* Has the log-probabilities of n ids (borrowed) told with each token of text i. False: out of memory. */
LB_NODISCARD bool lb_writing_choose(struct lb_writing *writing, int64_t i, const int32_t *ids, int64_t n);
/* Not while it is with the writer. Accepts NULL. */
void lb_writing_destroy(struct lb_writing *writing);
/* Memory that it takes until done, about. */
size_t lb_writing_bytes(const struct lb_writing *writing);
/* Tokens of its prompts, and the most that are written behind them. */
int64_t lb_writing_asked(const struct lb_writing *writing);
/* Tokens that were read and written so far. Not while it is with the writer. */
int64_t lb_writing_tokens(const struct lb_writing *writing);

struct lb_writer;

/* NULL when out of memory. The engine is borrowed, and must run as long as there are requests. */
struct lb_writer *lb_writer_create(struct lb_engine *engine, struct lb_metrics *metrics);
/* Starts its thread. */
LB_NODISCARD enum lb_status lb_writer_start(struct lb_writer *writer, struct lb_detail *detail);
/* Says that a request will come when something else is done, also when the writer closes meanwhile: either it
 * is submitted with promised set, or excused. False: it is closing already. */
LB_NODISCARD bool lb_writer_promise(struct lb_writer *writer);
void lb_writer_excuse(struct lb_writer *writer);
/* Hands it over until done is called. LB_E_UNAVAILABLE: it is closing, and done isn't called. */
LB_NODISCARD enum lb_status lb_writer_submit(struct lb_writer *writer, struct lb_writing *writing,
                                             struct lb_detail *detail);
/* Takes no more; what there is goes on until until_ns, and what is left then ends with LB_E_UNAVAILABLE.
 * Accepts NULL. */
void lb_writer_close(struct lb_writer *writer, uint64_t until_ns);
/* After lb_writer_close: waits until nothing is left or promised. How many requests were cut short. Accepts
 * NULL. */
size_t lb_writer_join(struct lb_writer *writer);

/* What waits and what is being written; tokens as in lb_writing_asked. */
struct lb_writer_state {
    size_t requests;
    int64_t tokens;
};
struct lb_writer_state lb_writer_state(struct lb_writer *writer);
/* After lb_writer_join. Accepts NULL. */
void lb_writer_destroy(struct lb_writer *writer);

#endif
