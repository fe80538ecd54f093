/* A model goes through data batch by batch, and what its taps read is looked at: what influence and width are
 * measured by. */
#ifndef LB_RUN_TAPPED_H
#define LB_RUN_TAPPED_H

#include "common/model/model.h"
#include "trainer/data/dataset.h"

#include <signal.h>

struct lb_tapped {
    void *context;
    struct lb_tap *taps; /* [n] what is read; their values are a batch's */
    size_t n;
    /* One batch, whose sequences ragged tells; batches come in the order of rows. */
    void (*take)(void *context, const struct lb_tap *taps, const struct lb_ragged *ragged);
};

/* All of data, which must fit the model (lb_evaluate_rows); *out_rows: positions. what names it in errors.
 * LB_E_CANCELLED soon after *stop (may be NULL). */
LB_NODISCARD enum lb_status lb_tapped_read(const struct lb_model *model, const struct lb_dataset *data,
                                           const struct lb_tapped *tapped, const char *what,
                                           const volatile sig_atomic_t *stop, int64_t *out_rows,
                                           struct lb_detail *detail);

#endif
