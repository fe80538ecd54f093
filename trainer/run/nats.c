#include "trainer/run/nats.h"

#include "common/base/arena.h"

#include <math.h>

#define MEMORY ((size_t)64 << 20)

double lb_nats_ask(struct lb_teachers *teachers, unsigned k, const struct lb_nats_text *texts, int64_t n,
                   bool its_ids) {
    struct lb_sample samples[LB_NATS_TEXTS];
    struct lb_answer answers[LB_NATS_TEXTS] = {{0}};
    struct lb_arena arena;
    double nats = 0;
    for (int64_t i = 0; i < n; i++) {
        samples[i] = texts[i].sample;
    }
    lb_arena_init(&arena, MEMORY);
    enum lb_status status = lb_teachers_ask_once(teachers, k, samples, n, its_ids, &arena, answers, NULL);
    for (int64_t i = 0; status == LB_OK && i < n; i++) {
        const struct lb_wire_tensor *logprobs = lb_answer_find(&answers[i], LB_OUT_ACTUAL, 0);
        for (int64_t c = 0; c < texts[i].n_chunks; c++) {
            nats -= lb_wire_sum(logprobs, lb_answer_row(&answers[i], texts[i].chunks[c].its_at),
                                texts[i].chunks[c].its_n);
        }
    }
    lb_arena_finish(&arena);
    return status == LB_OK ? nats : NAN;
}
