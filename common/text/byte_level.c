#include "common/text/byte_level.h"

#include "common/base/utf8.h"

/* The bytes that have no printing character in Latin-1: 0-32, 127-160, 173. */
#define N_CONTROL 33
#define N_HIGH 34
#define FIRST_LETTER 0x100
#define N_LETTERS (N_CONTROL + N_HIGH + 1)

uint32_t lb_byte_letter(uint8_t byte) {
    if (byte < N_CONTROL) {
        return FIRST_LETTER + (uint32_t)byte;
    }
    if (byte >= 127 && byte <= 160) {
        return FIRST_LETTER + N_CONTROL + (uint32_t)(byte - 127);
    }
    return byte == 173 ? FIRST_LETTER + N_CONTROL + N_HIGH : byte;
}

int lb_letter_byte(uint32_t c) {
    if (c < FIRST_LETTER) {
        return lb_byte_letter((uint8_t)c) == c ? (int)c : -1;
    }
    uint32_t i = c - FIRST_LETTER;
    if (i < N_CONTROL) {
        return (int)i;
    }
    if (i < N_CONTROL + N_HIGH) {
        return (int)(127 + i - N_CONTROL);
    }
    return i < N_LETTERS ? 173 : -1;
}

size_t lb_bytes_to_letters(const char *bytes, size_t n, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < n; i++) {
        written += lb_utf8_put(lb_byte_letter((uint8_t)bytes[i]), out + written);
    }
    return written;
}

bool lb_letters_to_bytes(const char *letters, size_t n, char *out, size_t *out_n) {
    size_t pos = 0, written = 0;
    while (pos < n) {
        int byte = lb_letter_byte(lb_utf8_next(letters, &pos));
        if (byte < 0) {
            return false;
        }
        out[written++] = (char)byte;
    }
    *out_n = written;
    return true;
}
