#include "tests/support/fake_teacher.h"
#include "tests/support/fake_http.h"
#include "tests/support/fake_spoil.h"
#include "tests/support/safetensors.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MODEL "fake"
#define MAX_CONNECTIONS 256
#define LAYERS 3
#define HEADS 2

const char fake_fingerprint[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const char fake_other_fingerprint[] = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

struct fake_teacher {
    struct fake_options is;
    char fingerprint[LB_SHA256_HEX], token[80], url[64];
    int listener, port;
    pthread_t acceptor;

    pthread_mutex_t lock;
    bool stopping;
    int connections[MAX_CONNECTIONS]; /* -1: ended */
    pthread_t threads[MAX_CONNECTIONS];
    int n_connections;
    enum fake_fault fault;
    int fault_left, requests, sequences, heads, scored, maps;
    char map[LB_SHA256_HEX]; /* "": none is there */
    int64_t n_kept;
    bool no_cache;
};

struct connection {
    struct fake_teacher *fake;
    int fd, index;
};

/* ---- what it answers ---- */

static void put_number(void *data, size_t i, enum lb_datatype datatype, float v, int64_t id) {
    uint16_t half;
    int32_t whole = (int32_t)id;
    switch (datatype) {
    case LB_DT_FP16:
        half = lb_f32_to_f16(v);
        memcpy((uint8_t *)data + 2 * i, &half, sizeof half);
        break;
    case LB_DT_UINT16:
        half = (uint16_t)id;
        memcpy((uint8_t *)data + 2 * i, &half, sizeof half);
        break;
    case LB_DT_INT32:
        memcpy((uint8_t *)data + 4 * i, &whole, sizeof whole);
        break;
    default:
        memcpy((uint8_t *)data + 4 * i, &v, sizeof v);
    }
}

/* [B,T,width], [B,T], [B,H,T,T] with two heads, or for classifiers [B,width]. */
static void fill_output(const struct fake_teacher *fake, const struct lb_infer_request *request,
                        const struct lb_wire_output *asked, struct lb_arena *arena,
                        struct lb_wire_tensor *out) {
    const struct lb_wire_tensor *input = &request->inputs[0];
    bool features = !strcmp(input->name, LB_IN_FEATURES);
    struct lb_output_name name;
    struct lb_detail detail = {0};
    if (lb_output_parse(asked->name, &name, &detail)) {
        fprintf(stderr, "fake teacher: %s\n", detail.text);
        abort();
    }
    int64_t B = input->dim[0], T = features ? 1 : input->dim[1];
    const struct lb_output_sizes sizes = {.sequences = B,
                                          .rows = T,
                                          .positions = T,
                                          .vocab = request->vocab_map ? fake->n_kept : fake->is.vocab_size,
                                          .top_k = request->top_k,
                                          .samples = request->sample_count,
                                          .heads = HEADS,
                                          .state = fake->is.hidden_size,
                                          .classifier = features};
    *out = (struct lb_wire_tensor){.name = asked->name, .datatype = asked->datatype, .binary = true};
    out->n_dims = lb_output_shape(name.kind, &sizes, out->dim);
    size_t n = (size_t)lb_wire_elements(out), per_sequence = n / (size_t)B;
    size_t w = lb_output_get(name.kind)->width == LB_WIDE_ONE ? 1 : (size_t)out->dim[out->n_dims - 1];
    void *data = lb_arena_array(arena, n, 4);
    for (size_t i = 0; i < n; i++) {
        size_t b = i / per_sequence, t = i % per_sequence / w % (size_t)T, c = i % w;
        const int32_t *ids = (const int32_t *)input->data + b * (size_t)(features ? input->dim[1] : T);
        float v = fake_value(fake->fingerprint, asked->name, ids, features ? input->dim[1] - 1 : (int64_t)t,
                             (int64_t)c);
        int64_t id = fake_id(fake->fingerprint, asked->name, ids, features ? input->dim[1] - 1 : (int64_t)t,
                             (int64_t)c, fake->is.vocab_size);
        put_number(data, i, asked->datatype, v, id);
    }
    out->data = data;
    out->bytes = n * lb_datatype_bytes(asked->datatype);
}

/* ---- sending ---- */

static bool send_answer(struct fake_teacher *fake, int fd, const struct lb_infer_request *request,
                        enum fake_fault fault, struct lb_arena *arena) {
    struct lb_wire_tensor outputs[LB_MAX_ASKED];
    struct lb_infer_response response = {.model_name = MODEL,
                                         .model_version = fake->fingerprint,
                                         .top_k = request->top_k,
                                         .temperature = request->temperature,
                                         .compute = fake->is.compute,
                                         .vocab_map = request->vocab_map,
                                         .n_outputs = request->n_outputs,
                                         .outputs = outputs};
    char digest[LB_SHA256_HEX], headers[400], digest_line[160] = "";
    for (size_t j = 0; j < request->n_outputs; j++) {
        fill_output(fake, request, &request->outputs[j], arena, &outputs[j]);
    }
    if (lb_request_digest(fake->fingerprint, request, digest)) {
        abort();
    }
    if (fault == FAKE_WRONG_DIGEST) {
        digest[0] = digest[0] == 'a' ? 'b' : 'a';
    }
    fake_spoil(&response, fault);
    response.digest_of = request->answer_digest && fault != FAKE_NO_ANSWER_DIGEST ? digest : NULL;
    struct lb_buf body;
    lb_buf_init(&body, 1u << 28);
    if (lb_infer_response_head(&response, &body, NULL)) {
        abort();
    }
    size_t json_len = body.len;
    if (fault != FAKE_NO_DIGEST) {
        snprintf(digest_line, sizeof digest_line, "%s: sha-256=%s\r\n", LB_HEADER_DIGEST, digest);
    }
    snprintf(headers, sizeof headers, "%s: %zu\r\n%sContent-Type: application/octet-stream\r\n",
             LB_HEADER_JSON_LENGTH, json_len, digest_line);
    for (size_t j = 0; j < response.n_outputs; j++) {
        lb_buf_append(&body, outputs[j].data, outputs[j].bytes);
    }
    if (response.digest_of) {
        uint8_t own[LB_SHA256_BYTES];
        if (lb_answer_digest(&response, body.data, json_len, own)) {
            abort();
        }
        lb_buf_append(&body, own, sizeof own);
    }
    fake_spoil_bytes(&body, json_len, &response, fault);
    bool ok = fake_http_bytes(fd, headers, &body, fault == FAKE_CLOSE_MID_BODY ? body.len / 2 : body.len);
    lb_buf_finish(&body);
    return ok && fault != FAKE_CLOSE_MID_BODY;
}

/* ---- requests ---- */

/* Answers that need no look at the question; *handled says whether there was one. */
static bool send_fault(int fd, enum fake_fault fault, bool *handled) {
    static const char garbage[] = "\x01\x02{\"oops\": \xff\xfe";
    *handled = true;
    switch (fault) {
    case FAKE_HANG:
        fake_http_wait(fd);
        return false;
    case FAKE_CLOSE:
        return false;
    case FAKE_500:
        return fake_http_answer(fd, 500, "", "{\"error\": \"the fake has a bug\"}");
    case FAKE_503:
        return fake_http_answer(fd, 503, "", "{\"error\": \"loading\"}");
    case FAKE_503_RETRY_AFTER:
        return fake_http_answer(fd, 503, "Retry-After: 1\r\n", "{\"error\": \"overloaded\"}");
    case FAKE_400:
        return fake_http_answer(fd, 400, "", "{\"error\": \"input_ids: no such thing\"}");
    case FAKE_401:
        return fake_http_answer(fd, 401, "", "{\"error\": \"a token is needed\"}");
    case FAKE_403:
        return fake_http_answer(fd, 403, "", "{\"error\": \"not with this token\"}");
    case FAKE_501:
        return fake_http_answer(fd, 501, "", "{\"error\": \"not here\"}");
    case FAKE_REDIRECT:
        return fake_http_answer(fd, 302, "Location: http://127.0.0.1:9/elsewhere\r\n", "");
    case FAKE_HUGE:
        return fake_http_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 3221225472\r\n\r\n", 48) &&
               (fake_http_wait(fd), false);
    case FAKE_GARBAGE:
        return fake_http_answer(fd, 200, "", garbage);
    case FAKE_NO_HTTP:
        fake_http_send(fd, garbage, sizeof garbage);
        return false;
    case FAKE_SLOW:
        usleep(300000); /* a slow peer, not a synchronisation */
        break;
    default:
        break;
    }
    *handled = false;
    return true;
}

static enum fake_fault next_fault(struct fake_teacher *fake, const struct fake_request *in) {
    pthread_mutex_lock(&fake->lock);
    enum fake_fault fault = fake->fault_left ? fake->fault : FAKE_FINE;
    if (fake->fault_left > 0) {
        fake->fault_left--;
    }
    fake->requests++;
    fake->no_cache = in->no_cache;
    pthread_mutex_unlock(&fake->lock);
    return fault;
}

static const struct lb_wire_tensor *find_input(const struct lb_infer_request *request, const char *name) {
    for (size_t i = 0; i < request->n_inputs; i++) {
        if (!strcmp(request->inputs[i].name, name)) {
            return &request->inputs[i];
        }
    }
    return NULL;
}

static int count_scored(const struct lb_infer_request *request) {
    const struct lb_wire_tensor *score = find_input(request, "score_ids"),
                                *ids = find_input(request, LB_IN_IDS);
    const struct lb_wire_tensor *lengths = find_input(request, LB_IN_LENGTHS);
    int right = 0;
    if (!score || !ids || score->n_dims != 3 || score->dim[1] != ids->dim[1] || score->dim[2] != 2) {
        return 0;
    }
    for (int64_t b = 0; b < ids->dim[0]; b++) {
        int64_t n = lengths ? ((const int32_t *)lengths->data)[b] : ids->dim[1];
        bool same = true;
        for (int64_t t = 0; t < n; t++) {
            const int32_t *pair = (const int32_t *)score->data + (b * ids->dim[1] + t) * 2;
            int32_t id = ((const int32_t *)ids->data)[b * ids->dim[1] + t];
            same = same && pair[0] == id && pair[1] == id + 1;
        }
        right += same;
    }
    return right;
}

static bool has_poison(const struct lb_infer_request *request) {
    const struct lb_wire_tensor *ids = find_input(request, LB_IN_IDS);
    for (int64_t b = 0; ids && b < ids->dim[0]; b++) {
        const int32_t *row = (const int32_t *)ids->data + b * ids->dim[1];
        if (ids->dim[1] > 1 && row[0] == FAKE_POISON && row[1] == FAKE_POISON) {
            return true;
        }
    }
    return false;
}

/* Whether the request names a map that is not there. */
static bool lacks_map(struct fake_teacher *fake, const struct lb_infer_request *request,
                      enum fake_fault fault) {
    pthread_mutex_lock(&fake->lock);
    bool lacks = request->vocab_map && (fault == FAKE_MAPLESS || strcmp(request->vocab_map, fake->map) != 0);
    pthread_mutex_unlock(&fake->lock);
    return lacks;
}

/* PUT of a map under its digest. */
static bool answer_map(struct fake_teacher *fake, int fd, const struct fake_request *in, const char *digest) {
    uint8_t hash[LB_SHA256_BYTES];
    char hex[LB_SHA256_HEX];
    lb_sha256(in->body.data, in->body.len, hash);
    lb_hex(hash, sizeof hash, hex);
    pthread_mutex_lock(&fake->lock);
    fake->maps++;
    bool good = strcmp(hex, digest) == 0 && strcmp(in->method, "PUT") == 0;
    if (good && fake->is.refuse_maps == 0) {
        memcpy(fake->map, hex, sizeof hex);
        fake->n_kept = (int64_t)in->body.len / 4;
    }
    pthread_mutex_unlock(&fake->lock);
    return fake->is.refuse_maps
               ? fake_http_answer(fd, fake->is.refuse_maps, "", "{\"error\": \"no maps here\"}")
           : good ? fake_http_answer(fd, 200, "", "{}")
                  : fake_http_answer(fd, 400, "", "{\"error\": \"another digest\"}");
}

static bool answer_infer(struct fake_teacher *fake, int fd, struct fake_request *in) {
    enum fake_fault fault = next_fault(fake, in);
    bool handled, ok = send_fault(fd, fault, &handled);
    if (handled) {
        return ok;
    }
    struct lb_arena arena;
    struct lb_infer_request request;
    struct lb_detail detail = {0};
    lb_arena_init(&arena, 1u << 28);
    if (lb_infer_request_decode(in->body.data, in->body.len, in->json_len, &arena, &request, &detail)) {
        ok = fake_http_answer(fd, 400, "", "{\"error\": \"no infer request\"}");
    } else if (lacks_map(fake, &request, fault)) {
        ok = fake_http_answer(fd, 409, "", "{\"error\": \"vocab_map: not here\"}");
    } else if (fault == FAKE_SLOW_LINE && request.inputs[0].dim[0] * request.inputs[0].dim[1] > 24) {
        fake_http_wait(fd);
        ok = false;
    } else if (fault == FAKE_400_FOR_ONE && has_poison(&request)) {
        ok = fake_http_answer(fd, 400, "", "{\"error\": \"input_ids: poison\"}");
    } else if (fault == FAKE_413 && request.inputs[0].dim[0] > 1) {
        ok = fake_http_answer(fd, 413, "", "{\"error\": \"too many tokens\"}");
    } else {
        if (fault == FAKE_FINE || fault == FAKE_SLOW || fault == FAKE_413 || fault == FAKE_SLOW_LINE) {
            pthread_mutex_lock(&fake->lock);
            fake->sequences += (int)request.inputs[0].dim[0];
            fake->scored += count_scored(&request);
            pthread_mutex_unlock(&fake->lock);
        }
        ok = send_answer(fake, fd, &request, fault, &arena);
    }
    lb_arena_finish(&arena);
    return ok;
}

/* Every output of the table, as limbeckd lists them. */
static void list_outputs(const struct fake_teacher *fake, struct lb_buf *out) {
    const struct lb_output_sizes sizes = {-1,
                                          -1,
                                          -1,
                                          .vocab = fake->is.vocab_size,
                                          .top_k = -1,
                                          .scored = -1,
                                          .samples = -1,
                                          .heads = HEADS,
                                          .state = fake->is.hidden_size,
                                          .classifier = fake->is.classifier};
    for (int k = 0; k < LB_N_OUTPUTS; k++) {
        enum lb_output_kind kind = (enum lb_output_kind)k;
        const struct lb_output *is = lb_output_get(kind);
        int layers = !lb_output_layered(kind) ? 1 : is->source == LB_FROM_HIDDEN ? LAYERS + 1 : LAYERS;
        for (int layer = 0; layer < layers; layer++) {
            char name[LB_MAX_NAME];
            int64_t dim[LB_MAX_WIRE_DIMS];
            int n = lb_output_shape(kind, &sizes, dim);
            lb_output_format(kind, layer, name);
            lb_buf_printf(out, "%s{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[", out->len ? "," : "",
                          name, lb_datatype_name(is->own));
            for (int d = 0; d < n; d++) {
                lb_buf_printf(out, d ? ",%lld" : "%lld", (long long)dim[d]);
            }
            lb_buf_append_str(out, "]}");
        }
    }
}

static bool answer_info(struct fake_teacher *fake, int fd) {
    pthread_mutex_lock(&fake->lock);
    enum fake_fault fault = fake->fault_left ? fake->fault : FAKE_FINE;
    pthread_mutex_unlock(&fake->lock);
    struct lb_buf outputs, body;
    if (fault == FAKE_ENDLESS_INFO) {
        static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        char chunk[4096 + 8] = "1000\r\n";
        memset(chunk + 6, 'x', 4096);
        memcpy(chunk + 6 + 4096, "\r\n", 2);
        for (bool more = fake_http_send(fd, head, sizeof head - 1); more;) {
            more = fake_http_send(fd, chunk, sizeof chunk);
        }
        return false;
    }
    if (fault == FAKE_BAD_INFO) {
        return fake_http_answer(fd, 200, "",
                                "{\"name\": \"fake\", \"versions\": [\"1\"], \"platform\": \"else\"}");
    }
    lb_buf_init(&outputs, 1u << 20);
    lb_buf_init(&body, 1u << 20);
    list_outputs(fake, &outputs);
    lb_buf_printf(&body,
                  "{\"name\":\"" MODEL
                  "\",\"versions\":[\"%s\"],\"platform\":\"limbeck\",\"inputs\":[],\"outputs\":[%s],"
                  "\"parameters\":{\"fingerprint\":\"%s\",\"vocab_size\":%lld,"
                  "\"hidden_size\":%lld,\"num_layers\":%d,\"num_heads\":%d,\"max_length\":64,\"kernels\":"
                  "\"fake\\\"s 1\",\"batch_invariant\":%s%s%s%s%s%s}",
                  fake->fingerprint, outputs.data, fake->fingerprint, (long long)fake->is.vocab_size,
                  (long long)fake->is.hidden_size, LAYERS, HEADS, fake->is.batch_dependent ? "false" : "true",
                  fake->is.compute ? ",\"compute\":\"" : "", fake->is.compute ? fake->is.compute : "",
                  fake->is.compute ? "\"" : "", fake->is.classifier ? ",\"input_size\":4" : "",
                  fake->is.maps || fake->is.refuse_maps ? ",\"max_vocab_maps\":1" : "");
    bool ok = lb_answer_digest_put(&body, 0, "", NULL) == LB_OK &&
              fake_http_answer(fd, 200, "Content-Type: application/json\r\n", body.data);
    lb_buf_finish(&outputs);
    lb_buf_finish(&body);
    return ok;
}

static bool answer_head(struct fake_teacher *fake, int fd) {
    int64_t V = fake->is.vocab_size, C = fake->is.hidden_size;
    uint16_t *weight = lb_malloc_array((size_t)(V * C), sizeof *weight);
    for (int64_t i = 0; i < V * C; i++) {
        weight[i] = lb_f32_to_f16((float)i / 16);
    }
    const uint8_t none[LB_SHA256_BYTES] = {0};
    const struct lb_tensor tensors[] = {{.name = "lm_head.weight",
                                         .dtype = LB_F16,
                                         .n_dims = 2,
                                         .dim = {V, C},
                                         .data = weight,
                                         .bytes = (size_t)(V * C) * 2},
                                        {.name = "digest",
                                         .dtype = LB_U8,
                                         .n_dims = 1,
                                         .dim = {LB_SHA256_BYTES},
                                         .data = none,
                                         .bytes = sizeof none}};
    const char *metadata[] = {"fingerprint", fake->fingerprint, "final_logit_softcapping",
                              "30",          "logit_scale",     "0.5"};
    struct lb_buf body;
    lb_buf_init(&body, 1u << 24);
    if (encode_safetensors(&body, tensors, 2, metadata, 3, NULL) != LB_OK) {
        abort();
    }
    size_t last = body.len - sizeof none;
    lb_sha256(body.data, last, (uint8_t *)body.data + last);
    pthread_mutex_lock(&fake->lock);
    if (fake->fault == FAKE_FLIPPED_HEAD && fake->fault_left > 0) {
        fake->fault_left--;
        body.data[last - 7] ^= 1;
    }
    fake->heads++;
    pthread_mutex_unlock(&fake->lock);
    bool ok = fake_http_bytes(fd, "", &body, body.len);
    lb_buf_finish(&body);
    lb_free(weight);
    return ok;
}

static bool answer(struct fake_teacher *fake, int fd, struct fake_request *in) {
    char versioned[256];
    snprintf(versioned, sizeof versioned, "/v2/models/" MODEL "/versions/%s", fake->fingerprint);
    size_t n = strlen(versioned);
    if (!in->authorized) {
        return fake_http_answer(fd, 401, "WWW-Authenticate: Bearer\r\n",
                                "{\"error\": \"no or wrong token\"}");
    }
    if (!strcmp(in->path, "/v2/repository/index")) {
        return fake_http_answer(fd, 200, "",
                                "[{\"name\":\"" MODEL "\",\"version\":\"1\",\"state\":\"READY\"}]");
    }
    if (!strcmp(in->path, "/v2/models/" MODEL)) {
        return answer_info(fake, fd);
    }
    if (!strncmp(in->path, versioned, n) && !strcmp(in->path + n, "/infer")) {
        return answer_infer(fake, fd, in);
    }
    if (!strncmp(in->path, versioned, n) && !strncmp(in->path + n, "/vocab_maps/", 12)) {
        return answer_map(fake, fd, in, in->path + n + 12);
    }
    if (!strncmp(in->path, versioned, n) && !strcmp(in->path + n, "/head")) {
        return answer_head(fake, fd);
    }
    return fake_http_answer(fd, 404, "", "{\"error\": \"no such model or version\"}");
}

static void *connection_thread(void *user) {
    struct connection *connection = user;
    struct fake_teacher *fake = connection->fake;
    struct fake_request in = {.json_len = -1};
    lb_buf_init(&in.body, 1u << 28);
    while (fake_http_read(connection->fd, fake->token, &in) && answer(fake, connection->fd, &in)) {
    }
    lb_buf_finish(&in.body);
    pthread_mutex_lock(&fake->lock);
    fake->connections[connection->index] = -1;
    pthread_mutex_unlock(&fake->lock);
    close(connection->fd);
    lb_free(connection);
    return NULL;
}

static void *accept_thread(void *user) {
    struct fake_teacher *fake = user;
    for (;;) {
        int fd = accept(fake->listener, NULL, NULL), one = 1;
        if (fd < 0) {
            return NULL;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *connection = lb_calloc(1, sizeof *connection);
        pthread_mutex_lock(&fake->lock);
        if (!connection || fake->stopping || fake->n_connections == MAX_CONNECTIONS) {
            pthread_mutex_unlock(&fake->lock);
            close(fd);
            lb_free(connection);
            continue;
        }
        *connection = (struct connection){.fake = fake, .fd = fd, .index = fake->n_connections};
        fake->connections[fake->n_connections] = fd;
        if (pthread_create(&fake->threads[fake->n_connections], NULL, connection_thread, connection)) {
            abort();
        }
        fake->n_connections++;
        pthread_mutex_unlock(&fake->lock);
    }
}

/* ---- life ---- */

struct fake_teacher *fake_start(const struct fake_options *options) {
    struct fake_teacher *fake = lb_calloc(1, sizeof *fake);
    if (!fake) {
        return NULL;
    }
    fake->is = *options;
    fake->is.vocab_size = options->vocab_size ? options->vocab_size : 50;
    fake->is.hidden_size = options->hidden_size ? options->hidden_size : 6;
    snprintf(fake->fingerprint, sizeof fake->fingerprint, "%s",
             options->fingerprint ? options->fingerprint : fake_fingerprint);
    snprintf(fake->token, sizeof fake->token, "%s", options->token ? options->token : "");
    pthread_mutex_init(&fake->lock, NULL);
    fake->port = options->port;
    fake->listener = fake_http_listen(&fake->port);
    if (fake->listener < 0 || pthread_create(&fake->acceptor, NULL, accept_thread, fake)) {
        if (fake->listener >= 0) {
            close(fake->listener);
        }
        lb_free(fake);
        return NULL;
    }
    snprintf(fake->url, sizeof fake->url, "http://127.0.0.1:%d", fake->port);
    return fake;
}

void fake_stop(struct fake_teacher *fake) {
    if (!fake) {
        return;
    }
    pthread_mutex_lock(&fake->lock);
    fake->stopping = true;
    pthread_mutex_unlock(&fake->lock);
    shutdown(fake->listener, SHUT_RDWR);
    pthread_join(fake->acceptor, NULL);
    close(fake->listener);
    pthread_mutex_lock(&fake->lock);
    for (int i = 0; i < fake->n_connections; i++) {
        if (fake->connections[i] >= 0) {
            const struct linger reset = {.l_onoff = 1, .l_linger = 0}; /* so that the port is free at once */
            setsockopt(fake->connections[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            shutdown(fake->connections[i], SHUT_RDWR);
        }
    }
    int n = fake->n_connections;
    pthread_mutex_unlock(&fake->lock);
    for (int i = 0; i < n; i++) {
        pthread_join(fake->threads[i], NULL);
    }
    pthread_mutex_destroy(&fake->lock);
    lb_free(fake);
}

int fake_port(const struct fake_teacher *fake) {
    return fake->port;
}

const char *fake_url(const struct fake_teacher *fake) {
    return fake->url;
}

void fake_fault(struct fake_teacher *fake, enum fake_fault fault, int n) {
    pthread_mutex_lock(&fake->lock);
    fake->fault = fault;
    fake->fault_left = n;
    pthread_mutex_unlock(&fake->lock);
}

static int read_int(struct fake_teacher *fake, const int *value) {
    pthread_mutex_lock(&fake->lock);
    int v = *value;
    pthread_mutex_unlock(&fake->lock);
    return v;
}

int fake_requests(struct fake_teacher *fake) {
    return read_int(fake, &fake->requests);
}

int fake_maps(struct fake_teacher *fake) {
    return read_int(fake, &fake->maps);
}

void fake_forget_map(struct fake_teacher *fake) {
    pthread_mutex_lock(&fake->lock);
    fake->map[0] = 0;
    pthread_mutex_unlock(&fake->lock);
}

int fake_sequences(struct fake_teacher *fake) {
    return read_int(fake, &fake->sequences);
}

int fake_scored(struct fake_teacher *fake) {
    return read_int(fake, &fake->scored);
}

int fake_heads(struct fake_teacher *fake) {
    return read_int(fake, &fake->heads);
}

bool fake_saw_no_cache(struct fake_teacher *fake) {
    pthread_mutex_lock(&fake->lock);
    bool v = fake->no_cache;
    pthread_mutex_unlock(&fake->lock);
    return v;
}
