#include "common/base/utf8.h"

#include <string.h>

/* How many bytes of the character at p are as they should be, and in *out_need how many it has: equal when it
 * is complete, need 0 when p[0] cannot begin one. */
static size_t match_char(const uint8_t *p, size_t n, size_t *out_need) {
    uint8_t lead = p[0];
    uint8_t low = 0x80, high = 0xbf; /* of the second byte */
    size_t need;
    if (lead < 0x80) {
        need = 1;
    } else if (lead >= 0xc2 && lead <= 0xdf) {
        need = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        need = 3;
        low = lead == 0xe0 ? 0xa0 : low;
        high = lead == 0xed ? 0x9f : high;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        need = 4;
        low = lead == 0xf0 ? 0x90 : low;
        high = lead == 0xf4 ? 0x8f : high;
    } else {
        need = 0;
    }
    *out_need = need;
    size_t have = need ? 1 : 0;
    while (have < need && have < n && p[have] >= low && p[have] <= high) {
        low = 0x80;
        high = 0xbf;
        have++;
    }
    return have;
}

size_t lb_utf8_char(const uint8_t *p, size_t n) {
    size_t need;
    size_t have = match_char(p, n, &need);
    return have == need ? have : 0;
}

size_t lb_utf8_check(const char *text, size_t len) {
    const uint8_t *p = (const uint8_t *)text;
    size_t i = 0;
    while (i < len) {
        uint64_t word;
        if (len - i >= sizeof word) {
            memcpy(&word, p + i, sizeof word);
            if (!(word & UINT64_C(0x8080808080808080))) {
                i += sizeof word;
                continue;
            }
        }
        size_t bytes = lb_utf8_char(p + i, len - i);
        if (!bytes) {
            return i;
        }
        i += bytes;
    }
    return len;
}

uint32_t lb_utf8_next(const char *text, size_t *pos) {
    const uint8_t *p = (const uint8_t *)text + *pos;
    if (p[0] < 0x80) {
        *pos += 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *pos += 2;
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    }
    if (p[0] < 0xf0) {
        *pos += 3;
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    *pos += 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

uint32_t lb_utf8_previous(const char *text, size_t *pos) {
    size_t start = *pos - 1;
    while (start > 0 && ((uint8_t)text[start] & 0xc0) == 0x80) {
        start--;
    }
    *pos = start;
    size_t end = start;
    return lb_utf8_next(text, &end);
}

size_t lb_utf8_put(uint32_t c, char *out) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

size_t lb_utf8_settled(const char *bytes, size_t len) {
    const uint8_t *p = (const uint8_t *)bytes;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        size_t need;
        if ((p[len - back] & 0xc0) == 0x80) {
            continue; /* not the first byte of any */
        }
        size_t have = match_char(p + len - back, back, &need);
        return have == back && have < need ? len - back : len;
    }
    return len;
}

void lb_utf8_append_lossy(struct lb_buf *buf, const char *bytes, size_t len) {
    size_t done = 0;
    while (done < len) {
        size_t good = lb_utf8_check(bytes + done, len - done);
        lb_buf_append(buf, bytes + done, good);
        done += good;
        if (done < len) {
            size_t need;
            size_t bad = match_char((const uint8_t *)bytes + done, len - done, &need);
            lb_buf_append(buf, "\xef\xbf\xbd", 3);
            done += bad ? bad : 1;
        }
    }
}
