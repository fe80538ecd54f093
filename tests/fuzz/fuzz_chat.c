/* lb_chat_template_parse and _render: the input is a template, behind a NUL the JSON object of its data. What
 * is accepted renders or says why not, and its marks are the text's length. */
#include "common/base/json.h"
#include "common/base/utf8.h"
#include "common/chat/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char usual[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a<b>\"}], \"n\": [1, 2.5, null]}";
    struct lb_chat_template *chat = NULL;
    struct lb_detail detail = {0};
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - data) : size;
    enum lb_status status = lb_chat_template_parse((const char *)data, len, "input", &chat, &detail);
    require(status == detail.code && (status == LB_OK) == (chat != NULL));
    if (!chat) {
        return 0;
    }
    json_t *json = NULL;
    if (!nul || lb_json_parse_loose(nul + 1, size - len - 1, 16, "data", &json, NULL) != LB_OK) {
        require(lb_json_parse(usual, sizeof usual - 1, 0, "data", &json, NULL) == LB_OK);
    }
    struct lb_chat_input input = {json, NULL, NULL};
    struct lb_chat_text text = {.len = 0};
    status = lb_chat_template_render(chat, &input, &text, &detail);
    require(status == detail.code && (status == LB_OK) == (text.text != NULL));
    if (text.text) {
        require(lb_utf8_check(text.text, text.len) == text.len && text.text[text.len] == '\0');
        for (size_t i = 0; i < text.len; i++) {
            require(text.mark[i] <= (LB_CHAT_DATA | LB_CHAT_GENERATION));
        }
    }
    lb_chat_text_finish(&text);
    json_decref(json);
    lb_chat_template_destroy(chat);
    return 0;
}
