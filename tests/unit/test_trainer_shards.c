/* Token shards as their own tools wrote them (tests/golden/make_shards.py), and what is wrong with others. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/dataset.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const int32_t stream[] = {1, 2, 3, 0, 4, 5, 0, 257, 6, 7, 8, 9, 0};
static char folder[] = "/tmp/lb-shards-XXXXXX", golden[4096];
static struct lb_tokenizer *tokenizer; /* 300 tokens: id n is "xn", <eos> is 0 */
static struct lb_recipe recipe = {.directory = folder, .max_length = 4};

static int set_up(void **state) {
    (void)state;
    struct lb_buf json;
    struct lb_detail detail = {0};
    lb_buf_init(&json, 1 << 16);
    lb_buf_append_str(
        &json,
        "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<eos>\",\"single_word\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],\"normalizer\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<eos>\":0");
    for (int id = 1; id < 300; id++) {
        lb_buf_printf(&json, ",\"x%d\":%d", id, id);
    }
    lb_buf_append_str(&json, "},\"merges\":[]}}");
    enum lb_status status = lb_tokenizer_parse(json.data, json.len, "numbers", &tokenizer, &detail);
    lb_buf_finish(&json);
    if (status != LB_OK) {
        fprintf(stderr, "%s\n", detail.text);
    }
    const char *root = getenv("LB_SOURCE_ROOT");
    snprintf(golden, sizeof golden, "%s/tests/golden/shards", root != NULL ? root : ".");
    return status == LB_OK && mkdtemp(folder) != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    lb_tokenizer_destroy(tokenizer);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

static enum lb_status open_one(const char *path, int64_t max_tokens, bool keep_short, struct lb_dataset **out,
                               struct lb_detail *detail) {
    const struct lb_recipe_dataset entry = {
        .path = path, .type = LB_DATA_TOKENS, .tag = "t", .max_tokens = max_tokens};
    return lb_dataset_open(&recipe, &entry, 1, keep_short, tokenizer, 0, NULL, out, detail);
}

static void expect_rows(const char *path, int64_t max_tokens, bool keep_short, int64_t labels) {
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    if (open_one(path, max_tokens, keep_short, &data, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    int64_t seen = 0, bytes = 0;
    for (int64_t i = 0; i < lb_dataset_count(data); i++) {
        struct lb_sample s;
        assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
        assert_int_equal(s.within, i > 0);
        assert_int_equal(s.tag, 0);
        for (int64_t t = 0; t <= s.n; t++) {
            assert_int_equal(s.ids[t], stream[i * 4 + t]);
        }
        for (int64_t t = 1; t <= s.n; t++) {
            bytes += s.ids[t] == 0 ? 1 : 1 + snprintf(NULL, 0, "%d", s.ids[t]); /* eos is the line's end */
        }
        seen += s.n;
    }
    assert_int_equal(seen, labels);
    assert_int_equal(lb_dataset_bytes(data, -1), bytes);
    assert_int_equal(lb_dataset_bytes(data, 0), bytes);
    lb_dataset_destroy(data);
}

static void layouts_of_others(void **state) {
    (void)state;
    static const char *const names[] = {"nanogpt.bin", "llmc_gpt2.bin", "llmc_llama3.bin", "megatron16.bin",
                                        "megatron32.bin"};
    char first[65] = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4200];
        snprintf(path, sizeof path, "%s/%s", golden, names[i]);
        expect_rows(path, 0, false, 12);
        expect_rows(path, 10, true, 10); /* a last short row */
        expect_rows(path, 10, false, 8);
        struct lb_dataset *data = NULL;
        assert_int_equal(open_one(path, 0, false, &data, NULL), LB_OK);
        if (i > 0) { /* the same ids are the same data, whoever wrote them */
            assert_string_equal(lb_dataset_fingerprint(data), first);
        }
        snprintf(first, sizeof first, "%s", lb_dataset_fingerprint(data));
        lb_dataset_destroy(data);
    }
}

/* Rows that are wanted at the same time stay, as many as was said. */
static void rows_are_held(void **state) {
    (void)state;
    enum { ROWS = 300 };
    uint16_t ids[ROWS * 4 + 1];
    for (int i = 0; i <= ROWS * 4; i++) {
        ids[i] = (uint16_t)(i % 300);
    }
    char *path = lb_path_join(folder, "long.bin");
    assert_int_equal(lb_file_replace(path, ids, sizeof ids, NULL), LB_OK);
    struct lb_dataset *data = NULL;
    struct lb_sample s[ROWS];
    assert_int_equal(open_one(path, 0, false, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_hold(data, ROWS, NULL), LB_OK);
    for (int64_t i = 0; i < ROWS; i++) {
        assert_int_equal(lb_dataset_get(data, i, &s[i], NULL), LB_OK);
    }
    for (int64_t i = 0; i < ROWS; i++) {
        assert_int_equal(s[i].ids[0], i * 4 % 300);
        assert_int_equal(s[i].ids[4], (i * 4 + 4) % 300);
    }
    /* Somebody cuts the file while it is read. */
    struct lb_detail detail = {0};
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(lb_dataset_get(data, ROWS - 1, &s[0], &detail), LB_E_IO);
    assert_non_null(strstr(detail.text, "long.bin: ends before byte"));
    lb_dataset_destroy(data);
    lb_free(path);
}

/* Somebody writes into the file while it is in use: it is told, and no id beyond the vocabulary comes out. */
static void writing_shows(void **state) {
    (void)state;
    const uint16_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, other[] = {9, 8}, large[] = {65535, 65535};
    for (int way = 0; way < 3; way++) {
        char *path = lb_path_join(folder, "used.bin");
        struct lb_dataset *data = NULL;
        struct lb_detail detail = {0};
        struct lb_sample s;
        assert_int_equal(lb_file_replace(path, ids, sizeof ids, NULL), LB_OK);
        assert_int_equal(open_one(path, 0, false, &data, NULL), LB_OK);
        assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
        int fd = open(path, O_WRONLY);
        struct stat before;
        assert_true(fd >= 0 && fstat(fd, &before) == 0);
        assert_int_equal(pwrite(fd, way == 0 ? other : large, 4, way == 1 ? sizeof ids : 10), 4);
        const struct timespec times[] = {before.st_atim, before.st_mtim};
        const struct timespec later[] = {{1, 0}, {1, 0}};
        assert_int_equal(futimens(fd, way == 2 ? times : later), 0); /* clocks that do not tell */
        close(fd);
        assert_int_equal(lb_dataset_get(data, 1, &s, &detail), LB_E_IO);
        assert_non_null(strstr(detail.text, "used.bin: was written to while it was in use"));
        lb_dataset_destroy(data);
        lb_free(path);
    }
}

static void expect_error(const char *name, const void *bytes, size_t len, const char *message) {
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    char *path = lb_path_join(folder, name);
    assert_int_equal(lb_file_replace(path, bytes, len, NULL), LB_OK);
    if (lb_ends_with(name, ".idx")) {
        memcpy(path + strlen(path) - 3, "bin", 3);
    }
    assert_int_not_equal(open_one(path, 0, false, &data, &detail), LB_OK);
    if (strstr(detail.text, message) == NULL || strchr(detail.text, '\n') != NULL) {
        fail_msg("expected: %s\n     but was: %s", message, detail.text);
    }
    lb_free(path);
}

static void what_is_wrong_is_said(void **state) {
    (void)state;
    const uint16_t large[] = {1, 2, 300, 4, 5};
    expect_error("large.bin", large, sizeof large, "large.bin: id 2 is 300, and the tokenizer has 300");
    expect_error("odd.bin", "abc", 3, "odd.bin: 3 bytes are no whole number of uint16 ids");
    expect_error("one.bin", "a", 0, "one.bin: holds no text: 0 ids");
    struct lb_dataset *none = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(open_one(folder, 0, false, &none, &detail), LB_E_IO);
    assert_non_null(strstr(detail.text, "is a folder, not a regular file"));
    char *pipe = lb_path_join(folder, "pipe.bin");
    memset(&detail, 0, sizeof detail);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(open_one(pipe, 0, false, &none, &detail), LB_E_IO);
    assert_non_null(strstr(detail.text, "is a special file, not a regular file"));
    lb_free(pipe);
    int32_t header[257] = {20240520, 1, 2};
    expect_error("short.bin", header, 600, "short.bin: ends within llm.c's header, at byte 600");
    header[1] = 2;
    expect_error("v2.bin", header, sizeof header,
                 "llm.c's layout of magic 20240520 and version 2 is not known");
    header[1] = 1;
    header[2] = 5;
    expect_error("cut.bin", header, sizeof header,
                 "cut.bin: its header tells of 5 ids, its 1028 bytes hold 2");
    header[0] = 20240801;
    header[1] = 7;
    header[2] = 1;
    header[256] = -1;
    expect_error("minus.bin", header, sizeof header, "minus.bin: holds no text: 1 ids");

    uint8_t index[102];
    char from[4200];
    struct lb_buf whole;
    lb_buf_init(&whole, 1 << 16);
    snprintf(from, sizeof from, "%s/megatron16.idx", golden);
    assert_int_equal(lb_file_read(from, &whole, NULL), LB_OK);
    assert_int_equal(whole.len, sizeof index);
    char *ids = lb_path_join(folder, "m.bin");
    assert_int_equal(lb_file_replace(ids, "0123456789012345678901234", 26, NULL), LB_OK);
    for (size_t n = 0; n < sizeof index; n++) { /* cut off anywhere */
        expect_error("m.idx", whole.data, n, "m.idx: ");
    }
    memcpy(index, whole.data, sizeof index);
    index[17] = 5;
    expect_error("m.idx", index, sizeof index, "m.idx: ids of datatype 5");
    index[17] = 4;
    expect_error("m.idx", index, sizeof index, "does not stand behind the one before");
    index[17] = 8;
    index[34]++;
    expect_error("m.idx", index, sizeof index, "does not stand behind the one before");
    index[34]--;
    index[42]++;
    expect_error("m.idx", index, sizeof index, "m.idx: tells of 28 bytes, ");
    lb_buf_finish(&whole);
    lb_free(ids);
}

static void memory_runs_out(void **state) {
    (void)state;
    char path[4200];
    struct lb_dataset *data = NULL;
    snprintf(path, sizeof path, "%s/megatron16.bin", golden);
    lb_mem_fail_from(0);
    assert_int_equal(open_one(path, 0, false, &data, NULL), LB_OK);
    lb_dataset_destroy(data);
    long n = lb_mem_count();
    for (long i = 1; i <= n; i++) {
        struct lb_detail detail = {0};
        data = NULL;
        lb_mem_fail_from(i);
        enum lb_status status = open_one(path, 0, false, &data, &detail);
        lb_mem_fail_from(0);
        assert_int_not_equal(status, LB_OK);
        assert_null(data);
        assert_true(detail.text[0] != '\0');
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts_of_others), cmocka_unit_test(rows_are_held),
        cmocka_unit_test(writing_shows),     cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
