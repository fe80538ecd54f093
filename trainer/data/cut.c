/* A stream of ids as rows, block by block as it comes. */
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

int64_t lb_record_kept(const int32_t *ids, int64_t len, int64_t most) {
    int64_t n = len - 1 < most ? len : most + 1;
    return n > 1 && any_counts(ids, n) ? n : 0;
}

/* Bytes of text behind labels [n] that count. */
static int64_t bytes_of(const struct lb_text_source *source, const int32_t *labels, int64_t n) {
    int64_t bytes = 0;
    for (int64_t t = 0; t < n; t++) {
        bytes += labels[t] >= 0 ? source->token_bytes[labels[t]] : 0;
    }
    return bytes;
}

/* ---- rows that overlap by one ---- */

/* Whatever is there is row after row; only where they end is known when all is. */
static enum lb_status take_stream(struct lb_dataset *data, struct lb_text_stream *stream,
                                  struct lb_detail *detail) {
    enum lb_status status = lb_text_add_ids(data, stream->ids.data, (int64_t)stream->ids.len, detail);
    stream->ids.len = 0;
    return status;
}

static enum lb_status cut_overlapping(struct lb_dataset *data, const struct lb_text_source *source,
                                      struct lb_text_stream *stream, const struct lb_text_cut *cut,
                                      struct lb_detail *detail) {
    int64_t labels = lb_text_ids(data) - stream->start - 1;
    if (cut->max_tokens > 0 && labels > cut->max_tokens) {
        labels = cut->max_tokens;
    }
    if (labels < 0) {
        return lb_fail(detail, LB_E_ARG, "%s: holds no text", cut->path);
    }
    int64_t rows = labels / cut->max_length + (cut->keep_short && labels % cut->max_length != 0);
    int64_t used = cut->keep_short ? labels : rows * cut->max_length;
    int32_t *ids = lb_malloc_array((size_t)cut->max_length, sizeof *ids);
    enum lb_status status = ids != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", cut->path);
    for (int64_t r = 0; status == LB_OK && r < rows; r++) {
        int64_t left = labels - r * cut->max_length, n = left < cut->max_length ? left : cut->max_length;
        const struct lb_text_row row = {.start = stream->start + r * cut->max_length,
                                        .n = n,
                                        .tag = cut->tag,
                                        .within = r > 0,
                                        .label = LB_LABEL_NONE,
                                        .prompt = cut->prompt};
        status = lb_text_add_row(data, &row, detail);
        status = status == LB_OK ? lb_spill_read(&data->ids, (row.start + 1) * (int64_t)sizeof *ids, ids,
                                                 (size_t)n * sizeof *ids, detail)
                                 : status;
        stream->bytes += status == LB_OK ? bytes_of(source, ids, n) : 0;
    }
    lb_free(ids);
    lb_spill_cut(&data->ids, (stream->start + used + 1) * (int64_t)sizeof *ids); /* what no row reads */
    return status;
}

/* ---- rows of their own ids ---- */

/* Adds ids [row->n + 1], those that do not count as complements, as a row. */
static enum lb_status add_row(struct lb_dataset *data, const struct lb_text_source *source,
                              struct lb_text_stream *stream, const int32_t *ids, struct lb_text_row *row,
                              struct lb_detail *detail) {
    row->start = lb_text_ids(data);
    data->any_counts = true;
    stream->bytes += bytes_of(source, ids + 1, row->n);
    enum lb_status status = lb_text_add_ids(data, ids, row->n + 1, detail);
    return status == LB_OK ? lb_text_add_row(data, row, detail) : status;
}

/* A row of what texts begin with and labels [n] of the stream. */
static enum lb_status add_begun(struct lb_dataset *data, const struct lb_text_source *source,
                                struct lb_text_stream *stream, const struct lb_text_cut *cut,
                                const int32_t *labels, int64_t n, bool within, struct lb_detail *detail) {
    int64_t begin = (int64_t)source->begin.len;
    int32_t *ids = lb_malloc_array((size_t)(begin + n), sizeof *ids);
    if (ids == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the rows");
    }
    for (int64_t i = 0; i < begin; i++) {
        ids[i] = ~source->begin.data[i];
    }
    memcpy(ids + begin, labels, (size_t)n * sizeof *ids);
    struct lb_text_row row = {
        .n = begin + n - 1, .tag = cut->tag, .within = within, .label = LB_LABEL_NONE, .prompt = cut->prompt};
    enum lb_status status = add_row(data, source, stream, ids, &row, detail);
    lb_free(ids);
    return status;
}

/* Rows that each begin as a text does; what is too short for one waits for more, unless this is the end. */
static enum lb_status cut_begun(struct lb_dataset *data, const struct lb_text_source *source,
                                struct lb_text_stream *stream, const struct lb_text_cut *cut, bool end,
                                struct lb_detail *detail) {
    int64_t most = cut->max_length - (int64_t)source->begin.len + 1, len = (int64_t)stream->ids.len, at = 0;
    const int32_t *ids = stream->ids.data;
    enum lb_status status = LB_OK;
    if (most < 1) {
        return lb_fail(detail, LB_E_ARG,
                       "max_length: %lld is no more than the %zu tokens each text begins with",
                       (long long)cut->max_length, source->begin.len);
    }
    while (status == LB_OK && at < len && stream->left > 0) {
        int64_t from = at, n = 0;
        while (from < len && ids[from] < 0) {
            from++; /* the row's own beginning is this text's */
        }
        if (!end && len - from < most) {
            break;
        }
        for (; n < most && from + n < len && stream->left > 0; n++) {
            stream->left -= ids[from + n] >= 0;
        }
        if (n > 0 && (n == most || cut->keep_short)) {
            status = add_begun(data, source, stream, cut, ids + from, n, ids[at] >= 0, detail);
        }
        at = from + n;
    }
    if (at > 0) {
        memmove(stream->ids.data, stream->ids.data + at, (size_t)(len - at) * sizeof *ids);
    }
    stream->ids.len = (size_t)(len - at);
    return status;
}

/* The conversation that the next row is of. */
static enum lb_status keep_record(struct lb_dataset *data, const char *json, size_t len,
                                  struct lb_text_row *row, struct lb_detail *detail) {
    row->record = (size_t)lb_spill_size(&data->records);
    row->record_len = len;
    return lb_spill_append(&data->records, json, len, detail);
}

/* Record r of the block, whose ids [len] these are, and whose JSON lies there in the block's. */
static enum lb_status cut_record(struct lb_dataset *data, const struct lb_text_source *source,
                                 struct lb_text_stream *stream, const struct lb_text_cut *cut, size_t r,
                                 const int32_t *ids, size_t json, struct lb_detail *detail) {
    const int32_t *of = stream->prompts.data + 2 * r;
    int64_t len = stream->lens.data[r],
            most = stream->left < cut->max_length ? stream->left : cut->max_length;
    int64_t n = lb_record_kept(ids, len, most);
    if (most < cut->max_length && of[0] > n) {
        n = 0; /* max_tokens ends within its prompt */
    }
    if (n == 0) {
        data->dropped++;
        return LB_OK;
    }
    struct lb_text_row row = {.n = n - 1,
                              .tag = cut->tag,
                              .label = LB_LABEL_NONE,
                              .prompt = of[0],
                              .teacher_prompt_n = of[1],
                              .teacher_prompt = stream->teacher_prompt};
    size_t record_len = stream->record_lens.len > r ? (size_t)stream->record_lens.data[r] : 0;
    enum lb_status status =
        record_len > 0 ? keep_record(data, stream->records.data + json, record_len, &row, detail) : LB_OK;
    status = status == LB_OK ? add_row(data, source, stream, ids, &row, detail) : status;
    if (status == LB_OK &&
        lb_dataset_weigh(data, data->count - 1, lb_weight_at(&stream->weights, r)) != LB_OK) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for the weights");
    }
    data->shortened += n < len;
    stream->left -= n - 1;
    return status;
}

/* Each record is a row of its own, cut where it is longer than rows are; one of which no position counts then
 * is left out. */
static enum lb_status cut_records(struct lb_dataset *data, const struct lb_text_source *source,
                                  struct lb_text_stream *stream, const struct lb_text_cut *cut,
                                  struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    const int32_t *ids = stream->ids.data;
    size_t json = 0;
    for (size_t r = 0; status == LB_OK && r < stream->lens.len && stream->left > 0; r++) {
        status = cut_record(data, source, stream, cut, r, ids, json, detail);
        json += stream->record_lens.len > r ? (size_t)stream->record_lens.data[r] : 0;
        stream->teacher_prompt += (size_t)stream->prompts.data[2 * r + 1];
        ids += stream->lens.data[r];
    }
    stream->ids.len = 0;
    return status;
}

/* ---- texts that are rows ---- */

int64_t lb_whole_kept(const struct lb_text_source *source, int64_t len, int64_t max_length) {
    int64_t keep = len < max_length ? len : max_length;
    return keep > (int64_t)(source->begin.len + source->end.len) ? keep : 0;
}

/* Text i of the block [len], of which `keep` ids stay: its beginning, and its end behind what is left out.
 * One id follows the row's, which nobody reads as an input: samples have one more than positions. */
static enum lb_status add_whole(struct lb_dataset *data, const struct lb_text_source *source,
                                struct lb_text_stream *stream, const struct lb_text_cut *cut, size_t i,
                                const int32_t *ids, int64_t keep, struct lb_detail *detail) {
    int64_t len = stream->lens.data[i], end = (int64_t)source->end.len;
    int32_t *row_ids = lb_malloc_array((size_t)keep + 1, sizeof *row_ids);
    if (row_ids == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the rows");
    }
    for (int64_t t = 0; t < keep; t++) {
        int32_t id = ids[t < keep - end ? t : len - keep + t];
        row_ids[t] = id >= 0 ? id : ~id;
    }
    row_ids[keep] = row_ids[keep - 1];
    const struct lb_text_row row = {.start = lb_text_ids(data),
                                    .n = keep,
                                    .tag = cut->tag,
                                    .label =
                                        stream->classes.len > i ? stream->classes.data[i] : LB_LABEL_NONE,
                                    .prompt = cut->prompt};
    stream->bytes += bytes_of(source, row_ids + 1, keep);
    data->shortened += keep < len;
    enum lb_status status = lb_text_add_ids(data, row_ids, keep + 1, detail);
    status = status == LB_OK ? lb_text_add_row(data, &row, detail) : status;
    if (status == LB_OK &&
        lb_dataset_weigh(data, data->count - 1, lb_weight_at(&stream->weights, i)) != LB_OK) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for the weights");
    }
    lb_free(row_ids);
    return status;
}

/* Each text a row; longer ones lose ids before their end. */
static enum lb_status cut_whole(struct lb_dataset *data, const struct lb_text_source *source,
                                struct lb_text_stream *stream, const struct lb_text_cut *cut,
                                struct lb_detail *detail) {
    int64_t around = (int64_t)(source->begin.len + source->end.len);
    if (cut->max_length <= around) {
        return lb_fail(detail, LB_E_ARG, "max_length: %lld is no more than the %lld tokens around each text",
                       (long long)cut->max_length, (long long)around);
    }
    enum lb_status status = LB_OK;
    const int32_t *ids = stream->ids.data;
    for (size_t i = 0; i < stream->lens.len && status == LB_OK && stream->left > 0; i++) {
        int64_t keep = lb_whole_kept(source, stream->lens.data[i], cut->max_length);
        status = keep > 0 ? add_whole(data, source, stream, cut, i, ids, keep, detail) : LB_OK;
        stream->left -= keep;
        ids += stream->lens.data[i];
    }
    stream->ids.len = 0;
    return status;
}

enum lb_status lb_cut(struct lb_dataset *data, const struct lb_text_source *source,
                      struct lb_text_stream *stream, const struct lb_text_cut *cut, bool end,
                      struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    if (stream->form != LB_ROW_TEXT) {
        status = cut_records(data, source, stream, cut, detail);
    } else if (source->whole) {
        status = cut_whole(data, source, stream, cut, detail);
    } else if (source->begin.len > 0) {
        status = cut_begun(data, source, stream, cut, end, detail);
    } else {
        status = take_stream(data, stream, detail);
        status = status == LB_OK && end ? cut_overlapping(data, source, stream, cut, detail) : status;
    }
    stream->lens.len = stream->prompts.len = stream->record_lens.len = stream->classes.len = 0;
    lb_buf_reset(&stream->records);
    lb_buf_reset(&stream->weights);
    return status;
}
