/* Keys and the fields they stand for. Private to common/formats: config.c, config_gguf.c and config_write.c
 * walk the same tables. */
#ifndef LB_FORMATS_CONFIG_KEYS_H
#define LB_FORMATS_CONFIG_KEYS_H

#include "common/formats/config.h"

static inline const void *lb_key_field(const struct lb_config *c, const struct lb_config_key *key) {
    return (const char *)c + key->field;
}

static inline int64_t *lb_key_int(struct lb_config *c, const struct lb_config_key *key) {
    return (int64_t *)(void *)((char *)c + key->field);
}

static inline double *lb_key_real(struct lb_config *c, const struct lb_config_key *key) {
    return (double *)(void *)((char *)c + key->field);
}

static inline bool *lb_key_bool(struct lb_config *c, const struct lb_config_key *key) {
    return (bool *)(void *)((char *)c + key->field);
}

/* The key that comes at i of two tables; NULL after the last. */
static inline const struct lb_config_key *lb_key_at(const struct lb_config_key *const tables[2], size_t i) {
    for (int t = 0; t < 2; t++) {
        for (const struct lb_config_key *key = tables[t]; key != NULL && key->name != NULL; key++) {
            if (i-- == 0) {
                return key;
            }
        }
    }
    return NULL;
}

/* Keys that no family uses: the one list of what is harmless or, unless neutral, refused; NULL: unknown. */
const struct lb_config_key *lb_config_known(const char *name);
const struct lb_config_key *lb_config_known_gguf(const char *name);
/* Whether a name speaks of what would change the numbers. */
bool lb_config_speaks_of_numbers(const char *name);

#endif
