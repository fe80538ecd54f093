/* Layout of the LMDB environment (four named databases):
 *   answers  key (32 bytes)         -> a packed answer
 *   order    insertion number (u64) -> key; the smallest number is the oldest answer
 *   blobs    name                   -> bytes
 *   meta     one record             -> totals
 * Values are those of cache_value.h.
 *
 * Several processes may use a folder at once: LMDB's locks order the writers, readers see committed states
 * only. Within a process a folder is opened once (LMDB's rule); opening it again shares it.
 */
#include "trainer/cache/cache.h"

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/cache/value.h"

#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MIN_BYTES (1u << 20)
/* Share of the file that live values may fill: the rest is for pages in transition and for gaps. */
#define FILL(max_bytes) ((max_bytes) / 8 * 7)
#define MAX_RETRIES 24

struct lb_cache {
    struct lb_cache *next; /* of the open ones */
    unsigned n_users;
    dev_t device;
    ino_t inode;
    pthread_mutex_t lock; /* one transaction at a time in this process */
    MDB_env *env;
    MDB_dbi answers, order, blobs, meta;
    uint64_t max_bytes;
    char *dir;
};

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct lb_cache *open_caches;

static enum lb_status fail_lmdb(const struct lb_cache *cache, int code, const char *doing,
                                struct lb_detail *detail) {
    switch (code) {
    case MDB_MAP_FULL:
        return lb_fail(detail, LB_E_LIMIT, "cache %s is full (%llu bytes); raise cache_max_bytes", cache->dir,
                       (unsigned long long)cache->max_bytes);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PANIC:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return lb_fail(detail, LB_E_FORMAT, "cache %s, %s: %s; it cannot be used any more, delete the folder",
                       cache->dir, doing, mdb_strerror(code));
    case ENOMEM:
        return lb_fail(detail, LB_E_NOMEM, "cache %s, %s: out of memory", cache->dir, doing);
    default:
        return lb_fail(detail, LB_E_IO, "cache %s, %s: %s", cache->dir, doing, mdb_strerror(code));
    }
}

/* ---- transactions ---- */

/* Another process may have enlarged the map: take over its size and try again. */
static int begin(struct lb_cache *cache, unsigned flags, MDB_txn **out) {
    int code = mdb_txn_begin(cache->env, NULL, flags, out);
    if (code == MDB_MAP_RESIZED) {
        code = mdb_env_set_mapsize(cache->env, 0);
        code = code ? code : mdb_txn_begin(cache->env, NULL, flags, out);
    }
    return code;
}

/* Commits when all went well so far. */
static int end(MDB_txn *txn, int code) {
    if (code) {
        mdb_txn_abort(txn);
        return code;
    }
    return mdb_txn_commit(txn);
}

static int read_meta(struct lb_cache *cache, MDB_txn *txn, struct lb_cache_totals *out) {
    MDB_val key = {4, (void *)(uintptr_t) "meta"}, value;
    int code = mdb_get(txn, cache->meta, &key, &value);
    memset(out, 0, sizeof *out);
    if (code) {
        return code == MDB_NOTFOUND ? 0 : code;
    }
    return lb_cache_totals_read(value.mv_data, value.mv_size, out) ? 0 : MDB_CORRUPTED;
}

static int write_meta(struct lb_cache *cache, MDB_txn *txn, const struct lb_cache_totals *meta) {
    uint8_t bytes[LB_CACHE_TOTALS_BYTES];
    MDB_val key = {4, (void *)(uintptr_t) "meta"}, value = {sizeof bytes, bytes};
    lb_cache_totals_write(meta, bytes);
    return mdb_put(txn, cache->meta, &key, &value, 0);
}

static uint64_t less(uint64_t a, uint64_t b) {
    return a > b ? a - b : 0;
}

/* Takes one answer out of all databases; the numbers in a damaged header are not believed further than down
 * to zero. */
static int remove_answer(struct lb_cache *cache, MDB_txn *txn, MDB_val *key, const uint64_t *known_order,
                         struct lb_cache_totals *meta) {
    MDB_val value;
    int code = mdb_get(txn, cache->answers, key, &value);
    if (code) {
        return code;
    }
    struct lb_cache_header h;
    const void *payload;
    uint64_t stored = value.mv_size;
    (void)lb_cache_value_check(key->mv_data, key->mv_size, value.mv_data, value.mv_size, &h, &payload);
    uint64_t order = known_order ? *known_order : h.order;
    MDB_val order_key = {sizeof order, &order}, owner;
    if (!mdb_get(txn, cache->order, &order_key, &owner) && owner.mv_size == key->mv_size &&
        !memcmp(owner.mv_data, key->mv_data, key->mv_size)) {
        code = mdb_del(txn, cache->order, &order_key, NULL);
    }
    code = code ? code : mdb_del(txn, cache->answers, key, NULL);
    meta->entries = less(meta->entries, 1);
    meta->stored_bytes = less(meta->stored_bytes, stored);
    meta->raw_bytes = less(meta->raw_bytes, h.raw_bytes);
    meta->tokens = less(meta->tokens, h.tokens);
    meta->pages = less(meta->pages, lb_cache_page_bytes(stored));
    return code;
}

/* Removes the oldest answers until at least bytes are free again; stops when there are none. */
static int evict(struct lb_cache *cache, MDB_txn *txn, uint64_t bytes, struct lb_cache_totals *meta) {
    uint64_t target = less(meta->pages, bytes);
    MDB_cursor *cursor = NULL;
    int code = mdb_cursor_open(txn, cache->order, &cursor);
    while (!code && meta->pages > target) {
        MDB_val order_key, key;
        code = mdb_cursor_get(cursor, &order_key, &key, MDB_FIRST);
        if (code == MDB_NOTFOUND) {
            code = 0;
            break;
        }
        if (code) {
            break;
        }
        uint64_t order = 0;
        uint8_t bytes_of_key[LB_SHA256_BYTES];
        memcpy(&order, order_key.mv_data,
               order_key.mv_size < sizeof order ? order_key.mv_size : sizeof order);
        memcpy(bytes_of_key, key.mv_data,
               key.mv_size < sizeof bytes_of_key ? key.mv_size : sizeof bytes_of_key);
        MDB_val owner = {sizeof bytes_of_key, bytes_of_key};
        code = remove_answer(cache, txn, &owner, &order, meta);
        if (code == MDB_NOTFOUND) { /* a line of the order without an answer */
            MDB_val stale = {sizeof order, &order};
            code = mdb_del(txn, cache->order, &stale, NULL);
        }
    }
    if (cursor) {
        mdb_cursor_close(cursor);
    }
    return code;
}

/* Frees a sixteenth of the file in a transaction of its own, for a writer who found the map full. */
static int make_room(struct lb_cache *cache) {
    MDB_txn *txn = NULL;
    struct lb_cache_totals meta = {0};
    int code = begin(cache, 0, &txn);
    code = code ? code : read_meta(cache, txn, &meta);
    uint64_t before = meta.entries;
    code = code ? code : evict(cache, txn, cache->max_bytes / 16, &meta);
    code = code ? code : write_meta(cache, txn, &meta);
    return end(txn, code || meta.entries < before ? code : MDB_MAP_FULL);
}

/* One value to be stored. */
struct item {
    const void *name;
    size_t name_len;
    struct lb_buf value;
    uint64_t raw_bytes, tokens;
};

static int put_answer(struct lb_cache *cache, MDB_txn *txn, struct item *item, struct lb_cache_totals *meta) {
    MDB_val key = {item->name_len, (void *)(uintptr_t)item->name},
            value = {item->value.len, item->value.data};
    uint64_t order = meta->next_order;
    lb_cache_value_set_order(&item->value, order);
    int code = mdb_put(txn, cache->answers, &key, &value, MDB_NOOVERWRITE);
    if (code) {
        return code == MDB_KEYEXIST ? 0 : code; /* somebody asked the same and was faster */
    }
    MDB_val order_key = {sizeof order, &order};
    code = mdb_put(txn, cache->order, &order_key, &key, MDB_APPEND);
    meta->next_order++;
    meta->entries++;
    meta->stored_bytes += item->value.len;
    meta->raw_bytes += item->raw_bytes;
    meta->tokens += item->tokens;
    meta->pages += lb_cache_page_bytes(item->value.len);
    return code;
}

static int put_blob(struct lb_cache *cache, MDB_txn *txn, struct item *item, struct lb_cache_totals *meta) {
    MDB_val key = {item->name_len, (void *)(uintptr_t)item->name},
            value = {item->value.len, item->value.data}, old;
    int code = mdb_get(txn, cache->blobs, &key, &old);
    if (!code) {
        meta->pages = less(meta->pages, lb_cache_page_bytes(old.mv_size));
    } else if (code == MDB_NOTFOUND) {
        meta->blobs++;
    } else {
        return code;
    }
    meta->pages += lb_cache_page_bytes(item->value.len);
    return mdb_put(txn, cache->blobs, &key, &value, 0);
}

/* Stores n items in one transaction, the oldest answers making room; again with more room when the map is
 * full all the same. */
static int store(struct lb_cache *cache, struct item *items, size_t n,
                 int (*put)(struct lb_cache *, MDB_txn *, struct item *, struct lb_cache_totals *)) {
    uint64_t need = 0;
    for (size_t i = 0; i < n; i++) {
        need += lb_cache_page_bytes(items[i].value.len);
    }
    if (need > FILL(cache->max_bytes)) {
        return MDB_MAP_FULL;
    }
    int code = MDB_MAP_FULL;
    for (int attempt = 0; attempt < MAX_RETRIES && code == MDB_MAP_FULL; attempt++) {
        MDB_txn *txn = NULL;
        struct lb_cache_totals meta;
        if (attempt && (code = make_room(cache))) {
            return code;
        }
        code = begin(cache, 0, &txn);
        code = code ? code : read_meta(cache, txn, &meta);
        if (!code && meta.pages + need > FILL(cache->max_bytes)) {
            code = evict(cache, txn, meta.pages + need - FILL(cache->max_bytes), &meta);
        }
        for (size_t i = 0; i < n && !code; i++) {
            code = put(cache, txn, &items[i], &meta);
        }
        code = end(txn, code ? code : write_meta(cache, txn, &meta));
    }
    return code;
}

/* ---- opening ---- */

/* LMDB maps the file: reading past the end of one that was cut off would end the process. */
static enum lb_status check_length(struct lb_cache *cache, struct lb_detail *detail) {
    MDB_envinfo info;
    MDB_stat stat_of;
    struct stat file;
    char *path = lb_path_join(cache->dir, "data.mdb");
    if (!path) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a cache");
    }
    int bad = mdb_env_info(cache->env, &info) || mdb_env_stat(cache->env, &stat_of) || stat(path, &file);
    lb_free(path);
    if (bad) {
        return lb_fail_errno(detail, LB_E_IO, errno, "cache %s", cache->dir);
    }
    uint64_t used = ((uint64_t)info.me_last_pgno + 1) * stat_of.ms_psize;
    if (info.me_last_pgno > 1 && (uint64_t)file.st_size < used) {
        return lb_fail(detail, LB_E_FORMAT,
                       "cache %s: data.mdb has %llu bytes instead of %llu; delete the folder", cache->dir,
                       (unsigned long long)file.st_size, (unsigned long long)used);
    }
    if (!cache->max_bytes) {
        cache->max_bytes = info.me_mapsize;
    }
    return LB_OK;
}

static enum lb_status open_env(struct lb_cache *cache, struct lb_detail *detail) {
    int dead, code = mdb_env_create(&cache->env);
    code = code ? code : mdb_env_set_maxdbs(cache->env, 4);
    code = code ? code : mdb_env_set_maxreaders(cache->env, 1024);
    if (cache->max_bytes) {
        code = code ? code : mdb_env_set_mapsize(cache->env, cache->max_bytes);
    }
    /* NOMETASYNC: a power cut may cost the last transaction, never the file. NORDAHEAD: keys are random. */
    code =
        code ? code : mdb_env_open(cache->env, cache->dir, MDB_NOTLS | MDB_NOMETASYNC | MDB_NORDAHEAD, 0644);
    if (code) {
        return fail_lmdb(cache, code, "opening it", detail);
    }
    enum lb_status status = check_length(cache, detail);
    if (status != LB_OK) {
        return status;
    }
    mdb_reader_check(cache->env, &dead); /* slots of processes that were killed */
    MDB_txn *txn = NULL;
    code = begin(cache, 0, &txn);
    code = code ? code : mdb_dbi_open(txn, "answers", MDB_CREATE, &cache->answers);
    code = code ? code : mdb_dbi_open(txn, "order", MDB_CREATE | MDB_INTEGERKEY, &cache->order);
    code = code ? code : mdb_dbi_open(txn, "blobs", MDB_CREATE, &cache->blobs);
    code = code ? code : mdb_dbi_open(txn, "meta", MDB_CREATE, &cache->meta);
    code = end(txn, code);
    return code ? fail_lmdb(cache, code, "opening it", detail) : LB_OK;
}

static void destroy_cache(struct lb_cache *cache) {
    if (cache->env) {
        mdb_env_close(cache->env);
    }
    pthread_mutex_destroy(&cache->lock);
    lb_free(cache->dir);
    lb_free(cache);
}

enum lb_status lb_cache_open(const char *dir, uint64_t max_bytes, struct lb_cache **out,
                             struct lb_detail *detail) {
    struct stat folder;
    if (max_bytes && max_bytes < MIN_BYTES) {
        return lb_fail(detail, LB_E_ARG, "cache_max_bytes is %llu, less than %u",
                       (unsigned long long)max_bytes, MIN_BYTES);
    }
    enum lb_status status = lb_mkdirs(dir, detail);
    if (status != LB_OK) {
        return status;
    }
    if (stat(dir, &folder)) {
        return lb_fail_errno(detail, LB_E_IO, errno, "cache %s", dir);
    }
    pthread_mutex_lock(&open_lock);
    for (struct lb_cache *cache = open_caches; cache; cache = cache->next) {
        if (cache->device == folder.st_dev && cache->inode == folder.st_ino) {
            cache->n_users++;
            *out = cache;
            goto out;
        }
    }
    struct lb_cache *cache = lb_calloc(1, sizeof *cache);
    if (!cache || !(cache->dir = lb_strdup(dir))) {
        lb_free(cache);
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for a cache");
        goto out;
    }
    pthread_mutex_init(&cache->lock, NULL);
    cache->n_users = 1;
    cache->device = folder.st_dev;
    cache->inode = folder.st_ino;
    cache->max_bytes = max_bytes / LB_CACHE_PAGE_BYTES * LB_CACHE_PAGE_BYTES;
    status = open_env(cache, detail);
    if (status != LB_OK) {
        destroy_cache(cache);
        goto out;
    }
    cache->next = open_caches;
    open_caches = cache;
    *out = cache;
out:
    pthread_mutex_unlock(&open_lock);
    return status;
}

void lb_cache_close(struct lb_cache *cache) {
    if (!cache) {
        return;
    }
    pthread_mutex_lock(&open_lock);
    if (--cache->n_users == 0) {
        struct lb_cache **at = &open_caches;
        while (*at != cache) {
            at = &(*at)->next;
        }
        *at = cache->next;
        destroy_cache(cache);
    }
    pthread_mutex_unlock(&open_lock);
}

/* ---- reading ---- */

/* Removes a damaged answer, so that a good one can take its place. */
static int drop_damaged(struct lb_cache *cache, const void *name, size_t name_len) {
    MDB_txn *txn = NULL;
    struct lb_cache_totals meta;
    MDB_val key = {name_len, (void *)(uintptr_t)name};
    int code = begin(cache, 0, &txn);
    code = code ? code : read_meta(cache, txn, &meta);
    code = code ? code : remove_answer(cache, txn, &key, NULL, &meta);
    code = end(txn, code ? code : write_meta(cache, txn, &meta));
    return code == MDB_NOTFOUND ? 0 : code;
}

enum lb_status lb_cache_get(struct lb_cache *cache, const uint8_t key_bytes[LB_SHA256_BYTES],
                            struct lb_arena *arena, struct lb_answer *out, struct lb_detail *detail) {
    struct lb_arena_mark mark = lb_arena_mark(arena);
    struct lb_cache_header h;
    struct lb_answer answer = {0};
    const void *payload;
    const char *wrong = NULL;
    MDB_txn *txn = NULL;
    MDB_val key = {LB_SHA256_BYTES, (void *)(uintptr_t)key_bytes}, value;
    enum lb_status status = LB_OK;

    pthread_mutex_lock(&cache->lock);
    int code = begin(cache, MDB_RDONLY, &txn);
    code = code ? code : mdb_get(txn, cache->answers, &key, &value);
    if (!code) {
        wrong = lb_cache_value_check(key_bytes, LB_SHA256_BYTES, value.mv_data, value.mv_size, &h, &payload);
        status = wrong ? LB_OK : lb_cache_answer_inflate(&h, payload, arena, &answer);
        if (status == LB_E_FORMAT) {
            wrong = "does not unpack";
        } else if (status != LB_OK) {
            lb_fail(detail, status, "out of memory for a cached answer of %llu bytes",
                    (unsigned long long)h.raw_bytes);
        }
    }
    mdb_txn_abort(txn);
    if (wrong) {
        char hex[LB_SHA256_HEX];
        lb_hex(key_bytes, LB_SHA256_BYTES, hex);
        status = lb_fail(detail, LB_E_NOTFOUND, "cache %s: answer %.16s... %s; it is asked for again",
                         cache->dir, hex, wrong);
        code = drop_damaged(cache, key_bytes, LB_SHA256_BYTES);
    }
    pthread_mutex_unlock(&cache->lock);
    if (code == MDB_NOTFOUND) {
        status = LB_E_NOTFOUND;
    } else if (code) {
        status = fail_lmdb(cache, code, "reading an answer", detail);
    }
    if (status != LB_OK) {
        lb_arena_release(arena, mark);
        return status;
    }
    *out = answer;
    return LB_OK;
}

enum lb_status lb_cache_get_blob(struct lb_cache *cache, const char *name, struct lb_buf *out,
                                 struct lb_detail *detail) {
    struct lb_cache_header h;
    const void *payload;
    MDB_txn *txn = NULL;
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, value;
    enum lb_status status = LB_OK;

    pthread_mutex_lock(&cache->lock);
    int code = begin(cache, MDB_RDONLY, &txn);
    code = code ? code : mdb_get(txn, cache->blobs, &key, &value);
    if (!code) {
        const char *wrong =
            lb_cache_value_check(name, key.mv_size, value.mv_data, value.mv_size, &h, &payload);
        size_t before = out->len;
        void *raw = wrong ? NULL : lb_buf_extend(out, h.raw_bytes);
        if (wrong) {
            status = lb_fail(detail, LB_E_NOTFOUND, "cache %s: %s %s; it is asked for again", cache->dir,
                             name, wrong);
        } else if (!raw) {
            status = lb_fail(detail, lb_buf_status(out), "cache %s: no room for %s", cache->dir, name);
        } else if (!lb_cache_value_inflate(&h, payload, raw)) {
            out->len = before;
            status = lb_fail(detail, LB_E_NOTFOUND, "cache %s: %s does not unpack", cache->dir, name);
        }
    }
    mdb_txn_abort(txn);
    pthread_mutex_unlock(&cache->lock);
    if (code == MDB_NOTFOUND) {
        return LB_E_NOTFOUND;
    }
    return code ? fail_lmdb(cache, code, "reading", detail) : status;
}

/* ---- writing ---- */

enum lb_status lb_cache_put(struct lb_cache *cache, const uint8_t (*keys)[LB_SHA256_BYTES],
                            const struct lb_answer *const *answers, size_t n, struct lb_detail *detail) {
    if (n == 0) {
        return LB_OK;
    }
    enum lb_status status = LB_OK;
    struct item *items = lb_calloc(n, sizeof *items);
    if (!items) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for %zu cached answers", n);
    }
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        items[i].name = keys[i];
        items[i].name_len = LB_SHA256_BYTES;
        items[i].tokens = lb_cache_answer_tokens(answers[i]);
        lb_buf_init(&items[i].value, LB_MAX_RESPONSE_BYTES);
        status = lb_cache_answer_value(keys[i], answers[i], &items[i].value, &items[i].raw_bytes);
    }
    if (status != LB_OK) {
        lb_fail(detail, status, "out of memory for %zu cached answers", n);
    } else {
        pthread_mutex_lock(&cache->lock);
        int code = store(cache, items, n, put_answer);
        pthread_mutex_unlock(&cache->lock);
        status = code ? fail_lmdb(cache, code, "storing answers", detail) : LB_OK;
    }
    for (size_t i = 0; i < n; i++) {
        lb_buf_finish(&items[i].value);
    }
    lb_free(items);
    return status;
}

enum lb_status lb_cache_put_blob(struct lb_cache *cache, const char *name, const void *bytes, size_t len,
                                 struct lb_detail *detail) {
    struct item item = {.name = name, .name_len = strlen(name), .raw_bytes = len};
    if (item.name_len == 0 || item.name_len > (size_t)mdb_env_get_maxkeysize(cache->env)) {
        return lb_fail(detail, LB_E_ARG, "cache %s: '%.60s' is no name for a value: 1 to 511 bytes",
                       cache->dir, name);
    }
    lb_buf_init(&item.value, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = lb_cache_value_make(name, item.name_len, bytes, len, 0, &item.value);
    if (status != LB_OK) {
        lb_fail(detail, status, "cache %s: no memory for %s", cache->dir, name);
    } else {
        pthread_mutex_lock(&cache->lock);
        int code = store(cache, &item, 1, put_blob);
        pthread_mutex_unlock(&cache->lock);
        status = code ? fail_lmdb(cache, code, "storing", detail) : LB_OK;
    }
    lb_buf_finish(&item.value);
    return status;
}

/* ---- the whole ---- */

enum lb_status lb_cache_stats(struct lb_cache *cache, struct lb_cache_stats *out, struct lb_detail *detail) {
    MDB_txn *txn = NULL;
    struct lb_cache_totals meta;
    struct stat file;
    char *path = lb_path_join(cache->dir, "data.mdb");
    pthread_mutex_lock(&cache->lock);
    int code = path ? begin(cache, MDB_RDONLY, &txn) : ENOMEM;
    code = code ? code : read_meta(cache, txn, &meta);
    mdb_txn_abort(txn);
    pthread_mutex_unlock(&cache->lock);
    bool found = path && !stat(path, &file);
    lb_free(path);
    if (code) {
        return fail_lmdb(cache, code, "reading its totals", detail);
    }
    *out = (struct lb_cache_stats){.entries = meta.entries,
                                   .blobs = meta.blobs,
                                   .stored_bytes = meta.stored_bytes,
                                   .raw_bytes = meta.raw_bytes,
                                   .file_bytes = found ? (uint64_t)file.st_size : 0,
                                   .max_bytes = cache->max_bytes,
                                   .tokens = meta.tokens};
    return LB_OK;
}

/* Reads every answer; the keys of bad ones are appended to bad. */
static int scan(struct lb_cache *cache, struct lb_buf *bad, uint64_t *entries) {
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    int code = begin(cache, MDB_RDONLY, &txn);
    code = code ? code : mdb_cursor_open(txn, cache->answers, &cursor);
    for (MDB_cursor_op op = MDB_FIRST; !code; op = MDB_NEXT) {
        code = mdb_cursor_get(cursor, &key, &value, op);
        if (code) {
            break;
        }
        ++*entries;
        if (key.mv_size == LB_SHA256_BYTES &&
            !lb_cache_value_good(key.mv_data, key.mv_size, value.mv_data, value.mv_size) &&
            lb_buf_append(bad, key.mv_data, key.mv_size)) {
            code = ENOMEM;
        }
    }
    if (cursor) {
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return code == MDB_NOTFOUND ? 0 : code;
}

enum lb_status lb_cache_verify(struct lb_cache *cache, bool repair, uint64_t *out_entries, uint64_t *out_bad,
                               struct lb_detail *detail) {
    struct lb_buf bad;
    uint64_t entries = 0;
    lb_buf_init(&bad, SIZE_MAX / 2);
    pthread_mutex_lock(&cache->lock);
    int code = scan(cache, &bad, &entries);
    for (size_t at = 0; repair && !code && at < bad.len; at += LB_SHA256_BYTES) {
        code = drop_damaged(cache, bad.data + at, LB_SHA256_BYTES);
    }
    pthread_mutex_unlock(&cache->lock);
    uint64_t n_bad = bad.len / LB_SHA256_BYTES;
    lb_buf_finish(&bad);
    if (code) {
        return fail_lmdb(cache, code, "verifying", detail);
    }
    *out_entries = entries;
    *out_bad = n_bad;
    return LB_OK;
}
