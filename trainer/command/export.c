/* limbeck export RUN|MODEL --format hf|gguf --out PATH */
#include "common/base/json.h"
#include "trainer/command/commands.h"
#include "trainer/run/export.h"

#include <stdio.h>
#include <string.h>

struct arguments {
    const char *model, *out, *tokenizer;
    int format; /* -1: not given */
    enum lb_dtype dtype;
    bool json;
};

static enum lb_dtype dtype_of(const struct argp_state *state, const char *text) {
    static const struct {
        const char *name;
        enum lb_dtype dtype;
    } names[] = {{"f32", LB_F32}, {"f16", LB_F16}, {"bf16", LB_BF16}, {"q8_0", LB_Q8_0}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i].name) == 0) {
            return names[i].dtype;
        }
    }
    argp_error(state, "--dtype: \"%s\" is not one of f32, f16, bf16, q8_0", text);
    return LB_F32;
}

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'f':
        a->format =
            strcmp(text, "hf") == 0 ? LB_EXPORT_HF : (strcmp(text, "gguf") == 0 ? LB_EXPORT_GGUF : -1);
        if (a->format < 0) {
            argp_error(state, "--format: \"%s\" is not one of hf, gguf", text);
        }
        return 0;
    case 'o':
        a->out = text;
        return 0;
    case 'd':
        a->dtype = dtype_of(state, text);
        return 0;
    case 'k':
        a->tokenizer = text;
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
        if (a->format == LB_EXPORT_HF && a->dtype == LB_Q8_0) {
            argp_error(state, "--dtype q8_0 is for --format gguf");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int lb_cmd_export(int argc, char **argv, volatile sig_atomic_t *stop) {
    (void)stop;
    static const struct argp_option options[] = {
        {"format", 'f', "hf|gguf", 0,
         "A Hugging Face folder (safetensors, config.json, tokenizer) or a GGUF file", 0},
        {"out", 'o', "PATH", 0,
         "Where to write it; an earlier export there is replaced once the new one is whole, anything else "
         "never",
         0},
        {"dtype", 'd', "NAME", 0, "Numbers of the matrices: f32, f16, bf16, or for gguf q8_0 (default f32)",
         0},
        {"tokenizer", 'k', "PATH", 0, "tokenizer.json, or its folder (default: the model's)", 0},
        {"json", 'j', NULL, 0, "Print the result as JSON", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "RUN|MODEL",
        .doc = "Writes a model in a format that other tools load, opens it again and compares the logits.\v"
               "RUN|MODEL is a run folder (its student), a Hugging Face folder or a .gguf file."};
    struct arguments a = {.format = -1, .dtype = LB_F32};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    struct lb_detail detail = {0};
    struct lb_opened opened;
    double difference = 0;
    enum lb_status status = lb_opened_init(&opened, a.model, a.tokenizer, &detail);
    if (status == LB_OK) {
        status = lb_export(opened.model, opened.tokenizer, (enum lb_export_format)a.format, a.dtype, a.out,
                           &difference, &detail);
        lb_opened_finish(&opened);
    }
    if (status != LB_OK) {
        return lb_command_failed(&detail, status);
    }
    if (a.json) {
        json_t *object = json_pack("{s:s, s:s, s:f}", "out", a.out, "dtype", lb_dtype_name(a.dtype),
                                   "largest_difference", difference);
        json_dumpf(object, stdout, 0);
        putchar('\n');
        json_decref(object);
    } else {
        printf("%s: written, reopened, logits agree (largest difference %.2g of the largest logit)\n", a.out,
               difference);
    }
    return 0;
}
