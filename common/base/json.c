#include "common/base/json.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_DEPTH = 64 };

/* jansson allocates through us, so that failing allocations reach it in tests; and since it overlooks some of
 * its own failures (a token that could not grow is cut short), each failure is remembered per thread, and
 * after one all others of the same parse fail too: jansson would write the whole of such a token into memory
 * that it measured by the part. */
static _Thread_local bool allocation_failed, parsing;

static void *json_alloc(size_t bytes) {
    void *p = parsing && allocation_failed ? NULL : lb_malloc_array(bytes, 1);
    if (p == NULL) {
        allocation_failed = true;
    }
    return p;
}

__attribute__((constructor)) static void use_our_allocator(void) {
    json_set_alloc_funcs(json_alloc, lb_free);
}

/* Finds the first bracket that is nested too deep, without recursion and before jansson sees the bytes (which
 * recurses). Anything malformed is left for jansson to name. */
static bool too_deep(const char *bytes, size_t len, size_t max_depth, size_t *out_where) {
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > max_depth) {
                *out_where = i;
                return true;
            }
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return false;
}

static enum lb_status parse(const void *bytes, size_t len, int max_depth, size_t flags, const char *what,
                            json_t **out, struct lb_detail *detail) {
    size_t limit = max_depth > 0 ? (size_t)max_depth : DEFAULT_DEPTH;
    size_t where;
    if (len == 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: empty, where JSON is expected", what);
    }
    if (too_deep(bytes, len, limit, &where)) {
        return lb_fail(detail, LB_E_LIMIT, "%s: JSON nested deeper than %zu levels at byte %zu", what, limit,
                       where);
    }
    json_error_t error = {0};
    allocation_failed = false;
    parsing = true;
    json_t *value = json_loadb(bytes, len, flags | JSON_DECODE_ANY, &error);
    parsing = false;
    if (allocation_failed) {
        json_decref(value);
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory while parsing %zu bytes of JSON", what, len);
    }
    if (value == NULL) {
        return lb_fail(detail, LB_E_FORMAT, "%s: not valid JSON: %s (line %d, column %d, byte %d)", what,
                       error.text[0] != '\0' ? error.text : "unreadable", error.line, error.column,
                       error.position);
    }
    *out = value;
    return LB_OK;
}

enum lb_status lb_json_parse(const void *bytes, size_t len, int max_depth, const char *what, json_t **out,
                             struct lb_detail *detail) {
    return parse(bytes, len, max_depth, JSON_REJECT_DUPLICATES, what, out, detail);
}

/* ---- what other tools write beside JSON proper ---- */

/* Where the string ends whose first quote is at text[i]: behind its last quote, or len. */
static size_t behind_string(const char *text, size_t i, size_t len) {
    for (i++; i < len && text[i] != '"'; i++) {
        i += text[i] == '\\';
    }
    return i < len ? i + 1 : len;
}

enum word { WORD_PLAIN, WORD_HIDE, WORD_REAL };

/* The length of the bare word (a number or a name) at text, 0 when there is none, and what has to be done so
 * that jansson reads it. */
static size_t bare_word(const char *text, size_t len, enum word *out) {
    enum { SHORT = 18, LONGEST = 300 }; /* so many digits fit an int64_t; a double, and C's buffers */
    size_t n = 0, digits = 0, others = 0;
    for (; n < len; n++) {
        bool digit = text[n] >= '0' && text[n] <= '9';
        bool letter = (text[n] >= 'a' && text[n] <= 'z') || (text[n] >= 'A' && text[n] <= 'Z');
        if (!digit && !letter && text[n] != '+' && text[n] != '-' && text[n] != '.') {
            break;
        }
        digits += digit;
        others += letter && text[n] != 'e' && text[n] != 'E';
    }
    *out = WORD_PLAIN;
    if ((n == 3 && memcmp(text, "NaN", 3) == 0) || (n == 8 && memcmp(text, "Infinity", 8) == 0) ||
        (n == 9 && memcmp(text, "-Infinity", 9) == 0)) {
        *out = WORD_HIDE;
    } else if (digits > 0 && others == 0) {
        bool whole = digits == n - (text[0] == '-');
        char copy[LONGEST + 1] = "";
        memcpy(copy, text, n < LONGEST ? n : LONGEST);
        if (n > LONGEST || isinf(strtod(copy, NULL))) {
            *out = WORD_HIDE;
        } else if (whole && digits > SHORT) {
            errno = 0;
            (void)strtoll(copy, NULL, 10);
            *out = errno != 0 ? WORD_REAL : WORD_PLAIN;
        }
    }
    return n;
}

/* text as jansson reads it: what C has no number for becomes {"": "NaN"}, which no getter takes. Nothing is
 * appended when it can be read as it stands. */
static enum lb_status make_strict(const char *text, size_t len, struct lb_buf *buf) {
    size_t done = 0;
    for (size_t i = 0; i < len;) {
        enum word word = WORD_PLAIN;
        size_t n = text[i] == '"' ? behind_string(text, i, len) - i : bare_word(text + i, len - i, &word);
        if (word != WORD_PLAIN) {
            lb_buf_append(buf, text + done, i - done);
            lb_buf_printf(buf, word == WORD_REAL ? "%.*s.0" : "{\"\":\"%.*s\"}", (int)n, text + i);
            done = i + n;
        }
        i += n > 0 ? n : 1;
    }
    if (done > 0) {
        lb_buf_append(buf, text + done, len - done);
    }
    return lb_buf_status(buf);
}

enum lb_status lb_json_parse_loose(const void *bytes, size_t len, int max_depth, const char *what,
                                   json_t **out, struct lb_detail *detail) {
    const char *text = bytes;
    size_t mark = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    struct lb_buf buf;
    lb_buf_init(&buf, SIZE_MAX / 2);
    enum lb_status status = make_strict(text + mark, len - mark, &buf);
    if (status != LB_OK) {
        status = lb_fail(detail, status, "%s: out of memory while parsing %zu bytes of JSON", what, len);
    } else {
        status = parse(buf.len > 0 ? buf.data : text + mark, buf.len > 0 ? buf.len : len - mark, max_depth,
                       JSON_ALLOW_NUL, what, out, detail);
    }
    lb_buf_finish(&buf);
    return status;
}

enum lb_status lb_json_file(const char *path, size_t max_bytes, json_t **out, struct lb_detail *detail) {
    struct lb_buf buf;
    lb_buf_init(&buf, max_bytes);
    enum lb_status status = lb_file_read(path, &buf, detail);
    if (status == LB_OK) {
        status = lb_json_parse_loose(buf.data, buf.len, 0, path, out, detail);
    }
    lb_buf_finish(&buf);
    return status;
}

/* ---- writing ---- */

static int append_chunk(const char *bytes, size_t len, void *data) {
    return lb_buf_append(data, bytes, len) == LB_OK ? 0 : -1;
}

/* The shortest of 15, 16 and 17 digits that reads back as the same double, in JSON's spelling (no '+', no
 * leading zeros in the exponent, always a '.' or an exponent). Returns its length. */
static size_t shortest_real(double v, char *out, size_t out_bytes) {
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(out, out_bytes, "%.*g", digits, v);
        if (strtod(out, NULL) == v) {
            break;
        }
    }
    char *e = strchr(out, 'e');
    if (e == NULL) {
        if (strchr(out, '.') == NULL) {
            n += snprintf(out + n, out_bytes - (size_t)n, ".0");
        }
        return (size_t)n;
    }
    char *from = e + 1;
    char *to = e + 1;
    if (*from == '-') {
        to++;
        from++;
    } else if (*from == '+') {
        from++;
    }
    from += strspn(from, "0");
    memmove(to, from, strlen(from) + 1);
    return strlen(out);
}

/* Rewrites the reals of the JSON text at [0, len) in place; jansson writes 17 digits always
 * (0.10000000000000001). The rewritten number is never longer. Returns the new length. */
static size_t shorten_reals(char *text, size_t len) {
    size_t to = 0;
    bool in_string = false;
    for (size_t i = 0; i < len;) {
        char c = text[i];
        bool number = !in_string && (c == '-' || (c >= '0' && c <= '9'));
        if (!number) {
            if (in_string && c == '\\' && i + 1 < len) {
                text[to++] = text[i++];
            } else if (c == '"') {
                in_string = !in_string;
            }
            text[to++] = text[i++];
            continue;
        }
        size_t n = 0;
        bool real = false;
        while (i + n < len && strchr("+-.0123456789eE", text[i + n]) != NULL && text[i + n] != '\0') {
            real = real || strchr(".eE", text[i + n]) != NULL;
            n++;
        }
        char old[64];
        char new[64];
        size_t new_len = n;
        if (real && n < sizeof old) {
            memcpy(old, text + i, n);
            old[n] = '\0';
            new_len = shortest_real(strtod(old, NULL), new, sizeof new);
        }
        if (real && new_len < n) {
            memcpy(text + to, new, new_len);
        } else {
            new_len = n;
            memmove(text + to, text + i, n);
        }
        to += new_len;
        i += n;
    }
    return to;
}

enum lb_status lb_json_dump(const json_t *value, size_t flags, struct lb_buf *buf) {
    const size_t indent_bits = 0x1f;
    const size_t precision_bits = JSON_REAL_PRECISION(0x1f);
    if (lb_buf_status(buf) != LB_OK) {
        return lb_buf_status(buf);
    }
    size_t start = buf->len;
    allocation_failed = false;
    if ((flags & indent_bits) == 0) {
        flags |= JSON_COMPACT;
    }
    if (json_dump_callback(value, append_chunk, buf, flags | JSON_ENCODE_ANY) != 0) {
        enum lb_status status = lb_buf_status(buf);
        if (status == LB_OK) {
            status = buf->status = allocation_failed ? LB_E_NOMEM : LB_E_INTERNAL;
        }
        buf->len = start; /* no half a document */
        if (buf->data != NULL) {
            buf->data[start] = '\0';
        }
        return status;
    }
    if ((flags & precision_bits) == 0) {
        buf->len = start + shorten_reals(buf->data + start, buf->len - start);
        buf->data[buf->len] = '\0';
    }
    return LB_OK;
}

/* ---- getters ---- */

static const char *type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return json_object_size(value) == 1 && json_object_get(value, "") != NULL
                   ? "NaN, Infinity or a number beyond all bounds" /* make_strict */
                   : "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

/* Finds the key: *out_value is NULL when it is missing or null and need not be there. */
static enum lb_status find(const json_t *object, const char *key, bool required, const char *what,
                           json_t **out_value, struct lb_detail *detail) {
    if (!json_is_object(object)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: an object with the key %s is expected", what, key);
    }
    json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) {
        if (required) {
            return lb_fail(detail, LB_E_FORMAT, "%s: %s is %s, but must be given", what, key,
                           value == NULL ? "missing" : "null");
        }
        value = NULL;
    }
    *out_value = value;
    return LB_OK;
}

static enum lb_status wrong_type(const json_t *value, const char *key, const char *what, const char *expected,
                                 struct lb_detail *detail) {
    return lb_fail(detail, LB_E_FORMAT, "%s: %s must be %s, not %s", what, key, expected, type_name(value));
}

enum lb_status lb_json_int(const json_t *object, const char *key, bool required, int64_t min, int64_t max,
                           const char *what, int64_t *out, struct lb_detail *detail) {
    json_t *value;
    enum lb_status status = find(object, key, required, what, &value, detail);
    if (status != LB_OK || value == NULL) {
        return status;
    }
    if (!json_is_integer(value)) {
        return wrong_type(value, key, what, "an integer", detail);
    }
    int64_t v = json_integer_value(value);
    if (v < min || v > max) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s is %lld, but must be in [%lld, %lld]", what, key,
                       (long long)v, (long long)min, (long long)max);
    }
    *out = v;
    return LB_OK;
}

enum lb_status lb_json_number(const json_t *object, const char *key, bool required, double min, double max,
                              const char *what, double *out, struct lb_detail *detail) {
    json_t *value;
    enum lb_status status = find(object, key, required, what, &value, detail);
    if (status != LB_OK || value == NULL) {
        return status;
    }
    if (!json_is_number(value)) {
        return wrong_type(value, key, what, "a number", detail);
    }
    double v = json_number_value(value);
    if (!(v >= min && v <= max)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s is %.17g, but must be in [%.17g, %.17g]", what, key, v,
                       min, max);
    }
    *out = v;
    return LB_OK;
}

enum lb_status lb_json_bool(const json_t *object, const char *key, bool required, const char *what, bool *out,
                            struct lb_detail *detail) {
    json_t *value;
    enum lb_status status = find(object, key, required, what, &value, detail);
    if (status != LB_OK || value == NULL) {
        return status;
    }
    if (!json_is_boolean(value)) {
        return wrong_type(value, key, what, "true or false", detail);
    }
    *out = json_is_true(value);
    return LB_OK;
}

enum lb_status lb_json_str(const json_t *object, const char *key, bool required, const char *what,
                           const char **out, struct lb_detail *detail) {
    json_t *value;
    enum lb_status status = find(object, key, required, what, &value, detail);
    if (status != LB_OK || value == NULL) {
        return status;
    }
    if (!json_is_string(value)) {
        return wrong_type(value, key, what, "a string", detail);
    }
    if (strlen(json_string_value(value)) != json_string_length(value)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s holds a NUL character", what, key);
    }
    *out = json_string_value(value);
    return LB_OK;
}
