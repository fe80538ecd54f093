/* Any bytes as a recipe: an error of one line, or a recipe that is written and read back to the same text. */
#include "common/base/mem.h"
#include "trainer/recipe/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool promise, const char *what) {
    if (!promise) {
        fprintf(stderr, "fuzz_recipe: %s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lb_recipe *recipe = NULL, *again = NULL;
    struct lb_detail detail = {0};
    if (lb_recipe_parse((const char *)data, size, "r.yaml", NULL, 0, &recipe, &detail) != LB_OK) {
        check(recipe == NULL && detail.text[0] != '\0', "an error without a text");
        return 0;
    }
    char *text = NULL, *twice = NULL, first[65], second[65];
    size_t len = 0, twice_len = 0;
    check(lb_recipe_dump(recipe, &text, &len, NULL) == LB_OK, "a recipe that cannot be written");
    if (lb_recipe_parse(text, len, "r.yaml", NULL, 0, &again, &detail) != LB_OK) {
        fprintf(stderr, "%s\n%s", detail.text, text);
        check(false, "a written recipe that cannot be read");
    }
    check(lb_recipe_dump(again, &twice, &twice_len, NULL) == LB_OK, "a recipe that cannot be written twice");
    check(len == twice_len && memcmp(text, twice, len) == 0, "a recipe that changes on its way");
    lb_recipe_fingerprint(recipe, first);
    lb_recipe_fingerprint(again, second);
    check(strcmp(first, second) == 0, "a fingerprint that changes");
    lb_free(text);
    lb_free(twice);
    lb_recipe_destroy(recipe);
    lb_recipe_destroy(again);
    return 0;
}
