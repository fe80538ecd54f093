/* Tokens that end a text: one id, or a list of them, in config.json and generation_config.json. */
#include "common/formats/config_keys.h"

#include <inttypes.h>

enum lb_status lb_config_read_ends(const json_t *value, int64_t vocab_size, const char *what, const char *key,
                                   struct lb_ends *out, struct lb_detail *detail) {
    size_t n = json_is_array(value) ? json_array_size(value) : value == NULL || json_is_null(value) ? 0 : 1;
    struct lb_ends ends = {0};
    if (n > LB_MAX_ENDS) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %s lists %zu tokens; at most %d are supported", what, key, n,
                       LB_MAX_ENDS);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_integer(item)) {
            return lb_fail(detail, LB_E_FORMAT, "%s: %s must be a token id, a list of them or null", what,
                           key);
        }
        int64_t id = json_integer_value(item);
        if (id < -1 || id >= vocab_size) {
            return lb_fail(detail, LB_E_ARG,
                           "%s: %s is %" PRId64 ", which is no id of a vocabulary of %" PRId64
                           "; use null for none",
                           what, key, id, vocab_size);
        }
        if (id >= 0 && !lb_ends_has(&ends, id)) {
            ends.ids[ends.n++] = id;
        }
    }
    *out = ends;
    return LB_OK;
}

struct lb_ends lb_config_ends(const struct lb_config *config) {
    struct lb_ends ends = {0};
    if (config->eos_token_id >= 0) {
        ends.ids[ends.n++] = config->eos_token_id;
    }
    for (int64_t i = 0; i < config->n_more_eos; i++) {
        ends.ids[ends.n++] = config->more_eos[i];
    }
    return ends;
}

void lb_config_set_ends(struct lb_config *config, const struct lb_ends *ends) {
    config->eos_token_id = ends->n > 0 ? ends->ids[0] : -1;
    config->n_more_eos = ends->n > 0 ? ends->n - 1 : 0;
    for (int64_t i = 0; i < LB_MAX_ENDS - 1; i++) {
        config->more_eos[i] = i < config->n_more_eos ? ends->ids[i + 1] : 0;
    }
}

bool lb_ends_has(const struct lb_ends *ends, int64_t id) {
    for (int64_t i = 0; i < ends->n; i++) {
        if (ends->ids[i] == id) {
            return true;
        }
    }
    return false;
}
