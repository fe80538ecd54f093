/* Heap allocation with overflow checks, and a hook by which tests make the Nth allocation fail. */
#ifndef LB_BASE_MEM_H
#define LB_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* *out = a * b; false (out untouched) when that does not fit a size_t. */
bool lb_mul_size(size_t a, size_t b, size_t *out);
/* *out = a + b; false (out untouched) when that does not fit a size_t. */
bool lb_add_size(size_t a, size_t b, size_t *out);

/* count * size bytes, not zeroed; NULL when out of memory or on overflow. Free with lb_free. */
void *lb_malloc_array(size_t count, size_t size);
/* As lb_malloc_array, zeroed. */
void *lb_calloc(size_t count, size_t size);
/* Resizes p (may be NULL) to count * size bytes; on failure NULL is returned and p stays valid. */
void *lb_realloc_array(void *p, size_t count, size_t size);
/* A heap copy of text; NULL when out of memory. */
char *lb_strdup(const char *text);
/* Whether text ends with end; the empty text ends all. */
bool lb_ends_with(const char *text, const char *end);
/* Bytes aligned to 64, for vectors. Free with lb_free. */
void *lb_malloc_aligned(size_t bytes);
/* Accepts NULL. */
void lb_free(void *p);

/* Tests only: the nth allocation from now (1 = next) fails, and each one after it; 0 turns this off. */
void lb_mem_fail_from(long nth);
/* Tests only: the same of the nth alone, as when memory is short for a moment; what is overlooked then is not
 * covered up by failures that follow. */
void lb_mem_fail_only(long nth);
/* Tests only: allocations asked for since the last lb_mem_fail_from. */
long lb_mem_count(void);

#endif
