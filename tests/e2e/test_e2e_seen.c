/* What people and their tools see of a daemon: its metrics, its statistics, its log. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/base64.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/sha256.h"
#include "tests/e2e/ask.h"
#include "tests/support/metrics_rules.h"
#include "tests/support/sanitized.h"
#include "tests/support/tiny_model.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* Until it is in what a path answers: a request is counted when its answer is out, which its client may have
 * read by then. */
static void await_answer(const struct lb_daemon *daemon, const char *path, const char *headers,
                         const char *holds) {
    uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
    for (bool there = false; !there;) {
        struct lb_answer answer;
        assert_true(lb_daemon_ask(daemon, "GET", path, headers, NULL, 0, &answer));
        there = strstr(answer.body.data, holds) != NULL;
        if (!there && lb_now_ns() > until) {
            fail_msg("%s is not in\n%s", holds, answer.body.data);
        }
        lb_answer_finish(&answer);
    }
}

/* Every family stands in the documentation. */
static void check_documented(const char *text) {
    char path[512], name[128], quoted[132];
    const char *root = getenv("LB_SOURCE_ROOT");
    struct lb_buf page;
    lb_buf_init(&page, 1 << 22);
    snprintf(path, sizeof path, "%s/proto/PROTOCOL.md", root ? root : ".");
    assert_int_equal(lb_file_read(path, &page, NULL), LB_OK);
    for (const char *p = text; (p = strstr(p, "# TYPE ")) != NULL; p++) {
        assert_int_equal(sscanf(p, "# TYPE %127s", name), 1);
        snprintf(quoted, sizeof quoted, "`%s`", name);
        if (!strstr(page.data, quoted)) {
            fail_msg("proto/PROTOCOL.md (section 13.1) does not tell of %s", name);
        }
    }
    lb_buf_finish(&page);
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
    await_answer(&daemon_, "/metrics", "",
                 "\nlimbeckd_requests_total{model=\"teacher\",endpoint=\"infer\",code=\"200\"} ");
    await_answer(&daemon_, "/metrics", "",
                 "\nlimbeckd_requests_total{model=\"\",endpoint=\"metadata\",code=\"404\"} 1\n");
    await_answer(&daemon_, "/metrics", "",
                 "\nlimbeckd_requests_total{model=\"\",endpoint=\"none\",code=\"404\"} 1\n");
    get("/metrics", 200, &answer);
    const char *text = answer.body.data;
    if (!lb_metrics_follow_rules(text, why)) {
        fail_msg("%s", why);
    }
    check_documented(text);
    check_has(text, "\nlimbeckd_queue_tokens 0\n");
    check_has(text, "\nlimbeckd_running_requests 0\n");
    check_has(text, "\nlimbeckd_ready 1\n");
    check_has(text, "\nlimbeckd_model_ready{model=\"teacher\"} 1\n");
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

/* ---- statistics ---- */

static const char *member(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static double number(const json_t *object, const char *name) {
    assert_true(json_is_number(json_object_get(object, name)));
    return json_number_value(json_object_get(object, name));
}

static json_int_t count(const json_t *of, const char *name) {
    return json_integer_value(json_object_get(json_object_get(of, name), "count"));
}

static json_int_t ns(const json_t *of, const char *name) {
    return json_integer_value(json_object_get(json_object_get(of, name), "ns"));
}

/* As Triton counts: sequences, batches by their size, requests with their time; what sums to what. */
static void test_stats(void **state) {
    (void)state;
    struct lb_daemon daemon;
    struct lb_answer answer;
    char a[160], b[160];
    snprintf(a, sizeof a, "teacher=%s", teacher);
    snprintf(b, sizeof b, "mlp=%s", mlp);
    assert_true(lb_daemon_start(&daemon, folder, "stats", (const char *[]){a, b, NULL}, true));
    const int64_t rows[] = {3, 1, 3, 2};
    for (size_t i = 0; i < 4; i++) {
        struct lb_ask ask;
        lb_ask_ids(&ask, rows[i], 16, ids);
        lb_ask_output(&ask, "logsumexp", LB_DT_NONE, true);
        lb_ask_send_ok(&daemon, "teacher", &ask, "");
        lb_ask_finish(&ask);
    }
    json_t *json = NULL, *one;
    assert_true(lb_daemon_ask(&daemon, "GET", "/v2/models/stats", "", NULL, 0, &answer));
    assert_int_equal(lb_json_parse(answer.body.data, answer.body.len, 0, "stats", &json, NULL), LB_OK);
    lb_answer_finish(&answer);
    assert_int_equal(json_array_size(json_object_get(json, "model_stats")), 2);
    one = json_array_get(json_object_get(json, "model_stats"), 0);
    assert_string_equal(json_string_value(json_object_get(one, "name")), "teacher");
    assert_int_equal(json_integer_value(json_object_get(one, "inference_count")), 9);
    assert_int_equal(json_integer_value(json_object_get(one, "execution_count")), 4);
    assert_true(json_integer_value(json_object_get(one, "last_inference")) > 1600000000000);
    const json_t *sums = json_object_get(one, "inference_stats"),
                 *sizes = json_object_get(one, "batch_stats");
    assert_true(count(sums, "success") == 4 && count(sums, "queue") == 4 &&
                count(sums, "compute_infer") == 4);
    assert_true(count(sums, "fail") == 0 && count(sums, "compute_input") == count(sums, "compute_infer"));
    assert_true(ns(sums, "compute_infer") > 0 &&
                ns(sums, "success") >= ns(sums, "queue") + ns(sums, "compute_infer"));
    /* of three sequences that differ each came once as something new */
    assert_true(count(sums, "cache_miss") == 3 && count(sums, "cache_hit") == 6);
    assert_true(ns(sums, "cache_miss") > 0 && ns(sums, "cache_hit") > 0);
    assert_true(ns(sums, "cache_miss") < ns(sums, "compute_infer"));
    assert_int_equal(json_array_size(sizes), 3);
    json_int_t spent = 0;
    for (int size = 1; size <= 3; size++) {
        const json_t *batch = json_array_get(sizes, (size_t)size - 1);
        assert_int_equal(json_integer_value(json_object_get(batch, "batch_size")), size);
        assert_int_equal(count(batch, "compute_infer"), size == 3 ? 2 : 1);
        spent += ns(batch, "compute_infer");
    }
    assert_int_equal(spent, ns(sums, "compute_infer")); /* nobody shared a batch */
    json_decref(json);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* Where nothing is kept nothing is looked for. */
static void test_no_cache(void **state) {
    (void)state;
    struct lb_daemon daemon;
    struct lb_answer answer;
    char served[160];
    snprintf(served, sizeof served, "teacher=%s", teacher);
    assert_true(lb_daemon_start(&daemon, folder, "none",
                                (const char *[]){"--state-cache-mib", "0", served, NULL}, true));
    for (int i = 0; i < 2; i++) {
        struct lb_ask ask;
        lb_ask_ids(&ask, 1, 16, ids);
        lb_ask_output(&ask, "logsumexp", LB_DT_NONE, true);
        lb_ask_send_ok(&daemon, "teacher", &ask, "");
        lb_ask_finish(&ask);
    }
    assert_true(lb_daemon_ask(&daemon, "GET", "/v2/models/teacher/stats", "", NULL, 0, &answer));
    assert_non_null(strstr(answer.body.data, "\"cache_hit\":{\"count\":0,\"ns\":0}"));
    assert_non_null(strstr(answer.body.data, "\"cache_miss\":{\"count\":0,\"ns\":0}"));
    lb_answer_finish(&answer);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* ---- the status page ---- */

/* A source of the policy: the digest of what stands between two marks of the page. */
static void check_source(const char *policy, const char *directive, const char *page, const char *open,
                         const char *close) {
    const char *begin = strstr(page, open) + strlen(open), *end = strstr(begin, close);
    struct lb_sha256 *hash = lb_sha256_create();
    uint8_t digest[LB_SHA256_BYTES];
    struct lb_buf source;
    lb_buf_init(&source, 256);
    lb_sha256_update(hash, begin, (size_t)(end - begin));
    lb_sha256_final(hash, digest);
    lb_buf_printf(&source, "%s 'sha256-", directive);
    lb_base64_put(&source, digest, sizeof digest);
    lb_buf_append_str(&source, "'");
    check_has(policy, source.data);
    lb_buf_finish(&source);
}

/* One file, nothing from elsewhere, and nothing in it that could make markup or code of what it shows. */
static void test_page(void **state) {
    (void)state;
    static const char *const none[] = {" src=",
                                       "@import",
                                       "url(",
                                       "innerHTML",
                                       "outerHTML",
                                       "insertAdjace",
                                       "document.wri",
                                       "eval(",
                                       "new Function",
                                       "onclick",
                                       "onload",
                                       "https://",
                                       "createContextualFragment"};
    struct lb_answer answer;
    char value[512];
    get("/", 200, &answer);
    const char *page = answer.body.data;
    assert_true(lb_answer_header(&answer, "Content-Type", value, sizeof value));
    assert_string_equal(value, "text/html; charset=utf-8");
    assert_true(lb_answer_header(&answer, "Content-Security-Policy", value, sizeof value));
    check_has(value, "default-src 'none'; connect-src 'self'");
    check_source(value, "script-src", page, "<script>", "</script>");
    check_source(value, "style-src", page, "<style>", "</style>");
    assert_null(strstr(value, "unsafe"));
    assert_null(strstr(strstr(page, "<script>") + 1, "<script"));
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        assert_null(strstr(page, none[i]));
    }
    for (const char *p = page; (p = strstr(p, "http://")) != NULL; p++) {
        assert_memory_equal(p, "http://www.w3.org/2000/svg'", 27); /* a name, not an address */
    }
    lb_answer_finish(&answer);
}

/* What of the page's JSON is about the client of this name, the caller's. */
static json_t *client_named(const json_t *status, const char *name) {
    size_t i;
    json_t *client;
    json_array_foreach(json_object_get(status, "clients"), i, client) {
        if (strcmp(json_string_value(json_object_get(client, "name")), name) == 0) {
            return json_incref(client);
        }
    }
    return NULL;
}

static int ask_as(const struct lb_daemon *daemon, const char *path, const char *headers, const char *holds) {
    struct lb_answer answer;
    assert_true(lb_daemon_ask(daemon, "GET", path, headers, NULL, 0, &answer));
    int status = answer.status;
    check_has(answer.body.data, holds);
    lb_answer_finish(&answer);
    return status;
}

#define HTML "Accept: text/html,application/xhtml+xml\r\n"
#define AS(token) "Authorization: Bearer " token "\r\n"

/* The page is open to whom the metrics are; a browser without a token gets it with the 401, to ask for one.
 */
static void test_page_access(void **state) {
    (void)state;
    static const char tokens[] = "ann token-of-ann-1 scopes=ask\nwatch token-of-watch-1 scopes=metrics\n";
    struct lb_daemon daemon;
    struct lb_answer answer;
    struct lb_ask ask;
    char file[128], a[160];
    snprintf(file, sizeof file, "%s/page-tokens", folder);
    snprintf(a, sizeof a, "teacher=%s", teacher);
    assert_int_equal(lb_file_replace(file, tokens, strlen(tokens), NULL), LB_OK);
    assert_int_equal(chmod(file, 0600), 0);
    assert_true(
        lb_daemon_start(&daemon, folder, "page", (const char *[]){"--token-file", file, a, NULL}, true));
    assert_int_equal(ask_as(&daemon, "/", "", "{\"error\":"), 401);
    assert_int_equal(ask_as(&daemon, "/", HTML, "<!doctype html>"), 401);
    assert_int_equal(ask_as(&daemon, "/", HTML AS("token-of-nobody"), "<!doctype html>"), 401);
    assert_int_equal(ask_as(&daemon, "/status.json", HTML, "{\"error\":"), 401);
    assert_int_equal(ask_as(&daemon, "/metrics", HTML, "{\"error\":"), 401);
    assert_int_equal(ask_as(&daemon, "/", HTML AS("token-of-ann-1"), "scope metrics"), 403);
    assert_int_equal(ask_as(&daemon, "/status.json", AS("token-of-ann-1"), "scope metrics"), 403);
    assert_int_equal(ask_as(&daemon, "/", AS("token-of-watch-1"), "<!doctype html>"), 200);
    lb_ask_ids(&ask, 2, 16, ids);
    lb_ask_output(&ask, "logsumexp", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon, "teacher", &ask, AS("token-of-ann-1"));
    lb_ask_finish(&ask);
    assert_int_equal(ask_as(&daemon, "/v2/models/nobody", AS("token-of-ann-1"), "nobody"), 404);
    json_t *status = NULL;
    await_answer(&daemon, "/status.json", AS("token-of-watch-1"), "\"requests\":2,");
    assert_true(lb_daemon_ask(&daemon, "GET", "/status.json", AS("token-of-watch-1"), NULL, 0, &answer));
    assert_int_equal(answer.status, 200);
    assert_int_equal(lb_json_parse(answer.body.data, answer.body.len, 0, "status", &status, NULL), LB_OK);
    lb_answer_finish(&answer);
    assert_string_equal(member(status, "state"), "ready");
    assert_true(number(status, "now") >= number(status, "started"));
    assert_int_equal(json_array_size(json_object_get(status, "models")), 1);
    assert_int_equal(json_array_size(json_object_get(status, "clients")),
                     1); /* no stranger, nobody who watches */
    json_t *ann = client_named(status, "ann");
    assert_non_null(ann);
    assert_true(json_is_true(json_object_get(ann, "token")));
    assert_int_equal(number(ann, "requests"), 2);
    assert_int_equal(number(ann, "failed"), 1);
    assert_int_equal(number(ann, "tokens"), 32);
    json_decref(ann);
    json_decref(status);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* ---- the log ---- */

/* A path as it is asked for, and as the log tells it. */
#define HOSTILE "/%22%20status=200%20x=%22%0Atime%20info%20request%20path=%22/forged%C2%9B%E2%80%AE%2522%2F"
#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"

/* Asks in ways that would leave false lines; the last request's id is "end". */
static void ask_hostile(const struct lb_daemon *daemon) {
    static const char *const headers[] = {
        "X-Request-Id: a\" status=200 x=\"\r\n", "X-Request-Id: \xc3\xa9\r\n",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e473\"-00f067aa0ba902b7-01\r\n",
        "X-Request-Id: end\r\ntraceparent: 00-" TRACE "-00f067aa0ba902b7-01\r\n"};
    struct lb_answer answer;
    char id[LB_MAX_ID + 2];
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        assert_true(lb_daemon_ask(daemon, "GET", HOSTILE, headers[i], NULL, 0, &answer));
        assert_int_equal(answer.status, 404);
        assert_true(lb_answer_header(&answer, "X-Request-Id", id, sizeof id));
        assert_int_equal(strlen(id), i == 3 ? 3 : 32); /* one of ours in the place of a bad one */
        lb_answer_finish(&answer);
    }
}

/* The log of a daemon that has ended, the caller's. */
static struct lb_buf read_log(const struct lb_daemon *daemon) {
    struct lb_buf text;
    lb_buf_init(&text, 1 << 24);
    assert_int_equal(lb_file_read(daemon->log_file, &text, NULL), LB_OK);
    return text;
}

/* Of a request for three tokens behind a prompt of four. */
static void check_written_line(const json_t *line) {
    assert_string_equal(member(line, "model"), "teacher");
    assert_int_equal(number(line, "sequences"), 1);
    assert_int_equal(number(line, "tokens"), 7);
    assert_true(number(line, "compute_ms") > 0 && number(line, "queue_ms") >= 0);
    assert_true(number(line, "total_ms") >= number(line, "compute_ms"));
}

/* Of an infer request: who, what, how long, how much. */
static void check_infer_line(const json_t *line) {
    assert_string_equal(member(line, "client"), "ann");
    assert_string_equal(member(line, "peer"), "127.0.0.1");
    assert_string_equal(member(line, "method"), "POST");
    assert_string_equal(member(line, "path"), "/v2/models/teacher/infer");
    assert_string_equal(member(line, "model"), "teacher");
    assert_string_equal(member(line, "request_id"), "4711"); /* a string, whatever it looks like */
    assert_string_equal(member(line, "trace_id"), TRACE);
    assert_string_equal(member(line, "parent_id"), "00f067aa0ba902b7");
    assert_int_equal(number(line, "status"), 200);
    assert_int_equal(number(line, "tokens"), 32);
    assert_int_equal(number(line, "sequences"), 2);
    assert_true(number(line, "in_bytes") > 100 && number(line, "out_bytes") > 100);
    assert_true(number(line, "total_ms") >= number(line, "compute_ms") && number(line, "compute_ms") > 0);
    assert_true(number(line, "queue_ms") >= 0 && strlen(member(line, "time")) == 24);
}

static void test_log_json(void **state) {
    (void)state;
    struct lb_daemon daemon;
    struct lb_ask ask;
    char tokens[128], a[160];
    snprintf(tokens, sizeof tokens, "%s/tokens", folder);
    snprintf(a, sizeof a, "teacher=%s", teacher);
    assert_int_equal(lb_file_replace(tokens, "ann token-of-ann-1\n", 19, NULL), LB_OK);
    assert_int_equal(chmod(tokens, 0600), 0);
    assert_true(lb_daemon_start(&daemon, folder, "json",
                                (const char *[]){"--log-format", "json", "--token-file", tokens, a, NULL},
                                true));
    lb_ask_ids(&ask, 2, 16, ids);
    lb_ask_output(&ask, "logsumexp", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon, "teacher", &ask,
                   "Authorization: Bearer token-of-ann-1\r\nX-Request-Id: 4711\r\n"
                   "traceparent: 00-" TRACE "-00f067aa0ba902b7-01\r\n");
    lb_ask_finish(&ask);
    struct lb_answer answer;
    static const char writes[] =
        "{\"prompt\":[1,2,3,4],\"max_tokens\":3,\"temperature\":0,\"ignore_eos\":true}";
    assert_true(lb_daemon_ask(&daemon, "POST", "/v1/completions", "Authorization: Bearer token-of-ann-1\r\n",
                              writes, strlen(writes), &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    await_answer(&daemon, "/status.json", AS("token-of-ann-1"), "\"tokens\":39,"); /* 32 and these */
    assert_true(lb_daemon_ask(&daemon, "GET", "/metrics", AS("token-of-ann-1"), NULL, 0, &answer));
    check_has(answer.body.data, "\nlimbeckd_writing_seconds_total{model=\"teacher\"} 0.");
    lb_answer_finish(&answer);
    assert_true(
        lb_daemon_ask(&daemon, "GET", "/v2/models/teacher/stats", AS("token-of-ann-1"), NULL, 0, &answer));
    check_has(answer.body.data, "\"execution_count\":4,"); /* a batch and three tokens */
    lb_answer_finish(&answer);
    assert_true(lb_daemon_ask(&daemon, "GET", HOSTILE, "", NULL, 0, &answer));
    assert_int_equal(answer.status, 401);
    lb_answer_finish(&answer);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    struct lb_buf text = read_log(&daemon);
    int n_requests = 0;
    for (char *line = text.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        json_t *object = NULL;
        *end = '\0';
        if (LB_SANITIZED && line[0] != '{') {
            continue; /* the sanitizer's own */
        }
        assert_int_equal(lb_json_parse(line, (size_t)(end - line), 0, "line", &object, NULL), LB_OK);
        if (strcmp(member(object, "event"), "request") == 0) {
            n_requests++;
            if (strcmp(member(object, "endpoint"), "completions") == 0) {
                check_written_line(object);
            } else if (strcmp(member(object, "endpoint"), "infer") == 0) {
                check_infer_line(object);
            } else if (strcmp(member(object, "endpoint"), "none") == 0) {
                assert_int_equal(number(object, "status"), 401);
                assert_string_equal(member(object, "client"), "");
                assert_string_equal(member(object, "path"), HOSTILE);
                assert_null(json_object_get(object, "x"));
                assert_int_equal(strlen(member(object, "request_id")), 32);
            }
        }
        json_decref(object);
    }
    assert_int_equal(n_requests, 4);
    lb_buf_finish(&text);
}

/* A line each, with nothing in it that its client could have written but as a value. */
static void test_log_text(void **state) {
    (void)state;
    struct lb_daemon daemon;
    char a[160];
    snprintf(a, sizeof a, "teacher=%s", teacher);
    assert_true(lb_daemon_start(&daemon, folder, "text", (const char *[]){a, NULL}, true));
    ask_hostile(&daemon);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    struct lb_buf text = read_log(&daemon);
    int n_requests = 0, n_404 = 0, n_ends = 0, n_traces = 0;
    for (char *line = text.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        n_requests += strncmp(line + 24, " info request ", 14) == 0;
        n_404 += strstr(line, " status=404 ") != NULL;
        n_ends += strstr(line, " request_id=\"end\"") != NULL;
        n_traces += strstr(line, " trace_id=\"" TRACE "\" parent_id=\"00f067aa0ba902b7\"") != NULL;
        assert_null(strstr(line, " status=200"));
        for (const char *p = line; *p; p++) {
            assert_true(*p >= ' ' && *p < 0x7f);
        }
    }
    assert_int_equal(n_requests, 4);
    assert_int_equal(n_404, 4);
    assert_int_equal(n_ends, 1);
    assert_int_equal(n_traces, 1);
    lb_buf_finish(&text);
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
        cmocka_unit_test(test_metrics),  cmocka_unit_test(test_stats),       cmocka_unit_test(test_no_cache),
        cmocka_unit_test(test_page),     cmocka_unit_test(test_page_access), cmocka_unit_test(test_log_json),
        cmocka_unit_test(test_log_text),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
