/* Rows as a teacher reads them whose tokenizer is not the student's: the text that a row's tokens stand for,
 * in the teacher's tokens, and the chunks of it that both hold whole.
 *
 * Each text of a row is begun and ended as the teacher's tokenizer says; where texts end is a chunk too. What
 * does not count: tokens that the row leaves out (completion_only_loss) and whatever shares a chunk with one;
 * the first tokens, which nobody predicts; characters that a row's ends cut; the last chunk of a text that
 * goes on in another row, which the teacher would cut otherwise if it saw more; what is beyond max_length
 * there; unknown tokens, and what a normalizer changed.
 *
 * One thread at a time; a pure function of the row and the two tokenizers.
 */
#ifndef LB_DATA_READING_H
#define LB_DATA_READING_H

#include "common/base/arena.h"
#include "common/base/sha256.h"
#include "common/text/tokenizer.h"
#include "trainer/wire/sample.h"

struct lb_reader;

/* own: the rows'. its: the teacher's, which reads at most max_length tokens (0: any number). Both are
 * borrowed. */
LB_NODISCARD enum lb_status lb_reader_create(const struct lb_tokenizer *own, const struct lb_tokenizer *its,
                                             int64_t max_length, struct lb_reader **out,
                                             struct lb_detail *detail);
/* From now on rows that are conversations are read too: as the teacher's own chat template writes them, and
 * compared in what came from the data and in the tokens that end messages. template: a Jinja file that wrote
 * the rows; NULL: that of their tokenizer. LB_E_NOTFOUND: the teacher has none. */
LB_NODISCARD enum lb_status lb_reader_converse(struct lb_reader *reader, const char *template,
                                               struct lb_detail *detail);
/* Adds to hash what of the teacher's tokenizer decides readings and is not in its fingerprint. */
void lb_reader_hash(const struct lb_reader *reader, struct lb_sha256 *hash);
/* Accepts NULL. */
void lb_reader_destroy(struct lb_reader *reader);
/* What out points to lies in arena. Where nothing can be compared, n_chunks is 0. LB_E_ARG and others: the
 * teacher's template does not write that conversation. */
LB_NODISCARD enum lb_status lb_reader_read(struct lb_reader *reader, const struct lb_sample *sample,
                                           struct lb_arena *arena, struct lb_reading *out,
                                           struct lb_detail *detail);

#endif
