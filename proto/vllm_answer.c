/* Answers in vLLM's dialect. */
#include "common/base/rng.h"
#include "proto/oip_wire.h"
#include "proto/vllm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Keeps what became of a buffer, the answer's or another that is written by the way. */
static void note(struct lb_vllm_writer *writer, const struct lb_buf *buf) {
    if (writer->status == LB_OK) {
        writer->status = lb_wire_written(buf, "the answer", writer->detail);
    }
}

bool lb_vllm_failed(struct lb_vllm_writer *writer) {
    note(writer, writer->buf);
    if (writer->status == LB_OK && writer->gone && atomic_load(writer->gone)) {
        writer->status = lb_fail(writer->detail, LB_E_CANCELLED, "the client has left");
    }
    return writer->status != LB_OK;
}

static void put(struct lb_vllm_writer *writer, const char *text) {
    lb_buf_append_str(writer->buf, text);
}

/* Bytes of c in a JSON string. */
static size_t escaped_bytes(unsigned char c) {
    return c < 0x20 ? 6 : c == '"' || c == '\\' ? 2 : 1;
}

/* Makes the bytes of the buffer behind begin the inside of a JSON string: from the last to the first, each
 * goes to where it then stands. */
static void escape_from(struct lb_buf *buf, size_t begin) {
    static const char hex[] = "0123456789abcdef";
    size_t more = 0, at = buf->len;
    for (size_t i = begin; i < buf->len; i++) {
        more += escaped_bytes((unsigned char)buf->data[i]) - 1;
    }
    if (more == 0 || !lb_buf_extend(buf, more)) {
        return;
    }
    char *to = buf->data + buf->len;
    while (at > begin) {
        unsigned char c = (unsigned char)buf->data[--at];
        size_t n = escaped_bytes(c);
        to -= n;
        if (n == 1) {
            *to = (char)c;
        } else if (n == 2) {
            memcpy(to, (const char[]){'\\', (char)c}, 2);
        } else {
            memcpy(to, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        }
    }
}

void lb_vllm_put_text(struct lb_vllm_writer *writer, const char *text, size_t len) {
    put(writer, "\"");
    size_t begin = writer->buf->len;
    lb_buf_append(writer->buf, text, len);
    escape_from(writer->buf, begin);
    put(writer, "\"");
}

size_t lb_vllm_logprob_text(struct lb_vllm_writer *writer, float logprob, char *out) {
    if (isnan(logprob)) {
        writer->status = writer->status != LB_OK
                             ? writer->status
                             : lb_fail(writer->detail, LB_E_INTERNAL,
                                       "the model gives numbers that are none (NaN) for this prompt");
        return 0;
    }
    return lb_wire_float_text(logprob < LB_VLLM_LEAST_LOGPROB ? LB_VLLM_LEAST_LOGPROB : logprob, out);
}

void lb_vllm_put_logprob(struct lb_vllm_writer *writer, float logprob) {
    char text[LB_NUMBER_TEXT];
    lb_buf_append(writer->buf, text, lb_vllm_logprob_text(writer, logprob, text));
}

/* The text of an id as it is, behind what buf holds. */
static void append_id_text(struct lb_vllm_writer *writer, bool as_id, int32_t id, struct lb_buf *buf) {
    if (as_id || !writer->text) {
        lb_buf_printf(buf, "token_id:%d", id);
    } else if (writer->status == LB_OK) {
        writer->status = writer->text(writer->context, id, buf);
        if (writer->status != LB_OK) {
            (void)lb_fail(writer->detail, writer->status, "id %d can't be written as text", id);
        }
    }
    note(writer, buf);
}

/* ---- vLLM's own form ---- */

void lb_vllm_put_id_text(struct lb_vllm_writer *writer, int32_t id) {
    if (!writer->text) {
        put(writer, "null");
        return;
    }
    put(writer, "\"");
    size_t begin = writer->buf->len;
    append_id_text(writer, false, id, writer->buf);
    escape_from(writer->buf, begin);
    put(writer, "\"");
}

/* Puts a literal behind the n bytes of entry. */
#define ADD(entry, n, literal)                                                                               \
    (memcpy((entry) + (n), (literal), sizeof(literal) - 1), (n) += sizeof(literal) - 1)

/* Put together before it is appended: there are many of them. */
static void put_entry(struct lb_vllm_writer *writer, int32_t id, float logprob, int64_t rank) {
    char entry[3 * LB_NUMBER_TEXT + 64];
    size_t n = 0;
    entry[n++] = '"';
    n += lb_wire_integer_text(id, entry + n);
    ADD(entry, n, "\":{\"logprob\":");
    n += lb_vllm_logprob_text(writer, logprob, entry + n);
    ADD(entry, n, ",\"rank\":");
    n += lb_wire_integer_text(rank, entry + n);
    ADD(entry, n, ",\"decoded_token\":");
    if (writer->text) {
        lb_buf_append(writer->buf, entry, n);
        lb_vllm_put_id_text(writer, id);
        put(writer, "}");
    } else {
        ADD(entry, n, "null}");
        lb_buf_append(writer->buf, entry, n);
    }
}

/* One position: the k largest of row t, then the token itself. */
static void put_position(struct lb_vllm_writer *writer, const struct lb_vllm_rows *rows, int64_t t,
                         int32_t own, int64_t k) {
    bool seen = false;
    put(writer, "{");
    for (int64_t i = 0; i < k; i++) {
        int32_t id = rows->top_ids[t * rows->k + i];
        put(writer, i > 0 ? "," : "");
        put_entry(writer, id, rows->top_logprobs[t * rows->k + i], i + 1);
        seen = seen || id == own;
    }
    if (!seen) {
        put(writer, k > 0 ? "," : "");
        put_entry(writer, own, rows->actual[t], (int64_t)rows->ranks[t] + 1);
    }
    put(writer, "}");
}

void lb_vllm_put_prompt_logprobs(struct lb_vllm_writer *writer, const struct lb_vllm_choice *choice,
                                 int64_t k) {
    k = k < 0 || k > choice->prompt.k ? choice->prompt.k : k;
    put(writer, "[null");
    for (int64_t t = 0; t + 1 < choice->n && !lb_vllm_failed(writer); t++) {
        put(writer, ",");
        put_position(writer, &choice->prompt, t, choice->ids[t + 1], k);
    }
    put(writer, "]");
}

/* ---- OpenAI's form ---- */

/* A power of two, at least twice as many as one position has texts. */
#define SLOTS 4096
_Static_assert(SLOTS >= 2 * (LB_VLLM_MAX_LOGPROBS + 1), "texts of one position");

/* Texts of one position, each once: ends [n] of them in text, found by their hash. */
struct texts {
    struct lb_buf text;
    size_t n, end[LB_VLLM_MAX_LOGPROBS + 1];
    size_t mask;
    uint16_t slot[SLOTS]; /* [mask + 1] number of a text + 1; 0: none */
};

/* For at most so many texts. */
static void begin_texts(struct texts *texts, size_t most) {
    lb_buf_reset(&texts->text);
    texts->n = 0;
    texts->mask = 1;
    while (texts->mask + 1 < 2 * most) {
        texts->mask = 2 * texts->mask + 1;
    }
    memset(texts->slot, 0, (texts->mask + 1) * sizeof *texts->slot);
}

static uint64_t hash_of(const char *text, size_t len) {
    uint64_t hash = len;
    for (size_t i = 0; i < len; i++) {
        hash = lb_mix64(hash + (uint8_t)text[i]);
    }
    return hash;
}

/* Adds the id's; false when it is there. */
static bool add_text(struct lb_vllm_writer *writer, bool as_id, int32_t id, struct texts *texts) {
    size_t begin = texts->text.len;
    append_id_text(writer, as_id, id, &texts->text);
    if (writer->status != LB_OK) {
        return false;
    }
    const char *all = texts->text.data ? texts->text.data : "";
    size_t len = texts->text.len - begin, at = (size_t)hash_of(all + begin, len) & texts->mask;
    for (; texts->slot[at] != 0; at = (at + 1) & texts->mask) {
        size_t i = texts->slot[at] - 1u, from = i > 0 ? texts->end[i - 1] : 0;
        if (texts->end[i] - from == len && memcmp(all + from, all + begin, len) == 0) {
            texts->text.len = begin;
            return false;
        }
    }
    texts->end[texts->n++] = texts->text.len;
    texts->slot[at] = (uint16_t)texts->n;
    return true;
}

static void put_named(struct lb_vllm_writer *writer, bool as_id, int32_t id, float logprob,
                      struct texts *texts) {
    size_t begin = texts->text.len;
    bool first = texts->n == 0;
    if (add_text(writer, as_id, id, texts)) {
        put(writer, first ? "" : ",");
        lb_vllm_put_text(writer, texts->text.data ? texts->text.data + begin : "", texts->text.len - begin);
        put(writer, ":");
        lb_vllm_put_logprob(writer, logprob);
    }
}

/* {"text": logprob, ...}: the k largest of row t, then the token itself; of two ids with one text the
 * likelier.
 */
static void put_top(struct lb_vllm_writer *writer, bool as_id, const struct lb_vllm_rows *rows, int64_t t,
                    int32_t own, float own_logprob, int64_t k, struct texts *texts) {
    bool seen = false;
    k = k < rows->k ? k : rows->k;
    begin_texts(texts, (size_t)k + 1);
    put(writer, "{");
    for (int64_t i = 0; i < k; i++) {
        int32_t id = rows->top_ids[t * rows->k + i];
        put_named(writer, as_id, id, rows->top_logprobs[t * rows->k + i], texts);
        seen = seen || id == own;
    }
    if (!seen) {
        put_named(writer, as_id, own, own_logprob, texts);
    }
    put(writer, "}");
}

static size_t characters(const char *text, size_t len) {
    size_t n = 0;
    for (size_t i = 0; text != NULL && i < len; i++) {
        n += (text[i] & 0xc0) != 0x80;
    }
    return n;
}

/* Entry i of what is listed: the prompt's tokens, where it is echoed, then what is generated. */
struct entry {
    int32_t id;
    const struct lb_vllm_rows *rows; /* NULL: nothing is known, as of the first token */
    int64_t row;
    float logprob;
};

static struct entry entry_of(const struct lb_vllm_choice *choice, int64_t i, bool echo) {
    int64_t n = echo ? choice->n : 0;
    if (i >= n) {
        return (struct entry){choice->generated[i - n], &choice->next, i - n,
                              choice->generated_logprobs[i - n]};
    }
    if (i == 0) {
        return (struct entry){.id = choice->ids[0]};
    }
    return (struct entry){choice->ids[i], &choice->prompt, i - 1, choice->prompt.actual[i - 1]};
}

static void put_logprobs(struct lb_vllm_writer *writer, const struct lb_vllm_completion *request,
                         const struct lb_vllm_choice *choice, size_t *offset, struct texts *texts) {
    bool as_id = request->tokens_as_ids, echo = request->echo && !choice->later;
    int64_t n = (echo ? choice->n : 0) + choice->n_generated;
    struct lb_buf offsets, *out = writer->buf;
    lb_buf_init(&offsets, LB_MAX_RESPONSE_BYTES);
    put(writer, "{\"tokens\":[");
    for (int64_t i = 0; i < n && !lb_vllm_failed(writer); i++) {
        lb_buf_reset(&texts->text);
        append_id_text(writer, as_id, entry_of(choice, i, echo).id, &texts->text);
        put(writer, i > 0 ? "," : "");
        lb_vllm_put_text(writer, texts->text.data ? texts->text.data : "", texts->text.len);
        lb_buf_printf(&offsets, "%s%zu", i > 0 ? "," : "", *offset);
        *offset += characters(texts->text.data, texts->text.len);
    }
    put(writer, "],\"text_offset\":[");
    lb_buf_append(out, offsets.data, offsets.len);
    note(writer, &offsets);
    lb_buf_finish(&offsets);
    put(writer, "],\"token_logprobs\":[");
    for (int64_t i = 0; i < n && !lb_vllm_failed(writer); i++) {
        struct entry entry = entry_of(choice, i, echo);
        put(writer, i > 0 ? "," : "");
        if (entry.rows) {
            lb_vllm_put_logprob(writer, entry.logprob);
        } else {
            put(writer, "null");
        }
    }
    put(writer, "],\"top_logprobs\":[");
    for (int64_t i = 0; i < n && !lb_vllm_failed(writer); i++) {
        struct entry entry = entry_of(choice, i, echo);
        put(writer, i > 0 ? "," : "");
        if (entry.rows) {
            put_top(writer, as_id, entry.rows, entry.row, entry.id, entry.logprob, request->sampling.logprobs,
                    texts);
        } else {
            put(writer, "null");
        }
    }
    put(writer, "]}");
}

/* ---- the whole ---- */

void lb_vllm_put_completion(struct lb_vllm_writer *writer, const char *id, int64_t created, const char *model,
                            const char *fingerprint) {
    put(writer, "{\"id\":");
    lb_vllm_put_text(writer, id, strlen(id));
    lb_buf_printf(writer->buf,
                  ",\"object\":\"text_completion\",\"created\":%lld,\"model\":", (long long)created);
    lb_vllm_put_text(writer, model, strlen(model));
    put(writer, ",\"system_fingerprint\":");
    lb_vllm_put_text(writer, fingerprint, strlen(fingerprint));
    put(writer, ",\"choices\":[");
}

static void put_ids(struct lb_vllm_writer *writer, const char *key, const int32_t *ids, int64_t n) {
    lb_buf_printf(writer->buf, ",\"%s\":[", key);
    for (int64_t i = 0; i < n; i++) {
        lb_buf_printf(writer->buf, "%s%d", i > 0 ? "," : "", ids[i]);
    }
    put(writer, "]");
}

static void put_stop_reason(struct lb_vllm_writer *writer, const struct lb_vllm_choice *choice) {
    put(writer, ",\"stop_reason\":");
    if (choice->stop_text) {
        lb_vllm_put_text(writer, choice->stop_text, strlen(choice->stop_text));
    } else if (choice->stop_id >= 0) {
        lb_buf_printf(writer->buf, "%d", choice->stop_id);
    } else {
        put(writer, "null");
    }
}

/* Up to what stands in whole choices only. */
static void begin_choice(struct lb_vllm_writer *writer, const struct lb_vllm_completion *request,
                         const struct lb_vllm_choice *choice, size_t *offset) {
    struct texts texts;
    lb_buf_init(&texts.text, LB_MAX_JSON_BYTES);
    lb_buf_printf(writer->buf, "{\"index\":%lld,\"text\":", (long long)choice->index);
    lb_vllm_put_text(writer, choice->text, choice->text_len);
    put(writer, ",\"logprobs\":");
    if (request->sampling.logprobs != LB_VLLM_NO_LOGPROBS) {
        put_logprobs(writer, request, choice, offset, &texts);
    } else {
        put(writer, "null");
    }
    lb_buf_finish(&texts.text);
    put(writer, ",\"finish_reason\":");
    put(writer, choice->goes_on ? "null" : choice->stopped ? "\"stop\"" : "\"length\"");
    put_stop_reason(writer, choice);
}

void lb_vllm_put_choice(struct lb_vllm_writer *writer, const struct lb_vllm_completion *request,
                        const struct lb_vllm_choice *choice) {
    size_t offset = 0;
    put(writer, choice->index > 0 ? "," : "");
    begin_choice(writer, request, choice, &offset);
    put(writer, ",\"prompt_logprobs\":");
    if (request->sampling.prompt_logprobs != LB_VLLM_NO_LOGPROBS) {
        lb_vllm_put_prompt_logprobs(writer, choice, request->sampling.prompt_logprobs);
    } else {
        put(writer, "null");
    }
    if (request->return_token_ids) {
        put_ids(writer, "prompt_token_ids", choice->ids, choice->n);
        put_ids(writer, "token_ids", choice->generated, choice->n_generated);
    }
    put(writer, "}");
    (void)lb_vllm_failed(writer);
}

static void put_usage(struct lb_vllm_writer *writer, const struct lb_vllm_usage *usage) {
    lb_buf_printf(
        writer->buf, ",\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld,\"completion_tokens\":%lld}",
        (long long)usage->prompt_tokens, (long long)(usage->prompt_tokens + usage->completion_tokens),
        (long long)usage->completion_tokens);
}

void lb_vllm_put_end(struct lb_vllm_writer *writer, const struct lb_vllm_usage *usage) {
    put(writer, "]");
    put_usage(writer, usage);
    put(writer, "}\n");
    (void)lb_vllm_failed(writer);
}

/* ---- a stream ---- */

static void begin_event(struct lb_vllm_writer *writer, const struct lb_vllm_from *from) {
    put(writer, "data: ");
    lb_vllm_put_completion(writer, from->id, from->created, from->model, from->fingerprint);
}

static void end_event(struct lb_vllm_writer *writer, const struct lb_vllm_usage *usage) {
    put(writer, "]");
    if (usage) {
        put_usage(writer, usage);
    }
    put(writer, "}\n\n");
    (void)lb_vllm_failed(writer);
}

void lb_vllm_put_event(struct lb_vllm_writer *writer, const struct lb_vllm_from *from,
                       const struct lb_vllm_completion *request, const struct lb_vllm_choice *choice,
                       size_t *text_offset, const struct lb_vllm_usage *usage) {
    begin_event(writer, from);
    begin_choice(writer, request, choice, text_offset);
    if (request->return_token_ids && !choice->later) {
        put_ids(writer, "prompt_token_ids", choice->ids, choice->n);
    }
    if (request->return_token_ids) {
        put_ids(writer, "token_ids", choice->generated, choice->n_generated);
    }
    put(writer, "}");
    end_event(writer, usage);
}

void lb_vllm_put_event_usage(struct lb_vllm_writer *writer, const struct lb_vllm_from *from,
                             const struct lb_vllm_usage *usage) {
    begin_event(writer, from);
    end_event(writer, usage);
}

void lb_vllm_put_done(struct lb_vllm_writer *writer) {
    put(writer, "data: [DONE]\n\n");
    (void)lb_vllm_failed(writer);
}
