#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/lb-file-XXXXXX";

static char *in_folder(const char *name) {
    char *path = lb_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK && !lb_file_exists(folder) ? 0 : -1;
}

/* Entries of a folder that are neither . nor .. */
static int n_entries(const char *path) {
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int n = 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 ? 1 : 0;
    }
    closedir(dir);
    return n;
}

static void assert_content(const char *path, const char *expected) {
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 24);
    assert_int_equal(lb_file_read(path, &buf, NULL), LB_OK);
    assert_int_equal(lb_buf_append(&buf, "", 0), LB_OK);
    assert_string_equal(buf.data, expected);
    lb_buf_finish(&buf);
}

/* ---- reading ---- */

static void maps_a_file_once(void **state) {
    (void)state;
    char *path = in_folder("once"), *other = in_folder("other-name");
    struct lb_map map[4] = {{0}};
    assert_int_equal(lb_file_replace(path, "bytes", 5, NULL), LB_OK);
    assert_int_equal(link(path, other), 0);
    assert_int_equal(lb_map_open(&map[0], path, NULL), LB_OK);
    assert_int_equal(lb_map_open(&map[1], other, NULL), LB_OK);
    assert_ptr_equal(map[0].data, map[1].data);
    lb_map_close(&map[0]);
    assert_memory_equal(map[1].data, "bytes", 5);
    /* Another file of this name, and the same one written anew, are others. */
    assert_int_equal(lb_file_replace(path, "other", 5, NULL), LB_OK);
    assert_int_equal(lb_map_open(&map[2], path, NULL), LB_OK);
    assert_ptr_not_equal(map[2].data, map[1].data);
    assert_memory_equal(map[2].data, "other", 5);
    const struct timespec past[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
    assert_int_equal(lb_map_open(&map[3], path, NULL), LB_OK);
    assert_ptr_not_equal(map[3].data, map[2].data);
    for (int i = 1; i < 4; i++) {
        lb_map_close(&map[i]);
    }
    assert_true(unlink(path) == 0 && unlink(other) == 0);
    lb_free(path);
    lb_free(other);
}

static void maps(void **state) {
    (void)state;
    char *path = in_folder("map");
    struct lb_map map = {0};
    struct lb_detail d = {0};
    assert_int_equal(lb_map_open(&map, path, &d), LB_E_NOTFOUND);
    assert_non_null(strstr(d.text, path));
    assert_int_equal(lb_file_replace(path, "bytes", 5, NULL), LB_OK);
    assert_int_equal(lb_map_open(&map, path, NULL), LB_OK);
    assert_int_equal(map.len, 5);
    assert_memory_equal(map.data, "bytes", 5);
    /* A replaced file does not pull the ground away from who has it mapped. */
    assert_int_equal(lb_file_replace(path, "", 0, NULL), LB_OK);
    assert_memory_equal(map.data, "bytes", 5);
    lb_map_close(&map);
    assert_null(map.data);
    lb_map_close(&map);
    lb_map_close(NULL);
    map.len = 9;
    assert_int_equal(lb_map_open(&map, path, NULL), LB_OK);
    assert_null(map.data);
    assert_int_equal(map.len, 0);
    lb_map_close(&map);
    d = (struct lb_detail){0};
    assert_int_equal(lb_map_open(&map, folder, &d), LB_E_IO);
    assert_non_null(strstr(d.text, "a folder"));
    char *pipe_path = in_folder("pipe");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(lb_map_open(&map, pipe_path, NULL), LB_E_IO); /* and does not wait */
    lb_free(pipe_path);
    char *below = lb_path_join(path, "below");
    assert_int_equal(lb_map_open(&map, below, NULL), LB_E_NOTFOUND);
    lb_free(below);
    lb_free(path);
}

static void reads_within_the_maximum(void **state) {
    (void)state;
    char *path = in_folder("read");
    assert_int_equal(lb_file_replace(path, "0123456789", 10, NULL), LB_OK);
    struct lb_buf buf;
    struct lb_detail d = {0};
    lb_buf_init(&buf, 12);
    lb_buf_append_str(&buf, "ab");
    assert_int_equal(lb_file_read(path, &buf, &d), LB_OK);
    assert_string_equal(buf.data, "ab0123456789");
    assert_int_equal(lb_file_read(path, &buf, &d), LB_E_LIMIT);
    assert_string_equal(buf.data, "ab0123456789"); /* as before */
    assert_int_equal(lb_buf_status(&buf), LB_OK);
    assert_int_equal(lb_file_read(folder, &buf, NULL), LB_E_IO);
    lb_buf_finish(&buf);
    /* Files that do not tell their size (as in /proc) are read to their end and limited all the same. */
    lb_buf_init(&buf, 1 << 20);
    assert_int_equal(lb_file_read("/proc/self/stat", &buf, NULL), LB_OK);
    assert_true(buf.len > 10);
    lb_buf_finish(&buf);
    lb_buf_init(&buf, 10);
    assert_int_equal(lb_file_read("/proc/self/stat", &buf, NULL), LB_E_LIMIT);
    assert_int_equal(buf.len, 0);
    lb_buf_append_str(&buf, "too much for it");
    assert_int_equal(lb_file_read(path, &buf, NULL), LB_E_LIMIT);
    lb_buf_finish(&buf);
    lb_buf_init(&buf, 100);
    lb_mem_fail_from(1);
    assert_int_equal(lb_file_read(path, &buf, NULL), LB_E_NOMEM);
    lb_mem_fail_from(0);
    lb_buf_finish(&buf);
    lb_free(path);
}

/* ---- writing ---- */

static void replaces_only_at_commit(void **state) {
    (void)state;
    char *dir = in_folder("write");
    char *path = lb_path_join(dir, "file");
    assert_int_equal(lb_mkdirs(dir, NULL), LB_OK);
    assert_int_equal(lb_file_replace(path, "old", 3, NULL), LB_OK);
    assert_int_equal(chmod(path, 0640), 0);
    struct lb_writer w;
    assert_int_equal(lb_writer_open(&w, path, NULL), LB_OK);
    lb_writer_put(&w, "new ", 4);
    lb_writer_put(&w, NULL, 0);
    lb_writer_put(&w, "content", 7);
    assert_content(path, "old");
    assert_int_equal(n_entries(dir), 2);
    assert_int_equal(lb_writer_commit(&w, NULL), LB_OK);
    assert_content(path, "new content");
    assert_int_equal(n_entries(dir), 1);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640); /* permissions stay */
    lb_writer_abort(&w);
    struct lb_detail d = {0};
    assert_int_equal(lb_writer_commit(&w, &d), LB_E_INTERNAL);
    assert_int_equal(lb_writer_open(&w, path, NULL), LB_OK);
    lb_writer_put(&w, "never", 5);
    lb_writer_abort(&w);
    lb_writer_abort(&w);
    lb_writer_put(&w, "late", 4);
    assert_content(path, "new content");
    assert_int_equal(n_entries(dir), 1);
    struct lb_writer zero = {0};
    int before = fcntl(0, F_GETFD);
    lb_writer_abort(&zero); /* must not close file descriptor 0 */
    assert_int_equal(fcntl(0, F_GETFD), before);
    lb_writer_abort(NULL);
    assert_int_equal(lb_remove_tree(dir, NULL), LB_OK);
    lb_free(path);
    lb_free(dir);
}

static void writes_any_mix_of_sizes(void **state) {
    (void)state;
    char *path = in_folder("mix");
    struct lb_writer w;
    struct lb_buf expected;
    lb_buf_init(&expected, 1 << 24);
    assert_int_equal(lb_writer_open(&w, path, NULL), LB_OK);
    static const size_t sizes[] = {1, 262143, 262144, 1, 262145, 7, 600000, 262143, 1, 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *part = lb_malloc_array(sizes[i], 1);
        memset(part, 'a' + (int)i, sizes[i]);
        lb_writer_put(&w, part, sizes[i]);
        lb_buf_append(&expected, part, sizes[i]);
        lb_free(part);
    }
    assert_int_equal(lb_writer_commit(&w, NULL), LB_OK);
    assert_int_equal(w.written, expected.len);
    assert_content(path, expected.data);
    lb_buf_finish(&expected);
    lb_free(path);
}

static void two_writers_of_one_name(void **state) {
    (void)state;
    char *path = in_folder("twice");
    struct lb_writer a;
    struct lb_writer b;
    assert_int_equal(lb_writer_open(&a, path, NULL), LB_OK);
    assert_int_equal(lb_writer_open(&b, path, NULL), LB_OK);
    lb_writer_put(&a, "first", 5);
    lb_writer_put(&b, "second", 6);
    assert_int_equal(lb_writer_commit(&b, NULL), LB_OK);
    assert_int_equal(lb_writer_commit(&a, NULL), LB_OK);
    assert_content(path, "first");
    lb_free(path);
}

static void bad_places_are_named(void **state) {
    (void)state;
    struct lb_writer w;
    struct lb_detail d = {0};
    char *nowhere = in_folder("nowhere/file");
    assert_int_equal(lb_writer_open(&w, nowhere, &d), LB_E_NOTFOUND);
    assert_non_null(strstr(d.text, nowhere));
    lb_writer_abort(&w);
    d = (struct lb_detail){0};
    assert_int_equal(lb_writer_open(&w, folder, &d), LB_E_IO);
    assert_non_null(strstr(d.text, "folder"));
    lb_free(nowhere);
}

/* Writes more than the disk of limited size takes; exits with 0 when the old file is whole, the new bytes are
 * gone and the error is the right one. Runs in a child, which has the limit. */
static int overflow_in_child(const char *dir, const char *reason) {
    char *path = lb_path_join(dir, "precious");
    if (path == NULL || lb_file_replace(path, "precious", 8, NULL) != LB_OK) {
        return 2;
    }
    struct lb_writer w;
    struct lb_detail d = {0};
    if (lb_writer_open(&w, path, &d) != LB_OK) {
        return 3;
    }
    static char block[100000];
    for (int i = 0; i < 100; i++) {
        lb_writer_put(&w, block, sizeof block);
    }
    if (n_entries(dir) != 1) { /* the space is free before anybody commits */
        return 4;
    }
    if (lb_writer_commit(&w, &d) != LB_E_IO || strstr(d.text, path) == NULL ||
        strstr(d.text, reason) == NULL) {
        return 5;
    }
    if (lb_writer_commit(&w, NULL) != LB_E_IO) { /* sticky */
        return 6;
    }
    lb_writer_abort(&w);
    struct lb_buf buf;
    lb_buf_init(&buf, 100);
    if (lb_file_read(path, &buf, NULL) != LB_OK || strcmp(buf.data, "precious") != 0) {
        return 7;
    }
    lb_buf_finish(&buf);
    int result = n_entries(dir) == 1 ? 0 : 8;
    lb_free(path);
    return result;
}

static int status_of(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void file_size_limit(void **state) {
    (void)state;
    char *dir = in_folder("limited");
    assert_int_equal(lb_mkdirs(dir, NULL), LB_OK);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = 1000000, .rlim_max = 1000000};
        signal(SIGXFSZ, SIG_IGN);
        _exit(setrlimit(RLIMIT_FSIZE, &limit) == 0 ? overflow_in_child(dir, "File too large") : 1);
    }
    assert_int_equal(status_of(child), 0);
    lb_free(dir);
}

static void full_disk(void **state) {
    (void)state;
    enum { CANNOT_MOUNT = 99 };
    char *dir = in_folder("disk");
    assert_int_equal(lb_mkdirs(dir, NULL), LB_OK);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int flags = CLONE_NEWNS | (geteuid() != 0 ? CLONE_NEWUSER : 0);
        if (unshare(flags) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("none", dir, "tmpfs", 0, "size=1m") != 0) {
            _exit(CANNOT_MOUNT);
        }
        _exit(overflow_in_child(dir, "free some space): No space left on device"));
    }
    int result = status_of(child);
    lb_free(dir);
    if (result == CANNOT_MOUNT) {
        skip(); /* no small file system to be had here; file_size_limit covers the path */
    }
    assert_int_equal(result, 0);
}

static void writing_survives_failing_allocations(void **state) {
    (void)state;
    char *dir = in_folder("memory");
    char *path = lb_path_join(dir, "file");
    assert_int_equal(lb_mkdirs(dir, NULL), LB_OK);
    assert_int_equal(lb_file_replace(path, "old", 3, NULL), LB_OK);
    bool finished = false;
    for (long n = 1; !finished; n++) {
        struct lb_detail d = {0};
        lb_mem_fail_from(n);
        enum lb_status status = lb_file_replace(path, "new", 3, &d);
        finished = lb_mem_count() < n;
        lb_mem_fail_from(0);
        assert_int_equal(status, finished ? LB_OK : LB_E_NOMEM);
        assert_int_equal(d.code, status);
        assert_content(path, finished ? "new" : "old");
        assert_int_equal(n_entries(dir), 1);
    }
    lb_free(path);
    lb_free(dir);
}

/* ---- folders ---- */

static void folders_come_and_go(void **state) {
    (void)state;
    struct lb_detail d = {0};
    char *deep = in_folder("a/b//c/d/");
    assert_int_equal(lb_mkdirs(deep, &d), LB_OK);
    assert_true(lb_is_dir(deep));
    assert_int_equal(lb_mkdirs(deep, &d), LB_OK);
    assert_int_equal(lb_sync_dir(deep, &d), LB_OK);
    char *file = in_folder("a/b/file");
    assert_int_equal(lb_file_replace(file, "x", 1, &d), LB_OK);
    assert_true(lb_file_exists(file));
    assert_false(lb_is_dir(file));
    char *through = in_folder("a/b/file/more");
    assert_int_equal(lb_mkdirs(through, &d), LB_E_IO);
    assert_non_null(strstr(d.text, "a/b/file"));
    assert_int_equal(lb_sync_dir(file, NULL), LB_E_NOTFOUND);
    assert_int_equal(lb_mkdirs("", NULL), LB_E_ARG);
    /* Links are removed, not followed. */
    char *outside = in_folder("outside");
    char *kept = in_folder("outside/kept");
    char *link = in_folder("a/link");
    assert_int_equal(lb_mkdirs(outside, NULL), LB_OK);
    assert_int_equal(lb_file_replace(kept, "k", 1, NULL), LB_OK);
    assert_int_equal(symlink(outside, link), 0);
    char *top = in_folder("a");
    assert_int_equal(lb_remove_tree(top, NULL), LB_OK);
    assert_false(lb_file_exists(top));
    assert_content(kept, "k");
    assert_int_equal(lb_remove_tree(top, NULL), LB_OK); /* missing is fine */
    assert_int_equal(symlink(outside, top), 0);
    assert_int_equal(lb_remove_tree(top, NULL), LB_OK);
    assert_content(kept, "k");
    assert_int_equal(lb_remove_tree(kept, NULL), LB_OK); /* a file is a small tree */
    assert_false(lb_file_exists(kept));
    lb_free(deep);
    lb_free(file);
    lb_free(through);
    lb_free(outside);
    lb_free(kept);
    lb_free(link);
    lb_free(top);
}

static void paths_join(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}, {"a", "", "a/"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = lb_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(path, cases[i][2]);
        lb_free(path);
    }
    lb_mem_fail_from(1);
    assert_null(lb_path_join("a", "b"));
    lb_mem_fail_from(0);
}

/* ---- locks ---- */

static void one_owner_at_a_time(void **state) {
    (void)state;
    char *path = in_folder("lock");
    int fd = -1;
    struct lb_detail d = {0};
    assert_int_equal(lb_lock_file(path, &fd, &d), LB_OK);
    int second = -1;
    assert_int_equal(lb_lock_file(path, &second, &d), LB_E_BUSY);
    assert_int_equal(second, -1);
    char owner[32];
    snprintf(owner, sizeof owner, "process %ld;", (long)getpid());
    assert_non_null(strstr(d.text, owner));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(lb_lock_file(path, &second, NULL) == LB_E_BUSY ? 0 : 1);
    }
    assert_int_equal(status_of(child), 0);
    lb_unlock_file(fd);
    assert_int_equal(lb_lock_file(path, &second, NULL), LB_OK);
    lb_unlock_file(second);
    lb_unlock_file(-1);
    char *nowhere = in_folder("nowhere/lock");
    assert_int_equal(lb_lock_file(nowhere, &fd, NULL), LB_E_NOTFOUND);
    lb_free(nowhere);
    lb_free(path);
}

static void lock_ends_with_its_process(void **state) {
    (void)state;
    char *path = in_folder("orphan");
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int fd;
        bool ok = lb_lock_file(path, &fd, NULL) == LB_OK && write(ready[1], "x", 1) == 1;
        if (!ok) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    close(ready[1]);
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    int fd;
    assert_int_equal(lb_lock_file(path, &fd, NULL), LB_E_BUSY);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(lb_lock_file(path, &fd, NULL), LB_OK);
    lb_unlock_file(fd);
    lb_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps),
        cmocka_unit_test(maps_a_file_once),
        cmocka_unit_test(reads_within_the_maximum),
        cmocka_unit_test(replaces_only_at_commit),
        cmocka_unit_test(writes_any_mix_of_sizes),
        cmocka_unit_test(two_writers_of_one_name),
        cmocka_unit_test(bad_places_are_named),
        cmocka_unit_test(file_size_limit),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(writing_survives_failing_allocations),
        cmocka_unit_test(folders_come_and_go),
        cmocka_unit_test(paths_join),
        cmocka_unit_test(one_owner_at_a_time),
        cmocka_unit_test(lock_ends_with_its_process),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
