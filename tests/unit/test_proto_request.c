/* Requests: both directions, JSON against binary, and every malformed case with its message. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "proto/oip.h"
#include "tests/support/oip_equal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP (64u << 20)
#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static enum lb_status decode(const char *json, const void *tail, size_t tail_len, bool header,
                             struct lb_arena *arena, struct lb_infer_request *out, struct lb_detail *detail) {
    size_t json_len = strlen(json);
    char *body = lb_arena_alloc(arena, json_len + tail_len + 1);
    assert_non_null(body);
    memcpy(body, json, json_len);
    memcpy(body + json_len, tail, tail_len);
    return lb_infer_request_decode(body, json_len + tail_len, header ? (int64_t)json_len : -1, arena, out,
                                   detail);
}

static void decode_ok(const char *json, struct lb_arena *arena, struct lb_infer_request *out) {
    struct lb_detail detail = {0};
    if (decode(json, "", 0, false, arena, out, &detail) != LB_OK) {
        fail_msg("%s: %s", json, detail.text);
    }
}

static void json_request_is_read_with_defaults(void **state) {
    (void)state;
    struct lb_arena arena;
    lb_arena_init(&arena, KEEP);
    struct lb_infer_request r;
    decode_ok("{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[2,3],\"datatype\":\"INT32\",\"data\":[[1,2,3],"
              "[4,5,-6]]}]}",
              &arena, &r);
    assert_null(r.id);
    assert_int_equal(r.top_k, LB_DEFAULT_TOP_K);
    assert_true(r.temperature == 1);
    assert_true(r.timeout_us == 0 && r.priority == 0 && r.sample_count == 0 && r.seed == 0 &&
                r.sample_temperature == 0 && !r.binary_default);
    assert_int_equal(r.n_outputs, 0);
    assert_int_equal(r.n_inputs, 1);
    assert_string_equal(r.inputs[0].name, "input_ids");
    assert_int_equal(r.inputs[0].datatype, LB_DT_INT32);
    assert_int_equal(lb_wire_elements(&r.inputs[0]), 6);
    const int32_t want[] = {1, 2, 3, 4, 5, -6};
    assert_int_equal(r.inputs[0].bytes, sizeof want);
    assert_memory_equal(r.inputs[0].data, want, sizeof want);
    assert_false(r.inputs[0].binary);
    lb_arena_finish(&arena);
}

static void parameters_and_outputs_are_read(void **state) {
    (void)state;
    struct lb_arena arena;
    lb_arena_init(&arena, KEEP);
    struct lb_infer_request r;
    decode_ok(
        "{\"id\":\"a\\\"\\u00e9\",\"parameters\":{\"top_k\":8,\"temperature\":2,\"timeout\":5000000,"
        "\"priority\":1,\"vocab_map\":\"" DIGEST "\","
        "\"sample_count\":3,\"sample_temperature\":2.5,\"seed\":9223372036854775807,\"binary_data_output\":"
        "true,\"own\":\"ignored\","
        "\"x\":null},"
        "\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[0.5,3]}],"
        "\"outputs\":[{\"name\":\"logits\"},{\"name\":\"logsumexp\",\"parameters\":{\"binary_data\":false}},"
        "{\"name\":\"hidden_states.3\",\"parameters\":{\"dtype\":\"FP16\",\"own\":1}}]}",
        &arena, &r);
    assert_string_equal(r.id, "a\"\xc3\xa9");
    assert_int_equal(r.top_k, 8);
    assert_true(r.temperature == 2);
    assert_int_equal(r.timeout_us, 5000000);
    assert_int_equal(r.priority, 1);
    assert_int_equal(r.sample_count, 3);
    assert_true(r.seed == INT64_MAX && r.sample_temperature == 2.5);
    assert_string_equal(r.vocab_map, DIGEST);
    assert_true(r.binary_default);
    assert_int_equal(r.n_outputs, 3);
    assert_true(r.outputs[0].binary && r.outputs[0].datatype == LB_DT_NONE);
    assert_false(r.outputs[1].binary);
    assert_true(r.outputs[2].binary && r.outputs[2].datatype == LB_DT_FP16);
    const float want[] = {0.5f, 3};
    assert_memory_equal(r.inputs[0].data, want, sizeof want);
    lb_arena_finish(&arena);
}

static void json_and_binary_give_the_same_bytes(void **state) {
    (void)state;
    static const struct {
        const char *datatype, *data;
        size_t n;
    } cases[] = {
        {"BOOL", "[true,false,1,0]", 4},
        {"INT8", "[-128,127]", 2},
        {"INT16", "[-32768,32767]", 2},
        {"INT32", "[-2147483648,2147483647]", 2},
        {"INT64", "[-9223372036854775808,9223372036854775807]", 2},
        {"UINT8", "[0,255]", 2},
        {"UINT16", "[0,65535]", 2},
        {"UINT32", "[0,4294967295]", 2},
        {"UINT64", "[0,9223372036854775807]", 2},
        {"FP32", "[-0.0,3.4028235e38,1e-45,16777217,0.1]", 5},
        {"FP64", "[-0.0,1.7976931348623157e308,5e-324,0.1]", 4},
    };
    static const uint8_t want[][32] = {
        {1, 0, 1, 0},
        {0x80, 0x7f},
        {0x00, 0x80, 0xff, 0x7f},
        {0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0x7f},
        {0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0, 0xff},
        {0, 0, 0xff, 0xff},
        {0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
        {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0, 0, 0, 0x80, 0xff, 0xff, 0x7f, 0x7f, 1, 0, 0, 0, 0, 0, 0x80, 0x4b, 0xcd, 0xcc, 0xcc, 0x3d},
        {0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0x7f,
         1, 0, 0, 0, 0, 0, 0, 0,    0x9a, 0x99, 0x99, 0x99, 0x99, 0x99, 0xb9, 0x3f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_arena arena;
        lb_arena_init(&arena, KEEP);
        size_t bytes = cases[i].n * lb_datatype_bytes(lb_datatype_parse(cases[i].datatype));
        char *json = lb_arena_printf(
            &arena, "{\"inputs\":[{\"name\":\"x\",\"shape\":[%zu],\"datatype\":\"%s\",\"data\":%s}]}",
            cases[i].n, cases[i].datatype, cases[i].data);
        char *head = lb_arena_printf(&arena,
                                     "{\"inputs\":[{\"name\":\"x\",\"shape\":[%zu],\"datatype\":\"%s\","
                                     "\"parameters\":{\"binary_data_size\":%zu}}]}",
                                     cases[i].n, cases[i].datatype, bytes);
        struct lb_infer_request a, b;
        struct lb_detail detail = {0};
        decode_ok(json, &arena, &a);
        if (decode(head, want[i], bytes, true, &arena, &b, &detail) != LB_OK) {
            fail_msg("%s", detail.text);
        }
        assert_int_equal(a.inputs[0].bytes, bytes);
        assert_memory_equal(a.inputs[0].data, want[i], bytes);
        assert_memory_equal(b.inputs[0].data, want[i], bytes);
        assert_true(b.inputs[0].binary);
        lb_arena_finish(&arena);
    }
}

static void requests_survive_a_round_trip(void **state) {
    (void)state;
    const int64_t ids[] = {1, 2, 3, 4, 5, INT64_MAX};
    const float features[] = {0.1f, -0.0f, 1e20f, 1.5e-42f};
    const uint16_t halves[] = {0x3c00, 0xfbff, 0x7e00};
    for (int form = 0; form < 4; form++) {
        struct lb_wire_tensor inputs[] = {
            {.name = "input_ids",
             .datatype = LB_DT_INT64,
             .n_dims = 2,
             .dim = {2, 3},
             .data = ids,
             .bytes = sizeof ids,
             .binary = form & 1},
            {.name = "h",
             .datatype = LB_DT_FP16,
             .n_dims = 1,
             .dim = {3},
             .data = halves,
             .bytes = sizeof halves,
             .binary = true},
            {.name = "fea\"tures",
             .datatype = LB_DT_FP32,
             .n_dims = 3,
             .dim = {1, 2, 2},
             .data = features,
             .bytes = sizeof features,
             .binary = form & 2},
            {.name = "empty",
             .datatype = LB_DT_INT32,
             .n_dims = 2,
             .dim = {0, 7},
             .data = NULL,
             .bytes = 0,
             .binary = form & 2},
        };
        struct lb_wire_output outputs[] = {{.name = "logits", .binary = true, .datatype = LB_DT_FP16},
                                           {.name = "logsumexp"}};
        struct lb_infer_request r = {.id = form ? "q\n7\xc3\xa9" : NULL,
                                     .top_k = 3,
                                     .temperature = 0.7,
                                     .timeout_us = 12,
                                     .priority = 2,
                                     .sample_count = 1,
                                     .seed = 99,
                                     .sample_temperature = 0.7,
                                     .vocab_map = form == 2 ? DIGEST : NULL,
                                     .n_inputs = 4,
                                     .inputs = inputs,
                                     .n_outputs = form == 3 ? 0 : 2,
                                     .outputs = outputs,
                                     .binary_default = form == 3};
        struct lb_arena arena;
        struct lb_buf body;
        lb_arena_init(&arena, KEEP);
        lb_buf_init(&body, 1 << 20);
        lb_buf_append_str(&body, "x"); /* appended: what is there stays */
        size_t json_len;
        struct lb_detail detail = {0};
        if (lb_infer_request_encode(&r, &body, &json_len, &detail) != LB_OK) {
            fail_msg("%s", detail.text);
        }
        assert_int_equal(body.data[0], 'x');
        assert_int_equal(json_len % 8, 0);
        struct lb_infer_request back;
        if (lb_infer_request_decode(body.data + 1, body.len - 1, (int64_t)json_len, &arena, &back, &detail) !=
            LB_OK) {
            fail_msg("%s", detail.text);
        }
        const char *difference = oip_request_difference(&r, &back);
        if (difference) {
            fail_msg("form %d differs in %s", form, difference);
        }
        for (size_t i = 0; i < back.n_inputs; i++) {
            size_t width = lb_datatype_bytes(back.inputs[i].datatype);
            assert_true(back.inputs[i].bytes == 0 || (uintptr_t)back.inputs[i].data % width == 0);
        }
        lb_buf_finish(&body);
        lb_arena_finish(&arena);
    }
}

/* A body as another client may send it: the same text wherever its binary tensor starts. */
static void binary_tensors_are_read_at_any_place(void **state) {
    (void)state;
    const int64_t ids[] = {7, 8};
    for (int spaces = 0; spaces < 8; spaces++) {
        struct lb_arena arena;
        lb_arena_init(&arena, KEEP);
        char *json = lb_arena_printf(&arena,
                                     "{\"inputs\":[{\"name\":\"i\",\"shape\":[1,2],\"datatype\":\"INT64\","
                                     "\"parameters\":{\"binary_data_size\":16}}]}%*s",
                                     spaces, "");
        struct lb_infer_request r;
        assert_int_equal(decode(json, ids, sizeof ids, true, &arena, &r, NULL), LB_OK);
        assert_int_equal((uintptr_t)r.inputs[0].data % sizeof(int64_t), 0);
        assert_memory_equal(r.inputs[0].data, ids, sizeof ids);
        lb_arena_finish(&arena);
    }
}

#define INPUT(rest) "{\"inputs\":[{\"name\":\"x\"," rest "}]}"
#define GOOD "\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"INT32\",\"data\":[1]}]"
#define BIG_NAME                                                                                             \
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"                                       \
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

static const struct {
    const char *json;
    size_t tail;
    bool header;
    enum lb_status status;
    const char *text;
} malformed[] = {
    {"", 0, false, LB_E_FORMAT, "the body is empty"},
    {"", 4, true, LB_E_UNSUPPORTED, "a bare tensor without JSON"},
    {"[1]", 0, false, LB_E_FORMAT, "request: the JSON part is not an object"},
    {"{\"inputs\":", 0, false, LB_E_FORMAT, "request: not valid JSON"},
    {"{" GOOD "}zz", 0, false, LB_E_FORMAT, "request: not valid JSON"},
    {"{\"inputs\":\x1b[2J\n", 0, false, LB_E_FORMAT, "request: not valid JSON"},
    {"{\"parameters\":{\"a\\n\\u001b\":[]}," GOOD "}", 0, false, LB_E_FORMAT,
     "parameter \"a ?\" is an array"},
    {"{\"id\":\"1\",\"id\":\"2\"," GOOD "}", 0, false, LB_E_FORMAT, "duplicate"},
    {"{\"x\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", 0, false, LB_E_LIMIT,
     "nested deeper"},
    {"{\"id\":7," GOOD "}", 0, false, LB_E_FORMAT, "request: id"},
    {"{}", 0, false, LB_E_FORMAT, "request: inputs is missing"},
    {"{\"inputs\":{}}", 0, false, LB_E_FORMAT, "request: inputs is not an array"},
    {"{\"inputs\":[]}", 0, false, LB_E_FORMAT, "request: inputs is empty"},
    {"{\"inputs\":[5]}", 0, false, LB_E_FORMAT, "request: inputs[0] is not an object"},
    {"{\"inputs\":[{\"shape\":[1]}]}", 0, false, LB_E_FORMAT, "input 0: name is missing"},
    {"{\"inputs\":[{\"name\":\"\"}]}", 0, false, LB_E_FORMAT, "the name has 0 bytes"},
    {"{\"inputs\":[{\"name\":\"" BIG_NAME "\"}]}", 0, false, LB_E_FORMAT, "the name has 128 bytes; 1 to 127"},
    {"{\"inputs\":[{\"name\":\"a\\nb\"}]}", 0, false, LB_E_FORMAT, "control character"},
    {INPUT("\"shape\":[1],\"data\":[1]"), 0, false, LB_E_FORMAT, "input \"x\": datatype is missing"},
    {INPUT("\"datatype\":\"int32\",\"shape\":[1],\"data\":[1]"), 0, false, LB_E_FORMAT,
     "unknown datatype \"int32\""},
    {INPUT("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"a\"]"), 0, false, LB_E_UNSUPPORTED,
     "BYTES tensors"},
    {INPUT("\"datatype\":\"INT32\",\"data\":[1]"), 0, false, LB_E_FORMAT, "shape is missing"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1,1,1,1,1,1,1],\"data\":[1]"), 0, false, LB_E_LIMIT,
     "7 dimensions"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[-1],\"data\":[1]"), 0, false, LB_E_FORMAT, "dimension 0"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1,1.5],\"data\":[1]"), 0, false, LB_E_FORMAT, "dimension 1"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[4294967296,4294967296],\"data\":[1]"), 0, false, LB_E_LIMIT,
     "shape [4294967296,4294967296] has more elements"},
    {INPUT("\"datatype\":\"INT64\",\"shape\":[2305843009213693952],\"data\":[1]"), 0, false, LB_E_LIMIT,
     "more elements than memory"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[4000001],\"data\":[1]"), 0, false, LB_E_LIMIT,
     "use binary data"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1]"), 0, false, LB_E_FORMAT, "neither data nor"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1],\"data\":1"), 0, false, LB_E_FORMAT, "data is not an array"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2,2],\"data\":[1,2,3]"), 0, false, LB_E_FORMAT,
     "data has 3 values where shape [2,2] wants 4"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2,2],\"data\":[[1,2],[3]]"), 0, false, LB_E_FORMAT,
     "data has 1 values where shape [2,2] wants 2"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2,2],\"data\":[[1,2],3]"), 0, false, LB_E_FORMAT,
     "nested, but not as"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2,2],\"data\":[1,[2],3,4]"), 0, false, LB_E_FORMAT,
     "value 1 of data is not a whole number"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1,2],\"data\":[[[1],[2]]]"), 0, false, LB_E_FORMAT,
     "value 0 of data is not a whole number"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1],\"data\":[2147483648]"), 0, false, LB_E_FORMAT,
     "value 0 of data is out of the datatype's range (INT32)"},
    {INPUT("\"datatype\":\"UINT16\",\"shape\":[1],\"data\":[-1]"), 0, false, LB_E_FORMAT,
     "out of the datatype's range"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1],\"data\":[1.0]"), 0, false, LB_E_FORMAT,
     "not a whole number"},
    {INPUT("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1e39]"), 0, false, LB_E_FORMAT,
     "out of the datatype's range"},
    {INPUT("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[\"1\"]"), 0, false, LB_E_FORMAT, "is not a number"},
    {INPUT("\"datatype\":\"BOOL\",\"shape\":[1],\"data\":[2]"), 0, false, LB_E_FORMAT,
     "neither true nor false"},
    {INPUT("\"datatype\":\"FP16\",\"shape\":[1],\"data\":[1]"), 0, false, LB_E_FORMAT,
     "FP16 has no JSON form"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2],\"parameters\":{\"binary_data_size\":4}"), 4, true,
     LB_E_FORMAT, "input \"x\": binary_data_size is 4, but shape [2] of INT32 takes 8 bytes"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2],\"parameters\":{\"binary_data_size\":-8}"), 8, true,
     LB_E_FORMAT, "binary_data_size"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2],\"parameters\":{\"binary_data_size\":\"8\"}"), 8, true,
     LB_E_FORMAT, "binary_data_size"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2],\"parameters\":{\"binary_data_size\":8}"), 7, true,
     LB_E_FORMAT, "needs 8 bytes behind the JSON at byte"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2],\"parameters\":{\"binary_data_size\":8}"), 9, true,
     LB_E_FORMAT, "1 bytes are left behind the last binary tensor"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[2],\"parameters\":{\"binary_data_size\":8}"), 0, false,
     LB_E_FORMAT, "(the header Inference-Header-Content-Length is missing)"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1],\"data\":[1],\"parameters\":{\"binary_data_size\":4}"), 4,
     true, LB_E_FORMAT, "both data and binary_data_size"},
    {"{" GOOD "}", 3, true, LB_E_FORMAT, "3 bytes are left"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1],\"parameters\":{\"shared_memory_region\":\"r\"}"), 0, false,
     LB_E_UNSUPPORTED, "shared memory is not supported"},
    {INPUT("\"datatype\":\"INT32\",\"shape\":[1],\"data\":[1],\"parameters\":[]"), 0, false, LB_E_FORMAT,
     "input \"x\": parameters is not an object"},
    {"{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]},"
     "{\"name\":\"x\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]}]}",
     0, false, LB_E_FORMAT, "input \"x\" is given twice"},
    {"{\"parameters\":3," GOOD "}", 0, false, LB_E_FORMAT, "request: parameters is not an object"},
    {"{\"parameters\":{\"layers\":[1,2]}," GOOD "}", 0, false, LB_E_FORMAT,
     "parameter \"layers\" is an array or object"},
    {"{\"parameters\":{\"top_k\":0}," GOOD "}", 0, false, LB_E_FORMAT, "top_k"},
    {"{\"parameters\":{\"top_k\":16385}," GOOD "}", 0, false, LB_E_FORMAT, "top_k"},
    {"{\"parameters\":{\"top_k\":\"8\"}," GOOD "}", 0, false, LB_E_FORMAT, "top_k"},
    {"{\"parameters\":{\"temperature\":0}," GOOD "}", 0, false, LB_E_FORMAT, "temperature"},
    {"{\"parameters\":{\"temperature\":101}," GOOD "}", 0, false, LB_E_FORMAT, "temperature"},
    {"{\"parameters\":{\"timeout\":-1}," GOOD "}", 0, false, LB_E_FORMAT, "timeout"},
    {"{\"parameters\":{\"priority\":-1}," GOOD "}", 0, false, LB_E_FORMAT, "priority"},
    {"{\"parameters\":{\"sample_count\":65536}," GOOD "}", 0, false, LB_E_FORMAT, "sample_count"},
    {"{\"parameters\":{\"sample_temperature\":0}," GOOD "}", 0, false, LB_E_FORMAT, "sample_temperature"},
    {"{\"parameters\":{\"vocab_map\":7}," GOOD "}", 0, false, LB_E_FORMAT, "vocab_map"},
    {"{\"parameters\":{\"vocab_map\":\"" DIGEST "0\"}," GOOD "}", 0, false, LB_E_FORMAT, "64 hex digits"},
    {"{\"parameters\":{\"vocab_map\":\"ABCDEF6789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}"
     "," GOOD "}",
     0, false, LB_E_FORMAT, "64 hex digits"},
    {"{\"parameters\":{\"sample_temperature\":\"2\"}," GOOD "}", 0, false, LB_E_FORMAT, "sample_temperature"},
    {"{\"parameters\":{\"seed\":1.5}," GOOD "}", 0, false, LB_E_FORMAT, "seed"},
    {"{\"parameters\":{\"binary_data_output\":1}," GOOD "}", 0, false, LB_E_FORMAT, "binary_data_output"},
    {"{\"outputs\":\"logits\"," GOOD "}", 0, false, LB_E_FORMAT, "request: outputs is not an array"},
    {"{\"outputs\":[\"logits\"]," GOOD "}", 0, false, LB_E_FORMAT, "outputs[0] is not an object"},
    {"{\"outputs\":[{}]," GOOD "}", 0, false, LB_E_FORMAT, "output 0: name is missing"},
    {"{\"outputs\":[{\"name\":\"a\"},{\"name\":\"a\"}]," GOOD "}", 0, false, LB_E_FORMAT,
     "output \"a\" is asked for twice"},
    {"{\"outputs\":[{\"name\":\"a\",\"parameters\":{\"binary_data\":1}}]," GOOD "}", 0, false, LB_E_FORMAT,
     "output \"a\": binary_data"},
    {"{\"outputs\":[{\"name\":\"a\",\"parameters\":{\"dtype\":16}}]," GOOD "}", 0, false, LB_E_FORMAT,
     "dtype"},
    {"{\"outputs\":[{\"name\":\"a\",\"parameters\":{\"dtype\":\"float16\"}}]," GOOD "}", 0, false, LB_E_ARG,
     "output \"a\": unknown dtype \"float16\""},
    {"{\"outputs\":[{\"name\":\"a\",\"parameters\":{\"dtype\":\"FP16\"}}]," GOOD "}", 0, false, LB_E_ARG,
     "output \"a\": FP16 has no JSON form"},
    {"{\"outputs\":[{\"name\":\"a\",\"parameters\":{\"classification\":3}}]," GOOD "}", 0, false,
     LB_E_UNSUPPORTED, "classification are not supported"},
};

static void malformed_requests_are_named(void **state) {
    (void)state;
    const char zeros[16] = {0};
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        struct lb_arena arena;
        lb_arena_init(&arena, KEEP);
        struct lb_detail detail = {0};
        struct lb_infer_request r, untouched;
        memset(&r, 0x5a, sizeof r);
        memset(&untouched, 0x5a, sizeof untouched);
        enum lb_status status =
            decode(malformed[i].json, zeros, malformed[i].tail, malformed[i].header, &arena, &r, &detail);
        if (status != malformed[i].status || detail.code != status ||
            !strstr(detail.text, malformed[i].text) || strpbrk(detail.text, "\n\x1b")) {
            fail_msg("%s\n  status %d, wanted %d; text: %s\n  wanted: %s", malformed[i].json, status,
                     malformed[i].status, detail.text, malformed[i].text);
        }
        assert_memory_equal(&r, &untouched, sizeof r);
        lb_arena_finish(&arena);
    }
}

static void wrong_json_lengths_are_refused(void **state) {
    (void)state;
    static const char body[] = "{" GOOD "}";
    struct lb_arena arena;
    lb_arena_init(&arena, KEEP);
    struct lb_infer_request r;
    const int64_t lengths[] = {(int64_t)sizeof body, INT64_MAX, -2, INT64_MIN, 5, 0};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct lb_detail detail = {0};
        assert_int_not_equal(lb_infer_request_decode(body, sizeof body - 1, lengths[i], &arena, &r, &detail),
                             LB_OK);
        assert_true(detail.text[0] != '\0');
    }
    assert_int_equal(lb_infer_request_decode(body, sizeof body - 1, sizeof body - 1, &arena, &r, NULL),
                     LB_OK);
    lb_arena_finish(&arena);
}

/* No prefix of a good body is a good body, and none is read past its end (the copy ends where the prefix
 * ends). */
static void truncated_bodies_are_refused(void **state) {
    (void)state;
    static const char json[] = "{\"inputs\":[{\"name\":\"i\",\"shape\":[2],\"datatype\":\"INT32\","
                               "\"parameters\":{\"binary_data_size\":8}}]}";
    size_t json_len = sizeof json - 1;
    for (size_t len = 0; len < json_len + 8; len++) {
        struct lb_arena arena;
        lb_arena_init(&arena, KEEP);
        char *body = malloc(len ? len : 1);
        assert_non_null(body);
        for (size_t i = 0; i < len; i++) {
            body[i] = i < json_len ? json[i] : 1;
        }
        struct lb_infer_request r;
        assert_int_not_equal(lb_infer_request_decode(body, len, (int64_t)json_len, &arena, &r, NULL), LB_OK);
        assert_int_not_equal(lb_infer_request_decode(body, len, -1, &arena, &r, NULL), LB_OK);
        free(body);
        lb_arena_finish(&arena);
    }
}

static void too_many_are_refused(void **state) {
    (void)state;
    struct lb_arena arena;
    struct lb_buf body;
    struct lb_infer_request r;
    struct lb_detail detail = {0};
    lb_arena_init(&arena, KEEP);
    lb_buf_init(&body, 64u << 20);
    lb_buf_append_str(&body, "{\"inputs\":[");
    for (int i = 0; i <= LB_MAX_TENSORS; i++) {
        lb_buf_printf(&body, "%s{\"name\":\"n%d\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]}",
                      i ? "," : "", i);
    }
    lb_buf_append_str(&body, "]}");
    assert_int_equal(lb_infer_request_decode(body.data, body.len, -1, &arena, &r, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "request: 65 inputs; the maximum is 64"));

    lb_buf_reset(&body);
    detail = (struct lb_detail){0};
    lb_buf_append_str(&body, "{\"inputs\":[");
    memset(lb_buf_extend(&body, LB_MAX_JSON_VALUES), ',', LB_MAX_JSON_VALUES);
    lb_buf_append_str(&body, "1]}");
    assert_int_equal(lb_infer_request_decode(body.data, body.len, -1, &arena, &r, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "more than 4000000 values"));

    lb_buf_reset(&body);
    detail = (struct lb_detail){0};
    memset(lb_buf_extend(&body, LB_MAX_JSON_BYTES + 1), ' ', LB_MAX_JSON_BYTES + 1);
    assert_int_equal(lb_infer_request_decode(body.data, body.len, -1, &arena, &r, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "the maximum is 16777216"));

    detail = (struct lb_detail){0}; /* refused by its length alone */
    assert_int_equal(
        lb_infer_request_decode(body.data, (size_t)LB_MAX_BODY_BYTES + 1, 2, &arena, &r, &detail),
        LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "the body has 268435457 bytes"));
    lb_buf_finish(&body);
    lb_arena_finish(&arena);
}

static void requests_that_cannot_be_written_are_refused(void **state) {
    (void)state;
    const int32_t ids[] = {1, 2};
    const float nan[] = {0.0f / 0.0f};
    const struct lb_wire_tensor good = {
        .name = "i", .datatype = LB_DT_INT32, .n_dims = 1, .dim = {2}, .data = ids, .bytes = sizeof ids};
    struct lb_wire_tensor t[10];
    for (size_t i = 0; i < 10; i++) {
        t[i] = good;
    }
    t[1].bytes = 4;
    t[2].dim[0] = -2;
    t[3].datatype = LB_DT_BYTES;
    t[4].name = "";
    t[5].name = "\xff\xfe";
    t[6] = (struct lb_wire_tensor){
        .name = "f", .datatype = LB_DT_FP32, .n_dims = 1, .dim = {1}, .data = nan, .bytes = 4};
    t[7].datatype = LB_DT_FP16, t[7].dim[0] = 4;
    t[8].n_dims = 7;
    const char *texts[] = {"",
                           "not what shape",
                           "not what shape",
                           "fixed size",
                           "1 to 127 bytes",
                           "not valid UTF-8",
                           "value 0 (not finite",
                           "no JSON form",
                           "not what shape"};
    for (int i = 0; i < 9; i++) {
        struct lb_buf body;
        lb_buf_init(&body, 4096);
        struct lb_infer_request r = {.top_k = 1, .temperature = 1, .n_inputs = 1, .inputs = &t[i]};
        struct lb_detail detail = {0};
        size_t json_len = 99;
        enum lb_status status = lb_infer_request_encode(&r, &body, &json_len, &detail);
        assert_int_equal(status == LB_OK, i == 0);
        if (i > 0 && !strstr(detail.text, texts[i])) {
            fail_msg("case %d: %s", i, detail.text);
        }
        assert_int_equal(json_len == 99, i > 0);
        lb_buf_finish(&body);
    }
    struct lb_infer_request r[] = {
        {.top_k = 0, .temperature = 1, .n_inputs = 1, .inputs = t},
        {.top_k = 1, .temperature = 0, .n_inputs = 1, .inputs = t},
        {.top_k = 1, .temperature = 0.0 / 0.0, .n_inputs = 1, .inputs = t},
        {.top_k = 1, .temperature = 1, .n_inputs = 0, .inputs = t},
        {.top_k = 1, .temperature = 1, .n_inputs = 1, .inputs = t, .seed = UINT64_MAX},
        {.top_k = 1, .temperature = 1, .n_inputs = 1, .inputs = t, .sample_temperature = 1000},
        {.top_k = 1, .temperature = 1, .n_inputs = 1, .inputs = t, .sample_temperature = NAN},
        {.top_k = 1, .temperature = 1, .n_inputs = 1, .inputs = t, .vocab_map = "f00d"},
        {.top_k = 1, .temperature = 1, .n_inputs = 1, .inputs = t, .id = "\xc3\x28"},
    };
    for (size_t i = 0; i < sizeof r / sizeof r[0]; i++) {
        struct lb_buf body;
        lb_buf_init(&body, 4096);
        size_t json_len;
        struct lb_detail detail = {0};
        assert_int_not_equal(lb_infer_request_encode(&r[i], &body, &json_len, &detail), LB_OK);
        assert_true(detail.text[0] != '\0');
        lb_buf_finish(&body);
    }
    struct lb_buf small;
    lb_buf_init(&small, 40);
    struct lb_infer_request ok = {.top_k = 1, .temperature = 1, .n_inputs = 1, .inputs = t};
    struct lb_detail detail = {0};
    size_t json_len;
    assert_int_equal(lb_infer_request_encode(&ok, &small, &json_len, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "40 bytes"));
    lb_buf_finish(&small);
}

/* Whichever allocation fails, the result is LB_E_NOMEM with a text, and nothing leaks (seen by the
 * sanitizer). */
static void failing_allocations_are_reported(void **state) {
    (void)state;
    static const char json[] =
        "{\"id\":\"a\",\"parameters\":{\"top_k\":2},\"outputs\":[{\"name\":\"logits\"}],\"inputs\":"
        "[{\"name\":\"x\",\"shape\":[2,1],\"datatype\":\"INT32\",\"data\":[[1],[2]]}]}";
    bool done = false;
    for (long nth = 1; !done; nth++) {
        assert_true(nth < 1000);
        struct lb_arena arena;
        struct lb_buf body;
        lb_arena_init(&arena, KEEP);
        lb_buf_init(&body, 1 << 20);
        struct lb_detail detail = {0};
        struct lb_infer_request r;
        size_t json_len;
        lb_mem_fail_from(nth);
        enum lb_status status = lb_infer_request_decode(json, sizeof json - 1, -1, &arena, &r, &detail);
        if (status == LB_OK) {
            status = lb_infer_request_encode(&r, &body, &json_len, &detail);
        }
        lb_mem_fail_from(0);
        if (status != LB_OK && (status != LB_E_NOMEM || detail.text[0] == '\0')) {
            fail_msg("allocation %ld: status %d, %s", nth, status, detail.text);
        }
        done = status == LB_OK;
        lb_buf_finish(&body);
        lb_arena_finish(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_request_is_read_with_defaults),
        cmocka_unit_test(parameters_and_outputs_are_read),
        cmocka_unit_test(json_and_binary_give_the_same_bytes),
        cmocka_unit_test(requests_survive_a_round_trip),
        cmocka_unit_test(binary_tensors_are_read_at_any_place),
        cmocka_unit_test(malformed_requests_are_named),
        cmocka_unit_test(wrong_json_lengths_are_refused),
        cmocka_unit_test(truncated_bodies_are_refused),
        cmocka_unit_test(too_many_are_refused),
        cmocka_unit_test(requests_that_cannot_be_written_are_refused),
        cmocka_unit_test(failing_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
