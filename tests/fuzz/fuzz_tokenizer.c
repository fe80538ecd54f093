/* lb_tokenizer_parse: whatever is accepted can be asked, encodes text and decodes it, within its vocabulary.
 */
#include "common/base/mem.h"
#include "common/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

static const char text[] = "It's  the 12th \u00e9t\u00e9, <eos>ab\n\tabab \U0001f642\u4e00 a_b [MASK] THE";

static void use(const struct lb_tokenizer *t) {
    int32_t size = lb_tokenizer_vocab_size(t);
    for (int32_t id = -1; id <= size; id += 1 + id / 64) {
        const char *token = lb_tokenizer_token(t, id);
        size_t n;
        require(!token == !lb_tokenizer_bytes(t, id, &n));
        require(!token || lb_tokenizer_id(t, token) == id);
    }
    require(lb_tokenizer_eos(t) < size && lb_tokenizer_bos(t) < size &&
            strlen(lb_tokenizer_fingerprint(t)) == 64);
    struct lb_ids ids = {0};
    struct lb_detail detail = {0};
    enum lb_status status = lb_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &detail);
    require(status == detail.code);
    if (status == LB_OK) {
        struct lb_buf back;
        lb_buf_init(&back, (size_t)1 << 20);
        status = lb_tokenizer_decode(t, ids.data, ids.len, false, &back, &detail);
        require(status == LB_OK || status == LB_E_LIMIT);
        lb_buf_finish(&back);
    } else { /* a regex that gives up, a model that has no unknown token */
        require((status == LB_E_LIMIT || status == LB_E_UNSUPPORTED) && ids.len == 0);
    }
    lb_free(ids.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lb_tokenizer *t = NULL;
    struct lb_detail detail = {0};
    enum lb_status status = lb_tokenizer_parse(data, size, "input", &t, &detail);
    require(status == detail.code && (status == LB_OK) == (t != NULL));
    if (t) {
        size_t n;
        require(!memcmp(lb_tokenizer_source(t, &n), data, size) && n == size);
        use(t);
    }
    lb_tokenizer_destroy(t);
    return 0;
}
