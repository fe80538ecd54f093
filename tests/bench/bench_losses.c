/* Nanoseconds a row of each loss on rows of logits: value and gradient, the student's softmax and the target
 * at hand, by kind of target.
 *
 * usage: bench_losses [V K ROWS ROUNDS]      default 49152 64 8 9
 * One thread. Losses take turns in each round; a line a loss and kind with the least and its ratio to kl's.
 */
#include "common/base/clock.h"
#include "common/base/rng.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LOSSES 64
enum { DENSE, TAIL, RENORMALISED, N_KINDS };
static const char *const kind_names[] = {"whole", "list and tail", "list"};

/* One row's student and target. */
struct side {
    float *z, *teacher, *p, *p_at;
    int32_t *ids;
    struct lb_target target[N_KINDS];
};

static void *array(int64_t n, size_t bytes) {
    void *out = calloc((size_t)n, bytes);
    if (out == NULL) {
        abort();
    }
    return out;
}

static void make_side(struct side *s, int64_t v, int64_t k, struct lb_rng *rng) {
    const float *one[1];
    const double weight[1] = {1};
    double in = 0;
    s->z = array(v, sizeof(float));
    s->teacher = array(v, sizeof(float));
    s->p = array(v, sizeof(float));
    s->p_at = array(k, sizeof(float));
    s->ids = array(k, sizeof(int32_t));
    for (int64_t j = 0; j < v; j++) {
        s->teacher[j] = 2.5f * (float)lb_rng_normal(rng);
        s->z[j] = s->teacher[j] + (float)lb_rng_normal(rng);
    }
    one[0] = s->teacher;
    struct lb_target *t = &s->target[DENSE];
    *t = (struct lb_target){.kind = LB_TARGET_DENSE, .temperature = 1, .z = s->teacher, .p = s->p};
    t->neg_entropy = lb_mixture_dense(LB_COMBINE_PROBS, 1, one, weight, 1, v, s->p);
    for (int64_t i = 0; i < k; i++) {
        s->ids[i] = (int32_t)(i * (v / k));
        s->p_at[i] = s->p[s->ids[i]];
        in += (double)s->p_at[i];
    }
    s->target[TAIL] = (struct lb_target){.kind = LB_TARGET_TRUNCATED,
                                         .temperature = 1,
                                         .k = k,
                                         .ids = s->ids,
                                         .p_at = s->p_at,
                                         .tail = 1 - in,
                                         .add_tail = true};
    s->target[RENORMALISED] = s->target[TAIL];
    s->target[RENORMALISED].add_tail = false;
}

/* Nanoseconds a row. */
static double run(const struct lb_loss *loss, int kind, struct side *sides, int64_t rows, struct lb_row *row,
                  float *dz) {
    struct lb_loss_args args = loss->defaults;
    uint64_t took = 0;
    args.weight = args.temperature = 1;
    for (int64_t r = 0; r < rows; r++) {
        lb_row_begin(row, sides[r].z, 7);
        (void)lb_row_softmax(row, 1);
        uint64_t before = lb_now_ns();
        (void)lb_loss_row(loss, row, loss->on == LB_ON_LABEL ? NULL : &sides[r].target[kind], &args, 1e-3f,
                          dz);
        took += lb_now_ns() - before;
    }
    return (double)took / (double)rows;
}

static bool serves(const struct lb_loss *loss, int kind) {
    return loss->on == LB_ON_LABEL
               ? kind == DENSE
               : (loss->kinds & (kind == DENSE ? LB_TARGET_DENSE : LB_TARGET_TRUNCATED)) != 0;
}

int main(int argc, char **argv) {
    int64_t v = 49152, k = 64, rows = 8, rounds = 9, *const numbers[] = {&v, &k, &rows, &rounds};
    static double least[MAX_LOSSES][N_KINDS]; /* 0: not served */
    double of_kl[N_KINDS] = {0};
    struct lb_rng rng;
    for (int i = 0; i + 1 < argc && i < 4; i++) {
        *numbers[i] = strtoll(argv[i + 1], NULL, 10);
    }
    if (v < 2 || k < 1 || k > v || rows < 1 || rounds < 1) {
        fprintf(stderr, "usage: bench_losses [V K ROWS ROUNDS]\n");
        return 2;
    }
    lb_rng_seed(&rng, 1, 0);
    struct side *sides = array(rows, sizeof *sides);
    float *memory = array((int64_t)lb_row_floats(v, 1), sizeof *memory), *dz = array(v, sizeof *dz);
    struct lb_row row;
    lb_row_init(&row, v, 1, memory);
    for (int64_t r = 0; r < rows; r++) {
        make_side(&sides[r], v, k, &rng);
    }
    for (int64_t n = 0; n < rounds; n++) {
        for (size_t l = 0; lb_loss_at(l) != NULL && l < MAX_LOSSES; l++) {
            for (int kind = 0; kind < N_KINDS && lb_loss_at(l)->row != NULL; kind++) {
                double took =
                    serves(lb_loss_at(l), kind) ? run(lb_loss_at(l), kind, sides, rows, &row, dz) : 0;
                least[l][kind] = n == 0 || took < least[l][kind] ? took : least[l][kind];
                of_kl[kind] = strcmp(lb_loss_at(l)->name, "kl") == 0 ? least[l][kind] : of_kl[kind];
            }
        }
    }
    for (int kind = 0; kind < N_KINDS; kind++) {
        for (size_t l = 0; lb_loss_at(l) != NULL && l < MAX_LOSSES; l++) {
            if (least[l][kind] > 0) {
                printf("%-22s %-14s %9.0f ns a row, %.2f of kl\n", lb_loss_at(l)->name, kind_names[kind],
                       least[l][kind], least[l][kind] / of_kl[kind]);
            }
        }
    }
    return 0;
}
