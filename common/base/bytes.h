/* Little-endian reading with a sticky error: read many fields, check once. A failed read yields zero.
 * Writing goes through struct lb_buf with the put functions.
 */
#ifndef LB_BASE_BYTES_H
#define LB_BASE_BYTES_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct lb_reader {
    const uint8_t *data;
    size_t len;
    size_t pos;
    bool failed; /* a read went past the end; pos stays where it happened */
};

void lb_reader_init(struct lb_reader *reader, const void *data, size_t len);
uint8_t lb_read_u8(struct lb_reader *reader);
uint16_t lb_read_u16(struct lb_reader *reader);
uint32_t lb_read_u32(struct lb_reader *reader);
uint64_t lb_read_u64(struct lb_reader *reader);
float lb_read_f32(struct lb_reader *reader);
double lb_read_f64(struct lb_reader *reader);
/* The next len bytes in place, or NULL past the end. */
const void *lb_read_span(struct lb_reader *reader, size_t len);
size_t lb_reader_left(const struct lb_reader *reader);

void lb_put_u8(struct lb_buf *buf, uint8_t v);
void lb_put_u16(struct lb_buf *buf, uint16_t v);
void lb_put_u32(struct lb_buf *buf, uint32_t v);
void lb_put_u64(struct lb_buf *buf, uint64_t v);
void lb_put_f32(struct lb_buf *buf, float v);
void lb_put_f64(struct lb_buf *buf, double v);

#endif
