/* Ids of requests and traces, as clients send them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/api/trail.h"

#include <string.h>

static void test_request_ids(void **state) {
    (void)state;
    char longest[LB_MAX_ID + 2];
    memset(longest, 'x', sizeof longest);
    longest[LB_MAX_ID] = '\0';
    assert_true(lb_request_id_is_good("a"));
    assert_true(lb_request_id_is_good("3f2b-4c/{x}:~!"));
    assert_true(lb_request_id_is_good(longest));
    longest[LB_MAX_ID] = 'x';
    longest[LB_MAX_ID + 1] = '\0';
    static const char *const bad[] = {"",     " ",     "a b",         "a\"b",   "a\\b",
                                      "a\nb", "a\x7f", "caf\xc3\xa9", "\x1b[2J"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(lb_request_id_is_good(bad[i]));
    }
    assert_false(lb_request_id_is_good(longest));
}

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

static void test_traceparent(void **state) {
    (void)state;
    char trace[LB_TRACE_ID], parent[LB_SPAN_ID];
    static const char *const good[] = {"00-" TRACE "-" PARENT "-01", "00-" TRACE "-" PARENT "-ff",
                                       "01-" TRACE "-" PARENT "-00",
                                       "cc-" TRACE "-" PARENT "-01-what-will-come"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        memset(trace, '?', sizeof trace);
        assert_true(lb_traceparent_parse(good[i], trace, parent));
        assert_string_equal(trace, TRACE);
        assert_string_equal(parent, PARENT);
    }
    static const char *const bad[] = {
        "",
        "00",
        "00-" TRACE "-" PARENT,
        "00-" TRACE "-" PARENT "-0",
        "00-" TRACE "-" PARENT "-011",
        "00-" TRACE "-" PARENT "-01-more",
        "01-" TRACE "-" PARENT "-01.more",
        "ff-" TRACE "-" PARENT "-01",
        "0g-" TRACE "-" PARENT "-01",
        "00-" TRACE "-" PARENT "-0x",
        "00-" TRACE "_" PARENT "-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-" TRACE "-00f067aa0ba902b\"-01",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(lb_traceparent_parse(bad[i], trace, parent));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_request_ids),
                                       cmocka_unit_test(test_traceparent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
