/* Bump allocation with one owner and one end of life: a request, a step, a file being parsed.
 *
 * Chunks are added as needed; max_bytes limits what is handed out (each piece rounded up to 64 bytes), so
 * whether an allocation fits does not depend on how the chunks happen to lie. reset keeps the memory (as one
 * chunk of the high-water size), so a loop that resets does not allocate after its first turns. Not
 * thread-safe: one thread at a time.
 */
#ifndef LB_BASE_ARENA_H
#define LB_BASE_ARENA_H

#include "common/base/status.h"

#include <stddef.h>

struct lb_arena_chunk;

struct lb_arena {
    struct lb_arena_chunk *chunk; /* newest first */
    size_t total;                 /* bytes of all chunks */
    size_t max_bytes;
    size_t used; /* bytes handed out since the last reset */
    size_t high; /* most bytes ever in use */
};

struct lb_arena_mark {
    struct lb_arena_chunk *chunk;
    size_t chunk_used;
    size_t used;
};

/* Allocates nothing yet. */
void lb_arena_init(struct lb_arena *arena, size_t max_bytes);
/* Frees everything; accepts NULL and a zeroed arena. */
void lb_arena_finish(struct lb_arena *arena);

/* bytes aligned to 64, not zeroed; NULL over the limit or out of memory. */
void *lb_arena_alloc(struct lb_arena *arena, size_t bytes);
/* count * size bytes with overflow check, not zeroed. */
void *lb_arena_array(struct lb_arena *arena, size_t count, size_t size);
/* As lb_arena_array, zeroed. */
void *lb_arena_zarray(struct lb_arena *arena, size_t count, size_t size);
char *lb_arena_strdup(struct lb_arena *arena, const char *text);
char *lb_arena_printf(struct lb_arena *arena, const char *format, ...) LB_PRINTF(2, 3);

/* Everything allocated after the mark is dropped by release; marks nest. */
struct lb_arena_mark lb_arena_mark(const struct lb_arena *arena);
void lb_arena_release(struct lb_arena *arena, struct lb_arena_mark mark);
/* Drops everything, keeps the memory. */
void lb_arena_reset(struct lb_arena *arena);

#endif
