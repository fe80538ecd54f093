/* Texts that are gone on with: what lb_generate makes of them, a prompt after the other where they are many,
 * ends and stops; and requests that nobody wants, that are late, or come when it closes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/nn/gemm.h"
#include "server/engine/writer.h"
#include "server/metrics.h"
#include "tests/support/tiny_hosted.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define N 3
#define TOKENS 9
#define K 2

static char folder[] = "/tmp/limbeck-writer-XXXXXX";
static struct lb_hosted *llama;
static struct lb_engine *engine;
static struct lb_metrics *metrics;
static const int32_t ids[] = {4, 9, 2, 7, 7, 1, 3, 50, 60};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int n_done;

static void done(struct lb_writing *writing) {
    (void)writing;
    pthread_mutex_lock(&lock);
    n_done++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

/* Prompts of 2, 3 and 4 ids. */
static struct lb_writing *asked(double temperature, const struct lb_ends *ends) {
    struct lb_writing *w = lb_writing_create(N, TOKENS, K);
    assert_non_null(w);
    for (int64_t i = 0; i < N; i++) {
        w->prompts[i] = (struct lb_generate_prompt){
            ids + i * 2,
            2 + i,
            {.max_new_tokens = TOKENS, .temperature = temperature, .top_p = 1, .seed = 5, .ends = ends}};
    }
    w->model = llama;
    w->temperature = temperature;
    w->batch_tokens = 1000;
    w->done = done;
    return w;
}

/* Has all of them written by a writer of its own. */
static void written(struct lb_writing *const *all, int n) {
    struct lb_writer *writer = lb_writer_create(engine, metrics);
    n_done = 0;
    assert_int_equal(lb_writer_start(writer, NULL), LB_OK);
    for (int i = 0; i < n; i++) {
        assert_int_equal(lb_writer_submit(writer, all[i], NULL), LB_OK);
    }
    pthread_mutex_lock(&lock);
    while (n_done < n) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    lb_writer_close(writer, 0);
    assert_int_equal(lb_writer_join(writer), 0);
    lb_writer_destroy(writer);
}

struct taken {
    int32_t ids[N][TOKENS];
    int n[N];
};

static enum lb_status take(void *context, int64_t i, int32_t id) {
    struct taken *taken = context;
    taken->ids[i][taken->n[i]++] = id;
    return LB_OK;
}

/* Several requests at once, and prompts in batches of their own: the same texts. */
static void test_texts(void **state) {
    (void)state;
    struct lb_writing *all[4];
    for (int i = 0; i < 4; i++) {
        all[i] = asked(i % 2 ? 1.5 : 0, NULL);
        all[i]->batch_tokens = i < 2 ? 1000 : 5;
    }
    written(all, 4);
    for (int i = 0; i < 4; i++) {
        struct taken taken = {0};
        assert_int_equal(all[i]->status, LB_OK);
        assert_int_equal(lb_generate_batch(llama->model, all[i]->prompts, N, take, &taken, NULL), LB_OK);
        for (int b = 0; b < N; b++) {
            const struct lb_written *text = &all[i]->texts[b];
            assert_int_equal(text->n, TOKENS);
            assert_memory_equal(text->ids, taken.ids[b], sizeof taken.ids[b]);
            assert_false(text->stopped);
            for (int t = 0; t < TOKENS; t++) {
                assert_true(text->logprobs[t] <= text->top_logprobs[t * K]);
                assert_true(text->top_logprobs[t * K] >= text->top_logprobs[t * K + 1]);
                assert_true(i % 2 || (text->ids[t] == text->top_ids[t * K] &&
                                      text->logprobs[t] == text->top_logprobs[t * K]));
            }
        }
        lb_writing_destroy(all[i]);
    }
}

static int64_t progressed[N];
static int n_told;

static void progress(struct lb_writing *w) {
    bool more = false;
    for (int i = 0; i < N; i++) {
        more |= w->texts[i].n > progressed[i];
        assert_true(w->texts[i].n >= progressed[i] && w->texts[i].n <= TOKENS);
        progressed[i] = w->texts[i].n;
    }
    assert_true(more);
    assert_int_equal(n_done, 0);
    n_told++;
}

/* How far it is is told after each step but the last, which is the end. */
static void test_progress(void **state) {
    (void)state;
    struct lb_writing *w = asked(0, NULL);
    w->progress = progress;
    written(&w, 1);
    assert_int_equal(w->status, LB_OK);
    assert_int_equal(n_told, TOKENS - 1);
    lb_writing_destroy(w);
}

static pthread_barrier_t gate;
static const struct lb_writing *order[6 * TOKENS];
static int n_order;

static void note(struct lb_writing *w) {
    if (n_order == 0) {
        pthread_barrier_wait(&gate); /* until all of them are there */
    }
    order[n_order++] = w;
}

/* Clients take turns, however many requests one of them has. */
static void test_turns(void **state) {
    (void)state;
    struct lb_writing *all[6];
    struct lb_writer *writer = lb_writer_create(engine, metrics);
    assert_int_equal(pthread_barrier_init(&gate, NULL, 2), 0);
    assert_int_equal(lb_writer_start(writer, NULL), LB_OK);
    n_done = n_order = 0;
    for (int i = 0; i < 6; i++) {
        all[i] = asked(0, NULL);
        all[i]->turn.client = i == 4 ? (void *)&gate : (void *)&n_order; /* the fifth is another's */
        all[i]->progress = note;
        assert_int_equal(lb_writer_submit(writer, all[i], NULL), LB_OK);
    }
    pthread_barrier_wait(&gate);
    lb_writer_close(writer, UINT64_MAX);
    assert_int_equal(lb_writer_join(writer), 0);
    assert_int_equal(n_done, 6);
    assert_int_equal(n_order, 6 * (TOKENS - 1)); /* the last step is the end */
    int n = 0, others = 0, of_each[6] = {0};
    for (int i = 0; i < n_order && n < TOKENS - 1; i++) {
        for (int k = 0; k < 6; k++) {
            of_each[k] += order[i] == all[k];
        }
        n += order[i] == all[4];
        others += order[i] != all[4];
    }
    assert_in_range(others, TOKENS - 2, TOKENS + 1); /* one of theirs for each of its own */
    for (int k = 0; k < 6; k++) {
        assert_true(k == 4 || (of_each[k] >= 1 && of_each[k] <= 3)); /* and those in turn */
    }
    lb_writer_destroy(writer);
    for (int i = 0; i < 6; i++) {
        lb_writing_destroy(all[i]);
    }
    pthread_barrier_destroy(&gate);
}

/* An id that is a stop, and one that ends texts, is the last one. */
static void test_ends(void **state) {
    (void)state;
    struct lb_writing *plain = asked(0, NULL);
    written(&plain, 1);
    int32_t stop = plain->texts[0].ids[3];
    int at = 0;
    while (plain->texts[0].ids[at] != stop) {
        at++;
    }
    const struct lb_ends ends = {.n = 1, .ids = {stop}};
    struct lb_writing *both[] = {asked(0, NULL), asked(0, &ends)};
    both[0]->stop_ids = &stop;
    both[0]->n_stop_ids = 1;
    written(both, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(both[i]->status, LB_OK);
        assert_true(both[i]->texts[0].stopped);
        assert_int_equal(both[i]->texts[0].n, at + 1);
        assert_int_equal(both[i]->texts[0].stop_id, i ? -1 : stop);
        lb_writing_destroy(both[i]);
    }
    lb_writing_destroy(plain);
}

static void test_unwanted(void **state) {
    (void)state;
    static atomic_bool gone = true;
    struct lb_writing *all[] = {asked(0, NULL), asked(0, NULL), asked(0, NULL)};
    all[0]->gone = &gone;
    all[1]->deadline_ns = 1;
    written(all, 3);
    assert_int_equal(all[0]->status, LB_E_CANCELLED);
    assert_int_equal(all[1]->status, LB_E_TIMEOUT);
    assert_int_equal(all[2]->status, LB_OK);
    assert_int_equal(all[0]->texts[0].n, 0);
    struct lb_buf told;
    lb_buf_init(&told, 1 << 20);
    assert_int_equal(lb_metrics_write(metrics, NULL, 0, &told), LB_OK);
    assert_non_null(strstr(told.data, "\nlimbeckd_deadline_expired_total{model=\"llama\"} 1\n"));
    lb_buf_finish(&told);
    /* what is there when time is up ends, and nothing more is taken */
    struct lb_writer *writer = lb_writer_create(engine, metrics);
    struct lb_writing *late = asked(0, NULL);
    assert_int_equal(lb_writer_submit(writer, late, NULL), LB_E_UNAVAILABLE); /* not started */
    assert_int_equal(lb_writer_start(writer, NULL), LB_OK);
    lb_writer_close(writer, 0);
    assert_int_equal(lb_writer_join(writer), 0);
    assert_int_equal(lb_writer_submit(writer, late, NULL), LB_E_UNAVAILABLE);
    assert_int_equal(lb_writer_state(writer).requests, 0);
    lb_writer_destroy(writer);
    lb_writing_destroy(late);
    for (int i = 0; i < 3; i++) {
        lb_writing_destroy(all[i]);
    }
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    assert_non_null(mkdtemp(folder));
    lb_tiny_llama(&config);
    llama = lb_tiny_hosted(folder, "llama", &config);
    metrics = lb_metrics_create();
    engine = lb_engine_create(NULL, metrics, NULL, (size_t)64 << 20);
    assert_true(engine && metrics);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lb_engine_destroy(engine);
    lb_metrics_destroy(metrics);
    lb_hosted_release(llama);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
    return 0;
}

int main(int argc, char **argv) {
    (void)argc;
    lb_gemm_setup(0, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_texts), cmocka_unit_test(test_progress),
                                       cmocka_unit_test(test_turns), cmocka_unit_test(test_ends),
                                       cmocka_unit_test(test_unwanted)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
