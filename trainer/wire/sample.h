/* What a teacher is asked about and a student learns from. */
#ifndef LB_WIRE_SAMPLE_H
#define LB_WIRE_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A further input of a sample, a row of whole numbers for each position: ids to be scored, say. Only teachers
 * whose dialect and server know an input of this name can be asked with it. */
struct lb_extra {
    const char *name;
    const int32_t *values; /* [n, width] */
    int64_t width;         /* > 0 */
};

/* One sample: a row of text (max_length + 1 ids: the input and, one further on, the labels), or one image. */
struct lb_sample {
    const int32_t *ids;           /* [n + 1]; inputs are ids[0..n-1], the label of position t is ids[t + 1] */
    int64_t n;                    /* positions; 1 for images */
    const float *features;        /* [input_size]; NULL for text */
    int32_t label;                /* images */
    int tag;                      /* index into lb_dataset_tag, -1: none */
    const uint8_t *counts;        /* [n + 1] whether ids[t] counts as a label; NULL: all do */
    const struct lb_extra *extra; /* NULL: none */
};

/* Whether losses and scores count position t: its label is the text's, not one that begins every text. */
static inline bool lb_sample_counts(const struct lb_sample *sample, int64_t t) {
    return sample->counts == NULL || sample->counts[t + 1] != 0;
}

/* How many positions count. */
static inline int64_t lb_sample_counted(const struct lb_sample *sample) {
    int64_t n = sample->n;
    for (int64_t t = 0; sample->counts != NULL && t < sample->n; t++) {
        n -= sample->counts[t + 1] == 0;
    }
    return n;
}

#endif
