/* lb_gguf_open of a model in two parts: four bytes say how long the first is, the second is the rest. What is
 * accepted can be read to its last byte; what is refused is refused by the name of one of the files. */
#include "common/base/file.h"
#include "common/formats/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char paths[2][64];

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

static void remove_parts(void) {
    for (int i = 0; i < 2; i++) {
        (void)unlink(paths[i]);
    }
}

static void write_part(int i, const uint8_t *data, size_t len) {
    FILE *file = fopen(paths[i], "wb");
    require(file != NULL && fwrite(data, 1, len, file) == len && fclose(file) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t first = 0;
    if (paths[0][0] == '\0') {
        for (int i = 0; i < 2; i++) {
            snprintf(paths[i], sizeof paths[i], "/tmp/lb-fuzz-%ld-0000%d-of-00002.gguf", (long)getpid(),
                     i + 1);
        }
        require(atexit(remove_parts) == 0);
    }
    if (size < sizeof first) {
        return 0;
    }
    memcpy(&first, data, sizeof first);
    data += sizeof first;
    size -= sizeof first;
    size_t len = first < size ? first : size;
    write_part(0, data, len);
    write_part(1, data + len, size - len);
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    enum lb_status status = lb_gguf_open(paths[0], &file, &detail);
    require(status == detail.code);
    if (status != LB_OK) {
        require(file == NULL && strstr(detail.text, "/tmp/lb-fuzz-") != NULL);
        return 0;
    }
    static volatile unsigned sum; /* of what was read, so that it is */
    for (size_t i = 0; i < lb_gguf_count(file); i++) {
        const struct lb_tensor *t = lb_gguf_get(file, i);
        require(lb_gguf_find(file, t->name) == t);
        for (size_t k = 0; k < t->bytes; k++) {
            sum = sum + ((const uint8_t *)t->data)[k];
        }
    }
    lb_gguf_destroy(file);
    return 0;
}
