/* A byte-level tokenizer.json made on the spot: <eos> 0, the letter of byte b at 1 + b, then merges. For
 * tests. */
#ifndef LB_TESTS_TINY_TOKENIZER_H
#define LB_TESTS_TINY_TOKENIZER_H

#include "common/base/buf.h"
#include "common/text/byte_level.h"

#include <stdio.h>
#include <string.h>

#define TINY_PIECE 64 /* bytes of a token at most */

/* A merge of two byte strings, each a byte or what an earlier merge makes. */
struct tiny_merge {
    unsigned char left[TINY_PIECE], right[TINY_PIECE];
    size_t left_len, right_len;
};

static inline void tiny_string(struct lb_buf *out, const unsigned char *bytes, size_t n) {
    char letters[2 * TINY_PIECE * 2];
    size_t len = lb_bytes_to_letters((const char *)bytes, n, letters);
    for (size_t i = 0; i < len; i++) {
        if (letters[i] == '"' || letters[i] == '\\') {
            lb_buf_append(out, "\\", 1);
        }
        lb_buf_append(out, letters + i, 1);
    }
}

/* Appends the file. root: more keys of the root object, each with a comma behind; model: of the model; added:
 * more added tokens, each with a comma before. Results of the merges are 257, 258, ...: no two may make the
 * same. */
static inline void tiny_tokenizer_adding(struct lb_buf *out, const struct tiny_merge *merge, size_t n,
                                         const char *root, const char *model, const char *added) {
    lb_buf_printf(
        out,
        "{%s\"added_tokens\":[{\"id\":0,\"content\":\"<eos>\",\"special\":true,\"normalized\":false}%s],"
        "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",%s\"vocab\":{\"<eos>\":0",
        root, added, model);
    for (int byte = 0; byte < 256; byte++) {
        unsigned char b = (unsigned char)byte;
        lb_buf_append_str(out, ",\"");
        tiny_string(out, &b, 1);
        lb_buf_printf(out, "\":%d", 1 + byte);
    }
    for (size_t i = 0; i < n; i++) {
        lb_buf_append_str(out, ",\"");
        tiny_string(out, merge[i].left, merge[i].left_len);
        tiny_string(out, merge[i].right, merge[i].right_len);
        lb_buf_printf(out, "\":%zu", 257 + i);
    }
    lb_buf_append_str(out, "},\"merges\":[");
    for (size_t i = 0; i < n; i++) {
        lb_buf_append_str(out, i ? ",[\"" : "[\"");
        tiny_string(out, merge[i].left, merge[i].left_len);
        lb_buf_append_str(out, "\",\"");
        tiny_string(out, merge[i].right, merge[i].right_len);
        lb_buf_append_str(out, "\"]");
    }
    lb_buf_append_str(out, "]}}");
}

/* The same without more added tokens. */
static inline void tiny_tokenizer(struct lb_buf *out, const struct tiny_merge *merge, size_t n,
                                  const char *root, const char *model) {
    tiny_tokenizer_adding(out, merge, n, root, model, "");
}

#define TINY_GPT2 "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
/* <bos> 257 (without merges), which texts begin with. */
#define TINY_BOS ",{\"id\":257,\"content\":\"<bos>\",\"special\":true,\"normalized\":false}"
#define TINY_BEGINS                                                                                          \
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<bos>\","   \
    "\"type_id\":"                                                                                           \
    "0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<bos>\":{\"id\":\"<" \
    "bos>\","                                                                                                \
    "\"ids\":[257],\"tokens\":[\"<bos>\"]}}},"
#define TINY_WHOLE                                                                                           \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false},"

#endif
