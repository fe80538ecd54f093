/* Vocabulary maps: what is taken and what is refused, which ones go; and that answers under a map are those
 * without it, picked, whatever the company and the way of the head. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/nn/gemm.h"
#include "common/nn/head.h"
#include "server/api/submit.h"
#include "server/engine/stream.h"
#include "server/models/repository.h"
#include "tests/support/slices.h"
#include "tests/support/tiny_hosted.h"
#include "tests/unit/server_question.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define V 97
#define LARGE_V (LB_HEAD_WIDE_V + 5000)
#define B 2
#define T 9
#define SCORED 3
#define TAPE_BYTES ((size_t)1 << 28)

static char folder[] = "/tmp/limbeck-maps-XXXXXX";
static struct lb_hosted *llama, *large, *mlp, *bert;
static struct lb_engine *engine;
static int32_t ids[B * T], scores[B * T * SCORED];
static const int32_t lengths[B] = {T, 6};

static void name_of(const int32_t *kept, size_t n, char out[LB_SHA256_HEX]) {
    uint8_t hash[LB_SHA256_BYTES];
    lb_sha256(kept, n * sizeof *kept, hash);
    lb_hex(hash, sizeof hash, out);
}

/* ---- the store ---- */

static void refused_map(const void *bytes, size_t len, const char *digest, enum lb_status status,
                        const char *says) {
    struct lb_vocab_maps maps;
    struct lb_detail detail = {0};
    lb_vocab_maps_init(&maps);
    assert_int_equal(lb_vocab_maps_put(&maps, digest, bytes, len, V, &detail), status);
    if (!strstr(detail.text, says)) {
        fail_msg("\"%s\" does not say \"%s\"", detail.text, says);
    }
    assert_int_equal(lb_vocab_maps_bytes(&maps), 0);
    assert_null(lb_vocab_maps_get(&maps, digest));
    lb_vocab_maps_finish(&maps);
}

static void refused_ids(const int32_t *kept, size_t n, const char *says) {
    char digest[LB_SHA256_HEX];
    name_of(kept, n, digest);
    refused_map(kept, n * sizeof *kept, digest, LB_E_ARG, says);
}

static void test_refused_maps(void **state) {
    (void)state;
    char digest[LB_SHA256_HEX];
    int32_t all[V + 1];
    for (int i = 0; i <= V; i++) {
        all[i] = i;
    }
    refused_ids((const int32_t[]){3, 5, 5}, 3, "id 5 at place 2 is not above the one before it, 5");
    refused_ids((const int32_t[]){3, 5, 4}, 3, "id 4 at place 2 is not above the one before it, 5");
    refused_ids((const int32_t[]){-1, 5}, 2, "id -1 at place 0 is outside 0..96");
    refused_ids((const int32_t[]){5, V}, 2, "id 97 at place 1 is outside 0..96");
    refused_ids(all, V + 1, "98 ids, and this model has 97");
    refused_ids(all, 0, "0 bytes");
    name_of(all, 2, digest);
    refused_map(all, 7, digest, LB_E_ARG, "7 bytes; expected INT32 ids");
    refused_map(all, 12, digest, LB_E_ARG, "did they arrive as they were sent?");
    refused_map(NULL, 0, digest, LB_E_ARG, "0 bytes");
}

static void put(struct lb_vocab_maps *maps, const int32_t *kept, size_t n, int64_t v,
                char out[LB_SHA256_HEX]) {
    name_of(kept, n, out);
    assert_int_equal(lb_vocab_maps_put(maps, out, kept, n * sizeof *kept, v, NULL), LB_OK);
}

static bool has(struct lb_vocab_maps *maps, const char *digest) {
    struct lb_kept_ids *map = lb_vocab_maps_get(maps, digest);
    lb_kept_ids_release(map);
    return map != NULL;
}

/* A full store lets go what was named longest ago; who has a map keeps it. */
static void test_too_many(void **state) {
    (void)state;
    static char names[LB_MAX_VOCAB_MAPS + 2][LB_SHA256_HEX];
    struct lb_vocab_maps maps;
    lb_vocab_maps_init(&maps);
    for (int32_t i = 0; i < LB_MAX_VOCAB_MAPS; i++) {
        put(&maps, (const int32_t[]){i, 1000}, 2, 2000, names[i]);
    }
    struct lb_kept_ids *held = lb_vocab_maps_get(&maps, names[1]);
    assert_true(has(&maps, names[0])); /* named: 2 is the oldest now */
    size_t full = lb_vocab_maps_bytes(&maps);
    put(&maps, (const int32_t[]){7, 1001}, 2, 2000, names[LB_MAX_VOCAB_MAPS]);
    assert_true(has(&maps, names[0]) && has(&maps, names[LB_MAX_VOCAB_MAPS]) && !has(&maps, names[2]));
    assert_int_equal(lb_vocab_maps_bytes(&maps), full);
    put(&maps, (const int32_t[]){7, 1001}, 2, 2000, names[LB_MAX_VOCAB_MAPS + 1]); /* is there */
    assert_int_equal(lb_vocab_maps_bytes(&maps), full);
    assert_true(has(&maps, names[3]));
    lb_vocab_maps_finish(&maps);
    assert_int_equal(held->kept.n, 2);
    assert_int_equal(held->kept.ids[0], 1);
    lb_kept_ids_release(held);
}

static void test_too_large(void **state) {
    (void)state;
    char first[LB_SHA256_HEX], name[LB_SHA256_HEX];
    size_t n = LB_MAX_VOCAB_MAP_BYTES / sizeof(int32_t);
    int32_t *kept = malloc((n + 1) * sizeof *kept);
    struct lb_vocab_maps maps;
    struct lb_detail detail = {0};
    assert_non_null(kept);
    for (size_t i = 0; i <= n; i++) {
        kept[i] = (int32_t)i;
    }
    lb_vocab_maps_init(&maps);
    put(&maps, kept, n / 2, INT32_MAX, first);
    put(&maps, kept + 1, n / 2, INT32_MAX, name); /* both have no room */
    assert_true(!has(&maps, first) && has(&maps, name));
    assert_true(lb_vocab_maps_bytes(&maps) <= LB_MAX_VOCAB_MAP_BYTES);
    name_of(kept, n, name);
    assert_int_equal(lb_vocab_maps_put(&maps, name, kept, n * sizeof *kept, INT32_MAX, &detail), LB_E_LIMIT);
    lb_vocab_maps_finish(&maps);
    free(kept);
}

/* ---- requests ---- */

/* The same of each model: runs and gaps, the first and the last id; some of a large one's panels are empty.
 */
struct map {
    char name[LB_SHA256_HEX];
    int32_t kept[64];
    int64_t n;
};

static struct map send_map(struct lb_hosted *hosted, int64_t step) {
    struct map map = {.n = 0};
    int64_t v = lb_hosted_vocab(hosted);
    for (int64_t id = 0; id < V && map.n < 50; id += id % 7 < 4 ? 1 : step) {
        map.kept[map.n++] = (int32_t)id;
    }
    for (int64_t id = V; v > V && id < v; id += 9001) {
        map.kept[map.n++] = (int32_t)id;
    }
    if (v > V) {
        map.kept[map.n++] = (int32_t)v - 1;
    }
    put(&hosted->maps, map.kept, (size_t)map.n, v, map.name);
    return map;
}

static struct lb_question ask_about(const struct map *map, double temperature) {
    struct lb_question ask = lb_question_new();
    ask.request.vocab_map = map ? map->name : NULL;
    ask.request.temperature = temperature;
    ask.request.top_k = 4;
    lb_question_input(&ask, "input_ids", LB_DT_INT32, B, T, ids);
    lb_question_input(&ask, "lengths", LB_DT_INT32, B, 0, lengths);
    return ask;
}

static void refused(const struct lb_question *ask, struct lb_hosted *hosted, enum lb_status status,
                    const char *says) {
    assert_int_equal(lb_question_try(hosted, ask, NULL), status);
    if (!strstr(lb_question_detail.text, says)) {
        fail_msg("\"%s\" does not say \"%s\"", lb_question_detail.text, says);
    }
}

static void test_refused_requests(void **state) {
    (void)state;
    struct map map = send_map(llama, 3), other = {.name = ""}, wide = send_map(large, 3);
    struct lb_question ask = ask_about(&map, 1);
    name_of(ids, 3, other.name);
    lb_question_output(&ask, "logits", LB_DT_NONE);
    ask.request.vocab_map = other.name;
    refused(&ask, llama, LB_E_MISMATCH,
            "is not here, or not any more: PUT its ids to /v2/models/llama/vocab_maps/");
    refused(&ask, bert, LB_E_ARG, "vocab_map: model bert makes no distributions over tokens");
    refused(&ask, mlp, LB_E_ARG, "vocab_map: model mlp makes no distributions");
    ask = ask_about(NULL, 1);
    lb_question_output(&ask, "logprobs.outside", LB_DT_NONE);
    refused(&ask, llama, LB_E_ARG, "output logprobs.outside: the parameter vocab_map is missing");
    ask = ask_about(&map, 1);
    ask.request.sample_count = 3;
    lb_question_output(&ask, "samples.counts", LB_DT_NONE);
    refused(&ask, llama, LB_E_ARG, "output samples.counts: not with the parameter vocab_map");
    ask = ask_about(&map, 1);
    scores[4] = (int32_t)map.n;
    ask.inputs[ask.request.n_inputs++] =
        (struct lb_wire_tensor){"score_ids", LB_DT_INT32, 3, {B, T, SCORED}, scores, sizeof scores, true};
    lb_question_output(&ask, "logits.at_ids", LB_DT_NONE);
    refused(&ask, llama, LB_E_ARG, "score_ids[0,1,1] = ");
    scores[4] = 4;
    assert_int_equal(lb_question_try(llama, &ask, NULL), LB_OK);
    ask = ask_about(&wide, 1); /* UINT16 holds the map's numbers, not ranks in all of a large vocabulary */
    lb_question_output(&ask, "logits.topk_ids", LB_DT_UINT16);
    assert_int_equal(lb_question_try(large, &ask, NULL), LB_OK);
    lb_question_output(&ask, "ranks.actual", LB_DT_UINT16);
    refused(&ask, large, LB_E_ARG, "output ranks.actual: dtype UINT16");
}

/* ---- answers ---- */

enum { LOGITS, IDS, VALUES, SUM, ACTUAL, NEXT, REST, OUTSIDE, TOP, AT, AT_LOG, FINAL, N_OUTPUTS };
static const char *const outputs[N_OUTPUTS] = {"logits",        "logits.topk_ids",  "logits.topk_values",
                                               "logsumexp",     "logprobs.actual",  "logprobs.next",
                                               "logprobs.rest", "logprobs.outside", "logprobs.topk_values",
                                               "logits.at_ids", "logprobs.at_ids",  "hidden_states.final"};

/* Under the map, or the same without it: then all but outside. With rank: whole rows. */
static struct lb_job *planned(struct lb_hosted *hosted, const struct map *map, bool under, double temperature,
                              bool rank) {
    struct lb_question ask = ask_about(under ? map : NULL, temperature);
    int32_t own[B * T * SCORED];
    for (int i = 0; i < B * T * SCORED; i++) { /* the same ids by either numbering */
        int32_t place = i % 5 == 4 ? -1 : i * 17 % (int)map->n;
        own[i] = place < 0 || under ? place : map->kept[place];
    }
    ask.inputs[ask.request.n_inputs++] =
        (struct lb_wire_tensor){"score_ids", LB_DT_INT32, 3, {B, T, SCORED}, own, sizeof own, true};
    for (int i = 0; i < N_OUTPUTS; i++) {
        if (under || i != OUTSIDE) {
            lb_question_output(&ask, outputs[i], LB_DT_NONE);
        }
    }
    if (rank) {
        lb_question_output(&ask, "ranks.actual", LB_DT_NONE);
    }
    struct lb_job *job = lb_question_plan(hosted, &ask);
    assert_int_equal(lb_engine_admit(engine, job, NULL), LB_OK);
    return job;
}

static const struct lb_job_output *output(const struct lb_job *job, const char *name) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        if (strcmp(job->outputs[i].name, name) == 0) {
            return &job->outputs[i];
        }
    }
    fail_msg("no output %s", name);
    return NULL;
}

static const float *floats(const struct lb_job *job, int which, int64_t row) {
    const struct lb_job_output *o = output(job, outputs[which]);
    return (const float *)o->data + row * o->width;
}

static void same_bytes(const struct lb_job *a, const struct lb_job *b, const char *name) {
    const struct lb_job_output *x = output(a, name), *y = output(b, name);
    assert_int_equal(x->bytes, y->bytes);
    if (memcmp(x->data, y->data, x->bytes) != 0) {
        fail_msg("%s has other bits", name);
    }
}

/* One row under the map, against the logits without. */
static void check_row(const struct lb_job *under, const struct lb_job *plain, const struct map *map,
                      int64_t row) {
    const float *z = floats(plain, LOGITS, row), *picked = floats(under, LOGITS, row);
    const int32_t *top = (const int32_t *)output(under, outputs[IDS])->data + row * under->top_k;
    double t = under->temperature, sum = (double)*floats(plain, SUM, row), kept = 0, listed = 0;
    for (int64_t i = 0; i < map->n; i++) {
        assert_true(picked[i] == z[map->kept[i]]);
        kept += exp(picked[i] / t - sum);
    }
    for (int64_t k = 0; k < under->top_k; k++) {
        int64_t above = 0;
        for (int64_t i = 0; i < map->n; i++) {
            above += picked[i] > picked[top[k]] || (picked[i] == picked[top[k]] && i < top[k]);
        }
        assert_int_equal(above, k);
        assert_true(floats(under, VALUES, row)[k] == picked[top[k]]);
        assert_true(fabs(floats(under, TOP, row)[k] - (picked[top[k]] / t - sum)) < 1e-5);
        listed += exp(picked[top[k]] / t - sum);
    }
    assert_true(fabs(exp((double)*floats(under, REST, row)) - (kept - listed)) < 2e-6);
    assert_true(fabs(exp((double)*floats(under, OUTSIDE, row)) - (1 - kept)) < 2e-6);
}

static void check_answer(const struct lb_job *under, const struct lb_job *plain, const struct map *map) {
    static const int as_ever[] = {SUM, ACTUAL, NEXT, AT, AT_LOG, FINAL};
    for (size_t i = 0; i < sizeof as_ever / sizeof *as_ever; i++) {
        same_bytes(under, plain, outputs[as_ever[i]]);
    }
    for (int64_t b = 0; b < B; b++) {
        for (int64_t t = 0; t < lengths[b]; t++) {
            check_row(under, plain, map, b * T + t);
        }
    }
}

static void check_model(struct lb_hosted *hosted, double temperature) {
    const struct map map = send_map(hosted, 3), other = send_map(hosted, 2);
    struct lb_job *plain = planned(hosted, &map, false, temperature, false),
                  *others = planned(hosted, &other, false, temperature, false),
                  *under = planned(hosted, &map, true, temperature, false);
    assert_int_equal(lb_run_whole(engine, plain, NULL), LB_OK);
    assert_int_equal(lb_run_whole(engine, others, NULL), LB_OK);
    assert_int_equal(lb_run_whole(engine, under, NULL), LB_OK);
    lb_question_shape(output(under, "logits"), 3, (const int64_t[]){B, T, map.n});
    check_answer(under, plain, &map);
    /* In company: without a map, of another map, and of one that needs whole rows. */
    for (int rank = 0; rank < 2; rank++) {
        struct lb_job *jobs[3] = {planned(hosted, &map, false, temperature, false),
                                  planned(hosted, &other, true, temperature, false),
                                  planned(hosted, &map, true, temperature, rank)};
        struct lb_slice slices[3];
        for (int i = 0; i < 3; i++) {
            slices[i] = (struct lb_slice){jobs[i], 0, B};
        }
        assert_int_equal(lb_run_slices(engine, slices, 3, NULL), LB_OK);
        check_answer(jobs[1], others, &other);
        for (int i = 0; i < N_OUTPUTS; i++) {
            if (i != OUTSIDE) {
                same_bytes(jobs[0], plain, outputs[i]);
            }
            same_bytes(jobs[2], under, outputs[i]);
        }
        for (int i = 0; i < 3; i++) {
            lb_job_destroy(jobs[i]);
        }
    }
    lb_job_destroy(plain);
    lb_job_destroy(others);
    lb_job_destroy(under);
}

static void test_answers(void **state) {
    (void)state;
    check_model(llama, 1);
    check_model(llama, 2.5);
    check_model(large, 0.7);
}

/* A request may be the last to hold its map: it is counted with it, however many others come meanwhile. */
static void test_counted(void **state) {
    (void)state;
    const struct map map = send_map(llama, 3);
    struct lb_job *job = planned(llama, &map, true, 1, false);
    struct lb_kept_ids *kept = job->map;
    size_t bytes = lb_submit_job_bytes(job);
    char name[LB_SHA256_HEX];
    for (int32_t i = 0; i < LB_MAX_VOCAB_MAPS; i++) {
        put(&llama->maps, (const int32_t[]){i, V - 1}, 2, V, name);
    }
    assert_false(has(&llama->maps, map.name));
    assert_true(kept->bytes > (size_t)map.n * sizeof(int32_t));
    job->map = NULL;
    assert_int_equal(bytes - lb_submit_job_bytes(job), kept->bytes);
    job->map = kept;
    lb_job_destroy(job);
}

/* Logits that are made while they are read. */
static void check_stream(struct lb_hosted *hosted, enum lb_datatype datatype) {
    struct map map = send_map(hosted, 3);
    struct lb_question ask = ask_about(&map, 1);
    lb_question_output(&ask, "logits", datatype);
    struct lb_job *whole = lb_question_plan(hosted, &ask);
    lb_question_limits.stream_bytes = 1;
    lb_question_output(&ask, "logsumexp", LB_DT_NONE);
    struct lb_job *kept = lb_question_plan(hosted, &ask);
    lb_question_limits.stream_bytes = 0;
    kept->outputs[0].streamed = true; /* so little of it would be made at once */
    assert_int_equal(lb_engine_admit(engine, whole, NULL), LB_OK);
    assert_int_equal(lb_run_whole(engine, whole, NULL), LB_OK);
    int32_t begins[B] = {0, T};
    kept->kept = begins;
    kept->state_bytes = (size_t)(B * T * lb_model_width(hosted->model)) * sizeof(float);
    assert_int_equal(lb_engine_admit(engine, kept, NULL), LB_OK);
    assert_int_equal(lb_run_whole(engine, kept, NULL), LB_OK);
    struct lb_logits_stream *stream = lb_logits_stream_create(kept, &kept->outputs[0]);
    assert_non_null(stream);
    size_t at = 0;
    for (size_t len = 1; len > 0; at += len) {
        const char *bytes = lb_logits_stream_next(stream, &len);
        assert_non_null(bytes);
        assert_true(at + len <= whole->outputs[0].bytes && len <= lb_logits_stream_bytes(kept));
        assert_memory_equal(bytes, (const char *)whole->outputs[0].data + at, len);
    }
    assert_int_equal(at, whole->outputs[0].bytes);
    lb_logits_stream_destroy(stream);
    lb_job_destroy(kept);
    lb_job_destroy(whole);
}

static void test_streamed(void **state) {
    (void)state;
    check_stream(llama, LB_DT_FP32);
    check_stream(large, LB_DT_FP16);
    check_stream(large, LB_DT_BF16);
}

int main(int argc, char **argv) {
    (void)argc;
    struct lb_config config;
    lb_gemm_setup(0, argv);
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    llama = lb_tiny_hosted(folder, "llama", &config);
    config.vocab_size = LARGE_V;
    large = lb_tiny_hosted(folder, "large", &config);
    lb_tiny_mlp(&config);
    mlp = lb_tiny_hosted(folder, "mlp", &config);
    lb_tiny_bert(&config);
    bert = lb_tiny_hosted(folder, "bert", &config);
    engine = lb_engine_create(NULL, NULL, NULL, TAPE_BYTES);
    for (int i = 0; i < B * T; i++) {
        ids[i] = (i * 31 + i * i * 7) % V;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_maps), cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_too_large),    cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_answers),      cmocka_unit_test(test_counted),
        cmocka_unit_test(test_streamed)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_engine_destroy(engine);
    lb_hosted_release(llama);
    lb_hosted_release(large);
    lb_hosted_release(mlp);
    lb_hosted_release(bert);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
