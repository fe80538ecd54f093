/* Chat templates: the Jinja that comes with a model and writes a conversation the way the model read
 * conversations when it was trained.
 *
 * Understood is what templates of published models use of Jinja 3.1, in the environment that transformers'
 * apply_chat_template sets up (trim_blocks, lstrip_blocks, break and continue, generation blocks, its tojson,
 * raise_exception, strftime_now, the immutable sandbox): the text is the same to the byte. What is not
 * understood (a statement, a filter, a test, a method, a global function) is refused by its name and line
 * when the template is parsed. A template cannot run for ever or take all memory: levels within one another
 * (which is what bounds the recursion of parser and evaluator), steps, memory and output have limits.
 *
 * A template is constant after parsing and may be rendered by several threads at once.
 */
#ifndef LB_CHAT_TEMPLATE_H
#define LB_CHAT_TEMPLATE_H

#include "common/base/json.h"
#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct lb_chat_template;

/* Marks of a byte of rendered text. */
#define LB_CHAT_DATA 1       /* came from the data: a message's content, not the template's own words */
#define LB_CHAT_GENERATION 2 /* stands in a {% generation %} block: the assistant's */

/* text: UTF-8 of len bytes. what names it in errors ("tokenizer_config.json: chat_template"). LB_E_FORMAT:
 * Jinja that is wrong; LB_E_UNSUPPORTED: Jinja that is not understood, with its name and line. */
LB_NODISCARD enum lb_status lb_chat_template_parse(const char *text, size_t len, const char *what,
                                                   struct lb_chat_template **out, struct lb_detail *detail);
void lb_chat_template_destroy(struct lb_chat_template *chat);
/* Whether there is a {% generation %} block. */
bool lb_chat_template_generates(const struct lb_chat_template *chat);
/* SHA-256 (hex) of the text. */
const char *lb_chat_template_hash(const struct lb_chat_template *chat);

struct lb_chat_input {
    /* An object: messages, tools and what else the template asks for. Texts are marked, but for plain words
     * under the key "role": templates make special tokens of roles ("<|" + role + "|>"). */
    const json_t *data;
    const json_t *words;  /* an object, or NULL: bos_token and the like; texts are not marked */
    const struct tm *now; /* for strftime_now; NULL: the template is told that there is no such function */
};

struct lb_chat_text {
    char *text; /* lb_free, ended by a NUL that does not count */
    size_t len;
    uint8_t *mark; /* [len] LB_CHAT_...; lb_free */
};

/* Renders as Python would. Errors name the template and the line: what the template itself refuses
 * (raise_exception) is LB_E_ARG with its words. */
LB_NODISCARD enum lb_status lb_chat_template_render(const struct lb_chat_template *chat,
                                                    const struct lb_chat_input *input,
                                                    struct lb_chat_text *out, struct lb_detail *detail);
/* Accepts NULL and a zeroed text. */
void lb_chat_text_finish(struct lb_chat_text *text);

#endif
