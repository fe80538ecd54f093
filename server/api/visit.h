/* What handlers share: the daemon as they see it, and what one exchange is about. */
#ifndef LB_API_VISIT_H
#define LB_API_VISIT_H

#include "server/api/routes.h"
#include "server/engine/batcher.h"
#include "server/engine/engine.h"
#include "server/engine/writer.h"
#include "server/http/auth.h"
#include "server/http/budget.h"
#include "server/http/http.h"
#include "server/http/listen.h"
#include "server/metrics.h"
#include "server/models/repository.h"
#include "server/options.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct lb_server {
    const struct lb_options *options;
    struct lb_auth *auth;
    size_t memory_limit;      /* of all but the weights and what is known */
    struct lb_budget *budget; /* what of it requests and answers have */
    struct lb_metrics *metrics;
    struct lb_known *known;     /* of sequences that were computed */
    struct lb_clients *clients; /* who has been asking */
    struct lb_batcher *batcher;
    struct lb_engine *engine;
    struct lb_writer *writer;
    struct lb_repository *repository;
    struct lb_listener listener;
    struct lb_http *http;
    atomic_bool draining;
    double started_unix;
    bool port_file_written;
    /* Called on the loader's thread when all models have been tried. */
    void (*loaded)(void *context, enum lb_status status, const struct lb_detail *detail);
    void *loaded_context;
};

/* What one exchange is about; its user pointer. In the exchange's arena. */
struct lb_visit {
    struct lb_server *server;
    const struct lb_api_dialect *dialect; /* of errors; NULL until the path has been looked at */
    struct lb_route_match match;
    const char *request_id; /* X-Request-Id or one of our own, sent back; NULL without memory */
    const char *trace;      /* as it stands in the log; NULL: of none */
    const char *bearer;     /* the name of the token that came, or of the certificate; NULL: neither */
    struct lb_quota *quota; /* its limits; a reference; NULL */
    bool entered;           /* counts among its requests */
    /* After a deferred exchange was resumed: answers. */
    void (*finish)(struct lb_server *server, struct lb_exchange *exchange);
    /* Of vLLM's and SGLang's dialects, when all that their question needs is there. */
    void (*answer)(struct lb_server *server, struct lb_exchange *exchange);
    struct lb_hosted *hosted;           /* a reference, once the model is known; NULL */
    struct lb_job *job;                 /* of an infer request; owned */
    _Atomic(struct lb_job *) submitted; /* the job, once the batcher may have it: what to cancel */
    bool promised;                      /* to the writer, and not submitted yet */
    struct lb_writing *writing;         /* of a text that is gone on with; owned */
    void *stream;                       /* of an answer that is made while it is sent; in the arena */
    void (*stream_end)(void *stream);   /* called at the end; NULL without a stream */
    bool events;                        /* its answer is server-sent events */
    int stream_error;                   /* the status of what went wrong when some were out; 0 */
    struct lb_load_order *order;        /* of a load or unload request; in the arena */
    void *asked;                        /* another dialect's question; in the exchange's arena */
    const char *id;                     /* the infer request's id; in the job's arena; NULL */
    char digest[80];                    /* "sha-256=..." of an infer request */
    bool answer_digest;                 /* its answer ends with its own */
    bool streams;                       /* its handler can send tensors that are made meanwhile */
    size_t json_bytes;                  /* held for the answer's JSON, about */
};

/* The Cache-Control of an answer: what stands under a versioned path never changes. Where tokens are asked
 * for it is the client's own, since a shared cache would give it to anybody (RFC 9111 section 3.5). */
const char *lb_visit_cache_control(const struct lb_visit *visit);

/* The body as a JSON object, the caller's; NULL when it is empty. LB_E_FORMAT when it is something else. */
LB_NODISCARD enum lb_status lb_visit_object(const struct lb_exchange *exchange, json_t **out,
                                            struct lb_detail *detail);

/* What was done for a visit: by its job and its texts, together where both were queued. */
struct lb_visit_work {
    int64_t n_seqs, tokens;
    int n_batches;                             /* of the job */
    uint64_t queued_ns, waited_ns, compute_ns; /* queued_ns: the first's; 0: nothing was queued */
};
struct lb_visit_work lb_visit_work(const struct lb_visit *visit);

/* Its answer is ready, or the exchange ends: it counts no more among its token's requests. */
void lb_visit_leave(struct lb_visit *visit);

/* What was promised to the writer, if anything, does not come. */
void lb_visit_excuse(struct lb_visit *visit);

/* user is the visit: gives back what it holds. */
void lb_visit_free(void *user);

#endif
