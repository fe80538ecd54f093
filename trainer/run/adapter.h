/* A run's adapters in PEFT's format: adapter_config.json and adapter_model.safetensors. */
#ifndef LB_RUN_ADAPTER_H
#define LB_RUN_ADAPTER_H

#include "trainer/learn/lora.h"
#include "trainer/recipe/recipe.h"

/* Whether DIR/adapter may be written; LB_E_ARG: it is somebody's own. */
LB_NODISCARD enum lb_status lb_adapter_check(const char *dir, struct lb_detail *detail);
/* Into DIR/adapter, which is whole at any moment; what lb_adapter_check finds there is replaced. student
 * tells what kind of model they are of. */
LB_NODISCARD enum lb_status lb_adapter_write(const char *dir, const struct lb_lora *lora,
                                             const struct lb_model *student, const struct lb_recipe *recipe,
                                             struct lb_detail *detail);

#endif
