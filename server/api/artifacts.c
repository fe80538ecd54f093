/* GET .../head and .../tokenizer: what a client downloads once. */
#include "server/api/artifacts.h"

#include "common/base/mem.h"
#include "common/formats/safetensors.h"
#include "server/api/reply.h"
#include "server/api/table.h"

#include <string.h>

/* The weight as F16 (as stored) or F32; *out_owned is what was made for it. */
static enum lb_status as_tensor(const struct lb_weight *w, const char *name, int n_dims,
                                struct lb_tensor *out, float **out_owned, struct lb_detail *detail) {
    bool as_stored = w->dtype == LB_F32 || (w->dtype == LB_F16 && n_dims == 2);
    int64_t n = w->rows * w->cols;
    *out = (struct lb_tensor){
        .name = name, .dtype = as_stored ? w->dtype : LB_F32, .n_dims = n_dims, .data = w->data};
    out->dim[0] = n_dims == 2 ? w->rows : n;
    out->dim[1] = w->cols;
    if (!lb_dtype_bytes(out->dtype, n, &out->bytes)) {
        return lb_fail(detail, LB_E_LIMIT, "%s: too large", name);
    }
    if (!as_stored) {
        *out_owned = lb_malloc_array((size_t)n, sizeof(float));
        if (!*out_owned) {
            return lb_fail(detail, LB_E_NOMEM, "no memory for %s as F32 (%zu bytes)", name, out->bytes);
        }
        lb_dequantize(w->dtype, w->data, *out_owned, n);
        out->data = *out_owned;
    }
    return LB_OK;
}

static enum lb_status make(struct lb_hosted *hosted, struct lb_detail *detail) {
    const char *metadata[] = {"format", "pt", "model", hosted->name, "fingerprint", hosted->version};
    const struct lb_weight *bias = lb_model_head_bias(hosted->model);
    struct lb_tensor tensors[2];
    float *owned[2] = {NULL, NULL};
    enum lb_status status =
        as_tensor(lb_model_head(hosted->model), "lm_head.weight", 2, &tensors[0], &owned[0], detail);
    if (status == LB_OK && bias) {
        status = as_tensor(bias, "lm_head.bias", 1, &tensors[1], &owned[1], detail);
    }
    if (status == LB_OK) {
        status = lb_safetensors_encode(&hosted->head, tensors, bias ? 2 : 1, metadata, 3, detail);
    }
    lb_free(owned[0]);
    lb_free(owned[1]);
    if (status != LB_OK) {
        lb_buf_reset(&hosted->head);
    }
    return status;
}

enum lb_status lb_artifact_head_bytes(struct lb_hosted *hosted, const struct lb_buf **out,
                                      struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    pthread_mutex_lock(&hosted->head_lock);
    if (hosted->head.len == 0) {
        status = make(hosted, detail);
    }
    pthread_mutex_unlock(&hosted->head_lock);
    if (status == LB_OK) {
        *out = &hosted->head; /* not changed any more */
    }
    return status;
}

/* Sends bytes that belong to one version of a model: ETag, 304 when the client has them, immutable under a
 * versioned path. */
static void send_artifact(struct lb_exchange *x, const char *kind, const char *content_type,
                          const void *bytes, size_t len) {
    const struct lb_visit *visit = x->user;
    const char *etag = lb_arena_printf(&x->arena, "\"%s-%s\"", visit->hosted->version, kind);
    const char *has = lb_exchange_header(x, "If-None-Match");
    if (!etag) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    if (has && strstr(has, etag)) {
        x->reply.status = 304;
    } else {
        lb_reply_bytes(x, 200, content_type, bytes, len);
    }
    lb_reply_header(x, "ETag", etag);
    lb_reply_header(x, "Vary", "Accept-Encoding");
    lb_reply_header(x, "Cache-Control", lb_visit_cache_control(visit));
}

void lb_handle_head(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)server;
    (void)match;
    struct lb_detail detail = {0};
    const struct lb_buf *bytes = NULL;
    if (!lb_visit_model(x)) {
        return;
    }
    enum lb_status status = lb_artifact_head_bytes(((struct lb_visit *)x->user)->hosted, &bytes, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return;
    }
    send_artifact(x, "head", "application/octet-stream", bytes->data, bytes->len);
}

void lb_handle_tokenizer(struct lb_server *server, struct lb_exchange *x,
                         const struct lb_route_match *match) {
    (void)server;
    if (!lb_visit_model(x)) {
        return;
    }
    const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    if (!hosted->tokenizer_json) {
        lb_reply_error(x, 404, "model %s has no tokenizer.json", match->model);
        return;
    }
    send_artifact(x, "tokenizer", "application/json", hosted->tokenizer_json, hosted->tokenizer_bytes);
}
