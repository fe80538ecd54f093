#include "common/text/decode.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/byte_level.h"

#include <string.h>

#define MAX_STEPS 16
#define REPLACEMENT "\xef\xbf\xbd"

enum kind {
    BYTE_LEVEL,    /* letters become bytes */
    BYTE_FALLBACK, /* <0x41> is a byte */
    FUSE,          /* tokens become one text */
    STRIP,
    REPLACE,
    METASPACE,
    WORD_PIECE,
    SPACES /* no decoder: a space between tokens */
};

struct step {
    enum kind kind;
    char *text; /* Replace: content; WordPiece: prefix; Metaspace: sign; Strip: character */
    size_t len;
    struct lb_regex *regex;   /* Replace */
    int64_t start, stop;      /* Strip */
    bool cleanup, drops_sign; /* WordPiece; Metaspace: the first token loses its signs */
};

struct lb_decoder {
    struct step step[MAX_STEPS];
    int n;
    bool fused;              /* Fuse was among the steps */
    bool fallback;           /* ByteFallback was */
    bool first_differs;      /* the first token may add less */
    const struct step *ends; /* the Strip behind Fuse */
};

void lb_decoder_destroy(struct lb_decoder *decoder) {
    if (decoder) {
        for (int i = 0; i < decoder->n; i++) {
            lb_free(decoder->step[i].text);
            lb_regex_destroy(decoder->step[i].regex);
        }
        lb_free(decoder);
    }
}

/* ---- reading ---- */

struct parser {
    struct lb_decoder *to;
    const char *what;
    struct lb_detail *detail;
};

static enum lb_status keep_text(const struct parser *parser, const json_t *value, const char *key,
                                const char *missing, struct step *step) {
    const json_t *text = json_object_get(value, key);
    const char *bytes = json_is_string(text) ? json_string_value(text) : missing;
    if (!bytes) {
        return lb_fail(parser->detail, LB_E_FORMAT, "%s: decoder: %s must be a text", parser->what, key);
    }
    step->len = json_is_string(text) ? json_string_length(text) : strlen(bytes);
    step->text = lb_malloc_array(step->len + 1, 1);
    if (!step->text) {
        return lb_fail(parser->detail, LB_E_NOMEM, "%s: out of memory for the decoder", parser->what);
    }
    memcpy(step->text, bytes, step->len);
    step->text[step->len] = '\0';
    return LB_OK;
}

static enum lb_status read_plain(const struct parser *parser, const json_t *value, struct step *step) {
    (void)value;
    parser->to->fused = parser->to->fused || step->kind == FUSE;
    parser->to->fallback = parser->to->fallback || step->kind == BYTE_FALLBACK;
    return LB_OK;
}

static enum lb_status read_strip(const struct parser *parser, const json_t *value, struct step *step) {
    enum lb_status status = keep_text(parser, value, "content", NULL, step);
    status = status != LB_OK ? status
                             : lb_json_int(value, "start", true, 0, INT32_MAX, parser->what, &step->start,
                                           parser->detail);
    status = status != LB_OK
                 ? status
                 : lb_json_int(value, "stop", true, 0, INT32_MAX, parser->what, &step->stop, parser->detail);
    if (status == LB_OK && !step->len) {
        status = lb_fail(parser->detail, LB_E_FORMAT, "%s: decoder: Strip without content", parser->what);
    }
    if (status == LB_OK && parser->to->fused) {
        parser->to->ends = step;
    }
    return status;
}

static enum lb_status read_replace(const struct parser *parser, const json_t *value, struct step *step) {
    const json_t *pattern = json_object_get(value, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *text = json_object_get(pattern, "String");
    const json_t *given = regex ? regex : text;
    if (!json_is_string(given) || json_object_size(pattern) != 1) {
        return lb_fail(parser->detail, LB_E_FORMAT,
                       "%s: decoder: Replace needs pattern {\"Regex\": ...} or {\"String\": ...}",
                       parser->what);
    }
    enum lb_status status = keep_text(parser, value, "content", NULL, step);
    return status != LB_OK ? status
                           : lb_regex_create(json_string_value(given), json_string_length(given), !regex,
                                             parser->what, &step->regex, parser->detail);
}

static enum lb_status read_metaspace(const struct parser *parser, const json_t *value, struct step *step) {
    const char *scheme = NULL;
    bool prefix = true;
    enum lb_status status = keep_text(parser, value, "replacement", "\xe2\x96\x81", step);
    status = status != LB_OK
                 ? status
                 : lb_json_str(value, "prepend_scheme", false, parser->what, &scheme, parser->detail);
    status = status != LB_OK
                 ? status
                 : lb_json_bool(value, "add_prefix_space", false, parser->what, &prefix, parser->detail);
    step->drops_sign = scheme ? strcmp(scheme, "never") != 0 : prefix;
    parser->to->first_differs = parser->to->first_differs || step->drops_sign;
    return status;
}

static enum lb_status read_word_piece(const struct parser *parser, const json_t *value, struct step *step) {
    step->cleanup = true;
    parser->to->first_differs = true;
    enum lb_status status = keep_text(parser, value, "prefix", "##", step);
    return status != LB_OK
               ? status
               : lb_json_bool(value, "cleanup", false, parser->what, &step->cleanup, parser->detail);
}

/* A new kind is a function, a line here and a case in run_step. */
static const struct {
    const char *type;
    enum lb_status (*read)(const struct parser *parser, const json_t *value, struct step *step);
} kinds[] = {[BYTE_LEVEL] = {"ByteLevel", read_plain},
             [BYTE_FALLBACK] = {"ByteFallback", read_plain},
             [FUSE] = {"Fuse", read_plain},
             [STRIP] = {"Strip", read_strip},
             [REPLACE] = {"Replace", read_replace},
             [METASPACE] = {"Metaspace", read_metaspace},
             [WORD_PIECE] = {"WordPiece", read_word_piece}};

#define N_KINDS (sizeof kinds / sizeof kinds[0])

static enum lb_status read_one(const struct parser *parser, const json_t *value) {
    const char *type = NULL;
    struct lb_decoder *to = parser->to;
    enum lb_status status = lb_json_str(value, "type", true, parser->what, &type, parser->detail);
    if (status != LB_OK) {
        return status;
    }
    size_t i = 0;
    while (i < N_KINDS && strcmp(type, kinds[i].type) != 0) {
        i++;
    }
    if (i == N_KINDS) {
        return lb_fail(parser->detail, LB_E_UNSUPPORTED,
                       "%s: decoder type \"%.40s\" is not supported (ByteLevel, ByteFallback, Fuse, Strip, "
                       "Replace, Metaspace, WordPiece and a Sequence of them are)",
                       parser->what, type);
    }
    if (to->ends || (to->fused && i != STRIP && i != FUSE) || to->n == MAX_STEPS) {
        return lb_fail(parser->detail, LB_E_UNSUPPORTED,
                       "%s: decoder: %s behind Fuse and what is cut from the ends, or more than %d steps",
                       parser->what, type, MAX_STEPS);
    }
    struct step *step = &to->step[to->n++];
    step->kind = (enum kind)i;
    return kinds[i].read(parser, value, step);
}

enum lb_status lb_decoder_create(const json_t *value, bool bytes, const char *what, struct lb_decoder **out,
                                 struct lb_detail *detail) {
    struct lb_decoder *to = lb_calloc(1, sizeof *to);
    if (!to) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for the decoder", what);
    }
    struct parser parser = {to, what, detail};
    enum lb_status status = LB_OK;
    const json_t *type = json_object_get(value, "type");
    if (!value || json_is_null(value)) {
        to->step[to->n++].kind = bytes ? BYTE_LEVEL : SPACES;
        to->first_differs = !bytes;
    } else if (json_is_string(type) && !strcmp(json_string_value(type), "Sequence")) {
        const json_t *list = json_object_get(value, "decoders");
        if (!json_is_array(list)) {
            status = lb_fail(detail, LB_E_FORMAT, "%s: decoder: Sequence without a list \"decoders\"", what);
        }
        for (size_t i = 0; i < json_array_size(list) && status == LB_OK; i++) {
            status = read_one(&parser, json_array_get(list, i));
        }
    } else {
        status = read_one(&parser, value);
    }
    if (status != LB_OK) {
        lb_decoder_destroy(to);
        return status;
    }
    *out = to;
    return LB_OK;
}

/* ---- one token ---- */

static int hex_of(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The byte that <0x41> is, -1 for any other text. */
static int byte_of(const char *text, size_t len) {
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') {
        return -1;
    }
    int high = hex_of(text[3]), low = hex_of(text[4]);
    if (text[3] == '+' && low >= 0) { /* as Rust reads numbers */
        return low;
    }
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Replaces each from in text by to, which is not longer but for one of them. */
static void clean(struct lb_buf *text, struct lb_buf *spare) {
    static const struct {
        const char *from, *to;
    } rules[] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                 {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                 {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        size_t n = strlen(rules[i].from), done = 0;
        lb_buf_reset(spare);
        for (size_t at = 0; at + n <= text->len;) {
            if (memcmp(text->data + at, rules[i].from, n) != 0) {
                at++;
                continue;
            }
            lb_buf_append(spare, text->data + done, at - done);
            lb_buf_append_str(spare, rules[i].to);
            done = at += n;
        }
        if (done > 0) {
            lb_buf_append(spare, text->data + done, text->len - done);
            struct lb_buf old = *text;
            *text = *spare;
            *spare = old;
        }
    }
}

/* Cuts up to start characters from the front, up to stop from the back. */
static void strip(const struct step *step, const char *text, size_t len, size_t *from, size_t *to) {
    size_t begin = 0, end = len;
    for (int64_t i = 0; i < step->start && end - begin >= step->len; i++) {
        if (memcmp(text + begin, step->text, step->len) != 0) {
            break;
        }
        begin += step->len;
    }
    for (int64_t i = 0; i < step->stop && end - begin >= step->len; i++) {
        if (memcmp(text + end - step->len, step->text, step->len) != 0) {
            break;
        }
        end -= step->len;
    }
    *from = begin;
    *to = end;
}

/* Memory of decoding tokens one by one. */
struct work {
    struct lb_buf text, spare;
    struct lb_regex_run run;
    bool is_byte; /* text is one byte of a run that has to be a character */
};

static void work_init(struct work *w) {
    memset(w, 0, sizeof *w);
    lb_buf_init(&w->text, SIZE_MAX / 4);
    lb_buf_init(&w->spare, SIZE_MAX / 4);
}

static void work_finish(struct work *w) {
    lb_buf_finish(&w->text);
    lb_buf_finish(&w->spare);
    lb_regex_run_finish(&w->run);
}

static void swap(struct work *w) {
    struct lb_buf old = w->text;
    w->text = w->spare;
    w->spare = old;
}

/* Signs become spaces, or go. */
static void run_metaspace(const struct step *step, bool first, struct work *w) {
    size_t at = 0;
    lb_buf_reset(&w->spare);
    while (at < w->text.len) {
        if (w->text.len - at >= step->len && !memcmp(w->text.data + at, step->text, step->len)) {
            at += step->len;
            lb_buf_append(&w->spare, " ", first && step->drops_sign ? 0 : 1);
        } else {
            lb_buf_append(&w->spare, w->text.data + at++, 1);
        }
    }
    swap(w);
}

static void run_word_piece(const struct step *step, bool first, struct work *w) {
    bool goes_on = w->text.len >= step->len && !memcmp(w->text.data, step->text, step->len);
    if (!first) {
        lb_buf_reset(&w->spare);
        lb_buf_append(&w->spare, " ", goes_on ? 0 : 1);
        lb_buf_append(&w->spare, w->text.data + (goes_on ? step->len : 0),
                      w->text.len - (goes_on ? step->len : 0));
        swap(w);
    }
    if (step->cleanup) {
        clean(&w->text, &w->spare);
    }
}

static enum lb_status run_step(const struct step *step, bool first, struct work *w) {
    enum lb_status status = LB_OK;
    size_t from = 0, to = w->text.len;
    int byte;
    switch (step->kind) {
    case BYTE_LEVEL:
        lb_buf_reset(&w->spare);
        lb_buf_append(&w->spare, w->text.data, w->text.len);
        if (w->spare.data && lb_letters_to_bytes(w->spare.data, w->spare.len, w->spare.data, &to)) {
            w->spare.len = to;
            swap(w);
        }
        break;
    case BYTE_FALLBACK:
        byte = byte_of(w->text.data, w->text.len);
        if (byte >= 0) {
            char c = (char)byte;
            lb_buf_reset(&w->text);
            lb_buf_append(&w->text, &c, 1);
            w->is_byte = true;
        }
        break;
    case REPLACE:
        lb_buf_reset(&w->spare);
        status = lb_regex_replace(step->regex, w->text.data, w->text.len, step->text, step->len, &w->run,
                                  &w->spare, NULL);
        swap(w);
        break;
    case METASPACE:
        run_metaspace(step, first, w);
        break;
    case WORD_PIECE:
        run_word_piece(step, first, w);
        break;
    case STRIP:
        strip(step, w->text.data, w->text.len, &from, &to);
        lb_buf_reset(&w->spare);
        lb_buf_append(&w->spare, w->text.data + from, to - from);
        swap(w);
        break;
    case SPACES:
        lb_buf_reset(&w->spare);
        lb_buf_append(&w->spare, " ", first ? 0 : 1);
        lb_buf_append(&w->spare, w->text.data, w->text.len);
        swap(w);
        break;
    case FUSE:
        break;
    }
    return status;
}

/* What the token written as text adds, into w->text. */
static enum lb_status run_token(const struct lb_decoder *decoder, const char *text, size_t len, bool first,
                                struct work *w) {
    w->is_byte = false;
    lb_buf_reset(&w->text);
    enum lb_status status = lb_buf_append(&w->text, text, len);
    for (int i = 0; i < decoder->n && status == LB_OK && &decoder->step[i] != decoder->ends; i++) {
        if (!w->is_byte && w->text.data) {
            status = run_step(&decoder->step[i], first, w);
        }
    }
    return status == LB_OK ? lb_buf_status(&w->text) : status;
}

enum lb_status lb_decoder_fill(const struct lb_decoder *decoder, struct lb_vocab *vocab, const char *what,
                               struct lb_detail *detail) {
    struct work w;
    work_init(&w);
    enum lb_status status = LB_OK;
    for (int32_t id = 0; id < vocab->size && status == LB_OK; id++) {
        const char *text = lb_vocab_text(vocab, id);
        if (!text || vocab->entry[id].n_bytes) { /* an added token may already stand for its own text */
            continue;
        }
        status = run_token(decoder, text, vocab->entry[id].len, false, &w);
        if (status == LB_OK) {
            vocab->entry[id].flags |= w.is_byte ? LB_ENTRY_BYTE : 0;
            status = lb_vocab_stands_for(vocab, id, w.text.data ? w.text.data : "", w.text.len);
        }
    }
    work_finish(&w);
    return status != LB_OK ? lb_fail(detail, status, "%s: the decoder cannot write the vocabulary: %s", what,
                                     lb_status_name(status))
                           : LB_OK;
}

/* ---- a text ---- */

/* The bytes of a run have to be characters; if they are not, each of them is U+FFFD. */
static void end_run(struct lb_buf *text, size_t start) {
    size_t n = text->len - start;
    if (n > 0 && lb_utf8_check(text->data + start, n) != n) {
        text->len = start;
        for (size_t i = 0; i < n; i++) {
            lb_buf_append_str(text, REPLACEMENT);
        }
    }
}

enum lb_status lb_decoder_run(const struct lb_decoder *decoder, const struct lb_vocab *vocab,
                              const int32_t *ids, size_t n, bool skip_special, struct lb_buf *out) {
    struct lb_buf text;
    struct work w;
    bool first = true;
    size_t run = 0;
    enum lb_status status = LB_OK;
    work_init(&w);
    lb_buf_init(&text, SIZE_MAX / 2);
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        const struct lb_entry *entry = &vocab->entry[ids[i]];
        if (skip_special && (entry->flags & LB_ENTRY_SPECIAL)) {
            continue;
        }
        if (!(entry->flags & LB_ENTRY_BYTE)) {
            end_run(&text, run);
        }
        if (first && decoder->first_differs) {
            status = run_token(decoder, vocab->pool + entry->text, entry->len, true, &w);
            lb_buf_append(&text, w.text.data, w.text.len);
        } else {
            lb_buf_append(&text, vocab->pool + entry->bytes, entry->n_bytes);
        }
        first = false;
        run = entry->flags & LB_ENTRY_BYTE ? run : text.len;
    }
    if (decoder->fallback) {
        end_run(&text, run);
    }
    status = status == LB_OK ? lb_buf_status(&text) : status;
    if (status == LB_OK && text.len) {
        size_t from = 0, to = text.len;
        if (decoder->ends) {
            strip(decoder->ends, text.data, text.len, &from, &to);
        }
        lb_utf8_append_lossy(out, text.data + from, to - from);
        status = lb_buf_status(out);
    }
    lb_buf_finish(&text);
    work_finish(&w);
    return status;
}
