/* The list of keys for people: what RECIPE.md shows and limbeck train --help-recipe prints. */
#include "common/model/families.h"
#include "trainer/recipe/fields.h"

#include <stdio.h>
#include <string.h>

static void help_row(struct lb_buf *buf, const char *prefix, const char *key, const char *fallback,
                     const char *derived, bool required, const char *help) {
    lb_buf_printf(buf, "| `%s%s` | ", prefix, key);
    if (fallback != NULL) {
        lb_buf_printf(buf, "`%s`", fallback);
    } else {
        lb_buf_append_str(buf, required ? "must be given" : derived != NULL ? derived : "");
    }
    lb_buf_printf(buf, " | %s", help);
}

/* The i-th name that the key may have; NULL behind the last. */
static const char *name_of(const struct lb_field *f, size_t i) {
    return f->name_at != NULL ? f->name_at(i) : f->names != NULL ? f->names[i].name : NULL;
}

static void help_fields(struct lb_buf *buf, const struct lb_field *fields, const char *prefix) {
    for (const struct lb_field *f = fields; f->key != NULL; f++) {
        bool required = (f->flags & LB_FIELD_REQUIRED) != 0;
        help_row(buf, prefix, f->key, f->fallback, f->derived, required, f->help);
        bool named = f->kind == LB_FIELD_ENUM || f->kind == LB_FIELD_MAPS;
        for (size_t i = 0; named && (f->flags & LB_FIELD_GROWS) == 0 && name_of(f, i) != NULL; i++) {
            lb_buf_printf(buf, "%s`%s`", i == 0 ? ": " : ", ", name_of(f, i));
        }
        lb_buf_append_str(buf, " |\n");
        char inner[64];
        snprintf(inner, sizeof inner, "%s%s.%s", prefix, f->key, f->kind == LB_FIELD_MAPS ? "N." : "");
        if (f->kind == LB_FIELD_STUDENT) {
            help_row(buf, inner, "model", NULL, NULL, false, LB_STUDENT_MODEL_HELP " |\n");
            help_row(buf, inner, "layers_from", NULL, NULL, false, LB_STUDENT_LAYERS_HELP " |\n");
            for (const struct lb_student_field *s = lb_student_fields; s->key != NULL; s++) {
                help_row(buf, inner, s->key, NULL, s->derived != NULL ? s->derived : "a new one needs it",
                         false, s->help);
                lb_buf_append_str(buf, lb_student_takes("llama", s->key)  ? " |\n"
                                       : lb_student_takes("bert", s->key) ? " (encoders, `limbeck_mlp`) |\n"
                                                                          : " (`limbeck_mlp`) |\n");
            }
        } else if (f->kind == LB_FIELD_MAPS && strcmp(f->key, "eval_datasets") != 0) {
            help_fields(buf, f->fields, inner);
        }
    }
}

/* Names that tables of other rooms hold stand below the table of keys, so that RECIPE.md need not follow
 * them. */
static void help_names(struct lb_buf *buf, const struct lb_field *fields, const char *prefix) {
    for (const struct lb_field *f = fields; f->key != NULL; f++) {
        bool grows = f->name_at != NULL || (f->flags & LB_FIELD_GROWS) != 0;
        for (size_t i = 0; grows && name_of(f, i) != NULL; i++) {
            if (i == 0) {
                lb_buf_printf(buf, "\n%s%s: ", prefix, f->key);
            }
            lb_buf_printf(buf, "%s%s", i == 0 ? "" : ", ", name_of(f, i));
        }
        if (f->kind == LB_FIELD_MAPS) {
            char inner[64];
            snprintf(inner, sizeof inner, "%s%s.N.", prefix, f->key);
            help_names(buf, f->fields, inner);
        }
    }
}

enum lb_status lb_recipe_help(struct lb_buf *buf) {
    lb_buf_append_str(buf, "| key | default | what it says |\n|---|---|---|\n");
    help_fields(buf, lb_recipe_fields, "");
    char families[LB_FAMILY_NAMES];
    lb_buf_printf(buf, "\nstudent.model_type: %s", lb_family_names(families));
    help_names(buf, lb_recipe_fields, "");
    lb_buf_append_str(buf, "\n");
    return lb_buf_status(buf);
}
