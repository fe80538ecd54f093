/* Conversations give transformers' ids and its mask of the assistant's tokens (make_chat_ids.py). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/data/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/lb-chat-ids-XXXXXX";

static char *in_tree(const char *name) {
    return lb_path_join(getenv("LB_SOURCE_ROOT"), name);
}

static void check_case(const struct lb_tokenizer *tokenizer, const json_t *one) {
    const char *text = json_string_value(json_object_get(one, "template"));
    const json_t *want = json_object_get(one, "ids"), *mask = json_object_get(one, "assistant");
    char *path = lb_path_join(folder, "t.jinja");
    struct lb_chat *chat = NULL;
    struct lb_conversation conversation = {.data = NULL};
    struct lb_ids ids = {0};
    struct lb_detail detail = {0};
    assert_int_equal(lb_file_replace(path, text, strlen(text), NULL), LB_OK);
    if (lb_chat_open(tokenizer, path, &chat, &detail) != LB_OK ||
        lb_conversation_init(one, LB_ROW_MESSAGES, &conversation, &detail) != LB_OK ||
        lb_chat_encode(chat, &conversation, LB_COUNTS_ASSISTANT, &ids, &detail) != LB_OK) {
        fail_msg("%s: %s", text, detail.text);
    }
    assert_int_equal(ids.len, json_array_size(want));
    for (size_t i = 0; i < ids.len; i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(want, i));
        bool counts = json_integer_value(json_array_get(mask, i)) != 0;
        if (ids.data[i] != (counts ? id : ~id)) {
            fail_msg("%s: token %zu is %d, wants %d (counts: %d)", text, i, ids.data[i], id, counts);
        }
    }
    lb_free(ids.data);
    lb_conversation_finish(&conversation);
    lb_chat_destroy(chat);
    lb_free(path);
}

static void test_ids_and_mask(void **state) {
    (void)state;
    char *path = in_tree("examples/wordnet/tokenizer.json"), *golden = in_tree("tests/golden/chat/ids.json");
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_detail detail = {0};
    json_t *cases = NULL;
    assert_non_null(mkdtemp(folder));
    if (lb_tokenizer_open(path, &tokenizer, &detail) != LB_OK ||
        lb_json_file(golden, (size_t)1 << 20, &cases, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_true(json_array_size(cases) > 10);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        check_case(tokenizer, json_array_get(cases, i));
    }
    json_decref(cases);
    lb_tokenizer_destroy(tokenizer);
    lb_free(path);
    lb_free(golden);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ids_and_mask)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
