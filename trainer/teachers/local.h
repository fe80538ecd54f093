/* A teacher daemon of one's own: `local:PATH` starts limbeckd on this machine for the length of a run.
 *
 * It listens on a loopback port that it picks itself, behind a random token, and dies with the thread that
 * started it (so start it from the program's main thread). What it says goes to a log file. Not thread-safe:
 * one thread at a time, except lb_local_check.
 */
#ifndef LB_TEACHERS_LOCAL_H
#define LB_TEACHERS_LOCAL_H

#include "common/base/status.h"

#include <signal.h>
#include <sys/types.h>

struct lb_local;

/* Starts the daemon with the model at path and returns at once. name stands in errors; log_path NULL: the log
 * goes with the daemon. The program is limbeckd beside the running executable, in ../server or ../../server
 * (build tree), or in PATH. */
LB_NODISCARD enum lb_status lb_local_start(const char *name, const char *path, const char *log_path,
                                           struct lb_local **out, struct lb_detail *detail);
/* Waits until it is ready. LB_E_UNAVAILABLE with its last line when it ends before; LB_E_CANCELLED when *stop
 * is set. */
LB_NODISCARD enum lb_status lb_local_wait(struct lb_local *local, volatile sig_atomic_t *stop,
                                          struct lb_detail *detail);
/* LB_E_UNAVAILABLE with its last line when it has ended. Any thread. */
LB_NODISCARD enum lb_status lb_local_check(struct lb_local *local, struct lb_detail *detail);
/* "http://127.0.0.1:PORT", its process, its token; valid once ready, until stop. */
const char *lb_local_url(const struct lb_local *local);
pid_t lb_local_pid(const struct lb_local *local);
const char *lb_local_token(const struct lb_local *local);
/* Ends it (SIGTERM, after five seconds SIGKILL), waits for it, removes its files. Accepts NULL. */
void lb_local_stop(struct lb_local *local);

#endif
