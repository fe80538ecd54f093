/* What is remembered of servers that have no fingerprint, in a run folder. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "trainer/teachers/opened.h"
#include "trainer/wire/stated.h"

#include <stdlib.h>

static char folder[] = "/tmp/limbeck-remembered-XXXXXX";

/* What a vLLM says, as the run takes it. */
static struct lb_teacher_info settle(const char *model_id, int64_t most_top_k, float answer) {
    const struct lb_teacher_address address = {.name = "t", .url = "http://127.0.0.1:1"};
    const struct lb_teachers teachers = {.options = {.log_dir = folder}};
    const struct teacher teacher = {
        .is = &address, .dialect = lb_dialect_get(LB_PROTOCOL_VLLM), .label = "teacher t"};
    struct lb_stated stated = {.protocol = "vllm",
                               .model = "m",
                               .model_id = model_id,
                               .version = "1",
                               .max_length = 126,
                               .most_top_k = most_top_k,
                               .serves = 1,
                               .n_ids = 3,
                               .ids = {5, 0, 99}};
    stated.probe[LB_PROBE_LOGPROBS] = (struct lb_told_probe){.n = 2, .at = {-1, answer}};
    struct lb_teacher_info info, again;
    struct lb_detail detail = {0};
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_INFO_BYTES);
    assert_int_equal(lb_stated_write(&stated, &text, &detail), LB_OK);
    assert_int_equal(teacher.dialect->info_read(text.data, text.len, "t", &info, &detail), LB_OK);
    if (lb_teacher_settle(&teachers, &teacher, &text, &info, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(teacher.dialect->info_read(text.data, text.len, "t", &again, &detail), LB_OK);
    assert_string_equal(again.fingerprint, info.fingerprint);
    assert_string_equal(again.model_id, info.model_id);
    lb_buf_finish(&text);
    return info;
}

/* The same model goes by the answers of then, and is asked by the name and for as much as it says now. */
static void test_moved(void **state) {
    (void)state;
    struct lb_teacher_info first = settle("/models/m", 20, -2), moved = settle("/other/m", 200, -2.01f),
                           named = settle("m", 0, -2.01f), other = settle("m", 0, -3);
    assert_string_equal(first.model_id, "/models/m");
    assert_string_equal(moved.fingerprint, first.fingerprint);
    assert_true(moved.probe[LB_PROBE_LOGPROBS].at[1] == -2.0f);
    assert_string_equal(moved.model_id, "/other/m");
    assert_true(moved.tells_most && moved.most_top_k == 200);
    assert_string_equal(named.fingerprint, first.fingerprint);
    assert_string_equal(named.model_id, "m");
    assert_false(named.tells_most);
    assert_string_not_equal(other.fingerprint, first.fingerprint);
}

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_moved)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
