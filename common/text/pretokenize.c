#include "common/text/pretokenize.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/byte_level.h"
#include "common/text/steps.h"
#include "common/text/unicode.h"

#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 31)

void lb_pieces_finish(struct lb_pieces *pieces) {
    if (pieces) {
        lb_free(pieces->span);
        lb_free(pieces->spare);
        lb_free(pieces->copy[0]);
        lb_free(pieces->copy[1]);
        lb_regex_run_finish(&pieces->run);
        memset(pieces, 0, sizeof *pieces);
    }
}

/* Appends a span to the spare list, which becomes the list when the step is done; empty ones vanish. */
static enum lb_status push(struct lb_pieces *pieces, size_t *n, size_t start, size_t end) {
    if (start == end) {
        return LB_OK;
    }
    if (*n == pieces->spare_cap) {
        size_t cap = pieces->spare_cap ? pieces->spare_cap * 2 : 64;
        struct lb_piece_span *spare = lb_realloc_array(pieces->spare, cap, sizeof *spare);
        if (!spare) {
            return LB_E_NOMEM;
        }
        pieces->spare = spare;
        pieces->spare_cap = cap;
    }
    pieces->spare[(*n)++] = (struct lb_piece_span){(uint32_t)start, (uint32_t)(end - start)};
    return LB_OK;
}

static void swap_spans(struct lb_pieces *pieces, size_t n) {
    struct lb_piece_span *span = pieces->span;
    size_t cap = pieces->cap;
    pieces->span = pieces->spare;
    pieces->cap = pieces->spare_cap;
    pieces->spare = span;
    pieces->spare_cap = cap;
    pieces->n = n;
}

/* A copy of at least n bytes that is not the one that pieces->text lies in. */
static char *other_copy(struct lb_pieces *pieces, size_t n) {
    int i = pieces->text == pieces->copy[0] ? 1 : 0;
    if (pieces->copy_cap[i] < n) {
        char *copy = lb_realloc_array(pieces->copy[i], n, 1);
        if (!copy) {
            return NULL;
        }
        pieces->copy[i] = copy;
        pieces->copy_cap[i] = n;
    }
    return pieces->copy[i];
}

/* A match or what lies between two, on its way into the list of pieces. */
struct joiner {
    struct lb_pieces *pieces;
    size_t n; /* spans so far */
    enum lb_behaviour behaviour;
    bool invert;
    bool open;         /* [start, end) waits for what may be joined to it */
    bool last_matched; /* of the stretch before */
    size_t start, end;
};

/* The rules of tokenizers' NormalizedString::split. Stretches come in order and touch each other. */
static enum lb_status join(struct joiner *j, size_t start, size_t end, bool matched) {
    matched = matched != j->invert;
    bool extend = false;
    switch (j->behaviour) {
    case LB_ISOLATED:
        break;
    case LB_REMOVED:
        if (matched) {
            return LB_OK;
        }
        break;
    case LB_MERGED_WITH_PREVIOUS: /* a match joins what stands before it, unless that is a match */
        extend = j->open && matched && !j->last_matched;
        break;
    case LB_MERGED_WITH_NEXT: /* what stands behind a match joins it, unless that is a match */
        extend = j->open && j->last_matched && !matched;
        break;
    case LB_CONTIGUOUS:
        extend = j->open && matched == j->last_matched;
        break;
    }
    enum lb_status status = LB_OK;
    if (j->open && !extend) {
        status = push(j->pieces, &j->n, j->start, j->end);
    }
    if (!extend) {
        j->start = start;
    }
    j->end = end;
    j->open = true;
    j->last_matched = matched;
    return status;
}

/* What is left over in a span, and the stretch that still waits. */
static enum lb_status end_span(struct joiner *j, size_t done, size_t end) {
    enum lb_status status = done < end ? join(j, done, end, false) : LB_OK;
    if (status == LB_OK && j->open) {
        status = push(j->pieces, &j->n, j->start, j->end);
    }
    return status;
}

/* All matches in one span, and what lies between them. An empty match right behind another is passed over, as
 * Oniguruma's iterator does. subject: what to search in place of the text. */
static enum lb_status split_span(const struct lb_step *step, struct joiner *j, const char *subject,
                                 const struct lb_piece_span *span, struct lb_detail *detail) {
    const char *text = subject + span->start;
    size_t done = 0, from = 0;
    bool matched_before = false;
    enum lb_status status = LB_OK;
    while (status == LB_OK && from <= span->len) {
        bool found;
        size_t start = 0, end = 0;
        status =
            lb_regex_next(step->regex, text, span->len, from, &j->pieces->run, &found, &start, &end, detail);
        if (status != LB_OK || !found) {
            break;
        }
        if (start == end && matched_before && end == done) {
            do {
                from++;
            } while (from < span->len && ((uint8_t)text[from] & 0xc0) == 0x80);
            continue;
        }
        if (start > done) {
            status = join(j, span->start + done, span->start + start, false);
        }
        if (status == LB_OK) {
            status = join(j, span->start + start, span->start + end, true);
        }
        matched_before = true;
        done = from = end;
    }
    return status != LB_OK ? status : end_span(j, span->start + done, (size_t)span->start + span->len);
}

/* The same for a kind of character, each of which is a match. */
static enum lb_status split_kind(const struct lb_step *step, struct joiner *j,
                                 const struct lb_piece_span *span) {
    const char *text = j->pieces->text;
    size_t at = span->start, end = at + span->len, done = at;
    enum lb_status status = LB_OK;
    while (at < end && status == LB_OK) {
        size_t start = at;
        if (!step->is_match(lb_utf8_next(text, &at))) {
            continue;
        }
        if (start > done) {
            status = join(j, done, start, false);
        }
        if (status == LB_OK) {
            status = join(j, start, at, true);
        }
        done = at;
    }
    return status != LB_OK ? status : end_span(j, done, end);
}

/* Makes the spans of a step the pieces. The first one still begins the text only if nothing before it went.
 */
static void finish_step(struct lb_pieces *pieces, size_t n) {
    bool moved = n > 0 && pieces->n > 0 && pieces->spare[0].start != pieces->span[0].start;
    swap_spans(pieces, n);
    pieces->moved = pieces->moved || moved;
}

static enum lb_status run_split(const struct lb_step *step, struct lb_pieces *pieces,
                                struct lb_detail *detail) {
    struct joiner j = {.pieces = pieces, .behaviour = step->behaviour, .invert = step->invert};
    enum lb_status status = LB_OK;
    const char *subject = pieces->text;
    if (step->regex && pieces->n > 0) {
        const struct lb_piece_span *last = &pieces->span[pieces->n - 1];
        status = lb_regex_subject(step->regex, pieces->text, (size_t)last->start + last->len, &pieces->run,
                                  &subject);
    }
    for (size_t i = 0; i < pieces->n && status == LB_OK; i++) {
        j.open = j.last_matched = false;
        status = step->regex ? split_span(step, &j, subject, &pieces->span[i], detail)
                             : split_kind(step, &j, &pieces->span[i]);
    }
    if (status == LB_OK) {
        finish_step(pieces, j.n);
    }
    return status;
}

static enum lb_status run_words(struct lb_pieces *pieces) {
    enum lb_status status = LB_OK;
    size_t n = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        size_t at = pieces->span[i].start, end = at + pieces->span[i].len, begun = at;
        enum { SPACE, WORD, OTHER } last = SPACE, kind;
        while (at < end && status == LB_OK) {
            size_t start = at;
            uint32_t c = lb_utf8_next(pieces->text, &at);
            kind = lb_is_word(c) ? WORD : lb_is_space(c) ? SPACE : OTHER;
            if (kind != last) {
                status = last != SPACE ? push(pieces, &n, begun, start) : LB_OK;
                begun = start;
                last = kind;
            }
        }
        if (status == LB_OK && last != SPACE) {
            status = push(pieces, &n, begun, end);
        }
    }
    if (status == LB_OK) {
        finish_step(pieces, n);
    }
    return status;
}

/* Cuts a span before each sign; signs without anything between them stay one by one. */
static enum lb_status split_signs(const struct lb_step *step, struct joiner *j,
                                  const struct lb_piece_span *span) {
    const char *text = j->pieces->text;
    size_t at = span->start, end = at + span->len, done = at;
    enum lb_status status = LB_OK;
    while (at < end && status == LB_OK) {
        const char *found = memchr(text + at, step->sign[0], end - at);
        at = found ? (size_t)(found - text) : end;
        if (end - at < step->sign_len) {
            break;
        }
        if (memcmp(text + at, step->sign, step->sign_len) != 0) {
            at++;
            continue;
        }
        if (at > done) {
            status = join(j, done, at, false);
        }
        at += step->sign_len;
        if (status == LB_OK) {
            status = join(j, at - step->sign_len, at, true);
        }
        done = at;
    }
    return status != LB_OK ? status : end_span(j, done, end);
}

static enum lb_status run_metaspace(const struct lb_step *step, struct lb_pieces *pieces) {
    size_t total = 0, at = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        total += step->sign_len * ((size_t)pieces->span[i].len + 1);
    }
    char *copy = total < 2 * MAX_TEXT_BYTES ? other_copy(pieces, total + 1) : NULL;
    if (!copy) {
        return total < 2 * MAX_TEXT_BYTES ? LB_E_NOMEM : LB_E_LIMIT;
    }
    for (size_t i = 0; i < pieces->n; i++) {
        struct lb_piece_span *span = &pieces->span[i];
        const char *text = pieces->text + span->start;
        size_t start = at;
        bool begins =
            text[0] == ' ' || (span->len >= step->sign_len && !memcmp(text, step->sign, step->sign_len));
        if (!begins && (step->prepend == LB_PREPEND_ALWAYS ||
                        (step->prepend == LB_PREPEND_FIRST && i == 0 && !pieces->moved))) {
            memcpy(copy + at, step->sign, step->sign_len);
            at += step->sign_len;
        }
        for (uint32_t k = 0; k < span->len; k++) {
            if (text[k] == ' ') {
                memcpy(copy + at, step->sign, step->sign_len);
                at += step->sign_len;
            } else {
                copy[at++] = text[k];
            }
        }
        *span = (struct lb_piece_span){(uint32_t)start, (uint32_t)(at - start)};
    }
    pieces->text = copy;
    if (!step->split) {
        return LB_OK;
    }
    struct joiner j = {.pieces = pieces, .behaviour = step->behaviour};
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < pieces->n && status == LB_OK; i++) {
        j.open = j.last_matched = false;
        status = split_signs(step, &j, &pieces->span[i]);
    }
    if (status == LB_OK) {
        finish_step(pieces, j.n);
    }
    return status;
}

static enum lb_status run_prefix_space(struct lb_pieces *pieces) {
    size_t total = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        total += pieces->span[i].len + (size_t)1;
    }
    if (total >= MAX_TEXT_BYTES) {
        return LB_E_LIMIT;
    }
    char *copy = other_copy(pieces, total);
    if (!copy) {
        return LB_E_NOMEM;
    }
    size_t at = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        struct lb_piece_span *span = &pieces->span[i];
        const char *text = pieces->text + span->start;
        size_t start = at;
        if (text[0] != ' ') {
            copy[at++] = ' ';
        }
        memcpy(copy + at, text, span->len);
        at += span->len;
        *span = (struct lb_piece_span){(uint32_t)start, (uint32_t)(at - start)};
    }
    pieces->text = copy;
    return LB_OK;
}

static enum lb_status run_letters(struct lb_pieces *pieces) {
    size_t total = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        total += 2 * (size_t)pieces->span[i].len;
    }
    if (total >= MAX_TEXT_BYTES) {
        return LB_E_LIMIT;
    }
    char *copy = other_copy(pieces, total);
    if (!copy) {
        return LB_E_NOMEM;
    }
    size_t at = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        struct lb_piece_span *span = &pieces->span[i];
        size_t n = lb_bytes_to_letters(pieces->text + span->start, span->len, copy + at);
        *span = (struct lb_piece_span){(uint32_t)at, (uint32_t)n};
        at += n;
    }
    pieces->text = copy;
    return LB_OK;
}

/* The steps behind LB_STEP_LETTERS have seen letters; the model wants bytes. Done in place: the text is a
 * copy of ours. */
static void undo_letters(struct lb_pieces *pieces) {
    char *copy = pieces->text == pieces->copy[0] ? pieces->copy[0] : pieces->copy[1];
    for (size_t i = 0; i < pieces->n; i++) {
        struct lb_piece_span *span = &pieces->span[i];
        size_t n = 0;
        lb_letters_to_bytes(copy + span->start, span->len, copy + span->start, &n);
        span->len = (uint32_t)n;
    }
}

enum lb_status lb_pretokenize(const struct lb_pretokenizer *pretokenizer, const char *text, size_t len,
                              struct lb_pieces *pieces, struct lb_detail *detail) {
    if (len >= MAX_TEXT_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "a text of %zu bytes; cut it into parts below 2 GiB", len);
    }
    size_t n = 0;
    pieces->text = text;
    pieces->moved = pieces->continues;
    enum lb_status status = push(pieces, &n, 0, len);
    if (status == LB_OK) {
        swap_spans(pieces, n);
    }
    for (int i = 0; i < pretokenizer->n_steps && status == LB_OK; i++) {
        const struct lb_step *step = &pretokenizer->step[i];
        switch (step->kind) {
        case LB_STEP_PREFIX_SPACE:
            status = run_prefix_space(pieces);
            break;
        case LB_STEP_SPLIT:
            status = run_split(step, pieces, detail);
            break;
        case LB_STEP_LETTERS:
            status = run_letters(pieces);
            break;
        case LB_STEP_METASPACE:
            status = run_metaspace(step, pieces);
            break;
        case LB_STEP_WORDS:
            status = run_words(pieces);
            break;
        }
    }
    if (status != LB_OK) {
        return lb_fail(detail, status, "a text of %zu bytes needs too much memory; cut it into parts", len);
    }
    if (pretokenizer->letters) {
        undo_letters(pieces);
    }
    return LB_OK;
}
