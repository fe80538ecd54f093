#include "common/model/families.h"

#include "common/model/family.h"
#include "common/model/larger.h"

#include <stdio.h>
#include <string.h>

/* One line a family, lb_family_<name>. Of those that share a GGUF architecture the first one reads it. */
#define FAMILIES(F)                                                                                          \
    F(llama)                                                                                                 \
    F(mistral)                                                                                               \
    F(ministral)                                                                                             \
    F(qwen2)                                                                                                 \
    F(qwen3)                                                                                                 \
    F(qwen3_moe)                                                                                             \
    F(olmoe)                                                                                                 \
    F(mixtral)                                                                                               \
    F(gemma2)                                                                                                \
    F(gemma3)                                                                                                \
    F(smollm3)                                                                                               \
    F(olmo2)                                                                                                 \
    F(granite)                                                                                               \
    F(phi3)                                                                                                  \
    F(gpt2)                                                                                                  \
    F(gpt_neox)                                                                                              \
    F(bert)                                                                                                  \
    F(roberta)                                                                                               \
    F(distilbert)                                                                                            \
    F(mlp)

#define DECLARED(name) extern const struct lb_family lb_family_##name;
#define LISTED(name) &lb_family_##name,
FAMILIES(DECLARED)
static const struct lb_family *const table[] = {FAMILIES(LISTED)};
#define N_FAMILIES (sizeof table / sizeof *table)

const struct lb_family *lb_family_find(const char *model_type) {
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (strcmp(table[i]->form.model_type, model_type) == 0) {
            return table[i];
        }
    }
    return NULL;
}

/* The first one of that general.architecture; NULL: none. */
static const struct lb_family *find_gguf(const char *architecture) {
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (table[i]->form.gguf != NULL && strcmp(table[i]->form.gguf, architecture) == 0) {
            return table[i];
        }
    }
    return NULL;
}

/* Each family's model_type, or each distinct architecture of GGUF. */
static const char *list_names(bool gguf, char names[LB_FAMILY_NAMES]) {
    size_t at = 0;
    names[0] = '\0';
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const char *name = gguf ? table[i]->form.gguf : table[i]->form.model_type;
        if (name != NULL && (!gguf || find_gguf(name) == table[i]) && at < LB_FAMILY_NAMES) {
            at += (size_t)snprintf(names + at, LB_FAMILY_NAMES - at, "%s%s", at > 0 ? ", " : "", name);
        }
    }
    return names;
}

const char *lb_family_names(char names[LB_FAMILY_NAMES]) {
    return list_names(false, names);
}

/* The form for a model_type; otherwise an error that lists what there is. */
static enum lb_status find_form(const char *model_type, const char *what, const struct lb_config_form **out,
                                struct lb_detail *detail) {
    char names[LB_FAMILY_NAMES];
    const struct lb_family *family = lb_family_find(model_type);
    if (family == NULL) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: model_type \"%.64s\" is not one of %s", what,
                       model_type, lb_family_names(names));
    }
    *out = &family->form;
    return LB_OK;
}

static enum lb_status form_of(const json_t *object, const char *what, const struct lb_config_form **out,
                              struct lb_detail *detail) {
    const char *model_type = NULL;
    if (!json_is_object(object)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: a model's config must be a JSON object", what);
    }
    enum lb_status status = lb_json_str(object, "model_type", true, what, &model_type, detail);
    if (status == LB_OK && strcmp(model_type, "mistral") == 0 &&
        json_object_get(object, "layer_types") != NULL) {
        model_type = "ministral"; /* as transformers takes it */
    }
    return status == LB_OK ? find_form(model_type, what, out, detail) : status;
}

enum lb_status lb_config_parse(const json_t *object, const char *what, struct lb_config *out,
                               struct lb_notes *notes, struct lb_detail *detail) {
    const struct lb_config_form *form = NULL;
    const struct lb_larger *larger = lb_larger_of(object);
    if (larger != NULL) {
        return lb_larger_read(larger, &lb_family_find(larger->part)->form, object, what, out, notes, detail);
    }
    enum lb_status status = form_of(object, what, &form, detail);
    return status == LB_OK ? lb_config_read(form, object, what, out, notes, detail) : status;
}

static bool owns(const struct lb_config_form *form, const char *name) {
    const char *key;
    for (size_t i = 0; (key = lb_config_own_key(form, i)) != NULL; i++) {
        if (strcmp(key, name) == 0) {
            return true;
        }
    }
    return false;
}

enum lb_status lb_config_parse_new(const json_t *object, const char *what, struct lb_config *out,
                                   struct lb_detail *detail) {
    const struct lb_config_form *form = NULL;
    enum lb_status status = form_of(object, what, &form, detail);
    if (status != LB_OK) {
        return status;
    }
    json_t *keys = (json_t *)(uintptr_t)object; /* jansson's iterators take no const */
    for (void *at = json_object_iter(keys); at != NULL; at = json_object_iter_next(keys, at)) {
        if (!owns(form, json_object_iter_key(at))) {
            return lb_fail(detail, LB_E_ARG, "%s: %.64s is no key of model_type %s", what,
                           json_object_iter_key(at), form->model_type);
        }
    }
    struct lb_config_form fresh = *form;
    const struct lb_config_key *window = lb_config_find_key(form, "sliding_window");
    if (window == NULL || (window->flags & LB_KEY_FILE_ONLY) != 0) {
        fresh.missing.sliding_window = 0; /* no key of a new model: it sees as far as it is long */
    }
    return lb_config_read(&fresh, object, what, out, NULL, detail);
}

enum lb_status lb_config_try_key(const json_t *object, const char *what, size_t i, struct lb_detail *detail) {
    const struct lb_config_form *form = NULL;
    enum lb_status status = form_of(object, what, &form, detail);
    if (status == LB_OK) {
        return lb_config_read_key(form, object, what, i, detail);
    }
    return i > 0 ? LB_E_NOTFOUND : status;
}

static double number_of(const struct lb_gguf *file, const char *architecture, const char *name) {
    char key[96];
    double v = 0;
    snprintf(key, sizeof key, "%.60s.%s", architecture, name);
    (void)lb_gguf_number(file, key, &v);
    return v;
}

/* Of the families that share an architecture the first, but one with experts where the file has some, and
 * else none, and one that knows windows where the file has one. */
static const struct lb_family *find_of_file(const struct lb_gguf *file, const char *architecture) {
    double window = number_of(file, architecture, "attention.sliding_window");
    bool windows = window > 0 && window < number_of(file, architecture, "context_length");
    bool experts = number_of(file, architecture, "expert_count") > 0;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const struct lb_config_form *form = &table[i]->form;
        if (form->gguf != NULL && strcmp(form->gguf, architecture) == 0 &&
            (form->missing.num_experts > 0) == experts &&
            (!windows || lb_config_find_key(form, "sliding_window") != NULL)) {
            return table[i];
        }
    }
    return find_gguf(architecture); /* which says what it does not know */
}

enum lb_status lb_config_from_gguf(const struct lb_gguf *file, const char *what, struct lb_config *out,
                                   struct lb_notes *notes, struct lb_detail *detail) {
    char names[LB_FAMILY_NAMES];
    const char *name = lb_gguf_string(file, "general.architecture");
    if (name == NULL) {
        return lb_fail(detail, LB_E_FORMAT, "%s: key general.architecture is missing or no text", what);
    }
    const struct lb_family *family = find_of_file(file, name);
    if (family == NULL) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: general.architecture \"%.64s\" is not one of %s", what,
                       name, list_names(true, names));
    }
    return lb_config_read_gguf(&family->form, file, what, out, notes, detail);
}

enum lb_status lb_config_check(const struct lb_config *config, const char *what, struct lb_detail *detail) {
    const struct lb_config_form *form = NULL;
    enum lb_status status = find_form(config->model_type, what, &form, detail);
    return status == LB_OK ? lb_config_check_form(form, config, what, detail) : status;
}

enum lb_status lb_config_write(const struct lb_config *config, const struct lb_labels *labels,
                               const char *dtype_name, struct lb_buf *buf) {
    const struct lb_config_form *form = NULL;
    enum lb_status status = find_form(config->model_type, "config", &form, NULL);
    return status == LB_OK ? lb_config_write_form(form, config, labels, dtype_name, buf) : status;
}

const char *lb_family_key(const char *model_type, size_t i) {
    const struct lb_family *family = lb_family_find(model_type);
    return family != NULL ? lb_config_own_key(&family->form, i) : NULL;
}
