#include "server/http/tokens.h"

#include "common/base/mem.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MIN_TOKEN 8
#define DIGEST "sha256:"
#define MAX_PER_MINUTE 1000000000000
#define MAX_CONCURRENT 1000000
/* A name, a token and each setting once; one more, to tell that there are more. */
#define MAX_WORDS 6

struct word {
    const char *text;
    size_t len;
};

struct line {
    const char *path;
    int number;
    struct word words[MAX_WORDS];
    size_t n;
};

/* What stands in a line may be a secret: details tell where, not what. */
static enum lb_status bad(const struct line *line, struct lb_detail *detail, const char *what) {
    return lb_fail(detail, LB_E_FORMAT, "token file %s, line %d: %s", line->path, line->number, what);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

/* The words of a line up to a comment. */
static enum lb_status split(struct line *line, const char *text, size_t len, struct lb_detail *detail) {
    line->n = 0;
    for (size_t at = 0; at < len;) {
        if (is_blank(text[at])) {
            at++;
            continue;
        }
        size_t start = at;
        if (text[at] == '#') {
            break;
        }
        for (; at < len && !is_blank(text[at]); at++) {
            if (text[at] <= ' ' || text[at] > '~') {
                return lb_fail(detail, LB_E_FORMAT,
                               "token file %s, line %d: byte %zu is no visible ASCII character", line->path,
                               line->number, at + 1);
            }
        }
        if (line->n < MAX_WORDS) {
            line->words[line->n++] = (struct word){text + start, at - start};
        }
    }
    return LB_OK;
}

/* What follows key= in the word, NULL when it is another. */
static const char *value_of(const struct word *word, const char *key, size_t *out_len) {
    size_t n = strlen(key);
    if (word->len <= n || memcmp(word->text, key, n) != 0 || word->text[n] != '=') {
        return NULL;
    }
    *out_len = word->len - n - 1;
    return word->text + n + 1;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static enum lb_status read_token(const struct line *line, const struct word *word, struct lb_token *out,
                                 struct lb_detail *detail) {
    size_t n = strlen(DIGEST);
    if (word->len < n || memcmp(word->text, DIGEST, n) != 0) {
        if (word->len < MIN_TOKEN) {
            return bad(line, detail, "a token needs at least 8 characters");
        }
        lb_sha256(word->text, word->len, out->digest);
        return LB_OK;
    }
    if (word->len != n + 2 * LB_SHA256_BYTES) {
        return bad(line, detail, "behind sha256: 64 hexadecimal digits are expected");
    }
    for (size_t i = 0; i < LB_SHA256_BYTES; i++) {
        int high = hex_digit(word->text[n + 2 * i]), low = hex_digit(word->text[n + 2 * i + 1]);
        if (high < 0 || low < 0) {
            return bad(line, detail, "behind sha256: 64 hexadecimal digits are expected");
        }
        out->digest[i] = (uint8_t)(high << 4 | low);
    }
    return LB_OK;
}

static enum lb_status read_name(const struct line *line, const struct word *word, struct lb_token *out,
                                struct lb_detail *detail) {
    bool good = word->len < LB_TOKEN_NAME;
    for (size_t i = 0; i < word->len && good; i++) {
        char c = word->text[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
               c == '_' || c == '.';
    }
    if (!good) {
        return bad(line, detail,
                   "it begins with the token's name, of at most 63 letters, digits, '.', '_', '-'; a line "
                   "without a name holds the token alone");
    }
    memcpy(out->name, word->text, word->len);
    out->name[word->len] = '\0';
    return LB_OK;
}

/* ---- settings ---- */

static unsigned scope_of(const char *text, size_t len) {
    static const struct {
        const char *name;
        unsigned scope;
    } scopes[] = {{"ask", LB_SCOPE_ASK}, {"metrics", LB_SCOPE_METRICS}, {"admin", LB_SCOPE_ALL}};
    for (size_t i = 0; i < sizeof scopes / sizeof *scopes; i++) {
        if (strlen(scopes[i].name) == len && memcmp(scopes[i].name, text, len) == 0) {
            return scopes[i].scope;
        }
    }
    return 0;
}

static enum lb_status read_scopes(const struct line *line, const char *text, size_t len, unsigned *out,
                                  struct lb_detail *detail) {
    unsigned scopes = 0;
    for (const char *end = text + len; text <= end;) {
        const char *comma = memchr(text, ',', (size_t)(end - text));
        size_t n = (size_t)((comma ? comma : end) - text);
        unsigned scope = scope_of(text, n);
        if (scope == 0) {
            return bad(line, detail, "scopes= takes ask, metrics and admin, with commas between them");
        }
        scopes |= scope;
        text += n + 1;
    }
    *out = scopes;
    return LB_OK;
}

static bool read_number(const char *text, size_t len, int64_t most, int64_t *out) {
    int64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || value > most) {
            return false;
        }
        value = value * 10 + (text[i] - '0');
    }
    *out = value;
    return value >= 1 && value <= most;
}

static enum lb_status read_setting(const struct line *line, const struct word *word, struct lb_token *out,
                                   unsigned *scopes, struct lb_detail *detail) {
    size_t len = 0;
    const char *value = value_of(word, "scopes", &len);
    if (value && *scopes == 0) {
        return read_scopes(line, value, len, scopes, detail);
    }
    if ((value = value_of(word, "tokens_per_minute", &len)) != NULL && out->tokens_per_minute == 0) {
        return read_number(value, len, MAX_PER_MINUTE, &out->tokens_per_minute)
                   ? LB_OK
                   : bad(line, detail, "tokens_per_minute= takes a whole number from 1 to 1000000000000");
    }
    if ((value = value_of(word, "concurrent", &len)) != NULL && out->concurrent == 0) {
        return read_number(value, len, MAX_CONCURRENT, &out->concurrent)
                   ? LB_OK
                   : bad(line, detail, "concurrent= takes a whole number from 1 to 1000000");
    }
    return bad(line, detail,
               "behind NAME TOKEN stand scopes=, tokens_per_minute= and concurrent=, each at most once");
}

static bool is_setting(const struct word *word) {
    size_t len;
    return value_of(word, "scopes", &len) || value_of(word, "tokens_per_minute", &len) ||
           value_of(word, "concurrent", &len);
}

/* ---- lines ---- */

static enum lb_status read_line(const struct line *line, unsigned scopes, struct lb_token *out,
                                struct lb_detail *detail) {
    unsigned named = 0;
    if (line->n == 1) {
        out->scopes = scopes;
        return read_token(line, &line->words[0], out, detail);
    }
    if (is_setting(&line->words[1])) {
        return bad(line, detail, "a token with settings needs a name in front: NAME TOKEN scopes=...");
    }
    enum lb_status status = read_name(line, &line->words[0], out, detail);
    if (status == LB_OK) {
        status = read_token(line, &line->words[1], out, detail);
    }
    for (size_t i = 2; i < line->n && status == LB_OK; i++) {
        status = read_setting(line, &line->words[i], out, &named, detail);
    }
    out->scopes = named ? named : scopes;
    return status;
}

static enum lb_status append(struct lb_tokens *tokens, const struct line *line, const struct lb_token *token,
                             struct lb_detail *detail) {
    for (size_t i = 0; i < tokens->n; i++) {
        if (strcmp(tokens->list[i].name, token->name) == 0) {
            return bad(line, detail, "this name is another token's already; give it one of its own");
        }
        if (memcmp(tokens->list[i].digest, token->digest, sizeof token->digest) == 0) {
            return bad(line, detail, "this token is there already; remove one of the two");
        }
    }
    void *grown = lb_realloc_array(tokens->list, tokens->n + 1, sizeof *tokens->list);
    if (!grown) {
        return lb_fail(detail, LB_E_NOMEM, "token file %s: out of memory", line->path);
    }
    tokens->list = grown;
    tokens->list[tokens->n++] = *token;
    return LB_OK;
}

enum lb_status lb_tokens_parse(struct lb_tokens *tokens, const char *path, const char *text, size_t len,
                               unsigned scopes, const char *unnamed, struct lb_detail *detail) {
    struct line line = {.path = path, .number = 1};
    int n = 0;
    for (size_t at = 0; at < len; line.number++) {
        const char *start = text + at, *end = memchr(start, '\n', len - at);
        size_t size = end ? (size_t)(end - start) : len - at;
        at += size + 1;
        size -= size > 0 && start[size - 1] == '\r';
        enum lb_status status = split(&line, start, size, detail);
        if (status == LB_OK && line.n > 0) {
            struct lb_token token = {0};
            n++;
            snprintf(token.name, sizeof token.name, "%s#%d", unnamed, n);
            status = read_line(&line, scopes, &token, detail);
            status = status == LB_OK ? append(tokens, &line, &token, detail) : status;
        }
        if (status != LB_OK) {
            return status;
        }
    }
    return n > 0 ? LB_OK
                 : lb_fail(detail, LB_E_FORMAT, "token file %s: holds no token; put one on a line of its own",
                           path);
}

void lb_tokens_finish(struct lb_tokens *tokens) {
    if (tokens) {
        lb_free(tokens->list);
        *tokens = (struct lb_tokens){0};
    }
}
