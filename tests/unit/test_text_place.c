/* Where tokens stand in their text and where two tokenizations meet: byte-level BPE, SentencePiece's BPE,
 * Unigram and WordPiece against each other on hard texts, held against a search through all pairs of ends. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/text/place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FIXTURE ((size_t)8 << 20)
#define MOST 4096 /* tokens, and bytes, of one text */

/* exact: what its tokens write is the text, but for spaces. */
static const struct kind {
    const char *name;
    bool exact;
} kinds[] = {{"gpt2", true},  {"qwen", false},   {"llama3", true},     {"llama2", true},
             {"gemma", true}, {"mistral", true}, {"t5", false},        {"albert", false},
             {"xlmr", false}, {"bert", false},   {"bert_cased", false}};
#define KINDS (sizeof kinds / sizeof kinds[0])

static struct lb_tokenizer *tokenizers[KINDS];
static json_t *texts;

struct side {
    const struct lb_tokenizer *tokenizer;
    bool exact;
    struct lb_ids ids;
    struct lb_placed placed[MOST];
};

static void read_text(struct side *side, size_t kind, const char *text, size_t len) {
    side->tokenizer = tokenizers[kind];
    side->exact = kinds[kind].exact;
    side->ids.len = 0;
    assert_int_equal(lb_tokenizer_encode(side->tokenizer, text, len, false, &side->ids, NULL), LB_OK);
    assert_true(side->ids.len <= MOST);
    lb_tokens_place(side->tokenizer, side->ids.data, side->ids.len, text, len, side->placed);
}

/* Ends rise; tokens that write the text stand in it where they say, but for white space before them. */
static void check_places(const struct side *side, const char *text, size_t len) {
    size_t at = 0;
    bool told = true;
    for (size_t i = 0; i < side->ids.len; i++) {
        const struct lb_placed *p = &side->placed[i];
        size_t n = 0;
        const char *bytes = lb_tokenizer_bytes(side->tokenizer, side->ids.data[i], &n);
        assert_true(!side->exact || p->same);
        assert_true(!p->same || p->end != LB_NO_PLACE);
        if (p->same && told) {
            bool space =
                n > 0 && bytes[0] == ' ' && (p->end - at < n || memcmp(text + p->end - n, bytes, n) != 0);
            size_t from = p->end - (n - space);
            assert_true(p->end - at >= n - space);
            assert_memory_equal(text + from, bytes + space, n - space);
            for (size_t k = at; k < from; k++) {
                assert_true(strchr(" \t\r\n", text[k]) != NULL);
            }
        }
        told = p->end != LB_NO_PLACE;
        if (told) {
            assert_true(p->end >= at && p->end <= len);
            at = p->end;
        }
    }
}

/* Appends what tokens write, white space left out. */
static size_t letters(const struct side *side, size_t from, size_t n, char *out) {
    size_t len = 0;
    for (size_t i = from; i < from + n; i++) {
        size_t n_bytes = 0;
        const char *bytes = lb_tokenizer_bytes(side->tokenizer, side->ids.data[i], &n_bytes);
        for (size_t k = 0; k < n_bytes; k++) {
            if (strchr(" \t\r\n", bytes[k]) == NULL) {
                out[len++] = bytes[k];
            }
        }
    }
    return len;
}

static bool ends_at(const struct side *side, size_t end) {
    for (size_t i = 0; i < side->ids.len; i++) {
        if (side->placed[i].end == end) {
            return true;
        }
    }
    return false;
}

/* Whether all tokens that stand for the bytes between two ends write the text. */
static bool all_same(const struct side *side, size_t from, size_t to) {
    bool same = true;
    size_t first = 0;
    while (first < side->ids.len && from > 0 && side->placed[first].end != from) {
        first++;
    }
    for (size_t i = from > 0 ? first + 1 : 0; i < side->ids.len; i++) {
        same = same && side->placed[i].same;
        if (side->placed[i].end == to) {
            return same;
        }
    }
    return false;
}

static size_t check_pair(const struct side *a, const struct side *b, size_t len) {
    static struct lb_meeting met[MOST];
    static char written[2][MOST * 4];
    size_t n = lb_tokens_meet(a->placed, a->ids.len, b->placed, b->ids.len, met), i = 0, begin = 0;
    /* Every place at which both end is the end of a chunk, unless either writes what is before it otherwise.
     */
    for (size_t end = 1; end <= len; end++) {
        if (!ends_at(a, end) || !ends_at(b, end)) {
            continue;
        }
        if (all_same(a, begin, end) && all_same(b, begin, end)) {
            assert_true(i < n);
            assert_int_equal(met[i].end, end);
            size_t n_a = letters(a, met[i].a, met[i].n_a, written[0]),
                   n_b = letters(b, met[i].b, met[i].n_b, written[1]);
            assert_int_equal(n_a, n_b);
            assert_memory_equal(written[0], written[1], n_a);
            assert_true(met[i].n_a > 0 && met[i].n_b > 0);
            assert_true(i == 0 || (met[i].a >= met[i - 1].a + met[i - 1].n_a &&
                                   met[i].b >= met[i - 1].b + met[i - 1].n_b));
            i++;
        }
        begin = end;
    }
    assert_int_equal(i, n);
    return n;
}

static void pairs(void **state) {
    (void)state;
    static struct side a, b;
    size_t index, chunks[KINDS][KINDS] = {{0}}, read[KINDS] = {0};
    const json_t *item;
    json_array_foreach(texts, index, item) {
        const char *text = json_string_value(json_object_get(item, "text"));
        size_t len = json_string_length(json_object_get(item, "text"));
        for (size_t k = 0; k < KINDS; k++) {
            read_text(&a, k, text, len);
            check_places(&a, text, len);
            read[k] += a.ids.len;
            for (size_t m = 0; m < KINDS; m++) {
                read_text(&b, m, text, len);
                chunks[k][m] += check_pair(&a, &b, len);
            }
        }
    }
    for (size_t k = 0; k < KINDS; k++) {
        printf("%-11s %zu tokens; chunks with", kinds[k].name, read[k]);
        for (size_t m = 0; m < KINDS; m++) {
            printf(" %s %zu", kinds[m].name, chunks[k][m]);
            assert_int_equal(chunks[k][m], chunks[m][k]);
            assert_true(chunks[k][m] > 0);
        }
        printf("\n");
        assert_true(!kinds[k].exact ||
                    chunks[k][k] + 64 >= read[k]); /* alone with itself: every token is one */
    }
    lb_free(a.ids.data);
    lb_free(b.ids.data);
}

/* By hand: what stands where. */
static void by_hand(void **state) {
    (void)state;
    static const struct lb_placed a[] = {{2, true},   {5, true},  {5, true}, {9, true}, {LB_NO_PLACE, false},
                                         {12, false}, {15, true}, {17, true}},
                                  b[] = {{0, true},  {5, true},  {7, true}, {9, true},
                                         {12, true}, {13, true}, {15, true}};
    struct lb_meeting met[8];
    assert_int_equal(lb_tokens_meet(a, 8, b, 7, met), 3);
    /* a's third token has no bytes, so it goes with the fourth; so does b's first with its second. */
    const struct lb_meeting want[] = {{0, 2, 0, 2, 5}, {2, 2, 2, 2, 9}, {6, 1, 5, 2, 15}};
    assert_memory_equal(met, want, sizeof want);
    static const struct lb_placed spaces[] = {{0, true}, {5, true}};
    assert_int_equal(lb_tokens_meet(spaces, 2, spaces, 2, met), 1);
    assert_int_equal(met[0].n_a, 2);
    assert_int_equal(lb_tokens_meet(a, 0, b, 7, met), 0);
    assert_int_equal(lb_tokens_meet(a, 1, b, 7, met), 0); /* 2 is no end of b's */
}

/* What a normalizer changed is passed over, and what follows has its place again. */
static void changed(void **state) {
    (void)state;
    static const char text[] = "plain words, then \xe2\x91\xa0 and \xef\xac\x81ne, then plain words again";
    static struct side t5, bytes;
    struct lb_meeting met[MOST];
    size_t kind_t5 = 6, kind_bytes = 0, other = 0;
    assert_string_equal(kinds[kind_t5].name, "t5");
    read_text(&t5, kind_t5, text, sizeof text - 1);
    read_text(&bytes, kind_bytes, text, sizeof text - 1);
    for (size_t i = 0; i < t5.ids.len; i++) {
        other += !t5.placed[i].same;
    }
    assert_true(other > 0 && other < t5.ids.len / 2);
    size_t n = lb_tokens_meet(t5.placed, t5.ids.len, bytes.placed, bytes.ids.len, met);
    assert_true(n > 4);
    assert_int_equal(met[n - 1].end, sizeof text - 1);
    lb_free(t5.ids.data);
    lb_free(bytes.ids.data);
}

/* Where a piece that was changed ends, and that all behind it has its place again. */
static void found_again(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t end;
    } cases[] = {{"plain \xe2\x91\xa0 ab", 9},                      /* by all that is left, if it is little */
                 {"plain \xe2\x91\xa0\xe3\x80\x80words again", 12}, /* by a word without the space it gets */
                 {"a plain e\xcc\x81"
                  "e word and more of them",
                  11}}; /* not by one letter */
    static struct side t5;
    assert_string_equal(kinds[6].name, "t5");
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t other = 0, len = strlen(cases[c].text), end = 0;
        read_text(&t5, 6, cases[c].text, len);
        for (size_t i = 0; i < t5.ids.len; i++) {
            other += !t5.placed[i].same;
            end = t5.placed[i].same ? end : t5.placed[i].end;
        }
        assert_int_equal(other, 1);
        assert_int_equal(end, cases[c].end);
        assert_true(t5.placed[t5.ids.len - 1].same);
        assert_int_equal(t5.placed[t5.ids.len - 1].end, len);
    }
    lb_free(t5.ids.data);
}

static int open_all(void **state) {
    const char *root = getenv("LB_SOURCE_ROOT");
    char path[1024];
    (void)state;
    assert_non_null(root);
    for (size_t k = 0; k < KINDS; k++) {
        struct lb_detail detail = {0};
        snprintf(path, sizeof path, "%s/tests/golden/text/%s.json", root, kinds[k].name);
        if (lb_tokenizer_open(path, &tokenizers[k], &detail)) {
            fail_msg("%s", detail.text);
        }
    }
    snprintf(path, sizeof path, "%s/tests/golden/text/gpt2.cases.json", root);
    assert_int_equal(lb_json_file(path, MAX_FIXTURE, &texts, NULL), LB_OK);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        lb_tokenizer_destroy(tokenizers[k]);
    }
    json_decref(texts);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand), cmocka_unit_test(pairs),
                                       cmocka_unit_test(changed), cmocka_unit_test(found_again)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
