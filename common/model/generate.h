/* Text generation with a KV cache. */
#ifndef LB_MODEL_GENERATE_H
#define LB_MODEL_GENERATE_H

#include "common/base/rng.h"
#include "common/model/model.h"
#include "common/nn/tape.h"
#include "common/text/tokenizer.h"

struct lb_generate_args {
    int64_t max_new_tokens;
    double temperature; /* 0: greedy */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;
    const struct lb_ends *ends; /* each of them stops; NULL: none does */
    int64_t n_ids;              /* ids from here on are never drawn: a padded vocabulary; 0: all may be */
};

/* What is to be gone on with, and how: all that decides the text, so that it does not depend on what it is
 * batched with. */
struct lb_generate_prompt {
    const int32_t *ids; /* [n], n > 0 */
    int64_t n;
    struct lb_generate_args args;
};

/* The id that comes next: drawn from softmax(z / temperature) over the top_k likeliest, cut to the smallest
 * set that holds top_p of their mass (Holtzman et al. 2020); the likeliest of all where the temperature is 0.
 * z [v] are logits; ids and values [v] are scratch. An lb_generate draws with a state that is seeded by
 * args->seed, stream 0. */
int32_t lb_generate_draw(const struct lb_generate_args *args, struct lb_rng *rng, const float *z, int64_t v,
                         int32_t *ids, float *values);

/* Called with each new id; a status other than LB_OK stops and is returned. */
typedef enum lb_status (*lb_generate_fn)(void *context, int32_t id);

/* prompt [n], n > 0. Stops at one of args->ends (not reported), max_new_tokens or the model's maximum length.
 */
LB_NODISCARD enum lb_status lb_generate(const struct lb_model *model, const int32_t *prompt, int64_t n,
                                        const struct lb_generate_args *args, lb_generate_fn fn, void *context,
                                        struct lb_detail *detail);

/* Called with each new id of prompt i; a status other than LB_OK stops all and is returned. */
typedef enum lb_status (*lb_generate_batch_fn)(void *context, int64_t i, int32_t id);

/* Several together, which is faster than one after the other: each ends for itself, as lb_generate's would,
 * and gets the ids that it gets there, bit for bit the same logits behind them. Each step's ids come in the
 * order of prompts. Memory: the caches of all, and a forward over all prompts at once. */
LB_NODISCARD enum lb_status lb_generate_batch(const struct lb_model *model,
                                              const struct lb_generate_prompt *prompts, int64_t n,
                                              lb_generate_batch_fn fn, void *context,
                                              struct lb_detail *detail);

/* The same step by step, for those who have something else to do in between. One thread at a time. */
struct lb_generator;

/* Called with each new id of prompt i, which ends says is one of its args->ends, and the logits z [V] that it
 * was drawn from. False: the prompt's text is over, as it is after an end. */
typedef bool (*lb_generator_fn)(void *context, int64_t i, int32_t id, bool ends, const float *z);

/* Prompts are borrowed until it is destroyed. As lb_generate_batch: LB_E_ARG, LB_E_UNSUPPORTED, LB_E_NOMEM.
 */
LB_NODISCARD enum lb_status lb_generator_create(const struct lb_model *model,
                                                const struct lb_generate_prompt *prompts, int64_t n,
                                                struct lb_generator **out, struct lb_detail *detail);
/* Bytes that one holds, about. */
size_t lb_generator_bytes(const struct lb_model *model, const struct lb_generate_prompt *prompts, int64_t n);
/* Texts that go on; 0: nothing more comes. */
int64_t lb_generator_left(const struct lb_generator *generator);
/* One id more of each: all prompts go through the model at the first step, one position of each later. The
 * tape is free for it. LB_E_NOMEM, LB_E_LIMIT: what the tape says. */
LB_NODISCARD enum lb_status lb_generator_step(struct lb_generator *generator, struct lb_tape *tape,
                                              lb_generator_fn fn, void *context);
/* Accepts NULL. */
void lb_generator_destroy(struct lb_generator *generator);

#endif
