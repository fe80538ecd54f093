/* Bytes that are appended now and read later, of which memory holds the last ones only: those before lie in a
 * file without a name, which goes when this process does, however that ends. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HELD ((size_t)1 << 20) /* bytes that wait in memory */
#define FIRST 4096

static int open_and_unlink(const char *folder) {
    char *path = lb_path_join(folder, ".limbeck-data-XXXXXX");
    int fd = path != NULL ? mkostemp(path, O_CLOEXEC) : -1;
    if (fd >= 0) {
        unlink(path);
    }
    lb_free(path);
    return fd;
}

/* O_TMPFILE is not there on all file systems. */
static int open_nameless(const char *folder) {
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        return open_and_unlink(folder);
    }
    return fd;
}

static const char *folder_of(const struct lb_spill *spill) {
    return spill->folder != NULL ? spill->folder : "/var/tmp";
}

/* What waits goes into the file. */
static enum lb_status write_out(struct lb_spill *spill, struct lb_detail *detail) {
    if (!spill->open) {
        spill->fd = open_nameless(folder_of(spill));
        spill->open = spill->fd >= 0;
    }
    size_t done = 0;
    ssize_t put = 0;
    while (spill->open && put >= 0 && done < spill->n) {
        put = pwrite(spill->fd, spill->last + done, spill->n - done, (off_t)(spill->in_file + (int64_t)done));
        put = put < 0 && errno == EINTR ? 0 : put;
        done += put > 0 ? (size_t)put : 0;
    }
    if (!spill->open || put < 0) {
        return lb_fail_errno(detail, LB_E_IO, errno, "cannot keep the data's ids in %s", folder_of(spill));
    }
    spill->in_file += (int64_t)spill->n;
    spill->n = 0;
    return LB_OK;
}

enum lb_status lb_spill_append(struct lb_spill *spill, const void *bytes, size_t len,
                               struct lb_detail *detail) {
    const uint8_t *from = bytes;
    while (len > 0) {
        if (spill->n == spill->cap && spill->cap < HELD) {
            size_t cap = spill->cap > 0 ? 4 * spill->cap : FIRST;
            uint8_t *last = lb_realloc_array(spill->last, cap, 1);
            if (last == NULL) {
                return lb_fail(detail, LB_E_NOMEM, "out of memory for the data");
            }
            spill->last = last;
            spill->cap = cap;
        }
        enum lb_status status = spill->n == spill->cap ? write_out(spill, detail) : LB_OK;
        if (status != LB_OK) {
            return status;
        }
        size_t now = spill->cap - spill->n < len ? spill->cap - spill->n : len;
        memcpy(spill->last + spill->n, from, now);
        spill->n += now;
        from += now;
        len -= now;
    }
    return LB_OK;
}

enum lb_status lb_spill_read(const struct lb_spill *spill, int64_t at, void *to, size_t len,
                             struct lb_detail *detail) {
    uint8_t *out = to;
    while (len > 0 && at < spill->in_file) {
        size_t left = (size_t)(spill->in_file - at);
        ssize_t got = pread(spill->fd, out, len < left ? len : left, (off_t)at);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return lb_fail_errno(detail, LB_E_IO, got == 0 ? EIO : errno,
                                 "cannot read the data's ids back from %s", folder_of(spill));
        }
        at += got > 0 ? got : 0;
        out += got > 0 ? got : 0;
        len -= got > 0 ? (size_t)got : 0;
    }
    if (len > 0) {
        memcpy(out, spill->last + (at - spill->in_file), len);
    }
    return LB_OK;
}

int64_t lb_spill_size(const struct lb_spill *spill) {
    return spill->in_file + (int64_t)spill->n;
}

void lb_spill_cut(struct lb_spill *spill, int64_t size) {
    if (size < spill->in_file) {
        spill->in_file = size; /* what is appended is written over it */
        spill->n = 0;
    } else {
        spill->n = (size_t)(size - spill->in_file);
    }
}

void lb_spill_finish(struct lb_spill *spill) {
    if (spill->open) {
        close(spill->fd);
    }
    lb_free(spill->last);
    *spill = (struct lb_spill){.last = NULL};
}
