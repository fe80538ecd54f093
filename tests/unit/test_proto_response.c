/* Answers: both directions, numbers as JSON text and back, and every malformed case with its message. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "proto/oip_wire.h"
#include "tests/support/oip_equal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP (64u << 20)

/* ---- numbers ---- */

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static void check_float(float x) {
    char text[LB_NUMBER_TEXT + 1];
    size_t len = lb_wire_float_text(x, text);
    assert_true(len > 0 && len < LB_NUMBER_TEXT);
    text[len] = '\0';
    float direct = strtof(text, NULL), through_double = (float)strtod(text, NULL);
    if (bits_of(direct) != bits_of(x) || bits_of(through_double) != bits_of(x)) {
        fail_msg("%a is written %s, which reads as %a or %a", (double)x, text, (double)direct,
                 (double)through_double);
    }
    char nine[64];
    snprintf(nine, sizeof nine, "%.9g", (double)x);
    if (len > strlen(nine) + 2) { /* ".0" at most */
        fail_msg("%s is longer than %s", text, nine);
    }
}

/* A float for each 16411th pattern of bits, the ends of all binades, and what lies around powers of ten. */
static void floats_read_back_to_the_same_bits(void **state) {
    (void)state;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 16411) {
        float f;
        uint32_t narrow = (uint32_t)bits;
        memcpy(&f, &narrow, sizeof f);
        if (isfinite(f)) {
            check_float(f);
        }
    }
    for (int e = -149; e <= 127; e++) {
        float f = ldexpf(1, e);
        check_float(f);
        check_float(-nextafterf(f, 0));
        check_float(nextafterf(f, INFINITY));
    }
    for (int e = -45; e <= 38; e++) {
        float f = (float)pow(10, e);
        check_float(f);
        check_float(nextafterf(f, 0));
        check_float(nextafterf(f, FLT_MAX));
    }
    check_float(FLT_MAX);
    check_float(-FLT_MAX);
}

/* Caches and recordings hold these texts: each of a float's for every 16411th pattern of bits counts, and all
 * digits of numbers between -32 and 0, as log-probabilities are. */
static void floats_keep_their_digits(void **state) {
    (void)state;
    uint64_t sum = 0;
    size_t n = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX;
         bits += bits > 0xbc000000u && bits < 0xc2000000u ? 61 : 16411) {
        float f;
        uint32_t narrow = (uint32_t)bits;
        memcpy(&f, &narrow, sizeof f);
        char text[LB_NUMBER_TEXT];
        size_t len = isfinite(f) ? lb_wire_float_text(f, text) : 0;
        for (size_t i = 0; i < len; i++) {
            sum = lb_mix64(sum + (uint8_t)text[i]);
        }
        n += len > 0;
    }
    assert_int_equal(n, 1904581);
    assert_int_equal(sum, 0x81180cdb7e470ad0u);
}

static void integers_are_written_whole(void **state) {
    (void)state;
    static const int64_t cases[] = {0,    7,    10,         99,          100,       101,       -1,       -10,
                                    -100, 9999, 1000000000, -2147483648, INT32_MAX, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[LB_NUMBER_TEXT + 1], want[LB_NUMBER_TEXT + 1];
        text[lb_wire_integer_text(cases[i], text)] = '\0';
        snprintf(want, sizeof want, "%lld", (long long)cases[i]);
        assert_string_equal(text, want);
    }
}

static void numbers_are_written_in_the_shortest_way(void **state) {
    (void)state;
    static const struct {
        float value;
        const char *text;
    } cases[] = {{0.0f, "0.0"},
                 {-0.0f, "-0.0"},
                 {1.0f, "1.0"},
                 {-1.5f, "-1.5"},
                 {0.1f, "0.1"},
                 {0.3f, "0.3"},
                 {100.0f, "100.0"},
                 {16777216.0f, "16777216.0"},
                 {1e20f, "1e20"},
                 {1e-20f, "1e-20"},
                 {0.00001f, "0.00001"},
                 {0.000001f, "1e-6"},
                 {1.5e-7f, "1.5e-7"},
                 {-12.25f, "-12.25"},
                 {123456.79f, "123456.79"},
                 {FLT_MAX, "3.4028235e38"},
                 {1e-45f, "1e-45"},
                 {9999999.0f, "9999999.0"},
                 {3.1415927f, "3.1415927"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[LB_NUMBER_TEXT + 1];
        text[lb_wire_float_text(cases[i].value, text)] = '\0';
        assert_string_equal(text, cases[i].text);
    }
    char text[LB_NUMBER_TEXT + 1];
    text[lb_wire_double_text(0.1, text)] = '\0';
    assert_string_equal(text, "0.1");
    text[lb_wire_double_text(2, text)] = '\0';
    assert_string_equal(text, "2.0");
    text[lb_wire_double_text(0.1 + 0.2, text)] = '\0';
    assert_string_equal(text, "0.30000000000000004");
}

/* ---- both directions ---- */

/* The head, the binary tensors behind it, decoded again; the answer must come back. */
static void round_trip(const struct lb_infer_response *r, struct lb_arena *arena,
                       struct lb_infer_response *back) {
    struct lb_buf body;
    struct lb_detail detail = {0};
    lb_buf_init(&body, KEEP);
    if (lb_infer_response_head(r, &body, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    size_t json_len = body.len;
    bool binary = false;
    for (size_t i = 0; i < r->n_outputs; i++) {
        if (r->outputs[i].binary) {
            lb_buf_append(&body, r->outputs[i].data, r->outputs[i].bytes);
            binary = true;
        }
    }
    assert_int_equal(binary ? json_len % 8 : 0, 0);
    char *copy = lb_arena_alloc(arena, body.len);
    assert_non_null(copy);
    memcpy(copy, body.data, body.len);
    if (lb_infer_response_decode(copy, body.len, binary ? (int64_t)json_len : -1, arena, back, &detail) !=
        LB_OK) {
        fail_msg("%s\n%s", detail.text, body.data);
    }
    const char *difference = oip_response_difference(r, back);
    if (difference) {
        fail_msg("differs in %s\n%s", difference, body.data);
    }
    lb_buf_finish(&body);
}

static void answers_survive_a_round_trip(void **state) {
    (void)state;
    const int32_t ids[] = {5, 0, INT32_MAX, INT32_MIN};
    const uint16_t short_ids[] = {0, 65535, 7};
    const uint16_t halves[] = {0x3c00, 0x7c00, 0xfe00};
    float values[2000];
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 0);
    for (size_t i = 0; i < 2000; i++) { /* any finite bits: some hundred chunks of text */
        do {
            uint32_t bits = (uint32_t)lb_rng_u64(&rng);
            memcpy(&values[i], &bits, sizeof bits);
        } while (!isfinite(values[i]));
    }
    const double doubles[] = {0.1, -0.0, DBL_MAX, 5e-324};
    const uint8_t flags[] = {1, 0, 1};
    for (int form = 0; form < 2; form++) {
        bool binary = form == 1;
        struct lb_wire_tensor outputs[] = {
            {"logits.topk_ids", LB_DT_INT32, 3, {1, 2, 2}, ids, sizeof ids, binary},
            {"logits.topk_values", LB_DT_FP32, 2, {40, 50}, values, sizeof values, binary},
            {"short", LB_DT_UINT16, 1, {3}, short_ids, sizeof short_ids, binary},
            {"f64", LB_DT_FP64, 1, {4}, doubles, sizeof doubles, binary},
            {"flags", LB_DT_BOOL, 1, {3}, flags, sizeof flags, binary},
            {"nothing", LB_DT_FP32, 2, {3, 0}, NULL, 0, binary},
            {"scalar", LB_DT_INT32, 0, {0}, ids, 4, binary},
            {"hidden_states.1", LB_DT_FP16, 1, {3}, halves, sizeof halves, true},
        };
        struct lb_arena arena;
        lb_arena_init(&arena, KEEP);
        struct lb_infer_response r = {.model_name = "teacher",
                                      .model_version = form ? "9f\"3c" : "",
                                      .id = form ? NULL : "\x01 id",
                                      .top_k = form ? 64 : 0,
                                      .temperature = form ? 0.7 : 0,
                                      .compute = form ? "c0\"ffee" : NULL,
                                      .vocab_map = form % 2 ? "f00d" : NULL,
                                      .n_outputs = form ? 8 : 7,
                                      .outputs = outputs};
        struct lb_infer_response back;
        round_trip(&r, &arena, &back);
        for (size_t i = 0; i < back.n_outputs; i++) {
            assert_true(back.outputs[i].bytes == 0 ||
                        (uintptr_t)back.outputs[i].data % lb_datatype_bytes(back.outputs[i].datatype) == 0);
        }
        lb_arena_finish(&arena);
    }
}

static void json_head_has_this_text(void **state) {
    (void)state;
    const int32_t ids[] = {7, -1};
    const float lse[] = {0.5f, -2};
    const uint16_t half[] = {0x3c00};
    struct lb_wire_tensor outputs[] = {{"logits.topk_ids", LB_DT_INT32, 3, {1, 1, 2}, ids, sizeof ids, false},
                                       {"logsumexp", LB_DT_FP32, 2, {1, 2}, lse, sizeof lse, false},
                                       {"h", LB_DT_FP16, 1, {1}, half, sizeof half, true}};
    struct lb_infer_response r = {.model_name = "m",
                                  .model_version = "v",
                                  .id = "1",
                                  .top_k = 2,
                                  .temperature = 2,
                                  .n_outputs = 2,
                                  .outputs = outputs};
    struct lb_buf head;
    lb_buf_init(&head, 4096);
    assert_int_equal(lb_infer_response_head(&r, &head, NULL), LB_OK);
    assert_string_equal(
        head.data, "{\"model_name\":\"m\",\"model_version\":\"v\",\"id\":\"1\","
                   "\"parameters\":{\"temperature\":2.0,\"top_k\":2},\"outputs\":["
                   "{\"name\":\"logits.topk_ids\",\"datatype\":\"INT32\",\"shape\":[1,1,2],\"data\":[7,-1]},"
                   "{\"name\":\"logsumexp\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[0.5,-2.0]}]}");
    lb_buf_reset(&head);
    r.outputs = &outputs[2], r.n_outputs = 1, r.id = NULL, r.top_k = 0;
    assert_int_equal(lb_infer_response_head(&r, &head, NULL), LB_OK);
    assert_non_null(strstr(head.data,
                           "\"temperature\":2.0},\"outputs\":[{\"name\":\"h\",\"datatype\":\"FP16\","
                           "\"shape\":[1],\"parameters\":{\"binary_data_size\":2}}]}"));
    lb_buf_finish(&head);
}

/* The digest is over the request's digest and all that stands before it; where, depends on the form. */
static void digests_end_answers(void **state) {
    (void)state;
    static const char of[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    static const char listed[] = "{\"name\":\"digest\",\"datatype\":\"UINT8\",\"shape\":[32],"
                                 "\"parameters\":{\"binary_data_size\":32}}]}";
    const float lse[] = {0.5f, -2};
    for (int form = 0; form < 2; form++) {
        struct lb_wire_tensor output = {"logsumexp", LB_DT_FP32, 2, {1, 2}, lse, sizeof lse, form == 0};
        struct lb_infer_response r = {.model_name = "m", .digest_of = of, .n_outputs = 1, .outputs = &output};
        struct lb_buf body, bytes;
        uint8_t own[LB_SHA256_BYTES], wanted[LB_SHA256_BYTES];
        char hex[LB_SHA256_HEX];
        lb_buf_init(&body, 4096);
        lb_buf_init(&bytes, 4096);
        assert_int_equal(lb_infer_response_head(&r, &body, NULL), LB_OK);
        int64_t json_len = form == 0 ? (int64_t)body.len : -1;
        lb_buf_append_str(&bytes, of);
        if (form == 0) {
            assert_non_null(strstr(body.data, listed));
            lb_buf_append(&bytes, body.data, body.len);
            lb_buf_append(&bytes, lse, sizeof lse);
            lb_sha256(bytes.data, bytes.len, wanted);
            assert_int_equal(lb_answer_digest(&r, body.data, body.len, own), LB_OK);
            assert_memory_equal(own, wanted, sizeof own);
            lb_buf_append(&body, lse, sizeof lse);
            lb_buf_append(&body, own, sizeof own);
        } else {
            static const char front[] = "{\"model_name\":\"m\",\"outputs\":[{\"name\":\"logsumexp\","
                                        "\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[0.5,-2.0]}]";
            lb_buf_append_str(&bytes, front);
            lb_sha256(bytes.data, bytes.len, wanted);
            lb_hex(wanted, sizeof wanted, hex);
            lb_buf_reset(&bytes);
            lb_buf_printf(&bytes, "%s,\"digest\":\"%s\"}", front, hex);
            assert_string_equal(body.data, bytes.data);
        }
        assert_int_equal(lb_answer_digest_check(body.data, body.len, json_len, of, NULL), LB_OK);
        for (size_t i = 0; i < body.len * 8; i++) {
            body.data[i / 8] ^= (char)(1 << i % 8);
            assert_int_equal(lb_answer_digest_check(body.data, body.len, json_len, of, NULL), LB_E_FORMAT);
            body.data[i / 8] ^= (char)(1 << i % 8);
        }
        for (size_t len = 0; len < body.len; len++) {
            assert_int_equal(lb_answer_digest_check(body.data, len, json_len, of, NULL), LB_E_FORMAT);
        }
        lb_buf_finish(&body);
        lb_buf_finish(&bytes);
    }
}

/* What other servers send: nested data, no version, own parameters, a null id. */
static void other_servers_answers_are_read(void **state) {
    (void)state;
    static const char json[] =
        "{\"model_name\":\"m\",\"id\":null,\"parameters\":{\"triton_x\":true},\"cost\":[1],\"outputs\":["
        "{\"name\":\"a\",\"shape\":[2,2],\"datatype\":\"FP32\",\"data\":[[1,2.5],[3e0,-4]]}]}\n";
    struct lb_arena arena;
    lb_arena_init(&arena, KEEP);
    struct lb_infer_response r;
    assert_int_equal(lb_infer_response_decode(json, sizeof json - 1, -1, &arena, &r, NULL), LB_OK);
    assert_string_equal(r.model_version, "");
    assert_null(r.id);
    assert_true(r.temperature == 0 && r.top_k == 0);
    const float want[] = {1, 2.5f, 3, -4};
    assert_memory_equal(r.outputs[0].data, want, sizeof want);
    lb_arena_finish(&arena);
}

/* ---- what is refused ---- */

static void malformed_answers_are_named(void **state) {
    (void)state;
    static const struct {
        const char *json;
        enum lb_status status;
        const char *text;
    } cases[] = {
        {"", LB_E_FORMAT, "answer: the body is empty"},
        {"<html>", LB_E_FORMAT, "answer: not valid JSON"},
        {"{\"outputs\":[]}", LB_E_FORMAT, "answer: model_name"},
        {"{\"model_name\":\"m\"}", LB_E_FORMAT, "answer: outputs is missing"},
        {"{\"model_name\":\"m\",\"model_version\":3,\"outputs\":[]}", LB_E_FORMAT, "model_version"},
        {"{\"model_name\":\"m\",\"parameters\":{\"temperature\":\"1\"},\"outputs\":[]}", LB_E_FORMAT,
         "temperature"},
        {"{\"model_name\":\"m\",\"parameters\":{\"top_k\":-1},\"outputs\":[]}", LB_E_FORMAT, "top_k"},
        {"{\"model_name\":\"m\",\"outputs\":[{\"name\":\"a\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":["
         "null]}]}",
         LB_E_FORMAT, "output \"a\": value 0 of data is not a number"},
        {"{\"model_name\":\"m\",\"outputs\":[{\"name\":\"a\",\"shape\":[1],\"datatype\":\"FP32\","
         "\"parameters\":{\"binary_data_size\":4}}]}",
         LB_E_FORMAT, "output \"a\": needs 4 bytes behind the JSON"},
        {"{\"model_name\":\"m\",\"outputs\":[{\"name\":\"a\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]"
         "},"
         "{\"name\":\"a\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]}]}",
         LB_E_FORMAT, "output \"a\" comes twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_arena arena;
        lb_arena_init(&arena, KEEP);
        struct lb_detail detail = {0};
        struct lb_infer_response r;
        enum lb_status status =
            lb_infer_response_decode(cases[i].json, strlen(cases[i].json), -1, &arena, &r, &detail);
        if (status != cases[i].status || !strstr(detail.text, cases[i].text)) {
            fail_msg("%s\n  status %d, text: %s\n  wanted: %s", cases[i].json, status, detail.text,
                     cases[i].text);
        }
        lb_arena_finish(&arena);
    }
}

static void answers_that_cannot_be_written_are_refused(void **state) {
    (void)state;
    const float bad[] = {1, INFINITY, NAN};
    const uint16_t half[] = {0};
    const uint64_t big[] = {UINT64_MAX};
    float *many = calloc(LB_MAX_JSON_VALUES + 1, sizeof *many);
    assert_non_null(many);
    struct lb_wire_tensor outputs[] = {
        {"logits", LB_DT_FP32, 1, {3}, bad, sizeof bad, false},
        {"h", LB_DT_FP16, 1, {1}, half, sizeof half, false},
        {"u", LB_DT_UINT64, 1, {1}, big, sizeof big, false},
        {"many",
         LB_DT_FP32,
         1,
         {LB_MAX_JSON_VALUES + 1},
         many,
         (LB_MAX_JSON_VALUES + 1) * sizeof *many,
         false},
    };
    const enum lb_status wanted[] = {LB_E_UNSUPPORTED, LB_E_UNSUPPORTED, LB_E_UNSUPPORTED, LB_E_LIMIT};
    for (size_t i = 0; i < 4; i++) {
        struct lb_infer_response r = {
            .model_name = "m", .temperature = 1, .n_outputs = 1, .outputs = &outputs[i]};
        struct lb_buf head;
        struct lb_detail detail = {0};
        lb_buf_init(&head, 64u << 20);
        assert_int_equal(lb_infer_response_head(&r, &head, &detail), wanted[i]);
        assert_non_null(strstr(detail.text, "ask for binary_data"));
        if (i == 0) {
            assert_non_null(strstr(detail.text, "output \"logits\": value 1"));
        }
        lb_buf_reset(&head); /* the same as binary is no trouble */
        outputs[i].binary = true;
        assert_int_equal(lb_infer_response_head(&r, &head, NULL), LB_OK);
        lb_buf_finish(&head);
    }
    free(many);
    struct lb_infer_response r = {.model_name = "m", .temperature = 1};
    struct lb_buf small;
    struct lb_detail detail = {0};
    lb_buf_init(&small, 20);
    assert_int_equal(lb_infer_response_head(&r, &small, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "20 bytes"));
    lb_buf_finish(&small);
}

/* Readers take so much JSON only where all is JSON. */
static void long_json_stands_alone(void **state) {
    (void)state;
    const int64_t n = 1500000;
    float *many = calloc((size_t)n, sizeof *many), one = 1;
    assert_non_null(many);
    for (int64_t i = 0; i < n; i++) {
        many[i] = -1.2345678e-10f;
    }
    struct lb_wire_tensor outputs[] = {
        {"many", LB_DT_FP32, 1, {n}, many, (size_t)n * sizeof *many, false},
        {"one", LB_DT_FP32, 1, {1}, &one, sizeof one, false},
    };
    struct lb_infer_response r = {.model_name = "m", .temperature = 1, .n_outputs = 2, .outputs = outputs};
    struct lb_infer_response back;
    struct lb_arena arena;
    struct lb_buf head;
    struct lb_detail detail = {0};
    lb_arena_init(&arena, KEEP);
    lb_buf_init(&head, LB_MAX_JSON_ANSWER_BYTES);
    assert_int_equal(lb_infer_response_head(&r, &head, NULL), LB_OK);
    assert_true(head.len > LB_MAX_JSON_BYTES);
    assert_int_equal(lb_infer_response_decode(head.data, head.len, -1, &arena, &back, NULL), LB_OK);
    lb_buf_reset(&head);
    outputs[1].binary = true;
    assert_int_equal(lb_infer_response_head(&r, &head, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "ask for binary_data"));
    lb_buf_finish(&head);
    lb_arena_finish(&arena);
    free(many);
}

static void failing_allocations_are_reported(void **state) {
    (void)state;
    static const char json[] =
        "{\"model_name\":\"m\",\"model_version\":\"v\",\"id\":\"a\",\"outputs\":[{\"name\":\"x\","
        "\"shape\":[2],\"datatype\":\"FP32\",\"data\":[1,2]}]}";
    bool done = false;
    for (long nth = 1; !done; nth++) {
        assert_true(nth < 1000);
        struct lb_arena arena;
        struct lb_buf head;
        lb_arena_init(&arena, KEEP);
        lb_buf_init(&head, 1 << 20);
        struct lb_detail detail = {0};
        struct lb_infer_response r;
        lb_mem_fail_from(nth);
        enum lb_status status = lb_infer_response_decode(json, sizeof json - 1, -1, &arena, &r, &detail);
        if (status == LB_OK) {
            status = lb_infer_response_head(&r, &head, &detail);
        }
        lb_mem_fail_from(0);
        if (status != LB_OK && (status != LB_E_NOMEM || detail.text[0] == '\0')) {
            fail_msg("allocation %ld: status %d, %s", nth, status, detail.text);
        }
        done = status == LB_OK;
        lb_buf_finish(&head);
        lb_arena_finish(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_read_back_to_the_same_bits),
        cmocka_unit_test(floats_keep_their_digits),
        cmocka_unit_test(integers_are_written_whole),
        cmocka_unit_test(numbers_are_written_in_the_shortest_way),
        cmocka_unit_test(answers_survive_a_round_trip),
        cmocka_unit_test(json_head_has_this_text),
        cmocka_unit_test(digests_end_answers),
        cmocka_unit_test(other_servers_answers_are_read),
        cmocka_unit_test(malformed_answers_are_named),
        cmocka_unit_test(answers_that_cannot_be_written_are_refused),
        cmocka_unit_test(long_json_stands_alone),
        cmocka_unit_test(failing_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
