/* Texts that the student writes while it is trained: behind the prompts of a micro-batch's samples, all
 * together, as limbeck generate would each by itself with the same weights and seed.
 *
 * Which micro-batches these are, and what is drawn, are pure functions of numbers; the texts are besides of
 * the weights at that step, so that a resumed run writes the same ones. Dropout is off. One thread (OpenMP
 * inside).
 */
#ifndef LB_LEARN_SCRIBE_H
#define LB_LEARN_SCRIBE_H

#include "common/base/arena.h"
#include "common/model/model.h"
#include "common/text/tokenizer.h"
#include "trainer/recipe/recipe.h"
#include "trainer/wire/sample.h"

#include <signal.h>

struct lb_scribe;

/* The sample becomes prompt and text, ids [len] in arena, as which nothing of the prompt counts. counts comes
 * from arena; false: out of memory. */
bool lb_sample_rewrite(struct lb_sample *sample, const int32_t *ids, int64_t len, enum lb_source source,
                       struct lb_arena *arena);

/* What was written. */
struct lb_scribed {
    double texts, tokens; /* tokens with those that end texts */
    double clipped;       /* texts that nothing ended but the room they had */
    double repeated; /* sum over texts of the share of their runs of four tokens that are not the first */
};

/* The probability that micro-batches of an optimizer step (from 0) are written by the student. */
double lb_scribe_lmbda(const struct lb_recipe *recipe, int64_t step);
/* Whose text micro-batch m (from 0, over the whole run) has. */
enum lb_source lb_scribe_source(const struct lb_recipe *recipe, int64_t m);
/* What the text of sample `number` (from 0, over the whole run: m * per_device_train_batch_size + i) is drawn
 * by: the seed that limbeck generate takes, below 2^53. */
uint64_t lb_scribe_seed(const struct lb_recipe *recipe, int64_t number);

/* Most tokens that are written behind a prompt of so many. */
int64_t lb_scribe_room(const struct lb_recipe *recipe, int64_t prompt);

/* All borrowed. *stop (may be NULL) other than 0 ends a text halfway. */
LB_NODISCARD enum lb_status lb_scribe_create(const struct lb_recipe *recipe, const struct lb_model *student,
                                             const struct lb_tokenizer *tokenizer,
                                             const volatile sig_atomic_t *stop, struct lb_scribe **out,
                                             struct lb_detail *detail);
/* Accepts NULL. */
void lb_scribe_destroy(struct lb_scribe *scribe);
/* Samples [n], the first of them with that number, become what the student writes behind their prompts, in
 * arena: the prompt, of which nothing counts, and up to max_new_tokens tokens, within max_length + 1, with
 * the one that ends it. LB_E_CANCELLED: stopped; LB_E_NOMEM; LB_E_ARG: a sample has no prompt, or a model
 * that does not write. */
LB_NODISCARD enum lb_status lb_scribe_write(struct lb_scribe *scribe, int64_t number,
                                            struct lb_sample *samples, int64_t n, struct lb_arena *arena,
                                            struct lb_detail *detail);
/* What was written since it was last asked. */
struct lb_scribed lb_scribe_take(struct lb_scribe *scribe);
/* Seconds that writing took, since create. */
double lb_scribe_seconds(const struct lb_scribe *scribe);
/* Whether id ends a text. */
bool lb_scribe_ends(const struct lb_scribe *scribe, int32_t id);

#endif
