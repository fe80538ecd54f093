/* Rows as teachers of other tokenizers read them: what they are sent, and which tokens of both are compared,
 * held against a search through all pairs of ends; what does not count. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "trainer/data/dataset.h"
#include "trainer/data/reading.h"
#include "trainer/learn/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FIXTURE ((size_t)8 << 20)
#define MEMORY ((size_t)64 << 20)

static char folder[] = "/tmp/lb-reading-XXXXXX";
static const char *const names[] = {"gpt2", "llama2", "gemma", "llama3", "mistral", "t5"};
#define KINDS (sizeof names / sizeof names[0])
static struct lb_tokenizer *tokenizers[KINDS];

static const struct lb_tokenizer *named(const char *name) {
    for (size_t k = 0; k < KINDS; k++) {
        if (strcmp(names[k], name) == 0) {
            return tokenizers[k];
        }
    }
    fail_msg("%s", name);
    return NULL;
}

static void put(const char *name, const char *text, size_t len) {
    char *path = lb_path_join(folder, name);
    assert_int_equal(lb_file_replace(path, text, len, NULL), LB_OK);
    lb_free(path);
}

static struct lb_dataset *open_data(const char *file, const struct lb_tokenizer *own, int64_t max_length,
                                    bool keep_short) {
    struct lb_recipe_dataset entry = {.path = file, .type = LB_DATA_TEXT};
    struct lb_recipe recipe = {.directory = folder, .max_length = max_length};
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    if (strstr(file, ".jsonl") != NULL) {
        entry.type = LB_DATA_JSONL;
        entry.field = "text";
    }
    if (lb_dataset_open(&recipe, &entry, 1, keep_short, own, 0, NULL, &data, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return data;
}

/* ---- one side's tokens as bytes: texts told apart, spaces that stand before them left out ---- */

#define MOST 2048

struct written {
    int64_t n;
    int32_t text[MOST]; /* the number of the text that a token is of; its end: that of the text it ends */
    size_t end[MOST];   /* bytes of that text up to the token's end */
    bool ends[MOST];    /* it ends a text */
    char bytes[MOST * 8];
    size_t from[MOST]; /* where its bytes stand in bytes */
    size_t len[MOST];
};

/* Whether it puts a space before a text that has none. */
static bool puts_space(const struct lb_tokenizer *tokenizer) {
    struct lb_ids ids = {0};
    size_t n = 0;
    assert_int_equal(lb_tokenizer_encode(tokenizer, "a", 1, false, &ids, NULL), LB_OK);
    const char *bytes = lb_tokenizer_bytes(tokenizer, ids.data[0], &n);
    bool space = n > 0 && bytes[0] == ' ';
    lb_free(ids.data);
    return space;
}

/* first: the first text has such a space. */
static void write_side(const struct lb_tokenizer *tokenizer, const int32_t *ids, int64_t n, bool first,
                       struct written *w) {
    bool strip = puts_space(tokenizer) && first;
    int32_t text = 0, eos = lb_tokenizer_eos(tokenizer), bos = lb_tokenizer_bos(tokenizer);
    size_t in_text = 0, at = 0;
    assert_true(n <= MOST);
    w->n = n;
    for (int64_t i = 0; i < n; i++) {
        size_t len = 0;
        const char *bytes = lb_tokenizer_bytes(tokenizer, ids[i], &len);
        bool around = ids[i] == eos || ids[i] == bos;
        bool drop = !around && strip && in_text == 0 && len > 0 && bytes[0] == ' ';
        len = around ? 0 : len - drop;
        strip = ids[i] == eos ? puts_space(tokenizer) : strip;
        w->text[i] = text;
        w->ends[i] = ids[i] == eos;
        in_text += len;
        w->end[i] = in_text;
        w->from[i] = at;
        w->len[i] = len;
        memcpy(w->bytes + at, bytes + drop, len);
        at += len;
        if (ids[i] == eos) {
            text++;
            in_text = 0;
        }
    }
}

/* The next token from i on that ends at that place of that text and has bytes, or ends the text; -1: none. */
static int64_t find_end(const struct written *w, int32_t text, size_t end, bool ends) {
    for (int64_t i = 0; i < w->n; i++) {
        if (w->text[i] == text && w->ends[i] == ends && w->end[i] == end && (ends || w->len[i] > 0)) {
            return i;
        }
    }
    return -1;
}

static struct written own_side, its_side;

/* What the reader made of a row is what a search finds: every place where both end, and nothing else. */
static int64_t check_row(const struct lb_sample *s, const struct lb_reading *r,
                         const struct lb_tokenizer *own, const struct lb_tokenizer *its) {
    int64_t found = 0, own_from = 0, its_from = 0;
    write_side(own, s->ids, s->n + 1, !s->within, &own_side);
    write_side(its, r->ids, r->n, !s->within || own_side.bytes[0] != ' ', &its_side);
    int32_t last_text = own_side.text[s->n];
    for (int64_t i = 0; i <= s->n; i++) {
        if (own_side.len[i] == 0 && !own_side.ends[i]) {
            continue;
        }
        int64_t j = find_end(&its_side, own_side.text[i], own_side.end[i], own_side.ends[i]);
        if (j < 0) {
            continue;
        }
        bool cut = !own_side.ends[s->n] && own_side.text[i] == last_text && i == s->n;
        bool counts = own_from > 0 && its_from > 0 && !cut;
        /* What texts begin with is nobody's. */
        while (s->ids[own_from] == lb_tokenizer_bos(own) && own_from < i) {
            own_from++;
        }
        while (r->ids[its_from] == lb_tokenizer_bos(its) && its_from < j) {
            its_from++;
        }
        counts = counts || (own_from > 0 && its_from > 0 && !cut);
        for (int64_t k = own_from; k <= i; k++) {
            counts = counts && (s->counts == NULL || s->counts[k] != 0);
        }
        if (counts) {
            assert_true(found < r->n_chunks);
            const struct lb_chunk *c = &r->chunks[found++];
            assert_int_equal(c->at, own_from - 1);
            assert_int_equal(c->n, i + 1 - own_from);
            assert_int_equal(c->its_at, its_from - 1);
            assert_int_equal(c->its_n, j + 1 - its_from);
            size_t bytes = own_side.from[i] + own_side.len[i] - own_side.from[own_from];
            assert_int_equal(bytes, its_side.from[j] + its_side.len[j] - its_side.from[its_from]);
            assert_memory_equal(own_side.bytes + own_side.from[own_from],
                                its_side.bytes + its_side.from[its_from], bytes);
        }
        own_from = i + 1;
        its_from = j + 1;
    }
    assert_int_equal(found, r->n_chunks);
    return found;
}

/* Whether neither end of the row cuts a character. */
static bool whole_characters(const struct lb_sample *s, const struct lb_tokenizer *own) {
    static char text[MOST * 8];
    size_t at = 0;
    for (int64_t t = 0; t <= s->n; t++) {
        size_t len = 0;
        const char *bytes = lb_tokenizer_bytes(own, s->ids[t], &len);
        memcpy(text + at, bytes, len);
        at += len;
    }
    return lb_utf8_check(text, at) == at;
}

/* Texts of many scripts, strung together and cut at 48 tokens, by each tokenizer; read by each. */
static void packed(void **state) {
    (void)state;
    for (size_t k = 0; k < 5; k++) {
        struct lb_dataset *data = open_data("texts.txt", tokenizers[k], 48, true);
        for (size_t m = 0; m < 5; m++) {
            struct lb_reader *reader = NULL;
            struct lb_arena arena;
            int64_t chunks = 0, compared = 0, counted = 0;
            lb_arena_init(&arena, MEMORY);
            assert_int_equal(lb_reader_create(tokenizers[k], tokenizers[m], 0, &reader, NULL), LB_OK);
            for (int64_t i = 0; i < lb_dataset_count(data); i++) {
                struct lb_sample s;
                struct lb_reading r, again;
                assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
                assert_false(s.within && i == 0);
                assert_int_equal(lb_reader_read(reader, &s, &arena, &r, NULL), LB_OK);
                assert_int_equal(lb_reader_read(reader, &s, &arena, &again, NULL), LB_OK);
                assert_int_equal(r.n, again.n);
                assert_memory_equal(r.ids, again.ids, (size_t)r.n * sizeof *r.ids);
                if (whole_characters(&s, tokenizers[k])) { /* else the search would have to know of them */
                    chunks += check_row(&s, &r, tokenizers[k], tokenizers[m]);
                }
                counted += lb_sample_counted(&s);
                for (int64_t c = 0; c < r.n_chunks; c++) {
                    compared += r.chunks[c].n;
                    assert_true(c == 0 || r.chunks[c].at >= r.chunks[c - 1].at + r.chunks[c - 1].n);
                }
            }
            printf("%-8s read by %-8s %lld chunks, %.1f %% of the positions\n", names[k], names[m],
                   (long long)chunks, 100 * (double)compared / (double)counted);
            assert_true(chunks > 100 && (double)compared > 0.7 * (double)counted);
            lb_reader_destroy(reader);
            lb_arena_finish(&arena);
        }
        lb_dataset_destroy(data);
    }
}

/* ---- one row by hand ---- */

struct scene {
    struct lb_reader *reader;
    struct lb_arena arena;
    struct lb_dataset *data;
    struct lb_sample sample;
    struct lb_reading reading;
};

static void read_first(struct scene *s, const char *file, const char *text, const char *own, const char *its,
                       int64_t row_length, int64_t its_length) {
    put(file, text, strlen(text));
    lb_arena_init(&s->arena, MEMORY);
    assert_int_equal(lb_reader_create(named(own), named(its), its_length, &s->reader, NULL), LB_OK);
    s->data = open_data(file, named(own), row_length, true);
    assert_int_equal(lb_dataset_get(s->data, 0, &s->sample, NULL), LB_OK);
    assert_int_equal(lb_reader_read(s->reader, &s->sample, &s->arena, &s->reading, NULL), LB_OK);
}

static void leave(struct scene *s) {
    lb_reader_destroy(s->reader);
    lb_arena_finish(&s->arena);
    lb_dataset_destroy(s->data);
}

/* Appends the ids of a text by itself. */
static void append(struct lb_ids *ids, const struct lb_tokenizer *tokenizer, const char *text) {
    assert_int_equal(lb_tokenizer_encode(tokenizer, text, strlen(text), false, ids, NULL), LB_OK);
}

/* Each text as the teacher would write it alone, between what it begins and ends them with. */
static void as_it_would(void **state) {
    (void)state;
    struct scene s;
    struct lb_ids want = {0};
    const struct lb_tokenizer *its = named("llama2");
    read_first(&s, "two.txt", "the old still\nand the new one\n", "gpt2", "llama2", 256, 0);
    assert_int_equal(lb_ids_push(&want, lb_tokenizer_bos(its)), LB_OK);
    append(&want, its, "the old still");
    assert_int_equal(lb_ids_push(&want, lb_tokenizer_eos(its)), LB_OK);
    assert_int_equal(lb_ids_push(&want, lb_tokenizer_bos(its)), LB_OK);
    append(&want, its, "and the new one");
    assert_int_equal(lb_ids_push(&want, lb_tokenizer_eos(its)), LB_OK);
    assert_int_equal(s.reading.n, want.len);
    assert_memory_equal(s.reading.ids, want.data, want.len * sizeof *want.data);
    /* The last chunk is the end of the last text. */
    const struct lb_chunk *last = &s.reading.chunks[s.reading.n_chunks - 1];
    assert_int_equal(last->n, 1);
    assert_int_equal(last->at, s.sample.n - 1);
    assert_int_equal(last->its_at, (int32_t)want.len - 2);
    lb_free(want.data);
    leave(&s);
    /* A teacher without a beginning of texts cannot say how likely the first token is; what is beyond its
     * length is not compared, and not sent. */
    read_first(&s, "two.txt", "the old still\nand the new one\n", "llama2", "gpt2", 256, 0);
    int64_t all = s.reading.n_chunks;
    assert_true(s.reading.chunks[0].at > 0 || s.reading.chunks[0].its_at > 0);
    leave(&s);
    read_first(&s, "two.txt", "the old still\nand the new one\n", "llama2", "gpt2", 256, 9);
    assert_int_equal(s.reading.n, 9);
    last = &s.reading.chunks[s.reading.n_chunks - 1];
    assert_true(s.reading.n_chunks > 0 && s.reading.n_chunks < all && last->its_at + last->its_n <= 8);
    leave(&s);
    for (int64_t length = 2; length < 20; length++) {
        read_first(&s, "two.txt", "the old still\nand the new one\n", "llama2", "gpt2", 256, length);
        for (int64_t c = 0; c < s.reading.n_chunks; c++) {
            assert_true(s.reading.chunks[c].its_at + s.reading.chunks[c].its_n < length);
        }
        leave(&s);
    }
    read_first(&s, "two.txt", "the old still\nand the new one\n", "llama2", "gpt2", 256, 1);
    assert_int_equal(s.reading.n_chunks, 0);
    leave(&s);
}

/* Prompts don't count, and no chunk reaches over where they end. */
static void completions(void **state) {
    (void)state;
    static const char line[] = "{\"prompt\": \"I say tha\", \"completion\": \"t it was one.\"}\n";
    static const char *const pairs[][2] = {{"gpt2", "llama2"}, {"llama2", "gpt2"}, {"llama3", "gemma"}};
    for (int p = 0; p < 3; p++) {
        struct scene s;
        char text[256] = "";
        size_t len = 0;
        read_first(&s, "pairs.jsonl", line, pairs[p][0], pairs[p][1], 256, 0);
        assert_true(s.reading.n_chunks > 3 && s.sample.counts != NULL);
        for (int64_t c = 0; c < s.reading.n_chunks; c++) {
            for (int64_t t = s.reading.chunks[c].at; t < s.reading.chunks[c].at + s.reading.chunks[c].n;
                 t++) {
                size_t n = 0;
                int32_t id = s.sample.ids[t + 1];
                const char *bytes = lb_tokenizer_bytes(named(pairs[p][0]), id, &n);
                assert_true(lb_sample_counts(&s.sample, t));
                if (!lb_tokenizer_is_special(named(pairs[p][0]), id)) {
                    memcpy(text + len, bytes, n);
                    len += n;
                }
            }
        }
        const char *from = text[0] == ' ' ? text + 1 : text;
        assert_string_equal(from, "t it was one.");
        leave(&s);
    }
}

/* What is unknown to either side does not count; what stands around it does. */
static void unknown(void **state) {
    (void)state;
    struct scene s;
    read_first(&s, "odd.txt", "plain words \xe2\x9a\x97 and other plain words\n", "gpt2", "t5", 256, 0);
    int64_t compared = 0;
    for (int64_t c = 0; c < s.reading.n_chunks; c++) {
        compared += s.reading.chunks[c].n;
        for (int64_t t = s.reading.chunks[c].its_at;
             t < s.reading.chunks[c].its_at + s.reading.chunks[c].its_n; t++) {
            assert_int_not_equal(s.reading.ids[t + 1], lb_tokenizer_id(named("t5"), "<unk>"));
        }
    }
    assert_true(compared > s.sample.n / 2 && compared < s.sample.n);
    leave(&s);
    read_first(&s, "odd.txt", "plain words \xe2\x9a\x97 and other plain words\n", "t5", "gpt2", 256, 0);
    for (int64_t c = 0; c < s.reading.n_chunks; c++) {
        for (int64_t t = s.reading.chunks[c].at; t < s.reading.chunks[c].at + s.reading.chunks[c].n; t++) {
            assert_int_not_equal(s.sample.ids[t + 1], lb_tokenizer_id(named("t5"), "<unk>"));
        }
    }
    assert_true(s.reading.n_chunks > 5);
    leave(&s);
}

/* Rows that begin and end within characters: what is whole of them is compared. */
static void characters(void **state) {
    (void)state;
    static const char line[] = "\xe6\xb0\x97\xe5\x9b\xa0\xe9\x9b\xa8\xe5\xb1\xb1\xe5\xb7\x9d\xe8\x8d\x89"
                               "\xe6\x9c\xa8\xe9\xb3\xa5\xe9\xad\x9a\xe8\x99\xab\xe7\x9f\xb3\xe7\x81\xab\n";
    struct scene s;
    int64_t within = 0;
    read_first(&s, "cut.txt", line, "gpt2", "llama2", 8, 0);
    for (int64_t i = 0; i < lb_dataset_count(s.data); i++) {
        assert_int_equal(lb_dataset_get(s.data, i, &s.sample, NULL), LB_OK);
        assert_int_equal(lb_reader_read(s.reader, &s.sample, &s.arena, &s.reading, NULL), LB_OK);
        size_t n = 0;
        const char *bytes = lb_tokenizer_bytes(named("gpt2"), s.sample.ids[0], &n);
        within += s.sample.n == 8 && n == 1 && ((unsigned char)bytes[0] & 0xc0) == 0x80;
        assert_true(s.sample.n < 8 || s.reading.n_chunks > 0);
    }
    assert_true(within > 0);
    leave(&s);
}

/* Whatever allocation fails, it is told, and the same reader reads the row when there is memory again. */
static void memory_runs_out(void **state) {
    (void)state;
    struct scene s;
    read_first(&s, "two.txt", "the old still\nand the new one\n", "gpt2", "llama2", 256, 0);
    enum lb_status status = LB_E_NOMEM;
    for (long n = 1; n < 1000 && status != LB_OK; n++) {
        struct lb_reader *reader = NULL;
        struct lb_reading again;
        struct lb_arena arena;
        lb_arena_init(&arena, MEMORY);
        lb_mem_fail_only(n);
        status = lb_reader_create(named("gpt2"), named("llama2"), 0, &reader, NULL);
        enum lb_status read =
            reader != NULL ? lb_reader_read(reader, &s.sample, &arena, &again, NULL) : status;
        lb_mem_fail_from(0);
        assert_true(read == LB_OK || read == LB_E_NOMEM);
        if (reader != NULL) {
            status = read;
            assert_int_equal(lb_reader_read(reader, &s.sample, &arena, &again, NULL), LB_OK);
            assert_int_equal(again.n, s.reading.n);
            assert_int_equal(again.n_chunks, s.reading.n_chunks);
        }
        lb_reader_destroy(reader);
        lb_arena_finish(&arena);
    }
    assert_int_equal(status, LB_OK);
    leave(&s);
}

static bool same_text(const struct lb_tokenizer *own, int32_t a, const struct lb_tokenizer *its, int32_t b) {
    size_t n = 0, m = 0;
    const char *x = lb_tokenizer_bytes(own, a, &n), *y = lb_tokenizer_bytes(its, b, &m);
    return x != NULL && y != NULL && n > 0 && n == m && memcmp(x, y, n) == 0 &&
           !lb_tokenizer_is_special(own, a) && !lb_tokenizer_is_special(its, b);
}

static int32_t first_of(const struct lb_tokenizer *tokenizer, int32_t id) {
    int32_t first = 0;
    while (!same_text(tokenizer, first, tokenizer, id)) {
        first++;
    }
    return first;
}

/* Tokens that two vocabularies have in common: those of the same bytes, each once, and what ends a text. */
static void in_common(void **state) {
    (void)state;
    for (size_t k = 0; k < KINDS * KINDS; k++) {
        const struct lb_tokenizer *own = tokenizers[k / KINDS], *its = tokenizers[k % KINDS];
        int32_t n = lb_tokenizer_vocab_size(own), m = lb_tokenizer_vocab_size(its), pairs = 0, had = 0;
        struct lb_common common = {0};
        assert_int_equal(lb_common_make(own, its, n, &common, NULL), LB_OK);
        for (int32_t b = 0; b < m; b++) {
            int32_t a = common.own_of[b];
            bool ends = b == lb_tokenizer_eos(its) && a == lb_tokenizer_eos(own);
            assert_true(a < 0 || (a < n && common.has[a] == 1 && (ends || same_text(own, a, its, b))));
            pairs += a >= 0 ? 1 : 0;
        }
        for (int32_t a = 0; a < n; a++) {
            had += common.has[a];
            for (int32_t b = 0; b < m && a % 32 == 0 && common.has[a] == 0; b++) { /* a second of that text */
                assert_true(!same_text(own, a, its, b) || first_of(own, a) != a || first_of(its, b) != b);
            }
        }
        assert_true(pairs == had && pairs > 20);
        assert_true(own != its || pairs > m / 2);
        lb_common_finish(&common);
    }
}

static int set_up(void **state) {
    const char *root = getenv("LB_SOURCE_ROOT");
    char path[1024];
    json_t *texts = NULL;
    const json_t *item;
    size_t index;
    struct lb_buf lines;
    (void)state;
    if (root == NULL || mkdtemp(folder) == NULL) {
        return -1;
    }
    for (size_t k = 0; k < KINDS; k++) {
        snprintf(path, sizeof path, "%s/tests/golden/text/%s.json", root, names[k]);
        if (lb_tokenizer_open(path, &tokenizers[k], NULL) != LB_OK) {
            return -1;
        }
    }
    snprintf(path, sizeof path, "%s/tests/golden/text/gpt2.cases.json", root);
    if (lb_json_file(path, MAX_FIXTURE, &texts, NULL) != LB_OK) {
        return -1;
    }
    lb_buf_init(&lines, MAX_FIXTURE);
    json_array_foreach(texts, index, item) { /* one line each; no text that says what special tokens say */
        const char *text = json_string_value(json_object_get(item, "text"));
        if (strchr(text, '\n') == NULL && strchr(text, '<') == NULL && text[0] != ' ' &&
            strlen(text) == json_string_length(json_object_get(item, "text"))) {
            lb_buf_printf(&lines, "%s\n", text);
        }
    }
    put("texts.txt", lines.data, lines.len);
    lb_buf_finish(&lines);
    json_decref(texts);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        lb_tokenizer_destroy(tokenizers[k]);
    }
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_it_would), cmocka_unit_test(packed),
                                       cmocka_unit_test(completions), cmocka_unit_test(unknown),
                                       cmocka_unit_test(characters),  cmocka_unit_test(memory_runs_out),
                                       cmocka_unit_test(in_common)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
