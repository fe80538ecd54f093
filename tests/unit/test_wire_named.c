/* Servers of the Open Inference Protocol whose tensors a recipe names: what is asked of one sequence, what is
 * made of its logits, which answers are refused, and what is kept of such a server. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/half.h"
#include "common/nn/head.h"
#include "trainer/wire/named.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define V 5
#define N 3

static const int32_t ids[] = {2, 4, 1};
static const int32_t wanted[] = {1, -1, 0, 3, -1, -1};
static const struct lb_extra extra = {LB_IN_SCORE_IDS, wanted, 2};
static const struct lb_sample sample = {.ids = ids, .n = N, .label = -1, .tag = -1, .extra = &extra};
static const struct lb_sample *const samples[] = {&sample};
static const float logits[N * V] = {0.5f, 2, -1, 1, 2, -1, 0.25f, 3, 0.25f, -2, 0, 0, 0, 4, 1};

static struct lb_arena scratch, arena;
static struct lb_detail detail;

static struct lb_teacher_info info_of(int dims) {
    struct lb_teacher_info info = {.model = "m", .vocab_size = V};
    struct lb_named *named = &info.named;
    named->binary = dims == 2;
    named->n_inputs = 4;
    snprintf(named->version, sizeof named->version, "1");
    snprintf(named->logits, sizeof named->logits, "z");
    named->inputs[0] = (struct lb_named_input){"tokens", "", LB_NAMED_IDS, LB_DT_INT64, (uint8_t)dims};
    named->inputs[1] = (struct lb_named_input){"length", "", LB_NAMED_LENGTHS, LB_DT_UINT32, (uint8_t)dims};
    named->inputs[2] = (struct lb_named_input){"mask", "", LB_NAMED_MASK, LB_DT_BOOL, (uint8_t)dims};
    named->inputs[3] = (struct lb_named_input){"heat", "0.5", LB_NAMED_VALUE, LB_DT_FP32, (uint8_t)dims};
    return info;
}

static void one_sequence_is_asked(void **state) {
    (void)state;
    for (int dims = 1; dims <= 2; dims++) {
        const struct lb_teacher_info info = info_of(dims);
        const struct lb_ask_spec spec = {
            .n_outputs = 1, .outputs = {{LB_OUT_LOGITS, 0, LB_DT_FP32}}, .top_k = 1, .temperature = 1};
        struct lb_asked asked;
        assert_int_equal(lb_dialect_named.build(&info, &spec, samples, 1, 5, &scratch, &asked, &detail),
                         LB_OK);
        struct lb_infer_request request;
        assert_int_equal(lb_infer_request_decode(asked.body.data, asked.body.len, asked.json_bytes, &scratch,
                                                 &request, &detail),
                         LB_OK);
        assert_int_equal(request.n_inputs, 4);
        assert_int_equal(request.n_outputs, 1);
        assert_string_equal(request.outputs[0].name, "z");
        assert_true(request.outputs[0].binary == (dims == 2));
        assert_true((asked.json_bytes < 0) == (dims == 1));
        static const struct {
            const char *name;
            enum lb_datatype datatype;
            int64_t n;
        } want[] = {{"tokens", LB_DT_INT64, N},
                    {"length", LB_DT_UINT32, 1},
                    {"mask", LB_DT_BOOL, N},
                    {"heat", LB_DT_FP32, 1}};
        for (size_t i = 0; i < 4; i++) {
            const struct lb_wire_tensor *t = &request.inputs[i];
            assert_string_equal(t->name, want[i].name);
            assert_int_equal(t->datatype, want[i].datatype);
            assert_int_equal(t->n_dims, dims);
            assert_int_equal(t->dim[dims - 1], want[i].n);
            assert_int_equal(lb_wire_elements(t), want[i].n);
        }
        int64_t id;
        uint32_t length;
        float heat;
        memcpy(&id, (const char *)request.inputs[0].data + 8, sizeof id);
        memcpy(&length, request.inputs[1].data, sizeof length);
        memcpy(&heat, request.inputs[3].data, sizeof heat);
        assert_int_equal(id, 4);
        assert_int_equal(length, N);
        assert_memory_equal(request.inputs[2].data, "\1\1\1", N);
        assert_true(heat == 0.5f);
        /* No parameters of ours: such servers may refuse them. */
        assert_non_null(strstr(asked.body.data, "\"parameters\":{},"));
        lb_asked_finish(&asked);
        lb_arena_reset(&scratch);
    }
}

/* The answer about the sample: logits of a datatype and shape, as the model's version. */
static enum lb_status answer(const struct lb_ask_spec *spec, const char *model, const char *version,
                             enum lb_datatype datatype, int n_dims, const int64_t *dim, const void *data,
                             struct lb_answer *out, bool *other) {
    const struct lb_teacher_info info = info_of(2);
    struct lb_wire_tensor tensor = {
        .name = "z", .datatype = datatype, .n_dims = n_dims, .data = data, .binary = datatype != LB_DT_FP64};
    memcpy(tensor.dim, dim, (size_t)n_dims * sizeof *dim);
    tensor.bytes = (size_t)lb_wire_elements(&tensor) * lb_datatype_bytes(datatype);
    const struct lb_infer_response response = {
        .model_name = model, .model_version = version, .n_outputs = 1, .outputs = &tensor};
    struct lb_buf body;
    struct lb_arena *into = &arena;
    const struct lb_asked asked = {.n = 1, .longest = N, .rows = N};
    lb_buf_init(&body, 1 << 16);
    detail = (struct lb_detail){0};
    assert_int_equal(lb_infer_response_head(&response, &body, NULL), LB_OK);
    int64_t json = tensor.binary ? (int64_t)body.len : -1;
    if (tensor.binary) {
        lb_buf_append(&body, tensor.data, tensor.bytes);
    }
    const struct lb_ask_reply reply = {.body = body.data, .len = body.len, .json_bytes = json, .digest = ""};
    enum lb_status status =
        lb_dialect_named.split(&info, spec, &asked, samples, &reply, &scratch, &into, out, other, &detail);
    lb_buf_finish(&body);
    return status;
}

static float float_of(const struct lb_answer *a, enum lb_output_kind kind, int64_t i) {
    float x;
    lb_wire_floats(lb_answer_find(a, kind, 0), i, 1, &x);
    return x;
}

static void outputs_are_made_of_logits(void **state) {
    (void)state;
    const struct lb_ask_spec spec = {.n_outputs = 9,
                                     .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_UINT16},
                                                 {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32},
                                                 {LB_OUT_LOGSUMEXP, 0, LB_DT_FP32},
                                                 {LB_OUT_REST, 0, LB_DT_FP32},
                                                 {LB_OUT_ACTUAL, 0, LB_DT_FP32},
                                                 {LB_OUT_NEXT, 0, LB_DT_FP32},
                                                 {LB_OUT_RANK, 0, LB_DT_INT32},
                                                 {LB_OUT_AT_LOGPROBS, 0, LB_DT_FP32},
                                                 {LB_OUT_LOGITS, 0, LB_DT_BF16}},
                                     .top_k = 2,
                                     .temperature = 2,
                                     .n_scored = 2};
    static const int64_t shapes[][4] = {{1, N, V}, {N, V}, {1, 1, N, V}};
    static const int n_dims[] = {3, 2, 4};
    for (size_t s = 0; s < 3; s++) {
        struct lb_answer a = {0};
        bool other = true;
        assert_int_equal(answer(&spec, "m", "1", LB_DT_FP32, n_dims[s], shapes[s], logits, &a, &other),
                         LB_OK);
        assert_false(other);
        static const uint16_t top[] = {1, 4, 2, 1, 3, 4};
        assert_memory_equal(lb_answer_find(&a, LB_OUT_TOPK_IDS, 0)->data, top, sizeof top);
        for (int64_t t = 0; t < N; t++) {
            const float *z = logits + t * V;
            double sum = 0, plain = 0;
            for (int i = 0; i < V; i++) {
                sum += exp((double)z[i] / 2);
                plain += exp((double)z[i]);
            }
            double listed = exp((double)z[top[2 * t]] / 2) + exp((double)z[top[2 * t + 1]] / 2);
            assert_true(float_of(&a, LB_OUT_TOPK_VALUES, 2 * t + 1) == z[top[2 * t + 1]]);
            assert_true(fabs((double)float_of(&a, LB_OUT_LOGSUMEXP, t) - log(sum)) < 1e-6);
            assert_true(fabs((double)float_of(&a, LB_OUT_REST, t) - log(1 - listed / sum)) < 1e-5);
            double actual = t + 1 < N ? (double)z[ids[t + 1]] / 2 - log(sum) : 0;
            double next = t + 1 < N ? (double)z[ids[t + 1]] - log(plain) : 0;
            assert_true(fabs((double)float_of(&a, LB_OUT_ACTUAL, t) - actual) < 1e-6);
            assert_true(fabs((double)float_of(&a, LB_OUT_NEXT, t) - next) < 1e-6);
            for (int i = 0; i < 2; i++) {
                int32_t id = wanted[2 * t + i];
                double at = id < 0 ? 0 : (double)z[id] / 2 - log(sum);
                assert_true(fabs((double)float_of(&a, LB_OUT_AT_LOGPROBS, 2 * t + i) - at) < 1e-6);
            }
            assert_true(float_of(&a, LB_OUT_LOGITS, t * V + 1) == z[1]);
        }
        static const int32_t ranks[] = {1, 2, 0}; /* beside id 1; below id 2, beside id 3 */
        assert_memory_equal(lb_answer_find(&a, LB_OUT_RANK, 0)->data, ranks, sizeof ranks);
        lb_arena_reset(&scratch);
        lb_arena_reset(&arena);
    }
}

static void other_answers_are_refused(void **state) {
    (void)state;
    const struct lb_ask_spec spec = {
        .n_outputs = 1, .outputs = {{LB_OUT_LOGITS, 0, LB_DT_FP32}}, .top_k = 1, .temperature = 1};
    static const int64_t right[] = {1, N, V}, short_one[] = {1, N - 1, V}, placeholder[] = {1, 1, 1, 1},
                         two[] = {2, N, V};
    static const double wide[N * V] = {0};
    float broken[N * V];
    uint16_t half[N * V];
    struct lb_answer a;
    bool other = false;
    for (int i = 0; i < N * V; i++) {
        half[i] = lb_f32_to_f16(logits[i]);
    }
    assert_int_equal(answer(&spec, "m", "1", LB_DT_FP16, 3, right, half, &a, &other), LB_OK);
    assert_true(float_of(&a, LB_OUT_LOGITS, 1) == 2);
    assert_int_equal(answer(&spec, "m", "2", LB_DT_FP32, 3, right, logits, &a, &other), LB_E_MISMATCH);
    assert_true(other);
    assert_non_null(strstr(detail.text, "another model answers now: version 2"));
    assert_int_equal(answer(&spec, "n", "1", LB_DT_FP32, 3, right, logits, &a, &other), LB_E_MISMATCH);
    assert_int_equal(answer(&spec, "m", "1", LB_DT_FP32, 3, short_one, logits, &a, &other), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "has shape [1,2,5]"));
    assert_int_equal(answer(&spec, "m", "1", LB_DT_FP32, 4, placeholder, logits, &a, &other), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "extra input"));
    static float twice[2 * N * V];
    assert_int_equal(answer(&spec, "m", "1", LB_DT_FP32, 3, two, twice, &a, &other), LB_E_FORMAT);
    assert_int_equal(answer(&spec, "m", "1", LB_DT_FP64, 3, right, wide, &a, &other), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "FP64"));
    memcpy(broken, logits, sizeof broken);
    broken[7] = NAN;
    assert_int_equal(answer(&spec, "m", "1", LB_DT_FP32, 3, right, broken, &a, &other), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "number 2 of position 1"));
}

/* One sequence a request, several requests at once: no more than their logits have room. */
static void requests_at_once(void **state) {
    (void)state;
    static const struct {
        int64_t v;
        unsigned n;
    } cases[] = {{V, 16}, {32000, 8}, {128256, 2}, {262144, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_teacher_info info = info_of(2);
        info.vocab_size = cases[i].v;
        assert_int_equal(lb_dialect_at_once(&lb_dialect_named, &info), cases[i].n);
        assert_int_equal(lb_dialect_most(&lb_dialect_named, &info, NULL), 1);
        assert_int_equal(lb_dialect_at_once(lb_dialect_get(LB_PROTOCOL_OIP), &info), LB_ASK_AT_ONCE);
    }
}

static void values_fit_their_datatypes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum lb_datatype datatype;
        bool fits;
    } cases[] = {{"1", LB_DT_INT32, true},
                 {"-129", LB_DT_INT8, false},
                 {"-128", LB_DT_INT8, true},
                 {"256", LB_DT_UINT8, false},
                 {"-1", LB_DT_UINT32, false},
                 {"2147483648", LB_DT_INT32, false},
                 {"4294967295", LB_DT_UINT32, true},
                 {"99999999999999999999", LB_DT_INT64, false},
                 {"99999999999999999999", LB_DT_UINT64, false},
                 {"18446744073709551615", LB_DT_UINT64, true},
                 {"18446744073709551616", LB_DT_UINT64, false},
                 {"-1", LB_DT_UINT64, false},
                 {"9223372036854775807", LB_DT_INT64, true},
                 {"-9223372036854775808", LB_DT_INT64, true},
                 {"9223372036854775808", LB_DT_INT64, false},
                 {"1.5", LB_DT_INT32, false},
                 {"1.5", LB_DT_FP32, true},
                 {"1e60", LB_DT_FP32, false},
                 {"1e60", LB_DT_FP64, true},
                 {"1e400", LB_DT_FP64, false},
                 {"65504", LB_DT_FP16, true},
                 {"65520", LB_DT_FP16, false},
                 {"3.38e38", LB_DT_BF16, true},
                 {"3.4e38", LB_DT_BF16, false},
                 {"nan", LB_DT_FP32, false},
                 {"", LB_DT_FP32, false},
                 {"", LB_DT_INT64, false},
                 {"true", LB_DT_BOOL, true},
                 {"false", LB_DT_BOOL, true},
                 {"1", LB_DT_BOOL, false},
                 {"x", LB_DT_BYTES, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (lb_named_value_fits(cases[i].text, cases[i].datatype) != cases[i].fits) {
            fail_msg("\"%s\" as %s", cases[i].text, lb_datatype_name(cases[i].datatype));
        }
    }
}

/* What is kept of a server, cut off anywhere, is refused. */
static void what_is_kept_is_read_again(void **state) {
    (void)state;
    static const char kept[] =
        "{\"protocol\":\"oip\",\"model\":\"m\",\"version\":\"\",\"max_length\":0,\"hidden_size\":0,"
        "\"vocab_size\":5,\"serves\":0,\"ids\":[3,4],\"logprobs\":[-1.5],\"states\":[],\"tensors\":{"
        "\"metadata\":\"ab\",\"version\":\"1\",\"logits\":\"z\",\"binary\":true,\"inputs\":[{\"name\":"
        "\"tokens\",\"value\":"
        "\"\","
        "\"role\":0,\"datatype\":\"INT64\",\"dims\":2}]}}";
    struct lb_teacher_info info;
    assert_int_equal(lb_named_info_read(kept, sizeof kept - 1, "kept", &info, &detail), LB_OK);
    assert_int_equal(info.vocab_size, V);
    assert_int_equal(info.named.n_inputs, 1);
    assert_string_equal(info.named.inputs[0].name, "tokens");
    assert_int_equal(info.named.inputs[0].datatype, LB_DT_INT64);
    assert_non_null(lb_info_given(&info, LB_OUT_LOGITS, 0));
    assert_null(lb_info_given(&info, LB_OUT_HIDDEN_FINAL, 0));
    assert_false(info.plain_only);
    assert_true(info.named.binary);
    for (size_t n = 0; n < sizeof kept - 1; n++) {
        struct lb_detail why = {0};
        assert_int_not_equal(lb_named_info_read(kept, n, "kept", &info, &why), LB_OK);
    }
    static const char *const wrong[] = {"\"role\":0", "\"role\":9", "\"dims\":2",       "\"dims\":0",
                                        "INT64",      "BYTES",      "\"vocab_size\":5", "\"vocab_size\":0"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i += 2) {
        char text[sizeof kept + 16];
        const char *at = strstr(kept, wrong[i]);
        struct lb_detail why = {0};
        int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - kept), kept, wrong[i + 1],
                         at + strlen(wrong[i]));
        assert_int_equal(lb_named_info_read(text, (size_t)n, "kept", &info, &why), LB_E_FORMAT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_sequence_is_asked),     cmocka_unit_test(outputs_are_made_of_logits),
        cmocka_unit_test(other_answers_are_refused), cmocka_unit_test(values_fit_their_datatypes),
        cmocka_unit_test(requests_at_once),          cmocka_unit_test(what_is_kept_is_read_again),
    };
    lb_arena_init(&scratch, 1 << 20);
    lb_arena_init(&arena, 1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_arena_finish(&scratch);
    lb_arena_finish(&arena);
    return failed;
}
