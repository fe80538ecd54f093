/* Daemons that host one model, for tests of the trainer's side (tests/support/daemon.h has names of its own
 * for answers). */
#ifndef LB_TESTS_E2E_HOSTS_H
#define LB_TESTS_E2E_HOSTS_H

#include <sys/types.h>

struct host;
/* Starts limbeckd with the model under the name "tiny" and waits until it is ready; listen: "127.0.0.1:PORT"
 * or "unix:PATH", NULL: any port. Ends the program when it does not start. */
struct host *host_start(const char *folder, const char *name, const char *model, const char *listen);
/* "http://127.0.0.1:PORT" or "unix:PATH". */
const char *host_url(const struct host *host);
int host_port(const struct host *host);
/* SIGKILL, and waits for it; accepts NULL. */
void host_kill(struct host *host);

#endif
