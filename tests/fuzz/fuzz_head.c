/* lb_head_parse and lb_chunks_next: whatever a client sends is read within its bytes, refused with a reason
 * or understood in one way, however it is cut. */
#include "server/http/head.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

static void read_head(const uint8_t *data, size_t size) {
    size_t end = lb_head_end((const char *)data, size, 0);
    require(end <= size);
    if (end == 0) {
        return;
    }
    require(lb_head_end((const char *)data, size, end / 2) == end); /* wherever one had looked before */
    char *text = malloc(end);
    require(text != NULL);
    memcpy(text, data, end);
    struct lb_request_head head;
    const char *why = NULL;
    int status = lb_head_parse(text, end, &head, &why);
    if (status != 0) {
        require(status >= 400 && status < 600 && why != NULL);
    } else {
        require(head.path[0] == '/' && head.method[0] != '\0' && head.n_headers <= LB_MAX_HEADERS);
        require(!(head.chunked && head.has_length));
        for (size_t i = 0; i < head.n_headers; i++) {
            require(head.headers[i].name[0] != '\0' && strpbrk(head.headers[i].value, "\r\n") == NULL);
        }
    }
    free(text);
}

/* The bytes of the body, its end, and whether it is one; in pieces of so many bytes. */
struct decoded {
    uint64_t sum;
    size_t len, used;
    bool good, done;
};

static struct decoded decode(const uint8_t *data, size_t size, size_t piece) {
    struct lb_chunks chunks = {0};
    struct decoded d = {.good = true};
    const char *at = (const char *)data, *end = at + size, *bytes = NULL;
    while (at < end && d.good && !chunks.done) {
        const char *stop = (size_t)(end - at) > piece ? at + piece : end;
        size_t n = 0;
        do {
            d.good = lb_chunks_next(&chunks, &at, stop, &bytes, &n);
            for (size_t i = 0; d.good && i < n; i++) {
                d.sum = d.sum * 31 + (uint8_t)bytes[i];
                d.len++;
            }
        } while (d.good && n > 0);
    }
    d.done = chunks.done;
    d.used = (size_t)(at - (const char *)data);
    return d;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_head(data, size);
    struct decoded whole = decode(data, size, SIZE_MAX), bytes = decode(data, size, 1);
    require(whole.good == bytes.good && whole.done == bytes.done && whole.used == bytes.used);
    require(whole.sum == bytes.sum && whole.len == bytes.len && whole.len <= size);
    return 0;
}
