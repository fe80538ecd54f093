/* Texts that are written during the run, and prompts that teachers read: whether the data and the teachers
 * allow them. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/run/run.h"
#include "trainer/teachers/written.h"

#include <math.h>
#include <string.h>

#define TEXTS_BYTES ((size_t)16 << 30)
#define TOLD_NS (10 * LB_SECOND_NS)
#define STREAM_WRITER                                                                                        \
    ((uint64_t)0x70656e << 32) /* "pen": apart from those of weights, order and learn/scribe.c */

/* What the student is to write behind, and whether what it writes can be marked. */
static enum lb_status open_scribe(struct lb_run *run, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    int64_t all = lb_dataset_count(run->data), prompts = lb_dataset_prompts(run->data);
    const char *key = r->lmbda > 0 ? "lmbda" : "seq_kd";
    if (!lb_recipe_writes(r)) {
        return LB_OK;
    }
    if (!lb_model_is_causal(run->student) || lb_model_is_classifier(run->student)) {
        return lb_fail(detail, LB_E_ARG, "%s: a %s does not write texts; leave it out", key,
                       lb_model_config(run->student)->model_type);
    }
    if (prompts < all) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: %lld of %lld rows have no prompt shorter than max_length %lld to write behind: "
                       "records have a prompt, or end with the assistant's answer; texts take prompt_length",
                       key, (long long)(all - prompts), (long long)all, (long long)r->max_length);
    }
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        if (run->plan->unlike[k] && *lb_dataset_chat_hash(run->data) != '\0') {
            return lb_fail(detail, LB_E_UNSUPPORTED,
                           "%s: the data are conversations, and teacher %s reads them by a tokenizer and a "
                           "template of its own, which a text that the student goes on with is not written "
                           "in; give it prompts and completions that are texts",
                           key, r->teachers[k].name);
        }
    }
    return r->lmbda > 0
               ? lb_scribe_create(r, run->student, run->tokenizer, run->options->stop, &run->scribe, detail)
               : LB_OK;
}

/* Teachers must be able to read the longest sequence that a row can become. */
static enum lb_status check_lengths(const struct lb_run *run, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    int64_t longest = 0;
    for (int64_t i = 0; i < lb_dataset_count(run->data); i++) {
        struct lb_sample s;
        enum lb_status status = lb_dataset_get(run->data, i, &s, detail);
        if (status != LB_OK) {
            return status;
        }
        int64_t rest = lb_recipe_writes(r) ? lb_scribe_room(r, s.prompt) - 1 : 0;
        rest = s.n - s.prompt > rest ? s.n - s.prompt : rest;
        longest = s.teacher_prompt_n + rest > longest ? s.teacher_prompt_n + rest : longest;
    }
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        const struct lb_teacher_info *info = run->plan->info[k];
        if (run->plan->prompted[k] && info->max_length > 0 && longest > info->max_length) {
            return lb_fail(detail, LB_E_LIMIT,
                           "teachers.%u.teacher_prompt: teacher %s reads at most %lld tokens, its prompt and "
                           "a completion "
                           "have up to %lld; shorten its prompts, or lower max_length",
                           k, r->teachers[k].name, (long long)info->max_length, (long long)longest);
        }
    }
    return LB_OK;
}

enum lb_status lb_run_open_scribe(struct lb_run *run, struct lb_detail *detail) {
    enum lb_status status = open_scribe(run, detail);
    return status == LB_OK && lb_recipe_teacher_prompt(run->recipe) != NULL ? check_lengths(run, detail)
                                                                            : status;
}

/* ---- what teachers write ---- */

/* Whether teacher k can go on with the student's ids. */
static bool can_write(const struct lb_run *run, unsigned k) {
    const struct lb_plan *plan = run->plan;
    return lb_teachers_writes(run->teachers, k) && plan->map[k] == NULL && !plan->unlike[k] &&
           plan->info[k]->num_labels == 0 && plan->info[k]->input_size == 0;
}

/* Who writes behind a sample's prompt: one of those that can, and under route has its tag, drawn by weight:
 * the first one, where it anneals, since a sample has one text in all epochs. n_teachers: nobody. */
static unsigned writer_of(const struct lb_run *run, const struct lb_sample *sample, int64_t index) {
    const struct lb_recipe *r = run->recipe;
    unsigned n = run->plan->n_teachers, last = n;
    double weight[LB_MAX_TEACHERS], sum = 0;
    struct lb_rng rng;
    for (unsigned k = 0; k < n; k++) {
        bool its = !run->plan->mixture->by_tag ||
                   lb_recipe_has_tag(&r->teachers[k],
                                     sample->tag >= 0 ? lb_dataset_tag(run->data, sample->tag) : NULL);
        weight[k] = its && can_write(run, k) ? r->teachers[k].weight : 0;
        sum += weight[k];
    }
    lb_rng_seed(&rng, (uint64_t)r->seed, STREAM_WRITER + (uint64_t)index);
    double u = lb_rng_double(&rng) * sum;
    for (unsigned k = 0; k < n; k++) {
        last = weight[k] > 0 ? k : last;
        u -= weight[k];
        if (u < 0) {
            break;
        }
    }
    return last;
}

/* Who is to write behind which sample's prompt, of the micro-batches that come: writer [samples], n_teachers:
 * nobody. */
static enum lb_status find_writers(const struct lb_run *run, unsigned *writer, int64_t *out_n,
                                   struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    int64_t count = lb_dataset_count(run->data), batch = r->per_device_train_batch_size;
    struct lb_order *order = lb_dataset_order(run->data, (uint64_t)r->seed); /* as learn/prefetch.c */
    int64_t *indices = lb_malloc_array((size_t)batch, sizeof *indices);
    enum lb_status status =
        order != NULL && indices != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
    *out_n = 0;
    for (int64_t i = 0; i < count; i++) {
        writer[i] = run->plan->n_teachers;
    }
    for (int64_t m = run->at.micro_batch;
         status == LB_OK && *out_n < count && m < run->total * r->gradient_accumulation_steps; m++) {
        if (run->options->stop != NULL && *run->options->stop) { /* of a run of no near end there are many */
            status = lb_fail(detail, LB_E_CANCELLED, "stopped before teachers wrote");
            break;
        }
        if (lb_scribe_source(r, m) != LB_SOURCE_TEACHER) {
            continue;
        }
        status = lb_order_batch(order, m, batch, indices);
        for (int64_t i = 0; status == LB_OK && i < batch; i++) {
            struct lb_sample sample;
            if (writer[indices[i]] < run->plan->n_teachers) {
                continue;
            }
            status = lb_dataset_get(run->data, indices[i], &sample, detail);
            if (status != LB_OK) {
                break;
            }
            writer[indices[i]] = writer_of(run, &sample, indices[i]);
            (*out_n)++;
            if (writer[indices[i]] == run->plan->n_teachers) {
                status = lb_fail(
                    detail, LB_E_UNSUPPORTED,
                    "seq_kd: no teacher can write behind a sample's prompt: it takes one by protocol oip "
                    "that reads the student's own tokens, has a weight above 0 at the start, and with "
                    "mixture: "
                    "route the sample's tag");
            }
        }
    }
    lb_order_destroy(order);
    lb_free(indices);
    return status;
}

/* A teacher that comes in later, by its weight, has its say too late for this. */
static void tell_silent(const struct lb_run *run) {
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        const struct lb_recipe_teacher *teacher = &run->recipe->teachers[k];
        if (!(teacher->weight > 0) && can_write(run, k)) {
            lb_log(LB_LOG_WARN, "teacher_writes_nothing", "teacher=%s because=\"its weight begins at 0\"",
                   teacher->name);
        }
    }
}

/* Samples whose texts are asked together: of one teacher, of one length. */
struct together {
    unsigned teacher;
    int64_t room, n, index[LB_TEXTS_AT_ONCE];
    struct lb_text_prompt prompts[LB_TEXTS_AT_ONCE];
};

/* A padded vocabulary has ids that no tokenizer knows, and the student may lack them. */
static enum lb_status check_ids(const struct lb_run *run, unsigned k, const struct lb_text *text,
                                struct lb_detail *detail) {
    int64_t v = lb_model_config(run->student)->vocab_size;
    for (int64_t i = 0; i < text->n; i++) {
        if (text->ids[i] >= v) {
            return lb_fail(detail, LB_E_MISMATCH,
                           "seq_kd: teacher %s wrote token %d, and the student has a vocabulary of %lld; "
                           "start from a student with as many rows as the teacher, or let another write",
                           run->recipe->teachers[k].name, text->ids[i], (long long)v);
        }
    }
    return LB_OK;
}

static enum lb_status write_together(struct lb_run *run, struct together *t, struct lb_detail *detail) {
    const struct lb_recipe *r = run->recipe;
    struct lb_text out[LB_TEXTS_AT_ONCE];
    const struct lb_text_args args = {.max_tokens = t->room,
                                      .temperature =
                                          isnan(r->generation_temperature) ? 1 : r->generation_temperature,
                                      .top_p = isnan(r->top_p) ? 1 : r->top_p,
                                      .seed = (uint64_t)r->seed};
    enum lb_status status = t->n > 0 ? lb_teachers_write(run->teachers, t->teacher, &args, t->prompts, t->n,
                                                         &run->written, out, detail)
                                     : LB_OK;
    for (int64_t i = 0; status == LB_OK && i < t->n; i++) {
        run->texts[t->index[i]] = out[i];
        status = check_ids(run, t->teacher, &out[i], detail);
    }
    t->n = 0;
    return status;
}

/* Adds a sample; those before it are asked for first where they do not go with it. */
static enum lb_status add(struct lb_run *run, struct together *t, int64_t index, unsigned k,
                          struct lb_detail *detail) {
    struct lb_sample s;
    enum lb_status status = lb_dataset_get(run->data, index, &s, detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_text_prompt prompt = {s.ids, s.prompt};
    if (run->plan->prompted[k]) {
        prompt = (struct lb_text_prompt){s.teacher_prompt, s.teacher_prompt_n};
    }
    int64_t room = lb_scribe_room(run->recipe, s.prompt), most = run->plan->info[k]->max_length - prompt.n;
    room = run->plan->info[k]->max_length > 0 && most < room ? most : room;
    if (room < 1) {
        return lb_fail(detail, LB_E_LIMIT, "seq_kd: teacher %s reads at most %lld tokens, a prompt has %lld",
                       run->recipe->teachers[k].name, (long long)run->plan->info[k]->max_length,
                       (long long)prompt.n);
    }
    /* Of shards the sample is soon another one. */
    int32_t *ids = lb_arena_array(&run->written, (size_t)prompt.n, sizeof *ids);
    if (ids == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for prompts");
    }
    memcpy(ids, prompt.ids, (size_t)prompt.n * sizeof *ids);
    prompt.ids = ids;
    if (t->n == LB_TEXTS_AT_ONCE || t->teacher != k || t->room != room) {
        status = write_together(run, t, detail);
    }
    t->teacher = k;
    t->room = room;
    t->index[t->n] = index;
    t->prompts[t->n++] = prompt;
    return status;
}

enum lb_status lb_run_have_written(struct lb_run *run, struct lb_detail *detail) {
    int64_t count = lb_dataset_count(run->data), n = 0, done = 0;
    if (!run->recipe->seq_kd) {
        return LB_OK;
    }
    tell_silent(run);
    uint64_t began = lb_now_ns(), told = began;
    lb_arena_init(&run->written, TEXTS_BYTES);
    run->texts = lb_calloc((size_t)count, sizeof *run->texts);
    unsigned *writer = lb_malloc_array((size_t)count, sizeof *writer);
    enum lb_status status = run->texts != NULL && writer != NULL
                                ? find_writers(run, writer, &n, detail)
                                : lb_fail(detail, LB_E_NOMEM, "out of memory for the teachers' texts");
    for (unsigned k = 0; k < run->plan->n_teachers; k++) {
        struct together t = {.n = 0};
        for (int64_t i = 0; status == LB_OK && i < count; i++) {
            if (writer[i] != k) {
                continue;
            }
            status = add(run, &t, i, k, detail);
            done++;
            if (lb_now_ns() - told > TOLD_NS) {
                told = lb_now_ns();
                lb_log(LB_LOG_INFO, "teachers_write", "texts=%lld of=%lld seconds=%.0f", (long long)done,
                       (long long)n, (double)(told - began) / 1e9);
            }
        }
        status = status == LB_OK ? write_together(run, &t, detail) : status;
    }
    if (status == LB_OK) {
        lb_log(LB_LOG_INFO, "teachers_wrote", "texts=%lld seconds=%.1f", (long long)n,
               (double)(lb_now_ns() - began) / 1e9);
    }
    lb_free(writer);
    return status;
}
