#include "trainer/run/tapped.h"

#include "common/model/batch.h"
#include "common/nn/tape.h"
#include "trainer/run/evaluate.h"

#define BATCH_ROWS 512 /* what taps read of all layers is there at once */
#define TAPE_BYTES ((size_t)16 << 30)

struct reading {
    const struct lb_model *model;
    const struct lb_tapped *tapped;
    struct lb_tape *tape;
    struct lb_model_batch batch;
    int64_t rows;
};

/* Computes what the batch holds, and empties it. */
static enum lb_status compute(struct reading *r) {
    struct lb_input in = lb_model_batch_input(&r->batch);
    lb_tape_begin(r->tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    if (lb_model_forward(r->model, r->tape, &in, r->tapped->taps, r->tapped->n, NULL) == NULL) {
        return lb_tape_status(r->tape) != LB_OK ? lb_tape_status(r->tape) : LB_E_INTERNAL;
    }
    r->tapped->take(r->tapped->context, r->tapped->taps, &in.ragged);
    r->rows += r->batch.n_rows;
    lb_model_batch_clear(&r->batch);
    return LB_OK;
}

static enum lb_status go_through(struct reading *r, const struct lb_dataset *data, int64_t most,
                                 const volatile sig_atomic_t *stop, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (int64_t i = 0; status == LB_OK && i < lb_dataset_count(data); i++) {
        struct lb_sample s;
        status = lb_dataset_get(data, i, &s, detail);
        if (status == LB_OK && r->batch.n_rows + s.n > most) {
            status = stop != NULL && *stop != 0 ? LB_E_CANCELLED : compute(r);
        }
        if (status == LB_OK) {
            lb_model_batch_add_ids(&r->batch, s.ids, NULL, s.n);
        }
    }
    return status == LB_OK && r->batch.n_seqs > 0 ? compute(r) : status;
}

enum lb_status lb_tapped_read(const struct lb_model *model, const struct lb_dataset *data,
                              const struct lb_tapped *tapped, const char *what,
                              const volatile sig_atomic_t *stop, int64_t *out_rows,
                              struct lb_detail *detail) {
    int64_t longest = 0;
    enum lb_status status = lb_evaluate_rows(model, data, &longest, detail);
    if (status != LB_OK) {
        return status;
    }
    int64_t most = longest > BATCH_ROWS ? longest : BATCH_ROWS;
    struct reading r = {.model = model, .tapped = tapped, .tape = lb_tape_create(TAPE_BYTES)};
    struct lb_arena memory;
    struct lb_detail why = {0};
    lb_arena_init(&memory, TAPE_BYTES);
    bool made = r.tape != NULL && lb_model_batch_init(&r.batch, &memory, most, most, 0, false);
    if (made) {
        lb_model_batch_clear(&r.batch);
        lb_tape_stop_on(r.tape, stop);
    }
    status = made ? go_through(&r, data, most, stop, &why) : LB_E_NOMEM;
    if (status == LB_OK) {
        *out_rows = r.rows;
    }
    lb_tape_destroy(r.tape);
    lb_arena_finish(&memory);
    return status == LB_OK ? LB_OK
                           : lb_fail(detail, status, "%s: %s", what,
                                     *why.text != '\0' ? why.text : lb_status_name(status));
}
