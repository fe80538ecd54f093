#include "server/http/compress.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

/* zlib's windowBits: 15 is the largest window; +16 writes a gzip header, +32 reads either header, negative
 * reads none. */
#define WINDOW 15
#define STEP 65536

const char *lb_coding_name(enum lb_coding coding) {
    switch (coding) {
    case LB_CODING_IDENTITY:
        return "identity";
    case LB_CODING_GZIP:
        return "gzip";
    case LB_CODING_DEFLATE:
        return "deflate";
    default:
        return "unknown";
    }
}

static enum lb_coding coding_of(const char *name, size_t len) {
    if ((len == 4 && strncasecmp(name, "gzip", 4) == 0) ||
        (len == 6 && strncasecmp(name, "x-gzip", 6) == 0)) {
        return LB_CODING_GZIP;
    }
    if (len == 7 && strncasecmp(name, "deflate", 7) == 0) {
        return LB_CODING_DEFLATE;
    }
    return len == 8 && strncasecmp(name, "identity", 8) == 0 ? LB_CODING_IDENTITY : LB_CODING_UNKNOWN;
}

enum lb_coding lb_coding_parse(const char *value) {
    if (!value) {
        return LB_CODING_IDENTITY;
    }
    value += strspn(value, " \t");
    size_t len = strlen(value);
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t')) {
        len--;
    }
    return len == 0 ? LB_CODING_IDENTITY : coding_of(value, len);
}

/* The weight of one list item, thousandths; the item ends at end. A weight that makes no sense counts as 0.
 */
static int item_weight(const char *parameters, const char *end) {
    const char *q = memchr(parameters, ';', (size_t)(end - parameters));
    if (!q) {
        return 1000;
    }
    q++;
    q += strspn(q, " \t");
    if (end - q < 3 || (q[0] != 'q' && q[0] != 'Q') || q[1] != '=' || (q[2] != '0' && q[2] != '1')) {
        return 0;
    }
    int weight = (q[2] - '0') * 1000, unit = 100;
    if (end - q > 3 && q[3] == '.') {
        for (const char *p = q + 4; p < end && *p >= '0' && *p <= '9' && unit > 0; p++, unit /= 10) {
            weight += (*p - '0') * unit;
        }
    }
    return weight > 1000 ? 1000 : weight;
}

enum lb_coding lb_coding_accepted(const char *value) {
    enum lb_coding best = LB_CODING_IDENTITY;
    int best_weight = 0;
    while (value && *value) {
        const char *end = value + strcspn(value, ",");
        const char *name = value + strspn(value, " \t");
        size_t len = 0;
        while (name + len < end && !strchr(" \t;", name[len])) {
            len++;
        }
        enum lb_coding coding = coding_of(name, len);
        int weight = item_weight(name, end);
        bool packs = coding == LB_CODING_GZIP || coding == LB_CODING_DEFLATE;
        if (weight > best_weight && (packs || coding == LB_CODING_IDENTITY)) {
            best = coding;
            best_weight = weight;
        }
        value = *end ? end + 1 : end;
    }
    return best;
}

/* "deflate" is zlib's format (RFC 1950); some send raw RFC 1951. The first two bytes tell. */
static bool has_zlib_header(const uint8_t *bytes, size_t len) {
    return len >= 2 && (bytes[0] & 0x0f) == 8 && ((bytes[0] << 8) | bytes[1]) % 31 == 0;
}

/* An output that grows as its owner allows. */
struct growth {
    struct lb_buf *out;
    lb_grow_fn grow;
    void *context;
    size_t allowed; /* bytes of out */
    bool stopped;
};

/* Room for the next step of output, never beyond the buffer's maximum. */
static uint8_t *next_room(struct growth *g, size_t *room) {
    struct lb_buf *out = g->out;
    *room = out->max - out->len < STEP ? out->max - out->len : STEP;
    if (out->len + *room > g->allowed) {
        if (g->grow && !g->grow(g->context, STEP)) {
            g->stopped = true;
            return NULL;
        }
        g->allowed += STEP;
    }
    return *room > 0 ? lb_buf_extend(out, *room) : NULL;
}

static enum lb_status no_room(const struct growth *g, struct lb_detail *detail) {
    const struct lb_buf *out = g->out;
    if (g->stopped) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "too many bytes in flight; try again");
    }
    if (lb_buf_status(out) == LB_E_NOMEM) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while (un)packing a body of %zu bytes", out->len);
    }
    return lb_fail(detail, LB_E_LIMIT, "body: more than the maximum of %zu bytes after (un)packing",
                   out->max);
}

enum lb_status lb_unpack(enum lb_coding coding, const void *bytes, size_t len, lb_grow_fn grow, void *context,
                         struct lb_buf *out, struct lb_detail *detail) {
    struct growth g = {out, grow, context, out->len, false};
    if (coding == LB_CODING_IDENTITY) {
        return lb_buf_append(out, bytes, len) == LB_OK ? LB_OK : no_room(&g, detail);
    }
    if (coding == LB_CODING_UNKNOWN) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "Content-Encoding: only gzip, deflate and identity are understood");
    }
    int window = coding == LB_CODING_GZIP || has_zlib_header(bytes, len) ? WINDOW + 32 : -WINDOW;
    z_stream z = {0};
    if (inflateInit2(&z, window) != Z_OK) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while unpacking a body");
    }
    z.next_in = (Bytef *)(uintptr_t)bytes; /* zlib's type lacks the const; it doesn't write there */
    z.avail_in = (uInt)len;                /* bodies are far below 4 GiB: LB_MAX_BODY_BYTES */
    enum lb_status status = LB_OK;
    int r = Z_OK;
    while (r != Z_STREAM_END && status == LB_OK) {
        size_t room = 0;
        z.next_out = next_room(&g, &room);
        if (!z.next_out) {
            /* The maximum may have been reached exactly: one more byte of output decides. */
            uint8_t probe;
            z.next_out = &probe;
            z.avail_out = 1;
            r = lb_buf_status(out) == LB_OK && !g.stopped ? inflate(&z, Z_NO_FLUSH) : Z_MEM_ERROR;
            status = r == Z_STREAM_END && z.avail_out == 1 ? LB_OK : no_room(&g, detail);
            break;
        }
        z.avail_out = (uInt)room;
        r = inflate(&z, Z_NO_FLUSH);
        out->len -= z.avail_out;
        if (r != Z_OK && r != Z_STREAM_END) {
            status = lb_fail(detail, LB_E_FORMAT, "body: %s data damaged or cut short near byte %lu of %zu",
                             lb_coding_name(coding), z.total_in, len);
        }
    }
    if (status == LB_OK && z.avail_in > 0) {
        status = lb_fail(detail, LB_E_FORMAT, "body: %u bytes follow the end of the %s data", z.avail_in,
                         lb_coding_name(coding));
    }
    inflateEnd(&z);
    return status;
}

enum lb_status lb_pack(enum lb_coding coding, const struct lb_span *spans, size_t n, lb_grow_fn grow,
                       void *context, struct lb_buf *out, struct lb_detail *detail) {
    struct growth g = {out, grow, context, out->len, false};
    z_stream z = {0};
    int window = coding == LB_CODING_GZIP ? WINDOW + 16 : WINDOW;
    if (deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while packing a body");
    }
    enum lb_status status = LB_OK;
    int r = Z_OK;
    for (size_t i = 0; i <= n && status == LB_OK; i++) {
        int flush = i == n ? Z_FINISH : Z_NO_FLUSH;
        const uint8_t *data = i < n ? spans[i].data : (const uint8_t *)"";
        size_t left = i < n ? spans[i].len : 0;
        do {
            uInt piece = left > (1u << 30) ? 1u << 30 : (uInt)left;
            size_t room = 0;
            z.next_in = (Bytef *)(uintptr_t)data;
            z.avail_in = piece;
            z.next_out = next_room(&g, &room);
            if (!z.next_out) {
                status = no_room(&g, detail);
                break;
            }
            z.avail_out = (uInt)room;
            r = deflate(&z, flush);
            out->len -= z.avail_out;
            data = data ? data + (piece - z.avail_in) : NULL;
            left -= piece - z.avail_in;
        } while (left > 0 || z.avail_out == 0 || (flush == Z_FINISH && r != Z_STREAM_END));
    }
    deflateEnd(&z);
    return status;
}
