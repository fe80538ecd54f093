#include "server/http/codec.h"

#include "common/base/mem.h"

#include <pthread.h>

/* Clients that wait, in the order of their turns; each is its oldest task, which leads to its others. */
struct line {
    struct lb_codec_task *first, *last;
};

struct lb_codec {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct line light, heavy;
    bool stopping;
    int n_threads, n_started;
    pthread_t threads[];
};

static void append(struct line *line, struct lb_codec_task *task) {
    task->next_client = NULL;
    *(line->last ? &line->last->next_client : &line->first) = task;
    line->last = task;
}

static void push(struct line *line, struct lb_codec_task *task) {
    task->next_same = NULL;
    task->last_same = task;
    for (struct lb_codec_task *t = line->first; t; t = t->next_client) {
        if (t->client == task->client) {
            t->last_same->next_same = task;
            t->last_same = task;
            return;
        }
    }
    append(line, task);
}

/* The task whose turn it is; its client goes to the end of the line with the next one. */
static struct lb_codec_task *pop(struct line *line) {
    struct lb_codec_task *task = line->first;
    if (!task) {
        return NULL;
    }
    line->first = task->next_client;
    line->last = line->first ? line->last : NULL;
    if (task->next_same) {
        task->next_same->last_same = task->last_same;
        append(line, task->next_same);
    }
    return task;
}

struct thread_argument {
    struct lb_codec *codec;
    bool light_only;
};

static void *work(void *argument) {
    struct thread_argument mine = *(struct thread_argument *)argument;
    struct lb_codec *codec = mine.codec;
    lb_free(argument);
    pthread_mutex_lock(&codec->lock);
    for (;;) {
        struct lb_codec_task *task = pop(&codec->light);
        task = task || mine.light_only ? task : pop(&codec->heavy);
        if (task) {
            pthread_mutex_unlock(&codec->lock);
            task->run(task);
            pthread_mutex_lock(&codec->lock);
        } else if (codec->stopping) {
            break;
        } else {
            pthread_cond_wait(&codec->work, &codec->lock);
        }
    }
    pthread_mutex_unlock(&codec->lock);
    return NULL;
}

static enum lb_status start_thread(struct lb_codec *codec, struct lb_detail *detail) {
    struct thread_argument *argument = lb_calloc(1, sizeof *argument);
    if (!argument) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting the codec's threads");
    }
    *argument = (struct thread_argument){codec, codec->n_started == 0 && codec->n_threads > 1};
    int error = pthread_create(&codec->threads[codec->n_started], NULL, work, argument);
    if (error != 0) {
        lb_free(argument);
        return lb_fail_errno(detail, LB_E_NOMEM, error, "starting a thread of the codec");
    }
    codec->n_started++;
    return LB_OK;
}

enum lb_status lb_codec_start(int threads, struct lb_codec **out, struct lb_detail *detail) {
    struct lb_codec *codec = lb_calloc(1, sizeof *codec + (size_t)threads * sizeof codec->threads[0]);
    if (!codec) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting the codec's threads");
    }
    codec->n_threads = threads;
    pthread_mutex_init(&codec->lock, NULL);
    pthread_cond_init(&codec->work, NULL);
    enum lb_status status = LB_OK;
    while (status == LB_OK && codec->n_started < threads) {
        status = start_thread(codec, detail);
    }
    if (status != LB_OK) {
        lb_codec_stop(codec);
        return status;
    }
    *out = codec;
    return LB_OK;
}

void lb_codec_stop(struct lb_codec *codec) {
    if (!codec) {
        return;
    }
    pthread_mutex_lock(&codec->lock);
    codec->stopping = true;
    pthread_cond_broadcast(&codec->work);
    pthread_mutex_unlock(&codec->lock);
    for (int i = 0; i < codec->n_started; i++) {
        pthread_join(codec->threads[i], NULL);
    }
    pthread_cond_destroy(&codec->work);
    pthread_mutex_destroy(&codec->lock);
    lb_free(codec);
}

void lb_codec_push(struct lb_codec *codec, struct lb_codec_task *task) {
    pthread_mutex_lock(&codec->lock);
    push(task->heavy ? &codec->heavy : &codec->light, task);
    /* All are woken: the one that wakes may be one that takes light tasks only. */
    pthread_cond_broadcast(&codec->work);
    pthread_mutex_unlock(&codec->lock);
}
