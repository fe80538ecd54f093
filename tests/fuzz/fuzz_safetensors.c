/* lb_safetensors_parse: whatever is accepted can be read to its last byte, and comes back the same when it is
 * written. */
#include "tests/support/safetensors.h"

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

static void write_and_compare(const struct lb_safetensors *file, size_t size) {
    size_t n = lb_safetensors_count(file);
    struct lb_tensor *tensors = calloc(n + 1, sizeof *tensors);
    require(tensors != NULL);
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *lb_safetensors_get(file, i);
    }
    const char *format = lb_safetensors_metadata(file, "format");
    const char *metadata[] = {"format", format};
    struct lb_buf buf;
    struct lb_safetensors *again = NULL;
    lb_buf_init(&buf, 4096 + 16 * size); /* names may take six times their bytes in JSON */
    require(encode_safetensors(&buf, tensors, n, metadata, format != NULL, NULL) == LB_OK);
    require(lb_safetensors_parse(buf.data, buf.len, "again", &again, NULL) == LB_OK);
    require(lb_safetensors_count(again) == n);
    for (size_t i = 0; i < n; i++) {
        require(same(lb_safetensors_get(again, i), &tensors[i]));
        require(lb_safetensors_find(again, tensors[i].name) == lb_safetensors_get(again, i));
    }
    require(format == NULL || strcmp(lb_safetensors_metadata(again, "format"), format) == 0);
    lb_safetensors_destroy(again);
    lb_buf_finish(&buf);
    free(tensors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lb_safetensors *file = NULL;
    struct lb_detail detail = {0};
    enum lb_status status = lb_safetensors_parse(data, size, "input", &file, &detail);
    require(status == detail.code);
    if (status != LB_OK) {
        require(file == NULL && strncmp(detail.text, "input: ", 7) == 0);
        return 0;
    }
    write_and_compare(file, size);
    lb_safetensors_destroy(file);
    return 0;
}
