/* Requests as NVIDIA's tritonclient writes them (.request files in oip/, made by make_oip.py) are read, and
 * have the digests that Python computed; our answers are, byte for byte, the .response files in oip/, which
 * check_oip_peer.py reads with tritonclient.
 *
 * `test_golden_oip --write DIR` writes the answers anew.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "proto/oip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "tests/golden/oip"

static void read_golden(const char *name, struct lb_buf *out) {
    char path[4096];
    struct lb_detail detail = {0};
    const char *root = getenv("LB_SOURCE_ROOT");
    snprintf(path, sizeof path, "%s/" FOLDER "/%s", root ? root : ".", name);
    lb_buf_init(out, 1 << 20);
    if (lb_file_read(path, out, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
}

/* body and arena must live as long as the request. */
static void read_request(const char *name, struct lb_buf *file, struct lb_arena *arena,
                         struct lb_infer_request *out) {
    char path[256];
    struct lb_detail detail = {0};
    snprintf(path, sizeof path, "%s.request", name);
    read_golden(path, file);
    lb_arena_init(arena, 1 << 20);
    uint32_t header;
    memcpy(&header, file->data, 4);
    if (lb_infer_request_decode(file->data + 4, file->len - 4, (int64_t)header - 1, arena, out, &detail) !=
        LB_OK) {
        fail_msg("%s: %s", name, detail.text);
    }
}

static void digests_are_those_of_python(void **state) {
    (void)state;
    struct lb_buf list;
    read_golden("digests.txt", &list);
    int n = 0;
    for (char *line = strtok(list.data, "\n"); line; line = strtok(NULL, "\n"), n++) {
        char name[128], wanted[LB_SHA256_HEX], got[LB_SHA256_HEX];
        assert_int_equal(sscanf(line, "%127s %64s", name, wanted), 2);
        struct lb_buf file;
        struct lb_arena arena;
        struct lb_infer_request request;
        read_request(name, &file, &arena, &request);
        assert_int_equal(lb_request_digest("golden", &request, got), LB_OK);
        if (strcmp(got, wanted) != 0) {
            fail_msg("%s: %s, Python computed %s", name, got, wanted);
        }
        lb_arena_finish(&arena);
        lb_buf_finish(&file);
    }
    assert_int_equal(n, 9);
    lb_buf_finish(&list);
}

static void check_ids(const struct lb_wire_tensor *t) {
    assert_string_equal(t->name, "input_ids");
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dim[0], 2);
    assert_int_equal(t->dim[1], 5);
    for (int i = 0; i < 10; i++) {
        int64_t id;
        if (t->datatype == LB_DT_INT32) {
            id = ((const int32_t *)t->data)[i];
        } else {
            assert_int_equal(t->datatype, LB_DT_INT64);
            id = ((const int64_t *)t->data)[i];
        }
        assert_int_equal(id, i * 1000 + 7);
    }
}

static void ids_are_read_in_all_forms(void **state) {
    (void)state;
    static const char *const names[] = {"ids_int32_binary", "ids_int32_json", "ids_int64_binary",
                                        "ids_int64_json"};
    for (int k = 0; k < 4; k++) {
        bool binary = k % 2 == 0;
        struct lb_buf file;
        struct lb_arena arena;
        struct lb_infer_request r;
        read_request(names[k], &file, &arena, &r);
        assert_int_equal(r.top_k, 8);
        assert_true(r.temperature == 2);
        assert_int_equal(r.priority, 1);
        assert_int_equal(r.timeout_us, binary ? 5000000 : 0);
        assert_true(binary ? r.id && strcmp(r.id, "7") == 0 : r.id == NULL);
        assert_int_equal(r.n_inputs, 2);
        check_ids(&r.inputs[0]);
        assert_int_equal(r.inputs[0].binary, binary);
        const int32_t lengths[] = {5, 3};
        assert_string_equal(r.inputs[1].name, "lengths");
        assert_memory_equal(r.inputs[1].data, lengths, sizeof lengths);
        assert_int_equal(r.n_outputs, 3);
        assert_string_equal(r.outputs[0].name, binary ? "logits.topk_ids" : "logsumexp");
        assert_int_equal(r.outputs[0].binary, binary);
        lb_arena_finish(&arena);
        lb_buf_finish(&file);
    }
}

static void features_have_the_same_bits(void **state) {
    (void)state;
    struct lb_buf file[2];
    struct lb_arena arena[2];
    struct lb_infer_request r[2];
    read_request("features_binary", &file[0], &arena[0], &r[0]);
    read_request("features_json", &file[1], &arena[1], &r[1]);
    const struct lb_wire_tensor *a = &r[0].inputs[0], *b = &r[1].inputs[0];
    assert_int_equal(a->datatype, LB_DT_FP32);
    assert_int_equal(a->bytes, 24);
    assert_int_equal(b->bytes, 24);
    assert_memory_equal(a->data, b->data, 24);
    for (int i = 0; i < 6; i++) {
        assert_true(((const float *)a->data)[i] == ((float)i - 2.5f) / 7);
    }
    for (int i = 0; i < 2; i++) {
        lb_arena_finish(&arena[i]);
        lb_buf_finish(&file[i]);
    }
}

static void other_requests_are_read(void **state) {
    (void)state;
    struct lb_buf file;
    struct lb_arena arena;
    struct lb_infer_request r;
    read_request("defaults", &file, &arena, &r);
    assert_int_equal(r.n_outputs, 0);
    assert_true(r.binary_default); /* the client sets it when no outputs are named */
    assert_int_equal(r.top_k, LB_DEFAULT_TOP_K);
    check_ids(&r.inputs[0]);
    lb_arena_finish(&arena);
    lb_buf_finish(&file);

    read_request("dtypes", &file, &arena, &r);
    assert_int_equal(r.outputs[0].datatype, LB_DT_FP16);
    assert_int_equal(r.outputs[1].datatype, LB_DT_UINT16);
    assert_int_equal(r.outputs[2].datatype, LB_DT_NONE);
    assert_false(r.outputs[2].binary);
    lb_arena_finish(&arena);
    lb_buf_finish(&file);

    read_request("mixed", &file, &arena, &r);
    assert_int_equal(r.n_inputs, 3);
    assert_false(r.inputs[0].binary);
    assert_true(r.inputs[1].binary && r.inputs[2].binary);
    assert_int_equal(((const int32_t *)r.inputs[0].data)[0], 2);
    check_ids(&r.inputs[1]);
    assert_int_equal(((const int32_t *)r.inputs[2].data)[1], 3);
    assert_true(r.temperature == 0.5);
    assert_int_equal(r.seed, 9);
    lb_arena_finish(&arena);
    lb_buf_finish(&file);
}

/* ---- our answers ---- */

enum form { BINARY, JSON, MIXED, N_FORMS };
static const char *const response_names[N_FORMS] = {"binary.response", "json.response", "mixed.response"};

/* Appends the answer of this form in the files' format. */
static void make_response(enum form form, struct lb_buf *out) {
    static const int32_t ids[] = {3, 1, 0, 49151, 7, 2};
    static const float values[] = {1.5f, 0.1f, -0.0f, -3.4028235e38f, 1e-45f, 16777216};
    static const float lse[] = {2.25f, -1e-6f};
    static const uint16_t halves[] = {0x3c00, 0xbc00, 0x7bff, 0x0001}; /* 1 -1 65504 2^-24 */
    static const uint16_t short_ids[] = {65535, 0, 9};
    bool binary = form != JSON;
    const struct lb_wire_tensor outputs[] = {
        {"logits.topk_ids", LB_DT_INT32, 3, {1, 2, 3}, ids, sizeof ids, binary},
        {"logits.topk_values", LB_DT_FP32, 3, {1, 2, 3}, values, sizeof values, form == BINARY},
        {"logsumexp", LB_DT_FP32, 2, {1, 2}, lse, sizeof lse, binary},
        {"short_ids", LB_DT_UINT16, 1, {3}, short_ids, sizeof short_ids, binary},
        {"hidden_states.1", LB_DT_FP16, 3, {1, 2, 2}, halves, sizeof halves, true},
    };
    struct lb_infer_response r = {.model_name = "teacher",
                                  .model_version = "9f3c",
                                  .id = "q\"7\xc3\xa9",
                                  .top_k = 3,
                                  .temperature = form == JSON ? 1 : 0.7,
                                  .n_outputs = form == JSON ? 4 : 5,
                                  .outputs = (struct lb_wire_tensor *)outputs};
    struct lb_detail detail = {0};
    struct lb_buf head;
    lb_buf_init(&head, 1 << 16);
    if (lb_infer_response_head(&r, &head, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    uint32_t header = form == JSON ? 0 : (uint32_t)head.len + 1;
    lb_buf_append(out, &header, sizeof header);
    lb_buf_append(out, head.data, head.len);
    for (size_t i = 0; i < r.n_outputs; i++) {
        if (r.outputs[i].binary) {
            lb_buf_append(out, r.outputs[i].data, r.outputs[i].bytes);
        }
    }
    assert_int_equal(lb_buf_status(out), LB_OK);
    lb_buf_finish(&head);
}

static void answers_are_these_bytes(void **state) {
    (void)state;
    for (int form = 0; form < N_FORMS; form++) {
        struct lb_buf wanted, got;
        read_golden(response_names[form], &wanted);
        lb_buf_init(&got, 1 << 16);
        make_response((enum form)form, &got);
        assert_int_equal(got.len, wanted.len);
        assert_memory_equal(got.data, wanted.data, wanted.len);
        lb_buf_finish(&got);
        lb_buf_finish(&wanted);
    }
}

static int write_responses(const char *dir) {
    for (int form = 0; form < N_FORMS; form++) {
        char path[4096];
        struct lb_detail detail = {0};
        struct lb_buf got;
        lb_buf_init(&got, 1 << 16);
        make_response((enum form)form, &got);
        snprintf(path, sizeof path, "%s/%s", dir, response_names[form]);
        enum lb_status status = lb_file_replace(path, got.data, got.len, &detail);
        lb_buf_finish(&got);
        if (status != LB_OK) {
            fprintf(stderr, "%s\n", detail.text);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        return write_responses(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_python), cmocka_unit_test(ids_are_read_in_all_forms),
        cmocka_unit_test(features_have_the_same_bits), cmocka_unit_test(other_requests_are_read),
        cmocka_unit_test(answers_are_these_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
