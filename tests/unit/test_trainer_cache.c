/* The cache: what was put is got, bit for bit; it stays within its size; processes share it. Damage is in
 * test_trainer_cache_damage.c, the values by themselves in test_trainer_cache_value.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "tests/support/cached.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_round_trip_and_reopen(void **state) {
    const char *dir = cached_dir(state);
    struct lb_detail detail = {0};
    struct lb_cache_stats stats;
    struct cached *a = lb_calloc(2, sizeof *a), *b = a + 1;
    cached_make(a, 1, 64, true);
    cached_make(b, 2, 7, false);
    struct lb_cache *cache = cached_open(dir, CACHED_SPACIOUS);
    assert_int_equal(cached_get(cache, a, &detail), LB_E_NOTFOUND);
    assert_int_equal(detail.code, 0); /* a plain miss is not an error */
    cached_must(cached_put(cache, a, &detail), &detail);
    cached_must(cached_put(cache, b, &detail), &detail);
    cached_must(cached_put(cache, b, &detail), &detail); /* again: nothing changes */
    cached_must(cached_get(cache, a, &detail), &detail);
    cached_must(cached_get(cache, b, &detail), &detail);
    lb_cache_close(cache);

    cache = cached_open(dir, CACHED_SPACIOUS);
    cached_must(cached_get(cache, a, &detail), &detail);
    cached_must(cached_get(cache, b, &detail), &detail);
    cached_must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_int_equal(stats.entries, 2);
    assert_int_equal(stats.tokens, 71);
    assert_int_equal(stats.max_bytes, CACHED_SPACIOUS);
    assert_true(stats.raw_bytes > 71 * 204 && stats.raw_bytes < 71 * 204 + 300);
    assert_true(stats.stored_bytes < stats.raw_bytes); /* a compresses well */
    lb_cache_close(cache);
    lb_free(a);
}

/* Lookups that share a transaction see what is there; writing, by this cache or another one, is as ever. */
static void test_held(void **state) {
    const char *dir = cached_dir(state);
    struct lb_detail detail = {0};
    struct cached *a = lb_calloc(3, sizeof *a), *b = a + 1, *c = a + 2;
    cached_make(a, 1, 64, true);
    cached_make(b, 2, 7, false);
    cached_make(c, 3, 9, false);
    struct lb_cache *cache = cached_open(dir, CACHED_SPACIOUS), *other = cached_open(dir, CACHED_SPACIOUS);
    cached_must(cached_put(other, a, &detail), &detail);
    lb_cache_hold(cache);
    cached_must(cached_get(cache, a, &detail), &detail);
    assert_int_equal(cached_get(cache, b, &detail), LB_E_NOTFOUND);
    cached_must(cached_put(cache, b, &detail), &detail);
    cached_must(cached_get(cache, b, &detail), &detail);
    lb_cache_release(cache);
    lb_cache_hold(cache);
    lb_cache_hold(cache); /* held is held */
    cached_must(cached_get(cache, b, &detail), &detail);
    lb_cache_release(cache);
    cached_must(cached_put(other, c, &detail), &detail); /* nobody is in its way */
    cached_must(cached_get(cache, c, &detail), &detail);
    lb_cache_release(cache);
    lb_cache_close(cache);
    lb_cache_close(other);
    lb_free(a);
}

static void test_blobs(void **state) {
    const char *dir = cached_dir(state);
    struct lb_detail detail = {0};
    struct lb_cache_stats stats;
    struct lb_buf buf;
    char longest[600];
    memset(longest, 'n', sizeof longest);
    longest[599] = 0;
    lb_buf_init(&buf, 1 << 20);
    struct lb_cache *cache = cached_open(dir, CACHED_SPACIOUS);
    assert_int_equal(lb_cache_get_blob(cache, "head:1", &buf, &detail), LB_E_NOTFOUND);
    cached_must(lb_cache_put_blob(cache, "head:1", "first", 5, &detail), &detail);
    cached_must(lb_cache_put_blob(cache, "head:1", "second one", 10, &detail), &detail);
    cached_must(lb_cache_put_blob(cache, "empty", "", 0, &detail), &detail);
    cached_must(lb_cache_get_blob(cache, "head:1", &buf, &detail), &detail);
    assert_int_equal(buf.len, 10);
    assert_memory_equal(buf.data, "second one", 10);
    cached_must(lb_cache_get_blob(cache, "empty", &buf, &detail), &detail);
    assert_int_equal(buf.len, 10);
    assert_int_equal(lb_cache_put_blob(cache, longest, "x", 1, NULL), LB_E_ARG);
    assert_int_equal(lb_cache_put_blob(cache, "", "x", 1, NULL), LB_E_ARG);
    cached_must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_int_equal(stats.blobs, 2);
    lb_cache_close(cache);
    lb_buf_finish(&buf);
}

/* Puts answers of the seeds first .. end - 1 that do not compress; returns how many were kept. */
static int put_many(struct lb_cache *cache, uint64_t first, uint64_t end) {
    struct cached *made = lb_calloc(1, sizeof *made);
    int kept = 0;
    for (uint64_t seed = first; seed < end; seed++) {
        struct lb_detail detail = {0};
        cached_make(made, seed, 16 + (int64_t)(seed % 49), false);
        enum lb_status status = cached_put(cache, made, &detail);
        assert_true(status == LB_OK || status == LB_E_LIMIT);
        if (status == LB_E_LIMIT) {
            assert_non_null(strstr(detail.text, "cache_max_bytes"));
        }
        kept += status == LB_OK;
    }
    lb_free(made);
    return kept;
}

/* Looks up the seeds first .. end - 1; returns how many were there. */
static int look_up_many(struct lb_cache *cache, uint64_t first, uint64_t end) {
    struct cached *made = lb_calloc(1, sizeof *made);
    int found = 0;
    for (uint64_t seed = first; seed < end; seed++) {
        cached_make(made, seed, 16 + (int64_t)(seed % 49), false);
        found += cached_get(cache, made, NULL) == LB_OK;
    }
    lb_free(made);
    return found;
}

/* A run whose answers do not fit keeps those it has, and finds them in each epoch; so does the next run on
 * the same data. A run on other data gets the room, but never more than there is. */
static void test_a_full_cache_keeps_what_is_used(void **state) {
    const char *dir = cached_dir(state);
    const uint64_t max_bytes = 2 << 20;
    const int n = 400; /* 400 answers of about 8,000 bytes: more than the cache takes */
    struct lb_detail detail = {0};
    struct lb_cache_stats stats;
    struct lb_cache *cache = cached_open(dir, max_bytes);
    cached_must(lb_cache_put_blob(cache, "info", "kept", 4, &detail), &detail);
    int kept = put_many(cache, 0, (uint64_t)n);
    assert_true(kept > n / 3 && kept < n);
    for (int epoch = 0; epoch < 2; epoch++) {
        assert_int_equal(look_up_many(cache, 0, (uint64_t)n), kept);
        assert_int_equal(put_many(cache, (uint64_t)kept, (uint64_t)n), 0); /* nothing of use goes */
    }
    cached_must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_true(stats.file_bytes <= max_bytes);
    assert_true(stats.stored_bytes > max_bytes / 2);
    assert_int_equal(stats.entries, kept);
    lb_cache_close(cache);

    usleep(2000); /* sessions are told apart by the millisecond in which they began */
    cache = cached_open(
        dir, max_bytes); /* the same data again: its answers are not thrown out for their fellows */
    assert_int_equal(look_up_many(cache, 0, 100) + put_many(cache, 399, 400), 100);
    assert_int_equal(look_up_many(cache, 0, (uint64_t)n), kept);
    lb_cache_close(cache);

    usleep(2000);
    cache = cached_open(dir, max_bytes); /* other data: looks for a while, finds nothing, takes the room */
    assert_int_equal(look_up_many(cache, 1000, 1100), 0);
    int other = put_many(cache, 1000, 1000 + (uint64_t)n);
    assert_true(other > n / 3 && other < n);
    assert_int_equal(look_up_many(cache, 1000, 1000 + (uint64_t)n), other);
    cached_must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_true(stats.file_bytes <= max_bytes);
    int left = look_up_many(cache, 0, (uint64_t)n);
    assert_int_equal((int)stats.entries, other + left);
    assert_true(left < 20); /* as much went as was needed, but no run's half */

    struct lb_buf buf;
    lb_buf_init(&buf, 100);
    cached_must(lb_cache_get_blob(cache, "info", &buf, &detail), &detail);
    assert_memory_equal(buf.data, "kept", 4);
    lb_buf_finish(&buf);

    /* What can never fit is refused, and everything else stays. */
    void *large = lb_calloc(3 << 20, 1);
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 1);
    for (size_t i = 0; i < (3u << 20) / 8; i++) {
        ((uint64_t *)large)[i] = lb_rng_u64(&rng);
    }
    struct lb_detail told = {0};
    assert_int_equal(lb_cache_put_blob(cache, "too large", large, 3 << 20, &told), LB_E_LIMIT);
    assert_non_null(strstr(told.text, "cache_max_bytes"));
    assert_int_equal(look_up_many(cache, 1000, 1000 + (uint64_t)n), other);
    /* A value that answers are useless without does get room. */
    cached_must(lb_cache_put_blob(cache, "head", large, 1 << 20, &detail), &detail);
    cached_must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_true(stats.file_bytes <= max_bytes);
    assert_true(stats.entries > 0 && (int)stats.entries < other);
    lb_free(large);
    lb_cache_close(cache);
    assert_int_equal(lb_cache_open(dir, 1000, &cache, NULL), LB_E_ARG);
}

/* 16 answers of 50 positions in one transaction, of the next seeds. */
static void put_at_once(struct lb_cache *cache, uint64_t *seed) {
    enum { TOGETHER = 16 };
    struct lb_detail detail = {0};
    struct cached *made = lb_calloc(TOGETHER, sizeof *made);
    const struct lb_answer *answers[TOGETHER];
    uint8_t keys[TOGETHER][LB_SHA256_BYTES];
    for (int i = 0; i < TOGETHER; i++) {
        cached_make(&made[i], (*seed)++, 50, false);
        answers[i] = &made[i].answer;
        memcpy(keys[i], made[i].key, sizeof keys[i]);
    }
    cached_must(lb_cache_put(cache, (const uint8_t(*)[LB_SHA256_BYTES])keys, answers, TOGETHER, &detail),
                &detail);
    lb_free(made);
}

/* A full cache loses no more than what comes needs: one answer for one of its size, and for a large value as
 * many as it is large. */
static void test_no_more_goes_than_must(void **state) {
    const char *dir = cached_dir(state);
    enum { BLOB_BYTES = 480000 };
    struct lb_detail detail = {0};
    struct lb_cache_stats before, after;
    struct lb_cache *cache = cached_open(dir, 4 << 20);
    struct cached *made = lb_calloc(1, sizeof *made);
    enum lb_status status = LB_OK;
    uint64_t seed = 0;
    while (status == LB_OK) {
        cached_make(made, seed++, 50, false);
        status = cached_put(cache, made, NULL);
    }
    assert_int_equal(status, LB_E_LIMIT);
    cached_must(lb_cache_stats(cache, &before, &detail), &detail);
    assert_true(before.file_bytes > (4 << 20) / 10 * 9); /* and it was full */
    lb_cache_close(cache);
    usleep(2000);
    cache = cached_open(dir, 4 << 20);
    assert_int_equal(look_up_many(cache, 5000, 5100), 0); /* what is there is of no use now */
    cached_must(lb_cache_stats(cache, &before, &detail), &detail);
    for (int i = 0; i < 100; i++) {
        cached_make(made, seed++, 50, false);
        cached_must(cached_put(cache, made, &detail), &detail);
        cached_must(lb_cache_stats(cache, &after, &detail), &detail);
        if (!(after.entries + 4 >= before.entries &&
              after.entries <= before.entries + 4)) { /* pages are shared */
            fail_msg("%llu answers were %llu before", (unsigned long long)after.entries,
                     (unsigned long long)before.entries);
        }
    }
    cached_must(lb_cache_stats(cache, &before, &detail), &detail);
    put_at_once(cache, &seed);
    cached_must(lb_cache_stats(cache, &after, &detail), &detail);
    assert_true(after.entries + 8 >= before.entries && after.entries <= before.entries + 8); /* 16 for 16 */
    cached_must(lb_cache_stats(cache, &before, &detail), &detail);
    struct lb_rng rng;
    uint64_t *noise = lb_malloc_array(BLOB_BYTES / 8, sizeof *noise);
    lb_rng_seed(&rng, 8, 8);
    for (size_t i = 0; i < BLOB_BYTES / 8; i++) {
        noise[i] = lb_rng_u64(&rng);
    }
    cached_must(lb_cache_put_blob(cache, "head", noise, BLOB_BYTES, &detail), &detail);
    cached_must(lb_cache_stats(cache, &after, &detail), &detail);
    uint64_t gone = before.entries - after.entries, size = before.stored_bytes / before.entries;
    assert_true(gone * size <= BLOB_BYTES + 4 * size);
    assert_true(gone * 2 * size >= BLOB_BYTES / 2); /* and no less */
    lb_free(noise);
    lb_free(made);
    lb_cache_close(cache);
}

/* Writes its own answers and those that all write, reading the common ones back. */
static int write_many(const char *dir, uint64_t own) {
    struct lb_cache *cache = NULL;
    struct cached *made = lb_calloc(1, sizeof *made);
    if (lb_cache_open(dir, CACHED_SPACIOUS, &cache, NULL)) {
        return 1;
    }
    for (uint64_t i = 0; i < 60; i++) {
        struct lb_detail detail = {0};
        cached_make(made, i % 2 ? own * 1000 + i : i, 20, false);
        if (cached_put(cache, made, &detail) || cached_get(cache, made, &detail)) {
            fprintf(stderr, "process %d: %s\n", (int)own, detail.text);
            return 2;
        }
    }
    lb_cache_close(cache);
    lb_free(made);
    return 0;
}

static void test_two_processes(void **state) {
    const char *dir = cached_dir(state);
    pid_t children[2];
    for (uint64_t c = 0; c < 2; c++) {
        children[c] = fork();
        assert_true(children[c] >= 0);
        if (children[c] == 0) {
            _exit(write_many(dir, c + 1));
        }
    }
    assert_int_equal(write_many(dir, 3), 0);
    for (int c = 0; c < 2; c++) {
        int status = -1;
        assert_int_equal(waitpid(children[c], &status, 0), children[c]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    struct lb_cache *cache = cached_open(dir, CACHED_SPACIOUS);
    struct lb_cache_stats stats;
    struct lb_detail detail = {0};
    struct lb_cache_report report;
    cached_must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_int_equal(stats.entries, 30 + 3 * 30); /* 30 common ones, 30 of each of three */
    assert_int_equal(stats.tokens, 120 * 20);
    lb_cache_close(cache);
    cached_must(lb_cache_verify(dir, false, NULL, &report, &detail), &detail);
    assert_int_equal(report.entries, 120);
    assert_int_equal(report.bad, 0);
    assert_false(report.file_damaged);
}

/* A process that is killed in the middle leaves a cache that works. */
static void test_killed_writer(void **state) {
    const char *dir = cached_dir(state);
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct lb_cache *cache = NULL;
        struct cached *made = lb_calloc(1, sizeof *made);
        if (lb_cache_open(dir, CACHED_SPACIOUS, &cache, NULL)) {
            _exit(1);
        }
        for (uint64_t i = 0;; i++) {
            cached_make(made, i, 64, false);
            if (cached_put(cache, made, NULL) || (i == 20 && write(ready[1], "r", 1) != 1)) {
                _exit(1);
            }
        }
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(kill(child, SIGKILL), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ready[0]);
    close(ready[1]);
    struct lb_cache *cache = cached_open(dir, CACHED_SPACIOUS);
    struct lb_detail detail = {0};
    struct lb_cache_report report;
    struct cached *made = lb_calloc(1, sizeof *made);
    cached_must(lb_cache_verify(dir, false, NULL, &report, &detail), &detail);
    assert_true(report.entries > 20);
    assert_int_equal(report.bad, 0);
    assert_false(report.file_damaged);
    cached_make(made, 1ull << 40, 64, false);
    cached_must(cached_put(cache, made, &detail), &detail);
    cached_must(cached_get(cache, made, &detail), &detail);
    lb_free(made);
    lb_cache_close(cache);
}

static void test_opened_twice_is_shared(void **state) {
    const char *dir = cached_dir(state);
    struct lb_detail detail = {0};
    struct cached *made = lb_calloc(1, sizeof *made);
    struct lb_cache *a = cached_open(dir, CACHED_SPACIOUS), *b = cached_open(dir, CACHED_SPACIOUS);
    cached_make(made, 1, 10, true);
    cached_must(cached_put(a, made, &detail), &detail);
    lb_cache_close(a);
    cached_must(cached_get(b, made, &detail), &detail);
    lb_cache_close(b);
    lb_free(made);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, cached_setup, cached_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip_and_reopen),
        TEST(test_held),
        TEST(test_blobs),
        TEST(test_a_full_cache_keeps_what_is_used),
        TEST(test_no_more_goes_than_must),
        TEST(test_two_processes),
        TEST(test_killed_writer),
        TEST(test_opened_twice_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
