/* Names and what they stand for: scopes, assignments, arguments in the places of parameters. */
#include "common/chat/scopes.h"

#include <string.h>

/* ---- scopes ---- */

bool lb_jscope_open(struct lb_jinja *j, struct lb_jscope *parent) {
    struct lb_jscope *scope = lb_jinja_alloc(j, 1, sizeof *scope);
    if (scope) {
        *scope = (struct lb_jscope){.parent = parent};
        j->scope = scope;
    }
    return scope != NULL;
}

void lb_jbind(struct lb_jinja *j, int name, struct lb_jv value) {
    for (struct lb_jbinding *b = j->scope->first; b; b = b->next) {
        if (b->name == name) {
            b->value = value;
            return;
        }
    }
    struct lb_jbinding *b = lb_jinja_alloc(j, 1, sizeof *b);
    if (b) {
        *b = (struct lb_jbinding){.name = name, .value = value, .next = j->scope->first};
        j->scope->first = b;
    }
}

const struct lb_jv *lb_jlookup(const struct lb_jinja *j, int name) {
    for (const struct lb_jscope *scope = j->scope; scope; scope = scope->parent) {
        for (const struct lb_jbinding *b = scope->first; b; b = b->next) {
            if (b->name == name) {
                return &b->value;
            }
        }
    }
    return NULL;
}

/* ---- assignments ---- */

static void set_member(struct lb_jinja *j, const struct lb_jnode *target, struct lb_jv value) {
    const struct lb_jv *space = lb_jlookup(j, target->name);
    if (!space || space->kind != LB_JV_NAMESPACE) {
        lb_jinja_fail(j, LB_E_ARG, "%.60s is no namespace", j->template->name[target->name].s);
    } else if (target->value.s[0] == '_') {
        lb_jinja_fail(j, LB_E_ARG, "a namespace holds no name that begins with _");
    } else {
        lb_jdict_put(j, space->dict, target->value, value);
    }
}

void lb_jassign(struct lb_jinja *j, const struct lb_jnode *target, struct lb_jv value) {
    if (j->status != LB_OK || !lb_jinja_down(j)) {
        return;
    }
    struct lb_jlist items;
    size_t n = 0;
    if (target->kind == LB_JN_NAME) {
        lb_jbind(j, target->name, value);
    } else if (target->kind == LB_JN_MEMBER) {
        set_member(j, target, value);
    } else if (lb_jv_items(j, value, "an assignment to several names", &items)) {
        const struct lb_jnode *part = target->args;
        for (; part && n < items.n; part = part->next) {
            lb_jassign(j, part->a, items.item[n++]);
        }
        if (part || n < items.n) {
            lb_jinja_fail(j, LB_E_ARG, "%zu values for another number of names", items.n);
        }
    }
    lb_jinja_up(j);
}

/* ---- arguments ---- */

/* The place of name among names ("a,b,c"), -1 when it is none of them. */
static int place_of(const char *names, const struct lb_jname *name) {
    int place = 0;
    for (const char *at = names; *at; place++) {
        size_t n = strcspn(at, ",");
        if (n == name->len && !memcmp(at, name->s, n)) {
            return place;
        }
        at += n + (at[n] == ',');
    }
    return -1;
}

bool lb_jargs_bind(struct lb_jinja *j, const struct lb_jargs *args, const struct lb_jparams *params,
                   const char *who, const struct lb_jv *out[LB_JINJA_MAX_ARGS]) {
    size_t given = 0;
    memset(out, 0, LB_JINJA_MAX_ARGS * sizeof *out);
    for (size_t i = 0; i < args->n; i++) {
        int place = args->name[i] < 0 ? (int)i : place_of(params->names, &j->template->name[args->name[i]]);
        if (place < 0 || out[place]) {
            lb_jinja_fail(j, LB_E_ARG, "%s: the argument %s is not known or given twice", who,
                          args->name[i] < 0 ? "" : j->template->name[args->name[i]].s);
            return false;
        }
        out[place] = &args->value[i];
    }
    while (given < params->required && out[given]) {
        given++;
    }
    if (given < params->required) {
        lb_jinja_fail(j, LB_E_ARG, "%s: an argument is missing", who);
    }
    return j->status == LB_OK;
}

struct lb_jv lb_jfilter_run(struct lb_jinja *j, const struct lb_jfilter *filter, struct lb_jv value,
                            const struct lb_jargs *args) {
    const struct lb_jv *arg[LB_JINJA_MAX_ARGS];
    if (filter->params.open) { /* it looks at the arguments itself */
        return filter->run(j, value, args, NULL);
    }
    return lb_jargs_bind(j, args, &filter->params, filter->name, arg) ? filter->run(j, value, args, arg)
                                                                      : lb_jv_undefined(NULL);
}
