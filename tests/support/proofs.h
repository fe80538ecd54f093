/* What tests have proved of the tables' entries, for tests/proofs.sh: where LB_PROOFS names a file, each
 * figure becomes a line of it. Without it nothing is written. */
#ifndef LB_TESTS_SUPPORT_PROOFS_H
#define LB_TESTS_SUPPORT_PROOFS_H

#include "trainer/loss/loss.h"

#include <stdio.h>
#include <stdlib.h>

/* kind: loss, mixture, optimizer. what: table (it is in one; no figure), differences (the largest relative
 * error of its gradient against finite differences), value and gradient (the largest difference of either to
 * PyTorch's, relative as the test has it). entries: how many numbers were compared. */
static inline void lb_proof(const char *kind, const char *name, const char *lane, const char *what,
                            double figure, int64_t entries) {
    const char *path = getenv("LB_PROOFS");
    FILE *file = path != NULL ? fopen(path, "a") : NULL;
    if (file != NULL) {
        fprintf(file, "%s\t%s\t%s\t%s\t%.2e\t%lld\n", kind, name, lane, what, figure, (long long)entries);
        fclose(file);
    }
}

/* What a loss that is not on teachers' distributions is taken on. */
static inline const char *lb_proof_lane(const struct lb_loss *loss) {
    static const char *const lanes[] = {
        [LB_ON_LABEL] = "label",         [LB_ON_TARGET] = "distributions", [LB_ON_HIDDEN] = "hidden states",
        [LB_ON_ATTENTION] = "attention", [LB_ON_QUERIES] = "queries",      [LB_ON_KEYS] = "keys",
        [LB_ON_VALUES] = "values",       [LB_ON_SENTENCE] = "sentences",   [LB_ON_CHUNK] = "chunks",
        [LB_ON_ALIGNED] = "aligned"};
    return lanes[loss->on];
}

#endif
