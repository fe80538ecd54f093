/* What control groups allow, read from trees of files as the kernel lays them out. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/cgroup.h"
#include "common/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/limbeck-cgroup-XXXXXX";
static char root[64];
static int n_roots;

/* An empty tree. */
static void begin(const char *groups) {
    char path[128];
    snprintf(root, sizeof root, "%s/%d", folder, n_roots++);
    snprintf(path, sizeof path, "%s/proc/self", root);
    assert_int_equal(lb_mkdirs(path, NULL), LB_OK);
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    assert_int_equal(lb_file_replace(path, groups, strlen(groups), NULL), LB_OK);
}

static void put(const char *group, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s", root, group);
    assert_int_equal(lb_mkdirs(path, NULL), LB_OK);
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/%s", root, group, name);
    assert_int_equal(lb_file_replace(path, text, strlen(text), NULL), LB_OK);
}

static double cpus(void) {
    return lb_cgroup_cpus(root);
}

/* The least of all groups from our own up to the top. */
static void test_v2(void **state) {
    (void)state;
    begin("0::/system.slice/limbeckd.service\n");
    assert_true(cpus() == 0);
    put("/system.slice/limbeckd.service", "cpu.max", "max 100000\n");
    assert_true(cpus() == 0);
    put("/system.slice/limbeckd.service", "cpu.max", "350000 100000\n");
    put("/system.slice/limbeckd.service", "memory.max", "3000000\n");
    assert_true(cpus() == 3.5);
    put("/system.slice", "cpu.max", "400000 100000\n");
    put("/system.slice", "memory.max", "max\n");
    assert_true(cpus() == 3.5);
    put("/system.slice", "cpu.max", "25000 50000\n");
    put("/system.slice", "memory.max", "2000000\n");
    assert_true(cpus() == 0.5);
    assert_true(lb_cgroup_memory(root) == 2000000);
    put("", "cpu.max", "10000 100000\n"); /* the top: a container's own */
    put("", "memory.max", "1000000\n");
    assert_true(cpus() == 0.1);
    assert_true(lb_cgroup_memory(root) == 1000000);
    put("/other", "cpu.max", "1000 100000\n"); /* not ours */
    put("/system.slice/limbeckd.service/below", "cpu.max", "1000 100000\n");
    assert_true(cpus() == 0.1);
}

/* In a container: our own group is the top, or one that can't be seen from here. */
static void test_container(void **state) {
    (void)state;
    static const char *const groups[] = {"0::/\n", "0::/docker/0123\n", "0::/../../kubepods/pod1\n"};
    for (size_t i = 0; i < 3; i++) {
        begin(groups[i]);
        assert_true(cpus() == 0);
        put("", "cpu.max", "150000 100000\n");
        put("", "memory.max", "1000000\n");
        assert_true(cpus() == 1.5);
        assert_true(lb_cgroup_memory(root) == 1000000);
    }
}

static void test_v1(void **state) {
    (void)state;
    begin("9:name=systemd:/\n4:memory:/docker/7\n3:cpuset:/a\n2:cpu,cpuacct:/docker/7\n0::/\n");
    assert_true(cpus() == 0);
    assert_true(lb_cgroup_memory(root) == SIZE_MAX);
    put("/cpu/docker/7", "cpu.cfs_quota_us", "-1\n");
    put("/cpu/docker/7", "cpu.cfs_period_us", "100000\n");
    put("/memory/docker/7", "memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(cpus() == 0);
    assert_true(lb_cgroup_memory(root) > (size_t)1 << 60);
    put("/cpu/docker/7", "cpu.cfs_quota_us", "200000\n");
    put("/memory/docker/7", "memory.limit_in_bytes", "5000000\n");
    assert_true(cpus() == 2);
    assert_true(lb_cgroup_memory(root) == 5000000);
    put("/cpu", "cpu.cfs_quota_us", "50000\n");
    put("/cpu", "cpu.cfs_period_us", "40000\n");
    assert_true(cpus() == 1.25);
    put("", "cpu.max", "1000 100000\n"); /* version 2 is not who limits it here */
    assert_true(cpus() == 1.25);
}

/* What can't be understood is no limit. */
static void test_odd(void **state) {
    (void)state;
    static const char *const odd[] = {"",           "\n",          "max\n",      "100000\n",
                                      "0 100000\n", "-5 100000\n", "100000 0\n", "x y\n"};
    snprintf(root, sizeof root, "%s/absent", folder);
    assert_true(cpus() == 0 && lb_cgroup_memory(root) == SIZE_MAX);
    begin("nonsense\n0:\n\n0::/a\n");
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        put("/a", "cpu.max", odd[i]);
        assert_true(cpus() == 0);
    }
    put("/a", "cpu.max", "100000 100000\n");
    assert_true(cpus() == 1);
}

static void test_processors(void **state) {
    (void)state;
    static const struct {
        const char *max;
        int affinity, usable;
    } cases[] = {{"max 100000\n", 8, 8},    {"400000 100000\n", 8, 4}, {"150000 100000\n", 8, 2},
                 {"150000 100000\n", 1, 1}, {"1000 100000\n", 8, 1},   {"800000 100000\n", 8, 8},
                 {"1600000 100000\n", 8, 8}};
    begin("0::/\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("", "cpu.max", cases[i].max);
        struct lb_cpus found = lb_cpus(root, cases[i].affinity);
        assert_int_equal(found.usable, cases[i].usable);
        assert_int_equal(found.affinity, cases[i].affinity);
    }
    assert_true(lb_affinity() >= 1);
}

int main(void) {
    if (!mkdtemp(folder)) {
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_v2), cmocka_unit_test(test_container),
                                       cmocka_unit_test(test_v1), cmocka_unit_test(test_odd),
                                       cmocka_unit_test(test_processors)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
