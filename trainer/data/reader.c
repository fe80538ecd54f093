#include "trainer/data/reader.h"

#include "common/base/mem.h"

bool lb_reader_add(struct lb_reader *reader, const struct lb_reader_row *row, int64_t at, int64_t n,
                   size_t its_at, size_t its_n) {
    bool counts = at > 0 && its_at > 0;
    for (int64_t i = at; counts && i < at + n; i++) {
        counts = lb_sample_counts(row->sample, i - 1);
    }
    if (!counts) {
        return true;
    }
    if (reader->n_chunks == reader->cap_chunks) {
        size_t cap = reader->cap_chunks > 0 ? 2 * reader->cap_chunks : 256;
        struct lb_chunk *more = lb_realloc_array(reader->chunks, cap, sizeof *more);
        if (more == NULL) {
            return false;
        }
        reader->chunks = more;
        reader->cap_chunks = cap;
    }
    reader->chunks[reader->n_chunks++] =
        (struct lb_chunk){(int32_t)(at - 1), (int32_t)n, (int32_t)(its_at - 1), (int32_t)its_n};
    return true;
}

bool lb_reader_reserve(struct lb_reader *reader, size_t n) {
    if (n > reader->cap_placed) {
        struct lb_placed *placed = lb_realloc_array(reader->placed, n, sizeof *placed);
        reader->placed = placed != NULL ? placed : reader->placed;
        struct lb_meeting *meetings = lb_realloc_array(reader->meetings, n, sizeof *meetings);
        reader->meetings = meetings != NULL ? meetings : reader->meetings;
        if (placed == NULL || meetings == NULL) {
            return false;
        }
        reader->cap_placed = n;
    }
    return true;
}
