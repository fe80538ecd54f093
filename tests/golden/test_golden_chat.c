/* Templates give the text that transformers' environment gives (make_chat.py), marks and generation blocks
 * included. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/json.h"
#include "common/chat/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *read_cases(void) {
    char path[4096];
    struct lb_detail detail = {0};
    json_t *cases = NULL;
    snprintf(path, sizeof path, "%s/tests/golden/chat/cases.json", getenv("LB_SOURCE_ROOT"));
    if (lb_json_file(path, (size_t)8 << 20, &cases, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return cases;
}

/* The bytes that stand in generation blocks, against spans. */
static void check_spans(const struct lb_chat_text *text, const json_t *spans, const char *template) {
    for (size_t at = 0; spans && at < text->len; at++) {
        bool inside = false;
        for (size_t i = 0; i < json_array_size(spans); i++) {
            const json_t *span = json_array_get(spans, i);
            inside = inside || (at >= (size_t)json_integer_value(json_array_get(span, 0)) &&
                                at < (size_t)json_integer_value(json_array_get(span, 1)));
        }
        if (inside != !!(text->mark[at] & LB_CHAT_GENERATION)) {
            fail_msg("%s: byte %zu: in a generation block: %d", template, at, !inside);
        }
    }
}

/* Whether template gives what Python gave; says what differs. */
static bool check_case(const json_t *all, const json_t *one) {
    const char *template = json_string_value(json_object_get(one, "template"));
    const json_t *want = json_object_get(one, "text");
    struct lb_chat_input input = {json_object_get(all, "data"), json_object_get(all, "words"),
                                  &(struct tm){.tm_year = 126, .tm_mday = 1}};
    struct lb_chat_template *chat = NULL;
    struct lb_chat_text text = {.len = 0};
    struct lb_detail detail = {0};
    enum lb_status status = lb_chat_template_parse(template, strlen(template), "t", &chat, &detail);
    bool parsed = status == LB_OK;
    status = parsed ? lb_chat_template_render(chat, &input, &text, &detail) : status;
    assert_int_equal(status, detail.code);
    bool same = want ? status == LB_OK && text.len == json_string_length(want) &&
                           !memcmp(text.text, json_string_value(want), text.len)
                     : parsed && status != LB_OK;
    if (!same) {
        print_error("%s:\nis    %s%s\nwants %s\n", template, detail.text, text.text ? text.text : "",
                    want ? json_string_value(want) : "an error");
    } else if (want) {
        check_spans(&text, json_object_get(one, "generation"), template);
    }
    lb_chat_text_finish(&text);
    lb_chat_template_destroy(chat);
    return same;
}

static void test_cases(void **state) {
    (void)state;
    json_t *all = read_cases();
    const json_t *cases = json_object_get(all, "cases");
    assert_true(json_array_size(cases) > 100);
    size_t n_wrong = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        n_wrong += !check_case(all, json_array_get(cases, i));
    }
    json_decref(all);
    assert_int_equal(n_wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
