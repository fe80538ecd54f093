/* GGUF files that Limbeck did not write: opened, each gives the logits that llama.cpp and transformers give;
 * written again, it holds the same bytes under the same names. A reader and a writer that are wrong in the
 * same way agree with each other, and with neither of these. The files are made by make_gguf.py. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/formats/gguf.h"
#include "common/formats/safetensors.h"
#include "common/model/model.h"
#include "common/nn/head.h"
#include "common/text/tokenizer.h"
#include "tests/support/scratch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 1e-4 /* of the largest logit */

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

/* What the model gives of expected's ids, held against the peers: logits, or the sentence's vector. */
static struct peers apart(const struct lb_model *model, const char *name, const char *path, bool sentence) {
    struct lb_safetensors *expected = NULL;
    struct lb_detail detail = {0};
    must(lb_safetensors_open(path, &expected, &detail), &detail);
    const struct lb_tensor *ids = lb_safetensors_find(expected, "ids"),
                           *llama = lb_safetensors_find(expected, "llama_cpp"),
                           *torch = lb_safetensors_find(expected, "transformers");
    assert_true(ids != NULL && llama != NULL && torch != NULL);
    int32_t offsets[] = {0, (int32_t)ids->dim[0]};
    struct lb_input in = {.ragged = {1, offsets}, .ids = ids->data};
    struct peers peers = {.logits = {llama->data, torch->data}, .v = torch->dim[1]};
    struct lb_tape *tape = lb_tape_create((size_t)1 << 26);
    assert_non_null(tape);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    assert_non_null(h);
    must(sentence ? compare(&peers, 0, 1, lb_model_pool(model, tape, h)->data)
                  : lb_head_run(tape, h, lb_model_head(model), NULL, compare, &peers),
         &detail);
    printf("%s: %.1e from llama.cpp, %.1e from transformers\n", name, peers.apart[0] / peers.largest,
           peers.apart[1] / peers.largest);
    lb_tape_destroy(tape);
    lb_safetensors_destroy(expected);
    return peers;
}

static void check_logits(const struct lb_model *model, const char *name, const char *path) {
    struct peers peers = apart(model, name, path, false);
    assert_true(peers.apart[0] < TOLERANCE * peers.largest && peers.apart[1] < TOLERANCE * peers.largest);
}

/* A sentence's vector: llama.cpp looks gelu up in a table of FP16, in its tanh form. */
static void check_sentence(const struct lb_model *model, const char *path) {
    struct peers peers = apart(model, "bert", path, true);
    assert_true(peers.apart[0] < 5 * TOLERANCE * peers.largest && peers.apart[1] < 1e-5 * peers.largest);
}

/* What Limbeck writes of the model holds what the peer's file holds. */
static void check_written(const struct lb_model *model, const char *name, const char *theirs_path) {
    struct lb_gguf *theirs = NULL, *ours = NULL;
    struct lb_detail detail = {0};
    char path[96];
    snprintf(path, sizeof path, "%s/%s.gguf", lb_scratch, name);
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

/* The vocabulary of the file, too, cuts the text as the peers do. */
static void check_encoder(void **state) {
    (void)state;
    char path[512];
    struct lb_model *model = NULL, *again = NULL;
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_detail detail = {0};
    snprintf(path, sizeof path, "%s/tests/golden/gguf/bert.gguf", getenv("LB_SOURCE_ROOT"));
    must(lb_model_open(path, false, &model, &detail), &detail);
    assert_int_equal(lb_model_sentence(model)->kind, LB_POOL_MEAN);
    assert_true(lb_model_sentence(model)->normalize);
    assert_int_equal(lb_model_notes(model)->n, 1); /* that this is not said */
    assert_int_equal(lb_model_config(model)->type_vocab_size, 2);
    check_written(model, "bert", path);
    must(lb_tokenizer_open(path, &tokenizer, &detail), &detail);
    snprintf(path, sizeof path, "%s/again.gguf", lb_scratch);
    must(lb_model_save_gguf(model, path, LB_Q8_0, tokenizer, NULL, &detail), &detail);
    must(lb_model_open(path, false, &again, &detail), &detail);
    assert_int_equal(lb_model_notes(again)->n, 0); /* ours say it */
    assert_memory_equal(lb_model_sentence(again), lb_model_sentence(model), sizeof(struct lb_sentence));
    assert_int_equal(lb_model_find(again, "bert.embeddings.position_embeddings.weight")->dtype, LB_F32);
    snprintf(path, sizeof path, "%s/tests/golden/gguf/bert.safetensors", getenv("LB_SOURCE_ROOT"));
    check_sentence(model, path);
    struct lb_safetensors *expected = NULL;
    struct lb_ids ids = {0};
    static const char text[] = "Unaffable: one of three, or a longer text"; /* tests/interop/encoders.py */
    must(lb_safetensors_open(path, &expected, &detail), &detail);
    must(lb_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &detail), &detail);
    assert_int_equal(ids.len, lb_safetensors_find(expected, "ids")->dim[0]);
    assert_memory_equal(ids.data, lb_safetensors_find(expected, "ids")->data, ids.len * sizeof *ids.data);
    lb_free(ids.data);
    lb_safetensors_destroy(expected);
    lb_tokenizer_destroy(tokenizer);
    lb_model_destroy(again);
    lb_model_destroy(model);
}

int main(void) {
#define FAMILY(name)                                                                                         \
    { name, check_family, NULL, NULL, (void *)(uintptr_t)name }
    const struct CMUnitTest tests[] = {
        FAMILY("llama"), FAMILY("llama_bias"),   FAMILY("mistral"),
        FAMILY("qwen2"), FAMILY("qwen2_untied"), cmocka_unit_test(check_encoder),
    };
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
