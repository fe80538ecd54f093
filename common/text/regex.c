#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/text/regex.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/onig.h"
#include "common/text/unicode.h"

#include <pcre2.h>
#include <string.h>

#define MAX_PATTERN_BYTES 65536
#define MAX_TRIED 4096 /* characters in search of a stand-in */

struct lb_regex {
    pcre2_general_context *memory;
    pcre2_compile_context *compile;
    pcre2_code *code;
    bool literal;
    uint8_t digest[LB_SHA256_BYTES];
    uint32_t *stand_in; /* [lb_newer_ranges()] what takes the place of newer characters; NULL: the first of
                           their stand-ins for all */
};

static void *allocate(size_t bytes, void *unused) {
    (void)unused;
    return lb_malloc_array(bytes, 1);
}

static void release(void *p, void *unused) {
    (void)unused;
    lb_free(p);
}

void lb_regex_run_finish(struct lb_regex_run *run) {
    if (run) {
        pcre2_match_data_free(run->match);
        lb_free(run->copy);
        memset(run, 0, sizeof *run);
    }
}

void lb_regex_destroy(struct lb_regex *regex) {
    if (regex) {
        pcre2_code_free(regex->code);
        pcre2_compile_context_free(regex->compile);
        pcre2_general_context_free(regex->memory);
        lb_free(regex->stand_in);
        lb_free(regex);
    }
}

const uint8_t *lb_regex_digest(const struct lb_regex *regex) {
    return regex->digest;
}

/* Whether a range that the pattern names has all of a newer range and its stand-in, or neither. */
static bool same_side(const struct lb_onig_range *named, size_t n, uint32_t first, uint32_t last,
                      uint32_t stand_in) {
    for (size_t i = 0; i < n; i++) {
        bool all = named[i].first <= first && last <= named[i].last;
        bool none = last < named[i].first || named[i].last < first;
        bool other = named[i].first <= stand_in && stand_in <= named[i].last;
        if ((!all && !none) || all != other) {
            return false;
        }
    }
    return true;
}

/* The stand-in of a newer range for a pattern that names characters beside properties: on the same side of
 * all that it names. 0: there is none. scripts: the pattern asks for scripts, too, so that only the listed
 * ones will do. */
static uint32_t choose_stand_in(const struct lb_onig_range *named, size_t n, int range, bool scripts) {
    uint32_t first, last;
    lb_newer_bounds(range, &first, &last);
    for (int i = 0; i < LB_STAND_INS; i++) {
        if (same_side(named, n, first, last, lb_stand_in(range, i))) {
            return lb_stand_in(range, i);
        }
    }
    uint32_t like = lb_stand_in(range, 0), end = like < 0x10000 ? 0x10000 : 0x110000;
    int tried = 0;
    for (uint32_t c = like < 0x10000 ? 0x800 : 0x10000; !scripts && c < end && tried < MAX_TRIED; c++) {
        if (lb_same_category(c, like) && lb_newer_range(c) < 0) {
            tried++;
            if (same_side(named, n, first, last, c)) {
                return c;
            }
        }
    }
    return 0;
}

static enum lb_status choose_stand_ins(struct lb_regex *regex, const struct lb_onig_range *named, size_t n,
                                       bool scripts, const char *where, struct lb_detail *detail) {
    int ranges = lb_newer_ranges();
    regex->stand_in = lb_calloc((size_t)ranges, sizeof *regex->stand_in);
    if (!regex->stand_in) {
        return LB_E_NOMEM;
    }
    for (int i = 0; i < ranges; i++) {
        regex->stand_in[i] = choose_stand_in(named, n, i, scripts);
        if (!regex->stand_in[i]) {
            uint32_t first, last;
            lb_newer_bounds(i, &first, &last);
            return lb_fail(
                detail, LB_E_UNSUPPORTED,
                "%s: the regex tells U+%04X from other characters of its kind, which is newer than "
                "the regex library here",
                where, first);
        }
    }
    return LB_OK;
}

/* words: the pattern as PCRE2 has it. */
static enum lb_status compile(struct lb_regex *regex, const struct lb_buf *words, const char *where,
                              struct lb_detail *detail) {
    int error;
    PCRE2_SIZE offset;
    uint32_t options = regex->literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP;
    pcre2_set_newline(regex->compile, PCRE2_NEWLINE_LF);
    regex->code =
        pcre2_compile((PCRE2_SPTR)words->data, words->len, options, &error, &offset, regex->compile);
    if (!regex->code) {
        char text[160] = "unknown error";
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        enum lb_status status = error == PCRE2_ERROR_HEAP_FAILED ? LB_E_NOMEM : LB_E_UNSUPPORTED;
        return lb_fail(detail, status, "%s: the regex cannot be compiled (%s, near byte %zu)", where, text,
                       (size_t)offset);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* without it, the same answers more slowly */
    return LB_OK;
}

static enum lb_status take_digest(struct lb_regex *regex, const char *pattern, size_t len) {
    struct lb_sha256 *digest = lb_sha256_create();
    if (!digest) {
        return LB_E_NOMEM;
    }
    lb_sha256_u32(digest, regex->literal);
    lb_sha256_update(digest, pattern, len);
    lb_sha256_final(digest, regex->digest);
    return LB_OK;
}

enum lb_status lb_regex_create(const char *pattern, size_t len, bool literal, const char *where,
                               struct lb_regex **out, struct lb_detail *detail) {
    if (len == 0 || len > MAX_PATTERN_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "%s: a pattern of %zu bytes (1 to %d are accepted)", where, len,
                       MAX_PATTERN_BYTES);
    }
    struct lb_buf words, named;
    lb_buf_init(&words, 64 * (size_t)MAX_PATTERN_BYTES);
    lb_buf_init(&named, sizeof(struct lb_onig_range) * MAX_PATTERN_BYTES);
    struct lb_regex *regex = lb_calloc(1, sizeof *regex);
    enum lb_status status = regex ? LB_OK : LB_E_NOMEM;
    if (status == LB_OK) {
        regex->literal = literal;
        regex->memory = pcre2_general_context_create(allocate, release, NULL);
        regex->compile = regex->memory ? pcre2_compile_context_create(regex->memory) : NULL;
        status = regex->compile ? take_digest(regex, pattern, len) : LB_E_NOMEM;
    }
    if (status == LB_OK) {
        status = literal ? lb_buf_append(&words, pattern, len)
                         : lb_onig_translate(pattern, len, where, &words, &named, detail);
    }
    status = status == LB_OK ? compile(regex, &words, where, detail) : status;
    if (status == LB_OK && named.len > 0) {
        status = choose_stand_ins(regex, (const struct lb_onig_range *)(const void *)named.data,
                                  named.len / sizeof(struct lb_onig_range),
                                  strstr(words.data, "{sc:") != NULL, where, detail);
    }
    lb_buf_finish(&words);
    lb_buf_finish(&named);
    if (status != LB_OK) {
        lb_regex_destroy(regex);
        return lb_fail(detail, status, "%s: out of memory for a regex", where);
    }
    *out = regex;
    return LB_OK;
}

enum lb_status lb_regex_subject(const struct lb_regex *regex, const char *text, size_t len,
                                struct lb_regex_run *run, const char **out) {
    *out = text;
    if (regex->literal) {
        return LB_OK;
    }
    size_t pos = 0;
    while (pos < len) {
        if ((uint8_t)text[pos] < 0xe0) { /* none of the newer ones is below U+0800 */
            pos++;
            continue;
        }
        size_t at = pos;
        int range = lb_newer_range(lb_utf8_next(text, &pos));
        if (range < 0) {
            continue;
        }
        if (*out == text) {
            if (run->copy_cap < len) {
                char *copy = lb_realloc_array(run->copy, len, 1);
                if (!copy) {
                    return LB_E_NOMEM;
                }
                run->copy = copy;
                run->copy_cap = len;
            }
            memcpy(run->copy, text, len);
            *out = run->copy;
        }
        lb_utf8_put(regex->stand_in ? regex->stand_in[range] : lb_stand_in(range, 0), run->copy + at);
    }
    return LB_OK;
}

enum lb_status lb_regex_next(const struct lb_regex *regex, const char *subject, size_t len, size_t from,
                             struct lb_regex_run *run, bool *found, size_t *start, size_t *end,
                             struct lb_detail *detail) {
    if (!run->match) {
        run->match = pcre2_match_data_create(1, NULL);
        if (!run->match) {
            return LB_E_NOMEM;
        }
    }
    PCRE2_SPTR text = (PCRE2_SPTR)subject;
    int rc = pcre2_match(regex->code, text, len, from, PCRE2_NO_UTF_CHECK, run->match, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(regex->code, text, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, run->match, NULL);
    }
    *found = rc >= 0;
    if (rc >= 0) {
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(run->match);
        *start = range[0];
        *end = range[1];
    }
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) {
        return LB_OK;
    }
    char why[160] = "unknown error";
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
    return lb_fail(detail, rc == PCRE2_ERROR_NOMEMORY ? LB_E_NOMEM : LB_E_LIMIT,
                   "the tokenizer's regex gives up on this text, %zu bytes into a piece of %zu: %s", from,
                   len, why);
}

enum lb_status lb_regex_replace(const struct lb_regex *regex, const char *text, size_t len,
                                const char *content, size_t content_len, struct lb_regex_run *run,
                                struct lb_buf *out, struct lb_detail *detail) {
    const char *subject;
    size_t done = 0, from = 0;
    bool found = true, before = false;
    enum lb_status status = lb_regex_subject(regex, text, len, run, &subject);
    while (status == LB_OK && from <= len) {
        size_t start = 0, end = 0;
        status = lb_regex_next(regex, subject, len, from, run, &found, &start, &end, detail);
        if (status != LB_OK || !found) {
            break;
        }
        if (start == end && before && end == done) { /* empty, right behind another */
            do {
                from++;
            } while (from < len && ((uint8_t)text[from] & 0xc0) == 0x80);
            continue;
        }
        lb_buf_append(out, text + done, start - done);
        status = lb_buf_append(out, content, content_len);
        done = from = end;
        before = true;
    }
    return status == LB_OK ? lb_buf_append(out, text + done, len - done) : status;
}
