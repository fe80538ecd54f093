/* GGUF files that Limbeck did not write: opened, each gives the logits that llama.cpp and transformers give;
 * written again, it holds the same bytes under the same names. A reader and a writer that are wrong in the
 * same way agree with each other, and with neither of these. The files are made by make_gguf.py. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/formats/gguf.h"
#include "common/formats/safetensors.h"
#include "common/model/model.h"
#include "common/nn/head.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 1e-4 /* of the largest logit */

static char folder[] = "/tmp/limbeck-test-XXXXXX";

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

/* How far the logits are from what each peer gave, relative to the largest. */
struct peers {
    const float *logits[2]; /* [T, V] */
    int64_t v;
    double apart[2], largest;
};

static enum lb_status compare(void *context, int64_t row, int64_t n, float *z) {
    struct peers *peers = context;
    for (int64_t i = 0; i < n * peers->v; i++) {
        for (int p = 0; p < 2; p++) {
            double want = peers->logits[p][row * peers->v + i];
            peers->apart[p] = fmax(peers->apart[p], fabs(z[i] - want));
            peers->largest = fmax(peers->largest, fabs(want));
        }
    }
    return LB_OK;
}

static void check_logits(const struct lb_model *model, const char *name, const char *path) {
    struct lb_safetensors *expected = NULL;
    struct lb_detail detail = {0};
    must(lb_safetensors_open(path, &expected, &detail), &detail);
    const struct lb_tensor *ids = lb_safetensors_find(expected, "ids"),
                           *llama = lb_safetensors_find(expected, "llama_cpp"),
                           *torch = lb_safetensors_find(expected, "transformers");
    assert_true(ids != NULL && llama != NULL && torch != NULL);
    int32_t offsets[] = {0, (int32_t)ids->dim[0]};
    struct lb_input in = {.ragged = {1, offsets}, .ids = ids->data};
    struct peers peers = {.logits = {llama->data, torch->data}, .v = llama->dim[1]};
    struct lb_tape *tape = lb_tape_create((size_t)1 << 26);
    assert_non_null(tape);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    assert_non_null(h);
    must(lb_head_run(tape, h, lb_model_head(model), NULL, compare, &peers), &detail);
    printf("%s: %.1e from llama.cpp, %.1e from transformers\n", name, peers.apart[0] / peers.largest,
           peers.apart[1] / peers.largest);
    assert_true(peers.apart[0] < TOLERANCE * peers.largest && peers.apart[1] < TOLERANCE * peers.largest);
    lb_tape_destroy(tape);
    lb_safetensors_destroy(expected);
}

/* What Limbeck writes of the model holds what the peer's file holds. */
static void check_written(const struct lb_model *model, const char *name, const char *theirs_path) {
    struct lb_gguf *theirs = NULL, *ours = NULL;
    struct lb_detail detail = {0};
    char path[96];
    snprintf(path, sizeof path, "%s/%s.gguf", folder, name);
    must(lb_model_save_gguf(model, path, LB_F32, NULL, NULL, &detail), &detail);
    must(lb_gguf_open(path, &ours, &detail), &detail);
    must(lb_gguf_open(theirs_path, &theirs, &detail), &detail);
    assert_string_equal(lb_gguf_string(ours, "general.architecture"),
                        lb_gguf_string(theirs, "general.architecture"));
    assert_int_equal(lb_gguf_count(ours), lb_gguf_count(theirs));
    for (size_t i = 0; i < lb_gguf_count(theirs); i++) {
        const struct lb_tensor *want = lb_gguf_get(theirs, i), *have = lb_gguf_find(ours, want->name);
        if (have == NULL || have->dtype != want->dtype || have->bytes != want->bytes ||
            memcmp(have->data, want->data, want->bytes) != 0) {
            fail_msg("%s: tensor %s is written unlike the peer's", name, want->name);
        }
        assert_int_equal(have->n_dims, want->n_dims);
        assert_memory_equal(have->dim, want->dim, (size_t)want->n_dims * sizeof *want->dim);
    }
    lb_gguf_destroy(theirs);
    lb_gguf_destroy(ours);
}

static void check_family(void **state) {
    const char *name = *state;
    char path[512];
    struct lb_model *model = NULL;
    struct lb_detail detail = {0};
    snprintf(path, sizeof path, "%s/tests/golden/gguf/%s.gguf", getenv("LB_SOURCE_ROOT"), name);
    must(lb_model_open(path, false, &model, &detail), &detail);
    check_written(model, name, path);
    snprintf(path, sizeof path, "%s/tests/golden/gguf/%s.safetensors", getenv("LB_SOURCE_ROOT"), name);
    check_logits(model, name, path);
    lb_model_destroy(model);
}

int main(void) {
#define FAMILY(name)                                                                                         \
    { name, check_family, NULL, NULL, (void *)(uintptr_t)name }
    const struct CMUnitTest tests[] = {
        FAMILY("llama"), FAMILY("llama_bias"), FAMILY("mistral"), FAMILY("qwen2"), FAMILY("qwen2_untied"),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
