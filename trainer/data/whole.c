/* Texts as rows of their own, whole: what encoders read. */
#include "trainer/data/parts.h"

#include "common/base/mem.h"

/* Appends one text [len], of which `keep` ids stay: its beginning, and its end behind what is left out. One
 * id follows the row's, which nobody reads as an input: samples have one more than positions. */
static enum lb_status append(struct lb_dataset *data, const struct lb_text_source *source, const int32_t *ids,
                             int64_t len, int64_t keep, int tag, int32_t label) {
    int64_t start = (int64_t)data->ids.len, end = (int64_t)source->end.len;
    enum lb_status status = LB_OK;
    for (int64_t i = 0; i < keep && status == LB_OK; i++) {
        int32_t id = ids[i < keep - end ? i : len - keep + i];
        status = lb_ids_push(&data->ids, id >= 0 ? id : ~id);
    }
    status = status == LB_OK ? lb_ids_push(&data->ids, data->ids.data[start + keep - 1]) : status;
    if (status == LB_OK) {
        data->rows[data->count++] =
            (struct lb_text_row){.start = start, .n = keep, .tag = tag, .label = label};
        data->shortened += keep < len;
    }
    return status;
}

int64_t lb_whole_kept(const struct lb_text_source *source, int64_t len, int64_t max_length) {
    int64_t keep = len < max_length ? len : max_length;
    return keep > (int64_t)(source->begin.len + source->end.len) ? keep : 0;
}

enum lb_status lb_dataset_add_whole(struct lb_dataset *data, const struct lb_text_source *source,
                                    const int32_t *ids, const int32_t *lens, size_t n_texts,
                                    const struct lb_whole_rows *rows, struct lb_detail *detail) {
    int64_t around = (int64_t)(source->begin.len + source->end.len);
    int64_t left = rows->max_tokens > 0 ? rows->max_tokens : INT64_MAX;
    if (rows->max_length <= around) {
        return lb_fail(detail, LB_E_ARG, "max_length: %lld is no more than the %lld tokens around each text",
                       (long long)rows->max_length, (long long)around);
    }
    struct lb_text_row *more =
        lb_realloc_array(data->rows, (size_t)data->count + n_texts, sizeof *data->rows);
    enum lb_status status = more != NULL || n_texts == 0 ? LB_OK : LB_E_NOMEM;
    data->rows = more != NULL ? more : data->rows;
    for (size_t i = 0; i < n_texts && status == LB_OK && left > 0; ids += lens[i], i++) {
        int64_t keep = lb_whole_kept(source, lens[i], rows->max_length);
        if (keep > 0) {
            int32_t label = rows->labels != NULL ? rows->labels[i] : LB_LABEL_NONE;
            status = append(data, source, ids, lens[i], keep, rows->tag, label);
            status = status == LB_OK ? lb_dataset_weigh(data, data->count - 1, lb_weight_at(rows->weights, i))
                                     : status;
            left -= keep;
        }
    }
    data->cap = data->count;
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for the rows");
}
