#include "common/text/onig_names.h"

#include <string.h>

/* Alphabetic and Lowercase with what has joined them since PCRE2's Unicode 14. */
#define ALPHABETIC                                                                                           \
    "\\p{Alphabetic}\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{11080}\\x{11081}"
#define LOWERCASE "\\p{Lowercase}\\x{10fc}\\x{a7f2}-\\x{a7f4}\\x{ab69}"

/* Names as Oniguruma compares them: small letters, without spaces, hyphens and underscores. */
static const struct {
    const char *name, *set; /* \p{name}, within brackets, PCRE2's */
    const char *posix;      /* [:name:] where it is another set */
} sets[] = {{"alpha", ALPHABETIC, NULL},
            {"alphabetic", ALPHABETIC, NULL},
            {"lower", LOWERCASE, NULL},
            {"lowercase", LOWERCASE, NULL},
            {"upper", "\\p{Uppercase}", NULL},
            {"uppercase", "\\p{Uppercase}", NULL},
            {"digit", "\\p{Nd}", NULL},
            {"alnum", ALPHABETIC "\\p{Nd}", NULL},
            {"space", LB_ONIG_SPACE, NULL},
            {"whitespace", LB_ONIG_SPACE, NULL},
            {"blank", "\\t\\p{Zs}", NULL},
            {"punct", "\\p{P}", "\\p{P}\\p{S}"},
            {"cntrl", "\\p{Cc}", NULL},
            {"xdigit", LB_ONIG_HEX, NULL},
            {"word", LB_ONIG_WORD, LB_ONIG_POSIX_WORD},
            {"ascii", "\\x00-\\x7f", NULL}};

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
            return sets[i].posix ? sets[i].posix : sets[i].set;
        }
    }
    return NULL;
}
