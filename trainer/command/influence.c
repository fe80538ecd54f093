/* limbeck influence MODEL DATA..., or URL DATA... */
#include "trainer/run/influence.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/command/commands.h"
#include "trainer/data/dataset.h"

#include <stdio.h>

#define ENTRIES_BYTES ((size_t)4 << 20)

struct arguments {
    const char *model, *tokenizer, *token_file;
    struct lb_recipe_teacher hosted; /* in place of a folder; url NULL: it is one */
    struct lb_data_options data;
    int64_t keep;
    bool json;
};

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'k':
        a->tokenizer = text;
        return 0;
    case 'n':
        a->keep = lb_option_int(state, "--keep", text, 1, LB_MAX_LAYERS);
        return 0;
    case 'o':
        a->token_file = text;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->model == NULL) {
            a->model = lb_option_hosted(text, &a->hosted) ? a->hosted.name : text;
        } else {
            lb_option_data(state, text, &a->data);
        }
        return 0;
    case ARGP_KEY_END:
        lb_option_data_end(state, &a->data);
        return 0;
    default:
        return lb_option_texts(key, text, state, &a->data) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static void print_json(const struct arguments *a, const double *influence, int64_t layers, int64_t rows,
                       const int64_t *kept) {
    json_t *object = json_pack("{s:s, s:I}", "model", a->model, "tokens", (json_int_t)rows);
    json_t *list = json_array(), *keep = json_array();
    for (int64_t l = 0; l < layers; l++) {
        json_array_append_new(list, json_real(influence[l]));
    }
    for (int64_t i = 0; i < a->keep; i++) {
        json_array_append_new(keep, json_integer(kept[i]));
    }
    json_object_set_new(object, "block_influence", list);
    json_object_set_new(object, "layers", keep);
    lb_print_json(object, JSON_INDENT(2));
}

static void print_table(const struct arguments *a, const double *influence, int64_t layers, int64_t rows,
                        const int64_t *kept) {
    printf("%5s %15s\n", "layer", "block influence");
    for (int64_t l = 0; l < layers; l++) {
        printf("%5lld %15.6f\n", (long long)l, influence[l]);
    }
    printf("over %lld tokens\n", (long long)rows);
    for (int64_t i = 0; i < a->keep; i++) {
        printf("%s%lld", i == 0 ? "layers_from: {model: ..., layers: [" : ", ", (long long)kept[i]);
    }
    printf("%s", a->keep > 0 ? "]}\n" : "");
}

/* The model's blocks by their influence on data: of an opened one, else of the hosted one. */
static enum lb_status measure(const struct arguments *a, const struct lb_model *model,
                              struct lb_teachers *hosted, int64_t layers, const struct lb_dataset *data,
                              const volatile sig_atomic_t *stop, struct lb_detail *detail) {
    int64_t rows = 0;
    if (a->keep > layers) {
        return lb_fail(detail, LB_E_ARG, "--keep %lld: the model has %lld blocks", (long long)a->keep,
                       (long long)layers);
    }
    double *influence = lb_calloc((size_t)layers + 1, sizeof *influence);
    int64_t *kept = lb_calloc((size_t)layers + 1, sizeof *kept);
    enum lb_status status = influence == NULL || kept == NULL ? lb_fail(detail, LB_E_NOMEM, "out of memory")
                            : model != NULL
                                ? lb_block_influence(model, data, stop, influence, &rows, detail)
                                : lb_block_influence_hosted(hosted, data, influence, &rows, detail);
    if (status == LB_OK) {
        lb_influential(influence, layers, a->keep, kept);
        (a->json ? print_json : print_table)(a, influence, layers, rows, kept);
    }
    lb_free(influence);
    lb_free(kept);
    return status;
}

static enum lb_status run(const void *arguments, const struct lb_opened *opened, volatile sig_atomic_t *stop,
                          struct lb_detail *detail) {
    const struct arguments *a = arguments;
    const struct lb_labels *labels = lb_model_labels(opened->model);
    struct lb_recipe frame = {.directory = ".",
                              .max_length = a->data.max_length > 0 ? a->data.max_length
                                                                   : lb_default_length(opened->model)};
    struct lb_dataset *data = NULL;
    if (opened->tokenizer == NULL) {
        return lb_fail(detail, LB_E_ARG, "%s reads no text; block influence is of models that do", a->model);
    }
    lb_arena_init(&frame.arena, ENTRIES_BYTES);
    enum lb_status status = lb_data_open(&a->data, &frame, opened->tokenizer, labels != NULL ? labels->n : 0,
                                         stop, &data, detail);
    status = status == LB_OK ? measure(a, opened->model, NULL,
                                       lb_model_config(opened->model)->num_hidden_layers, data, stop, detail)
                             : status;
    lb_dataset_destroy(data);
    lb_arena_finish(&frame.arena);
    return status;
}

static enum lb_status run_hosted(struct arguments *a, volatile sig_atomic_t *stop, struct lb_detail *detail) {
    struct lb_recipe frame = {.directory = ".",
                              .teachers = &a->hosted,
                              .teachers_count = 1,
                              .on_lost_teacher = LB_LOST_STOP,
                              .allow_other_kernels = true, /* no replicas, no cache */
                              .teacher_timeout = 60,
                              .give_up_after = 60};
    struct lb_teachers *teachers = NULL;
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_dataset *data = NULL;
    a->hosted.token_file = (char *)a->token_file;
    lb_arena_init(&frame.arena, ENTRIES_BYTES);
    enum lb_status status = lb_teachers_open_recipe(&frame, stop, &teachers, detail);
    if (status == LB_OK && a->tokenizer != NULL) {
        status = lb_tokenizer_argument(a->tokenizer, &tokenizer, detail);
    } else if (status == LB_OK) {
        status =
            lb_teachers_open_tokenizer(teachers, 0, "the server's tokenizer_config.json", &tokenizer, detail);
    }
    if (status == LB_OK) {
        const struct lb_teacher_info *info = lb_teachers_info(teachers, 0);
        int64_t most = info->max_length > 0 ? info->max_length : LB_DEFAULT_LENGTH;
        most = most < LB_DEFAULT_LENGTH ? most : LB_DEFAULT_LENGTH;
        frame.max_length = a->data.max_length > 0 ? a->data.max_length : most;
        status = lb_data_open(&a->data, &frame, tokenizer, info->num_labels, stop, &data, detail);
        status = status == LB_OK ? measure(a, NULL, teachers, info->n_layers, data, stop, detail) : status;
    }
    lb_teachers_close(teachers); /* before what its questions point to */
    lb_dataset_destroy(data);
    lb_tokenizer_destroy(tokenizer);
    lb_arena_finish(&frame.arena);
    return status;
}

int lb_cmd_influence(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        LB_TEXTS_OPTIONS,
        {"keep", 'n', "N", 0, "Also name the N blocks of the most influence, as a recipe's layers_from", 0},
        LB_TOKENIZER_OPTION,
        {"token-file", 'o', "FILE", 0, "Bearer token for a hosted model", 0},
        {"json", 'j', NULL, 0, "Print JSON", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "MODEL DATA...\nURL[#NAME] DATA...",
        .doc = "How much each block of a model changes what goes through it: 1 "
               "- the mean cosine between its input and "
               "its output (ShortGPT, Minitron).\vMODEL is a folder, a .gguf "
               "file or a run folder, or a limbeckd hosts it (http://HOST:PORT); DATA are texts, one "
               "document a line, or JSON lines."};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.hosted.url == NULL) {
        return lb_with_opened(a.model, a.tokenizer, run, &a, stop);
    }
    struct lb_detail detail = {0};
    enum lb_status status = run_hosted(&a, stop, &detail);
    return status == LB_OK ? 0 : lb_command_failed(&detail, status);
}
