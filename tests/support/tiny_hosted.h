/* A small model (tiny_model.h) as the daemon hosts it: for tests of the server's parts. */
#ifndef LB_TESTS_SUPPORT_TINY_HOSTED_H
#define LB_TESTS_SUPPORT_TINY_HOSTED_H

#include "common/base/file.h"
#include "common/base/mem.h"
#include "server/models/repository.h"
#include "tests/support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>

/* Written to folder/name with seed 7, and opened; a reference. Ends the program when it can't. */
static inline struct lb_hosted *lb_tiny_hosted(const char *folder, const char *name,
                                               const struct lb_config *config) {
    char *path = lb_path_join(folder, name);
    struct lb_hosted *hosted = NULL;
    struct lb_detail detail = {0};
    lb_tiny_save(config, 7, path, LB_F32, false);
    if (lb_hosted_open(name, path, &hosted, &detail) != LB_OK) {
        fprintf(stderr, "%s\n", detail.text);
        exit(1);
    }
    lb_free(path);
    return hosted;
}

#endif
