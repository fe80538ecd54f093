/* Files that only the daemon may read: whose they may be, how they may be open, where they are found. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "server/http/secret.h"

#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/limbeck-secret-XXXXXX";
static struct lb_detail detail;

static enum lb_status check(uid_t owner, mode_t mode, uid_t user) {
    struct stat st = {.st_uid = owner, .st_mode = mode};
    memset(&detail, 0, sizeof detail);
    return lb_secret_check("token file", "/etc/tokens", &st, user, &detail);
}

/* As PostgreSQL has it: our own and closed, or root's with a group that may read. */
static void test_owner_and_mode(void **state) {
    (void)state;
    static const struct {
        uid_t owner;
        mode_t mode;
        uid_t user;
        const char *refused; /* NULL: taken */
    } cases[] = {
        {7, S_IFREG | 0600, 7, NULL},
        {7, S_IFREG | 0400, 7, NULL},
        {7, S_IFREG | 0700, 7, NULL},
        {0, S_IFREG | 0640, 7, NULL},
        {0, S_IFREG | 0440, 7, NULL},
        {0, S_IFREG | 0600, 7, NULL}, /* by a list of access of its own, or not at all */
        {0, S_IFREG | 0400, 0, NULL},
        {7, S_IFREG | 0640, 7, "mode 640 lets others in; run: chmod 600 /etc/tokens"},
        {7, S_IFREG | 0440, 7, "mode 440 lets others in; run: chmod 600 /etc/tokens"},
        {7, S_IFREG | 0604, 7, "mode 604 lets others in; run: chmod 600 /etc/tokens"},
        {7, S_IFREG | 0610, 7, "mode 610 lets others in; run: chmod 600 /etc/tokens"},
        {7, S_IFREG | 0602, 7, "mode 602 lets others in; run: chmod 600 /etc/tokens"},
        {0, S_IFREG | 0640, 0, "mode 640 lets others in; run: chmod 600 /etc/tokens"},
        {0, S_IFREG | 0644, 7, "mode 644 of root's lets others in; run: chmod 640 /etc/tokens"},
        {0, S_IFREG | 0660, 7, "mode 660 of root's lets others in; run: chmod 640 /etc/tokens"},
        {0, S_IFREG | 0650, 7, "mode 650 of root's lets others in; run: chmod 640 /etc/tokens"},
        {8, S_IFREG | 0600, 7,
         "it belongs to user 8, neither to this daemon's user (7) nor to root; run: chown 7"},
        {7, S_IFDIR | 0700, 7, "not a regular file"},
        {7, S_IFIFO | 0600, 7, "not a regular file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum lb_status status = check(cases[i].owner, cases[i].mode, cases[i].user);
        bool right =
            cases[i].refused ? status != LB_OK && strstr(detail.text, cases[i].refused) : status == LB_OK;
        if (!right) {
            fail_msg("case %zu: %d %s", i, status, detail.text);
        }
    }
    assert_int_equal(check(7, S_IFREG | 0644, 7), LB_E_DENIED);
    assert_memory_equal(detail.text, "token file /etc/tokens: ", 24);
    assert_int_equal(check(7, S_IFIFO | 0600, 7), LB_E_ARG);
}

static const char *in_folder(const char *name) {
    static char path[4][128];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static enum lb_status read_one(const char *path, size_t most, struct lb_buf *out) {
    memset(&detail, 0, sizeof detail);
    lb_buf_init(out, most);
    return lb_secret_read("token file", path, out, &detail);
}

/* Files as they are, and as Kubernetes lays them: a link to a file of a folder that is a link. */
static void test_reading(void **state) {
    (void)state;
    struct lb_buf buf;
    assert_int_equal(lb_mkdirs(in_folder("..2026_01"), NULL), LB_OK);
    assert_int_equal(lb_file_replace(in_folder("..2026_01/tokens"), "a-good-token\n", 13, NULL), LB_OK);
    assert_int_equal(chmod(in_folder("..2026_01/tokens"), 0600), 0);
    assert_int_equal(symlink("..2026_01", in_folder("..data")), 0);
    assert_int_equal(symlink("..data/tokens", in_folder("tokens")), 0);
    assert_int_equal(read_one(in_folder("tokens"), 100, &buf), LB_OK);
    assert_int_equal(buf.len, 13);
    assert_memory_equal(buf.data, "a-good-token\n", 13);
    lb_secret_finish(&buf);
    assert_int_equal(read_one(in_folder("tokens"), 13, &buf), LB_OK);
    lb_secret_finish(&buf);
    assert_int_equal(read_one(in_folder("tokens"), 12, &buf), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "larger than 12 bytes"));
    lb_secret_finish(&buf);
    assert_int_equal(chmod(in_folder("..2026_01/tokens"), 0644), 0);
    assert_int_equal(read_one(in_folder("tokens"), 100, &buf),
                     LB_E_DENIED); /* the file's mode, not the link's */
    lb_secret_finish(&buf);
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_int_equal(read_one(in_folder("pipe"), 100, &buf), LB_E_ARG); /* and nobody waits for a writer */
    assert_int_equal(read_one(in_folder("absent"), 100, &buf), LB_E_NOTFOUND);
    assert_int_equal(read_one(folder, 100, &buf), LB_E_ARG);
    lb_secret_finish(&buf);
}

/* Read by a process of another user, as Kubernetes mounts it: root's, with a group of that user's. */
static enum lb_status read_as_other(mode_t mode, gid_t group) {
    const char *path = in_folder("mounted");
    assert_int_equal(lb_file_replace(path, "a-good-token\n", 13, NULL), LB_OK);
    assert_true(chown(path, 0, group) == 0 && chmod(path, mode) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct lb_buf buf;
        bool other = setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0;
        enum lb_status status = other ? read_one(path, 100, &buf) : LB_E_INTERNAL;
        _exit(-(int)status);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return (enum lb_status) - WEXITSTATUS(status);
}

static void test_mounted(void **state) {
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(read_as_other(0440, 65534), LB_OK);
    assert_int_equal(read_as_other(0640, 65534), LB_OK);
    assert_int_equal(read_as_other(0644, 65534), LB_E_DENIED);
    assert_int_equal(read_as_other(0440, 0), LB_E_DENIED); /* the kernel's word */
    assert_int_equal(read_as_other(0400, 65534), LB_E_DENIED);
}

static bool means(const char *name, const char *path) {
    char *found = lb_credential_path(name);
    bool same = found && strcmp(found, path) == 0;
    lb_free(found);
    return same;
}

static void test_credentials(void **state) {
    (void)state;
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_true(means("tokens", "tokens"));
    setenv("CREDENTIALS_DIRECTORY", "", 1);
    assert_true(means("tokens", "tokens"));
    setenv("CREDENTIALS_DIRECTORY", "/run/credentials/limbeckd.service", 1);
    assert_true(means("tokens", "/run/credentials/limbeckd.service/tokens"));
    assert_true(means("./tokens", "./tokens"));
    assert_true(means("keys/tokens", "keys/tokens"));
    assert_true(means("/etc/tokens", "/etc/tokens"));
    unsetenv("CREDENTIALS_DIRECTORY");
}

int main(void) {
    if (!mkdtemp(folder)) {
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_owner_and_mode), cmocka_unit_test(test_reading),
                                       cmocka_unit_test(test_mounted), cmocka_unit_test(test_credentials)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
