/* GGUF models in several files: the first opens all; what is missing, foreign or out of turn is named. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/formats/gguf.h"
#include "tests/support/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const float numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};

/* What split.* says (a negative number: no such key) and the tensors, one letter each. */
struct part {
    int no, count, tensors;
    const char *names;
};

static void write_part(const char *name, struct part p) {
    static const char *const keys[] = {"split.no", "split.count", "split.tensors.count"};
    const int values[] = {p.no, p.count, p.tensors};
    struct lb_gguf_out *out = lb_gguf_out_create();
    char texts[8][2] = {{0}};
    struct lb_detail detail = {0};
    for (int i = 0; i < 3; i++) {
        if (values[i] >= 0) {
            lb_gguf_put_u32(out, keys[i], (uint32_t)values[i]);
        }
    }
    lb_gguf_put_string(out, "general.name", name);
    for (int i = 0; p.names[i] != '\0'; i++) {
        texts[i][0] = p.names[i];
        const struct lb_tensor t = {.name = texts[i],
                                    .dtype = LB_F32,
                                    .n_dims = 1,
                                    .dim = {8},
                                    .data = numbers,
                                    .bytes = sizeof numbers};
        lb_gguf_put_tensor(out, &t);
    }
    if (lb_gguf_write(out, lb_in_scratch(name), &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    lb_gguf_out_destroy(out);
}

static void write_three(void) {
    write_part("m-00001-of-00003.gguf", (struct part){0, 3, 4, ""});
    write_part("m-00002-of-00003.gguf", (struct part){1, 3, 4, "bca"});
    write_part("m-00003-of-00003.gguf", (struct part){2, 3, 4, "d"});
}

static void refused(const char *name, enum lb_status status, const char *says) {
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_gguf_open(lb_in_scratch(name), &file, &detail), status);
    assert_null(file);
    if (strstr(detail.text, says) == NULL || strchr(detail.text, '\n') != NULL) {
        fail_msg("\"%s\" lacks \"%s\"", detail.text, says);
    }
}

static void the_first_part_opens_all(void **state) {
    (void)state;
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    write_three();
    if (lb_gguf_open(lb_in_scratch("m-00001-of-00003.gguf"), &file, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(lb_gguf_count(file), 4);
    for (int i = 0; i < 4; i++) {
        const char name[2] = {"abcd"[i], 0};
        const struct lb_tensor *t = lb_gguf_find(file, name);
        assert_non_null(t);
        assert_memory_equal(t->data, numbers, sizeof numbers);
        assert_int_equal(lb_gguf_get(file, (size_t)i)->name[0], "bcad"[i]);
    }
    assert_null(lb_gguf_get(file, 4));
    assert_string_equal(lb_gguf_string(file, "general.name"), "m-00001-of-00003.gguf");
    assert_string_equal(lb_gguf_path(file, 2), lb_in_scratch("m-00003-of-00003.gguf"));
    assert_null(lb_gguf_path(file, 3));
    lb_gguf_destroy(file);
}

/* The first part that was written to since it was opened is told, whichever it is. */
static void a_written_part_is_named(void **state) {
    (void)state;
    struct lb_gguf *file = NULL;
    write_three();
    assert_int_equal(lb_gguf_open(lb_in_scratch("m-00001-of-00003.gguf"), &file, NULL), LB_OK);
    assert_null(lb_gguf_written(file));
    for (int i = 2; i >= 0; i--) {
        FILE *part = fopen(lb_gguf_path(file, i), "ab");
        assert_non_null(part);
        assert_int_equal(fputc(0, part), 0);
        assert_int_equal(fclose(part), 0);
        assert_string_equal(lb_gguf_written(file), lb_gguf_path(file, i));
    }
    lb_gguf_destroy(file);
}

static void a_missing_part_is_named(void **state) {
    (void)state;
    write_three();
    assert_int_equal(unlink(lb_in_scratch("m-00003-of-00003.gguf")), 0);
    refused("m-00001-of-00003.gguf", LB_E_NOTFOUND,
            "m-00003-of-00003.gguf: part 3 of 3 of this model is missing");
}

static void a_foreign_part_is_named(void **state) {
    (void)state;
    static const struct part foreign[] = {
        {2, 3, 4, "bca"},  {1, 4, 4, "bca"},  {1, 3, 5, "bca"},
        {-1, 3, 4, "bca"}, {1, -1, 4, "bca"}, {1, 3, -1, "bca"},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        write_three();
        write_part("m-00002-of-00003.gguf", foreign[i]);
        refused("m-00001-of-00003.gguf", LB_E_MISMATCH,
                "m-00002-of-00003.gguf: its keys split.* do not say part 2 of 3");
    }
    write_three();
    write_part("m-00002-of-00003.gguf", (struct part){1, 3, 4, "bc"});
    refused("m-00001-of-00003.gguf", LB_E_MISMATCH, "3 parts hold 3 tensors, but split.tensors.count is 4");
    write_part("m-00002-of-00003.gguf", (struct part){1, 3, 4, "bcd"});
    refused("m-00001-of-00003.gguf", LB_E_FORMAT, "tensor d comes twice");
    assert_int_equal(lb_file_replace(lb_in_scratch("m-00002-of-00003.gguf"), "GGUF", 4, NULL), LB_OK);
    refused("m-00001-of-00003.gguf", LB_E_FORMAT, "m-00002-of-00003.gguf: the header");
}

static void only_the_first_is_opened(void **state) {
    (void)state;
    write_three();
    refused("m-00002-of-00003.gguf", LB_E_ARG, "is part 2 of 3 of a model; open the first part, /tmp/");
    refused("m-00003-of-00003.gguf", LB_E_ARG, "m-00001-of-00003.gguf");
    write_part("lost.gguf", (struct part){1, 3, 4, "a"});
    refused("lost.gguf", LB_E_ARG, "lost.gguf: is part 2 of 3 of a model; open the first part");
    write_part("lost.gguf", (struct part){0, 3, 4, "a"});
    refused("lost.gguf", LB_E_FORMAT, "its name does not end in -00001-of-00003.gguf");
    write_part("m-00001-of-00004.gguf", (struct part){0, 3, 4, "a"});
    refused("m-00001-of-00004.gguf", LB_E_FORMAT, "its name does not end in -00001-of-00003.gguf");
    write_part("lost.gguf", (struct part){3, 3, 4, "a"});
    refused("lost.gguf", LB_E_FORMAT, "split.no and split.count");
    write_part("lost.gguf", (struct part){0, 100000, 4, "a"});
    refused("lost.gguf", LB_E_FORMAT, "split.no and split.count");
}

static void one_part_is_a_file_as_any(void **state) {
    (void)state;
    static const struct part alone[] = {{0, 1, 1, "a"}, {0, 0, 0, "a"}, {-1, 1, -1, "a"}};
    for (size_t i = 0; i < sizeof alone / sizeof *alone; i++) {
        struct lb_gguf *file = NULL;
        write_part("alone.gguf", alone[i]);
        assert_int_equal(lb_gguf_open(lb_in_scratch("alone.gguf"), &file, NULL), LB_OK);
        assert_int_equal(lb_gguf_count(file), 1);
        assert_null(lb_gguf_path(file, 1));
        lb_gguf_destroy(file);
    }
}

static void names_of_parts(void **state) {
    (void)state;
    static const char *const others[] = {"m.gguf",
                                         "-00001-of-00002.gguf",
                                         "m-00000-of-00002.gguf",
                                         "m-00003-of-00002.gguf",
                                         "m-0001-of-00002.gguf",
                                         "m-00001-of-00002.GGUF",
                                         "m_00001-of-00002.gguf",
                                         "m-00001-of-0000x.gguf"};
    size_t stem = 0;
    int part = 0, parts = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_false(lb_gguf_part_name(others[i], &stem, &part, &parts));
    }
    assert_true(lb_gguf_part_name("a/m-00012-of-00345.gguf", &stem, &part, &parts));
    assert_true(stem == 3 && part == 12 && parts == 345);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_part_opens_all), cmocka_unit_test(a_written_part_is_named),
        cmocka_unit_test(a_missing_part_is_named),  cmocka_unit_test(a_foreign_part_is_named),
        cmocka_unit_test(only_the_first_is_opened), cmocka_unit_test(one_part_is_a_file_as_any),
        cmocka_unit_test(names_of_parts),
    };
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
