/* Token files: who may ask for what, and how much. One token a line,
 *
 *     TOKEN
 *     NAME TOKEN [scopes=ask,metrics,admin] [tokens_per_minute=N] [concurrent=N]
 *
 * where TOKEN is 8 visible ASCII characters or more, or sha256: and its digest as 64 hexadecimal digits; a
 * word that begins with '#' ends a line. A pure function; any thread.
 */
#ifndef LB_HTTP_TOKENS_H
#define LB_HTTP_TOKENS_H

#include "common/base/sha256.h"
#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define LB_TOKEN_NAME 64 /* bytes of a name, with the NUL */

enum lb_scope {
    LB_SCOPE_ASK = 1,     /* models, and all that tells about them */
    LB_SCOPE_METRICS = 2, /* the daemon's metrics */
    LB_SCOPE_ADMIN = 4,   /* models come and go */
    LB_SCOPE_ALL = 7
};

struct lb_token {
    char name[LB_TOKEN_NAME];
    uint8_t digest[LB_SHA256_BYTES];
    unsigned scopes;                       /* of enum lb_scope */
    int64_t tokens_per_minute, concurrent; /* 0: any number */
};

struct lb_tokens {
    struct lb_token *list;
    size_t n;
};

/* Appends what the text of len bytes lists. path: for details. scopes: of lines that name none, and unnamed
 * is what lines without a name are called, with their number: "token" gives token#1, token#2. LB_E_FORMAT:
 * the detail names file and line, and never what stands there; also for a file without any token, a name or a
 * token that is there already. Out of memory: LB_E_NOMEM. After a failure tokens holds what was read before.
 */
LB_NODISCARD enum lb_status lb_tokens_parse(struct lb_tokens *tokens, const char *path, const char *text,
                                            size_t len, unsigned scopes, const char *unnamed,
                                            struct lb_detail *detail);
/* Accepts NULL and a zeroed list. */
void lb_tokens_finish(struct lb_tokens *tokens);

#endif
