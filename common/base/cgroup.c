#include "common/base/cgroup.h"

#include "common/base/buf.h"
#include "common/base/file.h"

#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PATH 4096
#define MAX_TEXT 65536

/* The text of a small file into the buffer; false when it can't be read. */
static bool read_text(const char *path, struct lb_buf *out) {
    lb_buf_reset(out);
    return lb_file_read(path, out, NULL) == LB_OK && out->data;
}

/* Where a controller's group is: its folder and the one at the top. */
struct place {
    char path[MAX_PATH];
    size_t top; /* bytes of path that are the top's */
    bool v2;
};

/* Whether the word stands in the list of n bytes, with commas between. */
static bool lists(const char *list, size_t n, const char *word) {
    size_t len = strlen(word);
    for (const char *end = list + n; list <= end;) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        size_t size = (size_t)((comma ? comma : end) - list);
        if (size == len && memcmp(list, word, len) == 0) {
            return true;
        }
        list += size + 1;
    }
    return false;
}

/* Lines of /proc/self/cgroup are ID:CONTROLLERS:PATH; version 2 has none of the middle. The one of the
 * controller is preferred, as where both are mounted, it is the one that counts. */
static bool find_place(const char *root, const char *controller, struct lb_buf *text, struct place *out) {
    char path[MAX_PATH];
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (!read_text(path, text)) {
        return false;
    }
    for (char *line = text->data, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) {
            *next++ = '\0';
        }
        const char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group) {
            continue;
        }
        bool v2 = group == list + 1, v1 = lists(list + 1, (size_t)(group - list - 1), controller);
        if (!(v1 || (v2 && !found))) {
            continue;
        }
        /* Of a group outside of what we see, only the top is there. */
        bool seen = !strstr(group, "/..");
        out->v2 = v2;
        out->top = (size_t)snprintf(out->path, sizeof out->path, "%s/sys/fs/cgroup%s%s", root, v2 ? "" : "/",
                                    v2 ? "" : controller);
        int whole = snprintf(path, sizeof path, "%s%s", out->path, seen ? group + 1 : "");
        found = whole > 0 && (size_t)whole < sizeof path && out->top < sizeof out->path;
        if (found) {
            memcpy(out->path, path, (size_t)whole + 1);
        }
    }
    return found;
}

/* The number at the beginning of a group's file; false for "max", -1 and what isn't there. rest: what
 * follows. */
static bool read_number(const struct place *place, const char *name, struct lb_buf *text, double *out,
                        const char **rest) {
    char path[MAX_PATH + 64];
    snprintf(path, sizeof path, "%s/%s", place->path, name);
    if (!read_text(path, text) || text->data[0] < '0' || text->data[0] > '9') {
        return false;
    }
    char *end = NULL;
    *out = strtod(text->data, &end);
    *rest = end;
    return true;
}

/* The next group above; false at the top. */
static bool climb(struct place *place) {
    size_t len = strlen(place->path);
    while (len > place->top && place->path[len - 1] == '/') {
        len--;
    }
    while (len > place->top && place->path[len - 1] != '/') {
        len--;
    }
    bool more = strlen(place->path) > place->top;
    place->path[len] = '\0';
    return more;
}

/* ---- processors ---- */

static double cpus_here(const struct place *place, struct lb_buf *text) {
    double quota = 0, period = 0;
    const char *rest = "";
    if (place->v2) {
        if (!read_number(place, "cpu.max", text, &quota, &rest)) {
            return 0;
        }
        period = strtod(rest, NULL);
    } else if (!read_number(place, "cpu.cfs_quota_us", text, &quota, &rest) ||
               !read_number(place, "cpu.cfs_period_us", text, &period, &rest)) {
        return 0;
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

double lb_cgroup_cpus(const char *root) {
    struct lb_buf text;
    struct place place;
    double least = 0;
    lb_buf_init(&text, MAX_TEXT);
    bool more = find_place(root, "cpu", &text, &place);
    while (more) {
        double cpus = cpus_here(&place, &text);
        least = cpus > 0 && (least == 0 || cpus < least) ? cpus : least;
        more = climb(&place);
    }
    lb_buf_finish(&text);
    return least;
}

struct lb_cpus lb_cpus(const char *root, int affinity) {
    struct lb_cpus cpus = {.usable = affinity, .affinity = affinity, .quota = lb_cgroup_cpus(root)};
    if (cpus.quota > 0 && ceil(cpus.quota) < affinity) {
        cpus.usable = (int)ceil(cpus.quota);
    }
    return cpus;
}

int lb_affinity(void) {
    cpu_set_t set;
    long n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    return n > 1 ? (int)n : 1;
}

/* ---- memory ---- */

size_t lb_cgroup_memory(const char *root) {
    struct lb_buf text;
    struct place place;
    size_t least = SIZE_MAX;
    lb_buf_init(&text, MAX_TEXT);
    bool more = find_place(root, "memory", &text, &place);
    while (more) {
        double bytes = 0;
        const char *rest;
        /* Version 1 writes a number larger than any memory for none. */
        if (read_number(&place, place.v2 ? "memory.max" : "memory.limit_in_bytes", &text, &bytes, &rest) &&
            bytes < (double)least) {
            least = (size_t)bytes;
        }
        more = climb(&place);
    }
    lb_buf_finish(&text);
    return least;
}
