/* limbeck tokenizer trim MODEL --corpus FILE... --size N --out DIR */
#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/mem.h"
#include "common/text/trim.h"
#include "trainer/command/commands.h"
#include "trainer/command/trimmed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    const char *action, *model, *out;
    char **corpus; /* [n_corpus] */
    int n_corpus;
    int64_t size;
    bool json;
};

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'c':
        a->corpus[a->n_corpus++] = text;
        return 0;
    case 'n':
        a->size = lb_option_int(state, "--size", text, 1, INT32_MAX - 1);
        return 0;
    case 'o':
        a->out = text;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0 && strcmp(text, "trim") != 0) {
            argp_error(state, "there is no \"%s\" of tokenizers; trim is what there is", text);
        } else if (state->arg_num > 1) {
            a->corpus[a->n_corpus++] = text; /* --corpus a b c */
        }
        a->action = state->arg_num == 0 ? text : a->action;
        a->model = state->arg_num == 1 ? text : a->model;
        return 0;
    case ARGP_KEY_END:
        if (a->model == NULL) {
            argp_usage(state);
        } else if (a->n_corpus == 0 || a->size == 0 || a->out == NULL) {
            argp_error(state, "%s is missing",
                       a->n_corpus == 0 ? "--corpus"
                       : a->size == 0   ? "--size"
                                        : "--out");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What a tokenizer makes of the corpus. */
struct reading {
    const struct lb_tokenizer *tokenizer;
    uint64_t *counts; /* [vocab_size] NULL: not wanted */
    uint64_t tokens, bytes;
};

static enum lb_status read_file(struct reading *r, const char *path, volatile sig_atomic_t *stop,
                                struct lb_detail *detail) {
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    enum lb_status status = LB_OK;
    if (file == NULL) {
        return lb_fail(detail, LB_E_NOTFOUND, "%s: cannot be opened", path);
    }
    for (long number = 1; status == LB_OK && !*stop && (len = getline(&line, &cap, file)) >= 0; number++) {
        struct lb_ids ids = {0};
        size_t n = (size_t)len;
        n -= n > 0 && line[n - 1] == '\n';
        status = lb_tokenizer_encode(r->tokenizer, line, n, false, &ids, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "%s: line %ld", path, number);
        }
        for (size_t i = 0; status == LB_OK && r->counts != NULL && i < ids.len; i++) {
            r->counts[ids.data[i]]++;
        }
        r->tokens += ids.len;
        r->bytes += n;
        lb_free(ids.data);
    }
    if (status == LB_OK && ferror(file)) {
        status = lb_fail(detail, LB_E_IO, "%s: cannot be read", path);
    }
    free(line);
    fclose(file);
    return status == LB_OK && *stop ? LB_E_CANCELLED : status;
}

static enum lb_status read_corpus(struct reading *r, const struct arguments *a, volatile sig_atomic_t *stop,
                                  struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (int i = 0; i < a->n_corpus && status == LB_OK; i++) {
        status = read_file(r, a->corpus[i], stop, detail);
    }
    if (status == LB_OK && r->tokens == 0) {
        status = lb_fail(detail, LB_E_ARG, "--corpus holds no text");
    }
    return status;
}

static void tell(const struct arguments *a, const struct reading *before, const struct reading *after) {
    double whole = (double)before->tokens / (double)before->bytes,
           less = (double)after->tokens / (double)after->bytes;
    int32_t n = lb_tokenizer_vocab_size(before->tokenizer), m = lb_tokenizer_vocab_size(after->tokenizer);
    if (a->json) {
        lb_print_json(json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:f, s:f, s:f}", "out", a->out,
                                "tokens_before", n, "tokens", m, "corpus_bytes", (json_int_t)before->bytes,
                                "corpus_tokens_before", (json_int_t)before->tokens, "corpus_tokens",
                                (json_int_t)after->tokens, "tokens_per_byte_before", whole, "tokens_per_byte",
                                less, "growth", less / whole - 1),
                      0);
        return;
    }
    printf("%s: %d of %d tokens; the corpus has %.4f tokens a byte (before: %.4f), %.1f %% more\n", a->out, m,
           n, less, whole, 100 * (less / whole - 1));
    if (m < a->size) {
        printf("the corpus uses no more tokens than these; --size %lld was not reached\n",
               (long long)a->size);
    }
}

static enum lb_status trim(const struct arguments *a, volatile sig_atomic_t *stop, struct lb_detail *detail) {
    struct lb_tokenizer *full = NULL, *trimmed = NULL;
    struct lb_vocab_map *map = NULL;
    struct reading before = {0}, after = {0};
    enum lb_status status = lb_trimmed_check(a->out, detail);
    status = status == LB_OK ? lb_tokenizer_argument(a->model, &full, detail) : status;
    if (status == LB_OK) {
        before.tokenizer = full;
        before.counts = lb_calloc((size_t)lb_tokenizer_vocab_size(full), sizeof *before.counts);
        status = before.counts != NULL ? read_corpus(&before, a, stop, detail)
                                       : lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    status = status == LB_OK
                 ? lb_tokenizer_trim(full, before.counts, (int32_t)a->size, &trimmed, &map, detail)
                 : status;
    if (status == LB_OK) {
        after.tokenizer = trimmed;
        status = read_corpus(&after, a, stop, detail);
    }
    status = status == LB_OK ? lb_trimmed_write(a->model, full, trimmed, map, a->out, detail) : status;
    if (status == LB_OK) {
        tell(a, &before, &after);
    }
    lb_free(before.counts);
    lb_vocab_map_destroy(map);
    lb_tokenizer_destroy(trimmed);
    lb_tokenizer_destroy(full);
    return status;
}

int lb_cmd_tokenizer(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"corpus", 'c', "FILE", 0,
         "Text whose tokens are counted, one text a line (again for more, or more names)", 0},
        {"size", 'n', "N", 0, "How many tokens to keep at most", 0},
        {"out", 'o', "DIR", 0, "Folder to write", 0},
        {"json", 'j', NULL, 0, "Print the figures as one JSON object", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "trim MODEL",
        .doc =
            "Makes a smaller tokenizer of the model's: the tokens that the corpus needs most, with all that "
            "they are merged from, special tokens and bytes, so that any text can still be read.\vA recipe "
            "names DIR as its tokenizer; its teachers, which have the whole one, are asked with their own "
            "ids (DIR/vocab_map.json) and their answers cut to what the student has. MODEL is what limbeck "
            "tokenize takes."};
    struct arguments a = {0};
    struct lb_detail detail = {0};
    a.corpus = lb_calloc((size_t)argc + 1, sizeof *a.corpus);
    if (a.corpus == NULL) {
        return lb_command_failed(&detail, LB_E_NOMEM);
    }
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    enum lb_status status = trim(&a, stop, &detail);
    lb_free(a.corpus);
    return status == LB_OK ? 0 : lb_command_failed(&detail, status);
}
