/* Values of a recipe's tree, one at a time: each of its kind and in its range, or one line about it. Knows no
 * key; read.c and student.c, which do, call it.
 */
#ifndef LB_RECIPE_VALUES_H
#define LB_RECIPE_VALUES_H

#include "common/base/arena.h"
#include "common/base/status.h"
#include "trainer/recipe/mistakes.h"
#include "trainer/recipe/tree.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What reading carries along. */
struct lb_recipe_reader {
    struct lb_arena *arena;       /* of the recipe: strings and lists live in it */
    struct lb_mistakes *mistakes; /* what is wrong is added to; NULL: only returned */
};

/* LB_E_ARG, with the mistake kept; line 0: the value came from --set. Who reads goes on with the next value,
 * so that one look tells all mistakes. */
enum lb_status lb_read_fail(const struct lb_recipe_reader *r, int line, const char *path, const char *format,
                            ...) LB_PRINTF(4, 5);
/* Whether reading goes on after that status: all but memory that ran out. */
static inline bool lb_read_goes_on(enum lb_status status) {
    return status != LB_E_NOMEM;
}
/* The first of two that is no LB_OK; memory that ran out before everything. */
static inline enum lb_status lb_read_both(enum lb_status a, enum lb_status b) {
    return a == LB_OK || b == LB_E_NOMEM ? b : a;
}
/* "is not <kind>", naming what stands there. */
enum lb_status lb_read_not_a(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *path,
                             const char *kind);
/* "prefix.key" in the arena, or key where prefix is ""; NULL: out of memory. */
const char *lb_read_path(const struct lb_recipe_reader *r, const char *prefix, const char *key);
/* An unknown key, with the nearest of n names. */
enum lb_status lb_read_unknown(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                               const char *prefix, const char *const *names, size_t n);
/* A decimal number as recipes write them; false where text is none: strtod would also take hexadecimal, "nan"
 * and "infinity". One that is too large is infinite. */
bool lb_read_number(const char *text, double *out);
/* One value each. Errors name the path. */
LB_NODISCARD enum lb_status lb_read_int(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                        const char *path, double min, double max, int64_t *out);
LB_NODISCARD enum lb_status lb_read_float(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                          const char *path, double min, double max, double *out);
LB_NODISCARD enum lb_status lb_read_bool(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                         const char *path, bool *out);
LB_NODISCARD enum lb_status lb_read_string(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                           const char *path, const char **out);
/* A value that says nothing ("key:"): an error, since it would hide a slip. null is dropped: absent. */
LB_NODISCARD enum lb_status lb_read_empty(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                          const char *path);

#endif
