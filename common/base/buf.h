/* Growable bytes that cannot be made without a maximum.
 *
 * Appending is sticky: after the first failure (limit or memory) every further append does nothing, and
 * lb_buf_status tells. The content is always followed by a NUL that does not count.
 */
#ifndef LB_BASE_BUF_H
#define LB_BASE_BUF_H

#include "common/base/status.h"

#include <stddef.h>

struct lb_buf {
    char *data; /* NULL while empty */
    size_t len;
    size_t cap;
    size_t max;
    enum lb_status status;
};

void lb_buf_init(struct lb_buf *buf, size_t max_bytes);
/* Frees the bytes; accepts NULL and a zeroed buffer. */
void lb_buf_finish(struct lb_buf *buf);
/* Empties, keeps the memory, forgets a failure. */
void lb_buf_reset(struct lb_buf *buf);

enum lb_status lb_buf_append(struct lb_buf *buf, const void *bytes, size_t len);
enum lb_status lb_buf_append_str(struct lb_buf *buf, const char *text);
enum lb_status lb_buf_printf(struct lb_buf *buf, const char *format, ...) LB_PRINTF(2, 3);
/* Makes room for len more bytes and returns where they go (len grows by that much); NULL on failure. */
void *lb_buf_extend(struct lb_buf *buf, size_t len);
/* LB_OK, LB_E_LIMIT or LB_E_NOMEM (lb_json_dump: or LB_E_INTERNAL): the first failure since init or reset. */
enum lb_status lb_buf_status(const struct lb_buf *buf);
/* Hands the heap bytes over (free with lb_free) and leaves buf empty. Never NULL unless out of memory. A
 * failure recorded before stays recorded (lb_buf_status): check it, the bytes may be cut short. */
char *lb_buf_take(struct lb_buf *buf, size_t *out_len);

#endif
