/* What a teacher is asked about and a student learns from. */
#ifndef LB_WIRE_SAMPLE_H
#define LB_WIRE_SAMPLE_H

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
    const struct lb_extra *extra; /* NULL: none */
};

#endif
