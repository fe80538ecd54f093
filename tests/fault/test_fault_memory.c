/* Memory that runs out, at each allocation: opening what a run needs and making a step of it; then whole runs
 * with a real daemon, whose threads meet the failure wherever they are. Errors are clean, nothing leaks (the
 * address sanitizer looks), and the next try works.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "tests/e2e/hosts.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_tokenizer.h"
#include "tests/support/whole_step.h"
#include "trainer/learn/optimizer.h"
#include "trainer/learn/prefetch.h"
#include "trainer/run/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define VOCAB 258
#define STEP_BYTES ((size_t)1 << 30)

/* How the teacher is asked. */
static const struct {
    const char *name, *teacher, *losses, *targets;
} ways[] = {
    {"run.yaml", "protocol: oip", "{function: kl}, {function: hs_mse}", ""},
    {"lists.yaml", "protocol: vllm", "{function: kl}", "targets: topk\nloss_top_k: 8\n"},
    {"states.yaml", "protocol: vllm, head: model", "{function: kl}, {function: hs_mse}", ""},
};

static char folder[64], model_path[96];
static struct host *teacher;

/* ---- what there is on disk ---- */

static void write_file(const char *name, const char *text, size_t len) {
    char *path = lb_path_join(folder, name);
    assert_int_equal(lb_file_replace(path, text, len, NULL), LB_OK);
    lb_free(path);
}

static void write_recipe(const char *name, const char *student, const char *rest) {
    struct lb_buf text;
    lb_buf_init(&text, 1 << 16);
    lb_buf_printf(&text,
                  "student: {%s}\n"
                  "tokenizer: tokenizer.json\n"
                  "datasets: [{path: text.txt, tag: part}]\n"
                  "max_length: 8\n"
                  "per_device_train_batch_size: 2\n"
                  "max_steps: 2\n"
                  "learning_rate: 1.0e-2\n"
                  "logging_steps: 1\n"
                  "output_dir: run\n"
                  "%s",
                  student, rest);
    write_file(name, text.data, text.len);
    lb_buf_finish(&text);
}

static void write_model(const struct lb_buf *tokenizer) {
    struct lb_config config;
    struct lb_model *model = NULL;
    lb_tiny_llama(&config);
    config.vocab_size = VOCAB;
    snprintf(model_path, sizeof model_path, "%s/model", folder);
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    struct lb_tokenizer *reads = NULL;
    assert_int_equal(lb_tokenizer_parse(tokenizer->data, tokenizer->len, "tokenizer", &reads, NULL), LB_OK);
    assert_int_equal(lb_model_save_hf(model, model_path, LB_F32, reads, NULL, NULL), LB_OK);
    lb_tokenizer_destroy(reads);
    lb_model_destroy(model);
}

static int set_up(void **state) {
    (void)state;
    static const struct tiny_merge th = {{'t'}, {'h'}, 1, 1};
    static const char text[] = "the bird that sings\nthe house by the river\na path through the wood\n";
    struct lb_buf tokenizer;
    char rest[512];
    /* Many runs that sync each file: in memory where there is such a place. */
    snprintf(folder, sizeof folder, "%s/limbeck-memory-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    lb_log_setup(LB_LOG_ERROR, false);
    lb_buf_init(&tokenizer, 1 << 20);
    tiny_tokenizer(&tokenizer, &th, 1, TINY_GPT2, "");
    write_file("tokenizer.json", tokenizer.data, tokenizer.len);
    write_file("text.txt", text, sizeof text - 1);
    write_model(&tokenizer);
    lb_buf_finish(&tokenizer);
    teacher = host_start(folder, "teacher", model_path, NULL);
    write_recipe("step.yaml", "model: model", "loss_functions: [{function: cross_entropy}]\n");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(rest, sizeof rest,
                 "teachers: [{name: tiny, url: \"%s\", %s}]\n"
                 "loss_functions: [%s]\n"
                 "cache_dir: run/cache\n"
                 "eval_datasets: [{path: text.txt}]\n"
                 "%s",
                 host_url(teacher), ways[i].teacher, ways[i].losses, ways[i].targets);
        write_recipe(ways[i].name,
                     "model_type: llama, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, "
                     "num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 8, "
                     "rope_theta: 10000, norm_eps: 1.0e-5, tie_word_embeddings: true",
                     rest);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    host_kill(teacher);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

/* An error that says what is wrong: memory, or what a lack of it made of an answer. */
static void is_clean(enum lb_status status, const struct lb_detail *detail, long nth) {
    if (status != LB_E_NOMEM || detail->text[0] == '\0') {
        fail_msg("allocation %ld: %s: %s", nth, lb_status_name(status), detail->text);
    }
}

/* ---- one step ---- */

struct parts {
    struct lb_recipe *recipe;
    struct lb_tokenizer *tokenizer;
    struct lb_model *student;
    struct lb_dataset *data;
    struct lb_plan plan;
    struct lb_optimizer *optimizer;
    struct lb_prefetch *ahead;
    struct lb_step *step;
};

static enum lb_status open_parts(struct parts *p, const char *recipe, struct lb_detail *detail) {
    enum lb_status status = lb_recipe_load(recipe, NULL, 0, &p->recipe, detail);
    if (status == LB_OK) {
        status = lb_tokenizer_open(model_path, &p->tokenizer, detail);
    }
    if (status == LB_OK) {
        status = lb_model_open(model_path, true, &p->student, detail);
    }
    if (status == LB_OK) {
        status = lb_dataset_open(p->recipe, p->recipe->datasets, p->recipe->datasets_count, false,
                                 p->tokenizer, 0, NULL, &p->data, detail);
    }
    if (status == LB_OK) {
        status = lb_plan_make(p->recipe, p->student, lb_tokenizer_fingerprint(p->tokenizer), NULL, NULL,
                              &p->plan, detail);
    }
    if (status == LB_OK) {
        struct lb_weight_group group = {.n = 0};
        group.weights = lb_model_weights(p->student, &group.n);
        status = lb_optimizer_create(p->recipe, &group, 1, &p->optimizer, detail);
    }
    return status == LB_OK ? lb_prefetch_create(&p->plan, p->data, NULL, NULL, NULL, 0, 2, &p->ahead, detail)
                           : status;
}

static enum lb_status train_step(struct parts *p, struct lb_detail *detail) {
    const struct lb_sample *samples;
    const struct lb_answer *const *answers;
    struct lb_rng rng;
    struct lb_step_result result = {0};
    double norm;
    enum lb_status status = lb_prefetch_next(p->ahead, &samples, detail);
    status = status == LB_OK ? lb_prefetch_answers(p->ahead, &answers, detail) : status;
    if (status != LB_OK) {
        return status;
    }
    p->step = lb_step_create(&p->plan, p->student, STEP_BYTES);
    if (p->step == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    lb_rng_seed(&rng, 1, 1);
    lb_optimizer_zero(p->optimizer);
    status = lb_whole_step(p->step, samples, 2, answers, 2 * samples[0].n, &rng, &result, detail);
    return status == LB_OK ? lb_optimizer_step(p->optimizer, 1e-2, 1, &norm, detail) : status;
}

static void close_parts(struct parts *p) {
    lb_step_destroy(p->step);
    lb_prefetch_destroy(p->ahead);
    lb_optimizer_destroy(p->optimizer);
    lb_dataset_destroy(p->data);
    lb_model_destroy(p->student);
    lb_tokenizer_destroy(p->tokenizer);
    lb_recipe_destroy(p->recipe);
}

static void a_step(void **state) {
    (void)state;
    char *recipe = lb_path_join(folder, "step.yaml");
    bool done = false;
    for (long nth = 1; !done; nth++) {
        struct parts parts = {0};
        struct lb_detail detail = {0};
        lb_mem_fail_from(nth);
        enum lb_status status = open_parts(&parts, recipe, &detail);
        status = status == LB_OK ? train_step(&parts, &detail) : status;
        lb_mem_fail_from(0);
        close_parts(&parts);
        done = status == LB_OK;
        if (done) {
            assert_true(nth > 100);
        } else {
            is_clean(status, &detail, nth);
        }
    }
    lb_free(recipe);
}

/* ---- whole runs ---- */

static enum lb_status run(const char *path, bool resume, struct lb_detail *detail) {
    struct lb_recipe *recipe = NULL;
    const struct lb_train_options options = {.resume = resume};
    enum lb_status status = lb_recipe_load(path, NULL, 0, &recipe, detail);
    status = status == LB_OK ? lb_train(recipe, &options, detail) : status;
    lb_recipe_destroy(recipe);
    return status;
}

/* The whole student, weights and all. */
static struct lb_buf student_bytes(void) {
    struct lb_buf bytes;
    char *path = lb_path_join(folder, "run/student/model.safetensors");
    lb_buf_init(&bytes, 1 << 24);
    assert_int_equal(lb_file_read(path, &bytes, NULL), LB_OK);
    lb_free(path);
    return bytes;
}

static void clear(void) {
    char *path = lb_path_join(folder, "run");
    assert_int_equal(lb_remove_tree(path, NULL), LB_OK);
    lb_free(path);
}

static void run_by(const char *name) {
    char *recipe = lb_path_join(folder, name);
    struct lb_detail detail = {0};
    if (run(recipe, false, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    struct lb_buf undisturbed = student_bytes();
    bool done = false;
    /* Each run takes tens of milliseconds: not every allocation, but all kinds. */
    for (long nth = 1; !done; nth += 1 + nth / 24) {
        clear();
        detail = (struct lb_detail){0};
        lb_mem_fail_from(nth);
        enum lb_status status = run(recipe, false, &detail);
        lb_mem_fail_from(0);
        done = status == LB_OK;
        if (done) {
            assert_true(nth > 300);
            break;
        }
        is_clean(status, &detail, nth);
        if (nth % 8 == 0) { /* what is left goes on to the same bits */
            char *begun = lb_path_join(folder, "run/recipe.yaml");
            bool resume = lb_file_exists(begun);
            lb_free(begun);
            detail = (struct lb_detail){0};
            if (run(recipe, resume, &detail) != LB_OK) {
                fail_msg("after allocation %ld: %s", nth, detail.text);
            }
            struct lb_buf resumed = student_bytes();
            assert_int_equal(resumed.len, undisturbed.len);
            assert_memory_equal(resumed.data, undisturbed.data, resumed.len);
            lb_buf_finish(&resumed);
        }
    }
    lb_buf_finish(&undisturbed);
    lb_free(recipe);
}

static void a_run(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        run_by(ways[i].name);
        clear();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_step), cmocka_unit_test(a_run)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
