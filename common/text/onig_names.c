#include "common/text/onig_names.h"

#include <string.h>

/* Names as Oniguruma compares them: small letters, without spaces, hyphens and underscores. */
static const struct {
    const char *name, *set; /* within brackets, PCRE2's */
} sets[] = {
    {"alpha", "\\p{Alphabetic}"}, {"alphabetic", "\\p{Alphabetic}"},
    {"lower", "\\p{Lowercase}"},  {"lowercase", "\\p{Lowercase}"},
    {"upper", "\\p{Uppercase}"},  {"uppercase", "\\p{Uppercase}"},
    {"digit", "\\p{Nd}"},         {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"space", LB_ONIG_SPACE},     {"whitespace", LB_ONIG_SPACE},
    {"blank", "\\t\\p{Zs}"},      {"punct", "\\p{P}$+<=>^`|~"},
    {"cntrl", "\\p{Cc}"},         {"xdigit", LB_ONIG_HEX},
    {"word", LB_ONIG_WORD},       {"ascii", "\\x00-\\x7f"},
};

static const struct {
    const char *name, *category;
} long_names[] = {{"letter", "L"},
                  {"uppercaseletter", "Lu"},
                  {"lowercaseletter", "Ll"},
                  {"titlecaseletter", "Lt"},
                  {"modifierletter", "Lm"},
                  {"otherletter", "Lo"},
                  {"mark", "M"},
                  {"nonspacingmark", "Mn"},
                  {"spacingmark", "Mc"},
                  {"enclosingmark", "Me"},
                  {"number", "N"},
                  {"decimalnumber", "Nd"},
                  {"letternumber", "Nl"},
                  {"othernumber", "No"},
                  {"punctuation", "P"},
                  {"symbol", "S"},
                  {"mathsymbol", "Sm"},
                  {"currencysymbol", "Sc"},
                  {"modifiersymbol", "Sk"},
                  {"othersymbol", "So"},
                  {"separator", "Z"},
                  {"spaceseparator", "Zs"},
                  {"other", "C"},
                  {"control", "Cc"},
                  {"format", "Cf"}};

static bool is_name(const char *known, const char *name) {
    size_t i = 0;
    for (; known[i]; i++) {
        char c = known[i];
        if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != name[i]) {
            return false;
        }
    }
    return !name[i];
}

bool lb_onig_put_name(const char *name, struct lb_buf *out) {
    static const char *const categories[] = {"C",  "Cc", "Cf", "Cn", "Co", "L",  "Ll", "Lm", "Lo",
                                             "Lt", "Lu", "M",  "Mc", "Me", "Mn", "N",  "Nd", "Nl",
                                             "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps",
                                             "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};
    /* The Script property, which PCRE2 writes sc: (without it, it takes Script_Extensions). */
    static const char *const scripts[] = {
        "Arabic",   "Armenian", "Bengali",  "Bopomofo", "Cyrillic",  "Devanagari", "Ethiopic", "Georgian",
        "Greek",    "Gujarati", "Gurmukhi", "Han",      "Hangul",    "Hebrew",     "Hiragana", "Kannada",
        "Katakana", "Khmer",    "Lao",      "Latin",    "Malayalam", "Mongolian",  "Myanmar",  "Oriya",
        "Sinhala",  "Tamil",    "Telugu",   "Thai",     "Tibetan"};
    for (size_t i = 0; i < sizeof categories / sizeof categories[0]; i++) {
        if (is_name(categories[i], name)) {
            lb_buf_printf(out, "\\p{%s}", categories[i]);
            return true;
        }
    }
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        if (is_name(scripts[i], name)) {
            lb_buf_printf(out, "\\p{sc:%s}", scripts[i]);
            return true;
        }
    }
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (is_name(sets[i].name, name)) {
            lb_buf_append_str(out, sets[i].set);
            return true;
        }
    }
    for (size_t i = 0; i < sizeof long_names / sizeof long_names[0]; i++) {
        if (is_name(long_names[i].name, name)) {
            lb_buf_printf(out, "\\p{%s}", long_names[i].category);
            return true;
        }
    }
    return false;
}

const char *lb_onig_set(const char *name) {
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (is_name(sets[i].name, name)) {
            return sets[i].set;
        }
    }
    return NULL;
}
