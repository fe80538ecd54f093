#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/base64.h"

#include <string.h>

static void there_and_back(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}, /* RFC 4648 section 10 */
                                           {"\xfb\xef\xff", "++//"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct lb_buf buf;
        unsigned char bytes[8] = {0};
        size_t n = 99;
        lb_buf_init(&buf, 64);
        lb_buf_append_str(&buf, ">");
        lb_base64_put(&buf, pairs[i][0], strlen(pairs[i][0]));
        assert_int_equal(lb_buf_status(&buf), LB_OK);
        assert_string_equal(buf.data + 1, pairs[i][1]);
        assert_true(lb_base64_bytes(pairs[i][1], strlen(pairs[i][1]), bytes, &n));
        assert_int_equal(n, strlen(pairs[i][0]));
        assert_memory_equal(bytes, pairs[i][0], n);
        lb_buf_finish(&buf);
    }
}

static void what_is_none_is_refused(void **state) {
    (void)state;
    static const char *const none[] = {"Z", "Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9 ", "Zm9-", "Zm9\n"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        unsigned char bytes[8];
        size_t n = 99;
        assert_false(lb_base64_bytes(none[i], strlen(none[i]), bytes, &n));
        assert_int_equal(n, 99);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back),
                                       cmocka_unit_test(what_is_none_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
