/* What is drawn behind a sequence's end. */
#include "common/model/generate.h"
#include "server/engine/extract.h"

void lb_extract_draw(struct lb_row *row) {
    const struct lb_job_draw *draw = row->job->draw;
    const struct lb_generate_args args = {
        .temperature = draw->temperature, .top_k = draw->top_k, .top_p = draw->top_p, .seed = draw->seed};
    struct lb_rng rng;
    lb_rng_seed(&rng, draw->seed, 0);
    int32_t id = lb_generate_draw(&args, &rng, row->x, row->n, row->ids, row->values);
    double sum = lb_row_logsumexp(row), at = row->job->temperature, own = sum;
    if (draw->temperature != at) {
        own = lb_head_logsumexp(row->x, row->n, draw->temperature);
    }
    draw->ids[row->seq] = id;
    draw->logprobs[row->seq] = (float)(row->x[id] / draw->temperature - own);
    draw->lifts[row->seq] = sum * at / draw->temperature - own;
}
