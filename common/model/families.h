/* The families of models that this build knows, by their model_type: their configs read, checked and written.
 */
#ifndef LB_MODEL_FAMILIES_H
#define LB_MODEL_FAMILIES_H

#include "common/formats/config.h"

/* The config of a model that is to be made: an object with the keys of its config.json (model_type first of
 * all), where a missing key means what it means there. Unlike in a file, each key must be one of the family's
 * own (lb_family_key); another is LB_E_ARG. what stands before every error: "recipe.yaml: student". */
LB_NODISCARD enum lb_status lb_config_parse_new(const json_t *object, const char *what, struct lb_config *out,
                                                struct lb_detail *detail);
/* The i-th key that lb_config_parse_new takes for that model_type; NULL after the last one, or when there is
 * no such family. */
const char *lb_family_key(const char *model_type, size_t i);

#endif
