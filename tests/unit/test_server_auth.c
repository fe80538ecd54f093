/* Token files: who may read them, what is in them, which headers they let in. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/http/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/limbeck-auth-XXXXXX";
static struct lb_detail detail;

static enum lb_status open_with(const char *text, mode_t mode, struct lb_auth **out) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
    memset(&detail, 0, sizeof detail);
    return lb_auth_open(path, out, &detail);
}

static void test_tokens(void **state) {
    (void)state;
    struct lb_auth *auth = NULL;
    assert_int_equal(open_with("# readers\nfirst-token-1\r\n\nsecond-token-22", 0600, &auth), LB_OK);
    assert_true(0 <= lb_auth_find(auth, "Bearer first-token-1"));
    assert_true(0 <= lb_auth_find(auth, "bearer second-token-22"));
    assert_true(0 <= lb_auth_find(auth, "Bearer  second-token-22"));
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
        assert_false(0 <= lb_auth_find(auth, wrong[i]));
    }
    assert_false(0 <= lb_auth_find(auth, NULL));
    assert_false(0 <= lb_auth_find(NULL, "Bearer first-token-1"));
    lb_auth_destroy(auth);
}

static void test_permissions(void **state) {
    (void)state;
    struct lb_auth *auth = NULL;
    const mode_t open_modes[] = {0640, 0604, 0620, 0644, 0601};
    for (size_t i = 0; i < sizeof open_modes / sizeof *open_modes; i++) {
        assert_int_equal(open_with("first-token-1\n", open_modes[i], &auth), LB_E_DENIED);
        assert_non_null(strstr(detail.text, "chmod 600"));
    }
    assert_int_equal(open_with("first-token-1\n", 0400, &auth), LB_OK);
    lb_auth_destroy(auth);
}

static void test_bad_files(void **state) {
    (void)state;
    struct lb_auth *auth = NULL;
    assert_int_equal(open_with("", 0600, &auth), LB_E_FORMAT);
    assert_int_equal(open_with("# only a comment\n\n", 0600, &auth), LB_E_FORMAT);
    assert_int_equal(open_with("good-token-1\nshort\n", 0600, &auth), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "line 2"));
    assert_int_equal(open_with("has a space\n", 0600, &auth), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "byte 4"));
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_auth_open("/nonexistent/tokens", &auth, &detail), LB_E_NOTFOUND);
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_auth_open("/tmp", &auth, &detail), LB_E_ARG);
    assert_null(auth);
}

int main(void) {
    int fd = mkstemp(path);
    if (fd < 0) {
        return 1;
    }
    close(fd);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tokens), cmocka_unit_test(test_permissions),
                                       cmocka_unit_test(test_bad_files)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
