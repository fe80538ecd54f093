#include "server/engine/selftest.h"

#include "common/base/arena.h"
#include "common/base/mem.h"
#include "common/base/memo.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/model/batch.h"
#include "common/nn/compute.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "common/nn/tape.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lengths around the places where kernels change: single rows, below and above 4, odd, a few register tiles;
 * the last is longer than a panel of a product, and than blocks of attention and of the head. */
static const int lengths[] = {1, 2, 3, 5, 8, 13, 31, 64, 200};
#define N_SEQS ((int)(sizeof lengths / sizeof *lengths))
#define MAX_LENGTH 200
#define MAX_ROWS (1 + 2 + 3 + 5 + 8 + 13 + 31 + 64 + MAX_LENGTH)
#define TAPE_BYTES ((size_t)8 << 30)
/* Testing a model of less takes no longer than looking up what was kept of it. */
#define WORTH_KEEPING ((size_t)32 << 20)
#define ARENA_BYTES ((size_t)1 << 30) /* features, and the batch */

typedef uint8_t digests[N_SEQS][LB_SHA256_BYTES];

struct test {
    const struct lb_model *model;
    bool decoder;
    struct lb_arena arena;
    int64_t input_size;              /* classifiers; else 0 */
    int n_rows[N_SEQS];              /* of each sequence */
    int32_t ids[N_SEQS][MAX_LENGTH]; /* decoders */
    float *features;                 /* classifiers: [N_SEQS, input_size] */
    /* one run: sequences order[0..n-1] as one batch; out[order[i]] becomes the digest of their numbers */
    int order[N_SEQS], n;
    uint8_t (*out)[LB_SHA256_BYTES];
    enum lb_status status;
    bool finite; /* all numbers of all runs */
    struct lb_model_batch batch;
    const struct lb_ragged *of_head; /* the rows that the head multiplies */
    struct lb_sha256 *hash[N_SEQS];  /* by place in the run */
    /* the tape of all runs: of a forward, and with the head */
    struct {
        int rows;
        size_t forward_bytes, bytes;
    } runs[N_SEQS + 2];
    int n_runs;
    struct lb_lse lse[MAX_ROWS]; /* of a run's rows */
};

/* Logits as they come, and when a row is complete its log-sum-exp. */
static void hash_logits(void *context, int64_t row, int64_t n, int64_t id, int64_t n_ids, const float *z,
                        int64_t ldz) {
    struct test *test = context;
    int s = 0;
    while (row >= test->of_head->offsets[s + 1]) {
        s++;
    }
    for (int64_t i = 0; i < n; i++) {
        test->lse[row + i] = id == 0 ? LB_LSE_EMPTY : test->lse[row + i];
        lb_sha256_update(test->hash[s], z + i * ldz, (size_t)n_ids * sizeof *z);
        lb_lse_add(&test->lse[row + i], z + i * ldz, n_ids, 1);
    }
    for (int64_t i = 0; id + n_ids == lb_model_head(test->model)->weight->rows && i < n; i++) {
        double lse = lb_lse_value(&test->lse[row + i], 1);
        lb_sha256_update(test->hash[s], &lse, sizeof lse);
        test->finite &= isfinite(lse) != 0;
    }
}

static void fill_run(struct test *test) {
    lb_model_batch_clear(&test->batch);
    for (int i = 0; i < test->n; i++) {
        int s = test->order[i];
        if (test->decoder) {
            lb_model_batch_add_ids(&test->batch, test->ids[s], NULL, test->n_rows[s]);
        } else {
            lb_model_batch_add_features(&test->batch, test->features + s * test->input_size, -1);
        }
        test->hash[i] = lb_sha256_create();
    }
}

/* On the worker. A tape of its own, so that its memory is this run's. */
static void run(void *argument) {
    struct test *test = argument;
    struct lb_tape *tape = lb_tape_create(TAPE_BYTES);
    fill_run(test);
    struct lb_input input = lb_model_batch_input(&test->batch);
    struct lb_value *h = NULL;
    if (tape) {
        lb_tape_begin(tape, LB_TAPE_PLAIN, &input.ragged, NULL);
        h = lb_model_forward(test->model, tape, &input, NULL, 0, NULL);
        test->of_head = lb_tape_ragged(tape);
    }
    size_t forward_bytes = tape ? lb_tape_high(tape) : 0;
    test->status = h ? LB_OK : LB_E_NOMEM;
    for (int i = 0; i < test->n; i++) {
        if (!test->hash[i]) {
            test->status = LB_E_NOMEM;
        } else if (h) {
            const int32_t *rows = &test->of_head->offsets[i];
            lb_sha256_update(test->hash[i], h->data + rows[0] * h->cols,
                             (size_t)((rows[1] - rows[0]) * h->cols) * sizeof *h->data);
        }
    }
    if (test->status == LB_OK && !lb_model_head(test->model)->weight) {
        test->finite &= lb_first_nonfinite(h->data, h->rows * h->cols) < 0;
    } else if (test->status == LB_OK) {
        const struct lb_head_reader reader = {.context = test, .logits = hash_logits};
        test->status = lb_head_read(tape, h, lb_model_head(test->model), NULL, &reader);
    }
    for (int i = 0; i < test->n; i++) {
        lb_sha256_final(test->hash[i], test->out[test->order[i]]);
    }
    if (test->status == LB_OK) {
        test->runs[test->n_runs].rows = input.ragged.offsets[test->n];
        test->runs[test->n_runs].forward_bytes = forward_bytes;
        test->runs[test->n_runs++].bytes = lb_tape_high(tape);
    }
    lb_tape_destroy(tape);
}

static bool prepare(struct test *test) {
    const struct lb_config *config = lb_model_config(test->model);
    struct lb_rng rng;
    lb_rng_seed(&rng, 20240607, 0);
    test->input_size = config->input_size;
    for (int s = 0; s < N_SEQS; s++) {
        int64_t n = test->decoder ? lengths[s] : 1, most = config->max_position_embeddings;
        test->n_rows[s] = (int)(most > 0 && n > most ? most : n);
        for (int t = 0; test->decoder && t < test->n_rows[s]; t++) {
            test->ids[s][t] = (int32_t)lb_rng_below(&rng, (uint64_t)config->vocab_size);
        }
    }
    size_t n = (size_t)N_SEQS * (size_t)test->input_size;
    test->features = lb_arena_array(&test->arena, n, sizeof *test->features);
    for (size_t i = 0; test->features && i < n; i++) {
        test->features[i] = lb_rng_float(&rng);
    }
    return test->features && lb_model_batch_init(&test->batch, &test->arena, N_SEQS,
                                                 test->decoder ? MAX_ROWS : N_SEQS, test->input_size, false);
}

/* The three ways: each alone, all in the opposite order, all in order; the last only of models where that is
 * soon done: a place in a batch that matters is seen in either order. */
static enum lb_status run_all(struct test *test, lb_on_worker_fn on_worker, void *context, digests alone,
                              digests together, digests reversed) {
    bool small = lb_model_bytes(test->model) < WORTH_KEEPING;
    for (int i = 0; i < N_SEQS + (small ? 2 : 1); i++) {
        test->n = i < N_SEQS ? 1 : N_SEQS;
        test->out = i < N_SEQS ? alone : i == N_SEQS ? reversed : together;
        for (int k = 0; k < test->n; k++) {
            test->order[k] = i < N_SEQS ? i : i == N_SEQS ? N_SEQS - 1 - k : k;
        }
        if (!on_worker(context, run, test)) {
            return LB_E_CANCELLED;
        }
        if (test->status != LB_OK) {
            return test->status;
        }
    }
    return LB_OK;
}

/* A row's tape from the two largest forwards (mixtures of experts have room for some rows however few there
 * are); the base is what any run needed beside its rows. */
static void conclude(const struct test *test, struct lb_self_test_result *out) {
    int most = 0, next = -1;
    for (int i = 0; i < test->n_runs; i++) {
        most = test->runs[i].rows > test->runs[most].rows ? i : most;
    }
    for (int i = 0; i < test->n_runs; i++) {
        bool less = test->runs[i].rows < test->runs[most].rows;
        next = less && (next < 0 || test->runs[i].rows > test->runs[next].rows) ? i : next;
    }
    size_t bytes = test->runs[most].forward_bytes - (next < 0 ? 0 : test->runs[next].forward_bytes);
    out->row_bytes = bytes / (size_t)(test->runs[most].rows - (next < 0 ? 0 : test->runs[next].rows)) + 1;
    out->base_bytes = 0;
    for (int i = 0; i < test->n_runs; i++) {
        size_t of_rows = out->row_bytes * (size_t)test->runs[i].rows, all = test->runs[i].bytes;
        out->base_bytes = all > of_rows + out->base_bytes ? all - of_rows : out->base_bytes;
    }
}

/* All computation is in FP32, whatever weights are stored as. */
static enum lb_status digest_compute(const digests alone, char out[LB_SHA256_HEX]) {
    static const char what[] = "limbeck-compute-1\nfp32";
    uint8_t digest[LB_SHA256_BYTES];
    struct lb_sha256 *hash = lb_sha256_create();
    if (!hash) {
        return LB_E_NOMEM;
    }
    lb_sha256_update(hash, what, sizeof what);
    lb_sha256_update(hash, alone, sizeof(digests));
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, out);
    return LB_OK;
}

/* ---- what is kept of it ---- */

#define KIND "selftest"
#define MAX_KEPT 160

/* Names the model and all that decides what the test finds; false when nothing is to be kept. */
static bool name_test(const struct lb_model *model, char key[LB_SHA256_HEX]) {
    static const char what[] = "limbeck self-test 2 of " LB_VERSION;
    uint8_t digest[LB_SHA256_BYTES];
    if (lb_model_bytes(model) < WORTH_KEEPING) {
        return false;
    }
    struct lb_sha256 *hash = lb_sha256_create();
    bool named = hash != NULL;
    lb_sha256_update(hash, what, sizeof what);
    lb_sha256_update(hash, lb_model_fingerprint(model), strlen(lb_model_fingerprint(model)));
    named = named && lb_compute_named(hash);
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, key);
    return named;
}

static bool recall(const char key[LB_SHA256_HEX], struct lb_self_test_result *out) {
    char text[MAX_KEPT], invariant;
    struct lb_self_test_result result = {.kept = true};
    int n = 0;
    if (!lb_memo_get(KIND, key, text, sizeof text) ||
        sscanf(text, "invariant %c compute %64[0-9a-f] bytes %n", &invariant, result.compute, &n) != 2 ||
        n == 0 || strlen(result.compute) != LB_SHA256_HEX - 1 || (invariant != 'y' && invariant != 'n')) {
        return false;
    }
    char *end = text + n;
    result.base_bytes = strtoull(end, &end, 10);
    result.row_bytes = strtoull(end, &end, 10);
    if (result.row_bytes == 0 || strcmp(end, "\n") != 0) {
        return false;
    }
    result.invariant = invariant == 'y';
    *out = result;
    return true;
}

static void keep(const char key[LB_SHA256_HEX], const struct lb_self_test_result *result) {
    char text[MAX_KEPT];
    snprintf(text, sizeof text, "invariant %c compute %s bytes %zu %zu\n", result->invariant ? 'y' : 'n',
             result->compute, result->base_bytes, result->row_bytes);
    lb_memo_put(KIND, key, text);
}

static enum lb_status test_now(const struct lb_model *model, bool decoder, lb_on_worker_fn on_worker,
                               void *context, struct lb_self_test_result *out, struct lb_detail *detail) {
    struct test *test = lb_calloc(1, sizeof *test);
    digests alone, together, reversed;
    enum lb_status status = LB_E_NOMEM;
    if (!test) {
        goto out;
    }
    test->model = model;
    test->decoder = decoder;
    test->finite = true;
    lb_arena_init(&test->arena, ARENA_BYTES);
    if (!prepare(test)) {
        goto out;
    }
    status = run_all(test, on_worker, context, alone, together, reversed);
    if (status == LB_OK && !test->finite) {
        status = lb_fail(detail, LB_E_FORMAT,
                         "self-test: this model answers with NaN or infinity; its weights are damaged");
    }
    if (status == LB_OK) {
        out->invariant =
            (lb_model_bytes(model) >= WORTH_KEEPING || memcmp(alone, together, sizeof alone) == 0) &&
            memcmp(alone, reversed, sizeof alone) == 0;
        conclude(test, out);
        status = digest_compute(alone, out->compute);
    }
out:
    if (test) {
        lb_arena_finish(&test->arena);
        lb_free(test);
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "self-test: %s", lb_status_name(status));
}

enum lb_status lb_self_test(const struct lb_model *model, bool decoder, lb_on_worker_fn on_worker,
                            void *context, struct lb_self_test_result *out, struct lb_detail *detail) {
    char key[LB_SHA256_HEX];
    bool kept = name_test(model, key);
    if (kept && recall(key, out)) {
        return LB_OK;
    }
    enum lb_status status = test_now(model, decoder, on_worker, context, out, detail);
    if (status == LB_OK) {
        out->kept = false;
    }
    if (status == LB_OK && kept) {
        keep(key, out);
    }
    return status;
}
