#include "common/model/family.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

void lb_spec_add(struct lb_spec_list *list, const char *name, const char *gguf, int layer, int64_t rows,
                 int64_t cols, int n_dims, enum lb_init init) {
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 64 : 2 * list->cap;
        struct lb_weight_spec *items = lb_realloc_array(list->items, cap, sizeof *items);
        if (items == NULL) {
            list->status = LB_E_NOMEM;
            return;
        }
        list->items = items;
        list->cap = cap;
    }
    struct lb_weight_spec *spec = &list->items[list->n++];
    memset(spec, 0, sizeof *spec);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(spec->name, sizeof spec->name, name, layer, list->expert); /* patterns of our own tables */
    snprintf(spec->gguf, sizeof spec->gguf, gguf, layer, list->expert);
#pragma GCC diagnostic pop
    spec->rows = rows;
    spec->cols = cols;
    spec->n_dims = n_dims;
    spec->init = init;
    spec->layer = strstr(name, "%d") != NULL ? layer : -1;
}

const struct lb_weight *lb_model_weight(const struct lb_model *model, const char *name) {
    for (size_t i = 0; i < model->n_weights; i++) {
        if (strcmp(model->weights[i].name, name) == 0) {
            return &model->weights[i];
        }
    }
    return NULL;
}

bool lb_tap_wanted(const struct lb_tap *taps, size_t n_taps, enum lb_tap_kind kind, int layer) {
    for (size_t i = 0; i < n_taps; i++) {
        if (taps[i].kind == kind && taps[i].layer == layer) {
            return true;
        }
    }
    return false;
}

void lb_tap_offer(struct lb_tape *tape, struct lb_tap *taps, size_t n_taps, enum lb_tap_kind kind, int layer,
                  struct lb_value *v) {
    struct lb_value *kept = NULL;
    for (size_t i = 0; i < n_taps; i++) {
        if (taps[i].kind == kind && taps[i].layer == layer) {
            kept = kept == NULL ? lb_tape_keep(tape, v) : kept;
            taps[i].value = kept;
        }
    }
}
