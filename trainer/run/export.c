#include "trainer/run/export.h"

#include "common/base/arena.h"
#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/formats/gguf.h"
#include "common/model/batch.h"
#include "common/nn/head.h"
#include "common/nn/tape.h"

#include <math.h>
#include <string.h>

#define POSITIONS 48
#define TAPE_BYTES ((size_t)8 << 30)

/* Logits gathered row by row. */
struct gathered {
    float *z; /* [n, v] */
    int64_t v;
};

static enum lb_status gather(void *context, int64_t row, int64_t n, float *z) {
    struct gathered *g = context;
    memcpy(g->z + row * g->v, z, (size_t)(n * g->v) * sizeof(float));
    return LB_OK;
}

/* One sequence of ids (for classifiers some, ever longer), or so many rows of features: the same for every
 * model of these sizes. */
static bool probe_batch(struct lb_model_batch *batch, struct lb_arena *arena, const struct lb_config *config,
                        int64_t positions) {
    struct lb_rng rng;
    int32_t ids[POSITIONS];
    float *features = lb_arena_array(arena, (size_t)config->input_size, sizeof *features);
    lb_rng_seed(&rng, 2015, 0);
    if (features == NULL ||
        !lb_model_batch_init(batch, arena, positions, positions, config->input_size, false)) {
        return false;
    }
    for (int64_t i = 0; i < positions && config->input_size > 0; i++) {
        for (int64_t j = 0; j < config->input_size; j++) {
            features[j] = lb_rng_float(&rng);
        }
        lb_model_batch_add_features(batch, features, -1);
    }
    if (config->input_size == 0) {
        for (int64_t i = 0; i < positions; i++) {
            ids[i] = (int32_t)lb_rng_below(&rng, (uint64_t)config->vocab_size);
        }
        int64_t len = config->num_labels > 0 ? 1 : positions;
        for (int64_t at = 0; at < positions; at += len++) {
            int64_t left = positions - at;
            lb_model_batch_add_ids(batch, ids + at, NULL, len < left ? len : left);
        }
    }
    return true;
}

/* Numbers of a row that are compared: logits, or of a model without a head its final states. */
static int64_t width_of(const struct lb_model *model) {
    const struct lb_weight *head = lb_model_head(model)->weight;
    return head != NULL ? head->rows : lb_model_width(model);
}

/* The model's logits z [positions, width_of] of the probe. */
static enum lb_status probe_logits(const struct lb_model *model, int64_t positions,
                                   const volatile sig_atomic_t *stop, float *z) {
    const struct lb_config *config = lb_model_config(model);
    struct lb_model_batch batch;
    struct lb_arena arena;
    lb_arena_init(&arena, TAPE_BYTES);
    struct lb_tape *tape = lb_tape_create(TAPE_BYTES);
    enum lb_status status =
        tape != NULL && probe_batch(&batch, &arena, config, positions) ? LB_OK : LB_E_NOMEM;
    if (status == LB_OK) {
        struct lb_input in = lb_model_batch_input(&batch);
        lb_tape_stop_on(tape, stop);
        lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
        struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
        struct gathered g = {z, width_of(model)};
        status = lb_tape_status(tape);
        if (status == LB_OK && lb_model_head(model)->weight == NULL) {
            memcpy(z, h->data, (size_t)(h->rows * h->cols) * sizeof *z);
        } else {
            status = status == LB_OK ? lb_head_run(tape, h, lb_model_head(model), NULL, gather, &g) : status;
        }
    }
    lb_tape_destroy(tape);
    lb_arena_finish(&arena);
    return status;
}

/* How far rounding weights to a format moves logits, relative to the largest: with room, but far below what a
 * transposed, permuted or missing tensor does. */
static double tolerance(enum lb_dtype dtype) {
    switch (dtype) {
    case LB_F32:
        return 1e-4;
    case LB_F16:
        return 2e-2;
    case LB_BF16:
    case LB_Q8_0:
        return 1e-1;
    default: /* four or five bits */
        return 5e-1;
    }
}

static enum lb_status not_compared(const char *path, struct lb_detail *detail) {
    return lb_fail(detail, LB_E_CANCELLED, "%s: written, but stopped before it was compared with the model",
                   path);
}

static enum lb_status compare(const struct lb_model *model, const struct lb_model *again, double allowed,
                              const char *path, const volatile sig_atomic_t *stop, double *out_difference,
                              struct lb_detail *detail) {
    const struct lb_config *a = lb_model_config(model), *b = lb_model_config(again);
    if (a->vocab_size != b->vocab_size || a->input_size != b->input_size ||
        width_of(model) != width_of(again)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s: reopened with %lld tokens, %lld features and rows of %lld instead of %lld, %lld and "
            "%lld; do not use it",
            path, (long long)b->vocab_size, (long long)b->input_size, (long long)width_of(again),
            (long long)a->vocab_size, (long long)a->input_size, (long long)width_of(model));
    }
    int64_t positions = POSITIONS, most[] = {a->max_position_embeddings, b->max_position_embeddings};
    for (size_t i = 0; i < 2 && a->input_size == 0; i++) { /* a format without windows ends before them */
        positions = most[i] > 0 && most[i] < positions ? most[i] : positions;
    }
    int64_t n = positions * width_of(model);
    float *z = lb_calloc((size_t)n, 2 * sizeof(float)); /* classifiers of texts have fewer rows */
    enum lb_status status = z == NULL ? LB_E_NOMEM : probe_logits(model, positions, stop, z);
    if (status == LB_OK) {
        status = probe_logits(again, positions, stop, z + n);
    }
    if (status == LB_E_CANCELLED) {
        lb_free(z);
        return not_compared(path, detail);
    }
    if (status != LB_OK) {
        lb_free(z);
        return lb_fail(detail, status, "%s: comparing the reopened model: %s", path, lb_status_name(status));
    }
    double largest = 0, difference = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)z[i]));
        double d = fabs((double)z[i] - (double)z[n + i]);
        difference = d <= difference ? difference : d; /* a NaN stays */
    }
    lb_free(z);
    difference /= largest > 0 ? largest : 1;
    if (!(difference <= allowed)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s: its logits differ from the model's by %.3g of the largest (allowed: %.3g); do not use it",
            path, difference, allowed);
    }
    *out_difference = difference;
    return LB_OK;
}

/* ---- the vocabulary ---- */

/* What tokenizers disagree about: spaces and their runs, digits, apostrophes, marks, scripts, case, lines,
 * characters of two parts, and what nobody has in a vocabulary. */
static const char hard_text[] =
    "Hello, world!  It's   1234567 o'clock; they'LL \t\tpay $3.50\n\n\n  for (i = 0; i++) {\r\n}\n"
    " na\xc3\xafve cafe\xcc\x81 \xc3\x89\xc3\x89\xc3\xa9 \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 "
    "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c \xe3\x81\x93\xe3\x82\x93 \xed\x95\x9c\xea\xb5\xad "
    "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d \xd9\x85\xd8\xb1\xd8\xad \xc2\xbd\xc2\xb2 "
    "\xf0\x9f\x99\x82\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd \xc2\xa0\xe2\x80\x83x\xef\xbf\xbd "
    "<b>UPPER_case-CamelCase</b> "
    "https://a.b/c?d=e#f  ...!!! \\\"quotes\\\"\x01\x7f end   ";

/* hard_text, and around and between its parts each token that is looked for in text, up to so many. */
static enum lb_status make_text(const struct lb_tokenizer *tokenizer, struct lb_buf *text) {
    int32_t left = 64;
    lb_buf_append_str(text, hard_text);
    for (int32_t id = 0; id < lb_tokenizer_vocab_size(tokenizer) && left > 0; id++) {
        if (lb_tokenizer_is_special(tokenizer, id)) {
            lb_buf_printf(text, "a%s b %s ", lb_tokenizer_token(tokenizer, id),
                          lb_tokenizer_token(tokenizer, id));
            left--;
        }
    }
    return lb_buf_append_str(text, hard_text);
}

/* Fails where again cuts the text into other ids. */
static enum lb_status compare_ids(const struct lb_tokenizer *tokenizer, const struct lb_tokenizer *again,
                                  const struct lb_buf *text, bool special, const char *path,
                                  struct lb_detail *detail) {
    struct lb_ids a = {0}, b = {0};
    enum lb_status status = lb_tokenizer_encode(tokenizer, text->data, text->len, special, &a, detail);
    status =
        status == LB_OK ? lb_tokenizer_encode(again, text->data, text->len, special, &b, detail) : status;
    size_t i = 0;
    while (status == LB_OK && i < a.len && i < b.len && a.data[i] == b.data[i]) {
        i++;
    }
    if (status == LB_OK && (i < a.len || i < b.len)) {
        const char *have = i < b.len ? lb_tokenizer_token(again, b.data[i]) : "",
                   *want = i < a.len ? lb_tokenizer_token(tokenizer, a.data[i]) : "";
        status =
            lb_fail(detail, LB_E_MISMATCH,
                    "%s: its vocabulary, read back, cuts text otherwise (\"%.40s\" where the tokenizer has "
                    "\"%.40s\"): do not use it; write it with --no-vocabulary",
                    path, have, want);
    }
    lb_free(a.data);
    lb_free(b.data);
    return status;
}

static enum lb_status compare_tokenizers(const struct lb_tokenizer *tokenizer, enum lb_export_format format,
                                         const char *path, struct lb_detail *detail) {
    struct lb_tokenizer *again = NULL;
    struct lb_gguf *file = NULL;
    struct lb_buf text;
    lb_buf_init(&text, (size_t)64 << 20);
    enum lb_status status = format == LB_EXPORT_HF ? lb_tokenizer_open(path, &again, detail)
                                                   : lb_gguf_open_keys(path, &file, detail);
    if (status == LB_OK && format == LB_EXPORT_GGUF) {
        status = lb_tokenizer_from_gguf(file, path, &again, detail);
    }
    if (status == LB_OK && make_text(tokenizer, &text) != LB_OK) {
        status = lb_fail(detail, lb_buf_status(&text), "%s: no memory to compare its vocabulary", path);
    }
    for (int special = 0; status == LB_OK && special < 2; special++) {
        status = compare_ids(tokenizer, again, &text, special, path, detail);
    }
    lb_buf_finish(&text);
    lb_gguf_destroy(file);
    lb_tokenizer_destroy(again);
    return status;
}

/* A file of that name is replaced only if an export of ours wrote it. */
static enum lb_status may_replace(const char *path, struct lb_detail *detail) {
    if (!lb_file_exists(path)) {
        return LB_OK;
    }
    struct lb_gguf *file = NULL;
    bool ours = lb_gguf_open(path, &file, NULL) == LB_OK && lb_gguf_string(file, LB_GGUF_MARK) != NULL;
    lb_gguf_destroy(file);
    return ours ? LB_OK
                : lb_fail(detail, LB_E_ARG,
                          "%s is there and was not written by Limbeck: it is not replaced; choose another "
                          "name, or move "
                          "it away",
                          path);
}

static void tell_shorter(const struct lb_config *model, const struct lb_config *again, const char *path,
                         struct lb_notes *notes) {
    if (again->max_position_embeddings < model->max_position_embeddings) {
        lb_note(notes,
                "%s: reads %lld tokens, not %lld: this architecture of GGUF has no attention window, and "
                "beyond the model's its numbers would be others",
                path, (long long)again->max_position_embeddings, (long long)model->max_position_embeddings);
    }
}

enum lb_status lb_export(const struct lb_model *model, const struct lb_tokenizer *tokenizer,
                         enum lb_export_format format, enum lb_dtype dtype, const char *path,
                         const char *readme, const volatile sig_atomic_t *stop, double *out_difference,
                         struct lb_notes *notes, struct lb_detail *detail) {
    enum lb_status status;
    if (format == LB_EXPORT_HF && lb_dtype_block(dtype) > 1) {
        return lb_fail(detail, LB_E_ARG, "a Hugging Face folder holds F32, F16 or BF16; %s is for GGUF files",
                       lb_dtype_name(dtype));
    }
    status = format == LB_EXPORT_GGUF ? may_replace(path, detail) : LB_OK;
    if (status != LB_OK) {
        return status;
    }
    lb_folder_sweep_beside(path);
    lb_writing_stop_on(stop);
    if (format == LB_EXPORT_HF) {
        status = lb_model_save_hf(model, path, dtype, tokenizer, readme, detail);
    } else {
        status = lb_model_save_gguf(model, path, dtype, tokenizer, notes, detail);
    }
    lb_writing_stop_on(NULL);
    struct lb_model *again = NULL;
    if (status == LB_OK && stop != NULL && *stop != 0) {
        status = not_compared(path, detail);
    }
    if (status == LB_OK) {
        status = lb_model_open(path, false, &again, detail);
    }
    if (status == LB_OK) {
        status = compare(model, again, tolerance(dtype), path, stop, out_difference, detail);
    }
    if (status == LB_OK) {
        tell_shorter(lb_model_config(model), lb_model_config(again), path, notes);
    }
    if (status == LB_OK && tokenizer != NULL) {
        status = compare_tokenizers(tokenizer, format, path, detail);
    }
    lb_model_destroy(again);
    return status;
}
