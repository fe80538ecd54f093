/* Keys of the optimisation that hold more than one value: optim_args. */
#include "trainer/recipe/fields.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ARG_BYTES 64

static bool is_one_of(const char *text, const char *const *words) {
    while (*words != NULL && strcmp(text, *words) != 0) {
        words++;
    }
    return *words != NULL;
}

static enum lb_status wrong_arg(const struct lb_recipe *r, const char *why, struct lb_detail *detail) {
    return lb_recipe_fail(r, detail, LB_E_ARG, "optim_args",
                          "\"%s\" %s; it is like momentum=0.9,nesterov=true", r->optim_args, why);
}

/* One "name=value", without spaces. */
static enum lb_status take_arg(struct lb_recipe *r, char *arg, struct lb_detail *detail) {
    static const char *const yes[] = {"true", "1", "yes", NULL}, *const no[] = {"false", "0", "no", NULL};
    char *value = strchr(arg, '='), *end = NULL;
    if (value == NULL) {
        return wrong_arg(r, "has a part without =", detail);
    }
    *value++ = '\0';
    if (strcmp(arg, "momentum") == 0) {
        double number = strtod(value, &end);
        if (end == value || *end != '\0' || !(number >= 0 && number < 1)) {
            return wrong_arg(r, "has a momentum that is not from 0 to below 1", detail);
        }
        r->momentum = number;
        return LB_OK;
    }
    if (strcmp(arg, "nesterov") == 0) {
        for (char *c = value; *c != '\0'; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        r->nesterov = is_one_of(value, yes);
        return r->nesterov || is_one_of(value, no)
                   ? LB_OK
                   : wrong_arg(r, "has a nesterov that is neither true nor false", detail);
    }
    return wrong_arg(r, "holds another name than momentum and nesterov", detail);
}

enum lb_status lb_recipe_optim(struct lb_recipe *r, struct lb_detail *detail) {
    char arg[ARG_BYTES];
    enum lb_status status = LB_OK;
    if (r->optim_args == NULL) {
        return LB_OK;
    }
    if (r->optim != LB_OPTIM_SGD) {
        return lb_recipe_fail(r, detail, LB_E_ARG, "optim_args",
                              "is read for optim: sgd; drop it, or set adam_beta1, adam_beta2, adam_epsilon");
    }
    for (const char *at = r->optim_args; status == LB_OK && *at != '\0'; at += *at == ',') {
        size_t n = 0;
        for (; *at != '\0' && *at != ','; at++) {
            if (!isspace((unsigned char)*at) && n + 1 < sizeof arg) {
                arg[n++] = *at;
            }
        }
        arg[n] = '\0';
        status = take_arg(r, arg, detail);
    }
    return status != LB_OK || !r->nesterov || r->momentum > 0
               ? status
               : wrong_arg(r, "has nesterov without a momentum", detail);
}
