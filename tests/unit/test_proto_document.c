/* proto/PROTOCOL.md's worked example: its bytes are what the code writes and reads, its numbers follow from
 * its logits, its digest is that of the bytes it shows; its outputs, and those of openapi.yaml, are the
 * table's.
 *
 * `test_proto_document --print` writes the dumps for the page.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "proto/oip.h"
#include "proto/outputs.h"
#include "tests/support/oip_equal.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FINGERPRINT "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define TEMPERATURE 2.0
#define V 4
#define T 3
#define K 2

/* Row t is the teacher's answer after reading ids[0..t]; the page shows this table. */
static const float logits[T][V] = {{0.5f, 2, -1, 1}, {-1, 0.25f, 3, 0.25f}, {0, 0, 0, 4}};
static const int32_t ids[T] = {1, 3, 2};

struct example {
    struct lb_wire_tensor input, outputs[3];
    struct lb_wire_output asked[3];
    struct lb_infer_request request;
    struct lb_infer_response response;
    uint16_t topk_ids[T * K];
    float topk_values[T * K], lse[T];
};

/* The answer by the definitions: value descending, ties by lower id; log of the sum of exp(z / temperature).
 */
static void compute(struct example *e) {
    for (int t = 0; t < T; t++) {
        bool taken[V] = {false};
        double sum = 0;
        for (int j = 0; j < V; j++) {
            sum += exp((double)logits[t][j] / TEMPERATURE);
        }
        e->lse[t] = (float)log(sum);
        for (int k = 0; k < K; k++) {
            int best = -1;
            for (int j = 0; j < V; j++) {
                if (!taken[j] && (best < 0 || logits[t][j] > logits[t][best])) {
                    best = j;
                }
            }
            taken[best] = true;
            e->topk_ids[t * K + k] = (uint16_t)best;
            e->topk_values[t * K + k] = logits[t][best];
        }
    }
}

static void make_example(struct example *e) {
    *e = (struct example){
        .input = {"input_ids", LB_DT_INT32, 2, {1, T}, ids, sizeof ids, true},
        .asked = {{"logits.topk_ids", true, LB_DT_UINT16},
                  {"logits.topk_values", true},
                  {"logsumexp", false}},
        .request = {.id = "7", .top_k = K, .temperature = TEMPERATURE, .n_inputs = 1, .n_outputs = 3},
        .response = {.model_name = "teacher",
                     .model_version = FINGERPRINT,
                     .id = "7",
                     .top_k = K,
                     .temperature = TEMPERATURE,
                     .n_outputs = 3},
    };
    compute(e);
    e->outputs[0] = (struct lb_wire_tensor){"logits.topk_ids", LB_DT_UINT16,       3,   {1, T, K},
                                            e->topk_ids,       sizeof e->topk_ids, true};
    e->outputs[1] = (struct lb_wire_tensor){"logits.topk_values",  LB_DT_FP32, 3, {1, T, K}, e->topk_values,
                                            sizeof e->topk_values, true};
    e->outputs[2] = (struct lb_wire_tensor){"logsumexp", LB_DT_FP32, 2, {1, T}, e->lse, sizeof e->lse, false};
    e->request.inputs = &e->input;
    e->request.outputs = e->asked;
    e->response.outputs = e->outputs;
}

static size_t write_request(const struct example *e, struct lb_buf *out) {
    size_t json_len = 0;
    struct lb_detail detail = {0};
    if (lb_infer_request_encode(&e->request, out, &json_len, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return json_len;
}

static size_t write_response(const struct example *e, struct lb_buf *out) {
    struct lb_detail detail = {0};
    if (lb_infer_response_head(&e->response, out, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    size_t json_len = out->len;
    lb_buf_append(out, e->topk_ids, sizeof e->topk_ids);
    lb_buf_append(out, e->topk_values, sizeof e->topk_values);
    return json_len;
}

static void put_text(struct lb_buf *out, const char *text) {
    lb_put_u32(out, (uint32_t)strlen(text));
    lb_buf_append_str(out, text);
}

/* The page's table "Digest", row by row. */
static void write_canonical(struct lb_buf *out) {
    put_text(out, "limbeck-request-1");
    put_text(out, FINGERPRINT);
    lb_put_u64(out, K);
    lb_put_f64(out, TEMPERATURE);
    lb_put_u64(out, 0); /* sample_count */
    lb_put_u64(out, 0); /* seed */
    lb_put_u32(out, 1);
    put_text(out, "input_ids");
    put_text(out, "INT32");
    lb_put_u32(out, 2);
    lb_put_u64(out, 1);
    lb_put_u64(out, T);
    lb_buf_append(out, ids, sizeof ids);
    lb_put_u32(out, 3);
    put_text(out, "logits.topk_ids");
    put_text(out, "UINT16");
    put_text(out, "logits.topk_values");
    put_text(out, "FP32");
    put_text(out, "logsumexp");
    put_text(out, "FP32");
}

/* ---- the page ---- */

static void read_file(const char *name, struct lb_buf *page) {
    char path[4096];
    struct lb_detail detail = {0};
    const char *root = getenv("LB_SOURCE_ROOT");
    snprintf(path, sizeof path, "%s/proto/%s", root ? root : ".", name);
    lb_buf_init(page, 1 << 20);
    if (lb_file_read(path, page, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
}

static void read_page(struct lb_buf *page) {
    read_file("PROTOCOL.md", page);
}

/* The bytes of the dump that follows `<!-- name -->`: lines of an offset and up to 16 bytes in hex. */
static void read_dump(const struct lb_buf *page, const char *name, struct lb_buf *out) {
    char mark[64];
    snprintf(mark, sizeof mark, "<!-- %s -->\n```\n", name);
    const char *at = strstr(page->data, mark);
    if (!at) {
        fail_msg("PROTOCOL.md has no dump \"%s\"", name);
        return;
    }
    lb_buf_init(out, 1 << 16);
    for (at += strlen(mark); strncmp(at, "```", 3) != 0; at = strchr(at, '\n') + 1) {
        char *hex = NULL;
        assert_int_equal(strtoul(at, &hex, 16), out->len);
        for (int i = 0; i < 16; i++) {
            const char *pair = hex + 2 + 3 * i;
            if (!isxdigit((unsigned char)pair[0])) {
                break;
            }
            char digits[3] = {pair[0], pair[1], '\0'};
            uint8_t byte = (uint8_t)strtoul(digits, NULL, 16);
            lb_buf_append(out, &byte, 1);
        }
    }
}

static void check_dump(const char *name, const struct lb_buf *got) {
    struct lb_buf page, wanted;
    read_page(&page);
    read_dump(&page, name, &wanted);
    if (got->len != wanted.len || memcmp(got->data, wanted.data, got->len) != 0) {
        fail_msg("dump \"%s\" of PROTOCOL.md (%zu bytes) is not what the code writes (%zu bytes)", name,
                 wanted.len, got->len);
    }
    lb_buf_finish(&wanted);
    lb_buf_finish(&page);
}

/* The page must say this somewhere. */
static void check_said(const char *format, ...) LB_PRINTF(1, 2);
static void check_said(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    struct lb_buf page;
    read_page(&page);
    if (!strstr(page.data, text)) {
        fail_msg("PROTOCOL.md does not say \"%s\"", text);
    }
    lb_buf_finish(&page);
}

static void request_is_as_shown(void **state) {
    (void)state;
    struct example e;
    struct lb_buf body;
    struct lb_arena arena;
    struct lb_infer_request back;
    lb_buf_init(&body, 1 << 16);
    lb_arena_init(&arena, 1 << 20);
    make_example(&e);
    size_t json_len = write_request(&e, &body);
    check_dump("example request", &body);
    check_said("Content-Length: %zu\nInference-Header-Content-Length: %zu\n", body.len, json_len);
    assert_int_equal(lb_infer_request_decode(body.data, body.len, (int64_t)json_len, &arena, &back, NULL),
                     LB_OK);
    assert_null(oip_request_difference(&e.request, &back));
    lb_arena_finish(&arena);
    lb_buf_finish(&body);
}

static void answer_is_as_shown(void **state) {
    (void)state;
    struct example e;
    struct lb_buf body;
    struct lb_arena arena;
    struct lb_infer_response back;
    lb_buf_init(&body, 1 << 16);
    lb_arena_init(&arena, 1 << 20);
    make_example(&e);
    size_t json_len = write_response(&e, &body);
    check_dump("example answer", &body);
    check_said("Content-Length: %zu\nInference-Header-Content-Length: %zu\n", body.len, json_len);
    assert_int_equal(lb_infer_response_decode(body.data, body.len, (int64_t)json_len, &arena, &back, NULL),
                     LB_OK);
    assert_null(oip_response_difference(&e.response, &back));
    for (int t = 0; t < T; t++) {
        check_said("| %d | %d | %g | %g | %g | %g |", t, (int)ids[t], (double)logits[t][0],
                   (double)logits[t][1], (double)logits[t][2], (double)logits[t][3]);
    }
    lb_arena_finish(&arena);
    lb_buf_finish(&body);
}

static void digest_is_as_shown(void **state) {
    (void)state;
    struct example e;
    struct lb_buf bytes;
    uint8_t digest[LB_SHA256_BYTES];
    char of_bytes[LB_SHA256_HEX], of_request[LB_SHA256_HEX];
    lb_buf_init(&bytes, 1 << 16);
    make_example(&e);
    write_canonical(&bytes);
    check_dump("example digest", &bytes);
    lb_sha256(bytes.data, bytes.len, digest);
    lb_hex(digest, sizeof digest, of_bytes);
    assert_int_equal(lb_request_digest(FINGERPRINT, &e.request, of_request), LB_OK);
    assert_string_equal(of_request, of_bytes);
    check_said("Limbeck-Request-Digest: sha-256=%s\n", of_request);
    lb_buf_finish(&bytes);
}

/* The limits that the page states are the code's. */
static void limits_are_as_stated(void **state) {
    (void)state;
    check_said("| `LB_MAX_BODY_BYTES` | %u |", LB_MAX_BODY_BYTES);
    check_said("| `LB_MAX_RESPONSE_BYTES` | %u |", LB_MAX_RESPONSE_BYTES);
    check_said("| `LB_MAX_JSON_BYTES` | %u |", LB_MAX_JSON_BYTES);
    check_said("| `LB_MAX_JSON_ANSWER_BYTES` | %u |", LB_MAX_JSON_ANSWER_BYTES);
    check_said("| `LB_MAX_JSON_DEPTH` | %d |", LB_MAX_JSON_DEPTH);
    check_said("| `LB_MAX_JSON_VALUES` | %d |", LB_MAX_JSON_VALUES);
    check_said("| `LB_MAX_TENSORS` | %d |", LB_MAX_TENSORS);
    check_said("| `LB_MAX_WIRE_DIMS` | %d |", LB_MAX_WIRE_DIMS);
    check_said("| `LB_MAX_NAME` | %d |", LB_MAX_NAME);
    check_said("| `LB_MAX_ID` | %d |", LB_MAX_ID);
    check_said("| `LB_MAX_SEQUENCES` | %d |", LB_MAX_SEQUENCES);
    check_said("| `LB_MAX_REQUEST_TOKENS` | %d |", LB_MAX_REQUEST_TOKENS);
    check_said("| `LB_MAX_TOP_K` | %d |", LB_MAX_TOP_K);
    check_said("| `LB_MAX_SCORE_IDS` | %d |", LB_MAX_SCORE_IDS);
    check_said("| `LB_MAX_SAMPLES` | %d |", LB_MAX_SAMPLES);
    check_said("| `LB_MAX_HEADER_BYTES` | %d |", LB_MAX_HEADER_BYTES);
    check_said("| `top_k` | integer, 1 to %d | %d |", LB_MAX_TOP_K, LB_DEFAULT_TOP_K);
    check_said("| `temperature` | number, %g to %g | 1 |", LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE);
}

/* ---- outputs ---- */

/* "[B, R, K]" */
static const char *shape_text(const struct lb_output *is) {
    switch (is->width) {
    case LB_WIDE_ONE:
        return "`[B, R]`";
    case LB_WIDE_VOCAB:
        return "`[B, R, V]`";
    case LB_WIDE_TOP_K:
        return "`[B, R, K]`";
    case LB_WIDE_SCORED:
        return "`[B, R, K']`";
    case LB_WIDE_SAMPLES:
        return "`[B, R, S]`";
    case LB_WIDE_STATE:
        return "`[B, R, C]`";
    case LB_WIDE_KEYS:
        return "`[B, H, R, T]`";
    case LB_WIDE_SENTENCE:
        return "`[B, C]`";
    }
    return "";
}

/* The table of section 3.3 has a line for each output: name, datatypes, shape. */
static void outputs_are_as_stated(void **state) {
    (void)state;
    struct lb_buf page;
    read_page(&page);
    const char *section = strstr(page.data, "### 3.3 Outputs"), *end = strstr(section, "\n## ");
    assert_true(section != NULL && end != NULL);
    int lines = 0;
    for (const char *at = section; (at = strstr(at, "\n| `")) != NULL && at < end; at++) {
        lines++;
    }
    assert_int_equal(lines, LB_N_OUTPUTS);
    for (int k = 0; k < LB_N_OUTPUTS; k++) {
        const struct lb_output *is = lb_output_get((enum lb_output_kind)k);
        char start[200];
        char types[LB_OUTPUT_TYPES_TEXT];
        snprintf(start, sizeof start, "| `%s` | %s |", is->name,
                 lb_output_types((enum lb_output_kind)k, types));
        const char *line = strstr(section, start), *shape = line ? strstr(line, shape_text(is)) : NULL;
        if (!shape || shape > strchr(line, '\n')) {
            fail_msg("PROTOCOL.md, section 3.3, has no line \"%s ... %s\"", start, shape_text(is));
        }
    }
    lb_buf_finish(&page);
}

/* openapi.yaml's pattern of an output's name is the table's. */
static void openapi_knows_the_outputs(void **state) {
    (void)state;
    struct lb_buf page, pattern;
    read_file("openapi.yaml", &page);
    lb_buf_init(&pattern, 4096);
    for (int k = 0; k < LB_N_OUTPUTS; k++) {
        const struct lb_output *is = lb_output_get((enum lb_output_kind)k);
        size_t n = strlen(is->name) - (lb_output_layered((enum lb_output_kind)k) ? 1 : 0);
        lb_buf_append_str(&pattern, k ? "|" : "pattern: '^(");
        for (size_t i = 0; i < n; i++) {
            lb_buf_printf(&pattern, is->name[i] == '.' ? "\\%c" : "%c", is->name[i]);
        }
        lb_buf_append_str(&pattern, is->name[n] ? "(0|[1-9][0-9]{0,3})" : "");
    }
    lb_buf_append_str(&pattern, ")$'");
    if (!strstr(page.data, pattern.data)) {
        fail_msg("openapi.yaml does not say %s", pattern.data);
    }
    lb_buf_finish(&pattern);
    lb_buf_finish(&page);
}

/* ---- for writing the page ---- */

static void print_dump(const char *name, const struct lb_buf *bytes) {
    printf("<!-- %s -->\n```\n", name);
    for (size_t at = 0; at < bytes->len; at += 16) {
        printf("%08zx ", at);
        for (size_t i = at; i < at + 16; i++) {
            if (i < bytes->len) {
                printf(" %02x", (uint8_t)bytes->data[i]);
            } else {
                printf("   ");
            }
        }
        printf("  |");
        for (size_t i = at; i < at + 16 && i < bytes->len; i++) {
            putchar(isprint((unsigned char)bytes->data[i]) ? bytes->data[i] : '.');
        }
        printf("|\n");
    }
    printf("```\n\n");
}

static int print_all(void) {
    struct example e;
    struct lb_buf bytes;
    char digest[LB_SHA256_HEX];
    lb_buf_init(&bytes, 1 << 16);
    make_example(&e);
    size_t json_len = write_request(&e, &bytes);
    printf("Content-Length: %zu\nInference-Header-Content-Length: %zu\n", bytes.len, json_len);
    print_dump("example request", &bytes);
    lb_buf_reset(&bytes);
    json_len = write_response(&e, &bytes);
    printf("Content-Length: %zu\nInference-Header-Content-Length: %zu\n", bytes.len, json_len);
    print_dump("example answer", &bytes);
    lb_buf_reset(&bytes);
    write_canonical(&bytes);
    print_dump("example digest", &bytes);
    if (lb_request_digest(FINGERPRINT, &e.request, digest) == LB_OK) {
        printf("Limbeck-Request-Digest: sha-256=%s\n", digest);
    }
    lb_buf_finish(&bytes);
    return 0;
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, word)) != NULL; p++) {
        n++;
    }
    return n;
}

/* Whatever wants a token may be told that it is the wrong one, or that it has had its share. */
static void openapi_knows_what_tokens_are_told(void **state) {
    (void)state;
    struct lb_buf page;
    read_file("openapi.yaml", &page);
    int n = count(page.data, "        '401':");
    assert_true(n > 20);
    assert_int_equal(count(page.data, "        '403':"), n);
    assert_int_equal(count(page.data, "        '429':"), n);
    lb_buf_finish(&page);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--print") == 0) {
        return print_all();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_as_shown),
        cmocka_unit_test(answer_is_as_shown),
        cmocka_unit_test(digest_is_as_shown),
        cmocka_unit_test(limits_are_as_stated),
        cmocka_unit_test(outputs_are_as_stated),
        cmocka_unit_test(openapi_knows_the_outputs),
        cmocka_unit_test(openapi_knows_what_tokens_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
