#include "tests/support/daemon.h"

#include "common/base/clock.h"
#include "common/base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ARGUMENTS 32
#define PATIENCE_S 30
#define MAX_HEAD (1 << 16)
#define MAX_BODY ((size_t)1 << 30)

/* ---- the process ---- */

static pid_t spawn(const char *log_file, const char *const *arguments) {
    const char *build = getenv("LB_BUILD_ROOT");
    char program[512];
    char *argv[MAX_ARGUMENTS + 2] = {program};
    int n = 1;
    snprintf(program, sizeof program, "%s/server/limbeckd", build ? build : ".");
    for (; *arguments && n <= MAX_ARGUMENTS; arguments++) {
        argv[n++] = (char *)(uintptr_t)*arguments;
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        /* A test that fails or is killed leaves nothing behind. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
            _exit(127);
        }
        int log = open(log_file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dup2(log, STDERR_FILENO);
        dup2(log, STDOUT_FILENO);
        execv(program, argv);
        fprintf(stderr, "%s: %s\n", program, strerror(errno));
        _exit(127);
    }
    return pid;
}

/* Waits for the end; kills when time is up. */
static int reap(pid_t pid) {
    uint64_t until = lb_now_ns() + PATIENCE_S * LB_SECOND_NS;
    int status = 0;
    pid_t r;
    while ((r = waitpid(pid, &status, WNOHANG)) == 0 && lb_now_ns() < until) {
        lb_sleep_ns(2 * LB_MS_NS);
    }
    if (r == 0) {
        fprintf(stderr, "limbeckd didn't end; killed\n");
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return -1;
    }
    return r == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void show_log(const char *path) {
    struct lb_buf text;
    lb_buf_init(&text, 1 << 20);
    if (lb_file_read(path, &text, NULL) == LB_OK && text.data) {
        fprintf(stderr, "--- %s\n%s\n---\n", path, text.data);
    }
    lb_buf_finish(&text);
}

/* The port, or true without one for a UNIX socket. */
static bool read_port_file(struct lb_daemon *daemon) {
    FILE *file = fopen(daemon->port_file, "r");
    if (!file) {
        return false;
    }
    char line[200] = "";
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    if (read && strncmp(line, "unix:", 5) == 0) {
        snprintf(daemon->socket_path, sizeof daemon->socket_path, "%.*s", (int)strcspn(line + 5, "\n"),
                 line + 5);
        return true;
    }
    daemon->port = atoi(line);
    return read && daemon->port > 0;
}

static bool is_ready(const struct lb_daemon *daemon) {
    struct lb_answer answer;
    bool ready =
        lb_daemon_ask(daemon, "GET", "/v2/health/ready", "", NULL, 0, &answer) && answer.status == 200;
    lb_answer_finish(&answer);
    return ready;
}

bool lb_daemon_start(struct lb_daemon *daemon, const char *folder, const char *name,
                     const char *const *arguments, bool ready) {
    const char *all[MAX_ARGUMENTS + 1];
    int n = 0;
    memset(daemon, 0, sizeof *daemon);
    snprintf(daemon->port_file, sizeof daemon->port_file, "%s/%s.port", folder, name);
    snprintf(daemon->log_file, sizeof daemon->log_file, "%s/%s.log", folder, name);
    unlink(daemon->port_file);
    all[n++] = "--port-file";
    all[n++] = daemon->port_file;
    all[n++] = "--listen";
    all[n++] = "127.0.0.1:0";
    while (*arguments && n < MAX_ARGUMENTS) {
        all[n++] = *arguments++;
    }
    all[n] = NULL;
    daemon->pid = spawn(daemon->log_file, all);
    uint64_t until = lb_now_ns() + PATIENCE_S * LB_SECOND_NS;
    while (lb_now_ns() < until && waitpid(daemon->pid, NULL, WNOHANG) == 0) {
        if (read_port_file(daemon) && (!ready || is_ready(daemon))) {
            return true;
        }
        lb_sleep_ns(5 * LB_MS_NS);
    }
    show_log(daemon->log_file);
    kill(daemon->pid, SIGKILL);
    return false;
}

int lb_daemon_stop(struct lb_daemon *daemon, int signal_number) {
    if (signal_number != 0) {
        kill(daemon->pid, signal_number);
    }
    int status = reap(daemon->pid);
    if (status < 0 && signal_number != SIGKILL) {
        show_log(daemon->log_file);
    }
    return status;
}

int lb_daemon_run(const char *folder, const char *name, const char *const *arguments) {
    char log_file[256];
    snprintf(log_file, sizeof log_file, "%s/%s.log", folder, name);
    return reap(spawn(log_file, arguments));
}

bool lb_daemon_logged(const struct lb_daemon *daemon, const char *text) {
    struct lb_buf log;
    lb_buf_init(&log, 16 << 20);
    bool found = lb_file_read(daemon->log_file, &log, NULL) == LB_OK && log.data && strstr(log.data, text);
    lb_buf_finish(&log);
    return found;
}

/* ---- HTTP ---- */

bool lb_daemon_await_log(const struct lb_daemon *daemon, const char *text) {
    uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
    while (!lb_daemon_logged(daemon, text)) {
        if (lb_now_ns() >= until) {
            return false;
        }
        lb_sleep_ns(5 * LB_MS_NS);
    }
    return true;
}

const char *lb_daemon_file(const char *folder, const char *name, const char *text, mode_t mode) {
    static char paths[4][256];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    if (lb_file_replace(path, text, strlen(text), NULL) != LB_OK || chmod(path, mode) != 0) {
        fprintf(stderr, "%s cannot be written\n", path);
        exit(1);
    }
    return path;
}

int lb_daemon_connect(const struct lb_daemon *daemon) {
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)daemon->port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    bool local = daemon->socket_path[0];
    snprintf(un.sun_path, sizeof un.sun_path, "%.100s", daemon->socket_path);
    int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *address = local ? (const struct sockaddr *)&un : (const struct sockaddr *)&in;
    struct timeval patience = {.tv_sec = PATIENCE_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (!local) { /* a head and its body are sent apart: the second would wait to hear of the first */
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (connect(fd, address, local ? sizeof un : sizeof in) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool send_all(int fd, const void *bytes, size_t len) {
    for (size_t at = 0; at < len;) {
        ssize_t n = send(fd, (const char *)bytes + at, len - at, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        at += (size_t)n;
    }
    return true;
}

bool lb_http_send(int fd, const char *method, const char *path, const char *headers, const void *body,
                  size_t len) {
    char head[4096];
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: test\r\nContent-Length: %zu\r\n%s\r\n",
                     method, path, len, headers);
    return n < (int)sizeof head && send_all(fd, head, (size_t)n) && send_all(fd, body, len);
}

bool lb_answer_header(const struct lb_answer *answer, const char *name, char *out, size_t size) {
    size_t len = strlen(name);
    for (const char *line = answer->head.data; line && *line;) {
        const char *end = strstr(line, "\r\n");
        if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
            const char *value = line + len + 1;
            value += strspn(value, " ");
            snprintf(out, size, "%.*s", (int)((end ? end : value + strlen(value)) - value), value);
            return true;
        }
        line = end ? end + 2 : NULL;
    }
    return false;
}

/* Reads until the empty line; what came behind it goes to the body. */
static bool receive_head(int fd, struct lb_answer *answer) {
    char piece[16384];
    const char *end;
    while (!answer->head.data || !(end = strstr(answer->head.data, "\r\n\r\n"))) {
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n <= 0 || lb_buf_append(&answer->head, piece, (size_t)n) != LB_OK) {
            return false;
        }
    }
    size_t head_len = (size_t)(end - answer->head.data) + 4;
    lb_buf_append(&answer->body, answer->head.data + head_len, answer->head.len - head_len);
    answer->head.len = head_len;
    answer->head.data[head_len - 2] = '\0';
    return sscanf(answer->head.data, "HTTP/1.1 %d", &answer->status) == 1;
}

/* What is there of the body as chunks becomes plain; 1: all of it is there, 0: more comes, -1: it is none. */
static int take_chunks(struct lb_buf *raw, size_t *at, struct lb_buf *plain) {
    for (;;) {
        const char *line = raw->data + *at, *end = memmem(line, raw->len - *at, "\r\n", 2);
        char *digits = NULL;
        if (!end) {
            return 0;
        }
        size_t n = strtoull(line, &digits, 16), head = (size_t)(end + 2 - line);
        if (digits != end || digits == line) {
            return -1;
        }
        if (raw->len - *at < head + n + 2) {
            return 0;
        }
        if (memcmp(end + 2 + n, "\r\n", 2) != 0) {
            return -1;
        }
        lb_buf_append(plain, end + 2, n);
        *at += head + n + 2;
        if (n == 0) {
            return 1;
        }
    }
}

static bool receive_chunks(int fd, struct lb_answer *answer) {
    struct lb_buf raw = answer->body;
    char piece[16384];
    size_t at = 0;
    int r;
    lb_buf_init(&answer->body, MAX_BODY);
    while ((r = raw.data ? take_chunks(&raw, &at, &answer->body) : 0) == 0) {
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n <= 0 || lb_buf_append(&raw, piece, (size_t)n) != LB_OK) {
            r = -1;
            break;
        }
    }
    lb_buf_finish(&raw);
    return r == 1;
}

bool lb_http_receive(int fd, struct lb_answer *answer) {
    char text[32];
    memset(answer, 0, sizeof *answer);
    lb_buf_init(&answer->head, MAX_HEAD);
    lb_buf_init(&answer->body, MAX_BODY);
    if (!receive_head(fd, answer)) {
        answer->status = 0;
        return false;
    }
    if (lb_answer_header(answer, "Transfer-Encoding", text, sizeof text)) {
        bool whole = strcmp(text, "chunked") == 0 && receive_chunks(fd, answer);
        answer->status = whole ? answer->status : 0;
        return whole;
    }
    size_t length =
        lb_answer_header(answer, "Content-Length", text, sizeof text) ? strtoull(text, NULL, 10) : 0;
    while (answer->body.len < length) {
        size_t have = answer->body.len;
        char *room = lb_buf_extend(&answer->body, length - have);
        ssize_t n = room ? recv(fd, room, length - have, 0) : -1;
        answer->body.len = have + (n > 0 ? (size_t)n : 0);
        if (n <= 0) {
            answer->status = 0;
            return false;
        }
    }
    return true;
}

bool lb_daemon_ask(const struct lb_daemon *daemon, const char *method, const char *path, const char *headers,
                   const void *body, size_t len, struct lb_answer *answer) {
    memset(answer, 0, sizeof *answer);
    int fd = lb_daemon_connect(daemon);
    if (fd < 0) {
        return false;
    }
    bool ok = lb_http_send(fd, method, path, headers, body, len);
    ok = lb_http_receive(fd, answer) && ok;
    close(fd);
    return ok;
}

void lb_answer_finish(struct lb_answer *answer) {
    lb_buf_finish(&answer->head);
    lb_buf_finish(&answer->body);
}

int lb_daemon_status(const struct lb_daemon *daemon, const char *method, const char *path,
                     const char *headers) {
    struct lb_answer answer;
    lb_daemon_ask(daemon, method, path, headers, NULL, 0, &answer);
    int status = answer.status;
    lb_answer_finish(&answer);
    return status;
}
