#include "common/nn/sample.h"

#include "common/nn/simd.h"

#include <math.h>
#include <stdbool.h>

#define NOBODY (-1) /* the id of a draw that is to be made anew */

void lb_sampler_begin(struct lb_sampler *s, const struct lb_draw *draw, struct lb_drawn *drawn) {
    *s = (struct lb_sampler){.lse = LB_LSE_EMPTY, .drawn = drawn};
    lb_rng_seed(&s->rng, draw->seed, draw->stream);
    for (int64_t i = 0; i < draw->n; i++) {
        drawn[i].id = NOBODY;
    }
}

/* A piece whose classes are walked through in order. */
struct walk {
    const float *z;
    int64_t n;
    float max;
    float inverse;
    const double *marks;
    double mass;           /* the last mark */
    int64_t block;         /* whose terms are held */
    int64_t at;            /* the class that the sum has reached, counted within the block */
    double sum;            /* of all classes before it */
    float e[LB_MARK_STEP]; /* terms of the block */
};

static int64_t block_length(const struct walk *w) {
    int64_t left = w->n - w->block * LB_MARK_STEP;
    return left < LB_MARK_STEP ? left : LB_MARK_STEP;
}

static void enter(struct walk *w, int64_t block) {
    w->block = block;
    w->at = 0;
    w->sum = block > 0 ? w->marks[block - 1] : 0;
    const float *z = w->z + block * LB_MARK_STEP;
    int64_t n = block_length(w), j = 0;
    for (; j + LB_LANES <= n; j += LB_LANES) {
        lb_vstore(w->e + j, lb_vexp((lb_vload(z + j) - w->max) * w->inverse));
    }
    for (; j < n; j++) {
        w->e[j] = lb_expf((z[j] - w->max) * w->inverse);
    }
}

/* The class in whose share of the piece target lies; targets come rising. */
static int64_t walk_to(struct walk *w, double target) {
    int64_t blocks = (w->n + LB_MARK_STEP - 1) / LB_MARK_STEP, block = w->block < 0 ? 0 : w->block;
    while (block + 1 < blocks && w->marks[block] <= target && w->marks[block] < w->mass) {
        block++;
    }
    if (block != w->block) {
        enter(w, block);
    }
    int64_t n = block_length(w);
    while (w->at + 1 < n && w->sum + (double)w->e[w->at] <= target) {
        w->sum += (double)w->e[w->at++];
    }
    int64_t at = w->at; /* what rounding left beyond the last term of any size is that one's */
    while (at > 0 && w->e[at] == 0) {
        at--;
    }
    return block * LB_MARK_STEP + at;
}

/* Makes the draws anew that are nobody's, of which there are k, from the piece: k uniform numbers in rising
 * order, as sums of exponential ones over the sum of k + 1 of them, are where they lie. */
static void draw_from(struct lb_sampler *s, struct walk *w, int64_t n_draws, int64_t k, int64_t first) {
    struct lb_rng again = s->rng;
    double whole = 0, part = 0;
    for (int64_t i = 0; i <= k; i++) {
        whole -= log(1 - lb_rng_double(&s->rng));
    }
    for (int64_t i = 0; i < n_draws; i++) {
        if (s->drawn[i].id == NOBODY) {
            part -= log(1 - lb_rng_double(&again));
            int64_t j = walk_to(w, part / whole * w->mass);
            s->drawn[i] = (struct lb_drawn){(int32_t)(first + j), 1, w->z[j]};
        }
    }
}

void lb_sampler_add(struct lb_sampler *s, const struct lb_draw *draw, const float *z, int64_t n,
                    int64_t first, const struct lb_lse *lse, const double *marks) {
    double own[LB_MARK_ROOM];
    if (marks == NULL) {
        lb_lse_add_marks(&s->lse, z, n, draw->temperature, own);
        marks = own;
    } else {
        s->lse = *lse;
    }
    double mass = marks[(n - 1) / LB_MARK_STEP];
    if (!isfinite(s->lse.max) || !(s->lse.sum > 0) || !(mass > 0)) {
        return;
    }
    double share = mass / s->lse.sum;
    int64_t k = 0;
    for (int64_t i = 0; i < draw->n; i++) {
        if (s->drawn[i].id == NOBODY || lb_rng_double(&s->rng) < share) {
            s->drawn[i].id = NOBODY;
            k++;
        }
    }
    if (k > 0) {
        struct walk walk = {.z = z,
                            .n = n,
                            .max = (float)s->lse.max,
                            .inverse = (float)(1 / draw->temperature),
                            .marks = marks,
                            .mass = mass,
                            .block = -1};
        draw_from(s, &walk, draw->n, k, first);
    }
}

/* Drawn element i sinks into the heap behind it, whose root has the highest id. */
static void sink(struct lb_drawn *drawn, int64_t n, int64_t i) {
    struct lb_drawn moved = drawn[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && drawn[child].id < drawn[child + 1].id;
        if (moved.id >= drawn[child].id) {
            break;
        }
        drawn[i] = drawn[child];
    }
    drawn[i] = moved;
}

static void sort_by_id(struct lb_drawn *drawn, int64_t n) {
    for (int64_t i = n / 2; i-- > 0;) {
        sink(drawn, n, i);
    }
    for (int64_t left = n - 1; left > 0; left--) {
        struct lb_drawn last = drawn[left];
        drawn[left] = drawn[0];
        drawn[0] = last;
        sink(drawn, left, 0);
    }
}

int64_t lb_sampler_finish(struct lb_sampler *s, const struct lb_draw *draw) {
    struct lb_drawn *drawn = s->drawn;
    bool rising = true;
    if (draw->n == 0 || !isfinite(s->lse.max) || !(s->lse.sum > 0)) {
        return 0;
    }
    for (int64_t i = 1; i < draw->n; i++) {
        rising = rising && drawn[i - 1].id <= drawn[i].id;
    }
    if (!rising) { /* from several pieces */
        sort_by_id(drawn, draw->n);
    }
    int64_t n = 0;
    for (int64_t i = 1; i < draw->n; i++) {
        if (drawn[i].id == drawn[n].id) {
            drawn[n].count++;
        } else {
            drawn[++n] = drawn[i];
        }
    }
    return n + 1;
}

double lb_sampler_logsumexp(const struct lb_sampler *s, const struct lb_draw *draw) {
    return lb_lse_value(&s->lse, draw->temperature);
}
