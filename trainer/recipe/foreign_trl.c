/* TRL's YAML, as its scripts take it by --config: ScriptArguments, ModelConfig, and GKDConfig,
 * DistillationConfig or ServerDistillationConfig. TRL's divergences are not multiplied by the temperature's
 * square, ours are; the weight takes it back. In GKD the temperature is that of the sampling alone. */
#include "trainer/recipe/foreign.h"

#include <stdio.h>
#include <string.h>

#define WRITING_ "with what the student writes; here the trainer does"
#define GPU_ "how a GPU holds the model; weights are FP32 here"

static const char *const marks[] = {"teacher_model_name_or_path", "teacher_model_server_url",
                                    "model_name_or_path", NULL};

static const struct lb_foreign_key keys[] = {
    {"model_name_or_path", LB_FOREIGN_READ, NULL},
    {"teacher_model_name_or_path", LB_FOREIGN_READ, NULL},
    {"teacher_model_server_url", LB_FOREIGN_READ, NULL},
    {"dataset_name", LB_FOREIGN_READ, NULL},
    {"datasets", LB_FOREIGN_READ, NULL},
    {"dataset_text_field", LB_FOREIGN_READ, NULL},
    {"lmbda", LB_FOREIGN_READ, NULL},
    {"beta", LB_FOREIGN_READ, NULL},
    {"temperature", LB_FOREIGN_READ, NULL},
    {"seq_kd", LB_FOREIGN_TAKE, "seq_kd"},
    {"loss_top_k", LB_FOREIGN_READ, NULL},
    {"loss_add_tail", LB_FOREIGN_TAKE, "loss_add_tail"},
    {"reverse_kl_top_1_mode", LB_FOREIGN_OFF, "the whole list is compared at any beta; drop it"},
    {"max_length", LB_FOREIGN_TAKE, "max_length"},
    {"output_dir", LB_FOREIGN_TAKE, "output_dir"},
    {"completion_only_loss", LB_FOREIGN_TAKE, "completion_only_loss"},
    {"assistant_only_loss", LB_FOREIGN_TAKE, "assistant_only_loss"},
    {"chat_template_path", LB_FOREIGN_TAKE, "chat_template"},
    {"packing", LB_FOREIGN_LEAVE,
     "texts are strung together, records are rows of their own; nothing is padded"},
    {"packing_strategy", LB_FOREIGN_LEAVE, "nothing is padded"},
    {"padding_free", LB_FOREIGN_LEAVE, "nothing is padded"},
    {"pad_*", LB_FOREIGN_LEAVE, "nothing is padded"},
    {"eos_token", LB_FOREIGN_OFF, "the tokenizer says it; drop it"},
    {"eval_packing", LB_FOREIGN_LEAVE, "nothing is padded"},
    {"max_new_tokens", LB_FOREIGN_READ, NULL},
    {"max_completion_length", LB_FOREIGN_READ, NULL},
    {"top_p", LB_FOREIGN_READ, NULL},
    {"top_k", LB_FOREIGN_READ, NULL},
    {"min_p", LB_FOREIGN_OFF, "the student draws by generation_temperature and top_p; drop it"},
    {"repetition_penalty", LB_FOREIGN_READ, NULL},
    {"generation_kwargs", LB_FOREIGN_OFF, "the student draws by generation_temperature and top_p; drop it"},
    {"cache_implementation", LB_FOREIGN_LEAVE, WRITING_},
    {"use_vllm", LB_FOREIGN_LEAVE, WRITING_},
    {"vllm_*", LB_FOREIGN_LEAVE, WRITING_},
    {"ds3_gather_for_generation", LB_FOREIGN_LEAVE, WRITING_},
    {"log_completions", LB_FOREIGN_READ, NULL},
    {"log_completions_*", LB_FOREIGN_LEAVE, "who is told"},
    {"num_completions_to_print", LB_FOREIGN_LEAVE, WRITING_},
    {"disable_dropout", LB_FOREIGN_TAKE, "disable_dropout"},
    {"shuffle_dataset", LB_FOREIGN_LEAVE, "each epoch is shuffled"},
    {"dataset_train_split", LB_FOREIGN_LEAVE, "a file is one split"},
    {"dataset_test_split", LB_FOREIGN_LEAVE, "a file is one split; eval_datasets has the other"},
    {"dataset_config", LB_FOREIGN_LEAVE, "a file has one"},
    {"dataset_streaming", LB_FOREIGN_LEAVE, "how data are loaded"},
    {"streaming", LB_FOREIGN_LEAVE, "how data are loaded"},
    {"test_split_size", LB_FOREIGN_OFF, "give eval_datasets a file of its own; drop it"},
    {"dataset_kwargs", LB_FOREIGN_OFF, "is not understood; drop it"},
    {"ignore_bias_buffers", LB_FOREIGN_LEAVE, "how several processes share a run"},
    {"model_revision", LB_FOREIGN_LEAVE, "a folder has one"},
    {"teacher_model_revision", LB_FOREIGN_LEAVE, "a folder has one"},
    {"trust_remote_code", LB_FOREIGN_LEAVE, "no code of models is run"},
    {"dtype", LB_FOREIGN_LEAVE, GPU_},
    {"torch_dtype", LB_FOREIGN_LEAVE, GPU_},
    {"attn_implementation", LB_FOREIGN_LEAVE, GPU_},
    {"model_init_kwargs", LB_FOREIGN_LEAVE, GPU_},
    {"teacher_model_init_kwargs", LB_FOREIGN_LEAVE, GPU_},
    {"use_peft", LB_FOREIGN_TAKE, "use_peft"},
    {"lora_r", LB_FOREIGN_READ, NULL},
    {"lora_alpha", LB_FOREIGN_READ, NULL},
    {"lora_target_modules", LB_FOREIGN_READ, NULL},
    {"lora_dropout", LB_FOREIGN_READ, NULL},
    {"lora_task_type", LB_FOREIGN_LEAVE, "of use_peft"},
    {"lora_modules_to_save", LB_FOREIGN_OFF, "adapters alone are trained beside frozen weights; drop it"},
    {"use_rslora", LB_FOREIGN_OFF, "adapters count lora_alpha / lora_r times; set it to false"},
    {"use_dora", LB_FOREIGN_OFF, "adapters are LoRA's; set it to false"},
    {"load_in_8bit", LB_FOREIGN_OFF, "a student is trained in FP32; set it to false"},
    {"load_in_4bit", LB_FOREIGN_OFF, "a student is trained in FP32; set it to false"},
    {"bnb_4bit_quant_type", LB_FOREIGN_LEAVE, "of load_in_4bit"},
    {"use_bnb_nested_quant", LB_FOREIGN_LEAVE, "of load_in_4bit"},
    {"env", LB_FOREIGN_LEAVE, "the environment is not set by recipes"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

static const struct lb_foreign_key entry_keys[] = {
    {"path", LB_FOREIGN_READ, NULL},
    {"data_files", LB_FOREIGN_READ, NULL},
    {"fraction", LB_FOREIGN_READ, NULL},
    {"name", LB_FOREIGN_LEAVE, "a file has one"},
    {"split", LB_FOREIGN_LEAVE, "a file is one split"},
    {"data_dir", LB_FOREIGN_OFF, "write the folder into path; drop it"},
    {"columns", LB_FOREIGN_LEAVE, "a record's members are taken by their names"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

/* SFTConfig's and DistillationConfig's where ours are others; and what their collators count. */
static const struct lb_foreign_default of_gkd[] = {
    {"learning_rate", "2e-5"}, {"save_steps", "500"}, {"completion_only_loss", "true"}, {NULL, NULL}};
static const struct lb_foreign_default of_distillation[] = {
    {"learning_rate", "1e-6"}, {"save_steps", "500"}, {"completion_only_loss", "true"}, {NULL, NULL}};

static void read_data(struct lb_foreign *f) {
    const struct lb_yaml *name = lb_foreign_get(f->theirs, "dataset_name");
    const struct lb_yaml *list = lb_foreign_get(f->theirs, "datasets");
    const struct lb_yaml *field = lb_foreign_get(f->theirs, "dataset_text_field");
    struct lb_yaml *entry = NULL;
    char path[64];
    unsigned i = 0;
    if (name != NULL && list != NULL) {
        lb_foreign_note(f, name->line, "dataset_name", "left out: datasets is there");
    } else if (name != NULL) {
        entry = lb_foreign_dataset(f, "datasets", name->line, "dataset_name", lb_foreign_text(name));
    }
    for (const struct lb_yaml *item = list != NULL ? list->first : NULL; item != NULL;
         item = item->next, i++) {
        const struct lb_yaml *files = lb_foreign_get(item, "data_files"), *at = lb_foreign_get(item, "path");
        const struct lb_yaml *fraction = lb_foreign_get(item, "fraction");
        snprintf(path, sizeof path, "datasets.%u.", i);
        if (item->kind == LB_YAML_MAP) {
            lb_foreign_apply(f, item, path, entry_keys, NULL);
        }
        path[strlen(path) - 1] = '\0';
        if (fraction != NULL && lb_foreign_number(fraction, 1) != 1) {
            lb_foreign_refuse(f, fraction->line, path, NULL,
                              "fraction: a part of a file is not taken; drop it");
        }
        entry =
            lb_foreign_dataset(f, "datasets", item->line, path, lb_foreign_text(files != NULL ? files : at));
    }
    if (field != NULL && entry != NULL) {
        list = lb_yaml_find(f->ours, "datasets");
        for (struct lb_yaml *one = list->first; one != NULL; one = one->next) {
            const char *file = lb_foreign_text(lb_yaml_find(one, "path"));
            if (file != NULL && strstr(file, ".txt") == NULL) {
                lb_foreign_set(f, one, "field", field->line, lb_foreign_text(field));
            }
        }
        lb_foreign_note(f, field->line, "dataset_text_field", "taken as field of datasets");
    }
}

static void read_teacher(struct lb_foreign *f) {
    const struct lb_yaml *server = lb_foreign_get(f->theirs, "teacher_model_server_url");
    const struct lb_yaml *model = lb_foreign_get(f->theirs, "teacher_model_name_or_path");
    const struct lb_yaml *from = server != NULL ? server : model;
    if (from == NULL) {
        lb_foreign_refuse(f, 1, "teacher_model_name_or_path", "teachers", "is missing; who is learnt from?");
        return;
    }
    struct lb_yaml *entry =
        lb_foreign_entry(f, lb_foreign_child(f, NULL, "teachers", LB_YAML_LIST, from->line), from->line);
    const char *text = lb_foreign_text(from);
    char url[600];
    snprintf(url, sizeof url, "%s%.500s", server != NULL ? "" : "local:", text != NULL ? text : "");
    if (entry == NULL) {
        return;
    }
    lb_foreign_set(f, entry, "name", from->line, "teacher");
    lb_foreign_set(f, entry, "url", from->line, url);
    if (server != NULL) {
        lb_foreign_set(f, entry, "protocol", from->line, "vllm");
        lb_foreign_note(f, from->line, "teacher_model_server_url",
                        "taken as teachers.0: protocol vllm; limbeckd gives more by its own, "
                        "--set teachers.0.protocol=oip");
        if (model != NULL) {
            lb_foreign_note(f, model->line, "teacher_model_name_or_path", "left out: the server has it");
        }
    } else {
        lb_foreign_note(f, from->line, "teacher_model_name_or_path", "taken as teachers.0.url: %s", url);
    }
}

/* A key of writing: theirs, or what TRL takes where the file is silent. */
static void put_writing(struct lb_foreign *f, const char *key, const char *ours, const char *fallback) {
    const struct lb_yaml *node = lb_foreign_get(f->theirs, key);
    if (node != NULL) {
        lb_foreign_take(f, node, key, ours);
    } else if (fallback != NULL) {
        lb_foreign_set(f, NULL, ours, 1, fallback);
        lb_foreign_note(f, 0, ours, "%s, which TRL takes where the file is silent", fallback);
    }
}

/* How texts are drawn, whoever writes them. */
static void put_drawing(struct lb_foreign *f, bool gkd) {
    put_writing(f, gkd ? "max_new_tokens" : "max_completion_length", "max_new_tokens", gkd ? "128" : "512");
    put_writing(f, "temperature", "generation_temperature", gkd ? "0.9" : "1");
    put_writing(f, "top_p", "top_p", NULL);
    const struct lb_yaml *node = lb_foreign_get(f->theirs, "top_k");
    if (node != NULL && !(lb_foreign_number(node, 0) <= 0)) {
        lb_foreign_refuse(f, node->line, "top_k", NULL,
                          "texts are drawn by generation_temperature and top_p; set it to 0");
    } else if (node != NULL) {
        lb_foreign_note(f, node->line, "top_k", "left out: off here as well");
    }
    node = lb_foreign_get(f->theirs, "repetition_penalty");
    if (node != NULL && lb_foreign_number(node, 1) != 1) {
        lb_foreign_refuse(f, node->line, "repetition_penalty", NULL,
                          "texts are drawn by generation_temperature and top_p; set it to 1");
    } else if (node != NULL) {
        lb_foreign_note(f, node->line, "repetition_penalty", "left out: off here as well");
    }
}

/* lmbda of GKDConfig is 0.5 where the file is silent; DistillationTrainer's students write every text. */
static void read_writing(struct lb_foreign *f, bool gkd) {
    static const char *const unwritten[] = {"max_new_tokens", "max_completion_length", "top_p",
                                            "top_k",          "repetition_penalty",    "log_completions"};
    const struct lb_yaml *lmbda = lb_foreign_get(f->theirs, "lmbda"), *node;
    bool own = lmbda == NULL || lb_foreign_number(lmbda, 0) != 0;
    if (!own) {
        bool theirs = lb_foreign_true(lb_foreign_get(f->theirs, "seq_kd"));
        lb_foreign_note(f, lmbda->line, "lmbda", "taken: %s texts are learnt from",
                        theirs ? "the teacher's" : "the data's");
        if (theirs) {
            put_drawing(f, gkd);
        }
        size_t last = sizeof unwritten / sizeof *unwritten;
        for (size_t i = theirs ? last - 1 : 0; i < last; i++) { /* the last is of the student's alone */
            if ((node = lb_foreign_get(f->theirs, unwritten[i])) != NULL) {
                lb_foreign_note(f, node->line, unwritten[i],
                                "left out: lmbda is 0, the student writes nothing");
            }
        }
        return;
    }
    put_writing(f, "lmbda", "lmbda", gkd ? "0.5" : "1");
    put_drawing(f, gkd);
    put_writing(f, "log_completions", "log_completions", NULL);
}

static void read_loss(struct lb_foreign *f, bool gkd) {
    const struct lb_yaml *beta = lb_foreign_get(f->theirs, "beta");
    const struct lb_yaml *temperature = lb_foreign_get(f->theirs, "temperature");
    const struct lb_yaml *top = lb_foreign_get(f->theirs, "loss_top_k");
    int line = beta != NULL ? beta->line : 1;
    struct lb_yaml *entry =
        lb_foreign_entry(f, lb_foreign_child(f, NULL, "loss_functions", LB_YAML_LIST, line), line);
    if (entry == NULL) {
        return;
    }
    const char *value = beta != NULL ? lb_foreign_text(beta) : gkd ? "0.5" : "1.0";
    lb_foreign_set(f, entry, "function", line, "jsd");
    lb_foreign_set(f, entry, "beta", line, value);
    lb_foreign_note(f, line, "beta", "taken as loss_functions.0: {function: jsd, beta: %s}%s",
                    value != NULL ? value : "", beta == NULL ? ", TRL's where the file is silent" : "");
    double t = lb_foreign_number(temperature, 1);
    if (temperature != NULL && gkd) {
        const struct lb_yaml *lmbda = lb_foreign_get(f->theirs, "lmbda");
        lb_foreign_note(f, temperature->line, "temperature", "%sGKD writes at it and compares at 1",
                        lmbda != NULL && lb_foreign_number(lmbda, 0) == 0 &&
                                !lb_foreign_true(lb_foreign_get(f->theirs, "seq_kd"))
                            ? "left out: "
                            : "");
    } else if (temperature != NULL) {
        char weight[40];
        snprintf(weight, sizeof weight, "%.10g", t > 0 ? 1 / (t * t) : 1);
        lb_foreign_set(f, NULL, "temperature", temperature->line, lb_foreign_text(temperature));
        lb_foreign_set(f, entry, "weight", temperature->line, weight);
        lb_foreign_note(f, temperature->line, "temperature",
                        "taken, with weight %s: TRL does not multiply by its square", weight);
    }
    if (top != NULL && !(lb_foreign_number(top, 0) <= 0)) {
        lb_foreign_set(f, NULL, "targets", top->line, "topk");
        lb_foreign_set(f, NULL, "loss_top_k", top->line, lb_foreign_text(top));
        lb_foreign_note(f, top->line, "loss_top_k", "taken, with targets: topk");
    } else if (lb_foreign_get(f->theirs, "teacher_model_server_url") != NULL) {
        lb_foreign_set(f, NULL, "targets", line, "topk");
        lb_foreign_set(f, NULL, "loss_top_k", line, "1");
        lb_foreign_note(f, line, "loss_top_k", "1, which TRL takes where the file is silent; targets: topk");
    } else if (top != NULL) {
        lb_foreign_note(f, top->line, "loss_top_k", "taken: whole distributions");
    }
}

static void translate(struct lb_foreign *f) {
    const struct lb_yaml *model = lb_foreign_get(f->theirs, "model_name_or_path");
    bool server = lb_foreign_get(f->theirs, "teacher_model_server_url") != NULL;
    bool gkd = !server && lb_foreign_get(f->theirs, "max_completion_length") == NULL &&
               (lb_foreign_get(f->theirs, "lmbda") != NULL || lb_foreign_get(f->theirs, "seq_kd") != NULL ||
                lb_foreign_get(f->theirs, "max_new_tokens") != NULL);
    if (model != NULL) {
        lb_foreign_set(f, lb_foreign_child(f, NULL, "student", LB_YAML_MAP, model->line), "model",
                       model->line, lb_foreign_text(model) != NULL ? lb_foreign_text(model) : "");
        lb_foreign_note(f, model->line, "model_name_or_path", "taken as student.model");
    }
    read_data(f);
    read_teacher(f);
    read_writing(f, gkd);
    read_loss(f, gkd);
    bool adapters = lb_foreign_true(lb_foreign_get(f->theirs, "use_peft"));
    lb_foreign_lora(f, adapters, 0.05);
    if (adapters && lb_foreign_get(f->theirs, "lora_target_modules") == NULL) {
        lb_foreign_note(
            f, 0, "lora_target_modules",
            "with a difference: all linear modules have adapters; TRL, where the file is silent, takes "
            "PEFT's for the model's family, mostly q_proj and v_proj: name them");
    }
    lb_foreign_training(f, f->theirs, "", "lr_scheduler_type", "optim");
    lb_foreign_defaults(f, "TRL", gkd ? of_gkd : of_distillation);
}

const struct lb_foreign_dialect lb_foreign_trl = {"TRL", marks, keys, lb_foreign_training_args, translate};
