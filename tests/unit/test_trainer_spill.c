/* What memory does not hold of data: bytes that are appended come back, rows are what they would be if all
 * was cut at once, nothing is left in the folder, and memory does not grow with texts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "tests/support/sanitized.h"
#include "tests/support/tiny_tokenizer.h"
#include "trainer/data/parts.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define BOS 257
#define BYTES (5 << 20)

static char folder[] = "/tmp/lb-spill-XXXXXX";
static struct lb_tokenizer *plain, *begun; /* <eos> 0, bytes behind it; begun puts <bos> before texts */

static int set_up(void **state) {
    (void)state;
    struct lb_buf json;
    struct lb_tokenizer **all[] = {&plain, &begun};
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        lb_buf_init(&json, 1 << 16);
        tiny_tokenizer_adding(&json, NULL, 0, TINY_GPT2, "", TINY_BOS);
        if (lb_tokenizer_parse(json.data, json.len, "tiny", all[i], NULL) != LB_OK) {
            return -1;
        }
        lb_buf_finish(&json);
    }
    return lb_tokenizer_add_bos(plain, false, NULL) == LB_OK &&
                   lb_tokenizer_add_bos(begun, true, NULL) == LB_OK
               ? 0
               : -1;
}

static int tear_down(void **state) {
    (void)state;
    lb_tokenizer_destroy(plain);
    lb_tokenizer_destroy(begun);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

/* How many names the folder has. */
static int names(void) {
    DIR *dir = opendir(folder);
    int n = -2; /* . and .. */
    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n;
}

static void bytes_come_back(void **state) {
    (void)state;
    struct lb_spill spill = {.folder = folder};
    struct lb_rng rng;
    uint8_t *all = malloc(BYTES), *back = malloc(BYTES);
    size_t n = 0;
    int before = names();
    assert_true(all != NULL && back != NULL);
    lb_rng_seed(&rng, 1, 0);
    for (size_t i = 0; i < BYTES; i++) {
        all[i] = (uint8_t)lb_rng_below(&rng, 256);
    }
    for (int round = 0; round < 3; round++) {
        while (n < BYTES) {
            size_t now = lb_rng_below(&rng, 300000);
            now = now < BYTES - n ? now : BYTES - n;
            assert_int_equal(lb_spill_append(&spill, all + n, now, NULL), LB_OK);
            n += now;
        }
        assert_int_equal(lb_spill_size(&spill), BYTES);
        for (int i = 0; i < 200; i++) {
            size_t at = lb_rng_below(&rng, BYTES), len = lb_rng_below(&rng, BYTES - at);
            len = i % 2 == 0 ? len : len % 1000;
            assert_int_equal(lb_spill_read(&spill, (int64_t)at, back, len, NULL), LB_OK);
            assert_memory_equal(back, all + at, len);
        }
        assert_int_equal(names(), before);
        assert_true(spill.cap <= 1 << 20);
        n = round == 0 ? BYTES - 1000 : 2000000; /* within what waits, within the file */
        lb_spill_cut(&spill, (int64_t)n);
        for (size_t i = n; i < BYTES; i++) {
            all[i] = (uint8_t)~all[i];
        }
    }
    lb_spill_finish(&spill);
    free(all);
    free(back);
}

static void nowhere_to_go(void **state) {
    (void)state;
    struct lb_spill spill = {.folder = "/nonexistent/folder"};
    struct lb_detail detail = {0};
    static const uint8_t some[1 << 16];
    enum lb_status status = LB_OK;
    int n = 0;
    while (status == LB_OK && n < 100) {
        status = lb_spill_append(&spill, some, sizeof some, &detail);
        n++;
    }
    assert_int_equal(status, LB_E_IO);
    assert_int_equal(n, 17);
    assert_non_null(strstr(detail.text, "cannot keep the data's ids in /nonexistent/folder"));
    lb_spill_finish(&spill);
}

static void open_with(const struct lb_tokenizer *tokenizer, const char *name, int64_t max_tokens,
                      bool keep_short, struct lb_dataset **out) {
    const struct lb_recipe recipe = {.directory = folder, .output_dir = ".", .max_length = 50};
    const struct lb_recipe_dataset entry = {.path = name,
                                            .type =
                                                lb_ends_with(name, ".jsonl") ? LB_DATA_JSONL : LB_DATA_TEXT,
                                            .max_tokens = max_tokens};
    struct lb_detail detail = {0};
    if (lb_dataset_open(&recipe, &entry, 1, keep_short, tokenizer, 0, NULL, out, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
}

/* Lines of 1 to 120 letters, each as `form` says; the letters of all, with a NUL behind each line, are
 * letters'. */
static void write_lines(const char *name, const char *form, int lines, struct lb_buf *letters) {
    struct lb_buf text;
    struct lb_rng rng;
    char *path = lb_path_join(folder, name);
    lb_buf_init(&text, (size_t)1 << 28);
    lb_rng_seed(&rng, 7, 0);
    for (int i = 0; i < lines; i++) {
        char line[128], whole[200];
        int n = 1 + (int)lb_rng_below(&rng, 120);
        for (int k = 0; k < n; k++) {
            line[k] = (char)('a' + lb_rng_below(&rng, 26));
        }
        line[n] = '\0';
        snprintf(whole, sizeof whole, form, line);
        lb_buf_append_str(&text, whole);
        if (letters != NULL) {
            lb_buf_append(letters, line, (size_t)n + 1);
        }
    }
    assert_int_equal(lb_file_replace(path, text.data, text.len, NULL), LB_OK);
    lb_buf_finish(&text);
    lb_free(path);
}

#define LINES 10000   /* more than one block of them, and more ids than memory holds */
#define RECORDS 20000 /* more rows than it holds, too */

/* Rows of 50 labels that each begin with <bos>, out of the letters. */
static void rows_that_begin(int64_t max_tokens, bool keep_short) {
    struct lb_buf letters;
    struct lb_dataset *data = NULL;
    lb_buf_init(&letters, (size_t)1 << 28);
    write_lines("a.txt", "%s\n", LINES, &letters);
    int before = names();
    open_with(begun, "a.txt", max_tokens, keep_short, &data);
    assert_true(data->ids.in_file > 0 || max_tokens > 0);
    assert_int_equal(names(), before);
    size_t at = 0; /* a letter; the NUL stands for <eos>, and the <bos> that follows */
    bool bos = true;
    int64_t left = max_tokens > 0 ? max_tokens : INT64_MAX;
    for (int64_t r = 0; r < lb_dataset_count(data); r++) {
        struct lb_sample s;
        assert_int_equal(lb_dataset_get(data, r, &s, NULL), LB_OK);
        assert_int_equal(s.within, !bos);
        assert_int_equal(s.ids[0], BOS);
        bos = false;
        for (int64_t t = 0; t < s.n; t++) {
            int32_t want = bos ? BOS : letters.data[at] == '\0' ? 0 : letters.data[at] + 1;
            assert_int_equal(s.ids[t + 1], want);
            assert_int_equal(lb_sample_counts(&s, t), !bos);
            left -= !bos;
            at += !bos;
            bos = !bos && letters.data[at - 1] == '\0';
        }
        assert_true(s.n == 50 || (keep_short && r + 1 == lb_dataset_count(data)));
    }
    assert_true(left >= 0 && (left == 0 || max_tokens == 0 || !keep_short));
    assert_true(max_tokens > 0 || letters.len - at < 50);
    assert_true(!keep_short || max_tokens > 0 || at == letters.len);
    lb_dataset_destroy(data);
    lb_buf_finish(&letters);
}

static void begun_rows(void **state) {
    (void)state;
    rows_that_begin(0, false);
    rows_that_begin(0, true);
    rows_that_begin(500003, true);
}

static void records(void **state) {
    (void)state;
    struct lb_buf letters;
    struct lb_dataset *data = NULL;
    lb_buf_init(&letters, (size_t)1 << 28);
    write_lines("a.jsonl", "{\"prompt\": \"p\", \"completion\": \"%s\"}\n", RECORDS, &letters);
    open_with(plain, "a.jsonl", 0, false, &data);
    assert_int_equal(lb_dataset_count(data), RECORDS);
    assert_true(data->ids.in_file > 0 && data->rows.in_file > 0);
    const char *line = letters.data;
    for (int64_t r = 0; r < RECORDS; r++, line += strlen(line) + 1) {
        struct lb_sample s;
        assert_int_equal(lb_dataset_get(data, r, &s, NULL), LB_OK);
        int64_t n = (int64_t)strlen(line) + 1;
        assert_int_equal(s.n, n < 50 ? n : 50);
        assert_int_equal(s.ids[0], 'p' + 1);
        for (int64_t t = 0; t < s.n; t++) {
            assert_int_equal(s.ids[t + 1], line[t] == '\0' ? 0 : line[t] + 1);
            assert_int_equal(lb_sample_counts(&s, t), true);
        }
    }
    lb_dataset_destroy(data);
    lb_buf_finish(&letters);
}

/* The process's most memory so far, in KiB. */
static long peak(void) {
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

static void memory_does_not_grow(void **state) {
    (void)state;
    static const char *const forms[][2] = {{"b.txt", "%s\n"},
                                           {"b.jsonl", "{\"prompt\": \"p\", \"completion\": \"%s\"}\n"}};
    if (LB_SANITIZED) {
        skip();
    }
    for (int f = 0; f < 2; f++) {
        for (int with_bos = 0; with_bos < 2; with_bos++) {
            struct lb_dataset *data = NULL;
            long before = 0;
            for (int times = 1; times <= 10; times += 9) {
                char *path = lb_path_join(folder, forms[f][0]);
                FILE *file = fopen(path, "wb");
                assert_non_null(file);
                for (int i = 0; i < times * 15000; i++) { /* 1 MB, 10 MB of letters */
                    static const char line[] =
                        "a line of sixty-four letters, all of which are a token each: abc";
                    fprintf(file, forms[f][1], line);
                }
                assert_int_equal(fclose(file), 0);
                lb_free(path);
                open_with(with_bos ? begun : plain, forms[f][0], 0, false, &data);
                lb_dataset_destroy(data);
                printf("%s, %d times: at most %ld KiB\n", forms[f][0], times, peak());
                assert_true(times == 1 || peak() - before < 3000);
                before = peak();
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_does_not_grow), /* before others need memory */
        cmocka_unit_test(bytes_come_back),      cmocka_unit_test(nowhere_to_go),
        cmocka_unit_test(begun_rows),           cmocka_unit_test(records),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
