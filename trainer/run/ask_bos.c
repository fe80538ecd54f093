#include "trainer/run/ask_bos.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/run/nats.h"

#include <math.h>

#define POSITIONS 256  /* of a row that are asked about */
#define FAR_BETTER 0.9 /* nats a token with bos, as a share of those without */

/* The first rows, as they are and as they would be with bos before each text. What counts are the rows' own
 * labels but the first id, which only one of the ways predicts. */
struct asking {
    int64_t n;
    struct lb_nats_text plain[LB_NATS_TEXTS], begun[LB_NATS_TEXTS];
    int32_t ids[LB_NATS_TEXTS][POSITIONS]; /* begun */
    struct lb_chunk own[LB_NATS_TEXTS], at[LB_NATS_TEXTS][POSITIONS];
    double tokens;
};

static struct lb_sample text_of(const int32_t *ids, int64_t n) {
    return (struct lb_sample){.ids = ids, .n = n, .label = -1, .tag = -1};
}

static void add_row(struct asking *a, const struct lb_sample *row, int32_t bos, int32_t eos) {
    int32_t *ids = a->ids[a->n], n = 1, own = 0;
    struct lb_chunk *at = a->at[a->n];
    ids[0] = bos;
    while (own < row->n && n < POSITIONS - 1) {
        if (own > 0) {
            at[own - 1] = (struct lb_chunk){.its_at = n - 1, .its_n = 1};
        }
        ids[n++] = row->ids[own];
        if (row->ids[own++] == eos) {
            ids[n++] = bos;
        }
    }
    if (own > 1) {
        a->own[a->n] = (struct lb_chunk){.its_n = own - 1};
        a->plain[a->n] = (struct lb_nats_text){text_of(row->ids, own), &a->own[a->n], 1};
        a->begun[a->n++] = (struct lb_nats_text){text_of(ids, n), at, own - 1};
        a->tokens += own - 1;
    }
}

static bool prepare(struct asking *a, const struct lb_dataset *data, int32_t bos, int32_t eos) {
    int64_t count = lb_dataset_count(data);
    for (int64_t i = 0; i < count && a->n < LB_NATS_TEXTS; i++) {
        struct lb_sample row;
        if (lb_dataset_get(data, i, &row, NULL) != LB_OK || row.ids == NULL || row.ids[0] == bos ||
            row.counts != NULL) {
            return false; /* rows begin with it, or are made otherwise */
        }
        add_row(a, &row, bos, eos);
    }
    return a->n > 0;
}

/* Asks teacher k both ways. Where it does not say, the run will tell. */
static void ask(struct lb_teachers *teachers, unsigned k, const struct asking *a, const char *name,
                const char *token) {
    double without = lb_nats_ask(teachers, k, a->plain, a->n, false) / a->tokens,
           with = isfinite(without) ? lb_nats_ask(teachers, k, a->begun, a->n, false) / a->tokens : NAN;
    if (with < FAR_BETTER * without) { /* of NAN nothing is true */
        lb_log(LB_LOG_WARN, "teacher_expects_bos",
               "teacher=%s nats_per_token=%.2f with_bos=%.2f note=\"it predicts the text far better where "
               "texts begin with %s, and here they do not: set add_bos_token: true\"",
               name, without, with, token);
    }
}

void lb_ask_bos(const struct lb_recipe *recipe, struct lb_teachers *teachers, const bool *unlike,
                const struct lb_tokenizer *tokenizer, const struct lb_dataset *data) {
    int32_t bos = tokenizer != NULL ? lb_tokenizer_bos(tokenizer) : -1;
    if (teachers == NULL || bos < 0) {
        return;
    }
    struct asking *asking = lb_calloc(1, sizeof *asking);
    if (asking != NULL && prepare(asking, data, bos, lb_tokenizer_eos(tokenizer))) {
        for (unsigned k = 0; k < lb_teachers_count(teachers); k++) {
            const struct lb_teacher_info *info = lb_teachers_info(teachers, k);
            if (!unlike[k] && info->vocab_size > bos && info->num_labels == 0) {
                ask(teachers, k, asking, recipe->teachers[k].name, lb_tokenizer_token(tokenizer, bos));
            }
        }
    }
    lb_free(asking);
}
