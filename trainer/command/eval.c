/* limbeck eval MODEL DATA... */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/command/eval_beside.h"
#include "trainer/data/dataset.h"
#include "trainer/loss/mixture.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/evaluate.h"
#include "trainer/run/score.h"
#include "trainer/wire/url.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_BYTES ((size_t)4 << 20)
#define DEFAULT_TOP_K 64 /* of what --teacher sends */

struct arguments {
    const char *model, *tokenizer, *labels, *token_file;
    char *urls[LB_MAX_TEACHERS]; /* of hosted models, instead of model */
    unsigned n_urls;
    enum lb_protocol protocol; /* of all of them */
    struct lb_tensor_options tensors;
    struct lb_beside_options beside; /* teachers that MODEL is compared with */
    struct lb_data_options data;     /* each NAME=PATH or PATH */
    int64_t max_length, rows, skip, max_samples;
    float bias[LB_EVAL_MAX_CLASSES];
    int n_bias; /* the highest class with a bias, plus one */
    bool json;
};

enum {
    KEY_TOKEN = 256,
    KEY_PROTOCOL,
    KEY_NAME,
    KEY_EXTRA,
    KEY_FIELD,
    KEY_LABELS,
    KEY_ROWS,
    KEY_SKIP,
    KEY_SAMPLES,
    KEY_BIAS,
    KEY_TEACHER,
    KEY_TARGETS,
    KEY_TOP_K
};

/* CLASS=VALUE */
static void parse_bias(struct arguments *a, const struct argp_state *state, const char *text) {
    const char *equals = strchr(text, '=');
    char class[16];
    if (equals == NULL || equals == text || (size_t)(equals - text) >= sizeof class) {
        argp_error(state, "--bias: \"%s\" is not CLASS=VALUE, as in 9=1.5", text);
        return;
    }
    snprintf(class, sizeof class, "%.*s", (int)(equals - text), text);
    int c = (int)lb_option_int(state, "--bias", class, 0, LB_EVAL_MAX_CLASSES - 1);
    a->bias[c] = (float)lb_option_number(state, "--bias", equals + 1, -1e6, 1e6);
    a->n_bias = c >= a->n_bias ? c + 1 : a->n_bias;
}

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'l':
        a->max_length = lb_option_int(state, "--max-length", text, 1, 1 << 24);
        return 0;
    case 'k':
        a->tokenizer = text;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case KEY_TOKEN:
        a->token_file = text;
        return 0;
    case KEY_PROTOCOL:
        a->protocol = lb_option_protocol(state, text);
        return 0;
    case KEY_NAME:
        lb_option_tensor(state, text, &a->tensors);
        return 0;
    case KEY_EXTRA:
        lb_option_extra_input(state, text, &a->tensors);
        return 0;
    case KEY_FIELD:
        a->data.field = text;
        return 0;
    case KEY_LABELS:
        a->labels = text;
        return 0;
    case KEY_ROWS:
        a->rows = lb_option_int(state, "--batch-size", text, 1, 1 << 16);
        return 0;
    case KEY_SKIP:
        a->skip = lb_option_int(state, "--skip-samples", text, 0, INT64_MAX / 2);
        return 0;
    case KEY_SAMPLES:
        a->max_samples = lb_option_int(state, "--max-samples", text, 0, INT64_MAX / 2);
        return 0;
    case KEY_BIAS:
        parse_bias(a, state, text);
        return 0;
    case KEY_TEACHER:
        if (a->beside.n == LB_MAX_TEACHERS) {
            argp_error(state, "more than %d teachers", LB_MAX_TEACHERS);
        }
        if (!lb_option_hosted(text, &a->beside.teachers[a->beside.n++])) {
            argp_error(state, "--teacher: \"%s\" is no URL", text);
        }
        return 0;
    case KEY_TARGETS:
        a->beside.targets = lb_beside_lane(lb_option_name(state, "--targets", text, lb_beside_targets));
        a->beside.targets_given = true;
        return 0;
    case KEY_TOP_K:
        a->beside.top_k = lb_option_int(state, "--top-k", text, 1, LB_MAX_TOP_K);
        return 0;
    case ARGP_KEY_ARG:
        if (a->data.n == 0 && a->model == NULL && lb_url_scheme(text, NULL) != LB_SCHEME_NONE) {
            if (a->n_urls == LB_MAX_TEACHERS) {
                argp_error(state, "more than %d hosted models", LB_MAX_TEACHERS);
            }
            a->urls[a->n_urls++] = text;
        } else if (a->model == NULL && a->n_urls == 0) {
            a->model = text;
        } else {
            lb_option_data(state, text, &a->data);
        }
        return 0;
    case ARGP_KEY_END:
        lb_option_data_end(state, &a->data);
        if (a->n_urls > 0 && a->n_bias > 0) {
            argp_error(state, "--bias is for classifiers in a folder, not for hosted models");
        }
        lb_option_tensors_end(state, &a->tensors, lb_dialect_get(a->protocol));
        if (a->n_urls > 0 && a->beside.n > 0) {
            argp_error(state, "--teacher is what a MODEL in a folder is compared with, not one at a URL");
        }
        if (a->beside.n == 0 && (a->beside.targets_given || a->beside.top_k > 0)) {
            argp_error(state, "--targets and --top-k are what --teacher is asked for; there is none");
        }
        if (a->beside.top_k == 0) {
            a->beside.top_k = DEFAULT_TOP_K;
        }
        if (a->n_urls == 0 && a->tensors.naming.logits != NULL) {
            argp_error(state, "--name is for hosted models, not for those in a folder");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The labels' file that the usual names put beside the images': t10k-images-idx3-ubyte.gz,
 * t10k-labels-idx1-ubyte.gz. */
static char *labels_beside(struct lb_arena *arena, const char *images) {
    const char *word = strstr(images, "images-idx3");
    char *out = lb_arena_strdup(arena, images);
    if (out != NULL && word != NULL) {
        memcpy(out + (word - images), "labels-idx1", strlen("labels-idx1"));
    }
    return out;
}

/* One DATA argument as a recipe has it; tables: the model reads features. */
static enum lb_status make_entry(const struct arguments *a, const char *argument, bool tables,
                                 struct lb_arena *arena, struct lb_recipe_dataset *out,
                                 struct lb_detail *detail) {
    const char *equals = strchr(argument, '=');
    *out = (struct lb_recipe_dataset){.path = argument};
    if (equals != NULL && equals != argument && !lb_file_exists(argument)) {
        out->path = equals + 1;
        out->tag = lb_arena_printf(arena, "%.*s", (int)(equals - argument), argument);
    } else {
        const char *slash = strrchr(argument, '/');
        out->tag = slash != NULL ? slash + 1 : argument;
    }
    enum lb_status status = LB_OK;
    if (tables && lb_ends_with(out->path, ".csv")) {
        out->type = LB_DATA_CSV;
        out->skip_samples = a->skip;
        out->max_samples = a->max_samples;
    } else if (a->labels != NULL) {
        out->type = LB_DATA_IDX;
    } else {
        status = lb_data_type(&a->data, out, detail);
    }
    if (out->type == LB_DATA_IDX) {
        out->labels = a->labels != NULL ? a->labels : labels_beside(arena, out->path);
        out->skip_samples = a->skip;
        out->max_samples = a->max_samples;
    }
    if (status == LB_OK && !lb_data_features(out->type) && (a->skip > 0 || a->max_samples > 0)) {
        return lb_fail(detail, LB_E_ARG, "%s: --skip-samples and --max-samples are for images, this is text",
                       out->path);
    }
    bool whole = out->tag != NULL && (out->type != LB_DATA_IDX || out->labels != NULL);
    return status == LB_OK && !whole ? lb_fail(detail, LB_E_NOMEM, "out of memory") : status;
}

static enum lb_status make_entries(const struct arguments *a, bool tables, struct lb_arena *arena,
                                   struct lb_recipe_dataset *out, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (unsigned i = 0; i < a->data.n && status == LB_OK; i++) {
        status = make_entry(a, a->data.path[i], tables, arena, &out[i], detail);
    }
    return status;
}

/* ---- output ---- */

static json_t *part_json(const struct lb_eval_part *part, bool text) {
    json_t *object = json_object();
    json_object_set_new(object, text ? "tokens" : "samples", json_integer(part->tokens));
    json_object_set_new(object, "loss", json_real(part->loss)); /* NaN: the key stays away */
    if (text) {
        json_object_set_new(object, "perplexity", json_real(part->perplexity));
        json_object_set_new(object, "bits_per_byte", json_real(part->bits_per_byte));
        json_object_set_new(object, "bytes", json_integer(part->bytes));
    }
    json_object_set_new(object, "error_percent", json_real(part->error_percent));
    return object;
}

static json_t *evaluation_json(const char *model, const struct lb_evaluation *e, int64_t max_length) {
    json_t *object = json_pack("{s:s, s:o}", "model", model, "all", part_json(&e->all, e->text));
    json_t *parts = json_object();
    for (int i = 0; i < e->n_parts; i++) {
        json_object_set_new(parts, e->part[i].name, part_json(&e->part[i], e->text));
    }
    json_object_set_new(object, "parts", parts);
    if (e->text) {
        json_object_set_new(object, "max_length", json_integer(max_length));
        json_object_set_new(object, "balanced_perplexity", json_real(e->balanced_perplexity));
    }
    if (e->n_classes > 0) {
        json_t *classes = json_array();
        for (int i = 0; i < e->n_classes; i++) {
            json_array_append_new(classes, part_json(&e->classes[i], false));
        }
        json_object_set_new(object, "classes", classes);
    }
    json_object_set_new(object, "ece", json_real(e->ece)); /* as above */
    json_object_set_new(object, "seconds", json_real(e->seconds));
    json_object_set_new(object, e->text ? "tokens_per_second" : "samples_per_second",
                        json_real((double)e->all.tokens / e->seconds));
    return object;
}

static void add_size(json_t *object, int64_t parameters, int64_t bytes) {
    json_object_set_new(object, "parameters", json_integer(parameters));
    json_object_set_new(object, "bytes", json_integer(bytes));
}

/* {"9": 1.5}: the classes that were given one. */
static void add_bias(json_t *object, const struct arguments *a) {
    json_t *bias = json_object();
    for (int c = 0; c < a->n_bias; c++) {
        char class[16];
        snprintf(class, sizeof class, "%d", c);
        if (a->bias[c] != 0) {
            json_object_set_new(bias, class, json_real((double)a->bias[c]));
        }
    }
    json_object_set_new(object, "bias", bias);
}

/* "12.34", or "-" where nobody knows. */
static const char *cell(double value, int digits, char out[32]) {
    if (isnan(value)) {
        return "-";
    }
    snprintf(out, 32, "%.*f", digits, value);
    return out;
}

static void print_text_part(const char *name, const struct lb_eval_part *p) {
    char bits[32], error[32];
    printf("%-24s %10lld %12.3f %10s %10s\n", name, (long long)p->tokens, p->perplexity,
           cell(p->bits_per_byte, 4, bits), cell(p->error_percent, 2, error));
}

static void print_text(const struct lb_evaluation *e) {
    printf("%-24s %10s %12s %10s %10s\n", "part", "tokens", "perplexity", "bits/byte", "error %");
    for (int i = 0; i < e->n_parts; i++) {
        print_text_part(e->part[i].name, &e->part[i]);
    }
    if (e->n_parts > 1) {
        print_text_part("all", &e->all);
        printf("balanced perplexity (geometric mean of the parts): %.3f\n", e->balanced_perplexity);
    }
    printf("%.0f tokens/s\n", (double)e->all.tokens / e->seconds);
}

static void print_class_part(const char *name, const struct lb_eval_part *p) {
    char loss[32], error[32];
    printf("%-24s %10lld %10s %10s\n", name, (long long)p->tokens, cell(p->loss, 4, loss),
           cell(p->error_percent, 2, error));
}

/* labels: of texts; NULL: of images. */
static void print_classes(const struct lb_evaluation *e, const struct lb_labels *labels) {
    const char *what = labels != NULL ? "texts" : "images";
    printf("%-24s %10s %10s %10s\n", "part", what, "loss", "error %");
    for (int i = 0; i < e->n_parts; i++) {
        print_class_part(e->part[i].name, &e->part[i]);
    }
    for (int i = 0; i < e->n_classes; i++) {
        char name[32];
        snprintf(name, sizeof name, "class %d", i);
        print_class_part(labels != NULL ? labels->names[i] : name, &e->classes[i]);
    }
    printf("%.0f %s/s\n", (double)e->all.tokens / e->seconds, what);
}

/* ---- the command ---- */

/* --max-length, or what the run was trained with, or what the model takes up to a default. */
static int64_t row_length(const struct arguments *a, const struct lb_model *model) {
    int64_t length = a->max_length > 0 ? a->max_length : lb_run_max_length(a->model);
    return length > 0 ? length : lb_default_length(model);
}

static enum lb_status evaluate(const void *arguments, const struct lb_opened *opened,
                               volatile sig_atomic_t *stop, struct lb_detail *detail) {
    const struct arguments *a = arguments;
    struct lb_recipe_dataset entries[LB_MAX_DATA_FILES];
    struct lb_recipe frame = {.directory = ".", .max_length = row_length(a, opened->model)};
    lb_arena_init(&frame.arena, ENTRIES_BYTES);
    const struct lb_labels *labels = lb_model_labels(opened->model);
    struct lb_evaluate_options options = {
        .rows = a->rows, .stop = stop, .bias = a->bias, .n_bias = a->n_bias};
    struct lb_dataset *data = NULL;
    struct lb_evaluation *e = lb_calloc(1, sizeof *e);
    struct lb_beside_options beside = a->beside;
    struct lb_beside *compared = lb_calloc(1, sizeof *compared);
    beside.protocol = a->protocol;
    beside.token_file = a->token_file;
    bool made = e != NULL && compared != NULL;
    enum lb_status status =
        made ? make_entries(a, lb_model_config(opened->model)->input_size > 0, &frame.arena, entries, detail)
             : lb_fail(detail, LB_E_NOMEM, "out of memory");
    if (status == LB_OK) {
        status = lb_dataset_open(&frame, entries, a->data.n, true, opened->tokenizer,
                                 labels != NULL ? labels->n : 0, stop, &data, detail);
    }
    if (status == LB_OK && labels != NULL) {
        status = lb_dataset_name_labels(data, labels, "DATA", detail);
    }
    if (status == LB_OK) {
        status = lb_evaluate(opened->model, data, &options, e, detail);
    }
    if (status == LB_OK && beside.n > 0) {
        status = lb_eval_beside(&beside, opened, data, frame.max_length, stop, compared, detail);
    }
    if (status == LB_OK && a->json) {
        json_t *object = evaluation_json(a->model, e, frame.max_length);
        add_size(object, lb_model_parameters(opened->model), (int64_t)lb_model_bytes(opened->model));
        if (a->n_bias > 0) {
            add_bias(object, a);
        }
        if (beside.n > 0) {
            json_object_set_new(object, "teachers", lb_beside_json(&beside, compared, data));
        }
        lb_print_json(object, JSON_INDENT(2));
    } else if (status == LB_OK) {
        e->text ? print_text(e) : print_classes(e, labels);
        if (beside.n > 0) {
            lb_beside_print(&beside, compared, data);
        }
    }
    lb_free(e);
    lb_free(compared);
    lb_dataset_destroy(data);
    lb_arena_finish(&frame.arena);
    return status;
}

/* ---- hosted models ---- */

/* The one that is named, which servers that serve none must read as well, or the first server's. */
static enum lb_status hosted_tokenizer(const struct arguments *a, struct lb_teachers *teachers,
                                       struct lb_tokenizer **out, struct lb_detail *detail) {
    struct lb_tokenizer *tokenizer = NULL;
    if (a->tokenizer == NULL) {
        enum lb_status got =
            lb_teachers_open_tokenizer(teachers, 0, "the server's tokenizer_config.json", out, detail);
        if (got == LB_E_UNSUPPORTED) {
            lb_detail_prefix(detail, "--tokenizer is needed");
        }
        return got;
    }
    enum lb_status status = lb_tokenizer_argument(a->tokenizer, &tokenizer, detail);
    for (unsigned k = 0; status == LB_OK && k < lb_teachers_count(teachers); k++) {
        lb_teachers_assume_vocab(teachers, k, lb_tokenizer_vocab_size(tokenizer));
        status = lb_teachers_check_tokenizer(teachers, k, tokenizer, detail);
    }
    if (status != LB_OK) {
        lb_tokenizer_destroy(tokenizer);
        return status;
    }
    *out = tokenizer;
    return LB_OK;
}

/* All are asked with the same ids. */
static enum lb_status check_tokenizers(const struct lb_recipe_teacher *teachers, struct lb_teachers *asked,
                                       struct lb_detail *detail) {
    const char *first = lb_teachers_info(asked, 0)->tokenizer_fingerprint;
    for (unsigned k = 1; k < lb_teachers_count(asked); k++) {
        const char *its = lb_teachers_info(asked, k)->tokenizer_fingerprint;
        if (*first != '\0' && *its != '\0' && strcmp(first, its) != 0) {
            return lb_fail(
                detail, LB_E_MISMATCH,
                "%s has another tokenizer (%.12s) than %s (%.12s): score them one by one, and compare "
                "their bits per byte",
                teachers[k].name, its, teachers[0].name, first);
        }
    }
    return LB_OK;
}

/* k teachers' number of parameters and bytes; k = n: of all of them, which the mixture needs. */
static void add_hosted_size(json_t *object, struct lb_teachers *asked, unsigned k) {
    int64_t parameters = 0, bytes = 0;
    for (unsigned i = 0; i < lb_teachers_count(asked); i++) {
        const struct lb_teacher_info *info = lb_teachers_info(asked, i);
        bool counts = i == k || k == lb_teachers_count(asked);
        parameters += counts ? info->parameters : 0;
        bytes += counts ? info->bytes : 0;
    }
    add_size(object, parameters, bytes);
}

static void print_hosted(const struct arguments *a, const struct lb_recipe_teacher *teachers,
                         struct lb_teachers *asked, const struct lb_labels *labels,
                         const struct lb_evaluation *e, int64_t max_length) {
    unsigned n = a->n_urls > 1 ? a->n_urls + 1 : 1; /* the mixture comes last */
    json_t *list = json_array();
    for (unsigned k = 0; k < n; k++) {
        const char *name = k < a->n_urls ? teachers[k].name : "mean of probabilities";
        if (a->json) {
            json_t *object = evaluation_json(name, &e[k], max_length);
            add_hosted_size(object, asked, k);
            json_array_append_new(list, object);
        } else {
            printf("%s\n", name);
            e[k].text ? print_text(&e[k]) : print_classes(&e[k], labels);
        }
    }
    if (a->json) {
        lb_print_json(json_pack("{s:O}", "models", list), JSON_INDENT(2));
    }
    json_decref(list);
}

/* Rows that all of them read: without classes, with one position more (lb_score). */
static int64_t hosted_length(const struct arguments *a, struct lb_teachers *asked) {
    int64_t more = lb_teachers_info(asked, 0)->num_labels == 0;
    int64_t length = a->max_length > 0 ? a->max_length : LB_DEFAULT_LENGTH - more;
    for (unsigned k = 0; k < lb_teachers_count(asked); k++) {
        int64_t most = lb_teachers_info(asked, k)->max_length;
        length = most > more && most - more < length ? most - more : length;
    }
    return length;
}

/* Tensors' names as a recipe has them; pairs [4 + LB_NAMED_INPUTS]. */
static void name_tensors(const struct lb_tensor_options *from, struct lb_recipe_pair *pairs,
                         struct lb_recipe_teacher *out) {
    const struct lb_naming *naming = &from->naming;
    const struct lb_recipe_pair names[] = {{"input_ids", naming->input_ids},
                                           {"lengths", naming->lengths},
                                           {"attention_mask", naming->attention_mask},
                                           {"logits", naming->logits}};
    out->names = pairs;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].value != NULL) {
            out->names[out->names_count++] = names[i];
        }
    }
    out->extra_inputs = pairs + 4;
    for (size_t i = 0; i < naming->n_extra; i++) {
        out->extra_inputs[out->extra_inputs_count++] =
            (struct lb_recipe_pair){from->extra[i].name, from->extra[i].value};
    }
}

static enum lb_status evaluate_hosted(struct arguments *a, volatile sig_atomic_t *stop,
                                      struct lb_detail *detail) {
    struct lb_recipe_teacher teachers[LB_MAX_TEACHERS];
    struct lb_recipe_pair pairs[4 + LB_NAMED_INPUTS];
    struct lb_recipe_dataset entries[LB_MAX_DATA_FILES];
    struct lb_recipe frame = {.directory = ".",
                              .teachers = teachers,
                              .teachers_count = a->n_urls,
                              .on_lost_teacher = LB_LOST_STOP,
                              .allow_other_kernels = true, /* no replicas, no cache */
                              .teacher_timeout = 60,
                              .give_up_after = 60};
    struct lb_teachers *asked = NULL;
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_dataset *data = NULL;
    struct lb_labels labels = {0}; /* of classifiers of texts */
    struct lb_evaluation *e = lb_calloc(a->n_urls + 1, sizeof *e);
    bool made = e != NULL;
    for (unsigned k = 0; k < a->n_urls; k++) {
        lb_option_hosted(a->urls[k], &teachers[k]);
        teachers[k].token_file = (char *)a->token_file;
        teachers[k].protocol = a->protocol;
        name_tensors(&a->tensors, pairs, &teachers[k]);
    }
    lb_arena_init(&frame.arena, ENTRIES_BYTES);
    enum lb_status status = made ? make_entries(a, false, &frame.arena, entries, detail)
                                 : lb_fail(detail, LB_E_NOMEM, "out of memory");
    status = status == LB_OK ? lb_teachers_open_recipe(&frame, stop, &asked, detail) : status;
    frame.max_length = status == LB_OK ? hosted_length(a, asked) : 0;
    status = status == LB_OK ? check_tokenizers(teachers, asked, detail) : status;
    if (status == LB_OK && lb_teachers_info(asked, 0)->num_labels > 0 &&
        lb_teachers_info(asked, 0)->input_size == 0) {
        status = lb_info_labels(lb_teachers_info(asked, 0), &labels);
    }
    status = status == LB_OK ? hosted_tokenizer(a, asked, &tokenizer, detail) : status;
    status = status == LB_OK
                 ? lb_dataset_open(&frame, entries, a->data.n, true, tokenizer, labels.n, stop, &data, detail)
                 : status;
    if (status == LB_OK && labels.n > 0) {
        status = lb_dataset_name_labels(data, &labels, "DATA", detail);
    }
    if (status == LB_OK && lb_dataset_features(data) > 0) {
        status = lb_fail(detail, LB_E_UNSUPPORTED,
                         "hosted models are scored on text; give the classifier's folder for images");
    }
    status = status == LB_OK ? lb_score(asked, data, e, detail) : status;
    if (status == LB_OK) {
        print_hosted(a, teachers, asked, labels.n > 0 ? &labels : NULL, e, frame.max_length);
    }
    lb_teachers_close(asked); /* before what its questions point to */
    lb_dataset_destroy(data);
    lb_labels_finish(&labels);
    lb_tokenizer_destroy(tokenizer);
    lb_free(e);
    lb_arena_finish(&frame.arena);
    return status;
}

int lb_cmd_eval(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"max-length", 'l', "N", 0,
         "Tokens in a row (default: what the run was trained with, else up to 1024)", 0},
        {"field", KEY_FIELD, "NAME", 0, "Key of the text in JSON lines (default: text)", 0},
        {"labels", KEY_LABELS, "FILE", 0, "IDX labels (default: beside the images, by the usual names)", 0},
        {"skip-samples", KEY_SKIP, "N", 0, "Images to leave out at the start (default 0)", 0},
        {"max-samples", KEY_SAMPLES, "N", 0, "Most images; 0: all (default 0)", 0},
        {"bias", KEY_BIAS, "CLASS=VALUE", 0,
         "Add VALUE to a class's logit, for classifiers; may be repeated (default: nothing)", 0},
        {"batch-size", KEY_ROWS, "N", 0, "Rows or images computed together (default: about 2,048 tokens)", 0},
        LB_TOKENIZER_OPTION,
        {"token-file", KEY_TOKEN, "FILE", 0, "Bearer token for hosted models", 0},
        {"protocol", KEY_PROTOCOL, "NAME", 0, "How hosted models are asked, as in a recipe (default: oip)",
         0},
        {"teacher", KEY_TEACHER, "URL[#NAME]", 0,
         "Compare MODEL with a teacher (http://..., unix:PATH, local:PATH): how often their likeliest is the "
         "same, and KL(teacher, model); may be repeated",
         0},
        {"targets", KEY_TARGETS, "NAME", 0,
         "What --teacher sends, as in a recipe: final_hidden, logits, topk (default: final_hidden; logits of "
         "images)",
         0},
        {"top-k", KEY_TOP_K, "N", 0, "Length of topk's lists (default: 64)", 0},
        {"name", KEY_NAME, "KEY=TENSOR", 0, LB_NAME_HELP, 0},
        {"extra-input", KEY_EXTRA, "TENSOR=VALUE", 0, LB_EXTRA_INPUT_HELP, 0},
        {"json", 'j', NULL, 0, "Print the result as JSON", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "MODEL DATA...\nURL[#NAME]... DATA...",
        .doc = "Measures how well a model predicts texts (one a line, or .jsonl) or images (IDX).\v"
               "MODEL is a Hugging Face folder, a .gguf file or a run folder. DATA is PATH or NAME=PATH; "
               "files of the same NAME are "
               "one part. The balanced perplexity is the geometric mean of the parts'. With URLs "
               "(http://HOST:PORT) the text is "
               "scored by the daemons there, several also by the mean of their probabilities."};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.n_urls == 0) {
        return lb_with_opened(a.model, a.tokenizer, evaluate, &a, stop);
    }
    struct lb_detail detail = {0};
    enum lb_status status = evaluate_hosted(&a, stop, &detail);
    return status == LB_OK ? 0 : lb_command_failed(&detail, status);
}
