/* Inside of a cache: cache.c (everyday use) and verify.c stand on open.c, and all of them on statements.c.
 *
 * The file's tables:
 *   entries: id, key (32 bytes), used (when a run last used it: that run's start, ms), tokens, raw_bytes,
 *            stored_bytes
 *   data:    id, value (value.h)
 *   blobs:   name, value
 *   meta:    name, number (max_bytes)
 * used stands apart from the values, so that marking an answer as used writes a few bytes.
 */
#ifndef LB_CACHE_PARTS_H
#define LB_CACHE_PARTS_H

#include "trainer/cache/cache.h"

#include <pthread.h>
#include <sqlite3.h>

/* Marks written at once: each transaction writes most pages that hold any, so few and large ones. */
#define LB_CACHE_MAX_TOUCHED 4096

enum lb_cache_statement {
    LB_CACHE_BEGIN,
    LB_CACHE_BEGIN_READING,
    LB_CACHE_COMMIT,
    LB_CACHE_ROLLBACK,
    LB_CACHE_FIND,       /* key -> id, used, value */
    LB_CACHE_ADD_ENTRY,  /* key, used, tokens, raw_bytes, stored_bytes */
    LB_CACHE_ADD_DATA,   /* id, value */
    LB_CACHE_HAS,        /* key -> 1 */
    LB_CACHE_USED,       /* used, id */
    LB_CACHE_OLDEST,     /* before -> id, stored_bytes */
    LB_CACHE_DROP_ENTRY, /* id */
    LB_CACHE_DROP_DATA,  /* id */
    LB_CACHE_GET_BLOB,   /* name -> value */
    LB_CACHE_PUT_BLOB,   /* name, value */
    LB_CACHE_STATS,
    LB_CACHE_BLOBS,
    LB_CACHE_PAGES,
    LB_CACHE_FREE_PAGES,
    LB_CACHE_STATEMENTS
};

struct lb_cache {
    char *dir, *file;
    sqlite3 *db;
    sqlite3_stmt *statement[LB_CACHE_STATEMENTS];
    pthread_mutex_t lock; /* over everything below and the statements */
    uint64_t max_bytes;
    int64_t page_bytes;
    int64_t session;        /* when this run began, ms */
    uint64_t lookups, hits; /* of answers, since then */
    int64_t *touched;       /* [n_touched] ids used for the first time in this run, not written yet */
    size_t n_touched;
};

/* ---- statements.c ---- */

/* Prepares all statements. */
enum lb_status lb_cache_prepare(struct lb_cache *cache, struct lb_detail *detail);
/* Runs a prepared statement with n integers bound; SQLITE_ROW or SQLITE_DONE when all is well. */
int lb_cache_run(struct lb_cache *cache, enum lb_cache_statement which, const int64_t *numbers, int n);
/* Runs one whose rows nobody reads; SQLITE_OK when all is well. */
int lb_cache_execute(struct lb_cache *cache, enum lb_cache_statement which, const int64_t *numbers, int n);
bool lb_cache_is_good(int code);
/* Nothing is read in a transaction any more. */
void lb_cache_let_go(struct lb_cache *cache);
/* Begins one to write in. */
int lb_cache_begin(struct lb_cache *cache);
/* Commits what went well so far (code is SQLITE_OK), else undoes it. */
int lb_cache_end(struct lb_cache *cache, int code);
/* Marks what this run used; in a transaction. */
int lb_cache_write_touched(struct lb_cache *cache);
/* A failed SQLite call as status and line. */
enum lb_status lb_cache_failed(const struct lb_cache *cache, int code, const char *doing,
                               struct lb_detail *detail);

/* ---- open.c ---- */

/* Opens file (created when missing and create is set), checks its format, prepares the statements. */
LB_NODISCARD enum lb_status lb_cache_open_file(const char *dir, const char *name, bool create,
                                               struct lb_cache **out, struct lb_detail *detail);

/* ---- cache.c ---- */

/* Inserts a value made before; in a transaction. Does nothing when the key is there. */
int lb_cache_insert(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES], const void *value, size_t len,
                    uint64_t tokens, uint64_t raw_bytes, int64_t used);

#endif
