/* Which bits this machine computes: kernels differ between CPUs in their last bits, and nothing else tells.
 */
#ifndef LB_NN_COMPUTE_H
#define LB_NN_COMPUTE_H

#include "common/base/sha256.h"
#include "common/base/status.h"

#include <stdbool.h>

/* Digest of a few fixed products, of each kind, and of reductions of them: equal on machines that train to
 * the same bits, whatever their kernels are called. Takes some milliseconds. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_compute_digest(char out[LB_SHA256_HEX], struct lb_detail *detail);

/* Adds to hash what decides the bits of this process, without computing any: program and libraries (as the
 * file system names them), the kernels that were chosen, the CPU's instruction sets (the C library chooses by
 * them too), the environment's word on either, threads (which decide no bits, but how much memory is needed).
 * False where that can't be told. */
bool lb_compute_named(struct lb_sha256 *hash);

#endif
