/* Files of tokens: what their lines say, and the lines that are refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/http/tokens.h"

#include <stdio.h>
#include <string.h>

static struct lb_detail detail;

static enum lb_status parse(struct lb_tokens *tokens, const char *text) {
    memset(&detail, 0, sizeof detail);
    *tokens = (struct lb_tokens){0};
    return lb_tokens_parse(tokens, "FILE", text, strlen(text), LB_SCOPE_ASK | LB_SCOPE_METRICS, "token",
                           &detail);
}

static void test_lines(void **state) {
    (void)state;
    struct lb_tokens tokens;
    assert_int_equal(
        parse(&tokens,
              "# who may ask\n"
              "\n"
              "bare-token-1\n"
              "trainer  trainer-token-1\tscopes=ask tokens_per_minute=600000 concurrent=8 # of the sweep\r\n"
              "  grafana sha256:2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B "
              "scopes=metrics\n"
              "ops.2 ops-token-=+/ scopes=metrics,admin\n"
              "a_b sixth-token concurrent=1000000 tokens_per_minute=1000000000000"),
        LB_OK);
    assert_int_equal(tokens.n, 5);
    const struct lb_token *t = tokens.list;
    assert_string_equal(t[0].name, "token#1");
    assert_int_equal(t[0].scopes, LB_SCOPE_ASK | LB_SCOPE_METRICS);
    assert_true(t[0].tokens_per_minute == 0 && t[0].concurrent == 0);
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256("bare-token-1", 12, digest);
    assert_memory_equal(t[0].digest, digest, sizeof digest);
    assert_string_equal(t[1].name, "trainer");
    lb_sha256("trainer-token-1", 15, digest);
    assert_memory_equal(t[1].digest, digest, sizeof digest);
    assert_int_equal(t[1].scopes, LB_SCOPE_ASK);
    assert_true(t[1].tokens_per_minute == 600000 && t[1].concurrent == 8);
    assert_string_equal(t[2].name, "grafana");
    lb_sha256("secret", 6, digest);
    assert_memory_equal(t[2].digest, digest, sizeof digest);
    assert_int_equal(t[2].scopes, LB_SCOPE_METRICS);
    assert_string_equal(t[3].name, "ops.2");
    assert_int_equal(t[3].scopes, LB_SCOPE_ALL); /* admin is all */
    assert_true(t[4].tokens_per_minute == 1000000000000 && t[4].concurrent == 1000000);
    lb_tokens_finish(&tokens);
}

/* One line that tells where, and nothing of what stands there. */
static void test_odd_lines(void **state) {
    (void)state;
    static const struct {
        const char *line, *why;
    } odd[] = {
        {"short", "at least 8 characters"},
        {"name short", "at least 8 characters"},
        {"na/me good-token-1", "begins with the token's name"},
        {"token#1 good-token-1", "begins with the token's name"},
        {"a1234567890123456789012345678901234567890123456789012345678901234 good-token-1",
         "begins with the token's name"},
        {"good-token-1 scopes=ask", "needs a name in front"},
        {"name good-token-1 ask", "scopes=, tokens_per_minute= and concurrent="},
        {"name good-token-1 scope=ask", "scopes=, tokens_per_minute= and concurrent="},
        {"name good-token-1 scopes=ask scopes=metrics", "at most once"},
        {"name good-token-1 concurrent=2 concurrent=2", "at most once"},
        {"name good-token-1 scopes=ask concurrent=2 tokens_per_minute=2 concurrent=3", "at most once"},
        {"name good-token-1 scopes=ask,", "ask, metrics and admin"},
        {"name good-token-1 scopes=all", "ask, metrics and admin"},
        {"name good-token-1 scopes=", "ask, metrics and admin"},
        {"name good-token-1 scopes=ASK", "ask, metrics and admin"},
        {"name good-token-1 concurrent=0", "from 1 to 1000000"},
        {"name good-token-1 concurrent=-1", "from 1 to 1000000"},
        {"name good-token-1 concurrent=", "from 1 to 1000000"},
        {"name good-token-1 concurrent=1000001", "from 1 to 1000000"},
        {"name good-token-1 tokens_per_minute=1e6", "from 1 to 1000000000000"},
        {"name good-token-1 tokens_per_minute=99999999999999999999999", "from 1 to 1000000000000"},
        {"name sha256:00", "64 hexadecimal digits"},
        {"sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeefg", "64 hexadecimal digits"},
        {"name good\x01token-1", "byte 10 is no visible ASCII character"},
        {"name good-token-1 \xc3\xa4", "byte 19 is no visible ASCII character"},
        {"first other-token-1", "name is another token's"},
        {"name first-token-1", "token is there already"},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char text[256];
        struct lb_tokens tokens;
        snprintf(text, sizeof text, "first first-token-1\n\n%s\n", odd[i].line);
        enum lb_status status = parse(&tokens, text);
        lb_tokens_finish(&tokens);
        if (status != LB_E_FORMAT || !strstr(detail.text, odd[i].why)) {
            fail_msg("%s: %d %s", odd[i].line, status, detail.text);
        }
        assert_memory_equal(detail.text, "token file FILE, line 3: ", 25);
        assert_null(strstr(detail.text, "good"));
    }
    struct lb_tokens tokens;
    assert_int_equal(parse(&tokens, " \n# nobody\n"), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "holds no token"));
    assert_null(tokens.list);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_odd_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
