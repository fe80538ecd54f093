#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/dataset.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static char folder[] = "/tmp/lb-dataset-XXXXXX";
static struct lb_tokenizer *letters; /* byte b is id b + 1, "th" is 257, <eos> is 0 */
static struct lb_recipe recipe = {.directory = folder, .max_length = 4};

/* The letter that byte-level vocabularies write for a byte, as UTF-8. */
static void put_letter(struct lb_buf *out, int byte) {
    static const char hex[] = "0123456789abcdef";
    int code = byte, next = 256;
    for (int b = 0; b < 256; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (!printable && b == byte) {
            code = next;
        }
        next += !printable;
    }
    lb_buf_printf(out, "\\u0%c%c%c", hex[code >> 8], hex[code >> 4 & 15], hex[code & 15]);
}

static int set_up(void **state) {
    (void)state;
    struct lb_buf json;
    lb_buf_init(&json, 1 << 16);
    lb_buf_append_str(
        &json,
        "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<eos>\",\"single_word\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],\"normalizer\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<eos>\":0");
    for (int b = 0; b < 256; b++) {
        lb_buf_append_str(&json, ",\"");
        put_letter(&json, b);
        lb_buf_printf(&json, "\":%d", b + 1);
    }
    lb_buf_append_str(&json, ",\"th\":257},\"merges\":[[\"t\",\"h\"]]}}");
    struct lb_detail detail = {0};
    enum lb_status status = lb_tokenizer_parse(json.data, json.len, "letters", &letters, &detail);
    lb_buf_finish(&json);
    if (status != LB_OK) {
        fprintf(stderr, "%s\n", detail.text);
    }
    return status == LB_OK && mkdtemp(folder) != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    lb_tokenizer_destroy(letters);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

static void write_file(const char *name, const void *bytes, size_t len) {
    char *path = lb_path_join(folder, name);
    assert_int_equal(lb_file_replace(path, bytes, len, NULL), LB_OK);
    lb_free(path);
}

static void write_text(const char *name, const char *text) {
    write_file(name, text, strlen(text));
}

/* Entries for tests: names are string literals that nobody changes. */
static struct lb_recipe_dataset entry(const char *path, enum lb_data_type type, const char *tag) {
    return (struct lb_recipe_dataset){
        .path = (char *)path, .type = type, .tag = (char *)tag, .field = (char *)"text"};
}

static struct lb_dataset *open_data(const struct lb_recipe_dataset *entries, unsigned n, bool keep_short) {
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    if (lb_dataset_open(&recipe, entries, n, keep_short, letters, 0, NULL, &data, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return data;
}

static void expect_error(const struct lb_recipe_dataset *entries, unsigned n, const char *message) {
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    assert_int_not_equal(lb_dataset_open(&recipe, entries, n, false, letters, 0, NULL, &data, &detail),
                         LB_OK);
    assert_null(data);
    if (strstr(detail.text, message) == NULL) {
        fail_msg("expected: %s\n     but was: %s", message, detail.text);
    }
}

static void expect_row(const struct lb_dataset *data, int64_t i, const char *text, int tag) {
    struct lb_sample s;
    assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
    assert_int_equal(s.n + 1, strlen(text));
    assert_int_equal(s.tag, tag);
    for (int64_t t = 0; t <= s.n; t++) {
        /* '.' stands for the end of a text, '#' for "th". */
        int want = text[t] == '.' ? 0 : (text[t] == '#' ? 257 : text[t] + 1);
        if (s.ids[t] != want) {
            fail_msg("row %lld, id %lld: %d, expected %d ('%c')", (long long)i, (long long)t, s.ids[t], want,
                     text[t]);
        }
    }
}

static void rows_overlap_by_one(void **state) {
    (void)state;
    write_text("a.txt", "ab\n\ncde\r\nthf"); /* ab.cde.thf. -> a b . c d e . th f . */
    struct lb_recipe_dataset e = entry("a.txt", LB_DATA_TEXT, "x");
    struct lb_dataset *data = open_data(&e, 1, false);
    assert_int_equal(lb_dataset_count(data), 2);
    expect_row(data, 0, "ab.cd", 0);
    expect_row(data, 1, "de.#f", 0);
    /* labels: b . c d | e . th f: 1+1+1+1 + 1+1+2+1 bytes */
    assert_int_equal(lb_dataset_bytes(data, -1), 9);
    assert_int_equal(lb_dataset_bytes(data, 0), 9);
    assert_int_equal(lb_dataset_features(data), 0);
    lb_dataset_destroy(data);
    data = open_data(&e, 1, true);
    assert_int_equal(lb_dataset_count(data), 3);
    expect_row(data, 2, "f.", 0);
    assert_int_equal(lb_dataset_bytes(data, -1), 10);
    lb_dataset_destroy(data);
}

static void max_tokens_counts_labels(void **state) {
    (void)state;
    write_text("b.txt", "abcdefghijkl\nmnop\n");
    struct lb_recipe_dataset e = entry("b.txt", LB_DATA_TEXT, NULL);
    e.max_tokens = 6;
    struct lb_dataset *data = open_data(&e, 1, true);
    assert_int_equal(lb_dataset_count(data), 2);
    expect_row(data, 0, "abcde", -1);
    expect_row(data, 1, "efg", -1);
    lb_dataset_destroy(data);
    data = open_data(&e, 1, false);
    assert_int_equal(lb_dataset_count(data), 1);
    lb_dataset_destroy(data);
}

static void tags_are_shared_and_entries_kept_apart(void **state) {
    (void)state;
    write_text("c.txt", "abcdefgh\n");
    write_text("d.jsonl", "{\"text\": \"ij\\nkl\", \"n\": 1}\n\n{\"text\": \"m\"}\n");
    const struct lb_recipe_dataset e[] = {entry("c.txt", LB_DATA_TEXT, "one"),
                                          entry("d.jsonl", LB_DATA_JSONL, "two"),
                                          entry("c.txt", LB_DATA_TEXT, "one")};
    struct lb_dataset *data = open_data(e, 3, false);
    assert_int_equal(lb_dataset_tags(data), 2);
    assert_string_equal(lb_dataset_tag(data, 0), "one");
    assert_string_equal(lb_dataset_tag(data, 1), "two");
    assert_int_equal(lb_dataset_count(data), 5);
    expect_row(data, 1, "efgh.", 0);
    expect_row(data, 2, "ij\nkl", 1);
    expect_row(data, 3, "abcde", 0); /* "l.m." is too short, and no row goes from one entry into the next */
    assert_int_equal(lb_dataset_bytes(data, 0), 16);
    assert_int_equal(lb_dataset_bytes(data, 1), 4);
    assert_int_equal(lb_dataset_bytes(data, -1), 20);
    lb_dataset_destroy(data);
}

/* A byte order mark is no text, and what other tools write beside it in a line does not matter. */
static void what_others_write_is_read(void **state) {
    (void)state;
    write_text("m.txt", "\xef\xbb\xbf"
                        "abcd\n");
    struct lb_recipe_dataset e = entry("m.txt", LB_DATA_TEXT, NULL);
    struct lb_dataset *data = open_data(&e, 1, false);
    assert_int_equal(lb_dataset_count(data), 1);
    expect_row(data, 0, "abcd.", -1);
    lb_dataset_destroy(data);
    write_text("m.jsonl", "\xef\xbb\xbf{\"text\": \"a\", \"x\": NaN}\n"
                          "{\"text\": \"b\", \"x\": [-Infinity, 123456789012345678901234567890]}\n \t\n"
                          "{\"text\": \"no\", \"text\": \"c\"}\n");
    e = entry("m.jsonl", LB_DATA_JSONL, NULL);
    data = open_data(&e, 1, false);
    assert_int_equal(lb_dataset_count(data), 1);
    expect_row(data, 0, "a.b.c", -1);
    lb_dataset_destroy(data);
    write_text("m.jsonl", "{\"text\": \"ab\\u0000d\"}\n");
    data = open_data(&e, 1, false);
    struct lb_sample s;
    assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
    assert_int_equal(s.ids[2], 1); /* the byte 0 */
    assert_int_equal(s.ids[3], 'd' + 1);
    lb_dataset_destroy(data);
    write_text("m.jsonl", "{\"text\": NaN}\n");
    expect_error(&e, 1, "m.jsonl:1: the line: ");
}

static void bad_texts(void **state) {
    (void)state;
    struct lb_recipe_dataset e = entry("none.txt", LB_DATA_TEXT, NULL);
    expect_error(&e, 1, "none.txt: No such file");
    write_text("e.txt", "good\nbad \xff here\nmore\n");
    e = entry("e.txt", LB_DATA_TEXT, NULL);
    expect_error(&e, 1, "e.txt:2: ");
    write_text("e.txt", "good\n");
    volatile sig_atomic_t stop = 1;
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_dataset_open(&recipe, &e, 1, false, letters, 0, &stop, &data, &detail),
                     LB_E_CANCELLED);
    assert_null(data);
    write_text("e.txt", "\n\n");
    expect_error(&e, 1, "e.txt: holds no text: all its lines are blank");
    write_text("e.txt", "  \n \t \r\n\n");
    expect_error(&e, 1, "e.txt: holds no text: all its lines are blank");
    write_text("e.txt", "");
    expect_error(&e, 1, "e.txt: holds no text: it is empty");
    write_text("e.txt", "abc\n");
    expect_error(&e, 1, "no whole row of max_length 4 tokens");
    write_text("e.jsonl", "{\"text\": \"abcd\"}\n{\"body\": \"abcd\"}\n");
    e = entry("e.jsonl", LB_DATA_JSONL, NULL);
    expect_error(&e, 1, "e.jsonl:2: ");
    write_text("e.jsonl", "{\"text\": 5}\n");
    expect_error(&e, 1, "e.jsonl:1: ");
    write_text("e.jsonl", "{\"text\": \"abc\"");
    expect_error(&e, 1, "e.jsonl:1: ");
    const struct lb_recipe_dataset mixed[] = {entry("c.txt", LB_DATA_TEXT, NULL),
                                              entry("i", LB_DATA_IDX, NULL)};
    expect_error(mixed, 2, "text and images do not mix");
}

/* More lines than a block holds, on different numbers of threads. */
static void threads_do_not_matter(void **state) {
    (void)state;
    struct lb_buf text;
    lb_buf_init(&text, 1 << 22);
    for (int i = 0; i < 20011; i++) {
        lb_buf_printf(&text, "line %d the %x\n", i, i * 7919);
    }
    write_file("long.txt", text.data, text.len);
    struct lb_recipe_dataset e = entry("long.txt", LB_DATA_TEXT, NULL);
    char first[65] = "";
    for (int threads = 1; threads <= 5; threads += 2) {
        omp_set_num_threads(threads);
        struct lb_dataset *data = open_data(&e, 1, true);
        assert_int_equal(lb_dataset_bytes(data, -1),
                         text.len - 1); /* all but the first byte, which is no label */
        if (threads > 1) {
            assert_string_equal(lb_dataset_fingerprint(data), first);
        }
        strcpy(first, lb_dataset_fingerprint(data));
        lb_dataset_destroy(data);
    }
    omp_set_num_threads(2);
    lb_buf_finish(&text);
}

static void fingerprint_sees_everything(void **state) {
    (void)state;
    write_text("f.txt", "abcdefghij\n");
    struct lb_recipe_dataset e = entry("f.txt", LB_DATA_TEXT, "x");
    char base[65];
    struct lb_dataset *data = open_data(&e, 1, false);
    strcpy(base, lb_dataset_fingerprint(data));
    lb_dataset_destroy(data);
    data = open_data(&e, 1, true); /* the short row counts */
    assert_string_not_equal(base, lb_dataset_fingerprint(data));
    lb_dataset_destroy(data);
    e.tag = (char *)"y";
    data = open_data(&e, 1, false);
    assert_string_not_equal(base, lb_dataset_fingerprint(data));
    lb_dataset_destroy(data);
    e.tag = (char *)"x";
    write_text("f.txt", "abcdefgxij\n");
    data = open_data(&e, 1, false);
    assert_string_not_equal(base, lb_dataset_fingerprint(data));
    lb_dataset_destroy(data);
    write_text("f.txt", "abcdefghij\n");
    data = open_data(&e, 1, false);
    assert_string_equal(base, lb_dataset_fingerprint(data));
    lb_dataset_destroy(data);
}

/* ---- images ---- */

static const uint8_t pixels[] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 51, 102, 153, 204, 255};
static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 0};

static struct lb_recipe_dataset image_entry(const char *images, const char *label_file) {
    struct lb_recipe_dataset e = entry(images, LB_DATA_IDX, "test");
    e.labels = (char *)label_file;
    return e;
}

static void images_and_ranges(void **state) {
    (void)state;
    write_file("i", pixels, sizeof pixels);
    write_file("l", labels, sizeof labels);
    char *path = lb_path_join(folder, "i.gz");
    gzFile gz = gzopen(path, "wb");
    assert_int_equal(gzwrite(gz, pixels, sizeof pixels), (int)sizeof pixels);
    assert_int_equal(gzclose(gz), Z_OK);
    lb_free(path);
    const char *const names[] = {"i", "i.gz"};
    char first[65] = "";
    for (int k = 0; k < 2; k++) {
        struct lb_recipe_dataset e = image_entry(names[k], "l");
        struct lb_dataset *data = open_data(&e, 1, false);
        assert_int_equal(lb_dataset_count(data), 3);
        assert_int_equal(lb_dataset_features(data), 2);
        assert_int_equal(lb_dataset_bytes(data, -1), 0);
        struct lb_sample s;
        assert_int_equal(lb_dataset_get(data, 1, &s, NULL), LB_OK);
        assert_null(s.ids);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.label, 2);
        assert_int_equal(s.tag, 0);
        assert_true(s.features[0] == 0.4f && s.features[1] == 0.6f);
        assert_true(k == 0 || strcmp(first, lb_dataset_fingerprint(data)) == 0);
        strcpy(first, lb_dataset_fingerprint(data));
        lb_dataset_destroy(data);
    }
    int64_t two = 2;
    struct lb_recipe_dataset e = image_entry("i", "l");
    e.skip_samples = 1;
    e.exclude_labels = &two;
    e.exclude_labels_count = 1;
    struct lb_dataset *data = open_data(&e, 1, false);
    assert_int_equal(lb_dataset_count(data), 1);
    struct lb_sample s;
    assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
    assert_int_equal(s.label, 0);
    assert_true(s.features[1] == 1.0f);
    lb_dataset_destroy(data);
}

static void bad_images(void **state) {
    (void)state;
    write_file("i", pixels, sizeof pixels);
    write_file("l", labels, sizeof labels);
    /* Every truncation of either file is an error. */
    for (size_t len = 0; len < sizeof pixels; len++) {
        write_file("short", pixels, len);
        struct lb_recipe_dataset e = image_entry("short", "l");
        expect_error(&e, 1, "short: ");
    }
    for (size_t len = 0; len < sizeof labels; len++) {
        write_file("short", labels, len);
        struct lb_recipe_dataset e = image_entry("i", "short");
        expect_error(&e, 1, "short");
    }
    uint8_t bytes[sizeof pixels + 1];
    memcpy(bytes, pixels, sizeof pixels);
    bytes[sizeof pixels] = 0;
    write_file("bad", bytes, sizeof bytes);
    struct lb_recipe_dataset e = image_entry("bad", "l");
    expect_error(&e, 1, "bad: has bytes behind the last item");
    bytes[2] = 13;
    write_file("bad", bytes, sizeof pixels);
    expect_error(&e, 1, "IDX items of type 0x0d");
    bytes[2] = 8;
    bytes[4] = bytes[8] = bytes[12] = 255; /* 4 billion squared: no allocation is tried */
    write_file("bad", bytes, sizeof pixels);
    expect_error(&e, 1, "more than 4 GiB");
    memcpy(bytes, "PNG!", 4);
    write_file("bad", bytes, sizeof pixels);
    expect_error(&e, 1, "not an IDX file");
    e = image_entry("i", "i");
    expect_error(&e, 1, "items of 2 bytes where labels of one byte are expected");
    e = image_entry("i", "l");
    e.skip_samples = 3;
    expect_error(&e, 1, "go beyond its 3 images");
    e.skip_samples = 1;
    e.max_samples = 3;
    expect_error(&e, 1, "go beyond its 3 images");
    e = image_entry("i", NULL);
    expect_error(&e, 1, "images need labels");
    recipe.student.config.num_labels = 2;
    e = image_entry("i", "l");
    expect_error(&e, 1, "item 1 has label 2; the student has num_labels 2");
    recipe.student.config.num_labels = 0;
    struct lb_dataset *data = open_data(&e, 1, false);
    const struct {
        struct lb_config config;
        const char *message;
    } students[] = {
        {{.input_size = lb_dataset_features(data), .num_labels = 3}, NULL},
        {{.input_size = lb_dataset_features(data), .num_labels = 2},
         "eval: an item has label 2, the student's num_labels is 2"},
        {{.input_size = 9, .num_labels = 3}, "the student's input_size is 9"},
        {{.vocab_size = 300}, "eval: these are images, the student reads text"},
    };
    for (size_t i = 0; i < sizeof students / sizeof students[0]; i++) {
        struct lb_detail detail = {0};
        enum lb_status status = lb_dataset_fits(data, &students[i].config, "eval", &detail);
        assert_int_equal(status, students[i].message != NULL ? LB_E_MISMATCH : LB_OK);
        assert_non_null(strstr(detail.text, students[i].message != NULL ? students[i].message : ""));
    }
    lb_dataset_destroy(data);
    int64_t all[] = {0, 1, 2};
    e.exclude_labels = all;
    e.exclude_labels_count = 3;
    expect_error(&e, 1, "the data hold no image");
}

/* ---- order ---- */

static void order_is_a_shuffle_per_epoch(void **state) {
    (void)state;
    struct lb_order *order = lb_order_create(10, 42), *again = lb_order_create(10, 42),
                    *other = lb_order_create(10, 43);
    int64_t seen[2][10] = {{0}}, batch[4], same[4], different = 0, epochs_differ = 0, flat[20];
    for (int64_t m = 0; m < 5; m++) {
        assert_int_equal(lb_order_batch(order, m, 4, batch), LB_OK);
        for (int i = 0; i < 4; i++) {
            int64_t at = m * 4 + i;
            flat[at] = batch[i];
            seen[at / 10][batch[i]]++;
        }
    }
    for (int i = 0; i < 10; i++) {
        assert_int_equal(seen[0][i], 1);
        assert_int_equal(seen[1][i], 1);
        epochs_differ += flat[i] != flat[10 + i];
    }
    assert_true(epochs_differ > 0);
    /* A pure function: backwards and on another object it says the same. */
    for (int64_t m = 4; m >= 0; m--) {
        assert_int_equal(lb_order_batch(again, m, 4, batch), LB_OK);
        assert_int_equal(lb_order_batch(other, m, 4, same), LB_OK);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(batch[i], flat[m * 4 + i]);
            different += same[i] != batch[i];
        }
    }
    assert_true(different > 0);
    int64_t large[35];
    assert_int_equal(lb_order_batch(order, 1, 35, large), LB_OK); /* over several epochs */
    for (int i = 0; i < 35; i++) {
        assert_true(large[i] >= 0 && large[i] < 10);
    }
    assert_int_equal(lb_order_batch(order, INT64_MAX, 2, batch), LB_E_ARG);
    assert_int_equal(lb_order_batch(order, -1, 2, batch), LB_E_ARG);
    assert_null(lb_order_create(0, 1));
    lb_order_destroy(order);
    lb_order_destroy(again);
    lb_order_destroy(other);
    lb_order_destroy(NULL);
}

/* A shuffle that is not listed is one too: each once an epoch, another each epoch, none of them near its
 * place. */
static void order_without_a_list(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static const struct lb_order_part all = {7, COUNT, 1};
    struct lb_order *order = lb_order_create_parts(&all, 1, false, 42),
                    *again = lb_order_create_parts(&all, 1, false, 42);
    int64_t seen[2][COUNT] = {{0}}, one[COUNT], two[COUNT], same = 0, near = 0, batch[10];
    assert_int_equal(lb_order_batch(order, 0, COUNT, one), LB_OK);
    assert_int_equal(lb_order_batch(order, 1, COUNT, two), LB_OK);
    for (int i = 0; i < COUNT; i++) {
        seen[0][one[i] - 7]++;
        seen[1][two[i] - 7]++;
        same += one[i] == two[i];
        near += llabs(one[i] - 7 - i) < COUNT / 10;
    }
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(seen[0][i], 1);
        assert_int_equal(seen[1][i], 1);
    }
    assert_true(same < 10 && near > 100 && near < 280); /* by chance 1 and 190 */
    for (int64_t m = 2 * COUNT / 10 - 1; m >= 0; m--) {
        assert_int_equal(lb_order_batch(again, m, 10, batch), LB_OK);
        for (int i = 0; i < 10; i++) {
            int64_t at = m * 10 + i;
            assert_int_equal(batch[i], at < COUNT ? one[at] : two[at - COUNT]);
        }
    }
    lb_order_destroy(order);
    lb_order_destroy(again);
}

/* Parts have their shares of each 4096 samples, each part its own epochs; a pure function of the position. */
static void order_by_weights(void **state) {
    (void)state;
    enum { N = 3 * 4096 };
    static const struct lb_order_part parts[] = {{0, 10, 1}, {10, 5000, 2.5}, {5010, 3, 0.5}};
    static int64_t all[N], batch[16];
    int64_t seen[5013] = {0}, of[3] = {0}, in_block[3] = {0}, runs = 0;
    struct lb_order *order = lb_order_create_parts(parts, 3, true, 9),
                    *again = lb_order_create_parts(parts, 3, true, 9);
    assert_int_equal(lb_order_batch(order, 0, N, all), LB_OK);
    for (int i = 0; i < N; i++) {
        int k = all[i] < 10 ? 0 : all[i] < 5010 ? 1 : 2;
        of[k]++;
        in_block[k] += i < 4096;
        seen[all[i]]++;
        runs += i > 0 && (all[i] < 10) != (all[i - 1] < 10);
        if (i % 4096 == 4095) { /* shares are exact in each block, but for rounding */
            assert_true(llabs(of[0] - (i + 1) / 4) <= 1 && llabs(of[2] - (i + 1) / 8) <= 1);
        }
    }
    assert_int_equal(in_block[0] + in_block[1] + in_block[2], 4096);
    assert_true(runs > N / 4); /* they are mixed */
    for (int i = 0; i < 5013; i++) {
        int k = i < 10 ? 0 : i < 5010 ? 1 : 2;
        int64_t turns = of[k] / parts[k].count;
        assert_true(seen[i] == turns || seen[i] == turns + 1);
    }
    for (int64_t m = N / 16 - 1; m >= 0; m--) {
        assert_int_equal(lb_order_batch(again, m, 16, batch), LB_OK);
        for (int i = 0; i < 16; i++) {
            assert_int_equal(batch[i], all[m * 16 + i]);
        }
    }
    lb_order_destroy(order);
    lb_order_destroy(again);
    static const struct lb_order_part empty[] = {{0, 10, 1}, {10, 0, 1}};
    assert_null(lb_order_create_parts(empty, 2, true, 9));
}

/* Of many parts, too, each has its share, and no sample is passed over. */
static void order_by_many_weights(void **state) {
    (void)state;
    enum { PARTS = 300, EACH = 7, BLOCK = 4096 * 64, N = 2 * BLOCK };
    static struct lb_order_part parts[PARTS];
    static int64_t all[N], seen[PARTS * EACH];
    for (int k = 0; k < PARTS; k++) {
        parts[k] = (struct lb_order_part){k * EACH, EACH, 1};
    }
    struct lb_order *order = lb_order_create_parts(parts, PARTS, true, 9);
    assert_int_equal(lb_order_batch(order, 0, N, all), LB_OK);
    for (int i = 0; i < N; i++) {
        seen[all[i]]++;
    }
    for (int k = 0; k < PARTS; k++) {
        int64_t n = 0, least = INT64_MAX, most = 0;
        for (int i = 0; i < EACH; i++) {
            int64_t times = seen[k * EACH + i];
            n += times;
            least = times < least ? times : least;
            most = times > most ? times : most;
        }
        assert_true(most - least <= 1); /* each epoch has all of them */
        assert_true(llabs(n - N / PARTS) <= (k == 0 ? PARTS : 1));
    }
    lb_order_destroy(order);
    assert_null(lb_order_create_parts(parts, LB_MAX_WEIGHTED_SETS + 1, true, 9));
}

static void memory_runs_out(void **state) {
    (void)state;
    write_text("c.txt", "abcdefgh\n");
    write_file("i", pixels, sizeof pixels);
    write_file("l", labels, sizeof labels);
    const struct lb_recipe_dataset both[] = {entry("c.txt", LB_DATA_TEXT, "x"), image_entry("i", "l")};
    for (int k = 0; k < 2; k++) {
        for (long i = 1;; i++) {
            struct lb_dataset *data = NULL;
            lb_mem_fail_from(i);
            enum lb_status status =
                lb_dataset_open(&recipe, &both[k], 1, false, letters, 0, NULL, &data, NULL);
            lb_mem_fail_from(0);
            if (status == LB_OK) {
                assert_true(i > 5);
                lb_dataset_destroy(data);
                break;
            }
            assert_null(data);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_overlap_by_one),
        cmocka_unit_test(max_tokens_counts_labels),
        cmocka_unit_test(tags_are_shared_and_entries_kept_apart),
        cmocka_unit_test(what_others_write_is_read),
        cmocka_unit_test(bad_texts),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(fingerprint_sees_everything),
        cmocka_unit_test(images_and_ranges),
        cmocka_unit_test(bad_images),
        cmocka_unit_test(order_is_a_shuffle_per_epoch),
        cmocka_unit_test(order_without_a_list),
        cmocka_unit_test(order_by_weights),
        cmocka_unit_test(order_by_many_weights),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
