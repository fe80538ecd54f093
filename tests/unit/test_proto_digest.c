/* The request digest: what it must not depend on, what it must depend on, one fixed value; and output names.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "proto/outputs.h"
#include "proto/oip.h"

#include <stdio.h>
#include <string.h>

static const int32_t ids32[] = {1, 2, 3, 4, 5, 6};
static const int64_t ids64[] = {1, 2, 3, 4, 5, 6};
static const int32_t lengths[] = {3, 2};

struct asked {
    struct lb_wire_tensor inputs[2];
    struct lb_wire_output outputs[3];
    struct lb_infer_request request;
};

/* The outputs' order and their spelled-out datatypes vary with the form, what is asked does not. */
static void ask(struct asked *a, int form) {
    *a = (struct asked){
        .inputs = {{"input_ids", LB_DT_INT32, 2, {2, 3}, ids32, sizeof ids32, false},
                   {"lengths", LB_DT_INT32, 1, {2}, lengths, sizeof lengths, false}},
        .outputs = {{"logits.topk_ids", false, LB_DT_NONE},
                    {"logits.topk_values", false, LB_DT_NONE},
                    {"hidden_states.2", true, LB_DT_FP16}},
        .request = {.top_k = 16, .temperature = 2, .n_inputs = 2, .n_outputs = 3},
    };
    a->request.inputs = a->inputs;
    a->request.outputs = a->outputs;
    if (form == 0) {
        return;
    }
    struct lb_wire_tensor input = a->inputs[0];
    a->inputs[0] = a->inputs[1];
    a->inputs[1] = input;
    a->inputs[1].datatype = LB_DT_INT64, a->inputs[1].data = ids64, a->inputs[1].bytes = sizeof ids64;
    a->inputs[0].binary = a->inputs[1].binary = true;
    struct lb_wire_output output = a->outputs[0];
    a->outputs[0] = a->outputs[2];
    a->outputs[2] = output;
    a->outputs[2].binary = true, a->outputs[2].datatype = LB_DT_INT32;
    a->outputs[1].datatype = LB_DT_FP32;
    a->request.id = "7", a->request.timeout_us = 99, a->request.priority = 2,
    a->request.binary_default = true;
}

#define MAP "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void digest_of(const struct asked *a, char out[LB_SHA256_HEX]) {
    assert_int_equal(lb_request_digest("f00d", &a->request, out), LB_OK);
    assert_int_equal(strlen(out), 64);
}

static void writing_it_otherwise_changes_nothing(void **state) {
    (void)state;
    struct asked a, b;
    char x[LB_SHA256_HEX], y[LB_SHA256_HEX];
    ask(&a, 0);
    ask(&b, 1);
    digest_of(&a, x);
    digest_of(&b, y);
    assert_string_equal(x, y);
}

/* Computed by tests/golden/make_oip.py's own implementation in Python. */
static void digest_has_this_value(void **state) {
    (void)state;
    struct asked a;
    char x[LB_SHA256_HEX];
    ask(&a, 0);
    digest_of(&a, x);
    assert_string_equal(x, "cd3c0ceafe5dc65f897a3d6d14907d77f240c1426ac8fd40918b69dec8852508");
    a.request.vocab_map = MAP;
    digest_of(&a, x);
    assert_string_equal(x, "fe66ed1e7f503e9b315774f515115ba5dc25c87edebfd8d8afc781748d7372fd");
}

static void asking_something_else_changes_it(void **state) {
    (void)state;
    static const int32_t other_ids[] = {1, 2, 3, 4, 5, 7};
    static const int64_t big_ids[] = {1, 2, 3, 4, 5, 6 + (1ll << 32)};
    char seen[18][LB_SHA256_HEX];
    size_t n = 0;
    for (int change = 0; change < 18; change++) {
        struct asked a;
        ask(&a, 0);
        const char *fingerprint = "f00d";
        switch (change) {
        case 1:
            fingerprint = "f00e";
            break;
        case 2:
            a.request.top_k = 17;
            break;
        case 3:
            a.request.temperature = 2.0000001;
            break;
        case 4:
            a.request.sample_count = 1;
            break;
        case 5:
            a.request.seed = 1;
            break;
        case 6:
            a.inputs[0].data = other_ids;
            break;
        case 7:
            a.inputs[0].dim[0] = 3, a.inputs[0].dim[1] = 2;
            break;
        case 8:
            a.request.n_inputs = 1;
            break;
        case 9:
            a.request.n_outputs = 2;
            break;
        case 10:
            a.outputs[2].datatype = LB_DT_NONE;
            break;
        case 11:
            a.outputs[2].name = "hidden_states.3";
            break;
        case 12: /* as INT32 these would be the same bytes */
            a.inputs[0].datatype = LB_DT_INT64, a.inputs[0].data = big_ids,
            a.inputs[0].bytes = sizeof big_ids;
            break;
        case 13:
            a.request.n_outputs = 0;
            break;
        case 14: /* given, though no other than without it */
            a.request.sample_temperature = 2;
            break;
        case 15:
            a.request.sample_temperature = 2.5;
            break;
        case 16:
            a.request.vocab_map = MAP;
            break;
        case 17:
            a.request.vocab_map = &MAP[1]; /* whatever it is */
            break;
        default:
            break;
        }
        assert_int_equal(lb_request_digest(fingerprint, &a.request, seen[n]), LB_OK);
        for (size_t i = 0; i < n; i++) {
            if (strcmp(seen[i], seen[n]) == 0) {
                fail_msg("change %d gives the digest of change %zu", change, i);
            }
        }
        n++;
    }
}

/* INT64 ids are narrowed in pieces: more of them than one piece holds. */
static void long_sequences_are_narrowed_whole(void **state) {
    (void)state;
    static int32_t narrow[2500];
    static int64_t wide[2500];
    for (int i = 0; i < 2500; i++) {
        narrow[i] = -i * 7919;
        wide[i] = narrow[i];
    }
    char x[LB_SHA256_HEX], y[LB_SHA256_HEX];
    struct asked a;
    ask(&a, 0);
    a.inputs[0] =
        (struct lb_wire_tensor){"input_ids", LB_DT_INT32, 2, {1, 2500}, narrow, sizeof narrow, false};
    digest_of(&a, x);
    a.inputs[0] = (struct lb_wire_tensor){"input_ids", LB_DT_INT64, 2, {1, 2500}, wide, sizeof wide, false};
    digest_of(&a, y);
    assert_string_equal(x, y);
    wide[2499]++;
    digest_of(&a, y);
    assert_string_not_equal(x, y);
}

static void names_are_parsed_and_written(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum lb_output_kind kind;
        int layer;
    } good[] = {
        {"logits", LB_OUT_LOGITS, 0},
        {"logits.topk_ids", LB_OUT_TOPK_IDS, 0},
        {"logits.topk_values", LB_OUT_TOPK_VALUES, 0},
        {"logsumexp", LB_OUT_LOGSUMEXP, 0},
        {"logprobs.actual", LB_OUT_ACTUAL, 0},
        {"logits.at_ids", LB_OUT_AT_IDS, 0},
        {"samples.counts", LB_OUT_SAMPLE_COUNTS, 0},
        {"hidden_states.0", LB_OUT_HIDDEN, 0},
        {"hidden_states.12", LB_OUT_HIDDEN, 12},
        {"hidden_states.9999", LB_OUT_HIDDEN, 9999},
        {"hidden_states.final", LB_OUT_HIDDEN_FINAL, 0},
        {"attentions.3", LB_OUT_ATTENTION, 3},
        {"keys.3", LB_OUT_KEYS, 3},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct lb_output_name out;
        char text[LB_MAX_NAME];
        assert_int_equal(lb_output_parse(good[i].name, &out, NULL), LB_OK);
        assert_int_equal(out.kind, good[i].kind);
        assert_int_equal(out.layer, good[i].layer);
        lb_output_format(out.kind, out.layer, text);
        assert_string_equal(text, good[i].name);
    }
    static const char *const bad[] = {"",
                                      "logit",
                                      "logits ",
                                      "logits.",
                                      "Logits",
                                      "hidden_states",
                                      "hidden_states.",
                                      "hidden_states.01",
                                      "hidden_states.-1",
                                      "hidden_states.+1",
                                      "hidden_states.1 ",
                                      "hidden_states.10000",
                                      "hidden_states.1x",
                                      "attentions.final",
                                      "attentions."};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lb_output_name out = {.layer = -7};
        struct lb_detail detail = {0};
        assert_int_equal(lb_output_parse(bad[i], &out, &detail), LB_E_NOTFOUND);
        assert_non_null(strstr(detail.text, "hidden_states.N"));
        assert_int_equal(out.layer, -7);
    }
}

static void datatypes_are_named(void **state) {
    (void)state;
    for (int d = LB_DT_BOOL; d <= LB_DT_BYTES; d++) {
        assert_int_equal(lb_datatype_parse(lb_datatype_name((enum lb_datatype)d)), d);
    }
    assert_int_equal(lb_datatype_parse("FP8"), LB_DT_NONE);
    assert_int_equal(lb_datatype_parse(""), LB_DT_NONE);
    assert_int_equal(lb_datatype_bytes(LB_DT_BYTES), 0);
    assert_int_equal(lb_datatype_bytes(LB_DT_BF16), 2);
    assert_int_equal(lb_datatype_bytes(LB_DT_UINT64), 8);
}

static void no_memory_gives_no_digest(void **state) {
    (void)state;
    struct asked a;
    char x[LB_SHA256_HEX] = "unchanged";
    ask(&a, 0);
    lb_mem_fail_from(1);
    enum lb_status status = lb_request_digest("f00d", &a.request, x);
    long n = lb_mem_count();
    lb_mem_fail_from(0);
    assert_int_equal(status,
                     n > 0 ? LB_E_NOMEM : LB_OK); /* a library that allocates by itself cannot be failed */
    assert_int_equal(strlen(x), n > 0 ? 0 : 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writing_it_otherwise_changes_nothing),
        cmocka_unit_test(digest_has_this_value),
        cmocka_unit_test(asking_something_else_changes_it),
        cmocka_unit_test(long_sequences_are_narrowed_whole),
        cmocka_unit_test(names_are_parsed_and_written),
        cmocka_unit_test(datatypes_are_named),
        cmocka_unit_test(no_memory_gives_no_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
