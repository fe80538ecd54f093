#include "common/base/file.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A mapping that is open somewhere. Files are the same when nothing tells them apart that a change would
 * change. */
struct shared {
    struct stat of;
    char *path; /* by which it was opened first */
    const uint8_t *data;
    size_t len;
    unsigned references;
    struct shared *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shared *all;

static bool same_time(const struct timespec *a, const struct timespec *b) {
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           same_time(&a->st_mtim, &b->st_mtim) && same_time(&a->st_ctim, &b->st_ctim);
}

/* Under the lock: another reference to the file's mapping, made when there is none. Not its file's to close.
 */
static enum lb_status share(struct lb_map *map, int fd, const struct stat *of, const char *path,
                            struct lb_detail *detail) {
    struct shared *s = all;
    while (s != NULL && !same_file(&s->of, of)) {
        s = s->next;
    }
    if (s == NULL) {
        s = lb_calloc(1, sizeof *s);
        char *copy = s ? lb_strdup(path) : NULL;
        void *data = copy ? mmap(NULL, (size_t)of->st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
        if (data == MAP_FAILED) {
            int error = errno;
            bool no_memory = copy == NULL;
            lb_free(copy);
            lb_free(s);
            return no_memory ? lb_fail(detail, LB_E_NOMEM, "out of memory while opening %s", path)
                             : lb_fail_errno(detail, LB_E_IO, error, "cannot map %s (%lld bytes)", path,
                                             (long long)of->st_size);
        }
        *s = (struct shared){*of, copy, data, (size_t)of->st_size, 0, all};
        all = s;
    }
    s->references++;
    *map = (struct lb_map){s->data, s->len};
    return LB_OK;
}

enum lb_status lb_map_open(struct lb_map *map, const char *path, struct lb_detail *detail) {
    /* Not blocking: opening a pipe by mistake must not wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return lb_fail_errno(detail, errno == ENOENT || errno == ENOTDIR ? LB_E_NOTFOUND : LB_E_IO, errno,
                             "cannot open %s", path);
    }
    enum lb_status status = LB_OK;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        status = lb_fail_errno(detail, LB_E_IO, errno, "cannot look at %s", path);
    } else if (!S_ISREG(st.st_mode)) {
        status = lb_fail(detail, LB_E_IO, "%s is %s, not a regular file", path,
                         S_ISDIR(st.st_mode) ? "a folder" : "a special file");
    } else if (st.st_size == 0) {
        *map = (struct lb_map){0};
    } else {
        pthread_mutex_lock(&lock);
        status = share(map, fd, &st, path, detail);
        pthread_mutex_unlock(&lock);
    }
    close(fd);
    return status;
}

const char *lb_map_written(const struct lb_map *map) {
    if (map->data == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&lock);
    const struct shared *s = all;
    while (s->data != map->data) {
        s = s->next;
    }
    pthread_mutex_unlock(&lock); /* it stays as it is while it is open */
    struct stat now;
    bool written = stat(s->path, &now) == 0 && now.st_dev == s->of.st_dev && now.st_ino == s->of.st_ino &&
                   (now.st_size != s->of.st_size || !same_time(&now.st_mtim, &s->of.st_mtim));
    return written ? s->path : NULL;
}

void lb_map_forget(const struct lb_map *map, size_t upto) {
    upto -= upto % (size_t)sysconf(_SC_PAGESIZE);
    if (upto > 0) {
        (void)madvise((void *)(uintptr_t)map->data, upto, MADV_DONTNEED); /* advice */
    }
}

void lb_map_close(struct lb_map *map) {
    if (map == NULL || map->data == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    struct shared **at = &all, *s;
    while ((s = *at)->data != map->data) {
        at = &s->next;
    }
    bool last = --s->references == 0;
    if (last) {
        *at = s->next;
    }
    pthread_mutex_unlock(&lock);
    if (last) {
        munmap((void *)(uintptr_t)s->data, s->len);
        lb_free(s->path);
        lb_free(s);
    }
    *map = (struct lb_map){0};
}
