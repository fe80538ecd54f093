/* Calls: functions, methods, macros. */
#include "common/chat/calls.h"

#include "common/chat/eval.h"
#include "common/chat/scopes.h"
#include "common/chat/statements.h"
#include "common/chat/tables.h"

#include <string.h>

#define MAX_RANGE 100000 /* the sandbox's */

static const struct {
    const char *name;
    struct lb_jparams params;
} functions[] = {
    [LB_JF_RANGE] = {"range", {"start,stop,step", 1, false}},
    [LB_JF_NAMESPACE] = {"namespace", {"", 0, true}},
    [LB_JF_DICT] = {"dict", {"", 0, true}},
    [LB_JF_RAISE] = {"raise_exception", {"message", 1, false}},
    [LB_JF_STRFTIME_NOW] = {"strftime_now", {"format", 1, false}},
};

int lb_jfunction_find(const char *name, size_t len) {
    for (int i = 0; i < LB_JF_END; i++) {
        if (strlen(functions[i].name) == len && !memcmp(functions[i].name, name, len)) {
            return i;
        }
    }
    return -1;
}

const struct lb_jparams *lb_jfunction_params(int function) {
    return &functions[function].params;
}

/* ---- functions ---- */

static struct lb_jv range(struct lb_jinja *j, const struct lb_jv *const *arg) {
    int64_t value[3] = {0, 0, 1};
    for (int i = 0; i < 3; i++) {
        if (arg[i] && !lb_jv_is_int(arg[i])) {
            return lb_jinja_fail(j, LB_E_ARG, "range() of a %s", lb_jv_type(arg[i]));
        }
        value[i] = arg[i] ? lb_jv_whole(arg[i]) : value[i];
    }
    int64_t start = arg[1] ? value[0] : 0, stop = arg[1] ? value[1] : value[0], step = value[2], at = start;
    if (!step) {
        return lb_jinja_fail(j, LB_E_ARG, "range() with step 0");
    }
    struct lb_jv list = lb_jv_list(j, LB_SORT_RANGE, 8);
    while ((step > 0 ? at < stop : at > stop) && j->status == LB_OK) {
        if (list.list->n == MAX_RANGE) {
            return lb_jinja_fail(j, LB_E_LIMIT, "range() of more than %d numbers", MAX_RANGE);
        }
        lb_jlist_put(j, list, lb_jv_int(at));
        if (__builtin_add_overflow(at, step, &at)) {
            break;
        }
    }
    return list;
}

/* dict() and namespace(): a dict to begin with, or pairs, and keywords. */
static struct lb_jv make_dict(struct lb_jinja *j, const struct lb_jargs *args, uint8_t kind) {
    struct lb_jv dict = lb_jv_dict(j, args->n);
    for (size_t i = 0; i < args->n && j->status == LB_OK; i++) {
        const struct lb_jv *value = &args->value[i];
        struct lb_jlist items;
        if (args->name[i] >= 0) {
            const struct lb_jname *name = &j->template->name[args->name[i]];
            lb_jdict_put(j, dict.dict, lb_jv_text(name->s, name->len), *value);
        } else if (i > 0) {
            lb_jinja_fail(j, LB_E_ARG, "a dict is made of one dict or list of pairs");
        } else if (value->kind == LB_JV_DICT) {
            for (size_t k = 0; k < value->dict->n && j->status == LB_OK; k++) {
                lb_jdict_put(j, dict.dict, value->dict->key[k], value->dict->value[k]);
            }
        } else if (lb_jv_items(j, *value, "dict()", &items)) {
            for (size_t k = 0; k < items.n && j->status == LB_OK; k++) {
                struct lb_jlist pair;
                if (lb_jv_items(j, items.item[k], "a pair of dict()", &pair) && pair.n == 2) {
                    lb_jdict_put(j, dict.dict, pair.item[0], pair.item[1]);
                } else {
                    lb_jinja_fail(j, LB_E_ARG, "dict() of something else than pairs");
                }
            }
        }
    }
    dict.kind = j->status == LB_OK ? kind : LB_JV_UNDEFINED;
    return dict;
}

static struct lb_jv strftime_now(struct lb_jinja *j, const struct lb_jv *format) {
    char text[256], pattern[128];
    if (format->kind != LB_JV_TEXT || format->len >= sizeof pattern || memchr(format->s, 0, format->len)) {
        return lb_jinja_fail(j, LB_E_ARG, "strftime_now() takes a short text");
    }
    memcpy(pattern, format->s, format->len);
    pattern[format->len] = '\0';
    size_t n = strftime(text, sizeof text, pattern, j->input->now);
    char *copy = lb_jinja_alloc(j, n, 1);
    if (!copy || (!n && format->len)) {
        return lb_jinja_fail(j, LB_E_ARG, "strftime_now() cannot write \"%s\"", pattern);
    }
    memcpy(copy, text, n);
    return lb_jv_text(copy, n);
}

static struct lb_jv call_function(struct lb_jinja *j, int id, const struct lb_jargs *args) {
    const struct lb_jv *arg[LB_JINJA_MAX_ARGS];
    if (id == LB_JF_NAMESPACE || id == LB_JF_DICT) {
        return make_dict(j, args, id == LB_JF_DICT ? LB_JV_DICT : LB_JV_NAMESPACE);
    }
    if (!lb_jargs_bind(j, args, &functions[id].params, functions[id].name, arg)) {
        return lb_jv_undefined(NULL);
    }
    if (id == LB_JF_RANGE) {
        return range(j, arg);
    }
    if (id == LB_JF_STRFTIME_NOW) {
        return strftime_now(j, arg[0]);
    }
    struct lb_jv text = lb_jv_str(j, *arg[0]);
    return lb_jinja_fail(j, LB_E_ARG, "the template refuses: %.*s", (int)(text.len < 300 ? text.len : 300),
                         text.s);
}

/* ---- macros ---- */

/* Binds the parameters of node in the scope that is open. */
static void bind_macro(struct lb_jinja *j, const struct lb_jnode *node, const struct lb_jargs *args) {
    size_t place = 0, used = 0;
    for (const struct lb_jnode *param = node->args; param && j->status == LB_OK;
         param = param->next, place++) {
        const struct lb_jv *given = place < args->n_positional ? &args->value[place] : NULL;
        for (size_t i = args->n_positional; i < args->n; i++) {
            if (args->name[i] == param->name) {
                used++;
                given = &args->value[i];
            }
        }
        struct lb_jv value = given      ? *given
                             : param->a ? lb_jeval(j, param->a)
                                        : lb_jv_undefined(j->template->name[param->name].s);
        lb_jbind(j, param->name, value);
    }
    if (args->n_positional > place || used != args->n - args->n_positional) {
        lb_jinja_fail(j, LB_E_ARG, "the macro %s is called with arguments that it does not take",
                      j->template->name[node->name].s);
    }
}

static struct lb_jv call_macro(struct lb_jinja *j, const struct lb_jmacro *macro, const struct lb_jargs *args,
                               const struct lb_jmacro *caller) {
    struct lb_jscope *before = j->scope;
    if (!lb_jscope_open(j, macro->scope)) {
        return lb_jv_undefined(NULL);
    }
    bind_macro(j, macro->node, args);
    if (caller) {
        struct lb_jmacro *copy = lb_jinja_alloc(j, 1, sizeof *copy);
        if (copy) {
            *copy = *caller;
            lb_jbind(j, j->template->caller_name, (struct lb_jv){.kind = LB_JV_MACRO, .macro = copy});
        }
    }
    struct lb_jv text =
        j->status == LB_OK ? lb_jrun_text(j, macro->node->body, j->scope) : lb_jv_undefined(NULL);
    j->scope = before;
    return text;
}

void lb_jcall(struct lb_jinja *j, const struct lb_jv *callee, const struct lb_jargs *args,
              const struct lb_jmacro *caller, struct lb_jv *out) {
    const struct lb_jv *arg[LB_JINJA_MAX_ARGS];
    struct lb_jv value = lb_jv_undefined(NULL);
    *out = value;
    if (caller && callee->kind != LB_JV_MACRO) {
        lb_jinja_fail(j, LB_E_ARG, "{%% call %%} of something else than a macro");
        return;
    }
    if (!lb_jinja_down(j)) {
        return;
    }
    if (callee->kind == LB_JV_FUNCTION) {
        value = call_function(j, callee->id, args);
    } else if (callee->kind == LB_JV_METHOD) {
        const struct lb_jmethod *method = lb_jmethod_at(callee->id);
        if (lb_jargs_bind(j, args, &method->params, method->name, arg)) {
            value = method->run(j, callee->self, arg);
        }
    } else if (callee->kind == LB_JV_MACRO) {
        value = call_macro(j, callee->macro, args, caller);
    } else if (callee->kind == LB_JV_LOOP && callee->loop->node && args->n == 1 && args->n_positional == 1) {
        value = lb_jrun_loop(j, callee->loop, args->value[0]);
    } else if (callee->kind == LB_JV_UNDEFINED && callee->name) {
        lb_jinja_fail(j, LB_E_ARG, "%.80s is undefined and cannot be called", callee->name);
    } else {
        lb_jinja_fail(j, LB_E_ARG, "a %s cannot be called", lb_jv_type(callee));
    }
    lb_jinja_up(j);
    *out = value;
}
