/* What this CPU can execute: the place where kernels that exist for several instruction sets are chosen, and
 * where a program built for a better CPU is found out before it dies of an illegal instruction.
 *
 * cpu.c is compiled for the plainest CPU of the architecture, whatever the build's -march is. Pure: any
 * thread.
 */
#ifndef LB_NN_CPU_H
#define LB_NN_CPU_H

#include <stdbool.h>
#include <stddef.h>

/* Whether the CPU has the instruction set and the system saves its registers; names as GCC's -m options have
 * them ("avx2", "avx512bw", "f16c"). False for names that are not known here. */
bool lb_cpu_has(const char *name);

/* Calls add for each name that the CPU has, in the order of the table. */
void lb_cpu_each(void (*add)(void *context, const char *name), void *context);

/* Which of several kernels to take: each class includes those before it. */
enum lb_cpu_class {
    LB_CPU_PLAIN, /* what every CPU of the architecture has */
    LB_CPU_AVX2,  /* avx2, fma, f16c, bmi2: x86-64-v3 */
    LB_CPU_AVX512 /* and avx512f, bw, cd, dq, vl: x86-64-v4 */
};
enum lb_cpu_class lb_cpu_class(void);

/* The first name in needs (separated by spaces) that has does not give, copied into out; false when all are
 * there. */
bool lb_cpu_missing(const char *needs, bool (*has)(const char *name), char *out, size_t out_size);

#endif
