#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum lb_status parse_n(const char *text, size_t len, json_t **out, struct lb_detail *d) {
    *d = (struct lb_detail){0};
    *out = NULL;
    return lb_json_parse(text, len, 0, "here.json", out, d);
}

static json_t *must_parse(const char *text) {
    struct lb_detail d;
    json_t *value;
    enum lb_status status = parse_n(text, strlen(text), &value, &d);
    if (status != LB_OK) {
        fail_msg("%s: %s", text, d.text);
    }
    return value;
}

static void accepts_what_json_is(void **state) {
    (void)state;
    static const char *const good[] = {"{}",
                                       " [1, 2.5, -3e-2, true, false, null, \"\\u00e9 \\ud83d\\ude00\"] \n",
                                       "1",
                                       "\"text\"",
                                       "null",
                                       "{\"a\":{\"a\":1}}",
                                       "\"brackets [[[[ {{{{ and \\\" quotes\"",
                                       "9223372036854775807"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        json_decref(must_parse(good[i]));
    }
}

static json_t *parse_loose(const char *text, size_t len) {
    struct lb_detail d = {0};
    json_t *value = NULL;
    if (lb_json_parse_loose(text, len, 0, "there.json", &value, &d) != LB_OK) {
        assert_null(value);
        assert_non_null(strstr(d.text, "there.json: "));
        return NULL;
    }
    return value;
}

/* What Python's json writes and reads, and the strict parser refuses. */
static void loose_reads_what_others_write(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum { INTEGER, REAL, TEXT, HIDDEN, OTHER } type;
    } cases[] = {{"NaN", HIDDEN},
                 {"Infinity", HIDDEN},
                 {"-Infinity", HIDDEN},
                 {"1000000000000000019884624838656", REAL},
                 {"-9223372036854775809", REAL},
                 {"9223372036854775807", INTEGER},
                 {"-9223372036854775808", INTEGER},
                 {"0000", OTHER},
                 {"1e999", HIDDEN},
                 {"-1e999", HIDDEN},
                 {"1e30", REAL},
                 {"\"NaN 1000000000000000019884624838656 \\\" Infinity\"", TEXT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"first\": [%s], \"second\": %s ,\"n\":7}", cases[i].text,
                 cases[i].text);
        json_t *value = parse_loose(text, strlen(text));
        if (cases[i].type == OTHER) {
            assert_null(value);
            continue;
        }
        if (value == NULL) {
            fail_msg("refused: %s", text);
        }
        const json_t *one = json_array_get(json_object_get(value, "first"), 0);
        assert_true(json_equal((json_t *)one, json_object_get(value, "second")));
        assert_int_equal(json_is_integer(one)  ? INTEGER
                         : json_is_real(one)   ? REAL
                         : json_is_object(one) ? HIDDEN
                                               : TEXT,
                         cases[i].type);
        assert_int_equal(json_integer_value(json_object_get(value, "n")), 7);
        /* Whoever asks for such a number is told; nothing stands in for it. */
        int64_t v = 5;
        if (cases[i].type != INTEGER) {
            assert_int_equal(lb_json_int(value, "second", true, 0, 9, "x", &v, NULL), LB_E_FORMAT);
        }
        json_decref(value);
    }
    json_t *value = parse_loose("\xef\xbb\xbf{\"a\": 1, \"a\": 2}", 19);
    assert_int_equal(json_integer_value(json_object_get(value, "a")), 2);
    json_decref(value);
    value = parse_loose("{\"a\": \"x\\u0000y\"}", 17);
    const char *out = NULL;
    struct lb_detail d = {0};
    assert_int_equal(json_string_length(json_object_get(value, "a")), 3);
    assert_int_equal(lb_json_str(value, "a", true, "there.json", &out, &d), LB_E_FORMAT);
    assert_string_equal(d.text, "there.json: a holds a NUL character");
    json_decref(value);
    static const char *const bad[] = {"",  "\xef\xbb\xbf", "nan", "NaNs", "{\"a\": Inf}", "[1 NaN]",
                                      "-", "[\"open",      "\"\\"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(parse_loose(bad[i], strlen(bad[i])));
    }
    /* Longer than any number that C reads, at the end of the bytes. */
    char many[1200];
    memset(many, '9', sizeof many);
    value = parse_loose(many, sizeof many);
    assert_true(json_is_object(value));
    json_decref(value);
}

static void refuses_everything_else(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "{\"a\":1,\"a\":2}",
                                      "{\"a\":1} x",
                                      "[1][2]",
                                      "01",
                                      "+1",
                                      ".5",
                                      "1.",
                                      "NaN",
                                      "Infinity",
                                      "1e999",
                                      "9223372036854775808",
                                      "'a'",
                                      "\"\\x\"",
                                      "\"\\u0000\"",
                                      "\"\\ud800\"",
                                      "\"a\nb\"",
                                      "\"\xff\"",
                                      "\"\xc0\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"open",
                                      "tru",
                                      "// x\n1",
                                      "\xef\xbb\xbf{}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lb_detail d;
        json_t *value;
        if (parse_n(bad[i], strlen(bad[i]), &value, &d) != LB_E_FORMAT) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_null(value);
        assert_int_equal(d.code, LB_E_FORMAT);
        assert_memory_equal(d.text, "here.json: ", 11);
    }
    struct lb_detail d;
    json_t *value;
    assert_int_equal(parse_n("[1]\0", 4, &value, &d), LB_E_FORMAT); /* a NUL is a trailing byte too */
    assert_int_equal(parse_n("\"a\0b\"", 5, &value, &d), LB_E_FORMAT);
    assert_int_equal(parse_n("[1]garbage", 3, &value, &d), LB_OK); /* exactly len bytes */
    json_decref(value);
}

static void depth_is_limited(void **state) {
    (void)state;
    char text[400000];
    json_t *value = NULL;
    struct lb_detail d = {0};
    for (int depth = 62; depth <= 66; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        d = (struct lb_detail){0};
        enum lb_status status = lb_json_parse(text, 2 * (size_t)depth, 0, "x", &value, &d);
        assert_int_equal(status, depth <= 64 ? LB_OK : LB_E_LIMIT);
        if (status == LB_OK) {
            json_decref(value);
        }
    }
    assert_string_equal(d.text, "x: JSON nested deeper than 64 levels at byte 64");
    assert_int_equal(lb_json_parse("[[1]]", 5, 1, "x", &value, NULL), LB_E_LIMIT);
    assert_int_equal(lb_json_parse("[{\"a\":1}]", 9, 1, "x", &value, NULL), LB_E_LIMIT);
    assert_int_equal(lb_json_parse("[\"\\\"[\",\"[\"]", 11, 1, "x", &value, NULL), LB_OK);
    json_decref(value);
    /* Side by side is not deep. */
    assert_int_equal(lb_json_parse("[{},{},[],[]]", 13, 2, "x", &value, NULL), LB_OK);
    json_decref(value);
    memset(text, '[', sizeof text);
    assert_int_equal(lb_json_parse(text, sizeof text, 1 << 30, "x", &value, NULL),
                     LB_E_FORMAT); /* jansson's own */
    /* Closing more than was opened does not buy depth. */
    assert_int_equal(lb_json_parse("]]]][[1]]", 9, 1, "x", &value, NULL), LB_E_LIMIT);
    assert_int_equal(lb_json_parse("\"\\", 2, 1, "x", &value, NULL), LB_E_FORMAT);
}

static void errors_say_where(void **state) {
    (void)state;
    struct lb_detail d;
    json_t *value;
    parse_n("{\n \"a\": ?}", 10, &value, &d);
    assert_non_null(strstr(d.text, "line 2"));
    parse_n("{\"twice\":1,\"twice\":2}", 21, &value, &d);
    assert_non_null(strstr(d.text, "twice"));
    parse_n("[\x1b\n]", 4, &value, &d); /* quoted, but no terminal obeys it, and it stays one line */
    assert_null(strpbrk(d.text, "\n\r\x1b"));
    assert_non_null(strstr(d.text, "near '?"));
    parse_n("[\"a\nb\"]", 7, &value, &d);
    assert_null(strpbrk(d.text, "\n\r\x1b"));
}

static void getters_check(void **state) {
    (void)state;
    json_t *o = must_parse("{\"i\":5,\"r\":1.5,\"t\":true,\"s\":\"text\",\"n\":null,\"big\":1e300,\"a\":[]}");
    struct lb_detail d = {0};
    int64_t i = -1;
    double r = -1;
    bool b = false;
    const char *s = "default";
    assert_int_equal(lb_json_int(o, "i", true, 0, 5, "w", &i, &d), LB_OK);
    assert_int_equal(i, 5);
    assert_int_equal(lb_json_number(o, "i", true, 0, 5, "w", &r, &d), LB_OK);
    assert_true(r == 5);
    assert_int_equal(lb_json_number(o, "r", true, -HUGE_VAL, HUGE_VAL, "w", &r, &d), LB_OK);
    assert_true(r == 1.5);
    assert_int_equal(lb_json_bool(o, "t", true, "w", &b, &d), LB_OK);
    assert_true(b);
    assert_int_equal(lb_json_str(o, "s", true, "w", &s, &d), LB_OK);
    assert_string_equal(s, "text");
    /* Missing or null: the default stays. */
    assert_int_equal(lb_json_int(o, "x", false, 0, 9, "w", &i, &d), LB_OK);
    assert_int_equal(lb_json_int(o, "n", false, 0, 9, "w", &i, &d), LB_OK);
    assert_int_equal(lb_json_number(o, "n", false, 0, 9, "w", &r, &d), LB_OK);
    assert_int_equal(lb_json_bool(o, "x", false, "w", &b, &d), LB_OK);
    assert_int_equal(lb_json_str(o, "x", false, "w", &s, &d), LB_OK);
    assert_int_equal(i, 5);
    assert_true(r == 1.5 && b);
    assert_string_equal(s, "text");
    assert_int_equal(d.code, LB_OK);
    /* And everything that must not pass, with outputs untouched. */
    assert_int_equal(lb_json_int(o, "x", true, 0, 9, "w", &i, &d), LB_E_FORMAT);
    assert_string_equal(d.text, "w: x is missing, but must be given");
    d = (struct lb_detail){0};
    assert_int_equal(lb_json_str(o, "n", true, "w", &s, &d), LB_E_FORMAT);
    assert_string_equal(d.text, "w: n is null, but must be given");
    d = (struct lb_detail){0};
    assert_int_equal(lb_json_int(o, "i", true, 6, 9, "w", &i, &d), LB_E_FORMAT);
    assert_string_equal(d.text, "w: i is 5, but must be in [6, 9]");
    d = (struct lb_detail){0};
    assert_int_equal(lb_json_int(o, "r", true, 0, 9, "w", &i, &d), LB_E_FORMAT);
    assert_string_equal(d.text, "w: r must be an integer, not a number with a fraction");
    assert_int_equal(lb_json_int(o, "t", true, 0, 9, "w", &i, NULL), LB_E_FORMAT);
    assert_int_equal(lb_json_number(o, "big", true, 0, 1e299, "w", &r, NULL), LB_E_FORMAT);
    assert_int_equal(lb_json_number(o, "s", false, 0, 9, "w", &r, NULL), LB_E_FORMAT);
    assert_int_equal(lb_json_bool(o, "i", true, "w", &b, NULL), LB_E_FORMAT);
    assert_int_equal(lb_json_str(o, "a", false, "w", &s, NULL), LB_E_FORMAT);
    json_t *array = must_parse("[]");
    assert_int_equal(lb_json_int(array, "i", false, 0, 9, "w", &i, NULL), LB_E_FORMAT);
    json_decref(array);
    assert_int_equal(i, 5);
    assert_true(r == 1.5 && b);
    assert_string_equal(s, "text");
    json_decref(o);
}

static void assert_dumps(json_t *value, size_t flags, const char *expected) {
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 16);
    lb_buf_append_str(&buf, "before ");
    assert_int_equal(lb_json_dump(value, flags, &buf), LB_OK);
    assert_string_equal(buf.data + 7, expected);
    assert_int_equal(buf.len, 7 + strlen(expected));
    lb_buf_finish(&buf);
    json_decref(value);
}

static void dumps_shortest(void **state) {
    (void)state;
    assert_dumps(json_real(0.1), 0, "0.1");
    assert_dumps(json_real(-2.5e-7), 0, "-2.5e-7");
    assert_dumps(json_real(1e22), 0, "1e22");
    assert_dumps(json_real(3), 0, "3.0");
    assert_dumps(json_real(0), 0, "0.0");
    assert_dumps(json_real(-0.0), 0, "-0.0");
    assert_dumps(json_real(0.1 + 0.2), 0, "0.30000000000000004");
    assert_dumps(json_real(5e-324), 0, "4.94065645841247e-324");
    assert_dumps(json_real(1.7976931348623157e308), 0, "1.7976931348623157e308");
    assert_dumps(json_real(1.0 / 3), JSON_REAL_PRECISION(4), "0.3333");
    assert_dumps(
        must_parse("{\"b\": [0.1, 1, true], \"a\\\"0.10000000000000001\": \"0.10000000000000001 \\\\\"}"), 0,
        "{\"b\":[0.1,1,true],\"a\\\"0.10000000000000001\":\"0.10000000000000001 \\\\\"}");
    assert_dumps(must_parse("{\"b\":1,\"a\":0.2}"), JSON_SORT_KEYS, "{\"a\":0.2,\"b\":1}");
    assert_dumps(must_parse("[0.2,3]"), JSON_INDENT(2), "[\n  0.2,\n  3\n]");
    assert_dumps(must_parse("\"\xc3\xa9\""), JSON_ENSURE_ASCII, "\"\\u00E9\"");
}

static void reals_come_back_the_same(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 11, 0);
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 16);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = lb_rng_u64(&rng);
        double v;
        memcpy(&v, &bits, sizeof v);
        v = i % 2 == 0 ? v : (double)(float)lb_rng_normal(&rng);
        if (!isfinite(v)) {
            continue;
        }
        json_t *value = json_real(v);
        lb_buf_reset(&buf);
        assert_int_equal(lb_json_dump(value, 0, &buf), LB_OK);
        json_decref(value);
        assert_int_equal(lb_json_parse(buf.data, buf.len, 0, "x", &value, NULL), LB_OK);
        assert_true(json_is_real(value));
        double back = json_real_value(value);
        assert_memory_equal(&back, &v, sizeof v);
        json_decref(value);
    }
    lb_buf_finish(&buf);
}

static void dump_that_fails_leaves_no_half(void **state) {
    (void)state;
    json_t *value = must_parse("[1,2,3,4,5,6,7,8,9,10,11,12]");
    struct lb_buf buf;
    lb_buf_init(&buf, 12);
    lb_buf_append_str(&buf, "x=");
    assert_int_equal(lb_json_dump(value, 0, &buf), LB_E_LIMIT);
    assert_string_equal(buf.data, "x=");
    assert_int_equal(lb_json_dump(value, 0, &buf), LB_E_LIMIT); /* sticky */
    lb_buf_finish(&buf);
    lb_buf_init(&buf, 100);
    assert_int_equal(lb_json_dump(NULL, 0, &buf), LB_E_INTERNAL);
    lb_buf_finish(&buf);
    json_decref(value);
}

static const char sample[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"a_rather_long_key_that_needs_memory\":"
    "\"and a value that is longer than the first sixteen bytes\",\"n\":[1,2.5,[{}],"
    "123456789012345678],\"o\":{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,"
    "\"h\":8,\"i\":9,\"j\":10,\"k\":11}}";

/* Memory that is short from some moment on, or for one moment. */
static void (*const fails[])(long nth) = {lb_mem_fail_from, lb_mem_fail_only};

static void parse_with_failures(const char *text, void (*spoil)(long nth), long least) {
    json_t *whole = must_parse(text);
    bool finished = false;
    for (long n = 1; !finished; n++) {
        json_t *value = NULL;
        struct lb_detail d = {0};
        spoil(n);
        enum lb_status status = lb_json_parse(text, strlen(text), 0, "x", &value, &d);
        finished = lb_mem_count() < n;
        lb_mem_fail_from(0);
        if (finished) {
            assert_int_equal(status, LB_OK);
            assert_true(json_equal(value, whole));
            json_decref(value);
            assert_true(n > least); /* the hook does reach the library */
        } else {
            assert_int_equal(status, LB_E_NOMEM);
            assert_int_equal(d.code, LB_E_NOMEM);
            assert_null(value);
        }
    }
    json_decref(whole);
}

/* Texts of every length: the byte that no longer fits is a quote once, half an escape once. */
static void parsing_survives_failing_allocations(void **state) {
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        parse_with_failures(sample, fails[f], 30);
        for (int len = 0; len < 140; len++) {
            char text[200];
            snprintf(
                text, sizeof text, "[\"%.*s\\n\"]", len,
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                "a");
            parse_with_failures(text, fails[f], 3);
        }
    }
}

static void dumping_survives_failing_allocations(void **state) {
    (void)state;
    json_t *value = must_parse(sample);
    for (long n = 1, f = 0; f < 2; n++) {
        struct lb_buf buf;
        lb_buf_init(&buf, 1 << 16);
        fails[f](n);
        enum lb_status status = lb_json_dump(value, JSON_SORT_KEYS, &buf);
        bool finished = lb_mem_count() < n;
        lb_mem_fail_from(0);
        assert_int_equal(status, finished ? LB_OK : LB_E_NOMEM);
        assert_int_equal(lb_buf_status(&buf), status); /* whoever looks only at the end sees it too */
        assert_true(finished || buf.len == 0);
        lb_buf_finish(&buf);
        if (finished) {
            f++;
            n = 0;
        }
    }
    json_decref(value);
}

static void files_are_limited(void **state) {
    (void)state;
    char path[] = "/tmp/lb-json-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "{\"a\": 1}", 8), 8);
    close(fd);
    struct lb_detail d = {0};
    json_t *value = NULL;
    assert_int_equal(lb_json_file(path, 8, &value, &d), LB_OK);
    json_decref(value);
    assert_int_equal(lb_json_file(path, 7, &value, &d), LB_E_LIMIT);
    assert_non_null(strstr(d.text, path));
    d = (struct lb_detail){0};
    assert_int_equal(truncate(path, 5), 0);
    assert_int_equal(lb_json_file(path, 8, &value, &d), LB_E_FORMAT);
    assert_memory_equal(d.text, path, strlen(path));
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(lb_json_file(path, 8, &value, NULL), LB_E_FORMAT);
    unlink(path);
    d = (struct lb_detail){0};
    assert_int_equal(lb_json_file(path, 8, &value, &d), LB_E_NOTFOUND);
    assert_non_null(strstr(d.text, path));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_json_is),
        cmocka_unit_test(loose_reads_what_others_write),
        cmocka_unit_test(refuses_everything_else),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(getters_check),
        cmocka_unit_test(dumps_shortest),
        cmocka_unit_test(reals_come_back_the_same),
        cmocka_unit_test(dump_that_fails_leaves_no_half),
        cmocka_unit_test(parsing_survives_failing_allocations),
        cmocka_unit_test(dumping_survives_failing_allocations),
        cmocka_unit_test(files_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
