#include "common/nn/cpu.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

enum leaf { LEAF_1_ECX, LEAF_7_EBX, LEAF_7_ECX, LEAF_7_EDX, LEAF_71_EAX, LEAF_X1_ECX, N_LEAVES };

/* Registers that the operating system has to save (XCR0): of 256 bits, of 512 bits. */
enum saved { SAVED_ANY = 0, SAVED_256 = 0x6, SAVED_512 = 0xe6 };

/* Intel, "Software Developer's Manual", volume 2, CPUID; AMD, "Programmer's Manual", volume 3, appendix E. */
static const struct {
    const char *name;
    enum leaf leaf;
    int bit;
    uint32_t saved;
} sets[] = {
    {"sse3", LEAF_1_ECX, 0, SAVED_ANY},          {"ssse3", LEAF_1_ECX, 9, SAVED_ANY},
    {"sse4.1", LEAF_1_ECX, 19, SAVED_ANY},       {"sse4.2", LEAF_1_ECX, 20, SAVED_ANY},
    {"popcnt", LEAF_1_ECX, 23, SAVED_ANY},       {"movbe", LEAF_1_ECX, 22, SAVED_ANY},
    {"lzcnt", LEAF_X1_ECX, 5, SAVED_ANY},        {"bmi", LEAF_7_EBX, 3, SAVED_ANY},
    {"bmi2", LEAF_7_EBX, 8, SAVED_ANY},          {"avx", LEAF_1_ECX, 28, SAVED_256},
    {"f16c", LEAF_1_ECX, 29, SAVED_256},         {"fma", LEAF_1_ECX, 12, SAVED_256},
    {"avx2", LEAF_7_EBX, 5, SAVED_256},          {"gfni", LEAF_7_ECX, 8, SAVED_ANY},
    {"vaes", LEAF_7_ECX, 9, SAVED_256},          {"vpclmulqdq", LEAF_7_ECX, 10, SAVED_256},
    {"avxvnni", LEAF_71_EAX, 4, SAVED_256},      {"avx512f", LEAF_7_EBX, 16, SAVED_512},
    {"avx512dq", LEAF_7_EBX, 17, SAVED_512},     {"avx512ifma", LEAF_7_EBX, 21, SAVED_512},
    {"avx512cd", LEAF_7_EBX, 28, SAVED_512},     {"avx512bw", LEAF_7_EBX, 30, SAVED_512},
    {"avx512vl", LEAF_7_EBX, 31, SAVED_512},     {"avx512vbmi", LEAF_7_ECX, 1, SAVED_512},
    {"avx512vbmi2", LEAF_7_ECX, 6, SAVED_512},   {"avx512vnni", LEAF_7_ECX, 11, SAVED_512},
    {"avx512bitalg", LEAF_7_ECX, 12, SAVED_512}, {"avx512vpopcntdq", LEAF_7_ECX, 14, SAVED_512},
    {"avx512fp16", LEAF_7_EDX, 23, SAVED_512},   {"avx512bf16", LEAF_71_EAX, 5, SAVED_512},
};

static uint32_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low;
}

/* All zero where the CPU has no such leaf. */
static void read_leaves(uint32_t out[N_LEAVES], uint32_t *out_saved) {
    uint32_t a, b, c, d;
    memset(out, 0, N_LEAVES * sizeof *out);
    *out_saved = 0;
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        out[LEAF_1_ECX] = c;
        *out_saved = (c >> 27 & 1) != 0 ? saved_registers() : 0; /* OSXSAVE */
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        out[LEAF_7_EBX] = b;
        out[LEAF_7_ECX] = c;
        out[LEAF_7_EDX] = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
            out[LEAF_71_EAX] = a;
        }
    }
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) {
        out[LEAF_X1_ECX] = c;
    }
}

bool lb_cpu_has(const char *name) {
    uint32_t leaves[N_LEAVES], saved;
    read_leaves(leaves, &saved);
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (strcmp(sets[i].name, name) == 0) {
            return (leaves[sets[i].leaf] >> sets[i].bit & 1) != 0 && (saved & sets[i].saved) == sets[i].saved;
        }
    }
    return false;
}

void lb_cpu_each(void (*add)(void *context, const char *name), void *context) {
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (lb_cpu_has(sets[i].name)) {
            add(context, sets[i].name);
        }
    }
}
#else
void lb_cpu_each(void (*add)(void *context, const char *name), void *context) {
    (void)add;
    (void)context;
}

bool lb_cpu_has(const char *name) {
    (void)name;
    return false;
}
#endif

bool lb_cpu_missing(const char *needs, bool (*has)(const char *name), char *out, size_t out_size) {
    for (const char *at = needs + strspn(needs, " "); *at != '\0'; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        snprintf(out, out_size, "%.*s", (int)len, at);
        if (!has(out)) {
            return true;
        }
        at += len;
    }
    return false;
}

enum lb_cpu_class lb_cpu_class(void) {
    char missing[32];
    if (lb_cpu_missing("avx2 fma f16c bmi2", lb_cpu_has, missing, sizeof missing)) {
        return LB_CPU_PLAIN;
    }
    return lb_cpu_missing("avx512f avx512bw avx512cd avx512dq avx512vl", lb_cpu_has, missing, sizeof missing)
               ? LB_CPU_AVX2
               : LB_CPU_AVX512;
}
