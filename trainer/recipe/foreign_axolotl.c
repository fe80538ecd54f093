/* Axolotl's YAML with its KD plugin. Its loss on lists is KL(p, q) (kd_beta 0), KL(q, p) (1) or the
 * generalised JSD between, multiplied by the temperature's square as ours. */
#include "trainer/recipe/foreign.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GPU_ "how memory and kernels of a GPU are used; numbers are FP32 here"
#define REPORT_ "who is told; metrics are in metrics.jsonl here"
#define LOADER_ "how data are loaded"
#define MACHINES_ "how several processes share a run"

static const char *const marks[] = {"kd_trainer", "kd_alpha", "kd_ce_alpha", "kd_online_server_base_url",
                                    "base_model", NULL};

static const struct lb_foreign_key keys[] = {
    {"base_model", LB_FOREIGN_READ, NULL},
    {"plugins", LB_FOREIGN_LEAVE, "what the KD plugin does is here"},
    {"kd_trainer", LB_FOREIGN_READ, NULL},
    {"kd_alpha", LB_FOREIGN_READ, NULL},
    {"kd_ce_alpha", LB_FOREIGN_READ, NULL},
    {"kd_temperature", LB_FOREIGN_READ, NULL},
    {"kd_temperature_min", LB_FOREIGN_READ, NULL},
    {"kd_beta", LB_FOREIGN_READ, NULL},
    {"kd_normalize_topk", LB_FOREIGN_READ, NULL},
    {"kd_online_server_base_url", LB_FOREIGN_READ, NULL},
    {"kd_online_server", LB_FOREIGN_READ, NULL},
    {"kd_online_server_model", LB_FOREIGN_READ, NULL},
    {"kd_online_topk", LB_FOREIGN_READ, NULL},
    {"kd_online_timeout", LB_FOREIGN_TAKE, "teacher_timeout"},
    {"kd_online_max_new_tokens", LB_FOREIGN_LEAVE, "teachers write nothing"},
    {"kd_online_preflight", LB_FOREIGN_LEAVE, "teachers are asked who they are before the run begins"},
    {"kd_prepared_targets_alignment", LB_FOREIGN_LEAVE, "of captured log-probabilities, which are not read"},
    {"kd_compiled_kernel", LB_FOREIGN_LEAVE, GPU_},
    {"datasets", LB_FOREIGN_READ, NULL},
    {"test_datasets", LB_FOREIGN_READ, NULL},
    {"val_set_size", LB_FOREIGN_OFF, "give test_datasets a file of its own, and set it to 0"},
    {"chat_template", LB_FOREIGN_LEAVE,
     "the tokenizer's is used; chat_template: FILE.jinja gives another (--set)"},
    {"sequence_len", LB_FOREIGN_TAKE, "max_length"},
    {"micro_batch_size", LB_FOREIGN_TAKE, "per_device_train_batch_size"},
    {"gradient_accumulation_steps", LB_FOREIGN_TAKE, "gradient_accumulation_steps"},
    {"num_epochs", LB_FOREIGN_TAKE, "num_train_epochs"},
    {"learning_rate", LB_FOREIGN_TAKE, "learning_rate"},
    {"weight_decay", LB_FOREIGN_TAKE, "weight_decay"},
    {"warmup_ratio", LB_FOREIGN_TAKE, "warmup_ratio"},
    {"adam_beta1", LB_FOREIGN_TAKE, "adam_beta1"},
    {"adam_beta2", LB_FOREIGN_TAKE, "adam_beta2"},
    {"adam_epsilon", LB_FOREIGN_TAKE, "adam_epsilon"},
    {"max_grad_norm", LB_FOREIGN_TAKE, "max_grad_norm"},
    {"cosine_min_lr_ratio", LB_FOREIGN_TAKE, "min_lr_ratio"},
    {"logging_steps", LB_FOREIGN_TAKE, "logging_steps"},
    {"save_total_limit", LB_FOREIGN_TAKE, "save_total_limit"},
    {"seed", LB_FOREIGN_TAKE, "seed"},
    {"output_dir", LB_FOREIGN_TAKE, "output_dir"},
    {"max_steps", LB_FOREIGN_READ, NULL},
    {"warmup_steps", LB_FOREIGN_READ, NULL},
    {"lr_scheduler", LB_FOREIGN_READ, NULL},
    {"lr_scheduler_kwargs", LB_FOREIGN_READ, NULL},
    {"optimizer", LB_FOREIGN_READ, NULL},
    {"save_steps", LB_FOREIGN_READ, NULL},
    {"save_strategy", LB_FOREIGN_READ, NULL},
    {"eval_steps", LB_FOREIGN_READ, NULL},
    {"eval_strategy", LB_FOREIGN_READ, NULL},
    {"saves_per_epoch", LB_FOREIGN_LEAVE, "save_steps says when"},
    {"evals_per_epoch", LB_FOREIGN_LEAVE, "the end is evaluated"},
    {"eval_*", LB_FOREIGN_LEAVE, "how often evaluation happens changes no student"},
    {"train_on_inputs", LB_FOREIGN_READ, NULL},
    {"group_by_length", LB_FOREIGN_LEAVE, LOADER_},
    {"shuffle_merged_datasets", LB_FOREIGN_LEAVE, "each epoch is shuffled"},
    {"sample_packing*", LB_FOREIGN_LEAVE,
     "texts are strung together, records are rows of their own; nothing is padded"},
    {"pad_to_sequence_len", LB_FOREIGN_LEAVE, "nothing is padded"},
    {"dataset_prepared_path", LB_FOREIGN_LEAVE, LOADER_},
    {"dataset_processes", LB_FOREIGN_LEAVE, LOADER_},
    {"skip_prepare_dataset", LB_FOREIGN_LEAVE, LOADER_},
    {"remove_unused_columns", LB_FOREIGN_LEAVE, LOADER_},
    {"dataloader_*", LB_FOREIGN_LEAVE, LOADER_},
    {"special_tokens", LB_FOREIGN_LEAVE, "the tokenizer says them"},
    {"tokenizer_type", LB_FOREIGN_LEAVE, "the tokenizer's file says it"},
    {"model_type", LB_FOREIGN_LEAVE, "config.json says it"},
    {"trust_remote_code", LB_FOREIGN_LEAVE, "no code of models is run"},
    {"strict", LB_FOREIGN_LEAVE, "always"},
    {"bf16", LB_FOREIGN_LEAVE, GPU_},
    {"bfloat16", LB_FOREIGN_LEAVE, GPU_},
    {"fp16", LB_FOREIGN_LEAVE, GPU_},
    {"tf32", LB_FOREIGN_LEAVE, GPU_},
    {"gradient_checkpointing*", LB_FOREIGN_LEAVE, GPU_},
    {"torch_compile*", LB_FOREIGN_LEAVE, GPU_},
    {"flash_attention", LB_FOREIGN_LEAVE, GPU_},
    {"attn_implementation", LB_FOREIGN_LEAVE, GPU_},
    {"sdp_attention", LB_FOREIGN_LEAVE, GPU_},
    {"xformers_attention", LB_FOREIGN_LEAVE, GPU_},
    {"liger_*", LB_FOREIGN_LEAVE, GPU_},
    {"wandb_*", LB_FOREIGN_LEAVE, REPORT_},
    {"mlflow_*", LB_FOREIGN_LEAVE, REPORT_},
    {"use_tensorboard", LB_FOREIGN_LEAVE, REPORT_},
    {"hub_*", LB_FOREIGN_LEAVE, "nothing is sent to the hub"},
    {"deepspeed", LB_FOREIGN_LEAVE, MACHINES_},
    {"fsdp*", LB_FOREIGN_LEAVE, MACHINES_},
    {"ddp_*", LB_FOREIGN_LEAVE, MACHINES_},
    {"local_rank", LB_FOREIGN_LEAVE, MACHINES_},
    {"resume_from_checkpoint", LB_FOREIGN_LEAVE, "limbeck train --resume does it"},
    {"auto_resume_from_checkpoints", LB_FOREIGN_LEAVE, "limbeck train --resume does it"},
    {"early_stopping_patience", LB_FOREIGN_TAKE, "early_stopping_patience"},
    {"adapter", LB_FOREIGN_READ, NULL},
    {"lora_r", LB_FOREIGN_READ, NULL},
    {"lora_alpha", LB_FOREIGN_READ, NULL},
    {"lora_target_modules", LB_FOREIGN_READ, NULL},
    {"lora_dropout", LB_FOREIGN_READ, NULL},
    {"lora_target_linear", LB_FOREIGN_LEAVE, "without lora_target_modules all linear ones have adapters"},
    {"lora_model_dir", LB_FOREIGN_OFF, "adapters begin anew; drop it"},
    {"lora_modules_to_save", LB_FOREIGN_OFF, "adapters alone are trained beside frozen weights; drop it"},
    {"load_in_8bit", LB_FOREIGN_OFF, "a student is trained in FP32; set it to false"},
    {"load_in_4bit", LB_FOREIGN_OFF, "a student is trained in FP32; set it to false"},
    {"unfrozen_parameters", LB_FOREIGN_OFF, "all weights are trained; drop it"},
    {"neftune_noise_alpha", LB_FOREIGN_OFF, "noise on embeddings is not there; drop it"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

static const struct lb_foreign_key entry_keys[] = {
    {"path", LB_FOREIGN_READ, NULL},
    {"data_files", LB_FOREIGN_READ, NULL},
    {"type", LB_FOREIGN_READ, NULL},
    {"field", LB_FOREIGN_READ, NULL},
    {"field_messages", LB_FOREIGN_READ, NULL},
    {"name", LB_FOREIGN_LEAVE, "a file has one"},
    {"ds_type", LB_FOREIGN_LEAVE, "the file's name says it"},
    {"split", LB_FOREIGN_LEAVE, "a file is one split"},
    {"chat_template", LB_FOREIGN_LEAVE,
     "the tokenizer's is used; chat_template: FILE.jinja gives another (--set)"},
    {"roles_to_train", LB_FOREIGN_READ, NULL},
    {"train_on_eos", LB_FOREIGN_LEAVE, "what the template writes for a message of the assistant's counts"},
    {"message_property_mappings", LB_FOREIGN_OFF,
     "messages have role and content, or from and value; rename them, drop it"},
    {"roles", LB_FOREIGN_OFF, "roles are those of the chat template; rename them, drop it"},
    {"shards", LB_FOREIGN_OFF, "the whole file is read; drop it"},
    {"logprobs_field", LB_FOREIGN_LEAVE, "of captured log-probabilities, which are not read"},
    {"temperature", LB_FOREIGN_LEAVE, "of captured log-probabilities, which are not read"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

static const struct lb_foreign_default defaults[] = {{"gradient_accumulation_steps", "1"},
                                                     {"per_device_train_batch_size", "1"},
                                                     {"num_train_epochs", "1"},
                                                     {"lr_scheduler_type", "cosine"},
                                                     {"save_steps", "500"},
                                                     {"max_length", "512"},
                                                     {"disable_dropout", "false"},
                                                     {NULL, NULL}};

static bool is_chat(const struct lb_yaml *item) {
    const char *type = lb_foreign_text(lb_foreign_get(item, "type"));
    return type != NULL && strncmp(type, "chat_template", strlen("chat_template")) == 0;
}

/* Whether there are data beside conversations, of which train_on_inputs decides. */
static bool any_plain(const struct lb_foreign *f) {
    const struct lb_yaml *list = lb_foreign_get(f->theirs, "datasets");
    const struct lb_yaml *item = list != NULL ? list->first : NULL;
    while (item != NULL && is_chat(item)) {
        item = item->next;
    }
    return item != NULL;
}

/* Whose messages count: of conversations the assistant's, whatever train_on_inputs is. */
static void read_counts(struct lb_foreign *f, const struct lb_yaml *item, const char *at) {
    const struct lb_yaml *roles = lb_foreign_get(item, "roles_to_train");
    const struct lb_yaml *one = roles != NULL && roles->kind == LB_YAML_LIST ? roles->first : roles;
    for (; one != NULL; one = roles == one ? NULL : one->next) {
        const char *role = lb_foreign_text(one);
        if (role == NULL || (strcmp(role, "assistant") != 0 && strcmp(role, "gpt") != 0)) {
            lb_foreign_refuse(f, one->line, at, "completion_only_loss",
                              "roles_to_train: the assistant's messages count, or with "
                              "--set completion_only_loss=false all; drop it");
            return;
        }
    }
    if (is_chat(item)) {
        lb_foreign_set(f, NULL, "completion_only_loss", item->line, "true");
        lb_foreign_note(
            f, item->line, at,
            "type: chat_template taken with completion_only_loss: true, the assistant's messages");
    }
}

static void read_data(struct lb_foreign *f, const char *key, const char *ours) {
    const struct lb_yaml *list = lb_foreign_get(f->theirs, key);
    unsigned i = 0;
    for (const struct lb_yaml *item = list != NULL ? list->first : NULL; item != NULL;
         item = item->next, i++) {
        const char *type = lb_foreign_text(lb_foreign_get(item, "type"));
        const struct lb_yaml *path = lb_foreign_get(item, "path"),
                             *files = lb_foreign_get(item, "data_files");
        const struct lb_yaml *field = lb_foreign_get(item, "field");
        char at[64];
        snprintf(at, sizeof at, "%s.%u.", key, i);
        if (item->kind == LB_YAML_MAP) {
            lb_foreign_apply(f, item, at, entry_keys, NULL);
        }
        at[strlen(at) - 1] = '\0';
        if (type != NULL && strcmp(type, "axolotl.integrations.kd.chat_template") == 0) {
            lb_foreign_refuse(f, item->line, at, ours,
                              "captured log-probabilities are not read; type: chat_template with "
                              "kd_online_server_base_url asks a teacher");
            continue;
        }
        if (files != NULL && files->kind == LB_YAML_LIST && files->count == 1) {
            files = files->first;
        }
        read_counts(f, item, at);
        path = files != NULL ? files : path;
        struct lb_yaml *entry =
            lb_foreign_dataset(f, ours, path != NULL ? path->line : item->line, at, lb_foreign_text(path));
        if (entry != NULL && lb_foreign_text(field) != NULL) {
            lb_foreign_set(f, entry, "field", field->line, field->text);
        }
        const struct lb_yaml *messages = lb_foreign_get(item, "field_messages");
        const char *member = lb_foreign_text(messages);
        if (member != NULL && strcmp(member, "messages") != 0 && strcmp(member, "conversations") != 0) {
            lb_foreign_refuse(
                f, messages->line, at, NULL,
                "field_messages %.40s: records have messages or conversations; rename it in the file",
                member);
        }
    }
}

static void read_teacher(struct lb_foreign *f) {
    const struct lb_yaml *url = lb_foreign_get(f->theirs, "kd_online_server_base_url");
    const struct lb_yaml *server = lb_foreign_get(f->theirs, "kd_online_server");
    const struct lb_yaml *model = lb_foreign_get(f->theirs, "kd_online_server_model");
    const struct lb_yaml *top = lb_foreign_get(f->theirs, "kd_online_topk");
    if (lb_foreign_text(url) == NULL) {
        lb_foreign_refuse(f, 1, "kd_online_server_base_url", "teachers",
                          "is missing; captured log-probabilities are not read, a teacher is asked");
        return;
    }
    struct lb_yaml *entry =
        lb_foreign_entry(f, lb_foreign_child(f, NULL, "teachers", LB_YAML_LIST, url->line), url->line);
    if (entry == NULL) {
        return;
    }
    const char *protocol = lb_foreign_text(server);
    protocol = protocol != NULL ? protocol : "vllm";
    lb_foreign_set(f, entry, "name", url->line, "teacher");
    lb_foreign_set(f, entry, "url", url->line, url->text);
    lb_foreign_set(f, entry, "protocol", server != NULL ? server->line : url->line, protocol);
    if (server != NULL && lb_foreign_text(server) != NULL) {
        lb_foreign_note(f, server->line, "kd_online_server", "taken as teachers.0.protocol");
    }
    if (lb_foreign_text(model) != NULL) {
        lb_foreign_set(f, entry, "model", model->line, model->text);
        lb_foreign_note(f, model->line, "kd_online_server_model", "taken as teachers.0.model");
    }
    lb_foreign_note(f, url->line, "kd_online_server_base_url", "taken as teachers.0: protocol %s", protocol);
    lb_foreign_set(f, NULL, "targets", url->line, "topk");
    if (lb_foreign_text(top) != NULL) {
        lb_foreign_set(f, NULL, "loss_top_k", top->line, top->text);
        lb_foreign_note(f, top->line, "kd_online_topk",
                        "taken as targets: topk, loss_top_k; with a difference: the rest of a list is one "
                        "bucket (loss_add_tail), where Axolotl makes the teacher's list sum to 1 and "
                        "compares it with the student's whole distribution");
    } else {
        lb_foreign_refuse(f, url->line, "kd_online_topk", "loss_top_k",
                          "is missing: how many ids a position");
    }
}

static void read_losses(struct lb_foreign *f) {
    const struct lb_yaml *alpha = lb_foreign_get(f->theirs, "kd_alpha"),
                         *ce = lb_foreign_get(f->theirs, "kd_ce_alpha");
    const struct lb_yaml *temperature = lb_foreign_get(f->theirs, "kd_temperature"),
                         *beta = lb_foreign_get(f->theirs, "kd_beta");
    const struct lb_yaml *least = lb_foreign_get(f->theirs, "kd_temperature_min"),
                         *normal = lb_foreign_get(f->theirs, "kd_normalize_topk");
    int line = alpha != NULL ? alpha->line : 1;
    struct lb_yaml *list = lb_foreign_child(f, NULL, "loss_functions", LB_YAML_LIST, line);
    struct lb_yaml *entry = lb_foreign_entry(f, list, line);
    if (entry == NULL) {
        return;
    }
    bool plain = lb_foreign_number(beta, 0) == 0;
    const char *weight = alpha != NULL ? lb_foreign_text(alpha) : "1";
    lb_foreign_set(f, entry, "function", line, plain ? "kl" : "jsd");
    lb_foreign_set(f, entry, "weight", line, weight);
    lb_foreign_note(f, line, "kd_alpha", "taken as loss_functions.0: {function: %s, weight: %s}",
                    plain ? "kl" : "jsd", weight != NULL ? weight : "");
    if (beta != NULL) {
        if (!plain) {
            lb_foreign_set(f, entry, "beta", beta->line, lb_foreign_text(beta));
        }
        lb_foreign_note(f, beta->line, "kd_beta",
                        plain ? "taken: 0 is kl" : "taken as loss_functions.0.beta");
    }
    if (lb_foreign_number(ce, 0) != 0 && (entry = lb_foreign_entry(f, list, ce->line)) != NULL) {
        lb_foreign_set(f, entry, "function", ce->line, "cross_entropy");
        const char *share = lb_foreign_text(ce);
        lb_foreign_set(f, entry, "weight", ce->line, share);
        lb_foreign_note(f, ce->line, "kd_ce_alpha",
                        "taken as loss_functions.1: {function: cross_entropy, weight: %s}",
                        share != NULL ? share : "");
    } else if (ce != NULL) {
        lb_foreign_note(f, ce->line, "kd_ce_alpha", "left out: 0");
    }
    if (temperature != NULL) {
        lb_foreign_set(f, NULL, "temperature", temperature->line, lb_foreign_text(temperature));
        lb_foreign_note(f, temperature->line, "kd_temperature", "taken as temperature");
    }
    if (least != NULL && lb_foreign_number(least, 1) != lb_foreign_number(temperature, 1)) {
        lb_foreign_refuse(f, least->line, "kd_temperature_min", NULL,
                          "a temperature that moves needs whole distributions (anneal), not lists; drop it");
    } else if (least != NULL) {
        lb_foreign_note(f, least->line, "kd_temperature_min", "left out: the same as kd_temperature");
    }
    if (normal != NULL) {
        lb_foreign_note(f, normal->line, "kd_normalize_topk", "left out: see kd_online_topk");
    }
}

/* Where the file has no warm-up, or one of 0: 3 % of the steps, rounded down, at most 100, and 2 for 1. How
 * many steps there are is known here where the file gives them. */
static void silent_warmup(struct lb_foreign *f) {
    static const struct lb_foreign_default share[] = {
        {"warmup_ratio", "0.03"}, {"warmup_max_steps", "100"}, {NULL, NULL}};
    const struct lb_yaml *given = lb_foreign_get(f->theirs, "warmup_steps");
    double steps = lb_foreign_number(lb_foreign_get(f->theirs, "max_steps"), 0);
    if (lb_foreign_number(given, 0) != 0 ||
        lb_foreign_number(lb_foreign_get(f->theirs, "warmup_ratio"), 0) != 0 ||
        lb_foreign_is_set(f, "warmup_steps") || lb_foreign_is_set(f, "warmup_ratio")) {
        return;
    }
    if (given != NULL || !(steps >= 1) || lb_foreign_is_set(f, "max_steps")) {
        lb_foreign_defaults(f, "Axolotl", share);
        return;
    }
    int n = (int)fmin(0.03 * steps, 100);
    const struct lb_foreign_default known[] = {
        {"warmup_steps", lb_arena_printf(f->arena, "%d", n == 1 ? 2 : n)}, {NULL, NULL}};
    if (known[0].value == NULL) {
        f->status = LB_E_NOMEM;
        return;
    }
    lb_foreign_defaults(f, "Axolotl", known);
}

static void translate(struct lb_foreign *f) {
    const struct lb_yaml *model = lb_foreign_get(f->theirs, "base_model"),
                         *on = lb_foreign_get(f->theirs, "kd_trainer");
    if (lb_foreign_text(model) != NULL) {
        lb_foreign_set(f, lb_foreign_child(f, NULL, "student", LB_YAML_MAP, model->line), "model",
                       model->line, model->text);
        lb_foreign_note(f, model->line, "base_model", "taken as student.model");
    }
    if (!lb_foreign_true(on)) {
        lb_foreign_refuse(f, on != NULL ? on->line : 1, "kd_trainer", NULL,
                          "is not true: without it this is a recipe that learns from no teacher; set it");
    } else {
        lb_foreign_note(f, on->line, "kd_trainer", "taken");
    }
    read_data(f, "datasets", "datasets");
    read_data(f, "test_datasets", "eval_datasets");
    read_teacher(f);
    read_losses(f);
    const struct lb_yaml *adapter = lb_foreign_get(f->theirs, "adapter");
    const char *kind = lb_foreign_text(adapter);
    if (kind != NULL && strcmp(kind, "lora") == 0) {
        lb_foreign_set(f, NULL, "use_peft", adapter->line, "true");
        lb_foreign_note(f, adapter->line, "adapter", "taken as use_peft");
    } else if (adapter != NULL) {
        lb_foreign_refuse(f, adapter->line, "adapter", "use_peft", "\"%.40s\" is not there; lora is",
                          kind != NULL ? kind : "");
    }
    lb_foreign_lora(f, adapter != NULL, 0);
    const struct lb_yaml *inputs = lb_foreign_get(f->theirs, "train_on_inputs");
    bool chats = lb_yaml_find(f->ours, "completion_only_loss") != NULL;
    if (chats && lb_foreign_true(inputs) && any_plain(f)) {
        lb_foreign_refuse(f, inputs->line, "train_on_inputs", "completion_only_loss",
                          "of chat_template it says nothing, and of the other datasets all would count; here "
                          "completion_only_loss is that of all data: set it (--set), or drop the key");
    } else if (inputs != NULL && chats) {
        lb_foreign_note(f, inputs->line, "train_on_inputs", "left out: of chat_template it says nothing");
    } else if (inputs != NULL) {
        lb_foreign_set(f, NULL, "completion_only_loss", inputs->line,
                       lb_foreign_true(inputs) ? "false" : "true");
        lb_foreign_note(f, inputs->line, "train_on_inputs", "taken as completion_only_loss");
    }
    silent_warmup(f);
    lb_foreign_training(f, f->theirs, "", "lr_scheduler", "optimizer");
    lb_foreign_defaults(f, "Axolotl", defaults);
}

const struct lb_foreign_dialect lb_foreign_axolotl = {"Axolotl", marks, keys, NULL, translate};
