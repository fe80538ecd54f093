/* What tests of one side of a protocol's texts need: an arena for what is read, a text, and what an error
 * says. Included behind cmocka.h. */
#ifndef LB_TESTS_SCENE_H
#define LB_TESTS_SCENE_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"

#include <string.h>

struct scene {
    struct lb_arena arena;
    struct lb_buf buf;
    struct lb_detail detail;
};

static inline int scene_setup(void **state) {
    static struct scene scene;
    scene = (struct scene){0};
    lb_arena_init(&scene.arena, 1 << 20);
    lb_buf_init(&scene.buf, 1 << 20);
    *state = &scene;
    return 0;
}

static inline int scene_teardown(void **state) {
    struct scene *scene = *state;
    lb_arena_finish(&scene->arena);
    lb_buf_finish(&scene->buf);
    return 0;
}

static inline void must(const struct scene *scene, enum lb_status status) {
    if (status != LB_OK) {
        fail_msg("%s", scene->detail.text);
    }
}

/* The text with `to` for the first `from`, which must be there, into out (initialised here). */
static inline void scene_replaced(const struct lb_buf *text, const char *from, const char *to,
                                  struct lb_buf *out) {
    const char *at = strstr(text->data, from);
    if (at == NULL) {
        fail_msg("%s is not in %s", from, text->data);
        return;
    }
    lb_buf_init(out, 1 << 20);
    lb_buf_append(out, text->data, (size_t)(at - text->data));
    lb_buf_append_str(out, to);
    lb_buf_append_str(out, at + strlen(from));
}

#endif
