/* How far a run is: one line, rewritten in place on a terminal, a plain line per report elsewhere.
 *
 *   step 120/585  loss 3.412  12,345 tokens/s  wait 3%  cache 98%  4:12 left
 *
 * A narrow terminal shows as much as fits, whatever is least missed first left out; it may change its width.
 *
 * One thread.
 */
#ifndef LB_RUN_PROGRESS_H
#define LB_RUN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Totals since the program started; the line's rates are taken over the time since the last report. */
struct lb_progress_numbers {
    int64_t step;                  /* done so far, of the whole run */
    double loss;                   /* NaN: not shown */
    int64_t tokens;                /* counted positions trained on; 0: not shown */
    bool images;                   /* a position is an image, not a token */
    double wait_seconds;           /* spent waiting for teachers */
    int64_t questions, cache_hits; /* asked of teachers; 0: no teachers, neither wait nor cache is shown */
    bool cached;                   /* there is a cache to hit */
};

struct lb_progress;

/* Lines go to out (borrowed; a terminal is found by isatty, but for
 * TERM=dumb). step: where a resumed run begins, 0 for a new
 * one. NULL when out of memory: every function accepts that and does nothing. */
struct lb_progress *lb_progress_create(FILE *out, int64_t total_steps, int64_t step);
void lb_progress_destroy(struct lb_progress *progress);
/* May be called after each step. On a terminal it draws at most ten times a second; elsewhere only when
 * report is set (a logging step). */
void lb_progress_update(struct lb_progress *progress, const struct lb_progress_numbers *now, bool report);
/* A line of its own above the progress line (an evaluation, a checkpoint). */
void lb_progress_note(struct lb_progress *progress, const char *text);

/* The line's text (no newline) for numbers since `before`, seconds apart; left_seconds < 0: unknown. At most
 * width characters long. */
void lb_progress_format(const struct lb_progress_numbers *now, const struct lb_progress_numbers *before,
                        double seconds, int64_t total_steps, double left_seconds, size_t width, char *out,
                        size_t out_size);

#endif
