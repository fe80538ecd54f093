#include "common/model/layout.h"

#include "common/base/mem.h"

#include <string.h>

bool lb_layout_is_turned(const struct lb_model *model, size_t i, bool gguf) {
    return !gguf && model->specs[i].transposed;
}

/* Where a file has the forward's row r of so many. llama.cpp interleaves the rotary halves of each head: row
 * i D/2 + j there is row 2 j + i; and it has all q rows, then all k rows, then all v rows. */
static int64_t row_in_file(const struct lb_model *model, size_t i, int64_t rows, int64_t r) {
    const struct lb_weight_spec *spec = &model->specs[i];
    if (spec->qkv_heads > 0) {
        int64_t d = rows / (3 * spec->qkv_heads), head = r / (3 * d), part = r % (3 * d) / d;
        return (part * spec->qkv_heads + head) * d + r % d;
    }
    int64_t d = rows / spec->rope_heads, head = r / d, in = r % d;
    return head * d + 2 * (in % (d / 2)) + in / (d / 2);
}

enum change { NOTHING, ROWS, TURN, ONE };

static enum change change_of(const struct lb_model *model, size_t i, bool gguf) {
    const struct lb_weight_spec *spec = &model->specs[i];
    if (!gguf) {
        return spec->transposed ? TURN : NOTHING;
    }
    if ((spec->rope_heads > 0 && model->family->gguf_permutes) || spec->qkv_heads > 0) {
        return ROWS;
    }
    return spec->less_one ? ONE : NOTHING;
}

/* to[c, r] = from[r, c] */
static void turn(const char *from, int64_t rows, int64_t cols, size_t element, char *to) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols; c++) {
            memcpy(to + (size_t)(c * rows + r) * element, from + (size_t)(r * cols + c) * element, element);
        }
    }
}

/* Weight i of dtype, `from` the file's bytes or (giving) the forward's. */
static void *changed(const struct lb_model *model, size_t i, enum change change, enum lb_dtype dtype,
                     const char *from, bool giving) {
    const struct lb_weight *w = &model->weights[i];
    int64_t rows = w->n_dims == 1 ? w->cols : w->rows, cols = w->n_dims == 1 ? 1 : w->cols;
    size_t row_bytes = 0;
    char *to = lb_dtype_bytes(dtype, cols, &row_bytes) ? lb_malloc_array((size_t)rows, row_bytes) : NULL;
    if (to == NULL) {
        return NULL;
    }
    if (change == TURN) {
        int64_t in_rows = giving ? rows : cols;
        turn(from, in_rows, rows * cols / in_rows, row_bytes / (size_t)cols, to);
    }
    for (int64_t r = 0; r < rows && change == ROWS; r++) {
        int64_t there = row_in_file(model, i, rows, r);
        memcpy(to + (size_t)(giving ? there : r) * row_bytes, from + (size_t)(giving ? r : there) * row_bytes,
               row_bytes);
    }
    for (int64_t r = 0; r < rows && change == ONE; r++) {
        float v;
        memcpy(&v, from + (size_t)r * sizeof v, sizeof v);
        v += giving ? 1.0f : -1.0f;
        memcpy(to + (size_t)r * sizeof v, &v, sizeof v);
    }
    return to;
}

enum lb_status lb_layout_take(struct lb_model *model, size_t i, bool gguf, struct lb_detail *detail) {
    struct lb_weight *w = &model->weights[i];
    enum change change = change_of(model, i, gguf);
    if (change == NOTHING) {
        return LB_OK;
    }
    if (change == ROWS && model->specs[i].qkv_heads == 0 && w->dtype != LB_F32 && w->n_dims == 2) {
        w->interleaved =
            w->rows / model->specs[i].rope_heads; /* widened before use, and read in that order */
        return LB_OK;
    }
    if (w->n_dims == 1 && lb_dtype_block(w->dtype) > 1) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "tensor %s has type %s; a vector has no such blocks",
                       w->name, lb_dtype_name(w->dtype));
    }
    if (change == ONE && w->dtype != LB_F32) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "tensor %s of a norm is %s; only F32 is supported", w->name,
                       lb_dtype_name(w->dtype));
    }
    if (change == TURN && lb_dtype_block(w->dtype) != 1) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "tensor %s is %s and stands transposed; only F32, F16 and BF16 "
                       "are supported",
                       w->name, lb_dtype_name(w->dtype));
    }
    void **owned = lb_realloc_array(model->owned, model->n_owned + 1, sizeof *owned);
    model->owned = owned != NULL ? owned : model->owned;
    void *copy = owned != NULL ? changed(model, i, change, w->dtype, w->data, false) : NULL;
    if (copy == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "no memory to reorder tensor %s", w->name);
    }
    model->owned[model->n_owned++] = copy;
    w->data = copy;
    return LB_OK;
}

enum lb_status lb_layout_give(const struct lb_model *model, size_t i, bool gguf, struct lb_tensor *t,
                              void **out_bytes, struct lb_detail *detail) {
    enum change change = change_of(model, i, gguf);
    *out_bytes = NULL;
    if (change == NOTHING) {
        return LB_OK;
    }
    void *copy = changed(model, i, change, t->dtype, t->data, true);
    if (copy == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    if (change == TURN) {
        int64_t rows = t->dim[0];
        t->dim[0] = t->dim[1];
        t->dim[1] = rows;
    }
    t->data = copy;
    *out_bytes = copy;
    return LB_OK;
}
