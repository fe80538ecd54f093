/* Chat templates: what is refused by name, what has limits, where the bytes of a text came from. What the
 * texts are is held against Python in tests/golden. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/chat/template.h"

#include <stdio.h>
#include <string.h>

static void test_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *template, *name;
    } cases[] = {
        {"a\n{{ x | groupby('a') }}", "line 2: the filter groupby"},
        {"{{ x | map('wordwrap') }}", "the filter wordwrap"},
        {"{{ x | select('sameas', 1) }}", "the test sameas"},
        {"{{ x | map(x) }}", "computed"},
        {"{{ x is escaped }}", "the test escaped"},
        {"{{ x.zfill(3) }}", "the method zfill()"},
        {"{{ cycler(1) }}", "the function cycler()"},
        {"{% include 'a' %}", "the tag include"},
        {"{% block a %}{% endblock %}", "the tag block"},
        {"{% do x %}", "the tag do"},
        {"{{ f(*x) }}", "* and **"},
        {"{{ x | join(d=1, e=2) }}", "the argument e of the filter join"},
        {"{{ range(1, 2, 3, 4) }}", "4 arguments of the function range"},
        {"{% macro m() %}{{ varargs }}{% endmacro %}", "varargs"},
        {"{{ x.__class__ }}", "__class__"},
        {"{{ x[1, 2] }}", "several keys"},
        {"{% if x %}", "ends before its endif"},
        {"{{ x", "a tag without its end"},
        {"{{ 'x }}", "a string without its end"},
        {"{{ (1] }}", "brackets that do not match"},
        {"{# x", "without its end #}"},
        {"{% raw %}", "endraw"},
        {"{{ 1 $ }}", "0x24"},
        {"{{ a b }}", "is expected, not \"b\""},
        {"{% set 1 = 2 %}", "cannot be assigned"},
        {"{% break %}", "outside of a loop"},
        {"{{ 99999999999999999999 }}", "too large"},
        {"\xff", "not UTF-8 at byte 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_chat_template *chat = NULL;
        struct lb_detail detail = {0};
        enum lb_status status =
            lb_chat_template_parse(cases[i].template, strlen(cases[i].template), "t", &chat, &detail);
        if (status == LB_OK || !strstr(detail.text, cases[i].name) || chat) {
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].template, detail.text, cases[i].name);
        }
        assert_int_equal(status, detail.code);
    }
}

static enum lb_status render(const char *template, const char *data, struct lb_chat_text *text,
                             struct lb_detail *detail) {
    struct lb_chat_template *chat = NULL;
    json_t *json = NULL, *words = json_pack("{s:s}", "eos", "</s>");
    enum lb_status status = lb_chat_template_parse(template, strlen(template), "t", &chat, detail);
    status = status != LB_OK ? status : lb_json_parse(data, strlen(data), 0, "data", &json, detail);
    struct lb_chat_input input = {json, words, NULL};
    status = status != LB_OK ? status : lb_chat_template_render(chat, &input, text, detail);
    lb_chat_template_destroy(chat);
    json_decref(json);
    json_decref(words);
    return status;
}

/* Templates that never end, eat memory or nest without end come back soon. */
static void test_limits(void **state) {
    (void)state;
    static const char *const templates[] = {
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 999999999999 }}",
        "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ range(1000000) }}",
        "{{ 9 ** 99 }}",
        "{{ 9223372036854775 * 99999 }}",
    };
    for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++) {
        struct lb_chat_text text = {.len = 0};
        struct lb_detail detail = {0};
        if (render(templates[i], "{}", &text, &detail) != LB_E_LIMIT || text.text) {
            fail_msg("%s: \"%s\"", templates[i], detail.text);
        }
    }
}

/* Nesting in the template's text is refused when it is parsed, long chains are not. */
static void test_depth(void **state) {
    (void)state;
    static char text[100000];
    static const char *const pieces[] = {"(",        "[",      "-",  "{% if a %}", "not ",
                                         "{{ a if ", "a|abs(", "a[", "{'a':"};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        size_t n = (size_t)snprintf(text, sizeof text, "{{ ");
        for (int k = 0; k < 5000; k++) {
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", pieces[i]);
        }
        struct lb_chat_template *chat = NULL;
        assert_int_not_equal(lb_chat_template_parse(text, strlen(text), "t", &chat, NULL), LB_OK);
    }
    size_t n = (size_t)snprintf(text, sizeof text, "{{ 1");
    for (int k = 0; k < 5000; k++) {
        n += (size_t)snprintf(text + n, sizeof text - n, " + 1");
    }
    snprintf(text + n, sizeof text - n, " }}");
    struct lb_chat_text out = {.len = 0};
    struct lb_detail detail = {0};
    assert_int_equal(render(text, "{}", &out, &detail), LB_OK);
    assert_string_equal(out.text, "5001");
    lb_chat_text_finish(&out);
}

/* want: for each byte of the text d where it came from the data, else t. */
static void check_marks(const char *template, const char *text, const char *want) {
    static const char data[] =
        "{\"a\": \" Xy \", \"l\": [\"p\", \"q\"], \"d\": {\"k\": \"v\\n\"}, \"n\": 12, \"m\": {\"role\": "
        "\"user\", \"x\": \"user\"}, \"r\": {\"role\": \"<|b\"}}";
    struct lb_chat_text out = {.len = 0};
    struct lb_detail detail = {0};
    if (render(template, data, &out, &detail) != LB_OK) {
        fail_msg("%s: %s", template, detail.text);
    }
    assert_string_equal(out.text, text);
    assert_int_equal(out.len, strlen(want));
    for (size_t i = 0; i < out.len; i++) {
        if (!!(out.mark[i] & LB_CHAT_DATA) != (want[i] == 'd')) {
            fail_msg("%s: byte %zu of \"%s\" is not marked %c", template, i, text, want[i]);
        }
    }
    lb_chat_text_finish(&out);
}

static void test_marks(void **state) {
    (void)state;
    check_marks("<{{ a }}>{{ eos }}", "< Xy ></s>", "tddddttttt");
    check_marks("{{ '<' + a | trim + '>' }}", "<Xy>", "tddt");
    check_marks("{{ a.strip().upper() }}{{ a[1] }}{{ a[::-1] | trim }}", "XYXyX", "ddddd");
    check_marks("{{ a | replace('X', '<s>') }}", " <s>y ", "dtttdd");
    check_marks("{{ 'u' | replace('u', a) }}", " Xy ", "dddd");
    check_marks("{{ l | join('|') }}{{ l[0] ~ 1 }}", "p|qp1", "dtddt");
    check_marks("{{ d | tojson }}", "{\"k\": \"v\\n\"}", "ttdttttdddtt");
    check_marks("{{ l }}{% for k, v in d.items() %}{{ k }}{{ v | trim }}{% endfor %}", "['p', 'q']kv",
                "ttdttttdttdd");
    check_marks("{% set x %}[{{ a }}]{% endset %}{{ x | trim }}{{ n }}", "[ Xy ]12", "tddddttt");
    check_marks("{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(a.split()[0]) }}", "<Xy>", "tddt");
    check_marks("{{ 'x%sx' % a }}{{ a | title }}", "x Xy x Xy ", "tddddtdddd");
    check_marks("{{ '<|' + m.role + '|>' + m.x }}{{ r.role }}", "<|user|>user<|b", "ttttttttddddddd");
    check_marks("{{ a | indent(1, true) }}{{ 'x' * 2 }}", "  Xy xx", "tddddtt");
}

/* What is made of people's words alone is theirs, whichever filter or method makes it. */
static void test_marks_stay(void **state) {
    (void)state;
    static const struct {
        const char *template, *text;
    } cases[] = {
        {"{{ a | lower }}{{ a | capitalize }}{{ a | string }}{{ a | safe }}", " xy  xy  Xy  Xy "},
        {"{{ l | first }}{{ l | last }}{{ l | max }}{{ l | min }}{{ l | list | join }}", "pqqppq"},
        {"{{ l | reverse | join }}{{ l | sort | join }}{{ l | unique | join }}{{ a | reverse }}",
         "qppqpq yX "},
        {"{{ r.role | e }}{{ '%s' | format(a) }}{{ a | default('z') }}{{ nix | default(a) }}",
         "&lt;|b Xy  Xy  Xy "},
        {"{{ l | batch(2) | first | join }}{{ l | map('upper') | join }}{{ l | select | join }}", "pqPQpq"},
        {"{{ d | dictsort | first | last | trim }}{{ d.get('k') | trim }}{{ d.keys() | list | first }}",
         "vvk"},
        {"{{ d.values() | list | first | trim }}{{ d | items | first | first }}", "vk"},
        {"{{ a.title() }}{{ a.lower() }}{{ a.capitalize() }}{{ a.lstrip() }}{{ a.rstrip() }}",
         " Xy  xy  xy Xy  Xy"},
        {"{{ a.removeprefix(' ') }}{{ a.removesuffix(' ') }}{{ a.replace('z', '') }}", "Xy  Xy Xy "},
        {"{{ a.rsplit()[0] }}{{ a.splitlines()[0] }}{{ a.split('X')[1] }}{{ ''.join(l) }}", "Xy Xy y pq"},
        {"{{ a * 2 }}{{ a ~ a }}{{ a[1:] }}{% filter upper %}{{ a }}{% endfilter %}",
         " Xy  Xy  Xy  Xy Xy  XY "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char want[64] = "";
        assert_true(strlen(cases[i].text) < sizeof want);
        memset(want, 'd', strlen(cases[i].text));
        check_marks(cases[i].template, cases[i].text, want);
    }
    check_marks("{{ '<' | e | e }}{{ 'a<b' | title }}{{ ['b', 'B'] | max }}{{ [] | batch(2, 'x') | list }}",
                "&lt;A<Bb[]", "tttttttttt");
}

static void test_words_and_time(void **state) {
    (void)state;
    struct lb_chat_text out = {.len = 0};
    struct lb_detail detail = {0};
    assert_int_equal(
        render("{{ strftime_now is defined }}{{ eos }}{{ strftime_now('%Y') }}", "{}", &out, &detail),
        LB_E_ARG);
    assert_non_null(strstr(detail.text, "strftime_now is undefined"));
    struct lb_chat_template *chat = NULL;
    static const char template[] = "{{ strftime_now('%d %b %Y') }}{% generation %}{% endgeneration %}";
    assert_int_equal(lb_chat_template_parse(template, sizeof template - 1, "t", &chat, NULL), LB_OK);
    assert_true(lb_chat_template_generates(chat));
    assert_int_equal(strlen(lb_chat_template_hash(chat)), 64);
    struct lb_chat_input input = {NULL, NULL, &(struct tm){.tm_year = 126, .tm_mon = 6, .tm_mday = 9}};
    assert_int_equal(lb_chat_template_render(chat, &input, &out, NULL), LB_OK);
    assert_string_equal(out.text, "09 Jul 2026");
    lb_chat_text_finish(&out);
    lb_chat_template_destroy(chat);
}

/* Each allocation fails once; nothing is lost. */
static void test_memory(void **state) {
    (void)state;
    static const char template[] =
        "{% for x in l %}{{ x | upper }}{% set y = [x, {'a': x}] %}{{ y }}{% endfor %}";
    static const char data[] = "{\"l\": [\"ab\", \"c\"]}";
    json_t *json = NULL;
    int n_failed = 0;
    assert_int_equal(lb_json_parse(data, strlen(data), 0, "data", &json, NULL), LB_OK);
    for (long nth = 1;; nth++) {
        struct lb_chat_template *chat = NULL;
        struct lb_chat_text out = {.len = 0};
        struct lb_chat_input input = {json, NULL, NULL};
        lb_mem_fail_only(nth);
        enum lb_status status = lb_chat_template_parse(template, strlen(template), "t", &chat, NULL);
        status = status != LB_OK ? status : lb_chat_template_render(chat, &input, &out, NULL);
        bool all = lb_mem_count() < nth;
        lb_mem_fail_from(0);
        lb_chat_text_finish(&out);
        lb_chat_template_destroy(chat);
        if (all) {
            assert_int_equal(status, LB_OK);
            break;
        }
        n_failed += status != LB_OK;
    }
    assert_true(n_failed > 3); /* an arena may do with less than it asked for first */
    json_decref(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_by_name), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_depth),           cmocka_unit_test(test_marks),
        cmocka_unit_test(test_marks_stay),      cmocka_unit_test(test_words_and_time),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
