/* The folder of a trimmed tokenizer. */
#ifndef LB_COMMAND_TRIMMED_H
#define LB_COMMAND_TRIMMED_H

#include "common/text/trim.h"

/* LB_OK when dir can be written: it is not there, empty, or one that lb_trimmed_write wrote. */
LB_NODISCARD enum lb_status lb_trimmed_check(const char *dir, struct lb_detail *detail);
/* Writes tokenizer.json, vocab_map.json and what says how the tokenizer is used: the files beside the one
 * that argument (a MODEL argument) names, with ids and tokens that are gone taken out, or, where it has none,
 * one that names the tokens that full knows. */
LB_NODISCARD enum lb_status lb_trimmed_write(const char *argument, const struct lb_tokenizer *full,
                                             const struct lb_tokenizer *trimmed,
                                             const struct lb_vocab_map *map, const char *dir,
                                             struct lb_detail *detail);

#endif
