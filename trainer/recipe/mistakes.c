#include "trainer/recipe/mistakes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static enum lb_status insert(struct lb_mistakes *m, const struct lb_mistake *mistake) {
    unsigned at = 0;
    for (unsigned i = 0; i < m->count; i++) {
        const struct lb_mistake *other = &m->list[i];
        if (strcmp(other->text, mistake->text) == 0) {
            return mistake->code;
        }
        if (mistake->line == 0 || (other->line != 0 && other->line <= mistake->line)) {
            at = i + 1;
        }
    }
    if (m->count == LB_MISTAKES_MAX) {
        m->more++;
        return mistake->code;
    }
    memmove(m->list + at + 1, m->list + at, (m->count - at) * sizeof *m->list);
    m->list[at] = *mistake;
    m->count++;
    return mistake->code;
}

void lb_mistakes_meant(struct lb_mistakes *m, const char *path) {
    const char *copy = m != NULL && m->n_read < LB_MISTAKES_MAX ? lb_arena_strdup(m->arena, path) : NULL;
    if (copy != NULL) {
        m->read[m->n_read++] = copy;
    } else if (m != NULL) {
        m->unsound = true;
    }
}

enum lb_status lb_mistakes_add_line(struct lb_mistakes *m, enum lb_status code, int line, const char *text) {
    if (m == NULL) {
        return code;
    }
    struct lb_detail clean = {0}; /* one line of UTF-8, whatever the recipe holds */
    (void)lb_fail(&clean, code, "%s", text);
    const struct lb_mistake mistake = {line, lb_arena_strdup(m->arena, clean.text), code};
    return mistake.text != NULL ? insert(m, &mistake) : LB_E_NOMEM;
}

enum lb_status lb_mistakes_add_at(struct lb_mistakes *m, enum lb_status code, int line, const char *path,
                                  const char *text) {
    if (m == NULL) {
        return code;
    }
    struct lb_detail clean = {0};
    if (line > 0) {
        (void)lb_fail(&clean, code, "%s:%d: %s: %s", m->file, line, path, text);
    } else if (m->root != NULL) {
        (void)lb_fail(&clean, code, "--set %s: %s", path, text);
    } else {
        (void)lb_fail(&clean, code, "%s%s%s: %s", m->file != NULL ? m->file : "", m->file != NULL ? ": " : "",
                      path, text);
    }
    const struct lb_mistake mistake = {line, lb_arena_strdup(m->arena, clean.text), code};
    return mistake.text != NULL ? insert(m, &mistake) : LB_E_NOMEM;
}

enum lb_status lb_mistakes_add(struct lb_mistakes *m, enum lb_status code, const char *path,
                               const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int line = m != NULL && m->root != NULL ? lb_yaml_line(m->root, path) : 0;
    return lb_mistakes_add_at(m, code, line, path, text);
}

/* Whether one path is the other, or stands above it. */
static bool covers(const char *above, const char *below) {
    size_t n = strlen(above);
    return strncmp(above, below, n) == 0 && (below[n] == '\0' || below[n] == '.');
}

bool lb_mistakes_touch(const struct lb_mistakes *m, const char *path) {
    for (unsigned i = 0; i < m->n_read; i++) {
        if (covers(m->read[i], path) || covers(path, m->read[i])) {
            return true;
        }
    }
    return m->unsound || m->more > 0;
}

bool lb_mistakes_sound(const struct lb_mistakes *m, const char *paths) {
    char path[64];
    while (*paths != '\0') {
        size_t n = strcspn(paths, " ");
        snprintf(path, sizeof path, "%.*s", (int)n, paths);
        if (lb_mistakes_touch(m, path)) {
            return false;
        }
        paths += n + (paths[n] == ' ');
    }
    return true;
}

/* Recursion ends at the depth of a tree, LB_YAML_MAX_DEPTH. */
enum lb_status lb_mistakes_add_twice(struct lb_mistakes *m, const struct lb_yaml *node) {
    enum lb_status status = LB_OK;
    for (const struct lb_yaml *child = node->first; child != NULL && status != LB_E_NOMEM;
         child = child->next) {
        char text[300];
        if (child->again > 0 && child->line > 0) {
            snprintf(text, sizeof text, "is given twice (first in line %d); drop one", child->line);
            status = lb_mistakes_add_at(m, LB_E_FORMAT, child->again, child->key, text);
        } else if (child->again > 0) {
            status = lb_mistakes_add_at(m, LB_E_FORMAT, 0, child->key, "is given twice; drop one");
        }
        status = status != LB_E_NOMEM ? lb_mistakes_add_twice(m, child) : status;
    }
    return status;
}

enum lb_status lb_mistakes_tell(const struct lb_mistakes *m, struct lb_buf *lines, struct lb_detail *detail) {
    if (m->count == 0) {
        return LB_OK;
    }
    for (unsigned i = 0; lines != NULL && i < m->count; i++) {
        lb_buf_printf(lines, "%s\n", m->list[i].text);
    }
    if (lines != NULL && m->more > 0) {
        lb_buf_printf(lines, "%s: and %u more\n", m->file, m->more);
    }
    return lb_fail(detail, m->list[0].code, "%s", m->list[0].text);
}
