#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/engine/admit.h"
#include "server/models/repository.h"
#include "tests/unit/server_question.h"

#include <string.h>

struct lb_detail lb_question_detail;
struct lb_plan_limits lb_question_limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES};

void lb_question_input(struct lb_question *ask, const char *name, enum lb_datatype datatype, int64_t rows,
                       int64_t cols, const void *data) {
    struct lb_wire_tensor *t = &ask->inputs[ask->request.n_inputs++];
    *t = (struct lb_wire_tensor){
        .name = name, .datatype = datatype, .n_dims = cols ? 2 : 1, .dim = {rows, cols}, .data = data};
    t->bytes = (size_t)lb_wire_elements(t) * lb_datatype_bytes(datatype);
    ask->request.inputs = ask->inputs;
}

void lb_question_output(struct lb_question *ask, const char *name, enum lb_datatype datatype) {
    ask->outputs[ask->request.n_outputs++] =
        (struct lb_wire_output){.name = name, .binary = true, .datatype = datatype};
    ask->request.outputs = ask->outputs;
}

struct lb_question lb_question_new(void) {
    return (struct lb_question){.request = {.top_k = 5, .temperature = 1, .binary_default = true}};
}

enum lb_status lb_question_try(struct lb_hosted *hosted, const struct lb_question *ask, struct lb_job **out) {
    struct lb_infer_request request = ask->request;
    request.inputs = (struct lb_wire_tensor *)(uintptr_t)ask->inputs;
    request.outputs = (struct lb_wire_output *)(uintptr_t)ask->outputs;
    struct lb_job *job = lb_job_create((size_t)64 << 20);
    assert_non_null(job);
    job->model = lb_hosted_retain(hosted);
    memset(&lb_question_detail, 0, sizeof lb_question_detail);
    enum lb_status status = lb_plan(&request, &lb_question_limits, job, &lb_question_detail);
    if (status != LB_OK || !out) {
        lb_job_destroy(job);
        return status;
    }
    *out = job;
    return LB_OK;
}

struct lb_job *lb_question_plan(struct lb_hosted *hosted, const struct lb_question *ask) {
    struct lb_job *job = NULL;
    enum lb_status status = lb_question_try(hosted, ask, &job);
    if (status != LB_OK) {
        fail_msg("%s", lb_question_detail.text);
    }
    return job;
}

void lb_question_shape(const struct lb_job_output *o, int n_dims, const int64_t *dim) {
    assert_int_equal(o->n_dims, n_dims);
    for (int i = 0; i < n_dims; i++) {
        assert_int_equal(o->dim[i], dim[i]);
    }
}
