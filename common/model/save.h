/* Inside of saving: what its files share. */
#ifndef LB_MODEL_SAVE_H
#define LB_MODEL_SAVE_H

#include "common/model/model.h"
#include "common/text/tokenizer.h"

/* A file of dir, whole or not at all. */
LB_NODISCARD enum lb_status lb_save_file(const char *dir, const char *name, const void *bytes, size_t len,
                                         struct lb_detail *detail);
/* save_tokenizer.c: tokenizer.json and what goes with it into dir. */
LB_NODISCARD enum lb_status lb_save_tokenizer(const struct lb_model *model,
                                              const struct lb_tokenizer *tokenizer, const char *dir,
                                              struct lb_detail *detail);

#endif
