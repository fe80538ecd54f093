/* Recipes of other tools: a file in the words of TRL, DistillKit or Axolotl becomes a recipe of ours where it
 * means the same. Each of its keys is told of: taken (as what), left out (why that changes nothing here), or
 * refused (what to write instead). A dialect is one file and its line in the table in foreign.c.
 */
#ifndef LB_RECIPE_FOREIGN_H
#define LB_RECIPE_FOREIGN_H

#include "common/base/arena.h"
#include "trainer/recipe/mistakes.h"
#include "trainer/recipe/tree.h"

#include <stdbool.h>
#include <stddef.h>

struct lb_foreign_note {
    int line; /* 0: of no line, told last */
    const char *text;
    struct lb_foreign_note *next;
};

/* One file on its way. */
struct lb_foreign {
    struct lb_arena *arena;
    const char *tool; /* whose words it is in */
    const char *file;
    const struct lb_yaml *theirs; /* its tree */
    struct lb_yaml *ours;         /* what is made of it; its nodes have the lines of theirs */
    struct lb_mistakes *mistakes;
    struct lb_foreign_note *notes; /* what became of each key, in the order of the lines */
    const char *const *overrides;  /* "key=value" as --set gives them, of our keys */
    size_t n_overrides;
    enum lb_status status; /* LB_E_NOMEM once memory ran out */
};

enum lb_foreign_what {
    LB_FOREIGN_TAKE,  /* the value as it is, under our key (text) */
    LB_FOREIGN_LEAVE, /* changes nothing here: text says why */
    LB_FOREIGN_OFF,   /* left out where it is off (false, null, 0, "no", "none", an empty list), else refused:
                         text */
    LB_FOREIGN_NEVER, /* refused, whatever it holds, but null: text */
    LB_FOREIGN_READ   /* the dialect's function reads it */
};

struct lb_foreign_key {
    const char *key; /* NULL ends a table; a last '*' stands for any end */
    enum lb_foreign_what what;
    const char *text;
};

/* What the tool means where a file is silent, and ours would be another: our key and the value. */
struct lb_foreign_default {
    const char *key, *value;
};

struct lb_foreign_dialect {
    const char *name;
    const char *const *marks; /* keys of the top by any of which it is known; NULL ends them */
    const struct lb_foreign_key *keys;
    const struct lb_foreign_key *more_keys;  /* looked up next; NULL: none */
    void (*translate)(struct lb_foreign *f); /* all keys that are READ, and what follows from them */
};

extern const struct lb_foreign_dialect lb_foreign_trl, lb_foreign_distillkit, lb_foreign_axolotl;
/* Keys of transformers' TrainingArguments. */
extern const struct lb_foreign_key lb_foreign_training_args[];

/* The dialect that the tree is in; NULL: none, it is a recipe of ours. */
const struct lb_foreign_dialect *lb_foreign_find(const struct lb_yaml *tree);
/* Makes *out of the tree, and of what became of its keys lines of text. Mistakes are added; those about keys
 * of ours that an override sets are not. LB_E_NOMEM, else LB_OK. */
LB_NODISCARD enum lb_status lb_foreign_translate(const struct lb_foreign_dialect *dialect,
                                                 struct lb_foreign *f, struct lb_yaml **out,
                                                 const char **out_notes);

/* ---- for the dialects ---- */

/* Each key of map by the tables; prefix stands before it in lines ("training_args."). READ ones are passed
 * over. */
void lb_foreign_apply(struct lb_foreign *f, const struct lb_yaml *map, const char *prefix,
                      const struct lb_foreign_key *keys, const struct lb_foreign_key *more_keys);
/* A value by its key; NULL when it is absent or null. */
const struct lb_yaml *lb_foreign_get(const struct lb_yaml *map, const char *key);
/* The text of a scalar, NULL for others. */
const char *lb_foreign_text(const struct lb_yaml *node);
/* The number that a scalar is; a missing one is fallback. NAN: it is none, and what it is compared with must
 * let it go on into ours, whose reader refuses it. */
double lb_foreign_number(const struct lb_yaml *node, double fallback);
bool lb_foreign_true(const struct lb_yaml *node);
/* Puts a value into a map of ours, at a line of theirs, unless the key is there. map NULL: the top. value
 * NULL: theirs is no scalar (lb_foreign_text), which is refused. */
void lb_foreign_set(struct lb_foreign *f, struct lb_yaml *map, const char *key, int line, const char *value);
/* One value of theirs, as it is, under a key of ours at the top; path names it in lines. Refused where
 * another key of theirs has given ours. */
void lb_foreign_take(struct lb_foreign *f, const struct lb_yaml *node, const char *path, const char *ours);
/* A new (or the present) mapping or list under a key of ours; NULL when memory is out. */
struct lb_yaml *lb_foreign_child(struct lb_foreign *f, struct lb_yaml *map, const char *key,
                                 enum lb_yaml_kind kind, int line);
/* A new mapping at the end of a list of ours. */
struct lb_yaml *lb_foreign_entry(struct lb_foreign *f, struct lb_yaml *list, int line);
/* Whether an override gives that key of ours, or one within it. */
bool lb_foreign_is_set(const struct lb_foreign *f, const char *ours);
void lb_foreign_defaults(struct lb_foreign *f, const char *tool, const struct lb_foreign_default *defaults);
/* Tells what became of a key. */
void lb_foreign_note(struct lb_foreign *f, int line, const char *key, const char *format, ...)
    LB_PRINTF(4, 5);
/* Refuses a key, with what to do; ours: the key of ours that it would have been (an override of which answers
 * it), or NULL. */
void lb_foreign_refuse(struct lb_foreign *f, int line, const char *key, const char *ours, const char *format,
                       ...) LB_PRINTF(5, 6);

/* ---- what several have in common ---- */

/* A file of data, as a dataset of ours; a name of the hub is refused. key: theirs, for lines. NULL when
 * refused. */
struct lb_yaml *lb_foreign_dataset(struct lb_foreign *f, const char *ours, int line, const char *key,
                                   const char *path);
/* max_steps, warmup_steps (which may be a share), save_strategy, eval_strategy, and under the keys given the
 * schedule and the optimizer, all by transformers' names of the values. */
void lb_foreign_training(struct lb_foreign *f, const struct lb_yaml *map, const char *prefix,
                         const char *schedule_key, const char *optimizer_key);

/* LoRA's keys, which TRL and Axolotl call alike: taken where adapters are wanted. silent_dropout: what the
 * tool takes for lora_dropout, which there is none of here. */
void lb_foreign_lora(struct lb_foreign *f, bool wanted, double silent_dropout);

#endif
