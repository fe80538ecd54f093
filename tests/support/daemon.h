/* A real limbeckd (or any program of the build) as a child process, and a plain HTTP/1.1 client for it: for
 * end-to-end tests. */
#ifndef LB_TESTS_SUPPORT_DAEMON_H
#define LB_TESTS_SUPPORT_DAEMON_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct lb_daemon {
    pid_t pid;
    int port;
    char port_file[256];
    char socket_path[128]; /* instead of a port: --listen unix:PATH */
    char log_file[256];
};

/* Starts build/server/limbeckd with --listen 127.0.0.1:0 (unless the arguments say otherwise), --port-file
 * and the arguments (NULL at the end); its log goes to folder/name.log. Waits until it listens, and until it
 * is ready when ready is true. False (with the log on standard error) when it doesn't. */
bool lb_daemon_start(struct lb_daemon *daemon, const char *folder, const char *name,
                     const char *const *arguments, bool ready);
/* Sends the signal (0: none), waits for the end at most 30 seconds (then kills) and returns the exit status,
 * -1 when killed or crashed. */
int lb_daemon_stop(struct lb_daemon *daemon, int signal_number);
/* Runs limbeckd to its end; returns its exit status, or -1. Its log goes to folder/name.log. */
int lb_daemon_run(const char *folder, const char *name, const char *const *arguments);
/* Whether the log holds the text. */
bool lb_daemon_logged(const struct lb_daemon *daemon, const char *text);
/* Waits until it does, at most 20 seconds; false when they have passed. */
bool lb_daemon_await_log(const struct lb_daemon *daemon, const char *text);
/* Writes a file for a daemon, of tokens say, with these rights. Its path lives until the fourth next call.
 * Ends the program when it can't be written. */
const char *lb_daemon_file(const char *folder, const char *name, const char *text, mode_t mode);

struct lb_answer {
    int status; /* 0: no answer (connection refused or cut) */
    struct lb_buf head, body;
};
void lb_answer_finish(struct lb_answer *answer);
/* A header's value, copied into out (cut to size); false when it isn't there. */
bool lb_answer_header(const struct lb_answer *answer, const char *name, char *out, size_t size);

/* A connection; -1 when refused. */
int lb_daemon_connect(const struct lb_daemon *daemon);
/* Sends a request; headers: lines that end in \r\n, "" for none. Content-Length is added; body may be NULL.
 */
bool lb_http_send(int fd, const char *method, const char *path, const char *headers, const void *body,
                  size_t len);
/* Reads one answer (Content-Length, or chunks, which must be as they should); false when the connection ends
 * before: what came is in the body. The caller finishes answer either way. */
bool lb_http_receive(int fd, struct lb_answer *answer);
/* Connects, asks, reads, closes. */
bool lb_daemon_ask(const struct lb_daemon *daemon, const char *method, const char *path, const char *headers,
                   const void *body, size_t len, struct lb_answer *answer);
/* The status alone of a request without a body; 0: no answer. */
int lb_daemon_status(const struct lb_daemon *daemon, const char *method, const char *path,
                     const char *headers);

#endif
