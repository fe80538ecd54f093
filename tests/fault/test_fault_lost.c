/* Teachers that are lost: what on_lost_teacher and give_up_after mean, before the run and in it; and how
 * waiting for them ends. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "tests/support/asking.h"

#include <string.h>
#include <sys/time.h>

#define N 6

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

/* renormalise: after the time-out the other teacher goes on alone, and the lost one joins in again when it is
 * back, after so many seconds: also about what it was asked in vain, while somebody still holds that
 * question. */
static void lose_for(double seconds) {
    struct fake_teacher *a = fake_start(&(struct fake_options){0}),
                        *b = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    int port = fake_port(b);
    asking_setup(&asking);
    asking_add(&asking, fake_url(a));
    asking_add(&asking, fake_url(b));
    asking.recipe.on_lost_teacher = LB_LOST_RENORMALISE;
    asking.recipe.teacher_timeout = 1.5;
    asking.recipe.give_up_after = 1.5;
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    fake_stop(b);
    b = NULL;
    uint64_t return_ns = lb_now_ns() + (uint64_t)(seconds * (double)LB_SECOND_NS);
    bool back = false;
    int q = 0;
    struct lb_sample *first = NULL;
    for (; q < 2000 && !back; q++) {
        struct lb_sample *samples = asking_samples(N, 50 + (uint64_t)q, false);
        must(lb_teachers_submit(teachers, q, samples, N, NULL, &detail), &detail);
        must(lb_teachers_take(teachers, q, &answers, &detail), &detail);
        for (int i = 0; i < N; i++) {
            assert_true(asking_is_right(answers[2 * i], &samples[i], fake_fingerprint));
        }
        if (q < 3) {
            assert_null(answers[1]);
        } else if (!b && lb_now_ns() > return_ns) {
            b = fake_start(&(struct fake_options){.port = port});
            assert_non_null(b);
        } else if (answers[1]) {
            assert_true(asking_is_right(answers[1], &samples[0], fake_fingerprint));
            back = true;
        } else {
            lb_sleep_ns(5 * LB_MS_NS); /* a step of training */
        }
        if (q == 0) {
            first = samples;
        } else {
            lb_teachers_release(teachers, q);
            asking_free_samples(samples, N);
        }
    }
    assert_true(back);
    must(lb_teachers_submit(teachers, q, first, N, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, q, &answers, &detail), &detail);
    for (int i = 0; i < 2 * N; i++) {
        assert_true(asking_is_right(answers[i], &first[i / 2], fake_fingerprint));
    }
    lb_teachers_close(teachers);
    asking_free_samples(first, N);
    asking_teardown(&asking);
    fake_stop(a);
    fake_stop(b);
}

static void test_renormalise(void **state) {
    (void)state;
    lose_for(0);
    lose_for(4); /* longer than give_up_after and teacher_timeout together */
}

/* Replicas that are well when they are probed and hang when they are asked, in turn, so that one of them is
 * always being tried: give_up_after holds for them together. */
static void hang_in_turn(enum lb_lost_teacher on_lost, bool company, int questions, enum lb_status wanted) {
    struct fake_teacher *fakes[3];
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    for (int i = 0; i < 3; i++) {
        fakes[i] = fake_start(&(struct fake_options){0});
    }
    asking_setup(&asking);
    asking_add(&asking, fake_url(fakes[0]));
    asking_add_replica(&asking, fake_url(fakes[1]));
    if (company) {
        asking_add(&asking, fake_url(fakes[2]));
    }
    asking.recipe.on_lost_teacher = on_lost;
    asking.recipe.teacher_timeout = 1;
    asking.recipe.give_up_after = 1;
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    fake_fault(fakes[0], FAKE_HANG, -1);
    fake_fault(fakes[1], FAKE_HANG, -1);
    for (int q = 0; q < questions; q++) {
        struct lb_sample *samples = asking_samples(N, 70 + (uint64_t)q, false);
        uint64_t began = lb_now_ns();
        must(lb_teachers_submit(teachers, q, samples, N, NULL, &detail), &detail);
        assert_int_equal(lb_teachers_take(teachers, q, &answers, &detail), wanted);
        assert_true(lb_now_ns() - began < 10 * LB_SECOND_NS);
        for (int i = 0; wanted == LB_OK && i < N; i++) {
            assert_null(answers[2 * i]);
            assert_true(asking_is_right(answers[2 * i + 1], &samples[i], fake_fingerprint));
        }
        lb_teachers_release(teachers, q);
        asking_free_samples(samples, N);
    }
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    for (int i = 0; i < 3; i++) {
        fake_stop(fakes[i]);
    }
}

static void test_hanging_in_turn(void **state) {
    (void)state;
    hang_in_turn(LB_LOST_STOP, false, 1, LB_E_TIMEOUT);
    hang_in_turn(LB_LOST_RENORMALISE, false, 1, LB_E_UNAVAILABLE);
    hang_in_turn(LB_LOST_RENORMALISE, true, 4, LB_OK);
}

static volatile sig_atomic_t stop;

static void on_alarm(int signal) {
    (void)signal;
    stop = 1;
}

static void stop_in(long ms) {
    const struct itimerval timer = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};
    stop = 0;
    signal(SIGALRM, on_alarm);
    assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

/* Nobody there: stop gives up in time, wait waits until a signal, and starts as soon as the teacher does. */
static void test_unreachable(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    int port = fake_port(fake);
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    asking.recipe.on_lost_teacher = LB_LOST_STOP;
    asking.recipe.teacher_timeout = 0.4;
    asking.recipe.give_up_after = 0.4;
    fake_stop(fake);
    assert_int_equal(asking_open(&asking, &stop, &teachers, &detail), LB_E_UNAVAILABLE);
    assert_non_null(strstr(detail.text, "teacher t0 at http://127.0.0.1"));
    asking.recipe.on_lost_teacher = LB_LOST_WAIT;
    stop_in(700);
    assert_int_equal(asking_open(&asking, &stop, &teachers, NULL), LB_E_CANCELLED);
    assert_int_equal(stop, 1);
    stop = 0;
    fake = fake_start(&(struct fake_options){.port = port});
    assert_non_null(fake);
    memset(&detail, 0, sizeof detail);
    must(asking_open(&asking, &stop, &teachers, &detail), &detail);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(fake);
}

/* Away when the run began, which lived on the cache for longer than give_up_after: its time begins when it is
 * asked, and by then it is back. */
static void check_not_asked_yet(enum lb_lost_teacher on_lost) {
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    int port = fake_port(fake), q = 0;
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    struct lb_sample *known = asking_samples(N, 1, false), *others = asking_samples(N, 2, false);
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    asking_use_cache(&asking);
    asking.recipe.on_lost_teacher = on_lost;
    asking.recipe.teacher_timeout = 0.4;
    asking.recipe.give_up_after = 0.4;
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    must(lb_teachers_submit(teachers, 0, known, N, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    lb_teachers_close(teachers);
    fake_stop(fake);

    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    for (uint64_t until = lb_now_ns() + 1500 * LB_MS_NS; lb_now_ns() < until; q++) {
        must(lb_teachers_submit(teachers, q, known, N, NULL, &detail), &detail);
        must(lb_teachers_take(teachers, q, &answers, &detail), &detail);
        assert_true(asking_is_right(answers[0], &known[0], fake_fingerprint));
        lb_teachers_release(teachers, q);
        lb_sleep_ns(5 * LB_MS_NS); /* a step of training */
    }
    fake = fake_start(&(struct fake_options){.port = port});
    assert_non_null(fake);
    must(lb_teachers_submit(teachers, q, others, N, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, q, &answers, &detail), &detail);
    assert_true(asking_is_right(answers[0], &others[0], fake_fingerprint));
    lb_teachers_close(teachers);
    asking_free_samples(known, N);
    asking_free_samples(others, N);
    asking_teardown(&asking);
    fake_stop(fake);
}

static void test_not_asked_yet(void **state) {
    (void)state;
    check_not_asked_yet(LB_LOST_RENORMALISE);
    check_not_asked_yet(LB_LOST_STOP);
}

/* A teacher that was asked and does not answer. */
struct waiting {
    struct fake_teacher *fake;
    struct asking asking;
    struct lb_teachers *teachers;
    struct lb_sample *samples;
};

static void ask_in_vain(struct waiting *w, enum fake_fault fault) {
    struct lb_detail detail = {0};
    *w = (struct waiting){.fake = fake_start(&(struct fake_options){0}),
                          .samples = asking_samples(N, 1, false)};
    asking_setup(&w->asking);
    asking_add(&w->asking, fake_url(w->fake));
    w->asking.recipe.teacher_timeout = 600;
    stop = 0;
    must(asking_open(&w->asking, &stop, &w->teachers, &detail), &detail);
    fake_fault(w->fake, fault, -1);
    must(lb_teachers_submit(w->teachers, 0, w->samples, N, NULL, &detail), &detail);
}

static void end_waiting(struct waiting *w) {
    lb_teachers_release(w->teachers, 0);
    lb_teachers_close(w->teachers);
    asking_free_samples(w->samples, N);
    asking_teardown(&w->asking);
}

/* A signal ends the wait for an answer; closing calls off what is under way. */
static void test_stop_while_waiting(void **state) {
    (void)state;
    struct waiting w;
    const struct lb_answer *const *answers = NULL;
    ask_in_vain(&w, FAKE_HANG);
    stop_in(300);
    uint64_t began = lb_now_ns();
    assert_int_equal(lb_teachers_take(w.teachers, 0, &answers, NULL), LB_E_CANCELLED);
    end_waiting(&w);
    assert_true(lb_now_ns() - began < 5 * LB_SECOND_NS);
    fake_stop(w.fake);
}

/* Nobody waits for a teacher whose health can't be asked for want of memory. */
static void test_no_memory_while_lost(void **state) {
    (void)state;
    struct waiting w;
    const struct lb_answer *const *answers = NULL;
    struct lb_detail detail = {0};
    ask_in_vain(&w, FAKE_503);
    while (fake_requests(w.fake) == 0) {
        lb_sleep_ns(LB_MS_NS);
    }
    lb_mem_fail_from(1);
    enum lb_status status = lb_teachers_take(w.teachers, 0, &answers, &detail);
    lb_mem_fail_from(0);
    assert_int_equal(status, LB_E_NOMEM);
    assert_string_equal(detail.text, "out of memory for a request to teacher t0");
    end_waiting(&w);
    fake_stop(w.fake);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_renormalise),        cmocka_unit_test(test_hanging_in_turn),
        cmocka_unit_test(test_unreachable),        cmocka_unit_test(test_not_asked_yet),
        cmocka_unit_test(test_stop_while_waiting), cmocka_unit_test(test_no_memory_while_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
