#include "common/base/folder.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_MARK_BYTES ((size_t)1 << 20)
#define OLD_SECONDS 60

static bool is_dots(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

enum lb_status lb_folder_mark(const char *dir, const char *kind, struct lb_detail *detail) {
    DIR *d = opendir(dir);
    if (d == NULL) {
        return lb_fail_errno(detail, LB_E_IO, errno, "cannot open %s", dir);
    }
    struct lb_buf text;
    lb_buf_init(&text, MAX_MARK_BYTES);
    lb_buf_printf(&text, "limbeck %s 1\n", kind);
    for (const struct dirent *entry; (entry = readdir(d)) != NULL;) {
        if (!is_dots(entry->d_name) && strcmp(entry->d_name, LB_MARK) != 0) {
            lb_buf_printf(&text, "%s\n", entry->d_name);
        }
    }
    closedir(d);
    char *path = lb_path_join(dir, LB_MARK);
    enum lb_status status = path != NULL && lb_buf_status(&text) == LB_OK
                                ? lb_file_replace(path, text.data, text.len, detail)
                                : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    lb_free(path);
    lb_buf_finish(&text);
    return status;
}

/* Whether the mark's text has name as a line after the first. */
static bool lists(const struct lb_buf *mark, const char *name) {
    size_t len = strlen(name);
    const char *at = mark->len > 0 ? memchr(mark->data, '\n', mark->len) : NULL;
    while (at != NULL && (size_t)(at + 1 - mark->data) < mark->len) {
        size_t left = mark->len - (size_t)(at + 1 - mark->data);
        const char *end = memchr(at + 1, '\n', left);
        if (end != NULL && (size_t)(end - at - 1) == len && memcmp(at + 1, name, len) == 0) {
            return true;
        }
        at = end;
    }
    return false;
}

/* Reads the mark of the kind; false when there is none. */
static bool read_mark(const char *dir, const char *kind, struct lb_buf *out) {
    char *path = lb_path_join(dir, LB_MARK), first[64];
    bool read = path != NULL && lb_file_read(path, out, NULL) == LB_OK;
    lb_free(path);
    size_t len = (size_t)snprintf(first, sizeof first, "limbeck %s 1\n", kind);
    return read && out->len >= len && memcmp(out->data, first, len) == 0;
}

enum lb_status lb_folder_check(const char *path, const char *kind, struct lb_detail *detail) {
    struct stat st;
    if (stat(path, &st) != 0 && errno == ENOENT) {
        return LB_OK;
    }
    DIR *d = opendir(path);
    if (d == NULL && errno != ENOTDIR) {
        return lb_fail_errno(detail, LB_E_IO, errno, "cannot open %s", path);
    }
    if (d == NULL) {
        return lb_fail(detail, LB_E_ARG,
                       "%s is there and is no folder: it is not replaced; choose another place", path);
    }
    struct lb_buf mark;
    lb_buf_init(&mark, MAX_MARK_BYTES);
    bool marked = read_mark(path, kind, &mark);
    enum lb_status status = LB_OK;
    for (const struct dirent *entry; status == LB_OK && (entry = readdir(d)) != NULL;) {
        const char *name = entry->d_name;
        bool ours = is_dots(name) || (marked && (strcmp(name, LB_MARK) == 0 || lists(&mark, name)));
        if (!ours) {
            status =
                lb_fail(detail, LB_E_ARG,
                        "%s holds %s, which Limbeck did not write: nothing in it is replaced; choose another "
                        "place, or move it away",
                        path, name);
        }
    }
    closedir(d);
    lb_buf_finish(&mark);
    return status;
}

bool lb_folder_holds_only(const char *dir, const char *const *names, size_t n) {
    DIR *d = opendir(dir);
    bool only = d != NULL;
    for (const struct dirent *entry; only && (entry = readdir(d)) != NULL;) {
        only = is_dots(entry->d_name);
        for (size_t i = 0; i < n && !only; i++) {
            only = strcmp(entry->d_name, names[i]) == 0;
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    return only;
}

enum lb_status lb_folder_swap_in(const char *finished, const char *dir, struct lb_detail *detail) {
    bool put = rename(finished, dir) == 0;
    if (!put && (errno == ENOTEMPTY || errno == EEXIST)) {
        put = renameat2(AT_FDCWD, finished, AT_FDCWD, dir, RENAME_EXCHANGE) == 0;
    }
    if (!put) {
        return lb_fail_errno(detail, LB_E_IO, errno, "%s: cannot put the finished folder in place", dir);
    }
    return LB_OK;
}

/* The process of a name "....tmp-PID-N" or "....new-PID"; 0 for other names. */
static long writer_of(const char *name) {
    static const char *const infixes[] = {".tmp-", ".new-"};
    for (size_t i = 0; i < 2; i++) {
        for (const char *at = strstr(name, infixes[i]); at != NULL; at = strstr(at + 1, infixes[i])) {
            char *end = NULL;
            const char *number = at + strlen(infixes[i]);
            long pid = *number >= '0' && *number <= '9' ? strtol(number, &end, 10) : 0;
            bool whole = end != NULL && (i == 1 ? *end == '\0'
                                                : *end == '-' && end[1] != '\0' &&
                                                      strspn(end + 1, "0123456789") == strlen(end + 1));
            if (pid > 0 && whole && at > name) {
                return pid;
            }
        }
    }
    return 0;
}

enum lb_status lb_folder_sweep(const char *dir, struct lb_detail *detail) {
    DIR *d = opendir(dir);
    if (d == NULL) {
        return lb_fail_errno(detail, LB_E_IO, errno, "cannot open %s", dir);
    }
    enum lb_status status = LB_OK;
    for (const struct dirent *entry; status == LB_OK && (entry = readdir(d)) != NULL;) {
        if (writer_of(entry->d_name) > 0) {
            char *path = lb_path_join(dir, entry->d_name);
            if (path == NULL) {
                status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
            } else if (lb_is_dir(path)) {
                status = lb_remove_tree(path, detail);
            } else if (unlink(path) != 0 && errno != ENOENT) {
                status = lb_fail_errno(detail, LB_E_IO, errno, "cannot remove %s", path);
            }
            lb_free(path);
        }
    }
    closedir(d);
    return status;
}

/* Whether a name is BASE.new-PID or BASE.tmp-PID-N of a process that is gone. */
static bool is_left_of(const char *name, const char *base) {
    size_t len = strlen(base);
    long pid = strncmp(name, base, len) == 0 &&
                       (strncmp(name + len, ".new-", 5) == 0 || strncmp(name + len, ".tmp-", 5) == 0)
                   ? writer_of(name)
                   : 0;
    return pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

void lb_folder_sweep_beside(const char *path) {
    char *copy = lb_strdup(path);
    size_t len = copy != NULL ? strlen(copy) : 0;
    while (len > 1 && copy[len - 1] == '/') {
        copy[--len] = '\0';
    }
    char *slash = copy != NULL ? strrchr(copy, '/') : NULL;
    const char *base = slash != NULL ? slash + 1 : copy;
    const char *dir = slash == NULL ? "." : slash == copy ? "/" : copy;
    if (slash != NULL && slash != copy) {
        *slash = '\0';
    }
    DIR *d = copy != NULL ? opendir(dir) : NULL;
    for (const struct dirent *entry; d != NULL && (entry = readdir(d)) != NULL;) {
        struct stat st;
        char *left = is_left_of(entry->d_name, base) ? lb_path_join(dir, entry->d_name) : NULL;
        if (left != NULL && lstat(left, &st) == 0 && st.st_mtime + OLD_SECONDS < time(NULL)) {
            enum lb_status ignored = S_ISDIR(st.st_mode) ? lb_remove_tree(left, NULL) : LB_OK;
            (void)ignored;
            if (!S_ISDIR(st.st_mode)) {
                unlink(left);
            }
        }
        lb_free(left);
    }
    if (d != NULL) {
        closedir(d);
    }
    lb_free(copy);
}
