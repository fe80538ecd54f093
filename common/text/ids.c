#include "common/text/ids.h"

#include "common/base/mem.h"

#include <string.h>

enum lb_status lb_ids_reserve(struct lb_ids *ids, size_t n) {
    size_t need;
    if (!lb_add_size(ids->len, n, &need)) {
        return LB_E_LIMIT;
    }
    if (need > ids->cap) {
        size_t cap = ids->cap < SIZE_MAX / 4 ? ids->cap + ids->cap / 2 : need;
        cap = cap < need ? need : cap;
        cap = cap < 16 ? 16 : cap;
        int32_t *data = lb_realloc_array(ids->data, cap, sizeof *data);
        if (!data) {
            return LB_E_NOMEM;
        }
        ids->data = data;
        ids->cap = cap;
    }
    return LB_OK;
}

enum lb_status lb_ids_append(struct lb_ids *ids, const int32_t *from, size_t n) {
    enum lb_status status = lb_ids_reserve(ids, n);
    if (status == LB_OK && n > 0) {
        memcpy(ids->data + ids->len, from, n * sizeof *from);
        ids->len += n;
    }
    return status;
}

enum lb_status lb_ids_push(struct lb_ids *ids, int32_t id) {
    return lb_ids_append(ids, &id, 1);
}
