/* Files that only this daemon may read: tokens, private keys. And where they are looked for. Pure functions
 * but for the files; any thread. */
#ifndef LB_HTTP_SECRET_H
#define LB_HTTP_SECRET_H

#include "common/base/buf.h"
#include "common/base/status.h"

#include <sys/stat.h>

/* The path that a name means, on the heap: where $CREDENTIALS_DIRECTORY is set (systemd's LoadCredential=), a
 * name without a slash is that of a file in there; all else is a path as it is. NULL when out of memory. */
char *lb_credential_path(const char *name);

/* Whether others are kept out, as PostgreSQL asks it of keys: the file is the user's own and closed to group
 * and others, or it is root's and closed to others, its group may read it (that we can read it says that the
 * group is ours; Kubernetes and systemd give secrets so). LB_E_ARG: not a regular file; LB_E_DENIED: the
 * detail names the mode or owner, and the command that mends it. what: "token file", for the detail. */
LB_NODISCARD enum lb_status lb_secret_check(const char *what, const char *path, const struct stat *st,
                                            uid_t user, struct lb_detail *detail);

/* Appends the whole file, once it has been checked; links are followed. LB_E_NOTFOUND, LB_E_IO, LB_E_LIMIT,
 * and those of the check. */
LB_NODISCARD enum lb_status lb_secret_read(const char *what, const char *path, struct lb_buf *out,
                                           struct lb_detail *detail);
/* Overwrites what was read, and frees it. */
void lb_secret_finish(struct lb_buf *secret);

#endif
