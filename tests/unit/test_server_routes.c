/* Paths to handlers: patterns with optional parts, methods, names too long. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/api/routes.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_finds), cmocka_unit_test(test_unknown_paths),
                                       cmocka_unit_test(test_methods), cmocka_unit_test(test_long_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
