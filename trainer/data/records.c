/* Rows that are records of who said what: one row of data, one sample. */
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <string.h>

/* Appends ids of a text; as complements where they do not count. */
static enum lb_status add_text(const struct lb_text_source *source, const json_t *row, const char *key,
                               bool counts, struct lb_ids *ids, struct lb_detail *detail) {
    const json_t *text = json_object_get(row, key);
    size_t before = ids->len;
    if (!json_is_string(text)) {
        return lb_fail(detail, LB_E_FORMAT,
                       "the line: prompt and completion are neither both texts nor both "
                       "lists of messages");
    }
    enum lb_status status = lb_tokenizer_encode(source->tokenizer, json_string_value(text),
                                                json_string_length(text), false, ids, detail);
    for (size_t i = before; status == LB_OK && !counts && i < ids->len; i++) {
        ids->data[i] = ~ids->data[i];
    }
    return status;
}

/* Two texts, one behind the other, begun and ended as texts are. */
static enum lb_status encode_texts(const struct lb_text_source *source, const json_t *row, struct lb_ids *ids,
                                   int64_t *out_prompt, struct lb_detail *detail) {
    size_t before = ids->len;
    bool all = source->completion_only == LB_COMPLETION_ONLY_NO;
    enum lb_status status = LB_OK;
    for (size_t i = 0; status == LB_OK && i < source->begin.len; i++) {
        status = lb_ids_push(ids, ~source->begin.data[i]);
    }
    status = status == LB_OK ? add_text(source, row, "prompt", all, ids, detail) : status;
    *out_prompt = source->prompts ? (int64_t)(ids->len - before) : 0;
    status = status == LB_OK ? add_text(source, row, "completion", true, ids, detail) : status;
    return status == LB_OK ? lb_ids_append(ids, source->end.data, source->end.len) : status;
}

static enum lb_chat_counts counts_of(const struct lb_text_source *source, enum lb_row_form form) {
    bool completes = form == LB_ROW_PROMPT || form == LB_ROW_INSTRUCTION;
    if (source->assistant_only || (!completes && source->completion_only == LB_COMPLETION_ONLY_YES)) {
        return LB_COUNTS_ASSISTANT;
    }
    return completes && source->completion_only != LB_COMPLETION_ONLY_NO ? LB_COUNTS_COMPLETION
                                                                         : LB_COUNTS_ALL;
}

/* How many ids of a conversation stand before the first that has something of its completion; of one that has
 * none marked, that is its last message, if it is the assistant's. */
static enum lb_status find_prompt(const struct lb_text_source *source,
                                  const struct lb_conversation *conversation, int64_t *out,
                                  struct lb_detail *detail) {
    struct lb_conversation whole = *conversation;
    struct lb_ids ids = {0};
    whole.silences = false; /* what is written there counts */
    if (whole.completion >= whole.n_messages && whole.n_messages > 0) {
        const json_t *last = json_array_get(json_object_get(whole.data, "messages"), whole.n_messages - 1);
        const char *role = json_string_value(json_object_get(last, "role"));
        if (role == NULL || strcmp(role, "assistant") != 0) {
            *out = 0; /* nobody was to answer */
            return LB_OK;
        }
        whole.completion = whole.n_messages - 1;
    }
    enum lb_status status = lb_chat_encode(source->chat, &whole, LB_COUNTS_COMPLETION, &ids, detail);
    size_t n = 0;
    while (status == LB_OK && n < ids.len && ids.data[n] < 0) {
        n++;
    }
    *out = (int64_t)n;
    lb_free(ids.data);
    return status;
}

static enum lb_status encode(const struct lb_text_source *source, const json_t *row, enum lb_row_form form,
                             struct lb_ids *ids, int64_t *out_prompt, struct lb_detail *detail) {
    struct lb_conversation conversation = {.data = NULL};
    *out_prompt = 0;
    if (!lb_row_needs_template(row, form)) {
        return encode_texts(source, row, ids, out_prompt, detail);
    }
    if (source->chat == NULL) { /* the first row had texts */
        return lb_fail(detail, LB_E_FORMAT, "the line: prompt is no text, as it is in the lines before");
    }
    enum lb_status status = lb_conversation_init(row, form, &conversation, detail);
    if (status == LB_OK) {
        status = lb_chat_encode(source->chat, &conversation, counts_of(source, form), ids, detail);
    }
    if (status == LB_OK && source->prompts) {
        status = find_prompt(source, &conversation, out_prompt, detail);
    }
    lb_conversation_finish(&conversation);
    return status;
}

/* The row with another prompt: in place of `prompt`, of `instruction` and its `input`, or of all messages but
 * the last. */
static json_t *with_prompt(const json_t *row, enum lb_row_form form, json_t *prompt) {
    json_t *other = json_copy((json_t *)(uintptr_t)row); /* its members are shared */
    const char *key = form == LB_ROW_PROMPT        ? "prompt"
                      : form == LB_ROW_INSTRUCTION ? "instruction"
                      : form == LB_ROW_MESSAGES    ? "messages"
                                                   : "conversations";
    if (form == LB_ROW_INSTRUCTION) {
        json_object_del(other, "input");
    }
    if (form == LB_ROW_MESSAGES || form == LB_ROW_CONVERSATION) {
        const json_t *all = json_object_get(row, key);
        json_t *messages = json_copy(prompt);
        json_t *last = json_array_get(all, json_array_size(all) - 1);
        if (json_array_append(messages, last) != 0 || json_object_set_new(other, key, messages) != 0) {
            json_decref(other);
            return NULL;
        }
    } else if (json_object_set(other, key, prompt) != 0) {
        json_decref(other);
        return NULL;
    }
    return other;
}

static enum lb_status encode_theirs(const struct lb_text_source *source, const json_t *row,
                                    enum lb_row_form form, struct lb_record_prompts *prompts,
                                    struct lb_detail *detail) {
    json_t *prompt = json_object_get(row, source->teacher_prompt);
    bool list = form == LB_ROW_MESSAGES || form == LB_ROW_CONVERSATION ||
                (form == LB_ROW_PROMPT && lb_row_needs_template(row, form));
    if (!(list ? json_is_array(prompt) : json_is_string(prompt))) {
        return lb_fail(detail, LB_E_FORMAT, "the line: %s, which teachers read in place of the prompt, is %s",
                       source->teacher_prompt,
                       prompt == NULL ? "missing"
                       : list         ? "no list of messages"
                                      : "no text");
    }
    json_t *other = with_prompt(row, form, prompt);
    struct lb_ids ids = {0};
    enum lb_status status = other != NULL ? encode(source, other, form, &ids, &prompts->theirs, detail)
                                          : lb_fail(detail, LB_E_NOMEM, "out of memory for a record");
    for (int64_t i = 0; status == LB_OK && i < prompts->theirs; i++) {
        status = lb_ids_push(prompts->teacher_prompts, ids.data[i] >= 0 ? ids.data[i] : ~ids.data[i]);
    }
    if (status == LB_OK && (prompts->theirs == 0 || prompts->prompt == 0)) {
        status = lb_fail(detail, LB_E_FORMAT,
                         "the line: where its prompt ends is not known: its last message is "
                         "not the assistant's, or the prompt is empty");
    }
    json_decref(other);
    lb_free(ids.data);
    return status;
}

enum lb_status lb_record_encode(const struct lb_text_source *source, const json_t *row, enum lb_row_form form,
                                struct lb_ids *ids, struct lb_record_prompts *prompts,
                                struct lb_detail *detail) {
    size_t before = ids->len;
    prompts->theirs = 0;
    enum lb_status status = encode(source, row, form, ids, &prompts->prompt, detail);
    if (status != LB_OK || source->teacher_prompt == NULL) {
        return status;
    }
    for (int64_t i = 0; i < prompts->prompt; i++) {
        int32_t *id = &ids->data[before + (size_t)i];
        *id = *id >= 0 ? ~*id : *id;
    }
    return encode_theirs(source, row, form, prompts, detail);
}
