#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/e2e/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void lb_ask_init(struct lb_ask *ask) {
    memset(ask, 0, sizeof *ask);
    ask->request = (struct lb_infer_request){.top_k = LB_DEFAULT_TOP_K,
                                             .temperature = 1,
                                             .binary_default = true,
                                             .inputs = ask->inputs,
                                             .outputs = ask->outputs};
    lb_arena_init(&ask->arena, (size_t)256 << 20);
}

void lb_ask_input(struct lb_ask *ask, const char *name, enum lb_datatype datatype, int64_t rows, int64_t cols,
                  const void *data) {
    struct lb_wire_tensor *t = &ask->inputs[ask->request.n_inputs++];
    *t = (struct lb_wire_tensor){.name = name,
                                 .datatype = datatype,
                                 .n_dims = cols ? 2 : 1,
                                 .dim = {rows, cols},
                                 .data = data,
                                 .binary = true};
    t->bytes = (size_t)lb_wire_elements(t) * lb_datatype_bytes(datatype);
}

void lb_ask_ids(struct lb_ask *ask, int64_t rows, int64_t cols, const int32_t *ids) {
    lb_ask_init(ask);
    lb_ask_input(ask, "input_ids", LB_DT_INT32, rows, cols, ids);
}

void lb_ask_output(struct lb_ask *ask, const char *name, enum lb_datatype datatype, bool binary) {
    ask->outputs[ask->request.n_outputs++] = (struct lb_wire_output){name, binary, datatype};
}

static bool send_request(int fd, const char *model, struct lb_ask *ask, const char *headers) {
    struct lb_buf body;
    size_t json_len = 0;
    char path[256], all[512];
    bool binary = false;
    lb_buf_init(&body, (size_t)256 << 20);
    for (size_t i = 0; i < ask->request.n_inputs; i++) {
        binary |= ask->inputs[i].binary;
    }
    bool ok = lb_infer_request_encode(&ask->request, &body, &json_len, NULL) == LB_OK;
    snprintf(path, sizeof path, "/v2/models/%s/infer", model);
    if (binary) {
        snprintf(all, sizeof all, LB_HEADER_JSON_LENGTH ": %zu\r\n%s", json_len, headers);
    } else {
        snprintf(all, sizeof all, "%s", headers);
    }
    ok = ok && lb_http_send(fd, "POST", path, all, body.data, body.len);
    lb_buf_finish(&body);
    return ok;
}

bool lb_ask_on(int fd, const char *model, struct lb_ask *ask, const char *headers) {
    char length[32];
    if (!send_request(fd, model, ask, headers) || !lb_http_receive(fd, &ask->answer)) {
        return false;
    }
    if (ask->answer.status != 200) {
        return true;
    }
    int64_t json_len =
        lb_answer_header(&ask->answer, LB_HEADER_JSON_LENGTH, length, sizeof length) ? atoll(length) : -1;
    struct lb_detail detail = {0};
    if (lb_infer_response_decode(ask->answer.body.data, ask->answer.body.len, json_len, &ask->arena,
                                 &ask->response, &detail) != LB_OK) {
        fprintf(stderr, "%s\n", detail.text);
        return false;
    }
    return true;
}

void lb_ask_send_ok(const struct lb_daemon *daemon, const char *model, struct lb_ask *ask,
                    const char *headers) {
    int fd = lb_daemon_connect(daemon);
    assert_true(fd >= 0);
    bool ok = lb_ask_on(fd, model, ask, headers);
    close(fd);
    if (!ok || ask->answer.status != 200) {
        fail_msg("status %d: %s", ask->answer.status, ask->answer.body.data ? ask->answer.body.data : "");
    }
}

bool lb_ask_send_only(const struct lb_daemon *daemon, const char *model, struct lb_ask *ask) {
    int fd = lb_daemon_connect(daemon);
    bool ok = fd >= 0 && send_request(fd, model, ask, "");
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

void lb_ask_finish(struct lb_ask *ask) {
    lb_answer_finish(&ask->answer);
    lb_arena_finish(&ask->arena);
}
