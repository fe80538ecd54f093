/* The recipe's keys as data: one line per key says its kind, range, default, place in struct lb_recipe and
 * what it is for. Reading, writing, the fingerprint and the list in RECIPE.md all walk these tables, so a new
 * key is one new line.
 */
#ifndef LB_RECIPE_FIELDS_H
#define LB_RECIPE_FIELDS_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "trainer/recipe/recipe.h"
#include "trainer/recipe/values.h"

#include <stddef.h>

enum lb_field_kind {
    LB_FIELD_INT,     /* int64_t */
    LB_FIELD_FLOAT,   /* double */
    LB_FIELD_BOOL,    /* bool */
    LB_FIELD_ENUM,    /* an enum of int's size */
    LB_FIELD_STRING,  /* const char * */
    LB_FIELD_PATH,    /* const char *, a place on this machine (or local:PLACE) */
    LB_FIELD_INTS,    /* int64_t * and a count */
    LB_FIELD_STRINGS, /* const char ** and a count */
    LB_FIELD_MAPS,    /* an array of structs and a count */
    LB_FIELD_PAIRS,   /* struct lb_recipe_pair * and a count: a mapping with keys of its own */
    LB_FIELD_STUDENT  /* struct lb_recipe_student in place: student.c */
};

enum {
    LB_FIELD_REQUIRED = 1,
    LB_FIELD_DECIDES = 2, /* part of the fingerprint: another value gives another student */
    LB_FIELD_BARE = 4,    /* of STRING: written without quotes, as the names of an ENUM are */
    LB_FIELD_GROWS = 8,   /* an ENUM whose names are another room's table: told below the table of keys */
    LB_FIELD_PLACES = 16, /* STRINGS that are places, as PATH is */
    LB_FIELD_OPEN = 32,   /* a FLOAT that is NAN where the key is absent: what is meant then, others know */
    LB_FIELD_MEANT = 64   /* derived is the value that is meant where the key is absent: written out, it
                             decides nothing */
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
    const char *fallback;              /* as YAML writes it; NULL: absent */
    const struct lb_field_name *names; /* of ENUM; of MAPS: words that may stand in place of the list */
    const char *(*name_at)(size_t i);  /* of STRING: the names it may have; NULL: any text */
    const struct lb_field *fields;     /* of MAPS */
    size_t entry_bytes;                /* of MAPS */
    size_t word_offset;                /* of MAPS with names: the enum that holds the word; 0: it is a list */
    const char *derived;               /* the default in words where it follows from other keys */
    const char *help;
};

extern const struct lb_field lb_recipe_fields[];
extern const struct lb_field lb_recipe_loss_fields[]; /* of one entry of loss_functions */

/* Whether the struct at base holds there what a recipe without the key gives it. Not told of ENUM and
 * STUDENT: false. */
bool lb_field_at_default(const struct lb_field *field, const char *base);
/* The word that the struct at base holds there in place of a list; NULL: none. */
const char *lb_field_word(const struct lb_field *field, const char *base);

/* One key of student: beside model, of those that are told and always written back. Which keys there are and
 * what a key may hold is known to common/model (lb_config_parse_new); here stands what is written back and
 * told. */
struct lb_student_field {
    const char *key;
    enum lb_field_kind kind; /* INT, FLOAT, BOOL, STRING (a char array in place), INTS (an array in place) */
    size_t offset;           /* in struct lb_config */
    const char *derived;
    const char *help;
};

extern const struct lb_student_field lb_student_fields[];
#define LB_STUDENT_LAYERS_HELP                                                                               \
    "`{model: PATH, layers: [N, ...]}`: a student of a model's layers, counted from 0, with all that is "    \
    "around them"
#define LB_STUDENT_MODEL_HELP "a folder or file to start from, instead of sizes for a new model"

/* ---- read.c ---- */

/* The whole recipe: unknown keys, kinds, ranges, what is missing, defaults. Values that are wrong stay zero,
 * and their mistakes are added. */
LB_NODISCARD enum lb_status lb_recipe_read(const struct lb_recipe_reader *r, struct lb_yaml *root,
                                           struct lb_recipe *out);

/* ---- student.c ---- */

/* Whether a student of that family has the key. */
bool lb_student_takes(const char *model_type, const char *key);
LB_NODISCARD enum lb_status lb_student_read(const struct lb_recipe_reader *r, struct lb_yaml *map,
                                            struct lb_recipe_student *out);

/* ---- optim.c ---- */

/* What stands in optim_args into momentum and nesterov, and in lr_scheduler_kwargs into schedule; checks
 * these, and the keys about evaluations that are compared. LB_E_ARG names the key and what is wrong with it.
 */
LB_NODISCARD enum lb_status lb_recipe_optim(struct lb_recipe *recipe, struct lb_mistakes *mistakes);

/* ---- check.c ---- */

/* Whether the values make sense together; what could not be read is not judged. LB_OK, or of the mistakes
 * that were added one's code. */
LB_NODISCARD enum lb_status lb_recipe_check(const struct lb_recipe *recipe, struct lb_mistakes *mistakes);
/* check_data.c: the part of it that is about the data. */
LB_NODISCARD enum lb_status lb_recipe_check_data(const struct lb_recipe *r, struct lb_mistakes *mistakes);
/* check_written.c: the part of it that is about texts that are written during the run. */
LB_NODISCARD enum lb_status lb_recipe_check_written(const struct lb_recipe *recipe,
                                                    struct lb_mistakes *mistakes);

#endif
