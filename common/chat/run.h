/* Inside of a rendering: what the files of the evaluator share. For common/chat only. */
#ifndef LB_CHAT_RUN_H
#define LB_CHAT_RUN_H

#include "common/chat/node.h"

/* A name's value in a scope. */
struct lb_jbinding {
    int name;
    struct lb_jv value;
    struct lb_jbinding *next;
};

struct lb_jscope {
    struct lb_jbinding *first;
    struct lb_jscope *parent;
};

struct lb_jmacro {
    const struct lb_jnode *node; /* LB_JN_MACRO, LB_JN_CALL_BLOCK */
    struct lb_jscope *scope;     /* where it was made */
};

struct lb_jloop {
    struct lb_jlist items;
    size_t at;
    int depth;
    const struct lb_jnode *node; /* of a recursive loop, else NULL */
    struct lb_jscope *scope;     /* around it */
    struct lb_jv changed;        /* what loop.changed() saw last; undefined kind with b: nothing */
    bool has_changed;
};

/* What a statement did to the flow. */
enum lb_jleave { LB_LEAVE_NOT, LB_LEAVE_BREAK, LB_LEAVE_CONTINUE };

/* Arguments of a call, evaluated. */
struct lb_jargs {
    struct lb_jv value[LB_JINJA_MAX_ARGS];
    int name[LB_JINJA_MAX_ARGS]; /* the keyword's, -1 none */
    size_t n, n_positional;
};

enum lb_jinja_function {
    LB_JF_RANGE,
    LB_JF_NAMESPACE,
    LB_JF_DICT,
    LB_JF_RAISE,
    LB_JF_STRFTIME_NOW,
    LB_JF_END
};

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

/* filters.c, filters_list.c */
const struct lb_jfilter *lb_jfilter_find(const char *name, size_t len);
/* filters_list.c: those that go through lists; ended by a name of NULL. */
extern const struct lb_jfilter lb_jfilters_of_lists[];
/* tests.c */
const struct lb_jtest *lb_jtest_find(const char *name, size_t len);
/* methods.c: -1 for none; of: among the methods of these kinds. */
int lb_jmethod_find(const char *name, size_t len, uint8_t of);
const struct lb_jmethod *lb_jmethod_at(int id);
/* calls.c: -1 for none. */
int lb_jfunction_find(const char *name, size_t len);
const struct lb_jparams *lb_jfunction_params(int function);

/* eval.c */
struct lb_jv lb_jeval(struct lb_jinja *j, const struct lb_jnode *node);
/* Environment.getattr and getitem: undefined where there is nothing; an error on undefined values. */
struct lb_jv lb_jeval_attr(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *name);
struct lb_jv lb_jeval_item(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *key);
/* "a.b.0" as filters take it. */
struct lb_jv lb_jeval_path(struct lb_jinja *j, struct lb_jv of, const struct lb_jv *path);
bool lb_jeval_args(struct lb_jinja *j, const struct lb_jnode *args, struct lb_jargs *out);

/* operators.c */
struct lb_jv lb_jinja_binary(struct lb_jinja *j, char op, const struct lb_jv *a, const struct lb_jv *b);
struct lb_jv lb_jinja_slice(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *start,
                            const struct lb_jv *stop, const struct lb_jv *step);

/* calls.c. Puts arguments in the places of their parameters (NULL: not given); false with an error. */
bool lb_jargs_bind(struct lb_jinja *j, const struct lb_jargs *args, const struct lb_jparams *params,
                   const char *who, const struct lb_jv *out[LB_JINJA_MAX_ARGS]);
struct lb_jv lb_jcall(struct lb_jinja *j, const struct lb_jv *callee, const struct lb_jargs *args,
                      const struct lb_jmacro *caller);
struct lb_jv lb_jfilter_run(struct lb_jinja *j, const struct lb_jfilter *filter, struct lb_jv value,
                            const struct lb_jargs *args);
bool lb_jtest_run(struct lb_jinja *j, const struct lb_jtest *test, const struct lb_jv *value,
                  const struct lb_jv *arg);

/* statements.c */
void lb_jrun(struct lb_jinja *j, const struct lb_jnode *body);
/* The text that body prints, in a scope of its own. */
struct lb_jv lb_jrun_text(struct lb_jinja *j, const struct lb_jnode *body, struct lb_jscope *scope);
bool lb_jscope_open(struct lb_jinja *j, struct lb_jscope *parent);
void lb_jbind(struct lb_jinja *j, int name, struct lb_jv value);
struct lb_jv lb_jrun_loop(struct lb_jinja *j, const struct lb_jloop *around, struct lb_jv items);
const struct lb_jv *lb_jlookup(const struct lb_jinja *j, int name);

#endif
