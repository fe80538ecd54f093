/* Questions ready to be sent: what dialects begin and end theirs with. */
#include "trainer/wire/dialect.h"

void lb_asked_begin(struct lb_asked *out, const struct lb_sample *const *samples, int64_t n) {
    *out = (struct lb_asked){.n = n, .json_bytes = -1};
    lb_buf_init(&out->body, LB_MAX_BODY_BYTES);
    for (int64_t i = 0; i < n; i++) {
        int64_t rows = samples[i]->n - samples[i]->first;
        out->longest = samples[i]->n > out->longest ? samples[i]->n : out->longest;
        out->rows = rows > out->rows ? rows : out->rows;
    }
}

enum lb_status lb_asked_end(struct lb_asked *asked, struct lb_detail *detail) {
    enum lb_status status = lb_buf_status(&asked->body);
    if (status != LB_OK) {
        lb_asked_finish(asked);
        return lb_fail(detail, status,
                       "a request of %lld sequences, the longest of %lld positions, is too large",
                       (long long)asked->n, (long long)asked->longest);
    }
    return LB_OK;
}
