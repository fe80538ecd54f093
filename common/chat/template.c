#include "common/chat/template.h"

#include "common/base/mem.h"
#include "common/base/sha256.h"
#include "common/base/utf8.h"
#include "common/chat/calls.h"
#include "common/chat/parser.h"
#include "common/chat/scopes.h"
#include "common/chat/statements.h"

#include <string.h>

#define MAX_TEMPLATE ((size_t)1 << 20)
#define MAX_TREE ((size_t)64 << 20)
#define MAX_MEMORY ((size_t)256 << 20) /* of a rendering */
#define MAX_OUTPUT ((size_t)64 << 20)

static void take_hash(struct lb_chat_template *to, struct lb_sha256 *hash, const char *text, size_t len) {
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256_update(hash, text, len);
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, to->hash);
}

static enum lb_status parse(struct lb_chat_template *to, const char *text, size_t len,
                            struct lb_detail *detail) {
    struct lb_jtokens tokens = {.token = NULL};
    enum lb_status status = lb_jinja_lex(&to->arena, text, len, to->what, &tokens, detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_jparser p = {.to = to, .at = tokens.token, .detail = detail};
    to->loop_name = lb_jparse_intern(&p, "loop", 4);
    to->caller_name = lb_jparse_intern(&p, "caller", 6);
    to->body = lb_jparse_template(&p);
    return p.status;
}

enum lb_status lb_chat_template_parse(const char *text, size_t len, const char *what,
                                      struct lb_chat_template **out, struct lb_detail *detail) {
    size_t good = lb_utf8_check(text, len);
    if (good < len) {
        return lb_fail(detail, LB_E_FORMAT, "%s: not UTF-8 at byte %zu", what, good);
    }
    if (len > MAX_TEMPLATE) {
        return lb_fail(detail, LB_E_LIMIT, "%s: a template of more than %zu bytes", what, MAX_TEMPLATE);
    }
    struct lb_chat_template *to = lb_calloc(1, sizeof *to);
    struct lb_sha256 *hash = lb_sha256_create();
    enum lb_status status = to && hash ? LB_OK : LB_E_NOMEM;
    if (to) {
        lb_arena_init(&to->arena, MAX_TREE);
        to->what = lb_arena_strdup(&to->arena, what);
        status = to->what ? status : LB_E_NOMEM;
    }
    if (status == LB_OK) {
        take_hash(to, hash, text, len);
        status = parse(to, text, len, detail);
    } else {
        uint8_t unused[LB_SHA256_BYTES];
        lb_sha256_final(hash, unused);
    }
    if (status != LB_OK) {
        lb_chat_template_destroy(to);
        return lb_fail(detail, status, "%s: out of memory for the template", what);
    }
    *out = to;
    return LB_OK;
}

void lb_chat_template_destroy(struct lb_chat_template *chat) {
    if (chat) {
        lb_arena_finish(&chat->arena);
        lb_free(chat);
    }
}

bool lb_chat_template_generates(const struct lb_chat_template *chat) {
    return chat->generates;
}

const char *lb_chat_template_hash(const struct lb_chat_template *chat) {
    return chat->hash;
}

/* ---- rendering ---- */

/* The longest text in a value, keys included; json is as deep as its parser lets it be. */
static size_t longest(const json_t *json) {
    size_t most = json_is_string(json) ? json_string_length(json) : 0, n;
    for (size_t i = 0; i < json_array_size(json); i++) {
        n = longest(json_array_get(json, i));
        most = n > most ? n : most;
    }
    json_t *object = (json_t *)json;
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        n = longest(json_object_iter_value(it));
        most = n > most ? n : most;
        n = strlen(json_object_iter_key(it));
        most = n > most ? n : most;
    }
    return most;
}

static void bind_data(struct lb_jinja *j, const json_t *object, bool mark) {
    for (int i = 0; i < j->template->n_names && j->status == LB_OK; i++) {
        const json_t *value = json_object_get(object, j->template->name[i].s);
        if (value) {
            lb_jbind(j, i, lb_jv_from_json(j, value, mark));
        }
    }
}

static void run(struct lb_jinja *j, struct lb_jbuilder *text) {
    j->n_data_marks = longest(j->input->data) + 1;
    uint8_t *marks = lb_jinja_alloc(j, j->n_data_marks, 1);
    if (!marks || !lb_jscope_open(j, NULL)) {
        return;
    }
    memset(marks, LB_CHAT_DATA, j->n_data_marks);
    j->data_marks = marks;
    bind_data(j, j->input->words, false);
    bind_data(j, j->input->data, true);
    lb_jb_init(text, j);
    j->out = text;
    if (lb_jscope_open(j, j->scope)) {
        lb_jrun(j, j->template->body);
    }
    if (text->len > MAX_OUTPUT) {
        lb_jinja_fail(j, LB_E_LIMIT, "a text of more than %zu bytes", MAX_OUTPUT);
    }
}

enum lb_status lb_chat_template_render(const struct lb_chat_template *chat, const struct lb_chat_input *input,
                                       struct lb_chat_text *out, struct lb_detail *detail) {
    struct lb_jbuilder text = {.len = 0};
    struct lb_jinja j = {.template = chat, .input = input, .detail = detail, .line = 1, .call = lb_jcall};
    lb_arena_init(&j.arena, MAX_MEMORY);
    run(&j, &text);
    struct lb_chat_text result = {.len = text.len};
    if (j.status == LB_OK) {
        result.text = lb_malloc_array(text.len + 1, 1);
        result.mark = lb_malloc_array(text.len + 1, 1);
        j.status = result.text && result.mark ? LB_OK : LB_E_NOMEM;
    }
    if (j.status == LB_OK) {
        if (text.len) {
            memcpy(result.text, text.s, text.len);
            memcpy(result.mark, text.mark, text.len);
        }
        result.text[text.len] = '\0';
        *out = result;
    } else {
        lb_chat_text_finish(&result);
    }
    lb_arena_finish(&j.arena);
    return j.status == LB_OK ? LB_OK : lb_fail(detail, j.status, "%s: out of memory", chat->what);
}

void lb_chat_text_finish(struct lb_chat_text *text) {
    if (text) {
        lb_free(text->text);
        lb_free(text->mark);
        *text = (struct lb_chat_text){.len = 0};
    }
}
