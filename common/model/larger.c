#include "common/model/larger.h"

#include <stdio.h>
#include <string.h>

#define FIELD(member) offsetof(struct lb_config, member)

/* ---- Gemma 3 that sees (Gemma Team 2025): gemma3_text behind a SigLIP ---- */

static const struct lb_config_key gemma3_keys[] = {
    LB_KEYS_OF_CLASS,
    {"text_config", LB_KEY_ANY},
    {"vision_config", LB_KEY_ANY},
    {"mm_tokens_per_image", LB_KEY_ANY},
    {"boi_token_index", LB_KEY_ANY},
    {"eoi_token_index", LB_KEY_ANY},
    {"image_token_index", LB_KEY_ANY},
    {"tie_word_embeddings", LB_KEY_BOOL, 0, FIELD(tie_word_embeddings)},
    LB_KEYS_OF_TOKENS,
    {NULL},
};

/* Google's files lack some of them. */
static json_t *gemma3_missing(void) {
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i}", "model_type", "gemma3_text", "vocab_size", 262208,
                     "hidden_size", 2304, "intermediate_size", 9216, "num_hidden_layers", 26,
                     "num_attention_heads", 8);
}

/* Files of transformers 5, and older ones. */
static const struct lb_larger_name gemma3_names[] = {
    {"model.language_model.", "model."},
    {"language_model.model.", "model."},
    {"language_model.lm_head.", "lm_head."},
    {NULL, NULL},
};
static const char *const gemma3_others[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                            "model.multi_modal_projector.", NULL};

/* ---- the table ---- */

static const struct lb_larger table[] = {
    {.form = {.model_type = "gemma3", .keys = {gemma3_keys}},
     .part = "gemma3_text",
     .part_key = "text_config",
     .missing = gemma3_missing,
     .names = gemma3_names,
     .others = gemma3_others},
};

const struct lb_larger *lb_larger_of(const json_t *object) {
    const char *model_type = json_string_value(json_object_get(object, "model_type"));
    for (size_t i = 0; model_type != NULL && i < sizeof table / sizeof *table; i++) {
        if (strcmp(table[i].form.model_type, model_type) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

/* The text model's config.json; a new reference. */
static enum lb_status part_of(const struct lb_larger *larger, const json_t *object, const char *what,
                              json_t **out, struct lb_detail *detail) {
    const json_t *given = json_object_get(object, larger->part_key);
    if (!json_is_object(given)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s must be an object, the text model's config", what,
                       larger->part_key);
    }
    json_t *part = json_copy((json_t *)(uintptr_t)given), *missing = larger->missing();
    const char *model_type = larger->part;
    bool made = part != NULL && missing != NULL && json_object_update_missing(part, missing) == 0;
    json_decref(missing);
    enum lb_status status = made ? lb_json_str(part, "model_type", false, what, &model_type, detail)
                                 : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", what);
    if (status == LB_OK && strcmp(model_type, larger->part) != 0) {
        status = lb_fail(detail, LB_E_UNSUPPORTED, "%s: model_type \"%.64s\" of %s is not supported, only %s",
                         what, model_type, larger->part_key, larger->part);
    }
    if (status != LB_OK) {
        json_decref(part);
        return status;
    }
    *out = part;
    return LB_OK;
}

/* The keys beside the text model's config; null says nothing there. A new reference; NULL: out of memory. */
static json_t *beside_of(const json_t *object) {
    json_t *beside = json_copy((json_t *)(uintptr_t)object), *value;
    const char *key;
    void *next;
    json_object_foreach_safe(beside, next, key, value) {
        if (json_is_null(value)) {
            (void)json_object_del(beside, key);
        }
    }
    return beside;
}

enum lb_status lb_larger_read(const struct lb_larger *larger, const struct lb_config_form *own,
                              const json_t *object, const char *what, struct lb_config *out,
                              struct lb_notes *notes, struct lb_detail *detail) {
    struct lb_config_form form = *own;
    char inside[512];
    json_t *part = NULL;
    snprintf(inside, sizeof inside, "%.400s: %s", what, larger->part_key);
    enum lb_status status = part_of(larger, object, what, &part, detail);
    status = status == LB_OK ? lb_config_read(own, part, inside, &form.missing, notes, detail) : status;
    json_decref(part);
    if (status == LB_OK && form.missing.logit_softcap > 0) {
        status = lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s: final_logit_softcapping %g is not supported: transformers' larger model leaves "
                         "it out, the text model alone has it",
                         inside, form.missing.logit_softcap);
    }
    if (status != LB_OK) {
        return status;
    }
    /* what the keys beside it say is said of the text model, whose form checks the whole again */
    json_t *beside = beside_of(object);
    form.missing.tie_word_embeddings = own->missing.tie_word_embeddings;
    if (json_object_get(beside, "eos_token_id") != NULL) {
        form.missing.n_more_eos = 0;
    }
    memcpy(form.keys, larger->form.keys, sizeof form.keys);
    status = beside != NULL ? lb_config_read(&form, beside, what, out, notes, detail)
                            : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", what);
    json_decref(beside);
    return status;
}

static bool begins_with(const char *name, const char *with) {
    return strncmp(name, with, strlen(with)) == 0;
}

const struct lb_tensor *lb_larger_tensor(const struct lb_larger *larger, const struct lb_safetensors *file,
                                         const char *name) {
    const struct lb_tensor *t = lb_safetensors_find(file, name);
    for (const struct lb_larger_name *n = larger->names; t == NULL && n->there != NULL; n++) {
        char whole[2 * LB_WEIGHT_NAME];
        if (begins_with(name, n->here)) {
            snprintf(whole, sizeof whole, "%s%s", n->there, name + strlen(n->here));
            t = lb_safetensors_find(file, whole);
        }
    }
    return t;
}

const char *lb_larger_own_name(const struct lb_larger *larger, const char *name, char own[LB_WEIGHT_NAME]) {
    for (const struct lb_larger_name *n = larger->names; n->there != NULL; n++) {
        if (begins_with(name, n->there)) {
            int len = snprintf(own, LB_WEIGHT_NAME, "%s%s", n->here, name + strlen(n->there));
            return len < LB_WEIGHT_NAME ? own : name;
        }
    }
    return name;
}

bool lb_larger_leaves_out(const struct lb_larger *larger, const char *name) {
    for (const char *const *begin = larger->others; *begin != NULL; begin++) {
        if (begins_with(name, *begin)) {
            return true;
        }
    }
    return false;
}
