/* Folders that are our own, told from others, and what killed writers leave. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/folder.h"
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void put(const char *name) {
    assert_int_equal(lb_file_replace(lb_in_scratch(name), "x", 1, NULL), LB_OK);
}

static void refused(const char *name, const char *says) {
    struct lb_detail detail = {0};
    assert_int_equal(lb_folder_check(lb_in_scratch(name), "model", &detail), LB_E_ARG);
    if (strstr(detail.text, says) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", detail.text, says);
    }
}

static void accepted(const char *name) {
    assert_int_equal(lb_folder_check(lb_in_scratch(name), "model", NULL), LB_OK);
}

static void only_ours_is_replaced(void **state) {
    (void)state;
    struct lb_detail detail = {0};
    accepted("nothing");
    put("file");
    refused("file", "is no folder");
    assert_int_equal(lb_mkdirs(lb_in_scratch("ours"), NULL), LB_OK);
    accepted("ours"); /* empty */
    put("ours/config.json");
    refused("ours", "holds config.json");
    assert_int_equal(lb_folder_mark(lb_in_scratch("ours"), "model", NULL), LB_OK);
    accepted("ours");
    assert_int_equal(lb_folder_check(lb_in_scratch("ours"), "cache", NULL), LB_E_ARG);
    put("ours/config"); /* a part of a name that is listed */
    refused("ours", "holds config,");
    unlink(lb_in_scratch("ours/config"));
    unlink(lb_in_scratch("ours/config.json")); /* somebody took a file away: nothing of theirs is there */
    accepted("ours");
    put("ours/model 1"); /* what the mark's first line says is no name */
    refused("ours", "holds model 1,");
    /* what cannot be looked at is not said to be a file */
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(lb_folder_check(lb_in_scratch(name), "model", &detail), LB_E_IO);
    assert_non_null(strstr(detail.text, "cannot open"));
}

static void what_it_holds(void **state) {
    (void)state;
    static const char *const names[] = {"a", "b"};
    assert_int_equal(lb_mkdirs(lb_in_scratch("held"), NULL), LB_OK);
    assert_true(lb_folder_holds_only(lb_in_scratch("held"), names, 2));
    put("held/b");
    assert_true(lb_folder_holds_only(lb_in_scratch("held"), names, 2));
    assert_false(lb_folder_holds_only(lb_in_scratch("held"), names, 1));
    assert_false(lb_folder_holds_only(lb_in_scratch("gone"), names, 2));
}

/* A finished folder takes a place at once; a file there is nobody's to take away. */
static void finished_ones_take_their_place(void **state) {
    (void)state;
    static const char *const one[] = {"1"}, *const two[] = {"2"};
    assert_int_equal(lb_mkdirs(lb_in_scratch("put/new"), NULL), LB_OK);
    put("put/new/1");
    assert_int_equal(lb_folder_swap_in(lb_in_scratch("put/new"), lb_in_scratch("put/here"), NULL), LB_OK);
    assert_true(lb_folder_holds_only(lb_in_scratch("put/here"), one, 1));
    assert_false(lb_file_exists(lb_in_scratch("put/new")));
    assert_int_equal(lb_mkdirs(lb_in_scratch("put/new"), NULL), LB_OK);
    put("put/new/2");
    assert_int_equal(lb_folder_swap_in(lb_in_scratch("put/new"), lb_in_scratch("put/here"), NULL), LB_OK);
    assert_true(lb_folder_holds_only(lb_in_scratch("put/here"), two, 1));
    assert_true(lb_folder_holds_only(lb_in_scratch("put/new"), one, 1));
    put("put/file");
    assert_int_equal(lb_folder_swap_in(lb_in_scratch("put/new"), lb_in_scratch("put/file"), NULL), LB_E_IO);
    assert_false(lb_is_dir(lb_in_scratch("put/file")));
}

static void remains_are_swept(void **state) {
    (void)state;
    static const char *const kept[] = {"new",     "a.new-",   "a.new-x", "a.new-7x",
                                       "a.tmp-7", "a.tmp-7-", ".new-71", "a.tmp-7-1x"};
    static const char *const swept[] = {"a.new-7", "a.tmp-7-0", "b.tmp-1.new-7", "a.tmp-7-12"};
    char name[64];
    assert_int_equal(lb_mkdirs(lb_in_scratch("swept/a.new-99"), NULL), LB_OK);
    put("swept/a.new-99/inside");
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        snprintf(name, sizeof name, "swept/%s", kept[i]);
        put(name);
    }
    for (size_t i = 0; i < sizeof swept / sizeof *swept; i++) {
        snprintf(name, sizeof name, "swept/%s", swept[i]);
        put(name);
    }
    assert_int_equal(lb_folder_sweep(lb_in_scratch("swept"), NULL), LB_OK);
    assert_true(lb_folder_holds_only(lb_in_scratch("swept"), kept, sizeof kept / sizeof *kept));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        snprintf(name, sizeof name, "swept/%s", kept[i]);
        assert_true(lb_file_exists(lb_in_scratch(name)));
    }
    assert_int_equal(lb_folder_sweep(lb_in_scratch("gone"), NULL), LB_E_IO);
}

/* Beside a path: only what a process that is gone left of that very name, a minute ago or longer. */
static void remains_beside_a_path(void **state) {
    (void)state;
    enum { N = 5, SWEPT = 2 };
    char name[N][64], path[400];
    const char *left[N - SWEPT];
    pid_t gone = fork();
    if (gone == 0) {
        _exit(0);
    }
    assert_int_equal(waitpid(gone, NULL, 0), gone);
    snprintf(name[0], sizeof name[0], "m.new-%ld", (long)gone);
    snprintf(name[1], sizeof name[1], "m.tmp-%ld-3", (long)gone);
    snprintf(name[2], sizeof name[2], "m.new-%ld", (long)getpid());
    snprintf(name[3], sizeof name[3], "x.new-%ld", (long)gone);
    snprintf(name[4], sizeof name[4], "m.tmp-%ld-4", (long)gone);
    assert_int_equal(lb_mkdirs(lb_in_scratch("beside"), NULL), LB_OK);
    for (int i = 0; i < N; i++) {
        static const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
        snprintf(path, sizeof path, "beside/%s", name[i]);
        put(path);
        assert_true(i == 4 ||
                    utimensat(AT_FDCWD, lb_in_scratch(path), long_ago, 0) == 0); /* the last is young */
    }
    lb_folder_sweep_beside(lb_in_scratch("beside/m/"));
    for (int i = SWEPT; i < N; i++) {
        snprintf(path, sizeof path, "beside/%s", name[i]);
        assert_true(lb_file_exists(lb_in_scratch(path)));
        left[i - SWEPT] = name[i];
    }
    assert_true(lb_folder_holds_only(lb_in_scratch("beside"), left, N - SWEPT));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_ours_is_replaced),          cmocka_unit_test(what_it_holds),
        cmocka_unit_test(finished_ones_take_their_place), cmocka_unit_test(remains_are_swept),
        cmocka_unit_test(remains_beside_a_path),
    };
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
