#include "common/text/normalize.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"

#include <string.h>
#include <utf8proc.h>

#define MAX_TEXT_BYTES ((size_t)1 << 31)

enum { NFC, NFD, NFKC, NFKD, LOWERCASE, N_NORMALIZERS };

static const char *const names[N_NORMALIZERS] = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"};

void lb_normalized_finish(struct lb_normalized *normalized) {
    if (normalized) {
        lb_free(normalized->copy);
        lb_free(normalized->points);
        memset(normalized, 0, sizeof *normalized);
    }
}

static enum lb_status parse_one(const json_t *value, const char *what, struct lb_normalizer *to,
                                struct lb_detail *detail) {
    const char *type = NULL;
    enum lb_status status = lb_json_str(value, "type", true, what, &type, detail);
    if (status != LB_OK) {
        return status;
    }
    if (to->n == LB_MAX_NORMALIZERS) {
        return lb_fail(detail, LB_E_LIMIT, "%s: normalizer has more than %d steps", what, LB_MAX_NORMALIZERS);
    }
    for (int i = 0; i < N_NORMALIZERS; i++) {
        if (!strcmp(type, names[i])) {
            to->step[to->n++] = (uint8_t)i;
            return LB_OK;
        }
    }
    return lb_fail(detail, LB_E_UNSUPPORTED,
                   "%s: normalizer type \"%.40s\" is not supported (NFC, NFD, NFKC, NFKD, Lowercase and a "
                   "Sequence of them are)",
                   what, type);
}

enum lb_status lb_normalizer_parse(const json_t *value, const char *what, struct lb_normalizer *out,
                                   struct lb_detail *detail) {
    struct lb_normalizer to = {.n = 0};
    enum lb_status status = LB_OK;
    const json_t *type = json_object_get(value, "type");
    if (json_is_string(type) && !strcmp(json_string_value(type), "Sequence")) {
        const json_t *list = json_object_get(value, "normalizers");
        if (!json_is_array(list)) {
            return lb_fail(detail, LB_E_FORMAT, "%s: normalizer: Sequence without a list \"normalizers\"",
                           what);
        }
        for (size_t i = 0; i < json_array_size(list) && status == LB_OK; i++) {
            status = parse_one(json_array_get(list, i), what, &to, detail);
        }
    } else if (value && !json_is_null(value)) {
        status = parse_one(value, what, &to, detail);
    }
    if (status == LB_OK) {
        *out = to;
    }
    return status;
}

static bool is_ascii(const char *text, size_t len) {
    uint8_t seen = 0;
    for (size_t i = 0; i < len; i++) {
        seen |= (uint8_t)text[i];
    }
    return seen < 0x80;
}

/* ASCII is in every normal form; only capitals change. */
static enum lb_status lower_ascii(struct lb_normalized *out) {
    size_t i = 0;
    while (i < out->len && !(out->text[i] >= 'A' && out->text[i] <= 'Z')) {
        i++;
    }
    if (i == out->len) {
        return LB_OK;
    }
    if (out->text != out->copy) {
        if (out->copy_cap < out->len) {
            char *copy = lb_realloc_array(out->copy, out->len, 1);
            if (!copy) {
                return LB_E_NOMEM;
            }
            out->copy = copy;
            out->copy_cap = out->len;
        }
        memcpy(out->copy, out->text, out->len);
        out->text = out->copy;
    }
    for (; i < out->len; i++) {
        char c = out->copy[i];
        out->copy[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    return LB_OK;
}

static enum lb_status reserve_points(struct lb_normalized *out, size_t n) {
    if (n > out->points_cap) {
        if (n > MAX_TEXT_BYTES) {
            return LB_E_LIMIT;
        }
        int32_t *points = lb_realloc_array(out->points, n, sizeof *points);
        if (!points) {
            return LB_E_NOMEM;
        }
        out->points = points;
        out->points_cap = n;
    }
    return LB_OK;
}

/* Code points of the lower-cased text. One capital has two (SpecialCasing.txt); like Rust's
 * char::to_lowercase, no look at what stands around (final sigma). */
static enum lb_status lower_points(struct lb_normalized *out, size_t *out_n) {
    enum lb_status status = reserve_points(out, 2 * out->len);
    size_t n = 0, pos = 0;
    while (status == LB_OK && pos < out->len) {
        uint32_t c = lb_utf8_next(out->text, &pos);
        if (c == 0x130) {
            out->points[n++] = 'i';
            out->points[n++] = 0x307;
        } else {
            out->points[n++] = utf8proc_tolower((utf8proc_int32_t)c);
        }
    }
    *out_n = n;
    return status;
}

/* Code points of a normal form. */
static enum lb_status form_points(struct lb_normalized *out, int step, size_t *out_n) {
    int options = UTF8PROC_STABLE;
    options |= step == NFC || step == NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    options |= step == NFKC || step == NFKD ? UTF8PROC_COMPAT : 0;
    enum lb_status status = reserve_points(out, out->len);
    while (status == LB_OK) {
        utf8proc_ssize_t n =
            utf8proc_decompose((const utf8proc_uint8_t *)out->text, (utf8proc_ssize_t)out->len, out->points,
                               (utf8proc_ssize_t)out->points_cap, (utf8proc_option_t)options);
        if (n < 0) {
            return n == UTF8PROC_ERROR_NOMEM ? LB_E_NOMEM : LB_E_LIMIT;
        }
        if ((size_t)n <= out->points_cap) {
            n = utf8proc_normalize_utf32(out->points, n, (utf8proc_option_t)options);
            *out_n = n < 0 ? 0 : (size_t)n;
            return n < 0 ? LB_E_INTERNAL : LB_OK;
        }
        status = reserve_points(out, (size_t)n);
    }
    return status;
}

static enum lb_status run_step(struct lb_normalized *out, int step) {
    if (is_ascii(out->text, out->len)) {
        return step == LOWERCASE ? lower_ascii(out) : LB_OK;
    }
    size_t n = 0;
    enum lb_status status = step == LOWERCASE ? lower_points(out, &n) : form_points(out, step, &n);
    if (status != LB_OK) {
        return status;
    }
    if (out->copy_cap < 4 * n) {
        char *copy =
            lb_malloc_array(n, 4); /* the text itself may be in the old one, but is not needed any more */
        if (!copy) {
            return LB_E_NOMEM;
        }
        lb_free(out->copy);
        out->copy = copy;
        out->copy_cap = 4 * n;
    }
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        len += lb_utf8_put((uint32_t)out->points[i], out->copy + len);
    }
    out->text = out->copy;
    out->len = len;
    return len < MAX_TEXT_BYTES ? LB_OK : LB_E_LIMIT;
}

void lb_normalizer_hash(const struct lb_normalizer *normalizer, struct lb_sha256 *hash) {
    lb_sha256_u32(hash, (uint32_t)normalizer->n);
    lb_sha256_update(hash, normalizer->step, (size_t)normalizer->n);
}

enum lb_status lb_normalize(const struct lb_normalizer *normalizer, const char *text, size_t len,
                            struct lb_normalized *out, struct lb_detail *detail) {
    out->text = text;
    out->len = len;
    enum lb_status status = len < MAX_TEXT_BYTES ? LB_OK : LB_E_LIMIT;
    for (int i = 0; i < normalizer->n && status == LB_OK; i++) {
        status = run_step(out, normalizer->step[i]);
    }
    if (status != LB_OK) {
        return lb_fail(detail, status, "a text of %zu bytes cannot be normalized: %s", len,
                       lb_status_name(status));
    }
    return LB_OK;
}

bool lb_is_word(uint32_t c) {
    if (c < 0x80) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
    }
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* the symbols that are Alphabetic, and the joiners */
        return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
               (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c || c == 0x200d;
    }
}

bool lb_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}
