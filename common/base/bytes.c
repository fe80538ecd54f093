#include "common/base/bytes.h"

#include <string.h>

void lb_reader_init(struct lb_reader *reader, const void *data, size_t len) {
    *reader = (struct lb_reader){.data = data, .len = len};
}

const void *lb_read_span(struct lb_reader *reader, size_t len) {
    if (reader->failed || len > reader->len - reader->pos) {
        reader->failed = true;
        return NULL;
    }
    /* An empty span of an empty input has no address of its own; NULL would read as failure. */
    const void *span = reader->data != NULL ? (const void *)(reader->data + reader->pos) : "";
    reader->pos += len;
    return span;
}

/* The next len <= 8 bytes as a little-endian number. */
static uint64_t read_le(struct lb_reader *reader, size_t len) {
    const uint8_t *p = lb_read_span(reader, len);
    if (p == NULL) {
        return 0;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

uint8_t lb_read_u8(struct lb_reader *reader) {
    return (uint8_t)read_le(reader, 1);
}

uint16_t lb_read_u16(struct lb_reader *reader) {
    return (uint16_t)read_le(reader, 2);
}

uint32_t lb_read_u32(struct lb_reader *reader) {
    return (uint32_t)read_le(reader, 4);
}

uint64_t lb_read_u64(struct lb_reader *reader) {
    return read_le(reader, 8);
}

float lb_read_f32(struct lb_reader *reader) {
    uint32_t bits = lb_read_u32(reader);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

double lb_read_f64(struct lb_reader *reader) {
    uint64_t bits = lb_read_u64(reader);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

size_t lb_reader_left(const struct lb_reader *reader) {
    return reader->failed ? 0 : reader->len - reader->pos;
}

static void put_le(struct lb_buf *buf, uint64_t v, size_t len) {
    uint8_t bytes[8];
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(v >> (8 * i));
    }
    lb_buf_append(buf, bytes, len);
}

void lb_put_u8(struct lb_buf *buf, uint8_t v) {
    put_le(buf, v, 1);
}

void lb_put_u16(struct lb_buf *buf, uint16_t v) {
    put_le(buf, v, 2);
}

void lb_put_u32(struct lb_buf *buf, uint32_t v) {
    put_le(buf, v, 4);
}

void lb_put_u64(struct lb_buf *buf, uint64_t v) {
    put_le(buf, v, 8);
}

void lb_put_f32(struct lb_buf *buf, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_le(buf, bits, 4);
}

void lb_put_f64(struct lb_buf *buf, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_le(buf, bits, 8);
}
