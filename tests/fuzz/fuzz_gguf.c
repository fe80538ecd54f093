/* lb_gguf_parse, lb_config_from_gguf and lb_tokenizer_from_gguf: whatever is accepted can be read to its last
 * byte, and comes back the same when it is written (as far as the writer has the types). */
#include "common/formats/gguf.h"
#include "common/base/mem.h"
#include "common/model/families.h"
#include "common/text/tokenizer.h"
#include "tests/support/parameters.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

static int same(const struct lb_tensor *a, const struct lb_tensor *b) {
    return strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->n_dims == b->n_dims &&
           memcmp(a->dim, b->dim, sizeof *a->dim * (size_t)a->n_dims) == 0 && a->bytes == b->bytes &&
           (a->bytes == 0 || memcmp(a->data, b->data, a->bytes) == 0);
}

/* Equal, or both not a number. */
static int same_number(double a, double b) {
    return a == b || (a != a && b != b);
}

/* Text of an array, or NULL when one of them is none that a C string can hold. */
static const char **array_texts(const struct lb_gguf *file, const char *key, int64_t n) {
    const char **texts = calloc((size_t)n + 1, sizeof *texts);
    require(texts != NULL);
    for (int64_t i = 0; i < n; i++) {
        texts[i] = lb_gguf_array_string(file, key, i);
        if (texts[i] == NULL) {
            free(texts);
            return NULL;
        }
    }
    return texts;
}

/* Puts key i into out where the writer has its type; whether it did. */
static int copy_key(const struct lb_gguf *file, size_t i, struct lb_gguf_out *out) {
    enum lb_gguf_type type, of;
    const char *key = lb_gguf_key(file, i, &type, &of);
    double v = 0;
    require(key != NULL && lb_gguf_has(file, key));
    if (strcmp(key, "general.alignment") == 0) {
        return 0; /* the writer's own */
    }
    int64_t n = lb_gguf_array_count(file, key);
    for (int64_t k = 0; k < n && of != LB_GGUF_STRING; k++) {
        require(lb_gguf_array_number(file, key, k, &v));
    }
    require(type == LB_GGUF_STRING || type == LB_GGUF_ARRAY || lb_gguf_number(file, key, &v));
    if (type == LB_GGUF_U32) {
        lb_gguf_put_u32(out, key, (uint32_t)v);
    } else if (type == LB_GGUF_F32) {
        lb_gguf_put_f32(out, key, (float)v);
    } else if (type == LB_GGUF_BOOL) {
        lb_gguf_put_bool(out, key, v == 1);
    } else if (type == LB_GGUF_STRING && lb_gguf_string(file, key) != NULL) {
        lb_gguf_put_string(out, key, lb_gguf_string(file, key));
    } else if (type == LB_GGUF_ARRAY && of == LB_GGUF_STRING) {
        const char **texts = array_texts(file, key, n);
        if (texts == NULL) {
            return 0;
        }
        lb_gguf_put_strings(out, key, texts, (size_t)n);
        free(texts);
    } else {
        return 0;
    }
    return 1;
}

static void compare_key(const struct lb_gguf *a, const struct lb_gguf *b, const char *key,
                        enum lb_gguf_type type) {
    double x = 0, y = 0;
    if (type == LB_GGUF_STRING) {
        require(strcmp(lb_gguf_string(a, key), lb_gguf_string(b, key)) == 0);
    } else if (type == LB_GGUF_ARRAY) {
        int64_t n = lb_gguf_array_count(a, key);
        require(lb_gguf_array_count(b, key) == n);
        for (int64_t i = 0; i < n; i++) {
            require(strcmp(lb_gguf_array_string(a, key, i), lb_gguf_array_string(b, key, i)) == 0);
        }
    } else {
        require(lb_gguf_number(a, key, &x) && lb_gguf_number(b, key, &y) && same_number(x, y));
    }
}

static void write_and_compare(const struct lb_gguf *file, size_t size) {
    size_t n_keys = lb_gguf_key_count(file), n = lb_gguf_count(file);
    char *copied = calloc(n_keys + 1, 1);
    struct lb_gguf_out *out = lb_gguf_out_create();
    require(copied != NULL && out != NULL);
    for (size_t i = 0; i < n_keys; i++) {
        copied[i] = (char)copy_key(file, i, out);
    }
    for (size_t i = 0; i < n; i++) {
        if (strlen(lb_gguf_get(file, i)->name) <
            64) { /* the writer keeps to ggml's limit, the reader to the format's */
            lb_gguf_put_tensor(out, lb_gguf_get(file, i));
        }
    }
    struct lb_buf buf;
    struct lb_gguf *again = NULL;
    lb_buf_init(&buf, 4096 + 64 * size);
    require(lb_gguf_encode(out, &buf, NULL) == LB_OK);
    require(lb_gguf_parse(buf.data, buf.len, "again", &again, NULL) == LB_OK);
    for (size_t i = 0; i < n_keys; i++) {
        enum lb_gguf_type type, of;
        const char *key = lb_gguf_key(file, i, &type, &of);
        if (copied[i]) {
            compare_key(file, again, key, type);
        }
    }
    for (size_t i = 0, kept = 0; i < n; i++) {
        if (strlen(lb_gguf_get(file, i)->name) < 64) {
            require(same(lb_gguf_get(again, kept++), lb_gguf_get(file, i)));
            require(lb_gguf_find(again, lb_gguf_get(file, i)->name) != NULL);
        }
    }
    lb_gguf_destroy(again);
    lb_buf_finish(&buf);
    lb_gguf_out_destroy(out);
    free(copied);
}

/* The vocabulary, if there is one: its tokenizer cuts text within itself, and can be asked to go into a file.
 */
static void make_tokenizer(const struct lb_gguf *file) {
    static const char text[] = "It's a <s>still</s>,\n\n  12345 \xc3\x9c\xe2\x96\x81 \xe4\xb8\x80.";
    struct lb_tokenizer *t = NULL;
    struct lb_detail detail = {0};
    enum lb_status status = lb_tokenizer_from_gguf(file, "input", &t, &detail);
    require(status == detail.code && (status == LB_OK) == (t != NULL));
    if (status != LB_OK) {
        require(strncmp(detail.text, "input: ", 7) == 0);
        return;
    }
    struct lb_ids ids = {0};
    struct lb_gguf_out *out = lb_gguf_out_create();
    int32_t size = lb_tokenizer_vocab_size(t);
    status = lb_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &detail);
    require(out != NULL && status == detail.code);
    for (size_t i = 0; i < ids.len; i++) {
        require(lb_tokenizer_token(t, ids.data[i]) != NULL);
    }
    require(lb_tokenizer_bos(t) < size && lb_tokenizer_eos(t) < size);
    detail = (struct lb_detail){0};
    status = lb_tokenizer_put_gguf(t, size, out, &detail);
    require(status == detail.code);
    lb_gguf_out_destroy(out);
    lb_free(ids.data);
    lb_tokenizer_destroy(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    enum lb_status status = lb_gguf_parse(data, size, "input", &file, &detail);
    require(status == detail.code);
    if (status != LB_OK) {
        require(file == NULL && strncmp(detail.text, "input: ", 7) == 0);
        return 0;
    }
    write_and_compare(file, size);
    make_tokenizer(file);
    struct lb_config config;
    status = lb_config_from_gguf(file, "input", &config, NULL, &detail);
    require(status == detail.code);
    require(status != LB_OK
                ? strncmp(detail.text, "input: ", 7) == 0
                : lb_config_check(&config, "again", NULL) == LB_OK && config_parameters(&config) > 0);
    lb_gguf_destroy(file);
    return 0;
}
