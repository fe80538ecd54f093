#include "tests/support/asking.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/dtype.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct lb_ask_spec asking_spec = {
    .n_outputs = 4,
    .outputs = {{LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP16},
                {LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                {LB_OUT_TOPK_VALUES, 0, LB_DT_FP16},
                {LB_OUT_LOGSUMEXP, 0, LB_DT_FP32}},
    .top_k = 4,
    .temperature = 2,
};

void asking_setup(struct asking *asking) {
    memset(asking, 0, sizeof *asking);
    snprintf(asking->directory, sizeof asking->directory, "/tmp/limbeck-test-XXXXXX");
    if (!mkdtemp(asking->directory)) {
        abort();
    }
    asking->recipe.directory = asking->directory;
    asking->recipe.teachers = asking->teachers;
    asking->recipe.teacher_timeout = 5;
    asking->recipe.give_up_after = 5;
    asking->recipe.cache_max_bytes = 64 << 20;
}

void asking_teardown(struct asking *asking) {
    if (lb_remove_tree(asking->directory, NULL)) {
        fprintf(stderr, "cannot remove %s\n", asking->directory);
    }
}

void asking_add(struct asking *asking, const char *url) {
    unsigned k = asking->recipe.teachers_count++;
    struct lb_recipe_teacher *teacher = &asking->teachers[k];
    snprintf(asking->names[k], sizeof asking->names[k], "t%u", k);
    snprintf(asking->urls[k], sizeof asking->urls[k], "%s", url);
    teacher->name = asking->names[k];
    teacher->url = asking->urls[k];
    teacher->weight = 1;
    teacher->replicas = asking->replicas[k];
}

void asking_add_replica(struct asking *asking, const char *url) {
    unsigned k = asking->recipe.teachers_count - 1, r = asking->teachers[k].replicas_count++;
    snprintf(asking->replica_urls[k][r], sizeof asking->replica_urls[k][r], "%s", url);
    asking->replicas[k][r] = asking->replica_urls[k][r];
}

void asking_use_cache(struct asking *asking) {
    static char name[] = "cache"; /* relative to the recipe's folder */
    asking->recipe.cache_dir = name;
}

struct lb_sample *asking_samples(int64_t n, uint64_t seed, bool features) {
    struct lb_sample *samples = lb_calloc((size_t)n, sizeof *samples);
    struct lb_rng rng;
    lb_rng_seed(&rng, seed, 7);
    for (int64_t i = 0; samples && i < n; i++) {
        if (features) {
            float *values = lb_malloc_array(4, sizeof *values);
            for (int c = 0; c < 4; c++) {
                values[c] = lb_rng_float(&rng);
            }
            samples[i].features = values;
            samples[i].n = 1;
            continue;
        }
        samples[i].n = 3 + (int64_t)lb_rng_below(&rng, 9);
        int32_t *ids = lb_malloc_array((size_t)samples[i].n + 1, sizeof *ids);
        for (int64_t t = 0; t <= samples[i].n; t++) {
            ids[t] = (int32_t)lb_rng_below(&rng, 50);
        }
        samples[i].ids = ids;
    }
    return samples;
}

void asking_free_samples(struct lb_sample *samples, int64_t n) {
    for (int64_t i = 0; samples && i < n; i++) {
        lb_free((void *)(uintptr_t)samples[i].ids);
        lb_free((void *)(uintptr_t)samples[i].features);
    }
    lb_free(samples);
}

static float number_at(const struct lb_wire_tensor *tensor, size_t i) {
    uint16_t half;
    int32_t id;
    float v;
    if (tensor->datatype == LB_DT_FP16) {
        memcpy(&half, (const uint8_t *)tensor->data + 2 * i, sizeof half);
        return lb_f16_to_f32(half);
    }
    if (tensor->datatype == LB_DT_INT32) {
        memcpy(&id, (const uint8_t *)tensor->data + 4 * i, sizeof id);
        return (float)id;
    }
    memcpy(&v, (const uint8_t *)tensor->data + 4 * i, sizeof v);
    return v;
}

bool asking_is_right_for(const struct lb_answer *answer, const struct lb_sample *sample,
                         const char *fingerprint, const struct lb_ask_spec *spec) {
    if (!answer || answer->n_tensors != spec->n_outputs) {
        fprintf(stderr, "no answer, or one of %zu tensors\n", answer ? answer->n_tensors : 0);
        return false;
    }
    for (size_t j = 0; j < answer->n_tensors; j++) {
        const struct lb_wire_tensor *tensor = &answer->tensors[j];
        char name[LB_MAX_NAME];
        lb_output_format(spec->outputs[j].kind, spec->outputs[j].layer, name);
        if (strcmp(name, tensor->name) || tensor->datatype != spec->outputs[j].datatype ||
            tensor->dim[0] != sample->n) {
            fprintf(stderr, "tensor %zu is %s [%lld, ...]\n", j, tensor->name, (long long)tensor->dim[0]);
            return false;
        }
        int64_t width = tensor->n_dims == 2 ? tensor->dim[1] : 1;
        for (int64_t i = 0; i < sample->n * width; i++) {
            float v = fake_value(fingerprint, name, sample->ids, i / width, i % width);
            if (tensor->datatype == LB_DT_FP16) {
                v = lb_f16_to_f32(lb_f32_to_f16(v));
            } else if (tensor->datatype == LB_DT_INT32) {
                v = (float)fake_id(fingerprint, name, sample->ids, i / width, i % width, 50);
            }
            if (number_at(tensor, (size_t)i) != v) {
                fprintf(stderr, "%s[%lld] is %g, not %g\n", name, (long long)i,
                        (double)number_at(tensor, (size_t)i), (double)v);
                return false;
            }
        }
    }
    return true;
}

bool asking_is_right(const struct lb_answer *answer, const struct lb_sample *sample,
                     const char *fingerprint) {
    return asking_is_right_for(answer, sample, fingerprint, &asking_spec);
}

enum lb_status asking_open(struct asking *asking, volatile sig_atomic_t *stop, struct lb_teachers **out,
                           struct lb_detail *detail) {
    enum lb_status status = lb_teachers_open_recipe(&asking->recipe, stop, out, detail);
    for (unsigned k = 0; status == LB_OK && k < asking->recipe.teachers_count; k++) {
        status = lb_teachers_set_spec(*out, k, &asking_spec, detail);
    }
    return status;
}
