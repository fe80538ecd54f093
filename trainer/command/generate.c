/* limbeck generate MODEL --prompt TEXT */
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/generate.h"
#include "trainer/command/commands.h"

#include <stdio.h>
#include <string.h>

#define MAX_TEXT ((size_t)64 << 20)

struct arguments {
    const char *model, *prompt, *tokenizer;
    struct lb_generate_args generate;
    bool json;
};

enum { KEY_TOP_K = 256, KEY_TOP_P, KEY_SEED };

static error_t parse(int key, char *text, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case 'p':
        a->prompt = text;
        return 0;
    case 'n':
        a->generate.max_new_tokens = lb_option_int(state, "--max-new-tokens", text, 1, 1 << 24);
        return 0;
    case 't':
        a->generate.temperature = lb_option_number(state, "--temperature", text, 0, 100);
        return 0;
    case KEY_TOP_K:
        a->generate.top_k = lb_option_int(state, "--top-k", text, 0, 1 << 24);
        return 0;
    case KEY_TOP_P:
        a->generate.top_p = lb_option_number(state, "--top-p", text, 0, 1);
        return 0;
    case KEY_SEED:
        a->generate.seed = (uint64_t)lb_option_int(state, "--seed", text, 0, INT64_MAX);
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
        if (a->model == NULL || a->prompt == NULL) {
            argp_error(state, "MODEL and --prompt are needed");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Text as it grows; whole characters are printed as soon as they are there. */
struct writing {
    const struct lb_tokenizer *tokenizer;
    volatile sig_atomic_t *stop;
    bool print;
    struct lb_buf text;
    size_t printed;
    struct lb_ids ids; /* what was written */
};

/* Bytes at the end of text that begin a character without ending it (0 to 3). */
static size_t unfinished_bytes(const char *text, size_t len) {
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)text[len - back];
        if ((c & 0xc0) != 0x80) { /* the character's first byte */
            size_t need = c >= 0xf0 ? 4 : (c >= 0xe0 ? 3 : (c >= 0xc0 ? 2 : 1));
            return need > back ? back : 0;
        }
    }
    return 0;
}

static void print_new(struct writing *w, bool all) {
    size_t end = w->text.len - (all ? 0 : unfinished_bytes(w->text.data, w->text.len));
    if (w->print && end > w->printed) {
        fwrite(w->text.data + w->printed, 1, end - w->printed, stdout);
        fflush(stdout);
    }
    w->printed = end > w->printed ? end : w->printed;
}

/* lb_generate_fn */
static enum lb_status take(void *context, int32_t id) {
    struct writing *w = context;
    if (*w->stop) {
        return LB_E_CANCELLED;
    }
    enum lb_status status = lb_ids_push(&w->ids, id);
    size_t len = 0;
    const char *bytes = lb_tokenizer_bytes(w->tokenizer, id, &len);
    if (status == LB_OK && bytes != NULL && !lb_tokenizer_is_special(w->tokenizer, id)) {
        status = lb_buf_append(&w->text, bytes, len);
        if (status == LB_OK) {
            print_new(w, false);
        }
    }
    return status;
}

/* The decoder's text, not the bytes as they came: what is no UTF-8 (a character cut in two) cannot stand in
 * JSON. */
static enum lb_status print_json(const struct arguments *a, const struct writing *w, int64_t prompt_tokens,
                                 double seconds, const char *reason, struct lb_detail *detail) {
    struct lb_buf text;
    lb_buf_init(&text, MAX_TEXT);
    enum lb_status status = lb_tokenizer_decode(w->tokenizer, w->ids.data, w->ids.len, true, &text, detail);
    if (status == LB_OK) {
        json_t *object = json_pack("{s:s, s:s%, s:I, s:I, s:f, s:f, s:s}", "prompt", a->prompt, "text",
                                   text.data != NULL ? text.data : "", text.len, "prompt_tokens",
                                   (json_int_t)prompt_tokens, "completion_tokens", (json_int_t)w->ids.len,
                                   "seconds", seconds, "tokens_per_second",
                                   seconds > 0 ? (double)w->ids.len / seconds : 0.0, "finish_reason", reason);
        lb_print_json(object, JSON_ENSURE_ASCII);
    }
    lb_buf_finish(&text);
    return status;
}

/* The prompt's ids behind what the tokenizer puts before a text; what it puts behind one comes when the text
 * is at its end. An empty prompt without that begins with bos, or behind the end of another text. */
static enum lb_status encode_prompt(const struct arguments *a, const struct lb_tokenizer *tokenizer,
                                    struct lb_ids *out, struct lb_detail *detail) {
    const struct lb_ids *before = lb_tokenizer_before(tokenizer);
    enum lb_status status = lb_ids_append(out, before->data, before->len);
    if (status == LB_OK) {
        status = lb_tokenizer_encode(tokenizer, a->prompt, strlen(a->prompt), false, out, detail);
    }
    if (status != LB_OK || out->len > 0) {
        return status;
    }
    int32_t first =
        lb_tokenizer_bos(tokenizer) >= 0 ? lb_tokenizer_bos(tokenizer) : lb_tokenizer_eos(tokenizer);
    if (first < 0) {
        return lb_fail(detail, LB_E_ARG, "the prompt is empty, and the tokenizer has no token to begin with");
    }
    status = lb_ids_push(out, first);
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory");
}

static enum lb_status generate(const void *arguments, const struct lb_opened *opened,
                               volatile sig_atomic_t *stop, struct lb_detail *detail) {
    const struct arguments *a = arguments;
    if (opened->tokenizer == NULL) {
        return lb_fail(detail, LB_E_ARG, "%s: a classifier does not write", a->model);
    }
    struct lb_ids ids = {0};
    struct writing w = {.tokenizer = opened->tokenizer, .stop = stop, .print = !a->json};
    lb_buf_init(&w.text, MAX_TEXT);
    enum lb_status status = encode_prompt(a, opened->tokenizer, &ids, detail);
    struct lb_ends ends = *lb_model_ends(opened->model);
    if (ends.n == 0 && lb_tokenizer_eos(opened->tokenizer) >= 0) {
        ends.ids[ends.n++] = lb_tokenizer_eos(opened->tokenizer);
    }
    struct lb_generate_args args = a->generate;
    args.ends = &ends;
    args.n_ids = lb_tokenizer_vocab_size(opened->tokenizer);
    uint64_t start = lb_now_ns();
    if (status == LB_OK) {
        if (!a->json) {
            fputs(a->prompt, stdout);
        }
        status = lb_generate(opened->model, ids.data, (int64_t)ids.len, &args, take, &w, detail);
    }
    double seconds = (double)(lb_now_ns() - start) / (double)LB_SECOND_NS;
    if (status == LB_OK || status == LB_E_CANCELLED) {
        bool full = (int64_t)w.ids.len >= a->generate.max_new_tokens ||
                    (int64_t)(ids.len + w.ids.len) >= lb_model_config(opened->model)->max_position_embeddings;
        const char *reason = status != LB_OK ? "stopped" : full ? "length" : "stop";
        if (a->json) {
            enum lb_status printed = print_json(a, &w, (int64_t)ids.len, seconds, reason, detail);
            status = status == LB_OK ? printed : status;
        } else {
            print_new(&w, true);
            putchar('\n');
        }
    }
    lb_buf_finish(&w.text);
    lb_free(w.ids.data);
    lb_free(ids.data);
    return status;
}

int lb_cmd_generate(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"prompt", 'p', "TEXT", 0, "The text to go on with", 0},
        {"max-new-tokens", 'n', "N", 0, "Most tokens to write (default 64)", 0},
        {"temperature", 't', "X", 0, "0 takes the likeliest token each time (default 1)", 0},
        {"top-k", KEY_TOP_K, "N", 0, "Sample among the N likeliest; 0: all (default 0)", 0},
        {"top-p", KEY_TOP_P, "X", 0, "Sample among the likeliest that hold X of the probability (default 1)",
         0},
        {"seed", KEY_SEED, "N", 0, "Of the sampling; the same seed writes the same text (default 42)", 0},
        LB_TOKENIZER_OPTION,
        {"json", 'j', NULL, 0, "Print one JSON object at the end instead of the text as it comes", 0},
        {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "MODEL",
        .doc =
            "Lets a model go on with a text.\vMODEL is a Hugging Face folder, a .gguf file or a run folder."};
    struct arguments a = {.generate = {.max_new_tokens = 64, .temperature = 1, .top_p = 1, .seed = 42}};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    return lb_with_opened(a.model, a.tokenizer, generate, &a, stop);
}
