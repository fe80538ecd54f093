/* GET .../head and .../tokenizer: what a client downloads once. */
#include "server/api/artifacts.h"

#include "common/base/mem.h"
#include "common/formats/safetensors.h"
#include "server/api/reply.h"
#include "server/api/table.h"

#include <stdio.h>
#include <string.h>

/* Floats made at once while a client reads. */
#define PIECE ((int64_t)16384)
#define MAX_HEADER_BYTES 65536

enum { NONE, WRITING, KNOWN }; /* a hosted model's head_digest_state */

static bool as_stored(const struct lb_weight *w) {
    return w->dtype == LB_F32 || w->dtype == LB_F16;
}

static enum lb_status describe(const struct lb_weight *w, const char *name, int n_dims, struct lb_tensor *out,
                               struct lb_detail *detail) {
    bool narrow = w->dtype == LB_F16 && n_dims == 2;
    *out = (struct lb_tensor){
        .name = name, .dtype = narrow ? LB_F16 : LB_F32, .n_dims = n_dims, .data = w->data};
    out->dim[0] = n_dims == 2 ? w->rows : w->rows * w->cols;
    out->dim[1] = w->cols;
    return lb_dtype_bytes(out->dtype, w->rows * w->cols, &out->bytes)
               ? LB_OK
               : lb_fail(detail, LB_E_LIMIT, "%s: too large", name);
}

void lb_artifact_head_end(struct lb_artifact_head *head) {
    if (head->hash) {
        lb_sha256_final(head->hash, head->digest);
        head->hash = NULL;
    }
}

/* All was given: the digest is written behind it, and kept for later downloads. */
static void keep_digest(struct lb_artifact_head *head) {
    static const uint8_t failed[LB_SHA256_BYTES];
    int none = NONE;
    if (head->hash == NULL) {
        return;
    }
    lb_artifact_head_end(head);
    if (memcmp(head->digest, failed, sizeof failed) != 0 &&
        atomic_compare_exchange_strong(&head->hosted->head_digest_state, &none, WRITING)) {
        memcpy(head->hosted->head_digest, head->digest, sizeof head->digest);
        atomic_store(&head->hosted->head_digest_state, KNOWN);
    }
}

/* The file's header with its tensors [out_n]; the last is the digest, whose bytes come to head->digest. */
static enum lb_status make_header(const struct lb_artifact_head *head, const struct lb_head *of,
                                  struct lb_buf *out, struct lb_tensor tensors[3], size_t *out_n,
                                  struct lb_detail *detail) {
    char scale[32], softcap[32];
    snprintf(scale, sizeof scale, "%.9g", (double)of->shape.scale);
    snprintf(softcap, sizeof softcap, "%.9g", (double)of->shape.softcap);
    const char *metadata[] = {"format",
                              "pt",
                              "model",
                              head->hosted->name,
                              "fingerprint",
                              head->hosted->version,
                              "logit_scale",
                              scale,
                              "final_logit_softcapping",
                              softcap};
    size_t n = 0;
    enum lb_status status = describe(of->weight, "lm_head.weight", 2, &tensors[n++], detail);
    if (status == LB_OK && of->bias) {
        status = describe(of->bias, "lm_head.bias", 1, &tensors[n++], detail);
    }
    tensors[n++] = (struct lb_tensor){.name = "digest",
                                      .dtype = LB_U8,
                                      .n_dims = 1,
                                      .dim = {LB_SHA256_BYTES},
                                      .data = head->digest,
                                      .bytes = LB_SHA256_BYTES};
    *out_n = n;
    return status != LB_OK ? status
                           : lb_safetensors_header(out, tensors, n, metadata,
                                                   sizeof metadata / sizeof metadata[0] / 2, detail);
}

enum lb_status lb_artifact_head_begin(struct lb_hosted *hosted, struct lb_arena *arena,
                                      struct lb_artifact_head *out, struct lb_detail *detail) {
    const struct lb_head *of = lb_model_head(hosted->model);
    const struct lb_weight *weight = of->weight, *bias = of->bias;
    if (!weight) {
        return lb_fail(detail, LB_E_NOTFOUND, "model %s has no head that makes logits", hosted->name);
    }
    struct lb_tensor tensors[3];
    size_t n;
    struct lb_buf header;
    lb_buf_init(&header, MAX_HEADER_BYTES);
    struct lb_artifact_head head = {.hosted = hosted, .weight = weight};
    bool known = atomic_load(&hosted->head_digest_state) == KNOWN;
    enum lb_status status = make_header(&head, of, &header, tensors, &n, detail);
    if (status != LB_OK) {
        goto out;
    }
    char *text = lb_arena_alloc(arena, header.len);
    float *made_bias = bias ? lb_arena_array(arena, (size_t)(bias->rows * bias->cols), sizeof(float)) : NULL;
    head.piece = as_stored(weight) ? NULL : lb_arena_array(arena, (size_t)PIECE, sizeof(float));
    head.hash = known ? NULL : lb_sha256_create();
    if (known) {
        memcpy(head.digest, hosted->head_digest, sizeof head.digest);
    }
    if (!text || (!known && !head.hash) || (bias && !made_bias) || (!as_stored(weight) && !head.piece)) {
        lb_artifact_head_end(&head);
        status = lb_fail(detail, LB_E_NOMEM, "out of memory; try again");
        goto out;
    }
    memcpy(text, header.data, header.len);
    head.header = (struct lb_span){text, header.len};
    if (bias) {
        lb_dequantize(bias->dtype, bias->data, made_bias, bias->rows * bias->cols);
        head.bias = (struct lb_span){made_bias, tensors[1].bytes};
    }
    head.total_bytes = header.len;
    for (size_t i = 0; i < n; i++) {
        head.total_bytes += tensors[i].bytes;
    }
    *out = head;
out:
    lb_buf_finish(&header);
    return status;
}

size_t lb_artifact_head_next(struct lb_artifact_head *head, struct lb_span parts[LB_ARTIFACT_PARTS]) {
    const struct lb_weight *w = head->weight;
    int64_t all = w->rows * w->cols, n = all - head->done < PIECE ? all - head->done : PIECE;
    size_t n_parts = 0, skip = 0, len = 0;
    if (head->done == 0) {
        parts[n_parts++] = head->header;
    }
    (void)lb_dtype_bytes(w->dtype, head->done, &skip); /* all of it fits: begin has seen to that */
    const char *stored = (const char *)w->data + skip;
    if (head->piece) {
        lb_dequantize(w->dtype, stored, head->piece, n);
        parts[n_parts++] = (struct lb_span){head->piece, (size_t)n * sizeof(float)};
    } else {
        (void)lb_dtype_bytes(w->dtype, n, &len);
        parts[n_parts++] = (struct lb_span){stored, len};
    }
    head->done += n;
    if (head->done == all && head->bias.len > 0) {
        parts[n_parts++] = head->bias;
    }
    for (size_t i = 0; head->hash && i < n_parts; i++) {
        lb_sha256_update(head->hash, parts[i].data, parts[i].len);
    }
    if (head->done == all) {
        keep_digest(head);
        parts[n_parts++] = (struct lb_span){head->digest, sizeof head->digest};
    }
    return n_parts;
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
    lb_reply_header(x, "Cache-Control", lb_visit_cache_control(visit));
}

struct head_answer {
    struct lb_artifact_head head;
    struct lb_span parts[LB_ARTIFACT_PARTS];
};

static bool next_of_head(struct lb_exchange *x) {
    struct head_answer *answer = ((struct lb_visit *)x->user)->stream;
    x->reply.n_parts = lb_artifact_head_next(&answer->head, answer->parts);
    x->reply.parts = answer->parts;
    return true;
}

static void end_of_head(void *stream) {
    lb_artifact_head_end(&((struct head_answer *)stream)->head);
}

/* Nothing is kept: the weight's own bytes are sent, or floats that are made of them while the client reads.
 */
void lb_handle_head(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)server;
    (void)match;
    struct lb_detail detail = {0};
    struct lb_visit *visit = x->user;
    if (!lb_reply_find_model(x)) {
        return;
    }
    struct head_answer *answer = lb_arena_zarray(&x->arena, 1, sizeof *answer);
    enum lb_status status = answer ? lb_artifact_head_begin(visit->hosted, &x->arena, &answer->head, &detail)
                                   : lb_fail(&detail, LB_E_NOMEM, "out of memory; try again");
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return;
    }
    visit->stream = answer;
    visit->stream_end = end_of_head;
    if (!lb_hold(&x->memory, x->arena.used)) {
        lb_reply_error(x, 503, "too many bytes in flight; try again");
        return;
    }
    send_artifact(x, "head", "application/octet-stream", NULL, 0);
    if (x->reply.status == 200) {
        x->reply.total_bytes = answer->head.total_bytes;
        x->reply.next = next_of_head;
    }
}

void lb_handle_tokenizer(struct lb_server *server, struct lb_exchange *x,
                         const struct lb_route_match *match) {
    (void)server;
    if (!lb_reply_find_model(x)) {
        return;
    }
    const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    if (!hosted->tokenizer_json) {
        lb_reply_error(x, 404, "model %s has no tokenizer.json", match->model);
        return;
    }
    send_artifact(x, "tokenizer", "application/json", hosted->tokenizer_json, hosted->tokenizer_bytes);
}

/* Not all of it is in the fingerprint, so it is asked for again each time. */
void lb_handle_tokenizer_config(struct lb_server *server, struct lb_exchange *x,
                                const struct lb_route_match *match) {
    (void)server;
    if (!lb_reply_find_model(x)) {
        return;
    }
    const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    if (!hosted->tokenizer_config) {
        lb_reply_error(x, 404, "model %s has no tokenizer_config.json", match->model);
        return;
    }
    lb_reply_bytes(x, 200, "application/json", hosted->tokenizer_config, hosted->tokenizer_config_bytes);
    lb_reply_header(x, "Cache-Control", "no-cache");
}
