/* Trimmed vocabularies: what stays, how it is numbered, that what stays can still be made, the map's file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/text/trim.h"
#include "tests/support/tiny_tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_JSON ((size_t)1 << 20)

static struct lb_tokenizer *parse(const char *json, size_t len) {
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_detail detail = {0};
    if (lb_tokenizer_parse(json, len, "tokenizer.json", &tokenizer, &detail)) {
        fail_msg("%s", detail.text);
    }
    return tokenizer;
}

static struct lb_tokenizer *tiny(const struct tiny_merge *merge, size_t n, const char *root,
                                 const char *added) {
    struct lb_buf json;
    lb_buf_init(&json, MAX_JSON);
    tiny_tokenizer_adding(&json, merge, n, root, "", added);
    struct lb_tokenizer *tokenizer = parse(json.data, json.len);
    lb_buf_finish(&json);
    return tokenizer;
}

struct made {
    struct lb_tokenizer *tokenizer;
    struct lb_vocab_map *map;
};

static struct made trim(const struct lb_tokenizer *full, const uint64_t *counts, int32_t size) {
    struct made made = {0};
    struct lb_detail detail = {0};
    if (lb_tokenizer_trim(full, counts, size, &made.tokenizer, &made.map, &detail)) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(made.map->n, lb_tokenizer_vocab_size(made.tokenizer));
    assert_string_equal(made.map->full, lb_tokenizer_fingerprint(full));
    assert_string_equal(made.map->trimmed, lb_tokenizer_fingerprint(made.tokenizer));
    for (int32_t id = 0; id < made.map->n; id++) {
        assert_string_equal(lb_tokenizer_token(made.tokenizer, id),
                            lb_tokenizer_token(full, made.map->kept[id]));
        assert_true(id == 0 || made.map->kept[id] > made.map->kept[id - 1]);
        assert_int_equal(lb_vocab_map_find(made.map, made.map->kept[id]), id);
    }
    return made;
}

static void finish(struct made *made) {
    lb_tokenizer_destroy(made->tokenizer);
    lb_vocab_map_destroy(made->map);
}

static bool has(const struct made *made, const char *token) {
    return lb_tokenizer_id(made->tokenizer, token) >= 0;
}

/* "th" 257, "the" 258, " the" 259, "in" 260, "he" 261 */
static const struct tiny_merge small[] = {
    {"t", "h", 1, 1}, {"th", "e", 2, 1}, {" ", "the", 1, 3}, {"i", "n", 1, 1}, {"h", "e", 1, 1}};

static void test_ancestors_stay(void **state) {
    (void)state;
    struct lb_tokenizer *full = tiny(small, 5, TINY_GPT2, "");
    uint64_t counts[262] = {0};
    counts[259] = 10;
    counts[260] = 11;
    counts[261] = 5;
    struct made made = trim(full, counts, 261); /* 257 of <eos> and bytes, "in", " the" with "th" and "the" */
    assert_int_equal(made.map->n, 261);
    assert_true(has(&made, "th") && has(&made, "the") && has(&made, "\u0120the") && has(&made, "in"));
    assert_false(has(&made, "he"));
    struct lb_ids ids = {0};
    assert_int_equal(lb_tokenizer_encode(made.tokenizer, " thein", 6, false, &ids, NULL), LB_OK);
    assert_int_equal(ids.len, 2);
    assert_int_equal(ids.data[0], 259);
    lb_free(ids.data);
    finish(&made);

    made = trim(full, counts, 260); /* no room for all that " the" needs: what is next takes it */
    assert_false(has(&made, "\u0120the") || has(&made, "th") || has(&made, "the"));
    assert_true(has(&made, "in") && has(&made, "he"));
    assert_int_equal(made.map->n, 259);
    finish(&made);
    lb_tokenizer_destroy(full);
}

/* Tokens that end, begin or are named are there though no text has them; special ones that occur; others go.
 */
static void test_special_stay(void **state) {
    (void)state;
    struct lb_tokenizer *full =
        tiny(small, 0, TINY_GPT2 TINY_BEGINS,
             TINY_BOS ",{\"id\":258,\"content\":\"<used>\",\"special\":true,\"normalized\":false}"
                      ",{\"id\":259,\"content\":\"<idle>\",\"special\":true,\"normalized\":false}"
                      ",{\"id\":260,\"content\":\"<often>\",\"special\":false,\"normalized\":false}");
    uint64_t counts[261] = {0};
    counts[258] = 1;
    counts[260] = 2;
    struct made made = trim(full, counts, 260);
    assert_int_equal(made.map->n, 260);
    assert_true(has(&made, "<eos>") && has(&made, "<bos>") && has(&made, "<used>") && has(&made, "<often>"));
    assert_false(has(&made, "<idle>"));
    assert_int_equal(lb_tokenizer_before(made.tokenizer)->data[0], 257);
    assert_int_equal(lb_tokenizer_id(made.tokenizer, "<often>"), 259);
    finish(&made);
    struct lb_detail detail = {0};
    assert_int_equal(lb_tokenizer_trim(full, counts, 258, &made.tokenizer, &made.map, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "are 259"));
    lb_tokenizer_destroy(full);
}

/* What the post-processor puts, what is unknown, and what the chat template names, though no text has them.
 */
static void test_named_stay(void **state) {
    (void)state;
#define SPECIAL(id, name) "{\"id\":" id ",\"content\":\"" name "\",\"special\":true,\"normalized\":false}"
#define PUT(id, name) "\"" name "\":{\"id\":\"" name "\",\"ids\":[" id "],\"tokens\":[\"" name "\"]}"
    static const char json[] = "{\"added_tokens\":[" SPECIAL("0", "<p>") "," SPECIAL("1", "<q>") "," SPECIAL(
        "2", "<turn>") "," SPECIAL("3",
                                   "<idle>") "],\"post_processor\":{\"type\":\"TemplateProcessing\","
                                             "\"single\":[{\"SpecialToken\":{"
                                             "\"id\":\"<p>\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"<q>"
                                             "\",\"type_id\":0}},{"
                                             "\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],"
                                             "\"special_tokens\":{" PUT("0", "<p>") "," PUT(
                                                 "1",
                                                 "<q>") "}},\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\","
                                                        "\"vocab\":{\"a\":4,\"b\":5,\"?\":6},\"merges\":[]}}";
    static const char config[] = "{\"chat_template\": \"{{ '<turn>' }}\"}";
    char folder[] = "/tmp/limbeck-trim-XXXXXX";
    struct lb_tokenizer *full = NULL;
    struct lb_detail detail = {0};
    assert_non_null(mkdtemp(folder));
    char *path = lb_path_join(folder, "tokenizer.json"),
         *beside = lb_path_join(folder, "tokenizer_config.json");
    assert_int_equal(lb_file_replace(path, json, sizeof json - 1, NULL), LB_OK);
    assert_int_equal(lb_file_replace(beside, config, sizeof config - 1, NULL), LB_OK);
    if (lb_tokenizer_open(folder, &full, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    const uint64_t counts[7] = {0, 0, 0, 0, 3, 0, 0};
    struct made made = trim(full, counts, 7);
    assert_true(has(&made, "<p>") && has(&made, "<q>") && has(&made, "<turn>") && has(&made, "a"));
    assert_int_equal(lb_tokenizer_id(made.tokenizer, "?"), made.map->n - 1);
    assert_int_equal(made.map->n, 5); /* neither <idle> nor b */
    finish(&made);
    lb_tokenizer_destroy(full);
    lb_free(path);
    lb_free(beside);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
}

/* ---- any merges: what is kept is made as before, any text comes back ---- */

static void random_merges(struct lb_rng *rng, struct tiny_merge *merge, size_t n) {
    for (size_t made = 0; made < n;) {
        struct tiny_merge *m = &merge[made];
        unsigned char both[2 * TINY_PIECE];
        unsigned char *side[2] = {m->left, m->right};
        size_t *len[2] = {&m->left_len, &m->right_len}, all = 0;
        for (int s = 0; s < 2; s++) {
            uint64_t from = lb_rng_u64(rng) % (made + 4);
            if (from < made) {
                *len[s] = merge[from].left_len + merge[from].right_len;
                if (*len[s] > 12) {
                    *len[s] = 0;
                    break;
                }
                memcpy(side[s], merge[from].left, merge[from].left_len);
                memcpy(side[s] + merge[from].left_len, merge[from].right, merge[from].right_len);
            } else {
                *len[s] = 1;
                side[s][0] = (unsigned char)('a' + from - made);
            }
            memcpy(both + all, side[s], *len[s]);
            all += *len[s];
        }
        bool fresh = m->left_len > 0 && m->right_len > 0;
        for (size_t i = 0; i < made && fresh; i++) {
            unsigned char other[2 * TINY_PIECE];
            memcpy(other, merge[i].left, merge[i].left_len);
            memcpy(other + merge[i].left_len, merge[i].right, merge[i].right_len);
            fresh = merge[i].left_len + merge[i].right_len != all || memcmp(other, both, all) != 0;
        }
        made += fresh;
    }
}

#define N_RANDOM 60

static void test_random(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 7, 0);
    for (int round = 0; round < 40; round++) {
        struct tiny_merge merge[N_RANDOM];
        uint64_t counts[257 + N_RANDOM] = {0};
        random_merges(&rng, merge, N_RANDOM);
        struct lb_tokenizer *full = tiny(merge, N_RANDOM, TINY_WHOLE, "");
        char text[400];
        for (size_t i = 0; i < sizeof text; i++) {
            text[i] = (char)('a' + lb_rng_u64(&rng) % 4);
        }
        struct lb_ids ids = {0}, again = {0};
        assert_int_equal(lb_tokenizer_encode(full, text, sizeof text, false, &ids, NULL), LB_OK);
        for (size_t i = 0; i < ids.len; i++) {
            counts[ids.data[i]]++;
        }
        struct made made = trim(full, counts, 257 + (int32_t)(lb_rng_u64(&rng) % 30));
        for (int32_t id = 257; id < made.map->n; id++) { /* as far as the whole one makes it, too */
            size_t len;
            const char *bytes = lb_tokenizer_bytes(made.tokenizer, id, &len);
            ids.len = again.len = 0;
            assert_int_equal(lb_tokenizer_encode(full, bytes, len, false, &ids, NULL), LB_OK);
            assert_int_equal(lb_tokenizer_encode(made.tokenizer, bytes, len, false, &again, NULL), LB_OK);
            assert_int_equal(ids.len, 1);
            assert_int_equal(again.len, 1);
            assert_int_equal(again.data[0], id);
        }
        struct lb_buf back;
        lb_buf_init(&back, MAX_JSON);
        again.len = 0;
        assert_int_equal(lb_tokenizer_encode(made.tokenizer, text, sizeof text, false, &again, NULL), LB_OK);
        assert_int_equal(lb_tokenizer_decode(made.tokenizer, again.data, again.len, false, &back, NULL),
                         LB_OK);
        assert_int_equal(back.len, sizeof text);
        assert_memory_equal(back.data, text, sizeof text);
        lb_buf_finish(&back);
        lb_free(ids.data);
        lb_free(again.data);
        finish(&made);
        lb_tokenizer_destroy(full);
    }
}

/* ---- other models ---- */

static void test_unigram(void **state) {
    (void)state;
    static const char json[] =
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true,\"normalized\":false}],"
        "\"decoder\":null,\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"<unk>\",0],[\"?\",0],"
        "[\"a\",-3],[\"b\",-3.5],[\"c\",-4],[\"ab\",-2],[\"abc\",-1.5],[\"d\",-5]]}}";
    struct lb_tokenizer *full = parse(json, sizeof json - 1);
    const uint64_t counts[8] = {0, 0, 0, 0, 0, 9, 3, 0};
    struct made made = trim(full, counts, 5); /* what unk_id says, and "ab" with "a" and "b" */
    assert_int_equal(made.map->n, 4);
    assert_true(has(&made, "?") && has(&made, "ab") && has(&made, "a") && has(&made, "b"));
    struct lb_ids ids = {0};
    assert_int_equal(lb_tokenizer_encode(made.tokenizer, "abc", 3, false, &ids, NULL), LB_OK);
    assert_int_equal(ids.len, 2);
    assert_int_equal(made.map->kept[ids.data[0]], 5);
    assert_int_equal(made.map->kept[ids.data[1]], 1);
    lb_free(ids.data);
    finish(&made);
    lb_tokenizer_destroy(full);
}

/* Characters with bytes for what is not there, as SentencePiece has it. */
static void test_byte_fallback(void **state) {
    (void)state;
    struct lb_buf json;
    lb_buf_init(&json, MAX_JSON);
    lb_buf_append_str(&json,
                      "{\"added_tokens\":[],\"decoder\":{\"type\":\"ByteFallback\"},\"model\":{\"type\":"
                      "\"BPE\",\"byte_fallback\":true,\"vocab\":{\"x\":0");
    for (int b = 0; b < 256; b++) {
        lb_buf_printf(&json, ",\"<0x%02X>\":%d", b, 1 + b);
    }
    lb_buf_append_str(&json,
                      ",\"\u00e9\":257,\"t\":258,\"\u00e9t\":259,\"y\":260},\"merges\":[\"\u00e9 t\"]}}");
    struct lb_tokenizer *full = parse(json.data, json.len);
    uint64_t counts[261] = {0};
    counts[259] = 1;
    struct made made = trim(full, counts, 300);
    assert_int_equal(made.map->n, 259);
    assert_true(has(&made, "\u00e9t") && has(&made, "t") && has(&made, "<0xFF>"));
    assert_false(has(&made, "x") || has(&made, "y"));
    struct lb_ids ids = {0};
    assert_int_equal(lb_tokenizer_encode(made.tokenizer, "\u00e9ty", 4, false, &ids, NULL), LB_OK);
    assert_int_equal(ids.len, 2);
    assert_int_equal(made.map->kept[ids.data[0]], 259);
    assert_int_equal(made.map->kept[ids.data[1]], 1 + 'y');
    lb_free(ids.data);
    finish(&made);
    lb_tokenizer_destroy(full);
    lb_buf_finish(&json);
}

static void test_refused(void **state) {
    (void)state;
    static const char json[] =
        "{\"added_tokens\":[],\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":false},"
        "\"model\":{"
        "\"type\":\"WordPiece\",\"unk_token\":\"u\",\"continuing_subword_prefix\":\"##\","
        "\"max_input_chars_per_word\":100,\"vocab\":{\"u\":0,\"a\":1}}}";
    struct lb_tokenizer *full = parse(json, sizeof json - 1);
    const uint64_t counts[2] = {0};
    struct made made = {0};
    struct lb_detail detail = {0};
    assert_int_equal(lb_tokenizer_trim(full, counts, 2, &made.tokenizer, &made.map, &detail),
                     LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "continuing_subword_prefix"));
    lb_tokenizer_destroy(full);
}

/* ---- the map's file ---- */

static void write_file(const char *dir, const char *name, const char *text, size_t len) {
    char *path = lb_path_join(dir, name);
    assert_int_equal(lb_file_replace(path, text, len, NULL), LB_OK);
    lb_free(path);
}

static void test_map_file(void **state) {
    (void)state;
    char dir[] = "/tmp/limbeck-trim-XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct lb_tokenizer *full = tiny(small, 5, TINY_GPT2, "");
    uint64_t counts[262] = {0};
    counts[260] = 1;
    struct made made = trim(full, counts, 262);
    struct lb_vocab_map *map = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_vocab_map_open(dir, made.tokenizer, &map, &detail), LB_OK);
    assert_null(map); /* there is none */
    struct lb_buf text;
    lb_buf_init(&text, MAX_JSON);
    assert_int_equal(lb_vocab_map_write(made.map, &text, NULL), LB_OK);
    write_file(dir, LB_VOCAB_MAP_FILE, text.data, text.len);
    if (lb_vocab_map_open(dir, made.tokenizer, &map, &detail)) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(map->n, made.map->n);
    assert_memory_equal(map->kept, made.map->kept, (size_t)map->n * sizeof *map->kept);
    lb_vocab_map_destroy(map);
    char *json = lb_path_join(dir, "tokenizer.json");
    assert_int_equal(lb_vocab_map_open(json, made.tokenizer, &map, &detail), LB_OK);
    lb_vocab_map_destroy(map);
    lb_free(json);
    map = NULL;
    assert_int_equal(lb_vocab_map_open(dir, full, &map, &detail), LB_E_MISMATCH);
    assert_null(map);
    memcpy(strstr(text.data, "260"), "200", 3);
    write_file(dir, LB_VOCAB_MAP_FILE, text.data, text.len);
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_vocab_map_open(dir, made.tokenizer, &map, &detail), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "kept_ids[257]"));
    memcpy(strstr(text.data, "200"), "260", 3);
    for (size_t len = 0; len + 3 < text.len; len++) { /* cut before its last bracket, it is never read */
        write_file(dir, LB_VOCAB_MAP_FILE, text.data, len);
        assert_true(lb_vocab_map_open(dir, made.tokenizer, &map, NULL) != LB_OK);
        assert_null(map);
        len += len > 200 ? 97 : 0;
    }
    lb_buf_finish(&text);
    finish(&made);
    lb_tokenizer_destroy(full);
    assert_int_equal(lb_remove_tree(dir, NULL), LB_OK);
}

/* Whichever allocation fails, alone or with all that follow: nothing is made, or what would have been. */
static void test_no_memory(void **state) {
    (void)state;
    struct lb_tokenizer *full = tiny(small, 5, TINY_GPT2, "");
    uint64_t counts[262] = {0};
    counts[259] = 1;
    struct made whole = trim(full, counts, 262);
    for (int alone = 0; alone < 2; alone++) {
        enum lb_status status = LB_E_NOMEM;
        for (long n = 1; status != LB_OK; n += n < 40 ? 1 : 37) {
            struct made made = {0};
            (alone ? lb_mem_fail_only : lb_mem_fail_from)(n);
            status = lb_tokenizer_trim(full, counts, 262, &made.tokenizer, &made.map, NULL);
            lb_mem_fail_from(0);
            if (status == LB_OK) {
                assert_string_equal(made.map->trimmed, whole.map->trimmed);
                finish(&made);
            } else {
                assert_true(status == LB_E_NOMEM && !made.tokenizer && !made.map);
            }
        }
    }
    finish(&whole);
    lb_tokenizer_destroy(full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ancestors_stay), cmocka_unit_test(test_special_stay),
        cmocka_unit_test(test_named_stay),     cmocka_unit_test(test_random),
        cmocka_unit_test(test_unigram),        cmocka_unit_test(test_byte_fallback),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_map_file),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
