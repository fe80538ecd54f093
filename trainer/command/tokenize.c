/* limbeck tokenize MODEL [TEXT] */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/command/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    const char *model, *text;
    bool json, special, count;
};

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'j':
        a->json = true;
        return 0;
    case 's':
        a->special = true;
        return 0;
    case 'c':
        a->count = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1) {
            argp_usage(state);
        }
        *(state->arg_num == 0 ? &a->model : &a->text) = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void print_json(const struct lb_tokenizer *tokenizer, const struct lb_ids *ids) {
    json_t *list = json_array(), *names = json_array();
    for (size_t i = 0; i < ids->len; i++) {
        const char *name = lb_tokenizer_token(tokenizer, ids->data[i]);
        json_array_append_new(list, json_integer(ids->data[i]));
        json_array_append_new(names, json_string(name != NULL ? name : ""));
    }
    json_t *object = json_pack("{s:o, s:o}", "ids", list, "tokens", names);
    lb_print_json(object, JSON_ENSURE_ASCII);
}

/* table: one token a line, with its written form; else the ids in one line. */
static void print_plain(const struct lb_tokenizer *tokenizer, const struct lb_ids *ids, bool table) {
    for (size_t i = 0; i < ids->len; i++) {
        if (table) {
            printf("%d\t%s\n", ids->data[i], lb_tokenizer_token(tokenizer, ids->data[i]));
        } else {
            printf("%s%d", i > 0 ? " " : "", ids->data[i]);
        }
    }
    if (!table) {
        putchar('\n');
    }
}

static enum lb_status tokenize(const struct arguments *a, const struct lb_tokenizer *tokenizer,
                               const char *text, size_t len, size_t *total, struct lb_detail *detail) {
    struct lb_ids ids = {0};
    enum lb_status status = lb_tokenizer_encode(tokenizer, text, len, a->special, &ids, detail);
    if (status == LB_OK) {
        *total += ids.len;
        if (a->json) {
            print_json(tokenizer, &ids);
        } else if (!a->count) {
            print_plain(tokenizer, &ids, a->text != NULL);
        }
    }
    lb_free(ids.data);
    return status;
}

/* Standard input line by line. */
static enum lb_status tokenize_lines(const struct arguments *a, const struct lb_tokenizer *tokenizer,
                                     size_t *total, volatile sig_atomic_t *stop, struct lb_detail *detail) {
    char *line = NULL;
    size_t cap = 0;
    enum lb_status status = LB_OK;
    ssize_t len;
    for (long number = 1; status == LB_OK && !*stop && (len = getline(&line, &cap, stdin)) >= 0; number++) {
        size_t n = (size_t)len;
        n -= n > 0 && line[n - 1] == '\n';
        status = tokenize(a, tokenizer, line, n, total, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "line %ld", number);
        }
    }
    free(line);
    return status;
}

int lb_cmd_tokenize(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "Print {\"ids\": [...], \"tokens\": [...]}, one line per text", 0},
        {"special", 's', NULL, 0, "Add the special tokens that the tokenizer puts around a text", 0},
        {"count", 'c', NULL, 0, "Print the number of tokens only", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "MODEL [TEXT]",
        .doc = "Shows TEXT, or each line of standard input, as the model's tokenizer cuts it.\vMODEL is a "
               "Hugging Face folder, "
               "a .gguf file (a tokenizer.json beside it stands above its own vocabulary), a run folder, "
               "or a tokenizer.json."};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    struct lb_detail detail = {0};
    struct lb_tokenizer *tokenizer = NULL;
    size_t total = 0;
    enum lb_status status = lb_tokenizer_argument(a.model, &tokenizer, &detail);
    if (status == LB_OK) {
        status = a.text != NULL ? tokenize(&a, tokenizer, a.text, strlen(a.text), &total, &detail)
                                : tokenize_lines(&a, tokenizer, &total, stop, &detail);
    }
    if (status == LB_OK && a.count) {
        printf("%zu\n", total);
    }
    lb_tokenizer_destroy(tokenizer);
    return status == LB_OK && !*stop ? 0
                                     : lb_command_failed(&detail, status != LB_OK ? status : LB_E_CANCELLED);
}
