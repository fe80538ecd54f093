/* Files: mapped for reading, replaced atomically, locked by one owner.
 *
 * A file that appears under its name is complete: it was written beside it, synced, renamed, and its folder
 * synced.
 */
#ifndef LB_BASE_FILE_H
#define LB_BASE_FILE_H

#include "common/base/buf.h"
#include "common/base/status.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t len;
};

/* Maps a regular file read-only. A file that is open already, and was not written since, is mapped once for
 * all. Errors: LB_E_NOTFOUND, LB_E_IO (named in detail). */
LB_NODISCARD enum lb_status lb_map_open(struct lb_map *map, const char *path, struct lb_detail *detail);
/* Where the file of an open map lies when it was written to since it was mapped: what is mapped may be other
 * bytes now. NULL: it was not, or another file has taken its place, which does no harm. Lives as long as the
 * map. */
const char *lb_map_written(const struct lb_map *map);
/* The first upto bytes are not read again soon: their memory is given back. */
void lb_map_forget(const struct lb_map *map, size_t upto);
/* Accepts NULL and a zeroed map. */
void lb_map_close(struct lb_map *map);

/* Appends the whole file to buf; LB_E_LIMIT when it is larger than buf's maximum allows. */
LB_NODISCARD enum lb_status lb_file_read(const char *path, struct lb_buf *buf, struct lb_detail *detail);

/* A file being written beside its final name. */
struct lb_writer {
    int fd; /* -1: closed */
    char *path, *temp_path;
    uint64_t written;
    enum lb_status status; /* sticky */
    struct lb_detail detail;
    uint8_t *pending; /* write buffer */
    size_t pending_len;
};

LB_NODISCARD enum lb_status lb_writer_open(struct lb_writer *writer, const char *path,
                                           struct lb_detail *detail);
/* Buffered; sticky: check at commit. */
void lb_writer_put(struct lb_writer *writer, const void *bytes, size_t len);
/* From now on, on this thread: when *stop becomes other than 0, writers fail with LB_E_CANCELLED instead of
 * taking more; NULL: never (the default). For long work that nobody waits for any more. */
void lb_writing_stop_on(const volatile sig_atomic_t *stop);
/* Whether that has happened. */
bool lb_writing_stopped(void);
/* Flush, fsync, rename over path, fsync the folder. After any failure (a full disk) path is as it was. */
LB_NODISCARD enum lb_status lb_writer_commit(struct lb_writer *writer, struct lb_detail *detail);
/* Removes the temporary file; accepts a committed or zeroed writer. */
void lb_writer_abort(struct lb_writer *writer);

/* lb_writer_open + put + commit. */
LB_NODISCARD enum lb_status lb_file_replace(const char *path, const void *bytes, size_t len,
                                            struct lb_detail *detail);

/* mkdir -p. */
LB_NODISCARD enum lb_status lb_mkdirs(const char *path, struct lb_detail *detail);
bool lb_file_exists(const char *path);
bool lb_is_dir(const char *path);
/* fsync of a folder, after renames of whole folders within it. */
LB_NODISCARD enum lb_status lb_sync_dir(const char *path, struct lb_detail *detail);
/* rm -r of a folder that this program made; missing is fine. */
LB_NODISCARD enum lb_status lb_remove_tree(const char *path, struct lb_detail *detail);
/* "dir/name" on the heap, NULL when out of memory. */
char *lb_path_join(const char *dir, const char *name);

/* An exclusive advisory lock on path (created when missing), held until unlock or the process ends.
 * LB_E_BUSY when another process holds it; the detail names its process id where it is known. */
LB_NODISCARD enum lb_status lb_lock_file(const char *path, int *out_fd, struct lb_detail *detail);
void lb_unlock_file(int fd);

#endif
