/* Requests made up part by part and planned as the server plans them; failures fail the test. */
#ifndef LB_TESTS_UNIT_SERVER_QUESTION_H
#define LB_TESTS_UNIT_SERVER_QUESTION_H

#include "server/engine/admit.h"
#include "server/engine/engine.h"

#include <stddef.h>
#include <stdint.h>

struct lb_question {
    struct lb_infer_request request;
    struct lb_wire_tensor inputs[4];
    struct lb_wire_output outputs[16];
};

extern struct lb_detail lb_question_detail;      /* of the last one planned */
extern struct lb_plan_limits lb_question_limits; /* a test that sets it puts it back */

struct lb_question lb_question_new(void);

/* [rows, cols], cols 0: [rows]. The data stays the caller's. */
void lb_question_input(struct lb_question *ask, const char *name, enum lb_datatype datatype, int64_t rows,
                       int64_t cols, const void *data);
void lb_question_output(struct lb_question *ask, const char *name, enum lb_datatype datatype);

/* The job in *out (NULL: only whether it can be); what lb_plan says. */
enum lb_status lb_question_try(struct lb_hosted *hosted, const struct lb_question *ask, struct lb_job **out);
struct lb_job *lb_question_plan(struct lb_hosted *hosted, const struct lb_question *ask);

void lb_question_shape(const struct lb_job_output *o, int n_dims, const int64_t *dim);

#endif
