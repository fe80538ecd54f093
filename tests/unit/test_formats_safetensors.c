/* safetensors: what is written is read back; everything that is not exactly right is refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float weights[6] = {1, -2, 3.5f, 0, 1e-30f, 1e30f};
static const uint16_t halves[4] = {0x3C00, 0xC000, 0x7BFF, 0x0001};
static const int64_t whole[1] = {INT64_MIN};
static const uint8_t flags[3] = {1, 0, 1};

static const struct lb_tensor sample[] = {
    {.name = "model.embed_tokens.weight",
     .dtype = LB_F32,
     .n_dims = 2,
     .dim = {2, 3},
     .data = weights,
     .bytes = 24},
    {.name = "half", .dtype = LB_BF16, .n_dims = 4, .dim = {1, 2, 2, 1}, .data = halves, .bytes = 8},
    {.name = "scalar", .dtype = LB_I64, .n_dims = 0, .data = whole, .bytes = 8},
    {.name = "nothing", .dtype = LB_F32, .n_dims = 2, .dim = {0, 7}, .data = NULL, .bytes = 0},
    {.name = "Maße \"q\"", .dtype = LB_BOOL, .n_dims = 1, .dim = {3}, .data = flags, .bytes = 3},
    {.name = "after.odd", .dtype = LB_F32, .n_dims = 1, .dim = {6}, .data = weights, .bytes = 24},
};
#define N_SAMPLE (sizeof sample / sizeof *sample)
static const char *const sample_metadata[] = {"format", "pt", "note", "line one\nline two"};

static void encode_sample(struct lb_buf *buf) {
    struct lb_detail detail = {0};
    lb_buf_init(buf, 1 << 20);
    assert_int_equal(encode_safetensors(buf, sample, N_SAMPLE, sample_metadata, 2, &detail), LB_OK);
}

static void check_same(const struct lb_tensor *got, const struct lb_tensor *want) {
    assert_non_null(got);
    assert_string_equal(got->name, want->name);
    assert_int_equal(got->dtype, want->dtype);
    assert_int_equal(got->n_dims, want->n_dims);
    assert_memory_equal(got->dim, want->dim, sizeof *got->dim * (size_t)want->n_dims);
    assert_int_equal(got->bytes, want->bytes);
    if (want->bytes > 0) {
        assert_memory_equal(got->data, want->data, want->bytes);
    }
    assert_int_equal((uintptr_t)got->data % (lb_dtype_block_bytes(got->dtype)), 0);
}

static void check_sample(const struct lb_safetensors *file) {
    assert_int_equal(lb_safetensors_count(file), N_SAMPLE);
    for (size_t i = 0; i < N_SAMPLE; i++) {
        check_same(lb_safetensors_find(file, sample[i].name), &sample[i]);
    }
    assert_null(lb_safetensors_find(file, "model.embed_tokens"));
    assert_null(lb_safetensors_find(file, "__metadata__"));
    assert_null(lb_safetensors_get(file, N_SAMPLE));
    assert_string_equal(lb_safetensors_get(file, 0)->name, sample[0].name);
    assert_string_equal(lb_safetensors_get(file, N_SAMPLE - 1)->name, "after.odd");
    assert_string_equal(lb_safetensors_metadata(file, "format"), "pt");
    assert_string_equal(lb_safetensors_metadata(file, "note"), "line one\nline two");
    assert_null(lb_safetensors_metadata(file, "form"));
}

static void round_trip_in_memory(void **state) {
    (void)state;
    struct lb_buf buf;
    encode_sample(&buf);
    struct lb_safetensors *file = NULL;
    assert_int_equal(lb_safetensors_parse(buf.data, buf.len, "memory", &file, NULL), LB_OK);
    check_sample(file);
    struct lb_reader reader;
    lb_reader_init(&reader, buf.data, buf.len);
    assert_int_equal((8 + lb_read_u64(&reader)) % 64, 0); /* the first tensor's place in the file */
    lb_safetensors_destroy(file);
    lb_buf_finish(&buf);
}

/* The same bytes at each address modulo 8: tensors come out aligned all the same. */
static void any_address(void **state) {
    (void)state;
    struct lb_buf buf;
    encode_sample(&buf);
    for (size_t shift = 0; shift < 8; shift++) {
        char *moved = malloc(buf.len + 8);
        memcpy(moved + shift, buf.data, buf.len);
        struct lb_safetensors *file = NULL;
        assert_int_equal(lb_safetensors_parse(moved + shift, buf.len, "moved", &file, NULL), LB_OK);
        check_sample(file);
        lb_safetensors_destroy(file);
        free(moved);
    }
    lb_buf_finish(&buf);
}

static void every_truncation_fails(void **state) {
    (void)state;
    struct lb_buf buf;
    encode_sample(&buf);
    for (size_t len = 0; len < buf.len; len++) {
        char *cut = malloc(len > 0 ? len : 1); /* so that a sanitizer sees a read past the end */
        memcpy(cut, buf.data, len);
        struct lb_detail detail = {0};
        struct lb_safetensors *file = NULL;
        assert_int_equal(lb_safetensors_parse(cut, len, "cut.safetensors", &file, &detail), LB_E_FORMAT);
        assert_null(file);
        assert_non_null(strstr(detail.text, "cut.safetensors: "));
        free(cut);
    }
    lb_buf_finish(&buf);
}

static void no_file_for_each_failing_allocation(void **state) {
    (void)state;
    struct lb_buf buf;
    encode_sample(&buf);
    enum lb_status status = LB_E_NOMEM;
    long n = 0;
    while (status == LB_E_NOMEM && n < 1000) {
        struct lb_safetensors *file = NULL;
        struct lb_detail detail = {0};
        lb_mem_fail_from(++n);
        status = lb_safetensors_parse(buf.data + 0, buf.len, "memory", &file, &detail);
        lb_mem_fail_from(0);
        assert_true(status == LB_OK || (status == LB_E_NOMEM && file == NULL && detail.code == LB_E_NOMEM));
        lb_safetensors_destroy(file);
    }
    assert_int_equal(status, LB_OK);
    assert_in_range(n, 10, 999);

    status = LB_E_NOMEM;
    for (n = 0; status == LB_E_NOMEM && n < 1000;) {
        struct lb_buf again;
        lb_buf_init(&again, 1 << 20);
        lb_mem_fail_only(++n);
        status = encode_safetensors(&again, sample, N_SAMPLE, sample_metadata, 2, NULL);
        lb_mem_fail_from(0);
        assert_true(status == LB_E_NOMEM ||
                    (again.len == buf.len && memcmp(again.data, buf.data, buf.len) == 0));
        lb_buf_finish(&again);
    }
    assert_int_equal(status, LB_OK);
    lb_buf_finish(&buf);
}

/* ---- headers that must be refused ---- */

/* header and data_bytes zeros. */
static enum lb_status parse_header(const char *header, size_t header_len, size_t data_bytes,
                                   struct lb_detail *detail) {
    struct lb_buf buf;
    struct lb_safetensors *file = NULL;
    lb_buf_init(&buf, 1 << 20);
    lb_put_u64(&buf, header_len);
    lb_buf_append(&buf, header, header_len);
    for (size_t i = 0; i < data_bytes; i++) {
        lb_put_u8(&buf, 0);
    }
    enum lb_status status = lb_safetensors_parse(buf.data, buf.len, "bad.safetensors", &file, detail);
    lb_safetensors_destroy(file);
    lb_buf_finish(&buf);
    return status;
}

static const struct {
    const char *header;
    size_t data_bytes;
    enum lb_status status;
    const char *says; /* beside the file's name */
} refused[] = {
    {"[]", 0, LB_E_FORMAT, "'{'"},
    {" {}", 0, LB_E_FORMAT, "'{'"},
    {"{", 0, LB_E_FORMAT, "JSON"},
    {"{}x", 0, LB_E_FORMAT, "JSON"},
    {"{}", 1, LB_E_FORMAT, "1 bytes follow the last tensor"},
    {"{\"w\":7}", 0, LB_E_FORMAT, "entry w is no object"},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT, "name is empty"},
    {"{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT,
     "control characters"},
    {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT, "JSON"},
    {"{\"a\xFF\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT, "JSON"},
    {"{\"__metadata__\":[]}", 0, LB_E_FORMAT, "__metadata__"},
    {"{\"__metadata__\":{\"k\":1}}", 0, LB_E_FORMAT, "value of k is no string"},
    {"{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT, "tensor w: dtype"},
    {"{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, LB_E_UNSUPPORTED,
     "tensor w has dtype F8_E4M3"},
    {"{\"w\":{\"dtype\":\"Q8_0\",\"shape\":[32],\"data_offsets\":[0,34]}}", 34, LB_E_UNSUPPORTED,
     "dtype Q8_0"},
    {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT, "tensor w: shape"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, LB_E_UNSUPPORTED,
     "5 dimensions"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT, "shape[0]"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1.0],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT, "shape[1]"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT,
     "overflows"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT,
     "overflows"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT,
     "JSON"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, LB_E_FORMAT, "tensor w: data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, LB_E_FORMAT, "data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, LB_E_FORMAT, "data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, LB_E_FORMAT, "data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, LB_E_FORMAT, "data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":\"04\"}}", 4, LB_E_FORMAT, "data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, LB_E_FORMAT,
     "F32 of shape [2] is 8 bytes"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, LB_E_FORMAT,
     "tensor w ends at file byte"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, LB_E_FORMAT,
     "1 bytes follow the last tensor"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, LB_E_FORMAT, "a hole"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
     12, LB_E_FORMAT, "tensor b begins at data byte 8 but a ends at 4: a hole"},
    {"{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
     6, LB_E_FORMAT, "tensor b begins at data byte 2 but a ends at 4: an overlap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
     4, LB_E_FORMAT, "an overlap"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, LB_E_FORMAT, "duplicate"},
    {"{\"w\":[[[[[[[[[[]]]]]]]]]]}", 0, LB_E_LIMIT, "nested"},
};

static void damaged_headers_are_refused_by_name(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct lb_detail detail = {0};
        enum lb_status status =
            parse_header(refused[i].header, strlen(refused[i].header), refused[i].data_bytes, &detail);
        if (status != refused[i].status || strstr(detail.text, refused[i].says) == NULL ||
            strncmp(detail.text, "bad.safetensors: ", 17) != 0) {
            fail_msg("header %s: status %d, text \"%s\"; expected %d and \"%s\"", refused[i].header,
                     (int)status, detail.text, (int)refused[i].status, refused[i].says);
        }
    }
    /* a few that are fine, so that the list above means something */
    static const char good[] = "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  ";
    assert_int_equal(parse_header(good, sizeof good - 1, 4, NULL), LB_OK);
    assert_int_equal(parse_header("{}", 2, 0, NULL), LB_OK);
}

static void header_lengths_are_checked_first(void **state) {
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, INT64_MAX, 100000001, 100000000, 9};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct lb_buf buf;
        struct lb_safetensors *file = NULL;
        struct lb_detail detail = {0};
        lb_buf_init(&buf, 64);
        lb_put_u64(&buf, lengths[i]);
        lb_buf_append_str(&buf, "{}      ");
        assert_int_equal(lb_safetensors_parse(buf.data, buf.len, "long", &file, &detail), LB_E_FORMAT);
        assert_non_null(strstr(detail.text, i < 4 ? "limit" : "cut short"));
        lb_buf_finish(&buf);
    }
}

/* ---- writing ---- */

static void check_unwritable(const struct lb_tensor *tensors, size_t n, enum lb_status status,
                             const char *says) {
    struct lb_detail detail = {0};
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 16);
    assert_int_equal(encode_safetensors(&buf, tensors, n, NULL, 0, &detail), status);
    assert_non_null(strstr(detail.text, says));
    assert_int_equal(buf.len, 0);
    lb_buf_finish(&buf);
}

static void unwritable_tensors_are_refused(void **state) {
    (void)state;
    struct lb_tensor two[2] = {sample[0], sample[0]};
    check_unwritable(two, 2, LB_E_ARG, "tensor model.embed_tokens.weight is given twice");
    two[0].bytes = 20;
    check_unwritable(two, 1, LB_E_ARG, "20 bytes of data do not make F32 of shape [2, 3]");
    two[0] = sample[0];
    two[0].dim[0] = INT64_MAX;
    check_unwritable(two, 1, LB_E_ARG, "shape");
    two[0] = sample[0];
    two[0].data = NULL;
    check_unwritable(two, 1, LB_E_ARG, "embed_tokens");
    two[0] = (struct lb_tensor){
        .name = "q", .dtype = LB_Q8_0, .n_dims = 1, .dim = {32}, .data = weights, .bytes = 34};
    check_unwritable(two, 1, LB_E_UNSUPPORTED, "tensor q has type Q8_0");
    static const char *const names[] = {
        NULL, "", "__metadata__", "a\tb", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "cut\xE2\x82"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        two[0] = sample[0];
        two[0].name = names[i];
        check_unwritable(two, 1, LB_E_ARG, "no name");
    }
    struct lb_buf small;
    lb_buf_init(&small, 100);
    struct lb_detail detail = {0};
    assert_int_equal(encode_safetensors(&small, sample, N_SAMPLE, NULL, 0, &detail), LB_E_LIMIT);
    assert_int_equal(detail.code, LB_E_LIMIT);
    lb_buf_finish(&small);
    const char *const twice[] = {"k", "v", "k", "w"};
    lb_buf_init(&small, 1 << 16);
    assert_int_equal(encode_safetensors(&small, sample, 1, twice, 2, NULL), LB_E_ARG);
    lb_buf_finish(&small);
}

/* ---- files and shards ---- */

static char dir[128];

static int make_dir(void **state) {
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/lb-safetensors-XXXXXX", tmp != NULL && strlen(tmp) < 80 ? tmp : "/tmp");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    return lb_remove_tree(dir, NULL) == LB_OK ? 0 : -1;
}

/* dir/name, in one of a few static places. */
static const char *in_dir(const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void put_file(const char *name, const char *text) {
    assert_int_equal(lb_file_replace(in_dir(name), text, strlen(text), NULL), LB_OK);
}

static void round_trip_by_file(void **state) {
    (void)state;
    struct lb_safetensors *file = NULL;
    const char *path = in_dir("one.safetensors");
    assert_int_equal(lb_safetensors_write(path, sample, N_SAMPLE, sample_metadata, 2, NULL), LB_OK);
    assert_int_equal(lb_safetensors_open(path, &file, NULL), LB_OK);
    check_sample(file);
    lb_safetensors_destroy(file);

    /* a write that fails leaves the file as it was, and says which file */
    struct lb_tensor bad = sample[0];
    struct lb_detail detail = {0};
    bad.bytes = 1;
    assert_int_equal(lb_safetensors_write(path, &bad, 1, NULL, 0, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, path));
    file = NULL;
    assert_int_equal(lb_safetensors_open(path, &file, NULL), LB_OK);
    lb_safetensors_destroy(file);

    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_safetensors_open(in_dir("none.safetensors"), &file, &detail), LB_E_NOTFOUND);
    assert_non_null(strstr(detail.text, "none.safetensors"));
}

static void shards_open_as_one(void **state) {
    (void)state;
    struct lb_safetensors *file = NULL;
    assert_int_equal(
        lb_safetensors_write(in_dir("m-00001-of-00002.safetensors"), sample, 3, sample_metadata, 1, NULL),
        LB_OK);
    assert_int_equal(lb_safetensors_write(in_dir("m-00002-of-00002.safetensors"), sample + 3, 3,
                                          sample_metadata + 2, 1, NULL),
                     LB_OK);
    put_file("model.safetensors.index.json",
             "{\"metadata\": {\"total_size\": 67}, \"weight_map\": {"
             "\"after.odd\": \"m-00002-of-00002.safetensors\", \"half\": \"m-00001-of-00002.safetensors\","
             "\"model.embed_tokens.weight\": \"m-00001-of-00002.safetensors\", \"scalar\": "
             "\"m-00001-of-00002.safetensors\","
             "\"nothing\": \"m-00002-of-00002.safetensors\", \"Maße \\\"q\\\"\": "
             "\"m-00002-of-00002.safetensors\"}}");
    assert_int_equal(lb_safetensors_open(in_dir("model.safetensors.index.json"), &file, NULL), LB_OK);
    check_sample(file);
    assert_null(lb_safetensors_written(file));
    for (int i = 2; i > 0; i--) { /* the first that was written to since is told */
        const char *path = in_dir(i == 1 ? "m-00001-of-00002.safetensors" : "m-00002-of-00002.safetensors");
        FILE *shard = fopen(path, "ab");
        assert_non_null(shard);
        assert_int_equal(fputc(0, shard), 0);
        assert_int_equal(fclose(shard), 0);
        assert_string_equal(lb_safetensors_written(file), path);
    }
    lb_safetensors_destroy(file);
}

/* A shard with a tensor that the index does not list, and with a stale copy of one that is elsewhere. */
static void the_index_decides(void **state) {
    (void)state;
    static const float right[] = {1, 2}, stale[] = {0, 0};
    const struct lb_tensor a = {
        .name = "a", .dtype = LB_F32, .n_dims = 1, .dim = {2}, .data = right, .bytes = sizeof right};
    struct lb_tensor others[3] = {a, a, a};
    others[0].data = stale;
    others[1].name = "b";
    others[2].name = "old.rotary_emb.inv_freq";
    assert_int_equal(lb_safetensors_write(in_dir("x.safetensors"), &a, 1, NULL, 0, NULL), LB_OK);
    assert_int_equal(lb_safetensors_write(in_dir("y.safetensors"), others, 3, NULL, 0, NULL), LB_OK);
    put_file("more.index.json", "{\"weight_map\": {\"a\": \"x.safetensors\", \"b\": \"y.safetensors\"}}");
    struct lb_safetensors *file = NULL;
    assert_int_equal(lb_safetensors_open(in_dir("more.index.json"), &file, NULL), LB_OK);
    assert_int_equal(lb_safetensors_count(file), 2);
    assert_null(lb_safetensors_find(file, "old.rotary_emb.inv_freq"));
    assert_memory_equal(lb_safetensors_find(file, "a")->data, right, sizeof right);
    assert_non_null(lb_safetensors_find(file, "b"));
    lb_safetensors_destroy(file);
}

static const struct {
    const char *index;
    enum lb_status status;
    const char *says;
} bad_indexes[] = {
    {"{}", LB_E_FORMAT, "weight_map"},
    {"[]", LB_E_FORMAT, "weight_map"},
    {"{\"weight_map\": {}}", LB_E_FORMAT, "names 0 files"},
    {"{\"weight_map\": {\"a\": 3}}", LB_E_FORMAT, "tensor a is no plain file name"},
    {"{\"weight_map\": {\"a\": \"\"}}", LB_E_FORMAT, "plain file name"},
    {"{\"weight_map\": {\"a\": \"../a.safetensors\"}}", LB_E_FORMAT, "plain file name"},
    {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", LB_E_FORMAT, "plain file name"},
    {"{\"weight_map\": {\"a\": \"x/a.safetensors\"}}", LB_E_FORMAT, "plain file name"},
    {"{\"weight_map\": {\"a\": \"a.safetensors\", \"x\": \"gone.safetensors\"}}", LB_E_NOTFOUND,
     "gone.safetensors"},
    {"{\"weight_map\": {\"a\": \"a.safetensors\", \"x\": \"a.safetensors\"}}", LB_E_MISMATCH,
     "tensor x is in a.safetensors, but it is not"},
    {"{\"weight_map\": {\"b\": \"a.safetensors\"}}", LB_E_MISMATCH,
     "tensor b is in a.safetensors, but it is not"},
    {"{\"weight_map\": {\"a\": \"c.safetensors\"}}", LB_E_FORMAT, "c.safetensors: "},
};

static void bad_indexes_are_refused_by_name(void **state) {
    (void)state;
    struct lb_tensor both[2] = {sample[0], sample[1]};
    both[0].name = "a";
    both[1].name = "b";
    assert_int_equal(lb_safetensors_write(in_dir("a.safetensors"), both, 1, NULL, 0, NULL), LB_OK);
    assert_int_equal(lb_safetensors_write(in_dir("b.safetensors"), both, 2, NULL, 0, NULL), LB_OK);
    put_file("c.safetensors", "this is no such file");
    for (size_t i = 0; i < sizeof bad_indexes / sizeof *bad_indexes; i++) {
        struct lb_safetensors *file = NULL;
        struct lb_detail detail = {0};
        put_file("bad.index.json", bad_indexes[i].index);
        enum lb_status status = lb_safetensors_open(in_dir("bad.index.json"), &file, &detail);
        assert_null(file);
        if (status != bad_indexes[i].status || strstr(detail.text, bad_indexes[i].says) == NULL) {
            fail_msg("index %s: status %d, text \"%s\"; expected %d and \"%s\"", bad_indexes[i].index,
                     (int)status, detail.text, (int)bad_indexes[i].status, bad_indexes[i].says);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip_in_memory),
        cmocka_unit_test(any_address),
        cmocka_unit_test(every_truncation_fails),
        cmocka_unit_test(no_file_for_each_failing_allocation),
        cmocka_unit_test(damaged_headers_are_refused_by_name),
        cmocka_unit_test(header_lengths_are_checked_first),
        cmocka_unit_test(unwritable_tensors_are_refused),
        cmocka_unit_test(round_trip_by_file),
        cmocka_unit_test(shards_open_as_one),
        cmocka_unit_test(the_index_decides),
        cmocka_unit_test(bad_indexes_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
