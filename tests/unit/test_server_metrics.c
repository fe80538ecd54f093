/* Prometheus text: counters, cumulative buckets, escapes, the bound on series. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/metrics.h"
#include "tests/support/metrics_rules.h"

#include <stdio.h>
#include <string.h>

static char *render(struct lb_metrics *metrics, struct lb_buf *buf) {
    const struct lb_gauge gauges[] = {
        {"limbeckd_queue_tokens", "Tokens waiting.", 17},
        {"limbeckd_model_bytes", "Bytes.", 1, .labels = {{"model", "a"}}},
        {"limbeckd_model_bytes", "Bytes.", 2, .labels = {{"model", "b\""}}},
        {"limbeckd_seconds_total", "Seconds.", 3.5, .counter = true},
        {"limbeckd_model_info", "1.", 1, .labels = {{"model", "a"}, {"fingerprint", "f\n"}, {"x", ""}}}};
    char why[256];
    lb_buf_init(buf, 16 << 20);
    assert_int_equal(lb_metrics_write(metrics, gauges, sizeof gauges / sizeof *gauges, buf), LB_OK);
    if (!lb_metrics_follow_rules(buf->data, why)) {
        fail_msg("%s", why);
    }
    return buf->data;
}

static void test_counters(void **state) {
    (void)state;
    struct lb_metrics *metrics = lb_metrics_create();
    struct lb_buf buf;
    lb_metrics_add(metrics, LB_METRIC_REQUESTS, (const char *[]){"m", "infer", "200"}, 1);
    lb_metrics_add(metrics, LB_METRIC_REQUESTS, (const char *[]){"m", "infer", "200"}, 1);
    lb_metrics_add(metrics, LB_METRIC_REQUESTS, (const char *[]){"a\"b\\c\nd", "infer", "400"}, 1);
    lb_metrics_add(metrics, LB_METRIC_RESPONSE_BYTES, (const char *[]){"gzip"}, 12345678901.0);
    char *text = render(metrics, &buf);
    assert_non_null(strstr(text, "# TYPE limbeckd_requests_total counter\n"));
    assert_non_null(
        strstr(text, "\nlimbeckd_requests_total{model=\"m\",endpoint=\"infer\",code=\"200\"} 2\n"));
    assert_non_null(strstr(text, "{model=\"a\\\"b\\\\c\\nd\",endpoint=\"infer\",code=\"400\"} 1\n"));
    assert_non_null(strstr(text, "limbeckd_response_bytes_total{encoding=\"gzip\"} 12345678901\n"));
    assert_non_null(strstr(text, "\nlimbeckd_queue_tokens 17\n"));
    assert_non_null(
        strstr(text, "limbeckd_model_bytes{model=\"a\"} 1\nlimbeckd_model_bytes{model=\"b\\\"\"} 2\n"));
    assert_non_null(strstr(text, "# TYPE limbeckd_seconds_total counter\nlimbeckd_seconds_total 3.5\n"));
    assert_non_null(strstr(text, "\nlimbeckd_model_info{model=\"a\",fingerprint=\"f\\n\",x=\"\"} 1\n"));
    lb_buf_finish(&buf);
    lb_metrics_destroy(metrics);
}

static void test_histogram(void **state) {
    (void)state;
    struct lb_metrics *metrics = lb_metrics_create();
    struct lb_buf buf;
    const double values[] = {0.0005, 0.001, 0.3, 0.3, 1000};
    for (size_t i = 0; i < 5; i++) {
        lb_metrics_add(metrics, LB_METRIC_QUEUE_WAIT, (const char *[]){"m"}, values[i]);
    }
    char *text = render(metrics, &buf);
    assert_non_null(strstr(text, "# TYPE limbeckd_queue_wait_seconds histogram\n"));
    /* Bounds are inclusive and counts cumulative. */
    assert_non_null(strstr(text, "limbeckd_queue_wait_seconds_bucket{model=\"m\",le=\"0.001\"} 2\n"));
    assert_non_null(strstr(text, "limbeckd_queue_wait_seconds_bucket{model=\"m\",le=\"0.25\"} 2\n"));
    assert_non_null(strstr(text, "limbeckd_queue_wait_seconds_bucket{model=\"m\",le=\"0.5\"} 4\n"));
    assert_non_null(strstr(text, "limbeckd_queue_wait_seconds_bucket{model=\"m\",le=\"60\"} 4\n"));
    assert_non_null(strstr(text, "limbeckd_queue_wait_seconds_bucket{model=\"m\",le=\"+Inf\"} 5\n"));
    assert_non_null(strstr(text, "limbeckd_queue_wait_seconds_count{model=\"m\"} 5\n"));
    assert_non_null(strstr(text, "limbeckd_queue_wait_seconds_sum{model=\"m\"} 1000.6015\n"));
    lb_buf_finish(&buf);
    lb_metrics_destroy(metrics);
}

static void test_bounded(void **state) {
    (void)state;
    struct lb_metrics *metrics = lb_metrics_create();
    struct lb_buf buf;
    for (int i = 0; i < 4100; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        lb_metrics_add(metrics, LB_METRIC_TOKENS, (const char *[]){name}, 1);
    }
    char *text = render(metrics, &buf);
    assert_non_null(strstr(text, "\nlimbeckd_metrics_dropped_total 4\n"));
    assert_null(strstr(text, "\"m4096\""));
    lb_buf_finish(&buf);
    lb_metrics_destroy(metrics);
    lb_metrics_add(NULL, LB_METRIC_TOKENS, (const char *[]){"m"}, 1);
}

/* The rules themselves: each of these breaks one. */
static void test_rules(void **state) {
    (void)state;
    static const char *const broken[] = {
        "",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b 1",
        "a_b 1\n",
        "# HELP a_b A.\na_b 1\n",
        "# HELP a_b \n# TYPE a_b gauge\n",
        "# HELP a_b A.\n# TYPE a_b counter\na_b 1\n",
        "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a_total A.\n# TYPE a_total counter\na_total -1\n",
        "# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n",
        "# HELP aB A.\n# TYPE aB gauge\naB 1\n",
        "# HELP a_gauge A.\n# TYPE a_gauge gauge\na_gauge 1\n",
        "# HELP a_info A.\n# TYPE a_info gauge\na_info 2\n",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b 1\na_b 1\n",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b{x=\"1\",x=\"2\"} 1\n",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b{x=\"\\t\"} 1\n",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b{x=\"1} 1\n",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b{x=\"\xff\"} 1\n",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b{le=\"1\"} 1\n",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b one\n",
        "# HELP a_b A.\n# TYPE a_b gauge\na_b 1\n# HELP a_c A.\n# TYPE a_c gauge\n# HELP a_b A.\n",
        "# HELP a_b A.\n# TYPE a_b histogram\na_b_bucket{le=\"+Inf\"} 1\na_b_sum 1\na_b_count 2\n",
        "# HELP a_b A.\n# TYPE a_b histogram\na_b_bucket{le=\"1\"} 1\na_b_sum 1\na_b_count 1\n",
        "# HELP a_b A.\n# TYPE a_b histogram\na_b_bucket{le=\"1\"} 2\na_b_bucket{le=\"+Inf\"} 1\n",
        "# HELP a_b A.\n# TYPE a_b histogram\na_b_bucket{le=\"+Inf\"} 1\n",
    };
    char why[256];
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        if (lb_metrics_follow_rules(broken[i], why)) {
            fail_msg("nothing was found in %s", broken[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counters), cmocka_unit_test(test_histogram),
                                       cmocka_unit_test(test_bounded), cmocka_unit_test(test_rules)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
