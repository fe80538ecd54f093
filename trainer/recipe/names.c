#include "trainer/recipe/names.h"

#include <string.h>

#define WORD_MAX 64 /* longer words are no slips of a key */

/* Keys of other tools, and short forms that hands type, that no distance would lead to the right one. */
static const char *const other_names[][2] = {
    {"lr", "learning_rate"},
    {"epochs", "num_train_epochs"},
    {"num_epochs", "num_train_epochs"},
    {"steps", "max_steps"},
    {"batch_size", "per_device_train_batch_size"},
    {"train_batch_size", "per_device_train_batch_size"},
    {"micro_batch_size", "per_device_train_batch_size"},
    {"sequence_len", "max_length"},
    {"sequence_length", "max_length"},
    {"max_seq_length", "max_length"},
    {"block_size", "max_length"},
    {"lr_scheduler", "lr_scheduler_type"},
    {"optimizer", "optim"},
    {"n_layer", "num_hidden_layers"},
    {"n_head", "num_attention_heads"},
    {"n_embd", "hidden_size"},
    {"rms_norm_eps", "norm_eps"},
    {"layer_norm_eps", "norm_eps"},
    {"num_threads", "threads"},
    {"cache", "cache_dir and cache_max_bytes"},
    {"losses", "loss_functions"},
    {"label_smoothing_factor", "label_smoothing"},
    {"z_loss_weight", "z_loss"},
    {"loss_max_clamp", "clamp"},
    {"teacher", "teachers"},
    {"dataset", "datasets"},
};

/* Optimal string alignment distance (a swap of neighbours counts once). */
static size_t edit_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n >= WORD_MAX || m >= WORD_MAX) {
        return WORD_MAX;
    }
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++) {
        last[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) {
                best = before[j - 2] + 1;
            }
            row[j] = best;
        }
        size_t *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[m];
}

const char *lb_nearest_name(const char *word, const char *const *names, size_t n) {
    const char *nearest = NULL;
    size_t least = strlen(word) / 3 + 2; /* exclusive: "abc" may be off by two */
    for (size_t i = 0; i < n; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (distance < least && distance < strlen(names[i])) {
            least = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

const char *lb_other_name(const char *key) {
    for (size_t i = 0; i < sizeof other_names / sizeof other_names[0]; i++) {
        if (strcmp(key, other_names[i][0]) == 0) {
            return other_names[i][1];
        }
    }
    return NULL;
}
