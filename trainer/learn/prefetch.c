#include "trainer/learn/prefetch.h"

#include "common/base/mem.h"

#include <string.h>

#define READINGS_BYTES ((size_t)4 << 30) /* of one micro-batch */

struct lb_prefetch {
    const struct lb_plan *plan;
    const struct lb_dataset *data;
    struct lb_teachers *teachers;
    struct lb_order *order;
    int64_t batch;             /* samples of a micro-batch */
    int64_t depth;             /* slots: micro-batches held at once */
    int64_t first, end;        /* numbers of the run */
    int64_t asked, taken;      /* next number to ask about, to hand out */
    int64_t *indices;          /* [batch] */
    struct lb_sample *samples; /* [depth * batch], slot = number mod depth */
    struct lb_arena *readings; /* [depth] what samples hold of teachers that read other tokens */
    bool *wanted;              /* [batch * teachers] */
};

enum lb_status lb_prefetch_create(const struct lb_plan *plan, const struct lb_dataset *data,
                                  struct lb_teachers *teachers, int64_t first, int64_t end,
                                  struct lb_prefetch **out, struct lb_detail *detail) {
    const struct lb_recipe *r = plan->recipe;
    struct lb_prefetch *a = lb_calloc(1, sizeof *a);
    if (a == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    a->plan = plan;
    a->data = data;
    a->teachers = teachers;
    a->batch = r->per_device_train_batch_size;
    /* The one in use, and those of the steps asked ahead; at the least all of one step. */
    a->depth = 1 + (teachers != NULL ? r->prefetch * r->gradient_accumulation_steps : 0);
    a->depth = a->depth < r->gradient_accumulation_steps ? r->gradient_accumulation_steps : a->depth;
    a->first = a->asked = a->taken = first;
    a->end = end;
    a->order = lb_order_create(lb_dataset_count(data), (uint64_t)r->seed);
    a->indices = lb_malloc_array((size_t)a->batch, sizeof *a->indices);
    a->samples = lb_calloc((size_t)(a->depth * a->batch), sizeof *a->samples);
    a->wanted = lb_calloc((size_t)a->batch * (plan->n_teachers + 1), sizeof *a->wanted);
    a->readings = lb_calloc((size_t)a->depth, sizeof *a->readings);
    for (int64_t i = 0; a->readings != NULL && i < a->depth; i++) {
        lb_arena_init(&a->readings[i], READINGS_BYTES);
    }
    if (a->order == NULL || a->indices == NULL || a->samples == NULL || a->wanted == NULL ||
        a->readings == NULL) {
        lb_prefetch_destroy(a);
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
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
    lb_free(prefetch->wanted);
    lb_free(prefetch);
}

static struct lb_sample *slot(const struct lb_prefetch *a, int64_t number) {
    return a->samples + number % a->depth * a->batch;
}

static enum lb_status ask(struct lb_prefetch *a, int64_t number, struct lb_detail *detail) {
    struct lb_sample *samples = slot(a, number);
    enum lb_status status = lb_order_batch(a->order, number, a->batch, a->indices);
    if (status != LB_OK) {
        return lb_fail(detail, status, "cannot order the samples of batch %lld", (long long)number);
    }
    struct lb_arena *arena = &a->readings[number % a->depth];
    lb_arena_reset(arena);
    for (int64_t i = 0; status == LB_OK && i < a->batch; i++) {
        lb_dataset_get(a->data, a->indices[i], &samples[i]);
        samples[i].number = number * a->batch + i;
        status = lb_plan_read(a->plan, &samples[i], arena, detail);
    }
    if (a->teachers == NULL || status != LB_OK) {
        return status;
    }
    lb_plan_wanted(a->plan, a->data, samples, a->batch, a->wanted);
    return lb_teachers_submit(a->teachers, number - a->first, samples, a->batch, a->wanted, detail);
}

enum lb_status lb_prefetch_positions(struct lb_prefetch *a, int64_t n, int64_t *out,
                                     struct lb_detail *detail) {
    int64_t sum = 0;
    for (int64_t m = a->taken; m < a->taken + n; m++) {
        enum lb_status status = lb_order_batch(a->order, m, a->batch, a->indices);
        if (status != LB_OK) {
            return lb_fail(detail, status, "cannot order the samples of batch %lld", (long long)m);
        }
        for (int64_t i = 0; i < a->batch; i++) {
            struct lb_sample sample;
            lb_dataset_get(a->data, a->indices[i], &sample);
            sum += lb_sample_counted(&sample);
        }
    }
    *out = sum;
    return LB_OK;
}

enum lb_status lb_prefetch_next(struct lb_prefetch *a, const struct lb_sample **out_samples,
                                struct lb_detail *detail) {
    if (a->teachers != NULL && a->taken > a->first) {
        lb_teachers_release(a->teachers, a->taken - 1 - a->first);
    }
    while (a->asked < a->end && a->asked < a->taken + a->depth) {
        enum lb_status status = ask(a, a->asked, detail);
        if (status != LB_OK) {
            return status;
        }
        a->asked++;
    }
    *out_samples = slot(a, a->taken);
    a->taken++;
    return LB_OK;
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
        a->teachers != NULL ? lb_teachers_take(a->teachers, number - a->first, &answers, detail) : LB_OK;
    if (status == LB_OK) {
        *out_samples = slot(a, number);
        *out_answers = answers;
    }
    return status;
}
