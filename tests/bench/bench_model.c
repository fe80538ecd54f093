/* How fast models score and train, beside what the machine can do, measured in the same run.
 *
 * usage: bench_model [10m|1m] [ROUNDS] [--profile]
 * One JSON line a figure: tokens_per_second (median of rounds), gflops (products and causal attention,
 * nothing else: 2 x parameters in products x rows and 2 C T (T + 1) a layer and sequence; three times that in
 * training), fma_gflops (multiply-adds in registers on the same threads) and blas_gflops (the best plain
 * sgemm, on one thread or all, at the model's shapes, as often as the model uses them), the shares of_fma and
 * of_blas, spread (slowest round / fastest), peak_mib. --profile: further rounds follow whose time is shared
 * out among phases and kinds of work (profile.h), a line each.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/model/model.h"
#include "common/nn/gemm.h"
#include "common/nn/head.h"
#include "tests/bench/limits.h"
#include "tests/bench/profile.h"
#include "tests/support/figures.h"
#include "trainer/learn/optimizer.h"
#include "trainer/loss/loss.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define MAX_ROUNDS 64
#define TOP_K 64
#define WORKSPACE_V 8192

struct shape {
    const char *name;
    int64_t layers, width, feed, heads, vocab;
    int64_t score_seqs, score_len, train_seqs, train_len;
};
/* README.md's table has these. */
static const struct shape shapes[] = {
    {"10m", 8, 256, 688, 8, 8192, 8, 512, 16, 256},
    {"1m", 4, 128, 344, 4, 4096, 32, 128, 32, 128},
};

struct bench {
    const struct shape *shape;
    struct lb_model *model;
    struct lb_tape *tape;
    struct lb_optimizer *optimizer;
    int32_t *ids, *offsets;
    int64_t n, v;
    int rounds;
    float scale;
    bool truncated; /* loss with top-k targets beside the labels */
    bool profile;
    int32_t top_ids[TOP_K];
    float top_p[TOP_K];
};

static void add_shape(struct lb_limits *limits, int64_t m, int64_t n, int64_t k, double times, bool trans) {
    limits->shape[limits->n_shapes++] = (struct lb_limit_shape){m, n, k, times, trans};
}

/* The model's products over so many rows; the head's in chunks. */
static struct lb_limits limits_of(const struct bench *b, int64_t rows, bool train, int64_t chunk) {
    const struct shape *s = b->shape;
    const int64_t dims[][3] = {/* out, in, how often */
                               {s->width, s->width, 4 * s->layers},
                               {s->feed, s->width, 2 * s->layers},
                               {s->width, s->feed, s->layers},
                               {s->vocab, s->width, 1}};
    struct lb_limits limits = {0};
    for (int i = 0; i < 4; i++) {
        int64_t m = i == 3 ? chunk : rows;
        double times = (double)dims[i][2] * (double)rows / (double)m;
        add_shape(&limits, m, dims[i][0], dims[i][1], times, true);
        if (train) { /* the input's gradient, and the weight's, whose transpose costs the same */
            add_shape(&limits, m, dims[i][1], dims[i][0], times, false);
            add_shape(&limits, dims[i][0], dims[i][1], m, times, false);
        }
    }
    return limits;
}

static double product_parameters(const struct shape *s) {
    return (double)(s->layers * (4 * s->width * s->width + 3 * s->width * s->feed) + s->vocab * s->width);
}

/* Of a forward: products and causal attention. */
static double forward_flops(const struct shape *s, int64_t seqs, int64_t len) {
    double rows = (double)(seqs * len);
    return 2 * product_parameters(s) * rows +
           (double)(s->layers * seqs) * 2 * (double)s->width * (double)len * (double)(len + 1);
}

static void emit(const struct bench *b, const char *what, double *seconds, double flops,
                 const struct lb_limits *limits) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double s = lb_median(seconds, b->rounds), gflops = flops / s / 1e9, blas = lb_limits_blas_gflops(limits);
    printf(
        "{\"case\": \"%s-%s\", \"tokens_per_second\": %.1f, \"gflops\": %.1f, \"fma_gflops\": %.1f, "
        "\"blas_gflops\": %.1f, \"of_fma\": %.3f, \"of_blas\": %.3f, \"spread\": %.3f, \"peak_mib\": %ld}\n",
        what, b->shape->name, (double)b->n / s, gflops, limits->fma_gflops, blas, gflops / limits->fma_gflops,
        gflops / blas, seconds[b->rounds - 1] / seconds[0], usage.ru_maxrss / 1024);
    fflush(stdout);
}

static void batch(struct bench *b, int64_t seqs, int64_t len) {
    struct lb_rng rng;
    lb_rng_seed(&rng, 3, 0);
    lb_free(b->ids);
    lb_free(b->offsets);
    b->n = seqs * len;
    b->ids = lb_malloc_array((size_t)b->n + 1, sizeof *b->ids);
    b->offsets = lb_malloc_array((size_t)seqs + 1, sizeof *b->offsets);
    for (int64_t i = 0; i <= b->n; i++) {
        b->ids[i] = (int32_t)lb_rng_below(&rng, (uint64_t)b->v);
    }
    for (int64_t s = 0; s <= seqs; s++) {
        b->offsets[s] = (int32_t)(s * len);
    }
}

static struct lb_head_want want(void *context, int64_t row) {
    (void)context;
    (void)row;
    return (struct lb_head_want){.k = TOP_K, .temperature = 1};
}

static void take_row(void *context, int64_t row, const struct lb_head_row *left) {
    (void)context;
    (void)row;
    volatile double keep = left->lse + (double)left->values[TOP_K - 1];
    (void)keep;
}

static void score_once(struct bench *b, const struct lb_input *in) {
    lb_profile_phase("forward");
    lb_tape_begin(b->tape, LB_TAPE_PLAIN, &in->ragged, NULL);
    struct lb_value *h = lb_model_forward(b->model, b->tape, in, NULL, 0, NULL);
    lb_profile_phase("head");
    const struct lb_head_reader reader = {.context = b, .want = want, .row = take_row};
    if (lb_head_read(b->tape, h, lb_model_head(b->model), NULL, &reader) != LB_OK) {
        exit(1);
    }
}

/* As many rounds more as were measured, watched. */
static void profile(struct bench *b, const char *what, void (*once)(struct bench *, const struct lb_input *),
                    const struct lb_input *in) {
    char name[64];
    snprintf(name, sizeof name, "%s-%s", what, b->shape->name);
    if (b->profile) {
        lb_profile_begin();
        for (int r = 0; r < b->rounds; r++) {
            once(b, in);
        }
        lb_profile_end(name);
    }
}

static void score(struct bench *b) {
    double seconds[MAX_ROUNDS];
    batch(b, b->shape->score_seqs, b->shape->score_len);
    struct lb_input in = {.ragged = {b->shape->score_seqs, b->offsets}, .ids = b->ids};
    struct lb_limits limits = limits_of(b, b->n, false, lb_head_chunk(b->v));
    for (int r = -1; r < b->rounds; r++) {
        uint64_t t = lb_now_ns();
        score_once(b, &in);
        seconds[r < 0 ? 0 : r] = (double)(lb_now_ns() - t) / 1e9;
        lb_limits_round(&limits);
    }
    emit(b, "score", seconds, forward_flops(b->shape, b->shape->score_seqs, b->shape->score_len), &limits);
    profile(b, "score", score_once, &in);
}

static enum lb_status losses(void *context, int64_t row, int64_t n, float *z) {
    struct bench *b = context;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float dz[WORKSPACE_V];
        float memory[2 * WORKSPACE_V];
        struct lb_row one;
        const struct lb_loss_args args = {.weight = 1, .temperature = 1};
        struct lb_target t = {.kind = LB_TARGET_TRUNCATED, .temperature = 1, .add_tail = true};
        memset(dz, 0, (size_t)b->v * sizeof *dz);
        lb_row_init(&one, b->v, 1, memory);
        lb_row_begin(&one, z + i * b->v, b->ids[row + i + 1]);
        lb_loss_find("cross_entropy")->row(&one, NULL, &args, b->scale, dz);
        if (b->truncated) {
            t.k = TOP_K;
            t.ids = b->top_ids;
            t.p_at = b->top_p;
            t.tail = 0.1;
            lb_loss_find("kl")->row(&one, &t, &args, b->scale, dz);
        }
        memcpy(z + i * b->v, dz, (size_t)b->v * sizeof *dz);
    }
    return LB_OK;
}

static void train_once(struct bench *b, const struct lb_input *in) {
    double norm;
    lb_profile_phase("forward");
    lb_tape_begin(b->tape, LB_TAPE_TRAIN, &in->ragged, NULL);
    struct lb_value *h = lb_model_forward(b->model, b->tape, in, NULL, 0, NULL);
    lb_profile_phase("head");
    enum lb_status status = lb_head_run(b->tape, h, lb_model_head(b->model), NULL, losses, b);
    lb_profile_phase("backward");
    status = status == LB_OK ? lb_tape_backward(b->tape) : status;
    lb_profile_phase("optimizer");
    if (status != LB_OK || lb_optimizer_step(b->optimizer, 1e-4, 1, &norm, NULL) != LB_OK) {
        exit(1);
    }
}

static void train(struct bench *b, const char *name) {
    double seconds[MAX_ROUNDS];
    struct lb_recipe recipe = {
        .weight_decay = 0.1, .adam_beta1 = 0.9, .adam_beta2 = 0.95, .adam_epsilon = 1e-8, .max_grad_norm = 1};
    struct lb_weight_group group;
    group.weights = lb_model_weights(b->model, &group.n);
    if (lb_optimizer_create(&recipe, &group, 1, &b->optimizer, NULL) != LB_OK) {
        exit(1);
    }
    batch(b, b->shape->train_seqs, b->shape->train_len);
    b->scale = 1.0f / (float)b->n;
    struct lb_input in = {.ragged = {b->shape->train_seqs, b->offsets}, .ids = b->ids};
    struct lb_limits limits = limits_of(b, b->n, true, lb_head_chunk(b->v));
    for (int r = -1; r < b->rounds; r++) {
        uint64_t t = lb_now_ns();
        train_once(b, &in);
        seconds[r < 0 ? 0 : r] = (double)(lb_now_ns() - t) / 1e9;
        lb_limits_round(&limits);
    }
    emit(b, name, seconds, 3 * forward_flops(b->shape, b->shape->train_seqs, b->shape->train_len), &limits);
    profile(b, name, train_once, &in);
    lb_optimizer_destroy(b->optimizer);
}

int main(int argc, char **argv) {
    struct bench b = {.rounds = 5};
    lb_gemm_setup(0, argv);
    if (argc > 1 && strcmp(argv[argc - 1], "--profile") == 0) {
        b.profile = true;
        argc--;
    }
    b.shape = argc > 1 ? NULL : &shapes[0];
    for (size_t i = 0; argc > 1 && i < sizeof shapes / sizeof shapes[0]; i++) {
        b.shape = strcmp(argv[1], shapes[i].name) == 0 ? &shapes[i] : b.shape;
    }
    if (b.shape == NULL) {
        fprintf(stderr, "usage: bench_model [10m|1m] [ROUNDS] [--profile]\n");
        return 2;
    }
    if (argc > 2) {
        b.rounds = atoi(argv[2]) < 1 ? 1 : atoi(argv[2]) > MAX_ROUNDS ? MAX_ROUNDS : atoi(argv[2]);
    }
    const struct shape *s = b.shape;
    struct lb_config config = {.model_type = "llama",
                               .vocab_size = s->vocab,
                               .hidden_size = s->width,
                               .intermediate_size = s->feed,
                               .num_hidden_layers = s->layers,
                               .num_attention_heads = s->heads,
                               .num_key_value_heads = s->heads,
                               .head_dim = s->width / s->heads,
                               .max_position_embeddings = 2048,
                               .norm_eps = 1e-5,
                               .rope_theta = 10000,
                               .tie_word_embeddings = true,
                               .bos_token_id = -1,
                               .eos_token_id = -1,
                               .pad_token_id = -1,
                               .initializer_range = 0.02};
    struct lb_detail detail = {0};
    if (lb_model_create(&config, 1, &b.model, &detail) != LB_OK) {
        fprintf(stderr, "bench_model: %s\n", detail.text);
        return 1;
    }
    b.tape = lb_tape_create((size_t)8 << 30);
    b.v = s->vocab;
    for (int i = 0; i < TOP_K; i++) {
        b.top_ids[i] = i * 7;
        b.top_p[i] = 0.9f / TOP_K;
    }
    printf("{\"kernels\": \"%s\", \"parameters\": %lld}\n", lb_gemm_description(),
           (long long)lb_model_parameters(b.model));
    score(&b);
    train(&b, "train");
    b.truncated = true;
    train(&b, "kd");
    lb_free(b.ids);
    lb_free(b.offsets);
    lb_tape_destroy(b.tape);
    lb_model_destroy(b.model);
    return 0;
}
