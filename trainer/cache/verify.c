#include "trainer/cache/cache.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/cache/parts.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NEW_FILE LB_CACHE_FILE ".repaired"
#define DAMAGED_FILE LB_CACHE_FILE ".damaged"

/* Walks over a cache: what is read, and where good values are copied to. */
struct walk {
    struct lb_cache *from, *to; /* to NULL: nowhere */
    sqlite3_stmt *next, *at;    /* the first entry from an id on; the one with an id */
    struct lb_buf bad;          /* ids (int64_t) of bad entries */
    struct lb_cache_report *report;
    const volatile sig_atomic_t *stop; /* may be NULL */
};

/* SQLite's own check of its pages and indices. */
static bool is_whole(sqlite3 *db) {
    sqlite3_stmt *check = NULL;
    bool whole = sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &check, NULL) == SQLITE_OK &&
                 sqlite3_step(check) == SQLITE_ROW &&
                 strcmp((const char *)sqlite3_column_text(check, 0), "ok") == 0;
    sqlite3_finalize(check);
    return whole;
}

static int64_t last_id(sqlite3 *db) {
    static const char *const ways[] = {"SELECT max(id) FROM entries", "SELECT max(id) FROM data"};
    int64_t id = 0;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0] && id == 0; i++) {
        sqlite3_stmt *statement = NULL;
        if (sqlite3_prepare_v2(db, ways[i], -1, &statement, NULL) == SQLITE_OK &&
            sqlite3_step(statement) == SQLITE_ROW) {
            id = sqlite3_column_int64(statement, 0);
        }
        sqlite3_finalize(statement);
    }
    return id;
}

/* The row that the statement stands on: counted, judged, copied. */
static int take_entry(struct walk *w, sqlite3_stmt *row) {
    int64_t id = sqlite3_column_int64(row, 0);
    const void *key = sqlite3_column_blob(row, 1), *value = sqlite3_column_blob(row, 5);
    size_t key_len = (size_t)sqlite3_column_bytes(row, 1), len = (size_t)sqlite3_column_bytes(row, 5);
    w->report->entries++;
    if (key == NULL || value == NULL || !lb_cache_value_good(key, key_len, value, len)) {
        w->report->bad++;
        return lb_buf_append(&w->bad, &id, sizeof id) == LB_OK ? SQLITE_OK : SQLITE_NOMEM;
    }
    return w->to == NULL
               ? SQLITE_OK
               : lb_cache_insert(w->to, key, value, len, (uint64_t)sqlite3_column_int64(row, 3),
                                 (uint64_t)sqlite3_column_int64(row, 4), sqlite3_column_int64(row, 2));
}

/* Whether work is to stop; SQLite asks so within long statements. */
static int is_set(void *stop) {
    const volatile sig_atomic_t *flag = stop;
    return flag != NULL && *flag != 0;
}

/* One step of a statement that takes an id; *out_id is the row's. */
static int step(struct walk *w, sqlite3_stmt *statement, int64_t id, int64_t *out_id) {
    if (is_set((void *)(uintptr_t)w->stop)) {
        return SQLITE_INTERRUPT;
    }
    int code = sqlite3_bind_int64(statement, 1, id);
    code = code == SQLITE_OK ? sqlite3_step(statement) : code;
    if (code == SQLITE_ROW) {
        *out_id = sqlite3_column_int64(statement, 0);
        int taken = take_entry(w, statement);
        code = taken == SQLITE_OK ? SQLITE_ROW : taken;
    }
    sqlite3_reset(statement);
    return code;
}

static bool is_damage(int code) {
    return (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB || (code & 0xff) == SQLITE_IOERR;
}

/* All entries in the order of ids; behind damage one by one, as far as the last known id. */
static int walk_entries(struct walk *w) {
    int64_t id = 0, last = last_id(w->from->db);
    for (;;) {
        int code = step(w, w->next, id, &id);
        if (code == SQLITE_ROW) {
            id++;
        } else if (code == SQLITE_DONE) {
            return SQLITE_OK;
        } else if (is_damage(code)) {
            w->report->file_damaged = true;
            break;
        } else {
            return code;
        }
    }
    for (; id <= last; id++) {
        int64_t found;
        int code = step(w, w->at, id, &found);
        if (code != SQLITE_ROW && code != SQLITE_DONE && !is_damage(code)) {
            return code;
        }
    }
    return SQLITE_OK;
}

static int copy_blobs(struct walk *w) {
    sqlite3_stmt *from = NULL, *to = w->to->statement[LB_CACHE_PUT_BLOB];
    int code = sqlite3_prepare_v2(w->from->db, "SELECT name, value FROM blobs", -1, &from, NULL);
    while (code == SQLITE_OK && sqlite3_step(from) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(from, 0);
        const void *value = sqlite3_column_blob(from, 1), *payload;
        size_t len = (size_t)sqlite3_column_bytes(from, 1);
        struct lb_cache_header h;
        if (name == NULL || lb_cache_value_check(name, strlen(name), value, len, &h, &payload) != NULL) {
            continue;
        }
        code = sqlite3_bind_text(to, 1, name, -1, SQLITE_STATIC);
        code = code == SQLITE_OK ? sqlite3_bind_blob64(to, 2, value, len, SQLITE_STATIC) : code;
        code = code == SQLITE_OK && sqlite3_step(to) == SQLITE_DONE ? SQLITE_OK : SQLITE_ERROR;
        sqlite3_reset(to);
        sqlite3_clear_bindings(to);
    }
    sqlite3_finalize(from);
    return is_damage(code) ? SQLITE_OK : code;
}

static int walk_all(struct walk *w) {
    static const char columns[] =
        "SELECT e.id, e.key, e.used, e.tokens, e.raw_bytes, d.value FROM entries e LEFT JOIN "
        "data d ON d.id = e.id WHERE e.id";
    char text[256];
    snprintf(text, sizeof text, "%s >= ? ORDER BY e.id LIMIT 1", columns);
    int code = sqlite3_prepare_v2(w->from->db, text, -1, &w->next, NULL);
    snprintf(text, sizeof text, "%s = ?", columns);
    code = code == SQLITE_OK ? sqlite3_prepare_v2(w->from->db, text, -1, &w->at, NULL) : code;
    code = code == SQLITE_OK ? walk_entries(w) : code;
    sqlite3_finalize(w->next);
    sqlite3_finalize(w->at);
    w->next = w->at = NULL;
    return code;
}

/* Removes bad entries of a file that is whole. */
static int remove_bad(struct walk *w) {
    int code = sqlite3_exec(w->from->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    for (size_t at = 0; at < w->bad.len && code == SQLITE_OK; at += sizeof(int64_t)) {
        int64_t id;
        memcpy(&id, w->bad.data + at, sizeof id);
        for (int i = 0; i < 2; i++) {
            enum lb_cache_statement which = i == 0 ? LB_CACHE_DROP_ENTRY : LB_CACHE_DROP_DATA;
            int done = lb_cache_run(w->from, which, &id, 1);
            sqlite3_reset(w->from->statement[which]);
            code = done == SQLITE_DONE ? code : done;
        }
    }
    return code == SQLITE_OK ? sqlite3_exec(w->from->db, "COMMIT", NULL, NULL, NULL) : code;
}

/* The new file takes the damaged one's place, which is kept beside it. */
static enum lb_status exchange(const char *dir, struct lb_detail *detail) {
    char *file = lb_path_join(dir, LB_CACHE_FILE), *fresh = lb_path_join(dir, NEW_FILE),
         *damaged = lb_path_join(dir, DAMAGED_FILE), *journal = lb_path_join(dir, LB_CACHE_FILE "-journal");
    enum lb_status status = LB_OK;
    if (file == NULL || fresh == NULL || damaged == NULL || journal == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "cache %s: out of memory", dir);
    } else {
        unlink(damaged);
        unlink(journal); /* it belongs to the damaged file */
        if ((link(file, damaged) != 0 && errno != ENOENT) || rename(fresh, file) != 0) {
            status = lb_fail_errno(detail, LB_E_IO, errno, "cache %s: exchanging %s", dir, LB_CACHE_FILE);
        }
    }
    status = status == LB_OK ? lb_sync_dir(dir, detail) : status;
    lb_free(file);
    lb_free(fresh);
    lb_free(damaged);
    lb_free(journal);
    return status;
}

/* Writes a new file with all that can be read of the damaged one; from NULL: nothing can. */
static enum lb_status rescue(const char *dir, struct lb_cache *from, const volatile sig_atomic_t *stop,
                             struct lb_detail *detail) {
    struct lb_cache_report again = {0};
    struct walk w = {.from = from, .report = &again, .stop = stop};
    char *fresh = lb_path_join(dir, NEW_FILE);
    lb_buf_init(&w.bad, SIZE_MAX / 2);
    if (fresh != NULL) {
        unlink(fresh); /* of a repair that was killed */
    }
    lb_free(fresh);
    enum lb_status status = lb_cache_open_file(dir, NEW_FILE, true, &w.to, detail);
    int code = SQLITE_OK;
    if (status == LB_OK && from != NULL) {
        code = sqlite3_exec(w.to->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        code = code == SQLITE_OK ? walk_all(&w) : code;
        code = code == SQLITE_OK ? copy_blobs(&w) : code;
        code = code == SQLITE_OK ? sqlite3_exec(w.to->db, "COMMIT", NULL, NULL, NULL) : code;
        status = code == SQLITE_OK ? LB_OK : lb_cache_failed(w.to, code, "repairing", detail);
    }
    lb_cache_close(w.to);
    lb_buf_finish(&w.bad);
    return status == LB_OK ? exchange(dir, detail) : status;
}

enum lb_status lb_cache_verify(const char *dir, bool repair, const volatile sig_atomic_t *stop,
                               struct lb_cache_report *out, struct lb_detail *detail) {
    struct lb_cache_report report = {0};
    struct walk w = {.report = &report, .stop = stop};
    struct lb_detail why = {0};
    char *file = lb_path_join(dir, LB_CACHE_FILE);
    bool there = file != NULL && lb_file_exists(file);
    lb_free(file);
    if (!there) {
        return lb_fail(detail, LB_E_NOTFOUND, "%s: there is no cache in this folder", dir);
    }
    lb_buf_init(&w.bad, SIZE_MAX / 2);
    enum lb_status status = lb_cache_open_file(dir, LB_CACHE_FILE, false, &w.from, &why);
    if (status == LB_E_FORMAT) { /* not even its first page can be read */
        report.file_damaged = true;
        status = LB_OK;
    } else if (status != LB_OK) {
        status = lb_fail(detail, status, "%s", why.text);
    } else {
        sqlite3_progress_handler(w.from->db, 1000, is_set, (void *)(uintptr_t)stop);
        report.file_damaged = !is_whole(w.from->db);
        int code = walk_all(&w);
        if (code == SQLITE_OK && repair && !report.file_damaged && report.bad > 0) {
            code = remove_bad(&w);
        }
        status = code == SQLITE_OK ? LB_OK : lb_cache_failed(w.from, code, "verifying", detail);
    }
    if (status == LB_OK && repair && report.file_damaged) {
        status = rescue(dir, w.from, stop, detail);
    }
    lb_cache_close(w.from);
    lb_buf_finish(&w.bad);
    if (status == LB_OK) {
        *out = report;
    }
    return status;
}
