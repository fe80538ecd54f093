#include "trainer/run/progress.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/status.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
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
        p->terminal = isatty(fileno(out)) == 1;
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

/* Appends to a text of a fixed size, cutting at its end. */
static void append(char *out, size_t size, const char *format, ...) LB_PRINTF(3, 4);

static void append(char *out, size_t size, const char *format, ...) {
    size_t len = strlen(out);
    va_list args;
    va_start(args, format);
    vsnprintf(out + len, size - len, format, args);
    va_end(args);
}

/* 12,345 */
static void append_grouped(char *out, size_t size, double v) {
    int64_t n = (int64_t)llround(v);
    if (n >= 1000000) {
        append(out, size, "%" PRId64 ",%03d,%03d", n / 1000000, (int)(n / 1000 % 1000), (int)(n % 1000));
    } else if (n >= 1000) {
        append(out, size, "%" PRId64 ",%03d", n / 1000, (int)(n % 1000));
    } else {
        append(out, size, "%" PRId64, n);
    }
}

void lb_progress_format(const struct lb_progress_numbers *now, const struct lb_progress_numbers *before,
                        double seconds, int64_t total_steps, double left_seconds, char *out,
                        size_t out_size) {
    out[0] = '\0';
    append(out, out_size, "step %" PRId64 "/%" PRId64, now->step, total_steps);
    if (!isnan(now->loss)) {
        append(out, out_size, "  loss %.3f", now->loss);
    }
    if (now->tokens > before->tokens && seconds > 0) {
        append(out, out_size, "  ");
        append_grouped(out, out_size, (double)(now->tokens - before->tokens) / seconds);
        append(out, out_size, now->images ? " images/s" : " tokens/s");
    }
    if (now->questions > 0 && seconds > 0) {
        double wait = (now->wait_seconds - before->wait_seconds) / seconds;
        append(out, out_size, "  wait %.0f%%", 100 * fmin(fmax(wait, 0), 1));
    }
    if (now->questions > before->questions) {
        append(out, out_size, "  cache %.0f%%",
               100.0 * (double)(now->cache_hits - before->cache_hits) /
                   (double)(now->questions - before->questions));
    }
    if (left_seconds >= 0) {
        int64_t s = (int64_t)llround(left_seconds);
        if (s >= 3600) {
            append(out, out_size, "  %" PRId64 ":%02d:%02d left", s / 3600, (int)(s / 60 % 60),
                   (int)(s % 60));
        } else {
            append(out, out_size, "  %d:%02d left", (int)(s / 60), (int)(s % 60));
        }
    }
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
                       line, sizeof line);
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
