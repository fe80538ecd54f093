/* Small models with random weights, written into folders, for tests that need real files. */
#ifndef LB_TESTS_SUPPORT_TINY_MODEL_H
#define LB_TESTS_SUPPORT_TINY_MODEL_H

#include "common/formats/config.h"
#include "common/nn/dtype.h"

#include <stdbool.h>
#include <stdint.h>

/* A llama of 2 layers: V 97, C 32, 4 heads (2 for keys), F 48, at most 128 positions. */
void lb_tiny_llama(struct lb_config *config);
/* A bert of 2 layers: V 97, C 32, 4 heads, F 48, at most 64 positions. */
void lb_tiny_bert(struct lb_config *config);
/* A classifier 12 -> 16 -> 8 -> 5 classes. */
void lb_tiny_mlp(struct lb_config *config);
/* Writes the model as a Hugging Face folder, with a byte-level tokenizer.json of the config's vocabulary
 * where tokenizer is true. Fails the test (abort with the detail on standard error) when it can't. */
void lb_tiny_save(const struct lb_config *config, uint64_t seed, const char *dir, enum lb_dtype dtype,
                  bool tokenizer);

#endif
