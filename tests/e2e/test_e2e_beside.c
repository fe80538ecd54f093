/* limbeckd answers as a real vLLM with the same weights does (tests/golden/vllm/recorded.json, which
 * tests/interop/vllm_beside.py --record writes: without what differs as is stated there). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "tests/e2e/ask.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEAR 2e-5
#define ANY "*" /* in a list: whatever stands there */

static char folder[] = "/tmp/limbeck-e2e-beside-XXXXXX";
static struct lb_daemon daemon_;
static json_t *recorded;

static int setup(void **state) {
    (void)state;
    const char *root = getenv("LB_SOURCE_ROOT");
    char path[512], served[600];
    struct lb_buf text;
    struct lb_detail detail = {0};
    snprintf(served, sizeof served, "tiny=%s/tests/golden/vllm/model", root ? root : ".");
    snprintf(path, sizeof path, "%s/tests/golden/vllm/recorded.json", root ? root : ".");
    const char *arguments[] = {served, "--threads", "1", NULL};
    lb_buf_init(&text, 8 << 20);
    bool read = lb_file_read(path, &text, &detail) == LB_OK &&
                lb_json_parse_loose(text.data, text.len, 0, path, &recorded, &detail) == LB_OK;
    lb_buf_finish(&text);
    if (!read) {
        fprintf(stderr, "%s\n", detail.text);
        return -1;
    }
    return mkdtemp(folder) && lb_daemon_start(&daemon_, folder, "limbeckd", arguments, true) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    lb_daemon_stop(&daemon_, SIGTERM);
    json_decref(recorded);
    return lb_remove_tree(folder, NULL);
}

/* All that is left of their answer must be in ours. */
static void contained(const json_t *theirs, const json_t *ours, const char *at) {
    char inner[400];
    const char *key;
    json_t *value;
    size_t i;
    if (json_is_object(theirs)) {
        json_object_foreach((json_t *)(uintptr_t)theirs, key, value) {
            snprintf(inner, sizeof inner, "%.300s/%s", at, key);
            contained(value, json_object_get(ours, key), inner);
        }
    } else if (json_is_array(theirs)) {
        if (json_array_size(theirs) != json_array_size(ours)) {
            fail_msg("%s: %zu entries, vLLM has %zu", at, json_array_size(ours), json_array_size(theirs));
        }
        json_array_foreach(theirs, i, value) {
            snprintf(inner, sizeof inner, "%.300s/%zu", at, i);
            contained(value, json_array_get(ours, i), inner);
        }
    } else if (json_is_real(theirs)) {
        double a = json_real_value(theirs);
        if (!json_is_real(ours) || !(fabs(a - json_real_value(ours)) <= NEAR * fmax(1, fabs(a)))) {
            fail_msg("%s: %.9g, vLLM has %.9g", at, json_number_value(ours), a);
        }
    } else if (!json_equal(theirs, ours) &&
               strcmp(json_is_string(theirs) ? json_string_value(theirs) : "", ANY) != 0) {
        char *a = json_dumps(theirs, JSON_ENCODE_ANY), *b = ours ? json_dumps(ours, JSON_ENCODE_ANY) : NULL;
        fail_msg("%s: %s, vLLM has %s", at, b ? b : "nothing", a);
    }
}

static void test_facade(void **state) {
    (void)state;
    const json_t *list = json_object_get(recorded, "facade");
    size_t i, n = 0;
    json_t *one;
    json_array_foreach(list, i, one) {
        json_t *request = json_deep_copy(json_object_get(one, "request"));
        const char *model = json_string_value(json_object_get(request, "model"));
        if (model && strcmp(model, "/models/tiny") == 0) {
            json_object_set_new(request, "model", json_string("tiny"));
        }
        char *body = json_is_null(request)     ? NULL
                     : json_is_string(request) ? strdup(json_string_value(request))
                                               : json_dumps(request, 0);
        json_t *answer = lb_ask_json(&daemon_, json_string_value(json_object_get(one, "path")), "", body,
                                     (int)json_integer_value(json_object_get(one, "status")));
        contained(json_object_get(one, "answer"), answer, json_string_value(json_object_get(one, "name")));
        json_decref(answer);
        json_decref(request);
        free(body);
        n++;
    }
    assert_true(n > 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facade),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
