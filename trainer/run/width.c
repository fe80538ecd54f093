#include "trainer/run/width.h"

#include "common/base/mem.h"
#include "common/model/batch.h"
#include "common/nn/tape.h"
#include "trainer/run/evaluate.h"

#include <math.h>
#include <stdlib.h>

#define BATCH_ROWS 512 /* activations of all layers are there at once */
#define TAPE_BYTES ((size_t)16 << 30)

struct width {
    const struct lb_model *model;
    int64_t layers, neurons, heads, group; /* group: columns of a head of keys and values' queries */
    struct lb_tap *taps;                   /* [2 layers] neurons, then heads */
    double *squares[2];                    /* [layers, neurons], [layers, heads] sums over texts */
    int64_t rows;
    struct lb_tape *tape;
    struct lb_arena memory;
    struct lb_model_batch batch;
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

/* Computes what the batch holds, and empties it. */
static enum lb_status compute(struct width *w) {
    struct lb_input in = lb_model_batch_input(&w->batch);
    for (int64_t l = 0; l < w->layers; l++) {
        w->taps[l] = (struct lb_tap){LB_TAP_NEURONS, (int)l, NULL};
        w->taps[w->layers + l] = (struct lb_tap){LB_TAP_HEADS, (int)l, NULL};
    }
    lb_tape_begin(w->tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    if (lb_model_forward(w->model, w->tape, &in, w->taps, 2 * (size_t)w->layers, NULL) == NULL) {
        return lb_tape_status(w->tape) != LB_OK ? lb_tape_status(w->tape) : LB_E_INTERNAL;
    }
#pragma omp parallel for schedule(static)
    for (int64_t l = 0; l < 2 * w->layers; l++) {
        bool heads = l >= w->layers;
        int64_t units = heads ? w->heads : w->neurons;
        double *sums = w->squares[heads] + (heads ? l - w->layers : l) * units;
        for (int64_t s = 0; s < w->batch.n_seqs; s++) {
            add_text(w->taps[l].value, in.ragged.offsets[s], in.ragged.offsets[s + 1] - in.ragged.offsets[s],
                     units, heads ? w->group : 1, sums);
        }
    }
    w->rows += w->batch.n_rows;
    lb_model_batch_clear(&w->batch);
    return LB_OK;
}

static enum lb_status go_through(struct width *w, const struct lb_dataset *data, int64_t most,
                                 const volatile sig_atomic_t *stop) {
    enum lb_status status = LB_OK;
    for (int64_t i = 0; status == LB_OK && i < lb_dataset_count(data); i++) {
        struct lb_sample s;
        status = lb_dataset_get(data, i, &s, NULL);
        if (status == LB_OK && w->batch.n_rows + s.n > most) {
            status = stop != NULL && *stop != 0 ? LB_E_CANCELLED : compute(w);
        }
        if (status == LB_OK) {
            lb_model_batch_add_ids(&w->batch, s.ids, NULL, s.n);
        }
    }
    return status == LB_OK && w->batch.n_seqs > 0 ? compute(w) : status;
}

enum lb_status lb_width_importance(const struct lb_model *model, const struct lb_dataset *data,
                                   const volatile sig_atomic_t *stop, double *out_neurons, double *out_heads,
                                   int64_t *out_rows, struct lb_detail *detail) {
    const struct lb_config *c = lb_model_config(model);
    const struct lb_narrowing nothing = {0};
    int64_t longest = 0;
    enum lb_status status = lb_model_narrows(model, &nothing, detail);
    status = status == LB_OK ? lb_evaluate_rows(model, data, &longest, detail) : status;
    if (status != LB_OK) {
        return status;
    }
    int64_t most = longest > BATCH_ROWS ? longest : BATCH_ROWS;
    struct width w = {.model = model,
                      .layers = c->num_hidden_layers,
                      .neurons = c->intermediate_size,
                      .heads = c->num_key_value_heads,
                      .group = c->num_attention_heads / c->num_key_value_heads * c->head_dim};
    size_t layers = (size_t)w.layers;
    w.taps = lb_calloc(2 * layers, sizeof *w.taps);
    w.squares[0] = lb_calloc(layers * (size_t)w.neurons, sizeof(double));
    w.squares[1] = lb_calloc(layers * (size_t)w.heads, sizeof(double));
    w.tape = lb_tape_create(TAPE_BYTES);
    lb_arena_init(&w.memory, TAPE_BYTES);
    bool made = w.taps != NULL && w.squares[0] != NULL && w.squares[1] != NULL && w.tape != NULL &&
                lb_model_batch_init(&w.batch, &w.memory, most, most, 0, false);
    if (made) {
        lb_model_batch_clear(&w.batch);
        lb_tape_stop_on(w.tape, stop);
    }
    status = made ? go_through(&w, data, most, stop) : LB_E_NOMEM;
    for (int64_t i = 0; status == LB_OK && i < w.layers * w.neurons; i++) {
        out_neurons[i] = sqrt(w.squares[0][i]);
    }
    for (int64_t i = 0; status == LB_OK && i < w.layers * w.heads; i++) {
        out_heads[i] = sqrt(w.squares[1][i]);
    }
    if (status == LB_OK) {
        *out_rows = w.rows;
    }
    lb_free(w.taps);
    lb_free(w.squares[0]);
    lb_free(w.squares[1]);
    lb_tape_destroy(w.tape);
    lb_arena_finish(&w.memory);
    return status == LB_OK ? LB_OK
                           : lb_fail(detail, status, "importance of the width: %s", lb_status_name(status));
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
