/* Text: lines are encoded by several threads, block after block, and strung together in their order. */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <omp.h>
#include <string.h>

#define BLOCK_LINES 8192 /* encoded before max_tokens is looked at again */
#define MAX_PARTS 64     /* threads that share a block */
#define MAX_LINE (64u << 20)

/* A file's text, read line by line. */
struct lines {
    const char *at, *end;
    int64_t number; /* of the line that at begins, from 1 */
    bool json;
    bool blank; /* so far there was nothing but white space */
};

struct line {
    const char *text;
    size_t len;
    int64_t number;
};

/* One thread's share of a block. */
struct part {
    size_t first, n;
    struct lb_ids ids;
    struct lb_ids lens;    /* of records */
    struct lb_ids prompts; /* of records two numbers: ids of their prompts, and of those that teachers read */
    struct lb_ids teacher_prompts;
    struct lb_buf records; /* where they are kept: as JSON */
    struct lb_ids record_lens;
    struct lb_row_labels labels;
    struct lb_buf weights; /* where they are brought */
    enum lb_status status;
    struct lb_detail detail;
};

/* What texts begin and end with: as the tokenizer's template says, and eos. */
static enum lb_status find_ends(struct lb_text_source *source, struct lb_detail *detail) {
    const struct lb_ids *before = lb_tokenizer_before(source->tokenizer),
                        *after = lb_tokenizer_after(source->tokenizer);
    enum lb_status status = lb_ids_append(&source->begin, before->data, before->len);
    status = status == LB_OK ? lb_ids_append(&source->end, after->data, after->len) : status;
    if (status == LB_OK && !source->whole &&
        (after->len == 0 || after->data[after->len - 1] != source->eos)) {
        status = lb_ids_push(&source->end, source->eos);
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for the tokenizer");
}

enum lb_status lb_text_source_init(struct lb_text_source *source, const struct lb_tokenizer *tokenizer,
                                   bool whole, struct lb_detail *detail) {
    int32_t eos = lb_tokenizer_eos(tokenizer), v = lb_tokenizer_vocab_size(tokenizer);
    if (eos < 0 && !whole) {
        return lb_fail(detail, LB_E_ARG,
                       "the tokenizer does not say which token ends a text; put a tokenizer_config.json with "
                       "eos_token beside it");
    }
    *source = (struct lb_text_source){.tokenizer = tokenizer, .vocab_size = v, .eos = eos, .whole = whole};
    source->token_bytes = lb_calloc((size_t)v, sizeof *source->token_bytes);
    if (source->token_bytes == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the vocabulary");
    }
    for (int32_t id = 0; id < v; id++) {
        size_t len = 0;
        if (lb_tokenizer_bytes(tokenizer, id, &len) != NULL && !lb_tokenizer_is_special(tokenizer, id)) {
            source->token_bytes[id] = (uint16_t)(len < UINT16_MAX ? len : UINT16_MAX);
        }
    }
    if (eos >= 0) {
        source->token_bytes[eos] = 1;
    }
    return find_ends(source, detail);
}

void lb_text_source_finish(struct lb_text_source *source) {
    lb_free(source->token_bytes);
    lb_free(source->begin.data);
    lb_free(source->end.data);
    lb_free(source->chat_template);
    lb_chat_destroy(source->chat);
    *source = (struct lb_text_source){0};
}

enum lb_status lb_text_source_chat(struct lb_text_source *source, struct lb_detail *detail) {
    return source->chat != NULL
               ? LB_OK
               : lb_chat_open(source->tokenizer, source->chat_template, &source->chat, detail);
}

/* Whether the line holds nothing but white space. */
static bool is_blank(const struct line *line) {
    for (size_t i = 0; i < line->len; i++) {
        if (strchr(" \t\r\f\v", line->text[i]) == NULL || line->text[i] == '\0') {
            return false;
        }
    }
    return true;
}

/* The next line that is not empty; false at the end. Between JSON lines, white space is nothing either. */
static bool next_line(struct lines *lines, struct line *out) {
    while (lines->at < lines->end) {
        const char *newline = memchr(lines->at, '\n', (size_t)(lines->end - lines->at));
        const char *stop = newline != NULL ? newline : lines->end;
        size_t len = (size_t)(stop - lines->at);
        *out = (struct line){lines->at, len, lines->number++};
        lines->at = newline != NULL ? newline + 1 : lines->end;
        if (len > 0 && out->text[len - 1] == '\r') {
            out->len--;
        }
        bool blank = is_blank(out);
        lines->blank = lines->blank && blank;
        if (out->len > 0 && !(blank && lines->json)) {
            return true;
        }
    }
    return false;
}

static enum lb_status encode_json(const struct lb_text_source *source, const struct lb_recipe_dataset *entry,
                                  const struct line *line, struct part *part) {
    const char *field = entry->field != NULL ? entry->field : "text";
    struct lb_ids *ids = &part->ids;
    struct lb_detail *detail = &part->detail;
    json_t *object = NULL;
    enum lb_status status = lb_json_parse_loose(line->text, line->len, 0, "the line", &object, detail);
    const json_t *text = json_object_get(object, field);
    if (status == LB_OK && json_is_string(text)) { /* it may hold a NUL */
        status = lb_tokenizer_encode(source->tokenizer, json_string_value(text), json_string_length(text),
                                     false, ids, detail);
    } else if (status == LB_OK) {
        const char *unused;
        status = lb_json_str(object, field, true, "the line", &unused, detail);
    }
    if (status == LB_OK && source->num_labels > 0) {
        const char *key = entry->label_field != NULL ? entry->label_field : "label";
        status = lb_row_labels_add(&part->labels, object, key, source->num_labels, detail);
    }
    if (status == LB_OK && entry->weight_field != NULL) {
        status = lb_row_weight(object, entry->weight_field, &part->weights, detail);
    }
    json_decref(object);
    return status;
}

/* Appends a record. */
static enum lb_status encode_record(const struct lb_text_source *source,
                                    const struct lb_recipe_dataset *entry, enum lb_row_form form,
                                    const struct line *line, struct part *part) {
    struct lb_detail *detail = &part->detail;
    json_t *object = NULL;
    enum lb_row_form is = form;
    size_t before = part->ids.len;
    struct lb_record_prompts prompts = {.teacher_prompts = &part->teacher_prompts};
    enum lb_status status = lb_json_parse_loose(line->text, line->len, 0, "the line", &object, detail);
    status = status == LB_OK ? lb_row_form(object, &is, detail) : status;
    if (status == LB_OK && is != form) {
        status =
            lb_fail(detail, LB_E_FORMAT, "the line is written in another form than the file's first one");
    }
    status = status == LB_OK ? lb_record_encode(source, object, form, &part->ids, &prompts, detail) : status;
    status = status == LB_OK ? lb_ids_push(&part->lens, (int32_t)(part->ids.len - before)) : status;
    const int32_t of[] = {(int32_t)prompts.prompt, (int32_t)prompts.theirs};
    status = status == LB_OK ? lb_ids_append(&part->prompts, of, 2) : status;
    if (status == LB_OK && source->keeps) {
        size_t len = lb_row_needs_template(object, form) ? line->len : 0;
        status = lb_buf_append(&part->records, line->text, len);
        status = status == LB_OK ? lb_ids_push(&part->record_lens, (int32_t)len) : status;
    }
    if (status == LB_OK && entry->weight_field != NULL) {
        status = lb_row_weight(object, entry->weight_field, &part->weights, detail);
    }
    json_decref(object);
    return status;
}

/* Appends one document with what begins and ends it. The former is written as its complement, so that rows
 * know it. */
static enum lb_status encode_line(const struct lb_text_source *source, const struct lb_recipe_dataset *entry,
                                  enum lb_row_form form, const struct line *line, struct part *part) {
    struct lb_detail *detail = &part->detail;
    struct lb_ids *ids = &part->ids;
    if (line->len > MAX_LINE) {
        return lb_fail(detail, LB_E_LIMIT, "a line of more than %u bytes; one line is one document",
                       MAX_LINE);
    }
    enum lb_status status = LB_OK;
    size_t before = ids->len;
    if (form != LB_ROW_TEXT) {
        status = encode_record(source, entry, form, line, part);
        return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for the text");
    }
    for (size_t i = 0; status == LB_OK && i < source->begin.len; i++) {
        status = lb_ids_push(ids, ~source->begin.data[i]);
    }
    if (status == LB_OK && entry->type == LB_DATA_JSONL) {
        status = encode_json(source, entry, line, part);
    } else if (status == LB_OK) {
        status = lb_tokenizer_encode(source->tokenizer, line->text, line->len, false, ids, detail);
    }
    status = status == LB_OK ? lb_ids_append(ids, source->end.data, source->end.len) : status;
    if (status == LB_OK && source->whole) {
        status = lb_ids_push(&part->lens, (int32_t)(ids->len - before));
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for the text");
}

static void encode_part(const struct lb_text_source *source, const struct lb_recipe_dataset *entry,
                        const struct lb_text_stream *stream, const struct line *lines, struct part *part) {
    part->ids.len = part->lens.len = part->prompts.len = part->record_lens.len = part->teacher_prompts.len =
        0;
    lb_buf_reset(&part->records);
    lb_buf_reset(&part->weights);
    lb_row_labels_clear(&part->labels);
    part->status = LB_OK;
    for (size_t i = 0; part->status == LB_OK && i < part->n; i++) {
        const struct line *line = &lines[part->first + i];
        if (source->stop != NULL && *source->stop != 0) {
            part->status = lb_fail(&part->detail, LB_E_CANCELLED, "stopped while reading");
        } else {
            part->status = encode_line(source, entry, stream->form, line, part);
        }
        if (part->status != LB_OK) {
            lb_detail_prefix(&part->detail, "%s:%lld", stream->path, (long long)line->number);
        }
    }
}

/* Adds the labels of a part's records or whole texts to the stream's. */
static void count_labels(struct lb_text_stream *stream, const struct lb_text_source *source,
                         const struct part *part) {
    const int32_t *ids = part->ids.data;
    for (size_t i = 0; i < part->lens.len; ids += part->lens.data[i], i++) {
        int64_t n = source->whole ? lb_whole_kept(source, part->lens.data[i], stream->max_length)
                                  : lb_record_kept(ids, part->lens.data[i], stream->max_length);
        stream->labels += source->whole || n == 0 ? n : n - 1;
    }
}

/* Encodes n lines and appends them in order, whatever the number of threads. */
static enum lb_status encode_block(struct lb_text_stream *stream, const struct lb_text_source *source,
                                   const struct lb_recipe_dataset *entry, const struct line *lines, size_t n,
                                   struct part *parts, struct lb_detail *detail) {
    int n_parts = omp_get_max_threads() < MAX_PARTS ? omp_get_max_threads() : MAX_PARTS;
    for (int p = 0; p < n_parts; p++) {
        parts[p].first = n * (size_t)p / (size_t)n_parts;
        parts[p].n = n * ((size_t)p + 1) / (size_t)n_parts - parts[p].first;
    }
#pragma omp parallel for schedule(static, 1) num_threads(n_parts)
    for (int p = 0; p < n_parts; p++) {
        encode_part(source, entry, stream, lines, &parts[p]);
    }
    for (int p = 0; p < n_parts; p++) {
        if (parts[p].status != LB_OK) {
            return lb_fail(detail, parts[p].status, "%s", parts[p].detail.text);
        }
        count_labels(stream, source, &parts[p]);
        enum lb_status status = lb_ids_append(&stream->ids, parts[p].ids.data, parts[p].ids.len);
        stream->encoded += (int64_t)parts[p].ids.len;
        status =
            status == LB_OK ? lb_ids_append(&stream->lens, parts[p].lens.data, parts[p].lens.len) : status;
        status = status == LB_OK
                     ? lb_ids_append(&stream->prompts, parts[p].prompts.data, parts[p].prompts.len)
                     : status;
        const struct lb_ids *lens = &parts[p].record_lens;
        status = status == LB_OK ? lb_ids_append(&stream->record_lens, lens->data, lens->len) : status;
        status = status == LB_OK
                     ? lb_buf_append(&stream->records, parts[p].records.data, parts[p].records.len)
                     : status;
        status = status == LB_OK
                     ? lb_buf_append(&stream->weights, parts[p].weights.data, parts[p].weights.len)
                     : status;
        if (status != LB_OK) {
            return lb_fail(detail, status, "out of memory for the text");
        }
        const struct lb_ids *theirs = &parts[p].teacher_prompts;
        status = lb_spill_append(&stream->data->teacher_prompts, theirs->data,
                                 theirs->len * sizeof *theirs->data, detail);
        if (status != LB_OK) {
            return status;
        }
        status = lb_dataset_take_labels(stream->data, &parts[p].labels, &stream->classes, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "%s", stream->path);
            return status;
        }
    }
    return LB_OK;
}

/* How the rows of a file of JSON lines are written: as its first line is. What is wrong with that one, its
 * encoding says. */
static enum lb_status find_form(struct lines lines, const char *path, struct lb_text_source *source,
                                enum lb_row_form *out, struct lb_detail *detail) {
    struct line line;
    json_t *row = NULL;
    if (!next_line(&lines, &line) || line.len > MAX_LINE ||
        lb_json_parse_loose(line.text, line.len, 0, "the line", &row, NULL) != LB_OK) {
        return LB_OK;
    }
    enum lb_status status = lb_row_form(row, out, detail);
    if (status == LB_OK && lb_row_needs_template(row, *out)) {
        status = lb_text_source_chat(source, detail);
    }
    if (status != LB_OK) {
        lb_detail_prefix(detail, "%s:%lld", path, (long long)line.number);
    }
    json_decref(row);
    return status;
}

/* Whether the stream has max_tokens labels (0: never). */
static bool has_enough(const struct lb_text_stream *stream, const struct lb_text_source *source,
                       int64_t max_tokens) {
    bool one_stream = stream->form == LB_ROW_TEXT && !source->whole;
    int64_t labels = one_stream ? stream->encoded - stream->others - 1 : stream->labels;
    return max_tokens > 0 && labels >= max_tokens;
}

/* Whether such data can be read as the recipe wants it. */
static enum lb_status check_form(const struct lb_text_stream *stream, const struct lb_text_source *source,
                                 const struct lb_recipe_dataset *entry, struct lb_detail *detail) {
    bool text = stream->form == LB_ROW_TEXT;
    if (!text && entry->prompt_length > 0) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: prompt_length is for texts; records say themselves where their prompts end",
                       stream->path);
    }
    if (text && !source->whole && entry->weight_field != NULL) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: weight_field: texts are strung together, and a row may have parts of several; "
                       "set whole_texts: true, or write them as records",
                       stream->path);
    }
    if (!text && source->whole) {
        return lb_fail(detail, LB_E_ARG, "%s: whole_texts reads texts, these are records", stream->path);
    }
    if (text && source->teacher_prompt != NULL) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: texts have no %s for teachers to read in place of a prompt; records do",
                       stream->path, source->teacher_prompt);
    }
    return LB_OK;
}

/* The whole file, or as much as gives the entry's max_tokens, as rows. */
static enum lb_status encode_file(struct lb_text_stream *stream, struct lb_text_source *source,
                                  const struct lb_recipe_dataset *entry, const struct lb_text_cut *cut,
                                  struct lb_detail *detail) {
    const char *path = stream->path;
    struct lb_map map = {0};
    struct part *parts = lb_calloc(MAX_PARTS, sizeof *parts);
    struct line *block = lb_malloc_array(BLOCK_LINES, sizeof *block);
    enum lb_status status = lb_map_open(&map, path, detail);
    if (status == LB_OK && (parts == NULL || block == NULL)) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    }
    for (int p = 0; parts != NULL && p < MAX_PARTS; p++) {
        lb_buf_init(&parts[p].records, LB_MAX_RECORDS);
        lb_buf_init(&parts[p].weights, LB_MAX_RECORDS);
        lb_row_labels_init(&parts[p].labels);
    }
    const char *text = map.len > 0 ? (const char *)map.data : "";
    struct lines lines = {text, text + map.len, 1, entry->type == LB_DATA_JSONL, true};
    if (map.len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        lines.at += 3; /* a byte order mark is no text */
    }
    bool any_form = entry->field == NULL || strcmp(entry->field, "text") == 0;
    if (status == LB_OK && lines.json && any_form) {
        status = find_form(lines, path, source, &stream->form, detail);
    }
    status = status == LB_OK ? check_form(stream, source, entry, detail) : status;
    while (status == LB_OK && !has_enough(stream, source, entry->max_tokens)) {
        size_t n = 0;
        while (n < BLOCK_LINES && next_line(&lines, &block[n])) {
            n++;
        }
        if (n == 0) {
            break;
        }
        status = encode_block(stream, source, entry, block, n, parts, detail);
        stream->others += stream->form == LB_ROW_TEXT ? (int64_t)(n * source->begin.len) : 0;
        status = status == LB_OK ? lb_cut(stream->data, source, stream, cut, false, detail) : status;
        lb_map_forget(&map, (size_t)(lines.at - text));
    }
    if (status == LB_OK && lines.blank) {
        status = lb_fail(detail, LB_E_ARG, "%s: holds no text: %s", path,
                         map.len == 0 ? "it is empty" : "all its lines are blank");
    }
    status = status == LB_OK ? lb_cut(stream->data, source, stream, cut, true, detail) : status;
    for (int p = 0; parts != NULL && p < MAX_PARTS; p++) {
        lb_free(parts[p].ids.data);
        lb_free(parts[p].lens.data);
        lb_free(parts[p].prompts.data);
        lb_free(parts[p].teacher_prompts.data);
        lb_free(parts[p].record_lens.data);
        lb_buf_finish(&parts[p].records);
        lb_buf_finish(&parts[p].weights);
        lb_row_labels_finish(&parts[p].labels);
    }
    lb_free(parts);
    lb_free(block);
    lb_map_close(&map);
    return status;
}

enum lb_status lb_dataset_add_text(struct lb_dataset *data, struct lb_text_source *source,
                                   const struct lb_recipe_dataset *entry, const char *path,
                                   int64_t max_length, bool keep_short, struct lb_detail *detail) {
    const struct lb_text_cut cut = {.path = path,
                                    .max_length = max_length,
                                    .max_tokens = entry->max_tokens,
                                    .keep_short = keep_short,
                                    .tag = lb_dataset_take_tag(data, entry->tag),
                                    .prompt = source->prompts ? (int32_t)entry->prompt_length : 0};
    if (cut.tag == -2) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    }
    struct lb_text_stream stream = {.data = data,
                                    .path = path,
                                    .form = LB_ROW_TEXT,
                                    .start = lb_text_ids(data),
                                    .teacher_prompt =
                                        (size_t)lb_spill_size(&data->teacher_prompts) / sizeof(int32_t),
                                    .max_length = max_length,
                                    .left = entry->max_tokens > 0 ? entry->max_tokens : INT64_MAX};
    lb_buf_init(&stream.records, LB_MAX_RECORDS);
    lb_buf_init(&stream.weights, LB_MAX_RECORDS);
    enum lb_status status = encode_file(&stream, source, entry, &cut, detail);
    lb_free(stream.ids.data);
    lb_free(stream.lens.data);
    lb_free(stream.prompts.data);
    lb_free(stream.record_lens.data);
    lb_buf_finish(&stream.records);
    lb_buf_finish(&stream.weights);
    lb_free(stream.classes.data);
    data->bytes += stream.bytes;
    if (cut.tag >= 0) {
        data->tag_bytes[cut.tag] += stream.bytes;
    }
    return status == LB_OK ? lb_text_hash_ids(data, stream.start, detail) : status;
}
