#include "server/engine/extract.h"

#include "server/models/vocab_maps.h"

#include <omp.h>
#include <string.h>

#define FILLS(kind, name, own, others, source, width, numbers, uses, fill)                                   \
    [LB_OUT_##kind] = lb_extract_##fill,
static const lb_extract_fn fills[] = {LB_OUTPUTS(FILLS)};

enum lb_status lb_extract_init(struct lb_extract *extract, const struct lb_place *places,
                               const struct lb_ragged *of_head, int64_t v, struct lb_arena *arena) {
    *extract = (struct lb_extract){.places = places, .of_head = of_head, .v = v};
    bool draws_behind = false;
    for (int64_t s = 0; s < of_head->n_seqs; s++) {
        const struct lb_job *job = places[s].job;
        int64_t k = job->needs_head ? job->top_k : 0;
        draws_behind |= job->draw != NULL;
        extract->max_k = k > extract->max_k ? k : extract->max_k;
        int64_t draws = places[s].job->samples;
        extract->max_draws = draws > extract->max_draws ? draws : extract->max_draws;
    }
    size_t n = (size_t)omp_get_max_threads() * (size_t)extract->max_k;
    extract->ids = lb_arena_array(arena, n, sizeof *extract->ids);
    extract->values = lb_arena_array(arena, n, sizeof *extract->values);
    size_t n_drawn = (size_t)omp_get_max_threads() * (size_t)extract->max_draws;
    extract->drawn = lb_arena_array(arena, n_drawn, sizeof *extract->drawn);
    bool made = (n == 0 || (extract->ids && extract->values)) && (n_drawn == 0 || extract->drawn);
    if (draws_behind) {
        extract->all_ids = lb_arena_array(arena, (size_t)v, sizeof *extract->all_ids);
        extract->all_values = lb_arena_array(arena, (size_t)v, sizeof *extract->all_values);
        made = made && extract->all_ids && extract->all_values;
    }
    return made ? LB_OK : LB_E_NOMEM;
}

/* Fills the row of each output of the job that is made of this. */
static void fill_row(struct lb_row *row, enum lb_output_source source, int layer) {
    for (size_t i = 0; i < row->job->n_outputs; i++) {
        const struct lb_job_output *o = &row->job->outputs[i];
        if (lb_output_get(o->what.kind)->source == source && o->what.layer == layer && !o->streamed) {
            fills[o->what.kind](row, o);
        }
    }
}

/* ---- whole rows of logits ---- */

enum lb_status lb_extract_logits(void *context, int64_t row, int64_t n, float *z) {
    struct lb_extract *extract = context;
    while (row >= extract->of_head->offsets[extract->at + 1]) {
        extract->at++;
    }
    const struct lb_place *place = &extract->places[extract->at];
    int64_t t = row - extract->of_head->offsets[extract->at];
#pragma omp parallel for schedule(dynamic, 4) if (n > 1)
    for (int64_t i = 0; i < n; i++) {
        size_t thread = (size_t)omp_get_thread_num(), scratch = thread * (size_t)extract->max_k;
        struct lb_row one = {.job = place->job,
                             .seq = place->seq,
                             .t = t + i,
                             .x = z + i * extract->v,
                             .n = extract->v,
                             .heads = 1,
                             .ids = extract->ids + scratch,
                             .values = extract->values + scratch,
                             .drawn = extract->drawn + thread * (size_t)extract->max_draws};
        fill_row(&one, LB_FROM_LOGITS, 0);
    }
    int64_t last = lb_job_length(place->job, place->seq) - 1 - t;
    if (place->job->draw && last < n) { /* one row a sequence: one thread's work and room */
        struct lb_row one = {.job = place->job,
                             .seq = place->seq,
                             .t = t + last,
                             .x = z + last * extract->v,
                             .n = extract->v,
                             .heads = 1,
                             .ids = extract->all_ids,
                             .values = extract->all_values};
        lb_extract_draw(&one);
    }
    return LB_OK;
}

/* ---- logits in pieces ---- */

/* The place of the batch that a row belongs to. */
static int64_t place_of(const struct lb_extract *extract, int64_t row) {
    int64_t low = 0, high = extract->of_head->n_seqs - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (extract->of_head->offsets[middle] <= row) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

static bool in_pieces(const struct lb_job_output *o) {
    const struct lb_output *is = lb_output_get(o->what.kind);
    return is->source == LB_FROM_LOGITS && (is->uses & LB_IN_PIECES) != 0 && !o->streamed;
}

bool lb_extract_needs_rows(const struct lb_extract *extract) {
    for (int64_t s = 0; s < extract->of_head->n_seqs; s++) {
        const struct lb_job *job = extract->places[s].job;
        if (job->draw) {
            return true;
        }
        for (size_t i = 0; i < job->n_outputs; i++) {
            if (lb_output_get(job->outputs[i].what.kind)->source == LB_FROM_LOGITS &&
                !in_pieces(&job->outputs[i]) && !job->outputs[i].streamed) {
                return true;
            }
        }
    }
    return false;
}

static struct lb_head_want want(void *context, int64_t row) {
    const struct lb_extract *extract = context;
    int64_t s = place_of(extract, row), seq = extract->places[s].seq;
    const struct lb_job *job = extract->places[s].job;
    struct lb_head_want want = {0};
    unsigned uses = 0;
    for (size_t i = 0; i < job->n_outputs; i++) {
        unsigned of_one = in_pieces(&job->outputs[i]) ? lb_output_get(job->outputs[i].what.kind)->uses : 0;
        uses |= of_one;
    }
    want.rest = (uses & LB_USES_REST) != 0;
    want.outside = (uses & LB_USES_OUTSIDE) != 0;
    if (job->map) {
        want.kept = job->map->kept;
    }
    want.k = uses & LB_USES_TOP_K ? job->top_k : 0;
    want.temperature = uses & LB_USES_TEMPERATURE ? job->temperature : 0;
    want.plain = (uses & LB_USES_PLAIN_SUM) != 0;
    int64_t next = row - extract->of_head->offsets[s] + 1;
    if (uses & LB_USES_SAMPLES) {
        want.draw = lb_job_row_draw(job, seq, next - 1);
    }
    if (uses & LB_USES_SCORE_IDS) { /* the next token is the first of them */
        want.n_at = 1 + job->n_scored;
        want.at = job->scored + (job->offsets[seq] + next - 1) * want.n_at;
    } else if ((uses & LB_USES_NEXT_TOKEN) != 0 && next < lb_job_length(job, seq)) {
        want.at = job->ids + job->offsets[seq] + next;
        want.n_at = 1;
    }
    return want;
}

/* All outputs of a row that are made of what is left of it. */
static void take_row(void *context, int64_t row, const struct lb_head_row *left) {
    const struct lb_extract *extract = context;
    int64_t s = place_of(extract, row);
    const struct lb_job *job = extract->places[s].job;
    struct lb_row one = {.job = job,
                         .seq = extract->places[s].seq,
                         .t = row - extract->of_head->offsets[s],
                         .n = extract->v,
                         .heads = 1,
                         .has_lse = true,
                         .has_top_k = true,
                         .has_rest = true,
                         .has_outside = true,
                         .has_plain = true,
                         .has_draws = true,
                         .lse = left->lse,
                         .log_rest = left->log_rest,
                         .log_outside = left->log_outside,
                         .plain_lse = left->plain_lse,
                         .draw_lse = left->draw_lse,
                         .next_logit = left->n_at > 0 ? left->at[0] : 0,
                         .at = left->n_at > 1 ? left->at + 1 : NULL,
                         .drawn = left->drawn,
                         .n_drawn = left->n_drawn,
                         .ids = left->ids,
                         .values = left->values};
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_job_output *o = &job->outputs[i];
        if (in_pieces(o) && lb_output_get(o->what.kind)->width != LB_WIDE_VOCAB) {
            fills[o->what.kind](&one, o);
        }
    }
}

/* Logits that are wanted as they are go to their place as they come. */
static void take_logits(void *context, int64_t row, int64_t n, int64_t id, int64_t n_ids, const float *z,
                        int64_t ldz) {
    const struct lb_extract *extract = context;
    int64_t s = place_of(extract, row);
    const struct lb_job *job = extract->places[s].job;
    for (size_t k = 0; k < job->n_outputs; k++) {
        const struct lb_job_output *o = &job->outputs[k];
        if (!in_pieces(o) || lb_output_get(o->what.kind)->width != LB_WIDE_VOCAB) {
            continue;
        }
#pragma omp parallel for schedule(static) if (n * n_ids > 65536)
        for (int64_t i = 0; i < n; i++) {
            struct lb_row one = {
                .job = job, .seq = extract->places[s].seq, .t = row + i - extract->of_head->offsets[s]};
            lb_put_logits(&one, o, id, z + i * ldz, n_ids);
        }
    }
}

struct lb_head_reader lb_extract_reader(struct lb_extract *extract) {
    return (struct lb_head_reader){.context = extract, .want = want, .row = take_row, .logits = take_logits};
}

/* ---- states ---- */

/* Whether a job asks for anything that is made of this. */
static bool wanted(const struct lb_job *job, enum lb_output_source source, int layer) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_output_name *what = &job->outputs[i].what;
        if (lb_output_get(what->kind)->source == source && what->layer == layer) {
            return true;
        }
    }
    return false;
}

void lb_extract_states(const struct lb_extract *extract, enum lb_output_source source, int layer,
                       int64_t cols, const lb_extract_rows *rows) {
    for (int64_t s = 0; s < extract->of_head->n_seqs; s++) {
        const struct lb_place *place = &extract->places[s];
        int64_t length = wanted(place->job, source, layer) ? lb_job_length(place->job, place->seq) : 0;
        for (int64_t t = place->job->start[place->seq]; t < length; t++) {
            struct lb_row row = {
                .job = place->job, .seq = place->seq, .t = t, .x = rows[s] + t * cols, .n = cols, .heads = 1};
            fill_row(&row, source, layer);
        }
    }
}

void lb_extract_kept(const struct lb_extract *extract, int64_t cols, const lb_extract_rows *rows) {
    int64_t step = lb_head_plain_chunk(extract->v);
    for (int64_t s = 0; s < extract->of_head->n_seqs; s++) {
        const struct lb_place *place = &extract->places[s];
        const struct lb_job *job = place->job;
        if (job->kept) {
            int64_t first = lb_job_first_kept(job, place->seq, step),
                    n = lb_job_length(job, place->seq) - first;
            memcpy(job->states + job->kept[place->seq] * cols, rows[s] + first * cols,
                   (size_t)(n * cols) * sizeof(float));
        }
    }
}

void lb_extract_once(const struct lb_extract *extract, enum lb_output_source source, int64_t cols,
                     const lb_extract_rows *rows) {
    for (int64_t s = 0; s < extract->of_head->n_seqs; s++) {
        const struct lb_place *place = &extract->places[s];
        struct lb_row row = {.job = place->job,
                             .seq = place->seq,
                             .t = place->job->start[place->seq],
                             .x = rows[s],
                             .n = cols,
                             .heads = 1};
        fill_row(&row, source, 0);
    }
}

void lb_extract_attention(const struct lb_extract *extract, int layer, int64_t heads,
                          const lb_extract_rows *rows) {
    for (int64_t s = 0; s < extract->of_head->n_seqs; s++) {
        const struct lb_place *place = &extract->places[s];
        int64_t length = lb_job_length(place->job, place->seq);
        int64_t end = wanted(place->job, LB_FROM_ATTENTION, layer) ? length : 0;
        for (int64_t t = place->job->start[place->seq]; t < end; t++) {
            struct lb_row row = {.job = place->job,
                                 .seq = place->seq,
                                 .t = t,
                                 .x = rows[s] + t * length,
                                 .n = length,
                                 .heads = heads,
                                 .stride = length * length};
            fill_row(&row, LB_FROM_ATTENTION, layer);
        }
    }
}
