/* Floats of 16 bits: f16 (IEEE's) and bf16 (the upper half of an FP32). Rows of them may begin at any byte.
 */
#ifndef LB_NN_HALF_H
#define LB_NN_HALF_H

#include <stdint.h>

float lb_f16_to_f32(uint16_t h);
/* Round to nearest even; overflow becomes infinity. */
uint16_t lb_f32_to_f16(float f);
float lb_bf16_to_f32(uint16_t h);
uint16_t lb_f32_to_bf16(float f);

/* dst[n] = src[n]. */
void lb_f16_row(const uint16_t *src, float *dst, int64_t n);
void lb_f16_row_from(const float *src, uint16_t *dst, int64_t n);
void lb_bf16_row(const uint16_t *src, float *dst, int64_t n);
void lb_bf16_row_from(const float *src, uint16_t *dst, int64_t n);

#endif
