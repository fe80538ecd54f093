/* The cache: what was put is got, bit for bit; damage is noticed; it stays within its size; processes share
 * it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "trainer/cache/cache.h"
#include "trainer/cache/value.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPACIOUS (64ull << 20)

struct folder {
    char path[64];
};

static int setup(void **state) {
    struct folder *folder = lb_calloc(1, sizeof *folder);
    /* In memory where there is such a place: commits wait for the disk. */
    snprintf(folder->path, sizeof folder->path, "%s/limbeck-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    *state = folder;
    return mkdtemp(folder->path) ? 0 : -1;
}

static int teardown(void **state) {
    struct folder *folder = *state;
    int bad = lb_remove_tree(folder->path, NULL);
    lb_free(folder);
    return bad;
}

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

static struct lb_cache *open_cache(const char *dir, uint64_t max_bytes) {
    struct lb_cache *cache = NULL;
    struct lb_detail detail = {0};
    must(lb_cache_open(dir, max_bytes, &cache, &detail), &detail);
    return cache;
}

/* An answer of two tensors that seed decides; compressible or not. Its data is of n positions and 100
 * columns. */
struct made {
    uint16_t hidden[64 * 100];
    float lse[64];
    struct lb_answer answer;
    uint8_t key[LB_SHA256_BYTES];
};

static void make(struct made *made, uint64_t seed, int64_t n, bool compressible) {
    struct lb_rng rng;
    lb_rng_seed(&rng, seed, 3);
    for (size_t i = 0; i < (size_t)n * 100; i++) {
        made->hidden[i] = (uint16_t)((compressible ? seed : lb_rng_u64(&rng)) & 0xbfff); /* FP16, finite */
    }
    for (int64_t i = 0; i < n; i++) {
        made->lse[i] = lb_rng_float(&rng);
    }
    made->answer = (struct lb_answer){.n_tensors = 2};
    made->answer.tensors[0] = (struct lb_wire_tensor){.name = "hidden_states.final",
                                                      .datatype = LB_DT_FP16,
                                                      .n_dims = 2,
                                                      .dim = {n, 100},
                                                      .data = made->hidden,
                                                      .bytes = (size_t)n * 200};
    made->answer.tensors[1] = (struct lb_wire_tensor){.name = "logsumexp",
                                                      .datatype = LB_DT_FP32,
                                                      .n_dims = 1,
                                                      .dim = {n},
                                                      .data = made->lse,
                                                      .bytes = (size_t)n * 4};
    lb_sha256(&seed, sizeof seed, made->key);
}

static enum lb_status put(struct lb_cache *cache, const struct made *made, struct lb_detail *detail) {
    const struct lb_answer *answer = &made->answer;
    return lb_cache_put(cache, (const uint8_t(*)[LB_SHA256_BYTES])made->key, &answer, 1, detail);
}

/* Whether the cache has exactly this. */
static enum lb_status get_same(struct lb_cache *cache, const struct made *made, struct lb_detail *detail) {
    struct lb_arena arena;
    struct lb_answer got;
    lb_arena_init(&arena, 1 << 20);
    enum lb_status status = lb_cache_get(cache, made->key, &arena, &got, detail);
    if (status == LB_OK) {
        assert_int_equal(got.n_tensors, made->answer.n_tensors);
        for (size_t i = 0; i < got.n_tensors; i++) {
            const struct lb_wire_tensor *a = &got.tensors[i], *b = &made->answer.tensors[i];
            assert_string_equal(a->name, b->name);
            assert_int_equal(a->datatype, b->datatype);
            assert_int_equal(a->n_dims, b->n_dims);
            assert_memory_equal(a->dim, b->dim, (size_t)b->n_dims * sizeof *b->dim);
            assert_int_equal(a->bytes, b->bytes);
            assert_memory_equal(a->data, b->data, b->bytes);
            assert_int_equal((uintptr_t)a->data % 64, 0);
        }
    }
    lb_arena_finish(&arena);
    return status;
}

static void test_round_trip_and_reopen(void **state) {
    const char *dir = ((struct folder *)*state)->path;
    struct lb_detail detail = {0};
    struct lb_cache_stats stats;
    struct made *a = lb_calloc(2, sizeof *a), *b = a + 1;
    make(a, 1, 64, true);
    make(b, 2, 7, false);
    struct lb_cache *cache = open_cache(dir, SPACIOUS);
    assert_int_equal(get_same(cache, a, &detail), LB_E_NOTFOUND);
    assert_int_equal(detail.code, 0); /* a plain miss is not an error */
    must(put(cache, a, &detail), &detail);
    must(put(cache, b, &detail), &detail);
    must(put(cache, b, &detail), &detail); /* again: nothing changes */
    must(get_same(cache, a, &detail), &detail);
    must(get_same(cache, b, &detail), &detail);
    lb_cache_close(cache);

    cache = open_cache(dir, SPACIOUS);
    must(get_same(cache, a, &detail), &detail);
    must(get_same(cache, b, &detail), &detail);
    must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_int_equal(stats.entries, 2);
    assert_int_equal(stats.tokens, 71);
    assert_int_equal(stats.max_bytes, SPACIOUS);
    assert_true(stats.raw_bytes > 71 * 204 && stats.raw_bytes < 71 * 204 + 300);
    assert_true(stats.stored_bytes < stats.raw_bytes); /* a compresses well */
    lb_cache_close(cache);
    lb_free(a);
}

static void test_blobs(void **state) {
    const char *dir = ((struct folder *)*state)->path;
    struct lb_detail detail = {0};
    struct lb_cache_stats stats;
    struct lb_buf buf;
    char longest[600];
    memset(longest, 'n', sizeof longest);
    longest[599] = 0;
    lb_buf_init(&buf, 1 << 20);
    struct lb_cache *cache = open_cache(dir, SPACIOUS);
    assert_int_equal(lb_cache_get_blob(cache, "head:1", &buf, &detail), LB_E_NOTFOUND);
    must(lb_cache_put_blob(cache, "head:1", "first", 5, &detail), &detail);
    must(lb_cache_put_blob(cache, "head:1", "second one", 10, &detail), &detail);
    must(lb_cache_put_blob(cache, "empty", "", 0, &detail), &detail);
    must(lb_cache_get_blob(cache, "head:1", &buf, &detail), &detail);
    assert_int_equal(buf.len, 10);
    assert_memory_equal(buf.data, "second one", 10);
    must(lb_cache_get_blob(cache, "empty", &buf, &detail), &detail);
    assert_int_equal(buf.len, 10);
    assert_int_equal(lb_cache_put_blob(cache, longest, "x", 1, NULL), LB_E_ARG);
    assert_int_equal(lb_cache_put_blob(cache, "", "x", 1, NULL), LB_E_ARG);
    must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_int_equal(stats.blobs, 2);
    lb_cache_close(cache);
    lb_buf_finish(&buf);
}

/* Puts answers of the seeds first .. end - 1 that do not compress; returns how many were kept. */
static int put_many(struct lb_cache *cache, uint64_t first, uint64_t end) {
    struct made *made = lb_calloc(1, sizeof *made);
    int kept = 0;
    for (uint64_t seed = first; seed < end; seed++) {
        struct lb_detail detail = {0};
        make(made, seed, 16 + (int64_t)(seed % 49), false);
        enum lb_status status = put(cache, made, &detail);
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
    struct made *made = lb_calloc(1, sizeof *made);
    int found = 0;
    for (uint64_t seed = first; seed < end; seed++) {
        make(made, seed, 16 + (int64_t)(seed % 49), false);
        found += get_same(cache, made, NULL) == LB_OK;
    }
    lb_free(made);
    return found;
}

/* A run whose answers do not fit keeps those it has, and finds them in each epoch; so does the next run on
 * the same data. A run on other data gets the room, but never more than there is. */
static void test_a_full_cache_keeps_what_is_used(void **state) {
    const char *dir = ((struct folder *)*state)->path;
    const uint64_t max_bytes = 2 << 20;
    const int n = 400; /* 400 answers of about 8,000 bytes: more than the cache takes */
    struct lb_detail detail = {0};
    struct lb_cache_stats stats;
    struct lb_cache *cache = open_cache(dir, max_bytes);
    must(lb_cache_put_blob(cache, "info", "kept", 4, &detail), &detail);
    int kept = put_many(cache, 0, (uint64_t)n);
    assert_true(kept > n / 3 && kept < n);
    for (int epoch = 0; epoch < 2; epoch++) {
        assert_int_equal(look_up_many(cache, 0, (uint64_t)n), kept);
        assert_int_equal(put_many(cache, (uint64_t)kept, (uint64_t)n), 0); /* nothing of use goes */
    }
    must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_true(stats.file_bytes <= max_bytes);
    assert_true(stats.stored_bytes > max_bytes / 2);
    assert_int_equal(stats.entries, kept);
    lb_cache_close(cache);

    usleep(2000); /* sessions are told apart by the millisecond in which they began */
    cache = open_cache(dir,
                       max_bytes); /* the same data again: its answers are not thrown out for their fellows */
    assert_int_equal(look_up_many(cache, 0, 100) + put_many(cache, 399, 400), 100);
    assert_int_equal(look_up_many(cache, 0, (uint64_t)n), kept);
    lb_cache_close(cache);

    usleep(2000);
    cache = open_cache(dir, max_bytes); /* other data: looks for a while, finds nothing, takes the room */
    assert_int_equal(look_up_many(cache, 1000, 1100), 0);
    int other = put_many(cache, 1000, 1000 + (uint64_t)n);
    assert_true(other > n / 3 && other < n);
    assert_int_equal(look_up_many(cache, 1000, 1000 + (uint64_t)n), other);
    must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_true(stats.file_bytes <= max_bytes);
    int left = look_up_many(cache, 0, (uint64_t)n);
    assert_int_equal((int)stats.entries, other + left);
    assert_true(left < 20); /* as much went as was needed, but no run's half */

    struct lb_buf buf;
    lb_buf_init(&buf, 100);
    must(lb_cache_get_blob(cache, "info", &buf, &detail), &detail);
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
    must(lb_cache_put_blob(cache, "head", large, 1 << 20, &detail), &detail);
    must(lb_cache_stats(cache, &stats, &detail), &detail);
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
    struct made *made = lb_calloc(TOGETHER, sizeof *made);
    const struct lb_answer *answers[TOGETHER];
    uint8_t keys[TOGETHER][LB_SHA256_BYTES];
    for (int i = 0; i < TOGETHER; i++) {
        make(&made[i], (*seed)++, 50, false);
        answers[i] = &made[i].answer;
        memcpy(keys[i], made[i].key, sizeof keys[i]);
    }
    must(lb_cache_put(cache, (const uint8_t(*)[LB_SHA256_BYTES])keys, answers, TOGETHER, &detail), &detail);
    lb_free(made);
}

/* A full cache loses no more than what comes needs: one answer for one of its size, and for a large value as
 * many as it is large. */
static void test_no_more_goes_than_must(void **state) {
    const char *dir = ((struct folder *)*state)->path;
    enum { BLOB_BYTES = 480000 };
    struct lb_detail detail = {0};
    struct lb_cache_stats before, after;
    struct lb_cache *cache = open_cache(dir, 4 << 20);
    struct made *made = lb_calloc(1, sizeof *made);
    enum lb_status status = LB_OK;
    uint64_t seed = 0;
    while (status == LB_OK) {
        make(made, seed++, 50, false);
        status = put(cache, made, NULL);
    }
    assert_int_equal(status, LB_E_LIMIT);
    must(lb_cache_stats(cache, &before, &detail), &detail);
    assert_true(before.file_bytes > (4 << 20) / 10 * 9); /* and it was full */
    lb_cache_close(cache);
    usleep(2000);
    cache = open_cache(dir, 4 << 20);
    assert_int_equal(look_up_many(cache, 5000, 5100), 0); /* what is there is of no use now */
    must(lb_cache_stats(cache, &before, &detail), &detail);
    for (int i = 0; i < 100; i++) {
        make(made, seed++, 50, false);
        must(put(cache, made, &detail), &detail);
        must(lb_cache_stats(cache, &after, &detail), &detail);
        if (!(after.entries + 4 >= before.entries &&
              after.entries <= before.entries + 4)) { /* pages are shared */
            fail_msg("%llu answers were %llu before", (unsigned long long)after.entries,
                     (unsigned long long)before.entries);
        }
    }
    must(lb_cache_stats(cache, &before, &detail), &detail);
    put_at_once(cache, &seed);
    must(lb_cache_stats(cache, &after, &detail), &detail);
    assert_true(after.entries + 8 >= before.entries && after.entries <= before.entries + 8); /* 16 for 16 */
    must(lb_cache_stats(cache, &before, &detail), &detail);
    struct lb_rng rng;
    uint64_t *noise = lb_malloc_array(BLOB_BYTES / 8, sizeof *noise);
    lb_rng_seed(&rng, 8, 8);
    for (size_t i = 0; i < BLOB_BYTES / 8; i++) {
        noise[i] = lb_rng_u64(&rng);
    }
    must(lb_cache_put_blob(cache, "head", noise, BLOB_BYTES, &detail), &detail);
    must(lb_cache_stats(cache, &after, &detail), &detail);
    uint64_t gone = before.entries - after.entries, size = before.stored_bytes / before.entries;
    assert_true(gone * size <= BLOB_BYTES + 4 * size);
    assert_true(gone * 2 * size >= BLOB_BYTES / 2); /* and no less */
    lb_free(noise);
    lb_free(made);
    lb_cache_close(cache);
}

/* Flips one bit in the middle of the stored bytes of a value, which stand in the file as they are. */
static void damage(const char *dir, const struct made *made) {
    char path[100];
    struct lb_buf file;
    snprintf(path, sizeof path, "%s/cache.db", dir);
    lb_buf_init(&file, 64 << 20);
    must(lb_file_read(path, &file, NULL), &(struct lb_detail){0});
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
    const char *dir = ((struct folder *)*state)->path;
    struct lb_detail detail = {0}, told = {0};
    struct lb_cache_stats stats;
    struct lb_cache_report report;
    struct made *made = lb_calloc(6, sizeof *made);
    struct lb_cache *cache = open_cache(dir, SPACIOUS);
    for (uint64_t i = 0; i < 5; i++) {
        make(&made[i], 100 + i, 40, false);
        must(put(cache, &made[i], &detail), &detail);
    }
    lb_cache_close(cache);
    damage(dir, &made[1]);
    damage(dir, &made[3]);

    must(lb_cache_verify(dir, false, &report, &detail), &detail);
    assert_int_equal(report.entries, 5);
    assert_int_equal(report.bad, 2);
    cache = open_cache(dir, 0);
    assert_int_equal(get_same(cache, &made[1], &told), LB_E_NOTFOUND);
    assert_non_null(strstr(told.text, "checksum"));
    must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_int_equal(stats.max_bytes, SPACIOUS); /* as it was opened last */
    assert_int_equal(stats.entries, 4);          /* it went at once, so that a good one can come */
    must(put(cache, &made[1], &detail), &detail);
    must(get_same(cache, &made[1], &detail), &detail);
    must(lb_cache_verify(dir, true, &report, &detail), &detail);
    assert_int_equal(report.entries, 5);
    assert_int_equal(report.bad, 1);
    assert_false(report.file_damaged);
    must(lb_cache_verify(dir, true, &report, &detail), &detail);
    assert_int_equal(report.entries, 4);
    assert_int_equal(report.bad, 0);
    must(get_same(cache, &made[0], &detail), &detail);

    /* An answer that cannot be true is as bad, whole as it is. */
    make(&made[5], 500, 40, false);
    made[5].lse[7] = NAN;
    must(put(cache, &made[5], &detail), &detail);
    must(lb_cache_verify(dir, true, &report, &detail), &detail);
    assert_int_equal(report.bad, 1);
    assert_int_equal(get_same(cache, &made[5], NULL), LB_E_NOTFOUND);
    lb_cache_close(cache);
    lb_free(made);
}

/* A cache of n answers of 64 positions, seeds 0 .. n - 1, closed. */
static void fill(const char *dir, uint64_t n) {
    struct lb_cache *cache = open_cache(dir, SPACIOUS);
    struct lb_detail detail = {0};
    struct made *made = lb_calloc(1, sizeof *made);
    for (uint64_t i = 0; i < n; i++) {
        make(made, i, 64, false);
        must(put(cache, made, &detail), &detail);
    }
    must(lb_cache_put_blob(cache, "info", "kept", 4, &detail), &detail);
    lb_cache_close(cache);
    lb_free(made);
}

static int count_there(struct lb_cache *cache, uint64_t n) {
    struct made *made = lb_calloc(1, sizeof *made);
    int found = 0;
    for (uint64_t i = 0; i < n; i++) {
        make(made, i, 64, false);
        found += get_same(cache, made, NULL) == LB_OK;
    }
    lb_free(made);
    return found;
}

static void test_files_that_are_none(void **state) {
    const char *dir = ((struct folder *)*state)->path;
    struct lb_detail detail = {0}, told = {0};
    struct lb_cache *cache = NULL;
    struct lb_cache_report report;
    char path[100], garbage[8192];
    snprintf(path, sizeof path, "%s/cache.db", dir);
    assert_int_equal(lb_cache_verify(dir, true, &report, NULL), LB_E_NOTFOUND);
    memset(garbage, 'g', sizeof garbage);
    must(lb_file_replace(path, garbage, sizeof garbage, &detail), &detail);
    assert_int_equal(lb_cache_open(dir, SPACIOUS, &cache, &told), LB_E_FORMAT);
    assert_non_null(strstr(told.text, "--repair"));
    must(lb_cache_verify(dir, true, &report, &detail), &detail);
    assert_true(report.file_damaged);
    fill(dir, 3);
    must(lb_cache_verify(dir, false, &report, &detail), &detail);
    assert_false(report.file_damaged);
    assert_int_equal(report.entries, 3);

    snprintf(path, sizeof path, "%s/data.mdb", dir); /* of an older version */
    must(lb_file_replace(path, garbage, sizeof garbage, &detail), &detail);
    told = (struct lb_detail){0};
    assert_int_equal(lb_cache_open(dir, SPACIOUS, &cache, &told), LB_E_UNSUPPORTED);
    assert_non_null(strstr(told.text, "older format"));
    assert_int_equal(unlink(path), 0);

    snprintf(path, sizeof path, "%s/cache.db/below", dir); /* a file where a folder should be */
    assert_int_not_equal(lb_cache_open(path, SPACIOUS, &cache, NULL), LB_OK);
}

/* Another program's database, or one of a later version, is refused and left as it is. */
static void test_another_format(void **state) {
    const char *dir = ((struct folder *)*state)->path;
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
    assert_int_equal(lb_cache_open(dir, SPACIOUS, &cache, &told), LB_E_UNSUPPORTED);
    assert_non_null(strstr(told.text, "format 3"));
}

/* A file that is cut off, or any page of which is overwritten, while it is open: an error or a miss, never a
 * crash; a repair keeps what can be read. */
static void test_damaged_pages(void **state) {
    const char *dir = ((struct folder *)*state)->path;
    const uint64_t n = 30;
    struct lb_buf whole;
    char path[100];
    struct made *made = lb_calloc(1, sizeof *made);
    snprintf(path, sizeof path, "%s/cache.db", dir);
    fill(dir, n);
    lb_buf_init(&whole, 64 << 20);
    must(lb_file_read(path, &whole, NULL), &(struct lb_detail){0});
    size_t pages = whole.len / 8192, rescued = 0;
    make(made, 1000, 64, false);
    for (size_t page = 0; page < 2 * pages; page++) {
        struct lb_detail detail = {0};
        struct lb_cache_report report;
        struct lb_cache *cache = open_cache(dir, SPACIOUS);
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
        (void)!put(cache, made, NULL);
        lb_cache_close(cache);
        must(lb_cache_verify(dir, true, &report, &detail), &detail);
        must(lb_cache_verify(dir, false, &report, &detail), &detail);
        assert_false(report.file_damaged);
        assert_int_equal(report.bad, 0);
        cache = open_cache(dir, SPACIOUS);
        rescued += (size_t)count_there(cache, n);
        must(put(cache, made, &detail), &detail);
        must(get_same(cache, made, &detail), &detail);
        lb_cache_close(cache);
        must(lb_file_replace(path, whole.data, whole.len, NULL), &detail);
        snprintf(path, sizeof path, "%s/cache.db-journal", dir);
        unlink(path);
        snprintf(path, sizeof path, "%s/cache.db", dir);
    }
    assert_true(rescued > pages * n / 2); /* most pages cost one answer */
    lb_buf_finish(&whole);
    lb_free(made);
}

/* Writes its own answers and those that all write, reading the common ones back. */
static int write_many(const char *dir, uint64_t own) {
    struct lb_cache *cache = NULL;
    struct made *made = lb_calloc(1, sizeof *made);
    if (lb_cache_open(dir, SPACIOUS, &cache, NULL)) {
        return 1;
    }
    for (uint64_t i = 0; i < 60; i++) {
        struct lb_detail detail = {0};
        make(made, i % 2 ? own * 1000 + i : i, 20, false);
        if (put(cache, made, &detail) || get_same(cache, made, &detail)) {
            fprintf(stderr, "process %d: %s\n", (int)own, detail.text);
            return 2;
        }
    }
    lb_cache_close(cache);
    lb_free(made);
    return 0;
}

static void test_two_processes(void **state) {
    const char *dir = ((struct folder *)*state)->path;
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
    struct lb_cache *cache = open_cache(dir, SPACIOUS);
    struct lb_cache_stats stats;
    struct lb_detail detail = {0};
    struct lb_cache_report report;
    must(lb_cache_stats(cache, &stats, &detail), &detail);
    assert_int_equal(stats.entries, 30 + 3 * 30); /* 30 common ones, 30 of each of three */
    assert_int_equal(stats.tokens, 120 * 20);
    lb_cache_close(cache);
    must(lb_cache_verify(dir, false, &report, &detail), &detail);
    assert_int_equal(report.entries, 120);
    assert_int_equal(report.bad, 0);
    assert_false(report.file_damaged);
}

/* A process that is killed in the middle leaves a cache that works. */
static void test_killed_writer(void **state) {
    const char *dir = ((struct folder *)*state)->path;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct lb_cache *cache = NULL;
        struct made *made = lb_calloc(1, sizeof *made);
        if (lb_cache_open(dir, SPACIOUS, &cache, NULL)) {
            _exit(1);
        }
        for (uint64_t i = 0;; i++) {
            make(made, i, 64, false);
            if (put(cache, made, NULL) || (i == 20 && write(ready[1], "r", 1) != 1)) {
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
    struct lb_cache *cache = open_cache(dir, SPACIOUS);
    struct lb_detail detail = {0};
    struct lb_cache_report report;
    struct made *made = lb_calloc(1, sizeof *made);
    must(lb_cache_verify(dir, false, &report, &detail), &detail);
    assert_true(report.entries > 20);
    assert_int_equal(report.bad, 0);
    assert_false(report.file_damaged);
    make(made, 1ull << 40, 64, false);
    must(put(cache, made, &detail), &detail);
    must(get_same(cache, made, &detail), &detail);
    lb_free(made);
    lb_cache_close(cache);
}

static void test_opened_twice_is_shared(void **state) {
    const char *dir = ((struct folder *)*state)->path;
    struct lb_detail detail = {0};
    struct made *made = lb_calloc(1, sizeof *made);
    struct lb_cache *a = open_cache(dir, SPACIOUS), *b = open_cache(dir, SPACIOUS);
    make(made, 1, 10, true);
    must(put(a, made, &detail), &detail);
    lb_cache_close(a);
    must(get_same(b, made, &detail), &detail);
    lb_cache_close(b);
    lb_free(made);
}

/* A value of another version is told apart from a damaged one. */
static void test_value_version(void **state) {
    (void)state;
    struct lb_buf value;
    struct lb_cache_header header;
    const void *payload = NULL;
    lb_buf_init(&value, 4096);
    assert_int_equal(lb_cache_value_make("key", 3, "answer", 6, 1, &value), LB_OK);
    assert_null(lb_cache_value_check("key", 3, value.data, value.len, &header, &payload));
    value.data[4]++; /* the version follows the magic */
    assert_string_equal(lb_cache_value_check("key", 3, value.data, value.len, &header, &payload),
                        "was written by another version of Limbeck");
    lb_buf_finish(&value);
}

static void key_of(const struct lb_sample *sample, const struct lb_ask_spec *spec, const char *fingerprint,
                   char out[LB_SHA256_HEX]) {
    uint8_t key[LB_SHA256_BYTES];
    lb_cache_key(fingerprint, sample, 3, spec, key);
    lb_hex(key, sizeof key, out);
}

/* Different questions have different keys, and equal ones the same whatever stands behind the sequence. */
static void test_keys(void **state) {
    (void)state;
    int32_t ids[] = {1, 2, 3, 4}, others[] = {1, 2, 3, 9};
    float features[] = {1, 2, 3};
    const struct lb_ask_spec topk = {
        .n_outputs = 1, .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_INT32}}, .top_k = 8, .temperature = 1};
    const struct lb_ask_spec lse = {
        .n_outputs = 1, .outputs = {{LB_OUT_LOGSUMEXP, 0, LB_DT_FP32}}, .top_k = 8, .temperature = 1};
    const struct lb_sample a = {.ids = ids, .n = 3, .label = 1}, b = {.ids = others, .n = 3},
                           longer = {.ids = ids, .n = 4};
    const struct lb_sample image = {.features = features, .n = 1};
    struct lb_ask_spec changed;
    char base[LB_SHA256_HEX], key[LB_SHA256_HEX];
    key_of(&a, &topk, "f", base);
    /* Caches that were filled earlier stay valid: made outside from the fields that value.c writes. */
    assert_string_equal(base, "8e710bfc7d221eac823e6425fccccc8bb732c88af5e6d3b8e58cf798c0790e90");
    key_of(&b, &topk, "f", key); /* the label behind the input is no part of the question */
    assert_string_equal(base, key);
    key_of(&longer, &topk, "f", key);
    assert_string_not_equal(base, key);
    key_of(&a, &topk, "g", key);
    assert_string_not_equal(base, key);
    key_of(&image, &topk, "f", key);
    assert_string_not_equal(base, key);
    const int32_t one[] = {5, 6, 7}, two[] = {5, 6, 8};
    struct lb_extra extra = {"score_ids", one, 1};
    struct lb_sample scored = a;
    char first[LB_SHA256_HEX];
    scored.extra = &extra;
    key_of(&scored, &topk, "f", first);
    assert_string_not_equal(base, first);
    extra.values = two;
    key_of(&scored, &topk, "f", key);
    assert_string_not_equal(first, key);
    extra = (struct lb_extra){"other_ids", one, 1};
    key_of(&scored, &topk, "f", key);
    assert_string_not_equal(first, key);
    changed = topk;
    changed.top_k = 9;
    key_of(&a, &changed, "f", key);
    assert_string_not_equal(base, key);
    changed = topk;
    changed.outputs[0].datatype = LB_DT_UINT16;
    key_of(&a, &changed, "f", key);
    assert_string_not_equal(base, key);
    changed = topk;
    changed.temperature = 2; /* raw logits do not depend on it */
    key_of(&a, &changed, "f", key);
    assert_string_equal(base, key);
    key_of(&a, &lse, "f", base);
    changed = lse;
    changed.temperature = 2;
    key_of(&a, &changed, "f", key);
    assert_string_not_equal(base, key);
    changed = lse;
    changed.top_k = 9;
    key_of(&a, &changed, "f", key);
    assert_string_equal(base, key);
}

/* Every prefix and every single flipped bit of a stored value is refused or unpacks to nothing wrong. */
static void test_values_cut_and_flipped(void **state) {
    (void)state;
    struct made *made = lb_calloc(1, sizeof *made);
    struct lb_buf value;
    uint64_t raw;
    make(made, 5, 2, false);
    lb_buf_init(&value, 1 << 16);
    assert_int_equal(lb_cache_answer_value(made->key, &made->answer, &value, &raw), LB_OK);
    assert_true(lb_cache_value_good(made->key, LB_SHA256_BYTES, value.data, value.len));
    for (size_t len = 0; len < value.len; len++) {
        assert_false(lb_cache_value_good(made->key, LB_SHA256_BYTES, value.data, len));
    }
    for (size_t bit = 0; bit < value.len * 8; bit++) {
        value.data[bit / 8] ^= (char)(1 << bit % 8);
        assert_false(lb_cache_value_good(made->key, LB_SHA256_BYTES, value.data, value.len));
        value.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    made->key[0] ^= 1; /* a value under another key */
    assert_false(lb_cache_value_good(made->key, LB_SHA256_BYTES, value.data, value.len));
    lb_buf_finish(&value);
    lb_free(made);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip_and_reopen),
        TEST(test_blobs),
        TEST(test_a_full_cache_keeps_what_is_used),
        TEST(test_no_more_goes_than_must),
        TEST(test_damage_is_noticed),
        TEST(test_files_that_are_none),
        TEST(test_another_format),
        TEST(test_damaged_pages),
        TEST(test_two_processes),
        TEST(test_killed_writer),
        TEST(test_opened_twice_is_shared),
        cmocka_unit_test(test_value_version),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_values_cut_and_flipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
