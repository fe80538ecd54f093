/* limbeck embed MODEL <TEXTS */
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/batch.h"
#include "common/nn/tape.h"
#include "trainer/command/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((size_t)1 << 30)
#define BATCH_ROWS 2048
#define TAPE_BYTES ((size_t)8 << 30)
#define BLOCK 256 /* texts that are tokenised before they are computed */

struct arguments {
    const char *model, *tokenizer;
    int64_t max_length;
    bool time;
};

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'k':
        a->tokenizer = text;
        return 0;
    case 'm':
        a->max_length = lb_option_int(state, "--max-length", text, 1, 1 << 24);
        return 0;
    case 't':
        a->time = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0) {
            argp_usage(state);
        }
        a->model = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The texts, one a line, and what is at work on them. */
struct embedding {
    const struct lb_model *model;
    const struct lb_tokenizer *tokenizer;
    int64_t max_length, n, tokens;
    char *text;
    size_t len;
    bool print;
    struct lb_arena memory;
    struct lb_model_batch batch;
    struct lb_tape *tape;
    struct lb_ids ids[BLOCK];
};

/* A line's ids between the template's tokens, of a long one the first ones. */
static enum lb_status encode(const struct embedding *e, const char *line, size_t len, struct lb_ids *ids,
                             struct lb_detail *detail) {
    const struct lb_ids *after = lb_tokenizer_after(e->tokenizer);
    ids->len = 0;
    enum lb_status status = lb_tokenizer_encode(e->tokenizer, line, len, true, ids, detail);
    if (status == LB_OK && (int64_t)ids->len > e->max_length) {
        ids->len = (size_t)e->max_length;
        memcpy(ids->data + ids->len - after->len, after->data, after->len * sizeof *after->data);
    }
    if (status == LB_OK && ids->len == 0) {
        status = lb_fail(detail, LB_E_ARG, "has no token");
    }
    return status;
}

/* The next lines, at most BLOCK, tokenised; *out_n of them, 0 at the end. */
static enum lb_status encode_block(struct embedding *e, const char **at, int *out_n,
                                   struct lb_detail *detail) {
    const char *lines[BLOCK], *end = e->text + e->len;
    size_t lens[BLOCK];
    struct lb_detail why[BLOCK] = {{0}};
    int n = 0, bad = -1;
    for (; n < BLOCK && *at < end; n++) {
        const char *stop = memchr(*at, '\n', (size_t)(end - *at));
        lines[n] = *at;
        lens[n] = (size_t)((stop != NULL ? stop : end) - *at);
        *at = stop != NULL ? stop + 1 : end;
    }
    enum lb_status status[BLOCK];
#pragma omp parallel for schedule(dynamic, 8)
    for (int i = 0; i < n; i++) {
        status[i] = encode(e, lines[i], lens[i], &e->ids[i], &why[i]);
    }
    for (int i = n - 1; i >= 0; i--) {
        bad = status[i] != LB_OK ? i : bad;
    }
    *out_n = n;
    return bad < 0
               ? LB_OK
               : lb_fail(detail, status[bad], "line %lld: %s", (long long)(e->n + bad + 1), why[bad].text);
}

static void print_rows(const struct lb_value *rows) {
    for (int64_t s = 0; s < rows->rows; s++) {
        for (int64_t j = 0; j < rows->cols; j++) {
            printf("%s%.9g", j == 0 ? "[" : ", ", (double)rows->data[s * rows->cols + j]);
        }
        puts("]");
    }
}

/* Computes what the batch holds, and empties it. */
static enum lb_status compute(struct embedding *e) {
    struct lb_input in = lb_model_batch_input(&e->batch);
    lb_tape_begin(e->tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(e->model, e->tape, &in, NULL, 0, NULL);
    const struct lb_value *rows = h != NULL ? lb_model_pool(e->model, e->tape, h) : NULL;
    if (rows == NULL) {
        return lb_tape_status(e->tape) != LB_OK ? lb_tape_status(e->tape) : LB_E_INTERNAL;
    }
    if (e->print) {
        print_rows(rows);
    }
    e->n += e->batch.n_seqs;
    e->tokens += e->batch.n_rows;
    lb_model_batch_clear(&e->batch);
    return LB_OK;
}

static enum lb_status embed(struct embedding *e, volatile sig_atomic_t *stop, struct lb_detail *detail) {
    int64_t most = e->max_length > BATCH_ROWS ? e->max_length : BATCH_ROWS;
    const char *at = e->text;
    enum lb_status status =
        e->tape != NULL && lb_model_batch_init(&e->batch, &e->memory, BLOCK, most, 0, false) ? LB_OK
                                                                                             : LB_E_NOMEM;
    lb_model_batch_clear(&e->batch);
    for (int n = 1; status == LB_OK && n > 0;) {
        status = *stop ? LB_E_CANCELLED : encode_block(e, &at, &n, detail);
        for (int i = 0; status == LB_OK && i < n; i++) {
            int64_t rows = (int64_t)e->ids[i].len;
            if (e->batch.n_rows + rows > most) {
                status = compute(e);
            }
            lb_model_batch_add_ids(&e->batch, e->ids[i].data, NULL, rows);
        }
        if (status == LB_OK && e->batch.n_seqs > 0) {
            status = compute(e);
        }
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "embedding: %s", lb_status_name(status));
}

static enum lb_status read_texts(struct embedding *e, struct lb_detail *detail) {
    struct lb_buf buf;
    lb_buf_init(&buf, MAX_TEXT);
    enum lb_status status = lb_read_stdin(&buf, detail);
    e->text = lb_buf_take(&buf, &e->len);
    lb_buf_finish(&buf);
    return status;
}

static enum lb_status run(const void *arguments, const struct lb_opened *opened, volatile sig_atomic_t *stop,
                          struct lb_detail *detail) {
    const struct arguments *a = arguments;
    int64_t most = lb_model_config(opened->model)->max_position_embeddings;
    if (lb_model_sentence(opened->model)->kind == LB_POOL_NONE || opened->tokenizer == NULL) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: no encoder with a modules.json that says how a sentence becomes one vector",
                       a->model);
    }
    int64_t around =
        (int64_t)(lb_tokenizer_before(opened->tokenizer)->len + lb_tokenizer_after(opened->tokenizer)->len);
    struct embedding *e = lb_calloc(1, sizeof *e);
    if (e == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    e->model = opened->model;
    e->tokenizer = opened->tokenizer;
    e->max_length = a->max_length > 0 && a->max_length < most ? a->max_length : most;
    e->print = !a->time;
    e->tape = lb_tape_create(TAPE_BYTES);
    lb_arena_init(&e->memory, TAPE_BYTES);
    enum lb_status status = e->max_length > around
                                ? read_texts(e, detail)
                                : lb_fail(detail, LB_E_ARG,
                                          "--max-length %lld leaves no room between the %lld "
                                          "tokens around a text",
                                          (long long)e->max_length, (long long)around);
    uint64_t start = lb_now_ns();
    status = status == LB_OK ? embed(e, stop, detail) : status;
    double seconds = (double)(lb_now_ns() - start) / (double)LB_SECOND_NS;
    if (status == LB_OK && a->time) {
        lb_print_json(json_pack("{s:I, s:I, s:f, s:f, s:I}", "texts", (json_int_t)e->n, "tokens",
                                (json_int_t)e->tokens, "seconds", seconds, "texts_per_second",
                                seconds > 0 ? (double)e->n / seconds : 0.0, "parameters",
                                (json_int_t)lb_model_parameters(e->model)),
                      0);
    }
    for (int i = 0; i < BLOCK; i++) {
        lb_free(e->ids[i].data);
    }
    lb_free(e->text);
    lb_tape_destroy(e->tape);
    lb_arena_finish(&e->memory);
    lb_free(e);
    return status;
}

int lb_cmd_embed(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"max-length", 'm', "N", 0, "Read at most N tokens of a text (default: what the model reads)", 0},
        LB_TOKENIZER_OPTION,
        {"time", 't', NULL, 0,
         "Print no vectors but one JSON object: texts, tokens, seconds from text to vector", 0},
        {0}};
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .args_doc = "MODEL",
                                     .doc = "Makes a vector of each line of standard input: a JSON array a "
                                            "line.\vMODEL is a sentence encoder's folder or a run folder."};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    return lb_with_opened(a.model, a.tokenizer, run, &a, stop);
}
