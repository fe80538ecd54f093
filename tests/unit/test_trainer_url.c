/* Addresses: their schemes, and what is said of those that are none. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "trainer/wire/url.h"

#include <string.h>

static void schemes(void **state) {
    (void)state;
    const struct {
        const char *text;
        enum lb_scheme scheme;
        size_t len;
    } cases[] = {{"http://h", LB_SCHEME_HTTP, 7}, {"HTTPS://h", LB_SCHEME_HTTPS, 8},
                 {"unix:/s", LB_SCHEME_UNIX, 5},  {"local:model", LB_SCHEME_LOCAL, 6},
                 {"http:/h", LB_SCHEME_NONE, 0},  {"", LB_SCHEME_NONE, 0},
                 {"models/a", LB_SCHEME_NONE, 0}, {"ftp://h", LB_SCHEME_NONE, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = 99;
        assert_int_equal(lb_url_scheme(cases[i].text, &len), cases[i].scheme);
        assert_int_equal(len, cases[i].len);
        assert_int_equal(lb_url_scheme(cases[i].text, NULL), cases[i].scheme);
    }
}

static void good_ones(void **state) {
    (void)state;
    const char *const good[] = {"http://host",     "http://host:8500",      "https://10.0.0.1:443/prefix/",
                                "http://[::1]:80", "http://[fe80::1]/path", "unix:/run/a b.sock"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(lb_url_check(good[i], false, NULL), LB_OK);
    }
    assert_int_equal(lb_url_check("local:some where", true, NULL), LB_OK);
}

static void bad_ones(void **state) {
    (void)state;
    const struct {
        const char *url, *said;
    } bad[] = {{"host:8500", "write http://HOST:PORT, https://HOST:PORT or unix:PATH"},
               {"local:model", "write http://HOST:PORT"},
               {"http://", "names no host"},
               {"http:///v2", "names no host"},
               {"https://:8500", "names no host"},
               {"http://a host:80", "holds a space"},
               {"http://host:80 ", "holds a space"},
               {"http://host/a b", "holds a space"},
               {"http://host:80\n", "holds a space or a control"},
               {"http://host:80\177", "holds a space or a control"},
               {"http://host/?a=b", "ends before ? and #"},
               {"http://host/#a", "ends before ? and #"},
               {"http://host:port", "its port is no number"},
               {"http://host:", "its port is no number"},
               {"http://host:0", "its port is no number"},
               {"http://host:65536", "its port is no number"},
               {"http://host:123456789012", "its port is no number"},
               {"http://[::1:80", "not closed"},
               {"http://[::1]80", "behind ]"},
               {"unix:", "names no path"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lb_detail detail = {0};
        assert_int_equal(lb_url_check(bad[i].url, false, &detail), LB_E_ARG);
        if (strstr(detail.text, bad[i].said) == NULL) {
            fail_msg("expected: %s\n     but was: %s", bad[i].said, detail.text);
        }
    }
    struct lb_detail detail = {0};
    assert_int_equal(lb_url_check("local:", true, &detail), LB_E_ARG);
    assert_int_equal(lb_url_check("ftp://h", true, &detail), LB_E_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemes),
        cmocka_unit_test(good_ones),
        cmocka_unit_test(bad_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
