#include "trainer/run/ask_bos.h"

#include "common/base/arena.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#define ROWS 4
#define POSITIONS 256  /* of a row that are asked about */
#define FAR_BETTER 0.9 /* nats a token with bos, as a share of those without */
#define MEMORY ((size_t)16 << 20)

/* The first rows, as they are and as they would be with bos before each text. */
struct asking {
    int64_t n;
    struct lb_sample plain[ROWS], begun[ROWS];
    int32_t ids[ROWS][POSITIONS], at[ROWS][POSITIONS]; /* begun; where the row's own ids stand in it */
};

static void add_row(struct asking *a, const struct lb_sample *row, int32_t bos, int32_t eos) {
    int32_t *ids = a->ids[a->n], *at = a->at[a->n];
    int64_t n = 1, own = 0;
    ids[0] = bos;
    while (own < row->n && n < POSITIONS - 1) {
        at[own] = (int32_t)n;
        ids[n++] = row->ids[own];
        if (row->ids[own++] == eos) {
            ids[n++] = bos;
        }
    }
    if (own > 1) {
        a->plain[a->n] = (struct lb_sample){.ids = row->ids, .n = own, .tag = -1};
        a->begun[a->n++] = (struct lb_sample){.ids = ids, .n = n, .tag = -1};
    }
}

static bool prepare(struct asking *a, const struct lb_dataset *data, int32_t bos, int32_t eos) {
    int64_t count = lb_dataset_count(data);
    for (int64_t i = 0; i < count && a->n < ROWS; i++) {
        struct lb_sample row;
        lb_dataset_get(data, i, &row);
        if (row.ids == NULL || row.ids[0] == bos || row.counts != NULL) {
            return false; /* rows begin with it, or are made otherwise */
        }
        add_row(a, &row, bos, eos);
    }
    return a->n > 0;
}

/* Nats a token over the rows' own labels but the first id, which only one of the ways predicts. */
static double nats(const struct asking *a, const struct lb_answer *answers, bool begun) {
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t own = 1; own < a->plain[i].n; own++, n++) {
            float logprob;
            lb_wire_floats(lb_answer_find(&answers[i], LB_OUT_ACTUAL, 0), (begun ? a->at[i][own] : own) - 1,
                           1, &logprob);
            sum -= (double)logprob;
        }
    }
    return sum / (double)n;
}

/* Asks teacher k both ways. */
static void ask(struct lb_teachers *teachers, unsigned k, const struct asking *a, const char *name,
                const char *token) {
    struct lb_answer plain[ROWS] = {{0}}, begun[ROWS] = {{0}};
    struct lb_ask_spec spec = {.n_outputs = 1, .top_k = 1, .temperature = 1};
    struct lb_arena arena;
    spec.outputs[0].kind = LB_OUT_ACTUAL;
    spec.outputs[0].datatype = LB_DT_FP32;
    lb_arena_init(&arena, MEMORY);
    enum lb_status status =
        lb_teachers_ask_once(teachers, k, &spec, a->plain, a->n, false, &arena, plain, NULL);
    if (status == LB_OK) {
        status = lb_teachers_ask_once(teachers, k, &spec, a->begun, a->n, false, &arena, begun, NULL);
    }
    if (status == LB_OK) { /* else the run will tell */
        double without = nats(a, plain, false), with = nats(a, begun, true);
        if (with < FAR_BETTER * without) {
            lb_log(
                LB_LOG_WARN, "teacher_expects_bos",
                "teacher=%s nats_per_token=%.2f with_bos=%.2f note=\"it predicts the text far better where "
                "texts begin with %s, and here they do not: set add_bos_token: true\"",
                name, without, with, token);
        }
    }
    lb_arena_finish(&arena);
}

void lb_ask_bos(const struct lb_recipe *recipe, struct lb_teachers *teachers, const bool *unlike,
                const struct lb_tokenizer *tokenizer, const struct lb_dataset *data) {
    int32_t bos = tokenizer != NULL ? lb_tokenizer_bos(tokenizer) : -1;
    if (teachers == NULL || bos < 0 || lb_teachers_cached(teachers)) {
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
