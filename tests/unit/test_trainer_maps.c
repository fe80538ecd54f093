/* Teachers that are asked through a vocabulary map: each replica is sent it once, and again when it has lost
 * it; answers have its shape, and keys of their own in the cache; who won't have it ends the run with its
 * words. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "tests/support/asking.h"
#include "trainer/teachers/questions.h"

#include <stdio.h>
#include <string.h>

#define N 8
#define T 5
#define KEPT 20

static int32_t kept[KEPT], ids[N][T + 1], its_ids[N][T + 1];
static struct lb_vocab_map map = {.kept = kept, .n = KEPT};
static struct lb_sample samples[N], theirs[N]; /* in the student's ids, in the teacher's */

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

static struct lb_ask_spec spec_of(enum lb_output_kind kind) {
    uint8_t hash[LB_SHA256_BYTES];
    struct lb_ask_spec spec = {.n_outputs = 1,
                               .outputs = {{kind, 0, LB_DT_FP32}},
                               .top_k = LB_DEFAULT_TOP_K,
                               .temperature = 1,
                               .n_kept = KEPT};
    lb_sha256(kept, sizeof kept, hash);
    lb_hex(hash, sizeof hash, spec.vocab_map);
    return spec;
}

static struct lb_teachers *open_as(struct asking *asking, enum lb_output_kind kind) {
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_ask_spec spec = spec_of(kind);
    must(lb_teachers_open_recipe(&asking->recipe, NULL, &teachers, &detail), &detail);
    must(lb_teachers_set_map(teachers, 0, &map, &detail), &detail);
    must(lb_teachers_set_spec(teachers, 0, &spec, &detail), &detail);
    return teachers;
}

/* Question `number`, about samples first to first + n - 1: answered rightly, in the map's shape. */
static void ask(struct lb_teachers *teachers, int64_t number, int first, int n) {
    const struct lb_ask_spec spec = spec_of(LB_OUT_LOGITS);
    const struct lb_answer *const *answers = NULL;
    struct lb_detail detail = {0};
    must(lb_teachers_submit(teachers, number, samples + first, n, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, number, &answers, &detail), &detail);
    for (int i = 0; i < n; i++) {
        assert_int_equal(answers[i]->tensors[0].dim[1], KEPT);
        assert_true(asking_is_right_for(answers[i], &theirs[first + i], fake_fingerprint, &spec));
    }
    lb_teachers_release(teachers, number);
}

/* Sent once, before the first question; again when it is gone, which costs the run nothing but that. */
static void test_sent_and_lost(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){.maps = true});
    struct asking asking;
    struct lb_teachers_stats stats;
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    struct lb_teachers *teachers = open_as(&asking, LB_OUT_LOGITS);
    assert_int_equal(lb_teachers_info(teachers, 0)->max_vocab_maps, 1);
    ask(teachers, 0, 0, 3);
    ask(teachers, 1, 3, 3);
    assert_int_equal(fake_maps(fake), 1);
    fake_forget_map(fake);
    ask(teachers, 2, 6, 1);
    assert_int_equal(fake_maps(fake), 2);
    fake_forget_map(fake);
    ask(teachers, 3, 7, 1);
    assert_int_equal(fake_maps(fake), 3);
    lb_teachers_stats(teachers, &stats);
    assert_int_equal(stats.failures, 0);
    assert_true(stats.retries >= 2);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(fake);
}

/* Each replica has its own. */
static void test_replicas(void **state) {
    (void)state;
    struct fake_teacher *a = fake_start(&(struct fake_options){.maps = true}),
                        *b = fake_start(&(struct fake_options){.maps = true});
    struct asking asking;
    asking_setup(&asking);
    asking_add(&asking, fake_url(a));
    asking_add_replica(&asking, fake_url(b));
    struct lb_teachers *teachers = open_as(&asking, LB_OUT_LOGITS);
    fake_fault(a, FAKE_503, 1); /* so that the other is asked */
    ask(teachers, 0, 0, 4);
    ask(teachers, 1, 4, 4);
    assert_true(fake_maps(a) == 1 && fake_maps(b) == 1);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(a);
    fake_stop(b);
}

/* Replicas that don't all keep maps are asked without: the plan looks at this number. */
static void test_not_all_keep_maps(void **state) {
    (void)state;
    struct fake_teacher *a = fake_start(&(struct fake_options){.maps = true}),
                        *b = fake_start(&(struct fake_options){0});
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    asking_add(&asking, fake_url(a));
    asking_add_replica(&asking, fake_url(b));
    must(lb_teachers_open_recipe(&asking.recipe, NULL, &teachers, &detail), &detail);
    assert_int_equal(lb_teachers_info(teachers, 0)->max_vocab_maps, 0);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(a);
    fake_stop(b);
}

/* Without it, and through it, are unlike questions to the cache; what is cached needs no map and no teacher.
 */
static void test_cached(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){.maps = true});
    struct asking asking;
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    asking_use_cache(&asking);
    struct lb_teachers *teachers = open_as(&asking, LB_OUT_LOGITS);
    ask(teachers, 0, 0, N);
    lb_teachers_close(teachers);
    int requests = fake_requests(fake);
    teachers = open_as(&asking, LB_OUT_LOGITS);
    ask(teachers, 0, 0, N);
    assert_true(fake_requests(fake) == requests && fake_maps(fake) == 1);
    lb_teachers_close(teachers);

    uint8_t keys[3][LB_SHA256_BYTES];
    struct lb_ask_spec spec = spec_of(LB_OUT_LOGITS), plain = spec, other = spec;
    plain.vocab_map[0] = '\0';
    other.vocab_map[0] = other.vocab_map[0] == '0' ? '1' : '0';
    const struct lb_ask_spec *const specs[] = {&spec, &plain, &other};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lb_cache_key("identity", &theirs[0], 0, specs[i], keys[i]), LB_OK);
        assert_true(lb_spec_same(&spec, specs[i]) == (i == 0));
        for (int j = 0; j < i; j++) {
            assert_memory_not_equal(keys[i], keys[j], sizeof keys[i]);
        }
    }
    asking_teardown(&asking);
    fake_stop(fake);
}

/* What no map changes is asked without, and is the same question to the cache. */
static void test_no_need(void **state) {
    (void)state;
    struct fake_teacher *fake = fake_start(&(struct fake_options){.maps = true});
    struct asking asking;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    struct lb_teachers *teachers = open_as(&asking, LB_OUT_HIDDEN_FINAL);
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    assert_int_equal(fake_maps(fake), 0);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(fake);
}

/* The run ends, though it would wait for a lost teacher for ever, and says why. */
static void ends(const struct fake_options *options, enum fake_fault fault, const char *says, int most_maps) {
    struct fake_teacher *fake = fake_start(options);
    struct asking asking;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    asking_setup(&asking);
    asking_add(&asking, fake_url(fake));
    struct lb_teachers *teachers = open_as(&asking, LB_OUT_LOGITS);
    fake_fault(fake, fault, -1);
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
    assert_true(lb_teachers_take(teachers, 0, &answers, &detail) != LB_OK);
    if (!strstr(detail.text, says)) {
        fail_msg("\"%s\" does not say \"%s\"", detail.text, says);
    }
    assert_true(fake_maps(fake) >= 2 && fake_maps(fake) <= most_maps);
    lb_teachers_close(teachers);
    asking_teardown(&asking);
    fake_stop(fake);
}

static void test_refused(void **state) {
    (void)state;
    ends(&(struct fake_options){.refuse_maps = 404}, FAKE_FINE, "its vocabulary map: teacher t0 at", 2);
    ends(&(struct fake_options){.refuse_maps = 403}, FAKE_FINE, "no maps here", 2);
    ends(&(struct fake_options){.maps = true}, FAKE_MAPLESS, "answered 409: vocab_map: not here", 40);
}

int main(void) {
    for (int i = 0; i < KEPT; i++) {
        kept[i] = 2 * i + 3;
    }
    for (int i = 0; i < N; i++) {
        for (int t = 0; t <= T; t++) {
            ids[i][t] = (i * 7 + t * 3 + t * t) % KEPT;
            its_ids[i][t] = kept[ids[i][t]];
        }
        samples[i] = (struct lb_sample){.ids = ids[i], .n = T, .label = -1, .tag = -1};
        theirs[i] = samples[i];
        theirs[i].ids = its_ids[i];
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sent_and_lost),     cmocka_unit_test(test_replicas),
        cmocka_unit_test(test_not_all_keep_maps), cmocka_unit_test(test_cached),
        cmocka_unit_test(test_no_need),           cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
