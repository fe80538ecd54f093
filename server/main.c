/* limbeckd: the daemon that hosts teacher models. Start, signals, end; the only place that exits. */
#include "common/base/cgroup.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/nn/gemm.h"
#include "server/notify.h"
#include "server/options.h"
#include "server/server.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define SAME_SIGNAL_NS (300 * LB_MS_NS)
/* For the last lines of the log, when standard error is read at all. */
#define FLUSH_MS 500
/* Larger blocks are mapped one by one, so that they go back to the system when they are freed. */
#define MAP_FROM (256 << 10)

/* OpenBLAS maps a buffer of 128 MiB for each thread as soon as it is loaded, and tries for ever where ulimit
 * -v has no room for it. So this runs before any library begins. */
#define BLAS_BYTES ((rlim_t)128 << 20)
#define LEAST_BYTES ((rlim_t)192 << 20)
static void refuse_little_room(void) {
    static const char text[] =
        "limbeckd: ulimit -v is too small: each thread needs 128 MiB of address space, and the "
        "program 320 MiB; raise it, or give fewer processors (taskset)\n";
    struct rlimit limit;
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < LEAST_BYTES + BLAS_BYTES * (rlim_t)(n + 1)) {
        (void)!write(STDERR_FILENO, text, sizeof text - 1);
        _exit(1);
    }
}
__attribute__((section(".preinit_array"),
               used)) static void (*const before_libraries)(void) = refuse_little_room;

/* Files are mapped: where one is cut short under us, reading it is SIGBUS, and nothing can be served in its
 * place. Whoever did it is told before the process ends of it. */
static const char cut_text[] = "limbeckd: a model's file was cut short, or could not be read, while it was "
                               "served; replace files by renaming others to their place\n",
                  cut_json[] =
                      "{\"level\":\"error\",\"event\":\"failed\",\"reason\":\"a model's file was cut "
                      "short, or could not be read, while it was served; replace files by renaming "
                      "others to their place\"}\n";
static bool cut_as_json;
static void on_cut_file(int number) {
    (void)!write(STDERR_FILENO, cut_as_json ? cut_json : cut_text,
                 (cut_as_json ? sizeof cut_json : sizeof cut_text) - 1);
    signal(number, SIG_DFL); /* the same read again ends the process */
}

/* Why main wakes up. */
struct wake {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;   /* a signal came */
    bool reload; /* SIGHUP came */
    bool ready;  /* all models were tried */
    bool failed; /* no use without that model */
    struct lb_detail detail;
    struct lb_server *server; /* while it serves */
};

static void signals_of_ours(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

static void block_signals(void) {
    sigset_t set;
    signals_of_ours(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void wake_main(struct wake *wake, bool *why) {
    pthread_mutex_lock(&wake->lock);
    *why = true;
    pthread_cond_signal(&wake->changed);
    pthread_mutex_unlock(&wake->lock);
}

/* The next signal, by sigwait's number; 0 when the init system wants to hear from us first. */
static int next_signal(const sigset_t *set, uint64_t within_ns) {
    struct timespec within = {.tv_sec = (time_t)(within_ns / LB_SECOND_NS),
                              .tv_nsec = (long)(within_ns % LB_SECOND_NS)};
    int number = within_ns > 0 ? sigtimedwait(set, NULL, &within) : sigwaitinfo(set, NULL);
    return number > 0 ? number : 0;
}

/* Says that we live: not while something is stuck. */
static void tell_watchdog(struct wake *wake) {
    pthread_mutex_lock(&wake->lock);
    if (wake->server) {
        lb_server_touch(wake->server);
    }
    pthread_mutex_unlock(&wake->lock);
    lb_notify("WATCHDOG=1");
}

/* SIGHUP asks main to read files anew. The first other signal asks it to drain, a later one ends the process.
 * Those right behind the first are the same one: timeout(1), for one, signals the process and its group. */
static void *watch_signals(void *argument) {
    struct wake *wake = argument;
    uint64_t first_ns = 0, watchdog_ns = lb_notify_watchdog_ns() / 2;
    sigset_t set;
    signals_of_ours(&set);
    for (;;) {
        int number = next_signal(&set, watchdog_ns);
        if (watchdog_ns > 0) {
            tell_watchdog(wake);
        }
        if (number == SIGHUP) {
            wake_main(wake, &wake->reload);
        }
        uint64_t now = lb_now_ns();
        bool again = first_ns != 0;
        if (number == 0 || number == SIGHUP || (again && now - first_ns < SAME_SIGNAL_NS)) {
            continue;
        }
        first_ns = again ? first_ns : now;
        wake_main(wake, &wake->stop);
        lb_log(LB_LOG_INFO, "signal", "number=%d action=%s", number, again ? "exit" : "drain");
        if (again) {
            lb_log_flush(FLUSH_MS);
            _exit(1);
        }
    }
    return NULL;
}

static void on_loaded(void *context, enum lb_status status, const struct lb_detail *detail) {
    struct wake *wake = context;
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "ready", "%s", "");
        pthread_mutex_lock(&wake->lock);
        wake->ready = !wake->stop;
        if (wake->ready) {
            lb_notify("READY=1");
        }
        pthread_mutex_unlock(&wake->lock);
        return;
    }
    pthread_mutex_lock(&wake->lock);
    wake->failed = true;
    wake->detail = *detail;
    pthread_cond_signal(&wake->changed);
    pthread_mutex_unlock(&wake->lock);
}

static int fail(const struct lb_detail *detail) {
    lb_log(LB_LOG_ERROR, "failed", "reason=\"%s\"", detail->text);
    return 1;
}

/* Until a signal says stop, or a model fails that there is no use without: true then. */
static bool wait_for_end(struct wake *wake, struct lb_server *server, struct lb_detail *detail) {
    pthread_mutex_lock(&wake->lock);
    wake->server = server;
    while (!wake->stop && !wake->failed) {
        if (wake->reload) {
            bool ready = wake->ready; /* before that nobody is told that it is done */
            wake->reload = false;
            pthread_mutex_unlock(&wake->lock);
            if (ready) {
                lb_notify_reloading();
            }
            lb_server_reload(server);
            if (ready) {
                lb_notify("READY=1");
            }
            pthread_mutex_lock(&wake->lock);
        } else {
            pthread_cond_wait(&wake->changed, &wake->lock);
        }
    }
    wake->server = NULL;
    bool failed = wake->failed;
    *detail = wake->detail;
    pthread_mutex_unlock(&wake->lock);
    return failed;
}

/* What decides how many threads compute, where no option does. */
static void tell_processors(void) {
    struct lb_cpus cpus = lb_cpus("", lb_affinity());
    char quota[32] = "none";
    if (cpus.quota > 0) {
        snprintf(quota, sizeof quota, "%.2f", cpus.quota);
    }
    lb_log(LB_LOG_INFO, "processors", "usable=%d affinity=%d cgroup_quota=%s", cpus.usable, cpus.affinity,
           quota);
}

static int serve(const struct lb_options *options) {
    /* static: the signal thread may outlive this function */
    static struct wake wake = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct lb_detail detail = {0};
    struct lb_server server;
    pthread_t watcher;
    block_signals();
    if (pthread_create(&watcher, NULL, watch_signals, &wake) != 0) {
        (void)lb_fail(&detail, LB_E_NOMEM, "starting the signal thread failed");
        return fail(&detail);
    }
    pthread_detach(watcher);
    if (lb_log_start_thread() != LB_OK) {
        (void)lb_fail(&detail, LB_E_NOMEM, "starting the log's thread failed");
        return fail(&detail);
    }
    tell_processors();
    if (lb_server_start(&server, options, on_loaded, &wake, &detail) != LB_OK) {
        return fail(&detail);
    }
    bool failed = wait_for_end(&wake, &server, &detail);
    lb_notify("STOPPING=1");
    lb_server_stop(&server);
    if (failed) {
        return fail(&detail);
    }
    lb_log(LB_LOG_INFO, "stopped", "%s", "");
    return 0;
}

static int check(const struct lb_options *options) {
    struct lb_detail detail = {0};
    if (lb_server_check(options, &detail) != LB_OK) {
        return fail(&detail);
    }
    lb_log(LB_LOG_INFO, "checked", "result=good");
    return 0;
}

int main(int argc, char **argv) {
    struct lb_options options;
    lb_options_parse(argc, argv, &options);
    lb_log_setup(options.verbose ? LB_LOG_DEBUG : LB_LOG_INFO, options.log_json);
    cut_as_json = options.log_json;
    signal(SIGBUS, on_cut_file);
    lb_gemm_setup(options.threads, argv);
    mallopt(M_MMAP_THRESHOLD, MAP_FROM);
    mallopt(M_TRIM_THRESHOLD, 4 * MAP_FROM);
    mallopt(M_ARENA_MAX, 4);
    int status = options.check ? check(&options) : serve(&options);
    lb_options_finish(&options);
    lb_log_flush(FLUSH_MS);
    return status;
}
