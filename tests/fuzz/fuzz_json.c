/* lb_json_parse: whatever is accepted keeps within its depth and comes back the same after a dump. */
#include "common/base/json.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *value = NULL;
    struct lb_detail detail = {0};
    enum lb_status status = lb_json_parse(data, size, 8, "input", &value, &detail);
    require(status == detail.code);
    /* What is JSON proper means the same to the loose parser. */
    json_t *loose = NULL;
    enum lb_status loosely = lb_json_parse_loose(data, size, 8, "input", &loose, NULL);
    require(loosely == LB_OK || status != LB_OK);
    require(status != LB_OK || json_equal(value, loose));
    json_decref(loose);
    if (status != LB_OK) {
        require(value == NULL && detail.text[0] != '\0');
        return 0;
    }
    struct lb_buf buf;
    lb_buf_init(&buf, 64 + 16 * size);
    require(lb_json_dump(value, 0, &buf) == LB_OK);
    json_t *again = NULL;
    require(lb_json_parse(buf.data, buf.len, 8, "dump", &again, NULL) == LB_OK);
    require(json_equal(value, again));
    json_decref(again);
    json_decref(value);
    lb_buf_finish(&buf);
    return 0;
}
