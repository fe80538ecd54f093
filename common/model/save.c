/* Models as files: Hugging Face folders and GGUF. */
#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/rope_scaling.h"
#include "common/formats/safetensors.h"
#include "common/model/families.h"
#include "common/model/family.h"
#include "common/model/layout.h"
#include "common/model/readme.h"
#include "common/model/save.h"
#include "common/nn/gemm.h"
#include "common/text/tokenizer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The model's tensors in another format; converted bytes are owned. */
struct converted {
    struct lb_tensor *tensors; /* without a name: stands with one before it */
    void **bytes;
    size_t n;
};

static void converted_finish(struct converted *c) {
    for (size_t i = 0; c->bytes != NULL && i < c->n; i++) {
        lb_free(c->bytes[i]);
    }
    lb_free(c->bytes);
    lb_free(c->tensors);
}

static void convert_row(const struct lb_weight *w, int64_t r, enum lb_dtype to, float *row, char *out,
                        size_t row_bytes) {
    if (to == w->dtype) {
        memcpy(out, lb_weight_row(w, r, row_bytes), row_bytes);
    } else {
        lb_gemm_widen(w, r, 1, row);
        lb_quantize(to, row, out, w->cols);
    }
}

/* The rows of n weights of one shape in another format, or in their own; the caller's. */
static void *convert_rows(const struct lb_weight *w, int64_t n, enum lb_dtype to, size_t bytes) {
    char *out = lb_malloc_array(bytes, 1);
    float *row = lb_malloc_array((size_t)w->cols, sizeof *row);
    size_t row_bytes = w->rows > 0 ? bytes / (size_t)(n * w->rows) : 0;
    for (int64_t r = 0; out != NULL && row != NULL && r < n * w->rows; r++) {
        convert_row(&w[r / w->rows], r % w->rows, to, row, out + (size_t)r * row_bytes, row_bytes);
    }
    if (row == NULL) {
        lb_free(out);
        return NULL;
    }
    lb_free(row);
    return out;
}

/* The tensor as the file has it: its bytes may become others. */
static enum lb_status lay_out(const struct lb_model *model, size_t i, bool gguf, struct converted *c,
                              struct lb_detail *detail) {
    void *bytes = NULL;
    enum lb_status status = lb_layout_give(model, i, gguf, &c->tensors[i], &bytes, detail);
    if (bytes != NULL) {
        lb_free(c->bytes[i]);
        c->bytes[i] = bytes;
    }
    return status;
}

/* What weight i is written as: where its rows are no whole blocks what llama.cpp's quantize takes then. */
static enum lb_dtype dtype_of(const struct lb_model *model, size_t i, enum lb_dtype dtype, bool gguf,
                              struct lb_notes *notes) {
    const struct lb_weight *w = &model->weights[i];
    enum lb_dtype wanted = gguf && (w->n_dims == 1 || model->specs[i].exact) ? LB_F32 : dtype, to = wanted;
    while (w->cols % lb_dtype_block(to) != 0) {
        to = to == LB_Q4_K ? LB_Q5_0 : to == LB_Q6_K ? LB_Q8_0 : LB_F16;
    }
    if (to != wanted) {
        lb_note(notes, "tensor %s is written as %s: its rows of %lld are no multiple of the %d of %s",
                w->name, lb_dtype_name(to), (long long)w->cols, lb_dtype_block(wanted),
                lb_dtype_name(wanted));
    }
    return to;
}

/* Tensor i of the file: weight i, or all of those that a GGUF stacks upon it. */
static enum lb_status convert_one(const struct lb_model *model, size_t i, enum lb_dtype to, bool gguf,
                                  struct converted *out, struct lb_detail *detail) {
    const struct lb_weight *w = &model->weights[i];
    struct lb_tensor *t = &out->tensors[i];
    bool stacked = gguf && model->specs[i].experts > 0;
    int64_t n = stacked ? model->specs[i].experts : 1, *dim = t->dim;
    *t = (struct lb_tensor){.name = gguf ? model->specs[i].gguf : w->name,
                            .dtype = to,
                            .n_dims = w->n_dims + stacked,
                            .data = w->data};
    if (stacked) {
        *dim++ = n;
    }
    dim[0] = w->n_dims == 1 ? w->cols : w->rows;
    dim[1] = w->n_dims == 1 ? 0 : w->cols;
    if (!lb_dtype_bytes(to, n * w->rows * w->cols, &t->bytes)) {
        return lb_fail(detail, LB_E_LIMIT, "tensor %s is too large", w->name);
    }
    if (to != w->dtype || w->interleaved > 0 || stacked) {
        t->data = out->bytes[i] = convert_rows(w, n, to, t->bytes);
    }
    return t->data != NULL ? lay_out(model, i, gguf, out, detail) : LB_E_NOMEM;
}

/* For a GGUF or a folder. dtype for matrices; vectors too, but in a GGUF they are F32. */
static enum lb_status convert(const struct lb_model *model, enum lb_dtype dtype, bool gguf,
                              struct converted *out, struct lb_notes *notes, struct lb_detail *detail) {
    out->n = model->n_own;
    out->tensors = lb_calloc(out->n, sizeof *out->tensors);
    out->bytes = lb_calloc(out->n, sizeof *out->bytes);
    if (out->tensors == NULL || out->bytes == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < out->n; i++) {
        if (lb_writing_stopped()) {
            return lb_fail(detail, LB_E_CANCELLED, "stopped; nothing was written");
        }
        if (gguf && model->specs[i].expert > 0) {
            continue; /* stands with the first */
        }
        enum lb_dtype to = dtype_of(model, i, dtype, gguf, notes);
        enum lb_status status = convert_one(model, i, to, gguf, out, detail);
        if (status != LB_OK) {
            return lb_fail(detail, status, "out of memory");
        }
    }
    return LB_OK;
}

/* ---- Hugging Face folder ----------------------------------------------------------------------------------
 */

static const char *torch_name(enum lb_dtype dtype) {
    return dtype == LB_F16 ? "float16" : dtype == LB_BF16 ? "bfloat16" : "float32";
}

enum lb_status lb_model_save_hf(const struct lb_model *model, const char *dir, enum lb_dtype dtype,
                                const struct lb_tokenizer *tokenizer, const char *readme,
                                struct lb_detail *detail) {
    if (dtype != LB_F32 && dtype != LB_F16 && dtype != LB_BF16) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: a Hugging Face folder holds F32, F16 or BF16, not %s",
                       dir, lb_dtype_name(dtype));
    }
    char *temp = lb_malloc_array(strlen(dir) + 32, 1), *weights = NULL;
    struct converted c = {0};
    struct lb_buf config;
    lb_buf_init(&config, 1 << 20);
    static const char *const metadata[] = {"format", "pt"};
    enum lb_status status = LB_OK;
    if (temp == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", dir);
    }
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') {
        len--;
    }
    snprintf(temp, strlen(dir) + 32, "%.*s.new-%ld", (int)len, dir, (long)getpid());
    status = lb_folder_check(dir, "model", detail);
    status = status == LB_OK ? lb_readme_check(dir, detail) : status;
    if (status != LB_OK) {
        lb_free(temp);
        return status;
    }
    lb_folder_sweep_beside(dir);
    weights = lb_path_join(temp, "model.safetensors");
    status = weights != NULL ? lb_remove_tree(temp, detail) : LB_E_NOMEM;
    status = status == LB_OK ? lb_mkdirs(temp, detail) : status;
    status = status == LB_OK ? convert(model, dtype, false, &c, NULL, detail) : status;
    status = status == LB_OK ? lb_safetensors_write(weights, c.tensors, c.n, metadata, 1, detail) : status;
    status = status == LB_OK
                 ? lb_config_write(&model->config, lb_model_labels(model), torch_name(dtype), &config)
                 : status;
    status = status == LB_OK ? lb_save_file(temp, "config.json", config.data, config.len, detail) : status;
    if (status == LB_OK && tokenizer != NULL) {
        status = lb_save_tokenizer(model, tokenizer, temp, detail);
    }
    if (status == LB_OK && readme != NULL) {
        status = lb_save_file(temp, LB_README, readme, strlen(readme), detail);
    }
    if (status == LB_OK && model->sentence.kind != LB_POOL_NONE) {
        status = lb_sentence_write(&model->sentence, lb_model_width(model),
                                   model->config.max_position_embeddings, temp, detail);
    }
    status = status == LB_OK ? lb_folder_mark(temp, "model", detail) : status;
    status = status == LB_OK ? lb_folder_swap_in(temp, dir, detail) : status;
    status = status == LB_OK ? lb_remove_tree(temp, detail) : status;
    if (status != LB_OK) {
        enum lb_status left = lb_remove_tree(temp, NULL); /* the first error is the one to tell */
        (void)left;
    }
    lb_free(weights);
    lb_free(temp);
    converted_finish(&c);
    lb_buf_finish(&config);
    return status == LB_E_NOMEM ? lb_fail(detail, status, "%s: out of memory", dir) : status;
}

/* ---- GGUF -------------------------------------------------------------------------------------------------
 */

/* Factors of rotary wavelengths, which are tensors there. */
struct rope_tensors {
    float values[2][LB_MAX_ROPE_FACTORS];
};

static void put_rope(struct lb_gguf_out *out, const struct lb_config *c, struct rope_tensors *tensors) {
    static const char *const names[] = {"rope_factors_long.weight", "rope_factors_short.weight"};
    int64_t half = lb_rope_dims(c) / 2;
    double plain[LB_MAX_HEAD_DIM / 2], scaled[LB_MAX_HEAD_DIM / 2];
    bool two = c->rope.type == LB_ROPE_LONGROPE &&
               memcmp(c->rope.long_factor, c->rope.short_factor, (size_t)half * sizeof *plain) != 0;
    if (c->rope.type != LB_ROPE_LLAMA3 && c->rope.type != LB_ROPE_LONGROPE) {
        return;
    }
    struct lb_config unscaled = *c;
    unscaled.rope.type = LB_ROPE_DEFAULT;
    lb_rope_scaled(&unscaled, 0, plain);
    for (int t = 0; t < (two ? 2 : 1); t++) {
        lb_rope_scaled(c, t == 0 ? INT32_MAX : 0, scaled);
        for (int64_t j = 0; j < half; j++) {
            tensors->values[t][j] = (float)(plain[j] / scaled[j]);
        }
        lb_gguf_put_tensor(out, &(struct lb_tensor){.name = two ? names[t] : "rope_freqs.weight",
                                                    .dtype = LB_F32,
                                                    .n_dims = 1,
                                                    .dim = {half},
                                                    .data = tensors->values[t],
                                                    .bytes = (size_t)half * sizeof(float)});
    }
}

static void put_config(struct lb_gguf_out *out, const struct lb_model *model, const struct lb_config *config,
                       enum lb_dtype dtype) {
    lb_gguf_put_string(out, "general.architecture", model->family->form.gguf);
    lb_gguf_put_string(out, LB_GGUF_MARK, LB_VERSION);
    lb_gguf_put_u32(out, "general.file_type", lb_dtype_file_type(dtype));
    lb_gguf_put_u32(out, "general.quantization_version", 2);
    lb_config_put_gguf(&model->family->form, config, out);
    if (model->family->encoder != NULL) {
        lb_sentence_put_gguf(&model->sentence, model->family->form.gguf, out);
        lb_gguf_put_u32(out, "tokenizer.ggml.token_type_count", (uint32_t)config->type_vocab_size);
    }
}

enum lb_status lb_model_save_gguf(const struct lb_model *model, const char *path, enum lb_dtype dtype,
                                  const struct lb_tokenizer *tokenizer, struct lb_notes *notes,
                                  struct lb_detail *detail) {
    char names[LB_DTYPE_NAMES];
    if (!lb_dtype_narrows(dtype)) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: GGUF files are written with %s, not %s", path,
                       lb_dtype_gguf_names(true, names), lb_dtype_name(dtype));
    }
    if (model->family->form.gguf == NULL) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: GGUF has no architecture for model_type %s", path,
                       model->config.model_type);
    }
    if (lb_model_is_classifier(model)) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: classifiers are not written as GGUF; write a folder",
                       path);
    }
    struct converted c = {0};
    struct lb_config config = model->config;
    struct rope_tensors rope;
    enum lb_status status =
        model->family->for_gguf != NULL ? model->family->for_gguf(&config, path, detail) : LB_OK;
    if (status != LB_OK) {
        return status;
    }
    struct lb_gguf_out *out = lb_gguf_out_create();
    status = out != NULL ? convert(model, dtype, true, &c, notes, detail) : LB_E_NOMEM;
    if (status == LB_OK) {
        put_config(out, model, &config, dtype);
        put_rope(out, &config, &rope);
        if (tokenizer != NULL) {
            status = lb_tokenizer_put_gguf(tokenizer, model->config.vocab_size, out, detail);
            if (status != LB_OK) {
                lb_detail_prefix(detail, "%s", path);
            }
        }
    }
    for (size_t i = 0; status == LB_OK && i < c.n; i++) {
        if (c.tensors[i].name != NULL) {
            lb_gguf_put_tensor(out, &c.tensors[i]);
        }
    }
    status = status == LB_OK ? lb_gguf_write(out, path, detail) : status;
    lb_gguf_out_destroy(out);
    converted_finish(&c);
    return status == LB_E_NOMEM ? lb_fail(detail, status, "%s: out of memory", path) : status;
}
