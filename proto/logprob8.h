/* Log-probabilities in 8 bits: PROTOCOL.md "Log-probabilities as UINT8".
 *
 * Code c says -32 (c / 255)^2: steps are narrow where the probability is large. A log-probability l from -32
 * to 0 moves by at most 0.0222 sqrt(-l) + 0.0002; what is less becomes -32. Pure: any thread.
 */
#ifndef LB_PROTO_LOGPROB8_H
#define LB_PROTO_LOGPROB8_H

#include <stdint.h>

#define LB_LOGPROB8_LEAST (-32.0f)

/* The code nearest in the square root. Above 0 it is 0's; NaN is told as the least. */
uint8_t lb_logprob8_from(float logprob);
float lb_logprob8_to(uint8_t code);

#endif
