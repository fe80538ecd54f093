#ifndef LB_TESTS_SUPPORT_DRAWN_TEXTS_H
#define LB_TESTS_SUPPORT_DRAWN_TEXTS_H

#include "common/base/rng.h"
#include "trainer/data/parts.h"

/* Data of n texts of 1, 2, ... n positions, their tokens drawn below v: rows [n], and ids, which hold them
 * one after the other. What data held before is let go of. Includes of cmocka's come before. */
static inline void lb_draw_texts(struct lb_dataset *data, int n, int32_t v, struct lb_text_row *rows,
                                 int32_t *ids) {
    struct lb_rng rng;
    int64_t at = 0;
    lb_text_rows_finish(data);
    *data = (struct lb_dataset){.count = 0};
    lb_rng_seed(&rng, 5, 0);
    for (int i = 0; i < n; i++) {
        rows[i] = (struct lb_text_row){at, 1 + i, -1};
        for (int k = 0; k <= 1 + i; k++) {
            ids[at++] = (int32_t)lb_rng_below(&rng, (uint64_t)v);
        }
        assert_int_equal(lb_text_add_ids(data, ids + rows[i].start, rows[i].n + 1, NULL), LB_OK);
        assert_int_equal(lb_text_add_row(data, &rows[i], NULL), LB_OK);
    }
}

#endif
