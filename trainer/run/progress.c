#include "trainer/run/progress.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/status.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINE_BYTES 256
#define DRAW_NS (LB_SECOND_NS / 10)

struct lb_progress {
    FILE *out;
    bool terminal, drawn;
    int64_t total, first_step;
    uint64_t started_ns, drawn_ns;
    uint64_t before_ns; /* of the last report */
    struct lb_progress_numbers before;
};

struct lb_progress *lb_progress_create(FILE *out, int64_t total_steps, int64_t step) {
    struct lb_progress *p = lb_calloc(1, sizeof *p);
    if (p != NULL) {
        p->out = out;
        const char *kind = getenv("TERM");
        p->terminal = isatty(fileno(out)) == 1 && (kind == NULL || strcmp(kind, "dumb") != 0);
        p->total = total_steps;
        p->first_step = step;
        p->before.step = step;
        p->started_ns = p->before_ns = lb_now_ns();
    }
    return p;
}

void lb_progress_destroy(struct lb_progress *progress) {
    if (progress != NULL) {
        if (progress->drawn) {
            fputc('\n', progress->out);
            fflush(progress->out);
        }
        lb_free(progress);
    }
}

/* The parts of the line in their order. */
enum { STEP, LOSS, RATE, WAIT, CACHE, LEFT, N_PARTS };
#define PART_BYTES 64

/* 12,345 */
static int put_grouped(char *out, size_t size, double v) {
    int64_t n = (int64_t)llround(v);
    if (n >= 1000000) {
        return snprintf(out, size, "%" PRId64 ",%03d,%03d", n / 1000000, (int)(n / 1000 % 1000),
                        (int)(n % 1000));
    }
    return n >= 1000 ? snprintf(out, size, "%" PRId64 ",%03d", n / 1000, (int)(n % 1000))
                     : snprintf(out, size, "%" PRId64, n);
}

static void put_left(char out[PART_BYTES], double seconds) {
    int64_t s = (int64_t)llround(seconds);
    if (s >= 3600) {
        snprintf(out, PART_BYTES, "%" PRId64 ":%02d:%02d left", s / 3600, (int)(s / 60 % 60), (int)(s % 60));
    } else {
        snprintf(out, PART_BYTES, "%d:%02d left", (int)(s / 60), (int)(s % 60));
    }
}

/* Those that there is nothing to say of stay empty. */
static void put_parts(const struct lb_progress_numbers *now, const struct lb_progress_numbers *before,
                      double seconds, int64_t total_steps, double left_seconds,
                      char parts[N_PARTS][PART_BYTES]) {
    snprintf(parts[STEP], PART_BYTES, "step %" PRId64 "/%" PRId64, now->step, total_steps);
    if (!isnan(now->loss)) {
        snprintf(parts[LOSS], PART_BYTES, "loss %.3f", now->loss);
    }
    if (now->tokens > before->tokens && seconds > 0) {
        int n = put_grouped(parts[RATE], PART_BYTES - 16, (double)(now->tokens - before->tokens) / seconds);
        snprintf(parts[RATE] + n, 16, now->images ? " images/s" : " tokens/s");
    }
    if (now->questions > 0 && seconds > 0) {
        double wait = (now->wait_seconds - before->wait_seconds) / seconds;
        snprintf(parts[WAIT], PART_BYTES, "wait %.0f%%", 100 * fmin(fmax(wait, 0), 1));
    }
    if (now->cached && now->questions > before->questions) {
        snprintf(parts[CACHE], PART_BYTES, "cache %.0f%%",
                 100.0 * (double)(now->cache_hits - before->cache_hits) /
                     (double)(now->questions - before->questions));
    }
    if (left_seconds >= 0) {
        put_left(parts[LEFT], left_seconds);
    }
}

static size_t length_of(char parts[N_PARTS][PART_BYTES]) {
    size_t len = 0;
    for (int i = 0; i < N_PARTS; i++) {
        size_t n = strlen(parts[i]);
        len += n > 0 && len > 0 ? n + 2 : n;
    }
    return len;
}

void lb_progress_format(const struct lb_progress_numbers *now, const struct lb_progress_numbers *before,
                        double seconds, int64_t total_steps, double left_seconds, size_t width, char *out,
                        size_t out_size) {
    static const int least[] = {CACHE, WAIT, RATE, LEFT, LOSS};
    char parts[N_PARTS][PART_BYTES] = {""};
    size_t most = width < out_size - 1 ? width : out_size - 1, len = 0;
    put_parts(now, before, seconds, total_steps, left_seconds, parts);
    for (size_t i = 0; i < sizeof least / sizeof *least && length_of(parts) > most; i++) {
        parts[least[i]][0] = '\0';
    }
    out[0] = '\0';
    for (int i = 0; i < N_PARTS; i++) {
        if (parts[i][0] != '\0' && len < most) {
            int n = snprintf(out + len, most + 1 - len, "%s%s", len > 0 ? "  " : "", parts[i]);
            len += (size_t)n < most - len ? (size_t)n : most - len;
        }
    }
}

/* Columns that a line may fill without going on in the next row; asked each time, since it may change. */
static size_t width_of(const struct lb_progress *progress) {
    struct winsize size = {0};
    const char *columns = getenv("COLUMNS");
    long width = 80;
    if (!progress->terminal) {
        return LINE_BYTES;
    }
    if (ioctl(fileno(progress->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        width = size.ws_col;
    } else if (columns != NULL && strtol(columns, NULL, 10) > 0) {
        width = strtol(columns, NULL, 10);
    }
    return width > 1 ? (size_t)width - 1 : 1;
}

void lb_progress_update(struct lb_progress *progress, const struct lb_progress_numbers *now, bool report) {
    struct lb_progress *p = progress;
    if (p == NULL || (!p->terminal && !report)) {
        return;
    }
    uint64_t at = lb_now_ns();
    if (!report && at - p->drawn_ns < DRAW_NS) {
        return;
    }
    int64_t done = now->step - p->first_step;
    double elapsed = (double)(at - p->started_ns) / (double)LB_SECOND_NS;
    double left = done > 0 ? elapsed / (double)done * (double)(p->total - now->step) : -1;
    char line[LINE_BYTES];
    lb_progress_format(now, &p->before, (double)(at - p->before_ns) / (double)LB_SECOND_NS, p->total, left,
                       width_of(p), line, sizeof line);
    /* \033[K clears what a longer line left behind. */
    fprintf(p->out, p->terminal ? "\r%s\033[K" : "%s\n", line);
    fflush(p->out);
    p->drawn = p->terminal;
    p->drawn_ns = at;
    if (report) {
        p->before = *now;
        p->before_ns = at;
    }
}

void lb_progress_note(struct lb_progress *progress, const char *text) {
    if (progress != NULL) {
        fprintf(progress->out, "%s%s\n", progress->drawn ? "\r\033[K" : "", text);
        fflush(progress->out);
        progress->drawn = false;
    }
}
