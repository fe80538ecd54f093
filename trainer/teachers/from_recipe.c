#include "trainer/teachers/teachers.h"

#include "common/base/arena.h"
#include "common/base/mem.h"
#include "trainer/recipe/recipe.h"

#include <string.h>

#define MAX_BYTES ((size_t)16 << 20)

/* A path of the recipe, resolved, in the arena. NULL stays NULL. */
static char *resolved(const struct lb_recipe *recipe, const char *path, struct lb_arena *arena, bool *bad) {
    if (!path) {
        return NULL;
    }
    char *full = lb_recipe_resolve(recipe, path);
    char *copied = full ? lb_arena_strdup(arena, full) : NULL;
    lb_free(full);
    *bad = *bad || !copied;
    return copied;
}

/* "local:PATH" with its path resolved; every other URL as it is. */
static const char *resolved_url(const struct lb_recipe *recipe, const char *url, struct lb_arena *arena,
                                bool *bad) {
    size_t n = strlen("local:");
    if (strncmp(url, "local:", n)) {
        return url;
    }
    const char *path = resolved(recipe, url + n, arena, bad);
    const char *full = path ? lb_arena_printf(arena, "local:%s", path) : NULL;
    *bad = *bad || !full;
    return full;
}

enum lb_status lb_teachers_open_recipe(const struct lb_recipe *recipe, volatile sig_atomic_t *stop,
                                       struct lb_teachers **out, struct lb_detail *detail) {
    struct lb_arena arena;
    lb_arena_init(&arena, MAX_BYTES);
    struct lb_teacher_address *teachers = lb_arena_zarray(&arena, recipe->teachers_count, sizeof *teachers);
    bool bad = !teachers;
    for (unsigned k = 0; !bad && k < recipe->teachers_count; k++) {
        const struct lb_recipe_teacher *from = &recipe->teachers[k];
        teachers[k] =
            (struct lb_teacher_address){.name = from->name,
                                        .url = resolved_url(recipe, from->url, &arena, &bad),
                                        .model = from->model,
                                        .replicas = from->replicas,
                                        .n_replicas = from->replicas_count,
                                        .token_file = resolved(recipe, from->token_file, &arena, &bad),
                                        .protocol = from->protocol};
    }
    struct lb_teachers_options options = {.teachers = teachers,
                                          .n_teachers = recipe->teachers_count,
                                          .cache_dir = resolved(recipe, recipe->cache_dir, &arena, &bad),
                                          .cache_max_bytes = (uint64_t)recipe->cache_max_bytes,
                                          .timeout = recipe->teacher_timeout,
                                          .on_lost = recipe->on_lost_teacher,
                                          .log_dir = resolved(recipe, recipe->output_dir, &arena, &bad),
                                          .stop = stop};
    enum lb_status status = bad ? lb_fail(detail, LB_E_NOMEM, "out of memory for teachers")
                                : lb_teachers_open(&options, out, detail);
    lb_arena_finish(&arena);
    return status;
}
