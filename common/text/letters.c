#include "common/text/letters.h"

#include "common/text/normalize.h"

#include <stddef.h>
#include <utf8proc.h>

#define COUNT(ranges) (sizeof(ranges) / sizeof *(ranges))

static bool is_in(const uint32_t ranges[][2], size_t n, uint32_t c) {
    for (size_t i = 0; i < n; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1]) {
            return true;
        }
    }
    return false;
}

/* Characters whose upper case is several characters (SpecialCasing.txt, the unconditional mappings). */
static bool special(uint32_t c) {
    static const uint32_t ranges[][2] = {
        {0xdf, 0xdf},     {0x149, 0x149},   {0x1f0, 0x1f0},   {0x390, 0x390},   {0x3b0, 0x3b0},
        {0x587, 0x587},   {0x1e96, 0x1e9a}, {0x1f50, 0x1f56}, {0x1f80, 0x1faf}, {0x1fb2, 0x1fbc},
        {0x1fc2, 0x1fcc}, {0x1fd2, 0x1fd7}, {0x1fe2, 0x1fe7}, {0x1ff2, 0x1ffc}, {0xfb00, 0xfb17}};
    return is_in(ranges, COUNT(ranges), c);
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
    /* Other_Uppercase (PropList.txt) */
    static const uint32_t others[][2] = {
        {0x2160, 0x216f}, {0x24b6, 0x24cf}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LU || is_in(others, COUNT(others), c);
}

bool lb_is_lower(uint32_t c) {
    /* Other_Lowercase */
    static const uint32_t others[][2] = {
        {0xaa, 0xaa},       {0xba, 0xba},       {0x2b0, 0x2b8},     {0x2c0, 0x2c1},    {0x2e0, 0x2e4},
        {0x345, 0x345},     {0x37a, 0x37a},     {0x1d2c, 0x1d6a},   {0x1d78, 0x1d78},  {0x1d9b, 0x1dbf},
        {0x2071, 0x2071},   {0x207f, 0x207f},   {0x2090, 0x209c},   {0x2170, 0x217f},  {0x24d0, 0x24e9},
        {0x2c7c, 0x2c7d},   {0xa69c, 0xa69d},   {0xa770, 0xa770},   {0xa7f8, 0xa7f9},  {0xab5c, 0xab5f},
        {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba}};
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LL || is_in(others, COUNT(others), c);
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
