/* A template's text as tokens, white space control done: Jinja's lexer with trim_blocks and lstrip_blocks.
 * For common/chat only. */
#ifndef LB_CHAT_LEXER_H
#define LB_CHAT_LEXER_H

#include "common/base/arena.h"
#include "common/base/status.h"

#include <stdint.h>

enum lb_jtoken_kind {
    LB_JT_DATA, /* text between tags, never empty */
    LB_JT_VARIABLE_BEGIN,
    LB_JT_VARIABLE_END,
    LB_JT_BLOCK_BEGIN,
    LB_JT_BLOCK_END,
    LB_JT_NAME,
    LB_JT_STRING,
    LB_JT_INT,
    LB_JT_FLOAT,
    LB_JT_OPERATOR, /* op: its characters, "**" as 'P', "//" as 'F', "==" as 'E', "!=" as 'N', ">=" as 'G',
                       "<=" as 'L' */
    LB_JT_END
};

struct lb_jtoken {
    uint8_t kind;
    char op;
    int line;
    const char *s; /* data, name, string (escapes undone) */
    size_t len;
    int64_t i;
    double f;
};

struct lb_jtokens {
    struct lb_jtoken *token; /* ended by LB_JT_END */
    size_t n, cap;
};

/* text: valid UTF-8. Everything is allocated in arena. */
LB_NODISCARD enum lb_status lb_jinja_lex(struct lb_arena *arena, const char *text, size_t len,
                                         const char *what, struct lb_jtokens *out, struct lb_detail *detail);

#endif
