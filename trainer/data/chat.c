#include "trainer/data/chat.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <string.h>

#define MAX_TEMPLATE ((size_t)1 << 20)

struct lb_chat {
    const struct lb_tokenizer *tokenizer;
    struct lb_chat_template *template;
    json_t *words; /* bos_token and the like */
};

/* ---- opening ---- */

static enum lb_status read_template(struct lb_chat *chat, const char *path, struct lb_detail *detail) {
    const char *own = lb_tokenizer_chat_template(chat->tokenizer);
    if (path == NULL && own == NULL) {
        return lb_fail(
            detail, LB_E_NOTFOUND,
            "rows with messages need a chat template and the tokenizer has none: put its "
            "tokenizer_config.json or chat_template.jinja beside it, or name a Jinja file (chat_template "
            "in a recipe, --chat-template on the command line)");
    }
    if (path == NULL) {
        return lb_chat_template_parse(own, strlen(own), lb_tokenizer_chat_template_from(chat->tokenizer),
                                      &chat->template, detail);
    }
    struct lb_buf text;
    lb_buf_init(&text, MAX_TEMPLATE);
    enum lb_status status = lb_file_read(path, &text, detail);
    status = status == LB_OK ? lb_chat_template_parse(text.data != NULL ? text.data : "", text.len, path,
                                                      &chat->template, detail)
                             : status;
    lb_buf_finish(&text);
    return status;
}

/* The special tokens that the tokenizer knows; the others are undefined in templates, as in transformers. */
static bool set_words(struct lb_chat *chat) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "cls_token", "pad_token", "mask_token"};
    bool ok = chat->words != NULL;
    for (size_t i = 0; ok && i < sizeof names / sizeof names[0]; i++) {
        const char *text = lb_tokenizer_token(chat->tokenizer, lb_tokenizer_named(chat->tokenizer, names[i]));
        ok = text == NULL || json_object_set_new(chat->words, names[i], json_string(text)) == 0;
    }
    return ok;
}

enum lb_status lb_chat_open(const struct lb_tokenizer *tokenizer, const char *path, struct lb_chat **out,
                            struct lb_detail *detail) {
    struct lb_chat *chat = lb_calloc(1, sizeof *chat);
    if (chat == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the chat template");
    }
    chat->tokenizer = tokenizer;
    chat->words = json_object();
    enum lb_status status = set_words(chat)
                                ? read_template(chat, path, detail)
                                : lb_fail(detail, LB_E_NOMEM, "out of memory for the chat template");
    if (status != LB_OK) {
        lb_chat_destroy(chat);
        return status;
    }
    *out = chat;
    return LB_OK;
}

void lb_chat_destroy(struct lb_chat *chat) {
    if (chat != NULL) {
        lb_chat_template_destroy(chat->template);
        json_decref(chat->words);
        lb_free(chat);
    }
}

const char *lb_chat_hash(const struct lb_chat *chat) {
    return lb_chat_template_hash(chat->template);
}

/* ---- rendering ---- */

enum lb_status lb_chat_render(const struct lb_chat *chat, const struct lb_conversation *conversation,
                              size_t n_messages, bool generate, const struct tm *now,
                              struct lb_chat_text *out, struct lb_detail *detail) {
    json_t *data = json_copy(conversation->data), *messages = json_array();
    bool ok = data != NULL && messages != NULL;
    for (size_t i = 0; ok && i < n_messages; i++) {
        ok = json_array_append(messages,
                               json_array_get(json_object_get(conversation->data, "messages"), i)) == 0;
    }
    ok = ok && json_object_set(data, "messages", messages) == 0 &&
         json_object_set_new(data, "add_generation_prompt", json_boolean(generate)) == 0;
    const struct lb_chat_input input = {data, chat->words, now};
    enum lb_status status = ok ? lb_chat_template_render(chat->template, &input, out, detail)
                               : lb_fail(detail, LB_E_NOMEM, "out of memory for the conversation");
    json_decref(data);
    json_decref(messages);
    return status;
}

enum lb_status lb_chat_ids(const struct lb_chat *chat, const struct lb_chat_text *text, struct lb_ids *out,
                           struct lb_detail *detail) {
    uint8_t *plain = lb_malloc_array(text->len + 1, 1);
    if (plain == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the conversation");
    }
    for (size_t i = 0; i < text->len; i++) {
        plain[i] = text->mark[i] & LB_CHAT_DATA;
    }
    enum lb_status status =
        lb_tokenizer_encode_marked(chat->tokenizer, text->text, text->len, plain, out, detail);
    lb_free(plain);
    return status;
}

/* ---- which bytes count ---- */

static bool begins(const struct lb_chat_text *text, const struct lb_chat_text *with) {
    return with->len == 0 || (text->len >= with->len && memcmp(text->text, with->text, with->len) == 0);
}

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool is_assistant(const struct lb_conversation *conversation, size_t i) {
    const json_t *message = json_array_get(json_object_get(conversation->data, "messages"), i);
    const char *role = json_string_value(json_object_get(message, "role"));
    return role != NULL && strcmp(role, "assistant") == 0;
}

/* Marks what message i adds to the messages before it, in the whole text: that it counts, or does not. */
static enum lb_status mark_message(const struct lb_chat *chat, const struct lb_conversation *conversation,
                                   size_t i, bool counts, struct lb_chat_text *whole,
                                   struct lb_detail *detail) {
    struct lb_chat_text before = {.len = 0}, with = {.len = 0};
    enum lb_status status = LB_OK;
    if (i > 0 || counts) { /* what templates put before the first is silent with it: many need a first */
        status = lb_chat_render(chat, conversation, i, is_assistant(conversation, i), NULL, &before, detail);
    }
    status = status == LB_OK ? lb_chat_render(chat, conversation, i + 1, false, NULL, &with, detail) : status;
    if (status == LB_OK && (!begins(&with, &before) || !begins(whole, &with))) {
        status =
            lb_fail(detail, LB_E_UNSUPPORTED,
                    "which tokens are the assistant's cannot be told: the chat template writes what stands "
                    "before message %zu differently once there is more; use a template with {%% generation "
                    "%%} blocks around the assistant's words",
                    i);
    }
    size_t end = with.len;
    while (status == LB_OK && end > before.len && is_space(whole->text[end - 1]) &&
           !(whole->mark[end - 1] & LB_CHAT_DATA)) {
        end--;
    }
    for (size_t at = before.len; status == LB_OK && at < end; at++) {
        whole->mark[at] =
            (uint8_t)(counts ? whole->mark[at] | LB_CHAT_GENERATION : whole->mark[at] & ~LB_CHAT_GENERATION);
    }
    lb_chat_text_finish(&before);
    lb_chat_text_finish(&with);
    return status;
}

/* Messages of weight 0 do not count; of the assistant's alone others do not anyway. */
static enum lb_status mark_silent(const struct lb_chat *chat, const struct lb_conversation *conversation,
                                  enum lb_chat_counts counts, struct lb_chat_text *whole,
                                  struct lb_detail *detail) {
    const json_t *messages = json_object_get(conversation->data, "messages");
    enum lb_status status = LB_OK;
    for (size_t i = 0; status == LB_OK && conversation->silences && i < conversation->n_messages; i++) {
        const json_t *weight = json_object_get(json_array_get(messages, i), "weight");
        bool others = counts == LB_COUNTS_ASSISTANT && !is_assistant(conversation, i);
        if (json_is_number(weight) && json_number_value(weight) == 0 && !others) {
            status = mark_message(chat, conversation, i, false, whole, detail);
        }
    }
    return status;
}

/* LB_CHAT_GENERATION for all bytes that count, and for no other; but for silent messages. */
static enum lb_status mark_counts(const struct lb_chat *chat, const struct lb_conversation *conversation,
                                  enum lb_chat_counts counts, struct lb_chat_text *whole,
                                  struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    if (counts == LB_COUNTS_ASSISTANT && lb_chat_template_generates(chat->template)) {
        return LB_OK;
    }
    for (size_t at = 0; at < whole->len; at++) {
        whole->mark[at] &= (uint8_t)~LB_CHAT_GENERATION;
        whole->mark[at] |= counts == LB_COUNTS_ALL ? LB_CHAT_GENERATION : 0;
    }
    if (counts == LB_COUNTS_ALL) {
        return LB_OK;
    }
    if (counts == LB_COUNTS_ASSISTANT) {
        for (size_t i = 0; status == LB_OK && i < conversation->n_messages; i++) {
            status = is_assistant(conversation, i) ? mark_message(chat, conversation, i, true, whole, detail)
                                                   : LB_OK;
        }
        return status;
    }
    struct lb_chat_text prompt = {.len = 0};
    status = lb_chat_render(chat, conversation, conversation->completion, true, NULL, &prompt, detail);
    if (status == LB_OK && !begins(whole, &prompt)) {
        status =
            lb_fail(detail, LB_E_UNSUPPORTED,
                    "which tokens are the completion's cannot be told: the chat template writes the prompt "
                    "differently once there is a completion");
    }
    for (size_t at = prompt.len; status == LB_OK && at < whole->len; at++) {
        whole->mark[at] |= LB_CHAT_GENERATION;
    }
    lb_chat_text_finish(&prompt);
    return status;
}

/* ---- from bytes to tokens ---- */

/* The bytes of text, from *at on, that a token stands for, and *at moved behind them. A tokenizer may write a
 * space before a word where the text has none, and a special token may have eaten white space before it.
 * false: the token does not say what stands there. */
static bool follow(const struct lb_chat_text *text, const char *bytes, size_t n, size_t *at, size_t *start) {
    size_t left = text->len - *at;
    if (n > 0 && bytes[0] == ' ' && (left < n || memcmp(text->text + *at, bytes, n) != 0)) {
        bytes++;
        n--;
        left = text->len - *at;
    }
    size_t skip = 0;
    while (skip < left && (left - skip < n || memcmp(text->text + *at + skip, bytes, n) != 0) &&
           is_space(text->text[*at + skip])) {
        skip++;
    }
    if (left - skip < n || memcmp(text->text + *at + skip, bytes, n) != 0) {
        return false;
    }
    *start = *at + skip;
    *at = *start + n;
    return true;
}

/* Complements the ids [n] of text none of whose bytes counts. */
static enum lb_status leave_out(const struct lb_chat *chat, const struct lb_chat_text *text, int32_t *ids,
                                size_t n, struct lb_detail *detail) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t n_bytes = 0, start = at;
        const char *bytes = lb_tokenizer_bytes(chat->tokenizer, ids[i], &n_bytes);
        if (bytes == NULL || !follow(text, bytes, n_bytes, &at, &start)) {
            return lb_fail(
                detail, LB_E_UNSUPPORTED,
                "which tokens count cannot be told: the tokenizer changes the text at byte %zu, so "
                "that its tokens are no longer parts of it",
                at);
        }
        bool counts = false;
        size_t end =
            at > start || at == text->len ? at : at + 1; /* a space put before a word is the word's */
        for (size_t k = start; k < end; k++) {
            counts |= (text->mark[k] & LB_CHAT_GENERATION) != 0;
        }
        ids[i] = counts ? ids[i] : ~ids[i];
    }
    return LB_OK;
}

enum lb_status lb_chat_encode(const struct lb_chat *chat, const struct lb_conversation *conversation,
                              enum lb_chat_counts counts, struct lb_ids *out, struct lb_detail *detail) {
    struct lb_chat_text whole = {.len = 0};
    size_t before = out->len;
    bool all = counts == LB_COUNTS_ALL && !conversation->silences;
    enum lb_status status =
        lb_chat_render(chat, conversation, conversation->n_messages, false, NULL, &whole, detail);
    if (status == LB_OK && !all) {
        status = mark_counts(chat, conversation, counts, &whole, detail);
        status = status == LB_OK ? mark_silent(chat, conversation, counts, &whole, detail) : status;
    }
    status = status == LB_OK ? lb_chat_ids(chat, &whole, out, detail) : status;
    if (status == LB_OK && !all) {
        status = leave_out(chat, &whole, out->data + before, out->len - before, detail);
    }
    lb_chat_text_finish(&whole);
    out->len = status == LB_OK ? out->len : before;
    return status;
}
