/* Values of a template while it is rendered: Python's, as far as chat templates use them. Everything lives in
 * the arena of the run that made it; values are small and passed around by value; lists, texts and dicts
 * never change once they are made (the sandbox that chat templates run in forbids it), only namespaces do.
 *
 * Each byte of a text may carry marks: that it came from the caller's data and not from the template, that it
 * stands in a generation block. Whatever is done to a text keeps the marks of the bytes that it keeps.
 *
 * For common/chat only. One thread at a time per run.
 */
#ifndef LB_CHAT_VALUE_H
#define LB_CHAT_VALUE_H

#include "common/base/arena.h"
#include "common/base/json.h"
#include "common/chat/template.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define LB_JINJA_MAX_DEPTH 400 /* of expressions, statements, calls and values within one another */
#define LB_JINJA_MAX_ARGS 12

enum lb_jv_kind {
    LB_JV_UNDEFINED,
    LB_JV_NONE,
    LB_JV_BOOL,
    LB_JV_INT,
    LB_JV_FLOAT,
    LB_JV_TEXT,
    LB_JV_LIST,
    LB_JV_DICT,
    LB_JV_NAMESPACE,
    LB_JV_LOOP,
    LB_JV_MACRO,
    LB_JV_FUNCTION, /* id: of enum lb_jinja_function */
    LB_JV_METHOD    /* id: of enum lb_jinja_method */
};

enum lb_jv_sort {
    LB_SORT_LIST,
    LB_SORT_TUPLE,
    LB_SORT_RANGE,
    LB_SORT_VIEW,     /* keys(), values(), items() of a dict */
    LB_SORT_GENERATOR /* can be gone through once */
};

struct lb_jlist;
struct lb_jdict;
struct lb_jmacro;
struct lb_jloop;

struct lb_jv {
    uint8_t kind; /* enum lb_jv_kind */
    uint8_t id;   /* functions, methods; texts: 1 behind the filter safe */
    union {
        bool b;
        int64_t i;
        double f;
        struct {
            const char *s; /* valid UTF-8, not ended by a NUL */
            size_t len;
            const uint8_t *mark; /* [len] of LB_CHAT_...; NULL: all zero */
        };
        struct lb_jlist *list;
        struct lb_jdict *dict; /* namespaces as well */
        struct lb_jmacro *macro;
        struct lb_jloop *loop;
        const struct lb_jv *self; /* methods: what they are of */
        const char *name;         /* undefined: what is missing, for errors; may be NULL */
    };
};

struct lb_jlist {
    struct lb_jv *item;
    size_t n, cap;
    size_t at; /* generators: the next item */
    uint8_t sort;
};

struct lb_jdict {
    struct lb_jv *key, *value;
    size_t n, cap;
};

struct lb_jbuilder;
struct lb_jscope;
struct lb_jnode;
struct lb_jargs;

/* One rendering. */
struct lb_jinja {
    struct lb_arena arena;
    const struct lb_chat_template *template;
    const struct lb_chat_input *input;
    enum lb_status status; /* sticky: after the first failure everything returns undefined */
    struct lb_detail *detail;
    int line; /* of what is being evaluated */
    int depth;
    uint64_t steps;
    const uint8_t *data_marks; /* [n_data_marks], all LB_CHAT_DATA: what texts of the data point into */
    size_t n_data_marks;
    struct lb_jbuilder *out; /* where statements print to */
    struct lb_jscope *scope; /* innermost */
    uint8_t leave;           /* enum lb_jleave */
    /* lb_jcall. A call may lead back to expressions and statements (macros), so those call through here. */
    void (*call)(struct lb_jinja *j, const struct lb_jv *callee, const struct lb_jargs *args,
                 const struct lb_jmacro *caller, struct lb_jv *out);
};

/* values.c. Records an error with the template's name and line; returns undefined. */
struct lb_jv lb_jinja_fail(struct lb_jinja *j, enum lb_status code, const char *format, ...) LB_PRINTF(3, 4);
/* Counts n pieces of work; false when the run has failed or has taken too many steps. */
bool lb_jinja_step(struct lb_jinja *j, size_t n);
/* Memory of the run; NULL after a failure that is recorded. */
void *lb_jinja_alloc(struct lb_jinja *j, size_t count, size_t size);
/* One level further in; false when that is too deep. lb_jinja_up goes back. */
bool lb_jinja_down(struct lb_jinja *j);
void lb_jinja_up(struct lb_jinja *j);

struct lb_jv lb_jv_undefined(const char *name);
struct lb_jv lb_jv_none(void);
struct lb_jv lb_jv_bool(bool b);
struct lb_jv lb_jv_int(int64_t i);
struct lb_jv lb_jv_float(double f);
/* The text is the caller's and has to outlive the run. */
struct lb_jv lb_jv_text(const char *s, size_t len);
struct lb_jv lb_jv_cstr(const char *s);
/* A part of a text, in bytes, marks kept. */
struct lb_jv lb_jv_part(const struct lb_jv *text, size_t start, size_t end);
bool lb_jv_is(const struct lb_jv *text, const char *s);

/* A list of room for cap items; grows. */
struct lb_jv lb_jv_list(struct lb_jinja *j, uint8_t sort, size_t cap);
void lb_jlist_put(struct lb_jinja *j, struct lb_jv list, struct lb_jv item);
struct lb_jv lb_jv_pair(struct lb_jinja *j, struct lb_jv first, struct lb_jv second);
struct lb_jv lb_jv_dict(struct lb_jinja *j, size_t cap);

/* The items that going through a value gives, as a list (dicts: keys, texts: characters, undefined: none;
 * generators are used up). False with an error when it cannot be gone through; what: who asks. */
bool lb_jv_items(struct lb_jinja *j, struct lb_jv value, const char *what, struct lb_jlist *out);
/* The name of its type in Python. */
const char *lb_jv_type(const struct lb_jv *value);
bool lb_jv_is_number(const struct lb_jv *value); /* bools too */
double lb_jv_number(const struct lb_jv *value);
/* Whether a value may be taken as a whole number (bools too). */
bool lb_jv_is_int(const struct lb_jv *value);
int64_t lb_jv_whole(const struct lb_jv *value);

/* convert.c: JSON data as values; texts point into json, which has to outlive the run. mark: they are data.
 */
struct lb_jv lb_jv_from_json(struct lb_jinja *j, const json_t *json, bool mark);

/* compare.c. */
bool lb_jv_truth(struct lb_jinja *j, const struct lb_jv *value);
bool lb_jv_equal(struct lb_jinja *j, const struct lb_jv *a, const struct lb_jv *b);
/* -1, 0, 1; an error for what Python does not order. */
int lb_jv_order(struct lb_jinja *j, const struct lb_jv *a, const struct lb_jv *b);
/* Sets a key; the first place of a key stays its place. */
void lb_jdict_put(struct lb_jinja *j, struct lb_jdict *dict, struct lb_jv key, struct lb_jv value);
/* NULL when the key is not there. */
const struct lb_jv *lb_jdict_get(struct lb_jinja *j, const struct lb_jdict *dict, const struct lb_jv *key);
const struct lb_jv *lb_jdict_find(const struct lb_jdict *dict, const char *key, size_t len);
/* item in container. */
bool lb_jv_contains(struct lb_jinja *j, const struct lb_jv *container, const struct lb_jv *item);
/* len(); -1 with an error for what has none. */
int64_t lb_jv_length(struct lb_jinja *j, const struct lb_jv *value);

/* Bytes being written, with their marks. */
struct lb_jbuilder {
    struct lb_jinja *j;
    char *s;
    uint8_t *mark;
    size_t len, cap;
    bool marked; /* any mark is set */
};

/* format.c. */
void lb_jb_init(struct lb_jbuilder *b, struct lb_jinja *j);
/* mark: NULL for none. */
void lb_jb_put(struct lb_jbuilder *b, const char *s, size_t len, const uint8_t *mark);
void lb_jb_str(struct lb_jbuilder *b, const char *s);
void lb_jb_text(struct lb_jbuilder *b, const struct lb_jv *text);
/* One character with the mark of the bytes it came from. */
void lb_jb_char(struct lb_jbuilder *b, uint32_t code_point, uint8_t mark);
/* The text; b may be forgotten. */
struct lb_jv lb_jb_done(struct lb_jbuilder *b);
/* str() and repr() of a value. */
void lb_jb_value(struct lb_jbuilder *b, const struct lb_jv *value);
void lb_jb_repr(struct lb_jbuilder *b, const struct lb_jv *value);
/* str(value); the value itself when it is a text. */
struct lb_jv lb_jv_str(struct lb_jinja *j, struct lb_jv value);

struct lb_jdump {
    const char *indent; /* of one level; NULL: all in one line */
    size_t indent_len;
    struct lb_jv item_separator, key_separator;
    bool ascii, sort_keys;
};
/* json.dumps. */
void lb_jb_json(struct lb_jbuilder *b, const struct lb_jv *value, const struct lb_jdump *dump);

#endif
