/* The statements that a cache is read and written with, and how they fail. */
#include "trainer/cache/parts.h"

#include <errno.h>
#include <string.h>

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

bool lb_cache_is_good(int code) {
    return code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE;
}

int lb_cache_execute(struct lb_cache *cache, enum lb_cache_statement which, const int64_t *numbers, int n) {
    int code = lb_cache_run(cache, which, numbers, n);
    sqlite3_reset(cache->statement[which]);
    return lb_cache_is_good(code) ? SQLITE_OK : code;
}

void lb_cache_let_go(struct lb_cache *cache) {
    if (!sqlite3_get_autocommit(cache->db)) {
        lb_cache_execute(cache, LB_CACHE_COMMIT, NULL, 0);
    }
}

int lb_cache_begin(struct lb_cache *cache) {
    lb_cache_let_go(cache);
    return lb_cache_execute(cache, LB_CACHE_BEGIN, NULL, 0);
}

int lb_cache_end(struct lb_cache *cache, int code) {
    if (code == SQLITE_OK) {
        code = lb_cache_execute(cache, LB_CACHE_COMMIT, NULL, 0);
    }
    if (code != SQLITE_OK && !sqlite3_get_autocommit(cache->db)) {
        lb_cache_execute(cache, LB_CACHE_ROLLBACK, NULL, 0);
    }
    return code;
}

enum lb_status lb_cache_prepare(struct lb_cache *cache, struct lb_detail *detail) {
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

int lb_cache_write_touched(struct lb_cache *cache) {
    int code = SQLITE_OK;
    for (size_t i = 0; i < cache->n_touched && code == SQLITE_OK; i++) {
        code =
            lb_cache_execute(cache, LB_CACHE_USED, (const int64_t[]){cache->session, cache->touched[i]}, 2);
    }
    if (code == SQLITE_OK) {
        cache->n_touched = 0;
    }
    return code;
}
