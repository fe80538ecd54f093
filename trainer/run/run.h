/* A run as the files of the loop share it: begin.c opens it, loop.c makes its steps, report.c tells of them.
 * Private to trainer/run.
 */
#ifndef LB_RUN_RUN_H
#define LB_RUN_RUN_H

#include "trainer/learn/lora.h"
#include "trainer/learn/optimizer.h"
#include "trainer/learn/prefetch.h"
#include "trainer/learn/step.h"
#include "trainer/run/agree.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/evaluate.h"
#include "trainer/run/journal.h"
#include "trainer/run/loop.h"
#include "trainer/run/progress.h"

struct lb_run {
    const struct lb_recipe *recipe;
    const struct lb_train_options *options;
    char *dir; /* the run folder */
    int lock;
    struct lb_tokenizer *tokenizer;
    struct lb_vocab_map *map; /* of a trimmed tokenizer; NULL: it is none */
    struct lb_model *student;
    struct lb_dataset *data, *eval_data;
    struct lb_teachers *teachers;
    struct lb_plan *plan;
    struct lb_agree agree; /* where evaluations ask the teachers (eval_agreement) */
    struct lb_lora *lora;  /* adapters; NULL: none */
    struct lb_optimizer *optimizer;
    struct lb_step *step;
    struct lb_scribe *scribe; /* NULL: the student writes nothing */
    struct lb_text *texts;    /* [samples of data] what teachers wrote; NULL: nothing */
    struct lb_arena written;  /* their ids */
    struct lb_prefetch *prefetch;
    struct lb_journal *journal;
    struct lb_journal *completions; /* what the student writes; NULL: not kept */
    struct lb_progress *progress;
    int64_t total;           /* steps of the run */
    struct lb_checkpoint at; /* where it is */
    /* since the last logging step */
    struct lb_step_result sums;
    int64_t steps_summed, tokens_summed;
    uint64_t since_ns;
    double wait_before, writing_before;
    double grad_norm;
    bool improved;  /* the last evaluation was the best */
    bool resumable; /* the folder holds this run by now */
};

/* Takes the run folder, opens all that the recipe names, and goes back to the last checkpoint where the run
 * is resumed. On failure too the caller ends what was opened. */
LB_NODISCARD enum lb_status lb_run_begin(struct lb_run *run, struct lb_detail *detail);
/* writing.c: what writes the student's texts, where the recipe wants any; whether prompts and teachers go
 * with it. After the plan. */
LB_NODISCARD enum lb_status lb_run_open_scribe(struct lb_run *run, struct lb_detail *detail);
/* The same: has teachers write all texts that the rest of the run reads. */
LB_NODISCARD enum lb_status lb_run_have_written(struct lb_run *run, struct lb_detail *detail);
/* A line of metrics about the steps since the last one; their sums begin anew. */
LB_NODISCARD enum lb_status lb_run_report(struct lb_run *run, struct lb_detail *detail);
/* Predicts the held-out data; its figures go into the metrics and onto the terminal, and are compared with
 * the best so far where the recipe says so. */
LB_NODISCARD enum lb_status lb_run_evaluate(struct lb_run *run, struct lb_detail *detail);
/* Exchanges the student's weights and their average, where the run keeps one. */
void lb_run_swap_average(struct lb_run *run);
/* Whether evaluations are compared at all; whether enough of them were no better for the run to end. */
bool lb_run_compares(const struct lb_run *run);
bool lb_run_stops_early(const struct lb_run *run);
/* Notes how good the evaluation of this step is; sets improved. LB_E_ARG: the metric is not known of these
 * data. */
LB_NODISCARD enum lb_status lb_run_compare(struct lb_run *run, const struct lb_evaluation *evaluation,
                                           struct lb_detail *detail);
/* When a run is resumed: the best evaluation's checkpoint is kept on. LB_E_NOTFOUND: it is wanted, and not
 * there any more. LB_E_MISMATCH: it was the best by another metric. */
LB_NODISCARD enum lb_status lb_run_recall_best(struct lb_run *run, struct lb_detail *detail);
/* At the end: the weights of the best evaluation, where the recipe wants them; *out is the state they have.
 */
LB_NODISCARD enum lb_status lb_run_take_best(struct lb_run *run, struct lb_checkpoint *out,
                                             struct lb_detail *detail);

/* Keeps what the student wrote, if it did, of micro-batch m's samples. */
LB_NODISCARD enum lb_status lb_run_keep_completions(struct lb_run *run, int64_t m,
                                                    const struct lb_sample *samples,
                                                    struct lb_detail *detail);
/* Shows where the run is; line: on a line of its own where the terminal's is not drawn over. */
void lb_run_show(struct lb_run *run, double loss, bool line);
/* Zeros where there are no teachers. */
struct lb_teachers_stats lb_run_stats(const struct lb_run *run);

#endif
