#include "common/base/file.h"

#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITE_BUFFER = 256 << 10, READ_STEP = 64 << 10 };
#define WRITE_AT_ONCE ((size_t)16 << 20) /* until it is looked whether to stop */

static enum lb_status open_failed(struct lb_detail *detail, int errnum, const char *path) {
    enum lb_status code = errnum == ENOENT || errnum == ENOTDIR ? LB_E_NOTFOUND : LB_E_IO;
    return lb_fail_errno(detail, code, errnum, "cannot open %s", path);
}

/* ---- reading ---- */

static enum lb_status too_large(struct lb_detail *detail, const char *path, size_t limit) {
    return lb_fail(detail, LB_E_LIMIT, "%s is larger than the %zu bytes that are allowed here", path, limit);
}

enum lb_status lb_file_read(const char *path, struct lb_buf *buf, struct lb_detail *detail) {
    if (buf->status != LB_OK) {
        return lb_fail(detail, buf->status, "%s: the buffer to read it into had failed before", path);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return open_failed(detail, errno, path);
    }
    size_t before = buf->len;
    size_t limit = buf->max - before;
    enum lb_status status = LB_OK;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size > limit) {
        status = too_large(detail, path, limit);
        goto out;
    }
    for (;;) {
        size_t left = buf->max - buf->len;
        size_t want = left < READ_STEP ? left : READ_STEP;
        char probe = 0;
        char *place = want > 0 ? lb_buf_extend(buf, want) : &probe;
        if (place == NULL) {
            status = lb_fail(detail, buf->status, "out of memory while reading %s", path);
            break;
        }
        /* With no room left one byte more is tried: there must not be one. */
        ssize_t n;
        do {
            n = read(fd, place, want > 0 ? want : 1);
        } while (n < 0 && errno == EINTR);
        buf->len -= want - (n > 0 && want > 0 ? (size_t)n : 0);
        if (n < 0) {
            status = lb_fail_errno(detail, LB_E_IO, errno, "cannot read %s", path);
            break;
        }
        if (n == 0) {
            break;
        }
        if (want == 0) {
            status = too_large(detail, path, limit);
            break;
        }
    }
    if (status != LB_OK) {
        buf->len = before;
    }
    if (buf->data != NULL) {
        buf->data[buf->len] = '\0';
    }
out:
    close(fd);
    return status;
}

/* ---- writing ---- */

/* The folder that holds path, on the heap. */
static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return lb_strdup(".");
    }
    size_t len = slash == path ? 1 : (size_t)(slash - path);
    char *dir = lb_malloc_array(len + 1, 1);
    if (dir != NULL) {
        memcpy(dir, path, len);
        dir[len] = '\0';
    }
    return dir;
}

/* Closes and forgets everything; the temporary file goes unless it was renamed. */
static void writer_clear(struct lb_writer *writer, bool remove_temp) {
    if (writer->temp_path != NULL) {
        if (writer->fd >= 0) {
            close(writer->fd);
        }
        if (remove_temp) {
            unlink(writer->temp_path);
        }
    }
    lb_free(writer->path);
    lb_free(writer->temp_path);
    lb_free(writer->pending);
    writer->fd = -1;
    writer->path = NULL;
    writer->temp_path = NULL;
    writer->pending = NULL;
    writer->pending_len = 0;
}

/* Makes a new file beside writer->path, under a name that no other process or thread picks. */
static enum lb_status create_temp(struct lb_writer *writer, struct lb_detail *detail) {
    static atomic_uint counter;
    size_t bytes = strlen(writer->path) + 48;
    char *name = lb_malloc_array(bytes, 1);
    if (name == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while opening %s for writing", writer->path);
    }
    int fd;
    do { /* a file of that name can only be the remains of an earlier process with our number */
        snprintf(name, bytes, "%s.tmp-%ld-%u", writer->path, (long)getpid(), atomic_fetch_add(&counter, 1));
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (fd < 0 && errno == EEXIST);
    if (fd < 0) {
        enum lb_status status = lb_fail_errno(detail, errno == ENOENT ? LB_E_NOTFOUND : LB_E_IO, errno,
                                              "cannot create a file beside %s", writer->path);
        lb_free(name);
        return status;
    }
    struct stat st;
    if (stat(writer->path, &st) == 0 && S_ISREG(st.st_mode)) {
        (void)fchmod(fd, st.st_mode & 07777); /* the new content keeps the old permissions where possible */
    }
    writer->fd = fd;
    writer->temp_path = name;
    return LB_OK;
}

enum lb_status lb_writer_open(struct lb_writer *writer, const char *path, struct lb_detail *detail) {
    *writer = (struct lb_writer){.fd = -1};
    if (lb_is_dir(path)) {
        return lb_fail(detail, LB_E_IO, "cannot write %s: there is a folder of that name", path);
    }
    writer->path = lb_strdup(path);
    writer->pending = lb_malloc_array(WRITE_BUFFER, 1);
    if (writer->path == NULL || writer->pending == NULL) {
        writer_clear(writer, false);
        return lb_fail(detail, LB_E_NOMEM, "out of memory while opening %s for writing", path);
    }
    enum lb_status status = create_temp(writer, detail);
    if (status != LB_OK) {
        writer_clear(writer, false);
    }
    return status;
}

/* Records the first failure and gives the disk its space back at once. */
static void writer_fail(struct lb_writer *writer, int errnum) {
    writer->status = lb_fail_errno(&writer->detail, LB_E_IO, errnum,
                                   "cannot write %s after %llu bytes (the file is as it was before%s)",
                                   writer->path, (unsigned long long)writer->written,
                                   errnum == ENOSPC || errnum == EDQUOT ? "; free some space" : "");
    writer_clear(writer, true);
}

static _Thread_local const volatile sig_atomic_t *stop_writing;

void lb_writing_stop_on(const volatile sig_atomic_t *stop) {
    stop_writing = stop;
}

bool lb_writing_stopped(void) {
    return stop_writing != NULL && *stop_writing != 0;
}

static bool write_out(struct lb_writer *writer, const uint8_t *bytes, size_t len) {
    while (len > 0) {
        if (lb_writing_stopped()) {
            writer->status = lb_fail(&writer->detail, LB_E_CANCELLED,
                                     "stopped while writing %s (it is as it was before)", writer->path);
            writer_clear(writer, true);
            return false;
        }
        ssize_t n = write(writer->fd, bytes, len < WRITE_AT_ONCE ? len : WRITE_AT_ONCE);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            writer_fail(writer, n < 0 ? errno : EIO);
            return false;
        }
        bytes += n;
        len -= (size_t)n;
        writer->written += (uint64_t)n;
    }
    return true;
}

static bool flush_pending(struct lb_writer *writer) {
    size_t len = writer->pending_len;
    writer->pending_len = 0;
    return write_out(writer, writer->pending, len);
}

void lb_writer_put(struct lb_writer *writer, const void *bytes, size_t len) {
    if (writer->status != LB_OK || writer->temp_path == NULL || len == 0) {
        return;
    }
    if (len > WRITE_BUFFER - writer->pending_len && !flush_pending(writer)) {
        return;
    }
    if (len >= WRITE_BUFFER) {
        (void)write_out(writer, bytes, len);
        return;
    }
    memcpy(writer->pending + writer->pending_len, bytes, len);
    writer->pending_len += len;
}

enum lb_status lb_writer_commit(struct lb_writer *writer, struct lb_detail *detail) {
    if (writer->status == LB_OK && writer->temp_path == NULL) {
        return lb_fail(detail, LB_E_INTERNAL, "a file that is not open for writing was to be committed");
    }
    if (writer->status != LB_OK || !flush_pending(writer)) {
        return lb_fail(detail, writer->status, "%s", writer->detail.text);
    }
    char *dir = parent_of(writer->path);
    if (dir == NULL) {
        writer->status = lb_fail(&writer->detail, LB_E_NOMEM, "out of memory while writing %s", writer->path);
        writer_clear(writer, true);
        return lb_fail(detail, writer->status, "%s", writer->detail.text);
    }
    enum lb_status status = LB_OK;
    int fd = writer->fd;
    writer->fd = -1;
    if (fsync(fd) != 0) {
        int errnum = errno;
        close(fd);
        writer_fail(writer, errnum);
    } else if (close(fd) != 0) { /* some file systems tell a full disk only now */
        writer_fail(writer, errno);
    } else if (rename(writer->temp_path, writer->path) != 0) {
        writer_fail(writer, errno);
    } else {
        writer_clear(writer, false);
        status = lb_sync_dir(dir, detail);
    }
    if (writer->status != LB_OK) {
        status = lb_fail(detail, writer->status, "%s", writer->detail.text);
    }
    lb_free(dir);
    return status;
}

void lb_writer_abort(struct lb_writer *writer) {
    if (writer != NULL && writer->temp_path != NULL) {
        writer_clear(writer, true);
    }
}

enum lb_status lb_file_replace(const char *path, const void *bytes, size_t len, struct lb_detail *detail) {
    struct lb_writer writer;
    enum lb_status status = lb_writer_open(&writer, path, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_writer_put(&writer, bytes, len);
    return lb_writer_commit(&writer, detail);
}

/* ---- folders ---- */

static enum lb_status make_dir(const char *path, struct lb_detail *detail) {
    if (mkdir(path, 0777) == 0) {
        return LB_OK;
    }
    int errnum = errno;
    if (errnum == EEXIST && lb_is_dir(path)) {
        return LB_OK;
    }
    return lb_fail_errno(detail, LB_E_IO, errnum, "cannot make the folder %s", path);
}

enum lb_status lb_mkdirs(const char *path, struct lb_detail *detail) {
    if (*path == '\0') {
        return lb_fail(detail, LB_E_ARG, "cannot make a folder without a name");
    }
    if (lb_is_dir(path)) {
        return LB_OK;
    }
    char *copy = lb_strdup(path);
    if (copy == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while making the folder %s", path);
    }
    enum lb_status status = LB_OK;
    for (char *slash = copy + 1; status == LB_OK && *slash != '\0' && (slash = strchr(slash, '/')) != NULL;
         slash++) {
        *slash = '\0';
        if (!lb_is_dir(copy)) { /* not made when there: its parent may be one where we must not write */
            status = make_dir(copy, detail);
        }
        *slash = '/';
    }
    if (status == LB_OK) {
        status = make_dir(copy, detail);
    }
    lb_free(copy);
    return status;
}

bool lb_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool lb_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

enum lb_status lb_sync_dir(const char *path, struct lb_detail *detail) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return open_failed(detail, errno, path);
    }
    enum lb_status status = LB_OK;
    /* Some network file systems know no fsync of a folder; there is nothing better to do there. */
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) {
        status = lb_fail_errno(detail, LB_E_IO, errno, "cannot sync the folder %s", path);
    }
    close(fd);
    return status;
}

enum lb_status lb_remove_tree(const char *path, struct lb_detail *detail) {
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? LB_OK : lb_fail_errno(detail, LB_E_IO, errno, "cannot look at %s", path);
    }
    char *copy = lb_strdup(path);
    char *roots[] = {copy, NULL};
    FTS *walk = copy != NULL ? fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL) : NULL;
    if (walk == NULL) {
        lb_free(copy);
        return lb_fail(detail, LB_E_NOMEM, "out of memory while removing %s", path);
    }
    enum lb_status status = LB_OK;
    FTSENT *entry;
    while (status == LB_OK && (entry = fts_read(walk)) != NULL) {
        int errnum = 0;
        if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS) {
            errnum = entry->fts_errno;
        } else if (entry->fts_info == FTS_DP) {
            errnum = rmdir(entry->fts_accpath) != 0 ? errno : 0;
        } else if (entry->fts_info != FTS_D) {
            errnum = unlink(entry->fts_accpath) != 0 ? errno : 0;
        }
        if (errnum != 0 && errnum != ENOENT) {
            status = lb_fail_errno(detail, LB_E_IO, errnum, "cannot remove %s", entry->fts_path);
        }
    }
    fts_close(walk);
    lb_free(copy);
    return status;
}

char *lb_path_join(const char *dir, const char *name) {
    size_t dir_len = strlen(dir);
    size_t name_len = strlen(name);
    bool slash = dir_len > 0 && dir[dir_len - 1] != '/';
    char *path = lb_malloc_array(dir_len + name_len + 2, 1);
    if (path != NULL) {
        snprintf(path, dir_len + name_len + 2, "%s%s%s", dir, slash ? "/" : "", name);
    }
    return path;
}

/* ---- locks ---- */

enum lb_status lb_lock_file(const char *path, int *out_fd, struct lb_detail *detail) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        return open_failed(detail, errno, path);
    }
    char owner[24];
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int errnum = errno;
        ssize_t n = pread(fd, owner, sizeof owner - 1, 0);
        close(fd);
        if (errnum != EWOULDBLOCK) {
            return lb_fail_errno(detail, LB_E_IO, errnum, "cannot lock %s", path);
        }
        owner[n > 0 ? n : 0] = '\0';
        owner[strspn(owner, "0123456789")] = '\0';
        return lb_fail(detail, LB_E_BUSY, "%s is locked by %s%s; wait for it to end or use another folder",
                       path, owner[0] != '\0' ? "process " : "another process", owner);
    }
    int len = snprintf(owner, sizeof owner, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, owner, (size_t)len, 0) != len) {
        (void)!ftruncate(fd, 0); /* the number is a help for people; the lock holds without it */
    }
    *out_fd = fd;
    return LB_OK;
}

void lb_unlock_file(int fd) {
    if (fd >= 0) {
        (void)!ftruncate(fd, 0);
        close(fd);
    }
}
