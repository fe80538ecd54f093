/* Conversations as a teacher with another tokenizer and another template reads them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/json.h"
#include "tests/support/scratch.h"
#include "trainer/data/dataset.h"
#include "trainer/data/reading.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY ((size_t)1 << 24)

static const char own_template[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}";
/* Other words around, other ends, white space stripped, and no system messages. */
static const char its_template[] =
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}"
    "{% endif %}[{{ 'YOU' if m.role == 'user' else 'ME' }}] {{ m.content | trim }}{{ eos_token }}{% endfor "
    "%}";

static struct lb_tokenizer *open_chat(const char *name, const char *config) {
    const char *root = getenv("LB_SOURCE_ROOT");
    struct lb_tokenizer *tokenizer = NULL;
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/text/%s.json", root, name);
    assert_int_equal(lb_tokenizer_open(path, &tokenizer, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_configure(tokenizer, config, strlen(config), "config", NULL), LB_OK);
    return tokenizer;
}

/* {"chat_template": ..., ends} */
static struct lb_tokenizer *with_template(const char *name, const char *template, const char *ends) {
    json_t *config = json_loads(ends, 0, NULL);
    assert_non_null(config);
    json_object_set_new(config, "chat_template", json_string(template));
    char *text = json_dumps(config, 0);
    struct lb_tokenizer *tokenizer = open_chat(name, text);
    free(text);
    json_decref(config);
    return tokenizer;
}

/* What of both sides is compared, one chunk a line: "own|its". */
static void put_chunks(const struct lb_tokenizer *own, const struct lb_tokenizer *its,
                       const struct lb_sample *s, const struct lb_reading *r, struct lb_buf *out) {
    for (int64_t c = 0; c < r->n_chunks; c++) {
        const struct lb_chunk *chunk = &r->chunks[c];
        for (int32_t t = chunk->at; t < chunk->at + chunk->n; t++) {
            size_t n = 0;
            const char *bytes = lb_tokenizer_bytes(own, s->ids[t + 1], &n);
            assert_true(lb_sample_counts(s, t));
            lb_buf_append(out, bytes, n);
        }
        lb_buf_append_str(out, "|");
        for (int32_t t = chunk->its_at; t < chunk->its_at + chunk->its_n; t++) {
            size_t n = 0;
            const char *bytes = lb_tokenizer_bytes(its, r->ids[t + 1], &n);
            lb_buf_append(out, bytes, n);
        }
        lb_buf_append_str(out, "\n");
    }
}

static void conversations(void **state) {
    (void)state;
    static const char lines[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"what is a still\"}, {\"role\": \"assistant\", "
        "\"content\": \"what copper is to spirits  \"}]}\n"
        "{\"messages\": [{\"role\": \"system\", \"content\": \"be brief\"}, {\"role\": \"user\", "
        "\"content\": "
        "\"hm\"}, {\"role\": \"assistant\", \"content\": \"yes\"}]}\n";
    struct lb_tokenizer *own = with_template("qwen", own_template, "{\"eos_token\": \"<|im_end|>\"}"),
                        *its = with_template("llama2", its_template,
                                             "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}"),
                        *plain = open_chat("llama2", "{}");
    for (int only = 0; only < 2; only++) {
        struct lb_recipe_loss alm = {.function = "alm"};
        struct lb_recipe_dataset entry = {.path = "chats.jsonl", .type = LB_DATA_JSONL, .field = "text"};
        struct lb_recipe recipe = {.directory = lb_scratch,
                                   .max_length = 256,
                                   .assistant_only_loss = only == 1,
                                   .loss_functions = &alm,
                                   .loss_functions_count = 1};
        struct lb_dataset *data = NULL;
        struct lb_reader *reader = NULL;
        struct lb_arena arena;
        struct lb_sample s;
        struct lb_reading r;
        struct lb_detail detail = {0};
        struct lb_buf text, whole;
        assert_int_equal(lb_file_replace(lb_in_scratch("chats.jsonl"), lines, sizeof lines - 1, NULL), LB_OK);
        lb_arena_init(&arena, MEMORY);
        lb_buf_init(&text, 1 << 16);
        lb_buf_init(&whole, 1 << 16);
        if (lb_dataset_open(&recipe, &entry, 1, false, own, 0, NULL, &data, &detail) != LB_OK) {
            fail_msg("%s", detail.text);
        }
        assert_int_equal(lb_reader_create(own, plain, 0, &reader, NULL), LB_OK);
        assert_int_equal(lb_reader_converse(reader, NULL, &detail), LB_E_NOTFOUND);
        lb_reader_destroy(reader);
        assert_int_equal(lb_reader_create(own, its, 0, &reader, NULL), LB_OK);
        assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
        assert_non_null(s.record);
        assert_int_equal(lb_reader_read(reader, &s, &arena, &r, NULL),
                         LB_E_ARG); /* not told of conversations */
        assert_int_equal(lb_reader_converse(reader, NULL, NULL), LB_OK);
        assert_int_equal(lb_reader_read(reader, &s, &arena, &r, NULL), LB_OK);
        /* The teacher reads what its template writes. */
        assert_int_equal(lb_tokenizer_decode(its, r.ids, (size_t)r.n, false, &whole, NULL), LB_OK);
        lb_buf_append(&whole, "", 1);
        assert_non_null(strstr(whole.data, "[YOU] what is a still</s>"));
        assert_non_null(strstr(whole.data, "[ME] what copper is to spirits</s>"));
        put_chunks(own, its, &s, &r, &text);
        lb_buf_append(&text, "", 1);
        printf("%s\n", text.data);
        /* Contents are compared, with the first user's end of message where all counts; roles and words of
         * the templates are not; the assistant's spaces, which one of them strips, end its comparison. */
        assert_true((strstr(text.data, "still|") != NULL || strstr(text.data, "ill|") != NULL) ==
                    (only == 0));
        assert_true((strstr(text.data, "<|im_end|>|</s>") != NULL) == (only == 0));
        assert_non_null(strstr(text.data, "pp|pp\n"));
        assert_null(strstr(text.data, "what")); /* its first token begins before it */
        assert_null(strstr(text.data, "YOU"));
        assert_null(strstr(text.data, "user"));
        /* One that its template refuses. */
        detail = (struct lb_detail){0};
        assert_int_equal(lb_dataset_get(data, 1, &s, NULL), LB_OK);
        assert_int_equal(lb_reader_read(reader, &s, &arena, &r, &detail), LB_E_ARG);
        assert_non_null(strstr(detail.text, "no system here"));
        lb_buf_finish(&text);
        lb_buf_finish(&whole);
        lb_arena_finish(&arena);
        lb_reader_destroy(reader);
        lb_dataset_destroy(data);
    }
    lb_tokenizer_destroy(own);
    lb_tokenizer_destroy(its);
    lb_tokenizer_destroy(plain);
}

/* Of contents that stand twice each is compared with its own place; what ends messages only where it is a
 * special token of both. */
static void repeated(void **state) {
    (void)state;
    static const char line[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"one old still\"}, {\"role\": "
        "\"assistant\", \"content\": \"one old still\"}]}\n";
    static const char plain[] = "{% for m in messages %}({{ m.content }}) {% endfor %}";
    struct lb_tokenizer *own = with_template("qwen", own_template, "{\"eos_token\": \"<|im_end|>\"}");
    struct lb_tokenizer *its[] = {
        with_template("llama2", its_template, "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}"),
        with_template("llama2", plain, "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}")};
    for (int k = 0; k < 2; k++) {
        struct lb_recipe_loss alm = {.function = "alm"};
        struct lb_recipe_dataset entry = {.path = "twice.jsonl", .type = LB_DATA_JSONL, .field = "text"};
        struct lb_recipe recipe = {
            .directory = lb_scratch, .max_length = 256, .loss_functions = &alm, .loss_functions_count = 1};
        struct lb_dataset *data = NULL;
        struct lb_reader *reader = NULL;
        struct lb_arena arena;
        struct lb_sample s;
        struct lb_reading r;
        struct lb_buf text;
        assert_int_equal(lb_file_replace(lb_in_scratch("twice.jsonl"), line, sizeof line - 1, NULL), LB_OK);
        lb_arena_init(&arena, MEMORY);
        lb_buf_init(&text, 1 << 16);
        assert_int_equal(lb_dataset_open(&recipe, &entry, 1, false, own, 0, NULL, &data, NULL), LB_OK);
        assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
        assert_int_equal(lb_reader_create(own, its[k], 0, &reader, NULL), LB_OK);
        assert_int_equal(lb_reader_converse(reader, NULL, NULL), LB_OK);
        assert_int_equal(lb_reader_read(reader, &s, &arena, &r, NULL), LB_OK);
        put_chunks(own, its[k], &s, &r, &text);
        lb_buf_append(&text, "", 1);
        printf("%s\n", text.data);
        assert_true(r.n_chunks > 3);
        for (int64_t c = 1; c < r.n_chunks; c++) {
            assert_true(r.chunks[c].its_at >= r.chunks[c - 1].its_at + r.chunks[c - 1].its_n);
        }
        assert_true((strstr(text.data, "<|im_end|>") != NULL) == (k == 0));
        lb_buf_finish(&text);
        lb_arena_finish(&arena);
        lb_reader_destroy(reader);
        lb_dataset_destroy(data);
    }
    lb_tokenizer_destroy(own);
    lb_tokenizer_destroy(its[0]);
    lb_tokenizer_destroy(its[1]);
}

static void hash_of(const char *ends, const char *template, uint8_t out[LB_SHA256_BYTES]) {
    struct lb_tokenizer *own = with_template("qwen", own_template, "{\"eos_token\": \"<|im_end|>\"}"),
                        *other = with_template("llama2", template, ends);
    struct lb_reader *reader = NULL;
    struct lb_sha256 *hash = lb_sha256_create();
    assert_int_equal(lb_reader_create(own, other, 0, &reader, NULL), LB_OK);
    assert_int_equal(lb_reader_converse(reader, NULL, NULL), LB_OK);
    lb_reader_hash(reader, hash);
    lb_sha256_final(hash, out);
    lb_reader_destroy(reader);
    lb_tokenizer_destroy(own);
    lb_tokenizer_destroy(other);
}

/* What is read otherwise is told apart: by what texts begin and end with, and by the template. */
static void hashed(void **state) {
    (void)state;
    uint8_t one[LB_SHA256_BYTES], again[LB_SHA256_BYTES], other[LB_SHA256_BYTES], ends[LB_SHA256_BYTES];
    hash_of("{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}", its_template, one);
    hash_of("{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}", its_template, again);
    hash_of("{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}", own_template, other);
    hash_of("{\"bos_token\": \"<s>\", \"eos_token\": \"<unk>\"}", its_template, ends);
    assert_memory_equal(one, again, sizeof one);
    assert_memory_not_equal(one, other, sizeof one);
    assert_memory_not_equal(one, ends, sizeof one);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(conversations), cmocka_unit_test(repeated),
                                       cmocka_unit_test(hashed)};
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
