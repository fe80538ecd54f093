#include "common/base/base64.h"

#include <stdint.h>

void lb_base64_put(struct lb_buf *buf, const void *bytes, size_t n) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *from = bytes;
    char *to = lb_buf_extend(buf, (n + 2) / 3 * 4);
    for (size_t i = 0; to && i < n; i += 3) {
        size_t left = n - i;
        uint32_t three = (uint32_t)from[i] << 16 | (uint32_t)(left > 1 ? from[i + 1] : 0) << 8 |
                         (uint32_t)(left > 2 ? from[i + 2] : 0);
        *to++ = letters[three >> 18];
        *to++ = letters[three >> 12 & 63];
        *to++ = left > 1 ? letters[three >> 6 & 63] : '=';
        *to++ = left > 2 ? letters[three & 63] : '=';
    }
}

static int digit_of(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool lb_base64_bytes(const char *from, size_t len, unsigned char *to, size_t *out_len) {
    size_t n = 0;
    if (len % 4 != 0) {
        return false;
    }
    size_t padding = len > 0 && from[len - 1] == '=' ? (from[len - 2] == '=' ? 2u : 1u) : 0u;
    uint32_t word = 0;
    for (size_t i = 0; i < len - padding; i++) {
        int digit = digit_of(from[i]);
        if (digit < 0) {
            return false;
        }
        word = word << 6 | (uint32_t)digit;
        if (i % 4 == 3) {
            to[n++] = (unsigned char)(word >> 16);
            to[n++] = (unsigned char)(word >> 8);
            to[n++] = (unsigned char)word;
            word = 0;
        }
    }
    if (padding == 2) {
        to[n++] = (unsigned char)(word >> 4);
    } else if (padding == 1) {
        to[n++] = (unsigned char)(word >> 10);
        to[n++] = (unsigned char)(word >> 2);
    }
    *out_len = n;
    return true;
}
