#include "server/http/codec.h"

#include "common/base/mem.h"

#include <pthread.h>
#include <stddef.h>

struct lb_codec {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct lb_turns light, heavy;
    bool stopping;
    int n_threads, n_started;
    pthread_t threads[];
};

/* The task whose turn it is in a line; NULL: none waits. */
static struct lb_codec_task *take(struct lb_turns *line) {
    struct lb_turn *turn = lb_turns_take(line);
    return turn ? (struct lb_codec_task *)(void *)((char *)turn - offsetof(struct lb_codec_task, turn))
                : NULL;
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
        struct lb_codec_task *task = take(&codec->light);
        task = task || mine.light_only ? task : take(&codec->heavy);
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
    lb_turns_put(task->heavy ? &codec->heavy : &codec->light, &task->turn);
    /* All are woken: the one that wakes may be one that takes light tasks only. */
    pthread_cond_broadcast(&codec->work);
    pthread_mutex_unlock(&codec->lock);
}
