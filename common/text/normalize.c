#include "common/text/normalize.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/charsmap.h"

#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 31)

/* In fingerprints by their number: new ones go to the end. */
enum kind { NFC, NFD, NFKC, NFKD, LOWERCASE, PREPEND, REPLACE, STRIP, STRIP_ACCENTS, BERT, NMT, PRECOMPILED };

struct lb_normalizer_step {
    uint8_t kind;
    bool left, right;                    /* Strip */
    bool clean, chinese, accents, lower; /* BertNormalizer */
    char *content;                       /* Prepend, Replace */
    size_t content_len;
    struct lb_regex *regex; /* Replace */
    char *literal;          /* Replace: in place of a regex, the text that it looks for */
    size_t literal_len;
    struct lb_charsmap *charsmap; /* Precompiled */
};

void lb_normalized_finish(struct lb_normalized *normalized) {
    if (normalized) {
        lb_buf_finish(&normalized->copy[0]);
        lb_buf_finish(&normalized->copy[1]);
        lb_free(normalized->points.data);
        lb_free(normalized->points.spare);
        lb_regex_run_finish(&normalized->run);
        memset(normalized, 0, sizeof *normalized);
    }
}

void lb_normalizer_finish(struct lb_normalizer *normalizer) {
    if (normalizer) {
        for (int i = 0; i < normalizer->n; i++) {
            struct lb_normalizer_step *step = &normalizer->step[i];
            lb_free(step->content);
            lb_free(step->literal);
            lb_regex_destroy(step->regex);
            lb_charsmap_destroy(step->charsmap);
        }
        lb_free(normalizer->step);
        memset(normalizer, 0, sizeof *normalizer);
    }
}

/* ---- reading ---- */

struct parser {
    struct lb_normalizer *to;
    const char *what;
    struct lb_detail *detail;
};

static enum lb_status no_memory(const struct parser *parser) {
    return lb_fail(parser->detail, LB_E_NOMEM, "%s: out of memory for the normalizer", parser->what);
}

static enum lb_status copy_text(const struct parser *parser, const char *text, size_t len, char **out,
                                size_t *out_len) {
    char *copy = lb_malloc_array(len + 1, 1);
    if (!copy) {
        return no_memory(parser);
    }
    memcpy(copy, text, len);
    copy[len] = '\0';
    *out = copy;
    *out_len = len;
    return LB_OK;
}

static enum lb_status read_text(const struct parser *parser, const json_t *value, const char *key, char **out,
                                size_t *out_len) {
    const json_t *text = json_object_get(value, key);
    if (!json_is_string(text)) {
        return lb_fail(parser->detail, LB_E_FORMAT, "%s: normalizer: %s must be a text", parser->what, key);
    }
    return copy_text(parser, json_string_value(text), json_string_length(text), out, out_len);
}

static enum lb_status read_plain(const struct parser *parser, const json_t *value,
                                 struct lb_normalizer_step *step) {
    (void)parser;
    (void)value;
    (void)step;
    return LB_OK;
}

static enum lb_status read_prepend(const struct parser *parser, const json_t *value,
                                   struct lb_normalizer_step *step) {
    return read_text(parser, value, "prepend", &step->content, &step->content_len);
}

static enum lb_status read_replace(const struct parser *parser, const json_t *value,
                                   struct lb_normalizer_step *step) {
    const json_t *pattern = json_object_get(value, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *text = json_object_get(pattern, "String");
    const json_t *given = regex ? regex : text;
    if (!json_is_string(given) || json_object_size(pattern) != 1 || json_string_length(given) == 0) {
        return lb_fail(parser->detail, LB_E_FORMAT,
                       "%s: normalizer: Replace needs pattern {\"Regex\": ...} or {\"String\": ...}",
                       parser->what);
    }
    enum lb_status status = read_text(parser, value, "content", &step->content, &step->content_len);
    if (status == LB_OK && !regex) {
        return copy_text(parser, json_string_value(given), json_string_length(given), &step->literal,
                         &step->literal_len);
    }
    return status != LB_OK ? status
                           : lb_regex_create(json_string_value(given), json_string_length(given), false,
                                             parser->what, &step->regex, parser->detail);
}

static enum lb_status read_strip(const struct parser *parser, const json_t *value,
                                 struct lb_normalizer_step *step) {
    step->left = step->right = true;
    enum lb_status status =
        lb_json_bool(value, "strip_left", false, parser->what, &step->left, parser->detail);
    return status != LB_OK
               ? status
               : lb_json_bool(value, "strip_right", false, parser->what, &step->right, parser->detail);
}

static enum lb_status read_bert(const struct parser *parser, const json_t *value,
                                struct lb_normalizer_step *step) {
    step->clean = step->chinese = step->lower = true;
    const char *what = parser->what;
    enum lb_status status = lb_json_bool(value, "clean_text", false, what, &step->clean, parser->detail);
    if (status == LB_OK) {
        status = lb_json_bool(value, "handle_chinese_chars", false, what, &step->chinese, parser->detail);
    }
    if (status == LB_OK) {
        status = lb_json_bool(value, "lowercase", false, what, &step->lower, parser->detail);
    }
    step->accents = step->lower; /* what null means */
    return status != LB_OK
               ? status
               : lb_json_bool(value, "strip_accents", false, what, &step->accents, parser->detail);
}

static enum lb_status read_precompiled(const struct parser *parser, const json_t *value,
                                       struct lb_normalizer_step *step) {
    const json_t *text = json_object_get(value, "precompiled_charsmap");
    if (!json_is_string(text)) {
        return lb_fail(parser->detail, LB_E_UNSUPPORTED,
                       "%s: normalizer Precompiled without a text precompiled_charsmap", parser->what);
    }
    return lb_charsmap_create(json_string_value(text), json_string_length(text), parser->what,
                              &step->charsmap, parser->detail);
}

/* A new kind is a function, a line here and one in the table of what runs. */
static const struct {
    const char *type;
    enum lb_status (*read)(const struct parser *parser, const json_t *value, struct lb_normalizer_step *step);
} kinds[] = {[NFC] = {"NFC", read_plain},
             [NFD] = {"NFD", read_plain},
             [NFKC] = {"NFKC", read_plain},
             [NFKD] = {"NFKD", read_plain},
             [LOWERCASE] = {"Lowercase", read_plain},
             [PREPEND] = {"Prepend", read_prepend},
             [REPLACE] = {"Replace", read_replace},
             [STRIP] = {"Strip", read_strip},
             [STRIP_ACCENTS] = {"StripAccents", read_plain},
             [BERT] = {"BertNormalizer", read_bert},
             [NMT] = {"Nmt", read_plain},
             [PRECOMPILED] = {"Precompiled", read_precompiled}};

#define N_KINDS (sizeof kinds / sizeof kinds[0])

static enum lb_status parse_one(const struct parser *parser, const json_t *value) {
    const char *type = NULL;
    struct lb_normalizer *to = parser->to;
    enum lb_status status = lb_json_str(value, "type", true, parser->what, &type, parser->detail);
    if (status != LB_OK) {
        return status;
    }
    if (to->n == LB_MAX_NORMALIZERS) {
        return lb_fail(parser->detail, LB_E_LIMIT, "%s: normalizer has more than %d steps", parser->what,
                       LB_MAX_NORMALIZERS);
    }
    for (size_t i = 0; i < N_KINDS; i++) {
        if (!strcmp(type, kinds[i].type)) {
            struct lb_normalizer_step *step = &to->step[to->n++];
            step->kind = (uint8_t)i;
            return kinds[i].read(parser, value, step);
        }
    }
    return lb_fail(
        parser->detail, LB_E_UNSUPPORTED,
        "%s: normalizer type \"%.40s\" is not supported (NFC, NFD, NFKC, NFKD, Lowercase, Prepend, "
        "Replace, Strip, StripAccents, BertNormalizer, Nmt, Precompiled and a Sequence of them are)",
        parser->what, type);
}

enum lb_status lb_normalizer_parse(const json_t *value, const char *what, struct lb_normalizer *out,
                                   struct lb_detail *detail) {
    struct lb_normalizer to = {.n = 0};
    struct parser parser = {&to, what, detail};
    const json_t *type = json_object_get(value, "type");
    to.step = lb_calloc(LB_MAX_NORMALIZERS, sizeof *to.step);
    enum lb_status status = to.step ? LB_OK : no_memory(&parser);
    if (status == LB_OK && json_is_string(type) && !strcmp(json_string_value(type), "Sequence")) {
        const json_t *list = json_object_get(value, "normalizers");
        if (!json_is_array(list)) {
            status =
                lb_fail(detail, LB_E_FORMAT, "%s: normalizer: Sequence without a list \"normalizers\"", what);
        }
        for (size_t i = 0; i < json_array_size(list) && status == LB_OK; i++) {
            status = parse_one(&parser, json_array_get(list, i));
        }
    } else if (status == LB_OK && value && !json_is_null(value)) {
        status = parse_one(&parser, value);
    }
    if (status != LB_OK) {
        lb_normalizer_finish(&to);
        return status;
    }
    *out = to;
    return LB_OK;
}

static void hash_text(const char *text, size_t len, struct lb_sha256 *hash) {
    lb_sha256_u64(hash, len);
    lb_sha256_update(hash, text ? text : "", len);
}

void lb_normalizer_hash(const struct lb_normalizer *normalizer, struct lb_sha256 *hash) {
    lb_sha256_u32(hash, (uint32_t)normalizer->n);
    for (int i = 0; i < normalizer->n; i++) {
        lb_sha256_update(hash, &normalizer->step[i].kind, 1);
    }
    for (int i = 0; i < normalizer->n; i++) { /* the first five kinds have nothing to add */
        const struct lb_normalizer_step *s = &normalizer->step[i];
        if (s->kind <= LOWERCASE) {
            continue;
        }
        lb_sha256_u32(hash, (uint32_t)s->left | (uint32_t)s->right << 1 | (uint32_t)s->clean << 2 |
                                (uint32_t)s->chinese << 3 | (uint32_t)s->accents << 4 |
                                (uint32_t)s->lower << 5);
        hash_text(s->content, s->content_len, hash);
        hash_text(s->literal, s->literal_len, hash);
        lb_sha256_u32(hash, s->regex != NULL);
        if (s->regex) {
            lb_sha256_update(hash, lb_regex_digest(s->regex), LB_SHA256_BYTES);
        }
        if (s->charsmap) {
            lb_charsmap_hash(s->charsmap, hash);
        }
    }
}

/* ---- running ---- */

static bool is_ascii(const char *text, size_t len) {
    uint8_t seen = 0;
    for (size_t i = 0; i < len; i++) {
        seen |= (uint8_t)text[i];
    }
    return seen < 0x80;
}

/* An empty buffer that the text does not lie in. */
static struct lb_buf *other(struct lb_normalized *n) {
    struct lb_buf *to = &n->copy[n->copy[0].data && n->text == n->copy[0].data];
    to->max = 4 * MAX_TEXT_BYTES; /* a step takes room for the most that it could write */
    lb_buf_reset(to);
    return to;
}

/* What was written is the text now. */
static enum lb_status take(struct lb_normalized *n, const struct lb_buf *from) {
    n->text = from->data ? from->data : "";
    n->len = from->len;
    return from->len < MAX_TEXT_BYTES ? lb_buf_status(from) : LB_E_LIMIT;
}

/* Room for the most that a step writes; the step then says how much it was. NULL: no room. */
static char *room(struct lb_buf *to, size_t most) {
    return lb_buf_extend(to, most);
}

static enum lb_status run_form(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    static const enum lb_form forms[] = {[NFC] = LB_NFC, [NFD] = LB_NFD, [NFKC] = LB_NFKC, [NFKD] = LB_NFKD};
    if (is_ascii(n->text, n->len)) {
        return LB_OK; /* in every normal form */
    }
    enum lb_status status = lb_form_points(forms[step->kind], n->text, n->len, &n->points);
    if (status != LB_OK) {
        return status;
    }
    struct lb_buf *to = other(n);
    char *p = room(to, 4 * n->points.n);
    size_t len = 0;
    for (size_t i = 0; p && i < n->points.n; i++) {
        len += lb_utf8_put((uint32_t)n->points.data[i], p + len);
    }
    to->len = len;
    n->led = n->led || (p && len > 0 && p[0] == ' ' && n->text[0] != ' ');
    return take(n, to);
}

static enum lb_status run_lowercase(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    (void)step;
    size_t i = 0, len = 0, pos = 0;
    while (i < n->len && (uint8_t)n->text[i] < 0x80 && !(n->text[i] >= 'A' && n->text[i] <= 'Z')) {
        i++;
    }
    if (i == n->len) {
        return LB_OK;
    }
    struct lb_buf *to = other(n);
    char *p = room(to, n->len + n->len / 2 + 4);
    while (p && pos < n->len) {
        uint32_t small[2], c = (uint8_t)n->text[pos];
        if (c < 0x80) {
            p[len++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
            pos++;
            continue;
        }
        int count = lb_lower(lb_utf8_next(n->text, &pos), small);
        for (int k = 0; k < count; k++) {
            len += lb_utf8_put(small[k], p + len);
        }
    }
    to->len = len;
    return take(n, to);
}

static enum lb_status run_prepend(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    if (!n->len) {
        return LB_OK;
    }
    struct lb_buf *to = other(n);
    lb_buf_append(to, step->content, step->content_len);
    lb_buf_append(to, n->text, n->len);
    return take(n, to);
}

static enum lb_status run_replace(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    struct lb_buf *to = other(n);
    if (step->regex) {
        enum lb_status status = lb_regex_replace(step->regex, n->text, n->len, step->content,
                                                 step->content_len, &n->run, to, NULL);
        return status != LB_OK ? status : take(n, to);
    }
    size_t done = 0, at = 0;
    while (step->literal_len <= n->len && at <= n->len - step->literal_len) {
        const char *found = memchr(n->text + at, step->literal[0], n->len - at);
        at = found ? (size_t)(found - n->text) : n->len;
        if (!found || at > n->len - step->literal_len) {
            break;
        }
        if (memcmp(found, step->literal, step->literal_len) != 0) {
            at++;
            continue;
        }
        lb_buf_append(to, n->text + done, at - done);
        lb_buf_append(to, step->content, step->content_len);
        at += step->literal_len;
        n->cut = n->cut || (done == 0 && at == step->literal_len && !step->content_len);
        done = at;
    }
    if (done == 0) {
        return lb_buf_status(to);
    }
    lb_buf_append(to, n->text + done, n->len - done);
    return take(n, to);
}

static enum lb_status run_strip(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    size_t start = 0, end = n->len;
    while (step->left && start < end) {
        size_t next = start;
        if (!lb_is_space(lb_utf8_next(n->text, &next))) {
            break;
        }
        start = next;
    }
    while (step->right && end > start) {
        size_t before = end;
        if (!lb_is_space(lb_utf8_previous(n->text, &before))) {
            break;
        }
        end = before;
    }
    n->cut = n->cut || start > n->led; /* a space that the first character has led to takes nothing away */
    if (end - start == n->len) {
        return LB_OK;
    }
    struct lb_buf *to = other(n);
    lb_buf_append(to, n->text + start, end - start);
    return take(n, to);
}

/* Copies the text without some characters. */
static enum lb_status drop(struct lb_normalized *n, bool (*unwanted)(uint32_t c)) {
    if (is_ascii(n->text, n->len)) {
        return LB_OK;
    }
    struct lb_buf *to = other(n);
    char *p = room(to, n->len);
    size_t len = 0, pos = 0;
    while (p && pos < n->len) {
        size_t start = pos;
        if (!unwanted(lb_utf8_next(n->text, &pos))) {
            memcpy(p + len, n->text + start, pos - start);
            len += pos - start;
        } else {
            n->cut = n->cut || start == 0;
        }
    }
    to->len = len;
    return take(n, to);
}

static enum lb_status run_strip_accents(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    (void)step;
    return drop(n, lb_is_mark);
}

static bool is_chinese(uint32_t c) { /* the blocks that tokenizers has, 2B920 where one expects 2B820 */
    return c >= 0x3400 && ((c >= 0x4e00 && c <= 0x9fff) || c <= 0x4dbf || (c >= 0x20000 && c <= 0x2a6df) ||
                           (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
                           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f));
}

/* clean_text and handle_chinese_chars, and small letters where no accent stands between. */
static enum lb_status bert_clean(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    struct lb_buf *to = other(n);
    char *p = room(to, 2 * n->len);
    size_t len = 0, pos = 0;
    while (p && pos < n->len) {
        size_t start = pos;
        uint32_t c = (uint8_t)n->text[pos];
        if (c >= 0x20 && c < 0x7f) {
            p[len++] = n->text[pos++];
            continue;
        }
        c = lb_utf8_next(n->text, &pos);
        if (step->clean && lb_is_dropped(c)) {
            n->cut = n->cut || start == 0;
            continue;
        }
        bool apart = step->chinese && is_chinese(c);
        if (apart || (step->clean && lb_is_space(c))) {
            p[len++] = ' ';
        }
        if (!(step->clean && lb_is_space(c))) {
            memcpy(p + len, n->text + start, pos - start);
            len += pos - start;
        }
        if (apart) {
            p[len++] = ' ';
        }
    }
    to->len = len;
    return take(n, to);
}

static enum lb_status run_bert(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    static const struct lb_normalizer_step decompose = {.kind = NFD};
    enum lb_status status = step->clean || step->chinese ? bert_clean(step, n) : LB_OK;
    if (step->accents) {
        status = status == LB_OK ? run_form(&decompose, n) : status;
        status = status == LB_OK ? drop(n, lb_is_accent) : status;
    }
    return status == LB_OK && step->lower ? run_lowercase(step, n) : status;
}

/* SentencePiece's rules of nmt. */
static enum lb_status run_nmt(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    (void)step;
    struct lb_buf *to = other(n);
    char *p = room(to, n->len);
    size_t len = 0, pos = 0;
    while (p && pos < n->len) {
        size_t start = pos;
        uint32_t c = lb_utf8_next(n->text, &pos);
        if ((c >= 1 && c <= 8) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f ||
            c == 0x9f) {
            n->cut = n->cut || start == 0;
        } else if (c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
                   c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd) {
            p[len++] = ' ';
        } else {
            memcpy(p + len, n->text + start, pos - start);
            len += pos - start;
        }
    }
    to->len = len;
    return take(n, to);
}

static enum lb_status run_precompiled(const struct lb_normalizer_step *step, struct lb_normalized *n) {
    bool cut = false;
    struct lb_buf *to = other(n);
    lb_charsmap_apply(step->charsmap, n->text, n->len, to, &cut);
    n->cut = n->cut || cut;
    return take(n, to);
}

static enum lb_status (*const run[])(const struct lb_normalizer_step *step,
                                     struct lb_normalized *n) = {[NFC] = run_form,
                                                                 [NFD] = run_form,
                                                                 [NFKC] = run_form,
                                                                 [NFKD] = run_form,
                                                                 [LOWERCASE] = run_lowercase,
                                                                 [PREPEND] = run_prepend,
                                                                 [REPLACE] = run_replace,
                                                                 [STRIP] = run_strip,
                                                                 [STRIP_ACCENTS] = run_strip_accents,
                                                                 [BERT] = run_bert,
                                                                 [NMT] = run_nmt,
                                                                 [PRECOMPILED] = run_precompiled};

enum lb_status lb_normalize(const struct lb_normalizer *normalizer, const char *text, size_t len,
                            struct lb_normalized *out, struct lb_detail *detail) {
    out->text = text;
    out->len = len;
    out->cut = out->led = false;
    enum lb_status status = len < MAX_TEXT_BYTES ? LB_OK : LB_E_LIMIT;
    for (int i = 0; i < normalizer->n && status == LB_OK; i++) {
        status = run[normalizer->step[i].kind](&normalizer->step[i], out);
    }
    if (status != LB_OK) {
        return lb_fail(detail, status, "a text of %zu bytes cannot be normalized: %s", len,
                       lb_status_name(status));
    }
    return LB_OK;
}
