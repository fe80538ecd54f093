/* The recipe's keys as data: one line per key says its kind, range, default and place in struct lb_recipe.
 * Checking, loading, writing and the fingerprint all walk these tables, so a new key is one new line.
 */
#ifndef LB_RECIPE_FIELDS_H
#define LB_RECIPE_FIELDS_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "trainer/recipe/recipe.h"
#include "trainer/recipe/tree.h"

#include <stddef.h>

enum lb_field_kind {
    LB_FIELD_INT,     /* int64_t */
    LB_FIELD_FLOAT,   /* double */
    LB_FIELD_BOOL,    /* bool */
    LB_FIELD_ENUM,    /* an enum of int's size */
    LB_FIELD_STRING,  /* char * */
    LB_FIELD_PATH,    /* char *, a place on this machine (or local:PLACE) */
    LB_FIELD_INTS,    /* int64_t * and a count */
    LB_FIELD_STRINGS, /* char ** and a count */
    LB_FIELD_MAPS,    /* an array of structs and a count */
    LB_FIELD_MAP      /* a struct in place */
};

enum {
    LB_FIELD_REQUIRED = 1,
    LB_FIELD_DECIDES = 2 /* part of the fingerprint: another value gives another student */
};

struct lb_field_name {
    const char *name; /* NULL ends the list */
    int value;
};

struct lb_field {
    const char *key; /* NULL ends a table */
    enum lb_field_kind kind;
    unsigned flags;
    size_t offset, count_offset;
    double min, max;
    const char *fallback; /* as YAML writes it; NULL: absent */
    const struct lb_field_name *names;
    const struct lb_field *fields; /* of MAP and MAPS */
    size_t entry_bytes;            /* of MAPS */
};

extern const struct lb_field lb_recipe_fields[];

/* The name in names nearest to word when it is near enough to be a slip, else NULL. */
const char *lb_nearest_name(const char *word, const char *const *names, size_t n);

/* recipe_shape.c: checks a tree against the tables (unknown keys, kinds, ranges, what is missing), puts
 * numbers and booleans into the form libcyaml reads, drops nulls and adds defaults. what names the file. */
LB_NODISCARD enum lb_status lb_recipe_shape(struct lb_arena *arena, struct lb_yaml *root, const char *what,
                                            struct lb_detail *detail);
/* recipe_check.c: whether the values make sense together. tree tells the lines; NULL: none are named. */
LB_NODISCARD enum lb_status lb_recipe_check(const struct lb_recipe *recipe, const struct lb_yaml *tree,
                                            struct lb_detail *detail);

#endif
