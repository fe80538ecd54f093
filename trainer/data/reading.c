#include "trainer/data/reading.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "trainer/data/reader.h"

#include <string.h>

#define MAX_TEXT ((size_t)1 << 30)
#define CHARACTER 4 /* bytes of one at most */

/* ---- opening ---- */

/* What texts begin and end with: as the tokenizer says, and eos. */
static enum lb_status find_ends(struct lb_reader_side *side) {
    const struct lb_ids *before = lb_tokenizer_before(side->tokenizer),
                        *after = lb_tokenizer_after(side->tokenizer);
    int32_t eos = lb_tokenizer_eos(side->tokenizer);
    enum lb_status status = lb_ids_append(&side->begin, before->data, before->len);
    status = status == LB_OK ? lb_ids_append(&side->end, after->data, after->len) : status;
    bool ended = eos < 0 || (after->len > 0 && after->data[after->len - 1] == eos);
    return status == LB_OK && !ended ? lb_ids_push(&side->end, eos) : status;
}

/* Whether a word at the beginning of a text gets a space that the text does not have. */
static enum lb_status find_space(struct lb_reader_side *side) {
    struct lb_ids ids = {0};
    size_t n = 0;
    enum lb_status status = lb_tokenizer_encode(side->tokenizer, "a", 1, false, &ids, NULL);
    const char *bytes =
        status == LB_OK && ids.len > 0 ? lb_tokenizer_bytes(side->tokenizer, ids.data[0], &n) : NULL;
    side->puts_space = bytes != NULL && n > 0 && bytes[0] == ' ';
    lb_free(ids.data);
    return status;
}

/* The token that stands for whatever the vocabulary lacks: what two characters that nobody uses have in
 * common. */
static enum lb_status find_unknown(struct lb_reader_side *side) {
    static const char *const rare[2] = {"\xf4\x8f\xbf\xbd", "\xf3\xbf\xbf\xbc"};
    struct lb_ids ids[2] = {{0}, {0}};
    enum lb_status status = LB_OK;
    for (int i = 0; i < 2 && status == LB_OK; i++) {
        status = lb_tokenizer_encode(side->tokenizer, rare[i], strlen(rare[i]), false, &ids[i], NULL);
    }
    bool both = status == LB_OK && ids[0].len > 0 && ids[1].len > 0 &&
                ids[0].data[ids[0].len - 1] == ids[1].data[ids[1].len - 1];
    side->unknown = both ? ids[0].data[ids[0].len - 1] : -1;
    lb_free(ids[0].data);
    lb_free(ids[1].data);
    return status;
}

static enum lb_status open_side(struct lb_reader_side *side, const struct lb_tokenizer *tokenizer) {
    side->tokenizer = tokenizer;
    enum lb_status status = find_ends(side);
    status = status == LB_OK ? find_space(side) : status;
    return status == LB_OK ? find_unknown(side) : status;
}

enum lb_status lb_reader_create(const struct lb_tokenizer *own, const struct lb_tokenizer *its,
                                int64_t max_length, struct lb_reader **out, struct lb_detail *detail) {
    struct lb_reader *reader = lb_calloc(1, sizeof *reader);
    if (reader == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    reader->max_length = max_length > 0 ? max_length : INT64_MAX;
    lb_buf_init(&reader->text, MAX_TEXT);
    enum lb_status status = open_side(&reader->own, own);
    status = status == LB_OK ? open_side(&reader->its, its) : status;
    if (status != LB_OK) {
        lb_reader_destroy(reader);
        return lb_fail(detail, status, "the tokenizers of student and teacher cannot be compared: %s",
                       lb_status_name(status));
    }
    *out = reader;
    return LB_OK;
}

void lb_reader_hash(const struct lb_reader *reader, struct lb_sha256 *hash) {
    const struct lb_ids *ids[] = {&reader->its.begin, &reader->its.end};
    for (int i = 0; i < 2; i++) {
        lb_sha256_u64(hash, ids[i]->len);
        lb_sha256_update(hash, ids[i]->data, ids[i]->len * sizeof *ids[i]->data);
    }
    if (reader->its_chat != NULL) {
        const char *template = lb_chat_hash(reader->its_chat);
        lb_sha256_update(hash, template, strlen(template));
    }
}

void lb_reader_destroy(struct lb_reader *reader) {
    if (reader == NULL) {
        return;
    }
    lb_free(reader->own.begin.data);
    lb_free(reader->own.end.data);
    lb_free(reader->its.begin.data);
    lb_free(reader->its.end.data);
    lb_free(reader->ids.data);
    lb_free(reader->chunks);
    lb_chat_destroy(reader->own_chat);
    lb_chat_destroy(reader->its_chat);
    lb_free(reader->placed);
    lb_free(reader->meetings);
    lb_buf_finish(&reader->text);
    lb_free(reader);
}

/* ---- one row ---- */

static bool holds(const struct lb_reader_row *row, int64_t at, const struct lb_ids *what) {
    return what->len > 0 && row->n - at >= (int64_t)what->len &&
           memcmp(row->ids + at, what->data, what->len * sizeof *what->data) == 0;
}

/* Whether a text ends at this place of the row, or would but for the row's own end. */
static bool ends_at(const struct lb_reader_row *row, int64_t at, const struct lb_ids *end) {
    size_t left = (size_t)(row->n - at), n = left < end->len ? left : end->len;
    return n > 0 && memcmp(row->ids + at, end->data, n * sizeof *end->data) == 0;
}

static bool id_counts(const struct lb_reader_row *row, int64_t i) {
    return row->sample->counts == NULL || row->sample->counts[i] != 0;
}

/* A piece of text that was encoded in one go: tokens at .. end - 1 of the row. */
struct piece {
    int64_t at, end;
    bool within; /* it begins within a text */
    bool cut;    /* it ends within one, as far as is known */
    /* what is read of its bytes, reader->text: whole characters */
    size_t from, len;
};

static bool is_continuation(char c) {
    return ((uint8_t)c & 0xc0) == 0x80;
}

/* The piece's bytes into reader->text, and which of them are text by themselves. false: out of memory. */
static bool write_text(struct lb_reader *reader, const struct lb_reader_row *row, struct piece *piece) {
    struct lb_buf *text = &reader->text;
    lb_buf_reset(text);
    for (int64_t i = piece->at; i < piece->end; i++) {
        size_t n = 0;
        const char *bytes = lb_tokenizer_bytes(reader->own.tokenizer, row->ids[i], &n);
        if (lb_buf_append(text, bytes != NULL ? bytes : "", bytes != NULL ? n : 0) != LB_OK) {
            return false;
        }
    }
    piece->from = !piece->within && reader->own.puts_space && text->len > 0 && text->data[0] == ' ';
    while (piece->from < text->len && piece->from < CHARACTER && is_continuation(text->data[piece->from])) {
        piece->from++;
    }
    const char *whole = text->len > 0 ? text->data + piece->from : "";
    piece->len = lb_utf8_check(whole, text->len - piece->from);
    return true;
}

/* Where the row's tokens end in the text that is read; *first: of those that have a part in it. Returns how
 * many these are. */
static size_t place_own(const struct lb_reader *reader, const struct lb_reader_row *row,
                        const struct piece *piece, int64_t *first) {
    size_t at = 0, n_placed = 0;
    *first = piece->at;
    for (int64_t i = piece->at; i < piece->end; i++) {
        size_t n = 0, begin = at;
        if (lb_tokenizer_bytes(reader->own.tokenizer, row->ids[i], &n) != NULL) {
            at += n;
        }
        bool space = piece->from == 1 && begin == 0 && reader->text.data[0] == ' '; /* put before the text */
        if (at <= piece->from && !space) {
            *first = i + 1;
            continue;
        }
        bool inside = at <= piece->from + piece->len && at >= piece->from;
        bool same = inside && (begin >= piece->from || space) && row->ids[i] != reader->own.unknown;
        reader->placed[n_placed++] = (struct lb_placed){inside ? at - piece->from : LB_NO_PLACE, same};
    }
    return n_placed;
}

/* Appends the teacher's tokens for a piece, and its chunks. */
static enum lb_status read_piece(struct lb_reader *reader, const struct lb_reader_row *row,
                                 struct piece *piece, struct lb_detail *detail) {
    size_t its_at = reader->ids.len;
    int64_t first = 0;
    if (!write_text(reader, row, piece)) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a row's text");
    }
    const char *text = reader->text.len > 0 ? reader->text.data + piece->from : "";
    /* A word in the middle of a text has its space already. */
    bool has_space = piece->within && reader->its.puts_space && piece->len > 1 && text[0] == ' ';
    enum lb_status status = lb_tokenizer_encode(reader->its.tokenizer, text + has_space,
                                                piece->len - has_space, false, &reader->ids, detail);
    size_t its_n = reader->ids.len - its_at, own_n = (size_t)(piece->end - piece->at);
    if (status == LB_OK && !lb_reader_reserve(reader, own_n + its_n)) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for a row's tokens");
    }
    if (status != LB_OK) {
        return status;
    }
    own_n = place_own(reader, row, piece, &first);
    struct lb_placed *its = reader->placed + own_n;
    lb_tokens_place(reader->its.tokenizer, reader->ids.data + its_at, its_n, text, piece->len, its);
    size_t n = lb_tokens_meet(reader->placed, own_n, its, its_n, reader->meetings);
    for (size_t i = 0; i < n; i++) {
        const struct lb_meeting *m = &reader->meetings[i];
        bool last = piece->cut && m->end == piece->len;
        if (!last &&
            !lb_reader_add(reader, row, first + (int64_t)m->a, (int64_t)m->n_a, its_at + m->b, m->n_b)) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for a row's chunks");
        }
    }
    return LB_OK;
}

/* Reads the end of a text at *at, and the beginning of the next. */
static enum lb_status read_end(struct lb_reader *reader, const struct lb_reader_row *row, int64_t *at,
                               struct lb_detail *detail) {
    const struct lb_ids *end = &reader->own.end, *its = &reader->its.end, *begin = &reader->its.begin;
    size_t its_at = reader->ids.len;
    bool whole = row->n - *at >= (int64_t)end->len;
    enum lb_status status = whole ? lb_ids_append(&reader->ids, its->data, its->len) : LB_OK;
    if (status == LB_OK && whole && its->len > 0 &&
        !lb_reader_add(reader, row, *at, (int64_t)end->len, its_at, its->len)) {
        status = LB_E_NOMEM;
    }
    *at = whole ? *at + (int64_t)end->len : row->n;
    if (status == LB_OK && *at < row->n) {
        status = lb_ids_append(&reader->ids, begin->data, begin->len);
        *at += holds(row, *at, &reader->own.begin) ? (int64_t)reader->own.begin.len : 0;
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for a row's tokens");
}

static enum lb_status read_row(struct lb_reader *reader, const struct lb_reader_row *row,
                               struct lb_detail *detail) {
    const struct lb_reader_side *own = &reader->own;
    int64_t at = holds(row, 0, &own->begin) ? (int64_t)own->begin.len : 0;
    bool within = row->sample->within;
    enum lb_status status = lb_ids_append(&reader->ids, reader->its.begin.data, reader->its.begin.len);
    while (status == LB_OK && at < row->n) {
        if (ends_at(row, at, &own->end)) {
            status = read_end(reader, row, &at, detail);
        } else {
            struct piece piece = {.at = at, .end = at + 1, .within = within};
            /* Prompts and completions were encoded one by one. */
            while (piece.end < row->n && !ends_at(row, piece.end, &own->end) &&
                   id_counts(row, piece.end) == id_counts(row, at)) {
                piece.end++;
            }
            piece.cut = piece.end == row->n;
            status = read_piece(reader, row, &piece, detail);
            at = piece.end;
        }
        within = false;
    }
    return status;
}

enum lb_status lb_reader_read(struct lb_reader *reader, const struct lb_sample *sample,
                              struct lb_arena *arena, struct lb_reading *out, struct lb_detail *detail) {
    const struct lb_reader_row row = {sample, sample->ids, sample->n + 1};
    reader->ids.len = reader->n_chunks = 0;
    enum lb_status status = sample->record != NULL ? lb_reader_conversation(reader, &row, detail)
                                                   : read_row(reader, &row, detail);
    if (status != LB_OK) {
        return status;
    }
    int64_t n = (int64_t)reader->ids.len < reader->max_length ? (int64_t)reader->ids.len : reader->max_length;
    size_t n_chunks = reader->n_chunks;
    while (n_chunks > 0 && reader->chunks[n_chunks - 1].its_at + reader->chunks[n_chunks - 1].its_n >= n) {
        n_chunks--; /* what the teacher does not read whole */
    }
    int32_t *ids = lb_arena_array(arena, (size_t)n + 1, sizeof *ids);
    struct lb_chunk *chunks = lb_arena_array(arena, n_chunks + 1, sizeof *chunks);
    if (ids == NULL || chunks == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a row as a teacher reads it");
    }
    if (n > 0) {
        memcpy(ids, reader->ids.data, (size_t)n * sizeof *ids);
    }
    if (n_chunks > 0) {
        memcpy(chunks, reader->chunks, n_chunks * sizeof *chunks);
    }
    *out = (struct lb_reading){ids, n, chunks, (int64_t)n_chunks};
    return LB_OK;
}
