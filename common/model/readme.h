/* README.md of a model's folder, told from one that a person wrote or changed: its last line is a comment
 * with the SHA-256 of all before it.
 */
#ifndef LB_MODEL_README_H
#define LB_MODEL_README_H

#include "common/base/buf.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define LB_README "README.md"

/* Appends the last line. */
enum lb_status lb_readme_seal(struct lb_buf *text);
/* Whether text is as it was sealed. */
bool lb_readme_is_sealed(const char *text, size_t len);
/* LB_E_ARG when dir holds a README.md that is not as it was sealed, and which must not be replaced. */
LB_NODISCARD enum lb_status lb_readme_check(const char *dir, struct lb_detail *detail);

#endif
