#include "trainer/recipe/tree.h"

#include "common/base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* What parsing carries from event to event. */
struct parse {
    struct lb_arena *arena;
    const char *what;
    struct lb_detail *detail;
    struct lb_yaml *stack[LB_YAML_MAX_DEPTH];
    int depth;
    const char *key; /* of the map on top, read and waiting for its value */
    int key_line;
    bool dropped; /* the key is there already: the value is read and left out */
    struct lb_yaml *root;
    unsigned nodes;
    bool has_lines; /* false for --set values */
};

static enum lb_status out_of_memory(struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "out of memory while reading the recipe");
}

static void append_child(struct lb_yaml *parent, struct lb_yaml *child) {
    if (parent->last != NULL) {
        parent->last->next = child;
    } else {
        parent->first = child;
    }
    parent->last = child;
    parent->count++;
}

static enum lb_status fail_at(const struct parse *p, size_t line, enum lb_status code, const char *message) {
    if (!p->has_lines) {
        return lb_fail(p->detail, code, "%s: %s", p->what, message);
    }
    return lb_fail(p->detail, code, "%s:%zu: %s", p->what, line + 1, message);
}

/* Copies a scalar's bytes; a NUL inside would end a C string early, so it is refused. */
static enum lb_status copy_text(const struct parse *p, const yaml_event_t *event, const char **out) {
    size_t len = event->data.scalar.length;
    if (memchr(event->data.scalar.value, 0, len) != NULL) {
        return fail_at(p, event->start_mark.line, LB_E_FORMAT, "a text holds a NUL character");
    }
    char *copy = lb_arena_alloc(p->arena, len + 1);
    if (copy == NULL) {
        return out_of_memory(p->detail);
    }
    memcpy(copy, event->data.scalar.value, len);
    copy[len] = '\0';
    *out = copy;
    return LB_OK;
}

static enum lb_status take_key(struct parse *p, struct lb_yaml *map, const yaml_event_t *event) {
    if (event->type != YAML_SCALAR_EVENT) {
        return fail_at(p, event->start_mark.line, LB_E_FORMAT, "a key must be a plain word");
    }
    const char *key = NULL;
    enum lb_status status = copy_text(p, event, &key);
    if (status != LB_OK) {
        return status;
    }
    struct lb_yaml *earlier = lb_yaml_find(map, key);
    if (earlier != NULL) {
        earlier->again = (int)event->start_mark.line + 1;
    }
    p->dropped = earlier != NULL;
    p->key = key;
    p->key_line = (int)event->start_mark.line + 1;
    return LB_OK;
}

/* A value: hangs it below the node on top of the stack and, for collections, puts it there itself. */
static enum lb_status take_value(struct parse *p, const yaml_event_t *event) {
    if (++p->nodes > LB_YAML_MAX_NODES) {
        return fail_at(p, event->start_mark.line, LB_E_LIMIT, "too many values for a recipe");
    }
    struct lb_yaml *node = lb_arena_zarray(p->arena, 1, sizeof *node);
    if (node == NULL) {
        return out_of_memory(p->detail);
    }
    node->line = p->has_lines ? (p->key != NULL ? p->key_line : (int)event->start_mark.line + 1) : 0;
    node->key = p->key;
    p->key = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        node->kind = LB_YAML_SCALAR;
        node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        enum lb_status status = copy_text(p, event, &node->text);
        if (status != LB_OK) {
            return status;
        }
    } else {
        node->kind = event->type == YAML_MAPPING_START_EVENT ? LB_YAML_MAP : LB_YAML_LIST;
    }
    bool dropped = p->dropped;
    p->dropped = false;
    if (p->depth > 0 && !dropped) {
        append_child(p->stack[p->depth - 1], node);
    } else if (p->depth == 0) {
        p->root = node;
    }
    if (node->kind != LB_YAML_SCALAR) {
        if (p->depth == LB_YAML_MAX_DEPTH) {
            return fail_at(p, event->start_mark.line, LB_E_LIMIT, "nested too deeply for a recipe");
        }
        p->stack[p->depth++] = node;
    }
    return LB_OK;
}

static enum lb_status take_event(struct parse *p, const yaml_event_t *event) {
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return fail_at(p, event->start_mark.line, LB_E_UNSUPPORTED,
                       "aliases (*name) are not read in recipes; write the value out");
    case YAML_DOCUMENT_START_EVENT:
        if (p->root != NULL) {
            return fail_at(p, event->start_mark.line, LB_E_FORMAT, "a second YAML document; a recipe is one");
        }
        return LB_OK;
    case YAML_SCALAR_EVENT:
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT: {
        struct lb_yaml *top = p->depth > 0 ? p->stack[p->depth - 1] : NULL;
        if (top != NULL && top->kind == LB_YAML_MAP && p->key == NULL) {
            return take_key(p, top, event);
        }
        return take_value(p, event);
    }
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        p->depth--;
        return LB_OK;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
    return LB_OK;
}

enum lb_status lb_yaml_parse(struct lb_arena *arena, const char *text, size_t len, const char *what,
                             struct lb_yaml **out, struct lb_detail *detail) {
    struct parse p = {
        .arena = arena, .what = what, .detail = detail, .has_lines = strncmp(what, "--", 2) != 0};
    if (len > LB_YAML_MAX_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "%s: larger than %u bytes; that is no recipe", what,
                       LB_YAML_MAX_BYTES);
    }
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark, as some editors write */
        text += 3;
        len -= 3;
    }
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser) == 0) {
        return out_of_memory(detail);
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    enum lb_status status = LB_OK;
    for (bool more = true; more && status == LB_OK;) {
        yaml_event_t event;
        if (yaml_parser_parse(&parser, &event) == 0) {
            size_t line = parser.error == YAML_READER_ERROR ? parser.mark.line : parser.problem_mark.line;
            status =
                parser.error == YAML_MEMORY_ERROR
                    ? out_of_memory(detail)
                    : fail_at(&p, line, LB_E_FORMAT, parser.problem != NULL ? parser.problem : "not YAML");
            break;
        }
        more = event.type != YAML_STREAM_END_EVENT;
        status = take_event(&p, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (status == LB_OK && p.root == NULL) {
        p.root = lb_arena_zarray(arena, 1, sizeof *p.root);
        if (p.root == NULL) {
            return out_of_memory(detail);
        }
        p.root->kind = LB_YAML_MAP;
        p.root->line = p.has_lines ? 1 : 0;
    }
    if (status == LB_OK) {
        *out = p.root;
    }
    return status;
}

struct lb_yaml *lb_yaml_find(const struct lb_yaml *map, const char *key) {
    for (struct lb_yaml *child = map->first; child != NULL; child = child->next) {
        if (child->key != NULL && strcmp(child->key, key) == 0) {
            return child;
        }
    }
    return NULL;
}

/* The item that a path part names, NULL when there is none; *out_append tells that the part is the next list
 * number. */
static struct lb_yaml *step_into(const struct lb_yaml *node, const char *part, bool *out_append) {
    *out_append = false;
    if (node->kind == LB_YAML_MAP) {
        return lb_yaml_find(node, part);
    }
    if (node->kind != LB_YAML_LIST || part[0] == '\0' || strspn(part, "0123456789") != strlen(part)) {
        return NULL;
    }
    unsigned long index = strtoul(part, NULL, 10);
    *out_append = index == node->count;
    struct lb_yaml *child = node->first;
    for (unsigned long i = 0; child != NULL && i < index; i++) {
        child = child->next;
    }
    return child;
}

int lb_yaml_line(const struct lb_yaml *root, const char *path) {
    const struct lb_yaml *node = root;
    int line = root->line;
    char part[128];
    bool append = false;
    while (node != NULL && *path != '\0') {
        size_t len = strcspn(path, ".");
        if (len >= sizeof part) {
            break;
        }
        memcpy(part, path, len);
        part[len] = '\0';
        path += len + (path[len] == '.');
        node = step_into(node, part, &append);
        if (node != NULL) {
            line = node->line;
        }
    }
    return line;
}

struct lb_yaml *lb_yaml_add(struct lb_arena *arena, struct lb_yaml *parent, enum lb_yaml_kind kind,
                            const char *key, int line) {
    struct lb_yaml *node = lb_arena_zarray(arena, 1, sizeof *node);
    if (node != NULL) {
        *node = (struct lb_yaml){.kind = kind, .key = key, .line = line, .text = ""};
        if (parent != NULL) {
            append_child(parent, node);
        }
    }
    return node;
}

/* Puts what value holds in the place of old, which keeps its key and neighbours. */
static void replace_node(struct lb_yaml *old, const struct lb_yaml *value) {
    const char *key = old->key;
    struct lb_yaml *next = old->next;
    *old = *value;
    old->key = key;
    old->next = next;
}

enum lb_status lb_yaml_set(struct lb_arena *arena, struct lb_yaml *root, const char *assignment,
                           struct lb_detail *detail) {
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || equals == assignment) {
        return lb_fail(detail, LB_E_ARG, "--set %s: write it as key=value", assignment);
    }
    char *path = lb_arena_strdup(arena, assignment);
    char *what = lb_arena_printf(arena, "--set %.*s", (int)(equals - assignment), assignment);
    if (path == NULL || what == NULL) {
        return out_of_memory(detail);
    }
    path[equals - assignment] = '\0';
    struct lb_yaml *value = NULL;
    enum lb_status status = lb_yaml_parse(arena, equals + 1, strlen(equals + 1), what, &value, detail);
    if (status != LB_OK) {
        return status;
    }
    if (equals[1] == '\0') { /* nothing after the sign: nothing is the value */
        value->kind = LB_YAML_SCALAR;
        value->plain = true;
        value->text = "";
    }
    struct lb_yaml *node = root;
    for (char *part = path, *next = NULL; part != NULL; part = next) {
        next = strchr(part, '.');
        if (next != NULL) {
            *next++ = '\0';
        }
        bool append = false;
        struct lb_yaml *child = step_into(node, part, &append);
        if (child == NULL) {
            if (node->kind == LB_YAML_SCALAR || (node->kind == LB_YAML_LIST && !append)) {
                return lb_fail(detail, LB_E_ARG, "%s: there is no \"%s\" there (%s)", what, part,
                               node->kind == LB_YAML_LIST ? "list items are numbered from 0"
                                                          : "the key holds one value");
            }
            bool list =
                next != NULL && strcspn(next, ".") == 1 && next[0] == '0'; /* its first item follows */
            child = lb_yaml_add(arena, node, list ? LB_YAML_LIST : LB_YAML_MAP,
                                node->kind == LB_YAML_MAP ? part : NULL, 0);
            if (child == NULL) {
                return out_of_memory(detail);
            }
        }
        node = child;
    }
    replace_node(node, value);
    return LB_OK;
}

void lb_yaml_remove(struct lb_yaml *parent, struct lb_yaml *child) {
    struct lb_yaml *previous = NULL;
    for (struct lb_yaml *c = parent->first; c != NULL; previous = c, c = c->next) {
        if (c != child) {
            continue;
        }
        if (previous != NULL) {
            previous->next = c->next;
        } else {
            parent->first = c->next;
        }
        if (parent->last == c) {
            parent->last = previous;
        }
        parent->count--;
        return;
    }
}

bool lb_yaml_is_null(const struct lb_yaml *node) {
    static const char *const words[] = {"~", "null", "Null", "NULL"};
    if (node->kind != LB_YAML_SCALAR || !node->plain) {
        return false;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(node->text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

enum lb_status lb_yaml_quote(const char *text, struct lb_buf *buf) {
    lb_buf_append(buf, "\"", 1);
    size_t len = strlen(text);
    for (size_t i = 0, n; i < len; i += n) {
        size_t next = i;
        n = lb_utf8_char((const uint8_t *)text + i, len - i);
        uint32_t c = n > 0 ? lb_utf8_next(text, &next) : 0x20;
        n = n > 0 ? n : 1; /* no UTF-8, as a path may be: as it is */
        if (c == '"' || c == '\\') {
            lb_buf_printf(buf, "\\%c", (int)c);
        } else if (c < 0x20 || (c >= 0x7f && c < 0xa0)) {
            lb_buf_printf(buf, "\\x%02x", c);
        } else if (c == 0x2028 || c == 0x2029 || c == 0xfeff || (c & 0xfffe) == 0xfffe) {
            lb_buf_printf(buf, "\\U%08x", c); /* breaks of lines to YAML, or no text at all */
        } else {
            lb_buf_append(buf, text + i, n);
        }
    }
    return lb_buf_append(buf, "\"", 1);
}
