/* Rows of text: appended while data are read, and read back when they are wanted. */
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <string.h>

#define HELD_AT_LEAST 8
#define CHUNK 65536 /* ids that are looked at together */

/* ---- room for rows that were asked for lately ---- */

enum lb_status lb_dataset_hold_any(struct lb_dataset *data, struct lb_detail *detail) {
    data->held = data->held != NULL ? data->held : lb_calloc(1, sizeof *data->held);
    return data->held != NULL ? lb_dataset_hold(data, HELD_AT_LEAST, detail)
                              : lb_fail(detail, LB_E_NOMEM, "out of memory for the data");
}

enum lb_status lb_dataset_hold(const struct lb_dataset *data, int64_t n, struct lb_detail *detail) {
    struct lb_held *held = data->held;
    if (held == NULL || n <= held->n) {
        return LB_OK;
    }
    struct lb_held_row *rows = lb_realloc_array(held->rows, (size_t)n, sizeof *rows);
    if (rows == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for %lld rows", (long long)n);
    }
    memset(rows + held->n, 0, (size_t)(n - held->n) * sizeof *rows);
    held->rows = rows;
    held->n = n;
    held->next = 0;
    return LB_OK;
}

struct lb_held_row *lb_dataset_next_held(const struct lb_dataset *data, int64_t n_ids,
                                         struct lb_detail *detail) {
    struct lb_held *held = data->held;
    struct lb_held_row *row = &held->rows[held->next];
    if (n_ids > row->cap) {
        int32_t *ids = lb_realloc_array(row->ids, (size_t)n_ids, sizeof *ids);
        row->ids = ids != NULL ? ids : row->ids;
        uint8_t *counts = lb_realloc_array(row->counts, (size_t)n_ids, 1);
        row->counts = counts != NULL ? counts : row->counts;
        if (ids == NULL || counts == NULL) {
            (void)lb_fail(detail, LB_E_NOMEM, "out of memory for a row of %lld ids", (long long)n_ids);
            return NULL;
        }
        row->cap = n_ids;
    }
    held->next = (held->next + 1) % held->n;
    return row;
}

static void finish_held(struct lb_held *held) {
    for (int64_t i = 0; held != NULL && i < held->n; i++) {
        lb_free(held->rows[i].ids);
        lb_free(held->rows[i].counts);
        lb_free(held->rows[i].record);
        lb_free(held->rows[i].teacher_prompt);
    }
    lb_free(held != NULL ? held->rows : NULL);
    lb_free(held);
}

void lb_text_rows_finish(struct lb_dataset *data) {
    struct lb_spill *spills[] = {&data->ids, &data->rows, &data->records, &data->teacher_prompts};
    for (size_t i = 0; i < sizeof spills / sizeof *spills; i++) {
        lb_spill_finish(spills[i]);
    }
    finish_held(data->held);
    data->held = NULL;
}

/* ---- appending ---- */

enum lb_status lb_text_add_row(struct lb_dataset *data, const struct lb_text_row *row,
                               struct lb_detail *detail) {
    enum lb_status status = data->held != NULL ? LB_OK : lb_dataset_hold_any(data, detail);
    status = status == LB_OK ? lb_spill_append(&data->rows, row, sizeof *row, detail) : status;
    if (status == LB_OK) {
        data->count++;
        data->prompts += row->prompt > 0 && row->prompt < data->max_length;
        data->unlabelled += data->num_labels > 0 && row->label == LB_LABEL_NONE;
    }
    return status;
}

int64_t lb_text_ids(const struct lb_dataset *data) {
    return lb_spill_size(&data->ids) / (int64_t)sizeof(int32_t);
}

enum lb_status lb_text_add_ids(struct lb_dataset *data, const int32_t *ids, int64_t n,
                               struct lb_detail *detail) {
    return lb_spill_append(&data->ids, ids, (size_t)n * sizeof *ids, detail);
}

/* ---- reading ---- */

enum lb_status lb_text_row_at(const struct lb_dataset *data, int64_t i, struct lb_text_row *out,
                              struct lb_detail *detail) {
    enum lb_status status = lb_spill_read(&data->rows, i * (int64_t)sizeof *out, out, sizeof *out, detail);
    if (status == LB_OK && data->class_of_name != NULL && out->label >= 0) {
        out->label = data->class_of_name[out->label];
    }
    return status;
}

/* Bytes of a spill into memory that is a held row's. */
static enum lb_status read_into(const struct lb_spill *spill, size_t at, void **room, size_t len,
                                struct lb_detail *detail) {
    void *to = len > 0 ? lb_realloc_array(*room, len, 1) : NULL;
    if (len > 0 && to == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a record");
    }
    *room = len > 0 ? to : *room;
    return len > 0 ? lb_spill_read(spill, (int64_t)at, to, len, detail) : LB_OK;
}

enum lb_status lb_text_row_read(const struct lb_dataset *data, int64_t i, struct lb_sample *out,
                                struct lb_detail *detail) {
    struct lb_text_row row;
    enum lb_status status = lb_text_row_at(data, i, &row, detail);
    struct lb_held_row *held = status == LB_OK ? lb_dataset_next_held(data, row.n + 1, detail) : NULL;
    if (held == NULL) {
        return status != LB_OK ? status : LB_E_NOMEM;
    }
    size_t theirs = (size_t)row.teacher_prompt_n * sizeof(int32_t);
    status = lb_spill_read(&data->ids, row.start * (int64_t)sizeof(int32_t), held->ids,
                           (size_t)(row.n + 1) * sizeof(int32_t), detail);
    status = status == LB_OK ? read_into(&data->records, row.record, &held->record, row.record_len, detail)
                             : status;
    status = status == LB_OK ? read_into(&data->teacher_prompts, row.teacher_prompt * sizeof(int32_t),
                                         &held->teacher_prompt, theirs, detail)
                             : status;
    if (status != LB_OK) {
        return status;
    }
    for (int64_t t = 0; data->any_counts && t <= row.n; t++) {
        held->counts[t] = held->ids[t] >= 0;
        held->ids[t] = held->ids[t] >= 0 ? held->ids[t] : ~held->ids[t];
    }
    *out = (struct lb_sample){.ids = held->ids,
                              .n = row.n,
                              .label = data->num_labels > 0 ? row.label : -1,
                              .tag = row.tag,
                              .within = row.within,
                              .record = row.record_len > 0 ? held->record : NULL,
                              .record_len = row.record_len,
                              .counts = data->any_counts ? held->counts : NULL,
                              .prompt = row.prompt,
                              .teacher_prompt = theirs > 0 ? held->teacher_prompt : NULL,
                              .teacher_prompt_n = row.teacher_prompt_n};
    return LB_OK;
}

/* ---- what goes into the fingerprint ---- */

/* ids [n] as they are read, or whether each counts. */
static void hash_ids(struct lb_sha256 *hash, int32_t *ids, int64_t n, bool counts, uint8_t *bytes) {
    for (int64_t i = 0; i < n; i++) {
        bytes[i] = ids[i] >= 0;
        ids[i] = ids[i] >= 0 ? ids[i] : ~ids[i];
    }
    if (counts) {
        lb_sha256_update(hash, bytes, (size_t)n);
    } else {
        lb_sha256_update(hash, ids, (size_t)n * sizeof *ids);
    }
}

enum lb_status lb_text_hash_ids(struct lb_dataset *data, int64_t first, struct lb_detail *detail) {
    int64_t end = lb_text_ids(data);
    int32_t *ids = lb_malloc_array(CHUNK, sizeof *ids);
    uint8_t *bytes = lb_malloc_array(CHUNK, 1);
    enum lb_status status =
        ids != NULL && bytes != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for the data");
    for (int counts = 0; counts < (data->any_counts ? 2 : 1); counts++) {
        for (int64_t at = first; status == LB_OK && at < end; at += CHUNK) {
            int64_t n = end - at < CHUNK ? end - at : CHUNK;
            status =
                lb_spill_read(&data->ids, at * (int64_t)sizeof *ids, ids, (size_t)n * sizeof *ids, detail);
            if (status == LB_OK) {
                hash_ids(data->hash, ids, n, counts == 1, bytes);
            }
        }
    }
    lb_free(ids);
    lb_free(bytes);
    return status;
}

enum lb_status lb_text_hash_rows(struct lb_dataset *data, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (int64_t i = 0; status == LB_OK && i < data->count; i++) {
        struct lb_text_row row;
        status = lb_text_row_at(data, i, &row, detail);
        if (status == LB_OK) {
            const char *name = row.tag >= 0 ? data->tags[row.tag] : "";
            lb_sha256_u64(data->hash, (uint64_t)row.start);
            lb_sha256_u64(data->hash, (uint64_t)row.n);
            lb_sha256_update(data->hash, name, strlen(name) + 1);
        }
        if (status == LB_OK && data->any_label) {
            lb_sha256_u64(data->hash, (uint64_t)row.label);
        }
    }
    int32_t ids[1024];
    int64_t size = lb_spill_size(&data->teacher_prompts);
    for (int64_t at = 0; status == LB_OK && at < size; at += (int64_t)sizeof ids) {
        size_t n = size - at < (int64_t)sizeof ids ? (size_t)(size - at) : sizeof ids;
        status = lb_spill_read(&data->teacher_prompts, at, ids, n, detail);
        if (status == LB_OK) {
            lb_sha256_update(data->hash, ids, n);
        }
    }
    return status;
}
