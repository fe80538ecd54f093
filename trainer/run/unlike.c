#include "trainer/run/unlike.h"

#include "common/base/arena.h"
#include "common/base/log.h"
#include "trainer/run/nats.h"

#include <math.h>
#include <stdio.h>

#define ROWS 256 /* that are looked at */
#define MEMORY ((size_t)1 << 30)

struct looking {
    struct lb_arena arena;
    int64_t rows, positions, in_chunks, its, chunks, unread;
    struct lb_detail why; /* the first row is not read */
    int64_t n_asked;
    struct lb_sample asked[LB_NATS_TEXTS];
};

static bool look_at(struct looking *l, const struct lb_sample *row, unsigned k) {
    const struct lb_reading *its = lb_sample_reading(row, k);
    if (its == NULL) {
        return false;
    }
    l->rows++;
    l->positions += lb_sample_counted(row);
    l->chunks += its->n_chunks;
    for (int64_t i = 0; i < its->n_chunks; i++) {
        l->in_chunks += its->chunks[i].n;
        l->its += its->chunks[i].its_n;
    }
    if (l->n_asked < LB_NATS_TEXTS && its->n_chunks > 0) {
        l->asked[l->n_asked++] = *row;
        return true;
    }
    return false;
}

static double chunk_bytes(const struct lb_sample *row, const struct lb_chunk *chunk,
                          const struct lb_tokenizer *tokenizer) {
    size_t bytes = 0;
    for (int64_t t = chunk->at; t < chunk->at + chunk->n; t++) {
        size_t n = 0;
        bool text = !lb_tokenizer_is_special(tokenizer, row->ids[t + 1]);
        bytes += text && lb_tokenizer_bytes(tokenizer, row->ids[t + 1], &n) != NULL ? n : 0;
    }
    return (double)bytes;
}

/* Bits a byte of what is compared, of the rows asked about; NAN: the teacher does not say. */
static double bits_per_byte(const struct looking *l, struct lb_teachers *teachers, unsigned k,
                            const struct lb_tokenizer *tokenizer) {
    struct lb_nats_text texts[LB_NATS_TEXTS];
    double bytes = 0;
    for (int64_t i = 0; i < l->n_asked; i++) {
        const struct lb_reading *its = lb_sample_reading(&l->asked[i], k);
        texts[i] = (struct lb_nats_text){
            {.ids = its->ids, .n = its->n, .label = -1, .tag = -1}, its->chunks, its->n_chunks};
        for (int64_t c = 0; c < its->n_chunks; c++) {
            bytes += chunk_bytes(&l->asked[i], &its->chunks[c], tokenizer);
        }
    }
    return lb_nats_ask(teachers, k, texts, l->n_asked, true) / bytes / log(2);
}

/* What the teacher makes of a row, which then has its readings. What cannot be read at all is counted, and
 * the first such told. */
static enum lb_status read_row(struct looking *l, const struct lb_plan *plan, unsigned k,
                               struct lb_sample *row, struct lb_detail *detail) {
    struct lb_reading *readings = lb_arena_zarray(&l->arena, plan->n_teachers, sizeof *readings);
    struct lb_detail why = {0};
    enum lb_status status =
        readings != NULL ? lb_reader_read(plan->reader[k], row, &l->arena, &readings[k], &why) : LB_E_NOMEM;
    if (status == LB_E_NOMEM) {
        return lb_fail(detail, status, "out of memory for the data");
    }
    if (status == LB_OK) {
        row->readings = readings;
        return LB_OK;
    }
    l->rows++;
    l->positions += lb_sample_counted(row);
    l->why = l->unread++ == 0 ? why : l->why;
    return LB_OK;
}

static enum lb_status look(struct looking *l, const struct lb_plan *plan, unsigned k,
                           const struct lb_dataset *data, struct lb_detail *detail) {
    int64_t count = lb_dataset_count(data);
    enum lb_status status = LB_OK;
    for (int64_t i = 0; status == LB_OK && i < count && l->rows < ROWS; i++) {
        struct lb_arena_mark mark = lb_arena_mark(&l->arena);
        struct lb_sample row;
        status = lb_dataset_get(data, i, &row, detail);
        status = status == LB_OK ? read_row(l, plan, k, &row, detail) : status;
        if (status != LB_OK || !look_at(l, &row, k)) {
            lb_arena_release(&l->arena, mark);
        }
    }
    if (status == LB_OK && l->unread > 0) {
        lb_log(LB_LOG_WARN, "not_read",
               "teacher=%s rows=%lld of=%lld then=\"nothing is learnt from it about these\" error=\"%s\"",
               plan->recipe->teachers[k].name, (long long)l->unread, (long long)l->rows, l->why.text);
    }
    return status;
}

static void tell(struct looking *l, const char *name, struct lb_teachers *teachers, unsigned k,
                 const struct lb_tokenizer *tokenizer) {
    double bits = bits_per_byte(l, teachers, k, tokenizer), chunks = (double)l->chunks;
    char told[64] = "";
    if (isfinite(bits)) {
        snprintf(told, sizeof told, " teacher_bits_per_byte=%.3f", bits);
    }
    lb_log(LB_LOG_INFO, "unlike_tokenizer",
           "teacher=%s rows=%lld in_chunks=%.3f tokens_per_chunk=%.2f its_tokens_per_chunk=%.2f%s", name,
           (long long)l->rows, (double)l->in_chunks / (double)l->positions, (double)l->in_chunks / chunks,
           (double)l->its / chunks, told);
}

enum lb_status lb_unlike_report(const struct lb_plan *plan, struct lb_teachers *teachers,
                                const struct lb_tokenizer *tokenizer, const struct lb_dataset *data,
                                struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (unsigned k = 0; k < plan->n_teachers && status == LB_OK; k++) {
        struct looking l = {.rows = 0};
        if (!plan->unlike[k]) {
            continue;
        }
        lb_arena_init(&l.arena, MEMORY);
        status = look(&l, plan, k, data, detail);
        if (status == LB_OK && l.chunks == 0) {
            status =
                lb_fail(detail, LB_E_MISMATCH,
                        "teacher %s: its tokenizer and this recipe's hold no piece of the first %lld rows in "
                        "common; alm has nothing to compare (is max_length very short, does either change "
                        "the text?)",
                        plan->recipe->teachers[k].name, (long long)l.rows);
        } else if (status == LB_OK) {
            tell(&l, plan->recipe->teachers[k].name, teachers, k, tokenizer);
        }
        lb_arena_finish(&l.arena);
    }
    return status;
}
