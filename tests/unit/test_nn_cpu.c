/* What a CPU can do, and what is said where it can do less than the build needs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/cpu.h"
#include "common/nn/gemm.h"

#include <stdio.h>
#include <string.h>

/* Names that /proc/cpuinfo has in another spelling. */
static const char *kernel_name(const char *name) {
    static const char *const pairs[][2] = {{"sse4.1", "sse4_1"},
                                           {"sse4.2", "sse4_2"},
                                           {"sse3", "pni"},
                                           {"bmi", "bmi1"},
                                           {"lzcnt", "abm"},
                                           {"avxvnni", "avx_vnni"},
                                           {"avx512vbmi2", "avx512_vbmi2"},
                                           {"avx512vnni", "avx512_vnni"},
                                           {"avx512bitalg", "avx512_bitalg"},
                                           {"avx512vpopcntdq", "avx512_vpopcntdq"},
                                           {"avx512bf16", "avx512_bf16"},
                                           {"avx512fp16", "avx512_fp16"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (strcmp(pairs[i][0], name) == 0) {
            return pairs[i][1];
        }
    }
    return name;
}

/* The same as the kernel says. */
static void test_the_kernel_agrees(void **state) {
    (void)state;
    static const char *const names[] = {"sse3",        "ssse3",      "sse4.1",       "sse4.2",
                                        "popcnt",      "movbe",      "lzcnt",        "bmi",
                                        "bmi2",        "avx",        "f16c",         "fma",
                                        "avx2",        "gfni",       "vaes",         "vpclmulqdq",
                                        "avxvnni",     "avx512f",    "avx512dq",     "avx512ifma",
                                        "avx512cd",    "avx512bw",   "avx512vl",     "avx512vbmi",
                                        "avx512vbmi2", "avx512vnni", "avx512bitalg", "avx512vpopcntdq",
                                        "avx512bf16",  "avx512fp16"};
    static char flags[1 << 16];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f != NULL && fgets(flags, sizeof flags, f) != NULL && strncmp(flags, "flags", 5) != 0) {
    }
    if (f != NULL) {
        fclose(f);
    }
    if (strncmp(flags, "flags", 5) != 0) {
        skip(); /* not an x86 */
    }
    flags[strcspn(flags, "\n")] = ' ';
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char word[40];
        snprintf(word, sizeof word, " %s ", kernel_name(names[i]));
        if (lb_cpu_has(names[i]) != (strstr(flags, word) != NULL)) {
            fail_msg("%s: found %d, the kernel says otherwise", names[i], (int)lb_cpu_has(names[i]));
        }
    }
    assert_false(lb_cpu_has("avx9000"));
}

static bool only_avx2(const char *name) {
    return strcmp(name, "avx2") == 0 || strcmp(name, "fma") == 0;
}

static void test_what_is_missing_is_named(void **state) {
    (void)state;
    char name[32] = "";
    assert_false(lb_cpu_missing("", only_avx2, name, sizeof name));
    assert_false(lb_cpu_missing("avx2  fma ", only_avx2, name, sizeof name));
    assert_true(lb_cpu_missing("avx2 avx512bw fma f16c", only_avx2, name, sizeof name));
    assert_string_equal(name, "avx512bw");
    assert_true(lb_cpu_missing("avx", only_avx2, name, sizeof name)); /* not a part of a longer name */
}

/* Kernels below what the CPU can do are not taken; those that are as good are left. */
static void test_better_kernels(void **state) {
    (void)state;
    static const struct {
        const char *core;
        enum lb_cpu_class cpu;
        const char *better;
    } cases[] = {
        {"Prescott", LB_CPU_AVX512, "SkylakeX"},
        {"Haswell", LB_CPU_AVX512, "SkylakeX"},
        {"Zen", LB_CPU_AVX512, "SkylakeX"},
        {"Cooperlake", LB_CPU_AVX512, NULL},
        {"SkylakeX", LB_CPU_AVX512, NULL},
        {"SapphireRapids", LB_CPU_AVX512, NULL},
        {"Prescott", LB_CPU_AVX2, "Haswell"},
        {"Sandybridge", LB_CPU_AVX2, "Haswell"},
        {"Zen", LB_CPU_AVX2, NULL},
        {"Haswell", LB_CPU_AVX2, NULL},
        {"Prescott", LB_CPU_PLAIN, NULL},
        {"Sandybridge", LB_CPU_PLAIN, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *better = lb_gemm_better_core(cases[i].core, cases[i].cpu);
        assert_true((better == NULL) == (cases[i].better == NULL));
        assert_true(better == NULL || strcmp(better, cases[i].better) == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_kernel_agrees),
        cmocka_unit_test(test_what_is_missing_is_named),
        cmocka_unit_test(test_better_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
