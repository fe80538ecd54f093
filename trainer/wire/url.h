/* Addresses: the table of their schemes, and whether one is an address at all. Pure; any thread. */
#ifndef LB_WIRE_URL_H
#define LB_WIRE_URL_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum lb_scheme {
    LB_SCHEME_NONE,
    LB_SCHEME_HTTP,  /* http://HOST:PORT, a path behind it is allowed */
    LB_SCHEME_HTTPS, /* https://HOST:PORT */
    LB_SCHEME_UNIX,  /* unix:PATH, a daemon's socket file on this machine */
    LB_SCHEME_LOCAL  /* local:PATH, a model that the trainer hosts for itself */
};

/* What text begins with, in letters of any case; *out_len (may be NULL): bytes of the scheme itself, 0 for
 * none. */
enum lb_scheme lb_url_scheme(const char *text, size_t *out_len);
/* Whether url is an address that can be asked. LB_E_ARG: what is wrong with it and what to write. local_too:
 * local:PATH is one as well. */
LB_NODISCARD enum lb_status lb_url_check(const char *url, bool local_too, struct lb_detail *detail);

#endif
