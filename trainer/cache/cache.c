/* Everyday use: what is looked up, kept, thrown out and counted. */
#include "common/base/mem.h"
#include "trainer/cache/parts.h"

#include <string.h>
#include <sys/stat.h>

#define MAX_BLOB_NAME 511
/* Of the maximum, so that SQLite's own pages find room too. */
#define FILL(max) ((max) / 16 * 15)
/* Lookups before a run knows whether older answers are of use to it, and how seldom a hit makes them useless.
 */
#define ENOUGH_LOOKUPS 64
#define USELESS 16

/* ---- reading ---- */

void lb_cache_hold(struct lb_cache *cache) {
    if (cache != NULL) {
        pthread_mutex_lock(&cache->lock);
        (void)lb_cache_execute(cache, LB_CACHE_BEGIN_READING, NULL, 0); /* without it, each lookup is one */
        pthread_mutex_unlock(&cache->lock);
    }
}

void lb_cache_release(struct lb_cache *cache) {
    if (cache != NULL) {
        pthread_mutex_lock(&cache->lock);
        lb_cache_let_go(cache);
        pthread_mutex_unlock(&cache->lock);
    }
}

static int find(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES]) {
    sqlite3_stmt *statement = cache->statement[LB_CACHE_FIND];
    int code = sqlite3_bind_blob(statement, 1, key, LB_SHA256_BYTES, SQLITE_STATIC);
    return code == SQLITE_OK ? sqlite3_step(statement) : code;
}

static int drop(struct lb_cache *cache, int64_t id) {
    int code = lb_cache_execute(cache, LB_CACHE_DROP_ENTRY, &id, 1);
    return code == SQLITE_OK ? lb_cache_execute(cache, LB_CACHE_DROP_DATA, &id, 1) : code;
}

/* The entry was used: remembered, written with the next transaction. */
static void touch(struct lb_cache *cache, int64_t id, int64_t used) {
    cache->hits++;
    if (used >= cache->session) {
        return;
    }
    if (cache->n_touched == LB_CACHE_MAX_TOUCHED) {
        int code = lb_cache_begin(cache);
        if (code != SQLITE_OK || lb_cache_end(cache, lb_cache_write_touched(cache)) != SQLITE_OK) {
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
        if (lb_cache_begin(cache) == SQLITE_OK) {
            (void)lb_cache_end(cache, drop(cache, id)); /* if it can't go now, it is found again */
        }
    } else if (!lb_cache_is_good(code)) {
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
    if (code == SQLITE_ROW && lb_cache_begin(cache) == SQLITE_OK) {
        (void)lb_cache_end(cache, drop(cache, id));
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
    } else if (!lb_cache_is_good(code)) {
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

static int64_t number(struct lb_cache *cache, enum lb_cache_statement which, int column) {
    int64_t n = lb_cache_run(cache, which, NULL, 0) == SQLITE_ROW
                    ? sqlite3_column_int64(cache->statement[which], column)
                    : 0;
    sqlite3_reset(cache->statement[which]);
    return n;
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
        int code = lb_cache_begin(cache);
        if (code == SQLITE_OK) {
            code = make_room(cache, need, false);
            full = code == SQLITE_FULL;
        }
        for (size_t i = 0; i < n && code == SQLITE_OK; i++) {
            code = lb_cache_insert(cache, keys[i], values[i].data, values[i].len,
                                   lb_cache_answer_tokens(answers[i]), raw_bytes[i], cache->session);
        }
        code = code == SQLITE_OK ? lb_cache_write_touched(cache) : code;
        code = lb_cache_end(cache, code);
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
        int code = lb_cache_begin(cache);
        if (code == SQLITE_OK) { /* without a head or an info no answer is of use: answers make room */
            code = make_room(cache, room_of(cache, value.len), true);
            full = code == SQLITE_FULL;
        }
        code = code == SQLITE_OK ? sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC) : code;
        code = code == SQLITE_OK ? sqlite3_bind_blob64(statement, 2, value.data, value.len, SQLITE_STATIC)
                                 : code;
        code = code == SQLITE_OK ? lb_cache_execute(cache, LB_CACHE_PUT_BLOB, NULL, 0) : code;
        sqlite3_clear_bindings(statement);
        code = lb_cache_end(cache, code);
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
        lb_cache_is_good(code) ? LB_OK : lb_cache_failed(cache, code, "reading its totals", detail);
    pthread_mutex_unlock(&cache->lock);
    s.file_bytes = stat(cache->file, &file) == 0 ? (uint64_t)file.st_size : 0;
    if (status == LB_OK) {
        *out = s;
    }
    return status;
}
