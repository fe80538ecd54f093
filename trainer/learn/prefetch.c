#include "trainer/learn/prefetch.h"

#include "common/base/mem.h"

#include <string.h>

#define READINGS_BYTES ((size_t)4 << 30) /* of one micro-batch */

struct lb_prefetch {
    const struct lb_plan *plan;
    const struct lb_dataset *data;
    struct lb_teachers *teachers;
    struct lb_scribe *scribe;    /* NULL: the student writes nothing */
    const struct lb_text *texts; /* NULL: nor a teacher */
    struct lb_order *order;
    int64_t batch;             /* samples of a micro-batch */
    int64_t depth;             /* slots: micro-batches held at once */
    int64_t first, end;        /* numbers of the run */
    int64_t made, taken;       /* next number to make the samples of, to hand out */
    int64_t released;          /* numbers below it are done with */
    int64_t *question;         /* [depth] of the slot's micro-batch; -1: its text is yet to be written */
    int64_t *indices;          /* [batch] */
    struct lb_sample *samples; /* [depth * batch], slot = number mod depth */
    struct lb_arena *readings; /* [depth] what samples hold of teachers that read other tokens */
    bool *wanted;              /* [batch * teachers] */
};

enum lb_status lb_prefetch_create(const struct lb_plan *plan, const struct lb_dataset *data,
                                  struct lb_teachers *teachers, struct lb_scribe *scribe,
                                  const struct lb_text *texts, int64_t first, int64_t end,
                                  struct lb_prefetch **out, struct lb_detail *detail) {
    const struct lb_recipe *r = plan->recipe;
    struct lb_prefetch *a = lb_calloc(1, sizeof *a);
    if (a == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    a->plan = plan;
    a->data = data;
    a->teachers = teachers;
    a->scribe = scribe;
    a->texts = texts;
    a->batch = r->per_device_train_batch_size;
    /* The one in use, and those of the steps asked ahead; at the least all of one step. */
    a->depth = 1 + (teachers != NULL ? r->prefetch * r->gradient_accumulation_steps : 0);
    a->depth = a->depth < r->gradient_accumulation_steps ? r->gradient_accumulation_steps : a->depth;
    a->first = a->made = a->taken = a->released = first;
    a->end = end;
    a->order = lb_dataset_order(data, (uint64_t)r->seed);
    a->indices = lb_malloc_array((size_t)a->batch, sizeof *a->indices);
    a->samples = lb_calloc((size_t)(a->depth * a->batch), sizeof *a->samples);
    a->wanted = lb_calloc((size_t)a->batch * (plan->n_teachers + 1), sizeof *a->wanted);
    a->readings = lb_calloc((size_t)a->depth, sizeof *a->readings);
    a->question = lb_calloc((size_t)a->depth, sizeof *a->question);
    for (int64_t i = 0; a->readings != NULL && i < a->depth; i++) {
        lb_arena_init(&a->readings[i], READINGS_BYTES);
    }
    if (a->order == NULL || a->indices == NULL || a->samples == NULL || a->wanted == NULL ||
        a->readings == NULL || a->question == NULL) {
        lb_prefetch_destroy(a);
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    enum lb_status status = lb_dataset_hold(data, a->depth * a->batch, detail);
    if (status != LB_OK) {
        lb_prefetch_destroy(a);
        return status;
    }
    *out = a;
    return LB_OK;
}

void lb_prefetch_destroy(struct lb_prefetch *prefetch) {
    if (prefetch == NULL) {
        return;
    }
    lb_order_destroy(prefetch->order);
    lb_free(prefetch->indices);
    lb_free(prefetch->samples);
    for (int64_t i = 0; prefetch->readings != NULL && i < prefetch->depth; i++) {
        lb_arena_finish(&prefetch->readings[i]);
    }
    lb_free(prefetch->readings);
    lb_free(prefetch->question);
    lb_free(prefetch->wanted);
    lb_free(prefetch);
}

static struct lb_sample *slot(const struct lb_prefetch *a, int64_t number) {
    return a->samples + number % a->depth * a->batch;
}

/* Asks about a micro-batch whose samples are there. */
static enum lb_status ask(struct lb_prefetch *a, int64_t number, struct lb_detail *detail) {
    struct lb_sample *samples = slot(a, number);
    struct lb_arena *arena = &a->readings[number % a->depth];
    enum lb_status status = LB_OK;
    for (int64_t i = 0; status == LB_OK && i < a->batch; i++) {
        status = lb_plan_read(a->plan, &samples[i], arena, detail);
    }
    a->question[number % a->depth] = a->teachers != NULL ? lb_teachers_next(a->teachers) : 0;
    if (a->teachers == NULL || status != LB_OK) {
        return status;
    }
    lb_plan_wanted(a->plan, a->data, samples, a->batch, a->wanted);
    return lb_teachers_submit(a->teachers, a->question[number % a->depth], samples, a->batch, a->wanted,
                              detail);
}

/* What a teacher wrote behind the prompt of sample `index`. */
static enum lb_status take_text(struct lb_prefetch *a, int64_t number, int64_t index,
                                struct lb_sample *sample, struct lb_detail *detail) {
    struct lb_arena *arena = &a->readings[number % a->depth];
    const struct lb_text *text = &a->texts[index];
    int32_t *ids = lb_arena_array(arena, (size_t)(sample->prompt + text->n), sizeof *ids);
    if (text->n < 1) {
        return lb_fail(detail, LB_E_INTERNAL, "no teacher wrote behind sample %lld", (long long)index);
    }
    if (ids != NULL) {
        memcpy(ids, sample->ids, (size_t)sample->prompt * sizeof *ids);
        memcpy(ids + sample->prompt, text->ids, (size_t)text->n * sizeof *ids);
    }
    return ids != NULL && lb_sample_rewrite(sample, ids, sample->prompt + text->n, LB_SOURCE_TEACHER, arena)
               ? LB_OK
               : lb_fail(detail, LB_E_NOMEM, "out of memory for a text");
}

/* The samples of a micro-batch; asked about unless the student is to write them. */
static enum lb_status make(struct lb_prefetch *a, int64_t number, struct lb_detail *detail) {
    struct lb_sample *samples = slot(a, number);
    enum lb_status status = lb_order_batch(a->order, number, a->batch, a->indices);
    if (status != LB_OK) {
        return lb_fail(detail, status, "cannot order the samples of batch %lld", (long long)number);
    }
    lb_arena_reset(&a->readings[number % a->depth]);
    for (int64_t i = 0; i < a->batch && status == LB_OK; i++) {
        status = lb_dataset_get(a->data, a->indices[i], &samples[i], detail);
        samples[i].number = number * a->batch + i;
    }
    if (status != LB_OK) {
        return status;
    }
    enum lb_source source =
        a->scribe != NULL || a->texts != NULL ? lb_scribe_source(a->plan->recipe, number) : LB_SOURCE_DATASET;
    if (source == LB_SOURCE_STUDENT) {
        a->question[number % a->depth] = -1;
        return LB_OK;
    }
    for (int64_t i = 0; i < a->batch && source == LB_SOURCE_TEACHER && status == LB_OK; i++) {
        status = take_text(a, number, a->indices[i], &samples[i], detail);
    }
    return status == LB_OK ? ask(a, number, detail) : status;
}

/* Makes micro-batches up to number `end`, where those before have left their places. */
static enum lb_status make_up_to(struct lb_prefetch *a, int64_t end, struct lb_detail *detail) {
    for (; a->teachers != NULL && a->released < a->taken; a->released++) {
        lb_teachers_release(a->teachers, a->question[a->released % a->depth]);
    }
    enum lb_status status = LB_OK;
    while (status == LB_OK && a->made < a->end && a->made < end) {
        status = make(a, a->made, detail);
        a->made += status == LB_OK;
    }
    return status;
}

enum lb_status lb_prefetch_begin(struct lb_prefetch *a, int64_t n, struct lb_prefetched *out,
                                 struct lb_detail *detail) {
    struct lb_prefetched all = {0};
    enum lb_status status = make_up_to(a, a->taken + n, detail);
    for (int64_t m = a->taken; status == LB_OK && m < a->taken + n; m++) {
        struct lb_sample *samples = slot(a, m);
        if (a->question[m % a->depth] < 0) {
            status = lb_scribe_write(a->scribe, m * a->batch, samples, a->batch, &a->readings[m % a->depth],
                                     detail);
            status = status == LB_OK ? ask(a, m, detail) : status;
        }
        for (int64_t i = 0; i < a->batch; i++) {
            int64_t positions = lb_sample_counted(&samples[i]);
            all.positions += positions;
            all.weight_positions += lb_sample_weight(&samples[i]) * (double)positions;
            all.weight_samples += lb_sample_weight(&samples[i]);
        }
    }
    if (status == LB_OK) {
        *out = all;
    }
    return status;
}

enum lb_status lb_prefetch_next(struct lb_prefetch *a, const struct lb_sample **out_samples,
                                struct lb_detail *detail) {
    enum lb_status status = make_up_to(a, a->taken + a->depth, detail);
    if (status == LB_OK) {
        *out_samples = slot(a, a->taken);
        a->taken++;
    }
    return status;
}

enum lb_status lb_prefetch_answers(struct lb_prefetch *a, const struct lb_answer *const **out_answers,
                                   struct lb_detail *detail) {
    const struct lb_sample *samples;
    return lb_prefetch_ahead(a, 0, &samples, out_answers, detail);
}

enum lb_status lb_prefetch_ahead(struct lb_prefetch *a, int64_t i, const struct lb_sample **out_samples,
                                 const struct lb_answer *const **out_answers, struct lb_detail *detail) {
    const struct lb_answer *const *answers = NULL;
    int64_t number = a->taken - 1 + i;
    enum lb_status status =
        a->teachers != NULL ? lb_teachers_take(a->teachers, a->question[number % a->depth], &answers, detail)
                            : LB_OK;
    if (status == LB_OK && answers != NULL) {
        status = lb_plan_align(a->plan, slot(a, number), a->batch, &answers, &a->readings[number % a->depth],
                               detail);
    }
    if (status == LB_OK) {
        *out_samples = slot(a, number);
        *out_answers = answers;
    }
    return status;
}
