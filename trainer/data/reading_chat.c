/* Conversations as a teacher with another tokenizer, and mostly another template, reads them. */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/data/reader.h"

#include <string.h>

enum lb_status lb_reader_converse(struct lb_reader *reader, const char *template, struct lb_detail *detail) {
    enum lb_status status = lb_chat_open(reader->own.tokenizer, template, &reader->own_chat, detail);
    if (status == LB_OK && lb_tokenizer_chat_template(reader->its.tokenizer) == NULL) {
        status =
            lb_fail(detail, LB_E_NOTFOUND,
                    "the data are conversations, and it has no chat template to read them by: serve it with "
                    "its tokenizer_config.json, or give it texts");
    }
    return status == LB_OK ? lb_chat_open(reader->its.tokenizer, NULL, &reader->its_chat, detail) : status;
}

/* One side of a conversation: its text, and where its tokens stand. */
struct written {
    const struct lb_tokenizer *tokenizer;
    struct lb_chat_text text;
    const int32_t *ids;
    size_t n;
    struct lb_placed *placed;
};

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* A piece that came from the data, white space around it left out; templates strip it. */
struct piece {
    size_t begin, end;
};

/* The next one from *at on; false: there is none. */
static bool next_piece(const struct lb_chat_text *text, size_t *at, struct piece *out) {
    while (*at < text->len) {
        while (*at < text->len && (text->mark[*at] & LB_CHAT_DATA) == 0) {
            (*at)++;
        }
        size_t begin = *at;
        while (*at < text->len && (text->mark[*at] & LB_CHAT_DATA) != 0) {
            (*at)++;
        }
        size_t end = *at;
        while (begin < end && is_space(text->text[begin])) {
            begin++;
        }
        while (end > begin && is_space(text->text[end - 1])) {
            end--;
        }
        if (begin < end) {
            *out = (struct piece){begin, end};
            return true;
        }
    }
    return false;
}

/* The tokens of a piece into placed, their ends counted from its beginning; *first: the first of them. What
 * only reaches into it is not the same there. */
static size_t cut_out(const struct written *w, const struct piece *piece, size_t *first,
                      struct lb_placed *placed) {
    size_t n = 0, i = 0, begin = 0;
    while (i < w->n && (w->placed[i].end == LB_NO_PLACE || w->placed[i].end <= piece->begin)) {
        begin = w->placed[i].end;
        i++;
    }
    *first = i;
    for (; i < w->n && (w->placed[i].end == LB_NO_PLACE || w->placed[i].end <= piece->end); i++, n++) {
        placed[n] = w->placed[i];
        placed[n].end -= placed[n].end != LB_NO_PLACE ? piece->begin : 0;
        placed[n].same = placed[n].same && (n > 0 || begin == piece->begin);
    }
    return n;
}

/* The special token that ends what stands before `end`, if one does: its index, else w->n. */
static size_t special_at(const struct written *w, size_t end) {
    for (size_t i = 0; i + 1 < w->n; i++) {
        if (w->placed[i].end == end) {
            return lb_tokenizer_is_special(w->tokenizer, w->ids[i + 1]) ? i + 1 : w->n;
        }
    }
    return w->n;
}

/* The chunks of a piece that both texts have; false: out of memory. */
static bool compare(struct lb_reader *reader, const struct lb_reader_row *row, const struct written *own,
                    const struct piece *own_piece, const struct written *its, const struct piece *its_piece) {
    struct lb_placed *room = reader->placed + own->n + its->n;
    size_t first, its_first, n = cut_out(own, own_piece, &first, room),
                             its_n = cut_out(its, its_piece, &its_first, room + n),
                             met = lb_tokens_meet(room, n, room + n, its_n, reader->meetings);
    bool ok = true;
    for (size_t i = 0; i < met && ok; i++) {
        const struct lb_meeting *m = &reader->meetings[i];
        ok = lb_reader_add(reader, row, (int64_t)(first + m->a), (int64_t)m->n_a, its_first + m->b, m->n_b);
    }
    size_t end = special_at(own, own_piece->end), its_end = special_at(its, its_piece->end);
    return ok && end < own->n && its_end < its->n ? lb_reader_add(reader, row, (int64_t)end, 1, its_end, 1)
                                                  : ok;
}

/* Pieces in the order of both texts; what only one of them has is passed over. */
static bool compare_all(struct lb_reader *reader, const struct lb_reader_row *row, const struct written *own,
                        const struct written *its) {
    size_t at = 0, its_at = 0;
    struct piece piece, other;
    bool ok = true;
    while (ok && next_piece(&own->text, &at, &piece)) {
        size_t len = piece.end - piece.begin;
        for (size_t look = its_at; next_piece(&its->text, &look, &other);) {
            if (other.end - other.begin == len &&
                memcmp(own->text.text + piece.begin, its->text.text + other.begin, len) == 0) {
                ok = compare(reader, row, own, &piece, its, &other);
                its_at = look;
                break;
            }
        }
    }
    return ok;
}

static enum lb_status read_both(struct lb_reader *reader, const struct lb_reader_row *row,
                                const struct lb_conversation *conversation, struct lb_detail *detail) {
    struct written own = {.tokenizer = reader->own.tokenizer, .ids = row->ids, .n = (size_t)row->n},
                   its = {.tokenizer = reader->its.tokenizer};
    size_t n = conversation->n_messages;
    enum lb_status status = lb_chat_render(reader->own_chat, conversation, n, false, NULL, &own.text, detail);
    if (status == LB_OK) {
        status = lb_chat_render(reader->its_chat, conversation, n, false, NULL, &its.text, detail);
    }
    status = status == LB_OK ? lb_chat_ids(reader->its_chat, &its.text, &reader->ids, detail) : status;
    its.ids = reader->ids.data;
    its.n = reader->ids.len;
    if (status == LB_OK && !lb_reader_reserve(reader, 2 * (own.n + its.n))) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for a row's tokens");
    }
    if (status == LB_OK) {
        own.placed = reader->placed;
        its.placed = reader->placed + own.n;
        lb_tokens_place(own.tokenizer, own.ids, own.n, own.text.text, own.text.len, own.placed);
        lb_tokens_place(its.tokenizer, its.ids, its.n, its.text.text, its.text.len, its.placed);
        if (!compare_all(reader, row, &own, &its)) {
            status = lb_fail(detail, LB_E_NOMEM, "out of memory for a row's chunks");
        }
    }
    lb_chat_text_finish(&own.text);
    lb_chat_text_finish(&its.text);
    return status;
}

enum lb_status lb_reader_conversation(struct lb_reader *reader, const struct lb_reader_row *row,
                                      struct lb_detail *detail) {
    struct lb_conversation conversation = {.data = NULL};
    enum lb_row_form form = LB_ROW_TEXT;
    json_t *json = NULL;
    if (reader->its_chat == NULL) {
        return lb_fail(detail, LB_E_ARG, "a conversation, for a reader that was not told of any");
    }
    enum lb_status status = lb_json_parse_loose(row->sample->record, row->sample->record_len, 0,
                                                "the conversation", &json, detail);
    status = status == LB_OK ? lb_row_form(json, &form, detail) : status;
    status = status == LB_OK ? lb_conversation_init(json, form, &conversation, detail) : status;
    status = status == LB_OK ? read_both(reader, row, &conversation, detail) : status;
    lb_conversation_finish(&conversation);
    json_decref(json);
    return status;
}
