#include "trainer/run/agree.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/model/batch.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "common/nn/tape.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"
#include "trainer/loss/row.h"
#include "trainer/loss/target.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define BATCH_ROWS 2048
#define AHEAD 4 /* questions under way */
#define TAPE_BYTES ((size_t)16 << 30)

/* ---- what is asked ---- */

/* Why teacher k cannot be compared with the student; NULL: it can. */
static const char *unlike(const struct lb_plan *plan, const struct lb_model *student, unsigned k) {
    if (plan->unlike[k]) {
        return "its tokens are not the student's";
    }
    if (plan->prompted[k]) {
        return "it reads another prompt (teacher_prompt), which held-out data do not bring";
    }
    if (!lb_model_is_classifier(student)) {
        return plan->info[k]->num_labels > 0 ? "it classifies, the student does not" : NULL;
    }
    return plan->apart[k] ? "no loss on its classes learns from it" : NULL;
}

static void want(struct lb_ask_spec *spec, enum lb_output_kind kind, enum lb_datatype datatype) {
    spec->outputs[spec->n_outputs].kind = kind;
    spec->outputs[spec->n_outputs].datatype = datatype;
    spec->n_outputs++;
}

/* The lane's outputs, at temperature 1; of draws, of one without such losses, and of one that has other ids
 * than the student, the likeliest id. */
static void make_spec(const struct lb_plan *plan, unsigned k, struct lb_ask_spec *spec, bool *out_kl) {
    const struct lb_recipe *r = plan->recipe;
    enum lb_datatype wide = r->fp16_targets ? LB_DT_FP16 : LB_DT_FP32,
                     ids = plan->info[k]->vocab_size <= 65536 ? LB_DT_UINT16 : LB_DT_INT32;
    bool kl = !plan->apart[k] && plan->map[k] == NULL && r->targets != LB_LANE_SAMPLES;
    *out_kl = kl;
    spec->temperature = 1;
    spec->top_k = kl ? r->loss_top_k : 1;
    if (kl && lb_lane_whole(r->targets)) {
        want(spec, r->targets == LB_LANE_FINAL ? LB_OUT_HIDDEN_FINAL : LB_OUT_LOGITS, wide);
        return;
    }
    want(spec, LB_OUT_TOPK_IDS, ids);
    if (kl) {
        want(spec, LB_OUT_TOPK_VALUES, wide);
        want(spec, LB_OUT_REST, LB_DT_FP32);
    }
}

void lb_agree_plan(const struct lb_plan *plan, const struct lb_model *student,
                   const struct lb_teachers *teachers, struct lb_agree *out) {
    *out = (struct lb_agree){.plan = plan};
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        struct lb_detail why = {0};
        const char *reason = unlike(plan, student, k);
        make_spec(plan, k, &out->spec[k], &out->kl[k]);
        if (reason == NULL && lb_teachers_gives(teachers, k, &out->spec[k], &why) != LB_OK) {
            reason = why.text;
        }
        out->asked[k] = reason == NULL;
        if (reason != NULL) {
            out->spec[k] = plan->spec[k]; /* of which nothing is asked */
            out->kl[k] = false;
            lb_log(LB_LOG_WARN, "agreement_left_out", "teacher=%s because=\"%s\"",
                   plan->recipe->teachers[k].name, reason);
        }
    }
}

/* ---- comparing ---- */

/* What one teacher says of one row beside the student. */
struct seen {
    bool there, same;
    double nats;
};

struct worker {
    struct lb_row row;
    float *dz, *p; /* [V] */
    int32_t *ids;  /* [top_k] */
};

struct agreeing {
    const struct lb_agree *agree;
    const struct lb_model *student;
    struct lb_teachers *teachers;
    const struct lb_dataset *data;
    struct lb_agreement *out; /* [n] */
    unsigned n;               /* teachers */
    int64_t v, rows;          /* rows: samples of a batch, which is a question */
    int64_t top_k;            /* ids that a list has */
    struct lb_arena memory;
    struct lb_tape *tape;
    struct lb_model_batch batch;
    struct lb_sample *samples; /* [AHEAD * rows] */
    bool *wanted;              /* [rows * n] */
    int64_t first;             /* the number of the first question */
    int64_t asked, released;   /* questions */
    struct lb_answered now;    /* the batch that is compared */
    int32_t *sequence;         /* [N] */
    int32_t *one_each;         /* [rows + 1] where a sample has one row */
    int32_t *top;              /* [N] the student's likeliest */
    struct seen *seen;         /* [n * N] */
    int64_t n_seen;            /* N */
    float *z, *states;         /* a chunk of one teacher's: [chunk, V], [chunk, C] */
    struct worker *workers;    /* one per thread */
};

/* Teacher k beside the student's logits z [V] at a row; its own, where whole ones came, are row i of a->z. */
static void compare(const struct agreeing *a, struct worker *w, unsigned k, int64_t row, int64_t i,
                    const float *z) {
    static const struct lb_loss_args plain = {.temperature = 1};
    int64_t s = a->now.sequence[row], t = row - a->now.offsets[s];
    const struct lb_answer *answer = a->now.answers[s * a->n + k];
    struct seen *seen = &a->seen[k * a->n_seen + row];
    const struct lb_vocab_map *map = a->agree->plan->map[k];
    *seen = (struct seen){0};
    if (answer == NULL || t < answer->first ||
        (!a->now.by_sample && !lb_sample_counts(&a->now.samples[s], t))) {
        return;
    }
    int64_t at = lb_answer_row(answer, t);
    const struct lb_wire_tensor *ids = lb_answer_find(answer, LB_OUT_TOPK_IDS, 0);
    const float *its = a->z + i * a->v;
    int32_t top = a->top[row];
    seen->there = true;
    seen->same = (map != NULL ? map->kept[top] : top) ==
                 (ids == NULL ? (int32_t)lb_argmax(its, a->v)
                              : lb_answer_id(ids, a->agree->kl[k] ? at * a->top_k : at));
    if (!a->agree->kl[k]) {
        return;
    }
    struct lb_target target;
    if (ids != NULL) {
        bool all = a->top_k == a->v;
        double tail = lb_target_list(answer, at, a->top_k, all, 1, w->ids, w->p);
        target = (struct lb_target){.kind = LB_TARGET_TRUNCATED,
                                    .temperature = 1,
                                    .k = a->top_k,
                                    .ids = w->ids,
                                    .p_at = w->p,
                                    .tail = tail,
                                    .add_tail = true,
                                    .mass = 1};
    } else {
        const double whole = 1;
        target =
            (struct lb_target){.kind = LB_TARGET_DENSE, .temperature = 1, .z = its, .p = w->p, .mass = 1};
        target.neg_entropy = lb_mixture_dense(LB_COMBINE_PROBS, 1, &its, &whole, 1, a->v, w->p);
    }
    lb_row_begin(&w->row, z, -1);
    seen->nats = lb_loss_row(lb_loss_find("kl"), &w->row, &target, &plain, 0, w->dz);
}

static enum lb_status on_logits(void *context, int64_t row, int64_t n, float *z) {
    struct agreeing *a = context;
    const struct lb_plan *plan = a->agree->plan;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        a->top[row + i] = (int32_t)lb_argmax(z + i * a->v, a->v);
    }
    for (unsigned k = 0; k < a->n; k++) {
        if (a->agree->kl[k] && lb_lane_whole(plan->recipe->targets)) {
            lb_target_logits(&a->now, k, plan->head[k], NULL, a->v, row, n, a->states, a->z);
        }
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            compare(a, &a->workers[omp_get_thread_num()], k, row + i, i, z + i * a->v);
        }
    }
    return LB_OK;
}

static void add(struct lb_agreed *to, const struct seen *seen) {
    to->n++;
    to->same += seen->same;
    to->nats += seen->nats;
}

/* Whether teacher k is asked about the sample. */
static bool is_asked(const struct agreeing *a, unsigned k, const struct lb_sample *sample) {
    const struct lb_plan *plan = a->agree->plan;
    const char *tag = sample->tag >= 0 ? lb_dataset_tag(a->data, sample->tag) : NULL;
    return a->agree->asked[k] &&
           (!plan->mixture->by_tag || lb_recipe_has_tag(&plan->recipe->teachers[k], tag));
}

/* In the order of rows, so that no sum depends on threads. */
static void collect(const struct agreeing *a) {
    for (unsigned k = 0; k < a->n; k++) {
        for (int64_t i = 0; i < a->now.n_samples; i++) {
            a->out[k].unanswered +=
                a->now.answers[i * a->n + k] == NULL && is_asked(a, k, &a->now.samples[i]);
        }
        for (int64_t row = 0; row < a->n_seen; row++) {
            const struct seen *seen = &a->seen[k * a->n_seen + row];
            int tag = a->now.samples[a->now.sequence[row]].tag;
            if (seen->there) {
                add(&a->out[k].all, seen);
            }
            if (seen->there && tag >= 0) {
                add(&a->out[k].part[tag], seen);
            }
        }
    }
}

/* ---- questions and batches ---- */

static int64_t samples_of(const struct agreeing *a, int64_t question) {
    int64_t left = lb_dataset_count(a->data) - question * a->rows;
    return left < a->rows ? left : a->rows;
}

static enum lb_status ask(struct agreeing *a, struct lb_detail *detail) {
    int64_t q = a->asked, n = samples_of(a, q);
    struct lb_sample *samples = a->samples + q % AHEAD * a->rows;
    enum lb_status status = LB_OK;
    for (int64_t i = 0; i < n && status == LB_OK; i++) {
        status = lb_dataset_get(a->data, q * a->rows + i, &samples[i], detail);
        for (unsigned k = 0; status == LB_OK && k < a->n; k++) {
            a->wanted[i * a->n + k] = is_asked(a, k, &samples[i]);
        }
    }
    int64_t number = lb_teachers_next(a->teachers);
    a->first = q == 0 ? number : a->first;
    status = status == LB_OK
                 ? lb_teachers_submit_as(a->teachers, number, samples, n, a->wanted, a->agree->spec, detail)
                 : status;
    a->asked += status == LB_OK;
    return status;
}

/* The student reads the batch that was answered. */
static enum lb_status read_batch(struct agreeing *a, int64_t n, struct lb_detail *detail) {
    lb_model_batch_clear(&a->batch);
    for (int64_t i = 0; i < n; i++) {
        const struct lb_sample *s = &a->now.samples[i];
        for (int64_t t = 0; t < s->n; t++) {
            a->sequence[a->batch.n_rows + t] = (int32_t)i;
        }
        if (s->ids == NULL) {
            lb_model_batch_add_features(&a->batch, s->features, s->label);
        } else {
            lb_model_batch_add_ids(&a->batch, s->ids, NULL, s->n);
        }
        a->one_each[i + 1] = (int32_t)(i + 1);
    }
    a->now.offsets = a->now.by_sample ? a->one_each : a->batch.offsets;
    a->now.sequence = a->now.by_sample ? a->one_each : a->sequence;
    a->n_seen = a->now.by_sample ? n : a->batch.n_rows;
    struct lb_input in = lb_model_batch_input(&a->batch);
    lb_tape_begin(a->tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(a->student, a->tape, &in, NULL, 0, NULL);
    enum lb_status status = lb_tape_status(a->tape);
    status =
        status == LB_OK ? lb_head_run(a->tape, h, lb_model_head(a->student), NULL, on_logits, a) : status;
    return status == LB_OK            ? LB_OK
           : status == LB_E_CANCELLED ? lb_fail(detail, status, "stopped while evaluating")
                                      : lb_fail(detail, status, "comparing %lld rows with the teachers': %s",
                                                (long long)n, lb_status_name(status));
}

static void release(struct agreeing *a) {
    lb_teachers_release(a->teachers, a->first + a->released++);
}

static enum lb_status take(struct agreeing *a, int64_t q, struct lb_detail *detail) {
    const struct lb_answer *const *answers;
    int64_t n = samples_of(a, q);
    const struct lb_sample *samples = a->samples + q % AHEAD * a->rows;
    enum lb_status status = lb_teachers_take(a->teachers, a->first + q, &answers, detail);
    if (status == LB_OK) {
        a->now.samples = samples;
        a->now.n_samples = n;
        a->now.answers = answers;
        status = read_batch(a, n, detail);
    }
    if (status == LB_OK) {
        collect(a);
    }
    release(a);
    return status;
}

static bool make_workers(struct agreeing *a) {
    int threads = omp_get_max_threads();
    bool ok = true;
    a->workers = lb_arena_zarray(&a->memory, (size_t)threads, sizeof *a->workers);
    for (int i = 0; ok && a->workers != NULL && i < threads; i++) {
        struct worker *w = &a->workers[i];
        float *floats = lb_arena_array(&a->memory, lb_row_floats(a->v, 1), sizeof *floats);
        w->dz = lb_arena_zarray(&a->memory, (size_t)a->v, sizeof *w->dz);
        w->p = lb_arena_array(&a->memory, (size_t)a->v, sizeof *w->p);
        w->ids = lb_arena_array(&a->memory, (size_t)a->top_k, sizeof *w->ids);
        ok = floats != NULL && w->dz != NULL && w->p != NULL && w->ids != NULL;
        if (ok) {
            lb_row_init(&w->row, a->v, 1, floats);
        }
    }
    return ok && a->workers != NULL;
}

/* Memory for batches whose longest row has so many positions; false: there is none. */
static bool make_room(struct agreeing *a, int64_t longest) {
    const struct lb_plan *plan = a->agree->plan;
    int64_t width = 1, chunk = lb_head_plain_chunk(a->v);
    size_t rows = (size_t)a->rows, n = 0;
    for (unsigned k = 0; k < a->n; k++) {
        const struct lb_teacher_head *head = plan->head[k]; /* NULL: whole logits come, or none */
        width = head != NULL && head->hidden_size > width ? head->hidden_size : width;
    }
    if (!lb_mul_size(rows, (size_t)longest, &n) || n > INT32_MAX) {
        return false;
    }
    a->samples = lb_arena_array(&a->memory, AHEAD * rows, sizeof *a->samples);
    a->wanted = lb_arena_array(&a->memory, rows * a->n, sizeof *a->wanted);
    a->sequence = lb_arena_array(&a->memory, n, sizeof *a->sequence);
    a->one_each = lb_arena_zarray(&a->memory, rows + 1, sizeof *a->one_each);
    a->top = lb_arena_array(&a->memory, n, sizeof *a->top);
    a->seen = lb_arena_array(&a->memory, n * a->n, sizeof *a->seen);
    a->z = lb_arena_array(&a->memory, (size_t)(chunk * a->v), sizeof *a->z);
    a->states = lb_arena_array(&a->memory, (size_t)(chunk * width), sizeof *a->states);
    return a->samples != NULL && a->wanted != NULL && a->sequence != NULL && a->one_each != NULL &&
           a->top != NULL && a->seen != NULL && a->z != NULL && a->states != NULL && make_workers(a) &&
           lb_model_batch_init(&a->batch, &a->memory, a->rows, (int64_t)n, lb_dataset_features(a->data),
                               false);
}

enum lb_status lb_agree(const struct lb_agree *agree, const struct lb_model *student,
                        struct lb_teachers *teachers, const struct lb_dataset *data,
                        volatile sig_atomic_t *stop, struct lb_agreement *out, struct lb_detail *detail) {
    int64_t longest = 0, count = lb_dataset_count(data), listed = agree->plan->recipe->loss_top_k;
    enum lb_status status = lb_evaluate_rows(student, data, &longest, detail);
    if (status != LB_OK) {
        return status;
    }
    int64_t rows = longest < BATCH_ROWS ? BATCH_ROWS / longest : 1;
    struct agreeing a = {.agree = agree,
                         .student = student,
                         .teachers = teachers,
                         .data = data,
                         .out = out,
                         .n = agree->plan->n_teachers,
                         .v = agree->plan->n_logits,
                         .rows = rows < count ? rows : count};
    a.top_k = listed < a.v ? listed : a.v;
    a.now = (struct lb_answered){.n_teachers = a.n, .by_sample = lb_model_is_classifier(student)};
    lb_arena_init(&a.memory, TAPE_BYTES);
    a.tape = lb_tape_create(TAPE_BYTES);
    status = a.tape != NULL && make_room(&a, longest)
                 ? lb_dataset_hold(data, AHEAD * a.rows, detail)
                 : lb_fail(detail, LB_E_NOMEM, "out of memory for the teachers' agreement");
    if (status == LB_OK) {
        lb_tape_stop_on(a.tape, stop);
        memset(out, 0, a.n * sizeof *out);
    }
    int64_t questions = a.rows > 0 ? (count + a.rows - 1) / a.rows : 0;
    for (int64_t q = 0; status == LB_OK && q < questions; q++) {
        while (status == LB_OK && a.asked < questions && a.asked < q + AHEAD) {
            status = ask(&a, detail);
        }
        status = status == LB_OK ? take(&a, q, detail) : status;
    }
    while (a.released < a.asked) {
        release(&a);
    }
    lb_tape_destroy(a.tape);
    lb_arena_finish(&a.memory);
    return status;
}
