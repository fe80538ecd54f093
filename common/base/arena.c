#include "common/base/arena.h"

#include "common/base/mem.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Under AddressSanitizer everything not handed out is poisoned, so that reading past an allocation is seen.
 */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { ALIGNMENT = 64, LEAST_CHUNK = 16 << 10 };

/* The header takes the first 64 bytes, so that the data behind it is aligned. */
struct lb_arena_chunk {
    struct lb_arena_chunk *older;
    size_t cap;
    size_t used;
};

static_assert(sizeof(struct lb_arena_chunk) <= ALIGNMENT, "the chunk header fits before the data");

static uint8_t *chunk_data(struct lb_arena_chunk *chunk) {
    return (uint8_t *)chunk + ALIGNMENT;
}

static struct lb_arena_chunk *chunk_create(size_t cap) {
    size_t bytes;
    if (!lb_add_size(cap, ALIGNMENT, &bytes)) {
        return NULL;
    }
    struct lb_arena_chunk *chunk = lb_malloc_aligned(bytes);
    if (chunk == NULL) {
        return NULL;
    }
    *chunk = (struct lb_arena_chunk){.cap = cap};
    POISON(chunk_data(chunk), cap);
    return chunk;
}

/* Takes the newest chunk off. */
static void drop_newest(struct lb_arena *arena) {
    struct lb_arena_chunk *chunk = arena->chunk;
    arena->chunk = chunk->older;
    arena->total -= chunk->cap;
    UNPOISON(chunk_data(chunk), chunk->cap);
    lb_free(chunk);
}

/* Only cuts: bytes behind `used` become unusable again. */
static void rewind_newest(struct lb_arena *arena, size_t used) {
    struct lb_arena_chunk *chunk = arena->chunk;
    POISON(chunk_data(chunk) + used, chunk->cap - used);
    chunk->used = used;
}

void lb_arena_init(struct lb_arena *arena, size_t max_bytes) {
    *arena = (struct lb_arena){.max_bytes = max_bytes};
}

void lb_arena_finish(struct lb_arena *arena) {
    if (arena == NULL) {
        return;
    }
    while (arena->chunk != NULL) {
        drop_newest(arena);
    }
    *arena = (struct lb_arena){.max_bytes = arena->max_bytes};
}

/* Puts a chunk with room for `need` bytes on top; each is about as large as all before it together. */
static bool add_chunk(struct lb_arena *arena, size_t need) {
    size_t cap = arena->total > LEAST_CHUNK ? arena->total : LEAST_CHUNK;
    size_t left = (arena->max_bytes - arena->used) & ~(size_t)(ALIGNMENT - 1);
    if (cap > left) {
        cap = left;
    }
    if (cap < need) {
        cap = need;
    }
    struct lb_arena_chunk *chunk = chunk_create(cap);
    if (chunk == NULL && cap > need) {
        chunk = chunk_create(need);
    }
    if (chunk == NULL) {
        return false;
    }
    chunk->older = arena->chunk;
    arena->chunk = chunk;
    arena->total += chunk->cap;
    return true;
}

void *lb_arena_alloc(struct lb_arena *arena, size_t bytes) {
    size_t need;
    if (bytes > arena->max_bytes - arena->used ||
        !lb_add_size(bytes == 0 ? 1 : bytes, ALIGNMENT - 1, &need)) {
        return NULL;
    }
    need &= ~(size_t)(ALIGNMENT - 1);
    if (arena->chunk == NULL || need > arena->chunk->cap - arena->chunk->used) {
        if (!add_chunk(arena, need)) {
            return NULL;
        }
    }
    void *p = chunk_data(arena->chunk) + arena->chunk->used;
    arena->chunk->used += need;
    /* The last allocation may end in padding behind the limit. */
    arena->used = need > arena->max_bytes - arena->used ? arena->max_bytes : arena->used + need;
    if (arena->used > arena->high) {
        arena->high = arena->used;
    }
    UNPOISON(p, bytes);
    return p;
}

void *lb_arena_array(struct lb_arena *arena, size_t count, size_t size) {
    size_t bytes;
    if (!lb_mul_size(count, size, &bytes)) {
        return NULL;
    }
    return lb_arena_alloc(arena, bytes);
}

void *lb_arena_zarray(struct lb_arena *arena, size_t count, size_t size) {
    void *p = lb_arena_array(arena, count, size);
    if (p != NULL) {
        memset(p, 0, count * size);
    }
    return p;
}

char *lb_arena_strdup(struct lb_arena *arena, const char *text) {
    size_t bytes = strlen(text) + 1;
    char *copy = lb_arena_alloc(arena, bytes);
    if (copy != NULL) {
        memcpy(copy, text, bytes);
    }
    return copy;
}

char *lb_arena_printf(struct lb_arena *arena, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) {
        return NULL;
    }
    char *text = lb_arena_alloc(arena, (size_t)n + 1);
    if (text == NULL) {
        return NULL;
    }
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

struct lb_arena_mark lb_arena_mark(const struct lb_arena *arena) {
    return (struct lb_arena_mark){.chunk = arena->chunk,
                                  .chunk_used = arena->chunk != NULL ? arena->chunk->used : 0,
                                  .used = arena->used};
}

void lb_arena_release(struct lb_arena *arena, struct lb_arena_mark mark) {
    assert(mark.used <= arena->used);
    while (arena->chunk != mark.chunk) {
        /* A mark of the still empty arena keeps the first chunk: a loop of mark and release allocates once.
         */
        if (mark.chunk == NULL && arena->chunk->older == NULL) {
            break;
        }
        drop_newest(arena);
    }
    if (arena->chunk != NULL) {
        rewind_newest(arena, mark.chunk_used);
    }
    arena->used = mark.used;
}

void lb_arena_reset(struct lb_arena *arena) {
    arena->used = 0;
    if (arena->chunk == NULL) {
        return;
    }
    if (arena->chunk->older == NULL && arena->high <= arena->chunk->cap) {
        rewind_newest(arena, 0);
        return;
    }
    /* Several chunks become one, also where the others came and went between marks: they would do so again
     * and again. All are freed first: the peak is not paid twice. Should the one not be had, the arena is
     * empty and asks again at the next allocation. */
    size_t cap = arena->high;
    while (arena->chunk != NULL) {
        drop_newest(arena);
    }
    cap = (cap + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    arena->chunk = chunk_create(cap);
    arena->total = arena->chunk != NULL ? cap : 0;
}
