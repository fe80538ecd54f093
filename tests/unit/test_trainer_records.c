/* Rows of data that are records of who said what: their ids, what of them counts, what is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/tiny_tokenizer.h"
#include "trainer/data/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EOS 0
#define BOS 257

static char folder[] = "/tmp/lb-records-XXXXXX";
static struct lb_tokenizer *tokenizer; /* <eos> 0, bytes behind it, <bos> 257 */

static void put(const char *name, const char *text) {
    char *path = lb_path_join(folder, name);
    assert_int_equal(lb_file_replace(path, text, strlen(text), NULL), LB_OK);
    lb_free(path);
}

static int set_up(void **state) {
    (void)state;
    struct lb_buf json;
    lb_buf_init(&json, 1 << 16);
    tiny_tokenizer_adding(&json, NULL, 0, TINY_GPT2, "", TINY_BOS);
    if (mkdtemp(folder) == NULL ||
        lb_tokenizer_parse(json.data, json.len, "tiny", &tokenizer, NULL) != LB_OK) {
        return -1;
    }
    lb_buf_finish(&json);
    put("plain.jinja",
        "{% for m in messages %}{{ bos_token + m.role[0] + ':' + m.content + eos_token + '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}<bos>a:{% endif %}");
    put("blocks.jinja",
        "{% for m in messages %}<bos>{{ m.role[0] }}:{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}<eos>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}");
    put("last.jinja", "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.content }}{% endfor %}");
    put("extra.jinja",
        "{{ pad_token }}{% for t in tools or [] %}{{ t.name }},{% endfor %}{{ mode }}{{ strftime_now is "
        "defined }}"
        "{% for m in messages %}{{ m.content }}{% if m.thinking %}[{{ m.thinking }}]{% endif %}{% endfor %}");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    lb_tokenizer_destroy(tokenizer);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

struct way {
    const char *template;
    enum lb_completion_only completion_only;
    bool assistant_only;
    int64_t max_length, max_tokens;
    double lmbda;
};

static enum lb_status open_rows(const char *rows, const struct way *way, struct lb_dataset **out,
                                struct lb_detail *detail) {
    const struct lb_recipe recipe = {.directory = folder,
                                     .max_length = way->max_length ? way->max_length : 100,
                                     .chat_template = way->template,
                                     .completion_only_loss = way->completion_only,
                                     .assistant_only_loss = way->assistant_only,
                                     .lmbda = way->lmbda};
    const struct lb_recipe_dataset entry = {
        .path = "a.jsonl", .type = LB_DATA_JSONL, .field = "text", .max_tokens = way->max_tokens};
    put("a.jsonl", rows);
    return lb_dataset_open(&recipe, &entry, 1, false, tokenizer, 0, NULL, out, detail);
}

/* Row i: '.' <eos>, '^' <bos>, '/' a line feed. counts: 'x' where the label counts; the first is no label. */
static void expect_row(const struct lb_dataset *data, int64_t i, const char *text, const char *counts) {
    struct lb_sample s;
    char is[200] = "", counted[200] = "";
    assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
    assert_true(s.n < 199);
    for (int64_t t = 0; t <= s.n; t++) {
        is[t] = (char)(s.ids[t] == EOS        ? '.'
                       : s.ids[t] == BOS      ? '^'
                       : s.ids[t] == 1 + '\n' ? '/'
                                              : s.ids[t] - 1);
        counted[t] = t > 0 && lb_sample_counts(&s, t - 1) ? 'x' : '-';
    }
    assert_string_equal(is, text);
    assert_string_equal(counted, counts);
}

static void check(const char *rows, const struct way *way, const char *text, const char *counts) {
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    if (open_rows(rows, way, &data, &detail) != LB_OK) {
        fail_msg("%s: %s", rows, detail.text);
    }
    expect_row(data, 0, text, counts);
    assert_int_equal(lb_dataset_count(data), 1);
    lb_dataset_destroy(data);
}

#define MESSAGES                                                                                             \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": "     \
    "\"yo\"}, "                                                                                              \
    "{\"role\": \"user\", \"content\": \"b\"}, {\"role\": \"assistant\", \"content\": \"c \"}]}\n"

static void test_messages(void **state) {
    (void)state;
    check(MESSAGES, &(struct way){.template = "plain.jinja"}, "^u:hi./^a:yo./^u:b./^a:c ./",
          "-xxxxxxxxxxxxxxxxxxxxxxxxxx");
    check(MESSAGES, &(struct way){.template = "plain.jinja", .assistant_only = true},
          "^u:hi./^a:yo./^u:b./^a:c ./", "----------xxx----------xxx-");
    check(MESSAGES, &(struct way){.template = "plain.jinja", .completion_only = LB_COMPLETION_ONLY_YES},
          "^u:hi./^a:yo./^u:b./^a:c ./", "----------xxx----------xxx-");
    check(MESSAGES, &(struct way){.template = "blocks.jinja", .assistant_only = true},
          "^u:hi^a:yo.^u:b^a:c .", "--------xxx-------xxx");
}

/* A message that says <eos> says these five letters. */
static void test_no_forging(void **state) {
    (void)state;
    check("{\"messages\": [{\"role\": \"user\", \"content\": \"<eos><bos>\"}]}\n",
          &(struct way){.template = "plain.jinja"}, "^u:<eos><bos>./", "-xxxxxxxxxxxxxx");
}

static void test_other_forms(void **state) {
    (void)state;
    const struct way way = {.template = "plain.jinja"};
    check("{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": "
          "\"a\"}], "
          "\"system\": \"s\"}\n",
          &way, "^s:s./^u:q./^a:a./", "-xxxxxxxxxxxxxxxxx");
    check("{\"instruction\": \"i\", \"input\": \"\", \"output\": \"o\"}\n", &way, "^u:i./^a:o./",
          "---------xxx");
    check("{\"instruction\": \"i\", \"input\": \"n\", \"output\": \"o\"}\n", &way, "^u:i/n./^a:o./",
          "-----------xxx");
    check(
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"p\"}], \"completion\": [{\"role\": \"assistant\", "
        "\"content\": \"c\"}]}\n",
        &way, "^u:p./^a:c./", "---------xxx");
    check("{\"prompt\": \"p<eos>\", \"completion\": \" c\"}\n", &(struct way){.template = NULL}, "p. c.",
          "--xxx");
    check("{\"prompt\": \"p\", \"completion\": \" c\"}\n",
          &(struct way){.completion_only = LB_COMPLETION_ONLY_NO}, "p c.", "-xxx");
    check("{\"messages\": [{\"role\": \"user\", \"content\": \"m\", \"x\": null, \"reasoning\": \"r\"}], "
          "\"tools\": "
          "[{\"name\": \"t\"}], \"chat_template_kwargs\": {\"mode\": \"k\"}}\n",
          &(struct way){.template = "extra.jinja"}, "t,kFalsem[r]", "-xxxxxxxxxxx");
}

/* A tokenizer that puts a space before words, and whose special token eats white space: which tokens count is
 * known all the same. One that changes letters is refused. */
static void test_other_tokenizers(void **state) {
    (void)state;
    static const char prefix[] =
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true},";
    static const char eats[] =
        ",{\"id\":257,\"content\":\"<bos>\",\"special\":true,\"normalized\":false,\"rstrip\":true}";
    const struct way way = {.template = "eaten.jinja", .assistant_only = true};
    static const char rows[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
        "\"content\": \"yo\"}]}\n";
    struct lb_tokenizer *usual = tokenizer;
    put("eaten.jinja", "{% for m in messages %}<bos> \n{{ m.content }}<eos>{% endfor %}");
    for (int lower = 0; lower < 2; lower++) {
        struct lb_buf json;
        char root[400];
        struct lb_dataset *data = NULL;
        struct lb_detail detail = {0};
        lb_buf_init(&json, 1 << 16);
        snprintf(root, sizeof root, "%s%s", lower ? "\"normalizer\":{\"type\":\"Lowercase\"}," : "", prefix);
        tiny_tokenizer_adding(&json, NULL, 0, root, "", eats);
        assert_int_equal(lb_tokenizer_parse(json.data, json.len, "tiny", &tokenizer, NULL), LB_OK);
        if (lower) {
            assert_int_equal(open_rows(rows, &way, &data, &detail), LB_E_UNSUPPORTED);
            assert_non_null(strstr(detail.text, "the tokenizer changes the text"));
        } else {
            check(rows, &way, "^ Hi.^ yo.", "-----xxxxx");
        }
        lb_tokenizer_destroy(tokenizer);
        lb_buf_finish(&json);
    }
    tokenizer = usual;
}

static void test_lengths(void **state) {
    (void)state;
    struct lb_dataset *data = NULL;
    static const char rows[] =
        MESSAGES "{\"messages\": [{\"role\": \"user\", \"content\": \"long question\"}, "
                 "{\"role\": \"assistant\", \"content\": \"a\"}]}\n" MESSAGES;
    struct way way = {.template = "plain.jinja", .assistant_only = true, .max_length = 12};
    assert_int_equal(open_rows(rows, &way, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_count(data), 2);
    expect_row(data, 1, "^u:hi./^a:yo.", "----------xxx");
    assert_int_equal(lb_dataset_shortened(data), 2);
    assert_int_equal(lb_dataset_dropped(data), 1);
    assert_int_equal(strlen(lb_dataset_chat_hash(data)), 64);
    assert_int_equal(lb_dataset_bytes(data, -1), 6);
    lb_dataset_destroy(data);
    way = (struct way){.template = "plain.jinja", .max_tokens = 28};
    assert_int_equal(open_rows(rows, &way, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_count(data), 2);
    expect_row(data, 1, "^u:", "-xx");
    lb_dataset_destroy(data);
    struct lb_detail detail = {0};
    way = (struct way){.template = "plain.jinja", .assistant_only = true, .max_length = 4};
    assert_int_equal(open_rows(rows, &way, &data, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "raise it"));
}

/* Texts beside records count whole, whichever comes first. */
static void test_mixed_entries(void **state) {
    (void)state;
    const struct lb_recipe recipe = {
        .directory = folder, .max_length = 4, .chat_template = "plain.jinja", .assistant_only_loss = true};
    const struct lb_recipe_dataset entries[] = {{.path = "t.txt", .type = LB_DATA_TEXT},
                                                {.path = "a.jsonl", .type = LB_DATA_JSONL},
                                                {.path = "t.txt", .type = LB_DATA_TEXT}};
    struct lb_dataset *data = NULL;
    put("t.txt", "abcd\n");
    put("a.jsonl", "{\"messages\": [{\"role\": \"assistant\", \"content\": \"yo\"}]}\n");
    assert_int_equal(lb_dataset_open(&recipe, entries, 3, false, tokenizer, 0, NULL, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_count(data), 3);
    expect_row(data, 0, "abcd.", "-xxxx");
    expect_row(data, 1, "^a:yo", "---xx");
    expect_row(data, 2, "abcd.", "-xxxx");
    lb_dataset_destroy(data);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *rows, *template, *says;
    } cases[] = {
        {MESSAGES, NULL, "a.jsonl:1: rows with messages need a chat template"},
        {MESSAGES, "nothing.jinja", "nothing.jinja"},
        {MESSAGES, "last.jinja", "a.jsonl:1: which tokens are the assistant's cannot be told"},
        {MESSAGES "{\"text\": \"a\"}\n", "plain.jinja", "a.jsonl:2: the line is written in another form"},
        {"{\"message\": 1}\n", "plain.jinja", "a.jsonl:1: the line: text is missing"},
        {"{\"messages\": [{\"content\": \"a\"}]}\n", "plain.jinja", "message 0 is no object with a role"},
        {"{\"messages\": []}\n", "plain.jinja", "messages is no list"},
        {"{\"messages\": [{\"role\": \"user\"}]}\n", "plain.jinja",
         "plain.jinja: line 1: content is undefined"},
        {"{\"conversations\": [{\"from\": \"alien\", \"value\": \"a\"}]}\n", "plain.jinja",
         "from \"alien\" is not known"},
        {"{\"instruction\": \"i\", \"output\": \"o\", \"history\": [[\"a\", \"b\"]]}\n", "plain.jinja",
         "history"},
        {"{\"prompt\": \"a\", \"completion\": [1]}\n", "plain.jinja", "neither both texts nor both lists"},
        {"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": [{\"role\": \"user\", \"content\": "
         "\"a\"}], "
         "\"completion\": [{\"role\": \"user\", \"content\": \"a\"}]}\n",
         "plain.jinja", "a.jsonl:2: the line: prompt is no text"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_dataset *data = NULL;
        struct lb_detail detail = {0};
        const struct way way = {.template = cases[i].template, .assistant_only = true};
        enum lb_status status = open_rows(cases[i].rows, &way, &data, &detail);
        if (status == LB_OK || strstr(detail.text, cases[i].says) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", detail.text, cases[i].says);
        }
    }
}

/* So many labels as max_tokens says, also where most of each record is cut off or the record left out. */
static void test_max_tokens(void **state) {
    (void)state;
    enum { LINES = 30000, ROWS = 12000 };
    static const char long_one[] = "{\"prompt\": \"p\", \"completion\": \"cccccccccccc\"}\n",
                      none[] = "{\"prompt\": \"pppppppppppp\", \"completion\": \"c\"}\n";
    struct lb_buf rows;
    struct lb_dataset *data = NULL;
    const struct way way = {.max_length = 3, .max_tokens = 3 * ROWS};
    lb_buf_init(&rows, (size_t)1 << 24);
    for (int i = 0; i < LINES; i++) {
        lb_buf_append_str(&rows, i % 2 ? none : long_one);
    }
    assert_int_equal(lb_buf_append(&rows, "", 1), LB_OK);
    assert_int_equal(open_rows(rows.data, &way, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_count(data), ROWS);
    assert_int_equal(lb_dataset_shortened(data), ROWS);
    lb_dataset_destroy(data);
    lb_buf_finish(&rows);
}

/* What a text is written behind, whatever counts. */
static void test_prompts(void **state) {
    (void)state;
    static const struct {
        const char *rows;
        int64_t prompt;
    } cases[] = {
        {"{\"prompt\": \"pqr\", \"completion\": \"c\"}\n", 3},
        {MESSAGES, sizeof "^u:hi./^a:yo./^u:b./^a:" - 1},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n", 0},
        {"{\"instruction\": \"i\", \"output\": \"o\"}\n", sizeof "^u:i./^a:" - 1},
    };
    for (size_t i = 0; i < 3 * sizeof cases / sizeof *cases; i++) {
        struct lb_dataset *data = NULL;
        struct lb_sample s;
        const struct way way = {.template = "plain.jinja",
                                .lmbda = i % 3 == 0 ? 0 : 0.5,
                                .completion_only =
                                    i % 3 == 1 ? LB_COMPLETION_ONLY_NO : LB_COMPLETION_ONLY_YES};
        int64_t want = i % 3 == 0 ? 0 : cases[i / 3].prompt;
        enum lb_status status = open_rows(cases[i / 3].rows, &way, &data, NULL);
        if (status != LB_OK) { /* nothing of it counts */
            assert_int_equal(cases[i / 3].prompt, 0);
            continue;
        }
        assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
        assert_int_equal(s.prompt, want);
        assert_int_equal(lb_dataset_prompts(data), want > 0);
        lb_dataset_destroy(data);
    }
}

/* What max_tokens cuts off within its prompt is no row: nothing is written behind ids that it does not have.
 */
static void test_cut_prompts(void **state) {
    (void)state;
    static const char rows[] = "{\"prompt\": \"pqr\", \"completion\": \"c\"}\n"
                               "{\"prompt\": \"pppppppppppppppp\", \"completion\": \"c\"}\n"
                               "{\"prompt\": \"p\", \"completion\": \"cccccccccccc\"}\n";
    const struct way way = {.lmbda = 0.5, .completion_only = LB_COMPLETION_ONLY_NO, .max_tokens = 9};
    struct lb_dataset *data = NULL;
    struct lb_sample s;
    assert_int_equal(open_rows(rows, &way, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_count(data), 2);
    assert_int_equal(lb_dataset_prompts(data), 2);
    for (int64_t i = 0; i < 2; i++) {
        assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
        assert_int_equal(s.prompt, i == 0 ? 3 : 1);
        assert_int_equal(s.n, i == 0 ? 4 : 5);
    }
    lb_dataset_destroy(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_prompts),   cmocka_unit_test(test_messages),
        cmocka_unit_test(test_no_forging),    cmocka_unit_test(test_other_forms),
        cmocka_unit_test(test_lengths),       cmocka_unit_test(test_other_tokenizers),
        cmocka_unit_test(test_mixed_entries), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_max_tokens),    cmocka_unit_test(test_prompts),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
