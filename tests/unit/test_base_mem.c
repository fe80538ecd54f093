/* status, mem, arena, buf, bytes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/arena.h"
#include "common/base/bytes.h"
#include "common/base/mem.h"
#include "common/base/status.h"
#include "common/base/utf8.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* ---- status ---- */

static void first_error_wins(void **state) {
    (void)state;
    struct lb_detail d = {0};
    assert_int_equal(lb_fail(&d, LB_E_FORMAT, "tensor %s at byte %d", "wte", 17), LB_E_FORMAT);
    assert_int_equal(lb_fail(&d, LB_E_IO, "later"), LB_E_IO);
    assert_int_equal(d.code, LB_E_FORMAT);
    assert_string_equal(d.text, "tensor wte at byte 17");
    lb_detail_prefix(&d, "model %d", 3);
    assert_string_equal(d.text, "model 3: tensor wte at byte 17");
    assert_int_equal(lb_fail(NULL, LB_E_ARG, "nobody listens"), LB_E_ARG);
    lb_detail_prefix(NULL, "x");
    struct lb_detail none = {0};
    lb_detail_prefix(&none, "x");
    assert_string_equal(none.text, "");
}

static void errno_is_named(void **state) {
    (void)state;
    struct lb_detail d = {0};
    assert_int_equal(lb_fail_errno(&d, LB_E_IO, ENOSPC, "cannot write %s", "a"), LB_E_IO);
    assert_string_equal(d.text, "cannot write a: No space left on device");
}

static void long_texts_are_cut_visibly(void **state) {
    (void)state;
    char word[LB_DETAIL_TEXT + 100];
    memset(word, 'w', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    struct lb_detail d = {0};
    lb_fail(&d, LB_E_FORMAT, "%s", word);
    assert_int_equal(strlen(d.text), LB_DETAIL_TEXT - 1);
    assert_string_equal(d.text + LB_DETAIL_TEXT - 5, "w...");
    lb_detail_prefix(&d, "file");
    assert_int_equal(strlen(d.text), LB_DETAIL_TEXT - 1);
    assert_memory_equal(d.text, "file: www", 9);
    struct lb_detail e = {0};
    word[LB_DETAIL_TEXT - 3] = '\0'; /* the text fits, the reason does not */
    lb_fail_errno(&e, LB_E_IO, EIO, "%s", word);
    assert_string_equal(e.text + LB_DETAIL_TEXT - 5, "w...");
}

static void what_is_quoted_stays_one_line(void **state) {
    (void)state;
    struct lb_detail d = {0};
    lb_fail(&d, LB_E_FORMAT,
            "a\nb\tc \x1b[31m \xc2\x9b|\xe2\x80\xa8| \xff\xed\xa0\x80 \xc3\xa9\xf0\x9f\x98\x80 \x7f");
    assert_string_equal(d.text, "a b c ?[31m ?"
                                "?|?"
                                "?"
                                "?| ?"
                                "?"
                                "?"
                                "? \xc3\xa9\xf0\x9f\x98\x80 ?");
    lb_detail_prefix(&d, "x\ry");
    assert_memory_equal(d.text, "x y: a b", 8);
    struct lb_detail e = {0};
    lb_fail_errno(&e, LB_E_IO, EIO, "\x01");
    assert_memory_equal(e.text, "?: ", 3);
    char word[LB_DETAIL_TEXT + 100]; /* cut within a character */
    for (size_t i = 0; i < sizeof word; i++) {
        word[i] = i % 2 == 0 ? '\xc3' : '\xa9';
    }
    word[sizeof word - 1] = '\0';
    struct lb_detail f = {0};
    lb_fail(&f, LB_E_FORMAT, "%s%s", LB_DETAIL_TEXT % 2 == 0 ? "" : "x", word);
    assert_int_equal(lb_utf8_check(f.text, strlen(f.text)), strlen(f.text));
}

static void every_status_has_a_name(void **state) {
    (void)state;
    for (int s = LB_E_INTERNAL; s <= LB_OK; s++) {
        assert_string_not_equal(lb_status_name((enum lb_status)s), "unknown status");
    }
    assert_string_equal(lb_status_name((enum lb_status)(LB_E_INTERNAL - 1)), "unknown status");
}

/* ---- mem ---- */

static void sizes_do_not_wrap(void **state) {
    (void)state;
    size_t out = 7;
    assert_false(lb_mul_size(SIZE_MAX / 2 + 1, 2, &out));
    assert_false(lb_add_size(SIZE_MAX, 1, &out));
    assert_int_equal(out, 7);
    assert_true(lb_mul_size(SIZE_MAX, 1, &out));
    assert_int_equal(out, SIZE_MAX);
    assert_true(lb_mul_size(SIZE_MAX, 0, &out));
    assert_int_equal(out, 0);
    assert_true(lb_add_size(SIZE_MAX - 1, 1, &out));
    assert_int_equal(out, SIZE_MAX);
    assert_null(lb_malloc_array(SIZE_MAX / 8 + 1, 8));
    assert_null(lb_calloc(SIZE_MAX, 2));
    assert_null(lb_realloc_array(NULL, SIZE_MAX, 2));
    assert_null(lb_malloc_aligned(SIZE_MAX));
    assert_null(lb_malloc_aligned(SIZE_MAX - 63));
}

static void ends_of_texts(void **state) {
    (void)state;
    assert_true(lb_ends_with("a.json", ".json") && lb_ends_with(".json", ".json") && lb_ends_with("a", ""));
    assert_false(lb_ends_with("json", ".json") || lb_ends_with("", "a") ||
                 lb_ends_with("a.json.gz", ".json"));
}

static void nothing_is_still_an_address(void **state) {
    (void)state;
    void *a = lb_malloc_array(0, 8);
    void *b = lb_calloc(8, 0);
    void *c = lb_realloc_array(NULL, 0, 0);
    void *d = lb_malloc_aligned(0);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_non_null(d);
    c = lb_realloc_array(c, 0, 4); /* does not free */
    assert_non_null(c);
    lb_free(a);
    lb_free(b);
    lb_free(c);
    lb_free(d);
    lb_free(NULL);
}

static void allocations_have_their_shape(void **state) {
    (void)state;
    for (size_t n = 1; n < 300; n += 37) {
        unsigned char *p = lb_malloc_aligned(n);
        assert_int_equal((uintptr_t)p % 64, 0);
        memset(p, 1, n);
        lb_free(p);
    }
    int *z = lb_calloc(1000, sizeof *z);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(z[i], 0);
    }
    lb_free(z);
}

static void nth_allocation_fails(void **state) {
    (void)state;
    lb_mem_fail_from(3);
    void *a = lb_malloc_array(1, 8);
    char *b = lb_strdup("two");
    void *c = lb_calloc(1, 8);
    void *d = lb_malloc_aligned(8);
    void *same = lb_realloc_array(a, 100, 8);
    long count = lb_mem_count();
    lb_mem_fail_from(0);
    assert_int_equal(count, 5);
    assert_non_null(a);
    assert_string_equal(b, "two");
    assert_null(c);
    assert_null(d);
    assert_null(same); /* and a is still valid */
    memset(a, 0, 8);
    lb_free(a);
    lb_free(b);
    assert_int_equal(lb_mem_count(), 0);
    lb_mem_fail_only(2);
    a = lb_malloc_array(1, 8);
    b = lb_strdup("two");
    c = lb_calloc(1, 8);
    lb_mem_fail_from(0);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    lb_free(a);
    lb_free(c);
}

/* ---- arena ---- */

static void arena_hands_out_aligned_disjoint_memory(void **state) {
    (void)state;
    struct lb_arena arena;
    lb_arena_init(&arena, 8 << 20);
    unsigned char *p[200];
    for (size_t i = 0; i < 200; i++) {
        p[i] = lb_arena_alloc(&arena, i * 97);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 64, 0);
        memset(p[i], (int)i, i * 97);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t j = 0; j < i * 97; j++) {
            assert_int_equal(p[i][j], i);
        }
    }
    lb_arena_finish(&arena);
    assert_int_equal(arena.total, 0);
    lb_arena_finish(NULL);
    struct lb_arena zero = {0};
    assert_null(lb_arena_alloc(&zero, 1));
    lb_arena_finish(&zero);
}

static void arena_limit_is_exact(void **state) {
    (void)state;
    struct lb_arena arena;
    lb_arena_init(&arena, 1000);
    assert_null(lb_arena_alloc(&arena, 1001));
    assert_non_null(lb_arena_alloc(&arena, 1000));
    assert_null(lb_arena_alloc(&arena, 1));
    lb_arena_reset(&arena);
    /* However it is cut up, the sum of the rounded pieces decides. */
    for (int i = 0; i < 15; i++) {
        assert_non_null(lb_arena_alloc(&arena, 64));
    }
    assert_null(lb_arena_alloc(&arena, 41));
    assert_non_null(lb_arena_alloc(&arena, 40));
    assert_int_equal(arena.used, 1000);
    assert_null(lb_arena_alloc(&arena, SIZE_MAX));
    assert_null(lb_arena_array(&arena, SIZE_MAX / 2, 3));
    assert_null(lb_arena_zarray(&arena, SIZE_MAX / 2, 3));
    lb_arena_finish(&arena);
    /* Without a limit a huge request fails like any other. */
    lb_arena_init(&arena, SIZE_MAX);
    assert_null(lb_arena_alloc(&arena, SIZE_MAX));
    assert_null(lb_arena_alloc(&arena, SIZE_MAX - 64));
    assert_non_null(lb_arena_alloc(&arena, 64));
    lb_arena_finish(&arena);
}

static void arena_reset_makes_one_chunk(void **state) {
    (void)state;
    struct lb_arena arena;
    lb_arena_init(&arena, 64 << 20);
    for (int turn = 0; turn < 4; turn++) {
        long before = lb_mem_count();
        for (int i = 0; i < 100; i++) {
            assert_non_null(lb_arena_alloc(&arena, 10000));
        }
        if (turn > 0) {
            assert_int_equal(lb_mem_count(), before); /* all from the one chunk */
        }
        lb_arena_reset(&arena);
        assert_int_equal(arena.used, 0);
    }
    assert_int_equal(arena.total, arena.high);
    lb_arena_finish(&arena);
}

static void arena_reset_remembers_what_marks_let_go(void **state) {
    (void)state;
    struct lb_arena arena;
    lb_arena_init(&arena, 64 << 20);
    for (int turn = 0; turn < 4; turn++) { /* layers of a forward, the second batch larger than the first */
        long before = lb_mem_count();
        assert_non_null(lb_arena_alloc(&arena, 10000));
        for (int layer = 0; layer < 5; layer++) {
            struct lb_arena_mark mark = lb_arena_mark(&arena);
            assert_non_null(lb_arena_alloc(&arena, turn == 0 ? 1000 : 1 << 20));
            lb_arena_release(&arena, mark);
        }
        if (turn > 1) {
            assert_int_equal(lb_mem_count(), before);
        }
        lb_arena_reset(&arena);
    }
    assert_int_equal(arena.total, arena.high);
    lb_arena_finish(&arena);
}

static void arena_marks_nest(void **state) {
    (void)state;
    struct lb_arena arena;
    lb_arena_init(&arena, 64 << 20);
    struct lb_arena_mark empty = lb_arena_mark(&arena);
    char *a = lb_arena_strdup(&arena, "kept");
    struct lb_arena_mark outer = lb_arena_mark(&arena);
    size_t used = arena.used;
    char *b = lb_arena_alloc(&arena, 100000);
    struct lb_arena_mark inner = lb_arena_mark(&arena);
    assert_non_null(lb_arena_alloc(&arena, 3 << 20));
    lb_arena_release(&arena, inner);
    memset(b, 'b', 100000);
    lb_arena_release(&arena, outer);
    assert_int_equal(arena.used, used);
    assert_string_equal(a, "kept");
    char *c = lb_arena_alloc(&arena, 16);
    lb_arena_release(&arena, outer);
    assert_ptr_equal(lb_arena_alloc(&arena, 16), c);
    lb_arena_release(&arena, empty);
    assert_int_equal(arena.used, 0);
    /* A loop around an empty arena does not allocate each time. */
    long before = lb_mem_count();
    for (int i = 0; i < 10; i++) {
        struct lb_arena_mark m = lb_arena_mark(&arena);
        assert_non_null(lb_arena_alloc(&arena, 128));
        lb_arena_release(&arena, m);
    }
    assert_int_equal(lb_mem_count(), before);
    lb_arena_finish(&arena);
}

static void arena_text_and_zeroes(void **state) {
    (void)state;
    struct lb_arena arena;
    lb_arena_init(&arena, 1 << 20);
    memset(lb_arena_alloc(&arena, 4096), 0xff, 4096);
    lb_arena_reset(&arena);
    const unsigned char *z = lb_arena_zarray(&arena, 64, 64);
    for (size_t i = 0; i < 4096; i++) {
        assert_int_equal(z[i], 0);
    }
    assert_string_equal(lb_arena_printf(&arena, "%s-%d", "step", 12), "step-12");
    assert_string_equal(lb_arena_strdup(&arena, ""), "");
    lb_arena_finish(&arena);
    lb_arena_init(&arena, 8);
    assert_null(lb_arena_printf(&arena, "%s", "12345678"));
    assert_string_equal(lb_arena_printf(&arena, "%s", "1234567"), "1234567");
    lb_arena_finish(&arena);
}

static void arena_survives_failing_allocations(void **state) {
    (void)state;
    for (long n = 1; n < 12; n++) {
        struct lb_arena arena;
        lb_arena_init(&arena, 64 << 20);
        lb_mem_fail_from(n);
        int got = 0;
        for (int i = 0; i < 100 && lb_arena_alloc(&arena, 20000) != NULL; i++) {
            got++;
        }
        lb_arena_reset(&arena); /* its one large chunk may fail too */
        lb_mem_fail_from(0);
        assert_int_equal(arena.used, 0);
        assert_non_null(lb_arena_alloc(&arena, 20000));
        assert_true(n > 1 || got == 0);
        lb_arena_finish(&arena);
    }
}

/* ---- buf ---- */

static void buf_grows_and_ends_in_nul(void **state) {
    (void)state;
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    assert_null(buf.data);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(lb_buf_printf(&buf, "%03d,", i), LB_OK);
        assert_int_equal(buf.data[buf.len], '\0');
    }
    assert_int_equal(buf.len, 4000);
    assert_memory_equal(buf.data + 3996, "999,", 5);
    memcpy(lb_buf_extend(&buf, 3), "end", 3);
    assert_string_equal(buf.data + 4000, "end");
    lb_buf_reset(&buf);
    assert_string_equal(buf.data, "");
    assert_int_equal(lb_buf_append(&buf, NULL, 0), LB_OK);
    lb_buf_finish(&buf);
    lb_buf_finish(NULL);
}

static void buf_grows_by_large_steps(void **state) {
    (void)state;
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    lb_mem_fail_from(0);
    for (int i = 0; i < 1 << 20; i++) {
        assert_int_equal(lb_buf_append(&buf, "x", 1), LB_OK);
    }
    assert_true(lb_mem_count() < 40);
    assert_true(buf.cap <= (1 << 20) + 1); /* and never past the maximum */
    lb_buf_finish(&buf);
}

static void buf_maximum_is_exact_and_sticky(void **state) {
    (void)state;
    struct lb_buf buf;
    lb_buf_init(&buf, 10);
    assert_int_equal(lb_buf_append_str(&buf, "0123456789"), LB_OK);
    assert_int_equal(lb_buf_append(&buf, "", 0), LB_OK);
    assert_int_equal(lb_buf_append_str(&buf, "x"), LB_E_LIMIT);
    assert_string_equal(buf.data, "0123456789");
    buf.len = 2; /* even with room again */
    assert_int_equal(lb_buf_append_str(&buf, "x"), LB_E_LIMIT);
    assert_null(lb_buf_extend(&buf, 1));
    assert_int_equal(lb_buf_printf(&buf, "x"), LB_E_LIMIT);
    assert_int_equal(lb_buf_status(&buf), LB_E_LIMIT);
    lb_buf_reset(&buf);
    assert_int_equal(lb_buf_printf(&buf, "%s", "0123456789"), LB_OK);
    assert_int_equal(lb_buf_printf(&buf, "%s", "0"), LB_E_LIMIT);
    lb_buf_reset(&buf);
    assert_null(lb_buf_extend(&buf, SIZE_MAX));
    lb_buf_finish(&buf);
    lb_buf_init(&buf, SIZE_MAX); /* "no" maximum: still no wrap-around */
    assert_int_equal(lb_buf_append_str(&buf, "x"), LB_OK);
    assert_null(lb_buf_extend(&buf, SIZE_MAX - 1));
    assert_int_equal(lb_buf_status(&buf), LB_E_LIMIT);
    lb_buf_reset(&buf);
    assert_null(lb_buf_extend(&buf, SIZE_MAX / 2 + 2));
    assert_int_equal(lb_buf_status(&buf), LB_E_NOMEM);
    lb_buf_finish(&buf);
}

static void buf_gives_its_bytes_away(void **state) {
    (void)state;
    struct lb_buf buf;
    lb_buf_init(&buf, 100);
    size_t len = 9;
    char *empty = lb_buf_take(&buf, &len);
    assert_string_equal(empty, "");
    assert_int_equal(len, 0);
    lb_buf_append(&buf, "a\0b", 3);
    char *bytes = lb_buf_take(&buf, &len);
    assert_int_equal(len, 3);
    assert_memory_equal(bytes, "a\0b", 4);
    assert_int_equal(buf.len, 0);
    assert_int_equal(lb_buf_append_str(&buf, "again"), LB_OK);
    lb_free(empty);
    lb_free(bytes);
    lb_buf_finish(&buf);
    lb_mem_fail_from(1);
    assert_null(lb_buf_take(&buf, NULL));
    lb_mem_fail_from(0);
}

static void buf_reports_memory(void **state) {
    (void)state;
    struct lb_buf buf;
    lb_buf_init(&buf, 1000);
    lb_buf_append_str(&buf, "kept");
    lb_mem_fail_from(1);
    assert_null(lb_buf_extend(&buf, 500));
    lb_mem_fail_from(0);
    assert_int_equal(lb_buf_status(&buf), LB_E_NOMEM);
    assert_string_equal(buf.data, "kept");
    assert_int_equal(lb_buf_append_str(&buf, "x"), LB_E_NOMEM);
    lb_buf_finish(&buf);
}

/* ---- bytes ---- */

static void little_endian_round_trip(void **state) {
    (void)state;
    struct lb_buf buf;
    lb_buf_init(&buf, 100);
    lb_put_u8(&buf, 0x01);
    lb_put_u16(&buf, 0x0302);
    lb_put_u32(&buf, 0x07060504);
    lb_put_u64(&buf, 0x0f0e0d0c0b0a0908);
    for (size_t i = 0; i < 15; i++) {
        assert_int_equal((unsigned char)buf.data[i], i + 1);
    }
    lb_put_f32(&buf, -1.5f);
    assert_memory_equal(buf.data + 15, "\x00\x00\xc0\xbf", 4);
    lb_put_f64(&buf, 0x1p-1074);
    struct lb_reader r;
    lb_reader_init(&r, buf.data, buf.len);
    assert_int_equal(lb_read_u8(&r), 0x01);
    assert_int_equal(lb_read_u16(&r), 0x0302);
    assert_int_equal(lb_read_u32(&r), 0x07060504);
    assert_int_equal(lb_read_u64(&r), 0x0f0e0d0c0b0a0908);
    assert_true(lb_read_f32(&r) == -1.5f);
    assert_true(lb_read_f64(&r) == 0x1p-1074);
    assert_int_equal(lb_reader_left(&r), 0);
    assert_false(r.failed);
    assert_int_equal(lb_read_u8(&r), 0);
    assert_true(r.failed);
    lb_buf_finish(&buf);
}

static void reading_past_the_end_sticks(void **state) {
    (void)state;
    static const unsigned char bytes[] = {1, 2, 3, 4, 5};
    struct lb_reader r;
    lb_reader_init(&r, bytes, sizeof bytes);
    assert_ptr_equal(lb_read_span(&r, 2), bytes);
    assert_int_equal(lb_read_u32(&r), 0); /* 3 bytes are left */
    assert_true(r.failed);
    assert_int_equal(r.pos, 2);
    assert_int_equal(lb_read_u8(&r), 0); /* a byte is there, but the order is lost */
    assert_int_equal(lb_reader_left(&r), 0);
    assert_null(lb_read_span(&r, 0));
    lb_reader_init(&r, bytes, sizeof bytes);
    assert_ptr_equal(lb_read_span(&r, 1), bytes);
    assert_null(lb_read_span(&r, SIZE_MAX)); /* no wrap-around of pos + len */
    assert_true(r.failed);
    assert_int_equal(r.pos, 1);
    lb_reader_init(&r, NULL, 0);
    assert_non_null(lb_read_span(&r, 0));
    assert_false(r.failed);
    assert_null(lb_read_span(&r, 1));
}

static void putting_past_the_maximum_sticks(void **state) {
    (void)state;
    struct lb_buf buf;
    lb_buf_init(&buf, 7);
    lb_put_u32(&buf, 1);
    lb_put_u32(&buf, 2);
    lb_put_u8(&buf, 3);
    assert_int_equal(buf.len, 4);
    assert_int_equal(lb_buf_status(&buf), LB_E_LIMIT);
    lb_buf_finish(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_error_wins),
        cmocka_unit_test(errno_is_named),
        cmocka_unit_test(long_texts_are_cut_visibly),
        cmocka_unit_test(what_is_quoted_stays_one_line),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(sizes_do_not_wrap),
        cmocka_unit_test(ends_of_texts),
        cmocka_unit_test(nothing_is_still_an_address),
        cmocka_unit_test(allocations_have_their_shape),
        cmocka_unit_test(nth_allocation_fails),
        cmocka_unit_test(arena_hands_out_aligned_disjoint_memory),
        cmocka_unit_test(arena_limit_is_exact),
        cmocka_unit_test(arena_reset_makes_one_chunk),
        cmocka_unit_test(arena_reset_remembers_what_marks_let_go),
        cmocka_unit_test(arena_marks_nest),
        cmocka_unit_test(arena_text_and_zeroes),
        cmocka_unit_test(arena_survives_failing_allocations),
        cmocka_unit_test(buf_grows_and_ends_in_nul),
        cmocka_unit_test(buf_grows_by_large_steps),
        cmocka_unit_test(buf_maximum_is_exact_and_sticky),
        cmocka_unit_test(buf_gives_its_bytes_away),
        cmocka_unit_test(buf_reports_memory),
        cmocka_unit_test(little_endian_round_trip),
        cmocka_unit_test(reading_past_the_end_sticks),
        cmocka_unit_test(putting_past_the_maximum_sticks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
