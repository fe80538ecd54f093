/* What lies beside a tokenizer.json goes along with a model that is saved with it: byte for byte where it
 * says what training did, and changed only there where it does not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/model.h"
#include "common/model/readme.h"
#include "common/text/beside.h"
#include "common/text/tokenizer.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/lb-beside-XXXXXX";
static char given[64], saved[64];

static void write_given(const char *name, const char *text) {
    char *path = lb_path_join(given, name);
    assert_int_equal(lb_file_replace(path, text, strlen(text), NULL), LB_OK);
    lb_free(path);
}

static int set_up(void **state) {
    (void)state;
    struct lb_buf json;
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    snprintf(given, sizeof given, "%s/given", folder);
    snprintf(saved, sizeof saved, "%s/saved", folder);
    lb_buf_init(&json, 1 << 16);
    tiny_tokenizer_adding(&json, NULL, 0, TINY_GPT2 TINY_BEGINS, "",
                          TINY_BOS
                          ",{\"id\":258,\"content\":\"<end>\",\"special\":true,\"normalized\":false}");
    assert_int_equal(lb_mkdirs(given, NULL), LB_OK);
    lb_buf_append(&json, "", 1);
    write_given("tokenizer.json", json.data);
    lb_buf_finish(&json);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

/* Saves a model of 260 rows whose training put the tokenizer's eos behind texts, and began them with bos. */
static void save_begun(bool begins) {
    struct lb_config config;
    struct lb_model *model = NULL, *again = NULL;
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_detail detail = {0};
    struct lb_buf readme;
    lb_buf_init(&readme, 1 << 16);
    lb_buf_append_str(&readme, "# a card\n");
    assert_int_equal(lb_readme_seal(&readme), LB_OK);
    lb_tiny_llama(&config);
    config.vocab_size = 260;
    if (lb_tokenizer_open(given, &tokenizer, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    config.eos_token_id = lb_tokenizer_eos(tokenizer);
    assert_int_equal(lb_tokenizer_add_bos(tokenizer, begins, NULL), LB_OK);
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    if (lb_model_save_hf(model, saved, LB_F32, tokenizer, readme.data, &detail) != LB_OK ||
        lb_model_open(saved, false, &again, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_true(lb_ends_has(lb_model_ends(again), config.eos_token_id));
    lb_buf_finish(&readme);
    lb_tokenizer_destroy(tokenizer);
    lb_model_destroy(again);
    lb_model_destroy(model);
}

static void save(void) {
    save_begun(true);
}

/* text NULL: the file is not there. */
static void expect_file(const char *name, const char *text) {
    struct lb_buf buf;
    char *path = lb_path_join(saved, name);
    lb_buf_init(&buf, 1 << 20);
    if (text == NULL) {
        assert_false(lb_file_exists(path));
    } else {
        assert_int_equal(lb_file_read(path, &buf, NULL), LB_OK);
        assert_string_equal(buf.data, text);
    }
    lb_buf_finish(&buf);
    lb_free(path);
}

/* text with ' for ". */
static const char *quoted(const char *text) {
    static char out[1024];
    snprintf(out, sizeof out, "%s", text);
    for (char *c = out; *c != '\0'; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    return out;
}

static void expect_json(const char *name, const char *text) {
    char *path = lb_path_join(saved, name);
    json_t *is = NULL, *right = json_loads(quoted(text), 0, NULL);
    assert_int_equal(lb_json_file(path, 1 << 20, &is, NULL), LB_OK);
    if (!json_equal(is, right)) {
        char *dumped = json_dumps(is, 0);
        fail_msg("%s holds %s instead of %s", name, dumped, text);
    }
    json_decref(is);
    json_decref(right);
    lb_free(path);
}

static void nothing_beside(void **state) {
    (void)state;
    save();
    expect_json(
        "tokenizer_config.json",
        "{'tokenizer_class': 'PreTrainedTokenizerFast', 'model_max_length': 128, 'eos_token': '<eos>',"
        " 'bos_token': '<bos>'}");
    expect_file("special_tokens_map.json", NULL);
    expect_file("chat_template.jinja", NULL);
    expect_file("generation_config.json", NULL);
}

/* A README.md is replaced as long as it is as it was written. */
static void cards(void **state) {
    (void)state;
    struct lb_buf text;
    char *path = lb_path_join(saved, LB_README);
    save();
    save();
    lb_buf_init(&text, 1 << 16);
    assert_int_equal(lb_file_read(path, &text, NULL), LB_OK);
    assert_memory_equal(text.data, "# a card\n", 9);
    assert_true(lb_readme_is_sealed(text.data, text.len));
    for (size_t i = 0; i < text.len; i++) {
        text.data[i] ^= 1;
        assert_false(lb_readme_is_sealed(text.data, text.len));
        text.data[i] ^= 1;
        assert_false(lb_readme_is_sealed(text.data, i));
    }
    text.data[0] = '!';
    assert_int_equal(lb_file_replace(path, text.data, text.len, NULL), LB_OK);
    struct lb_detail detail = {0};
    assert_int_equal(lb_readme_check(saved, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "README.md"));
    struct lb_config config;
    struct lb_model *model = NULL;
    lb_tiny_llama(&config);
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    assert_int_equal(lb_model_save_hf(model, saved, LB_F32, NULL, NULL, NULL), LB_E_ARG);
    lb_model_destroy(model);
    assert_int_equal(lb_remove_tree(saved, NULL), LB_OK);
    lb_buf_finish(&text);
    lb_free(path);
}

static void what_is_right_stays(void **state) {
    (void)state;
    static const char config[] =
        "\xef\xbb\xbf{ \"tokenizer_class\":\"GPT2Tokenizer\",\"pad_token\": \"<eos>\", \"odd\": NaN,\n"
        "  \"eos_token\" : {\"content\": \"<end>\", \"lstrip\": false}, \"bos_token\": \"<bos>\","
        " \"model_max_length\": 64, \"chat_template\": \"{{ bos_token }}\" }\n";
    static const char tokens[] = "{\"eos_token\": \"<end>\",  \"unk_token\": \"<eos>\"}";
    static const char generation[] = "{\"eos_token_id\":  [0, 258], \"top_k\": 64}";
    write_given("tokenizer_config.json", config);
    write_given("special_tokens_map.json", tokens);
    write_given("chat_template.jinja", "{{ messages }}");
    write_given("generation_config.json", generation);
    save();
    expect_file("tokenizer_config.json", config);
    expect_file("special_tokens_map.json", tokens);
    expect_file("chat_template.jinja", "{{ messages }}");
    expect_file("generation_config.json", generation);
    struct lb_tokenizer *tokenizer = NULL;
    assert_int_equal(lb_tokenizer_open(saved, &tokenizer, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_named(tokenizer, "pad_token"), 0);
    struct lb_buf text;
    lb_buf_init(&text, 1 << 16);
    assert_int_equal(lb_tokenizer_config(tokenizer, &text, NULL), LB_OK);
    assert_non_null(strstr(text.data, "\"chat_template\": \"{{ messages }}\"")); /* the file's, not its own */
    lb_buf_finish(&text);
    assert_int_equal(lb_tokenizer_eos(tokenizer), 258);
    lb_tokenizer_destroy(tokenizer);
}

static void what_is_wrong_is_mended(void **state) {
    (void)state;
    write_given("tokenizer_config.json", quoted("{'model_max_length': 1e30, 'eos_token': null, 'x': [1, "
                                                "'y'], 'processor_class': 'Gemma3Processor'}"));
    write_given("special_tokens_map.json",
                quoted("{'eos_token': {'content': '<end>'}, 'pad_token': '<end>'}"));
    write_given("generation_config.json", quoted("{'eos_token_id': [258, 259, 700], 'temperature': 0.6}"));
    save();
    expect_json("tokenizer_config.json",
                "{'model_max_length': 128, 'eos_token': '<eos>', 'x': [1, 'y'], 'bos_token': '<bos>',"
                " 'tokenizer_class': 'PreTrainedTokenizerFast'}");
    expect_json("special_tokens_map.json", "{'eos_token': '<eos>', 'pad_token': '<end>'}");
    expect_json("generation_config.json", "{'eos_token_id': [0, 258, 259], 'temperature': 0.6}");
    write_given("generation_config.json", quoted("{'eos_token_id': 258}"));
    save();
    expect_json("generation_config.json", "{'eos_token_id': [0, 258]}");
    write_given("generation_config.json", quoted("{'do_sample': true}"));
    save();
    expect_json("generation_config.json", "{'do_sample': true}"); /* config.json's counts then */
}

/* Where training did not begin texts, no reader of the folder does. */
static void what_was_not_begun(void **state) {
    (void)state;
    struct lb_tokenizer *tokenizer = NULL;
    write_given("tokenizer_config.json",
                quoted("{'tokenizer_class': 'X', 'model_max_length': 9, 'eos_token': "
                       "'<eos>', 'bos_token': '<bos>', 'add_bos_token': true}"));
    save();
    expect_json("tokenizer_config.json", "{'tokenizer_class': 'X', 'model_max_length': 9, 'eos_token': "
                                         "'<eos>', 'bos_token': '<bos>', 'add_bos_token': true}");
    save_begun(false);
    expect_json("tokenizer_config.json", "{'tokenizer_class': 'X', 'model_max_length': 9, 'eos_token': "
                                         "'<eos>', 'bos_token': '<bos>', 'add_bos_token': false}");
    assert_int_equal(lb_tokenizer_open(saved, &tokenizer, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_before(tokenizer)->len, 0);
    lb_tokenizer_destroy(tokenizer);
}

/* Whatever is carried along is read before a run begins, not when its student is saved. */
static void what_is_damaged_is_refused_at_once(void **state) {
    (void)state;
    static const char *const names[] = {"special_tokens_map.json", "generation_config.json",
                                        "tokenizer_config.json"};
    static const char *const texts[] = {"{\"eos_token\": ", "[]", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            struct lb_tokenizer *tokenizer = NULL;
            struct lb_detail detail = {0};
            char path[128];
            snprintf(path, sizeof path, "%s/%s: ", given, names[i]);
            write_given(names[i], texts[k]);
            assert_int_equal(lb_tokenizer_open(given, &tokenizer, &detail), LB_E_FORMAT);
            assert_memory_equal(detail.text, path, strlen(path));
        }
        write_given(names[i], "{}");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_beside),      cmocka_unit_test(cards),
        cmocka_unit_test(what_is_right_stays), cmocka_unit_test(what_is_wrong_is_mended),
        cmocka_unit_test(what_was_not_begun),  cmocka_unit_test(what_is_damaged_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
