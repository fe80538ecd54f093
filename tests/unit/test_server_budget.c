/* Memory shared among clients, and the codec's lines: nobody has all of it, small ones are always served. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "server/http/budget.h"
#include "server/http/codec.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define MIB ((size_t)1 << 20)

static struct lb_budget *budget;

static struct lb_holding of(const char *name) {
    struct lb_client *client = lb_client_get(budget, name);
    assert_non_null(client);
    return (struct lb_holding){.client = client};
}

/* How much a request of this client gets, in MiB, until it is told no. */
static size_t grab(struct lb_holding *h) {
    size_t n = 0;
    while (lb_hold(h, 2 * MIB)) {
        n += 2;
    }
    return n;
}

static void test_shares(void **state) {
    (void)state;
    budget = lb_budget_create(128 * MIB);
    struct lb_holding a = of("a"), b = of("b"), c = of("c"), again = of("a");
    assert_int_equal(lb_budget_largest(budget), 56 * MIB);
    assert_int_equal(grab(&a), 56);        /* alone: half of all but the kept eighth */
    assert_int_equal(grab(&again), 0);     /* one client, however many requests */
    assert_true(lb_hold(&again, MIB / 2)); /* a small one all the same */
    lb_unhold(&again, MIB / 2);
    assert_int_equal(grab(&b), 36);
    assert_true(grab(&c) >= 20); /* the third still finds room */
    lb_unhold(&a, 40 * MIB);
    assert_int_equal(lb_budget_used(budget), a.bytes + b.bytes + c.bytes + again.bytes);
    lb_holding_finish(&a);
    lb_holding_finish(&again);
    lb_holding_finish(&b);
    lb_holding_finish(&c);
    assert_int_equal(lb_budget_used(budget), 0);
    lb_budget_destroy(budget);
}

/* When large requests hold all they can, small ones are served; not all of them by one client. */
static void test_small_ones(void **state) {
    (void)state;
    budget = lb_budget_create(64 * MIB);
    struct lb_holding large[8], small[64];
    char name[32];
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "large %d", i);
        large[i] = of(name);
        while (lb_hold(&large[i], 3 * MIB)) {
        }
    }
    int n = 0;
    for (; n < 64; n++) {
        small[n] = of("large 0"); /* even one of theirs */
        if (!lb_hold(&small[n], MIB / 4)) {
            break;
        }
    }
    assert_int_equal(n, 16); /* half of the kept 8 MiB */
    struct lb_holding other = of("other");
    assert_true(lb_hold(&other, MIB / 4));
    assert_false(lb_hold(&other, 40 * MIB)); /* no longer small: what it has stays */
    assert_int_equal(other.bytes, MIB / 4);
    lb_hold_as(&other, lb_client_get(budget, "renamed"));
    assert_int_equal(other.bytes, MIB / 4);
    lb_holding_finish(&other);
    for (int i = 0; i <= n; i++) {
        lb_holding_finish(&small[i]);
    }
    for (int i = 0; i < 8; i++) {
        lb_holding_finish(&large[i]);
    }
    assert_int_equal(lb_budget_used(budget), 0);
    lb_budget_destroy(budget);
}

static void test_connections(void **state) {
    (void)state;
    budget = lb_budget_create(MIB);
    struct lb_client *client = lb_client_get(budget, "address 10.0.0.1");
    assert_true(lb_client_connect(client, 2));
    assert_true(lb_client_connect(client, 2));
    assert_false(lb_client_connect(client, 2));
    lb_client_disconnect(client);
    assert_true(lb_client_connect(client, 2));
    assert_ptr_equal(lb_client_get(budget, "address 10.0.0.1"), client);
    lb_client_release(client);
    lb_client_release(client);
    lb_budget_destroy(budget);
}

/* ---- the codec ---- */

struct job {
    struct lb_codec_task task;
    int order;
};

static atomic_int n_run, n_done;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void run(struct lb_codec_task *task) {
    ((struct job *)(void *)task)->order = atomic_fetch_add(&n_run, 1);
    atomic_fetch_add(&n_done, 1); /* and the order can be read */
}

static void wait_at_gate(struct lb_codec_task *task) {
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    run(task);
}

/* While one thread is held up by something heavy, light tasks are done; of the heavy ones clients take turns.
 */
static void test_turns(void **state) {
    (void)state;
    struct lb_codec *codec = NULL;
    struct job blocker = {.task = {.run = wait_at_gate, .turn = {.client = "x"}, .heavy = true}}, light[3],
               heavy[6];
    const char *const clients[] = {"a", "a", "a", "a", "b", "b"};
    const int order[] = {4, 6, 8, 9, 5, 7};
    n_run = n_done = 0;
    assert_int_equal(lb_codec_start(2, &codec, NULL), LB_OK);
    pthread_mutex_lock(&gate);
    lb_codec_push(codec, &blocker.task);
    for (int i = 0; i < 6; i++) {
        heavy[i] = (struct job){.task = {.run = run, .turn = {.client = clients[i]}, .heavy = true}};
        lb_codec_push(codec, &heavy[i].task);
    }
    for (int i = 0; i < 3; i++) {
        light[i] = (struct job){.task = {.run = run, .turn = {.client = "a"}}};
        lb_codec_push(codec, &light[i].task);
    }
    while (atomic_load(&n_done) < 3) {
    }
    assert_int_equal(light[0].order + light[1].order + light[2].order, 0 + 1 + 2);
    pthread_mutex_unlock(&gate);
    lb_codec_stop(codec);
    assert_int_equal(blocker.order, 3);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(heavy[i].order, order[i]);
    }
}

/* However many heavy ones there are, a thread is left for the light ones. */
static void test_light_thread(void **state) {
    (void)state;
    struct lb_codec *codec = NULL;
    struct job heavy[3], light[20];
    n_run = n_done = 0;
    assert_int_equal(lb_codec_start(2, &codec, NULL), LB_OK);
    pthread_mutex_lock(&gate);
    for (int i = 0; i < 3; i++) {
        heavy[i] = (struct job){.task = {.run = wait_at_gate, .turn = {.client = "a"}, .heavy = true}};
        lb_codec_push(codec, &heavy[i].task);
    }
    /* One after the other: between them its thread is free to take something heavy. */
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    for (int i = 0; i < 20; i++) {
        light[i] = (struct job){.task = {.run = run, .turn = {.client = "a"}}};
        lb_codec_push(codec, &light[i].task);
        while (atomic_load(&n_done) <= i && lb_now_ns() < until) {
            lb_sleep_ns(LB_MS_NS / 10);
        }
    }
    pthread_mutex_unlock(&gate);
    lb_codec_stop(codec);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(light[i].order, i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),       cmocka_unit_test(test_small_ones),
        cmocka_unit_test(test_connections),  cmocka_unit_test(test_turns),
        cmocka_unit_test(test_light_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
