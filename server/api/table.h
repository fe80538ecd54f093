/* The table of routes, the handlers in it, and the life of an exchange from its headers to its log line. */
#ifndef LB_API_TABLE_H
#define LB_API_TABLE_H

#include "server/api/visit.h"

/* What HTTP calls. server is borrowed. */
struct lb_http_app lb_api(struct lb_server *server);

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
void lb_handle_tokenizer_config(struct lb_server *server, struct lb_exchange *exchange,
                                const struct lb_route_match *match);
void lb_handle_vocab_map(struct lb_server *server, struct lb_exchange *exchange,
                         const struct lb_route_match *match);
void lb_handle_vocab_map_put(struct lb_server *server, struct lb_exchange *exchange,
                             const struct lb_route_match *match);
void lb_handle_metrics(struct lb_server *server, struct lb_exchange *exchange,
                       const struct lb_route_match *match);

#endif
