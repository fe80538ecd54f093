/* What tokenizers do for chats: special tokens are not found in people's words, and the template is read. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/text/tokenizer.h"
#include "tests/support/tiny_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define BOS 257
#define THINK 258
#define LOW 259

/* <eos> 0 and <bos> are special; <think> is not; <low> is special and looked for in normalized text. */
#define ADDED                                                                                                \
    TINY_BOS ",{\"id\":258,\"content\":\"<think>\",\"special\":false,\"normalized\":false}"                  \
             ",{\"id\":259,\"content\":\"<low>\",\"special\":true,\"normalized\":true}"

static void make_json(struct lb_buf *json, const char *root) {
    lb_buf_init(json, 1 << 16);
    tiny_tokenizer_adding(json, NULL, 0, root, "", ADDED);
}

static struct lb_tokenizer *make(const char *root) {
    struct lb_buf json;
    struct lb_tokenizer *out = NULL;
    struct lb_detail detail = {0};
    make_json(&json, root);
    if (lb_tokenizer_parse(json.data, json.len, "tiny", &out, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    lb_buf_finish(&json);
    return out;
}

/* marks: 'd' where text came from people. want: ids, those of bytes as their letters. */
static void check(const struct lb_tokenizer *tokenizer, const char *text, const char *marks,
                  const char *want) {
    struct lb_ids ids = {0};
    struct lb_detail detail = {0};
    uint8_t plain[64];
    char got[256] = "";
    for (size_t i = 0; i < strlen(text); i++) {
        plain[i] = marks[i] == 'd' ? 3 : 0;
    }
    if (lb_tokenizer_encode_marked(tokenizer, text, strlen(text), plain, &ids, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    for (size_t i = 0; i < ids.len; i++) {
        const char *name = ids.data[i] == 0       ? "E"
                           : ids.data[i] == BOS   ? "B"
                           : ids.data[i] == THINK ? "T"
                                                  : "L";
        char letter[2] = {(char)(ids.data[i] - 1), '\0'};
        strncat(got, ids.data[i] > 0 && ids.data[i] < BOS ? letter : name, sizeof got - strlen(got) - 1);
    }
    assert_string_equal(got, want);
    lb_free(ids.data);
}

static void test_marked(void **state) {
    (void)state;
    struct lb_tokenizer *tokenizer = make(TINY_GPT2);
    check(tokenizer, "<bos>a<eos>", "tttttdttttt", "BaE");
    check(tokenizer, "<bos>a<eos>", "tttttdddddd", "Ba<eos>");
    check(tokenizer, "<bos>a<eos>", "tttttdtttdt", "Ba<eos>"); /* one byte of it is theirs */
    check(tokenizer, "a<think>b", "ddddddddd", "aTb");         /* no special token */
    check(tokenizer, "<low><low>", "tttttddddd", "L<low>");
    check(tokenizer, "<<bos>", "dttttt", "<B");
    struct lb_ids ids = {0};
    assert_int_equal(lb_tokenizer_encode_marked(tokenizer, "<bos>", 5, NULL, &ids, NULL), LB_OK);
    assert_int_equal(ids.len, 1);
    lb_free(ids.data);
    lb_tokenizer_destroy(tokenizer);
}

/* Where the normalizer changes text, marks are lost: a special token found there is refused, not guessed. */
static void test_normalized(void **state) {
    (void)state;
    struct lb_tokenizer *tokenizer = make("\"normalizer\":{\"type\":\"Lowercase\"}," TINY_GPT2);
    struct lb_ids ids = {0};
    struct lb_detail detail = {0};
    static const uint8_t plain[6] = {0, 0, 0, 0, 0, 1};
    check(tokenizer, "a<bos>", "dttttt", "aB");
    check(tokenizer, "<low>a", "tttttd", "La"); /* unchanged */
    check(tokenizer, "<LOW>", "ttttt", "L");
    check(tokenizer, "AB", "td", "ab");
    assert_int_equal(lb_tokenizer_encode_marked(tokenizer, "<LOW>A", 6, plain, &ids, &detail),
                     LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "<low>"));
    assert_int_equal(ids.len, 0);
    lb_free(ids.data);
    lb_tokenizer_destroy(tokenizer);
}

static void put(const char *dir, const char *name, const char *text) {
    char *path = lb_path_join(dir, name);
    assert_int_equal(lb_file_replace(path, text, strlen(text), NULL), LB_OK);
    lb_free(path);
}

/* from: the file that the template is named by, with what follows its folder. */
static void check_template(const char *dir, const char *config, const char *want, const char *from) {
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_detail detail = {0};
    put(dir, "tokenizer_config.json", config);
    if (lb_tokenizer_open(dir, &tokenizer, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    const char *got = lb_tokenizer_chat_template(tokenizer);
    assert_true(want == NULL ? got == NULL : got != NULL && strcmp(got, want) == 0);
    if (want == NULL) {
        assert_null(lb_tokenizer_chat_template_from(tokenizer));
    } else {
        assert_memory_equal(lb_tokenizer_chat_template_from(tokenizer), dir, strlen(dir));
        assert_string_equal(lb_tokenizer_chat_template_from(tokenizer) + strlen(dir), from);
    }
    lb_tokenizer_destroy(tokenizer);
}

static void test_template(void **state) {
    (void)state;
    char dir[] = "/tmp/lb-text-chat-XXXXXX";
    struct lb_buf json;
    assert_non_null(mkdtemp(dir));
    make_json(&json, TINY_GPT2);
    put(dir, "tokenizer.json", json.data);
    lb_buf_finish(&json);
    check_template(dir, "{}", NULL, NULL);
    check_template(dir, "{\"chat_template\": null}", NULL, NULL);
    check_template(dir, "{\"chat_template\": \"{{ 1 }}\"}", "{{ 1 }}",
                   "/tokenizer_config.json: chat_template");
    check_template(
        dir,
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"t\"}, {\"name\": \"default\", "
        "\"template\": \"d\"}]}",
        "d", "/tokenizer_config.json: chat_template");
    check_template(dir, "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"t\"}]}", NULL, NULL);
    struct lb_tokenizer *tokenizer = NULL;
    put(dir, "tokenizer_config.json", "{\"pad_token\": \"<bos>\"}");
    assert_int_equal(lb_tokenizer_open(dir, &tokenizer, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_named(tokenizer, "pad_token"), BOS);
    assert_int_equal(lb_tokenizer_named(tokenizer, "eos_token"), 0);
    assert_int_equal(lb_tokenizer_named(tokenizer, "mask_token"), -1);
    assert_int_equal(lb_tokenizer_named(tokenizer, "x_token"), -1);
    lb_tokenizer_destroy(tokenizer);
    put(dir, "chat_template.jinja", "file\n");
    check_template(dir, "{\"chat_template\": \"{{ 1 }}\"}", "file\n", "/chat_template.jinja");
    assert_int_equal(lb_remove_tree(dir, NULL), LB_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_marked), cmocka_unit_test(test_normalized),
                                       cmocka_unit_test(test_template)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
