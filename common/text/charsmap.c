#include "common/text/charsmap.h"

#include "common/base/base64.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/unicode.h"

#include <stdint.h>
#include <string.h>

#define MAX_GRAPHEME 6 /* bytes; longer ones go character by character */

struct lb_charsmap {
    uint8_t *blob;
    size_t len;
    size_t n_units;   /* little-endian words behind the first, which is their size in bytes */
    const char *text; /* replacements, each ends with NUL */
    size_t text_len;
};

/* ---- reading ---- */

static uint32_t word_at(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

enum lb_status lb_charsmap_create(const char *base64, size_t len, const char *what, struct lb_charsmap **out,
                                  struct lb_detail *detail) {
    struct lb_charsmap *map = lb_calloc(1, sizeof *map);
    uint8_t *blob = lb_malloc_array(len / 4 + 1, 3);
    if (!map || !blob) {
        lb_free(map);
        lb_free(blob);
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for precompiled_charsmap", what);
    }
    map->blob = blob;
    size_t bytes = 0;
    bool good = lb_base64_bytes(base64, len, blob, &bytes) && bytes >= 4;
    size_t trie = good ? word_at(blob) : 0;
    good = good && trie % 4 == 0 && trie >= 4 && trie <= bytes - 4;
    map->len = bytes;
    map->n_units = trie / 4;
    map->text = (const char *)blob + 4 + trie;
    map->text_len = good ? bytes - 4 - trie : 0;
    /* Whatever place a rule names, its text ends within the blob and is text. */
    good = good && map->text_len > 0 && map->text[map->text_len - 1] == '\0' &&
           lb_utf8_check(map->text, map->text_len) == map->text_len;
    if (!good) {
        lb_charsmap_destroy(map);
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: normalizer Precompiled: precompiled_charsmap is not a charsmap in base64", what);
    }
    *out = map;
    return LB_OK;
}

void lb_charsmap_destroy(struct lb_charsmap *map) {
    if (map) {
        lb_free(map->blob);
        lb_free(map);
    }
}

void lb_charsmap_hash(const struct lb_charsmap *map, struct lb_sha256 *hash) {
    lb_sha256_u64(hash, map->len);
    lb_sha256_update(hash, map->blob, map->len);
}

/* ---- applying ---- */

static uint32_t unit_at(const struct lb_charsmap *map, size_t i) {
    return i < map->n_units ? word_at(map->blob + 4 + 4 * i) : 0;
}

static size_t offset_of(uint32_t unit) {
    return (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The text of the shortest rule that key begins with, NULL when there is none. */
static const char *find(const struct lb_charsmap *map, const char *key, size_t n) {
    size_t node = offset_of(unit_at(map, 0));
    for (size_t i = 0; i < n && key[i]; i++) {
        uint8_t byte = (uint8_t)key[i];
        node ^= byte;
        uint32_t unit = unit_at(map, node);
        if (node >= map->n_units || (unit & (1u << 31 | 0xffu)) != byte) {
            return NULL;
        }
        node ^= offset_of(unit);
        if (unit >> 8 & 1) {
            size_t at = unit_at(map, node) & ~(1u << 31);
            /* Inside a character no text begins. */
            return node < map->n_units && at < map->text_len && ((uint8_t)map->text[at] & 0xc0) != 0x80
                       ? map->text + at
                       : NULL;
        }
    }
    return NULL;
}

/* Where the grapheme that begins at start ends. */
static size_t grapheme_end(const char *text, size_t start, size_t len) {
    size_t end = start;
    uint32_t left = lb_utf8_next(text, &end);
    while (end < len) {
        size_t next = end;
        uint32_t right = lb_utf8_next(text, &next);
        if (!lb_same_grapheme(left, right)) {
            break;
        }
        left = right;
        end = next;
    }
    return end;
}

static bool put_rule(const struct lb_charsmap *map, const char *key, size_t n, struct lb_buf *out) {
    const char *text = find(map, key, n);
    if (text) {
        lb_buf_append_str(out, text);
    }
    return text != NULL;
}

void lb_charsmap_apply(const struct lb_charsmap *map, const char *text, size_t len, struct lb_buf *out,
                       bool *cut) {
    size_t at = 0;
    *cut = false;
    while (at < len) {
        size_t end = grapheme_end(text, at, len), before = out->len;
        bool first = at == 0;
        if (end - at < MAX_GRAPHEME && put_rule(map, text + at, end - at, out)) {
            at = end;
        }
        while (at < end) {
            size_t next = at;
            lb_utf8_next(text, &next);
            if (!put_rule(map, text + at, next - at, out)) {
                lb_buf_append(out, text + at, next - at);
            }
            at = next;
        }
        *cut = *cut || (first && out->len == before);
    }
}
