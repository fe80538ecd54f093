#include "trainer/run/influence.h"

#include "common/base/mem.h"
#include "common/model/batch.h"
#include "common/nn/tape.h"
#include "trainer/run/evaluate.h"

#include <math.h>
#include <string.h>

#define BATCH_ROWS 512 /* states of all layers are there at once */
#define TAPE_BYTES ((size_t)16 << 30)

struct influence {
    const struct lb_model *model;
    int64_t layers;
    struct lb_tap *taps; /* [layers + 2] hidden_states, and the last block's output */
    double *sums;        /* [layers] of cosines */
    int64_t rows;
    struct lb_tape *tape;
    struct lb_arena memory;
    struct lb_model_batch batch;
};

static double cosine(const float *a, const float *b, int64_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? ab / (sqrt(aa) * sqrt(bb)) : 0;
}

/* Computes what the batch holds, and empties it. */
static enum lb_status compute(struct influence *f) {
    struct lb_input in = lb_model_batch_input(&f->batch);
    for (int64_t l = 0; l <= f->layers; l++) {
        f->taps[l] = (struct lb_tap){LB_TAP_HIDDEN, (int)l, NULL};
    }
    f->taps[f->layers + 1] = (struct lb_tap){LB_TAP_STREAM, (int)f->layers, NULL};
    lb_tape_begin(f->tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    if (lb_model_forward(f->model, f->tape, &in, f->taps, (size_t)f->layers + 2, NULL) == NULL) {
        return lb_tape_status(f->tape) != LB_OK ? lb_tape_status(f->tape) : LB_E_INTERNAL;
    }
    if (f->taps[f->layers + 1].value != NULL) {
        f->taps[f->layers] = f->taps[f->layers + 1];
    }
#pragma omp parallel for schedule(static)
    for (int64_t l = 0; l < f->layers; l++) {
        const struct lb_value *in_states = f->taps[l].value, *out_states = f->taps[l + 1].value;
        for (int64_t i = 0; i < in_states->rows; i++) {
            f->sums[l] += cosine(in_states->data + i * in_states->cols,
                                 out_states->data + i * in_states->cols, in_states->cols);
        }
    }
    f->rows += f->batch.n_rows;
    lb_model_batch_clear(&f->batch);
    return LB_OK;
}

static enum lb_status go_through(struct influence *f, const struct lb_dataset *data, int64_t most,
                                 const volatile sig_atomic_t *stop) {
    enum lb_status status = LB_OK;
    for (int64_t i = 0; status == LB_OK && i < lb_dataset_count(data); i++) {
        struct lb_sample s;
        status = lb_dataset_get(data, i, &s, NULL);
        if (status == LB_OK && f->batch.n_rows + s.n > most) {
            status = stop != NULL && *stop != 0 ? LB_E_CANCELLED : compute(f);
        }
        if (status == LB_OK) {
            lb_model_batch_add_ids(&f->batch, s.ids, NULL, s.n);
        }
    }
    return status == LB_OK && f->batch.n_seqs > 0 ? compute(f) : status;
}

enum lb_status lb_block_influence(const struct lb_model *model, const struct lb_dataset *data,
                                  const volatile sig_atomic_t *stop, double *out, int64_t *out_rows,
                                  struct lb_detail *detail) {
    int64_t longest = 0;
    if (lb_model_config(model)->input_size > 0 || lb_dataset_features(data) > 0) {
        return lb_fail(detail, LB_E_ARG,
                       "block influence is of models that read text by blocks of attention");
    }
    enum lb_status status = lb_evaluate_rows(model, data, &longest, detail);
    if (status != LB_OK) {
        return status;
    }
    int64_t most = longest > BATCH_ROWS ? longest : BATCH_ROWS;
    struct influence f = {.model = model, .layers = lb_model_config(model)->num_hidden_layers};
    f.taps = lb_calloc((size_t)f.layers + 2, sizeof *f.taps);
    f.sums = lb_calloc((size_t)f.layers, sizeof *f.sums);
    f.tape = lb_tape_create(TAPE_BYTES);
    lb_arena_init(&f.memory, TAPE_BYTES);
    bool made = f.taps != NULL && f.sums != NULL && f.tape != NULL &&
                lb_model_batch_init(&f.batch, &f.memory, most, most, 0, false);
    if (made) {
        lb_model_batch_clear(&f.batch);
        lb_tape_stop_on(f.tape, stop);
    }
    status = made ? go_through(&f, data, most, stop) : LB_E_NOMEM;
    for (int64_t l = 0; status == LB_OK && l < f.layers; l++) {
        out[l] = 1 - f.sums[l] / (double)f.rows;
    }
    if (status == LB_OK) {
        *out_rows = f.rows;
    }
    lb_free(f.taps);
    lb_free(f.sums);
    lb_tape_destroy(f.tape);
    lb_arena_finish(&f.memory);
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "block influence: %s", lb_status_name(status));
}

void lb_influential(const double *influence, int64_t layers, int64_t n, int64_t *kept) {
    int64_t at = 0;
    for (int64_t l = 0; l < layers; l++) {
        int64_t before = 0; /* how many come before it */
        for (int64_t k = 0; k < layers; k++) {
            before += influence[k] > influence[l] || (k < l && influence[k] == influence[l]);
        }
        if (before < n) {
            kept[at++] = l;
        }
    }
}
