/* Token files: who may read them, what is in them, which headers they let in. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "server/http/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/limbeck-auth-XXXXXX";
static struct lb_detail detail;

static struct lb_auth *auth;

static enum lb_status load_with(const char *text, mode_t mode) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
    memset(&detail, 0, sizeof detail);
    return lb_auth_load(auth, path, NULL, &detail);
}

/* The name that comes with this header, "" for nobody. */
static const char *who(const char *header) {
    static struct lb_bearer bearer;
    if (!lb_auth_find(auth, header, &bearer)) {
        return "";
    }
    lb_quota_release(bearer.quota);
    return bearer.name;
}

static void test_tokens(void **state) {
    (void)state;
    assert_string_equal(who("Bearer first-token-1"), "");
    assert_int_equal(load_with("# readers\nfirst-token-1\r\n\nsecond-token-22", 0600), LB_OK);
    assert_int_equal(lb_auth_count(auth), 2);
    assert_string_equal(who("Bearer first-token-1"), "token#1");
    assert_string_equal(who("bearer second-token-22"), "token#2");
    assert_string_equal(who("Bearer  second-token-22"), "token#2");
    const char *wrong[] = {"Bearer first-token-",
                           "Bearer first-token-11",
                           "Bearer FIRST-TOKEN-1",
                           "Bearer",
                           "Bearer ",
                           "",
                           "first-token-1",
                           "Basic first-token-1",
                           "Bearer # readers",
                           "Bearer first-token-1 "};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_string_equal(who(wrong[i]), "");
    }
    assert_string_equal(who(NULL), "");
}

static void test_permissions(void **state) {
    (void)state;
    const mode_t open_modes[] = {0640, 0604, 0620, 0644, 0601};
    for (size_t i = 0; i < sizeof open_modes / sizeof *open_modes; i++) {
        assert_int_equal(load_with("first-token-1\n", open_modes[i]), LB_E_DENIED);
        assert_non_null(strstr(detail.text, "chmod 600"));
    }
    assert_int_equal(load_with("first-token-1\n", 0400), LB_OK);
}

/* What is no file of tokens changes nothing. */
static void test_bad_files(void **state) {
    (void)state;
    assert_int_equal(load_with("good-token-1\n", 0600), LB_OK);
    assert_int_equal(load_with("", 0600), LB_E_FORMAT);
    assert_int_equal(load_with("# only a comment\n\n", 0600), LB_E_FORMAT);
    assert_int_equal(load_with("other-token-1\nshort\n", 0600), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "line 2"));
    assert_non_null(strstr(detail.text, path));
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_auth_load(auth, "/nonexistent/tokens", NULL, &detail), LB_E_NOTFOUND);
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_auth_load(auth, "/tmp", NULL, &detail), LB_E_ARG);
    assert_string_equal(who("Bearer good-token-1"), "token#1");
    assert_string_equal(who("Bearer other-token-1"), "");
}

/* Both files are one list, read anew as a whole; what a name has used goes with it. */
static void test_anew(void **state) {
    (void)state;
    char admin[64];
    struct lb_bearer bearer, again;
    snprintf(admin, sizeof admin, "%s.admin", path);
    assert_int_equal(load_with("admin-token-1\n", 0600), LB_OK);
    assert_int_equal(rename(path, admin), 0);
    assert_int_equal(load_with("jo jo-token-1 concurrent=1\n", 0600), LB_OK);
    assert_int_equal(lb_auth_load(auth, path, admin, NULL), LB_OK);
    assert_int_equal(lb_auth_count(auth), 2);
    assert_true(lb_auth_find(auth, "Bearer admin-token-1", &bearer));
    assert_string_equal(bearer.name, "admin-token#1");
    assert_int_equal(bearer.scopes, LB_SCOPE_ALL);
    lb_quota_release(bearer.quota);
    assert_true(lb_auth_find(auth, "Bearer jo-token-1", &bearer));
    assert_int_equal(bearer.scopes, LB_SCOPE_ASK | LB_SCOPE_METRICS);
    assert_true(lb_quota_enter(bearer.quota));
    assert_int_equal(load_with("jo new-token-1 concurrent=1\nal al-token-1\n", 0600), LB_OK);
    assert_string_equal(who("Bearer jo-token-1"), "");
    assert_string_equal(who("Bearer admin-token-1"), "");
    assert_true(lb_auth_find(auth, "Bearer new-token-1", &again));
    assert_false(lb_quota_enter(again.quota));
    assert_int_equal(load_with("jo new-token-1 concurrent=2\n", 0600), LB_OK);
    assert_true(lb_quota_enter(again.quota));
    lb_quota_leave(bearer.quota);
    lb_quota_leave(bearer.quota);
    lb_quota_release(again.quota);
    lb_quota_release(bearer.quota);
    /* A token of the one file is not in the other as well. */
    assert_int_equal(load_with("admin-token-1\n", 0600), LB_OK);
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_auth_load(auth, path, admin, &detail), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, ".admin, line 1"));
    unlink(admin);
}

/* Whichever allocation fails: what was known is known. */
static void test_no_memory(void **state) {
    (void)state;
    long n = 1;
    assert_int_equal(load_with("jo old-token-1 concurrent=1\n", 0600), LB_OK);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("jo new-token-1\nal al-token-1 tokens_per_minute=6\n", file);
    fclose(file);
    for (bool loaded = false; !loaded; n++) {
        memset(&detail, 0, sizeof detail);
        lb_mem_fail_only(n);
        enum lb_status status = lb_auth_load(auth, path, NULL, &detail);
        lb_mem_fail_from(0);
        loaded = status == LB_OK;
        assert_true(loaded || (status == LB_E_NOMEM && detail.text[0]));
        assert_string_equal(who("Bearer old-token-1"), loaded ? "" : "jo");
        assert_string_equal(who("Bearer al-token-1"), loaded ? "al" : "");
    }
    assert_true(n > 5);
}

int main(void) {
    int fd = mkstemp(path);
    if (fd < 0) {
        return 1;
    }
    close(fd);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tokens), cmocka_unit_test(test_permissions),
                                       cmocka_unit_test(test_bad_files), cmocka_unit_test(test_anew),
                                       cmocka_unit_test(test_no_memory)};
    auth = lb_auth_create();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_auth_destroy(auth);
    unlink(path);
    return failed;
}
