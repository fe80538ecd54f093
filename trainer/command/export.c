/* limbeck export RUN|MODEL --format hf|gguf --out PATH */
#include "common/base/json.h"
#include "common/base/log.h"
#include "trainer/command/commands.h"
#include "trainer/run/card.h"
#include "trainer/run/export.h"

#include <stdio.h>
#include <string.h>

#define CARD_BYTES ((size_t)16 << 20)

struct arguments {
    const char *model, *out, *tokenizer, *dtype_name;
    int format; /* -1: not given */
    enum lb_dtype dtype;
    bool json, no_vocabulary;
};

/* In the order of enum lb_export_format. */
static const char *const formats[] = {"hf", "gguf", NULL};
_Static_assert(LB_EXPORT_HF == 0 && LB_EXPORT_GGUF == 1, "formats are found by their number");

/* What GGUF files are written with, in small letters. */
static char dtype_texts[LB_DTYPES][8];
static const char *dtype_names[LB_DTYPES + 1];
static enum lb_dtype dtypes[LB_DTYPES];

static void list_dtypes(void) {
    size_t n = 0;
    for (int d = 0; d < LB_DTYPES; d++) {
        if (lb_dtype_ggml((enum lb_dtype)d) >= 0 && lb_dtype_narrows((enum lb_dtype)d)) {
            snprintf(dtype_texts[n], sizeof dtype_texts[n], "%s", lb_dtype_name((enum lb_dtype)d));
            for (char *c = dtype_texts[n]; *c != '\0'; c++) {
                *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
            }
            dtype_names[n] = dtype_texts[n];
            dtypes[n++] = (enum lb_dtype)d;
        }
    }
}

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'f':
        a->format = lb_option_name(state, "--format", text, formats);
        return 0;
    case 'o':
        a->out = text;
        return 0;
    case 'd':
        a->dtype = dtypes[lb_option_name(state, "--dtype", text, dtype_names)];
        a->dtype_name = text;
        return 0;
    case 'k':
        a->tokenizer = text;
        return 0;
    case 'n':
        a->no_vocabulary = true;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0) {
            argp_usage(state);
        }
        a->model = text;
        return 0;
    case ARGP_KEY_END:
        if (a->model == NULL || a->out == NULL || a->format < 0) {
            argp_error(state, "MODEL, --format and --out are needed");
        }
        if (a->format == LB_EXPORT_HF && lb_dtype_block(a->dtype) > 1) {
            argp_error(state, "--dtype %s is for --format gguf", a->dtype_name);
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* README.md: that of the folder it comes from, if Limbeck wrote it, else a short one. */
static enum lb_status make_card(const struct lb_opened *opened, const char *name, struct lb_buf *out,
                                struct lb_detail *detail) {
    const struct lb_card card = {.name = name, .model = opened->model};
    enum lb_status status = lb_card_again(opened->path, out, detail);
    return status == LB_OK && out->len == 0 ? lb_card_write(&card, out, detail) : status;
}

int lb_cmd_export(int argc, char **argv, volatile sig_atomic_t *stop) {
    static char dtype_help[160] = "Numbers of the matrices (default f32; q... for gguf only): ";
    list_dtypes();
    lb_list_names(dtype_help, sizeof dtype_help, dtype_names);
    static const struct argp_option options[] = {
        {"format", 'f', "hf|gguf", 0,
         "A Hugging Face folder (safetensors, config.json, tokenizer) or a GGUF file", 0},
        {"out", 'o', "PATH", 0,
         "Where to write it; an earlier export there is replaced once the new one is whole, anything else "
         "never",
         0},
        {"dtype", 'd', "NAME", 0, dtype_help, 0},
        LB_TOKENIZER_OPTION,
        {"no-vocabulary", 'n', NULL, 0, "Write the model without its tokenizer", 0},
        {"json", 'j', NULL, 0, "Print the result as JSON", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "RUN|MODEL",
        .doc = "Writes a model in a format that other tools load, opens it again and compares logits and "
               "token ids.\v"
               "RUN|MODEL is a run folder (its student), a Hugging Face folder or a .gguf file."};
    struct arguments a = {.format = -1, .dtype = LB_F32};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    struct lb_detail detail = {0};
    struct lb_opened opened;
    struct lb_notes notes = {0};
    struct lb_buf readme;
    double difference = 0;
    lb_buf_init(&readme, CARD_BYTES);
    bool vocabulary = false;
    enum lb_status status = a.no_vocabulary ? lb_opened_model(&opened, a.model, &detail)
                                            : lb_opened_init(&opened, a.model, a.tokenizer, &detail);
    if (status == LB_OK) {
        vocabulary = opened.tokenizer != NULL;
        status = make_card(&opened, a.out, &readme, &detail);
        status = status != LB_OK ? status
                                 : lb_export(opened.model, opened.tokenizer, (enum lb_export_format)a.format,
                                             a.dtype, a.out, readme.data, stop, &difference, &notes, &detail);
        lb_opened_finish(&opened);
    }
    lb_buf_finish(&readme);
    lb_log_notes("export_note", NULL, &notes);
    if (status != LB_OK) {
        return lb_command_failed(&detail, status);
    }
    if (a.json) {
        json_t *object = json_pack("{s:s, s:s, s:f}", "out", a.out, "dtype", lb_dtype_name(a.dtype),
                                   "largest_difference", difference);
        lb_print_json(object, 0);
    } else {
        printf("%s: written, reopened, logits agree (largest difference %.2g of the largest logit)%s\n",
               a.out, difference, vocabulary ? ", token ids are the same" : "");
    }
    return 0;
}
