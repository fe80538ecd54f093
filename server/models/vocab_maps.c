#include "server/models/vocab_maps.h"

#include "common/base/mem.h"

#include <string.h>

void lb_kept_ids_release(struct lb_kept_ids *ids) {
    if (ids && atomic_fetch_sub(&ids->references, 1) == 1) {
        lb_free(ids);
    }
}

void lb_vocab_maps_init(struct lb_vocab_maps *maps) {
    *maps = (struct lb_vocab_maps){.n = 0};
    pthread_mutex_init(&maps->lock, NULL);
}

void lb_vocab_maps_finish(struct lb_vocab_maps *maps) {
    for (size_t i = 0; i < maps->n; i++) {
        lb_kept_ids_release(maps->maps[i]);
    }
    pthread_mutex_destroy(&maps->lock);
}

/* ---- what comes in ---- */

static enum lb_status check_ids(const int32_t *ids, int64_t n, int64_t v, struct lb_detail *detail) {
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= v) {
            return lb_fail(detail, LB_E_ARG, "vocabulary map: id %d at place %lld is outside 0..%lld", ids[i],
                           (long long)i, (long long)v - 1);
        }
        if (i > 0 && ids[i] <= ids[i - 1]) {
            return lb_fail(
                detail, LB_E_ARG,
                "vocabulary map: id %d at place %lld is not above the one before it, %d; ids rise, "
                "each once",
                ids[i], (long long)i, ids[i - 1]);
        }
    }
    return LB_OK;
}

static enum lb_status make(const char *digest, const void *bytes, size_t len, int64_t v,
                           struct lb_kept_ids **out, struct lb_detail *detail) {
    uint8_t hash[LB_SHA256_BYTES];
    char hex[LB_SHA256_HEX];
    if (len == 0 || len % sizeof(int32_t) != 0) {
        return lb_fail(detail, LB_E_ARG,
                       "vocabulary map: %zu bytes; expected INT32 ids, 4 bytes each, one or more", len);
    }
    if (len / sizeof(int32_t) > (uint64_t)v) {
        return lb_fail(detail, LB_E_ARG, "vocabulary map: %zu ids, and this model has %lld",
                       len / sizeof(int32_t), (long long)v);
    }
    if (sizeof(struct lb_kept_ids) + len > LB_MAX_VOCAB_MAP_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "vocabulary map: %zu bytes; a model's maps have at most %u", len,
                       LB_MAX_VOCAB_MAP_BYTES);
    }
    lb_sha256(bytes, len, hash);
    lb_hex(hash, sizeof hash, hex);
    if (strcmp(hex, digest) != 0) {
        return lb_fail(detail, LB_E_ARG,
                       "vocabulary map: its bytes have digest %s, the path says %.64s; did they arrive as "
                       "they were sent?",
                       hex, digest);
    }
    struct lb_kept_ids *map = lb_malloc_array(sizeof *map + len, 1);
    if (!map) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory; try again");
    }
    map->kept = (struct lb_kept){map->ids, (int64_t)(len / sizeof *map->ids)};
    map->bytes = sizeof *map + len;
    memcpy(map->digest, hex, sizeof hex);
    memcpy(map->ids, bytes, len);
    atomic_init(&map->references, 1);
    enum lb_status status = check_ids(map->ids, map->kept.n, v, detail);
    if (status != LB_OK) {
        lb_free(map);
        return status;
    }
    *out = map;
    return LB_OK;
}

/* ---- what is there: under the lock ---- */

static struct lb_kept_ids *find(struct lb_vocab_maps *maps, const char *digest) {
    for (size_t i = 0; i < maps->n; i++) {
        if (strcmp(maps->maps[i]->digest, digest) == 0) {
            maps->maps[i]->used = ++maps->clock;
            return maps->maps[i];
        }
    }
    return NULL;
}

static void drop_oldest(struct lb_vocab_maps *maps) {
    size_t oldest = 0;
    for (size_t i = 1; i < maps->n; i++) {
        oldest = maps->maps[i]->used < maps->maps[oldest]->used ? i : oldest;
    }
    maps->bytes -= maps->maps[oldest]->bytes;
    lb_kept_ids_release(maps->maps[oldest]);
    maps->maps[oldest] = maps->maps[--maps->n];
}

static void add(struct lb_vocab_maps *maps, struct lb_kept_ids *map) {
    while (maps->n > 0 &&
           (maps->n == LB_MAX_VOCAB_MAPS || maps->bytes + map->bytes > LB_MAX_VOCAB_MAP_BYTES)) {
        drop_oldest(maps);
    }
    map->used = ++maps->clock;
    maps->maps[maps->n++] = map;
    maps->bytes += map->bytes;
}

enum lb_status lb_vocab_maps_put(struct lb_vocab_maps *maps, const char *digest, const void *bytes,
                                 size_t len, int64_t v, struct lb_detail *detail) {
    struct lb_kept_ids *map = NULL;
    enum lb_status status = make(digest, bytes, len, v, &map, detail);
    if (status != LB_OK) {
        return status;
    }
    pthread_mutex_lock(&maps->lock);
    bool there = find(maps, digest) != NULL;
    if (!there) {
        add(maps, map);
    }
    pthread_mutex_unlock(&maps->lock);
    if (there) {
        lb_kept_ids_release(map);
    }
    return LB_OK;
}

struct lb_kept_ids *lb_vocab_maps_get(struct lb_vocab_maps *maps, const char *digest) {
    pthread_mutex_lock(&maps->lock);
    struct lb_kept_ids *map = find(maps, digest);
    if (map) {
        atomic_fetch_add(&map->references, 1);
    }
    pthread_mutex_unlock(&maps->lock);
    return map;
}

size_t lb_vocab_maps_bytes(struct lb_vocab_maps *maps) {
    pthread_mutex_lock(&maps->lock);
    size_t bytes = maps->bytes;
    pthread_mutex_unlock(&maps->lock);
    return bytes;
}
