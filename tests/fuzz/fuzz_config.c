/* lb_config_parse: whatever is accepted passes its check, and comes back the same when it is written. */
#include "common/model/families.h"
#include "tests/support/parameters.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth) {
    if (!truth) {
        abort();
    }
}

/* Writes config, and parses that into *again. */
static void rewrite(const struct lb_config *config, struct lb_buf *text, struct lb_config *again) {
    json_t *object = NULL;
    require(lb_config_write(config, NULL, "bfloat16", text) == LB_OK);
    require(lb_json_parse(text->data, text->len, 0, "again", &object, NULL) == LB_OK);
    require(lb_config_parse(object, "again", again, NULL, NULL) == LB_OK);
    json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *object = NULL;
    if (lb_json_parse(data, size, 0, "input", &object, NULL) != LB_OK) {
        return 0;
    }
    struct lb_config config, again, third;
    struct lb_detail detail = {0};
    enum lb_status status = lb_config_parse(object, "input", &config, NULL, &detail);
    json_decref(object);
    require(status == detail.code);
    if (status != LB_OK) {
        require(strncmp(detail.text, "input: ", 7) == 0);
        return 0;
    }
    require(lb_config_check(&config, "input", NULL) == LB_OK && config_parameters(&config) > 0);
    struct lb_buf first, second;
    lb_buf_init(&first, 1 << 20);
    lb_buf_init(&second, 1 << 20); /* a list of 4096 layers is long */
    rewrite(&config, &first, &again);
    rewrite(&again, &second, &third);
    require(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
    require(config_parameters(&again) == config_parameters(&config));
    lb_buf_finish(&first);
    lb_buf_finish(&second);
    return 0;
}
