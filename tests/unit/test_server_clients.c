/* Who has been asking: counted by name, the latest first, and no more of them than there is room for. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/api/clients.h"

#include <stdio.h>
#include <string.h>

static void add(struct lb_clients *clients, const char *name, bool token, bool failed, double at) {
    lb_clients_add(clients, &(struct lb_client_request){name, token, failed, 10, 3, 5, at});
}

static const json_t *nth(const json_t *list, size_t i, const char *name) {
    const json_t *item = json_array_get(list, i);
    assert_string_equal(json_string_value(json_object_get(item, "name")), name);
    return item;
}

static json_int_t integer(const json_t *item, const char *key) {
    return json_integer_value(json_object_get(item, key));
}

static void test_counts(void **state) {
    (void)state;
    struct lb_clients *clients = lb_clients_create();
    char longer[200];
    memset(longer, 'x', sizeof longer);
    longer[199] = '\0';
    add(clients, "ann", true, false, 1);
    add(clients, "127.0.0.1", false, false, 2);
    add(clients, "ann", true, true, 3);
    add(clients, "ann", false, false, 4); /* an address isn't a token of that name */
    add(clients, longer, true, false, 5);
    add(clients, longer, true, false, 6);
    json_t *list = lb_clients_json(clients);
    assert_int_equal(json_array_size(list), 4);
    longer[LB_CLIENT_NAME - 1] = '\0';
    assert_int_equal(integer(nth(list, 0, longer), "requests"), 2);
    assert_false(json_is_true(json_object_get(nth(list, 1, "ann"), "token")));
    const json_t *ann = nth(list, 2, "ann");
    assert_true(integer(ann, "requests") == 2 && integer(ann, "failed") == 1 && integer(ann, "tokens") == 20);
    assert_true(integer(ann, "in_bytes") == 6 && integer(ann, "out_bytes") == 10);
    assert_true(json_number_value(json_object_get(ann, "last")) == 3);
    nth(list, 3, "127.0.0.1");
    json_decref(list);
    lb_clients_destroy(clients);
}

static void test_forgets(void **state) {
    (void)state;
    struct lb_clients *clients = lb_clients_create();
    char name[32];
    for (int i = 0; i < LB_CLIENTS + 10; i++) {
        snprintf(name, sizeof name, "client %d", i);
        add(clients, name, false, false, i);
        add(clients, "always", true, false, i);
    }
    json_t *list = lb_clients_json(clients);
    assert_int_equal(json_array_size(list), LB_CLIENTS);
    assert_int_equal(integer(nth(list, 0, "always"), "requests"), LB_CLIENTS + 10);
    nth(list, LB_CLIENTS - 1, "client 11"); /* the 63 latest beside it */
    json_decref(list);
    lb_clients_destroy(clients);
    lb_clients_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts), cmocka_unit_test(test_forgets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
