/* What transformers' TrainingArguments are here; TRL's configs and DistillKit's training_args have them. */
#include "trainer/recipe/foreign.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MEMORY_ "how memory and kernels of a GPU are used; numbers are FP32 here"
#define REPORT_ "who is told; metrics are in metrics.jsonl here"
#define LOADER_ "how data are loaded"
#define MACHINES_ "how several processes share a run"
#define OWN_LOOP_ "how often and where evaluation and logging happen changes no student"

const struct lb_foreign_key lb_foreign_training_args[] = {
    {"learning_rate", LB_FOREIGN_TAKE, "learning_rate"},
    {"weight_decay", LB_FOREIGN_TAKE, "weight_decay"},
    {"adam_beta1", LB_FOREIGN_TAKE, "adam_beta1"},
    {"adam_beta2", LB_FOREIGN_TAKE, "adam_beta2"},
    {"adam_epsilon", LB_FOREIGN_TAKE, "adam_epsilon"},
    {"max_grad_norm", LB_FOREIGN_TAKE, "max_grad_norm"},
    {"num_train_epochs", LB_FOREIGN_TAKE, "num_train_epochs"},
    {"per_device_train_batch_size", LB_FOREIGN_TAKE, "per_device_train_batch_size"},
    {"gradient_accumulation_steps", LB_FOREIGN_TAKE, "gradient_accumulation_steps"},
    {"save_total_limit", LB_FOREIGN_TAKE, "save_total_limit"},
    {"logging_steps", LB_FOREIGN_TAKE, "logging_steps"},
    {"seed", LB_FOREIGN_TAKE, "seed"},
    {"warmup_ratio", LB_FOREIGN_TAKE, "warmup_ratio"},
    {"max_steps", LB_FOREIGN_READ, NULL},
    {"warmup_steps", LB_FOREIGN_READ, NULL},
    {"lr_scheduler_type", LB_FOREIGN_READ, NULL},
    {"optim", LB_FOREIGN_READ, NULL},
    {"save_strategy", LB_FOREIGN_READ, NULL},
    {"save_steps", LB_FOREIGN_READ, NULL},
    {"eval_strategy", LB_FOREIGN_READ, NULL},
    {"evaluation_strategy", LB_FOREIGN_READ, NULL},
    {"eval_steps", LB_FOREIGN_READ, NULL},
    {"bf16*", LB_FOREIGN_LEAVE, MEMORY_},
    {"fp16*", LB_FOREIGN_LEAVE, MEMORY_},
    {"tf32", LB_FOREIGN_LEAVE, MEMORY_},
    {"gradient_checkpointing*", LB_FOREIGN_LEAVE, MEMORY_},
    {"activation_offloading", LB_FOREIGN_LEAVE, MEMORY_},
    {"torch_compile*", LB_FOREIGN_LEAVE, MEMORY_},
    {"torch_empty_cache_steps", LB_FOREIGN_LEAVE, MEMORY_},
    {"use_liger_kernel", LB_FOREIGN_LEAVE, MEMORY_},
    {"liger_kernel_config", LB_FOREIGN_LEAVE, MEMORY_},
    {"auto_find_batch_size", LB_FOREIGN_LEAVE, MEMORY_},
    {"use_cpu", LB_FOREIGN_LEAVE, MEMORY_},
    {"full_determinism", LB_FOREIGN_LEAVE, "every run is"},
    {"report_to", LB_FOREIGN_LEAVE, REPORT_},
    {"run_name", LB_FOREIGN_LEAVE, REPORT_},
    {"project", LB_FOREIGN_LEAVE, REPORT_},
    {"trackio_*", LB_FOREIGN_LEAVE, REPORT_},
    {"log_*", LB_FOREIGN_LEAVE, REPORT_},
    {"logging_*", LB_FOREIGN_LEAVE, REPORT_},
    {"disable_tqdm", LB_FOREIGN_LEAVE, REPORT_},
    {"include_*", LB_FOREIGN_LEAVE, REPORT_},
    {"push_to_hub*", LB_FOREIGN_LEAVE, "nothing is sent to the hub"},
    {"hub_*", LB_FOREIGN_LEAVE, "nothing is sent to the hub"},
    {"dataloader_drop_last", LB_FOREIGN_OFF,
     "the last micro-batch of an epoch goes on with the next one; drop it"},
    {"dataloader_*", LB_FOREIGN_LEAVE, LOADER_},
    {"dataset_num_proc", LB_FOREIGN_LEAVE, LOADER_},
    {"remove_unused_columns", LB_FOREIGN_LEAVE, LOADER_},
    {"group_by_length", LB_FOREIGN_LEAVE, LOADER_},
    {"length_column_name", LB_FOREIGN_LEAVE, LOADER_},
    {"per_device_eval_batch_size", LB_FOREIGN_LEAVE, OWN_LOOP_},
    {"eval_*", LB_FOREIGN_LEAVE, OWN_LOOP_},
    {"do_*", LB_FOREIGN_LEAVE, "the recipe's data say what is done"},
    {"overwrite_output_dir", LB_FOREIGN_LEAVE,
     "a run folder is gone on with by --resume, and never written over"},
    {"resume_from_checkpoint", LB_FOREIGN_LEAVE, "limbeck train --resume does it"},
    {"save_only_model", LB_FOREIGN_LEAVE, "checkpoints are whole"},
    {"save_safetensors", LB_FOREIGN_LEAVE, "they are"},
    {"ddp_*", LB_FOREIGN_LEAVE, MACHINES_},
    {"fsdp*", LB_FOREIGN_LEAVE, MACHINES_},
    {"deepspeed", LB_FOREIGN_LEAVE, MACHINES_},
    {"accelerator_config", LB_FOREIGN_LEAVE, MACHINES_},
    {"parallelism_config", LB_FOREIGN_LEAVE, MACHINES_},
    {"average_tokens_across_devices", LB_FOREIGN_LEAVE, MACHINES_},
    {"data_seed", LB_FOREIGN_NEVER, "order and first weights have one seed here; drop it"},
    {"label_smoothing_factor", LB_FOREIGN_OFF,
     "is of cross_entropy here (label_smoothing), which this recipe's losses have none of; set it to 0"},
    {"neftune_noise_alpha", LB_FOREIGN_OFF, "noise on embeddings is not there; drop it"},
    {"lr_scheduler_kwargs", LB_FOREIGN_READ, NULL},
    {"optim_args", LB_FOREIGN_TAKE, "optim_args"},
    {"optim_target_modules", LB_FOREIGN_OFF, "all parameters have one optimizer; drop it"},
    {"load_best_model_at_end", LB_FOREIGN_TAKE, "load_best_model_at_end"},
    {"metric_for_best_model", LB_FOREIGN_TAKE, "metric_for_best_model"},
    {"greater_is_better", LB_FOREIGN_TAKE, "greater_is_better"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

/* The key's value and its whole name in lines. */
static const struct lb_yaml *look(struct lb_foreign *f, const struct lb_yaml *map, const char *prefix,
                                  const char *key, const char **out_path) {
    *out_path = lb_arena_printf(f->arena, "%s%s", prefix, key);
    if (*out_path == NULL) {
        f->status = LB_E_NOMEM;
        return NULL;
    }
    return lb_foreign_get(map, key);
}

static void read_steps(struct lb_foreign *f, const struct lb_yaml *map, const char *prefix) {
    const char *path;
    const struct lb_yaml *node = look(f, map, prefix, "max_steps", &path);
    if (node != NULL && lb_foreign_number(node, 0) < 0) {
        lb_foreign_note(f, node->line, path, "left out: below 0 the epochs decide");
    } else if (node != NULL) {
        lb_foreign_take(f, node, path, "max_steps");
    }
    node = look(f, map, prefix, "warmup_steps", &path);
    double warmup = lb_foreign_number(node, 0);
    if (node != NULL) {
        lb_foreign_take(f, node, path, warmup > 0 && warmup < 1 ? "warmup_ratio" : "warmup_steps");
    }
}

static void read_schedule(struct lb_foreign *f, const struct lb_yaml *map, const char *prefix,
                          const char *schedule_key, const char *optimizer_key) {
    const char *path;
    const struct lb_yaml *node = look(f, map, prefix, schedule_key, &path);
    if (node != NULL) {
        lb_foreign_take(f, node, path, "lr_scheduler_type");
    }
    node = look(f, map, prefix, "lr_scheduler_kwargs", &path);
    if (node != NULL && node->kind == LB_YAML_MAP) {
        struct lb_yaml *to = lb_foreign_child(f, NULL, "lr_scheduler_kwargs", LB_YAML_MAP, node->line);
        for (const struct lb_yaml *one = node->first; to != NULL && one != NULL; one = one->next) {
            lb_foreign_set(f, to, one->key, one->line, lb_foreign_text(one) != NULL ? one->text : "");
        }
        lb_foreign_note(f, node->line, path, "taken");
    } else if (node != NULL) {
        lb_foreign_refuse(f, node->line, path, NULL, "must be a mapping");
    }
    node = look(f, map, prefix, optimizer_key, &path);
    if (node != NULL) {
        lb_foreign_take(f, node, path, "optim");
    }
}

static void read_saving(struct lb_foreign *f, const struct lb_yaml *map, const char *prefix) {
    const char *path;
    const struct lb_yaml *strategy = look(f, map, prefix, "save_strategy", &path);
    const char *how = lb_foreign_text(strategy);
    bool never = strategy != NULL && how != NULL && strcmp(how, "no") == 0;
    if (strategy != NULL) {
        lb_foreign_note(f, strategy->line, path,
                        never ? "taken as save_steps: 0" : "left out: save_steps says when");
    }
    const struct lb_yaml *node = look(f, map, prefix, "save_steps", &path);
    if (never) {
        lb_foreign_set(f, NULL, "save_steps", strategy->line, "0");
    } else if (node != NULL) {
        lb_foreign_take(f, node, path, "save_steps");
    }
    strategy = look(f, map, prefix, "eval_strategy", &path);
    strategy = strategy != NULL ? strategy : look(f, map, prefix, "evaluation_strategy", &path);
    how = lb_foreign_text(strategy);
    if (strategy != NULL) {
        lb_foreign_note(f, strategy->line, path, "left out: the end is evaluated, and each eval_steps steps");
    }
    node = look(f, map, prefix, "eval_steps", &path);
    if (node != NULL && how != NULL && strcmp(how, "steps") == 0 &&
        lb_yaml_find(f->ours, "eval_datasets") != NULL) {
        lb_foreign_take(f, node, path, "eval_steps");
    } else if (node != NULL) {
        lb_foreign_note(f, node->line, path,
                        "left out: eval_strategy is not steps, or there is nothing to evaluate on");
    }
}

void lb_foreign_training(struct lb_foreign *f, const struct lb_yaml *map, const char *prefix,
                         const char *schedule_key, const char *optimizer_key) {
    read_steps(f, map, prefix);
    const struct lb_yaml *warmup = lb_yaml_find(f->ours, "warmup_steps");
    warmup = warmup != NULL ? warmup : lb_yaml_find(f->ours, "warmup_ratio");
    if (warmup != NULL) {
        lb_foreign_set(f, NULL, "warmup_from_zero", warmup->line, "true");
        lb_foreign_note(f, warmup->line, "warmup_from_zero", "true: as transformers numbers steps");
    }
    read_schedule(f, map, prefix, schedule_key, optimizer_key);
    read_saving(f, map, prefix);
}

/* Names of modules, one or a list of them. */
static void take_modules(struct lb_foreign *f, const struct lb_yaml *node) {
    struct lb_yaml *to = lb_foreign_child(f, NULL, "lora_target_modules", LB_YAML_LIST, node->line);
    const struct lb_yaml *first = node->kind == LB_YAML_LIST ? node->first : node;
    for (const struct lb_yaml *one = first; to != NULL && one != NULL; one = node == one ? NULL : one->next) {
        struct lb_yaml *item = lb_yaml_add(f->arena, to, LB_YAML_SCALAR, NULL, one->line);
        if (item == NULL) {
            f->status = LB_E_NOMEM;
            return;
        }
        item->text = lb_foreign_text(one) != NULL ? one->text : "";
    }
    lb_foreign_note(f, node->line, "lora_target_modules", "taken");
}

void lb_foreign_lora(struct lb_foreign *f, bool wanted, double silent_dropout) {
    static const char *const keys[] = {"lora_r", "lora_alpha", "lora_target_modules", "lora_dropout"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct lb_yaml *node = lb_foreign_get(f->theirs, keys[i]);
        if (node != NULL && !wanted) {
            lb_foreign_note(f, node->line, keys[i], "left out: there are no adapters");
        } else if (node != NULL && i < 2) {
            lb_foreign_take(f, node, keys[i], keys[i]);
        } else if (node != NULL && i == 2) {
            take_modules(f, node);
        } else if (i == 3 && wanted && lb_foreign_number(node, silent_dropout) != 0) {
            lb_foreign_note(f, node != NULL ? node->line : 0, keys[i],
                            "with a difference: adapters have no dropout here, %g there",
                            lb_foreign_number(node, silent_dropout));
        }
    }
}
