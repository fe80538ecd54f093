/* metrics.jsonl: what a run measured, one JSON object a line, with Hugging Face's keys where it has them.
 *
 *   {"step": 10, "epoch": 0.05, "loss": 5.1, "loss/kl": 5.1, "learning_rate": 0.004, "grad_norm": 1.9, ...,
 * "ts": 1700000000.0}
 *
 * Each line is one write to a file opened for appending, so that a killed run leaves whole lines but for the
 * last. One thread.
 */
#ifndef LB_RUN_JOURNAL_H
#define LB_RUN_JOURNAL_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_JOURNAL_FILE "metrics.jsonl"
#define LB_COMPLETIONS_FILE "completions.jsonl"

/* One number of a line: key "group/name", or "name" without a group. A NaN or infinity is written as null. */
struct lb_metric {
    const char *group, *name;
    double value;
};

struct lb_journal;

/* Opens OUTPUT_DIR/metrics.jsonl. step < 0: a new run, the file is emptied; else a run that goes on after
 * that step: later lines, which the run will write again, and damaged ones are dropped. */
LB_NODISCARD enum lb_status lb_journal_open(const char *output_dir, int64_t step, struct lb_journal **out,
                                            struct lb_detail *detail);
/* The same of another file of lines that begin with their step. */
LB_NODISCARD enum lb_status lb_journal_open_as(const char *output_dir, const char *file, int64_t step,
                                               struct lb_journal **out, struct lb_detail *detail);
/* Appends a line [len], without its end. */
LB_NODISCARD enum lb_status lb_journal_append(struct lb_journal *journal, const char *line, size_t len,
                                              struct lb_detail *detail);
/* Whether the step that the run goes on after was evaluated: a line of it holds eval_loss. */
bool lb_journal_evaluated(const struct lb_journal *journal);
/* Accepts NULL. */
void lb_journal_close(struct lb_journal *journal);
/* Appends step, epoch, the metrics in their order, and ts (seconds since 1970). */
LB_NODISCARD enum lb_status lb_journal_write(struct lb_journal *journal, int64_t step, double epoch,
                                             const struct lb_metric *metrics, size_t n,
                                             struct lb_detail *detail);

#endif
