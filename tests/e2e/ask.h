/* Infer requests of end-to-end tests: put together, sent, and their answers decoded. */
#ifndef LB_TESTS_E2E_ASK_H
#define LB_TESTS_E2E_ASK_H

#include "common/base/arena.h"
#include "proto/oip.h"
#include "tests/support/daemon.h"

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

#endif
