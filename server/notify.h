/* What a service tells the init system that started it, by systemd's protocol (sd_notify(3)) and without its
 * library: states as datagrams to the socket that $NOTIFY_SOCKET names. Nothing is sent where nobody asked.
 * Any thread. */
#ifndef LB_SERVER_NOTIFY_H
#define LB_SERVER_NOTIFY_H

#include <stdint.h>

/* Sends a state: "READY=1", "STOPPING=1", "WATCHDOG=1"; several, a line each. */
void lb_notify(const char *state);
/* Files are about to be read anew; READY=1 says that it is done. */
void lb_notify_reloading(void);
/* How often WATCHDOG=1 is wanted at least, nanoseconds; 0: never. */
uint64_t lb_notify_watchdog_ns(void);

#endif
