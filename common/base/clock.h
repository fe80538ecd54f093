/* Time: monotonic nanoseconds for durations and deadlines, wall-clock seconds for logs. */
#ifndef LB_BASE_CLOCK_H
#define LB_BASE_CLOCK_H

#include <stdint.h>

#define LB_MS_NS 1000000ull
#define LB_SECOND_NS 1000000000ull

/* Monotonic clock, nanoseconds; never 0. */
uint64_t lb_now_ns(void);
/* Wall clock, seconds since 1970. */
double lb_unix_seconds(void);
void lb_sleep_ns(uint64_t ns);

#endif
