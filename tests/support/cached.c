#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/cached.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct folder {
    char path[64];
};

int cached_setup(void **state) {
    struct folder *folder = lb_calloc(1, sizeof *folder);
    /* In memory where there is such a place: commits wait for the disk. */
    snprintf(folder->path, sizeof folder->path, "%s/limbeck-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    *state = folder;
    return mkdtemp(folder->path) ? 0 : -1;
}

int cached_teardown(void **state) {
    struct folder *folder = *state;
    int bad = lb_remove_tree(folder->path, NULL);
    lb_free(folder);
    return bad;
}

const char *cached_dir(void **state) {
    return ((struct folder *)*state)->path;
}

void cached_must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

struct lb_cache *cached_open(const char *dir, uint64_t max_bytes) {
    struct lb_cache *cache = NULL;
    struct lb_detail detail = {0};
    cached_must(lb_cache_open(dir, max_bytes, &cache, &detail), &detail);
    return cache;
}

void cached_make(struct cached *made, uint64_t seed, int64_t n, bool compressible) {
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

enum lb_status cached_put(struct lb_cache *cache, const struct cached *made, struct lb_detail *detail) {
    const struct lb_answer *answer = &made->answer;
    return lb_cache_put(cache, (const uint8_t(*)[LB_SHA256_BYTES])made->key, &answer, 1, detail);
}

enum lb_status cached_get(struct lb_cache *cache, const struct cached *made, struct lb_detail *detail) {
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
