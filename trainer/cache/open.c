/* How a cache begins and ends: its file, the file's format. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/cache/parts.h"

#include <stdio.h>

#define APPLICATION_ID 0x4143424c /* "LBCA", for file(1) */
#define PAGE_BYTES "8192"
#define BUSY_MS 30000

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS entries(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT "
    "NULL, "
    "tokens INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL);"
    "CREATE INDEX IF NOT EXISTS entries_used ON entries(used, id);"
    "CREATE TABLE IF NOT EXISTS data(id INTEGER PRIMARY KEY, value BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS blobs(name TEXT PRIMARY KEY, value BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL);";

static int pragma_number(sqlite3 *db, const char *text, int64_t *out) {
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, text, -1, &statement, NULL);
    code = code == SQLITE_OK ? sqlite3_step(statement) : code;
    if (code == SQLITE_ROW) {
        *out = sqlite3_column_int64(statement, 0);
        code = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* An empty file gets its tables; a file of another format is refused. */
static enum lb_status check_format(struct lb_cache *cache, struct lb_detail *detail) {
    int64_t format = 0, tables = 0;
    char text[64];
    int code = sqlite3_exec(cache->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    code = code == SQLITE_OK ? pragma_number(cache->db, "PRAGMA user_version", &format) : code;
    code = code == SQLITE_OK ? pragma_number(cache->db, "SELECT count(*) FROM sqlite_master", &tables) : code;
    if (code == SQLITE_OK && (format != 0 || tables != 0) && format != LB_CACHE_FORMAT) {
        sqlite3_exec(cache->db, "ROLLBACK", NULL, NULL, NULL);
        return lb_fail(
            detail, LB_E_UNSUPPORTED,
            "cache %s: %s has format %lld, this version of Limbeck reads %d; use another folder, or "
            "delete this one",
            cache->dir, LB_CACHE_FILE, (long long)format, LB_CACHE_FORMAT);
    }
    if (code == SQLITE_OK && format == 0) {
        snprintf(text, sizeof text, "PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID,
                 LB_CACHE_FORMAT);
        code = sqlite3_exec(cache->db, schema, NULL, NULL, NULL);
        code = code == SQLITE_OK ? sqlite3_exec(cache->db, text, NULL, NULL, NULL) : code;
    }
    code = code == SQLITE_OK ? sqlite3_exec(cache->db, "COMMIT", NULL, NULL, NULL) : code;
    return code == SQLITE_OK ? LB_OK : lb_cache_failed(cache, code, "opening it", detail);
}

enum lb_status lb_cache_open_file(const char *dir, const char *name, bool create, struct lb_cache **out,
                                  struct lb_detail *detail) {
    struct lb_cache *cache = lb_calloc(1, sizeof *cache);
    if (cache == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a cache");
    }
    pthread_mutex_init(&cache->lock, NULL);
    cache->dir = lb_strdup(dir);
    cache->file = lb_path_join(dir, name);
    cache->touched = lb_malloc_array(LB_CACHE_MAX_TOUCHED, sizeof *cache->touched);
    cache->session = (int64_t)(lb_unix_seconds() * 1000);
    enum lb_status status = LB_OK;
    if (cache->dir == NULL || cache->file == NULL || cache->touched == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for a cache");
    }
    if (status == LB_OK) {
        int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
        int code = sqlite3_open_v2(cache->file, &cache->db, flags, NULL);
        if (code == SQLITE_OK) {
            sqlite3_extended_result_codes(cache->db, 1);
            sqlite3_busy_timeout(cache->db, BUSY_MS);
            /* No map and no shared memory (WAL has some): a file that is cut off is an error, not a signal.
             */
            code = sqlite3_exec(cache->db,
                                "PRAGMA page_size = " PAGE_BYTES
                                "; PRAGMA mmap_size = 0; PRAGMA cache_size = -32768;"
                                "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = NORMAL;"
                                "PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF",
                                NULL, NULL, NULL);
        }
        code = code == SQLITE_OK ? pragma_number(cache->db, "PRAGMA page_size", &cache->page_bytes) : code;
        status = code == SQLITE_OK ? LB_OK : lb_cache_failed(cache, code, "opening it", detail);
    }
    status = status == LB_OK ? check_format(cache, detail) : status;
    status = status == LB_OK ? lb_cache_prepare(cache, detail) : status;
    if (status != LB_OK) {
        lb_cache_close(cache);
        return status;
    }
    *out = cache;
    return LB_OK;
}

/* Remembers max_bytes for those who open without one, or recalls it. */
static enum lb_status settle_size(struct lb_cache *cache, uint64_t max_bytes, struct lb_detail *detail) {
    char text[128];
    int64_t known = 0;
    int code = pragma_number(cache->db, "SELECT value FROM meta WHERE name = 'max_bytes'", &known);
    if (code == SQLITE_OK && max_bytes != 0 && known != (int64_t)max_bytes) {
        snprintf(text, sizeof text, "INSERT OR REPLACE INTO meta VALUES('max_bytes', %lld)",
                 (long long)max_bytes);
        code = sqlite3_exec(cache->db, text, NULL, NULL, NULL);
    }
    cache->max_bytes = max_bytes != 0 ? max_bytes : known > 0 ? (uint64_t)known : UINT64_MAX / 32;
    return code == SQLITE_OK ? LB_OK : lb_cache_failed(cache, code, "opening it", detail);
}

enum lb_status lb_cache_open(const char *dir, uint64_t max_bytes, struct lb_cache **out,
                             struct lb_detail *detail) {
    if (max_bytes != 0 && max_bytes < LB_CACHE_MIN_BYTES) {
        return lb_fail(detail, LB_E_ARG, "cache_max_bytes is %llu, less than %u",
                       (unsigned long long)max_bytes, LB_CACHE_MIN_BYTES);
    }
    struct lb_cache *cache = NULL;
    char *older = lb_path_join(dir, "data.mdb");
    enum lb_status status = lb_mkdirs(dir, detail);
    if (status == LB_OK && older != NULL && lb_file_exists(older)) {
        status =
            lb_fail(detail, LB_E_UNSUPPORTED,
                    "cache %s is of an older format (data.mdb); use another folder, or delete this one", dir);
    }
    lb_free(older);
    status = status == LB_OK ? lb_cache_open_file(dir, LB_CACHE_FILE, true, &cache, detail) : status;
    status = status == LB_OK ? settle_size(cache, max_bytes, detail) : status;
    if (status != LB_OK) {
        lb_cache_close(cache);
        return status;
    }
    *out = cache;
    return LB_OK;
}

void lb_cache_close(struct lb_cache *cache) {
    if (cache == NULL) {
        return;
    }
    if (cache->db != NULL && cache->n_touched > 0 && lb_cache_begin(cache) == SQLITE_OK) {
        (void)lb_cache_end(
            cache, lb_cache_write_touched(cache)); /* only spares what was useful: no loss when it fails */
    }
    for (int i = 0; i < LB_CACHE_STATEMENTS; i++) {
        sqlite3_finalize(cache->statement[i]);
    }
    sqlite3_close(cache->db);
    pthread_mutex_destroy(&cache->lock);
    lb_free(cache->touched);
    lb_free(cache->file);
    lb_free(cache->dir);
    lb_free(cache);
}
