/* Rows of data as conversations: the forms that people's files have. */
#include "trainer/data/chat.h"

#include <string.h>

static bool has(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    return value != NULL && !json_is_null(value);
}

enum lb_status lb_row_form(const json_t *row, enum lb_row_form *out, struct lb_detail *detail) {
    if (has(row, "text")) {
        *out = LB_ROW_TEXT;
    } else if (has(row, "messages")) {
        *out = LB_ROW_MESSAGES;
    } else if (has(row, "conversations")) {
        *out = LB_ROW_CONVERSATION;
    } else if (has(row, "prompt") && has(row, "completion")) {
        *out = LB_ROW_PROMPT;
    } else if (has(row, "instruction") && has(row, "output")) {
        *out = LB_ROW_INSTRUCTION;
    } else {
        return lb_fail(
            detail, LB_E_FORMAT,
            "the line: text is missing, and so are messages, conversations, prompt with completion, "
            "and instruction with output; field: names another member that holds a text");
    }
    return LB_OK;
}

bool lb_row_needs_template(const json_t *row, enum lb_row_form form) {
    return form != LB_ROW_TEXT && !(form == LB_ROW_PROMPT && json_is_string(json_object_get(row, "prompt")));
}

static enum lb_status no_memory(struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "out of memory for the conversation");
}

/* Reasoning goes by three names; templates read the first, or thinking. */
static bool name_reasoning(json_t *message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *value = json_object_get(message, names[i]);
        if (value != NULL) {
            return json_object_set(message, names[0], value) == 0 &&
                   (json_object_get(message, names[1]) != NULL ||
                    json_object_set(message, names[1], value) == 0);
        }
    }
    return true;
}

/* Whether a message counts, as OpenAI's `weight` has it: 1 as any, 0 not at all. */
static enum lb_status read_weight(const json_t *message, size_t i, bool *silences, struct lb_detail *detail) {
    const json_t *weight = json_object_get(message, "weight");
    double value = json_number_value(weight);
    if (weight == NULL || json_is_null(weight)) {
        return LB_OK;
    }
    if (!json_is_number(weight) || (value != 0 && value != 1)) {
        return lb_fail(
            detail, LB_E_UNSUPPORTED,
            "the line: weight of message %zu is neither 0 nor 1; a whole record's can be any number "
            "(weight_field)",
            i);
    }
    *silences = *silences || value == 0;
    return LB_OK;
}

static enum lb_status read_weights(const json_t *messages, bool *silences, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    *silences = false;
    for (size_t i = 0; status == LB_OK && i < json_array_size(messages); i++) {
        status = read_weight(json_array_get(messages, i), i, silences, detail);
    }
    return status;
}

/* Appends a message as templates see it: without members that are null. */
static enum lb_status add_message(json_t *messages, const json_t *from, struct lb_detail *detail) {
    size_t i = json_array_size(messages);
    json_t *message = json_object(), *object = (json_t *)from; /* iterators of jansson take no const */
    bool ok = message != NULL;
    if (!json_is_object(from) || !json_is_string(json_object_get(from, "role"))) {
        json_decref(message);
        return lb_fail(detail, LB_E_FORMAT, "the line: message %zu is no object with a role", i);
    }
    for (void *it = json_object_iter(object); ok && it != NULL; it = json_object_iter_next(object, it)) {
        ok = json_is_null(json_object_iter_value(it)) ||
             json_object_set(message, json_object_iter_key(it), json_object_iter_value(it)) == 0;
    }
    ok = ok && name_reasoning(message) && json_array_append(messages, message) == 0;
    json_decref(message);
    return ok ? LB_OK : no_memory(detail);
}

static enum lb_status add_list(json_t *messages, const json_t *list, const char *key,
                               struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    if (json_array_size(list) == 0) {
        return lb_fail(detail, LB_E_FORMAT, "the line: %s is no list of messages", key);
    }
    for (size_t i = 0; status == LB_OK && i < json_array_size(list); i++) {
        status = add_message(messages, json_array_get(list, i), detail);
    }
    return status;
}

static enum lb_status add_text(json_t *messages, const char *role, const json_t *text, const char *key,
                               struct lb_detail *detail) {
    if (!json_is_string(text)) {
        return lb_fail(detail, LB_E_FORMAT, "the line: %s is no text", key);
    }
    json_t *message = json_object();
    bool ok = message != NULL && json_object_set_new(message, "role", json_string(role)) == 0 &&
              json_object_set(message, "content", (json_t *)text) == 0 &&
              json_array_append(messages, message) == 0;
    json_decref(message);
    return ok ? LB_OK : no_memory(detail);
}

/* ShareGPT's names. NULL for others. */
static const char *role_of(const char *from) {
    static const char *const roles[][2] = {
        {"human", "user"},        {"user", "user"},           {"gpt", "assistant"},
        {"chatgpt", "assistant"}, {"assistant", "assistant"}, {"model", "assistant"},
        {"system", "system"},     {"tool", "tool"},           {"observation", "tool"},
    };
    for (size_t i = 0; from != NULL && i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(from, roles[i][0]) == 0) {
            return roles[i][1];
        }
    }
    return NULL;
}

static enum lb_status add_share_gpt(json_t *messages, const json_t *row, struct lb_detail *detail) {
    const json_t *list = json_object_get(row, "conversations");
    enum lb_status status = LB_OK;
    if (json_array_size(list) == 0) {
        return lb_fail(detail, LB_E_FORMAT, "the line: conversations is no list of messages");
    }
    for (size_t i = 0; status == LB_OK && i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *from = json_string_value(json_object_get(item, "from")), *role = role_of(from);
        if (from == NULL && has(item, "role")) { /* the one form under the other's name */
            status = add_message(messages, item, detail);
        } else if (role == NULL) {
            status =
                lb_fail(detail, LB_E_UNSUPPORTED,
                        "the line: conversations.%zu: from \"%.40s\" is not known (human, gpt, system, tool "
                        "are)",
                        i, from != NULL ? from : "");
        } else {
            status =
                add_text(messages, role, json_object_get(item, "value"), "a value of conversations", detail);
            json_t *added = json_array_get(messages, json_array_size(messages) - 1);
            if (status == LB_OK && has(item, "weight") &&
                json_object_set(added, "weight", json_object_get(item, "weight")) != 0) {
                status = no_memory(detail);
            }
        }
    }
    return status;
}

/* The instruction, and below it the input where there is one. */
static enum lb_status add_instruction(json_t *messages, const json_t *row, struct lb_detail *detail) {
    const json_t *instruction = json_object_get(row, "instruction"), *input = json_object_get(row, "input");
    bool more = json_is_string(input) && json_string_length(input) > 0;
    if (json_array_size(json_object_get(row, "history")) > 0) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "the line: history is not supported; write the row as messages");
    }
    if (!json_is_string(instruction) || (has(row, "input") && !json_is_string(input))) {
        return lb_fail(detail, LB_E_FORMAT, "the line: instruction and input are no texts");
    }
    json_t *text = NULL;
    if (more) {
        struct lb_buf both;
        lb_buf_init(&both, SIZE_MAX / 2);
        lb_buf_append(&both, json_string_value(instruction), json_string_length(instruction));
        lb_buf_append(&both, "\n", 1);
        lb_buf_append(&both, json_string_value(input), json_string_length(input));
        text = lb_buf_status(&both) == LB_OK ? json_stringn(both.data, both.len) : NULL;
        lb_buf_finish(&both);
        if (text == NULL) {
            return no_memory(detail);
        }
    }
    enum lb_status status = add_text(messages, "user", more ? text : instruction, "instruction", detail);
    json_decref(text);
    return status == LB_OK ? add_text(messages, "assistant", json_object_get(row, "output"), "output", detail)
                           : status;
}

/* What a template is rendered with beside the messages. */
static enum lb_status add_others(json_t *data, const json_t *row, struct lb_detail *detail) {
    static const char *const names[] = {"tools", "documents"};
    json_t *more = json_object_get(row, "chat_template_kwargs");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *value = json_object_get(row, names[i]);
        if (has(row, names[i]) && !json_is_array(value)) {
            return lb_fail(detail, LB_E_FORMAT, "the line: %s is no list", names[i]);
        }
        if ((value != NULL ? json_object_set(data, names[i], value)
                           : json_object_set_new(data, names[i], json_null())) != 0) {
            return no_memory(detail);
        }
    }
    if (has(row, "chat_template_kwargs") && !json_is_object(more)) {
        return lb_fail(detail, LB_E_FORMAT, "the line: chat_template_kwargs is no object");
    }
    return more == NULL || json_is_null(more) || json_object_update_missing(data, more) == 0
               ? LB_OK
               : no_memory(detail);
}

enum lb_status lb_conversation_init(const json_t *row, enum lb_row_form form, struct lb_conversation *out,
                                    struct lb_detail *detail) {
    json_t *data = json_object(), *messages = json_array();
    enum lb_status status = data != NULL && messages != NULL ? LB_OK : no_memory(detail);
    size_t completion = 0;
    bool with_system = has(row, "system") && (form == LB_ROW_CONVERSATION || form == LB_ROW_INSTRUCTION);
    if (status == LB_OK && with_system) {
        status = add_text(messages, "system", json_object_get(row, "system"), "system", detail);
    }
    if (status == LB_OK && form == LB_ROW_MESSAGES) {
        status = add_list(messages, json_object_get(row, "messages"), "messages", detail);
    } else if (status == LB_OK && form == LB_ROW_CONVERSATION) {
        status = add_share_gpt(messages, row, detail);
    } else if (status == LB_OK && form == LB_ROW_INSTRUCTION) {
        status = add_instruction(messages, row, detail);
        completion = json_array_size(messages) - 1;
    } else if (status == LB_OK) {
        status = add_list(messages, json_object_get(row, "prompt"), "prompt", detail);
        completion = json_array_size(messages);
        status = status == LB_OK
                     ? add_list(messages, json_object_get(row, "completion"), "completion", detail)
                     : status;
    }
    size_t n = json_array_size(messages);
    bool silences = false;
    status = status == LB_OK ? read_weights(messages, &silences, detail) : status;
    if (status == LB_OK && json_object_set(data, "messages", messages) != 0) {
        status = no_memory(detail);
    }
    status = status == LB_OK ? add_others(data, row, detail) : status;
    json_decref(messages);
    if (status != LB_OK) {
        json_decref(data);
        return status;
    }
    *out = (struct lb_conversation){data, n, completion > 0 ? completion : n, silences};
    return LB_OK;
}

void lb_conversation_finish(struct lb_conversation *conversation) {
    json_decref(conversation->data);
    *conversation = (struct lb_conversation){.data = NULL};
}
