#include "trainer/run/evaluate.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/model/batch.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "common/nn/tape.h"

#include <math.h>
#include <string.h>

#define BATCH_ROWS 2048
#define TAPE_BYTES ((size_t)16 << 30)

/* One batch on its way: rows of text, or samples that each have a class. */
struct batch {
    struct lb_arena memory;
    struct lb_model_batch rows;
    struct lb_sample *samples; /* [n_seqs] */
    bool by_sample;            /* a classifier's: one label a sample */
    int32_t *labels;           /* [N] of the rows that the head multiplies */
    double *nats;              /* [N] */
    bool *correct;             /* [N] */
    double *confidence;        /* [N] the likeliest class's probability */
    const struct lb_evaluate_options *options;
};

static enum lb_status batch_init(struct batch *b, int64_t rows, int64_t longest, int64_t n_features,
                                 struct lb_detail *detail) {
    size_t n = 0, floats = 0;
    *b = (struct batch){0};
    lb_arena_init(&b->memory, TAPE_BYTES);
    if (!lb_mul_size((size_t)rows, (size_t)longest, &n) || n > INT32_MAX ||
        !lb_mul_size((size_t)rows, (size_t)n_features, &floats)) {
        return lb_fail(detail, LB_E_LIMIT, "%lld rows of %lld positions are too many for one batch",
                       (long long)rows, (long long)longest);
    }
    b->samples = lb_arena_array(&b->memory, (size_t)rows, sizeof *b->samples);
    b->nats = lb_arena_array(&b->memory, n, sizeof *b->nats);
    b->correct = lb_arena_array(&b->memory, n, sizeof *b->correct);
    b->confidence = lb_arena_array(&b->memory, n, sizeof *b->confidence);
    b->labels = lb_arena_array(&b->memory, n, sizeof *b->labels);
    if (!lb_model_batch_init(&b->rows, &b->memory, rows, (int64_t)n, n_features, false) ||
        b->labels == NULL || b->samples == NULL || b->nats == NULL || b->correct == NULL ||
        b->confidence == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the evaluation");
    }
    return LB_OK;
}

static enum lb_status batch_fill(struct batch *b, const struct lb_dataset *data, int64_t first, int64_t n,
                                 struct lb_detail *detail) {
    lb_model_batch_clear(&b->rows);
    for (int64_t i = 0; i < n; i++) {
        struct lb_sample *s = &b->samples[i];
        enum lb_status status = lb_dataset_get(data, first + i, s, detail);
        if (status != LB_OK) {
            return status;
        }
        int64_t row = b->rows.n_rows;
        if (s->ids == NULL) {
            lb_model_batch_add_features(&b->rows, s->features, s->label);
        } else {
            lb_model_batch_add_ids(&b->rows, s->ids, NULL, s->n);
        }
        for (int64_t t = 0; !b->by_sample && s->ids != NULL && t < s->n; t++) {
            b->labels[row + t] = lb_sample_counts(s, t) ? s->ids[t + 1] : -1;
        }
        if (b->by_sample) {
            b->labels[i] = s->label;
        }
    }
    return LB_OK;
}

/* A label's cross entropy is log-sum-exp minus its logit. */
static struct lb_head_want want(void *context, int64_t row) {
    const struct batch *b = context;
    bool counts = b->labels[row] >= 0;
    return (struct lb_head_want){.k = counts, .temperature = counts, .at = &b->labels[row], .n_at = counts};
}

static void take_row(void *context, int64_t row, const struct lb_head_row *left) {
    struct batch *b = context;
    if (b->labels[row] < 0) {
        return;
    }
    b->nats[row] = left->lse - (double)left->at[0];
    b->correct[row] = left->ids[0] == b->labels[row];
    b->confidence[row] = exp((double)left->values[0] - left->lse);
}

static void add(struct lb_eval_part *part, double nats, bool correct) {
    part->nats += nats;
    part->tokens++;
    part->correct += correct;
}

static void calibrate(struct lb_evaluation *e, double confidence, bool correct) {
    int bin = (int)ceil(confidence * LB_EVAL_BINS) - 1;
    bin = bin < 0 ? 0 : bin < LB_EVAL_BINS ? bin : LB_EVAL_BINS - 1;
    e->bins[bin].n++;
    e->bins[bin].correct += correct;
    e->bins[bin].confidence += confidence;
}

static void batch_collect(const struct batch *b, struct lb_evaluation *out) {
    for (int64_t i = 0; i < b->rows.n_seqs; i++) {
        const struct lb_sample *s = &b->samples[i];
        int64_t row = b->by_sample ? i : b->rows.offsets[i],
                end = b->by_sample ? i + 1 : b->rows.offsets[i + 1];
        for (; row < end; row++) {
            if (b->labels[row] < 0) {
                continue;
            }
            add(&out->all, b->nats[row], b->correct[row]);
            if (isfinite(b->confidence[row])) {
                calibrate(out, b->confidence[row], b->correct[row]);
            }
            if (s->tag >= 0) {
                add(&out->part[s->tag], b->nats[row], b->correct[row]);
            }
            if (out->n_classes > 0) {
                add(&out->classes[s->label], b->nats[row], b->correct[row]);
            }
        }
    }
}

static enum lb_status run_batch(const struct lb_model *model, struct lb_tape *tape, struct batch *b,
                                struct lb_detail *detail) {
    struct lb_input in = lb_model_batch_input(&b->rows);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    enum lb_status status = lb_tape_status(tape);
    if (status == LB_OK) {
        const struct lb_head_reader reader = {.context = b,
                                              .add = b->options->bias,
                                              .n_add = b->options->n_bias,
                                              .want = want,
                                              .row = take_row};
        status = lb_head_read(tape, h, lb_model_head(model), NULL, &reader);
    }
    if (status == LB_E_CANCELLED) {
        return lb_fail(detail, status, "stopped while evaluating");
    }
    return status == LB_OK ? LB_OK
                           : lb_fail(detail, status, "evaluating a batch of %lld rows: %s",
                                     (long long)b->rows.n_seqs, lb_status_name(status));
}

enum lb_status lb_evaluate_classes(const struct lb_labels *labels, const char *who,
                                   struct lb_detail *detail) {
    enum lb_problem problem = labels != NULL ? lb_labels_problem(labels) : LB_PROBLEM_SINGLE;
    return problem == LB_PROBLEM_SINGLE
               ? LB_OK
               : lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s has problem_type %s: only classifiers of which one class holds "
                         "(single_label_classification) are evaluated",
                         who, lb_problem_name(problem));
}

enum lb_status lb_evaluate_rows(const struct lb_model *model, const struct lb_dataset *data,
                                int64_t *out_longest, struct lb_detail *detail) {
    const struct lb_config *config = lb_model_config(model);
    int64_t longest = 1;
    for (int64_t i = 0, n = lb_dataset_count(data); i < n; i++) {
        struct lb_sample s;
        enum lb_status status = lb_dataset_get(data, i, &s, detail);
        if (status != LB_OK) {
            return status;
        }
        longest = s.n > longest ? s.n : longest;
        for (int64_t t = 0; s.ids != NULL && t <= s.n; t++) {
            if (s.ids[t] < 0 || s.ids[t] >= config->vocab_size) {
                return lb_fail(detail, LB_E_MISMATCH,
                               "the data hold token %d, the model has %lld; is it the model's own tokenizer?",
                               s.ids[t], (long long)config->vocab_size);
            }
        }
        if (lb_model_is_classifier(model) && s.label >= config->num_labels) {
            return lb_fail(detail, LB_E_MISMATCH, "the data hold label %d, the model has %lld classes",
                           s.label, (long long)config->num_labels);
        }
    }
    if (lb_dataset_features(data) == 0 && config->max_position_embeddings > 0 &&
        longest > config->max_position_embeddings) {
        return lb_fail(detail, LB_E_ARG, "rows of %lld positions; the model takes %lld: lower max_length",
                       (long long)longest, (long long)config->max_position_embeddings);
    }
    *out_longest = longest;
    return LB_OK;
}

/* Whether the model can read the data at all; *out_longest row. */
static enum lb_status check_data(const struct lb_model *model, const struct lb_dataset *data,
                                 int64_t *out_longest, struct lb_detail *detail) {
    const struct lb_config *config = lb_model_config(model);
    int64_t width = lb_dataset_features(data);
    if (lb_model_head(model)->weight == NULL) {
        return lb_fail(detail, LB_E_ARG, "a %s without a head predicts nothing that could be evaluated",
                       config->model_type);
    }
    enum lb_status status = lb_evaluate_classes(lb_model_labels(model), "the model", detail);
    if (status != LB_OK) {
        return status;
    }
    if (lb_dataset_tags(data) > LB_EVAL_MAX_PARTS) {
        return lb_fail(detail, LB_E_LIMIT, "%d tags in the evaluation data; at most %d",
                       lb_dataset_tags(data), LB_EVAL_MAX_PARTS);
    }
    if ((width > 0) != (config->input_size > 0) || (width > 0 && width != config->input_size)) {
        return lb_fail(detail, LB_E_MISMATCH, "the model reads %s%lld, the data are %s%lld",
                       config->input_size > 0 ? "features, so many: " : "ids below ",
                       (long long)(config->input_size > 0 ? config->input_size : config->vocab_size),
                       width > 0 ? "features, so many: " : "ids, rows: ",
                       (long long)(width > 0 ? width : lb_dataset_count(data)));
    }
    if (lb_dataset_unlabelled(data) > 0) {
        return lb_fail(detail, LB_E_ARG, "%lld of the %lld texts have no label to compare with",
                       (long long)lb_dataset_unlabelled(data), (long long)lb_dataset_count(data));
    }
    return lb_evaluate_rows(model, data, out_longest, detail);
}

static enum lb_status check_bias(const struct lb_evaluate_options *options, const struct lb_model *model,
                                 struct lb_detail *detail) {
    const struct lb_config *config = lb_model_config(model);
    if (!lb_model_is_classifier(model)) {
        return lb_fail(detail, LB_E_ARG, "a bias of classes is for classifiers; this model reads text");
    }
    if (options->n_bias > config->num_labels) {
        return lb_fail(detail, LB_E_ARG, "a bias for class %d, the model has classes 0 to %lld",
                       options->n_bias - 1, (long long)config->num_labels - 1);
    }
    return LB_OK;
}

static void derive(struct lb_eval_part *part) {
    double n = (double)part->tokens;
    part->loss = part->tokens > 0 ? part->nats / n : NAN;
    part->perplexity = exp(part->loss);
    part->bits_per_byte = part->bytes > 0 ? part->nats / M_LN2 / (double)part->bytes : NAN;
    part->error_percent =
        part->tokens > 0 && part->correct >= 0 ? 100.0 * (n - (double)part->correct) / n : NAN;
}

void lb_eval_finish(struct lb_evaluation *e, const struct lb_dataset *data) {
    double sum = 0;
    int n = 0;
    e->all.bytes = lb_dataset_bytes(data, -1);
    derive(&e->all);
    for (int i = 0; i < e->n_parts; i++) {
        e->part[i].name = lb_dataset_tag(data, i);
        e->part[i].bytes = lb_dataset_bytes(data, i);
        derive(&e->part[i]);
        if (e->part[i].tokens > 0) {
            sum += e->part[i].loss;
            n++;
        }
    }
    for (int i = 0; i < e->n_classes; i++) {
        derive(&e->classes[i]);
    }
    int64_t binned = 0;
    double apart = 0;
    for (int i = 0; i < LB_EVAL_BINS; i++) {
        binned += e->bins[i].n;
        apart += fabs((double)e->bins[i].correct - e->bins[i].confidence);
    }
    e->ece = binned > 0 ? apart / (double)binned : NAN;
    e->balanced_perplexity = n > 0 ? exp(sum / n) : e->all.perplexity;
}

enum lb_status lb_evaluate(const struct lb_model *model, const struct lb_dataset *data,
                           const struct lb_evaluate_options *options, struct lb_evaluation *out,
                           struct lb_detail *detail) {
    static const struct lb_evaluate_options defaults;
    const struct lb_evaluate_options *o = options != NULL ? options : &defaults;
    uint64_t start = lb_now_ns();
    int64_t longest = 0, count = lb_dataset_count(data), classes = lb_model_config(model)->num_labels;
    enum lb_status status = check_data(model, data, &longest, detail);
    if (status == LB_OK && o->n_bias > 0) {
        status = check_bias(o, model, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    int64_t rows = o->rows > 0 ? o->rows : (longest < BATCH_ROWS ? BATCH_ROWS / longest : 1);
    struct lb_evaluation sums = {.text = !lb_model_is_classifier(model), .n_parts = lb_dataset_tags(data)};
    sums.n_classes = !sums.text && classes <= LB_EVAL_MAX_CLASSES ? (int)classes : 0;
    struct batch batch;
    struct lb_tape *tape = lb_tape_create(TAPE_BYTES);
    status = batch_init(&batch, rows < count ? rows : count, longest, lb_dataset_features(data), detail);
    status = status == LB_OK ? lb_dataset_hold(data, rows, detail) : status;
    if (tape == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for the evaluation");
    }
    batch.options = o;
    batch.by_sample = !sums.text;
    if (status == LB_OK) {
        lb_tape_stop_on(tape, o->stop);
    }
    for (int64_t first = 0; status == LB_OK && first < count; first += rows) {
        if (o->stop != NULL && *o->stop != 0) {
            status = lb_fail(detail, LB_E_CANCELLED, "stopped while evaluating");
            break;
        }
        status = batch_fill(&batch, data, first, count - first < rows ? count - first : rows, detail);
        status = status == LB_OK ? run_batch(model, tape, &batch, detail) : status;
        if (status == LB_OK) {
            batch_collect(&batch, &sums);
        }
    }
    lb_arena_finish(&batch.memory);
    lb_tape_destroy(tape);
    if (status != LB_OK) {
        return status;
    }
    lb_eval_finish(&sums, data);
    sums.seconds = (double)(lb_now_ns() - start) / (double)LB_SECOND_NS;
    *out = sums;
    return LB_OK;
}
