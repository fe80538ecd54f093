/* Rows that are records of who said what: one row of data, one sample. */
#include "trainer/data/parts.h"

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
                                   struct lb_detail *detail) {
    bool all = source->completion_only == LB_COMPLETION_ONLY_NO;
    enum lb_status status = LB_OK;
    for (size_t i = 0; status == LB_OK && i < source->begin.len; i++) {
        status = lb_ids_push(ids, ~source->begin.data[i]);
    }
    status = status == LB_OK ? add_text(source, row, "prompt", all, ids, detail) : status;
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

enum lb_status lb_record_encode(const struct lb_text_source *source, const json_t *row, enum lb_row_form form,
                                struct lb_ids *ids, struct lb_detail *detail) {
    struct lb_conversation conversation = {NULL, 0, 0};
    if (!lb_row_needs_template(row, form)) {
        return encode_texts(source, row, ids, detail);
    }
    if (source->chat == NULL) { /* the first row had texts */
        return lb_fail(detail, LB_E_FORMAT, "the line: prompt is no text, as it is in the lines before");
    }
    enum lb_status status = lb_conversation_init(row, form, &conversation, detail);
    if (status == LB_OK) {
        status = lb_chat_encode(source->chat, &conversation, counts_of(source, form), ids, detail);
    }
    lb_conversation_finish(&conversation);
    return status;
}
