/* What was computed of large files, kept from one start to the next: small texts in the user's cache folder
 * ($XDG_CACHE_HOME/limbeck, else ~/.cache/limbeck), named by what the file system says of the files: device,
 * inode, size, times of change. Losing them costs time only; failures are silent. Any thread.
 */
#ifndef LB_BASE_MEMO_H
#define LB_BASE_MEMO_H

#include "common/base/sha256.h"

#include <stdbool.h>
#include <stddef.h>

/* Adds what the file system says of a file to hash. False when the file cannot be named so that a later
 * change is seen: missing, or changed within the last two seconds (file systems keep coarse times). */
bool lb_memo_file(struct lb_sha256 *hash, const char *path);
/* Adds which program this is: its file and those of all libraries that it has loaded, as above. */
bool lb_memo_program(struct lb_sha256 *hash);
/* The text kept under kind ("fingerprint") and key, NUL-terminated, into out; false when there is none that
 * fits. */
bool lb_memo_get(const char *kind, const char key[LB_SHA256_HEX], char *out, size_t out_size);
void lb_memo_put(const char *kind, const char key[LB_SHA256_HEX], const char *text);
/* From now on nothing kept is believed (what is computed is kept all the same): --rehash. */
void lb_memo_distrust(void);

#endif
