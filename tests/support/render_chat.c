/* Renders a chat template for tests/interop: render_chat TEMPLATE CASES.json
 *
 * CASES is a list of {"data": {...}, "words": {...}}; printed is a list of {"text", "data": bytes marked as
 * data, "generation": [[start, end], ...] in bytes} or {"error"}, or {"refused"} when the template is not
 * understood. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/chat/template.h"

#include <stdio.h>
#include <string.h>

static json_t *spans(const struct lb_chat_text *text, uint8_t mark) {
    json_t *list = json_array();
    for (size_t at = 0; at < text->len;) {
        size_t start = at;
        while (at < text->len && (text->mark[at] & mark)) {
            at++;
        }
        if (at > start) {
            json_array_append_new(list, json_pack("[I, I]", (json_int_t)start, (json_int_t)at));
        }
        at += at == start;
    }
    return list;
}

static json_t *render(const struct lb_chat_template *chat, const json_t *one, const struct tm *now) {
    struct lb_detail detail = {0};
    struct lb_chat_text text = {.len = 0};
    struct lb_chat_input input = {json_object_get(one, "data"), json_object_get(one, "words"), now};
    enum lb_status status = lb_chat_template_render(chat, &input, &text, &detail);
    json_t *result = status == LB_OK ? json_pack("{s:o, s:o, s:o}", "text", json_stringn(text.text, text.len),
                                                 "data", spans(&text, LB_CHAT_DATA), "generation",
                                                 spans(&text, LB_CHAT_GENERATION))
                                     : json_pack("{s:s}", "error", detail.text);
    lb_chat_text_finish(&text);
    return result;
}

int main(int argc, char **argv) {
    struct lb_detail detail = {0};
    struct lb_buf text;
    json_t *cases = NULL, *results = json_array();
    struct lb_chat_template *chat = NULL;
    time_t seconds = time(NULL);
    struct tm now;
    localtime_r(&seconds, &now);
    lb_buf_init(&text, (size_t)8 << 20);
    enum lb_status status = argc == 3 ? lb_file_read(argv[1], &text, &detail) : LB_E_ARG;
    status = status != LB_OK ? status : lb_json_file(argv[2], (size_t)64 << 20, &cases, &detail);
    if (status != LB_OK) {
        fprintf(stderr, "%s\n", argc == 3 ? detail.text : "usage: render_chat TEMPLATE CASES.json");
        return 2;
    }
    status = lb_chat_template_parse(text.data ? text.data : "", text.len, "template", &chat, &detail);
    for (size_t i = 0; status == LB_OK && i < json_array_size(cases); i++) {
        json_array_append_new(results, render(chat, json_array_get(cases, i), &now));
    }
    if (status != LB_OK) {
        json_decref(results);
        results = json_pack("{s:s}", "refused", detail.text);
    }
    json_dumpf(results, stdout, JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(results);
    json_decref(cases);
    lb_chat_template_destroy(chat);
    lb_buf_finish(&text);
    return 0;
}
