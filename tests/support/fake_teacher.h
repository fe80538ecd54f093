/* A teacher that misbehaves on command: an HTTP server on plain sockets, inside the test's process.
 *
 * Its answers are a function of its fingerprint, a sequence's ids up to a position and the output's name, so
 * that any two fakes of one fingerprint agree bit for bit, however the questions were grouped. One thread per
 * connection; all functions are thread-safe.
 */
#ifndef LB_TESTS_FAKE_TEACHER_H
#define LB_TESTS_FAKE_TEACHER_H

#include "trainer/recipe/recipe.h"
#include "trainer/teachers/teachers.h"

enum fake_fault {
    FAKE_FINE,
    FAKE_SLOW,           /* answers rightly after 300 ms */
    FAKE_HANG,           /* reads the question and never answers */
    FAKE_CLOSE,          /* closes instead of answering */
    FAKE_CLOSE_MID_BODY, /* sends the head and half of the body */
    FAKE_500,
    FAKE_503,
    FAKE_503_RETRY_AFTER, /* Retry-After: 1 */
    FAKE_413,             /* when more than one sequence is asked about */
    FAKE_400,
    FAKE_400_FOR_ONE, /* when a sequence that begins with FAKE_POISON twice is in it */
    FAKE_401,
    FAKE_403,
    FAKE_501,
    FAKE_REDIRECT,
    FAKE_SLOW_LINE, /* never answers about more than 24 positions */
    FAKE_NAN,       /* a number that is none */
    FAKE_TWICE,     /* an id twice in a row of top-k */
    FAKE_LOW_SUM,   /* log-sum-exp below the largest logit */
    FAKE_WRONG_DIGEST,
    FAKE_NO_DIGEST,
    FAKE_WRONG_SHAPE,    /* one position too few */
    FAKE_WRONG_DATATYPE, /* FP32 for FP16 */
    FAKE_WRONG_LENGTH,   /* binary data shorter than the JSON says */
    FAKE_MISSING_OUTPUT,
    FAKE_FLIPPED,           /* one bit of a tensor, on the way */
    FAKE_SWAPPED,           /* the first two sequences of the first output, on the way */
    FAKE_ZEROED,            /* the last output, on the way */
    FAKE_FLIPPED_HEAD,      /* one bit of the head, on the way */
    FAKE_NO_ANSWER_DIGEST,  /* as a server that makes none */
    FAKE_WILD_ID,           /* a top-k id beyond the vocabulary */
    FAKE_WRONG_FINGERPRINT, /* in the answer */
    FAKE_WRONG_COMPUTE,     /* in the answer */
    FAKE_HUGE,              /* announces 3 GiB */
    FAKE_GARBAGE,           /* 200 with bytes that are nothing */
    FAKE_NO_HTTP,           /* bytes that are no HTTP answer */
    FAKE_ENDLESS_INFO,      /* metadata that never end */
    FAKE_BAD_INFO,          /* metadata without parameters */
    FAKE_MAPLESS            /* 409: has no vocabulary map, whatever it was sent */
};

#define FAKE_POISON 49 /* twice, at the beginning */

struct fake_options {
    const char *fingerprint;         /* 64 hex digits; NULL: fake_fingerprint */
    const char *compute;             /* 64 hex digits, in metadata and answers; NULL: not told */
    bool batch_dependent;            /* batch_invariant: false */
    const char *token;               /* NULL: none needed */
    int port;                        /* 0: any */
    int64_t vocab_size, hidden_size; /* 0: 50 and 6 */
    bool classifier;                 /* reads 4 features */
    bool maps;                       /* takes vocabulary maps, and keeps the last one */
    int refuse_maps;                 /* says so, and answers this status to each; 0: takes them */
};

extern const char fake_fingerprint[], fake_other_fingerprint[];

struct fake_teacher;
/* NULL when the port cannot be had. */
struct fake_teacher *fake_start(const struct fake_options *options);
/* Closes all connections, as a killed process does. Accepts NULL. */
void fake_stop(struct fake_teacher *fake);
int fake_port(const struct fake_teacher *fake);
const char *fake_url(const struct fake_teacher *fake);
/* The next n questions (infer requests; -1: all from now on) meet the fault. */
void fake_fault(struct fake_teacher *fake, enum fake_fault fault, int n);
/* Infer requests that came in; sequences in those that were answered rightly; GETs of the head. */
int fake_requests(struct fake_teacher *fake);
/* Sequences that came with the further input score_ids [B, T, 2], holding id and id + 1 at each position. */
int fake_scored(struct fake_teacher *fake);
int fake_sequences(struct fake_teacher *fake);
/* Vocabulary maps that were sent; and what it forgets, as one that was started anew. */
int fake_maps(struct fake_teacher *fake);
void fake_forget_map(struct fake_teacher *fake);
int fake_heads(struct fake_teacher *fake);
/* Of the last infer request: was the HTTP cache told not to answer. */
bool fake_saw_no_cache(struct fake_teacher *fake);
/* What the fake of this fingerprint answers: value c of the output at position t. */
float fake_value(const char *fingerprint, const char *output, const int32_t *ids, int64_t t, int64_t c);
/* The ids of logits.topk_ids: different within a row. */
int32_t fake_id(const char *fingerprint, const char *output, const int32_t *ids, int64_t t, int64_t c,
                int64_t vocab_size);

#endif
