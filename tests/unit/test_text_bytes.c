/* UTF-8 and byte letters: the small functions under the tokenizers, over all their inputs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/utf8.h"
#include "common/text/byte_level.h"

#include <string.h>

static bool is_surrogate(uint32_t c) {
    return c >= 0xd800 && c < 0xe000;
}

/* Every code point there and back; every surrogate and everything beyond refused. */
static void test_all_code_points(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char text[5] = {0};
        size_t n = lb_utf8_put(c, text), pos = 0;
        assert_int_equal(n, c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
        if (is_surrogate(c)) {
            assert_int_equal(lb_utf8_char((const uint8_t *)text, n), 0);
            continue;
        }
        assert_int_equal(lb_utf8_char((const uint8_t *)text, n), n);
        assert_int_equal(lb_utf8_check(text, n), n);
        assert_int_equal(lb_utf8_next(text, &pos), c);
        assert_int_equal(pos, n);
        assert_int_equal(lb_utf8_previous(text, &pos), c);
        assert_int_equal(pos, 0);
        for (size_t cut = 1; cut < n; cut++) {
            assert_int_equal(lb_utf8_check(text, cut), 0);
        }
    }
}

/* Any bytes, cut where a text that goes on is shown up to: the parts are repaired to what all of it is, and
 * of good text no character is cut. */
static void test_settled(void **state) {
    (void)state;
    static const unsigned char some[] = {'a',  0x80, 0xbf, 0xc0, 0xc3, 0xa9, 0xe0, 0x9f, 0xe2, 0x82,
                                         0xac, 0xed, 0xa0, 0xf0, 0x9f, 0x98, 0x80, 0xf4, 0x90, 0xff};
    struct lb_buf whole, parts;
    lb_buf_init(&whole, 1 << 20);
    lb_buf_init(&parts, 1 << 20);
    uint64_t random = 7;
    for (int round = 0; round < 20000; round++) {
        char text[24];
        size_t n = 1 + (size_t)round % sizeof text, at = 0;
        for (size_t i = 0; i < n; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            text[i] = (char)some[(random >> 33) % sizeof some];
        }
        lb_buf_reset(&whole);
        lb_buf_reset(&parts);
        lb_utf8_append_lossy(&whole, text, n);
        for (size_t have = 1; have <= n; have++) {
            size_t settled = lb_utf8_settled(text + at, have - at);
            assert_true(settled <= have - at && have - at - settled <= 3);
            lb_utf8_append_lossy(&parts, text + at, settled);
            at += settled;
        }
        lb_utf8_append_lossy(&parts, text + at, n - at);
        assert_int_equal(parts.len, whole.len);
        assert_memory_equal(parts.data, whole.data, whole.len);
    }
    static const char smile[] = "\xf0\x9f\x98\x80";
    for (size_t n = 0; n < 4; n++) {
        assert_int_equal(lb_utf8_settled(smile, n), 0);
    }
    assert_int_equal(lb_utf8_settled(smile, 4), 4);
    lb_buf_finish(&whole);
    lb_buf_finish(&parts);
}

static void test_ill_formed(void **state) {
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x80\x80",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x80\x80\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xfe",
                                      "\xc2",
                                      "\xe2\x82",
                                      "\xf0\x9f\x98"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        /* behind 0 to 17 good bytes: the check reads eight at a time */
        for (size_t before = 0; before < 18; before++) {
            char text[32];
            memset(text, 'a', before);
            memcpy(text + before, bad[i], strlen(bad[i]));
            assert_int_equal(lb_utf8_check(text, before + strlen(bad[i])), before);
        }
    }
    assert_int_equal(lb_utf8_check("a\0b", 3), 3);
}

/* One U+FFFD per maximal subpart; the examples of the Unicode standard, table 3-8 to 3-11. */
static void test_lossy(void **state) {
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"plain", "plain"},
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdA"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdA"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "\ufffd\ufffd\ufffd\ufffd\ufffd\x41\ufffd\ufffd\x42"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "\ufffd\ufffd\ufffd\ufffdA"},
        {"caf\xc3", "caf\ufffd"},
        {"\xf0\x9f\x99\x82\xf0\x9f", "\U0001f642\ufffd"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_buf buf;
        lb_buf_init(&buf, 100);
        lb_utf8_append_lossy(&buf, cases[i].bytes, strlen(cases[i].bytes));
        assert_int_equal(lb_buf_status(&buf), LB_OK);
        assert_string_equal(buf.data, cases[i].want);
        lb_buf_finish(&buf);
    }
}

/* The letters are 256 different printable characters, and nothing else is one. */
static void test_letters(void **state) {
    bool taken[0x200] = {false};
    int letters = 0;
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        uint32_t letter = lb_byte_letter((uint8_t)byte);
        assert_true(letter > 0x20 && letter < 0x144 && !(letter >= 0x7f && letter <= 0xa0) && letter != 0xad);
        assert_false(taken[letter]);
        taken[letter] = true;
        assert_int_equal(lb_letter_byte(letter), byte);
    }
    for (uint32_t c = 0; c < 0x3000; c++) {
        letters += lb_letter_byte(c) >= 0;
    }
    assert_int_equal(letters, 256);
    /* as GPT-2's table has them */
    assert_int_equal(lb_byte_letter(0), 0x100);
    assert_int_equal(lb_byte_letter(' '), 0x120);
    assert_int_equal(lb_byte_letter('\n'), 0x10a);
    assert_int_equal(lb_byte_letter(0x7f), 0x121);
    assert_int_equal(lb_byte_letter(0xa0), 0x142);
    assert_int_equal(lb_byte_letter(0xad), 0x143);
    assert_int_equal(lb_byte_letter('~'), '~');
    assert_int_equal(lb_byte_letter(0xff), 0xff);
}

static void test_letters_text(void **state) {
    char bytes[256], letters[512], back[512];
    size_t n;
    (void)state;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
    }
    size_t len = lb_bytes_to_letters(bytes, 256, letters);
    assert_int_equal(lb_utf8_check(letters, len), len);
    assert_true(lb_letters_to_bytes(letters, len, back, &n));
    assert_int_equal(n, 256);
    assert_memory_equal(back, bytes, 256);
    assert_true(lb_letters_to_bytes(letters, len, letters, &n)); /* in place */
    assert_memory_equal(letters, bytes, 256);
    assert_false(lb_letters_to_bytes("a b", 3, back, &n));
    assert_false(lb_letters_to_bytes("\u4e00", 3, back, &n));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_code_points), cmocka_unit_test(test_settled),
        cmocka_unit_test(test_ill_formed),      cmocka_unit_test(test_lossy),
        cmocka_unit_test(test_letters),         cmocka_unit_test(test_letters_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
