#include "trainer/cache/cache.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/cache/parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define APPLICATION_ID 0x4143424c /* "LBCA", for file(1) */
#define PAGE_BYTES "8192"
#define BUSY_MS 30000
#define MAX_BLOB_NAME 511
#define MAX_TOUCHED 256
/* Of the maximum, so that SQLite's own pages find room too. */
#define FILL(max) ((max) / 16 * 15)
/* Lookups before a run knows whether older answers are of use to it, and how seldom a hit makes them useless.
 */
#define ENOUGH_LOOKUPS 64
#define USELESS 16

static const char *const sql[LB_CACHE_STATEMENTS] = {
    [LB_CACHE_BEGIN] = "BEGIN IMMEDIATE",
    [LB_CACHE_BEGIN_READING] = "BEGIN DEFERRED",
    [LB_CACHE_COMMIT] = "COMMIT",
    [LB_CACHE_ROLLBACK] = "ROLLBACK",
    [LB_CACHE_FIND] =
        "SELECT e.id, e.used, d.value FROM entries e JOIN data d ON d.id = e.id WHERE e.key = ?",
    [LB_CACHE_ADD_ENTRY] =
        "INSERT INTO entries(key, used, tokens, raw_bytes, stored_bytes) VALUES(?, ?, ?, ?, ?)",
    [LB_CACHE_ADD_DATA] = "INSERT OR REPLACE INTO data(id, value) VALUES(?, ?)",
    [LB_CACHE_HAS] = "SELECT 1 FROM entries WHERE key = ?",
    [LB_CACHE_USED] = "UPDATE entries SET used = ? WHERE id = ?",
    [LB_CACHE_OLDEST] = "SELECT id, stored_bytes FROM entries WHERE used < ? ORDER BY used, id LIMIT 1",
    [LB_CACHE_DROP_ENTRY] = "DELETE FROM entries WHERE id = ?",
    [LB_CACHE_DROP_DATA] = "DELETE FROM data WHERE id = ?",
    [LB_CACHE_GET_BLOB] = "SELECT value FROM blobs WHERE name = ?",
    [LB_CACHE_PUT_BLOB] = "INSERT OR REPLACE INTO blobs(name, value) VALUES(?, ?)",
    [LB_CACHE_STATS] = "SELECT count(*), total(stored_bytes), total(raw_bytes), total(tokens) FROM entries",
    [LB_CACHE_BLOBS] = "SELECT count(*) FROM blobs",
    [LB_CACHE_PAGES] = "PRAGMA page_count",
    [LB_CACHE_FREE_PAGES] = "PRAGMA freelist_count",
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS entries(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT "
    "NULL, "
    "tokens INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL);"
    "CREATE INDEX IF NOT EXISTS entries_used ON entries(used, id);"
    "CREATE TABLE IF NOT EXISTS data(id INTEGER PRIMARY KEY, value BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS blobs(name TEXT PRIMARY KEY, value BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL);";

/* ---- SQLite ---- */

enum lb_status lb_cache_failed(const struct lb_cache *cache, int code, const char *doing,
                               struct lb_detail *detail) {
    int kind = code & 0xff;
    if (kind == SQLITE_NOMEM) {
        return lb_fail(detail, LB_E_NOMEM, "cache %s: out of memory while %s", cache->dir, doing);
    }
    if (kind == SQLITE_INTERRUPT) {
        return lb_fail(detail, LB_E_CANCELLED, "cache %s: stopped while %s", cache->dir, doing);
    }
    if (kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB) {
        return lb_fail(
            detail, LB_E_FORMAT,
            "cache %s: %s is damaged (%s, while %s); limbeck cache verify --repair keeps what can be "
            "read, or delete the folder",
            cache->dir, LB_CACHE_FILE, sqlite3_errstr(code), doing);
    }
    int system = cache->db ? sqlite3_system_errno(cache->db) : 0;
    bool no_room = kind == SQLITE_FULL || system == ENOSPC || system == EDQUOT;
    return lb_fail(detail, kind == SQLITE_BUSY ? LB_E_BUSY : LB_E_IO, "cache %s: %s while %s", cache->dir,
                   no_room                         ? "the disk is full"
                   : system && kind != SQLITE_BUSY ? strerror(system)
                                                   : sqlite3_errstr(code),
                   doing);
}

int lb_cache_run(struct lb_cache *cache, enum lb_cache_statement which, const int64_t *numbers, int n) {
    sqlite3_stmt *statement = cache->statement[which];
    int code = SQLITE_OK;
    for (int i = 0; i < n && code == SQLITE_OK; i++) {
        code = sqlite3_bind_int64(statement, i + 1, numbers[i]);
    }
    return code == SQLITE_OK ? sqlite3_step(statement) : code;
}

static bool is_good(int code) {
    return code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE;
}

/* Runs a statement whose rows nobody reads. */
static int execute(struct lb_cache *cache, enum lb_cache_statement which, const int64_t *numbers, int n) {
    int code = lb_cache_run(cache, which, numbers, n);
    sqlite3_reset(cache->statement[which]);
    return is_good(code) ? SQLITE_OK : code;
}

/* Nothing is read in a transaction any more. */
static void let_go(struct lb_cache *cache) {
    if (!sqlite3_get_autocommit(cache->db)) {
        execute(cache, LB_CACHE_COMMIT, NULL, 0);
    }
}

static int begin(struct lb_cache *cache) {
    let_go(cache);
    return execute(cache, LB_CACHE_BEGIN, NULL, 0);
}

/* Commits what went well so far, else undoes it. */
static int end(struct lb_cache *cache, int code) {
    if (code == SQLITE_OK) {
        code = execute(cache, LB_CACHE_COMMIT, NULL, 0);
    }
    if (code != SQLITE_OK && !sqlite3_get_autocommit(cache->db)) {
        execute(cache, LB_CACHE_ROLLBACK, NULL, 0);
    }
    return code;
}

static int64_t number(struct lb_cache *cache, enum lb_cache_statement which, int column) {
    int64_t n = lb_cache_run(cache, which, NULL, 0) == SQLITE_ROW
                    ? sqlite3_column_int64(cache->statement[which], column)
                    : 0;
    sqlite3_reset(cache->statement[which]);
    return n;
}

/* ---- opening ---- */

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

static enum lb_status prepare(struct lb_cache *cache, struct lb_detail *detail) {
    for (int i = 0; i < LB_CACHE_STATEMENTS; i++) {
        int code =
            sqlite3_prepare_v3(cache->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &cache->statement[i], NULL);
        if (code == SQLITE_ERROR) { /* a table or column is missing: this is no file of ours */
            code = SQLITE_CORRUPT;
        }
        if (code != SQLITE_OK) {
            return lb_cache_failed(cache, code, "opening it", detail);
        }
    }
    return LB_OK;
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
    cache->touched = lb_malloc_array(MAX_TOUCHED, sizeof *cache->touched);
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
    status = status == LB_OK ? prepare(cache, detail) : status;
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

/* Marks what this run used; in a transaction. */
static int write_touched(struct lb_cache *cache) {
    int code = SQLITE_OK;
    for (size_t i = 0; i < cache->n_touched && code == SQLITE_OK; i++) {
        code = execute(cache, LB_CACHE_USED, (const int64_t[]){cache->session, cache->touched[i]}, 2);
    }
    if (code == SQLITE_OK) {
        cache->n_touched = 0;
    }
    return code;
}

void lb_cache_close(struct lb_cache *cache) {
    if (cache == NULL) {
        return;
    }
    if (cache->db != NULL && cache->n_touched > 0 && begin(cache) == SQLITE_OK) {
        (void)end(cache, write_touched(cache)); /* only spares what was useful: no loss when it fails */
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

/* ---- reading ---- */

void lb_cache_hold(struct lb_cache *cache) {
    if (cache != NULL) {
        pthread_mutex_lock(&cache->lock);
        (void)execute(cache, LB_CACHE_BEGIN_READING, NULL, 0); /* without it, each lookup is one */
        pthread_mutex_unlock(&cache->lock);
    }
}

void lb_cache_release(struct lb_cache *cache) {
    if (cache != NULL) {
        pthread_mutex_lock(&cache->lock);
        let_go(cache);
        pthread_mutex_unlock(&cache->lock);
    }
}

static int find(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES]) {
    sqlite3_stmt *statement = cache->statement[LB_CACHE_FIND];
    int code = sqlite3_bind_blob(statement, 1, key, LB_SHA256_BYTES, SQLITE_STATIC);
    return code == SQLITE_OK ? sqlite3_step(statement) : code;
}

static int drop(struct lb_cache *cache, int64_t id) {
    int code = execute(cache, LB_CACHE_DROP_ENTRY, &id, 1);
    return code == SQLITE_OK ? execute(cache, LB_CACHE_DROP_DATA, &id, 1) : code;
}

/* The entry was used: remembered, written with the next transaction. */
static void touch(struct lb_cache *cache, int64_t id, int64_t used) {
    cache->hits++;
    if (used >= cache->session) {
        return;
    }
    if (cache->n_touched == MAX_TOUCHED) {
        int code = begin(cache);
        if (code != SQLITE_OK || end(cache, write_touched(cache)) != SQLITE_OK) {
            cache->n_touched = 0;
        }
    }
    cache->touched[cache->n_touched++] = id;
}

enum lb_status lb_cache_get(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES],
                            struct lb_arena *arena, struct lb_answer *out, struct lb_detail *detail) {
    struct lb_arena_mark mark = lb_arena_mark(arena);
    struct lb_cache_header h;
    struct lb_answer answer = {0};
    const void *payload;
    const char *wrong = NULL;
    enum lb_status status = LB_E_NOTFOUND;
    pthread_mutex_lock(&cache->lock);
    sqlite3_stmt *statement = cache->statement[LB_CACHE_FIND];
    int64_t id = 0, used = 0;
    int code = find(cache, key);
    cache->lookups++;
    if (code == SQLITE_ROW) {
        id = sqlite3_column_int64(statement, 0);
        used = sqlite3_column_int64(statement, 1);
        const void *value = sqlite3_column_blob(statement, 2);
        size_t len = (size_t)sqlite3_column_bytes(statement, 2);
        if (value == NULL && sqlite3_errcode(cache->db) == SQLITE_NOMEM) {
            code = SQLITE_NOMEM;
        } else if ((wrong = lb_cache_value_check(key, LB_SHA256_BYTES, value, len, &h, &payload)) == NULL) {
            status = lb_cache_answer_inflate(&h, payload, arena, &answer);
            wrong = status == LB_E_FORMAT ? "does not unpack" : NULL;
        }
    }
    sqlite3_reset(statement);
    if (wrong != NULL) {
        char hex[LB_SHA256_HEX];
        lb_hex(key, LB_SHA256_BYTES, hex);
        status = lb_fail(detail, LB_E_NOTFOUND, "cache %s: answer %.16s... %s; it is asked for again",
                         cache->dir, hex, wrong);
        if (begin(cache) == SQLITE_OK) {
            (void)end(cache, drop(cache, id)); /* if it can't go now, it is found again */
        }
    } else if (!is_good(code)) {
        status = lb_cache_failed(cache, code, "reading an answer", detail);
    } else if (code == SQLITE_ROW && status == LB_OK) {
        touch(cache, id, used);
    } else if (code == SQLITE_ROW) {
        lb_fail(detail, status, "out of memory for a cached answer of %llu bytes",
                (unsigned long long)h.raw_bytes);
    }
    pthread_mutex_unlock(&cache->lock);
    if (status != LB_OK) {
        lb_arena_release(arena, mark);
        return status;
    }
    *out = answer;
    return LB_OK;
}

void lb_cache_drop(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES]) {
    pthread_mutex_lock(&cache->lock);
    int code = find(cache, key);
    int64_t id = code == SQLITE_ROW ? sqlite3_column_int64(cache->statement[LB_CACHE_FIND], 0) : 0;
    sqlite3_reset(cache->statement[LB_CACHE_FIND]);
    if (code == SQLITE_ROW && begin(cache) == SQLITE_OK) {
        (void)end(cache, drop(cache, id));
    }
    pthread_mutex_unlock(&cache->lock);
}

enum lb_status lb_cache_get_blob(struct lb_cache *cache, const char *name, struct lb_buf *out,
                                 struct lb_detail *detail) {
    struct lb_cache_header h;
    const void *payload;
    enum lb_status status = LB_E_NOTFOUND;
    pthread_mutex_lock(&cache->lock);
    sqlite3_stmt *statement = cache->statement[LB_CACHE_GET_BLOB];
    int code = sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    code = code == SQLITE_OK ? sqlite3_step(statement) : code;
    if (code == SQLITE_ROW) {
        const char *wrong = lb_cache_value_check(name, strlen(name), sqlite3_column_blob(statement, 0),
                                                 (size_t)sqlite3_column_bytes(statement, 0), &h, &payload);
        size_t before = out->len;
        void *raw = wrong != NULL ? NULL : lb_buf_extend(out, h.raw_bytes);
        if (wrong != NULL) {
            status = lb_fail(detail, LB_E_NOTFOUND, "cache %s: %s %s; it is asked for again", cache->dir,
                             name, wrong);
        } else if (raw == NULL) {
            status = lb_fail(detail, lb_buf_status(out), "cache %s: no room for %s", cache->dir, name);
        } else if (!lb_cache_value_inflate(&h, payload, raw)) {
            out->len = before;
            status = lb_fail(detail, LB_E_NOTFOUND, "cache %s: %s does not unpack", cache->dir, name);
        } else {
            status = LB_OK;
        }
    } else if (!is_good(code)) {
        status = lb_cache_failed(cache, code, "reading", detail);
    }
    sqlite3_reset(statement);
    pthread_mutex_unlock(&cache->lock);
    return status;
}

/* ---- writing ---- */

/* Bytes of the file that a value takes: its pages, and its share of the other tables'. */
static uint64_t room_of(const struct lb_cache *cache, size_t value_bytes) {
    const uint64_t around = 256;
    uint64_t page = (uint64_t)cache->page_bytes;
    return (value_bytes + around + page - 1) / page * page;
}

static uint64_t used_bytes(struct lb_cache *cache) {
    int64_t pages = number(cache, LB_CACHE_PAGES, 0) - number(cache, LB_CACHE_FREE_PAGES, 0);
    return (uint64_t)pages * (uint64_t)cache->page_bytes;
}

/* Whether what this run has not used yet may go: it has looked for a while and found next to nothing. */
static bool older_is_useless(const struct lb_cache *cache) {
    return cache->lookups >= ENOUGH_LOOKUPS && cache->hits * USELESS < cache->lookups;
}

/* Makes room for so many bytes; in a transaction. SQLITE_FULL when there is none to be had. */
static int make_room(struct lb_cache *cache, uint64_t need, bool must) {
    uint64_t limit = FILL(cache->max_bytes), used = used_bytes(cache);
    if (need > limit) {
        return SQLITE_FULL;
    }
    if (used + need > limit && !must && !older_is_useless(cache)) {
        return SQLITE_FULL;
    }
    while (used + need > limit) {
        int64_t before = must ? INT64_MAX : cache->session, id = 0;
        int code = lb_cache_run(cache, LB_CACHE_OLDEST, &before, 1);
        uint64_t freed = 0;
        if (code == SQLITE_ROW) {
            id = sqlite3_column_int64(cache->statement[LB_CACHE_OLDEST], 0);
            freed = room_of(cache, (size_t)sqlite3_column_int64(cache->statement[LB_CACHE_OLDEST], 1));
        }
        sqlite3_reset(cache->statement[LB_CACHE_OLDEST]);
        if (code != SQLITE_ROW) {
            return code == SQLITE_DONE ? SQLITE_FULL : code;
        }
        code = drop(cache, id);
        if (code != SQLITE_OK) {
            return code;
        }
        used = used > freed ? used - freed : 0;
        used = used + need > limit ? used : used_bytes(cache); /* the estimate said enough: what is true? */
    }
    return SQLITE_OK;
}

int lb_cache_insert(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES], const void *value, size_t len,
                    uint64_t tokens, uint64_t raw_bytes, int64_t used) {
    sqlite3_stmt *has = cache->statement[LB_CACHE_HAS], *entry = cache->statement[LB_CACHE_ADD_ENTRY],
                 *data = cache->statement[LB_CACHE_ADD_DATA];
    int code = sqlite3_bind_blob(has, 1, key, LB_SHA256_BYTES, SQLITE_STATIC);
    code = code == SQLITE_OK ? sqlite3_step(has) : code;
    sqlite3_reset(has);
    if (code != SQLITE_DONE) {
        return code == SQLITE_ROW ? SQLITE_OK : code;
    }
    const int64_t numbers[] = {used, (int64_t)tokens, (int64_t)raw_bytes, (int64_t)len};
    code = sqlite3_bind_blob(entry, 1, key, LB_SHA256_BYTES, SQLITE_STATIC);
    for (int i = 0; i < 4 && code == SQLITE_OK; i++) {
        code = sqlite3_bind_int64(entry, i + 2, numbers[i]);
    }
    code = code == SQLITE_OK ? sqlite3_step(entry) : code;
    sqlite3_reset(entry);
    if (code != SQLITE_DONE) {
        return code;
    }
    code = sqlite3_bind_int64(data, 1, sqlite3_last_insert_rowid(cache->db));
    code = code == SQLITE_OK ? sqlite3_bind_blob64(data, 2, value, len, SQLITE_STATIC) : code;
    code = code == SQLITE_OK ? sqlite3_step(data) : code;
    sqlite3_reset(data);
    sqlite3_clear_bindings(data);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* SQLITE_FULL by our own count, not the disk's. */
static enum lb_status no_room(const struct lb_cache *cache, struct lb_detail *detail) {
    return lb_fail(
        detail, LB_E_LIMIT,
        "cache %s is full of answers that are in use (cache_max_bytes is %llu): what is new is not kept; "
        "training goes on and asks for it again, a larger cache_max_bytes spares that",
        cache->dir, (unsigned long long)cache->max_bytes);
}

enum lb_status lb_cache_put(struct lb_cache *cache, const uint8_t (*keys)[LB_SHA256_BYTES],
                            const struct lb_answer *const *answers, size_t n, struct lb_detail *detail) {
    if (n == 0) {
        return LB_OK;
    }
    enum lb_status status = LB_OK;
    struct lb_buf *values = lb_calloc(n, sizeof *values);
    uint64_t *raw_bytes = lb_calloc(n, sizeof *raw_bytes), need = 0;
    if (values == NULL || raw_bytes == NULL) {
        status = LB_E_NOMEM;
    }
    for (size_t i = 0; values != NULL && i < n; i++) {
        lb_buf_init(&values[i], LB_MAX_RESPONSE_BYTES);
    }
    for (size_t i = 0; status == LB_OK && i < n; i++) {
        status = lb_cache_answer_value(keys[i], answers[i], &values[i], &raw_bytes[i]);
        need += room_of(cache, values[i].len);
    }
    if (status != LB_OK) {
        lb_fail(detail, status, "out of memory for %zu cached answers", n);
    } else {
        pthread_mutex_lock(&cache->lock);
        bool full = false;
        int code = begin(cache);
        if (code == SQLITE_OK) {
            code = make_room(cache, need, false);
            full = code == SQLITE_FULL;
        }
        for (size_t i = 0; i < n && code == SQLITE_OK; i++) {
            code = lb_cache_insert(cache, keys[i], values[i].data, values[i].len,
                                   lb_cache_answer_tokens(answers[i]), raw_bytes[i], cache->session);
        }
        code = code == SQLITE_OK ? write_touched(cache) : code;
        code = end(cache, code);
        status = full                ? no_room(cache, detail)
                 : code == SQLITE_OK ? LB_OK
                                     : lb_cache_failed(cache, code, "storing answers", detail);
        pthread_mutex_unlock(&cache->lock);
    }
    for (size_t i = 0; values != NULL && i < n; i++) {
        lb_buf_finish(&values[i]);
    }
    lb_free(values);
    lb_free(raw_bytes);
    return status;
}

enum lb_status lb_cache_put_blob(struct lb_cache *cache, const char *name, const void *bytes, size_t len,
                                 struct lb_detail *detail) {
    size_t name_len = strlen(name);
    if (name_len == 0 || name_len > MAX_BLOB_NAME) {
        return lb_fail(detail, LB_E_ARG, "cache %s: '%.60s' is no name for a value: 1 to %d bytes",
                       cache->dir, name, MAX_BLOB_NAME);
    }
    struct lb_buf value;
    lb_buf_init(&value, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = lb_cache_value_make(name, name_len, bytes, len, 0, &value);
    if (status != LB_OK) {
        lb_fail(detail, status, "cache %s: no memory for %s", cache->dir, name);
    } else {
        pthread_mutex_lock(&cache->lock);
        sqlite3_stmt *statement = cache->statement[LB_CACHE_PUT_BLOB];
        bool full = false;
        int code = begin(cache);
        if (code == SQLITE_OK) { /* without a head or an info no answer is of use: answers make room */
            code = make_room(cache, room_of(cache, value.len), true);
            full = code == SQLITE_FULL;
        }
        code = code == SQLITE_OK ? sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC) : code;
        code = code == SQLITE_OK ? sqlite3_bind_blob64(statement, 2, value.data, value.len, SQLITE_STATIC)
                                 : code;
        code = code == SQLITE_OK ? execute(cache, LB_CACHE_PUT_BLOB, NULL, 0) : code;
        sqlite3_clear_bindings(statement);
        code = end(cache, code);
        status = full                ? no_room(cache, detail)
                 : code == SQLITE_OK ? LB_OK
                                     : lb_cache_failed(cache, code, "storing", detail);
        pthread_mutex_unlock(&cache->lock);
    }
    lb_buf_finish(&value);
    return status;
}

enum lb_status lb_cache_stats(struct lb_cache *cache, struct lb_cache_stats *out, struct lb_detail *detail) {
    struct stat file;
    pthread_mutex_lock(&cache->lock);
    sqlite3_stmt *statement = cache->statement[LB_CACHE_STATS];
    int code = lb_cache_run(cache, LB_CACHE_STATS, NULL, 0);
    struct lb_cache_stats s = {.max_bytes = cache->max_bytes};
    if (code == SQLITE_ROW) {
        s.entries = (uint64_t)sqlite3_column_int64(statement, 0);
        s.stored_bytes = (uint64_t)sqlite3_column_double(statement, 1);
        s.raw_bytes = (uint64_t)sqlite3_column_double(statement, 2);
        s.tokens = (uint64_t)sqlite3_column_double(statement, 3);
    }
    sqlite3_reset(statement);
    s.blobs = (uint64_t)number(cache, LB_CACHE_BLOBS, 0);
    enum lb_status status =
        is_good(code) ? LB_OK : lb_cache_failed(cache, code, "reading its totals", detail);
    pthread_mutex_unlock(&cache->lock);
    s.file_bytes = stat(cache->file, &file) == 0 ? (uint64_t)file.st_size : 0;
    if (status == LB_OK) {
        *out = s;
    }
    return status;
}
