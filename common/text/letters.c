#include "common/text/letters.h"

#include "common/text/normalize.h"

#include <stddef.h>
#include <utf8proc.h>

/* Characters whose upper case is several characters (SpecialCasing.txt, the unconditional mappings). */
static bool special(uint32_t c) {
    static const uint32_t ranges[][2] = {
        {0xdf, 0xdf},     {0x149, 0x149},   {0x1f0, 0x1f0},   {0x390, 0x390},   {0x3b0, 0x3b0},
        {0x587, 0x587},   {0x1e96, 0x1e9a}, {0x1f50, 0x1f56}, {0x1f80, 0x1faf}, {0x1fb2, 0x1fbc},
        {0x1fc2, 0x1fcc}, {0x1fd2, 0x1fd7}, {0x1fe2, 0x1fe7}, {0x1ff2, 0x1ffc}, {0xfb00, 0xfb17}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1]) {
            return true;
        }
    }
    return false;
}

int32_t lb_to_upper(uint32_t c) {
    return special(c) ? -1 : utf8proc_toupper((utf8proc_int32_t)c);
}

int32_t lb_to_title(uint32_t c) {
    return special(c) ? -1 : utf8proc_totitle((utf8proc_int32_t)c);
}

int32_t lb_to_lower(uint32_t c) {
    return c == 0x130 || c == 0x3a3 ? -1 : utf8proc_tolower((utf8proc_int32_t)c);
}

bool lb_is_upper(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LU;
}

bool lb_is_lower(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LL;
}

bool lb_is_title(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LT;
}

bool lb_is_alpha(uint32_t c) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool lb_is_decimal(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND;
}

bool lb_is_printable(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

bool lb_is_blank(uint32_t c) {
    return lb_is_space(c) || (c >= 0x1c && c <= 0x1f);
}
