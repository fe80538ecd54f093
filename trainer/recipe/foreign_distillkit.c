/* DistillKit's YAML (DistillationRunConfig). Its losses are multiplied by the temperature's square as ours
 * are, and their weights are divided by their sum. */
#include "trainer/recipe/foreign.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GPU_ "how a GPU holds the model; weights are FP32 here"

static const char *const marks[] = {"training_args", "sequence_length", "output_path",
                                    "force_hidden_state_projection", NULL};

static const struct lb_foreign_key keys[] = {
    {"model", LB_FOREIGN_READ, NULL},
    {"teacher", LB_FOREIGN_READ, NULL},
    {"dataset", LB_FOREIGN_READ, NULL},
    {"loss_functions", LB_FOREIGN_READ, NULL},
    {"layer_mapping", LB_FOREIGN_READ, NULL},
    {"training_args", LB_FOREIGN_READ, NULL},
    {"sequence_length", LB_FOREIGN_TAKE, "max_length"},
    {"output_path", LB_FOREIGN_TAKE, "output_dir"},
    {"project_name", LB_FOREIGN_LEAVE, "who is told; metrics are in metrics.jsonl here"},
    {"use_flash_attention", LB_FOREIGN_LEAVE, GPU_},
    {"functionary_packing", LB_FOREIGN_LEAVE, "nothing is padded"},
    {"model_kwargs", LB_FOREIGN_LEAVE, GPU_},
    {"model_auto_class", LB_FOREIGN_LEAVE, "config.json says what the model is"},
    {"trust_remote_code", LB_FOREIGN_LEAVE, "no code of models is run"},
    {"force_hidden_state_projection", LB_FOREIGN_OFF,
     "a projection is learned where widths differ, and only there; set it to false"},
    {"resize_embeddings_to_multiple_of", LB_FOREIGN_OFF, "the student's vocabulary stays as it is; drop it"},
    {"frozen_modules", LB_FOREIGN_READ, NULL},
    {"frozen_res", LB_FOREIGN_OFF,
     "frozen_parameters takes names with *, no regular expressions; drop it and give --set "
     "frozen_parameters=[NAMES]"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

static const struct lb_foreign_key dataset_keys[] = {
    {"train_dataset", LB_FOREIGN_READ, NULL},
    {"eval_dataset", LB_FOREIGN_READ, NULL},
    {"seed", LB_FOREIGN_LEAVE, "order and first weights have one seed here: training_args.seed"},
    {"num_samples", LB_FOREIGN_OFF, "datasets.N.max_tokens limits what is read, by tokens; drop it"},
    {"num_eval_samples", LB_FOREIGN_OFF,
     "eval_datasets.N.max_tokens limits what is read, by tokens; drop it"},
    {"eos_label_token_ids", LB_FOREIGN_OFF, "labels are the text's own tokens; drop it"},
    {"prepared_dataset_path", LB_FOREIGN_LEAVE, "how data are loaded"},
    {"prepacked", LB_FOREIGN_OFF, "rows of ids are not read; give the texts, and set it to false"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

static const struct lb_foreign_key part_keys[] = {
    {"disk_path", LB_FOREIGN_READ, NULL},
    {"repo_id", LB_FOREIGN_READ, NULL},
    {"split", LB_FOREIGN_LEAVE, "a file is one split"},
    {"revision", LB_FOREIGN_LEAVE, "a file has one"},
    {"config_name", LB_FOREIGN_LEAVE, "a file has one"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

static const struct lb_foreign_key loss_keys[] = {
    {"function", LB_FOREIGN_READ, NULL},
    {"weight", LB_FOREIGN_READ, NULL},
    {"temperature", LB_FOREIGN_READ, NULL},
    {"missing_probability_handling", LB_FOREIGN_READ, NULL},
    {"sparse_chunk_length", LB_FOREIGN_LEAVE, "each position is held by itself"},
    {"margin", LB_FOREIGN_LEAVE, "of hinge"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

static const struct lb_foreign_key teacher_keys[] = {
    {"kind", LB_FOREIGN_READ, NULL},
    {"path", LB_FOREIGN_READ, NULL},
    {"base_url", LB_FOREIGN_READ, NULL},
    {"model", LB_FOREIGN_READ, NULL},
    {"top_k", LB_FOREIGN_READ, NULL},
    {"api_key", LB_FOREIGN_OFF,
     "write the key into a file, drop it here, and name it: --set teachers.0.token_file=FILE"},
    {"timeout", LB_FOREIGN_TAKE, "teacher_timeout"},
    {"max_retries", LB_FOREIGN_LEAVE, "give_up_after says how long it is tried"},
    {"kwargs", LB_FOREIGN_LEAVE, GPU_},
    {"legacy_logit_compression", LB_FOREIGN_LEAVE, "of kind: dataset"},
    {"logprob_compressor", LB_FOREIGN_LEAVE, "of kind: dataset"},
    {NULL, LB_FOREIGN_LEAVE, NULL},
};

/* What TrainingArguments and SFTConfig mean where training_args is silent. */
static const struct lb_foreign_default defaults[] = {
    {"learning_rate", "2e-5"}, {"save_steps", "500"}, {"disable_dropout", "false"}, {NULL, NULL}};

static void read_split(struct lb_foreign *f, const struct lb_yaml *dataset, const char *key,
                       const char *ours) {
    const struct lb_yaml *part = lb_foreign_get(dataset, key);
    const char *path = lb_arena_printf(f->arena, "dataset.%s", key);
    if (part == NULL || path == NULL) {
        f->status = path == NULL ? LB_E_NOMEM : f->status;
        return;
    }
    const char *prefix = lb_arena_printf(f->arena, "%s.", path);
    if (prefix == NULL || part->kind != LB_YAML_MAP) {
        lb_foreign_refuse(f, part->line, path, ours, "must be a mapping with disk_path");
        return;
    }
    lb_foreign_apply(f, part, prefix, part_keys, NULL);
    const struct lb_yaml *at = lb_foreign_get(part, "disk_path");
    at = at != NULL ? at : lb_foreign_get(part, "repo_id");
    (void)lb_foreign_dataset(f, ours, at != NULL ? at->line : part->line, path, lb_foreign_text(at));
}

static void read_data(struct lb_foreign *f) {
    const struct lb_yaml *dataset = lb_foreign_get(f->theirs, "dataset");
    if (dataset == NULL || dataset->kind != LB_YAML_MAP) {
        lb_foreign_refuse(f, dataset != NULL ? dataset->line : 1, "dataset", "datasets",
                          "must be a mapping with train_dataset");
        return;
    }
    lb_foreign_apply(f, dataset, "dataset.", dataset_keys, NULL);
    read_split(f, dataset, "train_dataset", "datasets");
    read_split(f, dataset, "eval_dataset", "eval_datasets");
}

static void take_list(struct lb_foreign *f, const struct lb_yaml *top) {
    lb_foreign_set(f, NULL, "targets", top->line, "topk");
    lb_foreign_set(f, NULL, "loss_top_k", top->line, lb_foreign_text(top));
    lb_foreign_note(f, top->line, "teacher.top_k", "taken as targets: topk, loss_top_k");
}

static void read_teacher(struct lb_foreign *f) {
    const struct lb_yaml *teacher = lb_foreign_get(f->theirs, "teacher");
    const char *kind = lb_foreign_text(lb_foreign_get(teacher, "kind"));
    const struct lb_yaml *path = lb_foreign_get(teacher, "path"), *url = lb_foreign_get(teacher, "base_url");
    const struct lb_yaml *top = lb_foreign_get(teacher, "top_k"), *name = lb_foreign_get(teacher, "model");
    int line = teacher != NULL ? teacher->line : 1;
    if (teacher == NULL || teacher->kind != LB_YAML_MAP) {
        lb_foreign_refuse(f, line, "teacher", "teachers",
                          "must be a mapping with kind: hf and path, or kind: vllm and base_url");
        return;
    }
    lb_foreign_apply(f, teacher, "teacher.", teacher_keys, NULL);
    if (kind != NULL && strcmp(kind, "dataset") == 0) {
        lb_foreign_refuse(f, line, "teacher.kind", "teachers",
                          "a capture of logits is not read; name who answers: --set 'teachers=[{name: "
                          "teacher, url: URL}]'");
        return;
    }
    bool served = url != NULL;
    if (!served && path == NULL) {
        lb_foreign_refuse(f, line, "teacher", "teachers", "has neither path nor base_url");
        return;
    }
    struct lb_yaml *entry =
        lb_foreign_entry(f, lb_foreign_child(f, NULL, "teachers", LB_YAML_LIST, line), line);
    char address[600];
    const char *text = lb_foreign_text(served ? url : path);
    snprintf(address, sizeof address, "%s%.500s", served ? "" : "local:", text != NULL ? text : "");
    if (entry == NULL) {
        return;
    }
    lb_foreign_set(f, entry, "name", line, "teacher");
    lb_foreign_set(f, entry, "url", served ? url->line : path->line, address);
    if (served) {
        lb_foreign_set(f, entry, "protocol", line, "vllm");
        if (name != NULL && lb_foreign_text(name) != NULL) {
            lb_foreign_set(f, entry, "model", name->line, lb_foreign_text(name));
        }
    }
    lb_foreign_note(f, line, "teacher", "taken as teachers.0: url %s%s", address,
                    served ? ", protocol vllm" : "");
    if (top != NULL) {
        take_list(f, top);
    }
}

/* Pairs of layers, numbered as hidden_states are: 0 the embeddings. */
static void put_layers(struct lb_foreign *f, struct lb_yaml *entry, const struct lb_yaml *pairs) {
    struct lb_yaml *list = lb_foreign_child(f, entry, "layer_mapping", LB_YAML_LIST, pairs->line);
    for (const struct lb_yaml *pair = pairs->first; pair != NULL; pair = pair->next) {
        const char *student = lb_foreign_text(pair->first);
        const char *teacher = pair->first != NULL ? lb_foreign_text(pair->first->next) : NULL;
        if (pair->kind != LB_YAML_LIST || pair->count != 2 || student == NULL || teacher == NULL) {
            lb_foreign_refuse(f, pair->line, "layer_mapping", NULL,
                              "must be a list of pairs [student, teacher]");
            return;
        }
        struct lb_yaml *to = lb_foreign_entry(f, list, pair->line);
        if (to != NULL) {
            lb_foreign_set(f, to, "student", pair->line, student);
            lb_foreign_set(f, to, "teacher", pair->line, teacher);
        }
    }
}

static void read_missing(struct lb_foreign *f, const struct lb_yaml *loss, const char *path,
                         const char *function) {
    const struct lb_yaml *missing = lb_foreign_get(loss, "missing_probability_handling");
    const char *text = lb_foreign_text(missing);
    bool lists = lb_yaml_find(f->ours, "loss_top_k") != NULL;
    bool sparse = strcmp(function, "kl") == 0 || strcmp(function, "jsd") == 0 || strcmp(function, "tvd") == 0;
    if (!sparse || (missing == NULL && !lists)) {
        return;
    }
    int line = missing != NULL ? missing->line : loss->line;
    if (!lists) {
        lb_foreign_note(f, line, path, "missing_probability_handling left out: distributions are whole");
    } else if (text != NULL && strcmp(text, "symmetric_uniform") == 0) {
        lb_foreign_note(f, line, path, "missing_probability_handling taken as loss_add_tail: true");
    } else {
        lb_foreign_note(f, line, path,
                        "with a difference: the rest of a list is one bucket (loss_add_tail), where "
                        "DistillKit's zero leaves it out and sums to less than a divergence");
    }
}

static bool on_states(const char *function) {
    return function != NULL && strncmp(function, "hs_", 3) == 0;
}

static void read_loss(struct lb_foreign *f, const struct lb_yaml *loss, const char *path, double sum) {
    static const char *const known[] = {"cross_entropy", "kl", "jsd", "tvd", "hs_mse", "hs_cosine"};
    const char *function = lb_foreign_text(lb_foreign_get(loss, "function"));
    const struct lb_yaml *weight = lb_foreign_get(loss, "weight"),
                         *temperature = lb_foreign_get(loss, "temperature");
    const struct lb_yaml *layers = lb_foreign_get(f->theirs, "layer_mapping");
    bool found = false;
    for (size_t i = 0; function != NULL && i < sizeof known / sizeof *known; i++) {
        found = found || strcmp(known[i], function) == 0;
    }
    if (!found) {
        lb_foreign_refuse(f, loss->line, path, NULL,
                          "%.40s is not there; cross_entropy, kl, jsd, tvd, hs_mse and hs_cosine are",
                          function != NULL ? function : "a loss without function");
        return;
    }
    struct lb_yaml *entry = lb_foreign_entry(
        f, lb_foreign_child(f, NULL, "loss_functions", LB_YAML_LIST, loss->line), loss->line);
    if (entry == NULL) {
        return;
    }
    char share[40];
    double number = lb_foreign_number(weight, 1);
    snprintf(share, sizeof share, "%.10g", sum > 0 ? number / sum : 0);
    lb_foreign_set(f, entry, "function", loss->line, function);
    lb_foreign_set(f, entry, "weight", weight != NULL ? weight->line : loss->line,
                   isfinite(number) ? share : lb_foreign_text(weight));
    bool states = on_states(function);
    if (temperature != NULL && !states && strcmp(function, "cross_entropy") != 0) {
        lb_foreign_set(f, NULL, "temperature", temperature->line, lb_foreign_text(temperature));
        lb_foreign_set(f, entry, "temperature", temperature->line, lb_foreign_text(temperature));
    }
    if (states && layers != NULL && layers->kind == LB_YAML_LIST) {
        put_layers(f, entry, layers);
    }
    lb_foreign_note(f, loss->line, path, "taken, with weight %s (DistillKit divides by their sum)", share);
    read_missing(f, loss, path, function);
}

static void read_losses(struct lb_foreign *f) {
    const struct lb_yaml *list = lb_foreign_get(f->theirs, "loss_functions");
    const struct lb_yaml *layers = lb_foreign_get(f->theirs, "layer_mapping");
    double sum = 0;
    unsigned i = 0;
    bool states = false;
    char path[64];
    if (list == NULL || list->kind != LB_YAML_LIST) {
        lb_foreign_refuse(f, 1, "loss_functions", "loss_functions",
                          "is missing; DistillKit's own are [{function: cross_entropy, weight: 0.5}, "
                          "{function: kl, weight: 0.5}]");
        return;
    }
    if (layers != NULL && layers->kind != LB_YAML_LIST) {
        lb_foreign_refuse(f, layers->line, "layer_mapping", NULL,
                          "\"%.20s\": list the pairs, [[student, teacher], ...]",
                          lb_foreign_text(layers) != NULL ? layers->text : "");
    }
    for (const struct lb_yaml *loss = list->first; loss != NULL; loss = loss->next) {
        double weight = lb_foreign_number(lb_foreign_get(loss, "weight"), 1);
        sum += isfinite(weight) ? weight : 0;
        states = states || on_states(lb_foreign_text(lb_foreign_get(loss, "function")));
    }
    if (layers != NULL && layers->kind == LB_YAML_LIST) {
        lb_foreign_note(f, layers->line, "layer_mapping", "%s",
                        states ? "taken, of losses on hidden states"
                               : "left out: no loss is on hidden states");
    }
    for (const struct lb_yaml *loss = list->first; loss != NULL; loss = loss->next, i++) {
        snprintf(path, sizeof path, "loss_functions.%u.", i);
        if (loss->kind == LB_YAML_MAP) {
            lb_foreign_apply(f, loss, path, loss_keys, NULL);
        }
        path[strlen(path) - 1] = '\0';
        read_loss(f, loss, path, sum);
    }
}

/* A module is its weights. */
static void read_frozen(struct lb_foreign *f) {
    const struct lb_yaml *list = lb_foreign_get(f->theirs, "frozen_modules");
    if (list == NULL || list->kind != LB_YAML_LIST || list->count == 0) {
        return;
    }
    struct lb_yaml *to = lb_foreign_child(f, NULL, "frozen_parameters", LB_YAML_LIST, list->line);
    for (const struct lb_yaml *one = list->first; to != NULL && one != NULL; one = one->next) {
        struct lb_yaml *item = lb_yaml_add(f->arena, to, LB_YAML_SCALAR, NULL, one->line);
        const char *text = lb_arena_printf(f->arena, "%s.*", lb_foreign_text(one) != NULL ? one->text : "");
        if (item == NULL || text == NULL) {
            f->status = LB_E_NOMEM;
            return;
        }
        item->text = text;
    }
    lb_foreign_note(f, list->line, "frozen_modules", "taken as frozen_parameters: each module's weights");
}

static void translate(struct lb_foreign *f) {
    const struct lb_yaml *model = lb_foreign_get(f->theirs, "model"),
                         *args = lb_foreign_get(f->theirs, "training_args");
    const struct lb_yaml *teacher = lb_foreign_get(f->theirs, "teacher");
    if (lb_foreign_text(model) != NULL) {
        lb_foreign_set(f, lb_foreign_child(f, NULL, "student", LB_YAML_MAP, model->line), "model",
                       model->line, model->text);
        lb_foreign_note(f, model->line, "model", "taken as student.model");
    }
    read_data(f);
    read_teacher(f);
    read_losses(f);
    read_frozen(f);
    if (args != NULL && args->kind == LB_YAML_MAP) {
        lb_foreign_apply(f, args, "training_args.", lb_foreign_training_args, NULL);
        lb_foreign_training(f, args, "training_args.", "lr_scheduler_type", "optim");
    }
    if (teacher != NULL && lb_foreign_text(lb_foreign_get(teacher, "path")) != NULL) {
        const struct lb_yaml *path = lb_foreign_get(teacher, "path");
        lb_foreign_set(f, NULL, "tokenizer", path->line, path->text);
        lb_foreign_note(f, path->line, "teacher.path", "taken as tokenizer too");
    }
    lb_foreign_defaults(f, "DistillKit", defaults);
}

const struct lb_foreign_dialect lb_foreign_distillkit = {"DistillKit", marks, keys, NULL, translate};
