/* limbeckd as a service of an init system: what it tells systemd, and sockets that it is handed. Each test
 * has a daemon of its own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "tests/support/daemon.h"
#include "tests/support/tiny_model.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static char folder[] = "/tmp/limbeck-service-XXXXXX";
static char teacher[224];

/* ---- what it tells ---- */

static socklen_t address_of(const char *name, struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t len = strlen(name);
    assert_true(len < sizeof address->sun_path);
    memcpy(address->sun_path, name, len);
    address->sun_path[0] = name[0] == '@' ? '\0' : name[0];
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

/* A socket as systemd's, which $NOTIFY_SOCKET names; '@': a name without a file. */
static int be_init(const char *name) {
    struct sockaddr_un address;
    struct timeval patience = {.tv_sec = 20};
    socklen_t len = address_of(name, &address);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, len), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

/* What it says next; "" when it says nothing for 20 seconds. */
static const char *said(int fd) {
    static char text[256];
    ssize_t n = recv(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

/* Says so much to it that no more fits in. */
static void fill(const char *name) {
    struct sockaddr_un address;
    socklen_t len = address_of(name, &address);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    while (sendto(fd, "x", 1, 0, (const struct sockaddr *)&address, len) == 1) {
    }
    assert_int_equal(errno, EAGAIN);
    close(fd);
}

static void test_states(void **state) {
    (void)state;
    struct lb_daemon daemon;
    char name[128];
    for (int file = 0; file < 2; file++) {
        snprintf(name, sizeof name, file ? "%s/notify" : "@%s/notify", folder);
        int init = be_init(name);
        assert_true(lb_daemon_start(&daemon, folder, "states", (const char *[]){teacher, NULL}, true));
        assert_string_equal(said(init), "READY=1");
        uint64_t before = lb_now_ns() / 1000;
        kill(daemon.pid, SIGHUP);
        const char *reloading = said(init);
        assert_memory_equal(reloading, "RELOADING=1\nMONOTONIC_USEC=", 27);
        assert_in_range(strtoull(reloading + 27, NULL, 10), before, lb_now_ns() / 1000);
        assert_string_equal(said(init), "READY=1");
        kill(daemon.pid, SIGTERM);
        assert_string_equal(said(init), "STOPPING=1");
        assert_int_equal(lb_daemon_stop(&daemon, 0), 0);
        close(init);
    }
    unsetenv("NOTIFY_SOCKET");
}

/* A model that can't be opened: never ready. Nobody there to listen: no matter. */
static void test_never_ready(void **state) {
    (void)state;
    char name[128];
    snprintf(name, sizeof name, "%s/never", folder);
    int init = be_init(name);
    assert_int_equal(
        lb_daemon_run(folder, "never", (const char *[]){"--listen", "127.0.0.1:0", "t=/nonexistent", NULL}),
        1);
    assert_string_equal(said(init), "STOPPING=1");
    close(init);
    struct lb_daemon daemon;
    assert_true(lb_daemon_start(&daemon, folder, "unheard", (const char *[]){teacher, NULL}, true));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    unsetenv("NOTIFY_SOCKET");
}

/* As long as nothing is stuck; who does not listen holds up nothing. */
static void test_watchdog(void **state) {
    (void)state;
    char name[128];
    struct lb_daemon daemon;
    snprintf(name, sizeof name, "%s/watchdog", folder);
    int init = be_init(name);
    setenv("WATCHDOG_USEC", "40000", 1);
    assert_true(lb_daemon_start(&daemon, folder, "watchdog", (const char *[]){teacher, NULL}, true));
    int heard = 0;
    for (uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS; heard < 5; heard++) {
        while (strcmp(said(init), "WATCHDOG=1") != 0) {
            assert_true(lb_now_ns() < until);
        }
    }
    fill(name);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    close(init);
    /* Another process's. */
    snprintf(name, sizeof name, "%s/no-watchdog", folder);
    init = be_init(name);
    setenv("WATCHDOG_PID", "1", 1);
    assert_true(lb_daemon_start(&daemon, folder, "watchdog", (const char *[]){teacher, NULL}, true));
    assert_string_equal(said(init), "READY=1");
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_string_equal(said(init), "STOPPING=1");
    close(init);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    unsetenv("NOTIFY_SOCKET");
}

/* ---- what it is handed ---- */

/* Starts limbeckd with these sockets as file descriptors from 3 on, as an init system does. */
static void start_with(struct lb_daemon *daemon, const char *name, const int *fds, int n, bool for_us,
                       const char *const *arguments) {
    const char *build = getenv("LB_BUILD_ROOT");
    char program[512];
    char *argv[16] = {program};
    memset(daemon, 0, sizeof *daemon);
    snprintf(daemon->log_file, sizeof daemon->log_file, "%s/%s.log", folder, name);
    snprintf(program, sizeof program, "%s/server/limbeckd", build ? build : ".");
    for (int i = 1; i < 15 && arguments[i - 1]; i++) {
        argv[i] = (char *)(uintptr_t)arguments[i - 1];
    }
    pid_t parent = getpid();
    daemon->pid = fork();
    if (daemon->pid == 0) {
        char text[16];
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
            _exit(127);
        }
        int log = open(daemon->log_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        dup2(log, STDERR_FILENO);
        for (int i = 0; i < n; i++) { /* the sockets are numbered above all of these */
            dup2(fds[i], 3 + i);
        }
        snprintf(text, sizeof text, "%d", n);
        setenv("LISTEN_FDS", text, 1);
        snprintf(text, sizeof text, "%d", for_us ? (int)getpid() : 1);
        setenv("LISTEN_PID", text, 1);
        execv(program, argv);
        _exit(127);
    }
}

static int above(int fd) {
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 20);
    close(fd);
    assert_true(high >= 20);
    return high;
}

static int tcp_socket(bool listening, int *port) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof in;
    int fd = above(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    assert_int_equal(bind(fd, (const struct sockaddr *)&in, sizeof in), 0);
    assert_true(!listening || listen(fd, 16) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    *port = ntohs(in.sin_port);
    return fd;
}

/* A socket is there before the daemon and after it: who connects meanwhile waits. */
static void test_handed_over(void **state) {
    (void)state;
    struct lb_daemon daemon;
    struct lb_answer answer;
    int port = 0, fd = tcp_socket(true, &port);
    daemon.port = port;
    daemon.socket_path[0] = '\0';
    int early = lb_daemon_connect(&daemon);
    assert_true(lb_http_send(early, "GET", "/v2/health/live", "", NULL, 0));
    start_with(&daemon, "tcp", &fd, 1, true, (const char *[]){teacher, NULL});
    daemon.port = port;
    assert_true(lb_http_receive(early, &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    close(early);
    assert_true(lb_daemon_await_log(&daemon, " ready"));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher", ""), 200);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    int late = lb_daemon_connect(&daemon);
    assert_true(late >= 0);
    close(late);
    close(fd);
    /* A socket file stays, too. */
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%.80s/handed.sock", folder);
    fd = above(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    assert_int_equal(bind(fd, (const struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(listen(fd, 16), 0);
    start_with(&daemon, "unix", &fd, 1, true, (const char *[]){teacher, NULL});
    snprintf(daemon.socket_path, sizeof daemon.socket_path, "%.100s", un.sun_path);
    assert_true(lb_daemon_await_log(&daemon, " ready"));
    assert_true(lb_daemon_logged(&daemon, "/handed.sock"));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher", ""), 200);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_int_equal(access(un.sun_path, F_OK), 0);
    close(fd);
}

static void refused_with(const int *fds, int n, const char *const *arguments, const char *why) {
    struct lb_daemon daemon;
    start_with(&daemon, "refused", fds, n, true, arguments);
    assert_int_equal(lb_daemon_stop(&daemon, 0), 1);
    assert_true(lb_daemon_logged(&daemon, why));
}

static void test_not_handed_over(void **state) {
    (void)state;
    struct lb_daemon daemon;
    int port = 0, fds[2] = {tcp_socket(true, &port), tcp_socket(true, &port)},
        deaf = tcp_socket(false, &port), pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pipes[0] = above(pipes[0]);
    refused_with(fds, 2, (const char *[]){teacher, NULL},
                 "2 sockets were handed over, and limbeckd takes one");
    refused_with(fds, 1, (const char *[]){teacher, "--listen", "127.0.0.1:0", NULL}, "leave one of them out");
    refused_with(&deaf, 1, (const char *[]){teacher, NULL}, "no listening stream socket");
    refused_with(&pipes[0], 1, (const char *[]){teacher, NULL}, "no listening stream socket");
    /* Another process's, left in the environment. */
    start_with(&daemon, "others", fds, 2, false, (const char *[]){teacher, "--listen", "127.0.0.1:0", NULL});
    assert_true(lb_daemon_await_log(&daemon, " ready"));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    close(pipes[0]);
    close(pipes[1]);
    close(deaf);
    close(fds[0]);
    close(fds[1]);
}

/* ---- where it runs ---- */

/* On one processor one thread computes, and a line says why; OMP_NUM_THREADS and --threads say otherwise. */
static void test_processors(void **state) {
    (void)state;
    struct lb_daemon daemon;
    cpu_set_t before, one;
    char threads[16] = "";
    const char *given = getenv("OMP_NUM_THREADS");
    snprintf(threads, sizeof threads, "%s", given ? given : "");
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &before)) {
            CPU_SET(i, &one);
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    unsetenv("OMP_NUM_THREADS");
    assert_true(lb_daemon_start(&daemon, folder, "one", (const char *[]){teacher, NULL}, true));
    assert_true(lb_daemon_logged(&daemon, " processors usable=1 affinity=1 cgroup_quota="));
    assert_true(lb_daemon_logged(&daemon, ", 1 threads\""));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_true(
        lb_daemon_start(&daemon, folder, "two", (const char *[]){"--threads", "2", teacher, NULL}, true));
    assert_true(lb_daemon_logged(&daemon, ", 2 threads\""));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    setenv("OMP_NUM_THREADS", "3", 1);
    assert_true(lb_daemon_start(&daemon, folder, "three", (const char *[]){teacher, NULL}, true));
    assert_true(lb_daemon_logged(&daemon, ", 3 threads\""));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    sched_setaffinity(0, sizeof before, &before);
    if (threads[0]) {
        setenv("OMP_NUM_THREADS", threads, 1);
    } else {
        unsetenv("OMP_NUM_THREADS");
    }
}

/* ---- its end ---- */

/* A request that never becomes whole holds up the end no longer than is said. */
static void test_drain_limit(void **state) {
    (void)state;
    static const char head[] = "POST /v2/models/teacher/infer HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                               "Content-Length: 90\r\n\r\n";
    struct lb_daemon daemon;
    char heard[64];
    assert_true(lb_daemon_start(&daemon, folder, "drain",
                                (const char *[]){"--drain-seconds", "1", teacher, NULL}, true));
    int fd = lb_daemon_connect(&daemon);
    assert_int_equal(write(fd, head, sizeof head - 1), sizeof head - 1);
    assert_true(read(fd, heard, sizeof heard) > 0);
    uint64_t begun = lb_now_ns();
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_in_range(lb_now_ns() - begun, LB_SECOND_NS,
                    10 * LB_SECOND_NS); /* one, and a busy machine's rest */
    assert_true(lb_daemon_logged(&daemon, " answers_cut_short requests=1"));
    close(fd);
}

/* What one that was killed left behind misleads nobody. */
static void test_after_kill(void **state) {
    (void)state;
    struct lb_daemon daemon;
    assert_true(lb_daemon_start(&daemon, folder, "killed", (const char *[]){teacher, NULL}, true));
    assert_int_equal(lb_daemon_stop(&daemon, SIGKILL), -1);
    assert_int_equal(access(daemon.port_file, F_OK), 0);
    assert_int_equal(lb_daemon_run(folder, "next",
                                   (const char *[]){"--listen", "127.0.0.1:0", "--port-file",
                                                    daemon.port_file, "t=/nonexistent", NULL}),
                     1);
    assert_int_equal(access(daemon.port_file, F_OK), -1);
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    char path[192];
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 1, path, LB_F32, true);
    snprintf(teacher, sizeof teacher, "teacher=%s", path);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),          cmocka_unit_test(test_never_ready),
        cmocka_unit_test(test_watchdog),        cmocka_unit_test(test_handed_over),
        cmocka_unit_test(test_not_handed_over), cmocka_unit_test(test_processors),
        cmocka_unit_test(test_drain_limit),     cmocka_unit_test(test_after_kill),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
