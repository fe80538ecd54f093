/* Token ids that grow. */
#ifndef LB_TEXT_IDS_H
#define LB_TEXT_IDS_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Growable ids; free data with lb_free. Zero-initialise. */
struct lb_ids {
    int32_t *data;
    size_t len, cap;
};

/* Makes room for n more ids. */
LB_NODISCARD enum lb_status lb_ids_reserve(struct lb_ids *ids, size_t n);
/* Appends n ids. */
LB_NODISCARD enum lb_status lb_ids_append(struct lb_ids *ids, const int32_t *from, size_t n);
/* Appends one id. */
LB_NODISCARD enum lb_status lb_ids_push(struct lb_ids *ids, int32_t id);

#endif
