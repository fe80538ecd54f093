#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/text/pretokenize.h"

#include "common/base/mem.h"
#include "common/text/byte_level.h"
#include "common/text/onig.h"

#include <pcre2.h>
#include <string.h>

#define MAX_STEPS 32
#define MAX_PATTERN_BYTES 65536
#define MAX_TEXT_BYTES ((size_t)1 << 31)

/* GPT-2's pattern (Radford et al. 2019), as ByteLevel with use_regex applies it. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* What becomes of the stretches that a regex matches (tokenizers: SplitDelimiterBehavior). */
enum behaviour { ISOLATED, REMOVED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };

enum step_kind {
    STEP_PREFIX_SPACE, /* a piece that does not begin with a space gets one */
    STEP_SPLIT,        /* pieces are cut at the matches of a regex */
    STEP_LETTERS       /* bytes become letters, which the steps behind it see */
};

struct step {
    enum step_kind kind;
    enum behaviour behaviour;
    bool invert; /* what does not match counts as matched, and the other way round */
    pcre2_code *code;
    uint8_t
        pattern[LB_SHA256_BYTES]; /* digest of the pattern as the file has it, and of whether it is literal */
};

struct lb_pretokenizer {
    struct step step[MAX_STEPS];
    int n_steps;
    bool bytes;   /* ByteLevel is there */
    bool letters; /* so is its STEP_LETTERS, which is left out when it would be the last: then to be undone at
                     the end */
    pcre2_general_context *memory;
    pcre2_compile_context *compile;
};

static void *pcre2_allocate(size_t bytes, void *unused) {
    (void)unused;
    return lb_malloc_array(bytes, 1);
}

static void pcre2_release(void *p, void *unused) {
    (void)unused;
    lb_free(p);
}

/* ---- reading ---- */

struct parser {
    struct lb_pretokenizer *to;
    const char *what;
    struct lb_detail *detail;
};

static enum lb_status no_memory(const struct parser *parser) {
    return lb_fail(parser->detail, LB_E_NOMEM, "%s: out of memory for the pre_tokenizer", parser->what);
}

/* NULL (and the error recorded: LB_E_LIMIT) when the list is full. */
static struct step *add_step(const struct parser *parser, enum step_kind kind) {
    struct lb_pretokenizer *to = parser->to;
    if (to->n_steps == MAX_STEPS) {
        (void)lb_fail(parser->detail, LB_E_LIMIT, "%s: pre_tokenizer has more than %d steps", parser->what,
                      MAX_STEPS);
        return NULL;
    }
    to->step[to->n_steps].kind = kind;
    return &to->step[to->n_steps++];
}

/* Compiles pattern (PCRE2's words, or a literal text) into step->code. */
static enum lb_status compile(const struct parser *parser, const char *pattern, size_t len, bool literal,
                              struct step *step) {
    int error;
    PCRE2_SIZE offset;
    uint32_t options = literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP;
    step->code = pcre2_compile((PCRE2_SPTR)pattern, len, options, &error, &offset, parser->to->compile);
    if (!step->code) {
        char text[160] = "unknown error";
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        enum lb_status status = error == PCRE2_ERROR_HEAP_FAILED ? LB_E_NOMEM : LB_E_UNSUPPORTED;
        return lb_fail(parser->detail, status,
                       "%s: pre_tokenizer: the regex cannot be compiled (%s, near byte %zu)", parser->what,
                       text, (size_t)offset);
    }
    pcre2_jit_compile(step->code, PCRE2_JIT_COMPLETE); /* without it, the same answers more slowly */
    return LB_OK;
}

static enum lb_status add_split(const struct parser *parser, const char *pattern, size_t len, bool literal,
                                enum behaviour behaviour, bool invert) {
    if (len == 0 || len > MAX_PATTERN_BYTES) {
        return lb_fail(parser->detail, LB_E_LIMIT,
                       "%s: pre_tokenizer: a pattern of %zu bytes (1 to %d are accepted)", parser->what, len,
                       MAX_PATTERN_BYTES);
    }
    struct lb_buf words;
    lb_buf_init(&words, 32 * (size_t)MAX_PATTERN_BYTES);
    struct step *step = add_step(parser, STEP_SPLIT);
    enum lb_status status = step ? LB_OK : LB_E_LIMIT;
    if (status == LB_OK) {
        status = literal ? lb_buf_append(&words, pattern, len)
                         : lb_onig_translate(pattern, len, parser->what, &words, parser->detail);
    }
    if (status == LB_OK) {
        step->behaviour = behaviour;
        step->invert = invert;
        struct lb_sha256 *digest = lb_sha256_create();
        status = digest ? compile(parser, words.data, words.len, literal, step) : no_memory(parser);
        lb_sha256_u32(digest, literal);
        lb_sha256_update(digest, pattern, len);
        lb_sha256_final(digest, step->pattern);
    } else if (status == LB_E_NOMEM) {
        status = no_memory(parser);
    }
    lb_buf_finish(&words);
    return status;
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
        status = add_step(parser, STEP_PREFIX_SPACE) ? LB_OK : LB_E_LIMIT;
    }
    if (status == LB_OK && regex) {
        status = add_split(parser, gpt2_pattern, sizeof gpt2_pattern - 1, false, ISOLATED, false);
    }
    if (status == LB_OK) {
        status = add_step(parser, STEP_LETTERS) ? LB_OK : LB_E_LIMIT;
        parser->to->bytes = true;
    }
    return status;
}

static enum lb_status parse_behaviour(const struct parser *parser, const json_t *value, bool required,
                                      enum behaviour *out) {
    static const struct {
        const char *name;
        enum behaviour behaviour;
    } names[] = {{"Isolated", ISOLATED},
                 {"Removed", REMOVED},
                 {"MergedWithPrevious", MERGED_WITH_PREVIOUS},
                 {"MergedWithNext", MERGED_WITH_NEXT},
                 {"Contiguous", CONTIGUOUS}};
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
    enum behaviour behaviour = ISOLATED;
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
    return status != LB_OK ? status
                           : add_split(parser, "\\p{N}", 5, false, individual ? ISOLATED : CONTIGUOUS, false);
}

static enum lb_status parse_punctuation(const struct parser *parser, const json_t *value) {
    static const char pattern[] = "[\\p{P}$+<=>^`|~]"; /* Unicode's, and what ASCII calls so */
    enum behaviour behaviour = ISOLATED;
    enum lb_status status = parse_behaviour(parser, value, false, &behaviour);
    return status != LB_OK ? status : add_split(parser, pattern, sizeof pattern - 1, false, behaviour, false);
}

static enum lb_status parse_whitespace_split(const struct parser *parser, const json_t *value) {
    (void)value;
    return add_split(parser, "\\s", 2, false, REMOVED, false);
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
    return lb_fail(parser->detail, LB_E_UNSUPPORTED,
                   "%s: pre_tokenizer type \"%.40s\" is not supported (ByteLevel, Split, Digits, "
                   "Punctuation, WhitespaceSplit and "
                   "a Sequence of them are)",
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
    struct lb_pretokenizer *to = lb_calloc(1, sizeof *to);
    struct parser parser = {.to = to, .what = what, .detail = detail};
    if (!to) {
        return no_memory(&parser);
    }
    to->memory = pcre2_general_context_create(pcre2_allocate, pcre2_release, NULL);
    to->compile = to->memory ? pcre2_compile_context_create(to->memory) : NULL;
    enum lb_status status = to->compile ? LB_OK : no_memory(&parser);
    if (status == LB_OK) {
        pcre2_set_newline(to->compile, PCRE2_NEWLINE_LF);
        status = parse_all(&parser, value);
    }
    if (status == LB_OK && to->bytes) {
        to->letters = to->step[to->n_steps - 1].kind != STEP_LETTERS;
        to->n_steps -= !to->letters;
    }
    if (status != LB_OK) {
        lb_pretokenizer_destroy(to);
        return status;
    }
    *out = to;
    return LB_OK;
}

void lb_pretokenizer_destroy(struct lb_pretokenizer *pretokenizer) {
    if (pretokenizer) {
        for (int i = 0; i < MAX_STEPS; i++) {
            pcre2_code_free(pretokenizer->step[i].code);
        }
        pcre2_compile_context_free(pretokenizer->compile);
        pcre2_general_context_free(pretokenizer->memory);
        lb_free(pretokenizer);
    }
}

void lb_pretokenizer_hash(const struct lb_pretokenizer *pretokenizer, struct lb_sha256 *hash) {
    lb_sha256_u32(hash, (uint32_t)pretokenizer->n_steps);
    for (int i = 0; i < pretokenizer->n_steps; i++) {
        const struct step *step = &pretokenizer->step[i];
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

/* ---- running ---- */

void lb_pieces_finish(struct lb_pieces *pieces) {
    if (pieces) {
        lb_free(pieces->span);
        lb_free(pieces->spare);
        lb_free(pieces->copy[0]);
        lb_free(pieces->copy[1]);
        pcre2_match_data_free(pieces->match);
        memset(pieces, 0, sizeof *pieces);
    }
}

/* Appends a span to the spare list, which becomes the list when the step is done; empty ones vanish. */
static enum lb_status push(struct lb_pieces *pieces, size_t *n, size_t start, size_t end) {
    if (start == end) {
        return LB_OK;
    }
    if (*n == pieces->spare_cap) {
        size_t cap = pieces->spare_cap ? pieces->spare_cap * 2 : 64;
        struct lb_piece_span *spare = lb_realloc_array(pieces->spare, cap, sizeof *spare);
        if (!spare) {
            return LB_E_NOMEM;
        }
        pieces->spare = spare;
        pieces->spare_cap = cap;
    }
    pieces->spare[(*n)++] = (struct lb_piece_span){(uint32_t)start, (uint32_t)(end - start)};
    return LB_OK;
}

static void swap_spans(struct lb_pieces *pieces, size_t n) {
    struct lb_piece_span *span = pieces->span;
    size_t cap = pieces->cap;
    pieces->span = pieces->spare;
    pieces->cap = pieces->spare_cap;
    pieces->spare = span;
    pieces->spare_cap = cap;
    pieces->n = n;
}

/* A copy of at least n bytes that is not the one that pieces->text lies in. */
static char *other_copy(struct lb_pieces *pieces, size_t n) {
    int i = pieces->text == pieces->copy[0] ? 1 : 0;
    if (pieces->copy_cap[i] < n) {
        char *copy = lb_realloc_array(pieces->copy[i], n, 1);
        if (!copy) {
            return NULL;
        }
        pieces->copy[i] = copy;
        pieces->copy_cap[i] = n;
    }
    return pieces->copy[i];
}

/* A match or what lies between two, on its way into the list of pieces. */
struct joiner {
    struct lb_pieces *pieces;
    size_t n; /* spans so far */
    enum behaviour behaviour;
    bool invert;
    bool open;         /* [start, end) waits for what may be joined to it */
    bool last_matched; /* of the stretch before */
    size_t start, end;
};

/* The rules of tokenizers' NormalizedString::split. Stretches come in order and touch each other. */
static enum lb_status join(struct joiner *j, size_t start, size_t end, bool matched) {
    matched = matched != j->invert;
    bool extend = false;
    switch (j->behaviour) {
    case ISOLATED:
        break;
    case REMOVED:
        if (matched) {
            return LB_OK;
        }
        break;
    case MERGED_WITH_PREVIOUS: /* a match joins what stands before it, unless that is a match */
        extend = j->open && matched && !j->last_matched;
        break;
    case MERGED_WITH_NEXT: /* what stands behind a match joins it, unless that is a match */
        extend = j->open && j->last_matched && !matched;
        break;
    case CONTIGUOUS:
        extend = j->open && matched == j->last_matched;
        break;
    }
    enum lb_status status = LB_OK;
    if (j->open && !extend) {
        status = push(j->pieces, &j->n, j->start, j->end);
    }
    if (!extend) {
        j->start = start;
    }
    j->end = end;
    j->open = true;
    j->last_matched = matched;
    return status;
}

static enum lb_status match(const struct step *step, struct lb_pieces *pieces,
                            const struct lb_piece_span *span, size_t from, bool *out_found, size_t *out_start,
                            size_t *out_end, struct lb_detail *detail) {
    PCRE2_SPTR subject = (PCRE2_SPTR)pieces->text + span->start;
    int rc = pcre2_match(step->code, subject, span->len, from, PCRE2_NO_UTF_CHECK, pieces->match, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(step->code, subject, span->len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         pieces->match, NULL);
    }
    *out_found = rc >= 0;
    if (rc >= 0) {
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(pieces->match);
        *out_start = range[0];
        *out_end = range[1];
    }
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) {
        return LB_OK;
    }
    char text[160] = "unknown error";
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)text, sizeof text);
    return lb_fail(detail, rc == PCRE2_ERROR_NOMEMORY ? LB_E_NOMEM : LB_E_LIMIT,
                   "the tokenizer's regex gives up on this text, %zu bytes into a piece of %u: %s", from,
                   span->len, text);
}

/* All matches in one span, and what lies between them. An empty match right behind another is passed over, as
 * Oniguruma's iterator does. */
static enum lb_status split_span(const struct step *step, struct joiner *j, const struct lb_piece_span *span,
                                 struct lb_detail *detail) {
    const char *text = j->pieces->text + span->start;
    size_t done = 0, from = 0;
    bool matched_before = false;
    j->open = j->last_matched = false;
    enum lb_status status = LB_OK;
    while (status == LB_OK && from <= span->len) {
        bool found;
        size_t start = 0, end = 0;
        status = match(step, j->pieces, span, from, &found, &start, &end, detail);
        if (status != LB_OK || !found) {
            break;
        }
        if (start == end && matched_before && end == done) {
            do {
                from++;
            } while (from < span->len && ((uint8_t)text[from] & 0xc0) == 0x80);
            continue;
        }
        if (start > done) {
            status = join(j, span->start + done, span->start + start, false);
        }
        if (status == LB_OK) {
            status = join(j, span->start + start, span->start + end, true);
        }
        matched_before = true;
        done = from = end;
    }
    if (status == LB_OK && done < span->len) {
        status = join(j, span->start + done, span->start + span->len, false);
    }
    if (status == LB_OK && j->open) {
        status = push(j->pieces, &j->n, j->start, j->end);
    }
    return status;
}

static enum lb_status run_split(const struct step *step, struct lb_pieces *pieces, struct lb_detail *detail) {
    struct joiner j = {.pieces = pieces, .behaviour = step->behaviour, .invert = step->invert};
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < pieces->n && status == LB_OK; i++) {
        status = split_span(step, &j, &pieces->span[i], detail);
    }
    if (status == LB_OK) {
        swap_spans(pieces, j.n);
    }
    return status;
}

static enum lb_status run_prefix_space(struct lb_pieces *pieces) {
    size_t total = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        total += pieces->span[i].len + (size_t)1;
    }
    if (total >= MAX_TEXT_BYTES) {
        return LB_E_LIMIT;
    }
    char *copy = other_copy(pieces, total);
    if (!copy) {
        return LB_E_NOMEM;
    }
    size_t at = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        struct lb_piece_span *span = &pieces->span[i];
        const char *text = pieces->text + span->start;
        size_t start = at;
        if (text[0] != ' ') {
            copy[at++] = ' ';
        }
        memcpy(copy + at, text, span->len);
        at += span->len;
        *span = (struct lb_piece_span){(uint32_t)start, (uint32_t)(at - start)};
    }
    pieces->text = copy;
    return LB_OK;
}

static enum lb_status run_letters(struct lb_pieces *pieces) {
    size_t total = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        total += 2 * (size_t)pieces->span[i].len;
    }
    if (total >= MAX_TEXT_BYTES) {
        return LB_E_LIMIT;
    }
    char *copy = other_copy(pieces, total);
    if (!copy) {
        return LB_E_NOMEM;
    }
    size_t at = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        struct lb_piece_span *span = &pieces->span[i];
        size_t n = lb_bytes_to_letters(pieces->text + span->start, span->len, copy + at);
        *span = (struct lb_piece_span){(uint32_t)at, (uint32_t)n};
        at += n;
    }
    pieces->text = copy;
    return LB_OK;
}

/* The steps behind STEP_LETTERS have seen letters; the model wants bytes. Done in place: the text is a copy
 * of ours. */
static void undo_letters(struct lb_pieces *pieces) {
    char *copy = pieces->text == pieces->copy[0] ? pieces->copy[0] : pieces->copy[1];
    for (size_t i = 0; i < pieces->n; i++) {
        struct lb_piece_span *span = &pieces->span[i];
        size_t n = 0;
        lb_letters_to_bytes(copy + span->start, span->len, copy + span->start, &n);
        span->len = (uint32_t)n;
    }
}

enum lb_status lb_pretokenize(const struct lb_pretokenizer *pretokenizer, const char *text, size_t len,
                              struct lb_pieces *pieces, struct lb_detail *detail) {
    if (len >= MAX_TEXT_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "a text of %zu bytes; cut it into parts below 2 GiB", len);
    }
    if (!pieces->match) {
        pieces->match = pcre2_match_data_create(1, pretokenizer->memory);
        if (!pieces->match) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for a regex");
        }
    }
    size_t n = 0;
    pieces->text = text;
    enum lb_status status = push(pieces, &n, 0, len);
    if (status == LB_OK) {
        swap_spans(pieces, n);
    }
    for (int i = 0; i < pretokenizer->n_steps && status == LB_OK; i++) {
        const struct step *step = &pretokenizer->step[i];
        switch (step->kind) {
        case STEP_PREFIX_SPACE:
            status = run_prefix_space(pieces);
            break;
        case STEP_SPLIT:
            status = run_split(step, pieces, detail);
            break;
        case STEP_LETTERS:
            status = run_letters(pieces);
            break;
        }
    }
    if (status != LB_OK) {
        return lb_fail(detail, status, "a text of %zu bytes needs too much memory; cut it into parts", len);
    }
    if (pretokenizer->letters) {
        undo_letters(pieces);
    }
    return LB_OK;
}
