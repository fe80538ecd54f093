/* Paths to handlers: patterns with optional parts, methods, names too long; several dialects, each with its
 * own errors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/api/reply.h"
#include "server/api/routes.h"
#include "server/api/visit.h"

#include <string.h>

static const struct lb_route table[] = {
    {"GET", "/v2", "root", LB_ACCESS_TOKEN, NULL},
    {"GET", "/v2/models/stats", "all_stats", LB_ACCESS_TOKEN, NULL},
    {"GET", "/v2/models/{model}[/versions/{version}]", "metadata", LB_ACCESS_TOKEN, NULL},
    {"POST", "/v2/models/{model}[/versions/{version}]/infer", "infer", LB_ACCESS_TOKEN, NULL},
    {"GET", "/v2/repository/models/{model}/load", "peek", LB_ACCESS_ADMIN, NULL},
    {"POST", "/v2/repository/models/{model}/load", "load", LB_ACCESS_ADMIN, NULL},
};
#define N (sizeof table / sizeof *table)

static struct lb_route_match found;
static char allow[LB_ALLOW_SIZE];

static enum lb_status find(const char *method, const char *path) {
    memset(&found, 0, sizeof found);
    return lb_route_find(table, N, method, path, &found, allow);
}

static void expect(const char *method, const char *path, const char *endpoint, const char *model,
                   const char *version) {
    assert_int_equal(find(method, path), LB_OK);
    assert_string_equal(found.route->endpoint, endpoint);
    assert_string_equal(found.model, model);
    assert_string_equal(found.version, version);
}

static void test_finds(void **state) {
    (void)state;
    expect("GET", "/v2", "root", "", "");
    expect("GET", "/v2/", "root", "", "");
    expect("HEAD", "/v2", "root", "", "");
    expect("GET", "/v2/models/teacher", "metadata", "teacher", "");
    expect("GET", "/v2/models/teacher/", "metadata", "teacher", "");
    expect("GET", "/v2/models/teacher/versions/9f3c", "metadata", "teacher", "9f3c");
    expect("POST", "/v2/models/teacher/infer", "infer", "teacher", "");
    expect("POST", "/v2/models/teacher/versions/9f3c/infer", "infer", "teacher", "9f3c");
    /* A model may be called like a word of the path; the table's order decides about the word itself. */
    expect("POST", "/v2/models/versions/infer", "infer", "versions", "");
    expect("GET", "/v2/models/stats", "all_stats", "", "");
    expect("POST", "/v2/repository/models/m/load", "load", "m", "");
    /* A slash within a name is no slash of the path. */
    expect("POST", "/v2/models/a%2Finfer/infer", "infer", "a/infer", "");
    expect("GET", "/v2/models/a%2Fversions%2Fb", "metadata", "a/versions/b", "");
    expect("GET", "/v2/models/a%252Fb", "metadata", "a%2Fb", "");
}

static void test_unknown_paths(void **state) {
    (void)state;
    const char *paths[] = {"/",
                           "",
                           "/v1",
                           "/v2/models",
                           "/v2/models/",
                           "/v2/models//infer",
                           "/v2/models/a/b",
                           "/v2/models/a/versions/",
                           "/v2/models/a/versions//infer",
                           "/v2/models/a/infer/x",
                           "/v2models/a",
                           "v2",
                           "/v2/models/a/versions/b/c"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_int_equal(find("GET", paths[i]), LB_E_NOTFOUND);
        assert_int_equal(find("POST", paths[i]), LB_E_NOTFOUND);
    }
}

static void test_methods(void **state) {
    (void)state;
    assert_int_equal(find("GET", "/v2/models/m/infer"), LB_E_UNSUPPORTED);
    assert_string_equal(allow, "POST");
    assert_int_equal(find("DELETE", "/v2"), LB_E_UNSUPPORTED);
    assert_string_equal(allow, "GET, HEAD");
    assert_int_equal(find("PUT", "/v2/repository/models/m/load"), LB_E_UNSUPPORTED);
    assert_string_equal(allow, "GET, HEAD, POST");
    assert_int_equal(find("get", "/v2"), LB_E_UNSUPPORTED); /* methods are case-sensitive */
}

static void test_long_names(void **state) {
    (void)state;
    char path[64 + LB_MAX_NAME] = "/v2/models/";
    size_t at = strlen(path);
    memset(path + at, 'x', LB_MAX_NAME - 1);
    assert_int_equal(find("GET", path), LB_OK);
    assert_int_equal(strlen(found.model), LB_MAX_NAME - 1);
    path[at + LB_MAX_NAME - 1] = 'x';
    assert_int_equal(find("GET", path), LB_E_NOTFOUND);
}

static json_t *other_error(int status, const char *text) {
    return json_pack("{s:{s:s,s:i}}", "error", "message", text, "code", status);
}

static const struct lb_route other_table[] = {{"GET", "/v1/models", "models", LB_ACCESS_TOKEN, NULL},
                                              {"POST", "/v2/models/stats", "odd", LB_ACCESS_TOKEN, NULL}};
static const struct lb_api_dialect native = {"native", "", table, N, lb_error_body},
                                   other = {"other", "/v1", other_table, 2, other_error};
static const struct lb_api_dialect *const dialects[] = {&other, &native};

static const struct lb_api_dialect *speak(const char *method, const char *path, enum lb_status wanted) {
    const struct lb_api_dialect *dialect = NULL;
    assert_int_equal(lb_dialect_find(dialects, 2, method, path, &dialect, &found, allow), wanted);
    return dialect;
}

static void test_dialects(void **state) {
    (void)state;
    assert_ptr_equal(speak("GET", "/v2", LB_OK), &native);
    assert_string_equal(found.route->endpoint, "root");
    assert_ptr_equal(speak("GET", "/v1/models", LB_OK), &other);
    assert_string_equal(found.route->endpoint, "models");
    assert_ptr_equal(speak("POST", "/v1/models", LB_E_UNSUPPORTED), &other);
    assert_string_equal(allow, "GET, HEAD");
    /* One has the path, the other has it with this method. */
    assert_ptr_equal(speak("GET", "/v2/models/stats", LB_OK), &native);
    assert_string_equal(found.route->endpoint, "all_stats");
    assert_ptr_equal(speak("POST", "/v2/models/stats", LB_OK), &other);
    /* What does not exist belongs to the prefix. */
    assert_ptr_equal(speak("GET", "/v1/nothing", LB_E_NOTFOUND), &other);
    assert_ptr_equal(speak("GET", "/v1", LB_E_NOTFOUND), &other);
    assert_ptr_equal(speak("GET", "/v10", LB_E_NOTFOUND), &native);
    assert_ptr_equal(speak("GET", "/nothing", LB_E_NOTFOUND), &native);
}

static void expect_error(struct lb_visit *visit, const char *body) {
    struct lb_exchange x = {.user = visit};
    lb_arena_init(&x.arena, 1 << 16);
    lb_reply_error(&x, 404, "no \"%s\"", "m\xff");
    assert_int_equal(x.reply.status, 404);
    assert_int_equal(x.reply.n_parts, 1);
    assert_int_equal(x.reply.parts[0].len, strlen(body));
    assert_memory_equal(x.reply.parts[0].data, body, strlen(body));
    lb_arena_finish(&x.arena);
}

static void test_errors(void **state) {
    (void)state;
    struct lb_visit visit = {.dialect = &native};
    const char *plain = "{\"error\":\"no \\\"m?\\\"\"}\n";
    expect_error(&visit, plain);
    expect_error(NULL, plain);
    visit.dialect = &other;
    expect_error(&visit, "{\"error\":{\"message\":\"no \\\"m?\\\"\",\"code\":404}}\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_finds),    cmocka_unit_test(test_unknown_paths),
                                       cmocka_unit_test(test_methods),  cmocka_unit_test(test_long_names),
                                       cmocka_unit_test(test_dialects), cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
