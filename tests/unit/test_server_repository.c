/* The repository: what it says and gives while a model is opened, replaced, let go. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "server/models/repository.h"
#include "tests/support/tiny_model.h"

#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/limbeck-repository-XXXXXX";

/* What was seen while a model was being opened. */
struct world {
    struct lb_repository *repository;
    sem_t done;
    enum lb_status fail; /* of the next proof */
    json_t *index;
    enum lb_status got; /* by a request */
    struct lb_hosted *served;
};

static enum lb_status prove(void *context, struct lb_hosted *hosted, struct lb_detail *detail) {
    struct world *w = context;
    (void)hosted;
    json_decref(w->index);
    lb_hosted_release(w->served);
    w->served = NULL;
    w->index = lb_repository_index(w->repository, false);
    w->got = lb_repository_get(w->repository, "m", NULL, &w->served, NULL);
    return w->fail == LB_OK ? LB_OK : lb_fail(detail, w->fail, "it does not prove itself");
}

static void on_finished(void *context, enum lb_status status, const struct lb_detail *detail) {
    (void)status;
    (void)detail;
    sem_post(&((struct world *)context)->done);
}

static void on_order(struct lb_load_order *order) {
    sem_post(&((struct world *)order->context)->done);
}

static enum lb_status give_order(struct world *w, bool load, struct lb_load_order *order) {
    *order = (struct lb_load_order){.name = "m", .load = load, .done = on_order, .context = w};
    assert_int_equal(lb_repository_order(w->repository, order, NULL), LB_OK);
    sem_wait(&w->done);
    return order->status;
}

static void check_index(json_t *index, const char *state, const char *reason) {
    const json_t *m = json_array_get(index, 0);
    assert_string_equal(json_string_value(json_object_get(m, "state")), state);
    const char *said = json_string_value(json_object_get(m, "reason"));
    if (!(reason[0] ? strstr(said, reason) != NULL : said[0] == '\0')) {
        fail_msg("reason \"%s\", not \"%s\"", said, reason);
    }
}

static void check_now(struct world *w, const char *state, const char *reason) {
    json_t *index = lb_repository_index(w->repository, false);
    check_index(index, state, reason);
    json_decref(index);
}

static struct lb_hosted *get(struct world *w) {
    struct lb_hosted *hosted = NULL;
    assert_int_equal(lb_repository_get(w->repository, "m", NULL, &hosted, NULL), LB_OK);
    return hosted;
}

static void test_orders(void **state) {
    (void)state;
    struct world w = {0};
    struct lb_load_order order;
    struct lb_detail why = {0};
    struct lb_hosted *old, *now;
    char *path = lb_path_join(folder, "m");
    struct lb_config config;
    lb_tiny_mlp(&config);
    lb_tiny_save(&config, 1, path, LB_F32, false);
    sem_init(&w.done, 0, 0);
    w.repository = lb_repository_create(prove, &w);
    assert_int_equal(lb_repository_add(w.repository, "m", path, true, NULL), LB_OK);
    assert_int_equal(lb_repository_start(w.repository, on_finished, NULL), LB_OK);
    sem_wait(&w.done); /* finished has the repository's context */
    check_index(w.index, "LOADING", "");
    assert_int_equal(w.got, LB_E_UNAVAILABLE);
    check_now(&w, "READY", "");
    /* Let go: whoever asks is told, also while it comes back. */
    assert_int_equal(give_order(&w, false, &order), LB_OK);
    check_now(&w, "UNAVAILABLE", "unloaded");
    assert_int_equal(lb_repository_get(w.repository, "m", NULL, &now, &why), LB_E_NOTFOUND);
    assert_non_null(strstr(why.text, "unloaded"));
    assert_int_equal(give_order(&w, true, &order), LB_OK);
    check_index(w.index, "LOADING", "");
    assert_int_equal(w.got, LB_E_UNAVAILABLE);
    check_now(&w, "READY", "");
    /* Replaced: the old one serves until the new one is there, and lives while somebody has it. */
    old = get(&w);
    lb_tiny_save(&config, 2, path, LB_F32, false);
    assert_int_equal(give_order(&w, true, &order), LB_OK);
    check_index(w.index, "READY", "loaded anew");
    assert_ptr_equal(w.served, old);
    now = get(&w);
    assert_ptr_not_equal(now, old);
    assert_string_equal(order.version, now->version);
    assert_string_not_equal(now->version, old->version);
    check_now(&w, "READY", "");
    lb_hosted_release(old);
    /* What fails harms nothing. */
    w.fail = LB_E_MISMATCH;
    assert_int_equal(give_order(&w, true, &order), LB_E_MISMATCH);
    check_now(&w, "READY", "it does not prove itself");
    old = get(&w);
    assert_ptr_equal(old, now);
    lb_hosted_release(old);
    lb_hosted_release(now);
    lb_hosted_release(w.served);
    json_decref(w.index);
    lb_repository_destroy(w.repository);
    sem_destroy(&w.done);
    lb_free(path);
}

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_orders)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
