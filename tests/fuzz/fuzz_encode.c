/* lb_tokenizer_encode on any text: well-formed UTF-8 comes back byte for byte from its ids where the
 * tokenizer loses nothing, anything else is refused at the right byte. The first byte of the input chooses
 * the tokenizer. */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/tokenizer.h"
#include "tests/support/tiny_tokenizer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

/* Cl100k's pattern; merges chosen so that symbols overlap: aa, aaa, ab, bab, th, the, " the", two bytes of
 * U+1F600 and after. */
static const char cl100k[] =
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":"
    "\"Isolated\",\"pattern\":"
    "{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},";
/* Steps behind ByteLevel see letters, which are undone at the end. */
static const char letters[] =
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":false},{\"type\":\"Digits\",\"individual_digits\":true}]},";
static const struct tiny_merge merges[] = {{"a", "a", 1, 1},   {"aa", "a", 2, 1},  {"a", "b", 1, 1},
                                           {"b", "ab", 1, 2},  {"t", "h", 1, 1},   {"th", "e", 2, 1},
                                           {" ", "the", 1, 3}, {" ", " ", 1, 1},   {"\xf0", "\x9f", 1, 1},
                                           {"\n", "\n", 1, 1}, {"  ", "  ", 2, 2}, {"aa", "aa", 2, 2}};

#define N_BYTE_LEVEL 4
#define N_TOKENIZERS 7

/* Models that are not over bytes: what stands before their vocabulary, some tokens, and what stands behind;
 * the 256 bytes as <0xHH> come between. The first gives back what it was given. */
#define FALLBACK                                                                                             \
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},"
static const struct {
    const char *before, *token, *behind;
} others[N_TOKENIZERS - N_BYTE_LEVEL] = {
    {"{" FALLBACK "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{",
     "\"\u2581\":256,\"a\":257,\"b\":258,\"aa\":259,\"\u2581a\":260,\"ab\":261,\"\u2581\u2581\":262,"
     "\"b\u2581\":263",
     "},\"merges\":[\"\u2581 \u2581\",\"a a\",\"\u2581 a\",\"a b\",\"b \u2581\"]}}"},
    {"{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"},{\"type\":\"NFKC\"},{"
     "\"type\":\"Strip\"},{"
     "\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x*y\"},\"content\":\"\"},{\"type\":\"StripAccents\"}]},"
     "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":"
     "\"Metaspace\","
     "\"replacement\":\"\u2581\",\"prepend_scheme\":\"first\"}]},\"decoder\":{\"type\":\"Metaspace\","
     "\"replacement\":"
     "\"\u2581\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"<unk>\","
     "0],[\"a\",-1],[\"ab\","
     "-1.5],[\"\u2581\",-3],[\"aaa\",-2.5],[\"\u00e9\",-4]",
     "", "]}}"},
    {"{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
     "\"decoder\":{\"type\":"
     "\"WordPiece\"},\"model\":{\"type\":\"WordPiece\",\"max_input_chars_per_word\":9,\"vocab\":{",
     "\"[UNK]\":256,\"a\":257,\"##a\":258,\"##ab\":259,\"b\":260,\"e\":261,\".\":262", "}}}"}};

/* Writes the file of the tokenizer which, not over bytes. */
static void write_other(unsigned which, struct lb_buf *json) {
    bool list = strstr(others[which].before, "Unigram") != NULL;
    lb_buf_append_str(json, others[which].before);
    for (int byte = 0; byte < 256; byte++) {
        const char *comma = byte > 0 || list ? "," : "";
        if (list) {
            lb_buf_printf(json, "%s[\"<0x%02X>\",-9]", comma, (unsigned)byte);
        } else {
            lb_buf_printf(json, "%s\"<0x%02X>\":%d", comma, (unsigned)byte, byte);
        }
    }
    lb_buf_printf(json, "%s%s%s", list ? "" : ",", others[which].token, others[which].behind);
}

static const struct lb_tokenizer *choose(unsigned which) {
    static struct lb_tokenizer *made[N_TOKENIZERS];
    static const char *const root[N_BYTE_LEVEL] = {TINY_GPT2, TINY_WHOLE, cl100k, letters};
    if (!made[which]) {
        struct lb_buf json;
        lb_buf_init(&json, (size_t)1 << 20);
        if (which < N_BYTE_LEVEL) {
            tiny_tokenizer(&json, merges, sizeof merges / sizeof merges[0], root[which],
                           which == 2 ? "\"ignore_merges\":true," : "");
        } else {
            write_other(which - N_BYTE_LEVEL, &json);
        }
        require(lb_tokenizer_parse(json.data, json.len, "tiny", &made[which], NULL) == LB_OK);
        lb_buf_finish(&json);
    }
    return made[which];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    unsigned which = data[0] % N_TOKENIZERS;
    const struct lb_tokenizer *t = choose(which);
    const char *text = (const char *)data + 1;
    size_t len = size - 1, good = lb_utf8_check(text, len);
    struct lb_ids ids = {0};
    struct lb_detail detail = {0};
    enum lb_status status = lb_tokenizer_encode(t, text, len, false, &ids, &detail);
    require(status == (good == len ? LB_OK : LB_E_FORMAT) && status == detail.code);
    if (status != LB_OK) {
        char where[40];
        snprintf(where, sizeof where, "at byte %zu ", good);
        require(strstr(detail.text, where) != NULL && ids.len == 0);
        return 0;
    }
    struct lb_buf back;
    lb_buf_init(&back, 16 * len + 64);
    require(lb_tokenizer_decode(t, ids.data, ids.len, false, &back, NULL) == LB_OK);
    if (which <= N_BYTE_LEVEL) {
        require(ids.len <= len && back.len == len && (!len || !memcmp(back.data, text, len)));
    } else {
        require(lb_utf8_check(back.data, back.len) == back.len);
    }
    lb_buf_finish(&back);
    lb_free(ids.data);
    return 0;
}
