#include "trainer/run/trimmed.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "trainer/run/nats.h"

#include <math.h>
#include <stdio.h>

#define ROWS 256      /* that are looked at */
#define POSITIONS 256 /* of one of these */
#define MAX_TOKENIZER ((size_t)256 << 20)
#define MAX_TEXT ((size_t)64 << 20)

struct looking {
    const struct lb_vocab_map *map;
    struct lb_tokenizer *full;
    struct lb_buf text;
    struct lb_ids mapped, own; /* of a row: the trimmed ids in the whole vocabulary, the whole one's */
    int64_t rows, positions, others, its_positions;
    /* rows for the teacher, both ways */
    int64_t n;
    struct lb_ids asked[2][LB_NATS_TEXTS];
};

/* Bytes that an id adds to text. */
static size_t length(const struct looking *l, int32_t id) {
    size_t len = 0;
    return lb_tokenizer_bytes(l->full, id, &len) != NULL ? len : 0;
}

/* How many of the mapped ids are not among the teacher's own at the same place of the text. */
static int64_t count_others(const struct looking *l) {
    size_t at = 0, its_at = 0, j = 0;
    int64_t others = 0;
    for (size_t i = 0; i < l->mapped.len; i++) {
        while (j < l->own.len && its_at < at) {
            its_at += length(l, l->own.data[j++]);
        }
        others += j == l->own.len || its_at != at || l->own.data[j] != l->mapped.data[i];
        at += length(l, l->mapped.data[i]);
    }
    return others;
}

static bool copy_ids(struct lb_ids *to, const struct lb_ids *from) {
    size_t n = from->len < POSITIONS ? from->len : POSITIONS;
    return lb_ids_append(to, from->data, n) == LB_OK;
}

/* One row; false: out of memory. What is no text by itself (cut within a character) is passed over. */
static bool look_at(struct looking *l, const struct lb_sample *row) {
    lb_buf_reset(&l->text);
    l->mapped.len = l->own.len = 0;
    for (int64_t t = 0; t < row->n; t++) {
        size_t len = 0;
        int32_t id = l->map->kept[row->ids[t]];
        const char *bytes = lb_tokenizer_bytes(l->full, id, &len);
        if (lb_ids_push(&l->mapped, id) != LB_OK ||
            lb_buf_append(&l->text, bytes, bytes ? len : 0) != LB_OK) {
            return false;
        }
    }
    if (l->text.len == 0 || lb_utf8_check(l->text.data, l->text.len) < l->text.len ||
        lb_tokenizer_encode(l->full, l->text.data, l->text.len, false, &l->own, NULL) != LB_OK) {
        return true;
    }
    l->rows++;
    l->positions += (int64_t)l->mapped.len;
    l->its_positions += (int64_t)l->own.len;
    l->others += count_others(l);
    if (l->n < LB_NATS_TEXTS && l->mapped.len > 1 && l->own.len > 1) {
        bool ok = copy_ids(&l->asked[0][l->n], &l->mapped) && copy_ids(&l->asked[1][l->n], &l->own);
        l->n++;
        return ok;
    }
    return true;
}

/* Bits a byte of what is predicted, of the rows written one way; NAN: the teacher does not say. */
static double bits_per_byte(const struct looking *l, struct lb_teachers *teachers, unsigned k,
                            const struct lb_ids *ids) {
    struct lb_nats_text texts[LB_NATS_TEXTS];
    struct lb_chunk all[LB_NATS_TEXTS];
    double bytes = 0;
    for (int64_t i = 0; i < l->n; i++) {
        all[i] = (struct lb_chunk){.its_n = (int32_t)ids[i].len - 1};
        texts[i] = (struct lb_nats_text){
            {.ids = ids[i].data, .n = (int64_t)ids[i].len, .label = -1, .tag = -1}, &all[i], 1};
        for (size_t t = 1; t < ids[i].len; t++) {
            bytes += (double)length(l, ids[i].data[t]);
        }
    }
    return lb_nats_ask(teachers, k, texts, l->n, true) / bytes / log(2);
}

static void tell(struct looking *l, const struct lb_plan *plan, struct lb_teachers *teachers, unsigned k) {
    double trimmed = bits_per_byte(l, teachers, k, l->asked[0]),
           own = bits_per_byte(l, teachers, k, l->asked[1]);
    char both[96] = "";
    if (isfinite(trimmed) && isfinite(own)) {
        snprintf(both, sizeof both, " teacher_bits_per_byte=%.3f in_its_own_ids=%.3f", trimmed, own);
    }
    lb_log(LB_LOG_INFO, "trimmed_vocabulary",
           "teacher=%s tokens=%d of=%lld rows=%lld other_ids=%.3f longer=%.3f%s",
           plan->recipe->teachers[k].name, l->map->n, (long long)plan->info[k]->vocab_size,
           (long long)l->rows, (double)l->others / (double)l->positions,
           (double)l->positions / (double)l->its_positions, both);
}

/* The teacher's tokenizer, and what it makes of the first rows. */
static bool look(struct looking *l, struct lb_teachers *teachers, unsigned k, const struct lb_dataset *data) {
    struct lb_buf json;
    int64_t count = lb_dataset_count(data);
    lb_buf_init(&json, MAX_TOKENIZER);
    bool ok = lb_teachers_tokenizer(teachers, k, &json, NULL) == LB_OK &&
              lb_tokenizer_parse(json.data, json.len, "tokenizer", &l->full, NULL) == LB_OK;
    lb_buf_finish(&json);
    for (int64_t i = 0; ok && i < count && l->rows < ROWS; i++) {
        struct lb_sample row;
        ok = lb_dataset_get(data, i, &row, NULL) == LB_OK && row.ids != NULL && look_at(l, &row);
    }
    return ok && l->rows > 0;
}

void lb_trimmed_report(const struct lb_plan *plan, struct lb_teachers *teachers,
                       const struct lb_dataset *data) {
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        struct looking l = {.map = plan->map[k]};
        if (l.map == NULL) {
            continue;
        }
        lb_buf_init(&l.text, MAX_TEXT);
        if (look(&l, teachers, k, data)) {
            tell(&l, plan, teachers, k);
        }
        lb_tokenizer_destroy(l.full);
        lb_buf_finish(&l.text);
        lb_free(l.mapped.data);
        lb_free(l.own.data);
        for (int i = 0; i < LB_NATS_TEXTS; i++) {
            lb_free(l.asked[0][i].data);
            lb_free(l.asked[1][i].data);
        }
    }
}
