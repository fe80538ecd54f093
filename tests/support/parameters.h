/* How many parameters a config asks for, without making the model. For tests. */
#ifndef LB_TESTS_PARAMETERS_H
#define LB_TESTS_PARAMETERS_H

#include "common/base/mem.h"
#include "common/model/family.h"

/* Tied ones count once; 0 when out of memory. The config has passed lb_config_check. */
static inline int64_t config_parameters(const struct lb_config *config) {
    struct lb_spec_list list = {0};
    int64_t n = 0;
    lb_family_find(config->model_type)->declare(config, &list);
    for (size_t i = 0; i < list.n; i++) {
        n += list.items[i].rows * list.items[i].cols;
    }
    lb_free(list.items);
    return list.status == LB_OK ? n : 0;
}

#endif
