/* Names that were meant: the nearest one, and what other tools call the same.
 */
#ifndef LB_RECIPE_NAMES_H
#define LB_RECIPE_NAMES_H

#include <stddef.h>

/* The name in names nearest to word when it is near enough to be a slip, else NULL. */
const char *lb_nearest_name(const char *word, const char *const *names, size_t n);
/* What this tool calls a key of another tool, or a short form; NULL when it is none that is known. */
const char *lb_other_name(const char *key);

#endif
