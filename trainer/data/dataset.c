#include "trainer/data/dataset.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum lb_status add_entry(struct lb_dataset *data, const struct lb_recipe *recipe,
                                const struct lb_recipe_dataset *entry, bool keep_short,
                                struct lb_text_source *source, struct lb_detail *detail) {
    char *path = lb_recipe_resolve(recipe, entry->path);
    char *labels = entry->labels != NULL ? lb_recipe_resolve(recipe, entry->labels) : NULL;
    enum lb_status status;
    if (path == NULL || (entry->labels != NULL && labels == NULL)) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory", entry->path);
    } else if (entry->type == LB_DATA_IDX) {
        status = lb_dataset_add_idx(data, entry, path, labels, recipe->student.config.num_labels, detail);
    } else if (entry->type == LB_DATA_CSV) {
        status = lb_dataset_add_csv(data, entry, path, recipe->student.config.num_labels, detail);
    } else if (source->tokenizer == NULL) {
        status = lb_fail(detail, LB_E_ARG, "%s: text needs a tokenizer", path);
    } else if (entry->type == LB_DATA_TOKENS && source->whole) {
        status = lb_fail(detail, LB_E_ARG,
                         "%s: token shards are a stream; whole_texts and classifiers read texts", path);
    } else if (entry->type == LB_DATA_TOKENS) {
        status = lb_dataset_add_shard(data, source, entry, path, recipe->max_length, keep_short, detail);
    } else {
        status = lb_dataset_add_text(data, source, entry, path, recipe->max_length, keep_short, detail);
    }
    lb_free(path);
    lb_free(labels);
    return status;
}

static void hash_images(struct lb_dataset *data) {
    for (int64_t i = 0; i < data->count; i++) {
        int tag = data->labels[i].tag;
        const char *name = tag >= 0 ? data->tags[tag] : "";
        lb_sha256_u64(data->hash, (uint64_t)data->labels[i].label);
        lb_sha256_u64(data->hash, 1);
        lb_sha256_update(data->hash, name, strlen(name) + 1);
    }
}

/* Ids and pixels have gone into the hash while they were read; here the rows and their tags. */
static enum lb_status finish_fingerprint(struct lb_dataset *data, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    lb_sha256_u64(data->hash, (uint64_t)data->count);
    if (data->images) {
        hash_images(data);
    } else {
        status = lb_text_hash_rows(data, detail);
    }
    if (data->n_weights > 0) {
        lb_sha256_update(data->hash, data->weights, (size_t)data->n_weights * sizeof *data->weights);
    }
    for (int64_t i = 0; i < data->n_label_names; i++) {
        lb_sha256_update(data->hash, data->label_names[i], strlen(data->label_names[i]) + 1);
    }
    for (int i = 0; i < data->n_shards; i++) {
        const struct lb_shard *shard = &data->shards[i];
        const char *name = shard->tag >= 0 ? data->tags[shard->tag] : "";
        lb_sha256_u64(data->hash, (uint64_t)shard->labels);
        lb_sha256_update(data->hash, name, strlen(name) + 1);
    }
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256_final(data->hash, digest);
    data->hash = NULL;
    lb_hex(digest, sizeof digest, data->fingerprint);
    return status;
}

/* Where texts lie that memory does not hold: in the run's folder, or where the environment says. */
static enum lb_status choose_folder(struct lb_dataset *data, const struct lb_recipe *recipe,
                                    struct lb_detail *detail) {
    const char *temporary = getenv("TMPDIR");
    char *run = recipe->output_dir != NULL ? lb_recipe_resolve(recipe, recipe->output_dir) : NULL;
    if (recipe->output_dir != NULL && run == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the data");
    }
    if (run != NULL && lb_file_exists(run)) {
        data->folder = run;
        run = NULL;
    } else if (temporary != NULL && *temporary != '\0') {
        data->folder = lb_strdup(temporary);
    }
    lb_free(run);
    struct lb_spill *spills[] = {&data->ids, &data->rows, &data->records, &data->teacher_prompts};
    for (size_t i = 0; i < sizeof spills / sizeof *spills; i++) {
        spills[i]->folder = data->folder;
    }
    return LB_OK;
}

/* Whether a loss compares how likely texts are, maybe under a teacher that reads them written otherwise. */
static bool any_on_chunks(const struct lb_recipe *recipe) {
    bool any = false;
    for (unsigned i = 0; i < recipe->loss_functions_count; i++) {
        any |= lb_loss_unlike(lb_loss_find(recipe->loss_functions[i].function));
    }
    return any;
}

/* The rows from first on are the entry's. */
static enum lb_status add_part(struct lb_dataset *data, const struct lb_recipe_dataset *entry, int64_t first,
                               struct lb_detail *detail) {
    bool weighs = entry->weight > 0; /* not NAN, where the recipe is silent */
    int64_t n = lb_dataset_count(data) - first;
    if (weighs && n == 0) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: holds no whole row, and has a weight; drop it, or lower max_length", entry->path);
    }
    data->weighted |= weighs;
    data->parts[data->n_parts++] = (struct lb_order_part){first, n, weighs ? entry->weight : 1};
    return LB_OK;
}

/* Rows of shards come behind all others. */
static enum lb_status add_entries(struct lb_dataset *data, const struct lb_recipe *recipe,
                                  const struct lb_recipe_dataset *entries, unsigned n_entries,
                                  bool keep_short, struct lb_text_source *source, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    data->parts = lb_calloc((size_t)n_entries + 1, sizeof *data->parts);
    if (data->parts == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the data");
    }
    for (int shards = 0; shards < 2; shards++) {
        for (unsigned i = 0; status == LB_OK && i < n_entries; i++) {
            int64_t first = lb_dataset_count(data);
            if (lb_data_features(entries[i].type) != data->images) {
                status = lb_fail(detail, LB_E_ARG, "%s: text and images do not mix", entries[i].path);
            } else if ((entries[i].type == LB_DATA_TOKENS) == (shards == 1)) {
                status = add_entry(data, recipe, &entries[i], keep_short, source, detail);
                status = status == LB_OK ? add_part(data, &entries[i], first, detail) : status;
            }
        }
    }
    return status;
}

enum lb_status lb_dataset_open(const struct lb_recipe *recipe, const struct lb_recipe_dataset *entries,
                               unsigned n_entries, bool keep_short, const struct lb_tokenizer *tokenizer,
                               int64_t num_labels, const volatile sig_atomic_t *stop, struct lb_dataset **out,
                               struct lb_detail *detail) {
    struct lb_text_source source = {0};
    enum lb_status status = LB_OK;
    struct lb_dataset *data = lb_calloc(1, sizeof *data);
    if (data != NULL) {
        data->hash = lb_sha256_create();
    }
    if (data == NULL || data->hash == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for the data");
        goto out;
    }
    data->max_length = recipe->max_length;
    status = choose_folder(data, recipe, detail);
    if (status != LB_OK) {
        goto out;
    }
    data->images = n_entries > 0 && lb_data_features(entries[0].type);
    lb_sha256_update(data->hash, data->images ? "images" : "text\0\0", 6);
    if (!data->images && tokenizer != NULL) {
        status = lb_text_source_init(&source, tokenizer, recipe->whole_texts || num_labels > 0, detail);
        data->num_labels = source.num_labels = num_labels;
        source.stop = stop;
        source.completion_only = recipe->completion_only_loss;
        source.assistant_only = recipe->assistant_only_loss;
        source.keeps = any_on_chunks(recipe);
        source.teacher_prompt = keep_short ? NULL : lb_recipe_teacher_prompt(recipe);
        source.prompts = lb_recipe_writes(recipe) || source.teacher_prompt != NULL;
    }
    if (status == LB_OK && recipe->chat_template != NULL) {
        source.chat_template = lb_recipe_resolve(recipe, recipe->chat_template);
        status = source.chat_template != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    status =
        status == LB_OK ? add_entries(data, recipe, entries, n_entries, keep_short, &source, detail) : status;
    if (status == LB_OK && lb_dataset_count(data) == 0) {
        status = lb_fail(
            detail, LB_E_ARG,
            data->images ? "the data hold no image; look at skip_samples, max_samples and exclude_labels"
            : data->dropped > 0
                ? "no token of the data's records counts within max_length %lld; raise it, or look "
                  "at completion_only_loss and assistant_only_loss"
                : "the data hold no whole row of max_length %lld tokens; lower max_length",
            (long long)recipe->max_length);
    }
    if (status == LB_OK) {
        snprintf(data->chat_hash, sizeof data->chat_hash, "%s",
                 source.chat != NULL ? lb_chat_hash(source.chat) : "");
        status = finish_fingerprint(data, detail);
    }
    if (status == LB_OK) {
        *out = data;
        data = NULL;
    }
out:
    lb_text_source_finish(&source);
    lb_dataset_destroy(data);
    return status;
}

enum lb_status lb_dataset_fits(const struct lb_dataset *data, const struct lb_config *config,
                               const char *name, struct lb_detail *detail) {
    if (!data->images || config->input_size == 0) {
        return data->images == (config->input_size > 0)
                   ? LB_OK
                   : lb_fail(detail, LB_E_MISMATCH, "%s: these are %s, the student reads %s", name,
                             data->images ? "images" : "texts",
                             data->images ? "text" : "images (type: idx, with labels)");
    }
    if (config->input_size != data->n_features) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s: items have %lld features, the student's input_size is %lld", name,
                       (long long)data->n_features, (long long)config->input_size);
    }
    for (int64_t i = 0; i < data->count; i++) {
        if (data->labels[i].label >= config->num_labels) {
            return lb_fail(detail, LB_E_MISMATCH,
                           "%s: an item has label %d, the student's num_labels is %lld", name,
                           data->labels[i].label, (long long)config->num_labels);
        }
    }
    return LB_OK;
}

void lb_dataset_destroy(struct lb_dataset *data) {
    if (data == NULL) {
        return;
    }
    uint8_t unused[LB_SHA256_BYTES];
    lb_sha256_final(data->hash, unused);
    lb_text_rows_finish(data);
    lb_free(data->folder);
    lb_free(data->class_of_name);
    lb_shards_close(data);
    lb_free(data->parts);
    lb_free(data->weights);
    lb_free(data->features);
    lb_free(data->columns);
    lb_free(data->labels);
    for (int i = 0; i < data->n_tags; i++) {
        lb_free(data->tags[i]);
    }
    lb_free(data->tags);
    lb_dataset_forget_names(data);
    lb_free(data->tag_bytes);
    lb_free(data);
}

int64_t lb_dataset_count(const struct lb_dataset *data) {
    return data->count + data->shard_rows;
}

bool lb_dataset_weightless(const struct lb_dataset *data) {
    bool weightless = data->n_weights > 0 && data->n_weights == lb_dataset_count(data);
    for (int64_t i = 0; weightless && i < data->n_weights; i++) {
        weightless = data->weights[i] == 0;
    }
    return weightless;
}

int64_t lb_dataset_bytes(const struct lb_dataset *data, int tag) {
    assert(tag < data->n_tags);
    return tag < 0 ? data->bytes : data->tag_bytes[tag];
}

enum lb_status lb_dataset_get(const struct lb_dataset *data, int64_t i, struct lb_sample *out,
                              struct lb_detail *detail) {
    assert(i >= 0 && i < lb_dataset_count(data));
    if (i >= data->count) {
        return lb_shard_row(data, i - data->count, out, detail);
    }
    if (data->images) {
        *out = (struct lb_sample){.n = 1,
                                  .features = data->features + i * data->n_features,
                                  .label = data->labels[i].label,
                                  .tag = data->labels[i].tag};
    } else {
        enum lb_status status = lb_text_row_read(data, i, out, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    out->weight = i < data->n_weights ? &data->weights[i] : NULL;
    return LB_OK;
}

int lb_dataset_tags(const struct lb_dataset *data) {
    return data->n_tags;
}

const char *lb_dataset_tag(const struct lb_dataset *data, int tag) {
    assert(tag >= 0 && tag < data->n_tags);
    return data->tags[tag];
}

int64_t lb_dataset_features(const struct lb_dataset *data) {
    return data->n_features;
}

const char *lb_dataset_chat_hash(const struct lb_dataset *data) {
    return data->chat_hash;
}

int64_t lb_dataset_prompts(const struct lb_dataset *data) {
    int64_t n = data->prompts;
    for (int i = 0; i < data->n_shards; i++) {
        const struct lb_shard *shard = &data->shards[i];
        n += shard->prompt > 0 && shard->prompt < shard->max_length ? shard->rows : 0;
    }
    return n;
}

int64_t lb_dataset_shortened(const struct lb_dataset *data) {
    return data->shortened;
}

int64_t lb_dataset_dropped(const struct lb_dataset *data) {
    return data->dropped;
}

const char *lb_dataset_fingerprint(const struct lb_dataset *data) {
    return data->fingerprint;
}
