#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "trainer/recipe/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A recipe that is right; tests replace pieces of it. */
static const char good[] = "student:\n"                                                         /* 1 */
                           "  hidden_size: 128\n"                                               /* 2 */
                           "  intermediate_size: 352\n"                                         /* 3 */
                           "  num_hidden_layers: 4\n"                                           /* 4 */
                           "  num_attention_heads: 4\n"                                         /* 5 */
                           "tokenizer: tok/tokenizer.json\n"                                    /* 6 */
                           "datasets:\n"                                                        /* 7 */
                           "  - {path: data/noun.txt, tag: noun}\n"                             /* 8 */
                           "  - {path: data/rest.jsonl, tag: rest}\n"                           /* 9 */
                           "teachers:\n"                                                        /* 10 */
                           "  - name: N\n"                                                      /* 11 */
                           "    url: http://127.0.0.1:8500\n"                                   /* 12 */
                           "    tags: [noun]\n"                                                 /* 13 */
                           "  - {name: V, url: 'local:models/v', tags: [rest], weight: 0.25}\n" /* 14 */
                           "loss_functions:\n"                                                  /* 15 */
                           "  - function: kl\n"                                                 /* 16 */
                           "  - function: hs_mse\n"                                             /* 17 */
                           "    layer_mapping: [{student: 2, teacher: 3}]\n"                    /* 18 */
                           "    normalize: yes\n"                                               /* 19 */
                           "learning_rate: 4e-3\n"                                              /* 20 */
                           "max_steps: 100\n"                                                   /* 21 */
                           "output_dir: runs/x\n";                                              /* 22 */

static const char images[] =
    "student: {input_size: 784, hidden_sizes: [100, 50], num_labels: 10, hidden_dropout: 0.4}\n"
    "datasets:\n"
    "  - {path: train-images-idx3-ubyte.gz, labels: l.gz, skip_samples: 5, exclude_labels: [9]}\n"
    "loss_functions: [{function: cross_entropy}]\n"
    "output_dir: o\n";

/* text with the first occurrence of from replaced. */
static char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    assert_non_null(at);
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    lb_buf_append(&buf, text, (size_t)(at - text));
    lb_buf_append_str(&buf, to);
    lb_buf_append_str(&buf, at + strlen(from));
    char *out = lb_buf_take(&buf, NULL);
    assert_non_null(out);
    return out;
}

static struct lb_recipe *parse(const char *text, const char *const *overrides, size_t n) {
    struct lb_recipe *recipe = NULL;
    struct lb_detail detail = {0};
    if (lb_recipe_parse(text, strlen(text), "dir/r.yaml", overrides, n, &recipe, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return recipe;
}

static void defaults_and_values(void **state) {
    (void)state;
    struct lb_recipe *r = parse(good, NULL, 0);
    assert_string_equal(r->directory, "dir");
    assert_string_equal(r->student.config.model_type, "llama");
    assert_int_equal(r->student.config.num_key_value_heads, 4);
    assert_int_equal(r->student.config.head_dim, 32);
    assert_int_equal(r->student.config.max_position_embeddings, 2048);
    assert_true(r->student.config.rope_theta == 10000.0 && r->student.config.norm_eps == 1e-6);
    assert_int_equal(r->datasets_count, 2);
    assert_int_equal(r->datasets[0].type, LB_DATA_TEXT);
    assert_int_equal(r->datasets[1].type, LB_DATA_JSONL);
    assert_string_equal(r->datasets[1].field, "text");
    assert_int_equal(r->teachers_count, 2);
    assert_string_equal(r->teachers[1].url, "local:models/v");
    assert_true(r->teachers[0].weight == 1.0 && r->teachers[1].weight == 0.25);
    assert_string_equal(r->teachers[1].tags[0], "rest");
    assert_int_equal(r->loss_functions_count, 2);
    assert_int_equal(r->loss_functions[1].layer_mapping[0].teacher, 3);
    assert_true(r->loss_functions[1].args.normalize && !r->loss_functions[0].args.normalize);
    assert_string_equal(r->mixture, "mean_probs");
    assert_int_equal(r->targets, LB_LANE_FINAL);
    assert_true(r->learning_rate == 4e-3 && r->adam_beta1 == 0.9 && r->adam_beta2 == 0.999);
    assert_true(r->adam_epsilon == 1e-8 && r->max_grad_norm == 1.0 && r->weight_decay == 0.0);
    assert_int_equal(r->lr_scheduler_type, LB_SCHEDULE_LINEAR);
    assert_int_equal(r->per_device_train_batch_size, 8);
    assert_int_equal(r->gradient_accumulation_steps, 1);
    assert_int_equal(r->max_length, 1024);
    assert_int_equal(r->save_steps, 200);
    assert_int_equal(r->save_total_limit, 2);
    assert_int_equal(r->logging_steps, 10);
    assert_int_equal(r->eval_steps, 0);
    assert_int_equal(r->seed, 42);
    assert_int_equal(r->loss_top_k, 64);
    assert_true(r->loss_add_tail && r->fp16_targets);
    assert_true(r->temperature == 1.0 && r->teacher_timeout == 60.0);
    assert_int_equal(r->prefetch, 4);
    assert_null(r->cache_dir);
    assert_int_equal(r->cache_max_bytes, 8ll << 30);
    lb_recipe_destroy(r);

    r = parse(images, NULL, 0);
    assert_string_equal(r->student.config.model_type, "limbeck_mlp");
    assert_int_equal(r->datasets[0].type, LB_DATA_IDX);
    assert_int_equal(r->datasets[0].exclude_labels[0], 9);
    assert_int_equal(r->student.config.hidden_sizes[1], 50);
    assert_int_equal(r->targets, LB_LANE_LOGITS);
    lb_recipe_destroy(r);
}

/* Families whose keys have other names, or lack some of llama's. */
static void students_of_other_families(void **state) {
    (void)state;
    static const char rest[] = "tokenizer: t\ndatasets: [{path: x.txt}]\nloss_functions: [{function: "
                               "cross_entropy}]\noutput_dir: o\nmax_length: 16\n";
    static const char *const students[] = {
        "{model_type: gpt2, n_embd: 64, n_layer: 2, n_head: 2, n_positions: 99}",
        "{model_type: gpt_neox, hidden_size: 64, intermediate_size: 9, num_hidden_layers: 2, "
        "num_attention_heads: 2, max_position_embeddings: 99}",
        "{model_type: gemma3_text, hidden_size: 64, intermediate_size: 9, num_hidden_layers: 2, "
        "num_attention_heads: 2, head_dim: 6, max_position_embeddings: 99}",
    };
    for (size_t i = 0; i < sizeof students / sizeof *students; i++) {
        char text[600];
        snprintf(text, sizeof text, "student: %s\n%s", students[i], rest);
        struct lb_recipe *r = parse(text, NULL, 0);
        assert_int_equal(r->student.config.hidden_size, 64);
        assert_int_equal(r->student.config.num_key_value_heads, 2);
        assert_int_equal(r->student.config.max_position_embeddings, 99);
        lb_recipe_destroy(r);
    }
}

static void overrides(void **state) {
    (void)state;
    const char *const set[] = {"learning_rate=1e-3",
                               "teachers.0.url=https://h:1",
                               "teachers.1.tags=[rest, noun]",
                               "student.tie_word_embeddings=true",
                               "datasets.2={path: x.txt}",
                               "cache_dir=null",
                               "mixture=ca_mkd"};
    struct lb_recipe *r = parse(good, set, sizeof set / sizeof set[0]);
    assert_true(r->learning_rate == 1e-3);
    assert_string_equal(r->teachers[0].url, "https://h:1");
    assert_int_equal(r->teachers[1].tags_count, 2);
    assert_true(r->student.config.tie_word_embeddings);
    assert_int_equal(r->datasets_count, 3);
    assert_null(r->cache_dir);
    assert_string_equal(r->mixture, "ca_mkd");
    lb_recipe_destroy(r);
}

/* Writing and loading again is the identity, from another folder too. */
static void dump_round_trip(void **state) {
    (void)state;
    const char *const texts[] = {good, images};
    for (size_t i = 0; i < 2; i++) {
        struct lb_recipe *a = parse(texts[i], NULL, 0), *b = NULL;
        char *one = NULL, *two = NULL, f1[65], f2[65];
        size_t n1 = 0, n2 = 0;
        struct lb_detail detail = {0};
        assert_int_equal(lb_recipe_dump(a, &one, &n1, NULL), LB_OK);
        assert_int_equal(lb_recipe_parse(one, n1, "elsewhere/recipe.yaml", NULL, 0, &b, &detail), LB_OK);
        assert_int_equal(lb_recipe_dump(b, &two, &n2, NULL), LB_OK);
        assert_string_equal(one, two);
        lb_recipe_fingerprint(a, f1);
        lb_recipe_fingerprint(b, f2);
        assert_string_equal(f1, f2);
        lb_free(one);
        lb_free(two);
        lb_recipe_destroy(a);
        lb_recipe_destroy(b);
    }
}

/* A rule in place of a list of layers is written back and decides. */
static void rule_of_layers(void **state) {
    (void)state;
    const char *const set[] = {"loss_functions.1.layer_mapping=skip", "loss_functions.1.layer_mapping=last"};
    struct lb_recipe *a = parse(good, &set[0], 1), *b = NULL, *other = parse(good, &set[1], 1);
    char *text = NULL, f1[65], f2[65], f3[65], told[256];
    size_t n = 0;
    assert_int_equal(a->loss_functions[1].layer_rule, LB_LAYERS_SKIP);
    assert_int_equal(a->loss_functions[1].layer_mapping_count, 0);
    assert_int_equal(lb_recipe_dump(a, &text, &n, NULL), LB_OK);
    assert_non_null(strstr(text, "layer_mapping: skip\n"));
    b = parse(text, NULL, 0);
    assert_int_equal(b->loss_functions[1].layer_rule, LB_LAYERS_SKIP);
    lb_recipe_fingerprint(a, f1);
    lb_recipe_fingerprint(b, f2);
    lb_recipe_fingerprint(other, f3);
    assert_string_equal(f1, f2);
    assert_string_not_equal(f1, f3);
    assert_true(lb_recipe_difference(a, other, told, sizeof told));
    assert_string_equal(told, "there loss_functions.1.layer_mapping: skip, "
                              "here loss_functions.1.layer_mapping: last");
    lb_free(text);
    lb_recipe_destroy(a);
    lb_recipe_destroy(b);
    lb_recipe_destroy(other);
}

/* What only the family knows is written back and decides. */
static void keys_of_the_family(void **state) {
    (void)state;
    const char *const set[] = {"student.attention_bias=yes", "student.rms_norm_eps=1e-5"};
    struct lb_recipe *a = parse(good, set, 2), *b = NULL, *plain = parse(good, &set[1], 1);
    char *text = NULL, f1[65], f2[65], f3[65];
    size_t n = 0;
    assert_true(a->student.config.attention_bias && a->student.config.norm_eps == 1e-5);
    assert_int_equal(lb_recipe_dump(a, &text, &n, NULL), LB_OK);
    assert_non_null(strstr(text, "\n  attention_bias: true\n"));
    b = parse(text, NULL, 0);
    assert_true(b->student.config.attention_bias && b->student.config.norm_eps == 1e-5);
    lb_recipe_fingerprint(a, f1);
    lb_recipe_fingerprint(b, f2);
    lb_recipe_fingerprint(plain, f3);
    assert_string_equal(f1, f2);
    assert_string_not_equal(f1, f3);
    lb_free(text);
    lb_recipe_destroy(a);
    lb_recipe_destroy(b);
    lb_recipe_destroy(plain);
}

/* Mappings with keys of their own keep them, their order and the values as they stand. */
static void names_of_tensors(void **state) {
    (void)state;
    const char *const set[] = {"teachers.0.names={logits: z, input_ids: \"the ids\"}",
                               "teachers.0.extra_inputs={\"a: b\": true, request_output_len: 1}"};
    struct lb_recipe *a = parse(good, set, 2), *b = NULL;
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(lb_recipe_dump(a, &text, &n, NULL), LB_OK);
    b = parse(text, NULL, 0);
    for (struct lb_recipe *r = a; r != NULL; r = r == a ? b : NULL) {
        const struct lb_recipe_teacher *t = &r->teachers[0];
        assert_int_equal(t->names_count, 2);
        assert_string_equal(t->names[0].key, "logits");
        assert_string_equal(t->names[0].value, "z");
        assert_string_equal(t->names[1].value, "the ids");
        assert_int_equal(t->extra_inputs_count, 2);
        assert_string_equal(t->extra_inputs[0].key, "a: b");
        assert_string_equal(t->extra_inputs[0].value, "true");
        assert_string_equal(t->extra_inputs[1].value, "1");
        assert_int_equal(r->teachers[1].names_count, 0);
    }
    lb_free(text);
    lb_recipe_destroy(a);
    lb_recipe_destroy(b);
}

static void texts_survive_quoting(void **state) {
    (void)state;
    char *text = replaced(good, "name: N\n", "name: \"a \\\"quoted\\\" \\\\ \\t: #\xc3\xa9\\L\\N\\x80\"\n");
    struct lb_recipe *a = parse(text, NULL, 0), *b = NULL;
    assert_string_equal(a->teachers[0].name, "a \"quoted\" \\ \t: #\xc3\xa9\xe2\x80\xa8\xc2\x85\xc2\x80");
    char *dump = NULL;
    size_t n = 0;
    assert_int_equal(lb_recipe_dump(a, &dump, &n, NULL), LB_OK);
    b = parse(dump, NULL, 0);
    assert_string_equal(b->teachers[0].name, a->teachers[0].name);
    lb_recipe_destroy(a);
    lb_recipe_destroy(b);
    lb_free(dump);
    lb_free(text);
}

/* Runs resume by these: they are as the first version wrote them. */
static void fingerprints_stay(void **state) {
    (void)state;
    static const struct {
        const char *text, *fingerprint;
    } known[] = {{good, "037cd014ab8c91c4f1b3c82850978e0f6cfdc67fc1915d2bc286e9f6fa70a82b"},
                 {images, "d42094e30e33bb0bb407377bbed7d9dbdeb688934448f5924f695974458e51d8"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char fingerprint[65];
        struct lb_recipe *r = parse(known[i].text, NULL, 0);
        assert_int_equal(lb_recipe_fingerprint(r, fingerprint), LB_OK);
        assert_string_equal(fingerprint, known[i].fingerprint);
        lb_recipe_destroy(r);
    }
}

static void fingerprint_follows_what_decides(void **state) {
    (void)state;
    const char *const same[] = {
        "output_dir=elsewhere",     "logging_steps=1", "save_steps=7", "teachers.0.url=http://other:1",
        "teacher_timeout=5",        "cache_dir=c",     "threads=3",    "prefetch=9",
        "eval_datasets=[{path: e}]"};
    const char *const other[] = {"learning_rate=4.1e-3",
                                 "seed=43",
                                 "temperature=2",
                                 "teachers.1.weight=0.5",
                                 "student.hidden_size=64",
                                 "loss_functions.0.weight=0.9",
                                 "max_length=64",
                                 "gradient_accumulation_steps=2",
                                 "datasets.0.max_tokens=10",
                                 "targets=topk",
                                 "fp16_targets=no"};
    char base[65], changed[65];
    struct lb_recipe *r = parse(good, NULL, 0);
    lb_recipe_fingerprint(r, base);
    lb_recipe_destroy(r);
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        r = parse(good, &same[i], 1);
        lb_recipe_fingerprint(r, changed);
        lb_recipe_destroy(r);
        assert_string_equal(base, changed);
    }
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        r = parse(good, &other[i], 1);
        lb_recipe_fingerprint(r, changed);
        lb_recipe_destroy(r);
        assert_string_not_equal(base, changed);
    }
}

/* One line for a person, and no other: the key, the line where it stands, what is wrong. */
static void expect_error(const char *text, const char *override, const char *message) {
    struct lb_recipe *r = NULL;
    struct lb_detail detail = {0};
    struct lb_buf lines;
    bool several = message[0] == '+'; /* "+message": others with it */
    message += several;
    lb_buf_init(&lines, 1 << 20);
    enum lb_status status =
        lb_recipe_parse_all(text, strlen(text), "r.yaml", &override, override != NULL, &lines, &r, &detail);
    if (status == LB_OK) {
        lb_recipe_destroy(r);
        fail_msg("accepted; expected: %s", message);
    }
    bool one = strchr(lines.data, '\n') == lines.data + lines.len - 1;
    if (strstr(lines.data, message) == NULL || one == several) {
        fail_msg("expected: %s\n     but was: %s", message, lines.data);
    }
    assert_int_equal(strncmp(detail.text, lines.data, strlen(detail.text)), 0); /* the first */
    lb_buf_finish(&lines);
}

static void bad_values(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"learning_rate", "learnin_rate",
         "r.yaml:20: learnin_rate: unknown key; did you mean learning_rate?"},
        {"learning_rate", "lr", "r.yaml:20: lr: unknown key; did you mean learning_rate?"},
        {"learning_rate", "batch_size", "did you mean per_device_train_batch_size?"},
        {"learning_rate", "zzzzzzzz", "r.yaml:20: zzzzzzzz: unknown key; limbeck train --help-recipe lists"},
        {"  hidden_size", "  hiden_size",
         "r.yaml:2: student.hiden_size: unknown key; did you mean hidden_size?"},
        {"    url:", "    uri:", "r.yaml:12: teachers.0.uri: unknown key; did you mean url?"},
        {"4e-3", "fast", "r.yaml:20: learning_rate: \"fast\" is not a number"},
        {"4e-3", "0x10", "learning_rate: \"0x10\" is not a number"},
        {"4e-3", ".nan", "learning_rate: \".nan\" is not a number"},
        {"4e-3", "-1", "learning_rate: -1 is out of range; allowed is 0 to 100"},
        {"4e-3", "1e999", "learning_rate: 1e999 is out of range"},
        {"4e-3", "[1]", "learning_rate: must be a number, not a list"},
        {"4e-3", "{a: 1}", "learning_rate: must be a number, not a mapping"},
        {": 100", ": 1.5", "r.yaml:21: max_steps: \"1.5\" is not a whole number"},
        {": 100", ": -3", "max_steps: -3 is out of range; at least 0"},
        {": 100", ": 99999999999999999999", "max_steps: 99999999999999999999 is out of range"},
        {"yes", "maybe", "r.yaml:19: loss_functions.1.normalize: \"maybe\" is not true or false"},
        {"output_dir: runs/x\n", "", "r.yaml:1: output_dir: is missing"},
        {"output_dir: runs/x",
         "output_dir:", "r.yaml:22: output_dir: is empty; give a value or drop the key"},
        {"4e-3", "", "r.yaml:20: learning_rate: is empty; give a value or drop the key"},
        {"hidden_size: 128", "hidden_size:", "r.yaml:2: student.hidden_size: is empty"},
        {"output_dir: runs/x", "output_dir: ~", "r.yaml:1: output_dir: is missing"},
        {"output_dir: runs/x", "output_dir: \"\"",
         "r.yaml:22: output_dir: is empty; give a value or drop the key"},
        {"    url: http://127.0.0.1:8500\n", "", "r.yaml:11: teachers.0.url: is missing"},
        {"[noun]", "noun", "r.yaml:13: teachers.0.tags: \"noun\" is not a list"},
        {"{student: 2, teacher: 3}", "3",
         "r.yaml:18: loss_functions.1.layer_mapping.0: \"3\" is not a mapping of keys"},
        {"{student: 2, teacher: 3}", "{student: 2}", "loss_functions.1.layer_mapping.0.teacher: is missing"},
        {"max_steps", "mixture: wish\nmax_steps", "r.yaml:21: mixture: \"wish\" is not one of mean_probs, "},
        {"max_steps", "seed: 1\nseed: 2\nmax_steps",
         "r.yaml:22: seed: is given twice (first in line 21); drop one"},
        {"  hidden_size: 128", "  hidden_size: 128\n wrong", "r.yaml:"},
        {"tok/tokenizer.json", "&a x\ncache_dir: *a", "r.yaml:7: aliases (*name) are not read"},
        {"output_dir: runs/x\n", "output_dir: x\n---\na: 1\n", "a second YAML document"},
        {"output_dir: runs/x", "output_dir: \"a\\0b\"", "a text holds a NUL character"},
        {"output_dir: runs/x", "output_dir: [[[[[[[[[[[[[[]]]]]]]]]]]]]]", "nested too deeply"},
        {"output_dir: runs/x", "? [a]\n: b", "a key must be a plain word"},
        {good, "- a\n- b\n", "the file: must be a mapping of keys"},
        {good, "", "+r.yaml:1: student: is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = replaced(good, cases[i].from, cases[i].to);
        expect_error(text, NULL, cases[i].message);
        lb_free(text);
    }
}

static void contradictions(void **state) {
    (void)state;
    static const struct {
        const char *set, *message;
    } cases[] = {
        {"student.num_attention_heads=3", "student: hidden_size 128 is no multiple of num_attention_heads 3"},
        {"student.num_key_value_heads=3",
         "r.yaml:5: student: num_attention_heads 4 is no multiple of num_key_value_heads 3"},
        {"student.head_dim=31", "student: head_dim 31 is odd"},
        {"student.intermediate_size=null",
         "r.yaml:1: student: intermediate_size is missing, but must be given; "
         "give the new student's sizes, or student.model to start from one"},
        {"student.hidden_size=0", "student: hidden_size is 0, but must be in [1, "},
        {"student.num_hidden_layers=99999", "student: num_hidden_layers is 99999, but must be in [1, "},
        {"student.model_type=lama", "student: model_type \"lama\" is not one of llama, "},
        {"student={model_type: lama, any: 1}", "student: model_type \"lama\" is not one of llama, "},
        {"student.rms_nor_eps=1", "student.rms_nor_eps: unknown key; did you mean rms_norm_eps?"},
        {"student.normeps=1", "student.normeps: unknown key; did you mean norm_eps?"},
        {"student={norm_eps: 1e-5, rms_norm_eps: 1e-6}", "+is given twice, under its other name too"},
        {"student.attention_bias=maybe", "student: attention_bias must be true or false, not a string"},
        {"student.atention_bias=yes", "student.atention_bias: unknown key; did you mean attention_bias?"},
        {"student.vocab_size=9", "vocab_size: comes from the tokenizer; drop the key"},
        {"student={input_size: 7, hidden_sizes: [3], num_labels: 2}",
         "+--set student: a limbeck_mlp learns from type: idx data"},
        {"student.num_labels=7", "student.num_labels: is no key of model_type llama"},
        {"student.model=m", "student.hidden_size: student.model brings its own configuration"},
        {"max_length=4096", "max_length: 4096 is longer than student.max_position_embeddings 2048"},
        {"tokenizer=null", "tokenizer: is missing"},
        {"datasets.0.labels=l",
         "r.yaml:8: datasets.0: labels, skip_samples, max_samples and exclude_labels are for type: idx"},
        {"datasets.0.field=body", "r.yaml:8: datasets.0: field is for type: jsonl"},
        {"datasets.1={path: a-idx3-ubyte, labels: b}", "datasets.1: text and type: idx data do not mix"},
        {"eval_steps=5", "eval_steps: there are no eval_datasets"},
        {"teachers.1.name=N", "teachers.1.name: \"N\" is the name of teachers.0 too"},
        {"teachers.0.url=127.0.0.1:8500", "teachers.0.url: \"127.0.0.1:8500\" is no URL"},
        {"teachers.0.replicas=[unix:x]", ""},
        {"teachers.0.replicas=[local:x]", "teachers.0.replicas.0: \"local:x\" is no URL"},
        {"teachers=null", "r.yaml:16: loss_functions.0: kl learns from teachers, and the recipe lists none"},
        {"loss_functions=[{function: cross_entropy}]", "r.yaml:10: teachers: no loss function asks them"},
        {"loss_functions.0.function=kll",
         "loss_functions.0.function: \"kll\" is not one of cross_entropy, kl, "},
        {"loss_functions.0.function=kll", "; did you mean kl?"},
        {"loss_functions=[{function: kl, weight: 0}]", "loss_functions: every weight is 0"},
        {"loss_functions.0.layer_mapping=[{student: 1, teacher: 1}]",
         "loss_functions.0.layer_mapping: kl does not read it; its keys are weight, teachers, temperature"},
        {"loss_functions.0.normalize=true", "loss_functions.0.normalize: kl does not read it"},
        {"loss_functions.1.temperature=2", "loss_functions.1.temperature: hs_mse does not read it; its keys "
                                           "are weight, teachers, layer_mapping, normalize"},
        {"loss_functions.0.temperature=0.0001",
         "loss_functions.0.temperature: 0.0001 is out of range; allowed is "},
        {"datasets.0.path=a/b.json", "datasets.0.path: \"a/b.json\" holds one JSON value; write JSON lines"},
        {"datasets.1.path=b.csv", "datasets.1.path: \"b.csv\" is a table"},
        {"eval_datasets=[{path: x.tsv}]", "eval_datasets.0.path: \"x.tsv\" is a table"},
        {"datasets.0={path: b.csv, type: text}", ""},
        {"loss_functions.1={function: hs_cosine, normalize: true}",
         "loss_functions.1.normalize: hs_cosine does not read it; its keys are weight, teachers, "
         "layer_mapping"},
        {"loss_functions.1={function: cross_entropy, temperature: 2}",
         "loss_functions.1.temperature: cross_entropy does not read it; its keys are weight"},
        {"loss_functions.1={function: cross_entropy, teachers: [N]}",
         "loss_functions.1.teachers: cross_entropy does not read it; its keys are weight"},
        {"loss_functions.1={function: alm, temperature: 2}",
         "loss_functions.1.temperature: alm does not read it; its keys are weight, teachers, bce_temp"},
        {"loss_functions.1={function: alm, bce_temp: 0}", "loss_functions.1.bce_temp: 0 is out of range"},
        {"loss_functions.0.teachers=[O]", "loss_functions.0.teachers.0: no teacher is called \"O\""},
        {"loss_functions.0.teachers=[N, N]", "loss_functions.0.teachers.1: \"N\" stands there twice"},
        {"loss_functions=[{function: kl, teachers: [N]}]", "r.yaml:14: teachers.1: no loss learns from V"},
        {"loss_functions.1={function: alm, teachers: [N], bce_temp: 10}", ""},
        {"loss_functions.1.layer_mapping.0.student=5", "the student has no layer 5 there; its last is 4"},
        {"loss_functions.1={function: attention_mse}", "attention_mse needs layer_mapping"},
        {"loss_functions.1={function: attention_mse, layer_mapping: [{student: -1, teacher: 0}]}",
         "attention layers are numbered from 0"},
        {"loss_functions.1.layer_mapping=uniform", ""},
        {"loss_functions.1={function: attention_mse, layer_mapping: skip}", ""},
        {"loss_functions.1.layer_mapping=every", "loss_functions.1.layer_mapping: \"every\" is not one of"},
        {"loss_functions.1.layer_mapping=unifrom",
         "is not one of uniform, last, skip; did you mean uniform?"},
        {"loss_functions.0.layer_mapping=last", "loss_functions.0.layer_mapping: kl does not read it"},
        {"warmup_steps=101", "warmup_steps: 101 steps of warm-up in a run of 100"},
        {"mixture=mean_prob", "; did you mean mean_probs?"},
        {"mixture=route", ""}, /* right as it is: replaced below */
        {"learning_rate", "--set learning_rate: write it as key=value"},
        {"teachers.9.url=x", "--set teachers.9.url: there is no \"9\" there"},
        {"learning_rate.x=1", "--set learning_rate.x: there is no \"x\" there (the key holds one value)"},
        {"max_steps=[1", "--set max_steps: "},
        {"seed=x", "seed: \"x\" is not a whole number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cases[i].message[0] != '\0') {
            expect_error(good, cases[i].set, cases[i].message);
        } else {
            lb_recipe_destroy(parse(good, &cases[i].set, 1));
        }
    }
    char *routed = replaced(good, "max_steps: 100", "mixture: route");
    expect_error(routed, "datasets.0.tag=null", "datasets.0: mixture: route needs a tag on each dataset");
    expect_error(routed, "teachers.0.tags=[x]", "r.yaml:8: datasets.0: no teacher has the tag \"noun\"");
    expect_error(routed, "teachers.0.tags=[]", "r.yaml:11: teachers.0: mixture: route needs tags");
    lb_free(routed);
    char *cut = replaced(good, "max_steps: 100", "targets: topk");
    expect_error(cut, "mixture=mean_logits", "mixture: mean_logits needs whole logits");
    expect_error(cut, "loss_functions.0.temperature=2",
                 "--set loss_functions.0.temperature: top-k targets are normalised at the recipe's "
                 "temperature 1; set that one");
    lb_recipe_destroy(parse(cut, (const char *const[]){"loss_functions.0.temperature=1"}, 1));
    lb_recipe_destroy(parse(cut, (const char *const[]){"mixture=mean_losses"}, 1));
    lb_free(cut);
    char *ended = replaced(good, "max_steps: 100", "num_train_epochs: 0");
    expect_error(ended, NULL, "r.yaml:21: num_train_epochs: max_steps and num_train_epochs are both 0");
    lb_free(ended);
    expect_error(images, "student.hidden_sizes=null",
                 "student: hidden_sizes must be an array of at most 8 widths");
    expect_error(
        images,
        "student={hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1}",
        "datasets: type: idx data (images with labels) needs student.model_type limbeck_mlp");
    expect_error(images, "datasets.0.labels=null", "datasets.0: type: idx needs labels");
    expect_error(images, "datasets.0.max_tokens=5", "datasets.0: max_tokens is for text");
    expect_error(images, "student.hidden_size=5", "student.hidden_size: is no key of model_type limbeck_mlp");
    expect_error(images, "student.hidden_sizes=[1,2,3,4,5,6,7,8,9]",
                 "student: hidden_sizes must be an array of at most 8 widths");
}

/* As many losses and teachers as there is room for, and one more. */
static void too_many(void **state) {
    (void)state;
    static const struct {
        const char *key, *message;
        int most;
    } lists[] = {{"loss_functions", "loss_functions: 17 losses; at most 16", 16},
                 {"teachers", "teachers: 17 teachers; at most 16", 16}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct lb_buf buf;
        lb_buf_init(&buf, 4096);
        lb_buf_printf(&buf, "%s=[", lists[i].key);
        for (int n = 0; n <= lists[i].most; n++) {
            if (n == lists[i].most) {
                char *most = lb_strdup(buf.data);
                assert_non_null(most);
                most[strlen(most) - 1] = ']';
                lb_recipe_destroy(parse(good, (const char *const *)&most, 1));
                lb_free(most);
            }
            if (i == 0) {
                lb_buf_append_str(&buf, "{function: kl},");
            } else {
                lb_buf_printf(&buf, "{name: %d, url: 'http://h'},", n);
            }
        }
        buf.data[buf.len - 1] = ']';
        expect_error(good, buf.data, lists[i].message);
        lb_buf_finish(&buf);
    }
}

static void byte_order_mark_is_skipped(void **state) {
    (void)state;
    char *text = replaced(good, "student:", "\xef\xbb\xbfstudent:");
    struct lb_recipe *r = parse(text, NULL, 0);
    assert_int_equal(r->student.config.hidden_size, 128);
    lb_recipe_destroy(r);
    lb_free(text);
}

static void paths_resolve(void **state) {
    (void)state;
    struct lb_recipe *r = parse(good, NULL, 0);
    char *relative = lb_recipe_resolve(r, "data/a.txt"), *absolute = lb_recipe_resolve(r, "/data/a.txt");
    assert_string_equal(relative, "dir/data/a.txt");
    assert_string_equal(absolute, "/data/a.txt");
    char *local = lb_recipe_resolve(r, "local:m"), *socket = lb_recipe_resolve(r, "unix:/run/s"),
         *url = lb_recipe_resolve(r, "http://h:1");
    assert_string_equal(local, "local:dir/m");
    assert_string_equal(socket, "unix:/run/s");
    assert_string_equal(url, "http://h:1");
    lb_free(local);
    lb_free(socket);
    lb_free(url);
    lb_free(relative);
    lb_free(absolute);
    lb_recipe_destroy(r);
}

/* Each allocation fails once: an error, no leak (the sanitizer tells), no crash. */
static void memory_runs_out(void **state) {
    (void)state;
    lb_mem_fail_from(0);
    lb_recipe_destroy(parse(good, NULL, 0));
    long n = lb_mem_count();
    assert_true(n > 20);
    for (long i = 1; i <= n; i++) {
        struct lb_recipe *r = NULL;
        struct lb_detail detail = {0};
        lb_mem_fail_from(i);
        enum lb_status status = lb_recipe_parse(good, strlen(good), "r.yaml", NULL, 0, &r, &detail);
        lb_mem_fail_from(0);
        assert_int_not_equal(status, LB_OK);
        assert_null(r);
    }
}

/* The first key that differs, by its whole name. */
static void differences_are_named(void **state) {
    (void)state;
    const struct {
        const char *set, *told;
    } cases[] = {
        {"learning_rate=0.5", "there learning_rate: 0.004, here learning_rate: 0.5"},
        {"student.hidden_size=256", "there student.hidden_size: 128, here student.hidden_size: 256"},
        {"loss_functions.1.weight=3", "there loss_functions.1.weight: 1, here loss_functions.1.weight: 3"},
        {"teachers.1.weight=0.5", "there teachers.1.weight: 0.25, here teachers.1.weight: 0.5"},
        {"teachers.1.tags=[noun, rest]",
         "there teachers.1.tags: [\"rest\"], here teachers.1.tags: [\"noun\", \"rest\"]"},
        {"loss_functions.1.layer_mapping.0.teacher=4", "there loss_functions.1.layer_mapping.0.teacher: 3, "
                                                       "here loss_functions.1.layer_mapping.0.teacher: 4"},
    };
    struct lb_recipe *there = parse(good, NULL, 0);
    char text[256];
    assert_false(lb_recipe_difference(there, there, text, sizeof text));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_recipe *here = parse(good, &cases[i].set, 1);
        assert_true(lb_recipe_difference(there, here, text, sizeof text));
        assert_string_equal(text, cases[i].told);
        lb_recipe_destroy(here);
    }
    lb_recipe_destroy(there);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_values),
        cmocka_unit_test(students_of_other_families),
        cmocka_unit_test(overrides),
        cmocka_unit_test(dump_round_trip),
        cmocka_unit_test(rule_of_layers),
        cmocka_unit_test(keys_of_the_family),
        cmocka_unit_test(names_of_tensors),
        cmocka_unit_test(texts_survive_quoting),
        cmocka_unit_test(fingerprints_stay),
        cmocka_unit_test(fingerprint_follows_what_decides),
        cmocka_unit_test(differences_are_named),
        cmocka_unit_test(bad_values),
        cmocka_unit_test(contradictions),
        cmocka_unit_test(too_many),
        cmocka_unit_test(byte_order_mark_is_skipped),
        cmocka_unit_test(paths_resolve),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
