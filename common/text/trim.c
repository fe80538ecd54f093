/* Which tokens a trimmed vocabulary keeps. What becomes of the file is trim_json.c's.
 *
 * Why what is kept can still be made: a token's text, read by byte-pair encoding, becomes that token by a run
 * of merges, each the best of those that are possible then. All tokens that the run goes through are kept
 * with it, and all merges whose parts and result are kept stay in their order. So at each place of the run
 * the same merge is there, and no other that was not there before: the run is the same.
 */
#include "common/text/trim.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/byte_level.h"
#include "common/text/trim_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PARTS 1024 /* characters of a token */

/* ---- the post-processor ---- */

void lb_trim_each_id(json_t *processor, void (*visit)(void *context, json_t *id), void *context) {
    json_t *list = json_object_get(processor, "processors"), *special;
    const char *name;
    for (size_t i = 0; i < json_array_size(list); i++) { /* a Sequence has no Sequence in it */
        json_t *one = json_array_get(list, i);
        if (!json_object_get(one, "processors")) {
            lb_trim_each_id(one, visit, context);
        }
    }
    json_object_foreach(json_object_get(processor, "special_tokens"), name, special) {
        json_t *ids = json_object_get(special, "ids");
        for (size_t i = 0; i < json_array_size(ids); i++) {
            visit(context, json_array_get(ids, i));
        }
    }
    visit(context, json_array_get(json_object_get(processor, "cls"), 1));
    visit(context, json_array_get(json_object_get(processor, "sep"), 1));
}

/* ---- merges ---- */

static int by_pair(const void *a, const void *b) {
    const struct lb_trim_merge *x = a, *y = b;
    if (x->left != y->left) {
        return x->left < y->left ? -1 : 1;
    }
    if (x->right != y->right) {
        return x->right < y->right ? -1 : 1;
    }
    return x->rank > y->rank ? -1 : 1; /* a repeated pair counts where it stands last */
}

/* What becomes of two neighbours; NULL: nothing. */
static const struct lb_trim_merge *find_merge(const struct lb_trim *t, int32_t left, int32_t right) {
    size_t low = 0, high = t->n_merges;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct lb_trim_merge *m = &t->merges[middle];
        if (m->left < left || (m->left == left && m->right < right)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const struct lb_trim_merge *m = &t->merges[low];
    return low < t->n_merges && m->left == left && m->right == right ? m : NULL;
}

static int32_t find(const struct lb_trim *t, const char *text, size_t len) {
    return lb_vocab_find(&t->full->vocab, text, len, LB_ENTRY_MODEL);
}

enum lb_status lb_trim_read_merges(struct lb_trim *t) {
    const json_t *list = json_object_get(t->model, "merges");
    size_t n = json_array_size(list);
    char *joined = lb_malloc_array(2 * (size_t)t->full->vocab.longest + 1, 1);
    t->merges = lb_malloc_array(n + 1, sizeof *t->merges);
    if (!joined || !t->merges) {
        lb_free(joined);
        return lb_fail(t->detail, LB_E_NOMEM, "out of memory for %zu merges", n);
    }
    for (size_t i = 0; i < n; i++) {
        const char *a, *b;
        size_t a_len, b_len;
        if (!lb_bpe_merge_sides(json_array_get(list, i), &a, &a_len, &b, &b_len)) {
            continue; /* the first line of a merges.txt */
        }
        struct lb_trim_merge m = {.left = find(t, a, a_len), .right = find(t, b, b_len), .rank = (uint32_t)i};
        if (m.left < 0 || m.right < 0) {
            continue; /* the same line: the tokenizer was opened, so all others are known */
        }
        memcpy(joined, a, a_len);
        memcpy(joined + a_len, b, b_len);
        m.id = find(t, joined, a_len + b_len);
        t->merges[t->n_merges++] = m;
    }
    qsort(t->merges, t->n_merges, sizeof *t->merges, by_pair);
    lb_free(joined);
    return LB_OK;
}

/* ---- what a token is made of ---- */

/* Its characters as tokens; 0: one of them is none, or there are too many. */
static size_t characters(const struct lb_trim *t, int32_t id, int32_t *part) {
    const char *text = lb_vocab_text(&t->full->vocab, id);
    size_t len = t->full->vocab.entry[id].len, n = 0;
    for (size_t at = 0; at < len && n < MAX_PARTS;) {
        size_t start = at;
        lb_utf8_next(text, &at);
        part[n] = find(t, text + start, at - start);
        if (part[n++] < 0) {
            return 0;
        }
    }
    return n < MAX_PARTS ? n : 0;
}

/* All that the run of merges over the token's text goes through, in part; 0: it does not end in the token, so
 * nothing merges to it. */
static size_t ancestors(const struct lb_trim *t, int32_t id, int32_t *part) {
    int32_t row[MAX_PARTS];
    size_t n = characters(t, id, row), all = n;
    memcpy(part, row, n * sizeof *row);
    while (n > 1) {
        const struct lb_trim_merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const struct lb_trim_merge *m = find_merge(t, row[i], row[i + 1]);
            if (m && (!best || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (!best) {
            return 0;
        }
        row[at] = best->id;
        memmove(row + at + 1, row + at + 2, (n - at - 2) * sizeof *row);
        n--;
        part[all++] = best->id;
    }
    return n == 1 && row[0] == id ? all : 0;
}

/* ---- choosing ---- */

static void keep(struct lb_trim *t, int32_t id) {
    if (id >= 0 && !t->kept[id]) {
        t->kept[id] = true;
        t->n++;
    }
}

/* A token with all that it is made of, if there is room for it. */
static void keep_whole(struct lb_trim *t, int32_t id) {
    int32_t part[2 * MAX_PARTS];
    bool model = t->full->vocab.entry[id].flags & LB_ENTRY_MODEL;
    size_t n = !model ? 0 : t->merges ? ancestors(t, id, part) : characters(t, id, part);
    part[n++] = id;
    int32_t before = t->n;
    for (size_t i = 0; i < n; i++) {
        if (!t->kept[part[i]]) {
            keep(t, part[i]);
        } else {
            part[i] = -1; /* was there: stays if the rest must go */
        }
    }
    for (size_t i = 0; t->n > t->most && i < n; i++) {
        if (part[i] >= 0) {
            t->kept[part[i]] = false;
        }
    }
    t->n = t->n > t->most ? before : t->n;
}

static void keep_bytes(struct lb_trim *t) {
    for (int byte = 0; byte < 256; byte++) {
        char raw = (char)byte, name[8];
        size_t len = (size_t)snprintf(name, sizeof name, "<0x%02X>", byte);
        if (lb_pretokenizer_bytes(t->full->pretokenizer)) {
            len = lb_bytes_to_letters(&raw, 1, name);
        }
        keep(t, find(t, name, len));
    }
}

/* What must be there whatever the corpus says. */
static void keep_given(struct lb_trim *t, const uint64_t *counts) {
    const struct lb_tokenizer *full = t->full;
    const int32_t named[] = {full->bos, full->eos, full->unk, full->sep, full->cls, full->pad, full->mask};
    const char *unknown = json_string_value(json_object_get(t->model, "unk_token"));
    const json_t *unknown_id = json_object_get(t->model, "unk_id");
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        keep(t, named[i]);
    }
    keep(t, unknown ? find(t, unknown, strlen(unknown)) : -1);
    keep(t, json_is_integer(unknown_id) ? (int32_t)json_integer_value(unknown_id) : -1);
    for (int32_t id = 0; id < full->vocab.size; id++) {
        const char *text = lb_vocab_text(&full->vocab, id);
        uint32_t flags = text ? full->vocab.entry[id].flags : 0;
        bool spoken = (flags & LB_ENTRY_ADDED) && full->chat_template && strstr(full->chat_template, text);
        if (spoken || ((flags & LB_ENTRY_SPECIAL) && counts[id] > 0)) {
            keep(t, id);
        }
    }
    keep_bytes(t);
}

/* An id of the post-processor. */
static void keep_id(void *context, json_t *id) {
    struct lb_trim *t = context;
    if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < t->full->vocab.size) {
        keep(t, (int32_t)json_integer_value(id));
    }
}

struct candidate {
    uint64_t count;
    int32_t id;
};

static int by_count(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}

enum lb_status lb_trim_choose(struct lb_trim *t, const uint64_t *counts) {
    int32_t size = t->full->vocab.size;
    lb_trim_each_id(json_object_get(t->root, "post_processor"), keep_id, t);
    keep_given(t, counts);
    if (t->n > t->most) {
        return lb_fail(t->detail, LB_E_LIMIT,
                       "%d tokens are too few: special tokens and bytes alone are %d, which all must stay",
                       t->most, t->n);
    }
    struct candidate *list = lb_malloc_array((size_t)size, sizeof *list);
    size_t n = 0;
    if (!list) {
        return lb_fail(t->detail, LB_E_NOMEM, "out of memory for a vocabulary of %d", size);
    }
    for (int32_t id = 0; id < size; id++) {
        if (counts[id] > 0 && lb_vocab_text(&t->full->vocab, id)) {
            list[n++] = (struct candidate){counts[id], id};
        }
    }
    qsort(list, n, sizeof *list, by_count);
    for (size_t i = 0; i < n && t->n < t->most; i++) {
        if (!t->kept[list[i].id]) {
            keep_whole(t, list[i].id);
        }
    }
    lb_free(list);
    return LB_OK;
}
