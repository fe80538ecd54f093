/* What is wrong with a recipe, all of it: reading and checking go on after a mistake, and a person gets them
 * together, one line each, in the order of the file's lines.
 */
#ifndef LB_RECIPE_MISTAKES_H
#define LB_RECIPE_MISTAKES_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"
#include "trainer/recipe/tree.h"

#include <stdbool.h>

#define LB_MISTAKES_MAX 40 /* lines that are told; of the rest only how many they are */

struct lb_mistake {
    int line;         /* 0: no line of the file, told last */
    const char *text; /* the whole line */
    enum lb_status code;
};

struct lb_mistakes {
    struct lb_arena *arena;     /* of the recipe: the texts live in it */
    const char *file;           /* its name, for the lines; NULL: a recipe made by hand */
    const struct lb_yaml *root; /* where lines are looked up; NULL until it is parsed */
    struct lb_mistake list[LB_MISTAKES_MAX];
    unsigned count, more;
    unsigned n_read;
    const char *read[LB_MISTAKES_MAX]; /* paths whose values could not be read */
    bool unsound;                      /* there are more of them than it holds */
};

/* Adds "<file>:<line>: <path>: <text>", or "--set <path>: <text>" where the key (or what it stands in) came
 * from there, at the line where the path stands. A line that is there already is dropped. Returns code;
 * LB_E_NOMEM. m may be NULL: nothing is kept. */
enum lb_status lb_mistakes_add(struct lb_mistakes *m, enum lb_status code, const char *path,
                               const char *format, ...) LB_PRINTF(4, 5);
/* The same at a line that is known: 0: from --set. */
enum lb_status lb_mistakes_add_at(struct lb_mistakes *m, enum lb_status code, int line, const char *path,
                                  const char *text);
/* A line as it is, at a line of the file (0: none), about no key. */
enum lb_status lb_mistakes_add_line(struct lb_mistakes *m, enum lb_status code, int line, const char *text);
/* The value at that path could not be read, or stands under another name: what else could be said about it
 * would be a consequence. The path is copied. */
void lb_mistakes_meant(struct lb_mistakes *m, const char *path);
/* Whether something at, above or below the path could not be read; true as well where that is not known. */
bool lb_mistakes_touch(const struct lb_mistakes *m, const char *path);
/* Whether all of these could be read (paths with spaces between, as "student datasets.0"): what is said about
 * a value that could not be read would be a consequence, no mistake. */
bool lb_mistakes_sound(const struct lb_mistakes *m, const char *paths);
/* Each key below node that stands there twice. */
enum lb_status lb_mistakes_add_twice(struct lb_mistakes *m, const struct lb_yaml *node);
/* The first into detail, all into lines (may be NULL), each with '\n'. Returns the first one's code; LB_OK
 * when there is none. */
enum lb_status lb_mistakes_tell(const struct lb_mistakes *m, struct lb_buf *lines, struct lb_detail *detail);

#endif
