/* Linked into the programs only: before anything that was compiled for the build's CPU runs, the one at hand
 * is asked whether it can. Compiled for the plainest CPU; LB_CPU_NEEDS are the instruction sets of the
 * build's -march. */
#include "common/nn/cpu.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

__attribute__((constructor(101))) static void guard(void) {
    char missing[32], line[256];
    if (lb_cpu_missing(LB_CPU_NEEDS, lb_cpu_has, missing, sizeof missing)) {
        int len = snprintf(
            line, sizeof line,
            "limbeck: this program was built for a CPU with %s, which this one lacks; build it here, or with "
            "meson setup -Dmarch=x86-64-v3 (any CPU since 2013)\n",
            missing);
        ssize_t ignored = write(STDERR_FILENO, line, (size_t)len);
        (void)ignored;
        _exit(1);
    }
}
