/* Models opened from files. */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/safetensors.h"
#include "common/model/families.h"
#include "common/model/family.h"
#include "common/model/larger.h"
#include "common/model/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES ((size_t)4 << 20)

static void shape_text(const int64_t *dim, int n, char *out, size_t cap) {
    size_t at = (size_t)snprintf(out, cap, "[");
    for (int i = 0; i < n && at < cap; i++) {
        at += (size_t)snprintf(out + at, cap - at, i > 0 ? ", %lld" : "%lld", (long long)dim[i]);
    }
    if (at < cap) {
        snprintf(out + at, cap - at, "]");
    }
}

/* The shape that the file's tensor of weight i must have; returns how many dimensions. */
static int shape_in_file(const struct lb_model *model, size_t i, bool gguf, int64_t want[LB_MAX_DIMS]) {
    const struct lb_weight *w = &model->weights[i];
    int64_t experts = gguf ? model->specs[i].experts : 0, *dim = want;
    bool turned = lb_layout_is_turned(model, i, gguf);
    if (experts > 0) {
        *dim++ = experts;
    }
    dim[0] = w->n_dims == 1 || turned ? w->cols : w->rows;
    dim[1] = turned ? w->rows : w->cols;
    return w->n_dims + (experts > 0);
}

static enum lb_status take_tensor(struct lb_model *model, size_t i, const struct lb_tensor *t,
                                  const char *path, bool gguf, struct lb_detail *detail) {
    struct lb_weight *w = &model->weights[i];
    int64_t want[LB_MAX_DIMS] = {0};
    int n_dims = shape_in_file(model, i, gguf, want);
    if (t == NULL) {
        return lb_fail(detail, LB_E_FORMAT, "%s: tensor %s is missing", path,
                       gguf && model->specs[i].gguf[0] != 0 ? model->specs[i].gguf : w->name);
    }
    if (t->n_dims != n_dims || memcmp(t->dim, want, (size_t)n_dims * sizeof *want) != 0) {
        char have[64], need[64];
        shape_text(t->dim, t->n_dims, have, sizeof have);
        shape_text(want, n_dims, need, sizeof need);
        return lb_fail(detail, LB_E_MISMATCH, "%s: tensor %s has shape %s, the config asks for %s", path,
                       t->name, have, need);
    }
    if (!lb_dtype_is_weight(t->dtype)) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: tensor %s has dtype %s, which no weights have", path,
                       t->name, lb_dtype_name(t->dtype));
    }
    w->dtype = t->dtype;
    w->data = t->data;
    if (n_dims > w->n_dims) { /* a whole number of rows, so of blocks */
        w->data = (const char *)t->data + t->bytes / (size_t)want[0] * (size_t)model->specs[i].expert;
    }
    return lb_layout_take(model, i, gguf, detail);
}

/* ---- what is in the file ---- */

/* The tensors of either kind of file. */
struct contents {
    const struct lb_safetensors *folder;
    const struct lb_gguf *gguf;
    const struct lb_larger *larger; /* of folders whose model is a part of theirs; NULL: it is the whole */
};

static const struct lb_tensor *nth(const struct contents *c, size_t i) {
    return c->gguf != NULL ? lb_gguf_get(c->gguf, i) : lb_safetensors_get(c->folder, i);
}

/* A tensor of the folder; of a base model's the names lack the prefix. */
static const struct lb_tensor *find_in_folder(const struct contents *c, const struct lb_family *family,
                                              const char *name) {
    if (c->larger != NULL) {
        return lb_larger_tensor(c->larger, c->folder, name);
    }
    const struct lb_tensor *t = lb_safetensors_find(c->folder, name);
    size_t n = family->base != NULL ? strlen(family->base) : 0;
    return t == NULL && n > 0 && strncmp(name, family->base, n) == 0
               ? lb_safetensors_find(c->folder, name + n)
               : t;
}

static int by_name(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* Tensors that change nothing: what rotary positions are made from and masks, which forward makes itself. */
static bool is_harmless(const char *name) {
    static const char *const ends[] = {
        "rotary_emb.inv_freq", "attn_rot_embd.weight",   "masked_bias", "causal_mask", ".attn.bias",
        ".attention.bias",     "embeddings.position_ids"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (lb_ends_with(name, ends[i])) {
            return true;
        }
    }
    return false;
}

/* What the config's reader takes from a GGUF. */
static bool is_of_config(const struct lb_model *model, const char *name) {
    return model->config.rope.n_factors > 0 &&
           (strcmp(name, "rope_freqs.weight") == 0 || strcmp(name, "rope_factors_long.weight") == 0 ||
            strcmp(name, "rope_factors_short.weight") == 0);
}

static bool is_named(const char *const *names, size_t n, const char *name) {
    return bsearch(&name, names, n, sizeof *names, by_name) != NULL;
}

/* Whether it is a weight, where the file's names may lack the family's prefix. */
static bool is_weight(const struct lb_model *model, const char *const *names, const char *name) {
    char whole[LB_WEIGHT_NAME];
    const char *base = model->family->base;
    if (is_named(names, model->n_weights, name)) {
        return true;
    }
    snprintf(whole, sizeof whole, "%s%s", base != NULL ? base : "", name);
    return base != NULL && strlen(name) < sizeof whole - strlen(base) &&
           is_named(names, model->n_weights, whole);
}

/* Of a task that the family's files may have beside the model, which is not computed. */
static bool is_unread(const struct lb_model *model, const char *name) {
    const char *const *begins = model->family->unread;
    for (; begins != NULL && *begins != NULL; begins++) {
        if (strncmp(name, *begins, strlen(*begins)) == 0) {
            return true;
        }
    }
    return false;
}

/* What is left unread and said so: of which kind, how many, the first. */
struct unread {
    size_t n_of_tasks, n_of_parts;
    const char *of_task, *of_part;
};

static void note_unread(struct lb_model *model, const struct contents *file, const struct unread *unread,
                        const char *path) {
    if (unread->n_of_tasks > 0) {
        lb_note(&model->notes, "%s: tensors as %.100s are of a task that is not computed here", path,
                unread->of_task);
    }
    if (file->larger != NULL) {
        lb_note(&model->notes,
                "%s: of this %s the text model alone is opened; %zu tensors as %.60s are left out", path,
                file->larger->form.model_type, unread->n_of_parts,
                unread->n_of_parts > 0 ? unread->of_part : file->larger->others[0]);
    }
}

/* A tensor that forward does not read would have changed the numbers: each is a weight, harmless, of what is
 * left out, or refused. A tied head that is stored too is the embedding's copy (untie_head). */
static enum lb_status judge_tensor(const struct lb_model *model, const struct contents *file,
                                   const char *const *names, const char *head, const struct lb_tensor *t,
                                   struct unread *unread, struct lb_detail *detail) {
    char own[LB_WEIGHT_NAME];
    const char *name = file->larger != NULL ? lb_larger_own_name(file->larger, t->name, own) : t->name;
    bool beside = file->gguf != NULL ? is_of_config(model, name) : head != NULL && strcmp(name, head) == 0;
    bool weight = file->larger == NULL ? is_weight(model, names, name)
                                       : is_named(names, model->n_weights, name) &&
                                             lb_larger_tensor(file->larger, file->folder, name) == t;
    if (file->larger != NULL && lb_larger_leaves_out(file->larger, t->name)) {
        unread->of_part = unread->n_of_parts++ == 0 ? t->name : unread->of_part;
    } else if (!weight && is_unread(model, name)) {
        unread->of_task = unread->n_of_tasks++ == 0 ? t->name : unread->of_task;
    } else if (!beside && !is_harmless(name) && !weight) {
        return lb_fail(
            detail, LB_E_UNSUPPORTED,
            "tensor %.200s is no weight of a %s of this config; ignoring it would give other numbers",
            t->name, model->config.model_type);
    }
    return LB_OK;
}

static enum lb_status refuse_others(struct lb_model *model, const struct contents *file, const char *path,
                                    struct lb_detail *detail) {
    struct lb_config untied = model->config;
    untied.tie_word_embeddings = false;
    const char *head = model->family->head(&untied);
    const char **names = lb_calloc(model->n_weights, sizeof *names);
    const struct lb_tensor *t;
    struct unread unread = {0};
    enum lb_status status = LB_OK;
    if (names == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    }
    for (size_t i = 0; i < model->n_weights; i++) {
        names[i] = file->gguf != NULL ? model->specs[i].gguf : model->specs[i].name;
    }
    qsort(names, model->n_weights, sizeof *names, by_name);
    for (size_t i = 0; status == LB_OK && (t = nth(file, i)) != NULL; i++) {
        status = judge_tensor(model, file, names, head, t, &unread, detail);
    }
    lb_free(names);
    if (status != LB_OK) {
        lb_detail_prefix(detail, "%s", path);
        return status;
    }
    note_unread(model, file, &unread, path);
    return LB_OK;
}

/* A config that ties the head to the embedding, beside a stored head with other numbers: transformers (5)
 * takes the stored one. */
static void untie_head(const struct contents *file, const char *what, struct lb_config *config,
                       struct lb_notes *notes) {
    const struct lb_family *family = lb_family_find(config->model_type);
    struct lb_config untied = *config;
    if (!config->tie_word_embeddings || config->num_labels > 0) {
        return;
    }
    untied.tie_word_embeddings = false;
    const char *name = family->head(&untied);
    const struct lb_tensor *head = find_in_folder(file, family, name),
                           *embedding = find_in_folder(file, family, family->head(config));
    if (head != NULL && embedding != NULL &&
        (head->dtype != embedding->dtype || head->bytes != embedding->bytes ||
         memcmp(head->data, embedding->data, head->bytes) != 0)) {
        lb_note(notes,
                "%s: tie_word_embeddings is true, but %s is stored and is not the embedding; it is used",
                what, name);
        config->tie_word_embeddings = false;
    }
}

/* ---- opening ---- */

/* model.safetensors of the folder, or its index; *out is the caller's. */
static enum lb_status find_weights(const char *path, char **out, struct lb_detail *detail) {
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *file = lb_path_join(path, names[i]);
        if (file == NULL) {
            return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
        }
        if (lb_file_exists(file)) {
            *out = file;
            return LB_OK;
        }
        lb_free(file);
    }
    return lb_fail(detail, LB_E_NOTFOUND, "%s: no model.safetensors (nor its index) in this folder", path);
}

/* labels: of a classifier of texts, else left alone. */
static enum lb_status read_config(const char *path, struct lb_config *config, struct lb_labels *labels,
                                  const struct lb_larger **out_larger, struct lb_notes *notes,
                                  struct lb_detail *detail) {
    json_t *json = NULL;
    enum lb_status status = lb_json_file(path, MAX_CONFIG_BYTES, &json, detail);
    status = status == LB_OK ? lb_config_parse(json, path, config, notes, detail) : status;
    if (status == LB_OK && config->num_labels > 0 && config->input_size == 0) {
        status = lb_labels_read(json, config->num_labels, path, labels, detail);
    }
    *out_larger = lb_larger_of(json);
    json_decref(json);
    return status;
}

/* generation_config.json, where it is there and names ends of texts. */
static enum lb_status read_generation(const char *dir, struct lb_model *model, struct lb_detail *detail) {
    char *path = lb_path_join(dir, "generation_config.json");
    json_t *json = NULL;
    enum lb_status status = path != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    if (status == LB_OK && lb_file_exists(path)) {
        status = lb_json_file(path, MAX_CONFIG_BYTES, &json, detail);
    }
    const json_t *ends = json_object_get(json, "eos_token_id");
    if (status == LB_OK && ends != NULL && !json_is_null(ends)) {
        status =
            lb_config_read_ends(ends, model->config.vocab_size, path, "eos_token_id", &model->ends, detail);
    }
    json_decref(json);
    lb_free(path);
    return status;
}

static enum lb_status open_folder(const char *path, struct lb_model **out, struct lb_detail *detail) {
    char *config_path = lb_path_join(path, "config.json"), *weights = NULL;
    struct lb_config config;
    struct lb_labels labels = {0};
    struct lb_notes notes = {0};
    struct lb_model *model = NULL;
    struct lb_safetensors *file = NULL;
    struct contents contents = {0};
    enum lb_status status = config_path != NULL ? find_weights(path, &weights, detail)
                                                : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    if (status == LB_OK) {
        status = read_config(config_path, &config, &labels, &contents.larger, &notes, detail);
    }
    status = status == LB_OK ? lb_safetensors_open(weights, &file, detail) : status;
    contents.folder = file;
    if (status == LB_OK) {
        untie_head(&contents, config_path, &config, &notes);
        status = lb_model_declare(&config, config_path, &model, detail);
    }
    if (status != LB_OK) {
        lb_safetensors_destroy(file);
        lb_labels_finish(&labels);
        goto out;
    }
    model->safetensors = file;
    model->labels = labels;
    model->notes = notes;
    for (size_t i = 0; status == LB_OK && i < model->n_weights; i++) {
        status = take_tensor(model, i, find_in_folder(&contents, model->family, model->weights[i].name),
                             weights, false, detail);
    }
    status = status == LB_OK ? refuse_others(model, &contents, weights, detail) : status;
    status = status == LB_OK ? read_generation(path, model, detail) : status;
    if (status == LB_OK && model->family->encoder != NULL && !lb_model_is_classifier(model)) {
        status = lb_sentence_read(path, &model->sentence, detail);
    }
out:
    lb_free(config_path);
    lb_free(weights);
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    *out = model;
    return LB_OK;
}

static enum lb_status open_gguf(const char *path, struct lb_model **out, struct lb_detail *detail) {
    struct lb_gguf *file = NULL;
    struct lb_config config;
    struct lb_notes notes = {0};
    struct lb_model *model = NULL;
    enum lb_status status = lb_gguf_open(path, &file, detail);
    status = status == LB_OK ? lb_config_from_gguf(file, path, &config, &notes, detail) : status;
    status = status == LB_OK ? lb_model_declare(&config, path, &model, detail) : status;
    if (status != LB_OK) {
        lb_gguf_destroy(file);
        return status;
    }
    model->gguf = file;
    model->notes = notes;
    for (size_t i = 0; status == LB_OK && i < model->n_weights; i++) {
        const char *name = model->specs[i].gguf;
        status = take_tensor(model, i, name[0] != 0 ? lb_gguf_find(file, name) : NULL, path, true, detail);
    }
    status = status == LB_OK ? refuse_others(model, &(struct contents){.gguf = file}, path, detail) : status;
    if (status == LB_OK && model->family->encoder != NULL) {
        status = lb_sentence_read_gguf(file, model->family->form.gguf, path, &model->sentence, &model->notes,
                                       detail);
    }
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    *out = model;
    return LB_OK;
}

enum lb_status lb_model_open(const char *path, bool trainable, struct lb_model **out,
                             struct lb_detail *detail) {
    bool folder = lb_is_dir(path);
    if (!folder && !lb_file_exists(path)) {
        return lb_fail(detail, LB_E_NOTFOUND,
                       "%s: no such file or folder; a model is a Hugging Face folder or a .gguf file", path);
    }
    struct lb_model *model = NULL;
    enum lb_status status = folder ? open_folder(path, &model, detail) : open_gguf(path, &model, detail);
    status = status == LB_OK ? lb_model_take_fingerprint(model, path, folder, detail) : status;
    if (status == LB_OK && trainable) {
        status = lb_model_make_trainable(model, detail);
    }
    status = status == LB_OK ? lb_model_bind(model, detail) : status;
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    *out = model;
    return LB_OK;
}
