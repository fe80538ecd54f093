#include "common/base/clock.h"

#include <errno.h>
#include <time.h>

uint64_t lb_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t ns = (uint64_t)t.tv_sec * LB_SECOND_NS + (uint64_t)t.tv_nsec;
    return ns != 0 ? ns : 1; /* 0 means "no deadline" to callers */
}

double lb_unix_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void lb_sleep_ns(uint64_t ns) {
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    uint64_t nsec = (uint64_t)end.tv_nsec + ns % LB_SECOND_NS;
    end.tv_sec += (time_t)(ns / LB_SECOND_NS + nsec / LB_SECOND_NS);
    end.tv_nsec = (long)(nsec % LB_SECOND_NS);
    /* An absolute end: a signal does not lengthen the sleep. */
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) {
    }
}
