/* A file of tests/golden, open around a program's group of tests. */
#ifndef LB_TESTS_SUPPORT_GOLDEN_H
#define LB_TESTS_SUPPORT_GOLDEN_H

#include "common/formats/safetensors.h"

#include <stdio.h>
#include <stdlib.h>

static struct lb_safetensors *lb_golden;

/* 0, or -1 when it can't: for set-ups. */
static inline int lb_golden_open(const char *name) {
    const char *root = getenv("LB_SOURCE_ROOT");
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/golden/%s", root != NULL ? root : ".", name);
    return lb_safetensors_open(path, &lb_golden, NULL) == LB_OK ? 0 : -1;
}

static inline int lb_golden_close(void **state) {
    (void)state;
    lb_safetensors_destroy(lb_golden);
    return 0;
}

/* Fails the test when there is none. */
static inline const struct lb_tensor *lb_golden_find(const char *name) {
    const struct lb_tensor *t = lb_safetensors_find(lb_golden, name);
    assert_non_null(t);
    return t;
}

/* Whether it is there: a table's entry without golden values is told by name. */
static inline bool lb_golden_has(const char *name) {
    if (lb_safetensors_find(lb_golden, name) != NULL) {
        return true;
    }
    print_error("no golden values of %s\n", name);
    return false;
}

#endif
