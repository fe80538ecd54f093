/* The tree of a parsed template. For common/chat only. */
#ifndef LB_CHAT_NODE_H
#define LB_CHAT_NODE_H

#include "common/chat/value.h"

enum lb_jnode_kind {
    /* expressions */
    LB_JN_CONST,  /* value */
    LB_JN_NAME,   /* name */
    LB_JN_LIST,   /* args */
    LB_JN_TUPLE,  /* args */
    LB_JN_DICT,   /* args: pairs a: b */
    LB_JN_ATTR,   /* a.value */
    LB_JN_ITEM,   /* a[b] */
    LB_JN_SLICE,  /* a[b:c:d] */
    LB_JN_CALL,   /* a(args) */
    LB_JN_FILTER, /* a | entry(args) */
    LB_JN_TEST,   /* a is entry(args) */
    LB_JN_NOT,    /* a */
    LB_JN_NEG,    /* a */
    LB_JN_POS,    /* a */
    LB_JN_AND,    /* a, then args: op, a; so the next three */
    LB_JN_OR,
    LB_JN_COMPARE,
    LB_JN_BINARY,
    LB_JN_IF_ELSE, /* a if b else c (NULL: undefined) */
    /* statements: they follow one another by next */
    LB_JN_TEXT,         /* value */
    LB_JN_PRINT,        /* a */
    LB_JN_IF,           /* if a: body, else: other (an elif is an if in there) */
    LB_JN_FOR,          /* for a in b if c: body, else: other; flag: recursive */
    LB_JN_SET,          /* a = b */
    LB_JN_SET_BLOCK,    /* a = body, through the filter b (whose a is NULL) */
    LB_JN_WITH,         /* args: a = b; body */
    LB_JN_MACRO,        /* name, args: name, a is the default or NULL; body */
    LB_JN_CALL_BLOCK,   /* a: the call; args and body of the caller; name: that of "caller" */
    LB_JN_FILTER_BLOCK, /* b, body */
    LB_JN_GENERATION,   /* body */
    LB_JN_BREAK,
    LB_JN_CONTINUE,
    /* targets */
    LB_JN_MEMBER, /* name.value */
    /* parts of others */
    LB_JN_PART
};

struct lb_jnode {
    uint8_t kind;
    char op; /* as a token's; comparisons: 'I' in, 'O' not in */
    bool flag;
    int line;
    int name; /* an index of the template's names; arguments: of the keyword, -1 none */
    struct lb_jv value;
    struct lb_jnode *a, *b, *c, *d, *args, *body, *other, *next;
    const void *entry; /* struct lb_jfilter, struct lb_jtest */
};

struct lb_jname {
    char *s;
    size_t len;
    int function;  /* of enum lb_jinja_function; -1: none */
    bool assigned; /* somewhere in the template */
    int called;    /* the line where it is called first; 0: nowhere */
};

struct lb_chat_template {
    struct lb_arena arena;
    char *what;
    char hash[65];
    bool generates;
    struct lb_jnode *body;
    struct lb_jname *name;
    int n_names, cap_names;
    int loop_name, caller_name; /* indices of "loop" and "caller" */
};

#endif
