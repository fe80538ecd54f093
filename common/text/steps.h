/* The steps of a pre-tokenizer, as read by pretokenize_read.c and run by pretokenize.c; for these two only.
 */
#ifndef LB_TEXT_STEPS_H
#define LB_TEXT_STEPS_H

#include "common/base/sha256.h"
#include "common/text/pretokenize.h"
#include "common/text/regex.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_MAX_STEPS 32

/* What becomes of the stretches that a pattern matches (tokenizers: SplitDelimiterBehavior). */
enum lb_behaviour { LB_ISOLATED, LB_REMOVED, LB_MERGED_WITH_PREVIOUS, LB_MERGED_WITH_NEXT, LB_CONTIGUOUS };

/* In fingerprints by their number: new ones go to the end. */
enum lb_step_kind {
    LB_STEP_PREFIX_SPACE, /* a piece that does not begin with a space gets one */
    LB_STEP_SPLIT,        /* pieces are cut at the matches of a regex, or at each character of a kind */
    LB_STEP_LETTERS,      /* bytes become letters, which the steps behind it see */
    LB_STEP_METASPACE,    /* spaces become a sign, which also begins the text or each piece */
    LB_STEP_WORDS         /* stretches of word characters, and of others that are no space */
};

enum lb_prepend { LB_PREPEND_ALWAYS, LB_PREPEND_FIRST, LB_PREPEND_NEVER };

struct lb_step {
    enum lb_step_kind kind;
    enum lb_behaviour behaviour;
    bool invert; /* what does not match counts as matched, and the other way round */
    struct lb_regex *regex;
    bool (*is_match)(uint32_t code_point); /* in place of a regex */
    uint8_t pattern[LB_SHA256_BYTES];      /* digest of what is looked for */
    char sign[4];                          /* Metaspace: the replacement */
    uint8_t sign_len;
    enum lb_prepend prepend;
    bool split;
};

struct lb_pretokenizer {
    struct lb_step step[LB_MAX_STEPS];
    int n_steps;
    bool bytes;   /* ByteLevel is there */
    bool letters; /* so is its LB_STEP_LETTERS, which is left out when it would be the last: then to be undone
                     at the end */
};

#endif
