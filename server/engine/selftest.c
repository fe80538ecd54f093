#include "server/engine/selftest.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/nn/head.h"

#include <string.h>

/* Lengths around the places where kernels change: single rows, below and above 4, odd, a few register tiles.
 */
static const int lengths[] = {1, 2, 3, 5, 8, 13, 31, 64};
#define N_SEQS ((int)(sizeof lengths / sizeof *lengths))
#define MAX_ROWS (1 + 2 + 3 + 5 + 8 + 13 + 31 + 64)

struct test {
    const struct lb_model *model;
    struct lb_tape *tape;
    bool decoder;
    int64_t input_size;
    int n_rows[N_SEQS];      /* of each sequence */
    int32_t ids[N_SEQS][64]; /* decoders */
    float *features;         /* classifiers: [N_SEQS, input_size] */
    /* what one run reads */
    int32_t offsets[N_SEQS + 1];
    int32_t run_ids[MAX_ROWS];
    float *run_features;
    struct lb_sha256 *hash[N_SEQS]; /* by place in the run */
};

static enum lb_status hash_logits(void *context, int64_t row, int64_t n, float *z) {
    struct test *test = context;
    int64_t v = lb_model_head(test->model)->rows;
    int s = 0;
    while (row >= test->offsets[s + 1]) {
        s++;
    }
    lb_sha256_update(test->hash[s], z, (size_t)(n * v) * sizeof *z);
    return LB_OK;
}

/* Runs the sequences order[0..n-1] as one batch; out[order[i]] becomes the digest of sequence order[i]'s
 * numbers. */
static enum lb_status run(struct test *test, const int *order, int n, uint8_t out[N_SEQS][LB_SHA256_BYTES]) {
    for (int i = 0; i < n; i++) {
        int s = order[i];
        test->offsets[i + 1] = test->offsets[i] + test->n_rows[s];
        if (test->decoder) {
            memcpy(test->run_ids + test->offsets[i], test->ids[s],
                   (size_t)test->n_rows[s] * sizeof *test->run_ids);
        } else {
            memcpy(test->run_features + i * test->input_size, test->features + s * test->input_size,
                   (size_t)test->input_size * sizeof *test->features);
        }
        test->hash[i] = lb_sha256_create();
    }
    struct lb_input input = {
        {n, test->offsets}, test->decoder ? test->run_ids : NULL, test->decoder ? NULL : test->run_features};
    lb_tape_begin(test->tape, LB_TAPE_PLAIN, &input.ragged, NULL);
    struct lb_value *h = lb_model_forward(test->model, test->tape, &input, NULL, 0, NULL);
    enum lb_status status = h ? LB_OK : LB_E_NOMEM;
    for (int i = 0; i < n; i++) {
        if (!test->hash[i]) {
            status = LB_E_NOMEM;
        } else if (h) {
            lb_sha256_update(test->hash[i], h->data + test->offsets[i] * h->cols,
                             (size_t)(test->n_rows[order[i]] * h->cols) * sizeof *h->data);
        }
    }
    if (status == LB_OK) {
        status = lb_head_run(test->tape, h, lb_model_head(test->model), lb_model_head_bias(test->model), NULL,
                             hash_logits, test);
    }
    for (int i = 0; i < n; i++) {
        lb_sha256_final(test->hash[i], out[order[i]]);
    }
    return status;
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
    if (test->decoder) {
        return true;
    }
    size_t n = (size_t)N_SEQS * (size_t)test->input_size;
    test->features = lb_malloc_array(n, sizeof *test->features);
    test->run_features = lb_malloc_array(n, sizeof *test->run_features);
    for (size_t i = 0; test->features && i < n; i++) {
        test->features[i] = lb_rng_float(&rng);
    }
    return test->features && test->run_features;
}

enum lb_status lb_self_test(const struct lb_model *model, bool decoder, struct lb_tape *tape,
                            bool *out_invariant, struct lb_detail *detail) {
    struct test *test = lb_calloc(1, sizeof *test);
    uint8_t alone[N_SEQS][LB_SHA256_BYTES], together[N_SEQS][LB_SHA256_BYTES],
        reversed[N_SEQS][LB_SHA256_BYTES];
    int forwards[N_SEQS], backwards[N_SEQS];
    enum lb_status status = LB_E_NOMEM;
    if (!test) {
        goto out;
    }
    test->model = model;
    test->tape = tape;
    test->decoder = decoder;
    if (!prepare(test)) {
        goto out;
    }
    status = LB_OK;
    for (int s = 0; s < N_SEQS && status == LB_OK; s++) {
        forwards[s] = s;
        backwards[s] = N_SEQS - 1 - s;
        status = run(test, &s, 1, alone);
    }
    if (status == LB_OK) {
        status = run(test, forwards, N_SEQS, together);
    }
    if (status == LB_OK) {
        status = run(test, backwards, N_SEQS, reversed);
    }
    if (status == LB_OK) {
        *out_invariant =
            memcmp(alone, together, sizeof alone) == 0 && memcmp(alone, reversed, sizeof alone) == 0;
    }
out:
    if (test) {
        lb_free(test->features);
        lb_free(test->run_features);
        lb_free(test);
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "self-test: %s", lb_status_name(status));
}
