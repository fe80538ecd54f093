#include "trainer/run/influence.h"

#include "common/base/mem.h"
#include "trainer/run/tapped.h"

#include <math.h>
#include <string.h>

/* Of hosted models: samples of a question, questions under way, and what is answered about a sample. */
#define SAMPLES 4
#define AHEAD 2
#define ANSWER_BYTES ((int64_t)64 << 20)

struct influence {
    int64_t layers;
    double *sums; /* [layers] of cosines */
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

/* taps [layers + 1]: what goes into the first block, and what leaves each. */
static void take(void *context, const struct lb_tap *taps, const struct lb_ragged *ragged) {
    const struct influence *f = context;
    (void)ragged;
#pragma omp parallel for schedule(static)
    for (int64_t l = 0; l < f->layers; l++) {
        const struct lb_value *in = taps[l].value, *out = taps[l + 1].value;
        for (int64_t i = 0; i < in->rows; i++) {
            f->sums[l] += cosine(in->data + i * in->cols, out->data + i * in->cols, in->cols);
        }
    }
}

enum lb_status lb_block_influence(const struct lb_model *model, const struct lb_dataset *data,
                                  const volatile sig_atomic_t *stop, double *out, int64_t *out_rows,
                                  struct lb_detail *detail) {
    int64_t rows = 0;
    if (lb_model_config(model)->input_size > 0 || lb_dataset_features(data) > 0) {
        return lb_fail(detail, LB_E_ARG,
                       "block influence is of models that read text by blocks of attention");
    }
    struct influence f = {.layers = lb_model_config(model)->num_hidden_layers};
    struct lb_tap *taps = lb_calloc((size_t)f.layers + 1, sizeof *taps);
    f.sums = lb_calloc((size_t)f.layers, sizeof *f.sums);
    enum lb_status status = LB_E_NOMEM;
    if (taps == NULL || f.sums == NULL) {
        (void)lb_fail(detail, status, "block influence: out of memory");
    } else {
        taps[0] = (struct lb_tap){LB_TAP_HIDDEN, 0, NULL};
        for (int l = 0; l < f.layers; l++) {
            taps[l + 1] = (struct lb_tap){LB_TAP_STREAM, l, NULL};
        }
        const struct lb_tapped tapped = {&f, taps, (size_t)f.layers + 1, take};
        status = lb_tapped_read(model, data, &tapped, "block influence", stop, &rows, detail);
    }
    for (int64_t l = 0; status == LB_OK && l < f.layers; l++) {
        out[l] = 1 - f.sums[l] / (double)rows;
    }
    if (status == LB_OK) {
        *out_rows = rows;
    }
    lb_free(taps);
    lb_free(f.sums);
    return status;
}

/* ---- of a hosted model ---- */

struct hosted {
    struct lb_teachers *teachers;
    const struct lb_dataset *data;
    int64_t width, first, n; /* blocks that are asked about: first .. first + n - 1 */
    struct lb_ask_spec spec;
    struct lb_sample samples[AHEAD][SAMPLES];
    float *in, *out; /* [width] a row */
    double *sums;    /* [layers] */
    int64_t rows;
};

/* What goes into block l. */
static enum lb_output_kind input_of(int64_t l, int *layer) {
    *layer = l > 0 ? (int)l - 1 : 0;
    return l > 0 ? LB_OUT_RESIDUAL : LB_OUT_HIDDEN;
}

static void make_spec(struct hosted *h) {
    h->spec = (struct lb_ask_spec){.n_outputs = (size_t)h->n + 1, .top_k = 1, .temperature = 1};
    for (int64_t i = 0; i <= h->n; i++) {
        h->spec.outputs[i].kind = input_of(h->first + i, &h->spec.outputs[i].layer);
        h->spec.outputs[i].datatype = LB_DT_FP32;
    }
}

static int64_t samples_of(const struct hosted *h, int64_t q) {
    int64_t left = lb_dataset_count(h->data) - q * SAMPLES;
    return left < SAMPLES ? left : SAMPLES;
}

/* All positions of a text count. */
static enum lb_status ask(struct hosted *h, int64_t q, struct lb_detail *detail) {
    struct lb_sample *samples = h->samples[q % AHEAD];
    for (int64_t i = 0; i < samples_of(h, q); i++) {
        enum lb_status status = lb_dataset_get(h->data, q * SAMPLES + i, &samples[i], detail);
        if (status != LB_OK) {
            return status;
        }
        samples[i].counts = NULL;
    }
    return lb_teachers_submit_as(h->teachers, lb_teachers_next(h->teachers), samples, samples_of(h, q), NULL,
                                 &h->spec, detail);
}

static void add_sample(const struct hosted *h, const struct lb_sample *sample,
                       const struct lb_answer *answer) {
    for (int64_t b = 0; b < h->n; b++) {
        for (int64_t t = 0; t < sample->n; t++) {
            lb_wire_floats(&answer->tensors[b], t * h->width, h->width, h->in);
            lb_wire_floats(&answer->tensors[b + 1], t * h->width, h->width, h->out);
            h->sums[h->first + b] += cosine(h->in, h->out, h->width);
        }
    }
}

static enum lb_status collect(struct hosted *h, int64_t q, int64_t number, struct lb_detail *detail) {
    const struct lb_answer *const *answers;
    enum lb_status status = lb_teachers_take(h->teachers, number, &answers, detail);
    for (int64_t i = 0; status == LB_OK && i < samples_of(h, q); i++) {
        if (answers[i] == NULL) {
            status = lb_fail(detail, LB_E_UNAVAILABLE, "block influence: the model was lost");
            break;
        }
        add_sample(h, &h->samples[q % AHEAD][i], answers[i]);
        h->rows += h->first == 0 ? h->samples[q % AHEAD][i].n : 0;
    }
    lb_teachers_release(h->teachers, number);
    return status;
}

/* Rows of what goes into a block and of what leaves it are as wide. */
static enum lb_status check_widths(const struct hosted *h, struct lb_detail *detail) {
    const struct lb_teacher_info *info = lb_teachers_info(h->teachers, 0);
    for (size_t j = 0; j < h->spec.n_outputs; j++) {
        int64_t width = lb_info_state_width(info, h->spec.outputs[j].kind, h->spec.outputs[j].layer);
        if (width != h->width) {
            char name[LB_MAX_NAME];
            lb_output_format(h->spec.outputs[j].kind, h->spec.outputs[j].layer, name);
            return lb_fail(detail, LB_E_MISMATCH,
                           "block influence: %s has rows of %lld numbers, hidden_states.0 of %lld", name,
                           (long long)width, (long long)h->width);
        }
    }
    return LB_OK;
}

/* Some blocks over all of the data. */
static enum lb_status ask_blocks(struct hosted *h, struct lb_detail *detail) {
    int64_t questions = (lb_dataset_count(h->data) + SAMPLES - 1) / SAMPLES, asked = 0;
    make_spec(h);
    enum lb_status status = lb_teachers_gives(h->teachers, 0, &h->spec, detail);
    status = status == LB_OK ? check_widths(h, detail) : status;
    int64_t number = lb_teachers_next(h->teachers);
    for (int64_t q = 0; status == LB_OK && q < questions; q++) {
        while (status == LB_OK && asked < questions && asked < q + AHEAD) {
            status = ask(h, asked, detail);
            asked += status == LB_OK;
        }
        status = status == LB_OK ? collect(h, q, number + q, detail) : status;
    }
    return status;
}

/* Whether the server tells of its blocks what is needed. */
static enum lb_status check_hosted(const struct lb_teacher_info *info, const struct lb_dataset *data,
                                   struct lb_detail *detail) {
    if (info->input_size > 0 || lb_dataset_features(data) > 0) {
        return lb_fail(detail, LB_E_ARG,
                       "block influence is of models that read text by blocks of attention");
    }
    if (info->n_layers < 1) {
        return lb_fail(
            detail, LB_E_ARG,
            "block influence: the server does not tell how many blocks the model has (num_layers); "
            "ask a limbeckd, or give the model's folder");
    }
    return info->n_given == 0 || lb_info_given(info, LB_OUT_RESIDUAL, 0) != NULL
               ? LB_OK
               : lb_fail(
                     detail, LB_E_UNSUPPORTED,
                     "block influence: the server does not give residuals.0, what a block leaves: a newer "
                     "limbeckd does; or give the model's folder");
}

enum lb_status lb_block_influence_hosted(struct lb_teachers *teachers, const struct lb_dataset *data,
                                         double *out, int64_t *out_rows, struct lb_detail *detail) {
    const struct lb_teacher_info *info = lb_teachers_info(teachers, 0);
    int64_t longest = 1, layers = info->n_layers;
    enum lb_status status = check_hosted(info, data, detail);
    if (status != LB_OK) {
        return status;
    }
    for (int64_t i = 0; i < lb_dataset_count(data); i++) {
        struct lb_sample s;
        status = lb_dataset_get(data, i, &s, detail);
        if (status != LB_OK) {
            return status;
        }
        longest = s.n > longest ? s.n : longest;
    }
    struct hosted h = {.teachers = teachers, .data = data};
    h.width = lb_info_state_width(info, LB_OUT_HIDDEN, 0);
    int64_t most = h.width > 0 ? ANSWER_BYTES / (longest * h.width * 4) - 1 : 1;
    most = most < 1 ? 1 : most < LB_MAX_ASKED - 1 ? most : LB_MAX_ASKED - 1;
    h.in = lb_malloc_array((size_t)h.width + 1, sizeof *h.in);
    h.out = lb_malloc_array((size_t)h.width + 1, sizeof *h.out);
    h.sums = lb_calloc((size_t)layers, sizeof *h.sums);
    status = h.in != NULL && h.out != NULL && h.sums != NULL
                 ? lb_dataset_hold(data, AHEAD * SAMPLES, detail)
                 : lb_fail(detail, LB_E_NOMEM, "out of memory for block influence");
    for (h.first = 0; status == LB_OK && h.first < layers; h.first += h.n) {
        h.n = layers - h.first < most ? layers - h.first : most;
        status = ask_blocks(&h, detail);
    }
    for (int64_t l = 0; status == LB_OK && l < layers; l++) {
        out[l] = 1 - h.sums[l] / (double)h.rows;
    }
    if (status == LB_OK) {
        *out_rows = h.rows;
    }
    lb_free(h.in);
    lb_free(h.out);
    lb_free(h.sums);
    return status;
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
