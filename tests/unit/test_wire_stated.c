/* The identity of servers without a fingerprint: written, read, compared; and what is no such text. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/half.h"
#include "trainer/wire/stated.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct lb_stated some(void) {
    struct lb_stated stated = {.protocol = "vllm",
                               .model = "a \"b\" \\ c",
                               .version = "0.30",
                               .chat_template = "{{ x }}",
                               .max_length = 126,
                               .hidden_size = 48,
                               .serves = 3,
                               .n_ids = 3,
                               .ids = {5, 0, 99}};
    stated.probe[LB_PROBE_LOGPROBS] = (struct lb_told_probe){.n = 2, .at = {-1.0f / 3, -12.75f}};
    stated.probe[LB_PROBE_STATES] = (struct lb_told_probe){.n = 3, .at = {0.1f, -2, 3}};
    return stated;
}

static void read_back(const struct lb_stated *stated, struct lb_teacher_info *out) {
    struct lb_buf text;
    struct lb_detail detail = {0};
    lb_buf_init(&text, 1 << 16);
    assert_int_equal(lb_stated_write(stated, &text, &detail), LB_OK);
    if (lb_stated_read(text.data, text.len, "vllm", "x", out, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    lb_buf_finish(&text);
}

static void test_round_trip(void **state) {
    (void)state;
    struct lb_stated stated = some();
    struct lb_teacher_info info;
    read_back(&stated, &info);
    assert_string_equal(info.model, "a \"b\" \\ c");
    assert_int_equal(info.max_length, 126);
    assert_int_equal(info.hidden_size, 48);
    assert_int_equal(info.vocab_size, 0);
    assert_int_equal(info.serves, 3);
    assert_int_equal(info.n_probe_ids, 3);
    assert_memory_equal(info.probe_ids, stated.ids, 12);
    assert_true(info.plain_only && info.n_given == 0);
    assert_memory_equal(&info.probe[0], &stated.probe[0], sizeof(int) + 2 * sizeof(float)); /* each bit */
    assert_memory_equal(&info.probe[1], &stated.probe[1], sizeof(int) + 3 * sizeof(float));
    assert_int_equal(strlen(info.fingerprint), 64);
    assert_int_equal(strlen(info.stated), 64);
    /* sha256sum of "{{ x }}" */
    assert_string_equal(info.chat_template_hash,
                        "e52c737297f7dad622da7e58f5a16e7437f2716daccb4da859fc567ccd75c9a4");
}

/* What it says decides one name, what it answers the other; answers that are near are one model's. */
static void test_names(void **state) {
    (void)state;
    struct lb_stated stated = some();
    struct lb_teacher_info info, other;
    read_back(&stated, &info);
    stated.probe[LB_PROBE_LOGPROBS].at[1] -= 0.05f; /* 0.025 on the mean */
    read_back(&stated, &other);
    assert_string_equal(info.stated, other.stated);
    assert_string_not_equal(info.fingerprint, other.fingerprint);
    assert_true(lb_stated_alike(&info, &other));
    assert_int_equal(lb_stated_check(&info, LB_PROBE_LOGPROBS, &other.probe[LB_PROBE_LOGPROBS], NULL), LB_OK);
    stated.probe[LB_PROBE_LOGPROBS].at[1] -= 0.2f;
    read_back(&stated, &other);
    assert_false(lb_stated_alike(&info, &other));
    struct lb_detail detail = {0};
    assert_int_equal(lb_stated_check(&info, LB_PROBE_LOGPROBS, &other.probe[LB_PROBE_LOGPROBS], &detail),
                     LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "another model answers now"));
    stated = some(); /* the same model under another path is the same */
    read_back(&stated, &info);
    assert_string_equal(info.model_id, info.model);
    stated.model_id = "/models/m";
    read_back(&stated, &other);
    assert_string_equal(other.model_id, "/models/m");
    assert_string_equal(info.fingerprint, other.fingerprint);
    assert_string_equal(info.stated, other.stated);
    stated = some(); /* how it computes and how much it lists are no part of who it is */
    stated.system = "vllm-0.32.0-\"7d59d045\"";
    stated.most_top_k = 200;
    read_back(&stated, &other);
    assert_string_equal(info.fingerprint, other.fingerprint);
    assert_string_equal(info.stated, other.stated);
    assert_string_equal(other.kernels, "vllm-0.32.0-_7d59d045_");
    assert_int_equal(strlen(other.compute), 64);
    assert_true(other.tells_most && other.most_top_k == 200 && !info.tells_most && !info.compute[0]);
    stated.system = "vllm-0.32.0-c2552ea2";
    read_back(&stated, &info);
    assert_string_not_equal(info.compute, other.compute);
    stated = some();
    read_back(&stated, &info);
    stated.version = "0.31";
    read_back(&stated, &other);
    assert_string_not_equal(info.stated, other.stated);
    assert_false(lb_stated_alike(&info, &other));
    stated = some();
    stated.probe[LB_PROBE_STATES].n = 0; /* not both give states */
    read_back(&stated, &other);
    assert_false(lb_stated_alike(&info, &other));
}

static void test_refused(void **state) {
    (void)state;
    static const char good[] = "{\"protocol\":\"vllm\",\"model\":\"m\",\"serves\":1,\"max_length\":9,"
                               "\"hidden_size\":0,\"vocab_size\":0,"
                               "\"ids\":[1],\"logprobs\":[-1.5],\"states\":[]}";
    static const struct {
        const char *from, *to, *word;
    } cases[] = {
        {"vllm", "oip", "kept of protocol oip"},
        {"\"model\"", "\"modal\"", "model"},
        {"[1]", "[-1]", "ids[0] is no id"},
        {"[1]", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33]",
         "at most 32 ids"},
        {"[-1.5]", "[\"-1.5\"]", "logprobs[0] is no number"},
        {"[-1.5]", "[1e999]", ""},
        {"\"states\":[]", "\"states\":{}", "states must be a list"},
        {"\"serves\":1", "\"serves\":-1", "serves"},
        {"\"hidden_size\":0", "\"hidden_size\":1.5", "hidden_size"},
        {"}", "", ""},
    };
    struct lb_teacher_info info;
    assert_int_equal(lb_stated_read(good, strlen(good), "vllm", "x", &info, NULL), LB_OK);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char bad[512];
        struct lb_detail detail = {0};
        const char *at = strstr(good, cases[c].from);
        assert_non_null(at);
        snprintf(bad, sizeof bad, "%.*s%s%s", (int)(at - good), good, cases[c].to,
                 at + strlen(cases[c].from));
        enum lb_status status = lb_stated_read(bad, strlen(bad), "vllm", "x", &info, &detail);
        if (status != LB_E_FORMAT || !strstr(detail.text, cases[c].word)) {
            fail_msg("case %zu: %s: %s", c, lb_status_name(status), detail.text);
        }
    }
}

/* States' numbers turn with the states, whatever they are sent as. */
static void test_states(void **state) {
    (void)state;
    float rows[4 * 8];
    uint16_t halves[4 * 8];
    struct lb_told_probe a, b;
    for (int i = 0; i < 32; i++) {
        rows[i] = (float)(i * 7 % 11) - 5;
        halves[i] = lb_f32_to_f16(rows[i]);
    }
    lb_stated_states(rows, LB_DT_FP32, 4, 8, &a);
    lb_stated_states(halves, LB_DT_FP16, 4, 8, &b);
    assert_int_equal(a.n, 4);
    assert_memory_equal(&a, &b, sizeof(int) + 4 * sizeof(float));
    rows[13] += 3; /* in row 1 */
    lb_stated_states(rows, LB_DT_FP32, 4, 8, &b);
    assert_float_equal(fabsf(a.at[1] - b.at[1]), 3 / sqrtf(8), 1e-5f);
    assert_float_equal(a.at[2], b.at[2], 0);
}

static void test_plain_ids(void **state) {
    (void)state;
    struct lb_stated stated = {.n_ids = 0};
    lb_stated_plain_ids(&stated);
    assert_int_equal(stated.n_ids, LB_PROBE_POSITIONS);
    for (int t = 0; t < stated.n_ids; t++) {
        assert_in_range(stated.ids[t], 3, 15);
        assert_int_equal(stated.ids[t], stated.ids[t % 13]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_names),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_states),     cmocka_unit_test(test_plain_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
