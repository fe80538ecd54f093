/* Regexes of tokenizer.json: what is rewritten for PCRE2, what is refused, and how text is cut. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/text/onig.h"
#include "common/text/pretokenize.h"

#include <stdlib.h>
#include <string.h>

static void test_translation(void **state) {
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"'s| ?\\p{L}+", "'s| ?\\p{L}+"},
        {"(?i:'s)|(a(?:b)?){2,3}?", "(?i:'s)|(a(?:b)?){2,3}?"},
        {"\\p{^Lu}\\P{Nd}\\P{^Z}", "\\P{Lu}\\P{Nd}\\p{Z}"},
        {"\\p{Han}+", "\\p{sc:Han}+"},
        {"\\v\\n\\x41\\x{1f642}\\u00e9", "\\x0b\\n\\x{41}\\x{1f642}\\x{e9}"},
        {"\\d\\D[^\\d]", "\\p{Nd}\\P{Nd}[^\\p{Nd}]"},
        {"[a-z]", "[a-z]"},
        {"[-a]", "[\\-a]"},
        {"[a-]", "[a\\-]"},
        {"[a-c-e]", "[a-c\\-e]"},
        {"[\\d-x]", "[\\p{Nd}\\-x]"},
        {"[x-\\d]", "[x\\-\\p{Nd}]"},
        {"[\\x{41}-\\x{43}é-ë-]", "[\\x{41}-\\x{43}é-ë\\-]"},
        {"[a[bc]d]", "[abcd]"},
        {"[^(|[.,!]]", "[^(|.,!]"},
        {"(?i)ab", "(?i)ab"},
        {"a++b*+c?", "a++b*+c?"},
        {"\\{\\[\\$\\^", "\\{\\[\\$\\^"},
        {"^a$", "(?m:^)a(?m:$)"},
        {"a{,3}b{2}+(c|d){1,3}+?e{2}?", "a{0,3}(?:b{2})+(?:(c|d){1,3})+?(?:e{2})?"},
        {"(?m:.)(?<n>a)(?#no)b", "(?s:.)(?:a)b"},
        {"(x(?i)a|b)c", "(x(?i:a|b))c"},
        {"x(?i)a|b", "x(?i:a|b)"},
        {"[[:xdigit:]_]\\h", "[0-9a-fA-F_][0-9a-fA-F]"},
        {"[\\p{L}&&[^\\p{Han}]]*", "(?:(?=[\\p{L}])(?:[^\\p{sc:Han}]))*"},
        {"[^a&&[ab]]", "(?:(?!(?=[a])[ab])(?s:.))"},
        {"[a[^b]\\H]", "(?:(?:[a]|[^b]|[^0-9a-fA-F]))"},
        {"\\p{Letter}\\p{other number}\\p{^punct}", "\\p{L}\\p{No}\\P{P}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_buf out;
        struct lb_detail detail = {0};
        lb_buf_init(&out, 1000);
        if (lb_onig_translate(cases[i].from, strlen(cases[i].from), "test", &out, NULL, &detail)) {
            fail_msg("%s: %s", cases[i].from, detail.text);
        }
        assert_string_equal(out.data, cases[i].to);
        lb_buf_finish(&out);
    }
}

static void test_refusals(void **state) {
    static const struct {
        const char *pattern, *named;
    } cases[] = {
        {"a\\G", "\"\\G\" at byte 1"},
        {"(?x:a)", "(?x:"},
        {"(?~a)", "(?~a"},
        {"(?#no", "comment"},
        {"(?<name", "name"},
        {"a)", "\")\" at byte 1"},
        {"[[:nothing:]]", "[:nothing:]"},
        {"[[:alpha]]", "[:alpha]"},
        {"[a&&]", "]"},
        {"[&&a]", "&&"},
        {"[[[[[[[[[a]]]]]]]]]", "too deep"},
        {"[abc", "closing bracket"},
        {"[]a]", "[]a"},
        {"a{,}", "{,}"},
        {"a{x}", "{x"},
        {"{2}", "nothing before"},
        {"\\p{IsGreek}", "\\p{IsGreek}"},
        {"\\pL", "\\pL"},
        {"\\p{L", "closing brace"},
        {"\\1", "\\1"},
        {"\\", "\\"},
        {"\\xff", "\\xff"},
        {"\\x{110000}", "\\x{110000"},
        {"\\u12", "\\u12"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_buf out;
        struct lb_detail detail = {0};
        lb_buf_init(&out, 1000);
        assert_int_equal(
            lb_onig_translate(cases[i].pattern, strlen(cases[i].pattern), "test", &out, NULL, &detail),
            LB_E_UNSUPPORTED);
        assert_non_null(strstr(detail.text, "test: "));
        if (!strstr(detail.text, cases[i].named)) {
            fail_msg("\"%s\" is not named in: %s", cases[i].named, detail.text);
        }
        lb_buf_finish(&out);
    }
}

/* Pieces joined by bars. */
static void check_pieces(const char *json, const char *text, const char *want) {
    struct lb_detail detail = {0};
    struct lb_pretokenizer *pretokenizer = NULL;
    json_error_t error;
    json_t *value = json_loads(json, JSON_DECODE_ANY, &error);
    assert_non_null(value);
    if (lb_pretokenizer_create(value, "test", &pretokenizer, &detail)) {
        fail_msg("%s", detail.text);
    }
    struct lb_pieces pieces = {.text = NULL};
    for (int round = 0; round < 2; round++) { /* the second uses the memory of the first */
        struct lb_buf got;
        lb_buf_init(&got, 1000);
        assert_int_equal(lb_pretokenize(pretokenizer, text, strlen(text), &pieces, &detail), LB_OK);
        for (size_t i = 0; i < pieces.n; i++) {
            assert_true(pieces.span[i].len > 0);
            lb_buf_append_str(&got, i ? "|" : "");
            lb_buf_append(&got, pieces.text + pieces.span[i].start, pieces.span[i].len);
        }
        assert_string_equal(got.data ? got.data : "", want);
        lb_buf_finish(&got);
    }
    lb_pieces_finish(&pieces);
    lb_pretokenizer_destroy(pretokenizer);
    json_decref(value);
}

#define SPLIT(pattern, behavior, invert)                                                                     \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"" behavior                   \
    "\",\"invert\":" invert "}"

static void test_pieces(void **state) {
    (void)state;
    check_pieces("null", "a b", "a b");
    check_pieces("null", "", "");
    check_pieces("{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", "I'll go  home 12x\n\n y",
                 "I|'ll| go| | home| 12|x|\n\n| y");
    check_pieces("{\"type\":\"ByteLevel\"}", "go home", " go| home");
    check_pieces("{\"type\":\"ByteLevel\"}", " go", " go");
    check_pieces("{\"type\":\"ByteLevel\"}", "\tgo", " |\t|go");
    check_pieces(SPLIT("-", "Isolated", "false"), "a-b--c", "a|-|b|-|-|c");
    check_pieces(SPLIT("-", "Removed", "false"), "a-b--c", "a|b|c");
    check_pieces(SPLIT("-", "Removed", "true"), "a-b--c", "-|-|-");
    check_pieces(SPLIT("-", "Contiguous", "false"), "a-b--c", "a|-|b|--|c");
    check_pieces(SPLIT("-", "MergedWithPrevious", "false"), "-a-b--c", "-|a-|b-|-|c");
    check_pieces(SPLIT("-", "MergedWithNext", "false"), "a-b--c-", "a|-b|-|-c|-");
    check_pieces("{\"type\":\"Split\",\"pattern\":{\"String\":\"a.\"},\"behavior\":\"Isolated\"}", "aba.ab",
                 "ab|a.|ab");
    check_pieces("{\"type\":\"Digits\",\"individual_digits\":true}", "a12b\u0663", "a|1|2|b|\u0663");
    check_pieces("{\"type\":\"Digits\"}", "a12b", "a|12|b");
    check_pieces("{\"type\":\"Punctuation\"}", "a.b+\u3002", "a|.|b|+|\u3002");
    check_pieces("{\"type\":\"WhitespaceSplit\"}", " a \u3000b\n", "a|b");
    check_pieces("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"type\":\"ByteLevel\"}]}",
                 "ab12 c", " ab| 12| c");
    /* behind ByteLevel, letters: 0xb2 of U+00B2 is a digit there */
    check_pieces(
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
        "{\"type\":\"Digits\",\"individual_digits\":true}]}",
        "\u00b2", "\xc2|\xb2");
    /* as White_Space has it, not as PCRE2: U+180E is none, U+0085 is one */
    check_pieces(SPLIT("\\\\s+", "Isolated", "false"),
                 "a\u180eb\xc2\x85"
                 "c\u2028",
                 "a\u180eb|\xc2\x85"
                 "|c|\u2028");
    check_pieces(SPLIT("[\\\\s]+", "Isolated", "false"),
                 "a\u180eb\xc2\x85"
                 "",
                 "a\u180eb|\xc2\x85"
                 "");
    check_pieces(SPLIT("[^\\\\S]+", "Isolated", "false"),
                 "a\u180eb\xc2\x85"
                 "",
                 "a\u180eb|\xc2\x85"
                 "");
    check_pieces(SPLIT("\\\\w+", "Removed", "true"), "a\u0301_\u2460 \u24b6\u00b2", "a\u0301_|\u24b6\u00b2");
    check_pieces(SPLIT(".+", "Isolated", "false"), "a\rb\nc", "a\rb|\n|c");
    check_pieces(SPLIT("[[:punct:]]", "Isolated", "false"), "a.b\u20acc$", "a|.|b|\u20ac|c|$");
    check_pieces(SPLIT("\\\\p{Punct}", "Isolated", "false"), "a.b\u20acc$", "a|.|b\u20acc$");
    check_pieces(SPLIT("[[:word:]]+", "Isolated", "false"), "a\u00b2", "a|\u00b2");
    check_pieces(SPLIT("[[:alpha:]]+", "Isolated", "false"), "a\u0363-", "a\u0363|-");
    check_pieces(SPLIT("^.|.$", "Isolated", "false"), "abc\nde\n", "a|b|c|\n|d|e|\n");
    check_pieces(SPLIT("\\\\b", "Isolated", "false"), "ab c\u0301-d", "ab| |c\u0301|-|d");
}

/* What spaces become, and where one more is put. */
static void test_metaspace(void **state) {
#define METASPACE(keys) "{\"type\":\"Metaspace\",\"replacement\":\"_\"," keys "}"
    (void)state;
    check_pieces(METASPACE("\"add_prefix_space\":true"), "a  b c", "_a|_|_b|_c");
    check_pieces(METASPACE("\"prepend_scheme\":\"never\""), "a b ", "a|_b|_");
    check_pieces(METASPACE("\"prepend_scheme\":\"always\",\"split\":false"), " a b", "_a_b");
    check_pieces("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"}," METASPACE(
                     "\"prepend_scheme\":\"first\"") "]}",
                 "a b", "_a|b");
    check_pieces("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"}," METASPACE(
                     "\"prepend_scheme\":\"first\"") "]}",
                 " a b", "a|b");
    check_pieces("{\"type\":\"Whitespace\"}", " a_1 ,,b\u0301.", "a_1|,,|b\u0301|.");
    check_pieces("{\"type\":\"BertPreTokenizer\"}", " a_1 ,,b", "a|_|1|,|,|b");
    check_pieces("{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"\u00e9\"}", "a\u00e9b", "a|b");
}

/* Symbols and letters that PCRE2 is too old to know, by properties and beside named characters. */
static void test_newer_characters(void **state) {
    (void)state;
    check_pieces(SPLIT("\\\\p{So}", "Isolated", "false"), "a\U0001fae8b\U0001f642",
                 "a|\U0001fae8|b|\U0001f642");
    check_pieces(SPLIT("\\\\p{Han}+", "Isolated", "false"), "a\u8336\U0002ebf0b", "a|\u8336\U0002ebf0|b");
    check_pieces(SPLIT("[\U00020000-\U0002a6df]", "Removed", "false"), "a\U0002ebf0b\U00020000c",
                 "a\U0002ebf0b|c");
    /* all capitals that stand for U+1C89 unless they are named */
    check_pieces(SPLIT("[\ua640-\ua69a]|\\\\p{Lu}+", "Isolated", "false"), "a\u1c89\u1c89b\ua664\ua664",
                 "a|\u1c89\u1c89|b|\ua664|\ua664");
    check_pieces("{\"type\":\"Digits\"}", "a\U00011de0b", "a|\U00011de0|b");
}

/* An empty match cuts between characters, not within them. */
static void test_empty_matches(void **state) {
    (void)state;
    check_pieces(SPLIT("x*", "Isolated", "false"), "a\u00e9xx\U0001f642b", "a|\u00e9|xx|\U0001f642|b");
}

/* A pattern that backtracks without end stops at PCRE2's limit and says so. */
static void test_runaway(void **state) {
    (void)state;
    json_error_t error;
    struct lb_detail detail = {0};
    struct lb_pretokenizer *pretokenizer = NULL;
    struct lb_pieces pieces = {.text = NULL};
    json_t *value = json_loads(SPLIT("(a|a)+[bc]", "Isolated", "false"), 0, &error);
    assert_int_equal(lb_pretokenizer_create(value, "test", &pretokenizer, &detail), LB_OK);
    char text[64];
    memset(text, 'a', sizeof text);
    assert_int_equal(lb_pretokenize(pretokenizer, text, sizeof text, &pieces, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "regex"));
    lb_pieces_finish(&pieces);
    lb_pretokenizer_destroy(pretokenizer);
    json_decref(value);
}

static void test_unsupported(void **state) {
    static const struct {
        const char *json, *named;
        enum lb_status status;
    } cases[] = {
        {"{\"type\":\"UnicodeScripts\"}", "UnicodeScripts", LB_E_UNSUPPORTED},
        {"{\"type\":\"Metaspace\"}", "replacement", LB_E_FORMAT},
        {"{\"type\":\"Metaspace\",\"replacement\":\"__\"}", "one character", LB_E_FORMAT},
        {"{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}", "last",
         LB_E_UNSUPPORTED},
        {"{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"add_prefix_space\":"
         "false}",
         "add_prefix_space", LB_E_UNSUPPORTED},
        {"{}", "type", LB_E_FORMAT},
        {"[]", "type", LB_E_FORMAT},
        {SPLIT("a", "Sideways", "false"), "Sideways", LB_E_UNSUPPORTED},
        {"{\"type\":\"Split\",\"behavior\":\"Isolated\"}", "pattern", LB_E_FORMAT},
        {"{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"String\":\"\"}}", "0 bytes",
         LB_E_LIMIT},
        {SPLIT("\U0002ebf0", "Removed", "false"), "U+2EBF0", LB_E_UNSUPPORTED},
        {SPLIT("(a", "Isolated", "false"), "compiled", LB_E_UNSUPPORTED},
        {"{\"type\":\"ByteLevel\",\"use_regex\":1}", "use_regex", LB_E_FORMAT},
        {"{\"type\":\"Sequence\"}", "pretokenizers", LB_E_FORMAT},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Sequence\",\"pretokenizers\":[]}]}",
         "Sequence", LB_E_UNSUPPORTED},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"ByteLevel\"}]}",
         "ByteLevel", LB_E_UNSUPPORTED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_error_t error;
        struct lb_detail detail = {0};
        struct lb_pretokenizer *pretokenizer = NULL;
        json_t *value = json_loads(cases[i].json, 0, &error);
        assert_non_null(value);
        assert_int_equal(lb_pretokenizer_create(value, "file.json", &pretokenizer, &detail), cases[i].status);
        assert_null(pretokenizer);
        if (!strstr(detail.text, cases[i].named) || !strstr(detail.text, "file.json")) {
            fail_msg("\"%s\" or the file is not named in: %s", cases[i].named, detail.text);
        }
        json_decref(value);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_translation), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_pieces),      cmocka_unit_test(test_empty_matches),
        cmocka_unit_test(test_runaway),     cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_metaspace),   cmocka_unit_test(test_newer_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
