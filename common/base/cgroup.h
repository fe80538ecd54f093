/* What this process's control groups (cgroups(7), versions 1 and 2) let it have: the least of its own group
 * and all above it. Read from files below root: "" in earnest, a folder in tests. What can't be read is no
 * limit. Any thread. */
#ifndef LB_BASE_CGROUP_H
#define LB_BASE_CGROUP_H

#include <stddef.h>

/* Processors' worth of time (cpu.max; cpu.cfs_quota_us by cpu.cfs_period_us); 0: no limit. */
double lb_cgroup_cpus(const char *root);
/* Bytes of memory (memory.max; memory.limit_in_bytes); SIZE_MAX: no limit. */
size_t lb_cgroup_memory(const char *root);

/* Processors to compute on. */
struct lb_cpus {
    int usable;   /* the affinity mask's, or the quota's, a part of one counting as one; at least 1 */
    int affinity; /* that this process may run on */
    double quota; /* lb_cgroup_cpus */
};
struct lb_cpus lb_cpus(const char *root, int affinity);
/* Processors in the affinity mask of the calling thread; at least 1. */
int lb_affinity(void);

#endif
