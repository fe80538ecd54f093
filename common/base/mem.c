#include "common/base/mem.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

/* asked counts allocations since the last lb_mem_fail_from; from fail_from (when it is not 0) to fail_to they
 * fail. */
static atomic_long asked;
static atomic_long fail_from, fail_to;

static bool may_allocate(void) {
    long nth = atomic_fetch_add_explicit(&asked, 1, memory_order_relaxed) + 1;
    long limit = atomic_load_explicit(&fail_from, memory_order_relaxed);
    return limit == 0 || nth < limit || nth > atomic_load_explicit(&fail_to, memory_order_relaxed);
}

bool lb_mul_size(size_t a, size_t b, size_t *out) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *out = product;
    return true;
}

bool lb_add_size(size_t a, size_t b, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *out = sum;
    return true;
}

/* NULL means failure to every caller, so that nothing asked for is one byte. */
static bool product_of(size_t count, size_t size, size_t *out) {
    if (!lb_mul_size(count, size, out) || *out > PTRDIFF_MAX) {
        return false;
    }
    if (*out == 0) {
        *out = 1;
    }
    return true;
}

void *lb_malloc_array(size_t count, size_t size) {
    size_t bytes;
    if (!product_of(count, size, &bytes) || !may_allocate()) {
        return NULL;
    }
    return malloc(bytes);
}

void *lb_calloc(size_t count, size_t size) {
    size_t bytes;
    if (!product_of(count, size, &bytes) || !may_allocate()) {
        return NULL;
    }
    return calloc(bytes, 1);
}

void *lb_realloc_array(void *p, size_t count, size_t size) {
    size_t bytes;
    if (!product_of(count, size, &bytes) || !may_allocate()) {
        return NULL;
    }
    return realloc(p, bytes);
}

char *lb_strdup(const char *text) {
    size_t bytes = strlen(text) + 1;
    char *copy = lb_malloc_array(bytes, 1);
    if (copy != NULL) {
        memcpy(copy, text, bytes);
    }
    return copy;
}

bool lb_ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && memcmp(text + n - m, end, m) == 0;
}

void *lb_malloc_aligned(size_t bytes) {
    size_t padded;
    if (!lb_add_size(bytes == 0 ? 1 : bytes, ALIGNMENT - 1, &padded) || padded > PTRDIFF_MAX ||
        !may_allocate()) {
        return NULL;
    }
    return aligned_alloc(ALIGNMENT, padded & ~(size_t)(ALIGNMENT - 1));
}

void lb_free(void *p) {
    free(p);
}

static void fail(long from, long to) {
    atomic_store(&fail_from, 0);
    atomic_store(&asked, 0);
    atomic_store(&fail_to, to);
    atomic_store(&fail_from, from);
}

void lb_mem_fail_from(long nth) {
    fail(nth, LONG_MAX);
}

void lb_mem_fail_only(long nth) {
    fail(nth, nth);
}

long lb_mem_count(void) {
    return atomic_load(&asked);
}
