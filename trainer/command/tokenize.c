/* limbeck tokenize MODEL [TEXT] */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/command/commands.h"
#include "trainer/data/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_CHAT ((size_t)64 << 20)

struct arguments {
    const char *model, *text, *chat, *template;
    bool json, special, count, generate;
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
    case 'm':
        a->chat = text;
        return 0;
    case 't':
        a->template = text;
        return 0;
    case 'g':
        a->generate = true;
        return 0;
    case ARGP_KEY_END:
        if (a->chat != NULL && (a->text != NULL || a->special)) {
            argp_error(state, "--chat takes no TEXT and no --special: the template writes all that there is");
        }
        if (a->chat == NULL && (a->template != NULL || a->generate)) {
            argp_error(state, "--chat-template and --add-generation-prompt go with --chat");
        }
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

static json_t *ids_json(const struct lb_tokenizer *tokenizer, const struct lb_ids *ids) {
    json_t *list = json_array(), *names = json_array();
    for (size_t i = 0; i < ids->len; i++) {
        const char *name = lb_tokenizer_token(tokenizer, ids->data[i]);
        json_array_append_new(list, json_integer(ids->data[i]));
        json_array_append_new(names, json_string(name != NULL ? name : ""));
    }
    return json_pack("{s:o, s:o}", "ids", list, "tokens", names);
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
            lb_print_json(ids_json(tokenizer, &ids), JSON_ENSURE_ASCII);
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

/* ---- conversations ---- */

/* A record as datasets have it, or a list of messages alone. */
static enum lb_status read_record(const char *path, json_t **out, struct lb_detail *detail) {
    struct lb_buf buf;
    json_t *row = NULL;
    lb_buf_init(&buf, MAX_CHAT);
    enum lb_status status =
        strcmp(path, "-") == 0 ? lb_read_stdin(&buf, detail) : lb_file_read(path, &buf, detail);
    status = status == LB_OK
                 ? lb_json_parse_loose(buf.data != NULL ? buf.data : "", buf.len, 0, path, &row, detail)
                 : status;
    lb_buf_finish(&buf);
    if (status == LB_OK && json_is_array(row)) {
        row = json_pack("{s:o}", "messages", row);
        status = row != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    }
    if (status == LB_OK) {
        *out = row;
    }
    return status;
}

static enum lb_status print_chat(const struct arguments *a, const struct lb_tokenizer *tokenizer,
                                 const struct lb_chat *chat, const struct lb_chat_text *text, size_t *total,
                                 struct lb_detail *detail) {
    struct lb_ids ids = {0};
    enum lb_status status = lb_chat_ids(chat, text, &ids, detail);
    if (status == LB_OK) {
        *total += ids.len;
        if (a->json) {
            json_t *object = ids_json(tokenizer, &ids);
            json_object_set_new(object, "text", json_stringn(text->text, text->len));
            json_object_set_new(object, "chat_template_sha256", json_string(lb_chat_hash(chat)));
            lb_print_json(object, JSON_ENSURE_ASCII);
        } else if (!a->count) {
            fwrite(text->text, 1, text->len, stdout);
            putchar('\n');
            print_plain(tokenizer, &ids, false);
        }
    }
    lb_free(ids.data);
    return status;
}

static enum lb_status tokenize_chat(const struct arguments *a, const struct lb_tokenizer *tokenizer,
                                    size_t *total, struct lb_detail *detail) {
    struct lb_chat *chat = NULL;
    struct lb_conversation conversation = {.data = NULL};
    struct lb_chat_text text = {.len = 0};
    json_t *row = NULL;
    enum lb_row_form form = LB_ROW_TEXT;
    time_t seconds = time(NULL);
    struct tm now;
    enum lb_status status = lb_chat_open(tokenizer, a->template, &chat, detail);
    status = status == LB_OK ? read_record(a->chat, &row, detail) : status;
    status = status == LB_OK ? lb_row_form(row, &form, detail) : status;
    if (status == LB_OK && !lb_row_needs_template(row, form)) {
        status = lb_fail(detail, LB_E_ARG, "%s: holds a text and no messages; give it as TEXT", a->chat);
    }
    status = status == LB_OK ? lb_conversation_init(row, form, &conversation, detail) : status;
    if (status == LB_OK) {
        status = lb_chat_render(chat, &conversation, conversation.n_messages, a->generate,
                                localtime_r(&seconds, &now), &text, detail);
    }
    status = status == LB_OK ? print_chat(a, tokenizer, chat, &text, total, detail) : status;
    lb_chat_text_finish(&text);
    lb_conversation_finish(&conversation);
    lb_chat_destroy(chat);
    json_decref(row);
    return status;
}

int lb_cmd_tokenize(int argc, char **argv, volatile sig_atomic_t *stop) {
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "Print {\"ids\": [...], \"tokens\": [...]}, one line per text", 0},
        {"special", 's', NULL, 0, "Add the special tokens that the tokenizer puts around a text", 0},
        {"count", 'c', NULL, 0, "Print the number of tokens only", 0},
        {"chat", 'm', "FILE.json", 0,
         "Show a conversation (a list of messages, or a record as datasets have it; - is standard input) as "
         "the "
         "model's chat template writes it, and its ids",
         0},
        {"chat-template", 't', "FILE", 0, "With --chat: a Jinja file instead of the model's template", 0},
        {"add-generation-prompt", 'g', NULL, 0, "With --chat: up to where the assistant begins", 0},
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
    if (status == LB_OK && a.chat != NULL) {
        status = tokenize_chat(&a, tokenizer, &total, &detail);
    } else if (status == LB_OK) {
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
