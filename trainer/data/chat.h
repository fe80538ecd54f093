/* Conversations as ids: a chat template with the tokenizer that it writes for.
 *
 * Rows of data are brought into one form, a conversation: what the template is rendered with, and from which
 * message on it was written by somebody who is learnt from. Constant once open; rendering may be done by
 * several threads at once.
 */
#ifndef LB_DATA_CHAT_H
#define LB_DATA_CHAT_H

#include "common/base/json.h"
#include "common/base/status.h"
#include "common/chat/template.h"
#include "common/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_chat;

/* tokenizer is borrowed. path: a file that holds a template; NULL: the tokenizer's own. LB_E_NOTFOUND: there
 * is none, with what to do. */
LB_NODISCARD enum lb_status lb_chat_open(const struct lb_tokenizer *tokenizer, const char *path,
                                         struct lb_chat **out, struct lb_detail *detail);
void lb_chat_destroy(struct lb_chat *chat);
/* SHA-256 (hex) of the template's text. */
const char *lb_chat_hash(const struct lb_chat *chat);

/* How a row of data is written; the first that fits. */
enum lb_row_form {
    LB_ROW_TEXT,         /* {"text"} */
    LB_ROW_MESSAGES,     /* {"messages": [{"role", "content"}]} */
    LB_ROW_CONVERSATION, /* ShareGPT's {"conversations": [{"from", "value"}]} */
    LB_ROW_PROMPT,       /* {"prompt", "completion"}: two texts, or two lists of messages */
    LB_ROW_INSTRUCTION   /* {"instruction", "input", "output"} */
};
/* LB_E_FORMAT when row has the members of none of them. */
LB_NODISCARD enum lb_status lb_row_form(const json_t *row, enum lb_row_form *out, struct lb_detail *detail);
/* Whether rows of this form need a template: all but texts, and a prompt and completion that are texts. */
bool lb_row_needs_template(const json_t *row, enum lb_row_form form);

struct lb_conversation {
    json_t *data; /* messages (roles as templates name them), tools, documents, chat_template_kwargs */
    size_t n_messages;
    size_t completion; /* the first message that completes the prompt; n_messages where a row has no such */
    bool silences;     /* some have `weight` 0: none of their tokens count */
};

/* Brings a row into that form: null members dropped, reasoning under the names templates know, roles of
 * ShareGPT as everybody's. Errors name the member. finish accepts a zeroed one. */
LB_NODISCARD enum lb_status lb_conversation_init(const json_t *row, enum lb_row_form form,
                                                 struct lb_conversation *out, struct lb_detail *detail);
void lb_conversation_finish(struct lb_conversation *conversation);

enum lb_chat_counts {
    LB_COUNTS_ALL,        /* every token */
    LB_COUNTS_COMPLETION, /* what follows the prompt's rendering with a generation prompt */
    LB_COUNTS_ASSISTANT   /* the assistant's tokens, see lb_chat_encode */
};

/* Renders the first n_messages; generate: with add_generation_prompt. now: for strftime_now, or NULL:
 * templates are told that there is no such function. */
LB_NODISCARD enum lb_status lb_chat_render(const struct lb_chat *chat,
                                           const struct lb_conversation *conversation, size_t n_messages,
                                           bool generate, const struct tm *now, struct lb_chat_text *out,
                                           struct lb_detail *detail);
/* Appends the ids of a rendered text: special tokens are the template's alone. */
LB_NODISCARD enum lb_status lb_chat_ids(const struct lb_chat *chat, const struct lb_chat_text *text,
                                        struct lb_ids *out, struct lb_detail *detail);
/* Appends the ids of the whole conversation, those that do not count as their complement (~id).
 *
 * The assistant's tokens: those in the template's generation blocks, as transformers' assistant mask has
 * them. Without such blocks: for each message of the assistant, what its rendering adds to that of the
 * messages before it with a generation prompt, but for white space of the template at its end;
 * LB_E_UNSUPPORTED when the template writes the messages before differently then, so that this cannot be
 * told. The same way of messages of weight 0, whatever counts; the first one's
 * is all up to its end. */
LB_NODISCARD enum lb_status lb_chat_encode(const struct lb_chat *chat,
                                           const struct lb_conversation *conversation,
                                           enum lb_chat_counts counts, struct lb_ids *out,
                                           struct lb_detail *detail);

#endif
