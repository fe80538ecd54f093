/* Vectors in vLLM's and OpenAI's dialect: questions for them, and answers. */
#include "common/base/base64.h"
#include "proto/oip_wire.h"
#include "proto/vllm_read.h"

#include <math.h>
#include <string.h>

#define WHAT LB_VLLM_WHAT

/* ---- questions ---- */

struct word {
    const char *text;
    int value;
};

/* One of the words; *out is left alone where the key isn't there. */
static enum lb_status read_word(const json_t *root, const char *key, const struct word *words, size_t n,
                                int *out, struct lb_detail *detail) {
    const char *text = NULL;
    enum lb_status status = lb_json_str(root, key, false, WHAT, &text, detail);
    if (status != LB_OK || !text) {
        return status;
    }
    char all[160] = "";
    for (size_t i = 0; i < n; i++) {
        if (strcmp(text, words[i].text) == 0) {
            *out = words[i].value;
            return LB_OK;
        }
        strncat(all, i > 0 ? ", " : "", sizeof all - strlen(all) - 1);
        strncat(all, words[i].text, sizeof all - strlen(all) - 1);
    }
    return lb_fail(detail, LB_E_ARG, WHAT ": %s is \"%.32s\", but must be one of %s", key, text, all);
}

#define READ_WORD(root, key, words, out, detail)                                                             \
    read_word(root, key, words, sizeof(words) / sizeof *(words), out, detail)

static enum lb_status read_form(const json_t *root, bool tokens, struct lb_vllm_pooling *out,
                                struct lb_detail *detail) {
    static const struct word formats[] = {{"float", LB_VLLM_FLOAT},
                                          {"base64", LB_VLLM_BASE64},
                                          {"bytes", LB_VLLM_BYTES},
                                          {"bytes_only", LB_VLLM_BYTES_ONLY}};
    static const struct word dtypes[] = {
        {"float32", LB_DT_FP32}, {"float16", LB_DT_FP16}, {"bfloat16", LB_DT_BF16}};
    static const struct word orders[] = {{"native", 0}, {"little", 0}};
    int format = LB_VLLM_FLOAT, dtype = LB_DT_FP32, order = 0;
    enum lb_status status = read_word(root, "encoding_format", formats, tokens ? 4 : 2, &format, detail);
    if (status != LB_OK || (status = READ_WORD(root, "embed_dtype", dtypes, &dtype, detail)) != LB_OK ||
        (status = READ_WORD(root, "endianness", orders, &order, detail)) != LB_OK) {
        return status;
    }
    if (format == LB_VLLM_FLOAT && dtype != LB_DT_FP32) {
        return lb_fail(detail, LB_E_ARG, WHAT ": embed_dtype is for bytes and base64; floats are float32");
    }
    out->format = (enum lb_vllm_format)format;
    out->dtype = (enum lb_datatype)dtype;
    return LB_OK;
}

/* States are given as they are: what would be done to them must be said to be off. */
static enum lb_status check_states(const json_t *root, struct lb_detail *detail) {
    static const struct word tasks[] = {{"token_embed", 0}};
    int task = 0;
    bool activation = true;
    enum lb_status status = READ_WORD(root, "task", tasks, &task, detail);
    if (status == LB_OK) {
        status = lb_json_bool(root, "use_activation", false, WHAT, &activation, detail);
    }
    if (status == LB_OK && activation) {
        return lb_fail(detail, LB_E_ARG,
                       WHAT
                       ": use_activation must be false: final states are given as they are, not normalised");
    }
    return status;
}

static enum lb_status read_pooling(const json_t *root, bool tokens, struct lb_arena *arena,
                                   struct lb_vllm_pooling *out, struct lb_detail *detail) {
    /* The last one of vectors only: states have a rule of their own */
    static const char *const refused[] = {"truncate_prompt_tokens", "messages", "normalize",
                                          "use_activation"};
    size_t n_refused = sizeof refused / sizeof *refused - (tokens ? 1 : 0);
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < n_refused; i++) {
        const json_t *value = json_object_get(root, refused[i]);
        if (value && !json_is_null(value)) {
            return lb_fail(detail, LB_E_ARG,
                           WHAT ": %s would change the answer and is not possible here; leave it out",
                           refused[i]);
        }
    }
    if ((tokens && (status = check_states(root, detail)) != LB_OK) ||
        (status = read_form(root, tokens, out, detail)) != LB_OK ||
        (status = lb_vllm_read_string(root, "model", arena, &out->model, detail)) != LB_OK ||
        (status = lb_vllm_read_id(root, arena, &out->request_id, detail)) != LB_OK ||
        (status = lb_json_int(root, "dimensions", false, 1, INT32_MAX, WHAT, &out->dimensions, detail)) !=
            LB_OK ||
        (status = lb_json_bool(root, "add_special_tokens", false, WHAT, &out->add_special, detail)) !=
            LB_OK) {
        return status;
    }
    return lb_vllm_read_prompts(root, "input", arena, &out->prompts, detail);
}

enum lb_status lb_vllm_pooling_decode(const void *body, size_t len, bool tokens, struct lb_arena *arena,
                                      struct lb_vllm_pooling *out, struct lb_detail *detail) {
    struct lb_vllm_pooling request = {.add_special = true, .dtype = LB_DT_FP32};
    json_t *root = NULL;
    enum lb_status status = lb_vllm_parse(body, len, &root, detail);
    if (status == LB_OK) {
        status = read_pooling(root, tokens, arena, &request, detail);
        json_decref(root);
    }
    if (status == LB_OK) {
        *out = request;
    }
    return status;
}

/* ---- answers ---- */

static void put_floats(struct lb_vllm_writer *writer, const float *x, int64_t n) {
    char text[LB_NUMBER_TEXT];
    lb_buf_append_str(writer->buf, "[");
    for (int64_t i = 0; i < n && writer->status == LB_OK; i++) {
        if (!isfinite(x[i])) {
            writer->status =
                lb_fail(writer->detail, LB_E_UNSUPPORTED,
                        "a number of the answer is not finite and can't be written as JSON; ask for "
                        "base64");
            return;
        }
        lb_buf_append_str(writer->buf, i > 0 ? "," : "");
        lb_buf_append(writer->buf, text, lb_wire_float_text(x[i], text));
    }
    lb_buf_append_str(writer->buf, "]");
}

void lb_vllm_put_vectors(struct lb_vllm_writer *writer, const struct lb_vllm_pooling *request, bool tokens,
                         int64_t index, const void *rows, int64_t n_rows, int64_t width) {
    struct lb_buf *buf = writer->buf;
    lb_buf_printf(buf, "%s{\"object\":\"%s\",\"index\":%lld,\"%s\":", index > 0 ? "," : "",
                  tokens ? "pooling" : "embedding", (long long)index, tokens ? "data" : "embedding");
    if (request->format == LB_VLLM_BASE64) {
        lb_buf_append_str(buf, "\"");
        lb_base64_put(buf, rows, (size_t)(n_rows * width) * lb_datatype_bytes(request->dtype));
        lb_buf_append_str(buf, "\"");
    } else {
        lb_buf_append_str(buf, tokens ? "[" : "");
        for (int64_t r = 0; r < n_rows && !lb_vllm_failed(writer); r++) {
            lb_buf_append_str(buf, r > 0 ? "," : "");
            put_floats(writer, (const float *)rows + r * width, width);
        }
        lb_buf_append_str(buf, tokens ? "]" : "");
    }
    lb_buf_append_str(buf, "}");
    (void)lb_vllm_failed(writer);
}

void lb_vllm_put_metadata(struct lb_vllm_writer *writer, const struct lb_vllm_pooling *request,
                          const int64_t *rows, size_t n, int64_t width) {
    const char *dtype = request->dtype == LB_DT_FP32   ? "float32"
                        : request->dtype == LB_DT_FP16 ? "float16"
                                                       : "bfloat16";
    long long at = 0, tokens = 0;
    lb_buf_append_str(writer->buf, "{\"data\":[");
    for (size_t i = 0; i < n; i++) {
        long long bytes = (long long)(rows[i] * width) * (long long)lb_datatype_bytes(request->dtype);
        lb_buf_printf(writer->buf,
                      "%s{\"index\":%zu,\"embed_dtype\":\"%s\",\"endianness\":\"little\",\"start\":%lld,"
                      "\"end\":%lld,\"shape\":[%lld,%lld]}",
                      i > 0 ? "," : "", i, dtype, at, at + bytes, (long long)rows[i], (long long)width);
        at += bytes;
        tokens += rows[i];
    }
    lb_buf_printf(writer->buf, "],\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld}}", tokens, tokens);
}
