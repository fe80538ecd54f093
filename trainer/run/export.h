/* A model written in another tool's format, opened again and compared before success is reported. */
#ifndef LB_RUN_EXPORT_H
#define LB_RUN_EXPORT_H

#include "common/base/status.h"
#include "common/model/model.h"
#include "common/text/tokenizer.h"

#include <signal.h>

enum lb_export_format { LB_EXPORT_HF, LB_EXPORT_GGUF };

/* tokenizer may be NULL (classifiers, or to write none): what is read back must cut a hard text into its ids.
 * readme (may be NULL) becomes a Hugging Face folder's README.md. *out_difference: the largest difference
 * between the logits of the model and of the reopened file over a fixed input, relative to the largest logit.
 * Beyond what the dtype's rounding explains, or with other ids, it is LB_E_MISMATCH, and what was written
 * stays for a look. LB_E_CANCELLED soon after *stop (may be NULL) became other than 0: the detail says
 * whether path was written. notes (may be NULL) get what was written otherwise than asked for. */
LB_NODISCARD enum lb_status lb_export(const struct lb_model *model, const struct lb_tokenizer *tokenizer,
                                      enum lb_export_format format, enum lb_dtype dtype, const char *path,
                                      const char *readme, const volatile sig_atomic_t *stop,
                                      double *out_difference, struct lb_notes *notes,
                                      struct lb_detail *detail);

#endif
