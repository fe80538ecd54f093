/* Bearer tokens: which are known, by the files that list them (tokens.h). Thread-safe. */
#ifndef LB_HTTP_AUTH_H
#define LB_HTTP_AUTH_H

#include "common/base/status.h"
#include "server/http/quota.h"
#include "server/http/tokens.h"

#include <stdbool.h>

struct lb_auth;

/* Knows none. NULL when out of memory. */
struct lb_auth *lb_auth_create(void);
/* Accepts NULL. */
void lb_auth_destroy(struct lb_auth *auth);

/* Reads the files; NULL: none. Lines of token_file that name no scopes are good for ask and metrics, those of
 * admin_file for everything. Names and tokens differ among both. Files are found, and kept from others, as
 * secret.h says. Tokens of the same name as before have used what
 * they had used. After a failure, what was known before is still known. */
LB_NODISCARD enum lb_status lb_auth_load(struct lb_auth *auth, const char *token_file, const char *admin_file,
                                         struct lb_detail *detail);
size_t lb_auth_count(struct lb_auth *auth);

/* Who holds a token. */
struct lb_bearer {
    char name[LB_TOKEN_NAME];
    unsigned scopes;
    struct lb_quota *quota; /* a reference, the caller's */
};
/* Who comes with an Authorization header's value "Bearer TOKEN"; false: nobody that is known (or NULL). The
 * time taken does not depend on how much of a token is right: SHA-256 digests of equal length are compared,
 * all of them. */
bool lb_auth_find(struct lb_auth *auth, const char *authorization, struct lb_bearer *out);

#endif
