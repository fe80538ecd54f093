#include "server/notify.h"

#include "common/base/clock.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

void lb_notify(const char *state) {
    const char *where = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = where ? strlen(where) : 0;
    if (len < 2 || len >= sizeof address.sun_path || (where[0] != '/' && where[0] != '@')) {
        return;
    }
    memcpy(address.sun_path, where, len);
    if (where[0] == '@') {
        address.sun_path[0] = '\0'; /* no file: a name of the kernel's */
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 1}; /* with who asked and does not listen */
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        /* Who asked and is gone by now misses nothing. */
        (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
        close(fd);
    }
}

void lb_notify_reloading(void) {
    char state[80];
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, lb_now_ns() / 1000);
    lb_notify(state);
}

uint64_t lb_notify_watchdog_ns(void) {
    const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!us || (pid && strtol(pid, NULL, 10) != getpid())) {
        return 0;
    }
    return strtoull(us, NULL, 10) * 1000;
}
