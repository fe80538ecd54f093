/* Errors about a key: where it stands in the file. */
#include "trainer/recipe/fields.h"

#include <stdio.h>
#include <string.h>

enum lb_status lb_recipe_fail(const struct lb_recipe *recipe, struct lb_detail *detail, enum lb_status code,
                              const char *path, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int line = recipe->tree != NULL ? lb_yaml_line(recipe->tree, path) : 0;
    if (line > 0) {
        return lb_fail(detail, code, "%s:%d: %s: %s", recipe->path, line, path, text);
    }
    if (recipe->tree != NULL) {
        return lb_fail(detail, code, "--set %s: %s", path, text);
    }
    return lb_fail(detail, code, "%s: %s", path, text);
}

void lb_recipe_locate(const struct lb_recipe *recipe, struct lb_detail *detail) {
    char path[128];
    size_t n = detail != NULL ? strcspn(detail->text, ": ") : 0;
    if (n == 0 || n >= sizeof path || recipe->tree == NULL) {
        return;
    }
    memcpy(path, detail->text, n);
    path[n] = '\0';
    for (const struct lb_field *f = lb_recipe_fields; f->key != NULL; f++) {
        if (strcspn(path, ".") == strlen(f->key) && strncmp(path, f->key, strlen(f->key)) == 0) {
            int line = lb_yaml_line(recipe->tree, path);
            if (line > 0) {
                lb_detail_prefix(detail, "%s:%d", recipe->path, line);
            } else {
                struct lb_detail whole = {0};
                (void)lb_fail(&whole, detail->code, "--set %s", detail->text);
                *detail = whole;
            }
            return;
        }
    }
}
