#include "trainer/run/score.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/nn/reduce.h"
#include "trainer/loss/mixture.h"
#include "trainer/loss/target.h"

#include <math.h>
#include <string.h>

/* Rows of one question, and questions under way. */
#define ROWS 64
#define AHEAD 4

struct scoring {
    struct lb_teachers *teachers;
    const struct lb_dataset *data;
    unsigned n;
    int64_t classes; /* of classifiers; 0: each next token is scored */
    float *z;        /* [classes] */
    struct lb_sample samples[AHEAD][ROWS];
    struct lb_evaluation *out; /* [n + 1] */
};

static int64_t rows_of(const struct scoring *s, int64_t question) {
    int64_t left = lb_dataset_count(s->data) - question * ROWS;
    return left < ROWS ? left : ROWS;
}

/* One position more than the row has: the last label is scored by the row that predicts what comes after it,
 * asked with it. */
static enum lb_status ask(struct scoring *s, int64_t question, struct lb_detail *detail) {
    struct lb_sample *samples = s->samples[question % AHEAD];
    int64_t n = rows_of(s, question);
    for (int64_t i = 0; i < n; i++) {
        enum lb_status status = lb_dataset_get(s->data, question * ROWS + i, &samples[i], detail);
        if (status != LB_OK) {
            return status;
        }
        samples[i].n += s->classes == 0;
    }
    return lb_teachers_submit(s->teachers, question, samples, n, NULL, detail);
}

static void add(struct lb_evaluation *e, int tag, double nats, int correct) {
    struct lb_eval_part *parts[2] = {&e->all, tag >= 0 ? &e->part[tag] : NULL};
    for (int i = 0; i < 2; i++) {
        if (parts[i] != NULL) {
            parts[i]->nats += nats;
            parts[i]->tokens++;
            parts[i]->correct = correct < 0 ? -1 : parts[i]->correct + correct;
        }
    }
}

static void collect_row(struct scoring *s, const struct lb_sample *sample,
                        const struct lb_answer *const *answers) {
    for (int64_t t = 0; t + 1 < sample->n; t++) {
        double mean = 0;
        if (!lb_sample_counts(sample, t)) {
            continue;
        }
        for (unsigned k = 0; k < s->n; k++) {
            float logprob;
            int64_t row = lb_answer_row(answers[k], t);
            lb_wire_floats(lb_answer_find(answers[k], LB_OUT_ACTUAL, 0), row, 1, &logprob);
            int32_t likeliest = lb_answer_id(lb_answer_find(answers[k], LB_OUT_TOPK_IDS, 0), row);
            add(&s->out[k], sample->tag, -(double)logprob, likeliest == sample->ids[t + 1]);
            mean += exp(logprob) / s->n;
        }
        add(&s->out[s->n], sample->tag, mean > 0 ? -log(mean) : INFINITY, s->n == 1 ? 0 : -1);
    }
}

/* The class of a text. */
static void collect_class(struct scoring *s, const struct lb_sample *sample,
                          const struct lb_answer *const *answers) {
    double mean = 0;
    for (unsigned k = 0; k < s->n; k++) {
        int64_t likeliest = 0;
        lb_wire_floats(lb_answer_find(answers[k], LB_OUT_LOGITS, 0), 0, s->classes, s->z);
        for (int64_t i = 1; i < s->classes; i++) {
            likeliest = s->z[i] > s->z[likeliest] ? i : likeliest;
        }
        double nats = lb_logsumexp(s->z, s->classes, 1) - (double)s->z[sample->label];
        add(&s->out[k], sample->tag, nats, likeliest == sample->label);
        mean += exp(-nats) / s->n;
    }
    add(&s->out[s->n], sample->tag, mean > 0 ? -log(mean) : INFINITY, s->n == 1 ? 0 : -1);
}

static enum lb_status collect(struct scoring *s, int64_t question, struct lb_detail *detail) {
    const struct lb_answer *const *answers;
    enum lb_status status = lb_teachers_take(s->teachers, question, &answers, detail);
    for (int64_t i = 0; status == LB_OK && i < rows_of(s, question); i++) {
        bool all = true;
        for (unsigned k = 0; k < s->n; k++) {
            all &= answers[i * s->n + k] != NULL;
        }
        if (!all) {
            status = lb_fail(detail, LB_E_UNAVAILABLE, "a teacher was lost while scoring");
            break;
        }
        (s->classes > 0 ? collect_class : collect_row)(s, &s->samples[question % AHEAD][i],
                                                       answers + i * s->n);
    }
    lb_teachers_release(s->teachers, question);
    return status;
}

static struct lb_ask_spec spec_of(const struct scoring *s) {
    struct lb_ask_spec spec = {.n_outputs = s->classes > 0 ? 1 : 2, .top_k = 1, .temperature = 1};
    spec.outputs[0].kind = s->classes > 0 ? LB_OUT_LOGITS : LB_OUT_ACTUAL;
    spec.outputs[0].datatype = LB_DT_FP32;
    spec.outputs[1].kind = LB_OUT_TOPK_IDS;
    spec.outputs[1].datatype = LB_DT_INT32;
    return spec;
}

/* Whether two of as many classes call them the same. */
static enum lb_status check_names(const struct lb_teacher_info *a, const struct lb_teacher_info *b,
                                  struct lb_detail *detail) {
    struct lb_labels its = {0}, others = {0};
    int64_t at = 0;
    enum lb_status status = lb_info_labels(a, &its);
    status = status == LB_OK ? lb_info_labels(b, &others) : status;
    if (status != LB_OK) {
        lb_fail(detail, status, "out of memory for the labels of %s", b->model);
    } else if (lb_labels_differ(&its, &others, &at)) {
        status =
            lb_fail(detail, LB_E_MISMATCH,
                    "%s calls class %lld \"%.60s\", %s \"%.60s\" (id2label): they are not scored together",
                    a->model, (long long)at, its.names[at], b->model, others.names[at]);
    }
    lb_labels_finish(&its);
    lb_labels_finish(&others);
    return status;
}

/* Whether all classify texts, or none does, and in the same classes. */
static enum lb_status check_alike(const struct lb_teachers *teachers, int64_t *out_classes,
                                  struct lb_detail *detail) {
    const struct lb_teacher_info *first = lb_teachers_info(teachers, 0);
    enum lb_status status = LB_OK;
    for (unsigned k = 0; k < lb_teachers_count(teachers) && status == LB_OK; k++) {
        const struct lb_teacher_info *info = lb_teachers_info(teachers, k);
        const struct lb_labels its = {.n = info->num_labels, .problem = info->problem};
        status = lb_evaluate_classes(its.n > 0 ? &its : NULL, info->model, detail);
        if (status == LB_OK && info->num_labels != first->num_labels) {
            status =
                lb_fail(detail, LB_E_MISMATCH,
                        "%s tells %lld classes apart (num_labels), %s %lld: they are not scored together",
                        first->model, (long long)first->num_labels, info->model, (long long)info->num_labels);
        }
        status = status == LB_OK && k > 0 && its.n > 0 ? check_names(first, info, detail) : status;
    }
    *out_classes = status == LB_OK ? first->num_labels : 0;
    return status;
}

enum lb_status lb_score(struct lb_teachers *teachers, const struct lb_dataset *data,
                        struct lb_evaluation *out, struct lb_detail *detail) {
    struct scoring *s = lb_calloc(1, sizeof *s);
    if (s == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    *s = (struct scoring){.teachers = teachers, .data = data, .n = lb_teachers_count(teachers), .out = out};
    enum lb_status status = check_alike(teachers, &s->classes, detail);
    if (status == LB_OK && lb_dataset_unlabelled(data) > 0) {
        status = lb_fail(detail, LB_E_ARG, "%lld of the %lld texts have no label to compare with",
                         (long long)lb_dataset_unlabelled(data), (long long)lb_dataset_count(data));
    }
    s->z = lb_malloc_array((size_t)s->classes + 1, sizeof *s->z);
    if (status == LB_OK && s->z == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    const struct lb_ask_spec spec = spec_of(s);
    uint64_t start = lb_now_ns();
    for (unsigned k = 0; k <= s->n; k++) {
        memset(&out[k], 0, sizeof out[k]);
        out[k].text = s->classes == 0;
        out[k].n_parts = lb_dataset_tags(data);
    }
    for (unsigned k = 0; status == LB_OK && k < s->n; k++) {
        status = lb_teachers_set_spec(teachers, k, &spec, detail);
    }
    status = status == LB_OK ? lb_dataset_hold(data, AHEAD * ROWS, detail) : status;
    int64_t questions = (lb_dataset_count(data) + ROWS - 1) / ROWS;
    for (int64_t q = 0, asked = 0; status == LB_OK && q < questions; q++) {
        for (; status == LB_OK && asked < questions && asked < q + AHEAD; asked++) {
            status = ask(s, asked, detail);
        }
        status = status == LB_OK ? collect(s, q, detail) : status;
    }
    for (unsigned k = 0; status == LB_OK && k <= s->n; k++) {
        lb_eval_finish(&out[k], data);
        out[k].seconds = (double)(lb_now_ns() - start) / (double)LB_SECOND_NS;
    }
    lb_free(s->z);
    lb_free(s);
    return status;
}
