/* The kinds of vocabularies in GGUF files (tokenizer.ggml.model), each as the tokenizer.json of its models
 * has it. */
#include "common/base/base64.h"
#include "common/text/gguf_pre.h"
#include "common/text/gguf_vocab.h"

#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581: SentencePiece's space */

static enum lb_status no_memory(const struct lb_gguf_vocab *v) {
    return lb_fail(v->detail, LB_E_NOMEM, "%s: out of memory for the vocabulary", v->what);
}

/* ---- gpt2: byte-level BPE ---- */

/* merges[i] cut at its space, the first one behind its first byte; NULL when it has none. */
static const char *cut_merge(const char *merge) {
    const char *space = merge && merge[0] ? strchr(merge + 1, ' ') : NULL;
    return space && space[1] ? space : NULL;
}

enum lb_status lb_gguf_put_given_merges(struct lb_gguf_vocab *v) {
    static const char key[] = LB_TOKENIZER_KEY "merges";
    int64_t n = lb_gguf_array_count(v->file, key);
    if (n < 0) {
        return lb_fail(v->detail, LB_E_FORMAT, "%s: no %s, which a vocabulary of model %s needs", v->what,
                       key, v->model);
    }
    lb_buf_append_str(v->out, "\"merges\":[");
    for (int64_t i = 0; i < n; i++) {
        const char *merge = lb_gguf_array_string(v->file, key, i);
        if (!cut_merge(merge)) {
            return lb_fail(v->detail, LB_E_FORMAT, "%s: %s[%lld] is not two tokens with a space between",
                           v->what, key, (long long)i);
        }
        lb_buf_append(v->out, ",", i > 0);
        lb_gguf_put_text(v->out, merge);
    }
    lb_buf_append_str(v->out, "]");
    return LB_OK;
}

/* How many rows are the model's own: added tokens at the end are no part of it, as in the files of Llama 3
 * and Qwen, unless a merge needs them. */
static int32_t own_rows(const struct lb_gguf_vocab *v) {
    static const char key[] = LB_TOKENIZER_KEY "merges";
    int32_t rows = v->n;
    while (rows > 0 && (!v->text[rows - 1] ||
                        (v->type[rows - 1] >= LB_TOKEN_UNKNOWN && v->type[rows - 1] <= LB_TOKEN_USER))) {
        rows--;
    }
    for (int64_t i = 0; rows < v->n && i < lb_gguf_array_count(v->file, key); i++) {
        const char *merge = lb_gguf_array_string(v->file, key, i), *space = cut_merge(merge);
        if (space) {
            int32_t left = lb_vocab_find(&v->by_text, merge, (size_t)(space - merge), LB_ENTRY_MODEL);
            int32_t right = lb_vocab_find(&v->by_text, space + 1, strlen(space + 1), LB_ENTRY_MODEL);
            rows = left >= rows ? left + 1 : rows;
            rows = right >= rows ? right + 1 : rows;
        }
    }
    return rows;
}

static enum lb_status write_byte_level(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind) {
    const char *name = lb_gguf_string(v->file, LB_TOKENIZER_KEY "pre");
    const struct lb_gguf_pre *pre = lb_gguf_pre_find(name ? name : "default");
    if (!pre) {
        return lb_fail(
            v->detail, LB_E_UNSUPPORTED,
            "%s: tokenizer.ggml.pre \"%.40s\" is not known; put the model's tokenizer.json beside the "
            "file",
            v->what, name);
    }
    json_t *cut = lb_gguf_pre_json(pre);
    if (!cut) {
        return no_memory(v);
    }
    lb_buf_append_str(v->out, ",\"normalizer\":");
    if (pre->normalizer) {
        lb_buf_printf(v->out, "{\"type\":\"%s\"}", pre->normalizer);
    } else {
        lb_buf_append_str(v->out, "null");
    }
    lb_buf_append_str(v->out, ",\"pre_tokenizer\":");
    lb_json_dump(cut, 0, v->out);
    json_decref(cut);
    enum lb_status status = lb_gguf_put_ends(v, kind->add_bos || pre->add_bos, kind->add_eos);
    if (status != LB_OK) {
        return status;
    }
    lb_buf_printf(v->out,
                  ",\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
                  "\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                  "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
                  "\"byte_fallback\":false,\"ignore_merges\":%s,",
                  pre->ignore_merges ? "true" : "false");
    lb_gguf_put_vocab(v, own_rows(v));
    lb_buf_append_str(v->out, ",");
    status = lb_gguf_put_given_merges(v);
    lb_buf_append_str(v->out, "}");
    return status;
}

/* ---- llama, gemma4: SentencePiece's BPE ---- */

/* What users define has spaces in the file where the model has U+2581; runs of nothing else are the model's.
 */
static const char *spell_sentencepiece(struct lb_gguf_vocab *v, int32_t id) {
    const char *text = v->text[id];
    size_t n = strspn(text, " ");
    if (v->type[id] != LB_TOKEN_USER || text[n] || n == 0) {
        return text;
    }
    char *spelled = lb_arena_array(&v->spelled, 3 * n + 1, 1);
    for (size_t i = 0; spelled && i < n; i++) {
        memcpy(spelled + 3 * i, SPACE, 3);
    }
    if (spelled) {
        spelled[3 * n] = '\0';
    }
    return spelled;
}

static bool has_bytes(const struct lb_gguf_vocab *v) {
    return memchr(v->type, LB_TOKEN_BYTE, (size_t)v->n) != NULL;
}

/* Each stretch of text between added tokens gets a space before it, or none does. */
static void put_spaces(struct lb_gguf_vocab *v, bool prefix) {
    static const char replace[] =
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" SPACE "\"}";
    const char *family = lb_gguf_string(v->file, "general.architecture");
    bool gemma = family && !strncmp(family, "gemma", 5);
    lb_buf_append_str(v->out, ",\"normalizer\":");
    if (prefix) {
        lb_buf_append_str(v->out,
                          "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" SPACE
                          "\"},");
        lb_buf_append_str(v->out, replace);
        lb_buf_append_str(v->out, "]}");
    } else {
        lb_buf_append_str(v->out, replace);
    }
    /* Gemma's files have it; behind the normalizer there is nothing for it to cut. */
    lb_buf_append_str(v->out, gemma && !prefix
                                  ? ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
                                    "\"behavior\":\"MergedWithPrevious\",\"invert\":false}"
                                  : ",\"pre_tokenizer\":null");
    lb_buf_append_str(v->out,
                      ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
                      "\"String\":\"" SPACE "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":"
                      "\"Fuse\"}");
    lb_buf_append_str(v->out,
                      prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}" : "]}");
}

static enum lb_status write_sentencepiece(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind) {
    bool given = lb_gguf_has(v->file, LB_TOKENIZER_KEY "merges"), gemma4 = !strcmp(v->model, "gemma4");
    put_spaces(v, lb_gguf_flag(v, LB_TOKENIZER_KEY "add_space_prefix", !gemma4));
    enum lb_status status = lb_gguf_put_ends(v, kind->add_bos, kind->add_eos);
    if (status != LB_OK) {
        return status;
    }
    lb_buf_append_str(v->out, ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
    if (v->ids.unk >= 0) {
        lb_gguf_put_text(v->out, v->text[v->ids.unk]);
    } else {
        lb_buf_append_str(v->out, "null");
    }
    lb_buf_printf(v->out,
                  ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":true,"
                  "\"byte_fallback\":%s,\"ignore_merges\":false,",
                  has_bytes(v) ? "true" : "false");
    lb_gguf_put_vocab(v, v->n);
    lb_buf_append_str(v->out, ",");
    status = given || gemma4 ? lb_gguf_put_given_merges(v) : lb_gguf_put_merges(v);
    lb_buf_append_str(v->out, "}");
    return status;
}

/* ---- bert: WordPiece ---- */

/* Words begin with U+2581 in the file, what goes on within a word with nothing; in tokenizer.json the latter
 * begins with "##". */
static const char *spell_wordpiece(struct lb_gguf_vocab *v, int32_t id) {
    const char *text = v->text[id];
    size_t n = strlen(text);
    if (v->type[id] != LB_TOKEN_NORMAL || (text[0] == '[' && text[n - 1] == ']' && n > 2)) {
        return text;
    }
    if (n > strlen(SPACE) && !strncmp(text, SPACE, strlen(SPACE))) {
        return text + strlen(SPACE);
    }
    return lb_arena_printf(&v->spelled, "##%s", text);
}

/* Whether a word has a capital: then the model was not trained with lower case only. */
static bool has_capitals(const struct lb_gguf_vocab *v) {
    for (int32_t i = 0; i < v->n; i++) {
        if (v->text[i] && v->type[i] == LB_TOKEN_NORMAL && v->text[i][0] != '[' &&
            strpbrk(v->text[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
            return true;
        }
    }
    return false;
}

static enum lb_status write_wordpiece(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind) {
    static const char accents[] = LB_TOKENIZER_KEY "normalizer.strip_accents";
    (void)kind;
    bool lower = lb_gguf_flag(v, LB_TOKENIZER_KEY "normalizer.lowercase", !has_capitals(v));
    bool strip = lb_gguf_flag(v, accents, lower);
    bool sep = lb_gguf_flag(v, LB_TOKENIZER_KEY "add_sep_token", true);
    if (v->ids.unk < 0 || v->ids.cls < 0 || (sep && v->ids.sep < 0)) {
        return lb_fail(
            v->detail, LB_E_FORMAT,
            "%s: a vocabulary of model bert needs unknown_token_id, cls_token_id and seperator_token_id",
            v->what);
    }
    lb_buf_printf(
        v->out,
        ",\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,"
        "\"strip_accents\":%s,\"lowercase\":%s},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}",
        strip == lower ? "null"
        : strip        ? "true"
                       : "false",
        lower ? "true" : "false");
    bool cls = lb_gguf_flag(v, LB_TOKENIZER_KEY "add_bos_token", true);
    lb_gguf_put_template(v, cls ? v->ids.cls : -1, sep ? v->ids.sep : -1);
    lb_buf_append_str(v->out,
                      ",\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{"
                      "\"type\":\"WordPiece\",\"unk_token\":");
    lb_gguf_put_text(v->out, v->text[v->ids.unk]);
    lb_buf_append_str(v->out, ",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,");
    lb_gguf_put_vocab(v, v->n);
    lb_buf_append_str(v->out, "}");
    return LB_OK;
}

/* ---- t5: Unigram ---- */

/* Appends the bytes of an array of the file in base64. */
static void put_base64(struct lb_gguf_vocab *v, const char *key, int64_t n) {
    for (int64_t i = 0; i < n; i += 3) {
        unsigned char three[3];
        size_t k = 0;
        for (; k < 3 && i + (int64_t)k < n; k++) {
            double byte = 0;
            (void)lb_gguf_array_number(v->file, key, i + (int64_t)k, &byte);
            three[k] = (unsigned char)(int32_t)byte;
        }
        lb_base64_put(v->out, three, k);
    }
}

static void put_unigrams(struct lb_gguf_vocab *v) {
    bool some = false;
    lb_buf_append_str(v->out, "\"vocab\":[");
    for (int32_t i = 0; i < v->n && v->text[i]; i++) {
        lb_buf_append_str(v->out, some ? ",[" : "[");
        lb_gguf_put_text(v->out, v->text[i]);
        lb_buf_printf(v->out, ",%.17g]", v->type[i] == LB_TOKEN_USER ? 0.0 : (double)v->score[i]);
        some = true;
    }
    lb_buf_append_str(v->out, "]");
}

static enum lb_status write_unigram(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind) {
    static const char map_key[] = LB_TOKENIZER_KEY "precompiled_charsmap";
    int64_t map = lb_gguf_array_count(v->file, map_key);
    bool gap = false;
    for (int32_t i = 0; i < v->n; i++) {
        if (gap && v->text[i]) {
            return lb_fail(v->detail, LB_E_UNSUPPORTED, "%s: token %d comes behind rows that no token has",
                           v->what, i);
        }
        gap = gap || !v->text[i];
    }
    if (!v->score || v->ids.unk < 0) {
        return lb_fail(v->detail, LB_E_FORMAT, "%s: a vocabulary of model t5 needs %s", v->what,
                       v->score ? "unknown_token_id" : "scores");
    }
    lb_buf_append_str(v->out, ",\"normalizer\":");
    if (map > 0) {
        lb_buf_append_str(v->out, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
        put_base64(v, map_key, map);
        lb_buf_append_str(v->out, "\"}");
    } else {
        lb_buf_append_str(v->out, "null");
    }
    bool squeeze = lb_gguf_flag(v, LB_TOKENIZER_KEY "remove_extra_whitespaces", true);
    bool prefix = lb_gguf_flag(v, LB_TOKENIZER_KEY "add_space_prefix", true);
    lb_buf_printf(v->out,
                  ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[%s{\"type\":\"Metaspace\","
                  "\"replacement\":\"" SPACE "\",\"prepend_scheme\":\"%s\",\"split\":true}]}",
                  squeeze ? "{\"type\":\"WhitespaceSplit\"}," : "", prefix ? "always" : "never");
    enum lb_status status = lb_gguf_put_ends(v, kind->add_bos, kind->add_eos);
    if (status != LB_OK) {
        return status;
    }
    lb_buf_printf(v->out,
                  ",\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"" SPACE
                  "\",\"prepend_scheme\":\"%s\","
                  "\"split\":true},\"model\":{\"type\":\"Unigram\",\"unk_id\":%d,\"byte_fallback\":%s,",
                  prefix ? "always" : "never", v->ids.unk, has_bytes(v) ? "true" : "false");
    put_unigrams(v);
    lb_buf_append_str(v->out, "}");
    return LB_OK;
}

/* ---- the table ---- */

/* Ids that a file leaves out are those of the first model of the kind, as llama.cpp has them. */
static const struct lb_gguf_kind kinds[] = {
    {"gpt2", .ids = {-1, -1, -1, -1, -1}, .write = write_byte_level},
    {"llama", .ids = {1, 2, 0, -1, -1}, .add_bos = true, .spell = spell_sentencepiece,
     .write = write_sentencepiece},
    {"gemma4", .ids = {-1, -1, -1, -1, -1}, .spell = spell_sentencepiece, .write = write_sentencepiece},
    {"bert", .ids = {101, -1, 100, 102, 101}, .spell = spell_wordpiece, .write = write_wordpiece},
    {"t5", .ids = {-1, 1, 2, -1, -1}, .add_eos = true, .write = write_unigram},
};

const struct lb_gguf_kind *lb_gguf_kind_find(const char *model) {
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!strcmp(model, kinds[i].model)) {
            return &kinds[i];
        }
    }
    return NULL;
}
