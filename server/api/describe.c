#include "server/api/describe.h"

#include "common/nn/gemm.h"
#include "proto/outputs.h"

#include <stdio.h>
#include <string.h>

/* One input or output; dims -1 are free. */
struct item {
    char name[LB_MAX_NAME];
    enum lb_datatype datatype;
    int n_dims;
    int64_t dim[LB_MAX_WIRE_DIMS];
    bool optional;
};

typedef json_t *(*render_fn)(const struct item *item);

static json_t *dims_json(const struct item *item) {
    json_t *dims = json_array();
    for (int i = 0; i < item->n_dims; i++) {
        json_array_append_new(dims, json_integer((json_int_t)item->dim[i]));
    }
    return dims;
}

static json_t *render_metadata(const struct item *item) {
    return json_pack("{s:s,s:s,s:o}", "name", item->name, "datatype", lb_datatype_name(item->datatype),
                     "shape", dims_json(item));
}

static json_t *render_config(const struct item *item) {
    char type[32];
    snprintf(type, sizeof type, "TYPE_%s", lb_datatype_name(item->datatype));
    json_t *config =
        json_pack("{s:s,s:s,s:o}", "name", item->name, "data_type", type, "dims", dims_json(item));
    if (item->optional) {
        json_object_set_new(config, "optional", json_true());
    }
    return config;
}

static struct item make(const char *name, enum lb_datatype datatype, int n_dims, const int64_t *dim) {
    struct item item = {.datatype = datatype, .n_dims = n_dims};
    snprintf(item.name, sizeof item.name, "%s", name);
    memcpy(item.dim, dim, (size_t)n_dims * sizeof *dim);
    return item;
}

static void add(json_t *list, render_fn render, const char *name, enum lb_datatype datatype, int n_dims,
                const int64_t *dim) {
    struct item item = make(name, datatype, n_dims, dim);
    json_array_append_new(list, render(&item));
}

/* An input that may be left out. */
static void add_optional(json_t *list, render_fn render, const char *name, int n_dims) {
    struct item item = make(name, LB_DT_INT32, n_dims, (int64_t[]){-1, -1, -1});
    item.optional = true;
    json_array_append_new(list, render(&item));
}

static json_t *inputs(const struct lb_hosted *hosted, render_fn render) {
    json_t *list = json_array();
    if (!hosted->decoder) {
        add(list, render, LB_IN_FEATURES, LB_DT_FP32, 2,
            (int64_t[]){-1, lb_model_config(hosted->model)->input_size});
        return list;
    }
    add(list, render, LB_IN_IDS, LB_DT_INT32, 2, (int64_t[]){-1, -1});
    add_optional(list, render, LB_IN_LENGTHS, 1);
    add_optional(list, render, LB_IN_START, 1);
    if (lb_hosted_scores(hosted)) {
        add_optional(list, render, LB_IN_SCORE_IDS, 3);
    }
    return list;
}

/* The output of this kind and layer, with what the request decides left open. */
static void add_output(json_t *list, render_fn render, const struct lb_hosted *hosted,
                       enum lb_output_kind kind, int layer) {
    const struct lb_output_sizes sizes = lb_hosted_sizes(hosted, (struct lb_output_name){kind, layer});
    char name[LB_MAX_NAME];
    int64_t dim[LB_MAX_WIRE_DIMS];
    int n = lb_output_shape(kind, &sizes, dim);
    lb_output_format(kind, layer, name);
    add(list, render, name, lb_output_get(kind)->own, n, dim);
}

/* Those that need nothing but the inputs, or the further ones. */
static json_t *outputs(const struct lb_hosted *hosted, render_fn render, bool further) {
    json_t *list = json_array();
    for (int k = 0; k < LB_N_OUTPUTS; k++) {
        enum lb_output_kind kind = (enum lb_output_kind)k;
        const struct lb_output *is = lb_output_get(kind);
        enum lb_tap_kind tap;
        if (further != ((is->uses & LB_USES_MORE) != 0)) {
            continue;
        }
        if (lb_hosted_tap(is->source, &tap)) {
            for (int n = 0; lb_model_check_tap(hosted->model, tap, n, NULL) == LB_OK; n++) {
                add_output(list, render, hosted, kind, n);
            }
        } else if (lb_hosted_gives(hosted, (struct lb_output_name){kind, 0}, "", NULL) == LB_OK) {
            add_output(list, render, hosted, kind, 0);
        }
    }
    return list;
}

static void set_id(json_t *object, const char *key, int64_t id) {
    if (id >= 0) {
        json_object_set_new(object, key, json_integer((json_int_t)id));
    }
}

/* What a trainer has to know before it asks. */
static json_t *parameters(const struct lb_hosted *hosted) {
    const struct lb_config *config = lb_model_config(hosted->model);
    const struct lb_weight *head = lb_model_head(hosted->model)->weight;
    const struct lb_labels *labels = lb_model_labels(hosted->model);
    int64_t v = lb_hosted_vocab(hosted), ids = labels ? config->vocab_size : v;
    json_t *p = json_pack("{s:s,s:s,s:I,s:I,s:I,s:b,s:s}", "fingerprint", hosted->version, "model_type",
                          config->model_type, "vocab_size", (json_int_t)ids, "hidden_size",
                          (json_int_t)lb_model_width(hosted->model), "num_parameters",
                          (json_int_t)lb_model_parameters(hosted->model), "batch_invariant",
                          hosted->batch_invariant, "kernels", lb_gemm_description());
    if (!p) {
        return NULL;
    }
    if (lb_model_is_classifier(hosted->model)) {
        json_object_set_new(p, "num_labels", json_integer((json_int_t)v));
    }
    if (labels && (lb_labels_put(labels, p) != LB_OK || json_object_del(p, "label2id") != 0)) {
        json_decref(p);
        return NULL;
    }
    if (head) {
        json_object_set_new(p, "head_dtype", json_string(lb_dtype_name(head->dtype)));
    }
    json_object_set_new(p, "wire", json_integer(LB_WIRE_VERSION));
    if (hosted->compute[0]) {
        json_object_set_new(p, "compute", json_string(hosted->compute));
    }
    json_object_set_new(p, "weight_bytes", json_integer((json_int_t)lb_model_bytes(hosted->model)));
    if (hosted->decoder) {
        json_object_set_new(p, "num_layers", json_integer((json_int_t)config->num_hidden_layers));
        json_object_set_new(p, "num_heads", json_integer((json_int_t)config->num_attention_heads));
        json_object_set_new(p, "num_key_value_heads", json_integer((json_int_t)config->num_key_value_heads));
        json_object_set_new(p, "max_length", json_integer((json_int_t)config->max_position_embeddings));
        set_id(p, "bos_token_id", config->bos_token_id);
        set_id(p, "eos_token_id", config->eos_token_id);
        set_id(p, "pad_token_id", config->pad_token_id);
    } else {
        json_object_set_new(p, "num_layers", json_integer((json_int_t)config->n_hidden));
        json_object_set_new(p, "input_size", json_integer((json_int_t)config->input_size));
    }
    if (hosted->tokenizer) {
        json_object_set_new(p, "tokenizer_fingerprint",
                            json_string(lb_tokenizer_fingerprint(hosted->tokenizer)));
    }
    if (*hosted->chat_template_hash) {
        json_object_set_new(p, "chat_template_sha256", json_string(hosted->chat_template_hash));
    }
    json_object_set_new(p, "max_request_tokens", json_integer(LB_MAX_REQUEST_TOKENS));
    json_object_set_new(p, "max_sequences", json_integer(LB_MAX_SEQUENCES));
    json_object_set_new(p, "max_top_k", json_integer((json_int_t)(v < LB_MAX_TOP_K ? v : LB_MAX_TOP_K)));
    json_object_set_new(p, "max_score_ids", json_integer(LB_MAX_SCORE_IDS));
    if (lb_hosted_scores(hosted)) {
        json_object_set_new(p, "max_vocab_maps", json_integer(LB_MAX_VOCAB_MAPS));
    }
    json_object_set_new(p, "max_sample_count", json_integer(LB_MAX_SAMPLES));
    return p;
}

json_t *lb_describe_model(const struct lb_hosted *hosted) {
    /* Triton's perf_analyzer asks for each of outputs. */
    return json_pack("{s:s,s:[s],s:s,s:o,s:o,s:o,s:o}", "name", hosted->name, "versions", hosted->version,
                     "platform", "limbeck", "inputs", inputs(hosted, render_metadata), "outputs",
                     outputs(hosted, render_metadata, false), "further_outputs",
                     outputs(hosted, render_metadata, true), "parameters", parameters(hosted));
}

json_t *lb_describe_config(const struct lb_hosted *hosted) {
    /* max_batch_size 0: dims hold the batch. A load generator fills what is not said to be optional. */
    return json_pack("{s:s,s:s,s:s,s:i,s:o,s:o,s:{s:{s:i}}}", "name", hosted->name, "platform", "limbeck",
                     "backend", "limbeck", "max_batch_size", 0, "input", inputs(hosted, render_config),
                     "output", outputs(hosted, render_config, false), "version_policy", "latest",
                     "num_versions", 1);
}

json_t *lb_describe_server(void) {
    return json_pack("{s:s,s:s,s:[s,s,s,s,s,s,s,s,s,s,s,s,s,s,s]}", "name", "limbeckd", "version", LB_VERSION,
                     "extensions", "binary_tensor_data", "parameters", "model_configuration",
                     "model_repository", "statistics", "kd_topk/1", "kd_hidden/1", "kd_head/2", "kd_digest/1",
                     "kd_answer_digest/1", "kd_dtype/1", "kd_score/1", "kd_samples/1", "kd_qkv/1",
                     "kd_residual/1", "kd_vocab_map/1");
}
