/* queue and clock: what threads share. Also run under the thread sanitizer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/queue.h"

#include <pthread.h>
#include <stdatomic.h>

static uint64_t in_ms(uint64_t ms) {
    return lb_now_ns() + ms * LB_MS_NS;
}

static void first_in_first_out(void **state) {
    (void)state;
    struct lb_queue *queue = lb_queue_create(3);
    int items[5];
    void *got;
    assert_int_equal(lb_queue_pop(queue, &got, 0), LB_E_TIMEOUT);
    for (int round = 0; round < 4; round++) { /* over the end of the ring */
        for (int i = 0; i < 3; i++) {
            assert_int_equal(lb_queue_push(queue, &items[i], 0), LB_OK);
        }
        assert_int_equal(lb_queue_length(queue), 3);
        assert_int_equal(lb_queue_push(queue, &items[3], 0), LB_E_TIMEOUT);
        assert_int_equal(lb_queue_pop(queue, &got, 0), LB_OK);
        assert_ptr_equal(got, &items[0]);
        assert_int_equal(lb_queue_push(queue, &items[4], 0), LB_OK);
        for (int i = 1; i < 3; i++) {
            assert_int_equal(lb_queue_pop(queue, &got, 0), LB_OK);
            assert_ptr_equal(got, &items[i]);
        }
        assert_int_equal(lb_queue_pop(queue, &got, 0), LB_OK);
        assert_ptr_equal(got, &items[4]);
    }
    lb_queue_destroy(queue);
    lb_queue_destroy(NULL);
}

static void deadlines_are_kept(void **state) {
    (void)state;
    struct lb_queue *queue = lb_queue_create(1);
    void *got = &queue;
    uint64_t before = lb_now_ns();
    assert_int_equal(lb_queue_pop(queue, &got, before + 20 * LB_MS_NS), LB_E_TIMEOUT);
    assert_true(lb_now_ns() - before >= 20 * LB_MS_NS);
    assert_ptr_equal(got, &queue); /* untouched */
    assert_int_equal(lb_queue_push(queue, &got, 1), LB_OK);
    assert_int_equal(lb_queue_push(queue, &got, 1), LB_E_TIMEOUT); /* a deadline long gone */
    before = lb_now_ns();
    assert_int_equal(lb_queue_push(queue, &got, before + 20 * LB_MS_NS), LB_E_TIMEOUT);
    assert_true(lb_now_ns() - before >= 20 * LB_MS_NS);
    lb_queue_destroy(queue);
}

static void closing_drains(void **state) {
    (void)state;
    struct lb_queue *queue = lb_queue_create(4);
    int a;
    void *got;
    assert_int_equal(lb_queue_push(queue, &a, 0), LB_OK);
    lb_queue_close(queue);
    lb_queue_close(queue);
    assert_int_equal(lb_queue_push(queue, &a, in_ms(60000)), LB_E_CANCELLED);
    assert_int_equal(lb_queue_pop(queue, &got, 0), LB_OK);
    assert_ptr_equal(got, &a);
    assert_int_equal(lb_queue_pop(queue, &got, in_ms(60000)), LB_E_CANCELLED);
    lb_queue_destroy(queue);
}

/* ---- several threads ---- */

enum { PRODUCERS = 3, CONSUMERS = 3, PER_PRODUCER = 2000 };

struct traffic {
    struct lb_queue *queue;
    atomic_int seen[PRODUCERS * PER_PRODUCER];
    int items[PRODUCERS * PER_PRODUCER];
    atomic_int next_producer, errors;
};

static void *produce(void *data) {
    struct traffic *t = data;
    int first = atomic_fetch_add(&t->next_producer, 1) * PER_PRODUCER;
    for (int i = first; i < first + PER_PRODUCER; i++) {
        t->items[i] = i;
        if (lb_queue_push(t->queue, &t->items[i], in_ms(60000)) != LB_OK) {
            atomic_fetch_add(&t->errors, 1);
        }
    }
    return NULL;
}

static void *consume(void *data) {
    struct traffic *t = data;
    void *item;
    enum lb_status status;
    while ((status = lb_queue_pop(t->queue, &item, in_ms(60000))) == LB_OK) {
        atomic_fetch_add(&t->seen[*(int *)item], 1);
    }
    if (status != LB_E_CANCELLED) {
        atomic_fetch_add(&t->errors, 1);
    }
    return NULL;
}

static void everything_arrives_once(void **state) {
    (void)state;
    struct traffic *t = lb_calloc(1, sizeof *t);
    t->queue = lb_queue_create(5);
    pthread_t producers[PRODUCERS];
    pthread_t consumers[CONSUMERS];
    for (int i = 0; i < CONSUMERS; i++) {
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, t), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_create(&producers[i], NULL, produce, t), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(producers[i], NULL);
    }
    lb_queue_close(t->queue);
    for (int i = 0; i < CONSUMERS; i++) {
        pthread_join(consumers[i], NULL);
    }
    assert_int_equal(atomic_load(&t->errors), 0);
    for (int i = 0; i < PRODUCERS * PER_PRODUCER; i++) {
        assert_int_equal(atomic_load(&t->seen[i]), 1);
    }
    lb_queue_destroy(t->queue);
    lb_free(t);
}

static void *pop_for_a_minute(void *data) {
    void *item;
    return lb_queue_pop(data, &item, in_ms(60000)) == LB_E_CANCELLED ? data : NULL;
}

static void closing_wakes_who_waits(void **state) {
    (void)state;
    struct lb_queue *queue = lb_queue_create(1);
    pthread_t waiting[2];
    uint64_t before = lb_now_ns();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&waiting[i], NULL, pop_for_a_minute, queue), 0);
    }
    lb_queue_close(queue); /* right whether they wait already or not */
    for (int i = 0; i < 2; i++) {
        void *result;
        pthread_join(waiting[i], &result);
        assert_ptr_equal(result, queue);
    }
    assert_true(lb_now_ns() - before < 30 * LB_SECOND_NS);
    lb_queue_destroy(queue);
}

static void failing_allocations(void **state) {
    (void)state;
    for (long n = 1; n <= 2; n++) {
        lb_mem_fail_from(n);
        struct lb_queue *queue = lb_queue_create(8);
        lb_mem_fail_from(0);
        assert_null(queue);
    }
    assert_null(lb_queue_create(SIZE_MAX));
    struct lb_queue *least = lb_queue_create(0); /* one place at least */
    assert_int_equal(lb_queue_push(least, &least, 0), LB_OK);
    assert_int_equal(lb_queue_push(least, &least, 0), LB_E_TIMEOUT);
    lb_queue_destroy(least);
}

static void *allocate(void *data) {
    (void)data;
    for (int i = 0; i < 1000; i++) {
        lb_free(lb_malloc_array(1, 8));
    }
    return NULL;
}

static void allocations_are_counted_across_threads(void **state) {
    (void)state;
    lb_mem_fail_from(0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, allocate, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(lb_mem_count(), 4000);
}

static void clocks_go_forward(void **state) {
    (void)state;
    uint64_t last = lb_now_ns();
    assert_true(last != 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = lb_now_ns();
        assert_true(now >= last);
        last = now;
    }
    lb_sleep_ns(3 * LB_MS_NS);
    assert_true(lb_now_ns() - last >= 3 * LB_MS_NS);
    assert_true(lb_unix_seconds() > 1.6e9); /* later than 2020 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_in_first_out),
        cmocka_unit_test(deadlines_are_kept),
        cmocka_unit_test(closing_drains),
        cmocka_unit_test(everything_arrives_once),
        cmocka_unit_test(closing_wakes_who_waits),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(allocations_are_counted_across_threads),
        cmocka_unit_test(clocks_go_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
