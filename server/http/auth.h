/* Bearer tokens from a file that only its owner can read. Immutable after open; any thread. */
#ifndef LB_HTTP_AUTH_H
#define LB_HTTP_AUTH_H

#include "common/base/status.h"

struct lb_auth;

/* One token per line (visible ASCII, at least 8 characters); empty lines and lines that begin with '#' are
 * skipped. A file that group or others may read is LB_E_DENIED: the detail names the mode and the command
 * that mends it. */
LB_NODISCARD enum lb_status lb_auth_open(const char *path, struct lb_auth **out, struct lb_detail *detail);
void lb_auth_destroy(struct lb_auth *auth);

/* Which of the tokens an Authorization header's value "Bearer TOKEN" holds, from 0 in the file's order; -1:
 * none of them (or NULL). The time taken does not depend on how much of a token is right: SHA-256 digests of
 * equal length are compared, all of them. */
int lb_auth_find(const struct lb_auth *auth, const char *authorization);

#endif
