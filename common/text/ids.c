#include "common/text/ids.h"

#include "common/base/mem.h"

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

enum lb_status lb_ids_push(struct lb_ids *ids, int32_t id) {
    enum lb_status status = lb_ids_reserve(ids, 1);
    if (status == LB_OK) {
        ids->data[ids->len++] = id;
    }
    return status;
}
