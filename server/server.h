/* The daemon as a whole: what its parts share, what one request is about, and its start and end. */
#ifndef LB_SERVER_SERVER_H
#define LB_SERVER_SERVER_H

#include "server/auth.h"
#include "server/batcher.h"
#include "server/budget.h"
#include "server/engine.h"
#include "server/http.h"
#include "server/listen.h"
#include "server/metrics.h"
#include "server/options.h"
#include "server/repository.h"
#include "server/routes.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct lb_server {
    const struct lb_options *options;
    struct lb_auth *auth, *admin_auth; /* NULL: not asked for; nobody */
    struct lb_budget budget;
    struct lb_metrics *metrics;
    struct lb_batcher *batcher;
    struct lb_engine *engine;
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
    struct lb_route_match match;
    const char *request_id; /* X-Request-Id, echoed; NULL */
    /* After a deferred exchange was resumed: answers. */
    void (*finish)(struct lb_server *server, struct lb_exchange *exchange);
    struct lb_hosted *hosted; /* a reference, once the model is known; NULL */
    struct lb_job *job;       /* of an infer request; owned */
    struct lb_order *order;   /* of a load or unload request; in the arena */
    const char *id;           /* the infer request's id; NULL */
    char digest[80];          /* "sha-256=..." of an infer request */
    size_t taken;             /* bytes of the answer, from the budget */
};

/* The Cache-Control of an answer: what stands under a versioned path never changes. Where tokens are asked
 * for it is the client's own, since a shared cache would give it to anybody (RFC 9111 section 3.5). */
const char *lb_visit_cache_control(const struct lb_visit *visit);

/* Reads token files, listens, starts all threads and begins to open the models; HTTP answers at once. loaded
 * may be NULL. options are borrowed. On failure everything is taken down again. */
LB_NODISCARD enum lb_status lb_server_start(struct lb_server *server, const struct lb_options *options,
                                            void (*loaded)(void *context, enum lb_status status,
                                                           const struct lb_detail *detail),
                                            void *context, struct lb_detail *detail);
/* Drains and stops: new work gets 503, what is queued is answered (at most options->drain_s, then it gets 503
 * too), all connections are resumed and closed, all threads joined, everything freed. */
void lb_server_stop(struct lb_server *server);

/* Opens all models and runs the self-test without any network, logging what it finds (--check). LB_E_MISMATCH
 * when a model's answers depend on the batch. */
LB_NODISCARD enum lb_status lb_server_check(const struct lb_options *options, struct lb_detail *detail);

/* The model that the path names (visit->hosted), or an error reply and false. */
bool lb_visit_model(struct lb_exchange *exchange);

/* Handlers, each in its own file. */
void lb_handle_infer(struct lb_server *server, struct lb_exchange *exchange,
                     const struct lb_route_match *match);
void lb_handle_server_metadata(struct lb_server *server, struct lb_exchange *exchange,
                               const struct lb_route_match *match);
void lb_handle_live(struct lb_server *server, struct lb_exchange *exchange,
                    const struct lb_route_match *match);
void lb_handle_ready(struct lb_server *server, struct lb_exchange *exchange,
                     const struct lb_route_match *match);
void lb_handle_model_metadata(struct lb_server *server, struct lb_exchange *exchange,
                              const struct lb_route_match *match);
void lb_handle_model_ready(struct lb_server *server, struct lb_exchange *exchange,
                           const struct lb_route_match *match);
void lb_handle_model_config(struct lb_server *server, struct lb_exchange *exchange,
                            const struct lb_route_match *match);
void lb_handle_stats(struct lb_server *server, struct lb_exchange *exchange,
                     const struct lb_route_match *match);
void lb_handle_index(struct lb_server *server, struct lb_exchange *exchange,
                     const struct lb_route_match *match);
void lb_handle_load(struct lb_server *server, struct lb_exchange *exchange,
                    const struct lb_route_match *match);
void lb_handle_unload(struct lb_server *server, struct lb_exchange *exchange,
                      const struct lb_route_match *match);
void lb_handle_head(struct lb_server *server, struct lb_exchange *exchange,
                    const struct lb_route_match *match);
void lb_handle_tokenizer(struct lb_server *server, struct lb_exchange *exchange,
                         const struct lb_route_match *match);
void lb_handle_metrics(struct lb_server *server, struct lb_exchange *exchange,
                       const struct lb_route_match *match);

#endif
