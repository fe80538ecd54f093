/* Inside of a rendering: scopes, macros, loops, arguments. Types alone, and the files of the evaluator share
 * them. Those files call one another downwards only, in this order: calls.c, statements.c, eval.c,
 * filters_list.c, filters.c, access.c and scopes.c, methods.c, tests.c, operators.c, what works on values.
 * Where a template leads back up (a macro is called in an expression), lb_jinja.call does. For common/chat
 * only. */
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

#endif
