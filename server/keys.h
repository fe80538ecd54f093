/* Who we are on the network, and whether others are kept out: certificate and key, read at start, by --check
 * and at SIGHUP, and addresses that want them. */
#ifndef LB_SERVER_KEYS_H
#define LB_SERVER_KEYS_H

#include "server/http/tls.h"
#include "server/options.h"

/* What --tls-certificate, --tls-key and --tls-client-ca say; NULL where they say nothing. The key is kept
 * from others, and names are found, as server/http/secret.h says. A certificate that does not hold for long
 * is told in the log. LB_E_ARG, LB_E_FORMAT, and those of reading. */
LB_NODISCARD enum lb_status lb_keys_open(const struct lb_options *options, struct lb_tls **out,
                                         struct lb_detail *detail);
/* LB_E_DENIED for an address that others than this machine reach, where nothing is asked of them and nobody
 * said that this is meant. */
LB_NODISCARD enum lb_status lb_keys_guard(const struct lb_options *options, const char *address,
                                          bool loopback, struct lb_detail *detail);

#endif
