#include "trainer/teachers/local.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/sha256.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Names of the folders in the temporary one, and of the lock in each. */
#define PREFIX "limbeck-local-"
#define LOCK "lock"
#define MAX_LOG_TAIL 4096
#define STOP_SECONDS 5

extern char **environ;

struct lb_local {
    char *name, *dir, *log_path, *port_file, *token_file;
    char url[64], token[65];
    pthread_mutex_t lock; /* of the two below */
    pid_t pid;            /* 0: not started, or waited for */
    int exit_status;
    bool ended;
    int lock_fd; /* on a file in dir, while this process lives; -1: none */
};

/* ---- the program ---- */

static char *try_program(const char *dir, size_t dir_len, const char *below) {
    size_t size = dir_len + strlen(below) + 2;
    char *path = lb_malloc_array(size, 1);
    if (path) {
        snprintf(path, size, "%.*s/%s", (int)dir_len, dir, below);
        if (!access(path, X_OK) && !lb_is_dir(path)) {
            return path;
        }
    }
    lb_free(path);
    return NULL;
}

static char *find_program(void) {
    static const char *const places[] = {"limbeckd", "../server/limbeckd", "../../server/limbeckd"};
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self);
    if (n > 0 && (size_t)n < sizeof self) {
        size_t dir_len = (size_t)n;
        while (dir_len && self[dir_len - 1] != '/') {
            dir_len--;
        }
        for (size_t i = 0; dir_len && i < sizeof places / sizeof *places; i++) {
            char *found = try_program(self, dir_len - 1, places[i]);
            if (found) {
                return found;
            }
        }
    }
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t len = strcspn(path, ":");
        char *found = len ? try_program(path, len, "limbeckd") : NULL;
        if (found) {
            return found;
        }
        path += len + (path[len] == ':');
    }
    return NULL;
}

/* ---- its files ---- */

static enum lb_status write_token(struct lb_local *local, struct lb_detail *detail) {
    uint8_t bytes[32];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        return lb_fail_errno(detail, LB_E_IO, errno, "teacher %s: no random bytes for a token", local->name);
    }
    lb_hex(bytes, sizeof bytes, local->token);
    int fd = open(local->token_file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t len = strlen(local->token);
    bool ok = fd >= 0 && write(fd, local->token, len) == (ssize_t)len && write(fd, "\n", 1) == 1;
    int error = errno;
    if (fd >= 0) {
        close(fd);
    }
    return ok ? LB_OK : lb_fail_errno(detail, LB_E_IO, error, "%s", local->token_file);
}

/* Removes folders of trainers that were killed: nobody holds their lock any more. */
static void sweep(const char *temp) {
    DIR *d = opendir(temp);
    for (const struct dirent *entry; d && (entry = readdir(d));) {
        struct stat st;
        char *dir = strncmp(entry->d_name, PREFIX, strlen(PREFIX)) ? NULL : lb_path_join(temp, entry->d_name);
        char *lock = dir ? lb_path_join(dir, LOCK) : NULL;
        int fd = -1;
        if (lock && !lstat(dir, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
            lb_file_exists(lock) && lb_lock_file(lock, &fd, NULL) == LB_OK) {
            enum lb_status ignored = lb_remove_tree(dir, NULL);
            (void)ignored;
            lb_unlock_file(fd);
        }
        lb_free(lock);
        lb_free(dir);
    }
    if (d) {
        closedir(d);
    }
}

static enum lb_status make_files(struct lb_local *local, const char *log_path, struct lb_detail *detail) {
    const char *temp = getenv("TMPDIR");
    temp = temp && *temp ? temp : "/tmp";
    sweep(temp);
    local->dir = lb_path_join(temp, PREFIX "XXXXXX");
    if (!local->dir) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a local teacher");
    }
    if (!mkdtemp(local->dir)) { /* only its owner may enter */
        enum lb_status status =
            lb_fail_errno(detail, LB_E_IO, errno, "cannot make the folder %s", local->dir);
        lb_free(local->dir);
        local->dir = NULL;
        return status;
    }
    char *lock = lb_path_join(local->dir, LOCK);
    enum lb_status locked = lock ? lb_lock_file(lock, &local->lock_fd, detail) : LB_E_NOMEM;
    lb_free(lock);
    if (locked != LB_OK) {
        return lb_fail(detail, locked, "out of memory for a local teacher");
    }
    local->port_file = lb_path_join(local->dir, "port");
    local->token_file = lb_path_join(local->dir, "token");
    local->log_path = log_path ? lb_strdup(log_path) : lb_path_join(local->dir, "log");
    if (!local->port_file || !local->token_file || !local->log_path) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a local teacher");
    }
    return write_token(local, detail);
}

/* The last line of the log with something on it. */
static void last_line(const struct lb_local *local, char *out, size_t size) {
    char tail[MAX_LOG_TAIL + 1];
    ssize_t n = 0;
    int fd = open(local->log_path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        off_t end = lseek(fd, 0, SEEK_END);
        n = end < 0 ? -1 : pread(fd, tail, MAX_LOG_TAIL, end > MAX_LOG_TAIL ? end - MAX_LOG_TAIL : 0);
        close(fd);
    }
    n = n < 0 ? 0 : n;
    while (n > 0 && strchr(" \t\r\n", tail[n - 1])) {
        n--;
    }
    tail[n] = 0;
    char *line = strrchr(tail, '\n');
    snprintf(out, size, "%.*s", (int)size - 1, line ? line + 1 : *tail ? tail : "it said nothing");
}

/* ---- starting ---- */

/* The environment, with threads that sleep while they wait: daemon and trainer share the cores. NULL: out of
 * memory. */
static char **make_environment(void) {
    static char passive[] = "OMP_WAIT_POLICY=passive";
    size_t n = 0;
    while (environ[n]) {
        n++;
    }
    char **copy = lb_calloc(n + 2, sizeof *copy);
    if (copy) {
        memcpy(copy, environ, n * sizeof *copy);
        copy[n] = getenv("OMP_WAIT_POLICY") ? NULL : passive;
    }
    return copy;
}

/* In the child: only calls that are safe after fork. */
static void run_child(const struct lb_local *local, const char *program, char *const *argv, char **env,
                      pid_t parent) {
    int log = open(local->log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int null = open("/dev/null", O_RDWR);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (log >= 0 && null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
    }
    setpgid(0, 0); /* Ctrl-C is for the trainer, who then ends the daemon */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(127); /* the parent died before the line above */
    }
    execve(program, argv, env);
    _exit(127);
}

static enum lb_status spawn(struct lb_local *local, const char *path, struct lb_detail *detail) {
    char *program = find_program();
    char **env = make_environment();
    size_t size = strlen(path) + sizeof "teacher=";
    char *model = lb_malloc_array(size, 1);
    enum lb_status status = LB_OK;
    if (!program) {
        status = lb_fail(detail, LB_E_NOTFOUND,
                         "teacher %s: no limbeckd beside this program or in PATH, and local: needs one",
                         local->name);
    } else if (!env || !model) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for a local teacher");
    } else {
        snprintf(model, size, "teacher=%s", path);
        char *argv[] = {program,
                        model,
                        (char *)(uintptr_t) "--listen",
                        (char *)(uintptr_t) "127.0.0.1:0",
                        (char *)(uintptr_t) "--port-file",
                        local->port_file,
                        (char *)(uintptr_t) "--token-file",
                        local->token_file,
                        NULL};
        pid_t parent = getpid(), pid = fork();
        if (pid == 0) {
            run_child(local, program, argv, env, parent);
        }
        if (pid < 0) {
            status =
                lb_fail_errno(detail, LB_E_IO, errno, "teacher %s: cannot start %s", local->name, program);
        } else {
            local->pid = pid;
        }
    }
    lb_free(program);
    lb_free(env);
    lb_free(model);
    return status;
}

enum lb_status lb_local_start(const char *name, const char *path, const char *log_path, struct lb_local **out,
                              struct lb_detail *detail) {
    struct lb_local *local = lb_calloc(1, sizeof *local);
    if (!local) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a local teacher");
    }
    local->lock_fd = -1;
    pthread_mutex_init(&local->lock, NULL);
    local->name = lb_strdup(name);
    enum lb_status status = LB_OK;
    if (!local->name) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for a local teacher");
    } else if (!lb_file_exists(path)) {
        status = lb_fail(detail, LB_E_NOTFOUND, "teacher %s: there is no model at %s", name, path);
    }
    status = status != LB_OK ? status : make_files(local, log_path, detail);
    status = status != LB_OK ? status : spawn(local, path, detail);
    if (status != LB_OK) {
        lb_local_stop(local);
        return status;
    }
    *out = local;
    return LB_OK;
}

enum lb_status lb_local_check(struct lb_local *local, struct lb_detail *detail) {
    pthread_mutex_lock(&local->lock);
    if (!local->ended && waitpid(local->pid, &local->exit_status, WNOHANG) == local->pid) {
        local->ended = true;
    }
    bool ended = local->ended;
    int how = local->exit_status;
    pthread_mutex_unlock(&local->lock);
    if (!ended) {
        return LB_OK;
    }
    char line[400];
    last_line(local, line, sizeof line);
    return lb_fail(detail, LB_E_UNAVAILABLE, "teacher %s: its limbeckd ended (%s %d): %s", local->name,
                   WIFSIGNALED(how) ? "signal" : "status",
                   WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how), line);
}

/* The port in the file, 0 while there is none. */
static long read_port(const struct lb_local *local) {
    struct lb_buf buf;
    long port = 0;
    lb_buf_init(&buf, 64);
    if (lb_file_exists(local->port_file) && !lb_file_read(local->port_file, &buf, NULL) && buf.len) {
        port = strtol(buf.data, NULL, 10);
    }
    lb_buf_finish(&buf);
    return port > 0 && port < 65536 ? port : 0;
}

enum lb_status lb_local_wait(struct lb_local *local, volatile sig_atomic_t *stop, struct lb_detail *detail) {
    for (;;) {
        long port = read_port(local);
        if (port) {
            snprintf(local->url, sizeof local->url, "http://127.0.0.1:%ld", port);
            return LB_OK;
        }
        enum lb_status status = lb_local_check(local, detail);
        if (status != LB_OK) {
            return status;
        }
        if (stop && *stop) {
            return lb_fail(detail, LB_E_CANCELLED, "stopped while teacher %s was being loaded", local->name);
        }
        lb_sleep_ns(10 * LB_MS_NS);
    }
}

const char *lb_local_url(const struct lb_local *local) {
    return local->url;
}

pid_t lb_local_pid(const struct lb_local *local) {
    return local->pid;
}

const char *lb_local_token(const struct lb_local *local) {
    return local->token;
}

void lb_local_stop(struct lb_local *local) {
    if (!local) {
        return;
    }
    if (local->pid > 0 && !local->ended) {
        kill(local->pid, SIGTERM);
        uint64_t until = lb_now_ns() + STOP_SECONDS * LB_SECOND_NS;
        while (waitpid(local->pid, &local->exit_status, WNOHANG) == 0) {
            if (lb_now_ns() > until) {
                kill(local->pid, SIGKILL);
                waitpid(local->pid, &local->exit_status, 0);
                break;
            }
            lb_sleep_ns(5 * LB_MS_NS);
        }
    }
    if (local->dir && lb_remove_tree(local->dir, NULL)) {
        /* a file in the system's temporary folder is left; the next trainer sweeps it */
    }
    if (local->lock_fd >= 0) {
        lb_unlock_file(local->lock_fd);
    }
    lb_free(local->name);
    lb_free(local->dir);
    lb_free(local->log_path);
    lb_free(local->port_file);
    lb_free(local->token_file);
    pthread_mutex_destroy(&local->lock);
    lb_free(local);
}
