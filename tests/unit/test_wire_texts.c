/* Texts that a server writes: the question, and answers that are none. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "trainer/wire/texts.h"

#include <stdlib.h>
#include <string.h>

#define GOOD                                                                                                 \
    "{\"system_fingerprint\":\"abc\",\"choices\":[{\"index\":0,\"text\":\"\\u0000b\",\"token_ids\":[1,99]}," \
    "{\"index\":1,\"token_ids\":[0,2,3,4]}]}"

static struct lb_teacher_info info = {.fingerprint = "abc", .model = "a \"b\"", .vocab_size = 100};
static const struct lb_text_args args = {.max_tokens = 4, .temperature = 0.3, .top_p = 0.9, .seed = 77};

static enum lb_status parse(const char *text, size_t len, struct lb_text *out, struct lb_arena *arena,
                            struct lb_detail *detail) {
    char *copy = malloc(len > 0 ? len : 1); /* so that reading behind it shows */
    assert_non_null(copy);
    memcpy(copy, text, len);
    enum lb_status status = lb_texts_read(copy, len, &info, &args, 2, arena, out, detail);
    free(copy);
    return status;
}

static void asks(void **state) {
    (void)state;
    static const int32_t first[] = {5, 6, 7}, second[] = {8};
    const struct lb_text_prompt prompts[] = {{first, 3}, {second, 1}};
    struct lb_buf body;
    lb_buf_init(&body, 1 << 16);
    lb_texts_ask(&info, &args, prompts, 2, &body);
    assert_int_equal(lb_buf_append(&body, "", 1), LB_OK);
    assert_string_equal(body.data,
                        "{\"model\":\"a \\\"b\\\"\",\"prompt\":[[5,6,7],[8]],\"max_tokens\":4,"
                        "\"temperature\":0.29999999999999999,\"top_p\":0.90000000000000002,\"seed\":77,"
                        "\"return_token_ids\":true}");
    lb_buf_finish(&body);
}

static void reads(void **state) {
    (void)state;
    static const char *const bad[] = {
        "{\"system_fingerprint\":\"abd\",\"choices\":[{\"index\":0,\"token_ids\":[1]},{\"index\":1,\"token_"
        "ids\":[1]}]}",
        "{\"choices\":[{\"index\":0,\"token_ids\":[1]},{\"index\":1,\"token_ids\":[1]}]}",
        "{\"system_fingerprint\":\"abc\",\"choices\":[{\"index\":0,\"token_ids\":[1]}]}",
        "{\"system_fingerprint\":\"abc\",\"choices\":[{\"index\":1,\"token_ids\":[1]},{\"index\":0,\"token_"
        "ids\":[1]}]}",
        "{\"system_fingerprint\":\"abc\",\"choices\":[{\"index\":0,\"token_ids\":[]},{\"index\":1,\"token_"
        "ids\":[1]}]}",
        "{\"system_fingerprint\":\"abc\",\"choices\":[{\"index\":0,\"token_ids\":[1,2,3,4,5]},{\"index\":1,"
        "\"token_ids\":[1]}]}",
        "{\"system_fingerprint\":\"abc\",\"choices\":[{\"index\":0,\"token_ids\":[-1]},{\"index\":1,\"token_"
        "ids\":[1]}]}",
        "{\"system_fingerprint\":\"abc\",\"choices\":[{\"index\":0,\"token_ids\":[1]},{\"index\":1,\"token_"
        "ids\":[100]}]}",
        "{\"system_fingerprint\":\"abc\",\"choices\":[{\"index\":0,\"token_ids\":[1]},{\"index\":1,\"token_"
        "ids\":[1.0]}]}",
        "[1]",
    };
    struct lb_text out[2];
    struct lb_arena arena;
    lb_arena_init(&arena, 1 << 20);
    assert_int_equal(parse(GOOD, sizeof GOOD - 1, out, &arena, NULL), LB_OK);
    assert_true(out[0].n == 2 && out[0].ids[0] == 1 && out[0].ids[1] == 99);
    assert_true(out[1].n == 4 && out[1].ids[3] == 4);
    for (size_t n = 0; n < sizeof GOOD - 1; n++) {
        struct lb_detail detail = {0};
        assert_int_not_equal(parse(GOOD, n, out, &arena, &detail), LB_OK);
        assert_true(detail.text[0] != '\0');
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lb_detail detail = {0};
        assert_int_not_equal(parse(bad[i], strlen(bad[i]), out, &arena, &detail), LB_OK);
        assert_true(detail.text[0] != '\0');
    }
    lb_arena_finish(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(asks), cmocka_unit_test(reads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
