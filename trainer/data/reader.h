/* Inside of struct lb_reader: what reading.c (texts) and reading_chat.c (conversations) share, which is in
 * reader.c; of the two the first calls the second. Only trainer/data includes this. */
#ifndef LB_DATA_READER_H
#define LB_DATA_READER_H

#include "common/base/buf.h"
#include "common/text/place.h"
#include "trainer/data/chat.h"
#include "trainer/data/reading.h"

/* One side's tokenizer. */
struct lb_reader_side {
    const struct lb_tokenizer *tokenizer;
    struct lb_ids begin, end; /* of texts */
    bool puts_space;          /* before a text that does not begin with one */
    int32_t unknown;          /* -1: none, it has a token for every byte */
};

struct lb_reader {
    struct lb_reader_side own, its;
    int64_t max_length;
    struct lb_chat *own_chat, *its_chat; /* NULL: rows are no conversations */
    /* of the row that is read */
    struct lb_ids ids; /* the teacher's */
    struct lb_chunk *chunks;
    size_t n_chunks, cap_chunks;
    struct lb_buf text;
    struct lb_placed *placed; /* the row's tokens and behind them the teacher's */
    struct lb_meeting *meetings;
    size_t cap_placed; /* of both */
};

/* Ids of a row, from 0 to n: one more than positions. */
struct lb_reader_row {
    const struct lb_sample *sample;
    const int32_t *ids;
    int64_t n;
};

/* Tokens at .. at + n - 1 of the row, and its_at .. of the teacher's, as a chunk, if all of the row's count
 * and something predicts both. false: out of memory. */
bool lb_reader_add(struct lb_reader *reader, const struct lb_reader_row *row, int64_t at, int64_t n,
                   size_t its_at, size_t its_n);
/* Room for n tokens in placed and meetings; false: out of memory. */
bool lb_reader_reserve(struct lb_reader *reader, size_t n);

/* reading_chat.c: the teacher's tokens for a conversation, and its chunks. */
LB_NODISCARD enum lb_status lb_reader_conversation(struct lb_reader *reader, const struct lb_reader_row *row,
                                                   struct lb_detail *detail);

#endif
