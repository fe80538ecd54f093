/* What templates may name: filters, tests, methods. For common/chat only. */
#ifndef LB_CHAT_TABLES_H
#define LB_CHAT_TABLES_H

#include "common/chat/run.h"

/* Parameters: names with commas between; the first `required` have to be there. */
struct lb_jparams {
    const char *names;
    uint8_t required;
    bool open; /* takes any further arguments; keywords only of those named */
};

struct lb_jfilter {
    const char *name;
    struct lb_jparams params;
    uint8_t names_test; /* 1: select and the like, whose argument names_at is a test; 2: map, a filter */
    uint8_t names_at;
    struct lb_jv (*run)(struct lb_jinja *j, struct lb_jv value, const struct lb_jargs *args,
                        const struct lb_jv *const *arg);
};

struct lb_jtest {
    const char *name;
    uint8_t n_args;
    bool (*run)(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg);
};

struct lb_jmethod {
    const char *name;
    struct lb_jparams params;
    uint8_t of; /* LB_OF_... */
    struct lb_jv (*run)(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg);
};
enum { LB_OF_TEXT = 1, LB_OF_DICT = 2, LB_OF_LIST = 4, LB_OF_LOOP = 8 };

/* filters_list.c */
const struct lb_jfilter *lb_jfilter_find(const char *name, size_t len);
/* filters.c: those that take one value; ended by a name of NULL. */
extern const struct lb_jfilter lb_jfilters_of_values[];
/* tests.c */
const struct lb_jtest *lb_jtest_find(const char *name, size_t len);
bool lb_jtest_run(struct lb_jinja *j, const struct lb_jtest *test, const struct lb_jv *value,
                  const struct lb_jv *arg);
/* methods.c: -1 for none; of: among the methods of these kinds. */
int lb_jmethod_find(const char *name, size_t len, uint8_t of);
const struct lb_jmethod *lb_jmethod_at(int id);

#endif
