#include "trainer/run/adapter.h"

#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOLDER "adapter"
#define KIND "adapter"
#define CONFIG_BYTES ((size_t)4 << 20)

/* Where the last two parts of a module's name begin: of one alone there are others ("dense" is an encoder's
 * pooler too). */
static const char *end_of(const char *module) {
    const char *end = module + strlen(module);
    for (int dots = 0; end > module; end--) {
        dots += end[-1] == '.';
        if (dots == 2) {
            break;
        }
    }
    return end;
}

/* The modules by the end of their names, each once; where all linear ones are adapted PEFT's word for that
 * would mean its own idea of them, so that they are listed. */
static json_t *target_modules(const struct lb_lora_module *modules, size_t n) {
    json_t *set = json_object(), *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const char *name = end_of(modules[i].module);
        if (json_object_get(set, name) == NULL) {
            json_object_set_new(set, name, json_true());
            json_array_append_new(list, json_string(name));
        }
    }
    json_decref(set);
    return list;
}

/* Names that end alike may be of modules that have none, where the recipe names whole paths. */
static json_t *given_modules(const struct lb_recipe *r, const struct lb_model *student) {
    json_t *list = json_array();
    for (unsigned i = 0; i < r->lora_target_modules_count; i++) {
        json_array_append_new(list, json_string(lb_lora_path(student, r->lora_target_modules[i])));
    }
    return list;
}

static enum lb_status write_config(const char *path, const struct lb_lora *lora,
                                   const struct lb_model *student, const struct lb_recipe *r,
                                   struct lb_detail *detail) {
    size_t n;
    const struct lb_lora_module *modules = lb_lora_modules(lora, &n);
    bool all = r->lora_target_modules_count == 0;
    for (unsigned i = 0; i < r->lora_target_modules_count; i++) {
        all = all || strcmp(r->lora_target_modules[i], "all-linear") == 0;
    }
    char *place = lb_recipe_resolve(r, r->student.model);
    char *base = place != NULL ? realpath(place, NULL) : NULL; /* wherever it is read from */
    json_t *config = json_object();
    json_object_set_new(config, "peft_type", json_string("LORA"));
    json_object_set_new(config, "task_type",
                        json_string(lb_model_is_causal(student) ? "CAUSAL_LM" : "FEATURE_EXTRACTION"));
    json_object_set_new(config, "base_model_name_or_path",
                        json_string(base != NULL    ? base
                                    : place != NULL ? place
                                                    : ""));
    json_object_set_new(config, "r", json_integer(r->lora_r));
    json_object_set_new(config, "lora_alpha",
                        r->lora_alpha == floor(r->lora_alpha) ? json_integer((json_int_t)r->lora_alpha)
                                                              : json_real(r->lora_alpha));
    json_object_set_new(config, "lora_dropout", json_real(0));
    json_object_set_new(config, "target_modules",
                        all ? target_modules(modules, n) : given_modules(r, student));
    json_object_set_new(config, "bias", json_string("none"));
    json_object_set_new(config, "fan_in_fan_out",
                        json_boolean(strcmp(lb_model_config(student)->model_type, "gpt2") == 0));
    json_object_set_new(config, "inference_mode", json_true());
    struct lb_buf text;
    lb_buf_init(&text, CONFIG_BYTES);
    enum lb_status status =
        place != NULL ? lb_json_dump(config, JSON_INDENT(2) | JSON_SORT_KEYS, &text) : LB_E_NOMEM;
    status = status == LB_OK ? lb_buf_append_str(&text, "\n") : status;
    status = status == LB_OK ? lb_file_replace(path, text.data, text.len, detail)
                             : lb_fail(detail, LB_E_NOMEM, "out of memory for %s", path);
    lb_buf_finish(&text);
    json_decref(config);
    lb_free(place);
    free(base);
    return status;
}

static enum lb_status write_tensors(const char *path, const struct lb_lora *lora, struct lb_detail *detail) {
    size_t n;
    const struct lb_lora_module *modules = lb_lora_modules(lora, &n);
    static const char *const metadata[] = {"format", "pt"};
    struct lb_tensor *tensors = lb_calloc(2 * n, sizeof *tensors);
    if (tensors == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for %s", path);
    }
    for (size_t i = 0; i < 2 * n; i++) {
        const struct lb_weight *w = i % 2 == 0 ? &modules[i / 2].a : &modules[i / 2].b;
        tensors[i] = (struct lb_tensor){.name = w->name,
                                        .dtype = LB_F32,
                                        .n_dims = 2,
                                        .dim = {w->rows, w->cols},
                                        .data = w->value,
                                        .bytes = (size_t)(w->rows * w->cols) * sizeof(float)};
    }
    enum lb_status status = lb_safetensors_write(path, tensors, 2 * n, metadata, 1, detail);
    lb_free(tensors);
    return status;
}

enum lb_status lb_adapter_check(const char *dir, struct lb_detail *detail) {
    char *folder = lb_path_join(dir, FOLDER);
    enum lb_status status =
        folder != NULL ? lb_folder_check(folder, KIND, detail) : lb_fail(detail, LB_E_NOMEM, "out of memory");
    lb_free(folder);
    return status;
}

enum lb_status lb_adapter_write(const char *dir, const struct lb_lora *lora, const struct lb_model *student,
                                const struct lb_recipe *recipe, struct lb_detail *detail) {
    char name[48];
    snprintf(name, sizeof name, FOLDER ".new-%ld", (long)getpid());
    char *folder = lb_path_join(dir, FOLDER), *temp = lb_path_join(dir, name);
    char *config = temp != NULL ? lb_path_join(temp, "adapter_config.json") : NULL;
    char *tensors = temp != NULL ? lb_path_join(temp, "adapter_model.safetensors") : NULL;
    enum lb_status status = LB_E_NOMEM;
    if (folder == NULL || temp == NULL || config == NULL || tensors == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory");
    } else {
        status = lb_adapter_check(dir, detail);
        status = status == LB_OK ? lb_mkdirs(temp, detail) : status;
        status = status == LB_OK ? write_tensors(tensors, lora, detail) : status;
        status = status == LB_OK ? write_config(config, lora, student, recipe, detail) : status;
        status = status == LB_OK ? lb_folder_mark(temp, KIND, detail) : status;
        status = status == LB_OK ? lb_folder_swap_in(temp, folder, detail) : status;
        /* What was there before, or what a full disk stopped. */
        enum lb_status left = lb_remove_tree(temp, NULL);
        (void)left;
    }
    lb_free(folder);
    lb_free(temp);
    lb_free(config);
    lb_free(tensors);
    return status;
}
