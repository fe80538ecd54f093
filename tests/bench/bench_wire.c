/* Bytes on the wire per token, and what encoding and decoding cost, for each lane of targets.
 *
 * usage: bench_wire [V C K]      default 2048 256 64: the WordNet teachers
 * One JSON line a lane for a question about 32 sequences of 64 tokens: bytes of request and answer (bodies,
 * without HTTP's own headers) per token, microseconds per token to encode and to decode the answer, as the
 * trainer asks for it: with its digest; and how much of both the digest is (made once, checked once).
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "proto/oip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEQS 32
#define LENGTH 64
#define ROUNDS 20

struct lane {
    const char *name;
    int n;
    struct {
        const char *output;
        enum lb_datatype datatype;
        int64_t width; /* 0: none */
        bool json;
    } outputs[4];
};

static void fail(const char *what) {
    fprintf(stderr, "bench_wire: %s\n", what);
    exit(1);
}

static size_t request_bytes(const struct lane *lane) {
    static int32_t ids[SEQS * LENGTH];
    struct lb_wire_tensor input = {.name = "input_ids",
                                   .datatype = LB_DT_INT32,
                                   .n_dims = 2,
                                   .dim = {SEQS, LENGTH},
                                   .data = ids,
                                   .bytes = sizeof ids,
                                   .binary = true};
    struct lb_wire_output outputs[4];
    for (int i = 0; i < lane->n; i++) {
        outputs[i] = (struct lb_wire_output){lane->outputs[i].output, !lane->outputs[i].json,
                                             lane->outputs[i].datatype};
    }
    struct lb_infer_request request = {.top_k = LB_DEFAULT_TOP_K,
                                       .temperature = 1,
                                       .answer_digest = true,
                                       .n_inputs = 1,
                                       .inputs = &input,
                                       .n_outputs = (size_t)lane->n,
                                       .outputs = outputs};
    struct lb_buf body;
    size_t json;
    lb_buf_init(&body, LB_MAX_BODY_BYTES);
    if (lb_infer_request_encode(&request, &body, &json, NULL) != LB_OK) {
        fail("cannot encode a request");
    }
    size_t bytes = body.len;
    lb_buf_finish(&body);
    return bytes;
}

static void run(const struct lane *lane) {
    static const char of[] = "66647936c07baf963fc10c6d2c7733bf43b20a1c998b9ba8ffc51b2fdedf4585";
    struct lb_wire_tensor tensors[4];
    for (int i = 0; i < lane->n; i++) {
        int64_t width = lane->outputs[i].width;
        struct lb_wire_tensor *t = &tensors[i];
        *t = (struct lb_wire_tensor){.name = lane->outputs[i].output,
                                     .datatype = lane->outputs[i].datatype,
                                     .n_dims = width > 0 ? 3 : 2,
                                     .dim = {SEQS, LENGTH, width},
                                     .binary = !lane->outputs[i].json};
        t->bytes = (size_t)lb_wire_elements(t) * lb_datatype_bytes(t->datatype);
        unsigned char *data = lb_calloc(t->bytes, 1);
        if (data == NULL) {
            fail("out of memory");
        }
        for (size_t j = 0; t->datatype == LB_DT_FP32 && j < t->bytes / 4; j++) {
            float x = (float)((j * 2654435761u) % 100003) / 5000.0f - 10.0f;
            memcpy(data + 4 * j, &x, 4);
        }
        t->data = data;
    }
    struct lb_infer_response answer = {.model_name = "nouns",
                                       .model_version =
                                           "66647936c07baf963fc10c6d2c7733bf43b20a1c998b9ba8ffc51b2fdedf4585",
                                       .temperature = 1,
                                       .digest_of = of,
                                       .compute = of,
                                       .n_outputs = (size_t)lane->n,
                                       .outputs = tensors};
    struct lb_buf body;
    struct lb_arena arena;
    lb_buf_init(&body, LB_MAX_RESPONSE_BYTES);
    lb_arena_init(&arena, (size_t)2 << 30);
    uint64_t encoding = 0, decoding = 0, digesting = 0;
    size_t bytes = 0;
    for (int r = 0; r < ROUNDS; r++) {
        uint64_t t = lb_now_ns();
        lb_buf_reset(&body);
        if (lb_infer_response_head(&answer, &body, NULL) != LB_OK) {
            fail("cannot encode an answer");
        }
        size_t json = body.len;
        bool binary = false;
        for (int i = 0; i < lane->n; i++) {
            if (tensors[i].binary) {
                (void)lb_buf_append(&body, tensors[i].data, tensors[i].bytes);
                binary = true;
            }
        }
        uint8_t digest[LB_SHA256_BYTES];
        uint64_t d = lb_now_ns();
        if (binary && (lb_answer_digest(&answer, body.data, json, digest) != LB_OK ||
                       lb_buf_append(&body, digest, sizeof digest) != LB_OK)) {
            fail("no digest");
        }
        digesting += lb_now_ns() - d;
        encoding += lb_now_ns() - t;
        t = lb_now_ns();
        struct lb_infer_response decoded;
        lb_arena_reset(&arena);
        if (lb_answer_digest_check(body.data, body.len, binary ? (int64_t)json : -1, of, NULL) != LB_OK) {
            fail("a wrong digest");
        }
        digesting += lb_now_ns() - t;
        if (lb_infer_response_decode(body.data, body.len, binary ? (int64_t)json : -1, &arena, &decoded,
                                     NULL) != LB_OK) {
            fail("cannot decode an answer");
        }
        decoding += lb_now_ns() - t;
        bytes = body.len;
    }
    double tokens = SEQS * LENGTH, rounds = ROUNDS * tokens * 1000;
    printf("{\"case\": \"wire %s\", \"request_bytes_per_token\": %.1f, \"answer_bytes_per_token\": %.1f, "
           "\"encode_us_per_token\": "
           "%.3f, \"decode_us_per_token\": %.3f, \"digest_us_per_token\": %.3f}\n",
           lane->name, (double)request_bytes(lane) / tokens, (double)bytes / tokens,
           (double)encoding / rounds, (double)decoding / rounds, (double)digesting / rounds);
    for (int i = 0; i < lane->n; i++) {
        lb_free((void *)tensors[i].data);
    }
    lb_buf_finish(&body);
    lb_arena_finish(&arena);
}

int main(int argc, char **argv) {
    int64_t v = argc > 1 ? atoll(argv[1]) : 2048, c = argc > 2 ? atoll(argv[2]) : 256,
            k = argc > 3 ? atoll(argv[3]) : 64;
    if (v < 1 || c < 1 || k < 1 || v > 300000 || c > 100000 || k > v) {
        fail("usage: bench_wire [V C K]");
    }
    enum lb_datatype id = v <= 65536 ? LB_DT_UINT16 : LB_DT_INT32;
    const struct lane lanes[] = {
        {"final_hidden FP16 + logprobs.actual",
         2,
         {{"hidden_states.final", LB_DT_FP16, c, false}, {"logprobs.actual", LB_DT_FP32, 0, false}}},
        {"topk FP16 + logsumexp",
         3,
         {{"logits.topk_ids", id, k, false},
          {"logits.topk_values", LB_DT_FP16, k, false},
          {"logsumexp", LB_DT_FP32, 0, false}}},
        {"logits FP16", 1, {{"logits", LB_DT_FP16, v, false}}},
        {"logits FP32", 1, {{"logits", LB_DT_FP32, v, false}}},
        {"topk as JSON",
         3,
         {{"logits.topk_ids", LB_DT_INT32, k, true},
          {"logits.topk_values", LB_DT_FP32, k, true},
          {"logsumexp", LB_DT_FP32, 0, true}}},
    };
    for (size_t i = 0; i < sizeof lanes / sizeof lanes[0]; i++) {
        run(&lanes[i]);
    }
    return 0;
}
