/* A cache that is damaged, of another format or none at all: noticed, never a crash, and what can be read is
 * kept. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/cached.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Flips one bit in the middle of the stored bytes of a value, which stand in the file as they are. */
static void damage(const char *dir, const struct cached *made) {
    char path[100];
    struct lb_buf file;
    snprintf(path, sizeof path, "%s/cache.db", dir);
    lb_buf_init(&file, 64 << 20);
    cached_must(lb_file_read(path, &file, NULL), &(struct lb_detail){0});
    const uint8_t *found = memmem(file.data, file.len, made->hidden, 200);
    assert_non_null(found);
    size_t at = (size_t)(found - (const uint8_t *)file.data) + 100;
    FILE *out = fopen(path, "r+b");
    assert_non_null(out);
    fseek(out, (long)at, SEEK_SET);
    fputc(file.data[at] ^ 4, out);
    assert_int_equal(fclose(out), 0);
    lb_buf_finish(&file);
}

static void test_damage_is_noticed(void **state) {
    const char *dir = cached_dir(state);
    struct lb_detail detail = {0}, told = {0};
    struct lb_cache_stats stats;
    struct lb_cache_report report;
    struct cached *made = lb_calloc(6, sizeof *made);
    struct lb_cache *cache = cached_open(dir, CACHED_SPACIOUS);
    for (uint64_t i = 0; i < 5; i++) {
        cached_make(&made[i], 100 + i, 40, false);
        cached_must(cached_put(cache, &made[i], &detail), &detail);
    }
    lb_cache_close(cache);
    damage(dir, &made[1]);
    damage(dir, &made[3]);

    volatile sig_atomic_t stop = 1;
    assert_int_equal(lb_cache_verify(dir, true, &stop, &report, &told), LB_E_CANCELLED);
    assert_non_null(strstr(told.text, "stopped"));
    memset(&told, 0, sizeof told);
    cached_must(lb_cache_verify(dir, false, NULL, &report, &detail), &detail);
    assert_int_equal(report.entries, 5);
    assert_int_equal(report.bad, 2);
    cache = cached_open(dir, 0);
    assert_int_equal(cached_get(cache, &made[1], &told), LB_E_NOTFOUND);
    assert_non_null(strstr(told.text, "checksum"));
    cached_must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_int_equal(stats.max_bytes, CACHED_SPACIOUS); /* as it was opened last */
    assert_int_equal(stats.entries, 4);                 /* it went at once, so that a good one can come */
    cached_must(cached_put(cache, &made[1], &detail), &detail);
    cached_must(cached_get(cache, &made[1], &detail), &detail);
    cached_must(lb_cache_verify(dir, true, NULL, &report, &detail), &detail);
    assert_int_equal(report.entries, 5);
    assert_int_equal(report.bad, 1);
    assert_false(report.file_damaged);
    cached_must(lb_cache_verify(dir, true, NULL, &report, &detail), &detail);
    assert_int_equal(report.entries, 4);
    assert_int_equal(report.bad, 0);
    cached_must(cached_get(cache, &made[0], &detail), &detail);

    /* An answer that cannot be true is as bad, whole as it is. */
    cached_make(&made[5], 500, 40, false);
    made[5].lse[7] = NAN;
    cached_must(cached_put(cache, &made[5], &detail), &detail);
    cached_must(lb_cache_verify(dir, true, NULL, &report, &detail), &detail);
    assert_int_equal(report.bad, 1);
    assert_int_equal(cached_get(cache, &made[5], NULL), LB_E_NOTFOUND);
    lb_cache_close(cache);
    lb_free(made);
}

/* A cache of n answers of 64 positions, seeds 0 .. n - 1, closed. */
static void fill(const char *dir, uint64_t n) {
    struct lb_cache *cache = cached_open(dir, CACHED_SPACIOUS);
    struct lb_detail detail = {0};
    struct cached *made = lb_calloc(1, sizeof *made);
    for (uint64_t i = 0; i < n; i++) {
        cached_make(made, i, 64, false);
        cached_must(cached_put(cache, made, &detail), &detail);
    }
    cached_must(lb_cache_put_blob(cache, "info", "kept", 4, &detail), &detail);
    lb_cache_close(cache);
    lb_free(made);
}

static int count_there(struct lb_cache *cache, uint64_t n) {
    struct cached *made = lb_calloc(1, sizeof *made);
    int found = 0;
    for (uint64_t i = 0; i < n; i++) {
        cached_make(made, i, 64, false);
        found += cached_get(cache, made, NULL) == LB_OK;
    }
    lb_free(made);
    return found;
}

static void test_files_that_are_none(void **state) {
    const char *dir = cached_dir(state);
    struct lb_detail detail = {0}, told = {0};
    struct lb_cache *cache = NULL;
    struct lb_cache_report report;
    char path[100], garbage[8192];
    snprintf(path, sizeof path, "%s/cache.db", dir);
    assert_int_equal(lb_cache_verify(dir, true, NULL, &report, NULL), LB_E_NOTFOUND);
    memset(garbage, 'g', sizeof garbage);
    cached_must(lb_file_replace(path, garbage, sizeof garbage, &detail), &detail);
    assert_int_equal(lb_cache_open(dir, CACHED_SPACIOUS, &cache, &told), LB_E_FORMAT);
    assert_non_null(strstr(told.text, "--repair"));
    cached_must(lb_cache_verify(dir, true, NULL, &report, &detail), &detail);
    assert_true(report.file_damaged);
    fill(dir, 3);
    cached_must(lb_cache_verify(dir, false, NULL, &report, &detail), &detail);
    assert_false(report.file_damaged);
    assert_int_equal(report.entries, 3);

    snprintf(path, sizeof path, "%s/data.mdb", dir); /* of an older version */
    cached_must(lb_file_replace(path, garbage, sizeof garbage, &detail), &detail);
    told = (struct lb_detail){0};
    assert_int_equal(lb_cache_open(dir, CACHED_SPACIOUS, &cache, &told), LB_E_UNSUPPORTED);
    assert_non_null(strstr(told.text, "older format"));
    assert_int_equal(unlink(path), 0);

    snprintf(path, sizeof path, "%s/cache.db/below", dir); /* a file where a folder should be */
    assert_int_not_equal(lb_cache_open(path, CACHED_SPACIOUS, &cache, NULL), LB_OK);
}

/* Another program's database, or one of a later version, is refused and left as it is. */
static void test_another_format(void **state) {
    const char *dir = cached_dir(state);
    struct lb_detail told = {0};
    struct lb_cache *cache = NULL;
    char path[100];
    fill(dir, 1);
    snprintf(path, sizeof path, "%s/cache.db", dir);
    int fd = open(path, O_RDWR);
    uint8_t number[4] = {0, 0, 0,
                         LB_CACHE_FORMAT + 1}; /* user_version, at byte 60 (SQLite's file format, 1.3) */
    assert_int_equal(pwrite(fd, number, 4, 60), 4);
    close(fd);
    assert_int_equal(lb_cache_open(dir, CACHED_SPACIOUS, &cache, &told), LB_E_UNSUPPORTED);
    assert_non_null(strstr(told.text, "format 3"));
}

/* A file that is cut off, or any page of which is overwritten, while it is open: an error or a miss, never a
 * crash; a repair keeps what can be read. */
static void test_damaged_pages(void **state) {
    const char *dir = cached_dir(state);
    const uint64_t n = 30;
    struct lb_buf whole;
    char path[100];
    struct cached *made = lb_calloc(1, sizeof *made);
    snprintf(path, sizeof path, "%s/cache.db", dir);
    fill(dir, n);
    lb_buf_init(&whole, 64 << 20);
    cached_must(lb_file_read(path, &whole, NULL), &(struct lb_detail){0});
    size_t pages = whole.len / 8192, rescued = 0;
    cached_make(made, 1000, 64, false);
    for (size_t page = 0; page < 2 * pages; page++) {
        struct lb_detail detail = {0};
        struct lb_cache_report report;
        struct lb_cache *cache = cached_open(dir, CACHED_SPACIOUS);
        int fd = open(path, O_RDWR);
        uint8_t noise[8192];
        memset(noise, (int)(0x5a ^ page), sizeof noise);
        if (page < pages) {
            assert_int_equal(pwrite(fd, noise, sizeof noise, (off_t)(page * sizeof noise)), sizeof noise);
        } else {
            assert_int_equal(ftruncate(fd, (off_t)((page - pages) * sizeof noise + 100)), 0);
        }
        close(fd);
        (void)count_there(cache, n);
        (void)!cached_put(cache, made, NULL);
        lb_cache_close(cache);
        cached_must(lb_cache_verify(dir, true, NULL, &report, &detail), &detail);
        cached_must(lb_cache_verify(dir, false, NULL, &report, &detail), &detail);
        assert_false(report.file_damaged);
        assert_int_equal(report.bad, 0);
        cache = cached_open(dir, CACHED_SPACIOUS);
        rescued += (size_t)count_there(cache, n);
        cached_must(cached_put(cache, made, &detail), &detail);
        cached_must(cached_get(cache, made, &detail), &detail);
        lb_cache_close(cache);
        cached_must(lb_file_replace(path, whole.data, whole.len, NULL), &detail);
        snprintf(path, sizeof path, "%s/cache.db-journal", dir);
        unlink(path);
        snprintf(path, sizeof path, "%s/cache.db", dir);
    }
    assert_true(rescued > pages * n / 2); /* most pages cost one answer */
    lb_buf_finish(&whole);
    lb_free(made);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, cached_setup, cached_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_damage_is_noticed),
        TEST(test_files_that_are_none),
        TEST(test_another_format),
        TEST(test_damaged_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
