/* Teachers that are slow, dead, lying or somebody else: a right answer in the end, or a clear error; never a
 * hang, never a wrong number. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "tests/support/asking.h"
#include "trainer/wire/metadata.h"

#include <stdio.h>
#include <string.h>

#define N 6

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

/* One fake, one recipe, one run. */
struct scene {
    struct fake_teacher *fake;
    struct asking asking;
    struct lb_teachers *teachers;
    struct lb_sample *samples;
    struct lb_detail detail;
};

static void open_scene(struct scene *scene, enum lb_lost_teacher on_lost, double timeout) {
    memset(scene, 0, sizeof *scene);
    scene->fake = fake_start(&(struct fake_options){0});
    assert_non_null(scene->fake);
    scene->samples = asking_samples(N, 11, false);
    asking_setup(&scene->asking);
    asking_add(&scene->asking, fake_url(scene->fake));
    scene->asking.recipe.on_lost_teacher = on_lost;
    scene->asking.recipe.teacher_timeout = timeout;
    scene->asking.recipe.give_up_after = timeout;
    must(asking_open(&scene->asking, NULL, &scene->teachers, &scene->detail), &scene->detail);
}

static void close_scene(struct scene *scene) {
    lb_teachers_close(scene->teachers);
    fake_stop(scene->fake);
    asking_free_samples(scene->samples, N);
    asking_teardown(&scene->asking);
}

static void submit(struct scene *scene, int64_t number) {
    memset(&scene->detail, 0, sizeof scene->detail);
    must(lb_teachers_submit(scene->teachers, number, scene->samples, N, NULL, &scene->detail),
         &scene->detail);
}

static enum lb_status ask(struct scene *scene, int64_t number, const struct lb_answer *const **answers) {
    submit(scene, number);
    return lb_teachers_take(scene->teachers, number, answers, &scene->detail);
}

static void check_answers(const struct scene *scene, const struct lb_answer *const *answers,
                          const char *fingerprint) {
    for (int i = 0; i < N; i++) {
        assert_true(asking_is_right(answers[i], &scene->samples[i], fingerprint));
    }
}

/* Twice in trouble, then well: the answers are right, and came by asking again. */
static void test_passing_trouble(void **state) {
    (void)state;
    static const struct {
        enum fake_fault fault;
        double timeout;
        unsigned least_retries;
    } cases[] = {
        {FAKE_SLOW, 5, 0},
        {FAKE_HANG, 1.5, 2},
        {FAKE_CLOSE, 5, 1},
        {FAKE_CLOSE_MID_BODY, 5, 2},
        {FAKE_500, 5, 2},
        {FAKE_503, 5, 2},
        {FAKE_413, 5, 1},
        {FAKE_WRONG_DIGEST, 5, 2},
        {FAKE_NO_DIGEST, 5, 2},
        {FAKE_WRONG_SHAPE, 5, 2},
        {FAKE_WRONG_DATATYPE, 5, 2},
        {FAKE_WRONG_LENGTH, 5, 2},
        {FAKE_MISSING_OUTPUT, 5, 2},
        {FAKE_FLIPPED, 5, 2},
        {FAKE_SWAPPED, 5, 2},
        {FAKE_ZEROED, 5, 2},
        {FAKE_NO_ANSWER_DIGEST, 5, 2},
        {FAKE_WILD_ID, 5, 2},
        {FAKE_HUGE, 5, 2},
        {FAKE_GARBAGE, 5, 2},
        {FAKE_NO_HTTP, 5, 2},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    static struct scene scenes[CASES]; /* all at the same time: most of it is waiting */
    for (size_t c = 0; c < CASES; c++) {
        open_scene(&scenes[c], LB_LOST_WAIT, cases[c].timeout);
        fake_fault(scenes[c].fake, cases[c].fault, cases[c].fault == FAKE_413 ? -1 : 2);
        submit(&scenes[c], 0);
    }
    for (size_t c = 0; c < CASES; c++) {
        struct lb_teachers_stats stats;
        const struct lb_answer *const *answers = NULL;
        enum lb_status status = lb_teachers_take(scenes[c].teachers, 0, &answers, &scenes[c].detail);
        if (status != LB_OK) {
            fail_msg("fault %d: %s: %s", (int)cases[c].fault, lb_status_name(status), scenes[c].detail.text);
        }
        for (int i = 0; i < N; i++) {
            if (!asking_is_right(answers[i], &scenes[c].samples[i], fake_fingerprint)) {
                fail_msg("fault %d: a wrong answer", (int)cases[c].fault);
            }
        }
        lb_teachers_stats(scenes[c].teachers, &stats);
        assert_true(stats.retries >= cases[c].least_retries);
        assert_int_equal(stats.retries, stats.failures);
        assert_int_equal(fake_sequences(scenes[c].fake), N);
        close_scene(&scenes[c]);
    }
}

/* In trouble for good: the status and the words that a person needs. */
static void test_lasting_trouble(void **state) {
    (void)state;
    static const struct {
        enum fake_fault fault;
        enum lb_status status;
        const char *word;
    } cases[] = {
        {FAKE_500, LB_E_INTERNAL, "the fake has a bug"},
        {FAKE_503, LB_E_UNAVAILABLE, "loading"},
        {FAKE_CLOSE, LB_E_UNAVAILABLE, "on_lost_teacher"},
        {FAKE_CLOSE_MID_BODY, LB_E_UNAVAILABLE, "on_lost_teacher"},
        {FAKE_HANG, LB_E_TIMEOUT, "on_lost_teacher"},
        {FAKE_400, LB_E_ARG, "no such thing"},
        {FAKE_REDIRECT, LB_E_FORMAT, "redirect"},
        {FAKE_WRONG_DIGEST, LB_E_MISMATCH, "another question"},
        {FAKE_NO_DIGEST, LB_E_FORMAT, LB_HEADER_DIGEST},
        {FAKE_WRONG_SHAPE, LB_E_FORMAT, "hidden_states.final has shape"},
        {FAKE_WRONG_DATATYPE, LB_E_FORMAT, "FP16"},
        {FAKE_WRONG_LENGTH, LB_E_FORMAT, ""},
        {FAKE_MISSING_OUTPUT, LB_E_FORMAT, "logsumexp"},
        {FAKE_FLIPPED, LB_E_FORMAT, "digest"},
        {FAKE_SWAPPED, LB_E_FORMAT, "digest"},
        {FAKE_ZEROED, LB_E_FORMAT, "digest"},
        {FAKE_NO_ANSWER_DIGEST, LB_E_FORMAT, "digest"},
        {FAKE_WILD_ID, LB_E_FORMAT, "names id 1048576"},
        {FAKE_WRONG_FINGERPRINT, LB_E_MISMATCH, fake_other_fingerprint},
        {FAKE_WRONG_COMPUTE, LB_E_MISMATCH, "other kernels"},
        {FAKE_HUGE, LB_E_LIMIT, "larger than"},
        {FAKE_GARBAGE, LB_E_FORMAT, ""},
        {FAKE_NO_HTTP, LB_E_FORMAT, ""},
        {FAKE_401, LB_E_DENIED, "token_file"},
        {FAKE_403, LB_E_DENIED, "token"},
        {FAKE_501, LB_E_UNSUPPORTED, "not here"},
        {FAKE_NAN, LB_E_FORMAT, "not finite"},
        {FAKE_TWICE, LB_E_FORMAT, "twice"},
        {FAKE_LOW_SUM, LB_E_FORMAT, "logsumexp"},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    static struct scene scenes[CASES];
    uint64_t began = lb_now_ns();
    for (size_t c = 0; c < CASES; c++) {
        open_scene(&scenes[c], LB_LOST_STOP, 1);
        fake_fault(scenes[c].fake, cases[c].fault, -1);
        submit(&scenes[c], 0);
    }
    for (size_t c = 0; c < CASES; c++) {
        struct scene *scene = &scenes[c];
        const struct lb_answer *const *answers = NULL;
        enum lb_status status = lb_teachers_take(scene->teachers, 0, &answers, &scene->detail);
        if (status != cases[c].status || !strstr(scene->detail.text, cases[c].word) ||
            !strstr(scene->detail.text, "teacher t0")) {
            fail_msg("fault %d: %s: %s", (int)cases[c].fault, lb_status_name(status), scene->detail.text);
        }
        /* It stays that way. */
        assert_int_equal(lb_teachers_submit(scene->teachers, 1, scene->samples, N, NULL, NULL), status);
        close_scene(scene);
    }
    assert_true(lb_now_ns() - began < 30 * LB_SECOND_NS);
}

/* However large the answers are that metadata lead to expect: more than an answer may have is not received.
 */
static void test_bound_of_answers(void **state) {
    (void)state;
    struct scene scene = {0};
    const struct lb_answer *const *answers = NULL;
    scene.fake = fake_start(&(struct fake_options){.hidden_size = 1 << 30});
    scene.samples = asking_samples(N, 11, false);
    asking_setup(&scene.asking);
    asking_add(&scene.asking, fake_url(scene.fake));
    scene.asking.recipe.on_lost_teacher = LB_LOST_STOP;
    scene.asking.recipe.give_up_after = 1;
    must(asking_open(&scene.asking, NULL, &scene.teachers, &scene.detail), &scene.detail);
    fake_fault(scene.fake, FAKE_HUGE, -1);
    assert_int_equal(ask(&scene, 0, &answers), LB_E_LIMIT);
    assert_non_null(strstr(scene.detail.text, "larger than the 1073741824 bytes"));
    close_scene(&scene);
}

/* Waiting is for teachers that are away: one that answers wrongly for good ends the run all the same, and at
 * once where it names another model, whatever its metadata say. */
static void test_wait_has_an_end(void **state) {
    (void)state;
    static const enum fake_fault faults[] = {FAKE_WRONG_FINGERPRINT, FAKE_WRONG_COMPUTE, FAKE_FLIPPED};
    for (size_t c = 0; c < sizeof faults / sizeof *faults; c++) {
        struct scene scene;
        const struct lb_answer *const *answers = NULL;
        bool other = faults[c] != FAKE_FLIPPED;
        open_scene(&scene, LB_LOST_WAIT, other ? 120 : 1);
        fake_fault(scene.fake, faults[c], -1);
        uint64_t began = lb_now_ns();
        assert_int_equal(ask(&scene, 0, &answers), other ? LB_E_MISMATCH : LB_E_FORMAT);
        assert_true(lb_now_ns() - began < 30 * LB_SECOND_NS);
        close_scene(&scene);
    }
}

static void test_retry_after_is_honoured(void **state) {
    (void)state;
    struct scene scene;
    const struct lb_answer *const *answers = NULL;
    open_scene(&scene, LB_LOST_WAIT, 10);
    fake_fault(scene.fake, FAKE_503_RETRY_AFTER, 1);
    uint64_t began = lb_now_ns();
    must(ask(&scene, 0, &answers), &scene.detail);
    assert_true(lb_now_ns() - began >= LB_SECOND_NS);
    assert_int_equal(fake_requests(scene.fake), 2);
    check_answers(&scene, answers, fake_fingerprint);
    close_scene(&scene);
}

/* After an answer to another question, or from before the teacher moved, caches in between are told not to
 * answer. */
static void check_passed_by(enum fake_fault fault) {
    struct scene scene;
    const struct lb_answer *const *answers = NULL;
    open_scene(&scene, LB_LOST_WAIT, 5);
    fake_fault(scene.fake, fault, 1);
    must(ask(&scene, 0, &answers), &scene.detail);
    assert_true(fake_saw_no_cache(scene.fake));
    check_answers(&scene, answers, fake_fingerprint);
    struct lb_sample *others = asking_samples(N, 99, false);
    must(lb_teachers_submit(scene.teachers, 1, others, N, NULL, &scene.detail), &scene.detail);
    must(lb_teachers_take(scene.teachers, 1, &answers, &scene.detail), &scene.detail);
    assert_false(fake_saw_no_cache(scene.fake));
    close_scene(&scene);
    asking_free_samples(others, N);
}

static void test_caches_are_passed_by(void **state) {
    (void)state;
    check_passed_by(FAKE_WRONG_DIGEST);
    check_passed_by(FAKE_WRONG_COMPUTE);
    check_passed_by(FAKE_FLIPPED);
}

/* A head whose bits changed on the way is fetched again, and never used. */
static void test_flipped_head(void **state) {
    (void)state;
    struct scene scene;
    const struct lb_teacher_head *head = NULL;
    open_scene(&scene, LB_LOST_WAIT, 5);
    fake_fault(scene.fake, FAKE_FLIPPED_HEAD, 2);
    must(lb_teachers_head(scene.teachers, 0, &head, &scene.detail), &scene.detail);
    assert_int_equal(fake_heads(scene.fake), 3);
    for (int64_t i = 0; i < 50 * 6; i++) {
        assert_true(head->weight[i] == (float)i / 16);
    }
    close_scene(&scene);
}

/* Killed in the middle and started again on the same port: nothing is missing, nothing out of order. */
static void test_killed_and_restarted(void **state) {
    (void)state;
    enum { QUESTIONS = 12 };
    struct scene scene;
    struct lb_sample *samples[QUESTIONS];
    const struct lb_answer *const *answers = NULL;
    open_scene(&scene, LB_LOST_WAIT, 5);
    int port = fake_port(scene.fake);
    for (int q = 0; q < QUESTIONS; q++) {
        samples[q] = asking_samples(N, 1000 + (uint64_t)q, false);
        must(lb_teachers_submit(scene.teachers, q, samples[q], N, NULL, &scene.detail), &scene.detail);
        if (q == 4) {
            fake_stop(scene.fake);
            scene.fake = NULL;
        }
        if (q == 8) {
            scene.fake = fake_start(&(struct fake_options){.port = port});
            assert_non_null(scene.fake);
        }
    }
    for (int q = 0; q < QUESTIONS; q++) {
        must(lb_teachers_take(scene.teachers, q, &answers, &scene.detail), &scene.detail);
        for (int i = 0; i < N; i++) {
            assert_true(asking_is_right(answers[i], &samples[q][i], fake_fingerprint));
        }
        lb_teachers_release(scene.teachers, q);
    }
    close_scene(&scene);
    for (int q = 0; q < QUESTIONS; q++) {
        asking_free_samples(samples[q], N);
    }
}

static void test_restarted_as_another(void **state) {
    (void)state;
    struct scene scene;
    const struct lb_answer *const *answers = NULL;
    open_scene(&scene, LB_LOST_WAIT, 5);
    must(ask(&scene, 0, &answers), &scene.detail);
    lb_teachers_release(scene.teachers, 0);
    int port = fake_port(scene.fake);
    fake_stop(scene.fake);
    scene.fake = fake_start(&(struct fake_options){.port = port, .fingerprint = fake_other_fingerprint});
    assert_non_null(scene.fake);
    struct lb_sample *others = asking_samples(N, 5, false);
    must(lb_teachers_submit(scene.teachers, 1, others, N, NULL, &scene.detail), &scene.detail);
    assert_int_equal(lb_teachers_take(scene.teachers, 1, &answers, &scene.detail), LB_E_MISMATCH);
    assert_non_null(strstr(scene.detail.text, fake_fingerprint));
    assert_non_null(strstr(scene.detail.text, fake_other_fingerprint));
    close_scene(&scene);
    asking_free_samples(others, N);
}

static void test_a_dead_replica(void **state) {
    (void)state;
    struct scene scene = {0};
    struct lb_teachers_stats stats;
    struct fake_teacher *other = fake_start(&(struct fake_options){0});
    scene.fake = fake_start(&(struct fake_options){0});
    asking_setup(&scene.asking);
    asking_add(&scene.asking, fake_url(scene.fake));
    asking_add_replica(&scene.asking, fake_url(other));
    scene.asking.recipe.on_lost_teacher = LB_LOST_STOP;
    must(asking_open(&scene.asking, NULL, &scene.teachers, &scene.detail), &scene.detail);
    fake_stop(other);
    for (int q = 0; q < 5; q++) {
        const struct lb_answer *const *answers = NULL;
        scene.samples = asking_samples(N, (uint64_t)q, false);
        must(ask(&scene, q, &answers), &scene.detail);
        check_answers(&scene, answers, fake_fingerprint);
        lb_teachers_release(scene.teachers, q);
        asking_free_samples(scene.samples, N);
    }
    lb_teachers_stats(scene.teachers, &stats);
    assert_int_equal(fake_sequences(scene.fake), 5 * N);
    assert_true(stats.retries >= 1);
    scene.samples = NULL;
    close_scene(&scene);
}

/* Whatever is wrong with one replica, the run goes on with the other, and uses it again once it is well. */
static void test_one_bad_replica(void **state) {
    (void)state;
    static const enum fake_fault faults[] = {FAKE_400,
                                             FAKE_401,
                                             FAKE_403,
                                             FAKE_413,
                                             FAKE_501,
                                             FAKE_REDIRECT,
                                             FAKE_500,
                                             FAKE_CLOSE,
                                             FAKE_NAN,
                                             FAKE_TWICE,
                                             FAKE_LOW_SUM,
                                             FAKE_GARBAGE,
                                             FAKE_NO_HTTP,
                                             FAKE_HUGE,
                                             FAKE_WILD_ID,
                                             FAKE_WRONG_SHAPE,
                                             FAKE_WRONG_FINGERPRINT,
                                             FAKE_WRONG_COMPUTE,
                                             FAKE_FLIPPED,
                                             FAKE_WRONG_DIGEST};
    for (size_t c = 0; c < sizeof faults / sizeof faults[0]; c++) {
        struct scene scene = {0};
        struct fake_teacher *other = fake_start(&(struct fake_options){0});
        scene.fake = fake_start(&(struct fake_options){0});
        asking_setup(&scene.asking);
        asking_add(&scene.asking, fake_url(scene.fake));
        asking_add_replica(&scene.asking, fake_url(other));
        scene.asking.recipe.on_lost_teacher = LB_LOST_STOP;
        must(asking_open(&scene.asking, NULL, &scene.teachers, &scene.detail), &scene.detail);
        fake_fault(scene.fake, faults[c], -1);
        int q = 0, bad = 0;
        for (; q < 6; q++) {
            const struct lb_answer *const *answers = NULL;
            scene.samples = asking_samples(N, 100 + (uint64_t)q, false);
            enum lb_status status = ask(&scene, q, &answers);
            if (status != LB_OK) {
                fail_msg("fault %d: %s", (int)faults[c], scene.detail.text);
            }
            check_answers(&scene, answers, fake_fingerprint);
            lb_teachers_release(scene.teachers, q);
            asking_free_samples(scene.samples, N);
        }
        assert_true(fake_requests(scene.fake) > 0);
        bad = fake_requests(scene.fake);
        fake_fault(scene.fake, FAKE_FINE, -1);
        uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
        while (fake_requests(scene.fake) == bad) { /* it comes back */
            const struct lb_answer *const *answers = NULL;
            assert_true(lb_now_ns() < until);
            scene.samples = asking_samples(N, 100 + (uint64_t)q, false);
            must(ask(&scene, q, &answers), &scene.detail);
            lb_teachers_release(scene.teachers, q++);
            asking_free_samples(scene.samples, N);
        }
        scene.samples = NULL;
        fake_stop(other);
        close_scene(&scene);
    }
}

/* One sequence that every replica refuses ends the run at once, found among its fellows; the rest were
 * answered. */
static void test_one_bad_sequence(void **state) {
    (void)state;
    struct scene scene;
    const struct lb_answer *const *answers = NULL;
    struct lb_teachers_stats stats;
    open_scene(&scene, LB_LOST_WAIT, 5);
    int32_t ids[] = {FAKE_POISON, FAKE_POISON, 2, 3};
    struct lb_sample samples[N];
    memcpy(samples, scene.samples, sizeof samples);
    samples[N / 2] = (struct lb_sample){.ids = ids, .n = 3, .tag = -1};
    fake_fault(scene.fake, FAKE_400_FOR_ONE, -1);
    uint64_t began = lb_now_ns();
    must(lb_teachers_submit(scene.teachers, 0, samples, N, NULL, &scene.detail), &scene.detail);
    assert_int_equal(lb_teachers_take(scene.teachers, 0, &answers, &scene.detail), LB_E_ARG);
    assert_non_null(strstr(scene.detail.text, "poison"));
    assert_true(lb_now_ns() - began < 3 * LB_SECOND_NS);
    lb_teachers_stats(scene.teachers, &stats);
    assert_true(stats.requests <= N + 2);
    close_scene(&scene);
}

/* A sequence that was in a request of its own from the start is asked once more, as those of a larger one
 * are: one refusal may be an accident of what stands between. */
static void test_one_refusal(void **state) {
    (void)state;
    static const enum fake_fault faults[] = {FAKE_400, FAKE_401, FAKE_REDIRECT};
    for (size_t c = 0; c < sizeof faults / sizeof *faults; c++) {
        struct scene scene;
        const struct lb_answer *const *answers = NULL;
        open_scene(&scene, LB_LOST_WAIT, 5);
        fake_fault(scene.fake, faults[c], 1);
        must(lb_teachers_submit(scene.teachers, 0, scene.samples, 1, NULL, &scene.detail), &scene.detail);
        must(lb_teachers_take(scene.teachers, 0, &answers, &scene.detail), &scene.detail);
        assert_true(asking_is_right(answers[0], &scene.samples[0], fake_fingerprint));
        close_scene(&scene);
    }
}

/* On a line that is too slow for large requests they shrink until they fit. */
static void test_slow_line(void **state) {
    (void)state;
    struct scene scene;
    const struct lb_answer *const *answers = NULL;
    open_scene(&scene, LB_LOST_WAIT, 0.3);
    fake_fault(scene.fake, FAKE_SLOW_LINE, -1);
    must(ask(&scene, 0, &answers), &scene.detail);
    check_answers(&scene, answers, fake_fingerprint);
    close_scene(&scene);
}

static void test_replicas_that_disagree(void **state) {
    (void)state;
    struct fake_teacher *a = fake_start(&(struct fake_options){0});
    struct fake_teacher *b = fake_start(&(struct fake_options){.fingerprint = fake_other_fingerprint});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    asking_add(&asking, fake_url(a));
    asking_add_replica(&asking, fake_url(b));
    assert_int_equal(asking_open(&asking, NULL, &teachers, &detail), LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, fake_url(a)));
    assert_non_null(strstr(detail.text, fake_url(b)));
    asking_teardown(&asking);
    fake_stop(a);
    fake_stop(b);
}

/* ---- at the beginning of a run ---- */

static void write_token(const struct asking *asking, const char *text) {
    char path[100];
    snprintf(path, sizeof path, "%s/token", asking->directory);
    struct lb_detail detail = {0};
    must(lb_file_replace(path, text, strlen(text), &detail), &detail);
}

static void test_tokens(void **state) {
    (void)state;
    static char file[] = "token";
    struct fake_teacher *fake = fake_start(&(struct fake_options){.token = "sesame"});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    assert_int_equal(asking_open(&asking, NULL, &teachers, &detail), LB_E_DENIED);
    assert_non_null(strstr(detail.text, "401"));
    assert_non_null(strstr(detail.text, "token_file"));
    asking.teachers[0].token_file = file;
    assert_int_equal(asking_open(&asking, NULL, &teachers, NULL), LB_E_NOTFOUND);
    write_token(&asking, "mustard\n");
    memset(&detail, 0, sizeof detail);
    assert_int_equal(asking_open(&asking, NULL, &teachers, &detail), LB_E_DENIED);
    assert_null(strstr(detail.text, "mustard")); /* no secrets in errors */
    write_token(&asking, "\n");
    assert_int_equal(asking_open(&asking, NULL, &teachers, NULL), LB_E_ARG);
    write_token(&asking, "sesame\n");
    memset(&detail, 0, sizeof detail);
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(fake);
}

static void test_bad_beginnings(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    fake_fault(fake, FAKE_ENDLESS_INFO, -1);
    assert_int_equal(asking_open(&asking, NULL, &teachers, &detail), LB_E_LIMIT);
    fake_fault(fake, FAKE_BAD_INFO, -1);
    memset(&detail, 0, sizeof detail);
    assert_int_equal(asking_open(&asking, NULL, &teachers, &detail), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "limbeckd"));
    static char absent[] = "absent";
    fake_fault(fake, FAKE_FINE, 0);
    asking.teachers[0].model = absent;
    memset(&detail, 0, sizeof detail);
    assert_int_equal(asking_open(&asking, NULL, &teachers, &detail), LB_E_NOTFOUND);
    assert_non_null(strstr(detail.text, "no such model"));
    static char odd[] = "ftp://somewhere";
    asking.teachers[0].url = odd;
    memset(&detail, 0, sizeof detail);
    assert_int_equal(asking_open(&asking, NULL, &teachers, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "http://HOST:PORT"));
    static char nowhere[] = "local:no/such/model";
    asking.teachers[0].url = nowhere;
    memset(&detail, 0, sizeof detail);
    assert_int_equal(asking_open(&asking, NULL, &teachers, &detail), LB_E_NOTFOUND);
    assert_non_null(strstr(detail.text, "no/such/model"));
    asking_teardown(&asking);
    fake_stop(fake);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_passing_trouble),
        cmocka_unit_test(test_lasting_trouble),
        cmocka_unit_test(test_bound_of_answers),
        cmocka_unit_test(test_wait_has_an_end),
        cmocka_unit_test(test_retry_after_is_honoured),
        cmocka_unit_test(test_caches_are_passed_by),
        cmocka_unit_test(test_flipped_head),
        cmocka_unit_test(test_killed_and_restarted),
        cmocka_unit_test(test_restarted_as_another),
        cmocka_unit_test(test_a_dead_replica),
        cmocka_unit_test(test_one_bad_replica),
        cmocka_unit_test(test_one_bad_sequence),
        cmocka_unit_test(test_one_refusal),
        cmocka_unit_test(test_slow_line),
        cmocka_unit_test(test_replicas_that_disagree),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_bad_beginnings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
