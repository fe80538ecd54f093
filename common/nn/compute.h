/* Which bits this machine computes: kernels differ between CPUs in their last bits, and nothing else tells.
 */
#ifndef LB_NN_COMPUTE_H
#define LB_NN_COMPUTE_H

#include "common/base/sha256.h"
#include "common/base/status.h"

/* Digest of a few fixed products, of each kind, and of reductions of them: equal on machines that train to
 * the same bits, whatever their kernels are called. Takes some milliseconds. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_compute_digest(char out[LB_SHA256_HEX], struct lb_detail *detail);

#endif
