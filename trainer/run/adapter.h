/* A run's adapters in PEFT's format: adapter_config.json and adapter_model.safetensors. */
#ifndef LB_RUN_ADAPTER_H
#define LB_RUN_ADAPTER_H

#include "trainer/learn/lora.h"
#include "trainer/recipe/recipe.h"

/* Into DIR/adapter, whose files are replaced. student tells what kind of model they are of. */
LB_NODISCARD enum lb_status lb_adapter_write(const char *dir, const struct lb_lora *lora,
                                             const struct lb_model *student, const struct lb_recipe *recipe,
                                             struct lb_detail *detail);

#endif
