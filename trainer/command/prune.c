/* limbeck prune MODEL DATA... --intermediate-size N --out DIR */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/command/commands.h"
#include "trainer/data/dataset.h"
#include "trainer/run/card.h"
#include "trainer/run/export.h"
#include "trainer/run/width.h"

#include <stdio.h>
#include <string.h>

#define CARD_BYTES ((size_t)1 << 20)
#define ARENA_BYTES ((size_t)4 << 30)

struct arguments {
    const char *model, *tokenizer, *out;
    struct lb_data_options data;
    int64_t neurons, heads; /* of each block; 0: all */
    bool json;
};

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'k':
        a->tokenizer = text;
        return 0;
    case 'i':
        a->neurons = lb_option_int(state, "--intermediate-size", text, 1, INT32_MAX);
        return 0;
    case 'h':
        a->heads = lb_option_int(state, "--num-key-value-heads", text, 1, INT32_MAX);
        return 0;
    case 'o':
        a->out = text;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->model == NULL) {
            a->model = text;
        } else {
            lb_option_data(state, text, &a->data);
        }
        return 0;
    case ARGP_KEY_END:
        lb_option_data_end(state, &a->data);
        if (a->out == NULL || (a->neurons == 0 && a->heads == 0)) {
            argp_error(state, "--out, and --intermediate-size or --num-key-value-heads, are needed");
        }
        return 0;
    default:
        return lb_option_texts(key, text, state, &a->data) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* What stays of each block, with the importance that it has; all in arena. */
struct choice {
    double *importance[2]; /* neurons, heads */
    int64_t *kept[2];
    struct lb_narrowing how;
    int64_t tokens;
};

static enum lb_status choose(const struct arguments *a, const struct lb_opened *opened,
                             const struct lb_dataset *data, volatile sig_atomic_t *stop,
                             struct lb_arena *arena, struct choice *out, struct lb_detail *detail) {
    const struct lb_config *c = lb_model_config(opened->model);
    const int64_t wide[] = {c->intermediate_size, c->num_key_value_heads}, narrow[] = {a->neurons, a->heads};
    bool made = true;
    for (int i = 0; i < 2; i++) {
        out->importance[i] = lb_arena_array(arena, (size_t)(c->num_hidden_layers * wide[i]), sizeof(double));
        out->kept[i] =
            lb_arena_array(arena, (size_t)(c->num_hidden_layers * (narrow[i] + 1)), sizeof(int64_t));
        made = made && out->importance[i] != NULL && out->kept[i] != NULL;
    }
    enum lb_status status =
        made ? lb_width_importance(opened->model, data, stop, out->importance[0], out->importance[1],
                                   &out->tokens, detail)
             : lb_fail(detail, LB_E_NOMEM, "out of memory for the importance of the width");
    for (int i = 0; i < 2 && status == LB_OK; i++) {
        made = lb_most_important(out->importance[i], c->num_hidden_layers, wide[i], narrow[i], out->kept[i]);
        status = made ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    return status;
}

/* The sizes, before anything is computed. */
static enum lb_status check_sizes(const struct arguments *a, const struct lb_opened *opened,
                                  struct choice *choice, struct lb_detail *detail) {
    static const int64_t some;
    const struct lb_config *c = lb_model_config(opened->model);
    if (opened->tokenizer == NULL) {
        return lb_fail(detail, LB_E_ARG, "%s reads no text; what is made narrower are models that do",
                       a->model);
    }
    if (a->neurons > c->intermediate_size || a->heads > c->num_key_value_heads) {
        return lb_fail(detail, LB_E_ARG,
                       "%s has intermediate_size %lld and num_key_value_heads %lld: no more "
                       "can stay",
                       a->model, (long long)c->intermediate_size, (long long)c->num_key_value_heads);
    }
    choice->how = (struct lb_narrowing){.intermediate_size = a->neurons,
                                        .neurons = a->neurons > 0 ? &some : NULL,
                                        .num_key_value_heads = a->heads,
                                        .heads = a->heads > 0 ? &some : NULL};
    return lb_model_narrows(opened->model, &choice->how, detail);
}

static enum lb_status write_model(const struct arguments *a, const struct lb_opened *opened,
                                  const struct lb_model *narrow, volatile sig_atomic_t *stop,
                                  struct lb_detail *detail) {
    const struct lb_card card = {.name = a->out, .model = narrow};
    struct lb_buf readme;
    double difference = 0;
    lb_buf_init(&readme, CARD_BYTES);
    enum lb_status status = lb_card_write(&card, &readme, detail);
    status = status == LB_OK ? lb_export(narrow, opened->tokenizer, LB_EXPORT_HF, LB_F32, a->out, readme.data,
                                         stop, &difference, NULL, detail)
                             : status;
    lb_buf_finish(&readme);
    return status;
}

/* [[unit, ...], ...] of each block. */
static json_t *kept_json(const int64_t *kept, int64_t layers, int64_t n) {
    json_t *list = json_array();
    for (int64_t l = 0; l < layers; l++) {
        json_t *one = json_array();
        for (int64_t i = 0; i < n; i++) {
            json_array_append_new(one, json_integer(kept[l * n + i]));
        }
        json_array_append_new(list, one);
    }
    return list;
}

/* The share of a block's importance that stays, of all blocks the mean. */
static double kept_share(const double *importance, const int64_t *kept, int64_t layers, int64_t width,
                         int64_t n) {
    double share = 0;
    for (int64_t l = 0; l < layers; l++) {
        double all = 0, some = 0;
        for (int64_t i = 0; i < width; i++) {
            all += importance[l * width + i];
        }
        for (int64_t i = 0; i < n; i++) {
            some += importance[l * width + kept[l * n + i]];
        }
        share += (all > 0 ? some / all : 1) / (double)layers;
    }
    return share;
}

static void tell(const struct arguments *a, const struct lb_opened *opened, const struct choice *choice,
                 const struct lb_model *narrow) {
    const struct lb_config *c = lb_model_config(opened->model);
    int64_t layers = c->num_hidden_layers;
    const int64_t wide[] = {c->intermediate_size, c->num_key_value_heads}, n[] = {a->neurons, a->heads};
    static const char *const keys[] = {"intermediate_size", "num_key_value_heads"};
    json_t *object = json_pack("{s:s, s:I, s:I, s:I}", "out", a->out, "tokens", (json_int_t)choice->tokens,
                               "parameters", (json_int_t)lb_model_parameters(narrow), "parameters_before",
                               (json_int_t)lb_model_parameters(opened->model));
    for (int i = 0; i < 2; i++) {
        double share =
            n[i] > 0 ? kept_share(choice->importance[i], choice->kept[i], layers, wide[i], n[i]) : 1;
        if (n[i] > 0 && !a->json) {
            printf("%s: %lld of %lld stay, with %.1f %% of what they all do\n", keys[i], (long long)n[i],
                   (long long)wide[i], 100 * share);
        } else if (n[i] > 0) {
            json_object_set_new(
                object, keys[i],
                json_pack("{s:f, s:o}", "share", share, "kept", kept_json(choice->kept[i], layers, n[i])));
        }
    }
    if (a->json) {
        lb_print_json(object, JSON_INDENT(2));
        return;
    }
    json_decref(object);
    printf("%s: %lld parameters of %lld, by %lld tokens\n", a->out, (long long)lb_model_parameters(narrow),
           (long long)lb_model_parameters(opened->model), (long long)choice->tokens);
}

static enum lb_status run(const void *arguments, const struct lb_opened *opened, volatile sig_atomic_t *stop,
                          struct lb_detail *detail) {
    const struct arguments *a = arguments;
    struct lb_recipe frame = {.directory = ".",
                              .max_length = a->data.max_length > 0 ? a->data.max_length
                                                                   : lb_default_length(opened->model)};
    struct lb_dataset *data = NULL;
    struct lb_model *narrow = NULL;
    struct choice choice = {.tokens = 0};
    lb_arena_init(&frame.arena, ARENA_BYTES);
    enum lb_status status = check_sizes(a, opened, &choice, detail);
    status =
        status == LB_OK ? lb_data_open(&a->data, &frame, opened->tokenizer, 0, stop, &data, detail) : status;
    status = status == LB_OK ? choose(a, opened, data, stop, &frame.arena, &choice, detail) : status;
    if (status == LB_OK) {
        choice.how.neurons = a->neurons > 0 ? choice.kept[0] : NULL;
        choice.how.heads = a->heads > 0 ? choice.kept[1] : NULL;
        status = lb_model_narrow(opened->model, &choice.how, &narrow, detail);
    }
    status = status == LB_OK ? write_model(a, opened, narrow, stop, detail) : status;
    if (status == LB_OK) {
        tell(a, opened, &choice, narrow);
    }
    lb_model_destroy(narrow);
    lb_dataset_destroy(data);
    lb_arena_finish(&frame.arena);
    return status;
}

int lb_cmd_prune(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"intermediate-size", 'i', "N", 0, "Neurons that stay in the feed-forward of each block", 0},
        {"num-key-value-heads", 'h', "N", 0,
         "Heads of keys and values that stay in each block, with the queries that share them", 0},
        {"out", 'o', "DIR", 0,
         "Where to write the narrower model; an earlier one there is replaced, anything else never", 0},
        LB_TEXTS_OPTIONS,
        LB_TOKENIZER_OPTION,
        {"json", 'j', NULL, 0, "Print JSON: also which of them stay", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "MODEL DATA...",
        .doc = "Makes a model of the neurons and heads that do most on some texts, by the size of their "
               "activations (Minitron): what a narrower student begins as (student: {model: DIR}).\vMODEL is "
               "a folder, a .gguf file or a run folder; DATA are texts, one document a line, or JSON lines."};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    return lb_with_opened(a.model, a.tokenizer, run, &a, stop);
}
