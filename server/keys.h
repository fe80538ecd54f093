/* The files that say who we are on the network: certificate and key, read at start and by --check. */
#ifndef LB_SERVER_KEYS_H
#define LB_SERVER_KEYS_H

#include "server/http/tls.h"
#include "server/options.h"

/* What --tls-certificate and --tls-key say; NULL where they say nothing. The key is kept from others, and
 * names are found, as server/http/secret.h says. LB_E_ARG, LB_E_FORMAT, and those of reading. */
LB_NODISCARD enum lb_status lb_keys_open(const struct lb_options *options, struct lb_tls **out,
                                         struct lb_detail *detail);

#endif
