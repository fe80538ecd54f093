#include "tests/e2e/hosts.h"

#include "common/base/mem.h"
#include "tests/support/daemon.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct host {
    struct lb_daemon daemon;
    char url[160];
};

struct host *host_start(const char *folder, const char *name, const char *model, const char *listen) {
    struct host *host = lb_calloc(1, sizeof *host);
    char served[256];
    snprintf(served, sizeof served, "tiny=%s", model);
    const char *arguments[] = {served, "--threads", "1", listen ? "--listen" : NULL, listen, NULL};
    if (!host || !lb_daemon_start(&host->daemon, folder, name, arguments, true)) {
        abort();
    }
    if (*host->daemon.socket_path) {
        snprintf(host->url, sizeof host->url, "unix:%s", host->daemon.socket_path);
    } else {
        snprintf(host->url, sizeof host->url, "http://127.0.0.1:%d", host->daemon.port);
    }
    return host;
}

const char *host_url(const struct host *host) {
    return host->url;
}

int host_port(const struct host *host) {
    return host->daemon.port;
}

void host_kill(struct host *host) {
    if (host) {
        lb_daemon_stop(&host->daemon, SIGKILL);
        lb_free(host);
    }
}
