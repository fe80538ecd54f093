#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/steps.h"
#include "common/text/unicode.h"

#include <string.h>

#define MAX_WHERE 4096

/* GPT-2's pattern (Radford et al. 2019), as ByteLevel with use_regex applies it. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- reading ---- */

struct parser {
    struct lb_pretokenizer *to;
    const char *what;
    const char *where; /* what, and that it is about the pre_tokenizer */
    struct lb_detail *detail;
};

static enum lb_status no_memory(const struct parser *parser) {
    return lb_fail(parser->detail, LB_E_NOMEM, "%s: out of memory for the pre_tokenizer", parser->what);
}

/* NULL (and the error recorded: LB_E_LIMIT) when the list is full. */
static struct lb_step *add_step(const struct parser *parser, enum lb_step_kind kind) {
    struct lb_pretokenizer *to = parser->to;
    if (to->n_steps == LB_MAX_STEPS) {
        (void)lb_fail(parser->detail, LB_E_LIMIT, "%s: pre_tokenizer has more than %d steps", parser->what,
                      LB_MAX_STEPS);
        return NULL;
    }
    to->step[to->n_steps].kind = kind;
    return &to->step[to->n_steps++];
}

static enum lb_status digest_of(const struct parser *parser, bool literal, const char *pattern, size_t len,
                                uint8_t out[LB_SHA256_BYTES]) {
    struct lb_sha256 *digest = lb_sha256_create();
    if (!digest) {
        return no_memory(parser);
    }
    lb_sha256_u32(digest, literal);
    lb_sha256_update(digest, pattern, len);
    lb_sha256_final(digest, out);
    return LB_OK;
}

static enum lb_status add_split(const struct parser *parser, const char *pattern, size_t len, bool literal,
                                enum lb_behaviour behaviour, bool invert) {
    struct lb_step *step = add_step(parser, LB_STEP_SPLIT);
    if (!step) {
        return LB_E_LIMIT;
    }
    step->behaviour = behaviour;
    step->invert = invert;
    enum lb_status status =
        lb_regex_create(pattern, len, literal, parser->where, &step->regex, parser->detail);
    if (status == LB_OK) {
        memcpy(step->pattern, lb_regex_digest(step->regex), sizeof step->pattern);
    }
    return status;
}

/* Cuts at each character of a kind; name stands for the kind in fingerprints. */
static enum lb_status add_kind(const struct parser *parser, const char *name, bool (*is_match)(uint32_t c),
                               enum lb_behaviour behaviour) {
    struct lb_step *step = add_step(parser, LB_STEP_SPLIT);
    if (!step) {
        return LB_E_LIMIT;
    }
    step->behaviour = behaviour;
    step->is_match = is_match;
    return digest_of(parser, false, name, strlen(name), step->pattern);
}

static enum lb_status parse_byte_level(const struct parser *parser, const json_t *value) {
    bool prefix = true, regex = true; /* the defaults of tokenizers */
    enum lb_status status =
        lb_json_bool(value, "add_prefix_space", false, parser->what, &prefix, parser->detail);
    if (status == LB_OK) {
        status = lb_json_bool(value, "use_regex", false, parser->what, &regex, parser->detail);
    }
    if (status == LB_OK && parser->to->bytes) {
        status = lb_fail(parser->detail, LB_E_UNSUPPORTED, "%s: pre_tokenizer: more than one ByteLevel",
                         parser->what);
    }
    if (status == LB_OK && prefix) {
        status = add_step(parser, LB_STEP_PREFIX_SPACE) ? LB_OK : LB_E_LIMIT;
    }
    if (status == LB_OK && regex) {
        status = add_split(parser, gpt2_pattern, sizeof gpt2_pattern - 1, false, LB_ISOLATED, false);
    }
    if (status == LB_OK) {
        status = add_step(parser, LB_STEP_LETTERS) ? LB_OK : LB_E_LIMIT;
        parser->to->bytes = true;
    }
    return status;
}

static enum lb_status parse_behaviour(const struct parser *parser, const json_t *value, bool required,
                                      enum lb_behaviour *out) {
    static const struct {
        const char *name;
        enum lb_behaviour behaviour;
    } names[] = {{"Isolated", LB_ISOLATED},
                 {"Removed", LB_REMOVED},
                 {"MergedWithPrevious", LB_MERGED_WITH_PREVIOUS},
                 {"MergedWithNext", LB_MERGED_WITH_NEXT},
                 {"Contiguous", LB_CONTIGUOUS}};
    const char *name = NULL;
    enum lb_status status = lb_json_str(value, "behavior", required, parser->what, &name, parser->detail);
    if (status != LB_OK || !name) {
        return status;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(name, names[i].name)) {
            *out = names[i].behaviour;
            return LB_OK;
        }
    }
    return lb_fail(parser->detail, LB_E_UNSUPPORTED, "%s: pre_tokenizer: behavior \"%.40s\" is not supported",
                   parser->what, name);
}

static enum lb_status parse_split(const struct parser *parser, const json_t *value) {
    enum lb_behaviour behaviour = LB_ISOLATED;
    bool invert = false;
    enum lb_status status = parse_behaviour(parser, value, true, &behaviour);
    if (status == LB_OK) {
        status = lb_json_bool(value, "invert", false, parser->what, &invert, parser->detail);
    }
    if (status != LB_OK) {
        return status;
    }
    const json_t *pattern = json_object_get(value, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *text = json_object_get(pattern, "String");
    const json_t *given = regex ? regex : text;
    if (!json_is_string(given) || json_object_size(pattern) != 1) {
        return lb_fail(parser->detail, LB_E_FORMAT,
                       "%s: pre_tokenizer: Split needs pattern {\"Regex\": ...} or {\"String\": ...}",
                       parser->what);
    }
    return add_split(parser, json_string_value(given), json_string_length(given), !regex, behaviour, invert);
}

static enum lb_status parse_digits(const struct parser *parser, const json_t *value) {
    bool individual = false;
    enum lb_status status =
        lb_json_bool(value, "individual_digits", false, parser->what, &individual, parser->detail);
    return status != LB_OK
               ? status
               : add_kind(parser, "\\p{N}", lb_is_number, individual ? LB_ISOLATED : LB_CONTIGUOUS);
}

static enum lb_status parse_punctuation(const struct parser *parser, const json_t *value) {
    enum lb_behaviour behaviour = LB_ISOLATED;
    enum lb_status status = parse_behaviour(parser, value, false, &behaviour);
    return status != LB_OK ? status : add_kind(parser, "[\\p{P}$+<=>^`|~]", lb_is_punctuation, behaviour);
}

static enum lb_status parse_whitespace_split(const struct parser *parser, const json_t *value) {
    (void)value;
    return add_kind(parser, "\\s", lb_is_space, LB_REMOVED);
}

static enum lb_status parse_bert(const struct parser *parser, const json_t *value) {
    enum lb_status status = parse_whitespace_split(parser, value);
    return status != LB_OK ? status : add_kind(parser, "[\\p{P}$+<=>^`|~]", lb_is_punctuation, LB_ISOLATED);
}

static enum lb_status parse_whitespace(const struct parser *parser, const json_t *value) {
    (void)value;
    return add_step(parser, LB_STEP_WORDS) ? LB_OK : LB_E_LIMIT;
}

/* One character, of the key; other texts are refused. */
static enum lb_status read_character(const struct parser *parser, const json_t *value, const char *key,
                                     const char **out, size_t *out_len) {
    const json_t *text = json_object_get(value, key);
    const char *bytes = json_string_value(text);
    size_t n = json_string_length(text);
    if (!bytes || !n || lb_utf8_char((const uint8_t *)bytes, n) != n) {
        return lb_fail(parser->detail, LB_E_FORMAT, "%s: %s must be one character", parser->where, key);
    }
    *out = bytes;
    *out_len = n;
    return LB_OK;
}

static enum lb_status parse_delimiter(const struct parser *parser, const json_t *value) {
    const char *text = NULL;
    size_t n = 0;
    enum lb_status status = read_character(parser, value, "delimiter", &text, &n);
    return status != LB_OK ? status : add_split(parser, text, n, true, LB_REMOVED, false);
}

static enum lb_status parse_metaspace(const struct parser *parser, const json_t *value) {
    static const char *const schemes[] = {
        [LB_PREPEND_ALWAYS] = "always", [LB_PREPEND_FIRST] = "first", [LB_PREPEND_NEVER] = "never"};
    const char *sign = NULL, *scheme = NULL;
    size_t n = 0, i = 0;
    bool split = true, prefix = true;
    enum lb_status status = read_character(parser, value, "replacement", &sign, &n);
    status = status != LB_OK
                 ? status
                 : lb_json_str(value, "prepend_scheme", false, parser->what, &scheme, parser->detail);
    status =
        status != LB_OK ? status : lb_json_bool(value, "split", false, parser->what, &split, parser->detail);
    status = status != LB_OK
                 ? status
                 : lb_json_bool(value, "add_prefix_space", false, parser->what, &prefix, parser->detail);
    if (status != LB_OK) {
        return status;
    }
    scheme = scheme ? scheme : schemes[prefix ? LB_PREPEND_ALWAYS : LB_PREPEND_NEVER];
    while (i < sizeof schemes / sizeof schemes[0] && strcmp(scheme, schemes[i]) != 0) {
        i++;
    }
    if (i == sizeof schemes / sizeof schemes[0] || (!prefix && i != LB_PREPEND_NEVER)) {
        return lb_fail(parser->detail, LB_E_UNSUPPORTED,
                       "%s: Metaspace has prepend_scheme \"%.40s\"%s (always, first and never are known)",
                       parser->where, scheme, prefix ? "" : " with add_prefix_space false");
    }
    struct lb_step *step = add_step(parser, LB_STEP_METASPACE);
    if (!step) {
        return LB_E_LIMIT;
    }
    memcpy(step->sign, sign, n);
    step->sign_len = (uint8_t)n;
    step->prepend = (enum lb_prepend)i;
    step->split = split;
    step->behaviour = LB_MERGED_WITH_NEXT;
    char about[8] = {(char)i, (char)split};
    memcpy(about + 2, sign, n);
    return digest_of(parser, true, about, n + 2, step->pattern);
}

/* Files do not nest them, and without that nothing here recurses. */
static enum lb_status parse_nested(const struct parser *parser, const json_t *value) {
    (void)value;
    return lb_fail(parser->detail, LB_E_UNSUPPORTED,
                   "%s: pre_tokenizer: a Sequence within a Sequence is not supported", parser->what);
}

/* A new kind is a function and a line. */
static const struct {
    const char *type;
    enum lb_status (*parse)(const struct parser *parser, const json_t *value);
} kinds[] = {{"ByteLevel", parse_byte_level},
             {"Split", parse_split},
             {"Digits", parse_digits},
             {"Punctuation", parse_punctuation},
             {"WhitespaceSplit", parse_whitespace_split},
             {"Whitespace", parse_whitespace},
             {"BertPreTokenizer", parse_bert},
             {"CharDelimiterSplit", parse_delimiter},
             {"Metaspace", parse_metaspace},
             {"Sequence", parse_nested}};

static enum lb_status parse_one(const struct parser *parser, const json_t *value) {
    const char *type = NULL;
    enum lb_status status = lb_json_str(value, "type", true, parser->what, &type, parser->detail);
    if (status != LB_OK) {
        return status;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!strcmp(type, kinds[i].type)) {
            return kinds[i].parse(parser, value);
        }
    }
    return lb_fail(
        parser->detail, LB_E_UNSUPPORTED,
        "%s: pre_tokenizer type \"%.40s\" is not supported (ByteLevel, Split, Digits, "
        "Punctuation, WhitespaceSplit, Whitespace, BertPreTokenizer, CharDelimiterSplit, Metaspace "
        "and a Sequence of them are)",
        parser->what, type);
}

static enum lb_status parse_all(const struct parser *parser, const json_t *value) {
    if (!value || json_is_null(value)) {
        return LB_OK;
    }
    const json_t *type = json_object_get(value, "type");
    if (!json_is_string(type) || strcmp(json_string_value(type), "Sequence") != 0) {
        return parse_one(parser, value);
    }
    const json_t *list = json_object_get(value, "pretokenizers");
    if (!json_is_array(list)) {
        return lb_fail(parser->detail, LB_E_FORMAT,
                       "%s: pre_tokenizer: Sequence without a list \"pretokenizers\"", parser->what);
    }
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item) {
        enum lb_status status = parse_one(parser, item);
        if (status != LB_OK) {
            return status;
        }
    }
    return LB_OK;
}

enum lb_status lb_pretokenizer_create(const json_t *value, const char *what, struct lb_pretokenizer **out,
                                      struct lb_detail *detail) {
    struct lb_buf where;
    lb_buf_init(&where, MAX_WHERE);
    lb_buf_printf(&where, "%s: pre_tokenizer", what);
    struct lb_pretokenizer *to = lb_calloc(1, sizeof *to);
    struct parser parser = {
        .to = to, .what = what, .where = where.data ? where.data : what, .detail = detail};
    enum lb_status status = to ? parse_all(&parser, value) : no_memory(&parser);
    if (status == LB_OK && to->bytes) {
        to->letters = to->step[to->n_steps - 1].kind != LB_STEP_LETTERS;
        to->n_steps -= !to->letters;
    }
    lb_buf_finish(&where);
    if (status != LB_OK) {
        lb_pretokenizer_destroy(to);
        return status;
    }
    *out = to;
    return LB_OK;
}

void lb_pretokenizer_destroy(struct lb_pretokenizer *pretokenizer) {
    if (pretokenizer) {
        for (int i = 0; i < LB_MAX_STEPS; i++) {
            lb_regex_destroy(pretokenizer->step[i].regex);
        }
        lb_free(pretokenizer);
    }
}

void lb_pretokenizer_hash(const struct lb_pretokenizer *pretokenizer, struct lb_sha256 *hash) {
    lb_sha256_u32(hash, (uint32_t)pretokenizer->n_steps);
    for (int i = 0; i < pretokenizer->n_steps; i++) {
        const struct lb_step *step = &pretokenizer->step[i];
        lb_sha256_u32(hash, step->kind);
        lb_sha256_u32(hash, step->behaviour);
        lb_sha256_u32(hash, step->invert);
        lb_sha256_update(hash, step->pattern, sizeof step->pattern);
    }
    lb_sha256_u32(hash, (uint32_t)pretokenizer->bytes << 1 | (uint32_t)pretokenizer->letters);
}

bool lb_pretokenizer_bytes(const struct lb_pretokenizer *pretokenizer) {
    return pretokenizer->bytes;
}
