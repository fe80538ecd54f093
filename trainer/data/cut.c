/* A stream of ids as rows. */
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <string.h>

/* Whether a label of a record counts: the first id is nobody's label. */
static bool any_counts(const int32_t *ids, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        if (ids[i] >= 0) {
            return true;
        }
    }
    return false;
}

/* How many of a record's len ids its row has, of at most `most` labels; 0: none of them counts. */
int64_t lb_record_kept(const int32_t *ids, int64_t len, int64_t most) {
    int64_t n = len - 1 < most ? len : most + 1;
    return n > 1 && any_counts(ids, n) ? n : 0;
}

static enum lb_status reserve_rows(struct lb_dataset *data, int64_t more, struct lb_detail *detail) {
    struct lb_text_row *rows = lb_realloc_array(data->rows, (size_t)(data->count + more), sizeof *rows);
    if (rows == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the rows");
    }
    data->rows = rows;
    data->cap = data->count + more;
    return LB_OK;
}

/* Rows that overlap by one, out of the stream that data->ids ends with, from start on. *out_used: labels. */
enum lb_status lb_cut_overlapping(struct lb_dataset *data, int64_t start, const struct lb_text_cut *cut,
                                  int64_t *out_used, struct lb_detail *detail) {
    int64_t labels = (int64_t)data->ids.len - start - 1;
    if (cut->max_tokens > 0 && labels > cut->max_tokens) {
        labels = cut->max_tokens;
    }
    if (labels < 0) {
        return lb_fail(detail, LB_E_ARG, "%s: holds no text", cut->path);
    }
    int64_t rows = labels / cut->max_length + (cut->keep_short && labels % cut->max_length != 0);
    enum lb_status status = reserve_rows(data, rows, detail);
    for (int64_t r = 0; status == LB_OK && r < rows; r++) {
        int64_t left = labels - r * cut->max_length, n = left < cut->max_length ? left : cut->max_length;
        data->rows[data->count++] = (struct lb_text_row){.start = start + r * cut->max_length,
                                                         .n = n,
                                                         .tag = cut->tag,
                                                         .within = r > 0,
                                                         .label = LB_LABEL_NONE};
    }
    *out_used = cut->keep_short ? labels : rows * cut->max_length;
    return status;
}

/* Appends a row to data: what texts begin with, and labels [n] of the stream, of which those that begin texts
 * (complements) do not count. */
static enum lb_status append_row(struct lb_dataset *data, const struct lb_ids *begin, const int32_t *labels,
                                 int64_t n, int tag, bool within) {
    int64_t start = (int64_t)data->ids.len, all = (int64_t)begin->len + n;
    enum lb_status status = lb_ids_append(&data->ids, begin->data, begin->len);
    status = status == LB_OK ? lb_ids_append(&data->ids, labels, (size_t)n) : status;
    uint8_t *counts = status == LB_OK ? lb_realloc_array(data->counts, data->ids.cap, 1) : NULL;
    if (counts == NULL) {
        return LB_E_NOMEM;
    }
    if (data->counts == NULL && start > 0) {
        memset(counts, 1, (size_t)start); /* what is there already counts whole */
    }
    data->counts = counts;
    for (int64_t i = start; i < start + all; i++) {
        int32_t *id = &data->ids.data[i];
        counts[i] = i >= start + (int64_t)begin->len && *id >= 0;
        *id = *id >= 0 ? *id : ~*id;
    }
    data->rows[data->count++] = (struct lb_text_row){
        .start = start, .n = all - 1, .tag = tag, .within = within, .label = LB_LABEL_NONE};
    return LB_OK;
}

/* Rows that each begin as a text does, out of a stream of texts. */
enum lb_status lb_cut_begun(struct lb_dataset *data, const struct lb_text_source *source,
                            const struct lb_ids *stream, const struct lb_text_cut *cut,
                            struct lb_detail *detail) {
    int64_t most = cut->max_length - (int64_t)source->begin.len + 1, len = (int64_t)stream->len, at = 0;
    int64_t left = cut->max_tokens > 0 ? cut->max_tokens : INT64_MAX;
    if (most < 1) {
        return lb_fail(detail, LB_E_ARG,
                       "max_length: %lld is no more than the %zu tokens each text begins with",
                       (long long)cut->max_length, source->begin.len);
    }
    enum lb_status status = reserve_rows(data, len / most + 1, detail);
    while (status == LB_OK && at < len && left > 0) {
        bool within = at < len && stream->data[at] >= 0;
        while (at < len && stream->data[at] < 0) {
            at++; /* the row's own beginning is this text's */
        }
        int64_t n = 0;
        for (; n < most && at + n < len && left > 0; n++) {
            left -= stream->data[at + n] >= 0;
        }
        if (n > 0 && (n == most || cut->keep_short)) {
            status = append_row(data, &source->begin, stream->data + at, n, cut->tag, within);
        }
        at += n;
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for the rows");
}

/* The conversation that the last row is of. */
static enum lb_status keep_record(struct lb_dataset *data, const char *json, size_t len) {
    struct lb_text_row *row = &data->rows[data->count - 1];
    row->record = data->records.len;
    row->record_len = len;
    return lb_buf_append(&data->records, json, len);
}

/* Each record is a row of its own, cut where it is longer than rows are; one of which no position counts then
 * is left out. */
enum lb_status lb_cut_records(struct lb_dataset *data, const struct lb_text_stream *stream,
                              const struct lb_text_cut *cut, struct lb_detail *detail) {
    static const struct lb_ids nothing;
    int64_t left = cut->max_tokens > 0 ? cut->max_tokens : INT64_MAX;
    enum lb_status status = reserve_rows(data, (int64_t)stream->lens.len, detail);
    const int32_t *ids = stream->ids->data;
    size_t record = 0, theirs = stream->teacher_prompt;
    for (size_t r = 0; status == LB_OK && r < stream->lens.len && left > 0; r++) {
        const int32_t *of = stream->prompts.data + 2 * r;
        int64_t len = stream->lens.data[r], most = left < cut->max_length ? left : cut->max_length;
        int64_t n = lb_record_kept(ids, len, most);
        if (most < cut->max_length && of[0] > n) {
            n = 0; /* max_tokens ends within its prompt */
        }
        if (n > 0) {
            status = append_row(data, &nothing, ids, n, cut->tag, false);
            if (status == LB_OK) {
                struct lb_text_row *row = &data->rows[data->count - 1];
                row->prompt = of[0];
                row->teacher_prompt_n = of[1];
                row->teacher_prompt = theirs;
                status = lb_dataset_weigh(data, data->count - 1, lb_weight_at(&stream->weights, r));
            }
            data->shortened += n < len;
            left -= n - 1;
        } else {
            data->dropped++;
        }
        size_t record_len = stream->record_lens.len > r ? (size_t)stream->record_lens.data[r] : 0;
        if (status == LB_OK && n > 0 && record_len > 0) {
            status = keep_record(data, stream->records.data + record, record_len);
        }
        record += record_len;
        theirs += (size_t)of[1];
        ids += len;
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for the rows");
}

/* Where some ids are known not to count, all are told of: those from start on do. */
enum lb_status lb_count_all(struct lb_dataset *data, int64_t start, struct lb_detail *detail) {
    uint8_t *counts = data->counts != NULL ? lb_realloc_array(data->counts, data->ids.cap, 1) : NULL;
    if (data->counts != NULL && counts == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the rows");
    }
    data->counts = counts;
    if (counts != NULL) {
        memset(counts + start, 1, data->ids.len - (size_t)start);
    }
    return LB_OK;
}

/* Bytes of text behind the labels that count of the rows from `first` on. */
int64_t lb_text_bytes(const struct lb_dataset *data, const struct lb_text_source *source, int64_t first) {
    int64_t bytes = 0;
    for (int64_t r = first; r < data->count; r++) {
        const struct lb_sample s = lb_text_row_sample(data, r);
        for (int64_t t = 0; t < s.n; t++) {
            bytes += lb_sample_counts(&s, t) ? source->token_bytes[s.ids[t + 1]] : 0;
        }
    }
    return bytes;
}
