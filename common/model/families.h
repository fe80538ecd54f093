/* The families of models that this build knows, by their model_type (config.json) or general.architecture
 * (GGUF): their configs read, checked and written.
 */
#ifndef LB_MODEL_FAMILIES_H
#define LB_MODEL_FAMILIES_H

#include "common/formats/config.h"

/* Reads and checks a config.json object of a family of this build, as lb_config_read does. notes may be NULL.
 */
LB_NODISCARD enum lb_status lb_config_parse(const json_t *object, const char *what, struct lb_config *out,
                                            struct lb_notes *notes, struct lb_detail *detail);
/* The config of a model that is to be made: an object with the keys of its config.json (model_type first of
 * all), where a missing key means what it means there. Unlike in a file, each key must be one of the family's
 * own (lb_family_key); another is LB_E_ARG. what stands before every error: "recipe.yaml: student". */
LB_NODISCARD enum lb_status lb_config_parse_new(const json_t *object, const char *what, struct lb_config *out,
                                                struct lb_detail *detail);
/* Whether the i-th key of the object's family can be read from it, by itself: its kind and range, and that it
 * is there where it must be. LB_E_NOTFOUND: there is no i-th key. For who wants all that is wrong:
 * lb_config_parse_new stops at the first. */
LB_NODISCARD enum lb_status lb_config_try_key(const json_t *object, const char *what, size_t i,
                                              struct lb_detail *detail);
/* The same as lb_config_parse from a GGUF: biases and an untied head are seen by their tensors. */
LB_NODISCARD enum lb_status lb_config_from_gguf(const struct lb_gguf *file, const char *what,
                                                struct lb_config *out, struct lb_notes *notes,
                                                struct lb_detail *detail);
/* Checks that the numbers are in range and fit each other; the parsers do, and whoever fills a config by hand
 * must. */
LB_NODISCARD enum lb_status lb_config_check(const struct lb_config *config, const char *what,
                                            struct lb_detail *detail);
/* The config.json that transformers reads, as text; labels: of a classifier of texts, else NULL; dtype_name:
 * "float32", "float16", "bfloat16". */
LB_NODISCARD enum lb_status lb_config_write(const struct lb_config *config, const struct lb_labels *labels,
                                            const char *dtype_name, struct lb_buf *buf);

#define LB_FAMILY_NAMES 512
/* "llama, mistral, ...": all model_types, into names, which it returns. */
const char *lb_family_names(char names[LB_FAMILY_NAMES]);
/* The i-th key that lb_config_parse_new takes for that model_type; NULL after the last one, or when there is
 * no such family. */
const char *lb_family_key(const char *model_type, size_t i);

#endif
