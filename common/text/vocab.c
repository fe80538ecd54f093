#include "common/text/vocab.h"

#include "common/base/mem.h"

#include <string.h>

#define MIN_SLOTS 64u
#define MAX_ENTRIES (1 << 28)

/* FNV-1a, folded: written forms are short. */
static uint32_t hash_text(const char *text, size_t len) {
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++) {
        h = (h ^ (uint8_t)text[i]) * UINT64_C(0x100000001b3);
    }
    return (uint32_t)(h ^ h >> 32);
}

enum lb_status lb_vocab_init(struct lb_vocab *vocab, size_t n_entries) {
    memset(vocab, 0, sizeof *vocab);
    if (n_entries > MAX_ENTRIES) {
        return LB_E_LIMIT;
    }
    vocab->max_size = (int32_t)(2 * n_entries + LB_VOCAB_SLACK);
    uint32_t slots = MIN_SLOTS;
    while (slots < 2 * n_entries) {
        slots *= 2;
    }
    vocab->slot = lb_malloc_array(slots, sizeof *vocab->slot);
    if (!vocab->slot) {
        return LB_E_NOMEM;
    }
    memset(vocab->slot, 0xff, slots * sizeof *vocab->slot);
    vocab->slots = slots;
    return LB_OK;
}

void lb_vocab_finish(struct lb_vocab *vocab) {
    if (vocab) {
        lb_free(vocab->entry);
        lb_free(vocab->pool);
        lb_free(vocab->slot);
        memset(vocab, 0, sizeof *vocab);
    }
}

/* The slot where text is, or the free one where it would go. */
static uint32_t find_slot(const struct lb_vocab *vocab, const char *text, size_t len) {
    uint32_t mask = vocab->slots - 1;
    uint32_t i = hash_text(text, len) & mask;
    while (vocab->slot[i] >= 0) {
        const struct lb_entry *entry = &vocab->entry[vocab->slot[i]];
        if (entry->len == len && !memcmp(vocab->pool + entry->text, text, len)) {
            break;
        }
        i = (i + 1) & mask;
    }
    return i;
}

/* Doubles the table; each text is in it once, so only a free slot is looked for. */
static enum lb_status grow_slots(struct lb_vocab *vocab) {
    uint32_t slots = vocab->slots * 2;
    int32_t *slot = lb_malloc_array(slots, sizeof *slot);
    if (!slot) {
        return LB_E_NOMEM;
    }
    memset(slot, 0xff, slots * sizeof *slot);
    for (uint32_t i = 0; i < vocab->slots; i++) {
        if (vocab->slot[i] >= 0) {
            const struct lb_entry *entry = &vocab->entry[vocab->slot[i]];
            uint32_t at = hash_text(vocab->pool + entry->text, entry->len) & (slots - 1);
            while (slot[at] >= 0) {
                at = (at + 1) & (slots - 1);
            }
            slot[at] = vocab->slot[i];
        }
    }
    lb_free(vocab->slot);
    vocab->slot = slot;
    vocab->slots = slots;
    return LB_OK;
}

static enum lb_status grow_entries(struct lb_vocab *vocab, int32_t size) {
    if (size > vocab->cap) {
        int32_t cap = vocab->cap > vocab->max_size / 2 ? vocab->max_size : vocab->cap * 2;
        cap = cap < size ? size : cap;
        struct lb_entry *entry = lb_realloc_array(vocab->entry, (size_t)cap, sizeof *entry);
        if (!entry) {
            return LB_E_NOMEM;
        }
        vocab->entry = entry;
        vocab->cap = cap;
    }
    if (size > vocab->size) {
        memset(vocab->entry + vocab->size, 0, (size_t)(size - vocab->size) * sizeof *vocab->entry);
        vocab->size = size;
    }
    return LB_OK;
}

/* Room for n more bytes at the end of the pool. */
static enum lb_status reserve(struct lb_vocab *vocab, size_t n, size_t *out_offset) {
    size_t need;
    if (!lb_add_size(vocab->pool_len, n, &need)) {
        return LB_E_LIMIT;
    }
    if (need > vocab->pool_cap) {
        size_t cap = vocab->pool_cap ? vocab->pool_cap : 4096;
        while (cap < need) {
            if (!lb_mul_size(cap, 2, &cap)) {
                return LB_E_LIMIT;
            }
        }
        char *pool = lb_realloc_array(vocab->pool, cap, 1);
        if (!pool) {
            return LB_E_NOMEM;
        }
        vocab->pool = pool;
        vocab->pool_cap = cap;
    }
    *out_offset = vocab->pool_len;
    vocab->pool_len = need;
    return LB_OK;
}

enum lb_status lb_vocab_put(struct lb_vocab *vocab, const char *text, size_t len, int64_t id, uint32_t flags,
                            const char *what, struct lb_detail *detail) {
    int shown = len > 80 ? 80 : (int)len;
    if (id < 0 || id >= vocab->max_size) {
        return lb_fail(detail, LB_E_LIMIT,
                       "%s: token \"%.*s\" has id %lld, far beyond the number of tokens (%d at most here)",
                       what, shown, text, (long long)id, vocab->max_size - 1);
    }
    uint32_t at = find_slot(vocab, text, len);
    int32_t owner = vocab->slot[at];
    if (owner == (int32_t)id) {
        vocab->entry[owner].flags |= flags;
        return LB_OK;
    }
    if (owner >= 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: token \"%.*s\" has two ids, %d and %lld", what, shown, text,
                       owner, (long long)id);
    }
    if (id < vocab->size && vocab->entry[id].flags) {
        return lb_fail(detail, LB_E_FORMAT, "%s: id %lld belongs to two tokens, \"%.80s\" and \"%.*s\"", what,
                       (long long)id, lb_vocab_text(vocab, (int32_t)id), shown, text);
    }
    if (len > UINT32_MAX / 4) {
        return lb_fail(detail, LB_E_LIMIT, "%s: a token of %zu bytes", what, len);
    }
    size_t offset = 0;
    enum lb_status status = grow_entries(vocab, (int32_t)id + 1);
    if (status == LB_OK && (uint32_t)vocab->count >= vocab->slots / 2) {
        status = grow_slots(vocab);
        at = status != LB_OK ? at : find_slot(vocab, text, len);
    }
    status = status != LB_OK ? status : reserve(vocab, len + 1, &offset);
    if (status != LB_OK) {
        return lb_fail(detail, status, "%s: out of memory for the vocabulary", what);
    }
    memcpy(vocab->pool + offset, text, len);
    vocab->pool[offset + len] = '\0';
    vocab->entry[id] = (struct lb_entry){.text = offset, .len = (uint32_t)len, .flags = flags};
    vocab->slot[at] = (int32_t)id;
    vocab->longest = len > vocab->longest ? (uint32_t)len : vocab->longest;
    vocab->count++;
    return LB_OK;
}

enum lb_status lb_vocab_read(struct lb_vocab *vocab, json_t *entries, const char *what,
                             struct lb_detail *detail) {
    if (!json_is_object(entries)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model.vocab must be an object of tokens and ids", what);
    }
    const char *text;
    json_t *id;
    json_object_foreach(entries, text, id) {
        if (!json_is_integer(id)) {
            return lb_fail(detail, LB_E_FORMAT, "%s: model.vocab: the id of \"%.80s\" must be a whole number",
                           what, text);
        }
        enum lb_status status =
            lb_vocab_put(vocab, text, strlen(text), json_integer_value(id), LB_ENTRY_MODEL, what, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    return LB_OK;
}

enum lb_status lb_vocab_stands_for(struct lb_vocab *vocab, int32_t id, const char *bytes, size_t n) {
    size_t offset;
    enum lb_status status = n < UINT32_MAX ? reserve(vocab, n, &offset) : LB_E_LIMIT;
    if (status == LB_OK) {
        memcpy(vocab->pool + offset, bytes, n);
        vocab->entry[id].bytes = offset;
        vocab->entry[id].n_bytes = (uint32_t)n;
    }
    return status;
}

int32_t lb_vocab_find(const struct lb_vocab *vocab, const char *text, size_t len, uint32_t flags) {
    int32_t id = vocab->slots ? vocab->slot[find_slot(vocab, text, len)] : -1;
    return id >= 0 && (vocab->entry[id].flags & flags) ? id : -1;
}

const char *lb_vocab_text(const struct lb_vocab *vocab, int32_t id) {
    return id >= 0 && id < vocab->size && vocab->entry[id].flags ? vocab->pool + vocab->entry[id].text : NULL;
}
