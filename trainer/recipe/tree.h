/* A YAML document as a tree that remembers its lines: what a recipe is read from.
 *
 * One document; no anchors or aliases (a file cannot expand), depth and size bounded. All
 * nodes live in the caller's arena. The only file that includes yaml.h is tree.c.
 */
#ifndef LB_RECIPE_TREE_H
#define LB_RECIPE_TREE_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define LB_YAML_MAX_BYTES (1u << 20)
#define LB_YAML_MAX_DEPTH 12
#define LB_YAML_MAX_NODES 50000

enum lb_yaml_kind { LB_YAML_SCALAR, LB_YAML_LIST, LB_YAML_MAP };

struct lb_yaml {
    enum lb_yaml_kind kind;
    int line;         /* of the value (of the key, within a map); 0: came from --set */
    int again;        /* the line where the key stands once more, with a value that is dropped; 0: nowhere */
    bool plain;       /* a scalar without quotes */
    const char *key;  /* within a map; NULL otherwise */
    const char *text; /* a scalar's text; never NULL for one */
    struct lb_yaml *first, *last, *next;
    unsigned count; /* children */
};

/* what names the source in errors: "<what>:<line>: ...". An empty document gives an empty map. */
LB_NODISCARD enum lb_status lb_yaml_parse(struct lb_arena *arena, const char *text, size_t len,
                                          const char *what, struct lb_yaml **out, struct lb_detail *detail);
/* Applies "dotted.path=value" (list items by number; the number after the last one appends, 0 makes a list
 * that is not there). The value is
 * YAML. */
LB_NODISCARD enum lb_status lb_yaml_set(struct lb_arena *arena, struct lb_yaml *root, const char *assignment,
                                        struct lb_detail *detail);
/* A new node below parent (NULL: below none), at its end; NULL: out of memory. key lives as long as the tree.
 */
struct lb_yaml *lb_yaml_add(struct lb_arena *arena, struct lb_yaml *parent, enum lb_yaml_kind kind,
                            const char *key, int line);
/* The child of that key, or NULL. */
struct lb_yaml *lb_yaml_find(const struct lb_yaml *map, const char *key);
/* The line of the node at a dotted path, or of its nearest ancestor; 0 when that has none. */
int lb_yaml_line(const struct lb_yaml *root, const char *path);
void lb_yaml_remove(struct lb_yaml *parent, struct lb_yaml *child);
/* Whether a value says "none": null or ~, without quotes. */
bool lb_yaml_is_null(const struct lb_yaml *node);
/* Appends text as a double-quoted YAML scalar. */
enum lb_status lb_yaml_quote(const char *text, struct lb_buf *buf);

#endif
