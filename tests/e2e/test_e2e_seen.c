/* What people and their tools see of a daemon: its metrics, its statistics, its log. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/sha256.h"
#include "tests/e2e/ask.h"
#include "tests/support/metrics_rules.h"
#include "tests/support/tiny_model.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/limbeck-seen-XXXXXX";
static char teacher[128], mlp[128];
static struct lb_daemon daemon_;
static int32_t ids[64];

static void get(const char *path, int status, struct lb_answer *answer) {
    assert_true(lb_daemon_ask(&daemon_, "GET", path, "", NULL, 0, answer));
    assert_int_equal(answer->status, status);
}

static void ask_teacher(int64_t rows, const char *headers, char fingerprint[LB_SHA256_HEX]) {
    struct lb_ask ask;
    lb_ask_ids(&ask, rows, 16, ids);
    lb_ask_output(&ask, "logsumexp", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon_, "teacher", &ask, headers);
    snprintf(fingerprint, LB_SHA256_HEX, "%s", ask.response.model_version);
    lb_ask_finish(&ask);
}

/* ---- metrics ---- */

static void check_has(const char *text, const char *line) {
    if (!strstr(text, line)) {
        fail_msg("%s is not in\n%s", line, text);
    }
}

/* What is written follows Prometheus' rules, tells of the models, and has no series that a client made. */
static void test_metrics(void **state) {
    (void)state;
    struct lb_answer answer;
    char why[256], fingerprint[LB_SHA256_HEX], line[256];
    ask_teacher(2, "", fingerprint);
    get("/v2/models/nobody-has-this", 404, &answer);
    lb_answer_finish(&answer);
    get("/nor/this", 404, &answer);
    lb_answer_finish(&answer);
    get("/metrics", 200, &answer);
    const char *text = answer.body.data;
    if (!lb_metrics_follow_rules(text, why)) {
        fail_msg("%s", why);
    }
    check_has(text, "\nlimbeckd_requests_total{model=\"teacher\",endpoint=\"infer\",code=\"200\"} ");
    check_has(text, "\nlimbeckd_requests_total{model=\"\",endpoint=\"metadata\",code=\"404\"} 1\n");
    check_has(text, "\nlimbeckd_queue_tokens 0\n");
    check_has(text, "\nlimbeckd_running_requests 0\n");
    check_has(text, "\nlimbeckd_ready 1\n");
    check_has(text, "\nlimbeckd_build_info{version=\"" LB_VERSION "\",");
    check_has(text, "\nlimbeckd_batch_sequences_bucket{model=\"teacher\",le=\"1\"} 0\n");
    check_has(text, "\nlimbeckd_batch_sequences_bucket{model=\"teacher\",le=\"2\"} 1\n");
    snprintf(line, sizeof line, "\nlimbeckd_model_info{model=\"teacher\",fingerprint=\"%s\",compute=\"",
             fingerprint);
    check_has(text, line);
    check_has(text, "\",architecture=\"limbeck_mlp\",parameters=\"");
    assert_null(strstr(text, "nobody-has-this"));
    assert_null(strstr(text, "nor/this"));
    lb_answer_finish(&answer);
}

static int start_all(void **state) {
    (void)state;
    struct lb_config config;
    char a[160], b[160];
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(teacher, sizeof teacher, "%s/teacher", folder);
    snprintf(mlp, sizeof mlp, "%s/mlp", folder);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 1, teacher, LB_F32, true);
    lb_tiny_mlp(&config);
    lb_tiny_save(&config, 3, mlp, LB_F32, false);
    for (int i = 0; i < 64; i++) {
        ids[i] = (i * 37 + 11) % 97;
    }
    snprintf(a, sizeof a, "teacher=%s", teacher);
    snprintf(b, sizeof b, "mlp=%s", mlp);
    return lb_daemon_start(&daemon_, folder, "main", (const char *[]){a, b, NULL}, true) ? 0 : 1;
}

static int stop_all(void **state) {
    (void)state;
    int status = lb_daemon_stop(&daemon_, SIGTERM);
    bool removed = lb_remove_tree(folder, NULL) == LB_OK;
    return status == 0 && removed ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
