#include "common/text/gguf_pre.h"

#include <string.h>

/* Patterns as the models' own tokenizer.json files have them. */
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static const char cl100k[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+"
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r"
    "\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen35_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M"
    "}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char o200k[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i"
    ":'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{L"
    "l}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r"
    "\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char tekken_pattern[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^"
    "\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{"
    "N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char bloom_pattern[] = " ?[^(\\s|[.,!?…。，、।۔،])]+";
/* Letters with case, in the version of Unicode of that model. */
static const char cased_letters[] =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯ"
    "Ա-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-"
    "Ὅὐ-ὗὙὛὝὟ-\xe1\xbd\xbd"
    "ᾀ-ᾴᾶ-ᾼ\xe1\xbe\xbe"
    "ῂ-ῄῆ-ῌῐ-\xe1\xbf\x93"
    "ῖ-\xe1\xbf\x9b"
    "ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\xe2\x84\xa6"
    "ℨ\xe2\x84\xaa"
    "-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ"
    "-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-"
    "𐳲𑢠-𑣟𞤀-𞥃]+";
static const char marks[] = "\\s?[!-/:-~！-／：-～‘-‟　-。]+";
static const char han[] = "[一-龥ࠀ-一가-퟿]+";
static const char kana[] = "[一-龥぀-ゟ゠-ヿ]+";
static const char deepseek3_pattern[] =
    "[!\\\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}"
    "\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* How text is cut, step by step: a regex, or one of the words that gguf_pre.h names. */
static const char *const gpt2[] = {LB_CUT_GPT2, NULL};
static const char *const digits[] = {LB_CUT_DIGIT, LB_CUT_GPT2, NULL};
static const char *const llama3[] = {cl100k, LB_CUT_BYTES, NULL};
static const char *const qwen2[] = {qwen2_pattern, LB_CUT_BYTES, NULL};
static const char *const qwen35[] = {qwen35_pattern, LB_CUT_BYTES, NULL};
static const char *const gpt4o[] = {o200k, LB_CUT_BYTES, NULL};
static const char *const tekken[] = {tekken_pattern, LB_CUT_BYTES, NULL};
static const char *const bloom[] = {bloom_pattern, LB_CUT_BYTES, NULL};
static const char *const viking[] = {bloom_pattern, LB_CUT_DIGIT, LB_CUT_BYTES, NULL};
static const char *const falcon[] = {LB_CUT_PUNCTUATION, LB_CUT_GPT2, LB_CUT_DIGITS, "[0-9][0-9][0-9]", NULL};
static const char *const superbpe[] = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))", LB_CUT_BYTES, NULL};
static const char *const deepseek_llm[] = {"[\r\n]", cased_letters, marks,        "\\s+$",
                                           han,      "\\p{N}+",     LB_CUT_BYTES, NULL};
static const char *const deepseek_coder[] = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", han,
                                             "\\p{N}", LB_CUT_BYTES,  NULL};
static const char *const deepseek3[] = {"\\p{N}{1,3}", kana, deepseek3_pattern, LB_CUT_BYTES, NULL};
/* What llama.cpp does with files that name nothing. */
static const char *const unnamed[] = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2,         "\\p{N}+",
                                      "[0-9][0-9][0-9]",           LB_CUT_BYTES, NULL};

/* llama.cpp's names. It normalizes nothing; where the models of a name have NFC, so has the row, for that is
 * what they were trained with. Of rows that cut alike, the first is the one that is written. */
static const struct lb_gguf_pre rows[] = {
    {"gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 jais "
     "trillion "
     "granite-docling",
     .steps = gpt2},
    {"olmo mpt", .steps = gpt2, .normalizer = "NFC"},
    {"smollm starcoder refact codeshell exaone minerva-7b mellum2", .steps = digits},
    {"command-r", .steps = digits, .normalizer = "NFC"},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", .steps = llama3,
     .ignore_merges = true, .add_bos = true},
    {"smaug-bpe dbrx chatglm-bpe glm4", .steps = llama3},
    {"qwen2 megrez", .steps = qwen2, .normalizer = "NFC"},
    {"deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open grok-2", .steps = qwen2},
    {"qwen35", .steps = qwen35, .normalizer = "NFC"},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", .steps = gpt4o},
    {"tekken", .steps = tekken, .ignore_merges = true, .add_bos = true},
    {"deepseek-llm", .steps = deepseek_llm},
    {"deepseek-coder", .steps = deepseek_coder},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", .steps = deepseek3},
    {"falcon", .steps = falcon},
    {"bloom poro-chat gpt3-finnish", .steps = bloom},
    {"viking", .steps = viking},
    {"superbpe", .steps = superbpe},
    {"default", .steps = unnamed},
};
#define N_ROWS (sizeof rows / sizeof rows[0])

/* Whether name is one of the words of names. */
static bool is_among(const char *names, const char *name) {
    size_t len = strlen(name);
    for (const char *at = strstr(names, name); len > 0 && at; at = strstr(at + 1, name)) {
        if ((at == names || at[-1] == ' ') && (at[len] == ' ' || !at[len])) {
            return true;
        }
    }
    return false;
}

const struct lb_gguf_pre *lb_gguf_pre_find(const char *name) {
    for (size_t i = 0; i < N_ROWS && !strchr(name, ' '); i++) {
        if (is_among(rows[i].names, name)) {
            return &rows[i];
        }
    }
    return NULL;
}

/* ---- as tokenizer.json ---- */

static json_t *step_json(const char *step) {
    if (!strcmp(step, LB_CUT_GPT2) || !strcmp(step, LB_CUT_BYTES)) {
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets",
                         1, "use_regex", !strcmp(step, LB_CUT_GPT2));
    }
    if (!strcmp(step, LB_CUT_DIGIT) || !strcmp(step, LB_CUT_DIGITS)) {
        return json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", !strcmp(step, LB_CUT_DIGIT));
    }
    if (!strcmp(step, LB_CUT_PUNCTUATION)) {
        return json_pack("{s:s, s:s}", "type", "Punctuation", "behavior", "Contiguous");
    }
    return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", step, "behavior",
                     "Isolated", "invert", 0);
}

json_t *lb_gguf_pre_json(const struct lb_gguf_pre *pre) {
    if (!pre->steps[1]) {
        return step_json(pre->steps[0]);
    }
    json_t *list = json_array();
    for (size_t i = 0; pre->steps[i]; i++) {
        if (json_array_append_new(list, step_json(pre->steps[i]))) {
            json_decref(list);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

/* ---- and back ---- */

/* What a row's step is when ByteLevel's own pattern is taken apart from its bytes; NULL at i's end. */
static const char *plain_step(const struct lb_gguf_pre *pre, size_t i) {
    for (size_t k = 0; pre->steps[k]; k++) {
        bool both = !strcmp(pre->steps[k], LB_CUT_GPT2);
        if (i == 0) {
            return both ? GPT2 : pre->steps[k];
        }
        if (both && i == 1) {
            return LB_CUT_BYTES;
        }
        i -= both ? 2 : 1;
    }
    return NULL;
}

static bool is_text(const json_t *object, const char *key, const char *text) {
    const char *have = json_string_value(json_object_get(object, key));
    return have && !strcmp(have, text);
}

/* Whether item is step i of the row; *i moves behind what item does. */
static bool is_step(const json_t *item, const struct lb_gguf_pre *pre, size_t *i) {
    const char *step = plain_step(pre, (*i)++), *pattern;
    if (!step) {
        return false;
    }
    if (is_text(item, "type", "ByteLevel")) {
        const json_t *prefix = json_object_get(item, "add_prefix_space"),
                     *regex = json_object_get(item, "use_regex");
        if (!json_is_false(prefix)) {
            return false;
        }
        if (!json_is_false(regex)) {
            const char *bytes = plain_step(pre, (*i)++);
            return !strcmp(step, GPT2) && bytes && !strcmp(bytes, LB_CUT_BYTES);
        }
        return !strcmp(step, LB_CUT_BYTES);
    }
    if (is_text(item, "type", "Digits")) {
        bool one = json_is_true(json_object_get(item, "individual_digits"));
        return !strcmp(step, one ? LB_CUT_DIGIT : LB_CUT_DIGITS);
    }
    if (is_text(item, "type", "Punctuation")) {
        return is_text(item, "behavior", "Contiguous") && !strcmp(step, LB_CUT_PUNCTUATION);
    }
    /* A pattern that ends in "|\\s+" leaves nothing between its matches: to keep what matches is to remove
     * what does not. */
    size_t len = strlen(step);
    bool whole = len > 4 && !strcmp(step + len - 4, "|\\s+");
    bool invert = json_is_true(json_object_get(item, "invert"));
    bool isolated = is_text(item, "behavior", invert ? "Removed" : "Isolated") && (whole || !invert);
    pattern = json_string_value(json_object_get(json_object_get(item, "pattern"), "Regex"));
    return is_text(item, "type", "Split") && isolated && pattern && !strcmp(pattern, step);
}

static bool cuts_so(const json_t *value, const struct lb_gguf_pre *pre) {
    const json_t *list = is_text(value, "type", "Sequence") ? json_object_get(value, "pretokenizers") : NULL;
    size_t i = 0, n = list ? json_array_size(list) : 1;
    for (size_t k = 0; k < n; k++) {
        if (!is_step(list ? json_array_get(list, k) : value, pre, &i)) {
            return false;
        }
    }
    return !plain_step(pre, i);
}

/* Whether value normalizes as the row does: one step of that name, alone or in a Sequence. */
static bool normalizes_so(const json_t *value, const char *name) {
    const json_t *list = json_object_get(value, "normalizers");
    if (is_text(value, "type", "Sequence") && json_array_size(list) <= 1) {
        value = json_array_get(list, 0);
    }
    return name ? is_text(value, "type", name) : !value || json_is_null(value);
}

const struct lb_gguf_pre *lb_gguf_pre_of(const json_t *tokenizer) {
    bool whole = json_is_true(json_object_get(json_object_get(tokenizer, "model"), "ignore_merges"));
    for (size_t i = 0; i < N_ROWS; i++) {
        if (rows[i].ignore_merges == whole &&
            normalizes_so(json_object_get(tokenizer, "normalizer"), rows[i].normalizer) &&
            cuts_so(json_object_get(tokenizer, "pre_tokenizer"), &rows[i])) {
            return &rows[i];
        }
    }
    return NULL;
}
