/* Answers as numbers: what does not fit is refused before anything is read from it; images' logits from both
 * lanes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "trainer/loss/target.h"
#include "trainer/wire/possible.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define V 5
#define C 3
#define T 4
#define K 2

static const struct lb_ask_spec text_spec = {.n_outputs = 4,
                                             .outputs = {{LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP32},
                                                         {LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                                                         {LB_OUT_LOGSUMEXP, 0, LB_DT_FP32},
                                                         {LB_OUT_ATTENTION, 1, LB_DT_FP32}},
                                             .top_k = K,
                                             .temperature = 1};
static const struct lb_teacher_info text_info = {
    .vocab_size = V, .hidden_size = C, .n_layers = 2, .n_heads = 2, .max_length = 8};
static const struct lb_ask_spec image_spec = {
    .n_outputs = 2,
    .outputs = {{LB_OUT_LOGITS, 0, LB_DT_FP32}, {LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP32}},
    .top_k = K,
    .temperature = 1};
static const struct lb_teacher_info image_info = {
    .vocab_size = V, .hidden_size = C, .n_layers = 1, .input_size = 4};

static struct lb_wire_tensor tensor(const char *name, enum lb_datatype datatype, int n_dims, int64_t d0,
                                    int64_t d1, int64_t d2, const void *data) {
    struct lb_wire_tensor t = {
        .name = name, .datatype = datatype, .n_dims = n_dims, .dim = {d0, d1, d2}, .data = data};
    t.bytes = (size_t)lb_wire_elements(&t) * lb_datatype_bytes(datatype);
    return t;
}

static float zeros[2 * T * T];

static struct lb_answer named(struct lb_answer answer) {
    assert_int_equal(lb_answer_name(&answer), LB_OK);
    return answer;
}

/* An answer about a text of T positions that fits; ids [T * K] are the caller's. */
static struct lb_answer text_answer(const int32_t *ids) {
    return named((struct lb_answer){.n_tensors = 4,
                                    .tensors = {tensor("hidden_states.final", LB_DT_FP32, 2, T, C, 1, zeros),
                                                tensor("logits.topk_ids", LB_DT_INT32, 2, T, K, 1, ids),
                                                tensor("logsumexp", LB_DT_FP32, 1, T, 1, 1, zeros),
                                                tensor("attentions.1", LB_DT_FP32, 3, 2, T, T, zeros)}});
}

static void expect(const struct lb_answer *answer, const struct lb_ask_spec *spec,
                   const struct lb_teacher_info *info, int64_t n, enum lb_status wanted, const char *word) {
    struct lb_detail detail = {0};
    enum lb_status status = lb_answer_check(answer, spec, info, n, &detail);
    if (status != wanted || !strstr(detail.text, word)) {
        fail_msg("%s: %s", lb_status_name(status), detail.text);
    }
}

static void text_answers(void **state) {
    (void)state;
    int32_t ids[T * K] = {0, 1, 2, 3, 4, 0, 1, 2};
    struct lb_answer good = text_answer(ids), bad;
    expect(&good, &text_spec, &text_info, T, LB_OK, "");
    expect(&good, &text_spec, &text_info, T - 1, LB_E_MISMATCH, "hidden_states.final");
    bad = good;
    bad.tensors[0].dim[1] = C - 1;
    expect(&bad, &text_spec, &text_info, T, LB_E_MISMATCH, "hidden_states.final");
    bad = good;
    bad.tensors[0].datatype = LB_DT_FP16;
    expect(&bad, &text_spec, &text_info, T, LB_E_MISMATCH, "hidden_states.final");
    bad = good;
    bad.tensors[2].bytes--;
    expect(&bad, &text_spec, &text_info, T, LB_E_MISMATCH, "logsumexp");
    bad = good;
    bad.tensors[3].name = "attentions.0";
    bad = named(bad);
    expect(&bad, &text_spec, &text_info, T, LB_E_FORMAT, "lacks the output attentions.1");
    for (int i = 0; i < T * K; i++) {
        int32_t wild[] = {V, -1, INT32_MAX, INT32_MIN}, keep = ids[i];
        ids[i] = wild[i % 4];
        expect(&good, &text_spec, &text_info, T, LB_E_FORMAT, "logits.topk_ids names id");
        ids[i] = keep;
    }
}

static void image_answers(void **state) {
    (void)state;
    struct lb_answer good =
        named((struct lb_answer){.n_tensors = 2,
                                 .tensors = {tensor("logits", LB_DT_FP32, 2, 1, V, 1, zeros),
                                             tensor("hidden_states.final", LB_DT_FP32, 2, 1, C, 1, zeros)}});
    struct lb_answer bad = good;
    expect(&good, &image_spec, &image_info, 1, LB_OK, "");
    bad.tensors[0].dim[1] = V + 1;
    expect(&bad, &image_spec, &image_info, 1, LB_E_MISMATCH, "logits");
    bad = good;
    bad.tensors[1].dim[1] = C - 1;
    bad.tensors[1].bytes -= sizeof(float);
    expect(&bad, &image_spec, &image_info, 1, LB_E_MISMATCH, "hidden_states.final");
}

/* A teacher that lists what it gives: anything else is refused with the list, and layers of any width are
 * read. */
static void what_is_given(void **state) {
    (void)state;
    struct lb_teacher_info info = {.vocab_size = V, .hidden_size = C, .n_layers = 2, .input_size = 4};
    struct lb_ask_spec spec = {
        .n_outputs = 1, .outputs = {{LB_OUT_HIDDEN, 1, LB_DT_FP32}}, .top_k = K, .temperature = 1};
    struct lb_detail detail = {0};
    assert_int_equal(lb_info_gives(&info, &spec, "tutor", &detail), LB_E_ARG); /* of which width? */
    assert_non_null(strstr(detail.text, "does not tell how wide"));
    info.n_given = 4;
    info.given[0] = (struct lb_given){.kind = LB_OUT_LOGITS, .width = V};
    info.given[1] = (struct lb_given){.kind = LB_OUT_HIDDEN, .layer = 0, .width = 4};
    info.given[2] = (struct lb_given){.kind = LB_OUT_HIDDEN, .layer = 1, .width = 7};
    info.given[3] = (struct lb_given){.kind = LB_OUT_LOGSUMEXP};
    assert_int_equal(lb_info_gives(&info, &spec, "tutor", NULL), LB_OK);
    assert_int_equal(lb_info_state_width(&info, LB_OUT_HIDDEN, 1), 7);
    struct lb_answer answer = named((struct lb_answer){
        .n_tensors = 1, .tensors = {tensor("hidden_states.1", LB_DT_FP32, 2, 1, 7, 1, zeros)}});
    expect(&answer, &spec, &info, 1, LB_OK, "");
    spec.outputs[0].layer = 2;
    detail = (struct lb_detail){0};
    assert_int_equal(lb_info_gives(&info, &spec, "tutor", &detail), LB_E_ARG);
    assert_string_equal(detail.text,
                        "teacher tutor does not give hidden_states.2, which this run needs; it gives "
                        "logits, hidden_states.0 to 1, logsumexp. Of the ladder own token -> top-20 -> "
                        "top-k -> chosen ids -> full logits -> final state -> inner layers it has full "
                        "logits, inner layers; this needs inner layers");
}

/* The rest of a row has less than all of the probability. */
static void what_is_left(void **state) {
    (void)state;
    float rest[T] = {-0.5f, -27.6f, -1e-20f, -3};
    struct lb_answer answer = named((struct lb_answer){
        .n_tensors = 1, .tensors = {tensor("logprobs.rest", LB_DT_FP32, 1, T, 1, 1, rest)}});
    struct lb_detail detail = {0};
    assert_int_equal(lb_answer_possible(&answer, 1, "tutor", &detail), LB_OK);
    static const float bad[] = {0, 1e-4f, 0.5f, NAN, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        detail = (struct lb_detail){0};
        rest[2] = bad[i];
        assert_int_equal(lb_answer_possible(&answer, 1, "tutor", &detail), LB_E_FORMAT);
        assert_non_null(strstr(detail.text, "teacher tutor: logprobs.rest of its answer cannot be: row 2"));
    }
}

/* What lies outside of a map and the rest within it leave something for the ids that are listed. */
static void what_is_outside(void **state) {
    (void)state;
    float rest[T] = {-1, -27.6f, -3, -1}, outside[T] = {-1, -1e-6f, -27.6f, -0.5f};
    struct lb_answer answer =
        named((struct lb_answer){.n_tensors = 2,
                                 .tensors = {tensor("logprobs.rest", LB_DT_FP32, 1, T, 1, 1, rest),
                                             tensor("logprobs.outside", LB_DT_FP32, 1, T, 1, 1, outside)}});
    struct lb_detail detail = {0};
    assert_int_equal(lb_answer_possible(&answer, 1, "tutor", &detail), LB_OK);
    static const float bad[] = {-0.4f, -1e-3f, 0, 0.5f, NAN};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        detail = (struct lb_detail){0};
        outside[3] = bad[i];
        assert_int_equal(lb_answer_possible(&answer, 1, "tutor", &detail), LB_E_FORMAT);
        assert_non_null(
            strstr(detail.text, "teacher tutor: logprobs.outside of its answer cannot be: row 3"));
    }
}

/* Under a map, distributions have its shape and ids, what is said of all of the vocabulary does not. */
static void under_a_map(void **state) {
    (void)state;
    static float z[T * 2], lse[T];
    int32_t ids[T * 2] = {0, 1, 1, 0, 0, 1, 1, 0};
    struct lb_teacher_info info = {.vocab_size = V, .hidden_size = 4};
    struct lb_ask_spec spec = {.n_outputs = 3,
                               .outputs = {{LB_OUT_LOGITS, 0, LB_DT_FP32},
                                           {LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                                           {LB_OUT_LOGSUMEXP, 0, LB_DT_FP32}},
                               .top_k = V,
                               .temperature = 1,
                               .vocab_map = "f00d",
                               .n_kept = 2};
    struct lb_answer answer =
        named((struct lb_answer){.n_tensors = 3,
                                 .tensors = {tensor("logits", LB_DT_FP32, 2, T, 2, 1, z),
                                             tensor("logits.topk_ids", LB_DT_INT32, 2, T, 2, 1, ids),
                                             tensor("logsumexp", LB_DT_FP32, 1, T, 1, 1, lse)}});
    expect(&answer, &spec, &info, T, LB_OK, "");
    assert_int_equal(lb_ask_answer_bytes(&info, &spec, T, T), (uint64_t)T * (2 * 4 + 2 * 4 + 4));
    ids[5] = 2;
    expect(&answer, &spec, &info, T, LB_E_FORMAT, "names id 2, the vocabulary ends at 1");
    ids[5] = 1;
    spec.vocab_map[0] = '\0';
    expect(&answer, &spec, &info, T, LB_E_MISMATCH, "logits has another shape");
}

/* Numbers of other datatypes are not read as if they were the output's own. */
static void other_datatypes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum lb_datatype datatype;
    } bad[] = {{"logits.topk_ids", LB_DT_UINT8},   {"logits.topk_ids", LB_DT_INT64},
               {"logits.topk_values", LB_DT_INT8}, {"logprobs.rest", LB_DT_BOOL},
               {"logsumexp", LB_DT_UINT8},         {"attentions.0", LB_DT_UINT8}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lb_detail detail = {0};
        uint8_t *bytes = lb_calloc(1, lb_datatype_bytes(bad[i].datatype)); /* one number, nothing behind it */
        struct lb_answer answer = named((struct lb_answer){
            .n_tensors = 1, .tensors = {tensor(bad[i].name, bad[i].datatype, 2, 1, 1, 1, bytes)}});
        assert_int_equal(lb_answer_possible(&answer, 1, "tutor", &detail), LB_E_FORMAT);
        assert_non_null(strstr(detail.text, "it does not come as "));
        assert_non_null(strstr(detail.text, lb_datatype_name(bad[i].datatype)));
        lb_free(bytes);
    }
}

/* Ids that were drawn rise, zeros behind them; all rows were drawn from as often. */
static void impossible_draws(void **state) {
    (void)state;
    static const struct {
        int32_t ids[2][3], counts[2][3];
        const char *word; /* "": possible */
    } cases[] = {
        {{{0, 2, 4}, {3, 0, 0}}, {{1, 2, 1}, {4, 0, 0}}, ""},
        {{{0, 2, 2}, {3, 0, 0}}, {{1, 2, 1}, {4, 0, 0}}, "samples.ids of its answer cannot be: row 0"},
        {{{0, 2, 4}, {3, 0, 1}}, {{1, 2, 1}, {4, 0, 0}}, "samples.ids of its answer cannot be: row 1"},
        {{{0, 2, 4}, {3, 0, 0}}, {{1, 2, 1}, {3, 0, 0}}, "row 1 was drawn from more or less often"},
        {{{0, 2, 4}, {3, 0, 0}}, {{1, 2, 1}, {0, 0, 4}}, "row 1 has counts that cannot be"},
        {{{0, 2, 4}, {3, 0, 0}}, {{5, -2, 1}, {4, 0, 0}}, "row 0 has counts that cannot be"},
        {{{0, 0, 0}, {0, 0, 0}}, {{0, 0, 0}, {0, 0, 0}}, "row 0 was drawn from more or less often"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_detail detail = {0};
        struct lb_answer answer = named((struct lb_answer){
            .n_tensors = 2,
            .tensors = {tensor("samples.ids", LB_DT_INT32, 2, 2, 3, 1, cases[i].ids),
                        tensor("samples.counts", LB_DT_INT32, 2, 2, 3, 1, cases[i].counts)}});
        bool possible = lb_answer_possible(&answer, 1, "tutor", &detail) == LB_OK;
        if (possible != (cases[i].word[0] == '\0') || !strstr(detail.text, cases[i].word)) {
            fail_msg("case %zu: %s", i, detail.text);
        }
    }
}

/* Of a text the labels that count, seen at temperature 1: where both are there, logprobs.next has it. The
 * last label no teacher sees. */
static void text_cross_entropy(void **state) {
    (void)state;
    static const int32_t ids[T + 1] = {0, 1, 2, 3, 4};
    static const uint8_t counts[T + 1] = {0, 1, 0, 1, 1};
    float next[T] = {-1, -2, -4, -8}, actual[T] = {-16, -32, -64, -128};
    struct lb_sample sample = {.ids = ids, .n = T, .tag = -1};
    struct lb_answer answer = named((struct lb_answer){
        .n_tensors = 1, .tensors = {tensor("logprobs.actual", LB_DT_FP32, 1, T, 1, 1, actual)}});
    const struct lb_answer *pointer = &answer;
    const struct lb_answered batch = {
        .samples = &sample, .n_samples = 1, .n_teachers = 1, .answers = &pointer};
    assert_true(fabs(lb_target_cross_entropy(&batch, 0, 0, NULL) - (16 + 32 + 64) / 3.0) < 1e-9);
    answer.tensors[answer.n_tensors++] = tensor("logprobs.next", LB_DT_FP32, 1, T, 1, 1, next);
    answer = named(answer);
    assert_true(fabs(lb_target_cross_entropy(&batch, 0, 0, NULL) - (1 + 2 + 4) / 3.0) < 1e-9);
    sample.counts = counts;
    assert_true(fabs(lb_target_cross_entropy(&batch, 0, 0, NULL) - (1 + 4) / 2.0) < 1e-9);
    static const double want[T] = {1, 0, 4, 0};
    for (int64_t t = 0; t < T; t++) {
        assert_true(fabs(lb_target_cross_entropy_at(&batch, 0, 0, t, NULL) - want[t]) < 1e-9);
    }
}

/* Three images, the second of them not answered: by logits and by final states the teacher says the same. */
static void image_logits(void **state) {
    (void)state;
    enum { N = 3 };
    float weight[V * C], bias[V], states[N * C], logits[N * V], z[N * V], work[N * C];
    struct lb_teacher_head head = {weight, bias, V, C, LB_HEAD_PLAIN};
    for (int i = 0; i < V * C; i++) {
        weight[i] = (float)(i % 7) / 4 - 0.5f;
    }
    for (int j = 0; j < V; j++) {
        bias[j] = (float)j / 8;
    }
    for (int i = 0; i < N * C; i++) {
        states[i] = (float)(i % 5) - 1.5f;
    }
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < V; j++) {
            logits[i * V + j] = bias[j];
            for (int c = 0; c < C; c++) {
                logits[i * V + j] += weight[j * C + c] * states[i * C + c];
            }
        }
    }
    for (int lane = 0; lane < 2; lane++) {
        struct lb_answer answers[N];
        struct lb_sample samples[N];
        int32_t offsets[N + 1], sequence[N];
        for (int i = 0; i <= N; i++) {
            offsets[i] = i;
        }
        for (int i = 0; i < N; i++) {
            sequence[i] = i;
            samples[i] = (struct lb_sample){.n = 1, .features = zeros, .label = i, .tag = -1};
            answers[i] = named((struct lb_answer){
                .n_tensors = 1,
                .tensors = {lane == 0
                                ? tensor("logits", LB_DT_FP32, 2, 1, V, 1, logits + i * V)
                                : tensor("hidden_states.final", LB_DT_FP32, 2, 1, C, 1, states + i * C)}});
        }
        const struct lb_answer *pointers[N] = {&answers[0], NULL, &answers[2]};
        struct lb_answered batch = {samples, N, offsets, sequence, 1, pointers, true};
        for (int i = 0; i < N * V; i++) {
            z[i] = -77;
        }
        lb_target_logits(&batch, 0, lane == 0 ? NULL : &head, NULL, V, 0, N, work, z);
        for (int i = 0; i < N; i++) {
            double sum = 0;
            for (int j = 0; j < V; j++) {
                float want = i == 1 ? -77 : logits[i * V + j];
                assert_true(fabsf(z[i * V + j] - want) < 1e-5f);
                sum += exp((double)logits[i * V + j]);
            }
            double ce = lb_target_cross_entropy(&batch, 0, i, lane == 0 ? NULL : &head);
            double want = i == 1 ? 0 : log(sum) - (double)logits[i * V + i];
            assert_true(fabs(ce - want) < 1e-5);
        }
    }
}

/* Three texts, the second of them answered or not: any rows of them that a chunk may hold, by logits and by
 * final states. */
static void text_logits(void **state) {
    (void)state;
    enum { TEXTS = 3, ROWS = 10 };
    static const int64_t lengths[TEXTS] = {3, 5, 2};
    static const int32_t offsets[TEXTS + 1] = {0, 3, 8, 10}, sequence[ROWS] = {0, 0, 0, 1, 1, 1, 1, 1, 2, 2};
    float weight[V * C], states[ROWS * C], logits[ROWS * V], z[ROWS * V], work[ROWS * C];
    struct lb_teacher_head head = {weight, NULL, V, C, LB_HEAD_PLAIN};
    struct lb_sample samples[TEXTS];
    struct lb_answer answers[TEXTS];
    for (int i = 0; i < V * C; i++) {
        weight[i] = (float)(i % 7) / 4 - 0.5f;
    }
    for (int i = 0; i < ROWS * C; i++) {
        states[i] = (float)(i * i % 13) - 5.5f;
    }
    for (int i = 0; i < ROWS * V; i++) {
        logits[i] = 0;
        for (int c = 0; c < C; c++) {
            logits[i] += weight[i % V * C + c] * states[i / V * C + c];
        }
    }
    for (int how = 0; how < 4; how++) {
        bool whole = how % 2 == 0, gap = how / 2 == 0;
        for (int i = 0; i < TEXTS; i++) {
            samples[i] = (struct lb_sample){.n = lengths[i], .tag = -1};
            answers[i] = named((struct lb_answer){
                .n_tensors = 1,
                .tensors = {whole ? tensor("logits", LB_DT_FP32, 2, lengths[i], V, 1, logits + offsets[i] * V)
                                  : tensor("hidden_states.final", LB_DT_FP32, 2, lengths[i], C, 1,
                                           states + offsets[i] * C)}});
        }
        const struct lb_answer *pointers[TEXTS] = {&answers[0], gap ? NULL : &answers[1], &answers[2]};
        const struct lb_answered batch = {samples, TEXTS, offsets, sequence, 1, pointers};
        for (int row = 0; row < ROWS; row++) {
            for (int n = 1; row + n <= ROWS; n++) {
                for (int i = 0; i < ROWS * V; i++) {
                    z[i] = -77;
                }
                lb_target_logits(&batch, 0, whole ? NULL : &head, NULL, V, row, n, work, z);
                for (int i = 0; i < ROWS * V; i++) {
                    bool there = i < n * V && !(gap && sequence[row + i / V] == 1);
                    assert_true(fabsf(z[i] - (there ? logits[row * V + i] : -77)) < 1e-5f);
                }
            }
        }
    }
}

/* Whole logits of many classes, whose rows threads share: those that the student has, zeros where the teacher
 * was not asked. */
static void many_logits(void **state) {
    (void)state;
    enum { ROWS = 9, FULL = 20000, FIRST = 2 };
    static const int32_t offsets[] = {0, ROWS}, sequence[ROWS] = {0};
    int32_t *kept = malloc(FULL * sizeof *kept);
    float *logits = malloc((ROWS - FIRST) * FULL * sizeof *logits), *z = malloc(ROWS * FULL * sizeof *z);
    int threads = omp_get_max_threads();
    assert_true(kept && logits && z);
    for (int i = 0; i < (ROWS - FIRST) * FULL; i++) {
        logits[i] = (float)(i % 9973) - 5000;
    }
    struct lb_vocab_map map = {.kept = kept};
    for (int32_t i = 0; i < FULL; i++) {
        if (i % 5 != 0) {
            kept[map.n++] = i;
        }
    }
    struct lb_answer answer = named(
        (struct lb_answer){.first = FIRST,
                           .n_tensors = 1,
                           .tensors = {tensor("logits", LB_DT_FP32, 2, ROWS - FIRST, FULL, 1, logits)}});
    const struct lb_answer *pointer = &answer;
    struct lb_sample sample = {.n = ROWS, .tag = -1};
    const struct lb_answered batch = {&sample, 1, offsets, sequence, 1, &pointer, false};
    omp_set_num_threads(4);
    for (int mapped = 0; mapped < 2; mapped++) {
        int64_t v = mapped ? map.n : FULL;
        lb_target_logits(&batch, 0, NULL, mapped ? &map : NULL, v, 0, ROWS, NULL, z);
        for (int64_t i = 0; i < ROWS * v; i++) {
            int64_t row = i / v - FIRST, id = mapped ? kept[i % v] : i % v;
            assert_true(z[i] == (row < 0 ? 0 : logits[row * FULL + id]));
        }
    }
    omp_set_num_threads(threads);
    free(kept), free(logits), free(z);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_answers),     cmocka_unit_test(image_answers),
        cmocka_unit_test(what_is_given),    cmocka_unit_test(image_logits),
        cmocka_unit_test(what_is_left),     cmocka_unit_test(other_datatypes),
        cmocka_unit_test(impossible_draws), cmocka_unit_test(what_is_outside),
        cmocka_unit_test(under_a_map),      cmocka_unit_test(text_cross_entropy),
        cmocka_unit_test(text_logits),      cmocka_unit_test(many_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
