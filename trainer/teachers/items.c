#include "common/base/mem.h"
#include "trainer/teachers/parts.h"

#include <string.h>

static struct item **bucket_of(struct lb_asker *asker, const uint8_t key[LB_SHA256_BYTES]) {
    return &asker->buckets[(key[0] | (unsigned)key[1] << 8) % LB_ITEM_BUCKETS];
}

struct item *lb_item_find(struct lb_asker *asker, unsigned teacher, const uint8_t key[LB_SHA256_BYTES]) {
    for (struct item *item = *bucket_of(asker, key); item; item = item->next_in_bucket) {
        if (item->teacher == teacher && !item->lost && !memcmp(item->key, key, LB_SHA256_BYTES)) {
            return item;
        }
    }
    return NULL;
}

void lb_item_free(struct lb_asker *asker, struct item *item) {
    struct item **at = bucket_of(asker, item->key);
    while (*at && *at != item) {
        at = &(*at)->next_in_bucket;
    }
    if (*at) {
        *at = item->next_in_bucket;
    }
    lb_arena_finish(&item->arena);
    lb_free(item->waiting);
    lb_free(item);
}

static bool copy_extra(const struct lb_sample *sample, struct lb_arena *arena, struct lb_sample *out) {
    size_t n = (size_t)(sample->n * sample->extra->width);
    struct lb_extra *extra = lb_arena_array(arena, 1, sizeof *extra);
    const char *name = lb_arena_strdup(arena, sample->extra->name);
    int32_t *values = lb_arena_array(arena, n, sizeof *values);
    if (!extra || !name || !values) {
        return false;
    }
    memcpy(values, sample->extra->values, n * sizeof *values);
    *extra = (struct lb_extra){name, values, sample->extra->width};
    out->extra = extra;
    return true;
}

/* A copy of the sample that lives as long as the item. */
static bool copy_sample(const struct lb_sample *sample, int64_t n_features, struct lb_arena *arena,
                        struct lb_sample *out) {
    *out = *sample;
    size_t bytes =
        sample->features ? (size_t)n_features * sizeof(float) : (size_t)sample->n * sizeof(int32_t);
    void *copy = lb_arena_alloc(arena, bytes ? bytes : 1);
    if (!copy) {
        return false;
    }
    memcpy(copy, sample->features ? (const void *)sample->features : sample->ids, bytes);
    out->features = sample->features ? copy : NULL;
    out->ids = sample->features ? NULL : copy;
    out->counts = NULL;   /* nobody asks about it, */
    out->readings = NULL; /* nor about these: this is one of them, or there is none */
    return !sample->extra || copy_extra(sample, arena, out);
}

struct item *lb_item_make(struct lb_asker *asker, unsigned k, const struct lb_sample *sample,
                          const struct lb_ask_spec *spec, const uint8_t key[LB_SHA256_BYTES]) {
    struct item *item = lb_calloc(1, sizeof *item);
    if (!item) {
        return NULL;
    }
    item->teacher = k;
    item->avoid = -1;
    item->spec = *spec;
    memcpy(item->key, key, LB_SHA256_BYTES);
    lb_arena_init(&item->arena, LB_MAX_RESPONSE_BYTES + ((size_t)1 << 20));
    struct item **bucket = bucket_of(asker, key);
    item->next_in_bucket = *bucket;
    *bucket = item;
    if (!copy_sample(sample, asker->teachers[k].is.info.input_size, &item->arena, &item->sample)) {
        lb_item_free(asker, item);
        return NULL;
    }
    return item;
}

void lb_item_queue(struct lb_asker *asker, struct item *item, bool first) {
    struct asked_teacher *teacher = &asker->teachers[item->teacher];
    struct item **at = &teacher->queue;
    while (!first && *at) {
        at = &(*at)->next_in_queue;
    }
    item->next_in_queue = *at;
    *at = item;
    teacher->queued_tokens += item->sample.n;
}

struct item *lb_item_unqueue(struct asked_teacher *teacher) {
    struct item *item = teacher->queue;
    teacher->queue = item->next_in_queue;
    teacher->queued_tokens -= item->sample.n;
    return item;
}

bool lb_item_wait(struct item *item, struct question *question) {
    if (item->n_waiting == item->cap_waiting) {
        size_t cap = item->cap_waiting ? item->cap_waiting * 2 : 2;
        struct question **longer = lb_realloc_array(item->waiting, cap, sizeof *longer);
        if (!longer) {
            return false;
        }
        item->waiting = longer;
        item->cap_waiting = cap;
    }
    item->waiting[item->n_waiting++] = question;
    question->pending++;
    return true;
}

void lb_question_complete(struct lb_asker *asker, struct question *question) {
    size_t n = (size_t)question->n * question->n_teachers;
    pthread_mutex_lock(&asker->lock);
    for (size_t i = 0; i < n; i++) {
        const struct item *item = question->slots[i];
        question->answers[i] = item && !item->lost ? &item->answer : NULL;
    }
    question->done = true;
    pthread_cond_broadcast(&asker->news);
    pthread_mutex_unlock(&asker->lock);
}

void lb_item_settle(struct lb_asker *asker, struct item *item, bool lost) {
    item->done = true;
    item->lost = lost;
    for (size_t i = 0; i < item->n_waiting; i++) {
        if (--item->waiting[i]->pending == 0) {
            lb_question_complete(asker, item->waiting[i]);
        }
    }
    item->n_waiting = 0;
}

void lb_asker_fail(struct lb_asker *asker, enum lb_status status, const struct lb_detail *detail) {
    pthread_mutex_lock(&asker->lock);
    if (!asker->failed) {
        asker->failed = status;
        asker->failure = *detail;
    }
    pthread_cond_broadcast(&asker->news);
    pthread_mutex_unlock(&asker->lock);
}
