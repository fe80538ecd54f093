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

static const char *const *resolved_list(const struct lb_recipe *recipe, const char *const *list, unsigned n,
                                        struct lb_arena *arena, bool *bad) {
    const char **out = lb_arena_zarray(arena, n, sizeof *out);
    *bad = *bad || !out;
    for (unsigned i = 0; out && i < n; i++) {
        out[i] = resolved(recipe, list[i], arena, bad);
    }
    return out;
}

/* What the recipe says of the tensors of a server that is no limbeckd; NULL: nothing. */
static const struct lb_naming *naming_of(const struct lb_recipe_teacher *from, struct lb_arena *arena,
                                         bool *bad) {
    if (from->names_count == 0) {
        return NULL;
    }
    struct lb_naming *naming = lb_arena_zarray(arena, 1, sizeof *naming);
    struct lb_named_value *extra = lb_arena_zarray(arena, from->extra_inputs_count, sizeof *extra);
    *bad = *bad || !naming || !extra;
    for (unsigned i = 0; !*bad && i < from->names_count; i++) {
        const char *key = from->names[i].key;
        *(strcmp(key, "input_ids") == 0 ? &naming->input_ids
          : strcmp(key, "lengths") == 0 ? &naming->lengths
          : strcmp(key, "logits") == 0  ? &naming->logits
                                        : &naming->attention_mask) = from->names[i].value;
    }
    for (unsigned i = 0; !*bad && i < from->extra_inputs_count; i++) {
        extra[i] = (struct lb_named_value){from->extra_inputs[i].key, from->extra_inputs[i].value};
    }
    if (!*bad) {
        naming->extra = extra;
        naming->n_extra = from->extra_inputs_count;
    }
    return naming;
}

enum lb_status lb_teachers_open_recipe(const struct lb_recipe *recipe, volatile sig_atomic_t *stop,
                                       struct lb_teachers **out, struct lb_detail *detail) {
    struct lb_arena arena;
    lb_arena_init(&arena, MAX_BYTES);
    struct lb_teacher_address *teachers = lb_arena_zarray(&arena, recipe->teachers_count, sizeof *teachers);
    bool bad = !teachers;
    for (unsigned k = 0; !bad && k < recipe->teachers_count; k++) {
        const struct lb_recipe_teacher *from = &recipe->teachers[k];
        teachers[k] = (struct lb_teacher_address){
            .name = from->name,
            .url = resolved(recipe, from->url, &arena, &bad),
            .model = from->model,
            .replicas = resolved_list(recipe, from->replicas, from->replicas_count, &arena, &bad),
            .n_replicas = from->replicas_count,
            .token_file = resolved(recipe, from->token_file, &arena, &bad),
            .head = resolved(recipe, from->head, &arena, &bad),
            .tokenizer = resolved(recipe, from->tokenizer, &arena, &bad),
            .most_top_k = from->max_logprobs,
            .naming = naming_of(from, &arena, &bad),
            .protocol = from->protocol};
    }
    struct lb_teachers_options options = {.teachers = teachers,
                                          .n_teachers = recipe->teachers_count,
                                          .cache_dir = resolved(recipe, recipe->cache_dir, &arena, &bad),
                                          .cache_max_bytes = (uint64_t)recipe->cache_max_bytes,
                                          .timeout = recipe->teacher_timeout,
                                          .give_up_after = recipe->give_up_after,
                                          .on_lost = recipe->on_lost_teacher,
                                          .allow_other_kernels = recipe->allow_other_kernels,
                                          .log_dir = resolved(recipe, recipe->output_dir, &arena, &bad),
                                          .stop = stop};
    enum lb_status status = bad ? lb_fail(detail, LB_E_NOMEM, "out of memory for teachers")
                                : lb_teachers_open(&options, out, detail);
    lb_arena_finish(&arena);
    return status;
}
