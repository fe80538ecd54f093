/* The daemon as a whole: its start and its end. */
#ifndef LB_SERVER_SERVER_H
#define LB_SERVER_SERVER_H

#include "server/api/visit.h"

/* Reads token files, listens, starts all threads and begins to open the models; HTTP answers at once. loaded
 * may be NULL. options are borrowed. On failure everything is taken down again. */
LB_NODISCARD enum lb_status lb_server_start(struct lb_server *server, const struct lb_options *options,
                                            void (*loaded)(void *context, enum lb_status status,
                                                           const struct lb_detail *detail),
                                            void *context, struct lb_detail *detail);
/* Reads token files, certificate and key anew. What can't be read is told in the log, and what was there goes
 * on. Connections that are there go on with the certificate that they began with. On the thread that started
 * it. */
void lb_server_reload(struct lb_server *server);
/* Returns unless something is stuck that all requests go by. Any thread, between start and stop. */
void lb_server_touch(struct lb_server *server);
/* Drains and stops: new work gets 503, what is queued is answered (at most options->drain_s, then it gets 503
 * too), all connections are resumed and closed, all threads joined, everything freed. */
void lb_server_stop(struct lb_server *server);

/* Opens all models and runs the self-test without any network, logging what it finds (--check). LB_E_MISMATCH
 * when a model's answers depend on the batch. */
LB_NODISCARD enum lb_status lb_server_check(const struct lb_options *options, struct lb_detail *detail);

#endif
