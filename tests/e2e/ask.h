/* Infer requests of end-to-end tests: put together, sent, and their answers decoded. */
#ifndef LB_TESTS_E2E_ASK_H
#define LB_TESTS_E2E_ASK_H

#include "common/base/arena.h"
#include "proto/oip.h"
#include "tests/support/daemon.h"

#include <jansson.h>
#include <stdbool.h>

#define LB_ASK_MAX 12

struct lb_ask {
    struct lb_infer_request request;
    struct lb_wire_tensor inputs[LB_ASK_MAX];
    struct lb_wire_output outputs[LB_ASK_MAX];
    /* after sending */
    struct lb_answer answer;
    struct lb_arena arena;
    struct lb_infer_response response; /* when the status is 200 */
};

void lb_ask_init(struct lb_ask *ask);
/* With the input input_ids, INT32 [rows, cols], borrowed. */
void lb_ask_ids(struct lb_ask *ask, int64_t rows, int64_t cols, const int32_t *ids);
/* cols 0: one dimension. */
void lb_ask_input(struct lb_ask *ask, const char *name, enum lb_datatype datatype, int64_t rows, int64_t cols,
                  const void *data);
void lb_ask_output(struct lb_ask *ask, const char *name, enum lb_datatype datatype, bool binary);
/* Asks on a connection; false when there was no answer, or one of status 200 that can't be decoded. */
bool lb_ask_on(int fd, const char *model, struct lb_ask *ask, const char *headers);
/* On a connection of its own; fails the test when the status isn't 200. */
void lb_ask_send_ok(const struct lb_daemon *daemon, const char *model, struct lb_ask *ask,
                    const char *headers);
/* Sends on a connection of its own and hangs up. */
bool lb_ask_send_only(const struct lb_daemon *daemon, const char *model, struct lb_ask *ask);
void lb_ask_finish(struct lb_ask *ask);
/* Number at of an output of the answer, of INT32 and of FP32. */
int32_t lb_ask_integer(const struct lb_ask *ask, int output, int64_t at);
float lb_ask_real(const struct lb_ask *ask, int output, int64_t at);

/* ---- waiting ---- */

/* Waits for a condition on the daemon's state; fails the test after 20 seconds. */
void lb_ask_await(bool (*holds)(const struct lb_daemon *daemon, const void *argument),
                  const struct lb_daemon *daemon, const void *argument);
/* A condition: its metrics hold the text. */
bool lb_ask_metrics_hold(const struct lb_daemon *daemon, const void *text);

/* ---- other dialects ---- */

/* Posts the body, or gets where it is NULL; fails the test when the answer has another status, or is no JSON.
 * The caller's. */
json_t *lb_ask_json(const struct lb_daemon *daemon, const char *path, const char *headers, const char *body,
                    int status);
/* The events of a stream as a list, the caller's; fails the test when the body is something else, or doesn't
 * end with [DONE]. */
json_t *lb_ask_events(const struct lb_answer *answer);
/* Writes n ids as a JSON list; its length. */
size_t lb_ask_put_ids(char *text, size_t size, const int32_t *ids, int64_t n);
/* The first lengths[b] of each row of the ids [n, cols], as a JSON list of lists; its length. */
size_t lb_ask_put_lists(char *text, size_t size, const int32_t *ids, int64_t n, int64_t cols,
                        const int32_t *lengths);
/* object[a][b], which must be there. */
const json_t *lb_ask_in(const json_t *object, const char *a, const char *b);
/* Choice b of a completion. */
const json_t *lb_ask_choice(const json_t *answer, size_t b);
float lb_ask_number(const json_t *value);

#endif
