/* What trim.c (which tokens) and trim_json.c (the file) share. Nobody else includes this. */
#ifndef LB_TEXT_TRIM_PARTS_H
#define LB_TEXT_TRIM_PARTS_H

#include "common/text/internal.h"

struct lb_trim_merge {
    int32_t left, right, id;
    uint32_t rank;
};

struct lb_trim {
    const struct lb_tokenizer *full;
    json_t *root, *model;         /* of the file, to be changed; model is within root */
    struct lb_trim_merge *merges; /* [n_merges] by left and right; NULL: not BPE */
    size_t n_merges;
    bool *kept;  /* [size of the whole vocabulary] */
    int32_t *to; /* the same: new ids, -1 of those that go */
    int32_t n, most;
    bool lost; /* something of the changed file is missing: out of memory */
    struct lb_detail *detail;
};

/* Calls visit for each id (a JSON integer, else of another type) in a post-processor. */
void lb_trim_each_id(json_t *processor, void (*visit)(void *context, json_t *id), void *context);

LB_NODISCARD enum lb_status lb_trim_read_merges(struct lb_trim *t);
/* Fills kept and n. */
LB_NODISCARD enum lb_status lb_trim_choose(struct lb_trim *t, const uint64_t *counts);

#endif
