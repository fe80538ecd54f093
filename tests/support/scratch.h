/* A folder of its own for a test program, made and removed around its group of tests. */
#ifndef LB_TESTS_SUPPORT_SCRATCH_H
#define LB_TESTS_SUPPORT_SCRATCH_H

#include "common/base/file.h"

#include <stdio.h>
#include <stdlib.h>

static char lb_scratch[] = "/tmp/limbeck-test-XXXXXX";

static inline int lb_scratch_make(void **state) {
    (void)state;
    return mkdtemp(lb_scratch) != NULL ? 0 : -1;
}

static inline int lb_scratch_remove(void **state) {
    (void)state;
    return lb_remove_tree(lb_scratch, NULL) == LB_OK ? 0 : -1;
}

/* The path of a file in it, in one of a few static places. */
static inline const char *lb_in_scratch(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", lb_scratch, name);
    return path;
}

#endif
