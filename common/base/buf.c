#include "common/base/buf.h"

#include "common/base/mem.h"

#include <stdint.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LEAST_CAPACITY = 64 };

void lb_buf_init(struct lb_buf *buf, size_t max_bytes) {
    *buf = (struct lb_buf){.max = max_bytes};
}

void lb_buf_finish(struct lb_buf *buf) {
    if (buf == NULL) {
        return;
    }
    lb_free(buf->data);
    *buf = (struct lb_buf){.max = buf->max};
}

void lb_buf_reset(struct lb_buf *buf) {
    buf->len = 0;
    buf->status = LB_OK;
    if (buf->data != NULL) {
        buf->data[0] = '\0';
    }
}

/* Room for len more bytes and the NUL; records the first failure. */
static bool reserve(struct lb_buf *buf, size_t len) {
    if (buf->status != LB_OK) {
        return false;
    }
    size_t need;
    if (len > buf->max || buf->len > buf->max - len || !lb_add_size(buf->len + len, 1, &need)) {
        buf->status = LB_E_LIMIT;
        return false;
    }
    if (need <= buf->cap) {
        return true;
    }
    size_t cap = buf->cap < LEAST_CAPACITY ? LEAST_CAPACITY : buf->cap;
    while (cap < need) {
        /* Half more each time, so that many small appends cost no more than one copy each; no wrap-around. */
        cap = cap > SIZE_MAX - cap / 2 ? need : cap + cap / 2;
    }
    if (cap - 1 > buf->max) {
        cap = buf->max + 1;
    }
    char *data = lb_realloc_array(buf->data, cap, 1);
    if (data == NULL) {
        buf->status = LB_E_NOMEM;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

enum lb_status lb_buf_append(struct lb_buf *buf, const void *bytes, size_t len) {
    if (!reserve(buf, len)) {
        return buf->status;
    }
    if (len > 0) {
        memcpy(buf->data + buf->len, bytes, len);
        buf->len += len;
    }
    buf->data[buf->len] = '\0';
    return LB_OK;
}

enum lb_status lb_buf_append_str(struct lb_buf *buf, const char *text) {
    return lb_buf_append(buf, text, strlen(text));
}

enum lb_status lb_buf_printf(struct lb_buf *buf, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) { /* longer than an int can count */
        buf->status = buf->status != LB_OK ? buf->status : LB_E_LIMIT;
        return buf->status;
    }
    if (!reserve(buf, (size_t)n)) {
        return buf->status;
    }
    va_start(args, format);
    vsnprintf(buf->data + buf->len, (size_t)n + 1, format, args);
    va_end(args);
    buf->len += (size_t)n;
    return LB_OK;
}

void *lb_buf_extend(struct lb_buf *buf, size_t len) {
    if (!reserve(buf, len)) {
        return NULL;
    }
    void *place = buf->data + buf->len;
    buf->len += len;
    buf->data[buf->len] = '\0';
    return place;
}

enum lb_status lb_buf_status(const struct lb_buf *buf) {
    return buf->status;
}

char *lb_buf_take(struct lb_buf *buf, size_t *out_len) {
    char *data = buf->data;
    if (data == NULL) {
        data = lb_calloc(1, 1);
        if (data == NULL) {
            return NULL;
        }
    }
    if (out_len != NULL) {
        *out_len = buf->len;
    }
    buf->data = NULL;
    buf->len = 0;
    buf->cap = 0;
    return data;
}
