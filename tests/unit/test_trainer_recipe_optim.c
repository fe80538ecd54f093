#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "trainer/recipe/recipe.h"

#include <stdio.h>
#include <string.h>

static const char base[] =
    "student: {model_type: limbeck_mlp, input_size: 784, hidden_sizes: [50], num_labels: 10}\n"
    "datasets: [{path: train-images-idx3-ubyte, labels: train-labels-idx1-ubyte}]\n"
    "loss_functions: [{function: cross_entropy}]\n"
    "learning_rate: 0.1\n"
    "max_steps: 100\n"
    "output_dir: o\n";

/* The recipe with lines of YAML below it. */
static enum lb_status parse(const char *lines, struct lb_recipe **out, struct lb_detail *detail) {
    char text[2048];
    int n = snprintf(text, sizeof text, "%s%s", base, lines);
    return lb_recipe_parse(text, (size_t)n, "r.yaml", NULL, 0, out, detail);
}

static struct lb_recipe *good(const char *lines) {
    struct lb_recipe *r = NULL;
    struct lb_detail detail = {0};
    if (parse(lines, &r, &detail) != LB_OK) {
        fail_msg("%s: %s", lines, detail.text);
    }
    return r;
}

static void bad(const char *lines, const char *message) {
    struct lb_recipe *r = NULL;
    struct lb_detail detail = {0};
    if (parse(lines, &r, &detail) == LB_OK) {
        lb_recipe_destroy(r);
        fail_msg("%s was taken", lines);
    }
    if (strstr(detail.text, message) == NULL) {
        fail_msg("%s: %s; expected %s", lines, detail.text, message);
    }
}

/* Written back and read again it is the same, in what decides as well. */
static void round_trip(const char *lines) {
    struct lb_recipe *r = good(lines), *again = NULL;
    char *text = NULL, first[65], second[65];
    size_t len;
    struct lb_detail detail = {0};
    assert_int_equal(lb_recipe_dump(r, &text, &len, NULL), LB_OK);
    if (lb_recipe_parse(text, len, "r.yaml", NULL, 0, &again, &detail) != LB_OK) {
        fail_msg("%s: written back: %s", lines, detail.text);
    }
    assert_int_equal(lb_recipe_fingerprint(r, first), LB_OK);
    assert_int_equal(lb_recipe_fingerprint(again, second), LB_OK);
    assert_string_equal(first, second);
    lb_recipe_destroy(r);
    lb_recipe_destroy(again);
    lb_free(text);
}

static void optimizers(void **state) {
    (void)state;
    struct lb_recipe *r = good("optim: sgd\noptim_args: \"momentum=0.9, nesterov=True\"\n");
    assert_int_equal(r->optim, LB_OPTIM_SGD);
    assert_true(r->momentum == 0.9 && r->nesterov);
    lb_recipe_destroy(r);
    r = good("optim: adamw_torch_fused\n");
    assert_int_equal(r->optim, LB_OPTIM_ADAMW);
    assert_true(r->momentum == 0 && !r->nesterov);
    lb_recipe_destroy(r);
    round_trip("optim: sgd\noptim_args: momentum=0.9\n");
    round_trip("optim: lion_32bit\n");
    bad("optim: adafactor\n",
        "optim: \"adafactor\" is not one of adamw_torch, adamw_torch_fused, sgd, lion_32bit");
    bad("optim_args: momentum=0.9\n", "r.yaml:7: optim_args: is read for optim: sgd");
    bad("optim: sgd\noptim_args: momentum\n", "optim_args: \"momentum\" has a part without =");
    bad("optim: sgd\noptim_args: momentum=1\n", "has a momentum that is not from 0 to below 1");
    bad("optim: sgd\noptim_args: momentum=0.9x\n", "has a momentum that is not from 0 to below 1");
    bad("optim: sgd\noptim_args: \"momentum=0.9,nesterov=maybe\"\n", "has a nesterov that is neither");
    bad("optim: sgd\noptim_args: nesterov=true\n", "has nesterov without a momentum");
    bad("optim: sgd\noptim_args: dampening=0.1\n", "holds another name than momentum and nesterov");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(optimizers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
