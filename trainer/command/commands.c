#include "trainer/command/commands.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "trainer/wire/url.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int threads_option;
static volatile sig_atomic_t save_now;

void lb_threads_option_set(int threads) {
    threads_option = threads;
}

int lb_threads_option(void) {
    return threads_option;
}

volatile sig_atomic_t *lb_save_now(void) {
    return &save_now;
}

int lb_command_failed(const struct lb_detail *detail, enum lb_status status) {
    fprintf(stderr, "limbeck: %s\n", detail->text[0] != '\0' ? detail->text : lb_status_name(status));
    return LB_EXIT_FAILED;
}

int64_t lb_option_int(const struct argp_state *state, const char *option, const char *text, int64_t min,
                      int64_t max) {
    char *end = NULL;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || v < min || v > max) {
        argp_error(state, "%s: \"%s\" is not a whole number from %" PRId64 " to %" PRId64, option, text, min,
                   max);
    }
    return v;
}

double lb_option_number(const struct argp_state *state, const char *option, const char *text, double min,
                        double max) {
    char *end = NULL;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v) || v < min || v > max) {
        argp_error(state, "%s: \"%s\" is not a number from %g to %g", option, text, min, max);
    }
    return v;
}

enum lb_protocol lb_option_protocol(const struct argp_state *state, const char *text) {
    enum lb_protocol protocol = LB_PROTOCOL_OIP;
    if (!lb_protocol_find(text, &protocol)) {
        char names[128] = "";
        for (int p = 0; p < LB_N_PROTOCOLS; p++) {
            size_t at = strlen(names);
            snprintf(names + at, sizeof names - at, "%s%s", p > 0 ? ", " : "",
                     lb_dialect_get((enum lb_protocol)p)->name);
        }
        argp_error(state, "--protocol: there is no protocol %s; there are %s", text, names);
    }
    return protocol;
}

void lb_option_tensor(const struct argp_state *state, const char *text, struct lb_tensor_options *out) {
    const struct {
        const char *key;
        const char **name;
    } names[] = {{"input_ids=", &out->naming.input_ids},
                 {"lengths=", &out->naming.lengths},
                 {"attention_mask=", &out->naming.attention_mask},
                 {"logits=", &out->naming.logits}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t len = strlen(names[i].key);
        if (strncmp(text, names[i].key, len) == 0 && text[len]) {
            *names[i].name = text + len;
            return;
        }
    }
    argp_error(state,
               "--name %s: it is one of input_ids, lengths, attention_mask or logits, =, and a tensor's name",
               text);
}

void lb_option_extra_input(const struct argp_state *state, char *text, struct lb_tensor_options *out) {
    char *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1] || out->naming.n_extra == LB_NAMED_INPUTS) {
        argp_error(state, "--extra-input %s: it is a tensor's name, = and a number, true or false", text);
        return;
    }
    *equals = '\0';
    out->extra[out->naming.n_extra++] = (struct lb_named_value){text, equals + 1};
}

void lb_option_tensors_end(const struct argp_state *state, const struct lb_tensor_options *options,
                           const struct lb_dialect *dialect) {
    const struct lb_naming *naming = &options->naming;
    if (!naming->input_ids != !naming->logits ||
        (!naming->logits && (naming->lengths || naming->attention_mask || naming->n_extra))) {
        argp_error(state, "--name input_ids=TENSOR and --name logits=TENSOR go together, and with the rest");
    }
    if (naming->logits && dialect && dialect != lb_dialect_get(LB_PROTOCOL_OIP)) {
        argp_error(state, "--name is of protocol oip, whose servers have tensors");
    }
}

const struct lb_naming *lb_tensors_naming(struct lb_tensor_options *options) {
    options->naming.extra = options->extra;
    return options->naming.logits ? &options->naming : NULL;
}

bool lb_option_hosted(char *text, struct lb_recipe_teacher *out) {
    char *hash = strchr(text, '#');
    if (lb_url_scheme(text, NULL) == LB_SCHEME_NONE) {
        return false;
    }
    *out = (struct lb_recipe_teacher){.url = text, .weight = 1, .name = hash != NULL ? hash + 1 : text};
    if (hash != NULL) {
        *hash = '\0';
        out->model = hash + 1;
    }
    return true;
}

void lb_option_data(const struct argp_state *state, const char *text, struct lb_data_options *out) {
    if (out->n == LB_MAX_DATA_FILES) {
        argp_error(state, "more than %d files", LB_MAX_DATA_FILES);
        return;
    }
    out->path[out->n++] = text;
}

void lb_option_data_end(const struct argp_state *state, const struct lb_data_options *options) {
    if (options->n == 0) {
        argp_error(state, "MODEL and at least one DATA file are needed");
    }
}

enum lb_status lb_data_type(const struct lb_data_options *options, struct lb_recipe_dataset *out,
                            struct lb_detail *detail) {
    if (options->field != NULL) {
        out->type = LB_DATA_JSONL;
        out->field = options->field;
        return LB_OK;
    }
    enum lb_status status = lb_recipe_data_type(out->path, &out->type, detail);
    out->field = out->type == LB_DATA_JSONL ? "text" : NULL;
    return status;
}

bool lb_option_texts(int key, const char *text, const struct argp_state *state, struct lb_data_options *out) {
    switch (key) {
    case 'f':
        out->field = text;
        return true;
    case 'l':
        out->max_length = lb_option_int(state, "--max-length", text, 1, 1 << 24);
        return true;
    case 't':
        out->max_tokens = lb_option_int(state, "--max-tokens", text, 1, INT64_MAX / 2);
        return true;
    default:
        return false;
    }
}

enum lb_status lb_data_open(const struct lb_data_options *options, const struct lb_recipe *frame,
                            const struct lb_tokenizer *tokenizer, int64_t labels,
                            const volatile sig_atomic_t *stop, struct lb_dataset **out,
                            struct lb_detail *detail) {
    struct lb_recipe_dataset entries[LB_MAX_DATA_FILES];
    enum lb_status status = LB_OK;
    for (unsigned i = 0; i < options->n && status == LB_OK; i++) {
        entries[i] = (struct lb_recipe_dataset){.path = options->path[i], .max_tokens = options->max_tokens};
        status = lb_data_type(options, &entries[i], detail);
    }
    return status == LB_OK
               ? lb_dataset_open(frame, entries, options->n, true, tokenizer, labels, stop, out, detail)
               : status;
}

void lb_list_names(char *text, size_t size, const char *const *names) {
    for (size_t i = 0; names[i] != NULL; i++) {
        size_t len = strlen(text);
        snprintf(text + len, size - len, "%s%s", i > 0 ? ", " : "", names[i]);
    }
}

int lb_option_name(const struct argp_state *state, const char *option, const char *text,
                   const char *const *names) {
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    char list[256] = "";
    lb_list_names(list, sizeof list, names);
    argp_error(state, "%s: \"%s\" is not one of %s", option, text, list);
    return 0; /* not reached */
}

enum lb_status lb_read_stdin(struct lb_buf *out, struct lb_detail *detail) {
    char chunk[65536];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0 && lb_buf_append(out, chunk, n) == LB_OK) {
    }
    if (ferror(stdin)) {
        return lb_fail_errno(detail, LB_E_IO, errno, "standard input");
    }
    return lb_buf_status(out) == LB_OK ? LB_OK
                                       : lb_fail(detail, lb_buf_status(out), "standard input is too long");
}

void lb_print_json(json_t *value, size_t flags) {
    json_dumpf(value, stdout, flags);
    putchar('\n');
    json_decref(value);
}

/* Whether folder/name exists. */
static bool holds(const char *folder, const char *name) {
    char *path = lb_path_join(folder, name);
    bool there = path != NULL && lb_file_exists(path);
    lb_free(path);
    return there;
}

/* The path that a MODEL argument means, on the heap. */
static enum lb_status model_path(const char *argument, char **out_path, struct lb_detail *detail) {
    if (!lb_file_exists(argument)) {
        return lb_fail(detail, LB_E_NOTFOUND, "%s: no such file or folder", argument);
    }
    bool as_is = !lb_is_dir(argument) || holds(argument, "config.json");
    bool run = !as_is && holds(argument, "student/config.json");
    if (!as_is && !run) {
        return lb_fail(detail, LB_E_NOTFOUND,
                       holds(argument, "recipe.yaml")
                           ? "%s: this run has no finished student yet; let limbeck train --resume finish it"
                           : "%s: neither a model (no config.json) nor a run folder (no student/)",
                       argument);
    }
    *out_path = run ? lb_path_join(argument, "student") : lb_strdup(argument);
    return *out_path != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
}

int64_t lb_default_length(const struct lb_model *model) {
    int64_t most = lb_model_config(model)->max_position_embeddings;
    return most > 0 && most < LB_DEFAULT_LENGTH ? most : LB_DEFAULT_LENGTH;
}

int64_t lb_run_max_length(const char *argument) {
    char *path = lb_path_join(argument, "recipe.yaml");
    struct lb_recipe *recipe = NULL;
    int64_t length = 0;
    if (path != NULL && lb_recipe_load(path, NULL, 0, &recipe, NULL) == LB_OK) {
        length = recipe->max_length;
    }
    lb_recipe_destroy(recipe);
    lb_free(path);
    return length;
}

enum lb_status lb_opened_model(struct lb_opened *opened, const char *argument, struct lb_detail *detail) {
    *opened = (struct lb_opened){0};
    enum lb_status status = model_path(argument, &opened->path, detail);
    if (status == LB_OK) {
        status = lb_model_open(opened->path, false, &opened->model, detail);
    }
    if (status == LB_OK) {
        lb_log_notes("model_note", NULL, lb_model_notes(opened->model));
    }
    if (status != LB_OK) {
        lb_opened_finish(opened);
    }
    return status;
}

enum lb_status lb_opened_init(struct lb_opened *opened, const char *argument, const char *tokenizer,
                              struct lb_detail *detail) {
    enum lb_status status = lb_opened_model(opened, argument, detail);
    if (status == LB_OK && tokenizer != NULL) {
        status = lb_tokenizer_open(tokenizer, &opened->tokenizer, detail);
    } else if (status == LB_OK && lb_model_config(opened->model)->input_size == 0) {
        status = lb_tokenizer_open(opened->path, &opened->tokenizer, detail);
    }
    if (status == LB_OK && opened->tokenizer != NULL) {
        int64_t rows = lb_model_config(opened->model)->vocab_size;
        int32_t tokens = lb_tokenizer_vocab_size(opened->tokenizer);
        status = lb_tokenizer_fits(opened->tokenizer, rows, argument, detail);
        if (status == LB_OK && tokens < rows) {
            lb_log(LB_LOG_INFO, "padded_vocabulary", "model=\"%s\" tokens=%d rows=%lld", argument, tokens,
                   (long long)rows);
        }
    }
    if (status != LB_OK) {
        lb_opened_finish(opened);
    }
    return status;
}

void lb_opened_finish(struct lb_opened *opened) {
    lb_tokenizer_destroy(opened->tokenizer);
    lb_model_destroy(opened->model);
    lb_free(opened->path);
    *opened = (struct lb_opened){0};
}

enum lb_status lb_tokenizer_argument(const char *argument, struct lb_tokenizer **out,
                                     struct lb_detail *detail) {
    if (lb_ends_with(argument, ".json")) {
        return lb_tokenizer_open(argument, out, detail);
    }
    if (lb_is_dir(argument) && holds(argument, "tokenizer.json")) {
        return lb_tokenizer_open(argument, out, detail);
    }
    char *path = NULL;
    enum lb_status status = model_path(argument, &path, detail);
    if (status == LB_OK) {
        status = lb_tokenizer_open(path, out, detail);
    }
    lb_free(path);
    return status;
}

int lb_with_opened(const char *argument, const char *tokenizer,
                   enum lb_status (*work)(const void *arguments, const struct lb_opened *opened,
                                          volatile sig_atomic_t *stop, struct lb_detail *detail),
                   const void *arguments, volatile sig_atomic_t *stop) {
    struct lb_detail detail = {0};
    struct lb_opened opened;
    enum lb_status status = lb_opened_init(&opened, argument, tokenizer, &detail);
    if (status == LB_OK) {
        status = work(arguments, &opened, stop, &detail);
        lb_opened_finish(&opened);
    }
    return status == LB_OK ? 0 : lb_command_failed(&detail, status);
}
