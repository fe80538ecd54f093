#include "trainer/teachers/questions.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/teachers/parts.h"
#include "trainer/wire/possible.h"

#include <string.h>

#define BACK_OFF_NS (50 * LB_MS_NS)
#define BACK_OFF_CAP_NS (10 * LB_SECOND_NS)

/* Under the lock. The flag stays for a thread that is not waiting just now. */
static void call_thread(struct lb_asker *asker) {
    asker->called = true;
    pthread_cond_signal(&asker->work);
}

/* ---- questions: the thread's ---- */

bool lb_answer_kept(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES],
                    const struct lb_teacher_info *info, const char *teacher, const struct lb_ask_spec *spec,
                    const struct lb_sample *sample, struct lb_arena *arena, bool *complained,
                    struct lb_answer *out) {
    struct lb_detail detail = {0};
    if (!cache) {
        return false;
    }
    enum lb_status status = lb_cache_get(cache, key, arena, out, &detail);
    if (status != LB_OK && detail.code && (status == LB_E_NOTFOUND || !*complained)) {
        *complained = *complained || status != LB_E_NOTFOUND;
        lb_log(LB_LOG_WARN, "cache_entry_bad", "error=\"%s\"", detail.text);
    }
    if (status != LB_OK) {
        return false;
    }
    out->first = sample->first;
    bool good = lb_answer_check(out, spec, info, sample->n, &detail) == LB_OK &&
                lb_answer_possible(out, spec->temperature, teacher, &detail) == LB_OK;
    if (!good) { /* kept by an older version, or by somebody who lied */
        lb_cache_drop(cache, key);
        lb_log(LB_LOG_WARN, "cache_entry_bad", "then=\"asked for again\" error=\"%s\"", detail.text);
    }
    return good;
}

enum lb_status lb_sample_through(const struct lb_vocab_map *map, const char *teacher,
                                 const struct lb_sample *from, struct lb_sample *out, int32_t **out_ids,
                                 struct lb_detail *detail) {
    *out = *from;
    *out_ids = NULL;
    if (!map || !from->ids) {
        return LB_OK;
    }
    if (from->extra) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "teacher %s: a question with %s cannot be asked through a trimmed vocabulary", teacher,
                       from->extra->name);
    }
    int32_t *ids = lb_malloc_array((size_t)from->n, sizeof *ids);
    for (int64_t t = 0; ids && t < from->n; t++) {
        if (from->ids[t] < 0 || from->ids[t] >= map->n) {
            lb_free(ids);
            return lb_fail(detail, LB_E_ARG, "id %d is not in the trimmed vocabulary of %d", from->ids[t],
                           map->n);
        }
        ids[t] = map->kept[from->ids[t]];
    }
    out->ids = *out_ids = ids;
    return ids ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for a question to teacher %s", teacher);
}

/* The item of a sample, in teacher k's ids: one that is there already, one from the cache, or a new one in
 * the queue; into slot. */
static enum lb_status admit_sample(struct lb_asker *asker, struct question *question,
                                   const struct lb_sample *sample, unsigned k, struct item **slot,
                                   struct lb_teachers_stats *counts, struct lb_detail *detail) {
    struct asked_teacher *teacher = &asker->teachers[k];
    const struct lb_ask_spec *spec = &question->specs[k];
    uint8_t key[LB_SHA256_BYTES];
    enum lb_status status = lb_ask_check(&teacher->is.info, sample, teacher->is.name, detail);
    if (status != LB_OK) {
        return status;
    }
    if (lb_cache_key(teacher->identity, sample, teacher->is.info.input_size, spec, key)) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a question to teacher %s", teacher->is.name);
    }
    struct item *item = lb_item_find(asker, k, key);
    bool once = sample->source == LB_SOURCE_STUDENT; /* nobody asks it again, so it isn't kept */
    counts->questions += !once;
    if (!item) {
        item = lb_item_make(asker, k, sample, spec, key);
        if (!item) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for a question to teacher %s",
                           teacher->is.name);
        }
        if (!once && lb_answer_kept(asker->options.cache, key, &teacher->is.info, teacher->is.name, spec,
                                    &item->sample, &item->arena, &asker->cache_complained, &item->answer)) {
            item->done = true;
            counts->cache_hits++;
        } else {
            lb_item_queue(asker, item, false);
        }
    }
    item->refs++;
    *slot = item;
    if (!item->done && !lb_item_wait(item, question)) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a question to teacher %s", teacher->is.name);
    }
    return LB_OK;
}

static enum lb_status admit_slot(struct lb_asker *asker, struct question *question, int64_t i, unsigned k,
                                 struct lb_teachers_stats *counts, struct lb_detail *detail) {
    const struct lb_reading *its = lb_sample_reading(&question->samples[i], k);
    const struct lb_teacher_info *info = &asker->teachers[k].is.info;
    bool knows_start = info->knows_start && info->input_size == 0 && info->num_labels == 0;
    struct lb_sample sample;
    int32_t *ids;
    if (its != NULL && !its->aligned) {
        sample = (struct lb_sample){
            .ids = its->ids, .n = its->n, .label = -1, .tag = -1, .source = question->samples[i].source};
        if (knows_start && its->n > 0) { /* what lies before its chunks doesn't count */
            sample.first = its->n_chunks > 0 ? its->chunks[0].its_at : its->n - 1;
        }
        return admit_sample(asker, question, &sample, k, &question->slots[i * question->n_teachers + k],
                            counts, detail);
    }
    struct lb_sample of = question->samples[i];
    int64_t first = lb_sample_first(&of);
    if (its != NULL) { /* another prompt before the same tokens */
        first += its->n - of.n;
        of.ids = its->ids;
        of.n = its->n;
        of.counts = NULL;
    }
    enum lb_status status =
        lb_sample_through(asker->teachers[k].is.map, asker->teachers[k].is.name, &of, &sample, &ids, detail);
    if (status == LB_OK) {
        sample.first = knows_start ? first : 0;
        status = admit_sample(asker, question, &sample, k, &question->slots[i * question->n_teachers + k],
                              counts, detail);
        lb_free(ids);
    }
    return status;
}

static void admit(struct lb_asker *asker, struct question *question) {
    struct lb_teachers_stats counts = {0};
    struct lb_detail detail = {0};
    enum lb_status status = LB_OK;
    question->pending = 1; /* so that nothing completes it half-way */
    lb_cache_hold(asker->options.cache);
    for (int64_t i = 0; status == LB_OK && i < question->n; i++) {
        for (unsigned k = 0; status == LB_OK && k < question->n_teachers; k++) {
            if (question->wanted[i * question->n_teachers + k]) {
                status = admit_slot(asker, question, i, k, &counts, &detail);
            }
        }
    }
    lb_cache_release(asker->options.cache);
    pthread_mutex_lock(&asker->lock);
    asker->stats.questions += counts.questions;
    asker->stats.cache_hits += counts.cache_hits;
    question->admitting = false;
    pthread_cond_broadcast(&asker->news);
    pthread_mutex_unlock(&asker->lock);
    if (status != LB_OK) {
        lb_asker_fail(asker, status, &detail);
    } else if (--question->pending == 0) {
        lb_question_complete(asker, question);
    }
}

static void discard(struct question *question) {
    lb_free(question->samples);
    lb_free(question->wanted);
    lb_free(question->specs);
    lb_free(question->slots);
    lb_free(question->answers);
    lb_free(question);
}

static void free_question(struct lb_asker *asker, struct question *question) {
    for (size_t i = 0; i < (size_t)question->n * question->n_teachers; i++) {
        struct item *item = question->slots[i];
        if (item && --item->refs == 0 && item->done) {
            lb_item_free(asker, item);
        }
    }
    discard(question);
}

/* Takes out one question that is released and needs no more work. Under the lock. */
static struct question *next_released(struct lb_asker *asker) {
    for (struct question **at = &asker->questions; *at; at = &(*at)->next) {
        if ((*at)->released && ((*at)->done || !(*at)->admitted)) {
            struct question *question = *at;
            *at = question->next;
            return question;
        }
    }
    return NULL;
}

static struct question *next_new(struct lb_asker *asker) {
    for (struct question *question = asker->questions; question; question = question->next) {
        if (!question->admitted) {
            question->admitted = question->admitting = true;
            return question;
        }
    }
    return NULL;
}

static struct timespec to_timespec(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / LB_SECOND_NS), .tv_nsec = (long)(ns % LB_SECOND_NS)};
}

static void *asker_thread(void *user) {
    struct lb_asker *asker = user;
    pthread_mutex_lock(&asker->lock);
    while (!asker->closing) {
        struct request *done = asker->done;
        struct question *released = next_released(asker), *fresh = NULL;
        bool failed = asker->failed != LB_OK;
        asker->done = NULL;
        asker->called = false;
        if (!failed) {
            fresh = next_new(asker);
        }
        pthread_mutex_unlock(&asker->lock);

        while (done) {
            struct request *next = done->next_done;
            lb_requests_land(asker, done);
            done = next;
        }
        if (released) {
            free_question(asker, released);
        }
        if (fresh) {
            admit(asker, fresh);
        }
        uint64_t until = failed ? lb_now_ns() + LB_SECOND_NS : lb_requests_dispatch(asker);

        pthread_mutex_lock(&asker->lock);
        if (!released && !fresh && !asker->called && !asker->closing && until > lb_now_ns()) {
            struct timespec at = to_timespec(until);
            pthread_cond_timedwait(&asker->work, &asker->lock, &at);
        }
    }
    pthread_mutex_unlock(&asker->lock);
    return NULL;
}

/* ---- life ---- */

static enum lb_status make_teacher(const struct lb_asker_options *options,
                                   const struct lb_asker_teacher *from, uint64_t stream,
                                   struct asked_teacher *teacher, struct lb_detail *detail) {
    teacher->is = *from;
    teacher->ids = lb_calloc((size_t)from->n_urls, sizeof *teacher->ids);
    if (!teacher->ids) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for teacher %s", from->name);
    }
    memcpy(teacher->ids, from->ids, (size_t)from->n_urls * sizeof *teacher->ids);
    teacher->most_tokens = teacher->limit_tokens = LB_ASK_TOKENS;
    lb_info_identity(&teacher->is.info, teacher->identity);
    enum lb_status status = from->dialect->path(&from->info, NULL, LB_PATH_INFO, &teacher->info_path, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_pool_init(&teacher->pool, from->n_urls, lb_dialect_at_once(from->dialect, &from->info), BACK_OFF_NS,
                 BACK_OFF_CAP_NS, options->seed ^ lb_mix64(stream + 1));
    teacher->pool.patience_ns = options->on_lost == LB_LOST_WAIT ? 0 : options->give_up_ns;
    for (int i = 0; i < from->n_urls; i++) {
        if (!from->reached[i]) {
            lb_pool_mark_down(&teacher->pool, i, lb_now_ns());
        }
    }
    teacher->pool.lost_ns = 0; /* its time begins when it is first asked in vain */
    return LB_OK;
}

enum lb_status lb_asker_create(const struct lb_asker_options *options,
                               const struct lb_asker_teacher *teachers, unsigned n, struct lb_asker **out,
                               struct lb_detail *detail) {
    struct lb_asker *asker = lb_calloc(1, sizeof *asker);
    if (!asker) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for questions");
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&asker->lock, NULL);
    pthread_cond_init(&asker->work, &monotonic);
    pthread_cond_init(&asker->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    asker->options = *options;
    asker->next_number = -1;
    asker->teachers = lb_calloc(n, sizeof *asker->teachers);
    enum lb_status status = LB_OK;
    if (!asker->teachers) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for %u teachers", n);
    }
    for (unsigned k = 0; k < n && status == LB_OK; k++) {
        asker->n_teachers = k + 1;
        status = make_teacher(options, &teachers[k], k, &asker->teachers[k], detail);
    }
    if (status == LB_OK && pthread_create(&asker->thread, NULL, asker_thread, asker)) {
        status = lb_fail(detail, LB_E_NOMEM, "cannot start the thread that asks teachers");
    }
    if (status != LB_OK) {
        lb_asker_destroy(asker);
        return status;
    }
    asker->running = true;
    *out = asker;
    return LB_OK;
}

void lb_asker_destroy(struct lb_asker *asker) {
    if (!asker) {
        return;
    }
    if (asker->running) {
        pthread_mutex_lock(&asker->lock);
        asker->closing = true;
        call_thread(asker);
        pthread_mutex_unlock(&asker->lock);
        pthread_join(asker->thread, NULL);
    }
    lb_requests_finish(asker);
    while (asker->questions) {
        struct question *question = asker->questions;
        asker->questions = question->next;
        free_question(asker, question);
    }
    for (size_t b = 0; b < LB_ITEM_BUCKETS; b++) { /* those that were never answered */
        while (asker->buckets[b]) {
            lb_item_free(asker, asker->buckets[b]);
        }
    }
    for (unsigned k = 0; k < asker->n_teachers; k++) {
        lb_free(asker->teachers[k].info_path);
        lb_free(asker->teachers[k].ids);
    }
    lb_free(asker->teachers);
    pthread_cond_destroy(&asker->work);
    pthread_cond_destroy(&asker->news);
    pthread_mutex_destroy(&asker->lock);
    lb_free(asker);
}

/* ---- the training loop's side ---- */

static struct question *make_question(const struct lb_asker *asker, int64_t number,
                                      const struct lb_sample *samples, int64_t n, const bool *wanted,
                                      const struct lb_ask_spec *specs) {
    struct question *question = lb_calloc(1, sizeof *question);
    if (!question) {
        return NULL;
    }
    size_t slots = (size_t)n * asker->n_teachers;
    question->number = number;
    question->n_teachers = asker->n_teachers;
    question->n = n;
    question->samples = lb_malloc_array((size_t)n, sizeof *samples);
    question->wanted = lb_malloc_array(slots, sizeof *wanted);
    question->specs = lb_malloc_array(asker->n_teachers, sizeof *question->specs);
    question->slots = lb_calloc(slots, sizeof(struct item *));
    question->answers = lb_calloc(slots, sizeof(struct lb_answer *));
    if (!question->samples || !question->wanted || !question->specs || !question->slots ||
        !question->answers) {
        discard(question);
        return NULL;
    }
    memcpy(question->samples, samples, (size_t)n * sizeof *samples);
    for (size_t i = 0; i < slots; i++) {
        question->wanted[i] = wanted ? wanted[i] : true;
    }
    for (unsigned k = 0; k < asker->n_teachers; k++) {
        lb_ask_normalise(specs ? &specs[k] : &asker->teachers[k].is.spec, &question->specs[k]);
    }
    return question;
}

/* Whether each teacher gives what it is to be asked. Those that were set have been looked at. */
static enum lb_status check_specs(const struct lb_asker *asker, const struct lb_ask_spec *specs,
                                  struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (unsigned k = 0; k < asker->n_teachers && status == LB_OK; k++) {
        const struct lb_asker_teacher *is = &asker->teachers[k].is;
        if ((specs ? specs[k].n_outputs : is->spec.n_outputs) == 0) {
            status =
                lb_fail(detail, LB_E_INTERNAL, "teacher %s was asked before it was said what for", is->name);
        } else if (specs) {
            status = is->dialect->gives(&is->info, &specs[k], is->name, detail);
        }
    }
    return status;
}

enum lb_status lb_asker_submit(struct lb_asker *asker, int64_t number, const struct lb_sample *samples,
                               int64_t n, const bool *wanted, const struct lb_ask_spec *specs,
                               struct lb_detail *detail) {
    if (n < 1 || number < 0) {
        return lb_fail(detail, LB_E_ARG, "question %lld has %lld samples", (long long)number, (long long)n);
    }
    enum lb_status status = check_specs(asker, specs, detail);
    if (status != LB_OK) {
        return status;
    }
    struct question *question = make_question(asker, number, samples, n, wanted, specs);
    if (!question) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for question %lld", (long long)number);
    }
    pthread_mutex_lock(&asker->lock);
    if (asker->failed) {
        status = lb_fail(detail, asker->failed, "%s", asker->failure.text);
    } else if (asker->next_number >= 0 && number != asker->next_number) {
        status = lb_fail(detail, LB_E_ARG, "question %lld was given where %lld comes next", (long long)number,
                         (long long)asker->next_number);
    } else {
        struct question **tail = &asker->questions;
        while (*tail) {
            tail = &(*tail)->next;
        }
        *tail = question;
        asker->next_number = number + 1;
        call_thread(asker);
    }
    pthread_mutex_unlock(&asker->lock);
    if (status != LB_OK) {
        discard(question);
    }
    return status;
}

static struct question *find_question(struct lb_asker *asker, int64_t number) {
    struct question *question = asker->questions;
    while (question && (question->number != number || question->released)) {
        question = question->next;
    }
    return question;
}

enum lb_status lb_asker_take(struct lb_asker *asker, int64_t number,
                             const struct lb_answer *const **out_answers, struct lb_detail *detail) {
    volatile sig_atomic_t *stop = asker->options.stop;
    uint64_t began = lb_now_ns();
    enum lb_status status = LB_OK;
    pthread_mutex_lock(&asker->lock);
    const struct question *question = find_question(asker, number);
    if (!question) {
        status = lb_fail(detail, LB_E_ARG, "question %lld was not asked, or is released already",
                         (long long)number);
    }
    while (status == LB_OK && !question->done) {
        if (asker->failed) {
            status = lb_fail(detail, asker->failed, "%s", asker->failure.text);
        } else if (stop && *stop) {
            status = lb_fail(detail, LB_E_CANCELLED, "stopped while waiting for teachers");
        } else {
            struct timespec at = to_timespec(lb_now_ns() + 100 * LB_MS_NS); /* a signal may have set stop */
            pthread_cond_timedwait(&asker->news, &asker->lock, &at);
        }
    }
    if (status == LB_OK) {
        *out_answers = question->answers;
    }
    asker->stats.wait_seconds += (double)(lb_now_ns() - began) / (double)LB_SECOND_NS;
    pthread_mutex_unlock(&asker->lock);
    return status;
}

void lb_asker_release(struct lb_asker *asker, int64_t number) {
    pthread_mutex_lock(&asker->lock);
    struct question *question = find_question(asker, number);
    while (question && question->admitting) { /* its samples are being read */
        pthread_cond_wait(&asker->news, &asker->lock);
    }
    if (question) {
        question->released = true;
        call_thread(asker);
    }
    pthread_mutex_unlock(&asker->lock);
}

int64_t lb_asker_next(struct lb_asker *asker) {
    pthread_mutex_lock(&asker->lock);
    int64_t next = asker->next_number >= 0 ? asker->next_number : 0;
    pthread_mutex_unlock(&asker->lock);
    return next;
}

void lb_asker_stats(struct lb_asker *asker, struct lb_teachers_stats *out) {
    pthread_mutex_lock(&asker->lock);
    *out = asker->stats;
    pthread_mutex_unlock(&asker->lock);
}
