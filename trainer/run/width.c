#include "trainer/run/width.h"

#include "common/base/mem.h"
#include "common/nn/tape.h"
#include "trainer/run/tapped.h"

#include <math.h>
#include <stdlib.h>

struct width {
    int64_t layers, neurons, heads, group; /* group: columns of a head of keys and values' queries */
    double *squares[2];                    /* [layers, neurons], [layers, heads] sums over texts */
};

/* Of one text and layer: the mean over positions of each unit's size, squared, into sums [units]. */
static void add_text(const struct lb_value *v, int64_t first, int64_t n, int64_t units, int64_t each,
                     double *sums) {
    for (int64_t u = 0; u < units; u++) {
        double mean = 0;
        for (int64_t t = first; t < first + n; t++) {
            const float *x = v->data + t * v->cols + u * each;
            double square = 0;
            for (int64_t i = 0; i < each; i++) {
                square += (double)x[i] * (double)x[i];
            }
            mean += sqrt(square) / (double)n;
        }
        sums[u] += mean * mean;
    }
}

/* taps [2 layers]: neurons, then heads. */
static void take(void *context, const struct lb_tap *taps, const struct lb_ragged *ragged) {
    const struct width *w = context;
#pragma omp parallel for schedule(static)
    for (int64_t l = 0; l < 2 * w->layers; l++) {
        bool heads = l >= w->layers;
        int64_t units = heads ? w->heads : w->neurons;
        double *sums = w->squares[heads] + (heads ? l - w->layers : l) * units;
        for (int64_t s = 0; s < ragged->n_seqs; s++) {
            add_text(taps[l].value, ragged->offsets[s], ragged->offsets[s + 1] - ragged->offsets[s], units,
                     heads ? w->group : 1, sums);
        }
    }
}

enum lb_status lb_width_importance(const struct lb_model *model, const struct lb_dataset *data,
                                   const volatile sig_atomic_t *stop, double *out_neurons, double *out_heads,
                                   int64_t *out_rows, struct lb_detail *detail) {
    const struct lb_config *c = lb_model_config(model);
    const struct lb_narrowing nothing = {0};
    enum lb_status status = lb_model_narrows(model, &nothing, detail);
    if (status != LB_OK) {
        return status;
    }
    struct width w = {.layers = c->num_hidden_layers,
                      .neurons = c->intermediate_size,
                      .heads = c->num_key_value_heads,
                      .group = c->num_attention_heads / c->num_key_value_heads * c->head_dim};
    size_t layers = (size_t)w.layers;
    struct lb_tap *taps = lb_calloc(2 * layers, sizeof *taps);
    w.squares[0] = lb_calloc(layers * (size_t)w.neurons, sizeof(double));
    w.squares[1] = lb_calloc(layers * (size_t)w.heads, sizeof(double));
    if (taps == NULL || w.squares[0] == NULL || w.squares[1] == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "importance of the width: out of memory");
    } else {
        for (int64_t l = 0; l < w.layers; l++) {
            taps[l] = (struct lb_tap){LB_TAP_NEURONS, (int)l, NULL};
            taps[w.layers + l] = (struct lb_tap){LB_TAP_HEADS, (int)l, NULL};
        }
        const struct lb_tapped tapped = {&w, taps, 2 * layers, take};
        status = lb_tapped_read(model, data, &tapped, "importance of the width", stop, out_rows, detail);
    }
    for (int64_t i = 0; status == LB_OK && i < w.layers * w.neurons; i++) {
        out_neurons[i] = sqrt(w.squares[0][i]);
    }
    for (int64_t i = 0; status == LB_OK && i < w.layers * w.heads; i++) {
        out_heads[i] = sqrt(w.squares[1][i]);
    }
    lb_free(taps);
    lb_free(w.squares[0]);
    lb_free(w.squares[1]);
    return status;
}

/* ---- choosing ---- */

struct ranked {
    double importance;
    int64_t at;
};

static int by_importance(const void *left, const void *right) {
    const struct ranked *a = left, *b = right;
    return a->importance != b->importance ? (a->importance < b->importance ? 1 : -1)
                                          : (a->at > b->at) - (a->at < b->at);
}

static int by_place(const void *left, const void *right) {
    const int64_t *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

bool lb_most_important(const double *importance, int64_t rows, int64_t width, int64_t n, int64_t *kept) {
    struct ranked *all = lb_malloc_array((size_t)width + 1, sizeof *all);
    for (int64_t r = 0; all != NULL && r < rows; r++) {
        for (int64_t i = 0; i < width; i++) {
            all[i] = (struct ranked){importance[r * width + i], i};
        }
        qsort(all, (size_t)width, sizeof *all, by_importance);
        for (int64_t i = 0; i < n; i++) {
            kept[r * n + i] = all[i].at;
        }
        qsort(kept + r * n, (size_t)n, sizeof *kept, by_place);
    }
    bool made = all != NULL;
    lb_free(all);
    return made;
}
