/* lb_tokenizer_encode on any text: well-formed UTF-8 comes back byte for byte from its ids, anything else is
 * refused at the right byte. The first byte of the input chooses the tokenizer. */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/tokenizer.h"
#include "tests/support/tiny_tokenizer.h"

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

#define N_TOKENIZERS 4

static const struct lb_tokenizer *choose(unsigned which) {
    static struct lb_tokenizer *made[N_TOKENIZERS];
    static const char *const root[N_TOKENIZERS] = {TINY_GPT2, TINY_WHOLE, cl100k, letters};
    which %= N_TOKENIZERS;
    if (!made[which]) {
        struct lb_buf json;
        lb_buf_init(&json, (size_t)1 << 20);
        tiny_tokenizer(&json, merges, sizeof merges / sizeof merges[0], root[which],
                       which == 2 ? "\"ignore_merges\":true," : "");
        require(lb_tokenizer_parse(json.data, json.len, "tiny", &made[which], NULL) == LB_OK);
        lb_buf_finish(&json);
    }
    return made[which];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const struct lb_tokenizer *t = choose(data[0]);
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
    lb_buf_init(&back, len + 1);
    require(ids.len <= len && lb_tokenizer_decode(t, ids.data, ids.len, false, &back, NULL) == LB_OK);
    require(back.len == len && (!len || !memcmp(back.data, text, len)));
    lb_buf_finish(&back);
    lb_free(ids.data);
    return 0;
}
