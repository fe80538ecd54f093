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

/* Tokens of a sample and of a teacher that reads it in other tokens, which stand for the same bytes of text:
 * the labels of the sample's positions at .. at + n - 1, and those of the teacher's its_at .. its_at + its_n
 * - 1. */
struct lb_chunk {
    int32_t at, n, its_at, its_n;
};

/* A sample as such a teacher reads it, or one that has another prompt before the same tokens. */
struct lb_reading {
    const int32_t *ids; /* [n] its tokens; NULL: it reads the sample's own */
    int64_t n;
    const struct lb_chunk
        *chunks; /* [n_chunks] in their order; none overlap, what lies between does not count */
    int64_t n_chunks;
    bool aligned; /* its position t + (n - the sample's n) is the sample's t, from the prompt's last one on */
};

/* Whose text a sample is. */
enum lb_source {
    LB_SOURCE_DATASET,
    LB_SOURCE_TEACHER, /* a teacher went on with its prompt */
    LB_SOURCE_STUDENT  /* the student did, as it was just then: nobody asks about that text again */
};

/* One sample: a row of text (max_length + 1 ids: the input and, one further on, the labels), or one image. */
struct lb_sample {
    const int32_t *ids;    /* [n + 1]; inputs are ids[0..n-1], the label of position t is ids[t + 1] */
    int64_t n;             /* positions; 1 for images */
    int64_t first;         /* the first position that a teacher is asked about, below n */
    const float *features; /* [input_size]; NULL for text */
    int32_t label;         /* the class of the image or text; -1: nobody has said it, or there are none */
    int64_t number;        /* its place in the run's order, from 0 */
    int tag;               /* index into lb_dataset_tag, -1: none */
    const uint8_t *counts; /* [n + 1] whether ids[t] counts as a label; NULL: all do */
    const struct lb_extra *extra; /* NULL: none */
    bool within;                  /* the row begins within a text */
    const char *record; /* [record_len] the conversation that it is of, as JSON; NULL: none, or not kept */
    size_t record_len;
    const struct lb_reading *readings; /* [teachers]; NULL: all read ids */
    int64_t prompt; /* its first so many ids are what a text can be gone on with behind; 0: none are known */
    const int32_t *teacher_prompt; /* [teacher_prompt_n] what stands for them where a teacher reads it so;
                                      NULL: none is known */
    int64_t teacher_prompt_n;
    const double *weight; /* how often its losses count; NULL: once */
    enum lb_source source;
};

/* How teacher k reads it; NULL: in the sample's own ids. */
static inline const struct lb_reading *lb_sample_reading(const struct lb_sample *sample, unsigned k) {
    return sample->readings != NULL && sample->readings[k].ids != NULL ? &sample->readings[k] : NULL;
}

static inline double lb_sample_weight(const struct lb_sample *sample) {
    return sample->weight != NULL ? *sample->weight : 1;
}

/* Whether losses and scores count position t: its label is the text's, not one that begins every text. */
static inline bool lb_sample_counts(const struct lb_sample *sample, int64_t t) {
    return sample->counts == NULL || sample->counts[t + 1] != 0;
}

/* The first position that counts; the last one where none does. */
static inline int64_t lb_sample_first(const struct lb_sample *sample) {
    int64_t t = 0;
    while (t + 1 < sample->n && !lb_sample_counts(sample, t)) {
        t++;
    }
    return t;
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
