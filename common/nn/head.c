#include "common/nn/head.h"

#include "common/nn/gemm.h"
#include "common/nn/linear.h"
#include "common/nn/reduce.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Floats of one chunk of logits, as long as that leaves enough rows for the product to be worth it. */
#define CHUNK_FLOATS ((int64_t)1 << 20)
#define CHUNK_MIN_ROWS 64
#define CHUNK_MAX_ROWS 512
/* Rows of a chunk of plain mode above LB_HEAD_WIDE_V: a tile of a product. */
#define WIDE_CHUNK_ROWS 128
/* Chunks go through the head together, so that many threads have enough to do between two meetings: as many
 * as half the threads, since a chunk's way back may be but two tiles, and their logits have at most so many
 * floats. No bit depends on it. */
#define GROUP_FLOATS ((int64_t)16 << 20)
/* A narrow head up to so many floats is widened once, not once a chunk. */
#define KEPT_FLOATS ((int64_t)32 << 20)
/* Columns of a panel, and most rows whose logits of one panel exist together: 16 MiB. */
#define PANEL_COLS ((int64_t)4096)
#define PANEL_ROWS ((int64_t)1024)

int64_t lb_head_chunk(int64_t v) {
    int64_t rows = CHUNK_FLOATS / v;
    rows = rows < CHUNK_MIN_ROWS ? CHUNK_MIN_ROWS : rows;
    return rows > CHUNK_MAX_ROWS ? CHUNK_MAX_ROWS : rows;
}

/* Most rows of a chunk of plain mode: the same by rows and by panels, so that logits are. */
static int64_t plain_chunk(int64_t v) {
    return v > LB_HEAD_WIDE_V ? WIDE_CHUNK_ROWS : lb_head_chunk(v);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Chunks of so many rows that go together. */
static int64_t chunks_together(int64_t rows, int64_t v) {
    int64_t chunks = smaller(omp_get_max_threads() / 2, GROUP_FLOATS / (rows * v));
    return chunks > 1 ? chunks : 1;
}

int64_t lb_head_run_rows(int64_t v) {
    int64_t chunk = lb_head_chunk(v);
    return chunk * chunks_together(chunk, v);
}

/* The same in plain mode. */
static int64_t plain_rows(int64_t v) {
    int64_t chunk = plain_chunk(v);
    return chunk * chunks_together(chunk, v);
}

/* Rows row .. row + n - 1 of h, multiplied as a sequence of their own; the first skip of them for nobody. */
struct chunk {
    int64_t row, n, skip;
};

/* A head at work. */
struct work {
    struct lb_tape *tape;
    const struct lb_value *h;
    const struct lb_weight *w;
    const float *bias; /* [V] or NULL */
    struct lb_head_shape shape;
    struct chunk *chunks;
    int64_t n_chunks;
    int32_t *offsets; /* [n_chunks + 1] scratch */
    float *z;         /* the logits of some rows */
    float *workspace; /* of products with w */
    struct lb_gemm_panel panel;
    bool has_panel; /* the panel holds what is multiplied with next */
};

/* Chunks begin at multiples of the chunk's size within their sequence, whatever first says: a row's bits do
 * not depend on it. */
static bool list_chunks(struct work *work, const int32_t *first) {
    const struct lb_ragged *ragged = lb_tape_ragged(work->tape);
    int64_t step = plain_chunk(work->w->rows), most = ragged->n_seqs + work->h->rows / step;
    work->chunks = lb_tape_bytes(work->tape, (size_t)most * sizeof *work->chunks);
    work->offsets = lb_tape_bytes(work->tape, (size_t)(most + 1) * sizeof *work->offsets);
    for (int64_t s = 0; work->chunks != NULL && s < ragged->n_seqs; s++) {
        int64_t begin = ragged->offsets[s], end = ragged->offsets[s + 1];
        int64_t wanted = begin + (first != NULL ? first[s] : 0);
        for (int64_t row = begin + (wanted - begin) / step * step; row < end; row += step) {
            int64_t n = smaller(step, end - row), skip = wanted > row ? smaller(wanted - row, n) : 0;
            if (skip < n) {
                work->chunks[work->n_chunks++] = (struct chunk){row, n, skip};
            }
        }
    }
    return work->chunks != NULL && work->offsets != NULL;
}

static bool begin(struct work *work, struct lb_tape *tape, const struct lb_value *h,
                  const struct lb_head *head) {
    *work = (struct work){.tape = tape, .h = h, .w = head->weight, .shape = head->shape};
    return lb_linear_bias(tape, head->bias, &work->bias);
}

/* Products to logits, and back: dL/dlogit in d to dL/dproduct, where z holds the logits. */
static void shape_logits(struct lb_head_shape shape, float *z, int64_t n) {
    if (shape.softcap > 0) {
        float inner = shape.scale / shape.softcap;
#pragma omp parallel for if (n > 16384)
        for (int64_t i = 0; i < n; i++) {
            z[i] = shape.softcap * tanhf(z[i] * inner);
        }
    } else if (shape.scale != 1) {
#pragma omp parallel for if (n > 16384)
        for (int64_t i = 0; i < n; i++) {
            z[i] *= shape.scale;
        }
    }
}

static void shape_back(struct lb_head_shape shape, const float *z, float *d, int64_t n) {
#pragma omp parallel for if (n > 16384)
    for (int64_t i = 0; i < n; i++) {
        float t = shape.softcap > 0 ? z[i] / shape.softcap : 0;
        d[i] *= shape.scale * (1 - t * t);
    }
}

static bool is_plain(struct lb_head_shape shape) {
    return shape.softcap <= 0 && shape.scale == 1;
}

/* For products with all of w at once: room for the logits of as many rows, and a panel that holds the whole
 * head where it is small enough, or stored as it is multiplied. */
static bool begin_rows(struct work *work, int64_t rows, float *z) {
    int64_t v = work->w->rows, floats = lb_gemm_panel_floats(work->w, v);
    work->z = z != NULL ? z : lb_tape_bytes(work->tape, (size_t)(rows * v) * sizeof(float));
    work->has_panel = floats == 0 || (floats <= KEPT_FLOATS && work->h->rows > rows);
    floats = work->has_panel ? floats : lb_gemm_weight_floats(work->w);
    work->workspace = floats > 0 ? lb_tape_bytes(work->tape, (size_t)floats * sizeof(float)) : NULL;
    if (work->z == NULL || (floats > 0 && work->workspace == NULL)) {
        return false;
    }
    if (work->has_panel) {
        work->panel = lb_gemm_panel(work->w, 0, v, INT64_MAX, work->workspace);
    }
    return true;
}

/* z = the logits of n rows from row on, of the panel's ids where there is one. */
static void product(const struct work *work, int64_t row, int64_t n, const struct lb_ragged *ragged) {
    const float *x = work->h->data + row * work->h->cols;
    int64_t first = work->has_panel ? work->panel.first : 0;
    int64_t cols = work->has_panel ? work->panel.n : work->w->rows;
    if (work->bias != NULL) {
        lb_linear_fill(work->z, n, cols, work->bias + first);
    }
    float beta = work->bias != NULL ? 1 : 0;
    if (work->has_panel) {
        lb_gemm_by_panel(x, n, &work->panel, beta, work->z, cols, ragged);
    } else {
        lb_gemm_weight(x, n, work->w, beta, work->z, ragged, work->workspace);
    }
    shape_logits(work->shape, work->z, n * cols);
}

/* Chunks from c on that lie one behind the other and have at most so many rows together. */
static int64_t chunks_in_a_row(const struct chunk *chunks, int64_t n_chunks, int64_t c, int64_t most_rows,
                               int64_t *out_rows) {
    int64_t n = 1, rows = chunks[c].n;
    while (c + n < n_chunks && rows + chunks[c + n].n <= most_rows &&
           chunks[c + n].row == chunks[c].row + rows) {
        rows += chunks[c + n++].n;
    }
    *out_rows = rows;
    return n;
}

/* z = the logits of n chunks that lie one behind the other in h, n_rows rows. */
static void products_of(const struct work *work, const struct chunk *chunks, int64_t n, int64_t n_rows) {
    work->offsets[0] = 0;
    for (int64_t c = 0; c < n; c++) {
        work->offsets[c + 1] = work->offsets[c] + (int32_t)chunks[c].n;
    }
    product(work, chunks[0].row, n_rows, &(struct lb_ragged){n, work->offsets});
}

/* ---- reading ----------------------------------------------------------------------------------------------
 */

/* A row on its way. */
struct state {
    int64_t row; /* of h; -1: for nobody */
    struct lb_head_want want;
    struct lb_lse lse, plain;
    struct lb_top top;
    double rest;
    struct lb_parts parts;
    float *at;
    struct lb_sampler sampler;
};

_Static_assert(LB_HEAD_WIDE_V <= LB_MARK_STEP * LB_MARK_ROOM, "a row in one piece has its marks");

/* Chunks that go through the head together, and the states of their rows, those skipped too. */
struct group {
    const struct chunk *chunks;
    int64_t n_chunks, n_rows;
    struct state *states; /* [n_rows] */
};

static bool group_begin(struct work *work, struct group *g, const struct lb_head_reader *reader) {
    int64_t tops = 0, ats = 0, draws = 0, r = 0;
    g->states = lb_tape_bytes(work->tape, (size_t)g->n_rows * sizeof *g->states);
    for (int64_t c = 0; g->states != NULL && c < g->n_chunks; c++) {
        for (int64_t i = 0; i < g->chunks[c].n; i++, r++) {
            struct state *s = &g->states[r];
            bool skipped = i < g->chunks[c].skip;
            *s = (struct state){
                .row = skipped ? -1 : g->chunks[c].row + i, .lse = LB_LSE_EMPTY, .plain = LB_LSE_EMPTY};
            if (reader->want != NULL && !skipped) {
                s->want = reader->want(reader->context, s->row);
            }
            tops += s->want.k;
            ats += s->want.n_at;
            draws += s->want.draw.n;
        }
    }
    int32_t *ids = lb_tape_bytes(work->tape, (size_t)tops * sizeof *ids);
    float *values = lb_tape_bytes(work->tape, (size_t)tops * sizeof *values);
    float *at = lb_tape_bytes(work->tape, (size_t)ats * sizeof *at);
    struct lb_drawn *drawn = lb_tape_bytes(work->tape, (size_t)draws * sizeof *drawn);
    if (g->states == NULL || ids == NULL || values == NULL || at == NULL || drawn == NULL) {
        return false;
    }
    memset(at, 0, (size_t)ats * sizeof *at);
    for (r = 0; r < g->n_rows; r++) {
        struct state *s = &g->states[r];
        s->top = (struct lb_top){ids, values, s->want.k, 0};
        s->at = at;
        lb_sampler_begin(&s->sampler, &s->want.draw, drawn);
        ids += s->want.k;
        values += s->want.k;
        at += s->want.n_at;
        drawn += s->want.draw.n;
    }
    return true;
}

/* The next n_ids logits of a row. */
static void state_add(struct state *s, const float *z, int64_t id, int64_t n_ids) {
    double room[LB_MARK_ROOM];
    bool draws = s->want.draw.n > 0, one_sum = s->want.draw.temperature == s->want.temperature;
    double *marks = draws && one_sum ? room : NULL;
    if (s->want.kept.ids != NULL) {
        bool parts = s->want.rest || s->want.outside;
        lb_parts_add(parts ? &s->parts : NULL, &s->want.kept, &s->lse, &s->top, z, n_ids, id,
                     s->want.temperature);
    } else if (s->want.rest) {
        lb_rest_add(&s->rest, &s->lse, &s->top, z, n_ids, id, s->want.temperature, marks);
    } else {
        if (s->want.k > 0) {
            lb_top_add(&s->top, z, n_ids, id);
        }
        if (s->want.temperature > 0) {
            lb_lse_add_marks(&s->lse, z, n_ids, s->want.temperature, marks);
        }
    }
    if (draws) {
        lb_sampler_add(&s->sampler, &s->want.draw, z, n_ids, id, &s->lse, marks);
    }
    if (s->want.plain) {
        lb_lse_add(&s->plain, z, n_ids, 1);
    }
    for (int64_t i = 0; i < s->want.n_at; i++) {
        int64_t j = s->want.at[i] - id;
        if (j >= 0 && j < n_ids) {
            s->at[i] = z[j];
        }
    }
}

/* Chunks c .. c + n - 1 of the group, which lie one behind the other in h: n_rows rows, whose states begin at
 * states. */
static void read_run(const struct work *work, const struct chunk *chunks, int64_t n, int64_t n_rows,
                     struct state *states, const struct lb_head_reader *reader) {
    int64_t id = work->has_panel ? work->panel.first : 0;
    int64_t n_ids = work->has_panel ? work->panel.n : work->w->rows;
    products_of(work, chunks, n, n_rows);
    for (int64_t r = 0; reader->n_add > id && r < n_rows; r++) {
        for (int64_t j = 0; j < smaller(n_ids, reader->n_add - id); j++) {
            work->z[r * n_ids + j] += reader->add[id + j];
        }
    }
    for (int64_t c = 0; reader->logits != NULL && c < n; c++) {
        int64_t skip = chunks[c].skip;
        reader->logits(reader->context, chunks[c].row + skip, chunks[c].n - skip, id, n_ids,
                       work->z + (work->offsets[c] + skip) * n_ids, n_ids);
    }
    if (reader->want != NULL) {
#pragma omp parallel for schedule(dynamic, 4) if (n_rows > 1)
        for (int64_t r = 0; r < n_rows; r++) {
            state_add(&states[r], work->z + r * n_ids, id, n_ids);
        }
    }
}

/* All rows of the group against what the panel holds. */
static void read_panel(const struct work *work, const struct group *g, int64_t most_rows,
                       const struct lb_head_reader *reader) {
    int64_t row = 0; /* of the group */
    for (int64_t c = 0, rows; c < g->n_chunks;) {
        int64_t n = chunks_in_a_row(g->chunks, g->n_chunks, c, most_rows, &rows);
        read_run(work, g->chunks + c, n, rows, g->states + row, reader);
        row += rows;
        c += n;
    }
}

static double log_rest(const struct state *s) {
    return s->want.kept.ids != NULL ? lb_parts_rest(&s->parts, &s->lse, &s->top, s->want.temperature)
                                    : lb_rest_value(s->rest, &s->lse, &s->top, s->want.temperature);
}

static void row_finish(struct state *s, const struct lb_head_reader *reader) {
    double temperature = s->want.temperature;
    lb_top_finish(&s->top);
    struct lb_head_row left = {.ids = s->top.ids,
                               .values = s->top.values,
                               .at = s->at,
                               .n_at = s->want.n_at,
                               .lse = temperature > 0 ? lb_lse_value(&s->lse, temperature) : 0};
    if (s->want.draw.n > 0) {
        left.drawn = s->sampler.drawn;
        left.n_drawn = lb_sampler_finish(&s->sampler, &s->want.draw);
        left.draw_lse = lb_sampler_logsumexp(&s->sampler, &s->want.draw);
    }
    left.plain_lse = s->want.plain ? lb_lse_value(&s->plain, 1) : 0;
    left.log_rest = s->want.rest ? log_rest(s) : 0;
    left.log_outside = s->want.outside ? lb_parts_outside(&s->parts, &s->lse) : 0;
    reader->row(reader->context, s->row, &left);
}

static void group_finish(const struct group *g, const struct lb_head_reader *reader) {
    if (reader->row == NULL) {
        return;
    }
#pragma omp parallel for schedule(dynamic, 4) if (g->n_rows > 1)
    for (int64_t r = 0; r < g->n_rows; r++) {
        if (g->states[r].row >= 0) {
            row_finish(&g->states[r], reader);
        }
    }
}

/* Groups of few chunks, each with all logits of its rows. */
static bool read_by_rows(struct work *work, const struct lb_head_reader *reader) {
    int64_t most = smaller(plain_rows(work->w->rows), work->h->rows);
    bool ok = begin_rows(work, most, NULL);
    for (int64_t c = 0; ok && c < work->n_chunks;) {
        struct group g = {.chunks = work->chunks + c};
        while (c < work->n_chunks && g.n_rows + work->chunks[c].n <= most) {
            g.n_rows += work->chunks[c++].n;
            g.n_chunks++;
        }
        struct lb_arena_mark mark = lb_tape_mark(work->tape);
        ok = group_begin(work, &g, reader);
        if (ok) {
            read_panel(work, &g, most, reader);
            group_finish(&g, reader);
        }
        lb_tape_release(work->tape, mark);
    }
    return ok;
}

/* The whole batch is one group that meets the head panel by panel. */
static bool read_by_panels(struct work *work, const struct lb_head_reader *reader) {
    struct group g = {.chunks = work->chunks, .n_chunks = work->n_chunks};
    int64_t longest = 0;
    for (int64_t c = 0; c < work->n_chunks; c++) {
        g.n_rows += work->chunks[c].n;
        longest = work->chunks[c].n > longest ? work->chunks[c].n : longest;
    }
    int64_t v = work->w->rows;
    size_t floats = (size_t)lb_gemm_panel_floats(work->w, PANEL_COLS);
    work->z = lb_tape_bytes(work->tape, (size_t)(PANEL_ROWS * PANEL_COLS) * sizeof(float));
    work->workspace = floats > 0 ? lb_tape_bytes(work->tape, floats * sizeof(float)) : NULL;
    if (work->z == NULL || (floats > 0 && work->workspace == NULL) || !group_begin(work, &g, reader)) {
        return false;
    }
    work->has_panel = true;
    for (int64_t id = 0; id < v; id += PANEL_COLS) {
        if (lb_tape_stopped(work->tape)) {
            return false;
        }
        work->panel = lb_gemm_panel(work->w, id, smaller(PANEL_COLS, v - id), longest, work->workspace);
        read_panel(work, &g, PANEL_ROWS, reader);
    }
    group_finish(&g, reader);
    return true;
}

enum lb_status lb_head_read(struct lb_tape *tape, const struct lb_value *h, const struct lb_head *head,
                            const int32_t *first, const struct lb_head_reader *reader) {
    if (h == NULL) {
        return lb_tape_status(tape) != LB_OK ? lb_tape_status(tape) : LB_E_NOMEM;
    }
    struct lb_arena_mark mark = lb_tape_mark(tape);
    struct work work;
    bool ok = begin(&work, tape, h, head) && list_chunks(&work, first);
    if (ok && work.n_chunks > 0) {
        ok = work.w->rows > LB_HEAD_WIDE_V ? read_by_panels(&work, reader) : read_by_rows(&work, reader);
    }
    lb_tape_release(tape, mark);
    return ok ? LB_OK : lb_tape_status(tape) == LB_E_CANCELLED ? LB_E_CANCELLED : LB_E_NOMEM;
}

double lb_head_logsumexp(const float *z, int64_t v, double temperature) {
    int64_t step = v > LB_HEAD_WIDE_V ? PANEL_COLS : v;
    struct lb_lse lse = LB_LSE_EMPTY;
    for (int64_t id = 0; id < v; id += step) {
        lb_lse_add(&lse, z + id, smaller(step, v - id), temperature);
    }
    return lb_lse_value(&lse, temperature);
}

double lb_head_log_rest(const float *z, int64_t v, double temperature, int64_t k, int32_t *ids,
                        float *values) {
    int64_t step = v > LB_HEAD_WIDE_V ? PANEL_COLS : v;
    struct lb_lse lse = LB_LSE_EMPTY;
    struct lb_top top = {ids, values, k, 0};
    double rest = 0;
    for (int64_t id = 0; id < v; id += step) {
        lb_rest_add(&rest, &lse, &top, z + id, smaller(step, v - id), id, temperature, NULL);
    }
    lb_top_finish(&top);
    return lb_rest_value(rest, &lse, &top, temperature);
}

void lb_head_parts(const float *z, int64_t v, const struct lb_head_want *want, int32_t *ids, float *values,
                   double *out_log_rest, double *out_log_outside) {
    int64_t step = v > LB_HEAD_WIDE_V ? PANEL_COLS : v;
    struct lb_lse lse = LB_LSE_EMPTY;
    struct lb_top top = {ids, values, want->k, 0};
    struct lb_parts parts = {0};
    for (int64_t id = 0; id < v; id += step) {
        lb_parts_add(&parts, &want->kept, &lse, &top, z + id, smaller(step, v - id), id, want->temperature);
    }
    lb_top_finish(&top);
    *out_log_rest = lb_parts_rest(&parts, &lse, &top, want->temperature);
    *out_log_outside = lb_parts_outside(&parts, &lse);
}

int64_t lb_head_draw(const float *z, int64_t v, const struct lb_draw *draw, struct lb_drawn *drawn,
                     double *out_lse) {
    int64_t step = v > LB_HEAD_WIDE_V ? PANEL_COLS : v;
    struct lb_sampler sampler;
    lb_sampler_begin(&sampler, draw, drawn);
    for (int64_t id = 0; id < v; id += step) {
        lb_sampler_add(&sampler, draw, z + id, smaller(step, v - id), id, NULL, NULL);
    }
    *out_lse = lb_sampler_logsumexp(&sampler, draw);
    return lb_sampler_finish(&sampler, draw);
}

void lb_head_read_bytes(int64_t v, const struct lb_head_want *most, size_t *of_all, size_t *of_row) {
    size_t row = sizeof(struct state) + (size_t)most->k * (sizeof(int32_t) + sizeof(float)) +
                 (size_t)most->n_at * sizeof(float) + (size_t)most->draw.n * sizeof(struct lb_drawn);
    size_t rows = (size_t)plain_rows(v),
           more = rows - (size_t)plain_chunk(v); /* than a forward with the head has */
    *of_all = v > LB_HEAD_WIDE_V ? 0 : rows * row + more * (size_t)v * sizeof(float);
    *of_row = v > LB_HEAD_WIDE_V ? row : 0;
}

int64_t lb_head_plain_chunk(int64_t v) {
    return plain_chunk(v);
}

enum lb_status lb_head_chunk_logits(struct lb_tape *tape, const struct lb_value *h,
                                    const struct lb_head *head, float *z) {
    struct lb_arena_mark mark = lb_tape_mark(tape);
    struct work work;
    bool ok = begin(&work, tape, h, head) && begin_rows(&work, h->rows, z);
    if (ok) {
        const int32_t offsets[2] = {0, (int32_t)h->rows};
        product(&work, 0, h->rows, &(struct lb_ragged){1, offsets});
    }
    lb_tape_release(tape, mark);
    return ok ? LB_OK : LB_E_NOMEM;
}

size_t lb_head_run_bytes(int64_t v) {
    return (size_t)(plain_rows(v) * v) * sizeof(float);
}

/* ---- whole rows -------------------------------------------------------------------------------------------
 */

/* z holds dL/dlogits of n rows: dh = z W, dW += z^T h, db += column sums, the two sums chunk by chunk. */
static void rows_backward(const struct work *work, const struct lb_weight *bias, int64_t row, int64_t n,
                          bool fresh) {
    const struct lb_weight *w = work->w;
    int64_t v = w->rows, c = w->cols, step = lb_head_chunk(v);
    float beta = fresh ? 0 : 1;
    struct lb_gemm_list list; /* large: only its n is set */
    list.n = 0;
    for (int64_t i = 0; i < n; i += step) {
        int64_t rows = smaller(step, n - i);
        const float *z = work->z + i * v, *h = work->h->data + (row + i) * c;
        float *dh = work->h->grad != NULL ? work->h->grad + (row + i) * c : NULL;
        if (dh == NULL) { /* nothing behind the states is trained */
        } else if (work->has_panel) {
            lb_gemm_add(&list, &(struct lb_gemm_product){rows, c, v, z, v, work->panel.data, c, dh, c, beta});
        } else {
            lb_gemm_weight_back(z, rows, w, beta, dh, work->workspace);
        }
        if (w->grad != NULL) {
            lb_gemm_add(&list,
                        &(struct lb_gemm_product){v, c, rows, z, v, h, c, w->grad, c, 1, .trans_x = true});
        }
        if (bias != NULL && bias->grad != NULL) {
            lb_bias_backward(z, rows, v, bias->grad);
        }
    }
    lb_gemm_run(&list, true);
}

static enum lb_status run_train(struct work *work, struct lb_value *h, const struct lb_weight *bias,
                                int64_t most, lb_head_fn fn, void *context) {
    int64_t v = work->w->rows, step = lb_head_chunk(v);
    bool constant = lb_tape_is_constant(work->tape, h), fresh = !constant && lb_grad_fresh(work->tape, h);
    float *logits = NULL; /* of a group, for the way back through its shape */
    if (!is_plain(work->shape)) {
        logits = lb_tape_bytes(work->tape, (size_t)(most * v) * sizeof *logits);
    }
    work->offsets = lb_tape_bytes(work->tape, (size_t)(most / step + 2) * sizeof *work->offsets);
    if ((h->grad == NULL && !constant) || work->offsets == NULL ||
        (logits == NULL && !is_plain(work->shape))) {
        return LB_E_NOMEM;
    }
    enum lb_status status = LB_OK;
    for (int64_t row = 0; row < h->rows && status == LB_OK; row += most) {
        int64_t n = smaller(most, h->rows - row), chunks = (n + step - 1) / step;
        for (int64_t c = 0; c <= chunks; c++) {
            work->offsets[c] = (int32_t)smaller(c * step, n);
        }
        product(work, row, n, &(struct lb_ragged){chunks, work->offsets});
        if (logits != NULL) {
            lb_copy_floats(logits, work->z, n * v);
        }
        status = fn(context, row, n, work->z);
        if (status == LB_OK) {
            if (logits != NULL) {
                shape_back(work->shape, logits, work->z, n * v);
            }
            rows_backward(work, bias, row, n, fresh);
        }
    }
    return status;
}

static enum lb_status run_plain(struct work *work, const int32_t *first, int64_t most, lb_head_fn fn,
                                void *context) {
    if (!list_chunks(work, first)) {
        return LB_E_NOMEM;
    }
    enum lb_status status = LB_OK;
    for (int64_t c = 0, rows; c < work->n_chunks && status == LB_OK;) {
        int64_t n = chunks_in_a_row(work->chunks, work->n_chunks, c, most, &rows);
        products_of(work, work->chunks + c, n, rows);
        for (int64_t i = 0; i < n && status == LB_OK; i++) {
            const struct chunk *chunk = &work->chunks[c + i];
            status = fn(context, chunk->row + chunk->skip, chunk->n - chunk->skip,
                        work->z + (work->offsets[i] + chunk->skip) * work->w->rows);
        }
        c += n;
    }
    return status;
}

enum lb_status lb_head_run(struct lb_tape *tape, struct lb_value *h, const struct lb_head *head,
                           const int32_t *first, lb_head_fn fn, void *context) {
    if (h == NULL) {
        return lb_tape_status(tape) != LB_OK ? lb_tape_status(tape) : LB_E_NOMEM;
    }
    bool train = lb_tape_records(tape);
    int64_t v = head->weight->rows, most = smaller(train ? lb_head_run_rows(v) : plain_rows(v), h->rows);
    struct lb_arena_mark mark = lb_tape_mark(tape);
    struct work work;
    enum lb_status status = begin(&work, tape, h, head) && begin_rows(&work, most, NULL) ? LB_OK : LB_E_NOMEM;
    if (status == LB_OK) {
        status = train ? run_train(&work, h, head->bias, most, fn, context)
                       : run_plain(&work, first, most, fn, context);
    }
    lb_tape_release(tape, mark);
    return status;
}

void lb_head_logits(const float *h, int64_t n, int64_t c, const float *w, const float *bias, int64_t v,
                    struct lb_head_shape shape, float *z) {
    struct lb_weight head = {.rows = v, .cols = c, .dtype = LB_F32, .data = w};
    if (bias != NULL) {
        lb_linear_fill(z, n, v, bias);
    }
    lb_gemm_weight(h, n, &head, bias != NULL ? 1 : 0, z, NULL, NULL);
    shape_logits(shape, z, n * v);
}
